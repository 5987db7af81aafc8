//! `filter`: the pictures of a dataset that fit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::ImagesInput;

/// The pictures of a dataset for which everything that is said holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The dataset.
    pub data: ImagesInput,
    /// Only pictures of these classes (that show one of them, where pictures show several); the others are forgotten.
    #[serde(default)]
    pub classes: Option<Vec<String>>,
    /// Only paths that fit this pattern: `*` stands for anything within a name, `**` for any folders, `{a,b}` for either.
    #[serde(default)]
    pub glob: Option<String>,
    /// Only pictures whose shorter side has at least this many pixels.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub min_side: Option<u64>,
}

impl StepKind for Filter {
    const KIND: &'static str = "filter";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "images", artifact: "same as data", doc: "The pictures that fit." }];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;

    fn problems(&self) -> Vec<Problem> {
        if self.classes.is_none() && self.glob.is_none() && self.min_side.is_none() {
            return vec![Problem::new("data", "everything fits: say `classes`, `glob` or `min_side`")];
        }
        Vec::new()
    }
}
