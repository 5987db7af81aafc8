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
use anyhow::{Context as _, Result};
use clap::Args;
use clap_complete::ArgValueCompleter;
use harness_cache::Digest;
use harness_dsl::{Interval, Program, Step, Summary, paired_interval, summarise, welch_interval};
use harness_protocol::steps;
use harness_report as page;
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
    /// Write a page: what differs, the numbers with their uncertainty, the curves one over the other
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// Folder with a compare.html, style.css or page.js in place of the built-in ones
    #[arg(long, value_name = "DIR", requires = "html")]
    pub template: Option<PathBuf>,
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
    /// The 95 % interval of that difference; none where either side has a single value.
    interval: Option<Interval>,
    /// What the interval is over.
    over: String,
    #[serde(skip)]
    higher_is_better: Option<bool>,
    #[serde(skip)]
    values: [Vec<f64>; 2],
    /// Within the replicates, where both have the same ones.
    #[serde(skip)]
    pairs: Vec<f64>,
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
    if let Some(path) = &arguments.html {
        let comparison = comparison(
            &cache,
            [(&before, &programs.0, &told.0), (&after, &programs.1, &told.1)],
            &changed,
            &lines,
            arguments.all,
        );
        let templates =
            arguments.template.as_deref().map(page::Templates::from_folder).transpose()?.unwrap_or_default();
        let html = page::render_comparison(&comparison, &templates)?;
        std::fs::write(path, html).with_context(|| format!("{} cannot be written", path.display()))?;
        eprintln!("the comparison is {}", path.display());
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
        let mut rows = vec![["  step", "metric", "A", "B", "B - A", "95 % interval"].map(String::from).to_vec()];
        rows.extend(differing.iter().map(|line| {
            vec![
                format!("  {}", line.step),
                line.metric.clone(),
                shown(&line.before, line.percent),
                shown(&line.after, line.percent),
                line.difference.map(|d| signed(d, line.percent)).unwrap_or_default(),
                line.interval.map(|i| told_interval(&i, line)).unwrap_or_default(),
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

/// `+0.4 % to +2.1 % (3 pairs)`.
fn told_interval(interval: &Interval, line: &Line) -> String {
    format!("{} to {} ({})", signed(interval.low, line.percent), signed(interval.high, line.percent), line.over)
}

/// Name and place on the axes compared, without those averaged over.
fn place(step: &Step) -> String {
    let axes: Vec<String> =
        step.axes.iter().filter(|axis| !axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value)).collect();
    if axes.is_empty() { step.name.clone() } else { format!("{}[{}]", step.name, axes.join(", ")) }
}

/// A step's place on the axes averaged over, with its number.
type Single = (String, f64);
type Measured = BTreeMap<(String, String), (String, Vec<Single>)>;

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
                values.push((replicate(step), *value));
            }
        }
    }
    (order, found)
}

/// Its place on the axes averaged over: `seed=2`.
fn replicate(step: &Step) -> String {
    let axes = step.axes.iter().filter(|axis| axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value));
    axes.collect::<Vec<_>>().join(", ")
}

/// The interval of the difference of two sides, what it is over, and the differences within pairs, if it is over these.
fn uncertainty(before: &[Single], after: &[Single]) -> (Option<Interval>, String, Vec<f64>) {
    let of = |side: &[Single]| side.iter().cloned().collect::<BTreeMap<String, f64>>();
    let (old, new) = (of(before), of(after));
    if old.len() == before.len() && old.keys().eq(new.keys()) {
        let pairs: Vec<f64> = old.iter().map(|(name, value)| new[name] - value).collect();
        return (paired_interval(&pairs), format!("{} pairs", pairs.len()), pairs);
    }
    let values = |side: &[Single]| side.iter().map(|(_, value)| *value).collect::<Vec<f64>>();
    let over = format!("{} and {} values", before.len(), after.len());
    (welch_interval(&values(before), &values(after)), over, Vec::new())
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
            let values = sides.map(|side| -> Vec<f64> {
                side.map(|(_, values)| values.iter().map(|(_, value)| *value).collect()).unwrap_or_default()
            });
            let (interval, over, pairs) = match sides {
                [Some((_, before)), Some((_, after))] => uncertainty(before, after),
                _ => Default::default(),
            };
            let over = if interval.is_some() { over } else { String::new() };
            let [before, after] = [0, 1].map(|side| sides[side].map(|_| summarise(&values[side])));
            let difference = before.as_ref().zip(after.as_ref()).map(|(a, b)| b.mean - a.mean);
            let (step, metric) = name;
            let higher_is_better = info.map(|info| info.higher_is_better);
            let percent = info.is_some_and(|info| info.percent);
            Line { step, metric, percent, before, after, difference, interval, over, higher_is_better, values, pairs }
        })
        .collect()
}

/// Figures of one kind that a page shows.
const MOST_FIGURES: usize = 24;
/// Differences that one figure shows.
const MOST_DIFFERENCES: usize = 40;

