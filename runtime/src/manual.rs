//! The reference manual of every kind of step, written from the same structs that the checker goes by.

use harness_dsl::{Catalog, Field, Kind, Metric, Type};
use harness_protocol::{Executor, steps};
use serde_json::Value;
use std::fmt::Write as _;

/// What begins the page, with the command that writes it.
const HEAD: &str = "# Reference: kinds of steps

This page is written by `make manual` from the parameter structs of the kinds; a test holds it to them. `harness describe
KIND` says the same of one kind, and an editor shows it on hover.

A field without a default is **required**. *Only observes*: a field that never makes a step run again, since no result
depends on it. Shares (accuracies, mIoU, J&F) are in percent wherever tables and claims show them. A step's bare name stands for its
first output; `name.output` for another.
";

/// The whole page.
pub fn manual(catalog: &Catalog) -> String {
    let mut out = HEAD.to_owned();
    type Belongs = fn(&Kind) -> bool;
    let groups: [(&str, &str, Belongs); 4] = [
        ("Datasets", "what there is to look at", |kind| crate::datasets::is_dataset(&kind.name)),
        ("Encoders", "what looks at it", |kind| gives(kind, "encoder")),
        ("Evaluations and tools", "what is asked of an encoder", |kind| kind.name != "command"),
        ("Programs of your own", "anything else", |_| true),
    ];
    let mut left: Vec<&Kind> = catalog.kinds.iter().collect();
    let mut chapters = Vec::new();
    for (title, what, belongs) in groups {
        let (mut mine, others): (Vec<&Kind>, Vec<&Kind>) = left.into_iter().partition(|kind| belongs(kind));
        left = others;
        mine.sort_by(|a, b| a.name.cmp(&b.name));
        chapters.push((title, what, mine));
    }
    for (title, what, kinds) in &chapters {
        let _ = writeln!(out, "\n**{title}**, {what}:\n");
        for kind in kinds {
            let _ = writeln!(out, "- [`{0}`](#{0}): {1}", kind.name, line(first_sentence(&kind.doc)));
        }
    }
    for (title, _, kinds) in chapters {
        let _ = write!(out, "\n## {title}\n");
        kinds.into_iter().for_each(|kind| about(&mut out, kind));
    }
    out
}

fn gives(kind: &Kind, artifact: &str) -> bool {
    kind.outputs.iter().any(|output| output.artifact == artifact)
}

fn about(out: &mut String, kind: &Kind) {
    let _ = writeln!(out, "\n### {}\n\n{}", kind.name, paragraph(&kind.doc));
    let info = steps::kind(&kind.name);
    let by = match info.map(|info| info.executor) {
        Some(Executor::Worker) => "computed by a worker, on a device slot",
        _ => "done by `harness` itself",
    };
    let random = if kind.random { "; draws random numbers, from `seed`" } else { "" };
    let version = info.map_or(0, |info| info.version);
    let _ = writeln!(out, "\n*Version {version}; {by}{random}.*\n\nTakes:\n");
    if kind.fields.is_empty() {
        out.push_str("- nothing\n");
    }
    // What is required comes first; otherwise the order of the struct.
    let (needed, others): (Vec<&Field>, Vec<&Field>) = kind.fields.iter().partition(|field| field.required);
    needed.into_iter().chain(others).for_each(|one| field(out, one, 0));
    if !kind.outputs.is_empty() || kind.dynamic_outputs {
        out.push_str("\nGives:\n\n");
        for output in &kind.outputs {
            let artifact = match output.artifact.strip_prefix("same as ") {
                Some(field) => format!("what `{field}` is"),
                None => format!("`{}`", output.artifact),
            };
            let _ = writeln!(out, "- `{}`: {artifact}. {}", output.name, line(&output.doc));
        }
        if kind.dynamic_outputs {
            out.push_str("- what its field `outputs` declares\n");
        }
    }
    if !kind.metrics.is_empty() || kind.dynamic_metrics {
        out.push_str("\nMeasures:\n\n");
        kind.metrics.iter().for_each(|one| metric(out, one));
        if kind.dynamic_metrics {
            out.push_str("- what its field `metrics` declares\n");
        }
    }
}

