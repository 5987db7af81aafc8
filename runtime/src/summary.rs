//! From the states of a run to the summary that is rendered.

pub mod figures;

use crate::datasets;
use crate::events::Status;
use crate::run::{Request, State};
use crate::start::number;
use crate::text::Text;
use anyhow::{Context as _, Result};
use harness_cache::Hasher;
use harness_dsl::ide::{Page, TokenKind};
use harness_dsl::{CellRef, Claim, Column, Expression, Outcome, Pick, Verdict, evaluate_claim};
use harness_protocol::Gallery;
use harness_report as page;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of pictures that one page carries at most, so that it stays below 20 MB.
const MOST_PICTURE_BYTES: usize = 16 << 20;
/// Larger manifests are not read for the names of their classes.
const LARGEST_READ: u64 = 16 << 20;
/// Texts up to this size are coloured and linked on the page.
const LARGEST_COLOURED: usize = 256 << 10;
/// Steps whose provenance one page shows: more would make it slow to open, and to make.
const MOST_STEPS: usize = 2_000;
/// Confusion matrices that one page shows.
const MOST_CONFUSIONS: usize = 12;

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

/// The claims decided by what is known. They speak in the units of tables (shares in percent) and count as tables do:
/// evaluations of one training are one.
pub fn verdicts<'a>(request: &Request<'a>, states: &[State]) -> Vec<(&'a Claim, Verdict)> {
    let program = request.program;
    let value = |step: usize, metric: &str, pick: Pick| {
        let kind = request.catalog.kind(&program.steps[step].kind);
        let percent = kind.and_then(|kind| kind.metric(metric)).is_some_and(|metric| metric.percent);
        number(&states[step], step, metric, pick, request).map(|v| if percent { v * 100.0 } else { v })
    };
    let training = |step: usize| Some(training(step, request, states)).filter(|keys| !keys.is_empty());
    program.claims.iter().map(|claim| (claim, evaluate_claim(claim, &value, &training))).collect()
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
    // What the text itself makes doubtful, such as a choice by test data, is said wherever its numbers are shown.
    let mut warnings: Vec<String> = text.checked.diagnostics.iter().map(said).collect();
    // What is said of many members of a family is said once.
    let mut of_steps: Vec<(&str, Vec<&harness_dsl::Step>)> = Vec::new();
    for (step, state) in program.steps.iter().zip(states) {
        for warning in &state.warnings {
            match of_steps.iter_mut().find(|(said, _)| said == warning) {
                Some((_, steps)) => steps.push(step),
                None => of_steps.push((warning, vec![step])),
            }
        }
    }
    warnings.extend(of_steps.into_iter().map(|(warning, steps)| whose(warning, &steps)));
    page::Summary {
        title: text.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        file: text.file.display().to_string(),
        source_text: text.text.clone(),
        source: source(request, text),
        about: about(&text.text),
        generated: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        run,
        params: program.params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        tables: program.tables.iter().map(|table| self::table(table, request, states)).collect(),
        claims: told(request, text, states, claims),
        figures: figures::figures(request, states, claims),
        galleries: galleries(request, states),
        steps_left_out: request.wanted.iter().filter(|wanted| **wanted).count().saturating_sub(MOST_STEPS),
        steps: steps(request, states),
        costs: costs(request, states),
        warnings,
    }
}

/// A warning with the steps that it is about: of an evaluation it must be clear whose number it is; datasets are named by
/// what they warn of.
fn whose(warning: &str, steps: &[&harness_dsl::Step]) -> String {
    let unnamed = |step: &&&harness_dsl::Step| !datasets::is_dataset(&step.kind) && !warning.contains(&step.label);
    let steps: Vec<_> = steps.iter().filter(unnamed).collect();
    let mut names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    names.dedup();
    match steps[..] {
        [] => warning.into(),
        [step] => format!("{}: {warning}", step.label),
        _ => format!("{} ({} steps): {warning}", names.join(", "), steps.len()),
    }
}

/// The comment that a text begins with, as prose.
fn about(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let lines: Vec<&str> = lines.map(|line| line.trim_start_matches('#').trim()).collect();
    // Lines of a paragraph flow; an empty line ends it.
    let mut out = String::new();
    for line in lines {
        match line {
            "" => out.push_str("\n\n"),
            line => {
                if !out.is_empty() && !out.ends_with('\n') {
                    out.push(' ');
                }
                out.push_str(line);
            }
        }
    }
    out.trim().into()
}

