//! `linear_probe`: a linear classifier on the frozen encoder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::optimise::{Optimizer, Schedule, Sgd, Steps};
use crate::steps::embed::Vectors;
use crate::transform::Centre;
use crate::value::{EncoderInput, LabelledInput, Span, int, yes};

/// What the classifier is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFeatures {
    /// Features of freshly augmented pictures in every epoch (the published protocol).
    Augmented(AugmentedFeatures),
    /// Features of the pictures under the evaluation's transform, computed once.
    Cached(CachedFeatures),
}

impl Default for ProbeFeatures {
    fn default() -> Self {
        Self::Augmented(AugmentedFeatures::default())
    }
}

/// Random resized crop and flip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentedFeatures {
    /// Share of the picture's area.
    pub scale: Span,
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
}

impl Default for AugmentedFeatures {
    fn default() -> Self {
        Self { scale: Span(0.08, 1.0), flip: 0.5 }
    }
}

/// Features computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CachedFeatures {
    /// Scale every feature to mean 0 and standard deviation 1 over train.
    pub standardise: bool,
}

impl Default for CachedFeatures {
    fn default() -> Self {
        Self { standardise: yes() }
    }
}

/// Which epoch counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeProfile {
    /// The best one on test, as published: it flatters.
    Official,
    /// The last one.
    #[default]
    Fixed,
}

/// Linear classifier, weights N(0, 0.01²), bias 0, cross-entropy; the encoder stays in eval mode and unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearProbe {
    /// Encoder, in eval mode also while the classifier learns.
    #[serde(default)]
    pub encoder: Option<EncoderInput>,
    /// Labelled pictures to learn from.
    pub train: LabelledInput,
    /// Labelled pictures to report on.
    pub test: LabelledInput,
    /// Which epoch counts.
    #[serde(default)]
    pub profile: ProbeProfile,
    /// Features computed before, instead of an `encoder`'s; with `features = cached`.
    #[serde(default)]
    pub vectors: Option<Vectors>,
    /// What the classifier is trained on.
    #[serde(default)]
    pub features: ProbeFeatures,
    /// Passes over train.
    #[serde(default = "int::<100>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Pictures in a step.
    #[serde(default = "int::<256>")]
    #[schemars(range(min = 1))]
    pub batch: u64,
    /// How weights follow gradients.
    #[serde(default = "optimizer")]
    pub optimizer: Optimizer,
    /// How the learning rate falls.
    #[serde(default = "schedule")]
    pub schedule: Schedule,
    /// Transform of the test pictures; its crop is also the size of the augmented ones.
    #[serde(default)]
    pub transform: Option<Centre>,
    /// Seed of weights, order and crops.
    #[serde(default)]
    pub seed: u64,
}

fn optimizer() -> Optimizer {
    Optimizer::Sgd(Sgd { lr: 30.0, momentum: 0.9, weight_decay: 0.0 })
}

fn schedule() -> Schedule {
    Schedule::Steps(Steps { at: vec![60, 80], factor: 0.1 })
}

impl StepKind for LinearProbe {
    const KIND: &'static str = "linear_probe";
    const VERSION: u32 = 2;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "classifier", artifact: "file", doc: "The classifier's `weight` and `bias`, safetensors." },
        OutputInfo { name: "confusion", artifact: "pictures", doc: "The confusion matrix on test." },
        OutputInfo {
            name: "confusion_counts",
            artifact: "metrics",
            doc: "Its counts, a row for each true class (JSON).",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("top1", "Share of test pictures classified right.").above("majority_top1", "majority class"),
        MetricInfo::share("top5", "Share of test pictures whose class is among the five highest scores."),
        MetricInfo::share("majority_top1", "Accuracy of always answering the most frequent class of train."),
        MetricInfo { on_test: false, ..MetricInfo::share("train_top1", "Accuracy on train in the last epoch.") },
        MetricInfo::number("best_epoch", "With profile `official`, the epoch that counts: the best on test."),
        MetricInfo::curve("loss", "Mean loss of each epoch, nats."),
        MetricInfo { series: true, ..MetricInfo::share("test_top1", "`top1` after each epoch.") },
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vectors::problems(self.vectors.as_ref(), self.encoder.is_some(), self.transform.is_some());
        if let Some(transform) = &self.transform {
            problems.extend(transform.problems("transform"));
        }
        if self.vectors.is_some() && matches!(self.features, ProbeFeatures::Augmented(_)) {
            problems.push(Problem::new(
                "features",
                "vectors that were computed before cannot be augmented; say `features = cached`",
            ));
        }
        problems.extend(self.schedule.problems("schedule"));
        problems
    }
}
