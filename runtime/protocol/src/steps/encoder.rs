//! `encoder`: weights that are not pretrained here, and the trivial encoders that serve as floors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::model::Architecture;
use crate::transform::{Centre, Normalisation};
use crate::value::{EncoderInput, FileInput, ImagesInput, WrittenInput, int};

/// Random weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Random {
    /// Network.
    pub architecture: Architecture,
    /// Normalisation of its input.
    pub normalise: Normalisation,
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

/// An encoder that harness makes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Random weights, torchvision's initial values, drawn from the step's seed.
    Random(Random),
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

/// An encoder that is not pretrained here: from a `file` or another step's `checkpoint`, an exported `torchscript` module, or a `source` of harness's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    /// A checkpoint with torchvision's names: PyTorch (`.pth`, `.pth.tar`, `.pt`, both formats) or safetensors. Nothing in
    /// it is executed.
    pub file: Option<FileInput>,
    /// The same written by another step: a `command`'s output of kind `file`.
    pub checkpoint: Option<WrittenInput>,
    /// A module exported with torch.jit.script or torch.jit.trace; its output for a picture is the feature vector.
    pub torchscript: Option<FileInput>,
    /// Weights that harness makes, or a trivial encoder.
    pub source: Option<Source>,
    /// Network that the tensors of `file` or `checkpoint` must fit; inferred from them when left out.
    pub architecture: Option<Architecture>,
    /// Beginning of the tensors' names in `file` or `checkpoint` that is taken off: `"module.encoder_k."`; inferred when left out.
    pub prefix: Option<String>,
    /// Normalisation of the input of `file`, `checkpoint` or `torchscript`; ImageNet's when left out.
    pub normalise: Option<Normalisation>,
    /// Measure the batch norm statistics on these pictures.
    pub recalibrate: Option<Recalibrate>,
    /// Seed of random weights.
    pub seed: u64,
}

impl StepKind for Encoder {
    const KIND: &'static str = "encoder";
    const VERSION: u32 = 3;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[OutputInfo { name: "encoder", artifact: "encoder", doc: "The encoder." }];
    const METRICS: &'static [MetricInfo] = &[MetricInfo::number("parameters", "Number of weights.")];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let written = self.file.is_some() || self.checkpoint.is_some();
        let origins =
            [self.file.is_some(), self.checkpoint.is_some(), self.torchscript.is_some(), self.source.is_some()];
        if origins.iter().filter(|&&there| there).count() != 1 {
            problems.push(Problem::new(
                "",
                "an encoder comes from exactly one of `file`, `torchscript` and `source` (or another step's `checkpoint`), \
                 as in `file = @zoo/moco.pth.tar` or `source = random`",
            ));
            return problems;
        }
        for (field, there) in [("architecture", self.architecture.is_some()), ("prefix", self.prefix.is_some())] {
            if there && !written {
                problems.push(Problem::new(field, "it says how to read a `file`, and there is none; leave it out"));
            }
        }
        if self.normalise.is_some() && self.source.is_some() {
            problems.push(Problem::new(
                "normalise",
                "it is for `file` and `torchscript`; random weights take it inside: `source = random { normalise = … }`",
            ));
        }
        if let Some(architecture) = &self.architecture {
            problems.extend(architecture.problems("architecture"));
        }
        if let Some(Source::Random(random)) = &self.source {
            problems.extend(random.architecture.problems("source.random.architecture"));
        }
        let floor = matches!(self.source, Some(Source::Pixels(_) | Source::Histogram(_)));
        match &self.recalibrate {
            Some(_) if floor => problems.push(Problem::new(
                "recalibrate",
                "this source is no network and has no batch norm; leave `recalibrate` out",
            )),
            Some(_) if self.torchscript.is_some() => problems.push(Problem::new(
                "recalibrate",
                "an exported module is taken as it is; leave `recalibrate` out, or give its weights as a `file`",
            )),
            Some(recalibrate) => problems.extend(recalibrate.transform.problems("recalibrate.transform")),
            None => {}
        }
        problems
    }
}