/// The text in pieces: coloured by what they are, steps, tables, figures and claims linked to their results.
fn source(request: &Request<'_>, text: &Text) -> Vec<page::Piece> {
    if text.text.len() > LARGEST_COLOURED {
        return vec![page::Piece { text: text.text.clone(), ..page::Piece::default() }];
    }
    let program = request.program;
    // By first byte in the text itself; what an import declares is in another one.
    let mut links: BTreeMap<usize, (String, String)> = BTreeMap::new();
    for step in program.steps.iter().filter(|step| !step.implied && step.span.source == 0 && request.wanted[step.id]) {
        let members = program.steps.iter().filter(|other| !other.implied && other.span == step.span).count();
        let results =
            if members == 1 { "its result".to_string() } else { format!("the first of its {members} results") };
        links.entry(step.span.start).or_insert((format!("#step-{}", step.id), results));
    }
    for (index, claim) in program.claims.iter().enumerate().filter(|(_, claim)| claim.span.source == 0) {
        links.insert(claim.span.start, (format!("#claim-{}", index + 1), "its verdict".into()));
    }
    let mut pieces: Vec<page::Piece> = Vec::new();
    let (mut at, mut shows) = (0, "");
    for token in Page::new(&*text.text).semantic_tokens() {
        let (Some(between), Some(own)) = (text.text.get(at..token.start), text.text.get(token.start..token.end)) else {
            continue;
        };
        if !between.is_empty() {
            pieces.push(page::Piece { text: between.into(), ..page::Piece::default() });
        }
        at = token.end;
        let class = match token.kind {
            TokenKind::Keyword => "keyword",
            TokenKind::Kind => "kind",
            TokenKind::Field => "field",
            TokenKind::Name => "name",
            TokenKind::Number => "number",
            TokenKind::Text => "text",
            TokenKind::Operator => "operator",
            TokenKind::Comment => "comment",
        };
        let shown = match shows {
            "table" if program.tables.iter().any(|table| table.name == own) => {
                Some((format!("#table-{own}"), "the table"))
            }
            "figure" if program.figures.iter().any(|figure| figure.name == own) => {
                Some((format!("#figure-{own}"), "the figure"))
            }
            _ => None,
        };
        shows = if class == "keyword" { own } else { "" };
        let (link, title) = match (links.get(&token.start), shown) {
            (Some((link, title)), _) => (link.clone(), title.clone()),
            (None, Some((link, title))) => (link, title.to_string()),
            (None, None) => Default::default(),
        };
        pieces.push(page::Piece { text: own.into(), class: class.into(), link, title });
    }
    if let Some(rest) = text.text.get(at..).filter(|rest| !rest.is_empty()) {
        pieces.push(page::Piece { text: rest.into(), ..page::Piece::default() });
    }
    pieces
}

/// The steps whose numbers a claim rests on.
fn rests_on(claim: &Claim) -> BTreeSet<usize> {
    fn cells(expression: &Expression, into: &mut BTreeSet<usize>) {
        match expression {
            Expression::Number(_) => {}
            Expression::Measured { cells, .. } => into.extend(cells.iter().map(|cell| cell.step)),
            Expression::Negated(inner) => cells(inner, into),
            Expression::Binary { left, right, .. } => [left, right].into_iter().for_each(|side| cells(side, into)),
            Expression::Call { arguments, .. } => arguments.iter().for_each(|argument| cells(argument, into)),
        }
    }
    let mut found = BTreeSet::new();
    for comparison in &claim.condition.comparisons {
        cells(&comparison.left, &mut found);
        cells(&comparison.right, &mut found);
    }
    found
}

/// The claims with their verdicts, and whether each was stated before its results were known: before the first of them
/// began to be computed, the claim was part, with the same words and the same condition, of a recorded run of the file.
fn told(request: &Request<'_>, text: &Text, states: &[State], claims: &[(&Claim, Verdict)]) -> Vec<page::Claim> {
    let mut first: Vec<Option<u64>> = vec![None; claims.len()];
    if !claims.is_empty() {
        // Oldest first; each is read only as long as some claim has not been met.
        for run in crate::runs::of_file(request.cache.dir(), &text.file).iter().rev() {
            if first.iter().all(Option::is_some) {
                break;
            }
            let written = std::fs::read_to_string(run.dir.join("source.exp")).unwrap_or_default();
            let mut program = None;
            for ((claim, _), first) in claims.iter().zip(&mut first).filter(|(_, first)| first.is_none()) {
                let there = match claim.span.source {
                    0 => written.contains(&claim.source) && written.contains(&claim.text),
                    // It is declared in a file that the text imports.
                    _ => {
                        let program = program.get_or_insert_with(|| run.program().unwrap_or_default());
                        program.claims.iter().any(|old| old.text == claim.text && old.source == claim.source)
                    }
                };
                if there && run.asked.started_unix_ms > 0 {
                    *first = Some(run.asked.started_unix_ms);
                }
            }
        }
    }
    claims
        .iter()
        .zip(first)
        .map(|((claim, verdict), first)| {
            let began = rests_on(claim).into_iter().map(|step| {
                let record = &states[step].finished.as_ref()?.record;
                Some(record.finished_unix_ms.saturating_sub((record.duration_s * 1000.0) as u64))
            });
            let began: Option<Vec<u64>> = began.collect();
            let earliest = began.and_then(|began| began.into_iter().min());
            page::Claim {
                text: claim.text.clone(),
                source: claim.source.clone(),
                outcome: outcome(verdict).into(),
                detail: verdict.detail.clone(),
                single: verdict.single,
                interval: verdict.difference.map(interval),
                stated: first.map(|ms| format!("{} UTC", crate::cli::when(ms))).unwrap_or_default(),
                before: first.zip(earliest).map(|(stated, began)| stated <= began),
            }
        })
        .collect()
}

