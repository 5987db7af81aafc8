//! The language of experiments: text to a checked program. Pure: no files, no clock, no environment.
//!
//! ```text
//! text -lexer-> tokens -parser-> syntax -checker-> Program     (diagnostics on the side, always all of them)
//! ```
//!
//! [`check`] does all of it; [`render`] shows what it found; [`evaluate_claim`] and [`summarise`] say what the
//! measured numbers mean once the program has run.

pub mod catalog;
mod checker;
mod codes;
pub mod diagnostic;
pub mod evaluate;
mod format;
pub mod ide;
mod lexer;
mod parser;
pub mod program;
pub mod render;
pub mod source;
mod suggest;
mod syntax;

pub use catalog::{Catalog, Field, Kind, Metric, Output, Type, Variant};
pub use checker::{ALLOWS_OVERLAP, check};
pub use codes::{EXPLANATIONS, explain};
pub use diagnostic::{Diagnostic, Fix, Related, Severity};
pub use evaluate::{Interval, Outcome, Summary, Verdict, evaluate_claim, paired_interval, summarise, welch_interval};
pub use format::{format, lays_out};
pub use program::{
    Aggregate, Arithmetic, Axis, Cell, CellRef, Choice, Claim, Column, Comparison, Condition, Drawing, Expression,
    Figure, Pick, Program, Published, PublishedRow, Relation, Row, Step, Table,
};
pub use render::render;
pub use source::{Location, Source, Sources, Span};
pub use suggest::did_you_mean;

/// Where the texts of imports come from. The crate opens no file itself.
pub trait Loader {
    /// Gives the text that `path` names as written in the file `from` (the canonical name of the importing file;
    /// none when the caller asks for the first one).
    ///
    /// # Errors
    /// A sentence that says why it cannot be had, shown at the `import`.
    fn load(&self, from: Option<&str>, path: &str) -> Result<Loaded, String>;
}

/// A text that a [`Loader`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its canonical name: two names are equal exactly when the files are the same.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Values for params from outside (`-p name=value`): each an expression of the language; a text that is none is
/// taken as it is when the param is a text.
pub type Overrides = Vec<(String, String)>;

/// What [`check`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The program; none exactly when some diagnostic is an error.
    pub program: Option<Program>,
    /// Everything found, in order of place.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts, which [`render`] quotes.
    pub sources: Sources,
}
