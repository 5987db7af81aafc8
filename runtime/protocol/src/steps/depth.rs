//! `depth`: depth transfer, the whole network finetuned to say how far away each pixel is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::segment::{Deeplab, Profile, SegmentAugment, SegmentHead, Select, Zoom};
use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::optimise::{Adam, Finetuner, Poly, Schedule};
use crate::select::PartOfTrain;
use crate::value::{DepthInput, EncoderInput, int};

/// Finetunes all layers to predict depth and reports the root mean square error over test's valid pixels. The defaults are
/// the multi-task NYUD setting of the study's authors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// Encoder to start from; the step works on a copy.
    pub encoder: EncoderInput,
    /// Pictures with depth maps to learn from, all of one size.
    pub train: DepthInput,
    /// Pictures with depth maps to report on.
    pub test: DepthInput,
    /// Published quirks or their repair: which epoch counts unless `select` says it, and whether a map of another size
    /// than its picture is resized (nearest) or an error.
    #[serde(default)]
    pub profile: Profile,
    /// The part above the encoder.
    #[serde(default = "head")]
    pub head: SegmentHead,
    /// Last stages of the encoder that keep their size, dilated instead: with the ImageNet stem 1 gives a map of stride
    /// 16, 2 one of stride 8.
    #[serde(default = "int::<2>")]
    #[schemars(range(min = 0, max = 2))]
    pub dilated: u64,
    /// Passes over train.
    #[serde(default = "int::<100>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Pictures in a step; what is left at an epoch's end is dropped.
    #[serde(default = "int::<8>")]
    #[schemars(range(min = 2))]
    pub batch: u64,
    /// How weights follow gradients.
    #[serde(default = "adam")]
    pub optimizer: Finetuner,
    /// How the learning rate falls, per epoch.
    #[serde(default = "poly")]
    pub schedule: Schedule,
    /// Training augmentation: flip, then scale about the centre on the same canvas; what is twice as large is half as far.
    #[serde(default)]
    pub augment: Zoom,
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

fn head() -> SegmentHead {
    SegmentHead::Deeplab(Deeplab::default())
}

fn adam() -> Finetuner {
    Finetuner::Adam(Adam { lr: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-4 })
}

fn poly() -> Schedule {
    Schedule::Poly(Poly::default())
}

/// A distance or the like on test: less is better.
const fn error(name: &'static str, doc: &'static str) -> MetricInfo {
    MetricInfo { on_test: true, ..MetricInfo::number(name, doc) }
}

impl StepKind for Depth {
    const KIND: &'static str = "depth";
    const VERSION: u32 = 2;
    const RANDOM: bool = true;
    const SHARED: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[OutputInfo {
        name: "maps",
        artifact: "pictures",
        doc: "Test pictures with predicted and true depth in the same colours, and what the colours stand for.",
    }];
    const METRICS: &'static [MetricInfo] = &[
        error("rmse", "Root of the mean squared error over all valid pixels of test, metres; less is better.")
            .above("floor_rmse", "mean depth of train everywhere"),
        error("log_rmse", "The same of natural logarithms, predictions at least 1e-9.")
            .above("floor_log_rmse", "geometric mean of train's depths everywhere"),
        error("floor_rmse", "`rmse` of predicting the mean depth of train's valid pixels at every pixel."),
        error("floor_log_rmse", "`log_rmse` of predicting their geometric mean at every pixel."),
        MetricInfo::number("train_mean", "Mean depth of train's valid pixels, metres."),
        MetricInfo::number("valid", "Share of test's pixels whose depth is known, 0..1."),
        MetricInfo::number("epoch", "The epoch that these numbers are of, from 1."),
        error("last_rmse", "`rmse` of the last epoch."),
        error("test_best_rmse", "`rmse` of the epoch that is best on test: better than the method is."),
        MetricInfo::number("test_best_epoch", "That epoch, from 1."),
        MetricInfo { on_test: true, ..MetricInfo::curve("test_rmse", "`rmse` on test over epochs.") },
        MetricInfo::curve("holdout_rmse", "The same on what is held out of train, where something is."),
        MetricInfo::curve("loss", "Mean absolute error of each epoch's training views, metres."),
    ];

    fn settle(&mut self) {
        self.select.get_or_insert(match self.profile {
            Profile::Official => Select::BestOnTest(Default::default()),
            Profile::Fixed => Select::Holdout(PartOfTrain::default()),
        });
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.schedule.problems("schedule");
        problems.extend(self.head.problems("head"));
        let augment = SegmentAugment::Zoom(self.augment.clone());
        problems.extend(augment.problems("augment"));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_defaults_are_the_published_ones() {
        let input = |kind: &str| json!({ "$artifact": { "kind": kind, "digest": "0" } });
        let resolved = |change: serde_json::Value| {
            let mut params =
                json!({ "encoder": input("encoder"), "train": input("depth_images"), "test": input("depth_images") });
            params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            crate::kind::resolve::<Depth>(params)
        };
        let params = resolved(json!({})).unwrap();
        assert_eq!((&params["epochs"], &params["batch"], &params["dilated"]), (&json!(100), &json!(8), &json!(2)));
        assert_eq!(params["head"]["deeplab"]["rates"], json!([12, 24, 36]));
        assert_eq!(params["augment"], json!({ "flip": 0.5, "scales": [1.0, 1.2, 1.5] }));
        assert_eq!(params["schedule"], json!({ "poly": { "power": 0.9 } }));
        assert_eq!(params["optimizer"]["adam"]["lr"], json!(1e-4));
        assert_eq!(params["select"], json!({ "holdout": { "share": 0.1, "split_seed": 0 } }));
        let official = resolved(json!({ "profile": "official" })).unwrap();
        assert_eq!(official["select"], json!({ "best_on_test": {} }));
        assert_eq!(resolved(params.clone()), Ok(params));
        let problems = resolved(json!({ "augment": { "scales": [0.0] } })).unwrap_err();
        assert_eq!(problems[0].field, "augment.scales");
        let problems = resolved(json!({ "head": { "deeplab": { "rates": [] } } })).unwrap_err();
        assert_eq!(problems[0].field, "head.deeplab.rates");
    }
}