/// The same interval for the page.
pub fn interval(interval: harness_dsl::Interval) -> page::Interval {
    let harness_dsl::Interval { mean, low, high, n } = interval;
    page::Interval { mean, low, high, n }
}

/// What the results cost, whenever they were computed.
fn costs(request: &Request<'_>, states: &[State]) -> page::Costs {
    let mut costs = page::Costs::default();
    let mut kinds: BTreeMap<&str, page::KindCost> = BTreeMap::new();
    let mut hours: BTreeMap<String, f64> = BTreeMap::new();
    let mut hosts: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (step, state) in request.program.steps.iter().zip(states).filter(|(step, _)| request.wanted[step.id]) {
        let kind = kinds.entry(&step.kind).or_default();
        kind.steps += 1;
        costs.asked += 1;
        if state.status == Status::Cached {
            kind.cached += 1;
            costs.hits += 1;
        }
        let Some(record) = state.finished.as_ref().map(|finished| &finished.record) else { continue };
        // Steps with the same key are one computation.
        if !seen.insert(record.digest) {
            continue;
        }
        kind.seconds += record.duration_s;
        costs.seconds += record.duration_s;
        if state.status == Status::Cached {
            costs.saved_s += record.duration_s;
        }
        let device = ["gpu", "device"].into_iter().find_map(|name| record.provenance.get(name)?.as_str());
        let devices = record.provenance.get("gpus").and_then(Value::as_f64).unwrap_or(1.0).max(1.0);
        *hours.entry(device.unwrap_or("cpu").into()).or_default() += record.duration_s / 3600.0 * devices;
        if let Some(waited) = record.provenance.get("waited_s").and_then(Value::as_f64) {
            costs.waited_s += waited;
            costs.queued += 1;
        }
        if let Some(host) = record.provenance.get("host").and_then(Value::as_str) {
            *hosts.entry(host.into()).or_default() += 1;
        }
        // Datasets have a number of that name too; who trains counts pixels as well.
        if let (Some(pictures), Some(pixels)) = (record.metrics.get("pictures"), record.metrics.get("pixels")) {
            kind.pictures += pictures;
            kind.pixels += pixels;
            costs.pictures += pictures;
            costs.pixels += pixels;
        }
    }
    costs.hosts = hosts.into_iter().collect();
    costs.device_hours = hours.into_iter().collect();
    costs.kinds = kinds.into_iter().map(|(kind, cost)| page::KindCost { kind: kind.into(), ..cost }).collect();
    costs.kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    costs
}

/// A warning about the text in one line.
fn said(found: &harness_dsl::Diagnostic) -> String {
    let place = found.location.as_ref().map(|at| format!("{}:{}: ", at.file, at.line)).unwrap_or_default();
    format!("{place}{} ({})", found.message, found.code)
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
    let training = training(cell.step, request, states);
    page::CellValue { value, replicate: cell.replicate.clone(), step: cell.step, key, training, problem }
}

/// Kinds whose results are trained or drawn anew: what an evaluation with another of these measured is independent.
const TRAININGS: [&str; 3] = ["pretrain", "encoder", "command"];

