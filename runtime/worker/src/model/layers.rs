//! Layers: plain structs of shared tensors, with their fields open so that a step can change strides and dilations.

use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::group::Group;
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

/// What batch norm adds to a variance: PyTorch's.
const EPSILON: f64 = 1e-5;

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
    /// Ranks whose rows are one batch in training; none where this one's are all.
    pub group: Option<Arc<Group>>,
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
            group: None,
        })
    }

    /// x: [n, channels, h, w].
    ///
    /// # Panics
    /// In training in a group, when another rank ended or hangs ([`Group::is_lost`] then); as libtorch's operations do when
    /// memory runs out.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let (train, momentum) = match mode {
            Mode::Eval => (false, 0.0),
            Mode::Train { momentum } => (true, momentum),
        };
        if let (true, Some(group)) = (train, &self.group) {
            return group.batch_norm(x, self, momentum, EPSILON).unwrap_or_else(|error| panic!("{error}"));
        }
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        x.batch_norm(Some(&self.weight), Some(&self.bias), mean, var, train, momentum, EPSILON, true)
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

    /// What a batch norm makes of x, [n, c, h, w], what flows back from a loss of it, and its running statistics.
    fn normed(x: &Tensor, kind: Kind, group: Option<Arc<Group>>) -> Vec<Tensor> {
        let mut store = Store::default();
        let channels = x.size()[1];
        for (name, std) in [("weight", 0.5), ("bias", 0.2), ("running_mean", 0.3)] {
            store.insert(format!("n.{name}"), seed::normal(3, "test", name, &[channels], std).to_kind(kind));
        }
        store.insert("n.running_var", Tensor::full([channels], 2.0, (kind, tch::Device::Cpu)));
        store.insert("n.num_batches_tracked", Tensor::from(0i64));
        let mut norm = BatchNorm::bind(&store, "n").unwrap();
        norm.group = group;
        for tensor in [&mut norm.weight, &mut norm.bias] {
            *tensor = tensor.set_requires_grad(true);
        }
        let x = x.detach().set_requires_grad(true);
        // Twice, so that running statistics move on from moved ones; then something that no two values share.
        let _ = norm.forward(&(&x * 0.5 + 1.0), Mode::Train { momentum: 0.3 });
        let y = norm.forward(&x, Mode::TRAIN);
        let loss = ((&y * 1.7).sin() * (&x * 0.3 + &y).square()).sum(Kind::Double);
        loss.backward();
        let made = [&y, &x.grad(), &norm.weight.grad(), &norm.bias.grad(), &norm.running_mean, &norm.running_var];
        made.map(|tensor| tensor.detach().to_kind(Kind::Double)).into()
    }

    /// Values and gradients of rows on several ranks, unevenly dealt, are those of the whole batch; in both orders of memory.
    #[test]
    fn batch_norm_of_ranks_is_that_of_the_whole_batch() {
        let places = [(0, 3), (3, 1), (4, 2)];
        for (kind, allowed) in [(Kind::Double, 1e-12), (Kind::Float, 2e-6)] {
            for last in [false, true] {
                let x = || {
                    let offset = seed::normal(2, "test", "offset", &[1, 5, 1, 1], 2.0);
                    let x = (seed::normal(1, "test", "x", &[6, 5, 4, 3], 1.5) + offset).to_kind(kind);
                    if last { x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { x }
                };
                let whole = normed(&x(), kind, None);
                let made = crate::group::tests::together(3, |group| {
                    let (first, count) = places[group.rank()];
                    normed(&x().narrow(0, first, count), kind, Some(group))
                });
                let all = |at: usize| made.iter().map(|own| own[at].shallow_clone()).collect::<Vec<_>>();
                let ours = [
                    Tensor::cat(&all(0), 0),
                    Tensor::cat(&all(1), 0),
                    Tensor::stack(&all(2), 0).sum_dim_intlist(0i64, false, Kind::Double),
                    Tensor::stack(&all(3), 0).sum_dim_intlist(0i64, false, Kind::Double),
                    all(4).remove(0),
                    all(5).remove(0),
                ];
                for (at, (ours, whole)) in ours.iter().zip(&whole).enumerate() {
                    let far = ((ours - whole).abs().max() / whole.abs().max()).double_value(&[]);
                    assert!(far < allowed, "{at} in {kind:?}: {far}");
                }
                for own in &made {
                    assert!(own[4].equal(&made[0][4]) && own[5].equal(&made[0][5]));
                }
            }
        }
    }
}
