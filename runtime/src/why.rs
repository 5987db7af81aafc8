//! `harness why`: what makes a step's key differ from that of the newest earlier result of the same name.

use crate::cli;
use crate::config::{Config, Flags};
use crate::events::Status;
use crate::run::{Request, State};
use crate::{catalog, inputs, run as engine, start, text};
use anyhow::{Context as _, Result};
use harness_cache::{Cache, Difference, Digest, Record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Files of a dataset that are named.
const NAMED: usize = 5;
/// Letters of a value that are shown.
const SHOWN: usize = 80;

/// `harness why`
pub fn why(arguments: &cli::Why) -> Result<ExitCode> {
    let catalog = catalog::catalog();
    let text = text::read(&arguments.file, &catalog, &arguments.params)?;
    if !start::report(&text, false) {
        return Ok(ExitCode::from(2));
    }
    let Some(program) = &text.checked.program else { return Ok(ExitCode::from(2)) };
    let folder = arguments.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let config = Config::find(folder, &Flags { cache: arguments.cache.clone(), jobs: None, device: None })?;
    let asked = text::matching(program, std::slice::from_ref(&arguments.step))?;
    let wanted = text::select(program, std::slice::from_ref(&arguments.step))?;
    let cache = Cache::open(&config.cache).with_context(|| format!("the cache {}", config.cache.display()))?;
    let request = Request {
        program,
        catalog: &catalog,
        config: &config,
        cache: &cache,
        wanted: wanted.clone(),
        forced: vec![false; program.steps.len()],
        keep_going: true,
        dry_run: true,
        slots: vec!["cpu".into()],
        worker: None,
        missing_worker: None,
        logs: cache.dir().join("runs"),
        cancel: Default::default(),
        hurry: Default::default(),
    };
    let states = engine::run(&request, &mut |_| ())?;
    let earlier = earlier(&cache, &arguments.file);
    for step in (0..program.steps.len()).filter(|&step| wanted[step]) {
        let (spec, state) = (&program.steps[step], &states[step]);
        let known = state.finished.is_some();
        // Of what comes before, only what is not as it was says anything.
        let now = state.action.as_ref();
        let other = earlier.get(&spec.label).into_iter().flatten().find(|key| Some(**key) != state.key);
        let other = other.map(|key| cache.record(key)).transpose()?.flatten();
        if !asked.contains(&step) && (known || now.is_none()) {
            continue;
        }
        println!("{}: {}", spec.label, standing(state));
        match (&other, now) {
            (Some(other), Some(now)) => {
                println!("  against the result of {} (key {}):", when(other), short(&other.digest));
                for difference in other.key.diff(now) {
                    println!("    {}", told(&difference));
                }
                for line in files(&cache, other, state) {
                    println!("    {line}");
                }
            }
            (None, Some(_)) if !known => println!("  no earlier run has a result of this name"),
            _ => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a step stands, in words.
fn standing(state: &State) -> String {
    match (&state.finished, &state.error) {
        (Some(finished), _) if state.status != Status::Failed => {
            let record = &finished.record;
            format!("known, computed {} in {} (key {})", when(record), seconds(record), short(&record.digest))
        }
        (_, Some(error)) => error.clone(),
        _ => match state.key {
            Some(key) => format!("would be computed (key {})", short(&key)),
            None => "would be computed".into(),
        },
    }
}

fn when(record: &Record) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(record.finished_unix_ms).unwrap_or_default()).ok();
    at.map_or("an unknown time".into(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn seconds(record: &Record) -> String {
    crate::listen::seconds(record.duration_s)
}

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

/// One difference as `k: 20 -> 30`.
fn told(difference: &Difference) -> String {
    let path = difference.path.strip_prefix("params.").unwrap_or(&difference.path);
    let value = |value: &Option<Value>| match value {
        None => "nothing".to_string(),
        Some(value) => {
            let text = value.to_string();
            let cut: String = text.chars().take(SHOWN).collect();
            if cut.len() < text.len() { format!("{cut}…") } else { text }
        }
    };
    match path.strip_suffix(".$artifact.digest") {
        Some(field) => format!(
            "{field}: another content, {} -> {}",
            value(&difference.before).trim_matches('"').chars().take(12).collect::<String>(),
            value(&difference.after).trim_matches('"').chars().take(12).collect::<String>()
        ),
        None => format!("{path}: {} -> {}", value(&difference.before), value(&difference.after)),
    }
}

/// Files that differ between the manifests of two results of a dataset.
fn files(cache: &Cache, earlier: &Record, state: &State) -> Vec<String> {
    let Some(finished) = &state.finished else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, now) in &finished.record.outputs {
        let Some(before) = earlier.outputs.get(name).filter(|before| before.digest != now.digest) else { continue };
        let (Some(before), Some(now)) = (listed(cache, &before.digest), listed(cache, &now.digest)) else { continue };
        let mut changed: Vec<String> = Vec::new();
        for (path, digest) in &now {
            match before.get(path) {
                None => changed.push(format!("{path} is new")),
                Some(old) if old != digest => changed.push(format!("{path} changed")),
                _ => {}
            }
        }
        changed.extend(before.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("{path} is gone")));
        let more = changed.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        if !changed.is_empty() {
            changed.truncate(NAMED);
            lines.push(format!("{name}: {}{more}", changed.join(", ")));
        }
    }
    lines
}

fn listed(cache: &Cache, digest: &Digest) -> Option<BTreeMap<String, String>> {
    let path = cache.verified(digest).ok().flatten()?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let mut files = BTreeMap::new();
    inputs::list(&manifest, &mut files);
    Some(files)
}

/// Keys that earlier runs of a file of this name had for each label, newest first: other experiments in the same cache
/// have steps of the same names. Runs whose events cannot be read are passed over.
fn earlier(cache: &Cache, file: &Path) -> BTreeMap<String, Vec<Digest>> {
    let mut runs: Vec<_> = std::fs::read_dir(cache.dir().join("runs")).into_iter().flatten().flatten().collect();
    // Names begin with the time.
    runs.sort_by_key(|run| std::cmp::Reverse(run.file_name()));
    let mut found: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for run in runs {
        let events = std::fs::read_to_string(run.path().join("events.jsonl")).unwrap_or_default();
        let started: Value = events.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        if started["file"].as_str().map(Path::new).and_then(Path::file_name) != file.file_name() {
            continue;
        }
        for line in events.lines().filter(|line| line.contains("step_finished")) {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let (Some(label), Some(key)) = (event["label"].as_str(), event["key"].as_str()) else { continue };
            let done = matches!(event["status"].as_str(), Some("executed" | "cached"));
            if let (true, Ok(key)) = (done, key.parse::<Digest>()) {
                found.entry(label.into()).or_default().push(key);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_cache::ActionKey;
    use serde_json::json;

    #[test]
    fn differences_read_like_sentences() {
        let key = |k: u64, train: &str| {
            ActionKey::new("knn", 1, json!({ "k": k, "train": { "$artifact": { "kind": "images", "digest": train } } }))
        };
        let told: Vec<String> =
            key(20, "aaaaaaaaaaaaaaaa").diff(&key(30, "bbbbbbbbbbbbbbbb")).iter().map(told).collect();
        assert_eq!(told, ["k: 20 -> 30", "train: another content, aaaaaaaaaaaa -> bbbbbbbbbbbb"]);
    }
}
