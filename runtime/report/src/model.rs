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
    /// The same text piece by piece, coloured and linked. A page has it as HTML: thousands of pieces would take a template longer
    /// than all the rest.
    #[serde(skip_serializing, default)]
    pub source: Vec<Piece>,
    /// What the text says of itself: the comment that it begins with.
    pub about: String,
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
    /// Figures: the declared ones first, then what the steps measured.
    pub figures: Vec<Figure>,
    /// Pictures.
    pub galleries: Vec<Gallery>,
    /// The steps; of very many the first, and those that failed.
    pub steps: Vec<StepRow>,
    /// How many more there are.
    pub steps_left_out: usize,
    /// What computing all of it cost.
    pub costs: Costs,
    /// What a reader must know before trusting a number.
    pub warnings: Vec<String>,
}

/// A stretch of the experiment's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The characters.
    pub text: String,
    /// What it is: `keyword`, `kind`, `field`, `name`, `number`, `text`, `operator`, `comment`, or nothing.
    pub class: String,
    /// Where its result is on the page: `#step-3`; or nothing.
    pub link: String,
    /// Of a link: what is there.
    pub title: String,
}

/// What the results cost, whenever they were computed; steps with the same key count once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Seconds that computing all of it took.
    pub seconds: f64,
    /// Seconds of them that this run did not spend, since the cache had the results.
    pub saved_s: f64,
    /// Hours on each device: `cpu`, the name of a GPU; a step on several of them counts as often.
    pub device_hours: Vec<(String, f64)>,
    /// Seconds that jobs waited in a cluster's queue.
    pub waited_s: f64,
    /// Results of jobs that did.
    pub queued: u64,
    /// Results computed on each machine.
    pub hosts: Vec<(String, u64)>,
    /// Pictures seen in training, counted at every visit.
    pub pictures: f64,
    /// Pixels of their views.
    pub pixels: f64,
    /// Results taken from the cache, of all that were asked for.
    pub hits: u64,
    /// Results asked for.
    pub asked: u64,
    /// By kind, the most expensive first.
    pub kinds: Vec<KindCost>,
}

/// What the steps of one kind cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KindCost {
    /// The kind.
    pub kind: String,
    /// Steps asked for.
    pub steps: u64,
    /// Of them known before.
    pub cached: u64,
    /// Seconds, steps with the same key once.
    pub seconds: f64,
    /// Pictures seen in training.
    pub pictures: f64,
    /// Pixels of their views.
    pub pixels: f64,
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
    /// What its training was: values of one training are repetitions of an evaluation, not independent of each other.
    #[serde(default)]
    pub training: String,
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
    /// Mean difference of the deciding comparison with its 95 % interval, and of how many pairs.
    pub interval: Option<Interval>,
    /// When it was first part of a recorded run, for people; empty when that is not known.
    pub stated: String,
    /// Whether that was before the first of its results was computed; none when it is not known.
    pub before: Option<bool>,
}

/// A mean with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many values.
    pub n: usize,
}

/// A figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// A short name for files and links.
    pub name: String,
    /// Heading.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Whether the experiment declares it; others are drawn for whatever was measured.
    pub declared: bool,
    /// Values are shares, shown as percentages.
    pub percent: bool,
    /// What the values are.
    pub y_label: String,
    /// What they are drawn over.
    pub x_label: String,
    /// What is drawn.
    pub drawing: Drawing,
}

