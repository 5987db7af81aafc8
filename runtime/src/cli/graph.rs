//! `harness graph`: what depends on what, a family a node.

mod svg;

use crate::{catalog, start, text};
use anyhow::Result;
use clap::{Args, ValueEnum};
use harness_dsl::Program;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// `harness graph`
#[derive(Args, Debug)]
pub struct Graph {
    /// The .exp file
    pub file: PathBuf,
    /// The language of the text
    #[arg(long, value_enum, default_value_t = Form::Dot)]
    pub format: Form,
    /// Give a param another value
    #[arg(short, value_name = "NAME=VALUE", value_parser = super::param)]
    pub params: Vec<(String, String)>,
}

/// What a graph is written in.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Graphviz: `harness graph FILE | dot -Tsvg`
    Dot,
    /// Mermaid, as Markdown renderers show it
    Mermaid,
    /// A picture, for a page or a paper
    Svg,
}

/// Prints the graph.
///
/// # Errors
/// The file cannot be read; what is wrong with its text is shown, and makes the exit status 2.
pub fn graph(arguments: &Graph) -> Result<ExitCode> {
    let catalog = catalog::catalog();
    let text = text::read(&arguments.file, &catalog, &arguments.params)?;
    if !start::report(&text, false) {
        return Ok(ExitCode::from(2));
    }
    if let Some(program) = &text.checked.program {
        print!("{}", write(program, arguments.format));
    }
    Ok(ExitCode::SUCCESS)
}

/// A family: its kind, its members, and the families that it takes something from.
struct Node {
    kind: String,
    members: usize,
    axes: Vec<String>,
    inputs: Vec<usize>,
}

fn write(program: &Program, form: Form) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    // What each step takes from written steps. Implied ones, of which there are two for every evaluation, have no name
    // that anybody wrote: what they take is taken by who uses them.
    let mut takes: Vec<Vec<usize>> = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        // A step comes after those it takes something from.
        let through = step.inputs.iter().flat_map(|&input| match program.steps[input].implied {
            true => takes[input].clone(),
            false => vec![input],
        });
        let mut from: Vec<usize> = through.collect();
        from.sort_unstable();
        from.dedup();
        if step.implied {
            takes.push(from);
            continue;
        }
        let at = *number.entry(step.name.as_str()).or_insert_with(|| {
            order.push(&step.name);
            let axes = step.axes.iter().map(|axis| axis.name.clone()).collect();
            nodes.push(Node { kind: step.kind.clone(), members: 0, axes, inputs: Vec::new() });
            nodes.len() - 1
        });
        nodes[at].members += 1;
        for input in &from {
            if let Some(&from) = number.get(program.steps[*input].name.as_str())
                && from != at
                && !nodes[at].inputs.contains(&from)
            {
                nodes[at].inputs.push(from);
            }
        }
        takes.push(from);
    }
    let label = |at: usize, newline: &str| {
        let node = &nodes[at];
        let axes = if node.axes.is_empty() { String::new() } else { format!(" over {}", node.axes.join(", ")) };
        let members = if node.members > 1 { format!("{newline}{} steps{axes}", node.members) } else { String::new() };
        format!("{}{newline}{}{members}", order[at], node.kind)
    };
    let mut out = String::new();
    match form {
        Form::Svg => {
            let boxes: Vec<svg::Box<'_>> = (0..nodes.len())
                .map(|at| svg::Box { name: order[at], lines: label(at, "\n"), inputs: &nodes[at].inputs })
                .collect();
            return svg::draw(&boxes);
        }
        Form::Dot => {
            out.push_str("digraph experiment {\n    rankdir=LR;\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
            for at in 0..nodes.len() {
                let _ = writeln!(out, "    n{at} [label=\"{}\"];", label(at, "\\n").replace('"', "\\\""));
            }
        }
        Form::Mermaid => {
            out.push_str("graph LR\n");
            for at in 0..nodes.len() {
                let _ = writeln!(out, "    n{at}[\"{}\"]", label(at, "<br>").replace('"', "#quot;"));
            }
        }
    }
    for (at, node) in nodes.iter().enumerate() {
        for from in &node.inputs {
            let _ = match form {
                Form::Dot | Form::Svg => writeln!(out, "    n{from} -> n{at};"),
                Form::Mermaid => writeln!(out, "    n{from} --> n{at}"),
            };
        }
    }
    if form == Form::Dot {
        out.push_str("}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_dsl::Overrides;

    #[test]
    fn families_are_folded() {
        let text = "scenes world {}\nreplicate seed in [1, 2] { encoder net { source = random }\n\
                    knn nn { encoder = net, train = world.train, test = world.test } }";
        let checked = text::check("g.exp", text, &text::Files, &catalog::catalog(), &Overrides::new());
        let program = crate::implied::imply(checked.program.unwrap());
        assert!(program.steps.iter().any(|step| step.implied));
        let dot = write(&program, Form::Dot);
        assert!(dot.contains("n0 -> n") && dot.contains("net\\nencoder\\n2 steps over seed"), "{dot}");
        assert_eq!(dot.matches("[label=").count(), 3);
        let mermaid = write(&program, Form::Mermaid);
        assert_eq!(mermaid.matches(" --> ").count(), 2, "{mermaid}");
    }
}
