//! `encoder`: weights that are not pretrained here, and the trivial encoders that serve as floors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::model::Architecture;
use crate::transform::{Centre, Normalisation};
use crate::value::{EncoderInput, FileInput, ImagesInput, int};

/// Random weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Random {
    /// Network.
    pub architecture: Architecture,
    /// Normalisation of its input.
    pub normalise: Normalisation,
}

/// Weights from a safetensors file with torchvision's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// The file.
    pub path: FileInput,
    /// Network that the tensors must fit, tensor by tensor.
    pub architecture: Architecture,
    /// Normalisation of its input.
    #[serde(default)]
    pub normalise: Normalisation,
    /// Prefix of the tensors' names that is taken off: `"module.encoder_q."`.
    #[serde(default)]
    pub prefix: String,
}

/// Another encoder's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// That encoder.
    pub of: EncoderInput,
}

/// The picture itself as the feature vector: a floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pixels {
    /// Side in pixels that the picture is resized to.
    #[schemars(range(min = 1, max = 256))]
    pub size: u64,
}

impl Default for Pixels {
    fn default() -> Self {
        Self { size: 16 }
    }
}

/// The joint RGB histogram as the feature vector: a floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Histogram {
    /// Bins per channel; the vector has their cube.
    #[schemars(range(min = 2, max = 16))]
    pub bins: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: 8 }
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Random weights, torchvision's initial values, drawn from the step's seed.
    Random(Random),
    /// A safetensors file.
    File(WeightFile),
    /// Another encoder's weights.
    Copy(Copy),
    /// No network: raw pixels.
    Pixels(Pixels),
    /// No network: a colour histogram.
    Histogram(Histogram),
}

/// Batch norm statistics measured anew, weights unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recalibrate {
    /// Pictures to measure on: a train split.
    pub data: ImagesInput,
    /// Pictures in a batch; the statistics are the plain average over batches.
    #[serde(default = "int::<256>")]
    #[schemars(range(min = 2))]
    pub batch: u64,
    /// Transform of the pictures.
    #[serde(default)]
    pub transform: Centre,
}

/// An encoder that is not pretrained here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Where the weights come from.
    pub source: Source,
    /// Measure the batch norm statistics on these pictures.
    #[serde(default)]
    pub recalibrate: Option<Recalibrate>,
    /// Seed of random weights.
    #[serde(default)]
    pub seed: u64,
}

impl StepKind for Encoder {
    const KIND: &'static str = "encoder";
    const VERSION: u32 = 1;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[OutputInfo { name: "encoder", artifact: "encoder", doc: "The encoder." }];
    const METRICS: &'static [MetricInfo] = &[MetricInfo::number("parameters", "Number of weights.")];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = match &self.source {
            Source::Random(random) => random.architecture.problems("source.random.architecture"),
            Source::File(file) => file.architecture.problems("source.file.architecture"),
            Source::Copy(_) => Vec::new(),
            Source::Pixels(_) | Source::Histogram(_) if self.recalibrate.is_some() => {
                vec![Problem::new(
                    "recalibrate",
                    "this source is no network and has no batch norm; leave `recalibrate` out",
                )]
            }
            Source::Pixels(_) | Source::Histogram(_) => Vec::new(),
        };
        if let Some(recalibrate) = &self.recalibrate {
            problems.extend(recalibrate.transform.problems("recalibrate.transform"));
        }
        problems
    }
}
