//! `harness verify`: computes a result again in a scratch place, from the same inputs, and compares. The stored record
//! and the store are left as they are.
//!
//! Bytes are promised on the CPU, with the same number of threads and the same libtorch; so the recorded provenance is
//! put beside that of the present machine, and a difference says whether it breaks a promise.

use crate::cli::{Place, completions, print_json, when};
use crate::events::{Event, Status};
use crate::listen::{Listener as _, Screen, seconds, short as number};
use crate::project::Project;
use crate::run::Request;
use crate::{datasets, devices, run as engine, start, text, why, worker};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use harness_cache::{Cache, Record};
use harness_dsl::Step;
use harness_protocol::{Executor, steps};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// What must agree for bytes to be promised, by its name in the provenance.
const NEEDED: [&str; 3] = ["device", "threads", "libtorch"];
/// What is told beside it.
const TOLD: [&str; 4] = ["worker", "harness", "gpu", "host"];

/// `harness verify`
#[derive(Args, Debug)]
pub struct Verify {
    /// The .exp file
    pub file: PathBuf,
    /// A family or the label of a step: `'nearest[seed=1, method=moco]'`
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub step: String,
    /// Compare numbers instead of bytes: shares may differ by X, others by X times the larger one
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub tolerance: Option<f64>,
    /// Where to compute; as recorded when not named
    #[arg(long)]
    pub device: Option<String>,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("`{text}` is no tolerance: a number from 0, such as 0.001")),
    }
}

/// One thing compared.
#[derive(Debug, Serialize)]
struct Compared {
    /// `output`, `metric` or `curve`.
    what: &'static str,
    name: String,
    /// Whether it is the same, to the last bit.
    same: bool,
    /// Whether it is as near as was asked; for outputs: the same.
    near: bool,
    stored: String,
    now: String,
}

/// One condition.
#[derive(Debug, Serialize)]
struct Condition {
    name: String,
    stored: Value,
    now: Value,
    /// Whether bytes are promised only where it agrees.
    needed: bool,
}

/// What was found of one step.
#[derive(Debug, Serialize)]
struct Verdict {
    label: String,
    key: String,
    /// Whether it passes: the same bytes, or with a tolerance numbers that are near.
    passes: bool,
    /// Whether all of it is the same, to the last bit.
    same: bool,
    /// Whether the same bytes are promised under these conditions; none where that is up to the program.
    promised: Option<bool>,
    compared: Vec<Compared>,
    conditions: Vec<Condition>,
    stored_s: f64,
    now_s: f64,
    stored_unix_ms: u64,
}

/// Runs it: exit 1 on a difference, or when the step fails.
///
/// # Errors
/// No such file or step; no result yet; a device or worker that is not there.
pub fn verify(arguments: &Verify) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(mut project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let asked = text::matching(&project.program, std::slice::from_ref(&arguments.step))?;
    let wanted = text::select(&project.program, std::slice::from_ref(&arguments.step))?;
    let states = project.look(&wanted)?;
    let mut stored: Vec<(usize, Record)> = Vec::new();
    let mut seen = BTreeSet::new();
    for step in asked {
        let Some(finished) = &states[step].finished else {
            bail!(
                "`{0}` has no result to verify; `{1} '{0}'` computes it",
                project.program.steps[step].label,
                project.run_command()
            );
        };
        // Members with equal keys are one computation.
        if seen.insert(finished.record.digest) {
            stored.push((step, finished.record.clone()));
        }
    }
    let mut verdicts = Vec::new();
    for (step, record) in stored {
        let label = project.program.steps[step].label.clone();
        let scratch = project.cache.temp_dir()?;
        let store = Cache::open(&scratch.path().join("cache"))?;
        let again = if datasets::is_external(&project.program.steps[step].kind) {
            dataset(&project, step, &store)?
        } else {
            match compute(&mut project, step, &record, &store, arguments.device.as_deref())? {
                Ok(again) => again,
                Err((code, error)) => {
                    eprintln!("`{label}` could not be computed again: {error}");
                    return Ok(ExitCode::from(code));
                }
            }
        };
        let verdict = judge(&project.program.steps[step], &record, &again, arguments.tolerance);
        if !arguments.json {
            print(&verdict, arguments.tolerance);
        }
        verdicts.push(verdict);
    }
    if arguments.json {
        print_json(&verdicts)?;
    }
    Ok(ExitCode::from(u8::from(!verdicts.iter().all(|verdict| verdict.passes))))
}

