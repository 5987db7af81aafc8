//! The checked program: what the planner works from. Everything is resolved; nothing here can be misspelt.

use crate::catalog::Metric;
use crate::source::Span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A checked program.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Program {
    /// The params with the values they have in this run, in order of declaration.
    pub params: Vec<(String, Value)>,
    /// The steps; every step comes after those it takes something from.
    pub steps: Vec<Step>,
    /// The tables in order of declaration.
    pub tables: Vec<Table>,
    /// The figures in order of declaration.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// The claims in order of declaration.
    pub claims: Vec<Claim>,
}

impl Program {
    /// The same program with other steps, in which the one that was at `i` is at `place[i]`: tables, figures and claims
    /// follow.
    pub fn with_steps(mut self, steps: Vec<Step>, place: &[usize]) -> Self {
        let follow = |cells: &mut Vec<CellRef>| cells.iter_mut().for_each(|cell| cell.step = place[cell.step]);
        for cell in self.tables.iter_mut().flat_map(|table| &mut table.rows).flat_map(|row| &mut row.cells) {
            follow(&mut cell.values);
            follow(&mut cell.floor);
        }
        for drawing in self.figures.iter_mut().flat_map(|figure| &mut figure.drawings) {
            follow(&mut drawing.cells);
            follow(&mut drawing.x);
        }
        let comparisons = self.claims.iter_mut().flat_map(|claim| &mut claim.condition.comparisons);
        comparisons.for_each(|comparison| {
            comparison.left.cells_mut(&follow);
            comparison.right.cells_mut(&follow);
        });
        self.steps = steps;
        self
    }
}

/// One step: one member of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its index in [`Program::steps`].
    pub id: usize,
    /// The name it was declared with, which all members of its family share.
    pub name: String,
    /// The name with the place on each axis, `nn[method=moco, seed=2]`; unique in the program.
    pub label: String,
    /// The name of its kind.
    pub kind: String,
    /// Its place on the axes around it, outermost first.
    pub axes: Vec<Axis>,
    /// The written fields (with those of its base and the seed), defaults not filled in.
    ///
    /// A reference to a step is `{"$ref":{"step":id,"output":"name"}}`, a range `[a,b]`, a tagged record
    /// `{"tag":{…}}` or, written bare, `"tag"`, a duration seconds, a size bytes, a path
    /// `{"root":"coco","path":"train2017"}` with a null root for a plain text, a percentage a fraction.
    pub params: Map<String, Value>,
    /// The steps that it refers to, ascending, each once.
    pub inputs: Vec<usize>,
    /// Where it is declared: its name.
    pub span: Span,
    /// Where each written field is, by dotted name such as `views.two_crops.size`.
    pub field_spans: BTreeMap<String, Span>,
    /// Whether nobody wrote it: another step or a statement implies it. Of these the checker makes choices alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub implied: bool,
    /// How it stands for one of its inputs, where it computes nothing of its own: `best(family, by = metric)`.
    ///
    /// Its params are then `of`, a list of references to the members to choose from, and `by`, for each of them a list
    /// of references to the steps that measure; its kind, outputs and metrics are those of the member chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
}

/// How one of several steps is chosen once their results are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// What tells the members apart, such as `lr=0.1`: one for each.
    pub places: Vec<String>,
    /// The number that counts. Of several steps that measure it (replicates) the mean.
    pub metric: String,
    /// Which number of a series.
    pub pick: Pick,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The number as written, such as `val.top1`.
    pub by: String,
}

/// A place on an axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// The name after `for` or `replicate`.
    pub name: String,
    /// The value's label: a step's name, or the value as written.
    pub value: String,
    /// Whether it is an axis to average over.
    pub replicate: bool,
}

/// A table of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name, unique among tables.
    pub name: String,
    /// What stands above it.
    pub title: String,
    /// The axis whose values are the rows.
    pub row_axis: String,
    /// The rows in order of first appearance of their value.
    pub rows: Vec<Row>,
    /// The columns in the order written.
    pub columns: Vec<Column>,
    /// Figures published elsewhere, to stand beside ours.
    #[serde(default)]
    pub published: Option<Published>,
}

/// Figures published elsewhere, in the units that the table shows (shares in percent).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The file that they come from, as written.
    pub file: String,
    /// The rows in the order of that file.
    pub rows: Vec<PublishedRow>,
}

/// A row of published figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// The label on the table's axis, whether or not the table has it.
    pub label: String,
    /// One for each column of the table.
    pub values: Vec<Option<f64>>,
    /// Where it was published; may be empty.
    pub source: String,
}

