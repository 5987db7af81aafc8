//! `knn`: the weighted nearest-neighbour classifier.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::select::{BestOnTest, PartOfTrain};
use crate::steps::embed::Vectors;
use crate::transform::Centre;
use crate::value::{EncoderInput, LabelledInput, int};

/// Which features of an encoder are compared.
pub use crate::steps::embed::Layer as KnnFeatures;

/// Which number of neighbours counts as `top1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// `k`, which was fixed beforehand.
    Given(Given),
    /// Of `k` and `also` the one with the best accuracy on a part of train that the rest classifies, the smallest of
    /// several; all of train then classifies test.
    Holdout(PartOfTrain),
    /// Of `k` and `also` the one with the best `top1` on test, the smallest of several: as published, and better than the
    /// method is.
    BestOnTest(BestOnTest),
}

impl Default for Neighbours {
    fn default() -> Self {
        Self::Given(Given {})
    }
}

/// Nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Given {}

/// Weighted kNN on L2-normalised features: score of a class = Σ exp(cosine / temperature) over its share of the k nearest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Knn {
    /// Encoder, in eval mode.
    #[serde(default)]
    pub encoder: Option<EncoderInput>,
    /// Labelled pictures that vote.
    pub train: LabelledInput,
    /// Labelled pictures that are asked.
    pub test: LabelledInput,
    /// Features computed before, instead of an `encoder`'s.
    #[serde(default)]
    pub vectors: Option<Vectors>,
    /// Which features are compared.
    #[serde(default)]
    pub features: KnnFeatures,
    /// Neighbours that vote; more than there are means all.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub k: u64,
    /// Other numbers of neighbours to report beside, as the curve `top1_by_k`: `nn.top1_by_k.at(200)`. `top1` stays that
    /// of `k`, so none is chosen by its result, unless `select` says how.
    #[serde(default)]
    pub also: Vec<u64>,
    /// Which number of neighbours counts.
    #[serde(default)]
    pub select: Neighbours,
    /// Temperature of the votes.
    #[serde(default = "temperature")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Transform of the pictures, the same for both splits, without augmentation.
    #[serde(default)]
    pub transform: Option<Centre>,
}

fn temperature() -> f64 {
    0.07
}

impl StepKind for Knn {
    const KIND: &'static str = "knn";
    const VERSION: u32 = 3;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[OutputInfo {
        name: "neighbours",
        artifact: "pictures",
        doc: "Queries with their nearest training pictures.",
    }];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("top1", "Share of test pictures whose class has the highest score.")
            .above("majority_top1", "majority class"),
        MetricInfo::share("top5", "Share of test pictures whose class is among the five highest scores."),
        MetricInfo::share("majority_top1", "Accuracy of always answering the most frequent class of train."),
        MetricInfo::number("chosen_k", "Neighbours that voted for `top1`: `k`, or what `select` chose."),
        MetricInfo { series: true, ..MetricInfo::share("top1_by_k", "`top1` for `k` and every number in `also`.") },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("holdout_top1_by_k", "The same on a part of train, with `select = holdout`.")
        },
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vectors::problems(self.vectors.as_ref(), self.encoder.is_some(), self.transform.is_some());
        if let Some(transform) = &self.transform {
            problems.extend(transform.problems("transform"));
        }
        if self.also.contains(&0) {
            problems.push(Problem::new("also", "there is no vote without a neighbour; numbers start at 1"));
        }
        if self.also.is_empty() && !matches!(self.select, Neighbours::Given(_)) {
            problems.push(Problem::new("select", "there is nothing to choose from; list other numbers in `also`"));
        }
        problems
    }
}
