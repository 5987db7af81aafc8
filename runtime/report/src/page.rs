//! The two renderings.

use crate::format::{number, seconds, statistics};
use crate::model::{Cell, Claim, Column, Summary};
use crate::{charts, curves};
use serde_json::{Value, json};
use tera::{Context, Tera};

/// A template that does not fit the data: a mistake of this crate.
#[derive(Debug, thiserror::Error)]
#[error("the summary cannot be rendered: {0:?}")]
pub struct Error(#[from] tera::Error);

/// A cell as the templates want it.
fn cell(cell: &Cell, column: &Column) -> Value {
    let there: Vec<f64> =
        cell.values.iter().filter_map(|value| value.value).filter(|value| value.is_finite()).collect();
    let expected = cell.values.len();
    let replicated = cell.values.iter().any(|value| value.replicate.is_some());
    let main = statistics(&there).map(|(mean, sd, _)| {
        let sd = sd.map(|sd| format!(" ± {}", number(sd, column.percent))).unwrap_or_default();
        format!("{}{sd}", number(mean, column.percent))
    });
    let count = if there.len() < expected {
        format!("{} of {expected}", there.len())
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
    // Said in the page itself: a reason that shows only under the mouse is not seen on paper.
    let mut problems: Vec<String> = Vec::new();
    for value in &cell.values {
        let nan = value.value.filter(|value| !value.is_finite()).map(|value| format!("the value is {value}"));
        if let Some(problem) = value.problem.clone().or(nan) {
            let of = value.replicate.as_ref().map(|replicate| format!("{replicate}: ")).unwrap_or_default();
            problems.push(format!("{of}{problem}"));
        }
    }
    let published = cell.published.map(|published| {
        let scale = if column.percent { 100.0 } else { 1.0 };
        let text = number(published / scale, column.percent);
        let ours = statistics(&there).map(|(mean, ..)| mean);
        let difference = ours.map(|mean| {
            let difference = mean - published / scale;
            let sign = if difference < 0.0 { "−" } else { "+" };
            format!("{sign}{}", number(difference.abs(), column.percent))
        });
        json!({ "text": text, "difference": difference })
    });
    json!({ "published": published, "problems": problems, "main": main, "count": count, "singles": singles, "single": expected == 1, "note": cell.note })
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

fn context(summary: &Summary) -> Context {
    let tables: Vec<Value> = summary
        .tables
        .iter()
        .map(|table| {
            let rows: Vec<Value> = table
                .rows
                .iter()
                .map(|row| {
                    let cells: Vec<Value> = row.cells.iter().zip(&table.columns).map(|(c, column)| cell(c, column)).collect();
                    json!({ "label": row.label, "floor": row.floor, "elsewhere": row.elsewhere, "cells": cells })
                })
                .collect();
            json!({ "name": table.name, "title": table.title, "row_axis": table.row_axis, "columns": table.columns, "rows": rows, "published": table.published })
        })
        .collect();
    let figures: Vec<Value> = summary
        .curves
        .iter()
        .map(|figure| {
            let lines: Vec<Value> = figure
                .lines
                .iter()
                .map(|line| json!({ "label": line.label, "replicate": line.replicate, "last": line.y.last().map(|y| number(*y, figure.percent)) }))
                .collect();
            json!({ "title": figure.title, "svg": curves::svg(figure), "labels": curves::labels(figure), "lines": lines, "x_label": figure.x_label })
        })
        .collect();
    let charts: Vec<Value> = summary
        .charts
        .iter()
        .map(|chart| {
            let marks: Vec<Value> = chart
                .marks
                .iter()
                .map(|mark| {
                    let words = |values: &[f64], percent| {
                        let all: Vec<String> = values.iter().map(|value| number(*value, percent)).collect();
                        all.join(", ")
                    };
                    json!({ "label": mark.label, "series": mark.series, "values": words(&mark.values, chart.percent), "x": words(&mark.x, chart.x_percent) })
                })
                .collect();
            json!({ "title": chart.title, "svg": charts::svg(chart), "series": charts::series(chart), "marks": marks, "x_label": chart.x_label })
        })
        .collect();
    let longest = summary.steps.iter().map(|step| step.seconds).fold(1e-9, f64::max);
    let steps: Vec<Value> = summary
        .steps
        .iter()
        .map(|step| {
            let mut value = json!(step);
            value["time"] = seconds(step.seconds).into();
            value["share"] = format!("{:.1}", 100.0 * step.seconds / longest).into();
            value["short_key"] = step.key.get(..12).unwrap_or_default().into();
            value
        })
        .collect();
    let mut context = Context::new();
    context.insert("summary", summary);
    context.insert("tables", &tables);
    context.insert("figures", &figures);
    context.insert("charts", &charts);
    context.insert("steps", &steps);
    context.insert("wall", &seconds(summary.run.wall_s));
    // Steps with the same key are one computation.
    let mut seen = std::collections::BTreeSet::new();
    let computed = summary.steps.iter().filter(|step| seen.insert(step.key.as_str()));
    context.insert("compute", &seconds(computed.map(|step| step.seconds).sum()));
    context.insert("verdicts", &verdicts(&summary.claims));
    context
}

/// One self-contained HTML page: no script, nothing fetched.
///
/// # Errors
/// Only a mistake in the template.
pub fn render_html(summary: &Summary) -> Result<String, Error> {
    let mut tera = Tera::default();
    // The name's ending switches escaping on.
    tera.add_raw_template("summary.html", include_str!("../templates/summary.html"))?;
    Ok(tera.render("summary.html", &context(summary))?)
}

/// The same content as Markdown.
///
/// # Errors
/// Only a mistake in the template.
pub fn render_markdown(summary: &Summary) -> Result<String, Error> {
    let mut tera = Tera::default();
    tera.register_filter("md", |value: &Value, _: &std::collections::HashMap<String, Value>| {
        Ok(Value::String(plain(&value.as_str().map(String::from).unwrap_or_else(|| value.to_string()))))
    });
    tera.register_filter("code", |value: &Value, _: &std::collections::HashMap<String, Value>| {
        Ok(Value::String(code(&value.as_str().map(String::from).unwrap_or_else(|| value.to_string()))))
    });
    tera.add_raw_template("summary.md", include_str!("../templates/summary.md"))?;
    let mut context = context(summary);
    context.insert("fence", &"~".repeat(longest(&summary.source_text, '~').max(2) + 1));
    Ok(tera.render("summary.md", &context)?)
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

    fn value(v: Option<f64>, seed: u32) -> CellValue {
        CellValue {
            value: v,
            replicate: Some(format!("seed={seed}")),
            step: seed as usize,
            key: "ab".repeat(32),
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
            galleries: vec![Gallery { title: evil.clone(), caption: evil, ..Gallery::default() }],
            ..Summary::default()
        }
    }

    #[test]
    fn nothing_of_the_users_becomes_markup() {
        let html = render_html(&rich()).unwrap();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
        let markdown = render_markdown(&rich()).unwrap();
        let outside: String = markdown.split("~~~").step_by(2).collect();
        assert!(!outside.contains("<script"));
        assert!(markdown.contains("\\| x"));
    }

    #[test]
    fn cells_show_mean_deviation_and_what_is_missing() {
        let html = render_html(&rich()).unwrap();
        assert!(html.contains("20.0 ± 10.0") && html.contains("n = 3"));
        assert!(html.contains("60.0 ± 14.1") && html.contains("2 of 3"));
        assert!(html.contains("1 of 2 claims hold, 1 failed"));
        assert!(render_markdown(&rich()).unwrap().contains("20.0 ± 10.0"));
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
        let markdown = render_markdown(&Summary { source_text: text, ..Summary::default() }).unwrap();
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
        for page in [render_html(&summary).unwrap(), render_markdown(&summary).unwrap()] {
            assert!(page.contains("20.0 ± 14.1") && !page.contains("NaN ±"), "{page}");
            assert!(
                page.contains("seed=2: the value is NaN") && page.contains("seed=2: nearest failed: too little memory")
            );
        }
    }

    #[test]
    fn an_empty_summary_is_a_page() {
        assert!(render_html(&Summary::default()).unwrap().contains("</html>"));
        assert!(render_markdown(&Summary::default()).is_ok());
    }
}
