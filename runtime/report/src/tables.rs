//! Tables for a paper: LaTeX with booktabs, and CSV.

use crate::format::{independent, number, statistics};
use crate::model::{Cell, CellValue, Column, Summary, Table};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How a LaTeX table is written.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// The best mean of a column bold, the second underlined.
    pub mark: bool,
    /// A row: below the table stand the paired differences of every other row to it.
    pub against: Option<String>,
}

/// Where a mean stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// First; several where they look the same.
    Best,
    /// Second.
    Second,
    /// Neither, or no measured number.
    Other,
}

impl Rank {
    /// `best`, `second`, or nothing.
    pub fn word(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Second => "second",
            Self::Other => "",
        }
    }
}

/// Finite values of a cell.
fn values(cell: &Cell) -> Vec<f64> {
    cell.values.iter().filter_map(|value| value.value).filter(|value| value.is_finite()).collect()
}

/// One value for each training of a cell: repeated evaluations of one are averaged first.
fn trainings(cell: &Cell) -> Vec<f64> {
    let finite = |value: &CellValue| value.value.filter(|value| value.is_finite());
    independent(cell.values.iter().filter_map(|value| Some((value.training.as_str(), finite(value)?)))).0
}

/// Ranks of a table's cells, row by row. Trivial predictors and what was published elsewhere take no part; means that
/// are shown alike share a rank; a column with a single number has no best.
pub fn ranks(table: &Table) -> Vec<Vec<Rank>> {
    let mut ranks: Vec<Vec<Rank>> = table.rows.iter().map(|row| vec![Rank::Other; row.cells.len()]).collect();
    for (at, column) in table.columns.iter().enumerate() {
        let mut means: Vec<(usize, f64, String)> = table
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| !row.floor && !row.elsewhere)
            .filter_map(|(index, row)| {
                let (mean, ..) = statistics(&trainings(row.cells.get(at)?))?;
                Some((index, mean, number(mean, column.percent)))
            })
            .collect();
        means.sort_by(|a, b| if column.higher_is_better { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
        let mut texts: Vec<&String> = means.iter().map(|(_, _, text)| text).collect();
        texts.dedup();
        if means.len() < 2 {
            continue;
        }
        let (best, second) = (texts.first().copied().cloned(), texts.get(1).copied().cloned());
        for (index, _, text) in &means {
            ranks[*index][at] = match () {
                () if Some(text) == best.as_ref() => Rank::Best,
                () if Some(text) == second.as_ref() => Rank::Second,
                () => Rank::Other,
            };
        }
    }
    ranks
}

/// Text as LaTeX shows it.
fn tex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '±' => out.push_str("$\\pm$"),
            '−' => out.push_str("$-$"),
            '×' => out.push_str("$\\times$"),
            '–' => out.push_str("--"),
            '“' => out.push_str("``"),
            '”' => out.push_str("''"),
            '’' => out.push('\''),
            '…' => out.push_str("\\dots{}"),
            '\n' | '\r' | '\t' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A number with its sign as LaTeX sets it.
fn signed(value: f64, percent: bool) -> String {
    let text = number(value.abs(), percent);
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    match value {
        _ if zero => format!("${text}$"),
        v if v < 0.0 => format!("$-{text}$"),
        _ => format!("$+{text}$"),
    }
}

fn latex_cell(cell: &Cell, column: &Column, rank: Rank, mark: bool) -> String {
    let there = values(cell);
    let own = statistics(&trainings(cell)).map(|(mean, sd, _)| {
        let mean = match number(mean, column.percent) {
            text if text.starts_with('-') => format!("${text}$"),
            text => text,
        };
        let mean = match rank {
            Rank::Best if mark => format!("\\textbf{{{mean}}}"),
            Rank::Second if mark => format!("\\underline{{{mean}}}"),
            _ => mean,
        };
        let sd = sd.map(|sd| format!(" $\\pm$ {}", number(sd, column.percent))).unwrap_or_default();
        let short = if there.len() < cell.values.len() {
            format!("\\,({} of {})", there.len(), cell.values.len())
        } else {
            String::new()
        };
        format!("{mean}{sd}{short}")
    });
    let scale = if column.percent { 100.0 } else { 1.0 };
    let published = cell.published.map(|published| number(published / scale, column.percent));
    match (own, published) {
        (Some(own), Some(published)) => format!("{own} ({published})"),
        (Some(own), None) => own,
        (None, Some(published)) => format!("({published})"),
        (None, None) => "--".into(),
    }
}

/// Differences within the replicates that both cells have.
fn paired(cell: &Cell, base: &Cell) -> Vec<f64> {
    let of = |cell: &Cell| -> BTreeMap<Option<String>, f64> {
        let there = cell.values.iter().filter_map(|value| Some((value.replicate.clone(), value.value?)));
        there.filter(|(_, value)| value.is_finite()).collect()
    };
    let (ours, theirs) = (of(cell), of(base));
    // A side in which nothing is random has one value, which stands for every replicate.
    if let (1, Some(only)) = (theirs.len(), theirs.get(&None)) {
        return ours.values().map(|value| value - only).collect();
    }
    ours.iter().filter_map(|(replicate, value)| Some(value - theirs.get(replicate)?)).collect()
}

/// Every table as LaTeX: each a `table` with `\toprule`, `\midrule`, `\bottomrule` of booktabs.
///
/// # Errors
/// No table has the row to compare against; the rows that there are, in words.
pub fn latex(summary: &Summary, style: &Style) -> Result<String, String> {
    let mut out = String::from("% \\usepackage{booktabs}\n");
    if let Some(against) = &style.against
        && !summary.tables.iter().any(|table| table.rows.iter().any(|row| row.label == *against))
    {
        let mut rows: Vec<&str> =
            summary.tables.iter().flat_map(|table| &table.rows).map(|row| row.label.as_str()).collect();
        rows.dedup();
        return Err(format!("no table has a row `{against}`; there are {}", rows.join(", ")));
    }
    for table in &summary.tables {
        let ranks = ranks(table);
        let heads: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let unit = if column.percent { " (\\%)" } else { "" };
                let arrow = if column.higher_is_better { "\\uparrow" } else { "\\downarrow" };
                format!("{}{unit} ${arrow}$", tex(&column.label))
            })
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "\n\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\label{{tab:{}}}",
            caption(table, style),
            table.name.replace('_', "-")
        );
        let _ = writeln!(out, "  \\begin{{tabular}}{{l{}}}\n    \\toprule", "r".repeat(table.columns.len()));
        let _ = writeln!(out, "    {} & {} \\\\\n    \\midrule", tex(&table.row_axis), heads.join(" & "));
        let mut apart = false;
        for (row, ranks) in table.rows.iter().zip(&ranks) {
            if (row.floor || row.elsewhere) && !apart {
                apart = true;
                out.push_str("    \\midrule\n");
            }
            let cells: Vec<String> = row
                .cells
                .iter()
                .zip(&table.columns)
                .zip(ranks)
                .map(|((cell, column), rank)| latex_cell(cell, column, *rank, style.mark))
                .collect();
            let label = if row.floor { format!("\\emph{{{}}}", tex(&row.label)) } else { tex(&row.label) };
            let _ = writeln!(out, "    {label} & {} \\\\", cells.join(" & "));
        }
        if let Some(base) = style.against.as_ref().and_then(|name| table.rows.iter().find(|row| row.label == *name)) {
            let _ = writeln!(
                out,
                "    \\midrule\n    \\multicolumn{{{}}}{{l}}{{\\emph{{paired difference to {}}}}} \\\\",
                table.columns.len() + 1,
                tex(&base.label)
            );
            for row in table.rows.iter().filter(|row| !row.floor && !row.elsewhere && row.label != base.label) {
                let cells =
                    row.cells.iter().zip(&base.cells).zip(&table.columns).map(
                        |((cell, base), column)| match statistics(&paired(cell, base)) {
                            None => "--".into(),
                            Some((mean, sd, _)) => {
                                let sd =
                                    sd.map(|sd| format!(" $\\pm$ {}", number(sd, column.percent))).unwrap_or_default();
                                format!("{}{sd}", signed(mean, column.percent))
                            }
                        },
                    );
                let _ = writeln!(out, "    {} & {} \\\\", tex(&row.label), cells.collect::<Vec<_>>().join(" & "));
            }
        }
        out.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
    }
    Ok(out)
}

