//! ResNets (He et al. 2016) with torchvision's structure, names and initial values, and what the study varies.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness_protocol::model::{Architecture, Stem};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::group::Group;
use crate::model::layers::{BatchNorm, Conv, Mode, init_batch_norm, init_conv};
use crate::model::store::Store;

/// Blocks of each stage.
fn depths(architecture: &Architecture) -> [usize; 4] {
    match architecture {
        Architecture::Resnet18(_) => [2, 2, 2, 2],
        Architecture::Resnet34(_) | Architecture::Resnet50(_) => [3, 4, 6, 3],
    }
}

/// A convolution of a block: output channels, input channels, kernel, stride.
type Shape = (i64, i64, i64, i64);

/// One residual block as data: its convolutions, and that of the shortcut where there is one.
struct Plan {
    path: String,
    convs: Vec<Shape>,
    shortcut: Option<Shape>,
}

fn plans(architecture: &Architecture) -> Vec<Vec<Plan>> {
    let base = architecture.base_channels();
    let mut input = base;
    let mut stages = Vec::new();
    for (stage, &depth) in depths(architecture).iter().enumerate() {
        let width = base << stage;
        let mut blocks = Vec::new();
        for block in 0..depth {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let (convs, output) = match architecture {
                Architecture::Resnet18(_) | Architecture::Resnet34(_) => {
                    (vec![(width, input, 3, stride), (width, width, 3, 1)], width)
                }
                // The stride sits in the 3 × 3 convolution, as in torchvision.
                Architecture::Resnet50(_) => {
                    (vec![(width, input, 1, 1), (width, width, 3, stride), (4 * width, width, 1, 1)], 4 * width)
                }
            };
            let shortcut = (stride != 1 || input != output).then_some((output, input, 1, stride));
            blocks.push(Plan { path: format!("layer{}.{block}", stage + 1), convs, shortcut });
            input = output;
        }
        stages.push(blocks);
    }
    stages
}

/// Every convolution with the batch norm after it: both paths, and the convolution's shape.
fn layers(architecture: &Architecture) -> Vec<(String, String, Shape)> {
    let (kernel, stride) = match architecture.resnet().stem {
        Stem::Imagenet => (7, 2),
        Stem::Small => (3, 1),
    };
    let stem = (architecture.base_channels(), 3, kernel, stride);
    let mut layers = vec![("conv1".to_string(), "bn1".to_string(), stem)];
    for Plan { path, convs, shortcut } in plans(architecture).into_iter().flatten() {
        let numbered = convs.into_iter().zip(1..);
        layers.extend(numbered.map(|(shape, n)| (format!("{path}.conv{n}"), format!("{path}.bn{n}"), shape)));
        layers.extend(shortcut.map(|shape| (format!("{path}.downsample.0"), format!("{path}.downsample.1"), shape)));
    }
    layers
}

/// Every convolution for pictures of `side` × `side`: output channels, input channels, kernel, side of its output.
pub fn spatial(architecture: &Architecture, side: i64) -> Vec<(i64, i64, i64, i64)> {
    let after = |side: i64, kernel: i64, stride: i64| (side + 2 * (kernel / 2) - kernel) / stride + 1;
    let (kernel, stride, pool) = match architecture.resnet().stem {
        Stem::Imagenet => (7, 2, true),
        Stem::Small => (3, 1, false),
    };
    let mut side = after(side, kernel, stride);
    let mut out = vec![(architecture.base_channels(), 3, kernel, side)];
    if pool {
        side = after(side, 3, 2);
    }
    for Plan { convs, shortcut, .. } in plans(architecture).into_iter().flatten() {
        if let Some((output, input, kernel, stride)) = shortcut {
            out.push((output, input, kernel, after(side, kernel, stride)));
        }
        for (output, input, kernel, stride) in convs {
            side = after(side, kernel, stride);
            out.push((output, input, kernel, side));
        }
    }
    out
}

/// A residual block.
#[derive(Debug)]
pub struct Block {
    /// `conv1`, `bn1`, `conv2`, … in order.
    pub convs: Vec<(Conv, BatchNorm)>,
    /// `downsample.0`, `downsample.1`.
    pub downsample: Option<(Conv, BatchNorm)>,
}

impl Block {
    /// x: [n, c, h, w].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let shortcut = self.downsample.as_ref().map(|(conv, norm)| norm.forward(&conv.forward(x), mode));
        let mut y = x.shallow_clone();
        for (index, (conv, norm)) in self.convs.iter().enumerate() {
            if index > 0 {
                y = y.relu_();
            }
            y = norm.forward(&conv.forward(&y), mode);
        }
        y += shortcut.as_ref().unwrap_or(x);
        y.relu_()
    }
}

/// A ResNet without its last layer. Bound to a store, whose tensors it shares.
#[derive(Debug)]
pub struct Resnet {
    /// First convolution.
    pub conv1: Conv,
    /// Its batch norm.
    pub bn1: BatchNorm,
    /// Whether the stem has its max-pool.
    pub pool: bool,
    /// `layer1` to `layer4`.
    pub stages: Vec<Vec<Block>>,
}

