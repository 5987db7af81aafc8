//! `cityscapes`: driving scenes with masks, in the layout of Cityscapes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Missing;
use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// `leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` and `gtFine/<split>/<city>/<name>_gtFine_labelIds.png`, read as the
/// 19 classes of its benchmark, everything else void. The hidden labels of its test split are not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cityscapes {
    /// The folder, .tar or .zip that holds `leftImg8bit` and `gtFine`, or a folder that does.
    pub path: PathRef,
    /// What happens to a picture without a mask.
    #[serde(default)]
    pub missing: Missing,
}

impl StepKind for Cityscapes {
    const KIND: &'static str = "cityscapes";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "train", artifact: "masked_images", doc: "The split `train`." },
        OutputInfo { name: "val", artifact: "masked_images", doc: "The split `val`." },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("pictures", "Number of pictures in all splits."),
        MetricInfo::number("cities", "Number of cities in all splits."),
    ];
}
