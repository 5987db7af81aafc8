//! The renderings of a summary and of a comparison, through templates that a user can replace.

use crate::format::{self, amount, escape, independent, number, seconds, statistics};
use crate::model::{Cell, CellValue, Claim, Column, Comparison, Drawing, Figure, Piece, Summary, Table};
use crate::{still, tables};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;
use tera::{Context, Tera};

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template that is wrong, or asks for what there is not.
    #[error("{0}")]
    Template(String),
    /// A figure that cannot be drawn: a mistake of this crate.
    #[error(transparent)]
    Figure(#[from] still::Error),
    /// A folder of templates that cannot be read, or holds none.
    #[error("{0}")]
    Folder(String),
}

impl From<tera::Error> for Error {
    fn from(error: tera::Error) -> Self {
        // Its sources say where, which it does not.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        Self::Template(text)
    }
}

/// Names of the files that a page is made of; a folder of templates may hold any of them.
pub const FILES: [&str; 5] = ["summary.html", "summary.md", "compare.html", "style.css", "page.js"];

/// What pages are made of: the built-in templates, or a user's in their place.
#[derive(Clone, Debug)]
pub struct Templates {
    files: BTreeMap<String, String>,
}

impl Default for Templates {
    fn default() -> Self {
        let texts = [
            include_str!("../templates/summary.html"),
            include_str!("../templates/summary.md"),
            include_str!("../templates/compare.html"),
            include_str!("../templates/style.css"),
            include_str!("../templates/page.js"),
        ];
        Self { files: FILES.iter().zip(texts).map(|(name, text)| ((*name).into(), text.into())).collect() }
    }
}

impl Templates {
    /// The built-in ones with those of a folder in their place. Further `.html` and `.md` files of the folder can be
    /// included by their name.
    ///
    /// # Errors
    /// The folder cannot be read, or holds none of [`FILES`].
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let unreadable = |path: &Path, error: std::io::Error| {
            Error::Folder(format!("the templates in {} cannot be read: {error}", path.display()))
        };
        let mut templates = Self::default();
        let mut replaced = 0;
        for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
            let path = entry.map_err(|error| unreadable(folder, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(String::from) else { continue };
            let known = FILES.contains(&name.as_str());
            if known || (name.ends_with(".html") || name.ends_with(".md")) && path.is_file() {
                let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
                templates.files.insert(name, text);
                replaced += usize::from(known);
            }
        }
        if replaced == 0 {
            let (folder, names) = (folder.display(), FILES.join(", "));
            return Err(Error::Folder(format!("{folder} holds no template; they are called {names}")));
        }
        Ok(templates)
    }

    /// One of [`FILES`], as it is used.
    pub fn file(&self, name: &str) -> &str {
        self.files.get(name).map_or("", String::as_str)
    }

    fn render(&self, name: &str, context: &Context) -> Result<String, Error> {
        let mut tera = Tera::default();
        let text = |value: &Value| value.as_str().map(String::from).unwrap_or_else(|| value.to_string());
        tera.register_filter("md", move |value: &Value, _: &HashMap<String, Value>| {
            Ok(Value::String(plain(&text(value))))
        });
        tera.register_filter("code", move |value: &Value, _: &HashMap<String, Value>| {
            Ok(Value::String(code(&text(value))))
        });
        tera.register_filter("prose", move |value: &Value, _: &HashMap<String, Value>| {
            let code = |text: &str| format!("<code>{}</code>", crate::format::escape(text));
            Ok(Value::String(prose(&text(value), crate::format::escape, code)))
        });
        tera.register_filter("prose_md", move |value: &Value, _: &HashMap<String, Value>| {
            Ok(Value::String(prose(&text(value), plain, code)))
        });
        // A name's ending switches escaping on.
        let pages = self.files.iter().filter(|(name, _)| name.ends_with(".html") || name.ends_with(".md"));
        tera.add_raw_templates(pages)?;
        Ok(tera.render(name, context)?)
    }