/// Reads every file of a dataset anew: the table of a fresh cache knows none of them.
fn dataset(project: &Project, step: usize, store: &Cache) -> Result<Record> {
    let step = &project.program.steps[step];
    let info = steps::kind(&step.kind).context("the kind is gone")?;
    let params = text::fields(step, &project.catalog);
    let params =
        (info.resolve)(Value::Object(params)).map_err(|problems| anyhow::anyhow!("`{}`: {problems:?}", step.label))?;
    Ok(datasets::external(info, &params, &project.config, store)?.0.record)
}

/// Computes a step with its inputs from the cache and its results into `store`; the exit status and why, if it cannot.
fn compute(
    project: &mut Project,
    step: usize,
    record: &Record,
    store: &Cache,
    device: Option<&str>,
) -> Result<Result<Record, (u8, String)>> {
    let recorded = |name: &str| record.provenance.get(name).cloned().unwrap_or_default();
    // Results on the CPU depend on the threads, so those of the record are taken.
    if let Some(threads) = recorded("threads").as_u64().and_then(|threads| u32::try_from(threads).ok()) {
        project.config.threads = threads;
    }
    let device = device.map(String::from).or_else(|| recorded("device").as_str().map(String::from));
    let slots = devices::slots(device.as_deref().unwrap_or("cpu"), Some(1), project.config.threads)
        .context("`--device cpu --tolerance X` compares numbers from another device")?;
    let label = project.program.steps[step].label.clone();
    let wanted = text::select(&project.program, std::slice::from_ref(&label))?;
    let mut forced = vec![false; wanted.len()];
    forced[step] = true;
    let needs = steps::kind(&project.program.steps[step].kind).is_some_and(|k| k.executor == Executor::Worker);
    let worker = if needs { Some(worker::binary(project.config.worker.as_deref())?) } else { None };
    let (cancel, hurry) = start::interrupts()?;
    let request = Request {
        program: &project.program,
        catalog: &project.catalog,
        config: &project.config,
        cache: &project.cache,
        results: Some(store),
        shared: None,
        wanted,
        forced,
        keep_going: false,
        dry_run: false,
        slots,
        worker,
        missing_worker: None,
        logs: store.dir().to_path_buf(),
        cancel: cancel.clone(),
        hurry,
        reach: None,
    };
    let mut screen = Screen::new(std::io::stderr().is_terminal(), start::colour());
    let states = engine::run(&request, &mut |event| {
        // The verdict says how it ended.
        let quiet = matches!(&event, Event::StepFinished { status: Status::Executed | Status::Failed, .. });
        if !quiet {
            screen.event(&event);
        } else if let Event::StepFinished { step, label, kind, .. } = event {
            let status = Status::Cached;
            let (key, metrics, error) = (None, Default::default(), None);
            screen.event(&Event::StepFinished { step, label, kind, key, status, wall_s: 0.0, metrics, error });
        }
    })?;
    if cancel.load(Ordering::Relaxed) {
        return Ok(Err((130, "interrupted".into())));
    }
    let state = &states[step];
    Ok(match &state.finished {
        Some(finished) => Ok(finished.record.clone()),
        None => Err((1, state.error.clone().unwrap_or("it has no result".into()))),
    })
}