/// Everything that the page of a comparison shows.
fn comparison(
    cache: &harness_cache::Cache,
    sides: [(&Run, &Program, &Told); 2],
    changed: &[Change],
    lines: &[Line],
    all: bool,
) -> page::Comparison {
    let shown: Vec<&Line> = lines.iter().filter(|line| all || !equal(line)).collect();
    let interval = |i: Interval| page::Interval { mean: i.mean, low: i.low, high: i.high, n: i.n };
    let stem = |run: &Run| {
        Path::new(&run.asked.file).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    };
    let (a, b) = (stem(sides[0].0), stem(sides[1].0));
    let mut figures = Vec::new();
    let rows: Vec<page::Difference> = shown
        .iter()
        .filter(|line| line.percent)
        .filter_map(|line| {
            let found = line.interval?;
            let series = match line.higher_is_better {
                Some(up) if found.low > 0.0 => {
                    if up {
                        "better"
                    } else {
                        "worse"
                    }
                }
                Some(up) if found.high < 0.0 => {
                    if up {
                        "worse"
                    } else {
                        "better"
                    }
                }
                _ => "undecided",
            };
            let label = format!("{} {}", line.step, line.metric);
            Some(page::Difference {
                label,
                series: series.into(),
                interval: Some(interval(found)),
                values: line.pairs.clone(),
            })
        })
        .take(MOST_DIFFERENCES)
        .collect();
    if !rows.is_empty() {
        figures.push(page::Figure {
            name: "differences".into(),
            title: "Differences, B less A".into(),
            note: "Dots are mean differences, lines their 95 % intervals, small circles the differences within replicates.".into(),
            declared: true,
            percent: true,
            y_label: "B − A".into(),
            drawing: page::Drawing::Differences { rows },
            ..page::Figure::default()
        });
    }
    figures.extend(overlaid(cache, &sides));
    page::Comparison {
        title: if a == b { format!("{a}: two runs") } else { format!("{a} and {b}") },
        generated: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        sides: [("A", sides[0].0), ("B", sides[1].0)]
            .map(|(name, run)| page::Side {
                name: name.into(),
                run: run.id.clone(),
                file: run.asked.file.clone(),
                began: run.began(),
            })
            .into(),
        changes: changed.iter().map(Change::told).collect(),
        metrics: shown
            .iter()
            .map(|line| page::Compared {
                step: line.step.clone(),
                metric: line.metric.clone(),
                percent: line.percent,
                higher_is_better: line.higher_is_better,
                before: line.values[0].clone(),
                after: line.values[1].clone(),
                difference: line.difference,
                interval: line.interval.map(interval),
                over: line.over.clone(),
            })
            .collect(),
        equal: lines.len() - shown.len(),
        figures,
    }
}

/// The curves of steps that both runs have and that differ, one run over the other.
fn overlaid(cache: &harness_cache::Cache, sides: &[(&Run, &Program, &Told); 2]) -> Vec<page::Figure> {
    let mut figures: Vec<page::Figure> = Vec::new();
    let mut places: BTreeMap<String, [BTreeSet<Digest>; 2]> = BTreeMap::new();
    let keyed = |side: usize| {
        let (_, program, told) = sides[side];
        let found = program.steps.iter().filter_map(|step| Some((step, told.steps.get(&step.label)?.key?)));
        found.collect::<Vec<(&Step, Digest)>>()
    };
    for side in [0, 1] {
        for (step, key) in keyed(side) {
            places.entry(place(step)).or_default()[side].insert(key);
        }
    }
    for (side, name) in ["A", "B"].into_iter().enumerate() {
        for (step, key) in keyed(side) {
            let place = place(step);
            let [old, new] = &places[&place];
            if old == new || old.is_empty() || new.is_empty() {
                continue;
            }
            let Ok(Some(record)) = cache.record(&key) else { continue };
            for (metric, series) in record.series.iter().filter(|(_, series)| series.y.len() > 1) {
                let title = format!("{metric} of {place}");
                let at = figures.iter().position(|figure| figure.title == title).or_else(|| {
                    if figures.len() == MOST_FIGURES {
                        return None;
                    }
                    let info = steps::kind(&step.kind).and_then(|kind| kind.metrics.iter().find(|m| m.name == metric));
                    figures.push(page::Figure {
                        name: format!("curve-{}", figures.len() + 1),
                        title,
                        note: "Thick lines are means over replicates, bands one standard deviation to each side."
                            .into(),
                        declared: true,
                        percent: info.is_some_and(|info| info.percent),
                        y_label: metric.clone(),
                        x_label: series.x_label.clone(),
                        drawing: page::Drawing::default(),
                    });
                    Some(figures.len() - 1)
                });
                if let Some(page::Drawing::Curves { lines }) = at.map(|at| &mut figures[at].drawing) {
                    let replicate = Some(replicate(step)).filter(|name| !name.is_empty());
                    let (x, y) = (series.x.clone(), series.y.clone());
                    lines.push(page::Line { label: name.into(), replicate, x, y });
                }
            }
        }
    }
    figures
}