    /// Styles, scripts and the policy that lets these run and nothing else: the same bytes as in the page, by their
    /// digest. No style or script that some name smuggles into the page has it.
    fn assets(&self, context: &mut Context) {
        let (style, script) = (self.file("style.css"), self.file("page.js"));
        context.insert("style", style);
        context.insert("script", script);
        context.insert("library", library());
        let hash = |text: &str| {
            // What a browser hashes has its line ends normalised.
            let digest = Sha256::digest(text.replace("\r\n", "\n").as_bytes());
            format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest))
        };
        context.insert(
            "csp",
            &format!(
                "default-src 'none'; script-src {} {}; style-src {}; img-src data:; base-uri 'none'; form-action 'none'",
                hash(script),
                hash(library()),
                hash(style)
            ),
        );
    }
}

/// The plotting library of the page (see `vendor/README.md`).
pub fn library() -> &'static str {
    static LIBRARY: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        let packed: &[u8] = include_bytes!("../vendor/echarts/echarts.js.gz");
        // It is part of this program, and a test unpacks it.
        let _ = flate2::read::GzDecoder::new(packed).read_to_string(&mut text);
        text
    });
    &LIBRARY
}

/// JSON that can stand inside a script element: no text in it can end that.
fn inert(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "[]".into());
    text.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A figure as the templates want it: its still drawing and its place in the list that the script reads.
fn drawn(index: usize, figure: &Figure) -> Result<Value, Error> {
    let svg = still::svg(figure)?.map(|svg| {
        // In a page it takes the colours of the page's theme.
        let themed = [("#1C2024", "ink"), ("#606870", "soft"), ("#DFE3E7", "line"), ("#FFFFFF", "paper")];
        let svg = themed.iter().fold(svg, |svg, (colour, name)| svg.replace(colour, &format!("var(--{name})")));
        still::COLOURS
            .iter()
            .enumerate()
            .fold(svg, |svg, (at, (r, g, b))| svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), &format!("var(--c{at})")))
    });
    let (missing, all) = match &figure.drawing {
        Drawing::Bars { marks } | Drawing::Points { marks, .. } => {
            let none = |values: &[f64]| !values.iter().any(|value| value.is_finite());
            let points = matches!(figure.drawing, Drawing::Points { .. });
            (marks.iter().filter(|mark| none(&mark.values) || points && none(&mark.x)).count(), marks.len())
        }
        Drawing::Curves { lines } => {
            let lost = |x: &f64, y: &f64| !x.is_finite() || !y.is_finite();
            let lost = lines.iter().map(|line| line.x.iter().zip(&line.y).filter(|(x, y)| lost(x, y)).count());
            (lost.sum(), lines.iter().map(|line| line.x.len()).sum())
        }
        _ => (0, 0),
    };
    let missing = if missing > 0 { format!("{missing} of {all} have no number.") } else { String::new() };
    Ok(json!({
        "index": index, "name": figure.name, "title": figure.title, "note": figure.note, "declared": figure.declared,
        "svg": svg, "missing": missing,
    }))
}