impl Resnet {
    /// Adds the tensors of an untrained ResNet to a store, on the CPU.
    pub fn init(store: &mut Store, seed: u64, architecture: &Architecture) {
        for (path, norm, (output, input, kernel, _)) in layers(architecture) {
            init_conv(store, seed, &path, output, input, kernel);
            init_batch_norm(store, &norm, output);
        }
    }

    /// Shape and kind of every tensor of a ResNet, by name.
    pub fn shapes(architecture: &Architecture) -> BTreeMap<String, (Vec<i64>, Kind)> {
        let mut shapes = BTreeMap::new();
        for (path, norm, (output, input, kernel, _)) in layers(architecture) {
            shapes.insert(format!("{path}.weight"), (vec![output, input, kernel, kernel], Kind::Float));
            for name in ["weight", "bias", "running_mean", "running_var"] {
                shapes.insert(format!("{norm}.{name}"), (vec![output], Kind::Float));
            }
            shapes.insert(format!("{norm}.num_batches_tracked"), (vec![], Kind::Int64));
        }
        shapes
    }

    /// Binds the ResNet of a store that has its tensors.
    ///
    /// # Errors
    /// One is missing.
    pub fn bind(store: &Store, architecture: &Architecture) -> Result<Self> {
        let (stride, padding, pool) = match architecture.resnet().stem {
            Stem::Imagenet => (2, 3, true),
            Stem::Small => (1, 1, false),
        };
        let mut stages = Vec::new();
        for plans in plans(architecture) {
            let mut blocks = Vec::new();
            for plan in plans {
                let mut convs = Vec::new();
                for (index, &(_, _, kernel, stride)) in plan.convs.iter().enumerate() {
                    let conv = Conv::bind(store, &format!("{}.conv{}", plan.path, index + 1), stride, kernel / 2)?;
                    convs.push((conv, BatchNorm::bind(store, &format!("{}.bn{}", plan.path, index + 1))?));
                }
                let downsample = match plan.shortcut {
                    Some((_, _, _, stride)) => Some((
                        Conv::bind(store, &format!("{}.downsample.0", plan.path), stride, 0)?,
                        BatchNorm::bind(store, &format!("{}.downsample.1", plan.path))?,
                    )),
                    None => None,
                };
                blocks.push(Block { convs, downsample });
            }
            stages.push(blocks);
        }
        let (conv1, bn1) = (Conv::bind(store, "conv1", stride, padding)?, BatchNorm::bind(store, "bn1")?);
        Ok(Self { conv1, bn1, pool, stages })
    }

    /// Every batch norm.
    pub fn batch_norms(&self) -> impl Iterator<Item = &BatchNorm> {
        let blocks = self.stages.iter().flatten();
        let inner = blocks.flat_map(|block| block.convs.iter().chain(&block.downsample).map(|(_, norm)| norm));
        std::iter::once(&self.bn1).chain(inner)
    }

    /// Makes its rows in training some of those of a batch that the ranks of a group share.
    pub fn share(&mut self, group: &Arc<Group>) {
        let blocks = self.stages.iter_mut().flatten();
        let inner = blocks.flat_map(|block| block.convs.iter_mut().chain(&mut block.downsample).map(|(_, norm)| norm));
        for norm in std::iter::once(&mut self.bn1).chain(inner) {
            norm.group = Some(group.clone());
        }
    }

    /// Counts one more training batch, as PyTorch's batch norm does.
    pub fn count_batch(&self) {
        tch::no_grad(|| {
            for norm in self.batch_norms() {
                let _ = norm.num_batches_tracked.shallow_clone().g_add_scalar_(1);
            }
        });
    }

    /// The map after the first `stages` stages (1 to 4). x: [n, 3, h, w], normalised.
    pub fn map(&self, x: &Tensor, mode: Mode, stages: usize) -> Tensor {
        let mut y = self.bn1.forward(&self.conv1.forward(x), mode).relu_();
        if self.pool {
            y = y.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        }
        for block in self.stages.iter().take(stages).flatten() {
            y = block.forward(&y, mode);
        }
        y
    }

    /// Features: the last map averaged over positions. [n, 3, h, w] to [n, features].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.map(x, mode, 4).mean_dim([2i64, 3].as_slice(), false, None)
    }

    /// Training pass with batch norm statistics of their own for each of `groups` contiguous parts of the batch; the
    /// running statistics move towards the average over the groups.
    pub fn forward_split(&self, x: &Tensor, groups: i64) -> Tensor {
        let output = self.forward_groups(x, &group_momenta(&vec![MOMENTUM / groups as f64; groups as usize]));
        self.count_batch();
        output
    }

    /// Training pass over as many contiguous groups as there are `momenta`, that of each for the running statistics. Each
    /// group is a forward pass of its own, which computes the same as splitting inside every batch norm and copies nothing.
    pub fn forward_groups(&self, x: &Tensor, momenta: &[f64]) -> Tensor {
        let parts = x.chunk(momenta.len() as i64, 0);
        let outputs: Vec<Tensor> =
            parts.iter().zip(momenta).map(|(part, &momentum)| self.forward(part, Mode::Train { momentum })).collect();
        if outputs.len() == 1 { outputs[0].shallow_clone() } else { Tensor::cat(&outputs, 0) }
    }
}