fn bits(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Shares may differ by the tolerance itself, other numbers by it times the larger of the two.
fn near(a: f64, b: f64, tolerance: f64, share: bool) -> bool {
    let scale = if share { 1.0 } else { a.abs().max(b.abs()) };
    bits(a, b) || a == b || (a - b).abs() <= tolerance * scale
}

fn judge(step: &Step, stored: &Record, again: &Record, tolerance: Option<f64>) -> Verdict {
    let info = steps::kind(&step.kind);
    let share = |name: &str| {
        info.and_then(|info| info.metrics.iter().find(|metric| metric.name == name))
            .is_some_and(|metric| metric.percent)
    };
    let mut compared = Vec::new();
    let names = |a: Vec<&String>, b: Vec<&String>| a.into_iter().chain(b).cloned().collect::<BTreeSet<String>>();
    for name in names(stored.outputs.keys().collect(), again.outputs.keys().collect()) {
        let digest = |record: &Record| record.outputs.get(&name).map_or("none".into(), |o| o.digest.to_string());
        let (was, now) = (digest(stored), digest(again));
        let same = was == now;
        compared.push(Compared { what: "output", name, same, near: same, stored: was, now });
    }
    for name in names(stored.metrics.keys().collect(), again.metrics.keys().collect()) {
        if info
            .and_then(|info| info.metrics.iter().find(|metric| metric.name == name))
            .is_some_and(|metric| metric.varies)
        {
            continue;
        }
        let text = |value: Option<&f64>| value.map_or("none".into(), |value| value.to_string());
        let (was, now) = (stored.metrics.get(&name), again.metrics.get(&name));
        let pair = was.copied().zip(now.copied());
        let same = pair.is_some_and(|(a, b)| bits(a, b));
        let near = pair.is_some_and(|(a, b)| near(a, b, tolerance.unwrap_or(0.0), share(&name)));
        compared.push(Compared { what: "metric", same, near, stored: text(was), now: text(now), name });
    }
    for name in names(stored.series.keys().collect(), again.series.keys().collect()) {
        let (was, now) = (stored.series.get(&name), again.series.get(&name));
        let pairs = was.zip(now).filter(|(a, b)| a.y.len() == b.y.len() && a.x == b.x);
        let all = |test: &dyn Fn(f64, f64) -> bool| {
            pairs.is_some_and(|(a, b)| a.y.iter().zip(&b.y).all(|(a, b)| test(*a, *b)))
        };
        let same = all(&|a, b| bits(a, b));
        let near = all(&|a, b| near(a, b, tolerance.unwrap_or(0.0), share(&name)));
        let worst = pairs.map(|(a, b)| a.y.iter().zip(&b.y).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max));
        let now = worst.map_or("another number of points".into(), |worst| format!("differs by up to {worst:e}"));
        let points = was.map_or("none".into(), |series| format!("{} points", series.y.len()));
        compared.push(Compared { what: "curve", name, same, near, stored: points, now });
    }
    // What was measured as a speed is part of no promise.
    let conditions: Vec<Condition> = NEEDED
        .iter()
        .map(|name| (*name, true))
        .chain(TOLD.iter().map(|name| (*name, false)))
        .filter_map(|(name, needed)| {
            let (was, now) = (stored.provenance.get(name), again.provenance.get(name));
            (was.is_some() || now.is_some()).then(|| Condition {
                name: name.into(),
                stored: was.cloned().unwrap_or_default(),
                now: now.cloned().unwrap_or_default(),
                needed: needed && step.kind != "command",
            })
        })
        .collect();
    let same = compared.iter().all(|one| one.same);
    let numbers = compared.iter().any(|one| one.what != "output");
    let passes = match tolerance {
        // With no numbers to go by, bytes decide.
        Some(_) if numbers => compared.iter().filter(|one| one.what != "output").all(|one| one.near),
        _ => same,
    };
    let on_cpu = conditions.iter().filter(|one| one.name == "device").all(|one| one.stored == "cpu");
    let agree = conditions.iter().filter(|one| one.needed).all(|one| one.stored == one.now);
    Verdict {
        label: step.label.clone(),
        key: stored.digest.to_string(),
        passes,
        same,
        promised: (step.kind != "command").then_some(on_cpu && agree),
        compared,
        conditions,
        stored_s: stored.duration_s,
        now_s: again.duration_s,
        stored_unix_ms: stored.finished_unix_ms,
    }
}