fn metric(out: &mut String, metric: &Metric) {
    let mut words = vec![if metric.series { "a curve" } else { "a number" }.to_owned()];
    if metric.percent {
        words.push("in percent".into());
    }
    words.push(if metric.higher_is_better { "more is better" } else { "less is better" }.into());
    if metric.on_test {
        words.push("on test data".into());
    }
    if let (Some(floor), label) = (&metric.floor, metric.floor_label.as_deref().unwrap_or("trivial predictor")) {
        words.push(format!("beside `{floor}` ({label})"));
    }
    let _ = writeln!(out, "- `{}`: {}. {}", metric.name, words.join(", "), line(&metric.doc));
}

fn field(out: &mut String, field: &Field, depth: usize) {
    let indent = "  ".repeat(depth);
    let default = match &field.default {
        _ if field.required => ", **required**".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(value) => format!(", default `{}`", written(value, &field.ty)),
    };
    let observes = if field.observes { " *Only observes.*" } else { "" };
    let _ = writeln!(out, "{indent}- `{}`: {}{default}. {}{observes}", field.name, called(&field.ty), line(&field.doc));
    inside(out, &field.ty, depth + 1);
}

/// The fields inside a field.
fn inside(out: &mut String, ty: &Type, depth: usize) {
    match ty {
        Type::Record(fields) => fields.iter().for_each(|one| field(out, one, depth)),
        Type::Optional(inner) | Type::List(inner) | Type::Map(inner) => inside(out, inner, depth),
        Type::Tagged(variants) => {
            for variant in variants {
                let braces = if variant.fields.is_empty() { "" } else { " { … }" };
                let _ = writeln!(out, "{}- `{}{braces}`: {}", "  ".repeat(depth), variant.name, line(&variant.doc));
                variant.fields.iter().for_each(|one| field(out, one, depth + 1));
            }
        }
        _ => {}
    }
}

/// A type with its range.
fn called(ty: &Type) -> String {
    let range = |what: &str, min: Option<String>, max: Option<String>| match (min, max) {
        (Some(min), Some(max)) => format!("{what}, {min} to {max}"),
        (Some(min), None) => format!("{what}, at least {min}"),
        (None, Some(max)) => format!("{what}, at most {max}"),
        (None, None) => what.to_owned(),
    };
    match ty {
        Type::Bool => "`true` or `false`".into(),
        Type::Int { min, max } => range("integer", min.map(|m| m.to_string()), max.map(|m| m.to_string())),
        Type::Float { min: Some(min), max, exclusive_min: true } => match max {
            Some(max) => format!("number above {min}, at most {max}"),
            None => format!("number above {min}"),
        },
        Type::Float { min, max, .. } => range("number", min.map(|m| m.to_string()), max.map(|m| m.to_string())),
        Type::Text => "text".into(),
        Type::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        Type::Path => "path (`@root/place`, or a text)".into(),
        Type::Duration => "duration (`90s`, `30min`, `12h`)".into(),
        Type::Size => "size (`2GiB`)".into(),
        Type::Range(inner) => format!("range `a..b` of {}s", called(inner)),
        Type::List(inner) => format!("list of: {}", called(inner)),
        Type::Map(inner) => format!("record, names to: {}", called(inner)),
        Type::Record(_) => "record `{ … }`".into(),
        Type::Tagged(_) => "one of".into(),
        Type::Input(kinds) if kinds.len() == harness_protocol::artifact::KINDS.len() => "any step's output".into(),
        Type::Input(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            format!("a step that gives {}", kinds.join(" or "))
        }
        Type::Optional(inner) => format!("{}; or `none`", called(inner)),
        Type::Any => "anything".into(),
    }
}