/// Share by which a batch moves the running statistics of batch norm, PyTorch's default.
pub const MOMENTUM: f64 = 0.1;

/// Momenta for updates of a running value one after the other, such that each counts with its weight at the end:
/// wᵢ / (1 − the later weights' sum). Equal weights m/G of G groups move the value by m towards the groups' plain average.
pub fn group_momenta(weights: &[f64]) -> Vec<f64> {
    let mut later = 0.0;
    let mut momenta: Vec<f64> = weights
        .iter()
        .rev()
        .map(|weight| {
            let momentum = weight / (1.0 - later);
            later += weight;
            momentum
        })
        .collect();
    momenta.reverse();
    momenta
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::model::Resnet as Config;
    use tch::Device;

    fn tiny() -> (Store, Resnet) {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.125 });
        let mut store = Store::default();
        Resnet::init(&mut store, 1, &architecture);
        let resnet = Resnet::bind(&store, &architecture).unwrap();
        (store, resnet)
    }

    /// Counts of torchvision 0.26 with 1,000 classes.
    #[test]
    fn sizes_and_names_are_torchvisions() {
        for (architecture, count, tensors) in [
            (Architecture::Resnet18(Config::default()), 11_689_512, 122),
            (Architecture::Resnet34(Config::default()), 21_797_672, 218),
            (Architecture::Resnet50(Config::default()), 25_557_032, 320),
        ] {
            let mut store = Store::default();
            Resnet::init(&mut store, 0, &architecture);
            crate::model::Head::init(&mut store, 0, architecture.features(), 1000, false);
            assert_eq!(store.parameter_count(), count);
            assert_eq!(store.tensors().len(), tensors);
            for (name, (shape, kind)) in Resnet::shapes(&architecture) {
                let tensor = store.get(&name).unwrap();
                assert_eq!((tensor.size(), tensor.kind()), (shape, kind), "{name}");
            }
            assert_eq!(Resnet::shapes(&architecture).len() + 2, tensors);
            for name in ["conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.conv2.weight", "fc.bias"] {
                assert!(store.tensors().contains_key(name), "{name}");
            }
            let std = store.get("layer4.0.conv1.weight").unwrap();
            let expected = (2.0 / (std.size()[0] * std.size()[2] * std.size()[3]) as f64).sqrt();
            assert!((std.std(true).double_value(&[]) / expected - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn stems_give_their_strides() {
        for (stem, side) in [(Stem::Imagenet, 2), (Stem::Small, 8)] {
            let architecture = Architecture::Resnet50(Config { stem, width: 0.0625 });
            let mut store = Store::default();
            Resnet::init(&mut store, 0, &architecture);
            let resnet = Resnet::bind(&store, &architecture).unwrap();
            let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
            assert_eq!(resnet.map(&x, Mode::Eval, 4).size(), [1, architecture.features(), side, side]);
        }
    }

    #[test]
    fn split_batch_norm_equals_batch_norm_of_each_group() {
        let (store, resnet) = tiny();
        let untouched = store.deep_copy();
        let x = crate::seed::normal(5, "test", "x", &[8, 3, 16, 16], 1.0);
        let _guard = tch::no_grad_guard();
        let together = resnet.forward_split(&x, 2);
        let after = store.deep_copy();

        let mut means = Vec::new();
        let mut outputs = Vec::new();
        for part in x.chunk(2, 0) {
            store.assign(&untouched).unwrap();
            outputs.push(resnet.forward(&part, Mode::TRAIN));
            means.push(store.deep_copy());
        }
        let apart = Tensor::cat(&outputs, 0);
        assert!((together - apart).abs().max().double_value(&[]) < 1e-5);
        for (name, tensor) in after.buffers() {
            if name.ends_with("num_batches_tracked") {
                assert_eq!(tensor.int64_value(&[]), 1);
                continue;
            }
            let average = (means[0].get(&name).unwrap() + means[1].get(&name).unwrap()) / 2.0;
            assert!((average - tensor).abs().max().double_value(&[]) < 1e-5, "{name}");
        }
    }

    #[test]
    fn momenta_of_groups_add_up() {
        for weights in [vec![0.1], vec![0.05; 2], vec![0.0125; 8], vec![0.045, 0.05, 0.045, 0.05]] {
            let mut counted: Vec<f64> = vec![];
            for momentum in group_momenta(&weights) {
                counted.iter_mut().for_each(|weight| *weight *= 1.0 - momentum);
                counted.push(momentum);
            }
            assert!(counted.iter().zip(&weights).all(|(ours, wanted)| (ours - wanted).abs() < 1e-12), "{counted:?}");
        }
    }
}
