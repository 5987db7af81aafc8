//! What every kind of step says of itself, and the list of all kinds.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Who runs a kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// `harness` itself: datasets and `command`.
    Harness,
    /// A `harness-worker` process on a device slot.
    Worker,
}

/// One output of a kind. The first one of a kind is what a step's bare name stands for.
#[derive(Clone, Copy, Debug)]
pub struct OutputInfo {
    /// Name after the point: `scenes.train`.
    pub name: &'static str,
    /// Artifact kind, or `same as FIELD` for that of the step given in a field (the first one in a list).
    pub artifact: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

/// One number that a kind reports.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// Name after the point: `nn.top1`.
    pub name: &'static str,
    /// One sentence with the unit.
    pub doc: &'static str,
    /// A curve (x, y) instead of one number.
    pub series: bool,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Measured on a test split: nothing may be chosen by it.
    pub on_test: bool,
    /// The number lies in 0..1 and is shown as a percentage.
    pub percent: bool,
    /// The metric of the same step that a trivial predictor reaches, and what that predictor is.
    pub floor: Option<(&'static str, &'static str)>,
    /// Time and the like: differs between runs that give the same bytes, so nothing is concluded from it.
    pub varies: bool,
}

impl MetricInfo {
    /// A share in 0..1 on a test split, more is better.
    pub const fn share(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            series: false,
            higher_is_better: true,
            on_test: true,
            percent: true,
            floor: None,
            varies: false,
        }
    }
    /// A number that only describes.
    pub const fn number(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            series: false,
            higher_is_better: false,
            on_test: false,
            percent: false,
            floor: None,
            varies: false,
        }
    }
    /// A curve.
    pub const fn curve(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            series: true,
            higher_is_better: false,
            on_test: false,
            percent: false,
            floor: None,
            varies: false,
        }
    }
    /// That differs between runs of the same bytes.
    pub const fn varying(mut self) -> Self {
        self.varies = true;
        self
    }
    /// What every dataset of pictures reports of itself.
    pub const CLASSES: &'static [Self] = &[
        Self::number("pictures", "Number of pictures."),
        Self::number("classes", "Number of classes."),
        Self::number("gini", "Gini coefficient of the class sizes, 0 for equal ones."),
        Self::number("max_min_ratio", "Size of the largest class over that of the smallest."),
        Self::curve("class_counts", "Size of each class, in the order of the classes."),
    ];

    /// With the metric that a trivial predictor reaches.
    pub const fn above(mut self, metric: &'static str, predictor: &'static str) -> Self {
        self.floor = Some((metric, predictor));
        self
    }
}

/// A parameter that cannot be, found after types and ranges held: which field, and why with the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Dotted path of the field, `contrast.queue`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem of `field`.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The parameters of one kind of step. Serialised with all defaults resolved they are part of the action key.
pub trait StepKind: Serialize + DeserializeOwned + JsonSchema {
    /// Name in the language.
    const KIND: &'static str;
    /// Raised with every change of what the step computes.
    const VERSION: u32;
    /// Who runs it.
    const EXECUTOR: Executor = Executor::Worker;
    /// Whether it draws random numbers; then it has a field `seed`.
    const RANDOM: bool;
    /// Fixed outputs, the bare one first.
    const OUTPUTS: &'static [OutputInfo];
    /// Numbers it reports.
    const METRICS: &'static [MetricInfo];
    /// Whether outputs and metrics are declared by the step's own fields (`command`).
    const DYNAMIC: bool = false;
    /// Whether several devices can share a step of it, a rank each.
    const SHARED: bool = false;

    /// Fills in defaults that depend on other fields, so that keys hold what was used.
    fn settle(&mut self) {}

    /// What types and ranges cannot say: relations between fields.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// A kind of step as data, for the catalog, the planner and the manual.
#[derive(Clone)]
pub struct KindInfo {
    /// Name in the language.
    pub name: &'static str,
    /// See [`StepKind::VERSION`].
    pub version: u32,
    /// Who runs it.
    pub executor: Executor,
    /// Whether it takes a seed.
    pub random: bool,
    /// Fixed outputs.
    pub outputs: &'static [OutputInfo],
    /// Numbers it reports.
    pub metrics: &'static [MetricInfo],
    /// See [`StepKind::DYNAMIC`].
    pub dynamic: bool,
    /// See [`StepKind::SHARED`].
    pub shared: bool,
    /// JSON schema of the parameters: inlined, with the extensions `x-input`, `x-type`, `x-observes`.
    pub schema: fn() -> Value,
    /// Decodes parameters (inputs already artifacts), resolves every default and checks relations.
    /// The error is a decoding message with serde's field names, or the list of problems.
    pub resolve: fn(Value) -> Result<Value, Vec<Problem>>,
}

/// The schema of `T` with every subschema in its place.
pub fn schema_of<T: JsonSchema>() -> Value {
    let generator =
        schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// Decodes, resolves defaults, checks.
pub fn resolve<T: StepKind>(params: Value) -> Result<Value, Vec<Problem>> {
    let mut decoded: T = serde_json::from_value(params).map_err(|error| vec![Problem::new("", error.to_string())])?;
    decoded.settle();
    let problems = decoded.problems();
    if problems.is_empty() {
        serde_json::to_value(&decoded).map_err(|e| vec![Problem::new("", e.to_string())])
    } else {
        Err(problems)
    }
}

impl KindInfo {
    /// The data of kind `T`.
    pub const fn of<T: StepKind>() -> Self {
        Self {
            name: T::KIND,
            version: T::VERSION,
            executor: T::EXECUTOR,
            random: T::RANDOM,
            outputs: T::OUTPUTS,
            metrics: T::METRICS,
            dynamic: T::DYNAMIC,
            shared: T::SHARED,
            schema: schema_of::<T>,
            resolve: resolve::<T>,
        }
    }
}
