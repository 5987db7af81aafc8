//! `segment`: segmentation transfer, the whole network finetuned with a dilated FCN head.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::optimise::{Adam, Finetuner, Poly, Schedule, Sgd, Steps};
use crate::select::{BestOnTest, PartOfTrain};
use crate::value::{EncoderInput, MaskedInput, Span, int};

/// Published quirks or their repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As published: an absent class counts 0, the border of a rotated label becomes class 0, sizes change as in OpenCV
    /// (cubic without antialiasing, nearest by corners), and the epoch is chosen on test.
    Official,
    /// Repaired: classes absent from the ground truth are left out, the border of a rotated label is void, sizes change
    /// as in Pillow (antialiased cubic, nearest by centres), and nothing is chosen on test.
    #[default]
    Fixed,
}

/// The part above the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentHead {
    /// Two 3 × 3 convolutions with batch norm and ReLU, then 1 × 1 without bias (the study's FCN).
    Fcn(Fcn),
    /// DeepLabV3's head: atrous spatial pyramid pooling, then a 3 × 3 and a 1 × 1 convolution.
    Deeplab(Deeplab),
}

impl Default for SegmentHead {
    fn default() -> Self {
        Self::Fcn(Fcn::default())
    }
}

impl SegmentHead {
    /// Relations between the fields.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        match self {
            Self::Deeplab(head) if head.rates.is_empty() || head.rates.iter().any(|&rate| rate == 0 || rate > 64) => {
                vec![Problem::new(&format!("{field}.deeplab.rates"), "at least one rate, all of them from 1 to 64")]
            }
            _ => Vec::new(),
        }
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

/// DeepLabV3's head, torchvision's layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Deeplab {
    /// Channels of every branch and between the convolutions.
    #[schemars(range(min = 1, max = 4096))]
    pub channels: u64,
    /// Dilation and padding of the 3 × 3 branches.
    pub rates: Vec<u64>,
    /// Share of values that dropout takes away behind the projection.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: f64,
}

impl Default for Deeplab {
    fn default() -> Self {
        Self { channels: 256, rates: vec![12, 24, 36], dropout: 0.5 }
    }
}

/// What training does to pictures and masks, the two always alike; pictures cubic, masks nearest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentAugment {
    /// Flip, rotate and scale in one warp about the centre, then resize to a square whatever the aspect; test pictures
    /// are resized to the same square (the study's VOC).
    Warp(Warp),
    /// Scale, crop a square, flip; test pictures are seen as they are (the study's Cityscapes).
    Crop(ScaledCrop),
    /// Flip, then scale about the centre on the same canvas; all pictures are seen as they are and have one size (NYUD).
    Zoom(Zoom),
}

/// Flip, then rotation and scaling in one warp about the centre, then a square.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Warp {
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
    /// Rotation in degrees.
    pub rotate: Span,
    /// Scaling.
    pub scale: Span,
}

impl Default for Warp {
    fn default() -> Self {
        Self { flip: 0.5, rotate: Span(-5.0, 5.0), scale: Span(0.75, 1.25) }
    }
}

/// One of several scales, then a square crop. A sample with a side shorter than the crop is enlarged as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScaledCrop {
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
    /// Scales, each as likely as the others.
    pub scales: Vec<f64>,
}

impl Default for ScaledCrop {
    fn default() -> Self {
        Self { flip: 0.5, scales: vec![0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0] }
    }
}

/// One of several scales about the centre, same canvas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Zoom {
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
    /// Scales, each as likely as the others.
    pub scales: Vec<f64>,
}

impl Default for Zoom {
    fn default() -> Self {
        Self { flip: 0.5, scales: vec![1.0, 1.2, 1.5] }
    }
}

impl SegmentAugment {
    /// Relations between the fields.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |name: &str, message: &str| problems.push(Problem::new(&format!("{field}.{name}"), message));
        match self {
            Self::Warp(warp) => {
                if !(warp.scale.0 > 0.0 && warp.scale.0 <= warp.scale.1) {
                    say("warp.scale", "scales are 0 < low <= high");
                }
                if warp.rotate.0 > warp.rotate.1 {
                    say("warp.rotate", "angles are low <= high");
                }
            }
            Self::Crop(ScaledCrop { scales, .. }) | Self::Zoom(Zoom { scales, .. }) => {
                if scales.is_empty() || scales.iter().any(|&scale| scale <= 0.0) {
                    say("scales", "at least one scale, all of them above 0");
                }
            }
        }
        problems
    }
}

/// Whose settings the fields have that are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The study's VOC: FCN with dilation 6, squares of 512, SGD 0.003, 45 epochs of batches of 16, steps at 31 and 41.
    #[default]
    Voc,
    /// The study's Cityscapes: FCN with dilation 1, crops of 768, Adam 1e-4, 150 epochs of batches of 8, poly.
    Cityscapes,
    /// The same authors' multi-task NYUD: DeepLab head on a stride of 8, whole pictures, Adam 1e-4, 100 epochs of
    /// batches of 8, poly.
    NyudMtl,
}

