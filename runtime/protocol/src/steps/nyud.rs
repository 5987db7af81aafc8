//! `nyud`: indoor scenes with masks and depth maps, in the layout that multi-task work uses for NYUDv2.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Missing;
use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// `NYUD_MT`: `images/<id>.jpg`, `segmentation/<id>.png`, `depth/<id>.npy`, `gt_sets/<split>.txt`; 40 classes: mask value 0
/// is void, value l is class l - 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nyud {
    /// The folder, .tar or .zip that holds `gt_sets`, or that holds `NYUD_MT` that does.
    pub path: PathRef,
    /// What happens to a listed picture that is not there, or has no mask.
    #[serde(default)]
    pub missing: Missing,
}

impl StepKind for Nyud {
    const KIND: &'static str = "nyud";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "train", artifact: "masked_images", doc: "The set `train`." },
        OutputInfo { name: "val", artifact: "masked_images", doc: "The set `val`." },
        OutputInfo {
            name: "train_depth",
            artifact: "depth_images",
            doc: "The set `train` with depth maps, where all of it has one.",
        },
        OutputInfo {
            name: "val_depth",
            artifact: "depth_images",
            doc: "The set `val` with depth maps, where all of it has one.",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[MetricInfo::number("pictures", "Number of pictures in all sets.")];
}
