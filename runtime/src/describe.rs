//! Subcommands that only tell: codes, kinds.

use anyhow::{Result, bail};
use harness_dsl::{Field, Type};
use std::process::ExitCode;

/// `harness explain [CODE]`
pub fn explain(code: Option<&str>) -> Result<ExitCode> {
    let Some(code) = code else {
        for (code, text) in harness_dsl::EXPLANATIONS {
            println!("{code}  {}", text.lines().next().unwrap_or_default());
        }
        return Ok(ExitCode::SUCCESS);
    };
    match harness_dsl::explain(code) {
        Some(text) => println!("{}", text.trim()),
        None => bail!("there is no code {code}; `harness explain` lists them"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `harness describe --markdown`
pub fn all() -> Result<ExitCode> {
    print!("{}", crate::manual::manual(&crate::catalog::catalog()));
    Ok(ExitCode::SUCCESS)
}

/// `harness describe [KIND]`
pub fn kind(name: Option<&str>) -> Result<ExitCode> {
    let catalog = crate::catalog::catalog();
    let Some(name) = name else {
        for kind in &catalog.kinds {
            println!("{:20} {}", kind.name, kind.doc.lines().next().unwrap_or_default());
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(kind) = catalog.kind(name) else {
        let names: Vec<&str> = catalog.kinds.iter().map(|kind| kind.name.as_str()).collect();
        match harness_dsl::did_you_mean(name, names.iter().copied()) {
            Some(help) => bail!("there is no kind `{name}`; {help}"),
            None => bail!("there is no kind `{name}`; there are {}", names.join(", ")),
        }
    };
    println!("{}\n\n{}\n\nfields", kind.name, kind.doc);
    fields(&kind.fields, 1);
    println!("\noutputs");
    kind.outputs.iter().for_each(|output| println!("  {:16} {:18} {}", output.name, output.artifact, output.doc));
    println!("\nmetrics");
    for metric in &kind.metrics {
        println!("  {:16} {:18} {}", metric.name, if metric.series { "series" } else { "number" }, metric.doc);
    }
    Ok(ExitCode::SUCCESS)
}

fn fields(list: &[Field], depth: usize) {
    let indent = "  ".repeat(depth);
    for field in list {
        let default = match &field.default {
            _ if field.required => ", required".into(),
            Some(value) if value.is_object() || value.is_null() => String::new(),
            Some(value) => format!(" = {value}"),
            None => String::new(),
        };
        let observes = if field.observes { ", only observes" } else { "" };
        println!(
            "{indent}{}: {}{default}{observes}\n{indent}    {}",
            field.name,
            name(&field.ty),
            field.doc.replace('\n', " ")
        );
        inner(&field.ty, depth + 1);
    }
}

fn inner(ty: &Type, depth: usize) {
    match ty {
        Type::Record(list) => fields(list, depth),
        Type::Optional(ty) | Type::List(ty) | Type::Map(ty) => inner(ty, depth),
        Type::Tagged(variants) => {
            for variant in variants {
                println!("{}{} {{ }}  {}", "  ".repeat(depth), variant.name, variant.doc.replace('\n', " "));
                fields(&variant.fields, depth + 1);
            }
        }
        _ => {}
    }
}

fn name(ty: &Type) -> String {
    let range = |min: Option<String>, max: Option<String>| match (min, max) {
        (Some(min), Some(max)) => format!(" {min}..{max}"),
        (Some(min), None) => format!(" from {min}"),
        (None, Some(max)) => format!(" up to {max}"),
        _ => String::new(),
    };
    match ty {
        Type::Bool => "true or false".into(),
        Type::Int { min, max } => format!("integer{}", range(min.map(|v| v.to_string()), max.map(|v| v.to_string()))),
        Type::Float { min, max, exclusive_min } => {
            let above = if *exclusive_min { "above " } else { "" };
            format!("number{}", range(min.map(|v| format!("{above}{v}")), max.map(|v| v.to_string())))
        }
        Type::Text => "text".into(),
        Type::Choice(words) => words.join(" | "),
        Type::Path => "path".into(),
        Type::Duration => "duration".into(),
        Type::Size => "size".into(),
        Type::Range(_) => "range".into(),
        Type::List(ty) => format!("list of {}", name(ty)),
        Type::Map(ty) => format!("names to {}", name(ty)),
        Type::Record(_) => "record".into(),
        Type::Tagged(variants) => variants.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(" | "),
        Type::Input(kinds) => kinds.join(" | "),
        Type::Optional(ty) => format!("{} or none", name(ty)),
        Type::Any => "anything".into(),
    }
}
