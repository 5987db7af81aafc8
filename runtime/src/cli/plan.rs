//! `harness plan`: what a run would compute, why, and about how long it would take.
//!
//! Times are those that were recorded: of the newest result of the same name (in proportion to its epochs, where it has
//! such a field), else the median of executed steps of the same kind. Steps of which nothing is recorded are counted
//! and named as such; no time is made up for them.

use crate::cli::{Place, completions, count, print_json};
use crate::listen::seconds;
use crate::project::Project;
use crate::why::{Cause, Explained, Standing, explain, told};
use crate::{devices, runs, text};
use anyhow::Result;
use clap::Args;
use clap_complete::ArgValueCompleter;
use harness_dsl::Program;
use serde::Serialize;
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs whose times are looked at for kinds of steps.
const RECENT: usize = 100;
/// Reasons of a step that are shown without `--all`.
const REASONS: usize = 6;

/// `harness plan`
#[derive(Args, Debug)]
pub struct Plan {
    /// The .exp file
    pub file: PathBuf,
    /// Families or labels of steps, with what they need; all when none is named
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub place: Place,
    /// Steps side by side, for the estimate
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// `auto`, `cpu`, `cuda`, or `cuda:0,1`, for the estimate
    #[arg(long)]
    pub device: Option<String>,
    /// Every step on its own, the known ones too
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A planned step.
#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    explained: &'a Explained,
    /// Seconds it would take, if that is known.
    estimate_s: Option<f64>,
    /// How a job of it stands in a cluster's queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

/// Time of a whole run.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Estimate {
    /// From the first step's start to the last one's end on these slots, in seconds.
    wall_s: f64,
    /// Sum over the steps, in hours.
    device_hours: f64,
    /// Slots side by side.
    slots: usize,
    /// Steps that would be computed and of which no time is known: not counted.
    unknown: usize,
}

/// Runs it.
///
/// # Errors
/// No such file or step, a cache that cannot be read.
pub fn plan(arguments: &Plan) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let code = planned(&project, arguments)?;
    // The process is about to end; to take ten thousand steps apart is a good part of its time.
    std::mem::forget(project.program);
    Ok(code)
}

fn planned(project: &Project, arguments: &Plan) -> Result<ExitCode> {
    let wanted = text::select(&project.program, &arguments.targets)?;
    let states = project.look(&wanted)?;
    let explained = explain(project, &states, &wanted, false)?;
    let config = &project.config;
    let device = arguments.device.as_deref().unwrap_or(&config.device);
    let slots = devices::slots(device, arguments.jobs.or(config.jobs), config.threads)?.len();
    // Of steps without an earlier result alone, whose kind is all that is known.
    let kinds = LazyCell::new(|| medians(project));
    let times: Vec<Option<f64>> = explained
        .iter()
        .enumerate()
        .map(|(step, one)| time(project, step, one.as_ref()?, &|kind| kinds.get(kind).copied()))
        .collect();
    let steps: Vec<Planned<'_>> = explained
        .iter()
        .zip(&times)
        .filter_map(|(explained, time)| {
            let explained = explained.as_ref()?;
            let standing = explained.key.as_ref().filter(|_| explained.standing != Standing::Known);
            let job = standing.and_then(|key| harness_executors::Standing::read(project.cache.dir(), &key.to_string()));
            Some(Planned { explained, estimate_s: *time, job: job.map(|job| job.said()) })
        })
        .collect();
    let number = |standing: Standing| steps.iter().filter(|step| step.explained.standing == standing).count();
    let [known, runs, depends, fails] =
        [Standing::Known, Standing::Runs, Standing::Depends, Standing::Fails].map(number);
    let standings: Vec<Option<Standing>> = explained.iter().map(|e| e.as_ref().map(|e| e.standing)).collect();
    let sure = estimate(&project.program, &standings, &times, slots, false);
    let most = estimate(&project.program, &standings, &times, slots, true);
    let code = ExitCode::from(if fails > 0 { 1 } else { 0 });
    if arguments.json {
        print_json(&serde_json::json!({
            "file": project.file, "cache": project.cache.dir(),
            "known": known, "runs": runs, "depends": depends, "fails": fails,
            "at_least": sure, "at_most": most, "steps": steps,
        }))?;
        return Ok(code);
    }
    show(&steps, arguments.all);
    let mut parts = vec![format!("{runs} to compute")];
    if depends > 0 {
        parts.push(format!("{depends} depend on them"));
    }
    parts.push(format!("{known} known"));
    if fails > 0 {
        parts.push(format!("{fails} cannot be computed"));
    }
    println!("{}", parts.join(", "));
    if runs + depends > 0 {
        println!("{}", estimated(&sure, &most, depends));
    } else if fails == 0 {
        println!("nothing would be computed");
    }
    Ok(code)
}

