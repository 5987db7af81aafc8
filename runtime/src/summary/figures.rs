//! The figures of a summary: those that the experiment declares, its claims' differences, and whatever the steps measured
//! over time, by class, or as a table of answers.

use super::{LARGEST_READ, MOST_CONFUSIONS, interval, outcome, places, value};
use crate::run::{Request, State};
use harness_cache::Record;
use harness_dsl::{CellRef, Claim, Column, Verdict, paired_interval};
use harness_report::{Difference, Drawing, Figure, Group, Line, Mark};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How to read what every figure of its kind shows.
const CURVES: &str = "Thick lines are means over independent replicates, bands one standard deviation (n − 1) to each side, thin lines single runs.";
const BARS: &str = "Bars are means over independent replicates, lines one standard deviation (n − 1) to each side, small circles the single values.";
const POINTS: &str = "Filled marks are means over independent replicates, lines one standard deviation (n − 1) to each side, small circles the single runs.";
const PAIRS: &str = "Dots are means of the differences within each replicate, lines their 95 % intervals (Student’s t), small circles the single differences.";

/// All of them, the declared ones first.
pub fn figures(request: &Request<'_>, states: &[State], claims: &[(&Claim, Verdict)]) -> Vec<Figure> {
    let declared = request.program.figures.iter().map(|figure| declared(figure, request, states));
    let mut all: Vec<Figure> = declared.collect();
    all.extend(differences(claims));
    all.extend(measured(request, states));
    all.extend(confusions(request, states));
    // Names are links and files: each once.
    let mut seen = BTreeSet::new();
    for figure in &mut all {
        let base = figure.name.clone();
        let mut number = 2;
        while !seen.insert(figure.name.clone()) {
            figure.name = format!("{base}-{number}");
            number += 1;
        }
    }
    all
}