/// Which epoch's network counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The last one.
    Last(LastEpoch),
    /// The one with the best score on a part of train that is held out for it, the first of several. The part is drawn from
    /// all pictures, whatever classes they have, and is at least one.
    Holdout(PartOfTrain),
    /// The one with the best score on test, the first of several: as published, and better than the method is.
    BestOnTest(BestOnTest),
}

/// Nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LastEpoch {}

/// Finetunes all layers for semantic segmentation and reports mIoU at the masks' own resolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Fields")]
pub struct Segment {
    /// See [`Fields`].
    pub encoder: EncoderInput,
    /// See [`Fields`].
    pub train: MaskedInput,
    /// See [`Fields`].
    pub test: MaskedInput,
    /// See [`Fields`].
    pub preset: Preset,
    /// See [`Fields`].
    pub profile: Profile,
    /// See [`Fields`].
    pub head: SegmentHead,
    /// See [`Fields`].
    pub dilated: u64,
    /// See [`Fields`].
    pub size: Option<u64>,
    /// See [`Fields`].
    pub epochs: u64,
    /// See [`Fields`].
    pub batch: u64,
    /// See [`Fields`].
    pub optimizer: Finetuner,
    /// See [`Fields`].
    pub schedule: Schedule,
    /// See [`Fields`].
    pub augment: SegmentAugment,
    /// See [`Fields`].
    pub select: Select,
    /// See [`Fields`].
    pub every: u64,
    /// See [`Fields`].
    pub seed: u64,
}

/// Finetunes all layers for semantic segmentation and reports mIoU at the masks' own resolution.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Encoder to start from; the step works on a copy.
    pub encoder: EncoderInput,
    /// Pictures with masks to learn from.
    pub train: MaskedInput,
    /// Pictures with masks to report on.
    pub test: MaskedInput,
    /// Whose settings the fields have that are not written.
    #[serde(default)]
    pub preset: Preset,
    /// Published quirks or their repair.
    #[serde(default)]
    pub profile: Profile,
    /// The part above the encoder; not written: the preset's.
    #[serde(default)]
    pub head: Option<SegmentHead>,
    /// Last stages of the encoder that keep their size, dilated instead: with the ImageNet stem 1 gives a map of stride 16
    /// (every 3 × 3 convolution of layer4 dilated by 2, the study's), 2 one of stride 8; not written: the preset's.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub dilated: Option<u64>,
    /// Side of the squares that pictures are resized to (`warp`) or cropped to (`crop`); not written: 512 and 768. `zoom`
    /// takes none.
    #[serde(default)]
    #[schemars(range(min = 16, max = 4096))]
    pub size: Option<u64>,
    /// Passes over train; not written: the preset's.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: Option<u64>,
    /// Pictures in a step; what is left at an epoch's end is dropped; not written: the preset's.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub batch: Option<u64>,
    /// How weights follow gradients; not written: the preset's.
    #[serde(default)]
    pub optimizer: Option<Finetuner>,
    /// How the learning rate falls, per epoch; not written: the preset's.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// Training augmentation; not written: the preset's.
    #[serde(default)]
    pub augment: Option<SegmentAugment>,
    /// Which epoch's network counts; not written: the best on test in the profile `official`, the best on a tenth of train
    /// that is held out in `fixed`.
    #[serde(default)]
    pub select: Option<Select>,
    /// Epochs between two scorings of test (and of what is held out); the last epoch is always scored.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 1))]
    pub every: u64,
    /// Seed of the head, order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
}

impl From<Fields> for Segment {
    fn from(fields: Fields) -> Self {
        let Fields { encoder, train, test, preset, profile, every, seed, .. } = fields;
        let adam = Finetuner::Adam(Adam { lr: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-4 });
        let poly = Schedule::Poly(Poly::default());
        let fcn = |dilation| SegmentHead::Fcn(Fcn { dilation, ..Fcn::default() });
        let (head, dilated, epochs, batch, optimizer, schedule, augment) = match preset {
            Preset::Voc => (
                fcn(6),
                1,
                45,
                16,
                Finetuner::Sgd(Sgd { lr: 0.003, momentum: 0.9, weight_decay: 1e-4 }),
                // Reduced while the epoch is > 30 and again > 40.
                Schedule::Steps(Steps { at: vec![31, 41], factor: 0.1 }),
                SegmentAugment::Warp(Warp::default()),
            ),
            Preset::Cityscapes => (fcn(1), 1, 150, 8, adam, poly, SegmentAugment::Crop(ScaledCrop::default())),
            Preset::NyudMtl => {
                (SegmentHead::Deeplab(Deeplab::default()), 2, 100, 8, adam, poly, SegmentAugment::Zoom(Zoom::default()))
            }
        };
        let augment = fields.augment.unwrap_or(augment);
        let size = fields.size.or(match augment {
            SegmentAugment::Warp(_) => Some(512),
            SegmentAugment::Crop(_) => Some(768),
            SegmentAugment::Zoom(_) => None,
        });
        let select = fields.select.unwrap_or(match profile {
            Profile::Official => Select::BestOnTest(BestOnTest {}),
            Profile::Fixed => Select::Holdout(PartOfTrain::default()),
        });
        Self {
            encoder,
            train,
            test,
            preset,
            profile,
            head: fields.head.unwrap_or(head),
            dilated: fields.dilated.unwrap_or(dilated),
            size,
            epochs: fields.epochs.unwrap_or(epochs),
            batch: fields.batch.unwrap_or(batch),
            optimizer: fields.optimizer.unwrap_or(optimizer),
            schedule: fields.schedule.unwrap_or(schedule),
            augment,
            select,
            every,
            seed,
        }
    }
}