/// A cell as the templates want it.
fn cell(cell: &Cell, column: &Column, rank: &str) -> Value {
    let there: Vec<f64> =
        cell.values.iter().filter_map(|value| value.value).filter(|value| value.is_finite()).collect();
    let expected = cell.values.len();
    let replicated = cell.values.iter().any(|value| value.replicate.is_some());
    let finite = |value: &CellValue| value.value.filter(|value| value.is_finite());
    let (trainings, evaluations) =
        independent(cell.values.iter().filter_map(|value| Some((value.training.as_str(), finite(value)?))));
    let main = statistics(&trainings).map(|(mean, sd, _)| {
        let sd = sd.map(|sd| format!(" ± {}", number(sd, column.percent))).unwrap_or_default();
        format!("{}{sd}", number(mean, column.percent))
    });
    let count = if there.len() < expected {
        format!("{} of {expected}", there.len())
    } else if replicated && evaluations > 1 {
        // Repeated evaluations of a training say how exactly it was measured, not how training varies.
        match (trainings.len(), statistics(&there).and_then(|(_, sd, _)| sd)) {
            (1, Some(sd)) => {
                format!("n = 1 training, evaluated {evaluations} times (± {})", number(sd, column.percent))
            }
            (n, _) if there.len() == n * evaluations => {
                format!("n = {n} trainings, evaluated {evaluations} times each")
            }
            (n, _) => format!("n = {n} trainings, evaluated up to {evaluations} times each"),
        }
    } else if replicated {
        format!("n = {expected}")
    } else {
        String::new()
    };
    let singles: Vec<Value> = cell
        .values
        .iter()
        .map(|value| {
            json!({
                "text": value.value.map_or("–".into(), |v| number(v, column.percent)),
                "step": value.step,
                "title": format!("{} {} {}", value.replicate.clone().unwrap_or_default(), value.key.get(..12).unwrap_or_default(), value.problem.clone().unwrap_or_default()).trim(),
            })
        })
        .collect();
    let published = cell.published.map(|published| {
        let scale = if column.percent { 100.0 } else { 1.0 };
        let text = number(published / scale, column.percent);
        let ours = statistics(&trainings).map(|(mean, ..)| mean);
        let difference = ours.map(|mean| {
            let difference = mean - published / scale;
            let sign = if difference < 0.0 { "−" } else { "+" };
            format!("{sign}{}", number(difference.abs(), column.percent))
        });
        json!({ "text": text, "difference": difference })
    });
    let sort = statistics(&trainings).map(|(mean, ..)| mean.to_string()).unwrap_or_default();
    json!({
        "published": published, "main": main, "count": count, "singles": singles,
        "single": expected == 1, "note": cell.note, "rank": rank, "sort": sort,
    })
}

/// Why numbers are missing, said in the page itself: a reason that shows only under the mouse is not seen on paper. Each
/// row says a reason once, with the replicates that have it.
fn problems(table: &Table) -> Vec<String> {
    let mut found: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for row in &table.rows {
        for value in row.cells.iter().flat_map(|cell| &cell.values) {
            let nan = value.value.filter(|value| !value.is_finite()).map(|value| format!("the value is {value}"));
            let Some(reason) = value.problem.clone().or(nan) else { continue };
            let replicate = value.replicate.as_deref();
            match found.iter_mut().find(|(label, other, _)| *label == row.label && *other == reason) {
                Some((_, _, known)) => known.extend(replicate.filter(|name| !known.contains(name))),
                None => found.push((&row.label, reason, replicate.into_iter().collect())),
            }
        }
    }
    let told = |(label, reason, replicates): (&str, String, Vec<&str>)| match replicates.as_slice() {
        [] => format!("{label}: {reason}"),
        some => format!("{label}: {}: {reason}", some.join(", ")),
    };
    found.into_iter().map(told).collect()
}

fn table(table: &Table) -> Value {
    let ranks = tables::ranks(table);
    let rows: Vec<Value> = table
        .rows
        .iter()
        .zip(&ranks)
        .map(|(row, ranks)| {
            let cells: Vec<Value> = row
                .cells
                .iter()
                .zip(&table.columns)
                .zip(ranks)
                .map(|((c, column), rank)| cell(c, column, rank.word()))
                .collect();
            json!({ "label": row.label, "floor": row.floor, "elsewhere": row.elsewhere, "cells": cells })
        })
        .collect();
    json!({ "name": table.name, "title": table.title, "row_axis": table.row_axis, "columns": table.columns, "rows": rows, "problems": problems(table), "published": table.published })
}

fn verdicts(claims: &[Claim]) -> String {
    let count = |outcome: &str| claims.iter().filter(|claim| claim.outcome == outcome).count();
    let mut parts = vec![format!("{} of {} claims hold", count("holds"), claims.len())];
    for (outcome, word) in [("fails", "failed"), ("undecided", "undecided")] {
        if count(outcome) > 0 {
            parts.push(format!("{} {word}", count(outcome)));
        }
    }
    parts.join(", ")
}

