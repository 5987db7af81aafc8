//! From the states of a run to the summary that is rendered.

use crate::datasets;
use crate::events::Status;
use crate::run::{Request, State};
use crate::start::number;
use crate::text::Text;
use anyhow::{Context as _, Result};
use harness_cache::Hasher;
use harness_dsl::{CellRef, Claim, Column, Outcome, Pick, Verdict};
use harness_protocol::Gallery;
use harness_report as page;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of pictures that one page carries at most.
const MOST_PICTURE_BYTES: usize = 24 << 20;

/// The word for a verdict.
pub fn outcome(verdict: &Verdict) -> &'static str {
    match verdict.outcome {
        Outcome::Holds => "holds",
        Outcome::Fails => "fails",
        Outcome::Undecided => "undecided",
    }
}

/// The machine in words: processor, cores, memory.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map(|(_, v)| v.trim().to_string())
    };
    let model = after(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let memory = after(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map(|kib| format!(", {:.0} GiB", kib / f64::from(1 << 20)))
        .unwrap_or_default();
    format!("{model}, {cores} cores{memory}")
}

/// Everything the page shows.
pub fn build(
    request: &Request<'_>,
    text: &Text,
    states: &[State],
    claims: &[(&Claim, Verdict)],
    run: page::RunInfo,
) -> page::Summary {
    let program = request.program;
    let mut warnings: Vec<String> = Vec::new();
    for (step, state) in program.steps.iter().zip(states) {
        for warning in &state.warnings {
            // Datasets are named by what they warn of; of an evaluation it must be clear whose number it is.
            let named = datasets::is_dataset(&step.kind) || warning.contains(&step.label);
            let warning = if named { warning.clone() } else { format!("{}: {warning}", step.label) };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    page::Summary {
        title: text.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        file: text.file.display().to_string(),
        source_text: text.text.clone(),
        generated: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        run,
        params: program.params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        tables: program.tables.iter().map(|table| self::table(table, request, states)).collect(),
        claims: claims
            .iter()
            .map(|(claim, verdict)| page::Claim {
                text: claim.text.clone(),
                source: claim.source.clone(),
                outcome: outcome(verdict).into(),
                detail: verdict.detail.clone(),
                single: verdict.single,
            })
            .collect(),
        charts: program.figures.iter().filter(|f| !f.curves).map(|f| chart(f, request, states)).collect(),
        curves: {
            let declared = program.figures.iter().filter(|figure| figure.curves);
            let mut all: Vec<page::Figure> = declared.map(|figure| drawn(figure, request, states)).collect();
            all.extend(curves(request, states));
            all
        },
        galleries: galleries(request, states),
        steps: steps(request, states),
        warnings,
    }
}

fn value(cell: &CellRef, pick: Pick, request: &Request<'_>, states: &[State]) -> page::CellValue {
    let state = &states[cell.step];
    let value = number(state, cell.step, &cell.metric, pick, request);
    let problem = match (&value, &state.error) {
        (Some(_), _) => None,
        (None, Some(error)) => Some(error.lines().next().unwrap_or_default().to_string()),
        (None, None) => Some(format!("`{}` was not recorded", cell.metric)),
    };
    let key = state.key.map(|key| key.to_string()).unwrap_or_default();
    page::CellValue { value, replicate: cell.replicate.clone(), step: cell.step, key, problem }
}

fn table(table: &harness_dsl::Table, request: &Request<'_>, states: &[State]) -> page::Table {
    let cells = |refs: &[CellRef], column: &Column| {
        let mut values: Vec<page::CellValue> =
            refs.iter().map(|cell| value(cell, column.pick, request, states)).collect();
        // Replicates of a step in which nothing is random are one measurement, and count as one.
        if let [first, rest @ ..] = values.as_slice()
            && !first.key.is_empty()
            && rest.iter().all(|other| other.key == first.key)
        {
            values = vec![page::CellValue { replicate: None, ..first.clone() }];
        }
        page::Cell { values, ..page::Cell::default() }
    };
    let published = |label: &str, column: usize| {
        let rows = table.published.iter().flat_map(|published| &published.rows);
        rows.filter(|row| row.label == label).find_map(|row| row.values.get(column).copied().flatten())
    };
    let mut rows: Vec<page::Row> = table
        .rows
        .iter()
        .map(|row| page::Row {
            label: row.label.clone(),
            floor: false,
            elsewhere: false,
            cells: row
                .cells
                .iter()
                .zip(&table.columns)
                .enumerate()
                .map(|(at, (cell, column))| page::Cell {
                    published: published(&row.label, at),
                    ..cells(&cell.values, column)
                })
                .collect(),
        })
        .collect();
    // What was published and is not measured here still tells where the field stands.
    let known: BTreeSet<&str> = table.rows.iter().map(|row| row.label.as_str()).collect();
    for row in table.published.iter().flat_map(|published| &published.rows) {
        if !known.contains(row.label.as_str()) {
            let cells = row.values.iter().map(|&published| page::Cell { published, ..page::Cell::default() }).collect();
            rows.push(page::Row { label: row.label.clone(), floor: false, elsewhere: true, cells });
        }
    }
    // One row for what trivial predictors reach: the same for every method, so each column's first member tells it.
    let floors: Vec<page::Cell> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let members = table.rows.iter().map(|row| &row.cells[index].floor).find(|floor| !floor.is_empty());
            let mut cell = members.map(|members| cells(members, column)).unwrap_or_default();
            // Equal over replicates since nothing in it is random: say it once.
            if let Some(first) = cell.values.first().cloned()
                && cell.values.iter().all(|value| value.value == first.value)
            {
                cell.values = vec![page::CellValue { replicate: None, ..first }];
            }
            cell.note = if cell.values.is_empty() {
                String::new()
            } else {
                column.metric.floor_label.clone().unwrap_or_default()
            };
            cell
        })
        .collect();
    if floors.iter().any(|cell| !cell.values.is_empty()) {
        rows.push(page::Row { label: "trivial predictor".into(), floor: true, elsewhere: false, cells: floors });
    }
    let columns = table
        .columns
        .iter()
        .map(|column| page::Column {
            label: column.label.clone(),
            doc: column.metric.doc.clone(),
            higher_is_better: column.metric.higher_is_better,
            on_test: column.metric.on_test,
            percent: column.metric.percent,
        })
        .collect();
    page::Table {
        name: table.name.clone(),
        title: table.title.clone(),
        row_axis: table.row_axis.clone(),
        columns,
        rows,
        published: table.published.as_ref().map(sources).unwrap_or_default(),
    }
}

/// The file of published figures, and what it says of where they were published.
fn sources(published: &harness_dsl::Published) -> String {
    let mut named: Vec<&str> = Vec::new();
    for row in &published.rows {
        if !row.source.is_empty() && !named.contains(&row.source.as_str()) {
            named.push(&row.source);
        }
    }
    if named.is_empty() { published.file.clone() } else { format!("{}: {}", published.file, named.join("; ")) }
}

/// A declared figure of numbers.
fn chart(figure: &harness_dsl::Figure, request: &Request<'_>, states: &[State]) -> page::Chart {
    let numbers = |cells: &[CellRef], column: &Column| -> Vec<f64> {
        let values: Vec<page::CellValue> = cells.iter().map(|cell| value(cell, column.pick, request, states)).collect();
        // Replicates of a step in which nothing is random are one measurement.
        let same = values.windows(2).all(|pair| pair[0].key == pair[1].key && !pair[0].key.is_empty());
        let all: Vec<f64> = values.iter().map(|value| value.value.unwrap_or(f64::NAN)).collect();
        if same { all.into_iter().take(1).collect() } else { all }
    };
    let marks = figure.drawings.iter().map(|drawing| {
        let column = &figure.columns[drawing.column];
        page::Mark {
            label: drawing.label.clone(),
            series: column.label.clone(),
            values: numbers(&drawing.cells, column),
            x: figure.over.as_ref().map(|over| numbers(&drawing.x, over)).unwrap_or_default(),
        }
    });
    let labels: Vec<&str> = figure.columns.iter().map(|column| column.label.as_str()).collect();
    page::Chart {
        title: figure.title.clone(),
        y_label: labels.join(", "),
        x_label: figure.over.as_ref().map(|over| over.label.clone()),
        percent: figure.columns.iter().all(|column| column.metric.percent),
        x_percent: figure.over.as_ref().is_some_and(|over| over.metric.percent),
        marks: marks.collect(),
    }
}

/// A declared figure of curves.
fn drawn(figure: &harness_dsl::Figure, request: &Request<'_>, states: &[State]) -> page::Figure {
    let mut out = page::Figure {
        title: figure.title.clone(),
        percent: figure.columns.iter().all(|column| column.metric.percent),
        ..page::Figure::default()
    };
    let several = figure.columns.len() > 1;
    for drawing in &figure.drawings {
        let column = &figure.columns[drawing.column];
        for cell in &drawing.cells {
            let Some(finished) = &states[cell.step].finished else { continue };
            let Some(series) = finished.record.series.get(&cell.metric) else { continue };
            out.x_label.clone_from(&series.x_label);
            let (place, _) = places(&request.program.steps[cell.step]);
            let label = if several { format!("{place}.{}", column.metric.name) } else { place };
            let (x, y) = (series.x.clone(), series.y.clone());
            out.lines.push(page::Line { label, replicate: cell.replicate.clone(), x, y });
        }
    }
    out
}

/// The place of a step on the axes to compare along, `nn[moco]`, and on those to average over, `seed=2`.
fn places(step: &harness_dsl::Step) -> (String, Option<String>) {
    let compared: Vec<&str> = step.axes.iter().filter(|axis| !axis.replicate).map(|axis| axis.value.as_str()).collect();
    let averaged: Vec<String> =
        step.axes.iter().filter(|axis| axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value)).collect();
    let label = if compared.is_empty() { step.name.clone() } else { format!("{}[{}]", step.name, compared.join(", ")) };
    (label, (!averaged.is_empty()).then(|| averaged.join(", ")))
}