fn print(verdict: &Verdict, tolerance: Option<f64>) {
    let head = match (verdict.same, verdict.passes, tolerance) {
        (true, ..) => "verified: the same, to the last bit".into(),
        (_, true, Some(x)) => format!("verified: every number within {x}; not the same bytes"),
        (_, _, Some(x)) => format!("differs: not every number is within {x}"),
        _ => "differs".to_string(),
    };
    println!("{}: {head}", verdict.label);
    println!(
        "  stored {} UTC, computed in {}; now in {} (key {})",
        when(verdict.stored_unix_ms),
        seconds(verdict.stored_s),
        seconds(verdict.now_s),
        why::short(&verdict.key)
    );
    for what in ["output", "metric", "curve"] {
        let all: Vec<&Compared> = verdict.compared.iter().filter(|one| one.what == what).collect();
        if all.is_empty() {
            continue;
        }
        let same = all.iter().filter(|one| one.same).count();
        println!("  {what}s: {same} of {} the same", all.len());
        for one in all.iter().filter(|one| !one.same) {
            let near = if tolerance.is_some() && one.near && what != "output" { " (near enough)" } else { "" };
            let cut = |text: &str| match (what, text.parse::<f64>()) {
                ("output", _) => why::short(text),
                (_, Ok(value)) if value.fract() == 0.0 => number(value, false),
                _ => text.to_string(),
            };
            println!("    {}: {} -> {}{near}", one.name, cut(&one.stored), cut(&one.now));
        }
    }
    match verdict.promised {
        None => println!("  conditions: a `command` gives equal bytes as far as its program does"),
        Some(true) => println!("  conditions: CPU, the same threads and libtorch: the same bytes are promised"),
        Some(false) => println!(
            "  conditions: the same bytes are promised on the CPU with the same threads and libtorch only; here numbers may differ (`--tolerance X` compares them)"
        ),
    }
    for one in &verdict.conditions {
        let plain = |value: &Value| match value {
            Value::Null => "not recorded".into(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if one.stored == one.now {
            println!("    {}: {}", one.name, plain(&one.stored));
        } else {
            let word = if one.needed { "" } else { " (no condition)" };
            println!("    {}: {} -> {}{word}", one.name, plain(&one.stored), plain(&one.now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_cache::{ActionKey, Series};
    use serde_json::json;

    fn step(kind: &str) -> Step {
        serde_json::from_value(json!({
            "id": 0, "name": "s", "label": "s", "kind": kind, "axes": [], "params": {},
            "inputs": [], "span": { "source": 0, "start": 0, "end": 0 }, "field_spans": {},
        }))
        .unwrap()
    }

    fn record(top1: f64, loss: f64, threads: u64) -> Record {
        let mut record = Record::new(ActionKey::new("knn", 1, json!({})));
        record.metrics.insert("top1".into(), top1);
        record.series.insert("loss".into(), Series { x: vec![1.0, 2.0], y: vec![7.0, loss], x_label: "epoch".into() });
        record.provenance = json!({ "device": "cpu", "threads": threads, "libtorch": "2.11.0", "host": "a" });
        record
    }

    #[test]
    fn the_last_bit_counts_unless_a_tolerance_is_given() {
        let stored = record(0.25, 5.0, 1);
        assert!(judge(&step("knn"), &stored, &stored, None).passes);
        let moved = record(0.25 + 1e-16, 5.0, 1);
        let moved = Record { metrics: [("top1".to_string(), 0.2500000000000001)].into(), ..moved };
        let verdict = judge(&step("knn"), &stored, &moved, None);
        assert!(!verdict.passes && verdict.promised == Some(true));
        assert!(judge(&step("knn"), &stored, &moved, Some(1e-9)).passes);
        // Shares by the tolerance itself, others relatively: 0.26 against 0.25 is 0.01, 5.04 against 5 is 0.8 %.
        assert!(judge(&step("knn"), &stored, &record(0.26, 5.04, 1), Some(0.011)).passes);
        assert!(!judge(&step("knn"), &stored, &record(0.27, 5.0, 1), Some(0.011)).passes);
        assert!(!judge(&step("knn"), &stored, &record(0.25, 5.4, 1), Some(0.011)).passes);
        // A curve that got longer is another curve, however near.
        let mut longer = record(0.25, 5.0, 1);
        longer.series.get_mut("loss").unwrap().y.push(4.0);
        assert!(!judge(&step("knn"), &stored, &longer, Some(1.0)).passes);
    }

    #[test]
    fn bytes_are_promised_under_the_same_conditions_only() {
        let (stored, other) = (record(0.25, 5.0, 1), record(0.25, 5.0, 2));
        assert_eq!(judge(&step("knn"), &stored, &stored, None).promised, Some(true));
        assert_eq!(judge(&step("knn"), &stored, &other, None).promised, Some(false));
        assert_eq!(judge(&step("command"), &stored, &other, None).promised, None);
        let mut gpu = record(0.25, 5.0, 1);
        gpu.provenance["device"] = json!("cuda:0");
        assert_eq!(judge(&step("knn"), &gpu, &gpu, None).promised, Some(false));
    }
}