fn claim(claim: &Claim) -> Value {
    let mut value = json!(claim);
    let stated =
        if claim.stated.is_empty() { String::new() } else { format!(" (first run with it: {})", claim.stated) };
    value["age"] = match claim.before {
        Some(true) => format!("Stated before its results were computed{stated}."),
        Some(false) => format!("Stated when results that it rests on were known already{stated}."),
        None => String::new(),
    }
    .into();
    value
}

fn costs(summary: &Summary) -> Value {
    let costs = &summary.costs;
    let count = |value: f64| if value > 0.0 { amount(value) } else { String::new() };
    let kinds: Vec<Value> = costs
        .kinds
        .iter()
        .map(|kind| {
            json!({
                "kind": kind.kind, "steps": kind.steps, "cached": kind.cached, "seconds": kind.seconds,
                "time": seconds(kind.seconds), "pictures": count(kind.pictures), "pixels": count(kind.pixels),
                "pictures_sort": kind.pictures, "pixels_sort": kind.pixels,
            })
        })
        .collect();
    let devices: Vec<Value> = costs
        .device_hours
        .iter()
        .map(|(name, hours)| json!({ "name": name, "hours": format::hours(*hours) }))
        .collect();
    let most = costs.kinds.iter().map(|kind| kind.seconds).fold(1e-9, f64::max);
    let hosts: Vec<Value> =
        costs.hosts.iter().map(|(name, results)| json!({ "name": name, "results": results })).collect();
    json!({
        "hosts": hosts, "queued": costs.queued, "waited": seconds(costs.waited_s),
        "hits": costs.hits, "asked": costs.asked, "saved": seconds(costs.saved_s), "devices": devices,
        "pictures": count(costs.pictures), "pixels": count(costs.pixels), "kinds": kinds, "most": most,
    })
}

/// What the templates of a summary can use; documented in `docs/templates.md`, which a test holds to it.
fn context(summary: &Summary, templates: &Templates) -> Result<Context, Error> {
    let figures = summary.figures.iter().enumerate().map(|(index, figure)| drawn(index, figure));
    let figures: Vec<Value> = figures.collect::<Result<_, _>>()?;
    let (declared, measured): (Vec<Value>, Vec<Value>) =
        figures.into_iter().partition(|figure| figure["declared"] == true);
    let steps: Vec<Value> = summary
        .steps
        .iter()
        .map(|step| {
            let mut value = json!(step);
            value["time"] = seconds(step.seconds).into();
            value["short_key"] = step.key.get(..12).unwrap_or_default().into();
            value
        })
        .collect();
    let mut context = Context::new();
    templates.assets(&mut context);
    context.insert("summary", summary);
    context.insert("tables", &summary.tables.iter().map(table).collect::<Vec<_>>());
    context.insert("claims", &summary.claims.iter().map(claim).collect::<Vec<_>>());
    context.insert("declared", &declared);
    context.insert("measured", &measured);
    context.insert("source_html", &source(&summary.source));
    context.insert("figures_json", &inert(&summary.figures));
    context.insert("steps", &steps);
    context.insert("costs", &costs(summary));
    context.insert("wall", &seconds(summary.run.wall_s));
    context.insert("compute", &seconds(summary.costs.seconds));
    context.insert("verdicts", &verdicts(&summary.claims));
    context.insert("fence", &"~".repeat(longest(&summary.source_text, '~').max(2) + 1));
    Ok(context)
}

/// One self-contained HTML page; nothing is fetched.
///
/// # Errors
/// A template that is wrong.
pub fn render_html(summary: &Summary, templates: &Templates) -> Result<String, Error> {
    templates.render("summary.html", &context(summary, templates)?)
}

/// The same content as Markdown.
///
/// # Errors
/// A template that is wrong.
pub fn render_markdown(summary: &Summary, templates: &Templates) -> Result<String, Error> {
    templates.render("summary.md", &context(summary, templates)?)
}

