//! `linear_svm`: one-against-the-rest linear support vector machines on frozen features, and their average precision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::steps::embed::Vectors;
use crate::transform::Centre;
use crate::value::{EncoderInput, MultilabelInput, int};

/// What happens to a class without a positive in train or in test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// It is left out of the mean, with a warning that names it.
    #[default]
    LeaveOut,
    /// It is an error that names it.
    Error,
}

/// Which cost counts with few positives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SvmProfile {
    /// The one with the best mean on test, as published: it flatters.
    Official,
    /// The one that cross-validation chooses in each sample, class by class; `cost` where there are fewer positives than
    /// folds.
    #[default]
    Fixed,
}

/// Few positives of each class instead of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LowShot {
    /// Numbers of positives k of each class; with them go (classes − 1)·k negatives. Pictures that are difficult for the
    /// class are neither.
    pub shots: Vec<u64>,
    /// Independent samples of each.
    #[schemars(range(min = 1, max = 1000))]
    pub samples: u64,
    /// Seed of the samples.
    pub seed: u64,
}

impl Default for LowShot {
    fn default() -> Self {
        Self { shots: vec![1, 2, 4, 8, 16, 32, 64, 96], samples: 5, seed: 0 }
    }
}

/// Minimises ½‖(w, b)‖² + C Σ c·max(0, 1 − y(w·x + b))², positives with c = 2, on features x / (‖x‖ + 1e-5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearSvm {
    /// Encoder, in eval mode.
    #[serde(default)]
    pub encoder: Option<EncoderInput>,
    /// Pictures to learn from; difficult ones are negatives.
    pub train: MultilabelInput,
    /// Pictures to report on.
    pub test: MultilabelInput,
    /// Features computed before, instead of an `encoder`'s.
    #[serde(default)]
    pub vectors: Option<Vectors>,
    /// C.
    #[serde(default = "cost")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub cost: f64,
    /// Values of C to choose from instead, for each class by the average precision of a cross-validation on train:
    /// `[0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000]` are the published ones.
    #[serde(default)]
    pub costs: Vec<f64>,
    /// Folds of the cross-validation.
    #[serde(default = "int::<3>")]
    #[schemars(range(min = 2, max = 20))]
    pub folds: u64,
    /// Learn from few positives of each class.
    #[serde(default)]
    pub low_shot: Option<LowShot>,
    /// Which of `costs` counts with `low_shot`.
    #[serde(default)]
    pub profile: SvmProfile,
    /// What happens to a class without a positive in train or in test.
    #[serde(default)]
    pub absent: Absent,
    /// Transform of the pictures; 256 and 224 by default.
    #[serde(default)]
    pub transform: Option<Centre>,
}

fn cost() -> f64 {
    0.5
}

impl StepKind for LinearSvm {
    const KIND: &'static str = "linear_svm";
    const VERSION: u32 = 3;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "planes",
            artifact: "file",
            doc: "`weight` [classes, features] and `bias`, safetensors, for features x / (‖x‖ + 1e-5).",
        },
        OutputInfo {
            name: "classes",
            artifact: "metrics",
            doc: "For each class its average precision, positives, chosen cost, and why it was left out (JSON).",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share(
            "map",
            "Mean average precision (envelope) over classes; difficult pictures count as negatives.",
        )
        .above("chance_map", "random order"),
        MetricInfo::share(
            "map_without_difficult",
            "The same with pictures that are difficult for a class left out of its test.",
        ),
        MetricInfo::share(
            "chance_map",
            "`map` of a random order of test, the mean over many: more than `positives`, since the envelope only raises it.",
        ),
        MetricInfo::share("positives", "Share of positives in test, the mean over classes."),
        MetricInfo::number("classes_counted", "Classes in the means: those with a positive in train and in test."),
        MetricInfo {
            on_test: true,
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("map_by_shots", "Mean over samples of `map` for each number of positives.")
        },
        MetricInfo {
            on_test: true,
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve(
                "map_by_shots_without_difficult",
                "The same of `map_without_difficult`, which published low-shot numbers are.",
            )
        },
        MetricInfo {
            percent: true,
            ..MetricInfo::curve("map_by_shots_std", "Standard deviation over samples (n − 1).")
        },
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vectors::problems(self.vectors.as_ref(), self.encoder.is_some(), self.transform.is_some());
        if let Some(transform) = &self.transform {
            problems.extend(transform.problems("transform"));
        }
        if self.costs.iter().any(|cost| !(*cost > 0.0 && cost.is_finite())) {
            problems.push(Problem::new("costs", "every cost is a number above 0"));
        }
        if let Some(low) = &self.low_shot {
            if low.shots.is_empty() || low.shots.contains(&0) {
                problems.push(Problem::new("low_shot.shots", "needs numbers of positives from 1 on"));
            }
            if self.profile == SvmProfile::Official && self.costs.is_empty() {
                problems
                    .push(Problem::new("profile", "`official` chooses among `costs`, and there are none: write them"));
            }
        } else if self.profile == SvmProfile::Official && !self.costs.is_empty() {
            problems.push(Problem::new(
                "profile",
                "only `low_shot` chooses by test as published; without it costs are chosen by cross-validation, so leave it out",
            ));
        }
        problems
    }
}
