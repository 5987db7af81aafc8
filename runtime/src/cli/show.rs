//! `harness show` and `harness log`: what is known of one step.

use crate::cli::{Place, aligned, bytes, completions, print_json, when};
use crate::listen::{seconds, short as number};
use crate::project::Project;
use crate::run::State;
use crate::runs::Earlier;
use crate::{runs, text, why};
use anyhow::{Result, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use harness_cache::{Digest, Record};
use harness_dsl::Step;
use harness_protocol::{KindInfo, steps};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Letters of a parameter that are shown.
const SHOWN: usize = 200;

/// `harness show`
#[derive(Args, Debug)]
pub struct Show {
    /// The .exp file; or `program` or `actions`, and the file after it, for a stage as JSON
    #[arg(value_name = "FILE|STAGE")]
    pub file: PathBuf,
    /// A family or the label of a step: `'nearest[seed=1, method=moco]'`
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub step: String,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `harness log`
#[derive(Args, Debug)]
pub struct Log {
    /// The .exp file
    pub file: PathBuf,
    /// A family or the label of a step
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub step: String,
    #[command(flatten)]
    pub place: Place,
}

/// Runs `harness show`.
///
/// # Errors
/// No such file or step, a cache that cannot be read.
pub fn show(arguments: &Show) -> Result<ExitCode> {
    let place = &arguments.place;
    let stage = arguments.file.to_str().filter(|word| matches!(*word, "program" | "actions" | "ast"));
    if let Some(stage) = stage.filter(|_| !arguments.file.is_file()) {
        return self::stage(stage, Path::new(&arguments.step), place);
    }
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let target = std::slice::from_ref(&arguments.step);
    let asked = text::matching(&project.program, target)?;
    let states = project.look(&text::select(&project.program, target)?)?;
    let mut shown = Vec::new();
    for (index, step) in asked.into_iter().map(|step| &project.program.steps[step]).enumerate() {
        let state = &states[step.id];
        let (record, present) = match &state.finished {
            Some(finished) => (Some(finished.record.clone()), true),
            None => (newest(&project, &step.label)?, false),
        };
        if arguments.json {
            shown.push(as_json(&project, step, state, record.as_ref(), present)?);
            continue;
        }
        if index > 0 {
            println!();
        }
        print(&project, step, state, record.as_ref(), present)?;
    }
    if arguments.json {
        print_json(&shown)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A stage between text and jobs, as JSON.
fn stage(stage: &str, file: &Path, place: &Place) -> Result<ExitCode> {
    let Some(project) = Project::open(file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    match stage {
        "program" => print_json(&project.program)?,
        "actions" => {
            let wanted = vec![true; project.program.steps.len()];
            let states = project.look(&wanted)?;
            let actions: Vec<Value> = project
                .program
                .steps
                .iter()
                .zip(&states)
                .map(|(step, state)| json!({ "label": step.label, "digest": state.key, "key": state.action }))
                .collect();
            print_json(&actions)?;
        }
        other => bail!("the stage `{other}` cannot be shown; `harness show program FILE` and `actions FILE` can"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest result of a name among earlier runs of the file.
fn newest(project: &Project, label: &str) -> Result<Option<Record>> {
    Earlier::of(&project.cache, &project.file).find(label, |key| Ok(project.cache.record(key)?))
}

fn blob(project: &Project, digest: &Digest) -> Result<String> {
    Ok(match project.cache.blob(digest)? {
        Some(path) => path.display().to_string(),
        None => "gone from the cache".into(),
    })
}

/// One sentence on how the step stands.
fn standing(project: &Project, step: &Step, state: &State, record: Option<&Record>, present: bool) -> String {
    match (record, present) {
        (Some(record), true) => {
            format!("known, computed {} UTC in {}", when(record.finished_unix_ms), seconds(record.duration_s))
        }
        (Some(record), false) => format!(
            "would be computed; below is its newest earlier result, of {} UTC (`harness why {} '{}'` says what differs)",
            when(record.finished_unix_ms),
            project.file.display(),
            step.label
        ),
        (None, _) => match state.error.as_deref().filter(|_| state.status == crate::events::Status::Failed) {
            Some(error) => format!("cannot be computed: {error}"),
            None => format!("has no result yet; `{} '{}'` computes it", project.run_command(), step.label),
        },
    }
}

/// Parameters one below the other: dotted path, value, and for inputs where they come from.
fn parameters(project: &Project, step: &Step, params: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let written = text::fields(step, &project.catalog);
    flatten(params, String::new(), &mut |path, value| {
        let value = match value.get("$artifact") {
            Some(artifact) => {
                let from = why::at(&written, &path).map(|place| source(project, place)).unwrap_or_default();
                let digest = artifact["digest"].as_str().unwrap_or_default();
                format!("{from}  {}  {}", artifact["kind"].as_str().unwrap_or_default(), why::short(digest))
                    .trim()
                    .to_string()
            }
            None => value.as_str().map_or_else(|| value.to_string(), String::from),
        };
        let cut: String = value.chars().take(SHOWN).collect();
        let value = if cut.len() < value.len() { format!("{cut}…") } else { value };
        rows.push(vec![format!("  {path}"), value.replace('\n', "\\n")]);
    });
    rows
}

/// Where an input comes from, as written.
fn source(project: &Project, place: &Value) -> String {
    if let Some(reference) = place.get("$ref") {
        let step = reference["step"].as_u64().and_then(|id| project.program.steps.get(id as usize));
        let output = reference["output"].as_str().unwrap_or_default();
        return format!("{}.{output}", step.map_or("", |step| step.label.as_str()));
    }
    let root = place["root"].as_str().map(|root| format!("@{root}/")).unwrap_or_default();
    place["path"].as_str().map(|path| format!("{root}{path}")).unwrap_or_default()
}

fn flatten(value: &Value, path: String, row: &mut dyn FnMut(String, &Value)) {
    match value {
        Value::Object(map) if !map.contains_key("$artifact") && !map.is_empty() => {
            for (name, inner) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(inner, path, row);
            }
        }
        other => row(path, other),
    }
}

/// Whether a metric is a share, and the metric and words of its floor.
fn metric(info: Option<&KindInfo>, name: &str) -> (bool, Option<(&'static str, &'static str)>) {
    let found = info.and_then(|info| info.metrics.iter().find(|metric| metric.name == name));
    (found.is_some_and(|metric| metric.percent), found.and_then(|metric| metric.floor))
}

fn print(project: &Project, step: &Step, state: &State, record: Option<&Record>, present: bool) -> Result<()> {
    let info = steps::kind(&step.kind);
    let version = record.map_or(info.map_or(0, |info| info.version), |record| record.key.version);
    println!("{}  {}, version {version}", step.label, step.kind);
    println!("{}", standing(project, step, state, record, present));
    let key = record.map(|record| record.digest).or(state.key);
    if let Some(key) = key {
        println!("key {key}");
    }
    let written = Value::Object(step.params.clone());
    let params = record.map(|record| &*record.key.params).or(state.action.as_ref().map(|action| &*action.params));
    println!("\nparameters");
    aligned(&parameters(project, step, params.unwrap_or(&written))).iter().for_each(|line| println!("{line}"));
    let Some(record) = record else { return Ok(()) };
    if !record.observed.is_empty() {
        println!("\nonly observes (no part of the key)");
        let rows: Vec<_> = record.observed.iter().map(|(n, v)| vec![format!("  {n}"), v.to_string()]).collect();
        aligned(&rows).iter().for_each(|line| println!("{line}"));
    }
    if !record.outputs.is_empty() {
        println!("\noutputs");
        for (name, output) in &record.outputs {
            println!("  {name}  {}, {}, {}", output.kind, bytes(output.size), output.name);
            println!("    {}", blob(project, &output.digest)?);
        }
    }
    if !record.metrics.is_empty() {
        println!("\nmetrics");
        let rows: Vec<Vec<String>> = record
            .metrics
            .iter()
            .map(|(name, value)| {
                let (percent, floor) = metric(info, name);
                let floor = floor.and_then(|(name, words)| Some((record.metrics.get(name)?, words)));
                let floor = floor.map(|(v, words)| format!("floor {} ({words})", number(*v, percent)));
                vec![format!("  {name}"), number(*value, percent), floor.unwrap_or_default()]
            })
            .collect();
        aligned(&rows).iter().for_each(|line| println!("{line}"));
    }
    if !record.series.is_empty() {
        println!("\ncurves");
        let rows: Vec<Vec<String>> = record
            .series
            .iter()
            .map(|(name, series)| {
                let last = series.y.last().map(|last| format!("last {}", number(*last, metric(info, name).0)));
                let points = format!("{} points over {}", series.y.len(), series.x_label);
                vec![format!("  {name}"), points, last.unwrap_or_default()]
            })
            .collect();
        aligned(&rows).iter().for_each(|line| println!("{line}"));
    }
    println!("\nprovenance");
    let provenance = record.provenance.as_object().cloned().unwrap_or_default();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let rows: Vec<_> = provenance.iter().map(|(n, v)| vec![format!("  {n}"), plain(v)]).collect();
    aligned(&rows).iter().for_each(|line| println!("{line}"));
    let times = project.cache.history(&record.digest)?.len();
    if times > 1 {
        println!("\ncomputed {times} times; the newest counts");
    }
    if record.log.is_some() {
        println!("\n`harness log {} '{}'` prints what it printed", project.file.display(), step.label);
    }
    Ok(())
}

fn as_json(project: &Project, step: &Step, state: &State, record: Option<&Record>, present: bool) -> Result<Value> {
    let mut files: BTreeMap<String, Option<PathBuf>> = BTreeMap::new();
    for (name, output) in record.into_iter().flat_map(|record| &record.outputs) {
        files.insert(name.clone(), project.cache.blob(&output.digest)?);
    }
    let action = state.action.as_ref();
    Ok(json!({
        "label": step.label, "kind": step.kind, "known": present, "error": state.error,
        "key": record.map(|record| record.digest).or(state.key),
        "params": record.map(|record| &*record.key.params).or(action.map(|action| &*action.params)),
        "record": record, "files": files,
    }))
}

/// Runs `harness log`: what the newest result of a step printed; for one that failed or is being computed, what it
/// said so far.
///
/// # Errors
/// No such file or step, no log, a cache that cannot be read.
pub fn log(arguments: &Log) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let target = std::slice::from_ref(&arguments.step);
    let asked = text::matching(&project.program, target)?;
    let states = project.look(&text::select(&project.program, target)?)?;
    let many = asked.len() > 1;
    let recorded = runs::of_file(project.cache.dir(), &project.file);
    let newest_run = recorded.first().map(|run| (run, run.told()));
    let mut found = false;
    let mut out = std::io::stdout().lock();
    for step in asked.into_iter().map(|step| &project.program.steps[step]) {
        if many {
            writeln!(out, "== {}", step.label)?;
        }
        // What the newest run says of it comes first: a step that failed there has no result of its own.
        let told = newest_run.as_ref().and_then(|(_, told)| told.steps.get(&step.label));
        let unfinished = told.filter(|told| told.status.is_none_or(|s| s == crate::events::Status::Failed));
        let record = match &states[step.id].finished {
            Some(finished) => Some(finished.record.clone()),
            None if unfinished.is_some() => None,
            None => newest(&project, &step.label)?,
        };
        if let Some(record) = record {
            found = true;
            match record.log.map(|log| project.cache.read(&log)).transpose()?.flatten() {
                Some(bytes) if bytes.is_empty() => eprintln!("`{}` printed nothing", step.label),
                Some(bytes) => out.write_all(&bytes)?,
                None => {
                    eprintln!("no output of `{}` is kept: steps of this kind print nothing, or it is gone", step.label)
                }
            }
        } else if let Some(told) = unfinished {
            found = true;
            told.lines.iter().try_for_each(|(level, text)| writeln!(out, "{level}: {text}"))?;
            match &told.error {
                Some(error) => writeln!(out, "{error}")?,
                None => eprintln!("`{}` is being computed; what it prints is kept when it ends", step.label),
            }
        }
    }
    if !found {
        bail!("`{}` has not been computed yet; `{}` runs it", arguments.step, project.run_command());
    }
    Ok(ExitCode::SUCCESS)
}