/// Two runs side by side as one self-contained HTML page.
///
/// # Errors
/// A template that is wrong.
pub fn render_comparison(comparison: &Comparison, templates: &Templates) -> Result<String, Error> {
    templates.render("compare.html", &comparison_context(comparison, templates)?)
}

/// The experiment's text as HTML, coloured and linked.
fn source(pieces: &[Piece]) -> String {
    let mut html = String::new();
    for Piece { text, class, link, title } in pieces {
        let (text, class, link, title) = (escape(text), escape(class), escape(link), escape(title));
        html += &match (link.is_empty(), class.is_empty()) {
            (false, _) => format!("<a href=\"{link}\" title=\"{title}\">{text}</a>"),
            (true, false) => format!("<span class=\"{class}\">{text}</span>"),
            (true, true) => text,
        };
    }
    html
}

/// What the template of a comparison can use; documented in `docs/templates.md`.
fn comparison_context(comparison: &Comparison, templates: &Templates) -> Result<Context, Error> {
    let figures = comparison.figures.iter().enumerate().map(|(index, figure)| drawn(index, figure));
    let figures: Vec<Value> = figures.collect::<Result<_, _>>()?;
    let metrics: Vec<Value> = comparison
        .metrics
        .iter()
        .map(|metric| {
            let side = |values: &[f64]| {
                let all: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
                statistics(&all).map_or("–".to_string(), |(mean, sd, n)| {
                    let sd = sd.map(|sd| format!(" ± {}", number(sd, metric.percent))).unwrap_or_default();
                    let n = if n > 1 { format!(" (n = {n})") } else { String::new() };
                    format!("{}{sd}{n}", number(mean, metric.percent))
                })
            };
            let signed = |value: f64| {
                let sign = if value < 0.0 { "−" } else { "+" };
                if value.is_finite() { format!("{sign}{}", number(value.abs(), metric.percent)) } else { "–".into() }
            };
            let sense = match (metric.interval, metric.higher_is_better) {
                (Some(interval), Some(up)) if interval.low > 0.0 => if up { "up" } else { "down" },
                (Some(interval), Some(up)) if interval.high < 0.0 => if up { "down" } else { "up" },
                _ => "",
            };
            let mean = |values: &[f64]| statistics(values).map_or(f64::NAN, |(mean, ..)| mean);
            let sortable = |value: f64| if value.is_finite() { value.to_string() } else { String::new() };
            json!({
                "step": metric.step, "metric": metric.metric, "percent": metric.percent, "sense": sense,
                "before": side(&metric.before), "after": side(&metric.after),
                "difference": metric.difference.map(signed).unwrap_or_default(),
                "interval": metric.interval.map(|i| format!("{} to {}", signed(i.low), signed(i.high))).unwrap_or_default(),
                "over": metric.over,
                "before_sort": sortable(mean(&metric.before)), "after_sort": sortable(mean(&metric.after)),
                "difference_sort": metric.difference.map(sortable).unwrap_or_default(),
                "low_sort": metric.interval.map(|i| sortable(i.low)).unwrap_or_default(),
            })
        })
        .collect();
    let mut context = Context::new();
    templates.assets(&mut context);
    context.insert("comparison", comparison);
    context.insert("metrics", &metrics);
    context.insert("figures", &figures);
    context.insert("figures_json", &inert(&comparison.figures));
    Ok(context)
}

/// Text that Markdown shows as it is, on one line, also inside a table.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\r' | '\n' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '|' | '*' | '_' | '[' | ']' | '`' | '~' | '#' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// A message: what stands between two backticks is code.
fn prose<T: Fn(&str) -> String, C: Fn(&str) -> String>(message: &str, words: T, code: C) -> String {
    let parts: Vec<&str> = message.split('`').collect();
    if parts.len().is_multiple_of(2) {
        // One is left over: nobody knows which.
        return words(message);
    }
    parts.iter().enumerate().map(|(at, part)| if at % 2 == 1 { code(part) } else { words(part) }).collect()
}