/// A name for links and files.
fn name(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' });
    let plain: String = plain.collect();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn declared(figure: &harness_dsl::Figure, request: &Request<'_>, states: &[State]) -> Figure {
    let labels: Vec<&str> = figure.columns.iter().map(|column| column.label.as_str()).collect();
    let mut out = Figure {
        name: figure.name.clone(),
        title: figure.title.clone(),
        declared: true,
        percent: figure.columns.iter().all(|column| column.metric.percent),
        y_label: labels.join(", "),
        ..Figure::default()
    };
    if figure.curves {
        return curves(figure, out, request, states);
    }
    let numbers = |cells: &[CellRef], column: &Column| -> Vec<f64> {
        let values: Vec<harness_report::CellValue> =
            cells.iter().map(|cell| value(cell, column.pick, request, states)).collect();
        // Replicates of a step in which nothing is random are one measurement.
        let same = values.windows(2).all(|pair| pair[0].key == pair[1].key && !pair[0].key.is_empty());
        let all: Vec<f64> = values.iter().map(|value| value.value.unwrap_or(f64::NAN)).collect();
        if same { all.into_iter().take(1).collect() } else { all }
    };
    if let Some(baseline) = &figure.baseline {
        let rows = figure.drawings.iter().map(|drawing| {
            let column = &figure.columns[drawing.column];
            let there =
                |cell: &CellRef| value(cell, column.pick, request, states).value.filter(|value| value.is_finite());
            let pairs = drawing.cells.iter().filter_map(|cell| {
                let base =
                    drawing.x.iter().find(|base| base.replicate == cell.replicate).or(match drawing.x.as_slice() {
                        [only] if only.replicate.is_none() => Some(only),
                        _ => None,
                    })?;
                Some(there(cell)? - there(base)?)
            });
            let values: Vec<f64> = pairs.collect();
            Difference {
                label: drawing.label.clone(),
                series: column.label.clone(),
                interval: paired_interval(&values).map(interval),
                values,
            }
        });
        let several = figure.columns.len() > 1;
        let rows = rows.map(|row| Difference {
            label: if several { format!("{} {}", row.label, row.series) } else { row.label },
            ..row
        });
        out.y_label = format!("{} less that of {baseline}", out.y_label);
        out.note = PAIRS.into();
        out.drawing = Drawing::Differences { rows: rows.collect() };
        return out;
    }
    let marks = figure.drawings.iter().map(|drawing| {
        let column = &figure.columns[drawing.column];
        Mark {
            label: drawing.label.clone(),
            series: column.label.clone(),
            values: numbers(&drawing.cells, column),
            x: figure.over.as_ref().map(|over| numbers(&drawing.x, over)).unwrap_or_default(),
        }
    });
    let marks = marks.collect();
    match &figure.over {
        Some(over) => {
            out.note = POINTS.into();
            out.x_label = over.label.clone();
            out.drawing = Drawing::Points { x_percent: over.metric.percent, marks };
        }
        None => {
            out.note = BARS.into();
            out.drawing = Drawing::Bars { marks };
        }
    }
    out
}

/// A declared figure of curves; of values by class, which are curves over its index, a row for each class.
fn curves(figure: &harness_dsl::Figure, mut out: Figure, request: &Request<'_>, states: &[State]) -> Figure {
    let several = figure.columns.len() > 1;
    let mut lines: Vec<(usize, Line)> = Vec::new();
    for drawing in &figure.drawings {
        let column = &figure.columns[drawing.column];
        for cell in &drawing.cells {
            let Some(finished) = &states[cell.step].finished else { continue };
            let Some(series) = finished.record.series.get(&cell.metric) else { continue };
            out.x_label.clone_from(&series.x_label);
            let (place, _) = places(&request.program.steps[cell.step]);
            let label = if several { format!("{place}.{}", column.metric.name) } else { place };
            let (x, y) = (series.x.clone(), series.y.clone());
            lines.push((cell.step, Line { label, replicate: cell.replicate.clone(), x, y }));
        }
    }
    out.drawing = by_class(&out.x_label, &lines, request, states)
        .unwrap_or_else(|| Drawing::Curves { lines: lines.into_iter().map(|(_, line)| line).collect() });
    out.note = if matches!(out.drawing, Drawing::Classes { .. }) { BARS } else { CURVES }.into();
    out
}

/// Values by class as such, where the curves count classes and the step says what these are called.
fn by_class(x_label: &str, lines: &[(usize, Line)], request: &Request<'_>, states: &[State]) -> Option<Drawing> {
    if x_label != "class" || lines.is_empty() {
        return None;
    }
    let classes = lines.iter().map(|(_, line)| line.y.len()).max()?;
    let named = lines.iter().find_map(|(step, _)| {
        let record = &states[*step].finished.as_ref()?.record;
        let outputs = record.outputs.values().filter(|output| is_json(output));
        outputs.filter_map(|output| names(&read(request, output)?)).find(|names| names.len() == classes)
    });
    let named = named.unwrap_or_else(|| (0..classes).map(|class| format!("class {class}")).collect());
    let mut groups: Vec<Group> = Vec::new();
    for (_, line) in lines {
        let mut values = vec![f64::NAN; classes];
        for (x, y) in line.x.iter().zip(&line.y) {
            if let Some(value) = values.get_mut(*x as usize) {
                *value = *y;
            }
        }
        match groups.iter_mut().find(|group| group.label == line.label) {
            Some(group) => group.values.push(values),
            None => groups.push(Group { label: line.label.clone(), values: vec![values] }),
        }
    }
    Some(Drawing::Classes { classes: named, groups })
}

/// Whether an output is a table that a step left as JSON.
fn is_json(output: &harness_cache::Output) -> bool {
    matches!(output.kind.as_str(), "metrics" | "file") && output.name.ends_with(".json")
}

/// A small JSON output.
fn read(request: &Request<'_>, output: &harness_cache::Output) -> Option<Value> {
    if output.size > LARGEST_READ {
        return None;
    }
    serde_json::from_slice(&request.cache.read(&output.digest).ok()??).ok()
}

/// Names of classes that a JSON output lists.
fn names(json: &Value) -> Option<Vec<String>> {
    json["classes"].as_array()?.iter().map(|name| name.as_str().map(String::from)).collect()
}

/// The claims' mean differences, where they have an interval.
fn differences(claims: &[(&Claim, Verdict)]) -> Option<Figure> {
    let rows: Vec<Difference> = claims
        .iter()
        .filter_map(|(claim, verdict)| {
            Some(Difference {
                label: claim.text.clone(),
                series: outcome(verdict).into(),
                interval: Some(interval(verdict.difference?)),
                values: verdict.pairs.clone(),
            })
        })
        .collect();
    (!rows.is_empty()).then(|| Figure {
        name: "claims".into(),
        title: "What the claims compare".into(),
        note: format!("{PAIRS} Left side less right side, in the units of the tables (shares in points of percent)."),
        declared: true,
        y_label: "difference".into(),
        drawing: Drawing::Differences { rows },
        ..Figure::default()
    })
}

/// What curves are drawn over, and the curves, each with its step.
type Counted = (String, Vec<(usize, Line)>);
/// A member, its classes, a row of counts for each of them, and over how many replicates these are summed.
type Answers = (String, Vec<String>, Vec<Vec<f64>>, usize);

/// Every curve of every kind, each name one figure; sizes of classes a figure for each dataset.
fn measured(request: &Request<'_>, states: &[State]) -> Vec<Figure> {
    // By kind and metric: what is counted, and the lines with their steps.
    let mut lines: BTreeMap<(String, String), Counted> = BTreeMap::new();
    let mut histograms = Vec::new();
    let mut known = BTreeSet::new();
    for (step, state) in request.program.steps.iter().zip(states).filter(|(step, _)| step.choice.is_none()) {
        let Some(finished) = &state.finished else { continue };
        let (label, replicate) = places(step);
        for (metric, series) in finished.record.series.iter().filter(|(_, series)| series.y.len() > 1) {
            if metric == "class_counts" {
                if known.insert(finished.record.digest) {
                    histograms.push(histogram(&label, &finished.record, &series.y, request));
                }
                continue;
            }
            // A learning rate that all methods share is no finding.
            if metric == "lr" {
                continue;
            }
            let (x, y) = (series.x.clone(), series.y.clone());
            let line = Line { label: label.clone(), replicate: replicate.clone(), x, y };
            let of = lines.entry((step.kind.clone(), metric.clone()));
            of.or_insert_with(|| (series.x_label.clone(), Vec::new())).1.push((step.id, line));
        }
    }
    let curves = lines.into_iter().map(|((kind, metric), (x_label, lines))| {
        let info = request.catalog.kind(&kind).and_then(|kind| kind.metric(&metric));
        let classes = by_class(&x_label, &lines, request, states);
        Figure {
            name: name(&format!("{metric} of {kind}")),
            title: format!("{metric} of {kind}"),
            note: if classes.is_some() { BARS } else { CURVES }.into(),
            percent: info.is_some_and(|info| info.percent),
            y_label: metric,
            x_label,
            drawing: classes
                .unwrap_or_else(|| Drawing::Curves { lines: lines.into_iter().map(|(_, line)| line).collect() }),
            declared: false,
        }
    });
    curves.chain(histograms).collect()
}

fn histogram(label: &str, record: &Record, counts: &[f64], request: &Request<'_>) -> Figure {
    let manifests = record.outputs.values().filter(|output| output.kind.ends_with("images"));
    let named = manifests.filter_map(|output| names(&read(request, output)?)).find(|names| names.len() == counts.len());
    let named = named.unwrap_or_else(|| (0..counts.len()).map(|class| format!("class {class}")).collect());
    let mut all: Vec<(String, f64)> = named.into_iter().zip(counts.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (most, least) = (all.first().map_or(0.0, |c| c.1), all.last().map_or(0.0, |c| c.1));
    let ratio =
        if least > 0.0 { format!(", the largest {:.1} times the smallest", most / least) } else { String::new() };
    Figure {
        name: name(&format!("classes of {label}")),
        title: format!("Classes of {label}"),
        note: format!("{} pictures in {} classes, largest first{ratio}.", counts.iter().sum::<f64>(), counts.len()),
        y_label: "pictures".into(),
        drawing: Drawing::Histogram {
            classes: all.iter().map(|c| c.0.clone()).collect(),
            counts: all.iter().map(|c| c.1).collect(),
        },
        ..Figure::default()
    }
}

/// Tables of answers that steps leave as JSON, `classes` and a row for each of them, summed over replicates.
fn confusions(request: &Request<'_>, states: &[State]) -> Vec<Figure> {
    let mut found: Vec<Answers> = Vec::new();
    let mut known = BTreeSet::new();
    for (step, state) in request.program.steps.iter().zip(states).filter(|(step, _)| step.choice.is_none()) {
        let Some(finished) = &state.finished else { continue };
        let (label, _) = places(step);
        for output in finished.record.outputs.values().filter(|output| is_json(output)) {
            let at = found.iter().position(|(other, ..)| *other == label);
            if at.is_none() && found.len() == MOST_CONFUSIONS || !known.insert((finished.record.digest, output.digest))
            {
                continue;
            }
            let Some(json) = read(request, output) else { continue };
            let Some(classes) = names(&json) else { continue };
            let table = ["counts", "confusion"].into_iter().find_map(|field| rows(&json[field], classes.len()));
            let Some(table) = table else { continue };
            match at.map(|at| &mut found[at]) {
                Some((_, known, sums, n)) if *known == classes => {
                    sums.iter_mut().flatten().zip(table.iter().flatten()).for_each(|(sum, count)| *sum += count);
                    *n += 1;
                }
                Some(_) => {}
                None => found.push((label.clone(), classes, table, 1)),
            }
        }
    }
    let figure = |(label, classes, counts, n): Answers| Figure {
        name: name(&format!("confusion of {label}")),
        title: format!("Answers of {label}"),
        note: format!(
            "A row is a true class, a column an answer; colours are shares of the row{}.",
            if n > 1 { format!("; counts of {n} replicates together") } else { String::new() }
        ),
        drawing: Drawing::Confusion { classes, counts },
        ..Figure::default()
    };
    found.into_iter().map(figure).collect()
}

/// A square table of numbers.
fn rows(json: &Value, size: usize) -> Option<Vec<Vec<f64>>> {
    let rows: Vec<Vec<f64>> = json
        .as_array()?
        .iter()
        .map(|row| {
            row.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>().filter(|row| row.len() == size)
        })
        .collect::<Option<_>>()?;
    (rows.len() == size && size > 1).then_some(rows)
}
