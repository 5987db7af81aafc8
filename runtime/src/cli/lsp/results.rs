//! What a hover tells beyond the text: what a field is worth, what a step measured. The cache is only looked into, and
//! nothing of the user's data is read.

use crate::config::{Config, Flags};
use crate::runs::Earlier;
use crate::{project, why};
use harness_cache::{Cache, Record};
use harness_dsl::{Catalog, Program, Step};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// Members of a family, and values of a field, that are shown.
const SHOWN: usize = 6;

/// The value of the field whose name, or whose value, lies at a place, where that says more than the text does.
pub fn value(program: &Program, text: &str, start: usize, end: usize) -> Option<String> {
    let mut values: Vec<String> = Vec::new();
    for step in &program.steps {
        for (path, span) in step.field_spans.iter().filter(|(_, span)| span.source == 0) {
            let named = span.start >= end && text.get(end..span.start).is_some_and(|gap| gap.trim() == "=");
            if !named && (span.start, span.end) != (start, end) {
                continue;
            }
            let Some(value) = at(&step.params, path) else { continue };
            let shown = shown(value, program);
            if text.get(span.start..span.end) != Some(&shown) && !values.contains(&shown) {
                values.push(shown);
            }
        }
    }
    let more = if values.len() > SHOWN { format!(" and {} more", values.len() - SHOWN) } else { String::new() };
    values.truncate(SHOWN);
    let all: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    (!all.is_empty()).then(|| format!("here {}{more}", all.join(", ")))
}

fn at<'a>(params: &'a serde_json::Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = params.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// A value in a few letters; steps by their labels.
fn shown(value: &Value, program: &Program) -> String {
    if let Some(reference) = value.get("$ref") {
        let label = reference["step"].as_u64().and_then(|id| program.steps.get(id as usize));
        let label = label.map_or("?", |step| step.label.as_str());
        return format!("{label}.{}", reference["output"].as_str().unwrap_or_default());
    }
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(79).chain(['…']).collect() }
}

/// The newest recorded results of a family's members, with their numbers.
pub fn of(family: &str, program: &Program, file: &Path, catalog: &Catalog) -> Option<String> {
    let config = Config::find(project::folder(file), &Flags::default()).ok()?;
    // Looking must not make a cache where there is none.
    if !config.cache.is_dir() {
        return None;
    }
    let cache = Cache::open(&config.cache).ok()?;
    let mut earlier = Earlier::of(&cache, file);
    let members: Vec<&Step> = program.steps.iter().filter(|step| step.name == family && !step.implied).collect();
    let mut out = String::new();
    let mut known = 0;
    for step in &members {
        let Some(record) = earlier.find(&step.label, |key| Ok(cache.record(key)?)).ok().flatten() else { continue };
        known += 1;
        if known > SHOWN {
            continue;
        }
        let numbers = numbers(&record, step, catalog);
        let numbers = if numbers.is_empty() { "done".to_owned() } else { numbers };
        let when = super::super::when(record.finished_unix_ms);
        let took = crate::listen::seconds(record.duration_s);
        let since = why::fields_since(step, catalog, &config, &cache, &record);
        let since = match since.as_slice() {
            [] => String::new(),
            fields => format!("; before {} changed", fields.join(", ")),
        };
        let _ = write!(out, "\n- `{}`: {numbers} ({when}, took {took}{since})", step.label);
    }
    if known == 0 {
        return None;
    }
    let count = if members.len() > 1 { format!(" of {} of {} members", known, members.len()) } else { String::new() };
    Some(format!("newest recorded results{count}:\n{out}"))
}

fn numbers(record: &Record, step: &Step, catalog: &Catalog) -> String {
    let kind = catalog.kind(&step.kind);
    let one = |name: &str, value: f64, last: &str| {
        let percent = kind.and_then(|kind| kind.metric(name)).is_some_and(|metric| metric.percent);
        if percent { format!("{name}{last} {:.1} %", value * 100.0) } else { format!("{name}{last} {value:.4}") }
    };
    let metrics = record.metrics.iter().map(|(name, value)| one(name, *value, ""));
    let series = record.series.iter().filter_map(|(name, series)| Some(one(name, *series.y.last()?, ".last")));
    metrics.chain(series).take(SHOWN).collect::<Vec<_>>().join(", ")
}