/// A code span around the text, on one line, also inside a table.
fn code(text: &str) -> String {
    let text = text.replace(['\r', '\n'], " ").replace('|', "\\|");
    let ticks = "`".repeat(longest(&text, '`') + 1);
    // Spaces keep a backtick at either end apart from the fence; Markdown takes one pair of them away.
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    if text.is_empty() { String::new() } else { format!("{ticks}{pad}{text}{pad}{ticks}") }
}

/// Length of the longest run of a character.
fn longest(text: &str, c: char) -> usize {
    text.split(|other| other != c).map(|run| run.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::*;

    #[test]
    fn backticks_of_messages_are_code() {
        let html = |text: &str| {
            prose(text, crate::format::escape, |code| format!("<code>{}</code>", crate::format::escape(code)))
        };
        assert_eq!(html("no `<a>` in <b>"), "no <code>&lt;a&gt;</code> in &lt;b&gt;");
        assert_eq!(html("one ` alone"), "one ` alone");
        assert_eq!(prose("no `a_b` in a_b", plain, code), "no `a_b` in a\\_b");
    }

    fn value(v: Option<f64>, seed: u32) -> CellValue {
        CellValue {
            value: v,
            replicate: Some(format!("seed={seed}")),
            step: seed as usize,
            key: "ab".repeat(32),
            training: format!("training {seed}"),
            problem: None,
        }
    }

    fn rich() -> Summary {
        let evil = "<script>alert(1)</script> | x".to_string();
        let column = Column { label: evil.clone(), percent: true, ..Column::default() };
        let cells = |values| vec![Cell { values, ..Cell::default() }];
        let rows = vec![
            Row {
                label: evil.clone(),
                floor: false,
                elsewhere: false,
                cells: cells(vec![value(Some(0.1), 1), value(Some(0.2), 2), value(Some(0.3), 3)]),
            },
            Row {
                label: "partly".into(),
                floor: false,
                elsewhere: false,
                cells: cells(vec![value(Some(0.5), 1), value(None, 2), value(Some(0.7), 3)]),
            },
            Row { label: "none".into(), floor: true, elsewhere: false, cells: cells(vec![]) },
        ];
        Summary {
            title: evil.clone(),
            source_text: evil.clone(),
            steps_left_out: 0,
            warnings: vec![evil.clone()],
            tables: vec![Table {
                name: "t".into(),
                title: evil.clone(),
                row_axis: "method".into(),
                columns: vec![column],
                rows,
                published: String::new(),
            }],
            claims: vec![
                Claim { text: evil.clone(), outcome: "holds".into(), ..Claim::default() },
                Claim { outcome: "fails".into(), ..Claim::default() },
            ],
            steps: vec![StepRow {
                label: evil.clone(),
                error: Some(evil.clone()),
                params: evil.clone(),
                ..StepRow::default()
            }],
            galleries: vec![Gallery { title: evil.clone(), caption: evil.clone(), ..Gallery::default() }],
            source: vec![Piece { text: evil.clone(), link: "#a".into(), title: evil.clone(), ..Piece::default() }],
            about: evil.clone(),
            figures: vec![Figure {
                name: "f".into(),
                title: evil.clone(),
                note: evil.clone(),
                drawing: Drawing::Confusion {
                    classes: vec!["</script><script>alert(1)</script>".into(), evil],
                    counts: vec![vec![1.0, 0.0], vec![0.0, 1.0]],
                },
                ..Figure::default()
            }],
            ..Summary::default()
        }
    }

    #[test]
    fn nothing_of_the_users_becomes_markup() {
        let html = render_html(&rich(), &Templates::default()).unwrap();
        // The data, the library and the page's own script; nothing else.
        assert_eq!(html.matches("<script").count(), 3);
        assert!(!html.contains("<script>alert") && html.contains("&lt;script&gt;"));
        assert_eq!(html.matches("</script").count(), 3);
        let markdown = render_markdown(&rich(), &Templates::default()).unwrap();
        let outside: String = markdown.split("~~~").step_by(2).collect();
        assert!(!outside.contains("<script"));
        assert!(markdown.contains("\\| x"));
    }

    #[test]
    fn cells_show_mean_deviation_and_what_is_missing() {
        let html = render_html(&rich(), &Templates::default()).unwrap();
        assert!(html.contains("20.0 ± 10.0") && html.contains("n = 3"));
        assert!(html.contains("60.0 ± 14.1") && html.contains("2 of 3"));
        assert!(html.contains("1 of 2 claims hold, 1 failed"));
        assert!(render_markdown(&rich(), &Templates::default()).unwrap().contains("20.0 ± 10.0"));
    }

    #[test]
    fn repeated_evaluations_are_told_apart_from_trainings() {
        let shown = |trainings: [u32; 4]| {
            let mut summary = rich();
            let values = trainings.iter().zip([0.1, 0.2, 0.3, 0.6]);
            summary.tables[0].rows[0].cells[0].values = values
                .enumerate()
                .map(|(at, (&training, v))| CellValue {
                    training: format!("training {training}"),
                    ..value(Some(v), at as u32)
                })
                .collect();
            render_html(&summary, &Templates::default()).unwrap()
        };
        // One training: no deviation beside the mean, which would look like that of trainings.
        let page = shown([1, 1, 1, 1]);
        assert!(page.contains("n = 1 training, evaluated 4 times (± 21.6)") && !page.contains("30.0 ±"), "{page}");
        // Means 15 and 45.
        let page = shown([1, 1, 2, 2]);
        assert!(page.contains("30.0 ± 21.2") && page.contains("n = 2 trainings, evaluated 2 times each"), "{page}");
        assert!(shown([1, 1, 1, 2]).contains("n = 2 trainings, evaluated up to 3 times each"));
        assert!(shown([1, 2, 3, 4]).contains("n = 4"));
    }

    #[test]
    fn markdown_says_what_was_written() {
        for text in ["a*b*_c_ [x](y) `z` ~~q~~ # h", "seed[1].top1 > 2 | 3", "x & <b>y</b>", "back\\slash"] {
            let html = |markdown: &str| {
                let mut out = String::new();
                let options = pulldown_cmark::Options::ENABLE_TABLES | pulldown_cmark::Options::ENABLE_STRIKETHROUGH;
                pulldown_cmark::html::push_html(&mut out, pulldown_cmark::Parser::new_ext(markdown, options));
                out
            };
            let shown = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let table = |cell: &str| html(&format!("| a |\n| --- |\n| {cell} |\n"));
            assert!(table(&plain(text)).contains(&format!("<td>{shown}</td>")), "{}", table(&plain(text)));
            let span = format!("<td><code>{shown}</code></td>");
            assert!(table(&code(text)).contains(&span), "{}", table(&code(text)));
        }
        let text = "~~~~~~\n# not a heading\n~~~~~~~~".to_string();
        let markdown =
            render_markdown(&Summary { source_text: text, ..Summary::default() }, &Templates::default()).unwrap();
        let parser = pulldown_cmark::Parser::new(&markdown);
        assert!(
            !parser
                .into_iter()
                .any(|event| matches!(event, pulldown_cmark::Event::Text(t) if t.trim() == "not a heading"))
        );
    }

    #[test]
    fn what_is_no_number_is_said() {
        let mut summary = rich();
        summary.tables[0].rows[0].cells[0].values[1].value = Some(f64::NAN);
        summary.tables[0].rows[1].cells[0].values[1].problem = Some("nearest failed: too little memory".into());
        for page in [
            render_html(&summary, &Templates::default()).unwrap(),
            render_markdown(&summary, &Templates::default()).unwrap(),
        ] {
            assert!(page.contains("20.0 ± 14.1") && !page.contains("NaN ±"), "{page}");
            assert!(
                page.contains("seed=2: the value is NaN") && page.contains("seed=2: nearest failed: too little memory")
            );
        }
    }

    #[test]
    fn the_policy_names_the_digests_of_what_runs() {
        let html = render_html(&rich(), &Templates::default()).unwrap();
        let policy = html.split("Content-Security-Policy\" content=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(policy.starts_with("default-src &#x27;none&#x27;; script-src &#x27;sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"));
        assert!(library().len() > 500_000 && !library().contains("new Function") && !library().contains("</script"));
    }

    #[test]
    fn a_folder_of_templates_replaces_what_it_holds() {
        let dir = std::env::temp_dir().join(format!("harness-templates-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("summary.html"), "<h1>{{ summary.title }}</h1>{% include \"part.html\" %}").unwrap();
        std::fs::write(dir.join("part.html"), "{{ claims | length }} claims").unwrap();
        let templates = Templates::from_folder(&dir).unwrap();
        let html = render_html(&rich(), &templates).unwrap();
        assert!(html.starts_with("<h1>&lt;script&gt;") && html.ends_with("2 claims"), "{html}");
        // What the folder lacks is the built-in one.
        assert!(render_markdown(&rich(), &templates).unwrap().contains("## Provenance"));
        std::fs::write(dir.join("summary.html"), "{{ nobody.knows }}").unwrap();
        let error = render_html(&rich(), &Templates::from_folder(&dir).unwrap()).unwrap_err().to_string();
        assert!(error.contains("nobody.knows"), "{error}");
        std::fs::remove_file(dir.join("summary.html")).unwrap();
        let error = Templates::from_folder(&dir).unwrap_err().to_string();
        assert!(error.contains("holds no template") && error.contains("summary.md"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// `docs/templates.md` has a line `| \`name\` | … |` for every variable, under a heading for each page.
    #[test]
    fn the_documented_variables_are_those_that_there_are() {
        let text = include_str!("../../../docs/templates.md");
        let documented = |heading: &str| -> Vec<String> {
            let part = text.split(heading).nth(1).expect("the heading is there");
            let part = part.split("\n## ").next().unwrap_or_default();
            let names = part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            let mut names: Vec<String> = names.map(String::from).collect();
            names.sort();
            names
        };
        let known = |context: Context| -> Vec<String> {
            let mut names: Vec<String> = context.into_json().as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let templates = Templates::default();
        assert_eq!(documented("## Of a summary"), known(context(&rich(), &templates).unwrap()));
        let comparison = Comparison::default();
        assert_eq!(documented("## Of a comparison"), known(comparison_context(&comparison, &templates).unwrap()));
    }

    #[test]
    fn markdown_as_it_stands() {
        let mut summary = rich();
        summary.source_text = "# nothing".into();
        crate::snapshot("summary.md", &render_markdown(&summary, &Templates::default()).unwrap());
    }

    #[test]
    fn two_runs_are_a_page() {
        let metric = Compared {
            step: "<script>".into(),
            metric: "top1".into(),
            percent: true,
            higher_is_better: Some(true),
            before: vec![0.1, 0.2],
            after: vec![0.3, 0.5],
            difference: Some(0.25),
            interval: Some(Interval { mean: 0.25, low: 0.1, high: 0.4, n: 2 }),
            over: "2 pairs".into(),
        };
        let comparison = Comparison { metrics: vec![metric], changes: vec!["<b>".into()], ..Comparison::default() };
        let html = render_comparison(&comparison, &Templates::default()).unwrap();
        for word in ["&lt;script&gt;", "15.0 ± 7.1 (n = 2)", "+25.0", "+10.0 to +40.0", "class=\"num up\"", "&lt;b&gt;"]
        {
            assert!(html.contains(word), "{word}");
        }
    }

    #[test]
    fn an_empty_summary_is_a_page() {
        assert!(render_html(&Summary::default(), &Templates::default()).unwrap().contains("</html>"));
        assert!(render_markdown(&Summary::default(), &Templates::default()).is_ok());
    }
}
