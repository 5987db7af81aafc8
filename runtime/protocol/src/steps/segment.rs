//! `segment`: segmentation transfer, the whole network finetuned with a dilated FCN head.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::optimise::{Optimizer, Schedule, Sgd, Steps};
use crate::value::{EncoderInput, MaskedInput, Span, int};

/// Published quirks or their repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As published: an absent class counts 0, the border of a rotated label becomes class 0.
    Official,
    /// Repaired: classes absent from the ground truth are left out, the border of a rotated label is void.
    #[default]
    Fixed,
}

/// The part above the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentHead {
    /// Two 3 × 3 convolutions with batch norm and ReLU, then 1 × 1 without bias (the study's FCN).
    Fcn(Fcn),
}

impl Default for SegmentHead {
    fn default() -> Self {
        Self::Fcn(Fcn::default())
    }
}

/// The FCN head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fcn {
    /// Channels between the convolutions.
    #[schemars(range(min = 1, max = 4096))]
    pub channels: u64,
    /// Dilation and padding of the 3 × 3 convolutions: 6 for VOC, 1 for Cityscapes.
    #[schemars(range(min = 1, max = 64))]
    pub dilation: u64,
}

impl Default for Fcn {
    fn default() -> Self {
        Self { channels: 256, dilation: 6 }
    }
}

/// Training augmentation: flip, then rotation and scaling in one warp about the centre, picture cubic, label nearest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentAugment {
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
    /// Rotation in degrees.
    pub rotate: Span,
    /// Scaling.
    pub scale: Span,
}

impl Default for SegmentAugment {
    fn default() -> Self {
        Self { flip: 0.5, rotate: Span(-5.0, 5.0), scale: Span(0.75, 1.25) }
    }
}

/// Finetunes all layers for semantic segmentation and reports mIoU at the masks' own resolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Encoder to start from; the step works on a copy.
    pub encoder: EncoderInput,
    /// Pictures with masks to learn from.
    pub train: MaskedInput,
    /// Pictures with masks to report on; the network of the last epoch counts.
    pub test: MaskedInput,
    /// The part above the encoder.
    #[serde(default)]
    pub head: SegmentHead,
    /// Side that pictures and masks are warped to, whatever their aspect.
    #[serde(default = "int::<512>")]
    #[schemars(range(min = 16, max = 4096))]
    pub size: u64,
    /// Passes over train.
    #[serde(default = "int::<45>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Pictures in a step; what is left at an epoch's end is dropped.
    #[serde(default = "int::<16>")]
    #[schemars(range(min = 2))]
    pub batch: u64,
    /// How weights follow gradients.
    #[serde(default = "optimizer")]
    pub optimizer: Optimizer,
    /// How the learning rate falls.
    #[serde(default = "schedule")]
    pub schedule: Schedule,
    /// Training augmentation.
    #[serde(default)]
    pub augment: SegmentAugment,
    /// Published quirks or their repair.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of the head, order and augmentation.
    #[serde(default)]
    pub seed: u64,
}

fn optimizer() -> Optimizer {
    Optimizer::Sgd(Sgd { lr: 0.003, momentum: 0.9, weight_decay: 1e-4 })
}

fn schedule() -> Schedule {
    Schedule::Steps(Steps { at: vec![31, 41], factor: 0.1 })
}

impl StepKind for Segment {
    const KIND: &'static str = "segment";
    const VERSION: u32 = 1;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "overlays", artifact: "pictures", doc: "Test pictures with prediction and ground truth." },
        OutputInfo {
            name: "confusion",
            artifact: "file",
            doc: "Confusion matrix over test, JSON, rows = ground truth.",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("miou", "Mean over classes of intersection over union on test.")
            .above("floor_miou", "most frequent class of train everywhere"),
        MetricInfo::share("pixel_accuracy", "Share of test pixels classified right."),
        MetricInfo::share("floor_miou", "mIoU of predicting the most frequent class of train at every pixel."),
        MetricInfo::curve("loss", "Mean loss of each epoch, nats."),
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.schedule.problems("schedule");
        if !(self.augment.scale.0 > 0.0 && self.augment.scale.0 <= self.augment.scale.1) {
            problems.push(Problem::new("augment.scale", "scales are 0 < low <= high"));
        }
        if self.augment.rotate.0 > self.augment.rotate.1 {
            problems.push(Problem::new("augment.rotate", "angles are low <= high"));
        }
        problems
    }
}