/// What a value's training was: the keys of all trainings that it comes from, itself among them; of none, its own key.
fn training(step: usize, request: &Request<'_>, states: &[State]) -> String {
    let steps = &request.program.steps;
    let (mut seen, mut open, mut keys) = (BTreeSet::from([step]), vec![step], BTreeSet::new());
    while let Some(at) = open.pop() {
        if let Some(key) = states[at].key.filter(|_| TRAININGS.contains(&steps[at].kind.as_str())) {
            keys.insert(key.to_string());
        }
        open.extend(steps[at].inputs.iter().copied().filter(|&input| seen.insert(input)));
    }
    if keys.is_empty() {
        keys.extend(states[step].key.map(|key| key.to_string()));
    }
    keys.into_iter().collect::<Vec<_>>().join(" ")
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

/// The place of a step on the axes to compare along, `nn[moco]`, and on those to average over, `seed=2`.
pub fn places(step: &harness_dsl::Step) -> (String, Option<String>) {
    let compared: Vec<&str> = step.axes.iter().filter(|axis| !axis.replicate).map(|axis| axis.value.as_str()).collect();
    let averaged: Vec<String> =
        step.axes.iter().filter(|axis| axis.replicate).map(|axis| format!("{}={}", axis.name, axis.value)).collect();
    let label = if compared.is_empty() { step.name.clone() } else { format!("{}[{}]", step.name, compared.join(", ")) };
    (label, (!averaged.is_empty()).then(|| averaged.join(", ")))
}

/// One replicate of each member is enough to look at. When all of them are too much for a page, every gallery keeps the
/// same share of its bytes.
fn galleries(request: &Request<'_>, states: &[State]) -> Vec<page::Gallery> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<(page::Gallery, usize)> = Vec::new();
    // What is chosen is shown where it was measured.
    let own = request.program.steps.iter().zip(states).filter(|(step, _)| step.choice.is_none());
    for (step, state) in own {
        let Some(finished) = &state.finished else { continue };
        let (label, _) = places(step);
        for output in finished.record.outputs.values().filter(|output| output.kind == "pictures") {
            if !seen.insert((label.clone(), output.name.clone())) {
                continue;
            }
            let Ok(Some(bytes)) = request.cache.read(&output.digest) else { continue };
            let Ok(gallery) = serde_json::from_slice::<Gallery>(&bytes) else { continue };
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
            let items = gallery.items.into_iter().filter(|item| plain(&item.png_base64));
            let gallery = page::Gallery {
                title: gallery.title,
                caption: gallery.caption,
                step_label: step.label.clone(),
                step: step.id,
                left_out: 0,
                items: items
                    .map(|item| page::Picture {
                        frames: frames(&item.caption),
                        caption: item.caption,
                        png_base64: item.png_base64,
                        width: item.width,
                        height: item.height,
                    })
                    .collect(),
            };
            let size = gallery.items.iter().map(|item| item.png_base64.len()).sum();
            found.push((gallery, size));
        }
    }
    let total: usize = found.iter().map(|(_, size)| size).sum();
    let share = (MOST_PICTURE_BYTES as f64 / total.max(1) as f64).min(1.0);
    found
        .into_iter()
        .map(|(mut gallery, size)| {
            let room = (size as f64 * share) as usize;
            let mut used = 0;
            let all = gallery.items.len();
            gallery.items.retain(|item| {
                used += item.png_base64.len();
                used <= room
            });
            gallery.left_out = all - gallery.items.len();
            gallery
        })
        .filter(|gallery| !gallery.items.is_empty() || gallery.left_out > 0)
        .collect()
}

/// Frames that a strip's caption counts: `bear, frames 0, 12, 24; J 0.7`.
fn frames(caption: &str) -> usize {
    let Some((_, rest)) = caption.split_once(", frames ") else { return 0 };
    let list = rest.split(';').next().unwrap_or_default();
    list.split(", ").take_while(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())).count()
}

fn steps(request: &Request<'_>, states: &[State]) -> Vec<page::StepRow> {
    let rows = request.program.steps.iter().zip(states).filter(|(step, _)| request.wanted[step.id]);
    // What failed is what people look for.
    let (failed, others): (Vec<_>, Vec<_>) = rows.partition(|(_, state)| state.status == Status::Failed);
    let mut rows: Vec<_> = failed.into_iter().chain(others).take(MOST_STEPS).collect();
    rows.sort_by_key(|(step, _)| step.id);
    let rows = rows.into_iter();
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

/// The two renderings.
pub const FILES: [&str; 2] = ["summary.html", "summary.md"];

/// The same file under another name, or a copy of it.
pub fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()))
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
        let to = run.join(name);
        link(&home.join(name), &to).with_context(|| format!("{} cannot be written", to.display()))?;
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
    let templates = page::Templates::default();
    let (html, markdown) =
        rayon::join(|| page::render_html(summary, &templates), || page::render_markdown(summary, &templates));
    for (path, text) in [(path.clone(), html?), (folder.join("summary.md"), markdown?)] {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(path)
}