fn curves(request: &Request<'_>, states: &[State]) -> Vec<page::Figure> {
    let mut figures: BTreeMap<(String, String), page::Figure> = BTreeMap::new();
    for (step, state) in request.program.steps.iter().zip(states) {
        let Some(finished) = &state.finished else { continue };
        let (label, replicate) = places(step);
        for (name, series) in finished.record.series.iter().filter(|(_, series)| series.y.len() > 1) {
            let metric = request.catalog.kind(&step.kind).and_then(|kind| kind.metric(name));
            let figure = figures.entry((step.kind.clone(), name.clone())).or_insert_with(|| page::Figure {
                title: format!("{name} of {}", step.kind),
                x_label: series.x_label.clone(),
                percent: metric.is_some_and(|metric| metric.percent),
                lines: Vec::new(),
            });
            figure.lines.push(page::Line {
                label: label.clone(),
                replicate: replicate.clone(),
                x: series.x.clone(),
                y: series.y.clone(),
            });
        }
    }
    // A learning rate that all methods share is no finding.
    figures.into_iter().filter(|((_, name), _)| name != "lr").map(|(_, figure)| figure).collect()
}

fn galleries(request: &Request<'_>, states: &[State]) -> Vec<page::Gallery> {
    let mut seen = BTreeSet::new();
    let mut budget = MOST_PICTURE_BYTES;
    let mut galleries = Vec::new();
    for (step, state) in request.program.steps.iter().zip(states) {
        let Some(finished) = &state.finished else { continue };
        // One replicate of each member is enough to look at.
        let (label, _) = places(step);
        for output in finished.record.outputs.values().filter(|output| output.kind == "pictures") {
            if !seen.insert((label.clone(), output.name.clone())) {
                continue;
            }
            let Ok(Some(bytes)) = request.cache.read(&output.digest) else { continue };
            let Ok(gallery) = serde_json::from_slice::<Gallery>(&bytes) else { continue };
            if bytes.len() > budget {
                continue;
            }
            budget -= bytes.len();
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
            let items = gallery.items.into_iter().filter(|item| plain(&item.png_base64));
            galleries.push(page::Gallery {
                title: gallery.title,
                caption: gallery.caption,
                step_label: step.label.clone(),
                items: items
                    .map(|item| page::Picture {
                        caption: item.caption,
                        png_base64: item.png_base64,
                        width: item.width,
                        height: item.height,
                    })
                    .collect(),
            });
        }
    }
    galleries
}

