//! `mask_labels`: which classes a picture shows, from its mask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::{MaskedInput, int};

/// Pictures with one answer for each class of their masks: shown, or not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskLabels {
    /// Pictures with masks.
    pub data: MaskedInput,
    /// Pixels of a class from which on it is shown; fewer, but any, count as difficult.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 1))]
    pub pixels: u64,
    /// Classes of the masks that are no answers.
    #[serde(default = "background")]
    pub without: Vec<String>,
}

fn background() -> Vec<String> {
    vec!["background".into()]
}

impl StepKind for MaskLabels {
    const KIND: &'static str = "mask_labels";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "images", artifact: "multilabel_images", doc: "The pictures with their answers." }];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;
}
