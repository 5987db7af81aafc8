//! `linear_probe`: a linear classifier on the frozen encoder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::optimise::{Optimizer, Schedule, Sgd, Steps};
use crate::select::{BestOnTest, PartOfTrain};
use crate::steps::embed::Vectors;
use crate::steps::segment::LastEpoch;
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

/// Published choice on test or its repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeProfile {
    /// Nothing else said, `select = best_on_test`.
    Official,
    /// Nothing else said, `select = last`.
    #[default]
    Fixed,
}

/// Which epoch's classifier counts, and which of the learning rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeSelect {
    /// The last epoch's; one learning rate.
    Last(LastEpoch),
    /// The learning rate and the epoch with the best accuracy on a part of train that nothing is learned from, the first of
    /// several.
    Holdout(PartOfTrain),
    /// The learning rate and the epoch with the best accuracy on test, the first of several: as published, and better than
    /// the method is.
    BestOnTest(BestOnTest),
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
    /// Published choice on test or its repair.
    #[serde(default)]
    pub profile: ProbeProfile,
    /// Which epoch's classifier counts; not written: the best on test in the profile `official`, the last one in `fixed`.
    #[serde(default)]
    pub select: Option<ProbeSelect>,
    /// Learning rates to choose from instead of the optimizer's, by what `select` says.
    #[serde(default)]
    pub rates: Vec<f64>,
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
    const VERSION: u32 = 3;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "classifier", artifact: "file", doc: "The classifier's `weight` and `bias`, safetensors." },
        OutputInfo { name: "confusion", artifact: "pictures", doc: "The confusion matrix on test." },
        OutputInfo {
            name: "answers",
            artifact: "pictures",
            doc: "Test pictures classified right, and some that are not.",
        },
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
        MetricInfo::number("chosen_epoch", "The epoch whose classifier counts, from 1."),
        MetricInfo::number("chosen_rate", "The learning rate that counts."),
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::number("holdout_top1", "Accuracy of what counts on the part of train it was chosen by.")
        },
        MetricInfo::curve("loss", "Mean loss of each epoch, nats."),
        MetricInfo { series: true, ..MetricInfo::share("test_top1", "`top1` after each epoch.") },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("holdout_top1_by_epoch", "Accuracy on the held-out part of train after each epoch.")
        },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("best_by_rate", "Best accuracy of each learning rate on what `select` chooses by.")
        },
    ];

    fn settle(&mut self) {
        self.select.get_or_insert(match self.profile {
            ProbeProfile::Official => ProbeSelect::BestOnTest(BestOnTest {}),
            ProbeProfile::Fixed => ProbeSelect::Last(LastEpoch {}),
        });
    }

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
        if self.rates.iter().any(|rate| !(*rate > 0.0 && rate.is_finite())) {
            problems.push(Problem::new("rates", "every learning rate is a number above 0"));
        }
        if self.rates.len() > 1 && matches!(self.select, None | Some(ProbeSelect::Last(_))) {
            problems.push(Problem::new(
                "rates",
                "nothing says by what one of them is chosen; say `select = holdout` (a part of train)",
            ));
        }
        problems
    }
}