fn caption(table: &Table, style: &Style) -> String {
    let counts: Vec<usize> = table
        .rows
        .iter()
        .filter(|row| !row.floor)
        .flat_map(|row| &row.cells)
        .map(|cell| values(cell).len())
        .filter(|n| *n > 1)
        .collect();
    let mut text = tex(&table.title);
    if !text.ends_with('.') {
        text.push('.');
    }
    if let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max()) {
        let n = if least == most { format!("{most}") } else { format!("{least} to {most}") };
        let _ = write!(text, " Mean $\\pm$ standard deviation over {n} independent replicates.");
    }
    if style.mark {
        text.push_str(" Best mean bold, second underlined.");
    }
    if !table.published.is_empty() {
        let _ = write!(text, " In brackets published figures ({}).", tex(&table.published));
    }
    text
}

/// Every cell of every table, one line each.
pub fn csv(summary: &Summary) -> String {
    let field = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
    };
    let mut out = String::from("table,row,column,unit,higher_is_better,mean,sd,n,values,published,apart\r\n");
    for table in &summary.tables {
        let ends = |row: &crate::model::Row| match (row.floor, row.elsewhere) {
            (true, _) => "trivial predictor",
            (_, true) => "published elsewhere",
            _ => "",
        };
        for row in &table.rows {
            for (cell, column) in row.cells.iter().zip(&table.columns) {
                let scale = if column.percent { 100.0 } else { 1.0 };
                let there = values(cell);
                let found = statistics(&trainings(cell));
                let text = |value: Option<f64>| value.map_or(String::new(), |value| (value * scale).to_string());
                let singles: Vec<String> = there.iter().map(|value| (value * scale).to_string()).collect();
                let cells = [
                    table.name.clone(),
                    row.label.clone(),
                    column.label.clone(),
                    if column.percent { "%".into() } else { String::new() },
                    column.higher_is_better.to_string(),
                    text(found.map(|(mean, ..)| mean)),
                    text(found.and_then(|(_, sd, _)| sd)),
                    found.map_or(0, |(_, _, n)| n).to_string(),
                    singles.join(";"),
                    cell.published.map(|value| value.to_string()).unwrap_or_default(),
                    ends(row).into(),
                ];
                out.push_str(&(cells.iter().map(|cell| field(cell)).collect::<Vec<_>>().join(",") + "\r\n"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CellValue, Row};

    fn cell(values: &[f64]) -> Cell {
        let values = values.iter().enumerate().map(|(seed, value)| CellValue {
            value: Some(*value),
            replicate: Some(format!("seed={}", seed + 1)),
            ..CellValue::default()
        });
        Cell { values: values.collect(), ..Cell::default() }
    }

    fn summary() -> Summary {
        let column = |label: &str, up: bool| Column {
            label: label.into(),
            percent: true,
            higher_is_better: up,
            ..Column::default()
        };
        let row = |label: &str, first: Cell, second: Cell| Row {
            label: label.into(),
            cells: vec![first, second],
            ..Row::default()
        };
        let mut floor = row("trivial predictor", cell(&[0.9]), cell(&[0.0]));
        floor.floor = true;
        let mut missing = cell(&[0.3, 0.3]);
        missing.values.push(CellValue { replicate: Some("seed=3".into()), ..CellValue::default() });
        let mut elsewhere = row("paper & co", Cell { published: Some(61.5), ..Cell::default() }, Cell::default());
        elsewhere.elsewhere = true;
        let table = Table {
            name: "transfer_all".into(),
            title: "100 % frozen <transfer>".into(),
            row_axis: "method".into(),
            columns: vec![column("nn.top_1", true), column("error", false)],
            rows: vec![
                row("moco_v2", cell(&[0.5, 0.6, 0.7]), cell(&[0.2, 0.2, 0.2])),
                row("random", cell(&[0.4, 0.5, 0.6]), missing),
                row("pixels", cell(&[0.1, 0.1, 0.1]), cell(&[0.2, 0.2, 0.2])),
                floor,
                elsewhere,
            ],
            published: String::new(),
        };
        Summary { tables: vec![table], ..Summary::default() }
    }

    #[test]
    fn latex_as_it_stands_in_a_paper() {
        let style = Style { mark: true, against: Some("random".into()) };
        let text = latex(&summary(), &style).unwrap();
        crate::snapshot("tables.tex", &text);
        let plain = latex(&summary(), &Style::default()).unwrap();
        assert!(!plain.contains("textbf") && !plain.contains("underline") && !plain.contains("paired"), "{plain}");
        let wrong = latex(&summary(), &Style { against: Some("none".into()), ..Style::default() }).unwrap_err();
        assert!(wrong.contains("moco_v2, random, pixels"), "{wrong}");
    }

    #[test]
    fn trivial_predictors_are_never_the_best_and_equal_means_share_a_rank() {
        use Rank::{Best, Other, Second};
        assert_eq!(
            ranks(&summary().tables[0]),
            [[Best, Best], [Second, Second], [Other, Best], [Other, Other], [Other, Other]]
        );
    }

    #[test]
    fn csv_has_a_line_for_every_cell() {
        let text = csv(&summary());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11);
        assert!(lines[1].starts_with("transfer_all,moco_v2,nn.top_1,%,true,60,"), "{}", lines[1]);
        assert!(lines[4].contains(",30,0,2,30;30,,"), "{}", lines[4]);
        assert!(lines[9].ends_with(",0,,61.5,published elsewhere"), "{}", lines[9]);
    }
}
