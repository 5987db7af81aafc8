//! `mask_folder`: masks of videos that some program predicted, where they lie.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// Predicted masks in the layout of a DAVIS result: `<sequence>/<frame>.png`, index PNGs, in any folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskFolder {
    /// The folder, .tar or .zip that holds a folder for every sequence, at the top or below other folders.
    pub path: PathRef,
}

impl StepKind for MaskFolder {
    const KIND: &'static str = "mask_folder";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "masks", artifact: "mask_files", doc: "The masks, where they lie." }];
    const METRICS: &'static [MetricInfo] = &[MetricInfo::number("files", "Number of masks.")];
}