/// The estimate in words.
fn estimated(sure: &Estimate, most: &Estimate, depends: usize) -> String {
    let on = format!("on {}", count(most.slots, "slot"));
    let unknown = match most.unknown {
        0 => String::new(),
        n => format!("; no time is recorded for {}, which is not counted", count(n, "step")),
    };
    let span = |low: f64, high: f64| {
        if (high - low).abs() < 0.05 * high { seconds(high) } else { format!("{} to {}", seconds(low), seconds(high)) }
    };
    if most.wall_s == 0.0 {
        return format!("how long that takes is not known: no step of these kinds has been run {on} here");
    }
    // Hours are what machines are paid by; below a few minutes they say nothing.
    let device = match (sure.device_hours, most.device_hours) {
        (_, most) if most < 0.05 => String::new(),
        (sure, most) if depends == 0 || most - sure < 0.005 => format!(", {most:.2} device hours"),
        (sure, most) => format!(", {sure:.2} to {most:.2} device hours"),
    };
    format!("about {} {on}{device}{unknown}", span(sure.wall_s, most.wall_s))
}

/// Seconds a step would take; none for one that is known, or of which nothing is recorded.
fn time(project: &Project, step: usize, one: &Explained, kinds: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
    if matches!(one.standing, Standing::Known | Standing::Fails) {
        return None;
    }
    match &one.against {
        Some(against) if against.seconds > 0.0 => {
            let epochs = project.program.steps[step].params.get("epochs").and_then(serde_json::Value::as_f64);
            Some(match (against.epochs, epochs) {
                (Some(before), Some(now)) if before > 0.0 => against.seconds * now / before,
                _ => against.seconds,
            })
        }
        _ => kinds(&one.kind),
    }
}

