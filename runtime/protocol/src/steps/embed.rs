//! `embed`: the features of a dataset under an encoder. Evaluations imply it; written out, it feeds programs of one's own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::transform::Centre;
use crate::value::{EncoderInput, FeaturesInput, ImagesInput};

/// Which features of an encoder are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The backbone's, averaged over positions.
    #[default]
    Backbone,
    /// The projection head's output, as the MoCo notebook for CIFAR does; for pretrained encoders that kept theirs.
    Head,
}

/// Feature vectors of both splits that were computed before: by `embed`, or by a program of one's own (a `command` with
/// outputs of kind `features`), one row for each picture, in the order of the dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    /// Of the pictures in `train`.
    pub train: FeaturesInput,
    /// Of the pictures in `test`.
    pub test: FeaturesInput,
}

impl Vectors {
    /// What is wrong with a step that takes either an encoder or vectors.
    pub fn problems(vectors: Option<&Self>, encoder: bool, transform: bool) -> Vec<Problem> {
        match (vectors.is_some(), encoder) {
            (false, false) => vec![Problem::new("encoder", "is missing (or give `vectors` that were computed before)")],
            (true, true) => {
                vec![Problem::new("vectors", "they were computed before, so no encoder is needed; give one of the two")]
            }
            (true, false) if transform => {
                vec![Problem::new(
                    "transform",
                    "the vectors were computed before, so no picture is transformed; leave it out",
                )]
            }
            _ => Vec::new(),
        }
    }
}

/// Features of every picture in the order of the dataset: an `.npy` table [pictures, features], fp32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Pictures.
    pub data: ImagesInput,
    /// Which features are taken.
    #[serde(default)]
    pub layer: Layer,
    /// Transform of the pictures, without augmentation.
    #[serde(default)]
    pub transform: Centre,
}

impl StepKind for Embed {
    const KIND: &'static str = "embed";
    const VERSION: u32 = 1;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "features", artifact: "features", doc: "The table, `.npy`." }];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("pictures", "Number of pictures: rows of the table."),
        MetricInfo::number("dimensions", "Length of a feature vector: columns of the table."),
    ];

    fn problems(&self) -> Vec<Problem> {
        self.transform.problems("transform")
    }
}
