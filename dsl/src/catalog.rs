//! What the checker knows of the kinds of steps: signatures as plain data, given by the caller.
//!
//! The language itself knows no step. Everything about `pretrain` or `knn` (which fields they take, in which
//! ranges, what they give, which numbers they measure) reaches the checker through a [`Catalog`].

use serde::{Deserialize, Serialize};

/// All kinds of steps that a program may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// The kinds, each with a name of its own.
    pub kinds: Vec<Kind>,
}

impl Catalog {
    /// The kind of that name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }
}

/// A kind of step: the function that a step applies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// The word that starts a step of this kind.
    pub name: String,
    /// One or more sentences for the manual.
    pub doc: String,
    /// What a step of this kind takes.
    pub fields: Vec<Field>,
    /// What it gives; the first is what the bare step name stands for.
    pub outputs: Vec<Output>,
    /// Whether it may give outputs beyond [`Kind::outputs`], whose names only the run knows. They fit any input.
    pub dynamic_outputs: bool,
    /// Whether it may measure numbers beyond [`Kind::metrics`], whose names only the run knows.
    pub dynamic_metrics: bool,
    /// The numbers it measures.
    pub metrics: Vec<Metric>,
    /// Whether it draws random numbers. Such a step has a `seed` (an integer from 0), which is the value of the
    /// innermost `replicate` axis around it unless written, and 0 outside every `replicate`.
    pub random: bool,
}

impl Kind {
    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// The metric of that name.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The field that names what its steps are judged on: `test`, or `data` where that is all that it measures on.
    pub fn judged_on(&self) -> Option<&'static str> {
        let takes = |name: &str| self.field(name).is_some_and(|field| matches!(field.ty, Type::Input(_)));
        match self.metrics.iter().any(|metric| metric.on_test) {
            _ if takes("test") => Some("test"),
            true if takes("data") => Some("data"),
            _ => None,
        }
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One field of a kind, of a record or of a tagged record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// The name that is written before `=`.
    pub name: String,
    /// One or more sentences for the manual.
    pub doc: String,
    /// What may stand after `=`.
    pub ty: Type,
    /// The value that an unwritten field has, for the manual and the planner; the checker does not fill it in.
    pub default: Option<serde_json::Value>,
    /// Whether leaving it out is an error.
    pub required: bool,
    /// Whether it only observes and so never changes a key.
    pub observes: bool,
}

/// Something a step gives to other steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The name after the point, as in `scenes.train`.
    pub name: String,
    /// What it is: `images`, `videos`, `encoder`, `features`, `folder`; `any` fits every input;
    /// `same as FIELD` is what the step in that field gives (the first one, where the field takes a list).
    pub artifact: String,
    /// One or more sentences for the manual.
    pub doc: String,
}

/// A number, or a series of numbers, that a step measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The name after the point, as in `nn.top1`.
    pub name: String,
    /// One or more sentences for the manual.
    pub doc: String,
    /// Whether it is a curve, of which `.last`, `.best` and `.at(x)` give numbers.
    pub series: bool,
    /// Whether more is better; false for losses and errors.
    pub higher_is_better: bool,
    /// Whether it is measured on a test split.
    pub on_test: bool,
    /// The metric of the same step that a predictor without any learning reaches.
    pub floor: Option<String>,
    /// How the floor is called beside a table, such as `majority class`.
    pub floor_label: Option<String>,
    /// Whether it is a share, shown and claimed in percent (0 to 100).
    pub percent: bool,
}

/// What a field accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number, both ends inclusive.
    Int {
        /// The least that is accepted.
        min: Option<i64>,
        /// The most that is accepted.
        max: Option<i64>,
    },
    /// A finite number; a whole number or a percentage will do.
    Float {
        /// The least that is accepted.
        min: Option<f64>,
        /// The most that is accepted, inclusive.
        max: Option<f64>,
        /// Whether `min` itself is refused.
        exclusive_min: bool,
    },
    /// A text in quotes.
    Text,
    /// One of these words, bare or in quotes.
    Choice(Vec<String>),
    /// A place in a dataset root (`@coco/train2017`), or a text that names a path.
    Path,
    /// A length of time such as `90s`; seconds in the program.
    Duration,
    /// A size such as `2GiB`; bytes in the program.
    Size,
    /// An inclusive range `a..b` with `a <= b`, both of the inner type.
    Range(Box<Type>),
    /// A list of values of the inner type.
    List(Box<Type>),
    /// A record whose names are free and whose values are of the inner type.
    Map(Box<Type>),
    /// A record with these fields.
    Record(Vec<Field>),
    /// One of several named records, as in `sgd { lr = 0.3 }`.
    Tagged(Vec<Variant>),
    /// The output of another step, of one of these artifacts.
    Input(Vec<String>),
    /// The inner type, or the word `none` (`null` in the program).
    Optional(Box<Type>),
    /// Anything at all, references to steps included.
    Any,
}

/// One tag of a [`Type::Tagged`] with the fields of its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The word before the braces.
    pub name: String,
    /// One or more sentences for the manual.
    pub doc: String,
    /// What the body takes; a tag with no required field may be written bare.
    pub fields: Vec<Field>,
}