/// A figure of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, unique among figures.
    pub name: String,
    /// What stands above it.
    pub title: String,
    /// Whether curves are drawn, over what they count; else numbers.
    pub curves: bool,
    /// What the numbers are drawn over, as points; bars without it.
    pub over: Option<Column>,
    /// The member whose numbers are taken from those of the others, replicate by replicate: paired differences.
    #[serde(default)]
    pub baseline: Option<String>,
    /// What is drawn, in the order written.
    pub columns: Vec<Column>,
    /// The lines, bars or points.
    pub drawings: Vec<Drawing>,
}

/// A line, bar or point of a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// Index in [`Figure::columns`].
    pub column: usize,
    /// The place on the axes to compare along, or what is measured where there are none.
    pub label: String,
    /// One for each replicate.
    pub cells: Vec<CellRef>,
    /// What it is drawn over, or, with a baseline, what is taken from it, one for each replicate; empty for curves and
    /// bars.
    pub x: Vec<CellRef>,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The label of the axis value.
    pub label: String,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// As written, such as `nn.top1`.
    pub label: String,
    /// The family that is measured.
    pub family: String,
    /// Its kind.
    pub kind: String,
    /// What is measured.
    pub metric: Metric,
    /// Which number of a series; [`Pick::Last`] for a plain number.
    pub pick: Pick,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cell {
    /// One for each replicate; empty where the family has no such member.
    pub values: Vec<CellRef>,
    /// The floor metric of the same steps; empty where the metric has no floor.
    pub floor: Vec<CellRef>,
}

/// One number that a step will have measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRef {
    /// Index in [`Program::steps`].
    pub step: usize,
    /// The metric's name.
    pub metric: String,
    /// The place on the replicate axes, such as `seed=2`; none for a step that is not replicated.
    pub replicate: Option<String>,
}

/// Which number of a series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub enum Pick {
    /// The last one; for a plain number, the number itself.
    #[default]
    Last,
    /// The best one, by the metric's direction.
    Best,
    /// The one at this place, such as an epoch.
    At(f64),
}

/// An executable finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What is claimed, in words.
    pub text: String,
    /// What is claimed, as a condition.
    pub condition: Condition,
    /// Where it is declared: its text.
    pub span: Span,
    /// The condition as written.
    pub source: String,
}

/// What a claim states: every comparison must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The comparisons, joined by `and`; at least one.
    pub comparisons: Vec<Comparison>,
}

/// Two numbers compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Left side.
    pub left: Expression,
    /// How they compare.
    pub relation: Relation,
    /// Right side.
    pub right: Expression,
    /// As written.
    pub source: String,
}

/// How two numbers compare. There is no equality: measured numbers are never claimed to be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// An expression over measured numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expression {
    /// A number that is known.
    Number(f64),
    /// Measured numbers, one for each replicate.
    Measured {
        /// The numbers; several with the same replicate label are averaged.
        cells: Vec<CellRef>,
        /// Which number of a series.
        pick: Pick,
        /// As written.
        source: String,
    },
    /// `-x`
    Negated(Box<Expression>),
    /// Two numbers and an operator.
    Binary {
        /// The operator.
        operator: Arithmetic,
        /// Left side.
        left: Box<Expression>,
        /// Right side.
        right: Box<Expression>,
    },
    /// A function of numbers.
    Call {
        /// Which.
        function: Aggregate,
        /// What it is applied to; at least one.
        arguments: Vec<Expression>,
    },
}

impl CellRef {
    /// Its places on the replicate axes, such as `seed=2`, the outermost one first.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.replicate.as_deref().into_iter().flat_map(|label| label.split(", "))
    }
}

impl Expression {
    /// Gives every list of measured numbers in it to `tell`.
    pub(crate) fn cells<'a>(&'a self, tell: &mut impl FnMut(&'a [CellRef])) {
        match self {
            Self::Number(_) => {}
            Self::Measured { cells, .. } => tell(cells),
            Self::Negated(inner) => inner.cells(tell),
            Self::Binary { left, right, .. } => {
                left.cells(tell);
                right.cells(tell);
            }
            Self::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.cells(tell)),
        }
    }

    /// Gives every list of measured numbers in it to `change`.
    fn cells_mut(&mut self, change: &impl Fn(&mut Vec<CellRef>)) {
        match self {
            Self::Number(_) => {}
            Self::Measured { cells, .. } => change(cells),
            Self::Negated(inner) => inner.cells_mut(change),
            Self::Binary { left, right, .. } => {
                left.cells_mut(change);
                right.cells_mut(change);
            }
            Self::Call { arguments, .. } => arguments.iter_mut().for_each(|argument| argument.cells_mut(change)),
        }
    }
}

/// An operator between numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

/// A function of several numbers in a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// Arithmetic mean.
    Mean,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Sum.
    Sum,
}
