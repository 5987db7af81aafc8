//! `knn`: the weighted nearest-neighbour classifier.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::transform::Centre;
use crate::value::{EncoderInput, LabelledInput, int};

/// Which features of an encoder are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KnnFeatures {
    /// The backbone's, averaged over positions.
    #[default]
    Backbone,
    /// The projection head's output, as the MoCo notebook for CIFAR does; for pretrained encoders that kept theirs.
    Head,
}

/// Weighted kNN on L2-normalised features: score of a class = Σ exp(cosine / temperature) over its share of the k nearest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Knn {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Labelled pictures that vote.
    pub train: LabelledInput,
    /// Labelled pictures that are asked.
    pub test: LabelledInput,
    /// Which features are compared.
    #[serde(default)]
    pub features: KnnFeatures,
    /// Neighbours that vote; more than there are means all.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub k: u64,
    /// Temperature of the votes.
    #[serde(default = "temperature")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Transform of the pictures, the same for both splits, without augmentation.
    #[serde(default)]
    pub transform: Centre,
}

fn temperature() -> f64 {
    0.07
}

impl StepKind for Knn {
    const KIND: &'static str = "knn";
    const VERSION: u32 = 1;
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
    ];

    fn problems(&self) -> Vec<Problem> {
        self.transform.problems("transform")
    }
}
