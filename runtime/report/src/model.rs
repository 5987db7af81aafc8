//! What a summary shows, as plain data.

use serde::{Deserialize, Serialize};

/// Everything on the page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Heading: the experiment's name.
    pub title: String,
    /// The `.exp` file.
    pub file: String,
    /// Its text.
    pub source_text: String,
    /// When the page was made, for people.
    pub generated: String,
    /// Version of the program.
    pub version: String,
    /// The run.
    pub run: RunInfo,
    /// Params with their values.
    pub params: Vec<(String, String)>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Claims.
    pub claims: Vec<Claim>,
    /// Declared figures of numbers.
    pub charts: Vec<Chart>,
    /// Curves: the declared ones, then those of every series.
    pub curves: Vec<Figure>,
    /// Pictures.
    pub galleries: Vec<Gallery>,
    /// Every step.
    pub steps: Vec<StepRow>,
    /// What a reader must know before trusting a number.
    pub warnings: Vec<String>,
}

/// The run that made the page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// Its name.
    pub id: String,
    /// Seconds.
    pub wall_s: f64,
    /// Steps computed in it.
    pub executed: u64,
    /// Steps whose results were known.
    pub cached: u64,
    /// Steps that failed.
    pub failed: u64,
    /// Steps that were not tried.
    pub skipped: u64,
    /// It was stopped from outside.
    pub interrupted: bool,
    /// The machine, in words.
    pub machine: String,
}

/// A table: rows are values of an axis, columns are metrics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Name in the program.
    pub name: String,
    /// Heading.
    pub title: String,
    /// Name of the rows' axis.
    pub row_axis: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows, floors last.
    pub rows: Vec<Row>,
    /// Where the published figures beside the cells come from; empty without any.
    pub published: String,
}

/// A column.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    /// As written: `nn.top1`.
    pub label: String,
    /// What it measures.
    pub doc: String,
    /// Direction.
    pub higher_is_better: bool,
    /// Measured on a test split.
    pub on_test: bool,
    /// Shares, shown as percentages.
    pub percent: bool,
}

/// A row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// The axis value, or the name of the trivial predictors.
    pub label: String,
    /// What trivial predictors reach: set apart.
    pub floor: bool,
    /// Only published elsewhere, not measured here: set apart too.
    pub elsewhere: bool,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// A cell: the values of the replicates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// One for each replicate.
    pub values: Vec<CellValue>,
    /// A note, for instance which trivial predictor it is.
    pub note: String,
    /// What was published for it elsewhere, in the unit shown (shares in percent).
    pub published: Option<f64>,
}

/// One number with where it comes from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CellValue {
    /// The number; none when there is no result.
    pub value: Option<f64>,
    /// `seed=2`; none for a step without replicates.
    pub replicate: Option<String>,
    /// Index of the step.
    pub step: usize,
    /// Key of the action, hexadecimal.
    pub key: String,
    /// Why there is no number.
    pub problem: Option<String>,
}

/// A claim with its verdict.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Claim {
    /// In words.
    pub text: String,
    /// As a condition.
    pub source: String,
    /// `holds`, `fails` or `undecided`.
    pub outcome: String,
    /// Why.
    pub detail: String,
    /// A plain comparison of single runs.
    pub single: bool,
}

/// A figure of numbers: bars, or points over another number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// Beside the y axis.
    pub y_label: String,
    /// Below the x axis, for points; none for bars.
    pub x_label: Option<String>,
    /// Values are shares, shown as percentages.
    pub percent: bool,
    /// Positions are shares too.
    pub x_percent: bool,
    /// The bars or points.
    pub marks: Vec<Mark>,
}

/// A bar or a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Which member it is.
    pub label: String,
    /// What is measured: marks with the same name share a colour.
    pub series: String,
    /// One for each replicate.
    pub values: Vec<f64>,
    /// Positions, one for each replicate; empty for bars.
    pub x: Vec<f64>,
}

/// Curves over the same x.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// Heading.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Shares, shown as percentages.
    pub percent: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// Lines with the same label share a colour.
    pub label: String,
    /// `seed=2`.
    pub replicate: Option<String>,
    /// Positions.
    pub x: Vec<f64>,
    /// Values.
    pub y: Vec<f64>,
}

/// Pictures of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Gallery {
    /// Heading.
    pub title: String,
    /// What is seen.
    pub caption: String,
    /// The step.
    pub step_label: String,
    /// The pictures.
    pub items: Vec<Picture>,
}

/// One picture.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Picture {
    /// Below it.
    pub caption: String,
    /// The PNG, base64.
    pub png_base64: String,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

/// Where a step's numbers come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepRow {
    /// Index.
    pub id: usize,
    /// Label.
    pub label: String,
    /// Kind.
    pub kind: String,
    /// `executed`, `cached`, `failed`, `skipped`.
    pub status: String,
    /// Key, 64 hexadecimal digits, or empty.
    pub key: String,
    /// Seconds its computation took, whenever that was.
    pub seconds: f64,
    /// When it was computed.
    pub when: String,
    /// What it ran on: device, threads, libtorch, host…
    pub ran_on: Vec<(String, String)>,
    /// Its numbers.
    pub metrics: Vec<(String, String)>,
    /// Why it has no result.
    pub error: Option<String>,
    /// Parameters as pretty JSON.
    pub params: String,
}
