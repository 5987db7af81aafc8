//! `voc_segmentation`: pictures with palette masks, in the layout of VOC2012 or in the study's repack of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Missing;
use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// VOC's own `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/<split>.txt`, or the study's `images`,
/// `SegmentationClass`, `SegmentationClassAug`, `sets/<split>.txt`; 21 classes, 255 void.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocSegmentation {
    /// The folder, .tar or .zip that holds the layout, or that holds `VOCdevkit/VOC2012` or `VOCSegmentation` that does.
    pub path: PathRef,
    /// Folder inside `path` that holds the layout, for a development kit with several years: `"VOCdevkit/VOC2012"`.
    #[serde(default)]
    pub inside: String,
    /// What happens to a listed picture that is not there, or has no mask.
    #[serde(default)]
    pub missing: Missing,
}

impl StepKind for VocSegmentation {
    const KIND: &'static str = "voc_segmentation";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "train", artifact: "masked_images", doc: "The image set `train`." },
        OutputInfo { name: "val", artifact: "masked_images", doc: "The image set `val`." },
        OutputInfo { name: "trainval", artifact: "masked_images", doc: "The image set `trainval`." },
        OutputInfo {
            name: "trainaug",
            artifact: "masked_images",
            doc: "The enlarged image set, with its masks from `SegmentationClassAug`.",
        },
    ];
    const METRICS: &'static [MetricInfo] =
        &[MetricInfo::number("pictures", "Number of different pictures in all image sets.")];
}
