//! Layers: plain structs of shared tensors, with their fields open so that a step can change strides and dilations.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::model::store::Store;
use crate::seed;

/// What batch norm does in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Normalise by the running statistics; nothing changes.
    Eval,
    /// Normalise by the batch's statistics and move the running ones by this share.
    Train {
        /// The share, PyTorch's `momentum`; 0.1 unless there is a reason.
        momentum: f64,
    },
}

impl Mode {
    /// Training with PyTorch's momentum.
    pub const TRAIN: Self = Self::Train { momentum: 0.1 };
}

/// A convolution, usually without bias.
#[derive(Debug)]
pub struct Conv {
    /// [out, in, k, k].
    pub weight: Tensor,
    /// [out].
    pub bias: Option<Tensor>,
    /// Step between outputs.
    pub stride: i64,
    /// Zeros around the input.
    pub padding: i64,
    /// Distance between taps.
    pub dilation: i64,
}

impl Conv {
    /// Binds `PATH.weight` of a store, without bias.
    ///
    /// # Errors
    /// It is not there.
    pub fn bind(store: &Store, path: &str, stride: i64, padding: i64) -> Result<Self> {
        Ok(Self { weight: store.get(&format!("{path}.weight"))?, bias: None, stride, padding, dilation: 1 })
    }

    /// x: [n, in, h, w].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (s, p, d) = (self.stride, self.padding, self.dilation);
        x.conv2d(&self.weight, self.bias.as_ref(), [s, s], [p, p], [d, d], 1)
    }
}

/// Adds a convolution's weight with torchvision's initial values for ResNets: normal, variance 2 / (out · k²)
/// (He et al. 2015, fan-out).
pub fn init_conv(store: &mut Store, seed: u64, path: &str, output: i64, input: i64, kernel: i64) {
    let std = (2.0 / (output * kernel * kernel) as f64).sqrt();
    let name = format!("{path}.weight");
    let weight = seed::normal(seed, &name, &[output, input, kernel, kernel], std);
    store.insert(name, weight);
}

/// Batch norm over [n, h, w] of each channel, ε = 1e-5.
#[derive(Debug)]
pub struct BatchNorm {
    /// Scale, [channels].
    pub weight: Tensor,
    /// Shift, [channels].
    pub bias: Tensor,
    /// Running mean, [channels].
    pub running_mean: Tensor,
    /// Running variance (unbiased), [channels].
    pub running_var: Tensor,
    /// Batches seen, a scalar.
    pub num_batches_tracked: Tensor,
}

impl BatchNorm {
    /// Binds the five tensors below `path`.
    ///
    /// # Errors
    /// One is not there.
    pub fn bind(store: &Store, path: &str) -> Result<Self> {
        let get = |name: &str| store.get(&format!("{path}.{name}"));
        Ok(Self {
            weight: get("weight")?,
            bias: get("bias")?,
            running_mean: get("running_mean")?,
            running_var: get("running_var")?,
            num_batches_tracked: get("num_batches_tracked")?,
        })
    }

    /// x: [n, channels, h, w].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let (train, momentum) = match mode {
            Mode::Eval => (false, 0.0),
            Mode::Train { momentum } => (true, momentum),
        };
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        x.batch_norm(Some(&self.weight), Some(&self.bias), mean, var, train, momentum, 1e-5, true)
    }
}

/// Adds a batch norm's tensors: scale 1, shift 0, mean 0, variance 1.
pub fn init_batch_norm(store: &mut Store, path: &str, channels: i64) {
    let float = (Kind::Float, tch::Device::Cpu);
    store.insert(format!("{path}.weight"), Tensor::ones([channels], float));
    store.insert(format!("{path}.bias"), Tensor::zeros([channels], float));
    store.insert(format!("{path}.running_mean"), Tensor::zeros([channels], float));
    store.insert(format!("{path}.running_var"), Tensor::ones([channels], float));
    store.insert(format!("{path}.num_batches_tracked"), Tensor::zeros([] as [i64; 0], (Kind::Int64, tch::Device::Cpu)));
}

/// y = x·Wᵀ + b.
#[derive(Debug)]
pub struct Linear {
    /// [out, in].
    pub weight: Tensor,
    /// [out].
    pub bias: Tensor,
}

impl Linear {
    /// Binds `PATH.weight` and `PATH.bias`.
    ///
    /// # Errors
    /// One is not there.
    pub fn bind(store: &Store, path: &str) -> Result<Self> {
        Ok(Self { weight: store.get(&format!("{path}.weight"))?, bias: store.get(&format!("{path}.bias"))? })
    }

    /// x: [n, in].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Adds a linear layer with PyTorch's initial values: uniform in ±1/√in for both.
pub fn init_linear(store: &mut Store, seed: u64, path: &str, output: i64, input: i64) {
    let bound = 1.0 / (input as f64).sqrt();
    for (name, shape) in [("weight", vec![output, input]), ("bias", vec![output])] {
        let name = format!("{path}.{name}");
        let tensor = seed::uniform(seed, &name, &shape, bound);
        store.insert(name, tensor);
    }
}