fn steps(request: &Request<'_>, states: &[State]) -> Vec<page::StepRow> {
    let rows = request.program.steps.iter().zip(states).filter(|(step, _)| request.wanted[step.id]);
    rows.map(|(step, state)| {
        let record = state.finished.as_ref().map(|finished| &finished.record);
        let ran_on = record
            .and_then(|record| record.provenance.as_object())
            .map(|map| map.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
            .unwrap_or_default();
        page::StepRow {
            id: step.id,
            label: step.label.clone(),
            kind: step.kind.clone(),
            status: match state.status {
                Status::Executed => "executed",
                Status::Cached => "cached",
                Status::Failed => "failed",
                Status::Skipped => "skipped",
            }
            .into(),
            key: state.key.map(|key| key.to_string()).unwrap_or_default(),
            seconds: record.map_or(0.0, |record| record.duration_s),
            when: record
                .and_then(|record| jiff::Timestamp::from_millisecond(record.finished_unix_ms as i64).ok())
                .map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
                .unwrap_or_default(),
            ran_on,
            metrics: record
                .map(|r| r.metrics.iter().map(|(name, value)| (name.clone(), value.to_string())).collect())
                .unwrap_or_default(),
            error: state.error.clone(),
            params: record
                .map(|record| serde_json::to_string_pretty(&record.key.params).unwrap_or_default())
                .unwrap_or_else(|| serde_json::to_string_pretty(&step.params).unwrap_or_default()),
        }
    })
    .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => page::format::number(number.as_f64().unwrap_or_default(), false),
        other => other.to_string(),
    }
}

