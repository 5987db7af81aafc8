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
        if self.is_narrow_subsampling() && x.device() == tch::Device::Cpu {
            let rows = x.slice(2, None, None, s).slice(3, None, None, s);
            // Channels last in memory, as convolutions are faster with.
            let rows = rows.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            return rows.conv2d(&self.weight, self.bias.as_ref(), [1, 1], [0, 0], [1, 1], 1);
        }
        x.conv2d(&self.weight, self.bias.as_ref(), [s, s], [p, p], [d, d], 1)
    }
}

impl Conv {
    /// Whether this takes every `stride`-th position alone, from fewer channels than a block of 16. oneDNN, which libtorch
    /// computes convolutions with on the CPU, writes past its workspace in the backward pass of these when channels come
    /// last in memory (uxlfoundation/oneDNN#6035), so the positions are taken before the convolution, which gives the same.
    fn is_narrow_subsampling(&self) -> bool {
        let size = self.weight.size();
        self.stride > 1 && self.padding == 0 && size[1] < 16 && size[2..] == [1, 1]
    }
}

/// Adds a convolution's weight with torchvision's initial values for ResNets: normal, variance 2 / (out · k²)
/// (He et al. 2015, fan-out).
pub fn init_conv(store: &mut Store, seed: u64, path: &str, output: i64, input: i64, kernel: i64) {
    let std = (2.0 / (output * kernel * kernel) as f64).sqrt();
    let name = format!("{path}.weight");
    let weight = seed::normal(seed, seed::NETWORK, &name, &[output, input, kernel, kernel], std);
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
        let tensor = seed::uniform(seed, seed::NETWORK, &name, &shape, bound);
        store.insert(name, tensor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a convolution that oneDNN has no part in: double precision.
    #[test]
    fn narrow_subsampling_is_a_convolution() {
        for (input, output, stride) in [(4, 8, 2), (6, 12, 2), (2, 4, 3), (15, 8, 2)] {
            let x = seed::normal(1, "test", "x", &[4, 7, 7, input], 1.0).permute([0, 3, 1, 2]);
            let weight = seed::normal(1, "test", "w", &[output, input, 1, 1], 1.0).set_requires_grad(true);
            let conv = Conv { weight, bias: None, stride, padding: 0, dilation: 1 };
            let y = conv.forward(&x);
            let reference = conv.weight.detach().to_kind(Kind::Double).set_requires_grad(true);
            let (s, none) = ([stride, stride], None::<&Tensor>);
            let expected = x.to_kind(Kind::Double).conv2d(&reference, none, s, [0, 0], [1, 1], 1);
            (&y * &y).sum(Kind::Float).backward();
            (&expected * &expected).sum(Kind::Double).backward();
            assert!((y - expected).abs().max().double_value(&[]) < 1e-5);
            let (ours, theirs) = (conv.weight.grad(), reference.grad());
            let far = ((ours - &theirs).abs().max() / theirs.abs().max()).double_value(&[]);
            assert!(far < 1e-5, "{far}");
        }
    }
}