/// A default as the language writes it.
fn written(value: &Value, ty: &Type) -> String {
    match (ty, value) {
        (Type::Optional(inner), _) => written(value, inner),
        (Type::Choice(_), Value::String(word)) => word.clone(),
        (Type::Duration, Value::Number(seconds)) => format!("{seconds}s"),
        (Type::Size, Value::Number(bytes)) => format!("{bytes}B"),
        (Type::Range(_), Value::Array(ends)) if ends.len() == 2 => format!("{}..{}", ends[0], ends[1]),
        (Type::List(inner), Value::Array(items)) => {
            format!("[{}]", items.iter().map(|item| written(item, inner)).collect::<Vec<_>>().join(", "))
        }
        (Type::Record(fields), Value::Object(map)) => body(map, fields),
        (Type::Tagged(variants), Value::Object(map)) => match map.iter().next() {
            Some((tag, Value::Object(inner))) => {
                let fields = variants.iter().find(|variant| variant.name == *tag).map(|v| v.fields.as_slice());
                let inner = body(inner, fields.unwrap_or_default());
                if inner == "{}" { tag.clone() } else { format!("{tag} {inner}") }
            }
            _ => value.to_string(),
        },
        (Type::Tagged(_), Value::String(tag)) => tag.clone(),
        (_, Value::Null) => "none".into(),
        _ => value.to_string(),
    }
}

fn body(map: &serde_json::Map<String, Value>, fields: &[Field]) -> String {
    let own = |name: &str| fields.iter().find(|field| field.name == name);
    // What is nothing by default needs no mention.
    let parts: Vec<String> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match own(name) {
            Some(field) => format!("{name} = {}", written(value, &field.ty)),
            None => format!("{name} = {value}"),
        })
        .collect();
    if parts.is_empty() { "{}".into() } else { format!("{{ {} }}", parts.join(", ")) }
}

/// A description on one line.
fn line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A description with its paragraphs.
fn paragraph(doc: &str) -> String {
    doc.split("\n\n").map(line).collect::<Vec<_>>().join("\n\n")
}

fn first_sentence(doc: &str) -> &str {
    let first = doc.split("\n\n").next().unwrap_or_default();
    // A point behind an abbreviation ends nothing.
    let ends = |at: &usize| {
        let before = first[..*at].rsplit(' ').next().unwrap_or_default();
        !matches!(before.trim_start_matches('('), "al" | "e.g" | "i.e" | "cf")
    };
    first.match_indices(". ").map(|(at, _)| at).find(ends).map_or(first, |at| &first[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_the_structs_say() {
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
        let there = std::fs::read_to_string(place).unwrap_or_default();
        let now = manual(&crate::catalog::catalog());
        if there != now {
            let at = there.lines().zip(now.lines()).position(|(old, new)| old != new);
            let at = at.unwrap_or(there.lines().count().min(now.lines().count()));
            panic!(
                "docs/reference.md is not what the kinds say any more, from line {}:\n  there {:?}\n  now   {:?}\n\n`make manual` writes it",
                at + 1,
                there.lines().nth(at).unwrap_or_default(),
                now.lines().nth(at).unwrap_or_default()
            );
        }
    }

    #[test]
    fn defaults_are_written_as_the_language_has_them() {
        let catalog = crate::catalog::catalog();
        for kind in &catalog.kinds {
            for one in &kind.fields {
                let Some(value) = one.default.as_ref().filter(|value| !value.is_null()) else { continue };
                let text = written(value, &one.ty);
                let program = format!("{} x {{ {} = {text} }}", kind.name, one.name);
                let checked = crate::text::check("a.exp", &program, &crate::text::Files, &catalog, &Vec::new());
                // Other fields may be missing; this one must be right.
                let wrong: Vec<_> =
                    checked.diagnostics.iter().filter(|d| !matches!(d.code, "E0105" | "E0401" | "W0201")).collect();
                assert!(wrong.is_empty(), "{program}\n{wrong:?}");
            }
        }
    }
}