/// Whatever decides the page, but not when it is made. A run that finds everything in the cache as the run before left
/// it has the same, and needs no new page.
pub fn standing(request: &Request<'_>, text: &Text, states: &[State], resolved: &[u8]) -> String {
    let mut hasher = Hasher::default();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    // Another build may render otherwise.
    let build = std::env::current_exe().and_then(std::fs::metadata).map(|m| (m.len(), m.modified().ok()));
    add(format!("{} {build:?}", env!("CARGO_PKG_VERSION")).as_bytes());
    add(text.file.as_os_str().as_encoded_bytes());
    add(text.text.as_bytes());
    add(resolved);
    for (state, wanted) in states.iter().zip(&request.wanted) {
        let made = state.finished.as_ref().map(|finished| finished.record.finished_unix_ms);
        add(&[u8::from(*wanted)]);
        add(&state.key.map(|key| key.0).unwrap_or_default());
        add(&made.unwrap_or_default().to_be_bytes());
        add(state.error.as_deref().unwrap_or_default().as_bytes());
        add(state.warnings.join("\n").as_bytes());
    }
    hasher.finish().to_string()
}

/// Keeps the page in `home`, rendered only where what stands there shows another standing, and puts it into the run's
/// folder and, if named, into `out`; gives the place of the last one.
///
/// # Errors
/// A folder cannot be written.
pub fn keep(
    home: &Path,
    standing: &str,
    run: &Path,
    out: Option<&Path>,
    render: impl FnOnce() -> page::Summary,
) -> Result<PathBuf> {
    const FILES: [&str; 2] = ["summary.html", "summary.md"];
    let mark = home.join("standing");
    let there = std::fs::read_to_string(&mark).is_ok_and(|found| found == standing)
        && FILES.iter().all(|name| home.join(name).is_file());
    if !there {
        let _ = std::fs::remove_file(&mark);
        write(&render(), home)?;
        std::fs::write(&mark, standing).with_context(|| format!("{} cannot be written", mark.display()))?;
    }
    let mut path = home.join(FILES[0]);
    for name in FILES {
        let (from, to) = (home.join(name), run.join(name));
        std::fs::hard_link(&from, &to)
            .or_else(|_| std::fs::copy(&from, &to).map(|_| ()))
            .with_context(|| format!("{} cannot be written", to.display()))?;
    }
    if let Some(out) = out {
        std::fs::create_dir_all(out).with_context(|| format!("{} cannot be created", out.display()))?;
        for name in FILES {
            let to = out.join(name);
            std::fs::copy(home.join(name), &to).with_context(|| format!("{} cannot be written", to.display()))?;
        }
        path = out.join(FILES[0]);
    }
    Ok(path)
}

/// Writes both renderings into `folder`; gives the HTML page's path.
///
/// # Errors
/// The folder cannot be written.
pub fn write(summary: &page::Summary, folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let path = folder.join("summary.html");
    for (path, text) in
        [(path.clone(), page::render_html(summary)?), (folder.join("summary.md"), page::render_markdown(summary)?)]
    {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(path)
}
