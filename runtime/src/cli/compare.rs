//! `harness compare`: two runs side by side, what differs in their parameters and in their numbers.
//!
//! Steps are matched by name and by their place on the axes that are compared; over the axes that are averaged
//! (`replicate`), the mean, the standard deviation (n - 1) and n stand for them. Members with equal keys are one
//! measurement and count once.

use crate::cli::{aligned, completions, print_json};
use crate::compare::{Change, changes, outside};
use crate::listen::short;
use crate::runs::{Run, Told};
use crate::{project, runs};
use anyhow::Result;
use clap::Args;
use clap_complete::ArgValueCompleter;
use harness_cache::Digest;
use harness_dsl::{Program, Step, Summary, summarise};
use harness_protocol::steps;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `harness compare`
#[derive(Args, Debug)]
pub struct Compare {
    /// A run: its id or a beginning of it, `latest`, `latest~1`, an .exp file (its newest run), `FILE~1`
    #[arg(value_name = "RUN", add = ArgValueCompleter::new(completions::runs))]
    pub before: String,
    /// Another one
    #[arg(value_name = "RUN", add = ArgValueCompleter::new(completions::runs))]
    pub after: String,
    /// Numbers that are equal too
    #[arg(long)]
    pub all: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// One number of one step (over its replicates) in both runs.
#[derive(Debug, Serialize)]
struct Line {
    /// The step's name with its place on the axes compared.
    step: String,
    metric: String,
    /// Whether the number is a share, shown in percent.
    percent: bool,
    before: Option<Summary>,
    after: Option<Summary>,
    /// Mean of the second minus mean of the first.
    difference: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// No such run, a cache that cannot be read.
pub fn compare(arguments: &Compare) -> Result<ExitCode> {
    let file = |name: &str| {
        let path = PathBuf::from(name.rsplit_once('~').map_or(name, |(base, _)| base));
        path.extension().is_some_and(|extension| extension == "exp").then_some(path)
    };
    let folder = file(&arguments.before).or(file(&arguments.after));
    let (cache, _) = project::cache(folder.as_deref().map(Path::new), arguments.cache.as_deref())?;
    let (before, after) = (runs::find(cache.dir(), &arguments.before)?, runs::find(cache.dir(), &arguments.after)?);
    let programs = (before.program().unwrap_or_default(), after.program().unwrap_or_default());
    let told = (before.told(), after.told());
    let mut changed = changes(&programs.0, &programs.1);
    changed.extend(outside(&cache, &told.0, &programs.1, &told.1));
    let lines = numbers((&told.0, &programs.0), (&told.1, &programs.1));
    if arguments.json {
        let side = |run: &Run| serde_json::json!({ "run": run.id, "asked": run.asked });
        print_json(&serde_json::json!({
            "before": side(&before), "after": side(&after), "changes": changed, "metrics": lines,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, run) in [("A", &before), ("B", &after)] {
        println!("{name}  {}  {} UTC  {}", run.id, run.began(), run.asked.file);
    }
    println!("\nwhat differs");
    changed.iter().for_each(|change| println!("  {}", Change::told(change)));
    if changed.is_empty() {
        println!("  nothing: the same experiment");
    }
    let differing: Vec<&Line> = lines.iter().filter(|line| arguments.all || !equal(line)).collect();
    println!("\nnumbers");
    if !differing.is_empty() {
        let mut rows = vec![["  step", "metric", "A", "B", "B - A"].map(String::from).to_vec()];
        rows.extend(differing.iter().map(|line| {
            vec![
                format!("  {}", line.step),
                line.metric.clone(),
                shown(&line.before, line.percent),
                shown(&line.after, line.percent),
                line.difference.map(|d| signed(d, line.percent)).unwrap_or_default(),
            ]
        }));
        aligned(&rows).iter().for_each(|line| println!("{line}"));
    }
    let same = lines.len() - differing.len();
    if same > 0 {
        println!("  {same} equal in both{}", if differing.is_empty() { "" } else { " (`--all` shows them)" });
    }
    if lines.is_empty() {
        println!("  neither run has any");
    }
    Ok(ExitCode::SUCCESS)
}

fn equal(line: &Line) -> bool {
    match (&line.before, &line.after) {
        (Some(a), Some(b)) => a.n == b.n && same(a.mean, b.mean) && same(a.sd.unwrap_or(0.0), b.sd.unwrap_or(0.0)),
        _ => false,
    }
}

fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

/// `26.2 % ± 0.4 (n = 3)`.
fn shown(summary: &Option<Summary>, percent: bool) -> String {
    let Some(summary) = summary else { return "-".into() };
    let mean = short(summary.mean, percent);
    match summary.sd {
        Some(sd) => format!("{mean} ± {} (n = {})", short(sd, percent), summary.n),
        None => mean,
    }
}

fn signed(difference: f64, percent: bool) -> String {
    let text = short(difference.abs(), percent);
    match difference {
        d if d.is_nan() => "not a number".into(),
        0.0 => text,
        d if d > 0.0 => format!("+{text}"),
        _ => format!("-{text}"),
    }
}

/// Name and place on the axes compared, without those averaged over.
fn place(step: &Step) -> String {
    let axes: Vec<String> =
        step.axes.iter().filter(|axis| !axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value)).collect();
    if axes.is_empty() { step.name.clone() } else { format!("{}[{}]", step.name, axes.join(", ")) }
}

type Measured = BTreeMap<(String, String), (String, Vec<f64>)>;

/// Every number of a run, by place and metric, with its kind.
fn measured(program: &Program, told: &Told) -> (Vec<(String, String)>, Measured) {
    let mut order = Vec::new();
    let mut found: Measured = BTreeMap::new();
    let mut seen: BTreeSet<(String, String, Digest)> = BTreeSet::new();
    for step in &program.steps {
        let Some(end) = told.steps.get(&step.label) else { continue };
        for (metric, value) in &end.metrics {
            let name = (place(step), metric.clone());
            // Replicates in which nothing is random are one measurement.
            if let Some(key) = end.key
                && !seen.insert((name.0.clone(), metric.clone(), key))
            {
                continue;
            }
            found.entry(name.clone()).or_insert_with(|| {
                order.push(name);
                (step.kind.clone(), Vec::new())
            });
            if let Some((_, values)) = found.get_mut(&(place(step), metric.clone())) {
                values.push(*value);
            }
        }
    }
    (order, found)
}

fn numbers(before: (&Told, &Program), after: (&Told, &Program)) -> Vec<Line> {
    let (order_before, old) = measured(before.1, before.0);
    let (mut order, new) = measured(after.1, after.0);
    order.extend(order_before.into_iter().filter(|name| !new.contains_key(name)));
    order
        .into_iter()
        .map(|name| {
            let sides = [old.get(&name), new.get(&name)];
            let kind = sides.iter().flatten().next().map(|(kind, _)| kind.as_str()).unwrap_or_default();
            let info = steps::kind(kind).and_then(|kind| kind.metrics.iter().find(|metric| metric.name == name.1));
            let [before, after] = sides.map(|side| side.map(|(_, values)| summarise(values)));
            let difference = before.as_ref().zip(after.as_ref()).map(|(a, b)| b.mean - a.mean);
            let (step, metric) = name;
            Line { step, metric, percent: info.is_some_and(|info| info.percent), before, after, difference }
        })
        .collect()
}
