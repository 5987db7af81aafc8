//! `holdout`: a dataset in two parts, one to learn from and one to choose by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::ImagesInput;

/// A dataset in two parts, class by class where pictures have a class. Exact copies of a picture stay on one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// The dataset.
    pub data: ImagesInput,
    /// Share that is held out.
    #[schemars(range(min = 0.0, max = 0.9), extend("exclusiveMinimum" = 0.0))]
    pub share: f64,
    /// Seed of the draw. Not the experiment's seed: replicates see the same data.
    #[serde(default)]
    pub split_seed: u64,
}

impl StepKind for Holdout {
    const KIND: &'static str = "holdout";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "train", artifact: "same as data", doc: "The pictures that are not held out." },
        OutputInfo { name: "holdout", artifact: "same as data", doc: "The pictures held out." },
    ];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;
}
