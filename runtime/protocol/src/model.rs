//! Architectures of encoders.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Problem;

/// The first layers of a ResNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7 × 7 convolution with stride 2 and a max-pool (He et al. 2016; torchvision).
    #[default]
    Imagenet,
    /// 3 × 3 convolution with stride 1 and no max-pool, for pictures of about 32 pixels (the MoCo CIFAR notebook).
    Small,
}

/// What can be varied about a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resnet {
    /// The first layers.
    pub stem: Stem,
    /// Factor on the channels of every stage (64, 128, 256, 512), rounded to whole channels; 1 is the study's.
    #[schemars(range(min = 0.0625, max = 4.0))]
    pub width: f64,
}

impl Default for Resnet {
    fn default() -> Self {
        Self { stem: Stem::Imagenet, width: 1.0 }
    }
}

/// An encoder's architecture; parameter names and initial values are torchvision's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// ResNet-18: basic blocks 2-2-2-2, 512 features.
    Resnet18(Resnet),
    /// ResNet-34: basic blocks 3-4-6-3, 512 features.
    Resnet34(Resnet),
    /// ResNet-50: bottlenecks 3-4-6-3, 2048 features.
    Resnet50(Resnet),
}

impl Default for Architecture {
    fn default() -> Self {
        Self::Resnet50(Resnet::default())
    }
}

impl Architecture {
    /// What can be varied.
    pub fn resnet(&self) -> Resnet {
        match self {
            Self::Resnet18(resnet) | Self::Resnet34(resnet) | Self::Resnet50(resnet) => *resnet,
        }
    }

    /// Channels of the first stage, `round(64 × width)`; every later stage doubles them.
    pub fn base_channels(&self) -> i64 {
        (64.0 * self.resnet().width).round() as i64
    }

    /// Length of a feature vector: the channels of the last stage.
    pub fn features(&self) -> i64 {
        let last = self.base_channels() * 8;
        match self {
            Self::Resnet18(_) | Self::Resnet34(_) => last,
            Self::Resnet50(_) => last * 4,
        }
    }

    /// Relations between the fields, with `field` as the path of the architecture.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        let exact = 64.0 * self.resnet().width;
        if (exact - exact.round()).abs() > 1e-9 {
            let better = exact.round() / 64.0;
            return vec![Problem::new(
                &format!("{field}.width"),
                format!("width {} gives {exact} channels; {better} gives whole ones", self.resnet().width),
            )];
        }
        Vec::new()
    }
}

/// What an encoder artifact says of itself, in the safetensors header under the key `harness` (JSON).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderConfig {
    /// A network: the backbone's tensors with torchvision's names, and the projection head's as `fc.*`.
    Network {
        /// Its architecture.
        architecture: Architecture,
        /// Mean that pictures in 0..1 are normalised by, per channel.
        mean: [f64; 3],
        /// Standard deviation, per channel.
        std: [f64; 3],
    },
    /// No network: the picture itself, resized to `size` × `size`, as a vector. A floor.
    Pixels {
        /// Side in pixels.
        size: u32,
    },
    /// No network: a joint RGB histogram with `bins`³ cells. A floor.
    Histogram {
        /// Bins per channel.
        bins: u32,
    },
    /// A TorchScript module, stored as the bytes of the one tensor `torchscript`.
    Torchscript {
        /// Mean that pictures in 0..1 are normalised by, per channel.
        mean: [f64; 3],
        /// Standard deviation, per channel.
        std: [f64; 3],
    },
}