/// Median seconds of executed steps, by kind, over recent runs of every file.
fn medians(project: &Project) -> BTreeMap<String, f64> {
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs::all(project.cache.dir()).iter().take(RECENT) {
        for (kind, wall_s) in run.times() {
            times.entry(kind).or_default().push(wall_s);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(|(kind, times)| (kind, median(times))).collect()
}

/// Puts the steps onto slots in the order of the program: each starts when its inputs are there and a slot is free.
fn estimate(
    program: &Program,
    standings: &[Option<Standing>],
    times: &[Option<f64>],
    slots: usize,
    depending: bool,
) -> Estimate {
    let mut free = vec![0.0_f64; slots.max(1)];
    let mut ends = vec![0.0_f64; program.steps.len()];
    let mut estimate = Estimate { slots, ..Estimate::default() };
    for step in &program.steps {
        let begin = step.inputs.iter().map(|&input| ends[input]).fold(0.0, f64::max);
        ends[step.id] = begin;
        let runs = match standings[step.id] {
            Some(Standing::Runs) => true,
            Some(Standing::Depends) => depending,
            _ => false,
        };
        if !runs {
            continue;
        }
        let Some(time) = times[step.id] else {
            estimate.unknown += 1;
            continue;
        };
        let Some(slot) = (0..free.len()).min_by(|&a, &b| free[a].total_cmp(&free[b])) else { continue };
        let end = begin.max(free[slot]) + time;
        (free[slot], ends[step.id]) = (end, end);
        estimate.device_hours += time / 3600.0;
        estimate.wall_s = estimate.wall_s.max(end);
    }
    estimate
}

/// The reasons of a step that say something, in words. Where something else decides already, what it waits for tells
/// nothing new.
fn reasons(one: &Explained, many: bool) -> Vec<String> {
    let waits = |cause: &Cause| matches!(cause, Cause::Waits { .. });
    let others = one.causes.iter().any(|cause| !waits(cause));
    let mut said: Vec<String> = Vec::new();
    for line in one.causes.iter().filter(|cause| !(others && waits(cause))).map(|cause| told(cause, many)) {
        if !said.contains(&line) {
            said.push(line);
        }
    }
    said
}

/// One block for each family whose members run for the same reasons.
fn show(steps: &[Planned<'_>], all: bool) {
    let shown = |step: &&Planned<'_>| all || step.explained.standing != Standing::Known;
    let new = |step: &Planned<'_>| step.explained.causes.contains(&Cause::New);
    let mut computed = steps.iter().filter(|step| step.explained.standing != Standing::Known).peekable();
    let first = computed.peek().is_some() && computed.all(new);
    if first {
        println!("no run of this file is recorded with this cache");
    }
    let mut blocks: Vec<Vec<&Planned<'_>>> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for step in steps.iter().filter(shown) {
        let one = step.explained;
        let key = match all {
            true => one.label.clone(),
            false => format!("{}\0{:?}\0{}", one.family, one.standing, reasons(one, true).join("\0")),
        };
        let at = *place.entry(key).or_insert(blocks.len());
        match blocks.get_mut(at) {
            Some(members) => members.push(step),
            None => blocks.push(vec![step]),
        }
    }
    for members in blocks {
        let Some(one) = members.first().map(|step| step.explained) else { continue };
        let (name, many) = match members.len() {
            1 => (one.label.clone(), false),
            n => (format!("{} ({n} steps)", one.family), true),
        };
        let word = match one.standing {
            Standing::Known => "known",
            Standing::Runs => "runs",
            Standing::Depends => "depends",
            Standing::Fails => "fails",
        };
        let times: Vec<f64> = members.iter().filter_map(|step| step.estimate_s).collect();
        let time = match (times.is_empty(), many) {
            (true, _) => String::new(),
            (_, false) => format!(", about {}", seconds(times[0])),
            _ => format!(", about {} each", seconds(times.iter().sum::<f64>() / times.len() as f64)),
        };
        println!("{word:>7}  {name}  {}{time}", one.kind);
        let mut said = if first { Vec::new() } else { reasons(one, many) };
        let jobs: Vec<String> = members.iter().filter_map(|step| step.job.clone()).collect();
        match jobs.as_slice() {
            [] => {}
            [job] if !many => said.insert(0, format!("in the queue: {job}")),
            [job, ..] => said.insert(0, format!("in the queue: {} of them, such as {job}", jobs.len())),
        }
        let more = if all { 0 } else { said.len().saturating_sub(REASONS) };
        said.iter().take(said.len() - more).for_each(|line| println!("         {line}"));
        if more > 0 {
            println!("         and {more} more (`harness why` lists them)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(inputs: &[&[usize]]) -> Program {
        let steps = inputs.iter().enumerate().map(|(id, inputs)| {
            serde_json::from_value(serde_json::json!({
                "id": id, "name": "s", "label": format!("s{id}"), "kind": "command", "axes": [], "params": {},
                "inputs": inputs, "span": { "source": 0, "start": 0, "end": 0 }, "field_spans": {},
            }))
            .unwrap()
        });
        Program { steps: steps.collect(), ..Program::default() }
    }

    #[test]
    fn steps_wait_for_inputs_and_for_slots() {
        // Two after one: 10 s, then 4 and 6 side by side; a third that is known costs nothing.
        let program = program(&[&[], &[0], &[0], &[0]]);
        let runs = Some(Standing::Runs);
        let standings = [runs, runs, runs, Some(Standing::Known)];
        let times = [Some(10.0), Some(4.0), Some(6.0), None];
        let two = estimate(&program, &standings, &times, 2, true);
        assert_eq!((two.wall_s, two.unknown), (16.0, 0));
        assert!((two.device_hours - 20.0 / 3600.0).abs() < 1e-12);
        assert_eq!(estimate(&program, &standings, &times, 1, true).wall_s, 20.0);
    }

    #[test]
    fn what_only_depends_makes_the_upper_end_and_what_never_ran_is_counted_apart() {
        let program = program(&[&[], &[0], &[0]]);
        let standings = [Some(Standing::Runs), Some(Standing::Depends), Some(Standing::Runs)];
        let times = [Some(1.0), Some(2.0), None];
        assert_eq!(estimate(&program, &standings, &times, 2, false).wall_s, 1.0);
        let most = estimate(&program, &standings, &times, 2, true);
        assert_eq!((most.wall_s, most.unknown), (3.0, 1));
    }
}