impl JsonSchema for Segment {
    fn schema_name() -> Cow<'static, str> {
        "Segment".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Fields::json_schema(generator)
    }
}

impl StepKind for Segment {
    const KIND: &'static str = "segment";
    const VERSION: u32 = 4;
    const RANDOM: bool = true;
    const SHARED: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "overlays",
            artifact: "pictures",
            doc: "Legend, test pictures with prediction and ground truth, and the confusion matrix.",
        },
        OutputInfo {
            name: "confusion",
            artifact: "file",
            doc: "Confusion matrix over test and IoU of each class, JSON, rows = ground truth.",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share(
            "miou",
            "Mean over classes of intersection over union on test, at the masks' own resolution.",
        )
        .above("floor_miou", "most frequent class of train everywhere"),
        MetricInfo::share("online_miou", "The same at the network's input size."),
        MetricInfo::share("pixel_accuracy", "Share of test pixels classified right."),
        MetricInfo::share("floor_miou", "mIoU of predicting the most frequent class of train at every pixel."),
        MetricInfo::number("epoch", "The epoch that these numbers are of, from 1."),
        MetricInfo::share("last_miou", "mIoU of the last epoch."),
        MetricInfo::share(
            "test_best_miou",
            "mIoU of the epoch whose online mIoU on test is best: chosen on test, so better than the method is.",
        ),
        MetricInfo::number("test_best_epoch", "That epoch, from 1."),
        MetricInfo {
            higher_is_better: true,
            percent: true,
            on_test: true,
            ..MetricInfo::curve("class_iou", "Intersection over union of each class on test, over the class's index.")
        },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            on_test: true,
            ..MetricInfo::curve("test_miou", "mIoU on test at the network's input size, over epochs.")
        },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("holdout_miou", "The same on what is held out of train, where something is.")
        },
        MetricInfo::curve("loss", "Mean loss of each epoch, nats."),
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.schedule.problems("schedule");
        problems.extend(self.augment.problems("augment"));
        if let (SegmentAugment::Zoom(_), Some(_)) = (&self.augment, self.size) {
            problems.push(Problem::new("size", "`zoom` takes pictures as they are; leave `size` out"));
        }
        problems.extend(self.head.problems("head"));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolved(change: serde_json::Value) -> serde_json::Value {
        let input = |kind: &str| json!({ "$artifact": { "kind": kind, "digest": "0" } });
        let mut params =
            json!({ "encoder": input("encoder"), "train": input("masked_images"), "test": input("masked_images") });
        params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        crate::kind::resolve::<Segment>(params).unwrap()
    }

    #[test]
    fn presets_fill_what_is_not_written_and_resolving_again_changes_nothing() {
        let voc = resolved(json!({}));
        assert_eq!((&voc["size"], &voc["epochs"], &voc["batch"]), (&json!(512), &json!(45), &json!(16)));
        assert_eq!(voc["schedule"], json!({ "steps": { "at": [31, 41], "factor": 0.1 } }));
        assert_eq!(voc["select"], json!({ "holdout": { "share": 0.1, "split_seed": 0 } }));
        let city = resolved(json!({ "preset": "cityscapes", "profile": "official", "epochs": 3 }));
        assert_eq!((&city["size"], &city["epochs"], &city["batch"]), (&json!(768), &json!(3), &json!(8)));
        assert_eq!(city["head"]["fcn"]["dilation"], 1);
        assert_eq!(city["select"], json!({ "best_on_test": {} }));
        let nyud = resolved(json!({ "preset": "nyud_mtl" }));
        assert_eq!((&nyud["size"], &nyud["dilated"]), (&json!(null), &json!(2)));
        for params in [voc, city, nyud] {
            assert_eq!(resolved(params.clone()), params);
        }
    }
}