/// What a figure draws.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Drawing {
    /// Lines over the same x: replicates thin, their mean thick with a band of one standard deviation to each side.
    Curves {
        /// The lines.
        lines: Vec<Line>,
    },
    /// A bar for each mark with a whisker of one standard deviation, and a dot for each value.
    Bars {
        /// The bars.
        marks: Vec<Mark>,
    },
    /// One number over another.
    Points {
        /// Positions are shares too.
        x_percent: bool,
        /// The points.
        marks: Vec<Mark>,
    },
    /// Differences within the replicates, with the 95 % interval of their mean, around zero.
    Differences {
        /// One for each thing compared.
        rows: Vec<Difference>,
    },
    /// A value for each class.
    Classes {
        /// Names of the classes.
        classes: Vec<String>,
        /// Who has values.
        groups: Vec<Group>,
    },
    /// How many of each class, largest first.
    Histogram {
        /// Names of the classes, largest class first.
        classes: Vec<String>,
        /// Their sizes.
        counts: Vec<f64>,
    },
    /// How often a class (row) was given each answer (column).
    Confusion {
        /// Names of the classes.
        classes: Vec<String>,
        /// A row for each true class.
        counts: Vec<Vec<f64>>,
    },
}

impl Default for Drawing {
    fn default() -> Self {
        Self::Curves { lines: Vec::new() }
    }
}

/// A bar or a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Which member it is.
    pub label: String,
    /// What is measured: marks with the same name share a colour.
    pub series: String,
    /// One for each replicate.
    #[serde(with = "numbers")]
    pub values: Vec<f64>,
    /// Positions, one for each replicate; empty for bars.
    #[serde(with = "numbers")]
    pub x: Vec<f64>,
}

/// A paired difference.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Difference {
    /// What is compared.
    pub label: String,
    /// Colour group: a verdict, or what is measured.
    pub series: String,
    /// The mean and its 95 % interval (Student's t over the pairs); without an interval for one pair.
    pub interval: Option<Interval>,
    /// One for each pair.
    #[serde(with = "numbers")]
    pub values: Vec<f64>,
}

/// Values of one member for all classes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// The member.
    pub label: String,
    /// For each replicate, a value for each class.
    pub values: Vec<Vec<f64>>,
}

/// One line of a figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// Lines with the same label share a colour.
    pub label: String,
    /// `seed=2`.
    pub replicate: Option<String>,
    /// Positions.
    #[serde(with = "numbers")]
    pub x: Vec<f64>,
    /// Values.
    #[serde(with = "numbers")]
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
    /// Its index.
    pub step: usize,
    /// Pictures that are not on the page, since it would grow too heavy.
    pub left_out: usize,
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
    /// Frames of a video that it holds side by side; 0 where it is one picture.
    pub frames: usize,
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

/// Two runs side by side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// Heading.
    pub title: String,
    /// When the page was made, for people.
    pub generated: String,
    /// Version of the program.
    pub version: String,
    /// The two runs, A and B.
    pub sides: Vec<Side>,
    /// What differs in the experiments, in words.
    pub changes: Vec<String>,
    /// Numbers that differ.
    pub metrics: Vec<Compared>,
    /// How many are equal in both and not shown.
    pub equal: usize,
    /// Curves of both, one over the other, and differences.
    pub figures: Vec<Figure>,
}

/// One of two runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// `A` or `B`.
    pub name: String,
    /// The run.
    pub run: String,
    /// Its file.
    pub file: String,
    /// When it began, UTC.
    pub began: String,
}

/// A number in two runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Compared {
    /// The step, without its place on the axes averaged over.
    pub step: String,
    /// The metric.
    pub metric: String,
    /// A share, shown in percent.
    pub percent: bool,
    /// Direction, where the kind says one.
    pub higher_is_better: Option<bool>,
    /// One value for each replicate of the first run.
    #[serde(with = "numbers")]
    pub before: Vec<f64>,
    /// Of the second.
    #[serde(with = "numbers")]
    pub after: Vec<f64>,
    /// Mean of the second less mean of the first.
    pub difference: Option<f64>,
    /// The 95 % interval of that difference; none where either has a single value.
    pub interval: Option<Interval>,
    /// What the interval is over: `3 pairs`, `3 and 5 values`.
    pub over: String,
}

/// Doubles in JSON, which has no word for what is no number: null.
mod numbers {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| value.is_finite().then_some(*value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}
