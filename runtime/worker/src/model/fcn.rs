//! Segmentation network: a dilated ResNet and the study's FCN head.

use harness_protocol::model::Architecture;
use harness_protocol::steps::Fcn as Settings;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::model::dense::dilated;
use crate::model::layers::{BatchNorm, Conv, Mode, init_batch_norm};
use crate::model::resnet::Resnet;
use crate::model::store::Store;
use crate::seed;

/// Places of the head's layers in the study's `nn.Sequential`: convolution, batch norm, (ReLU,) twice, then the classifier.
const LAYERS: [(&str, &str); 2] = [("head.0", "head.1"), ("head.3", "head.4")];
const CLASSIFIER: &str = "head.6";

/// A dilated ResNet, two 3 × 3 convolutions with batch norm and ReLU, and a 1 × 1 convolution to class scores.
#[derive(Debug)]
pub struct Fcn {
    /// All tensors: the ResNet's under torchvision's names, the head's as `head.*`.
    pub store: Store,
    resnet: Resnet,
    layers: Vec<(Conv, BatchNorm)>,
    classifier: Conv,
}

/// Adds a convolution's weight with PyTorch's default initial values: uniform in ±1/√(in · k²).
fn init(store: &mut Store, seed: u64, path: &str, [output, input, kernel]: [i64; 3]) {
    let name = format!("{path}.weight");
    let weight =
        seed::uniform(seed, &name, &[output, input, kernel, kernel], 1.0 / ((input * kernel * kernel) as f64).sqrt());
    store.insert(name, weight);
}

impl Fcn {
    /// A copy of an encoder's ResNet (its projection head left behind) under a fresh head for `classes` classes.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn new(
        encoder: &Store,
        architecture: &Architecture,
        settings: &Settings,
        classes: i64,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let mut store = Store::default();
        for (name, tensor) in encoder.deep_copy().tensors() {
            if !name.starts_with("fc.") {
                store.insert(name.clone(), tensor.shallow_clone());
            }
        }
        let (channels, dilation) = (settings.channels as i64, settings.dilation as i64);
        let mut input = architecture.features();
        for (conv, norm) in LAYERS {
            init(&mut store, seed, conv, [channels, input, 3]);
            init_batch_norm(&mut store, norm, channels);
            input = channels;
        }
        init(&mut store, seed, CLASSIFIER, [classes, channels, 1]);
        let store = store.to_device(device);
        store.train(true);

        let resnet = dilated(&store, architecture)?;
        let mut layers = Vec::new();
        for (conv, norm) in LAYERS {
            let conv = Conv { dilation, ..Conv::bind(&store, conv, 1, dilation)? };
            layers.push((conv, BatchNorm::bind(&store, norm)?));
        }
        let classifier = Conv::bind(&store, CLASSIFIER, 1, 0)?;
        Ok(Self { store, resnet, layers, classifier })
    }

    /// Class scores at the input's resolution: [n, 3, h, w] to [n, classes, h, w], bilinear, half-pixel centres.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let size = x.size();
        let scores = self.scores(x, mode);
        scores.upsample_bilinear2d([size[2], size[3]], false, None, None)
    }

    /// Class scores at the resolution of the last map.
    fn scores(&self, x: &Tensor, mode: Mode) -> Tensor {
        let mut y = self.resnet.map(x, mode, 4);
        for (conv, norm) in &self.layers {
            y = norm.forward(&conv.forward(&y), mode).relu_();
        }
        self.classifier.forward(&y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::model::{Resnet as Config, Stem};
    use tch::{Kind, no_grad};

    fn network(stem: Stem) -> (Fcn, Architecture) {
        let architecture = Architecture::Resnet50(Config { stem, width: 0.0625 });
        let mut store = Store::default();
        Resnet::init(&mut store, 0, &architecture);
        crate::model::Head::init(&mut store, 0, architecture.features(), 8, true);
        let settings = Settings { channels: 12, dilation: 6 };
        (Fcn::new(&store, &architecture, &settings, 5, 1, Device::Cpu).unwrap(), architecture)
    }

    #[test]
    fn scores_have_stride_sixteen_and_come_back_at_full_size() {
        let (fcn, _) = network(Stem::Imagenet);
        let x = Tensor::zeros([2, 3, 96, 64], (Kind::Float, Device::Cpu));
        assert_eq!(no_grad(|| fcn.scores(&x, Mode::Eval)).size(), [2, 5, 6, 4]);
        assert_eq!(no_grad(|| fcn.forward(&x, Mode::Eval)).size(), [2, 5, 96, 64]);
        let (small, _) = network(Stem::Small);
        assert_eq!(no_grad(|| small.scores(&x, Mode::Eval)).size(), [2, 5, 24, 16]);
    }

    #[test]
    fn the_head_has_the_published_layers() {
        let (fcn, architecture) = network(Stem::Imagenet);
        let sizes: Vec<(String, Vec<i64>)> = fcn
            .store
            .parameters()
            .into_iter()
            .filter(|(name, _)| name.starts_with("head."))
            .map(|(name, tensor)| (name, tensor.size()))
            .collect();
        let named = |name: &str, size: &[i64]| (name.to_string(), size.to_vec());
        assert_eq!(
            sizes,
            [
                named("head.0.weight", &[12, architecture.features(), 3, 3]),
                named("head.1.bias", &[12]),
                named("head.1.weight", &[12]),
                named("head.3.weight", &[12, 12, 3, 3]),
                named("head.4.bias", &[12]),
                named("head.4.weight", &[12]),
                named("head.6.weight", &[5, 12, 1, 1]),
            ]
        );
        for (conv, _) in &fcn.layers {
            assert_eq!((conv.stride, conv.padding, conv.dilation, conv.bias.is_none()), (1, 6, 6, true));
        }
        assert!(fcn.classifier.bias.is_none());
        assert!(fcn.store.tensors().keys().all(|name| !name.starts_with("fc.")));
        let bound = 1.0 / ((architecture.features() * 9) as f64).sqrt();
        let weight = fcn.store.get("head.0.weight").unwrap();
        let widest = weight.abs().max().double_value(&[]);
        assert!(widest <= bound && widest > 0.98 * bound, "{widest} {bound}");
    }

    #[test]
    fn every_weight_learns_and_the_encoder_stays() {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let mut encoder = Store::default();
        Resnet::init(&mut encoder, 0, &architecture);
        let before = encoder.deep_copy();
        let fcn = Fcn::new(&encoder, &architecture, &Settings::default(), 3, 1, Device::Cpu).unwrap();
        let x = seed::normal(2, "x", &[2, 3, 16, 16], 1.0);
        let y = Tensor::zeros([2, 16, 16], (Kind::Int64, Device::Cpu));
        let scores = fcn.forward(&x, Mode::TRAIN);
        scores.cross_entropy_loss(&y, None::<&Tensor>, tch::Reduction::Mean, 255, 0.0).backward();
        for (name, tensor) in fcn.store.parameters() {
            assert!(tensor.grad().defined(), "{name}");
            let _ = no_grad(|| tensor.shallow_clone().g_add_scalar_(1.0));
        }
        for (name, tensor) in before.tensors() {
            assert!(encoder.get(name).unwrap().equal(tensor), "{name}");
        }
        assert!(!fcn.store.get("bn1.running_mean").unwrap().equal(&encoder.get("bn1.running_mean").unwrap()));
    }
}
