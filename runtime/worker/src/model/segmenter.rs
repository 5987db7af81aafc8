//! Dense prediction network: a ResNet whose last stages keep their size, and a head.

use std::sync::Arc;

use harness_protocol::model::Architecture;
use harness_protocol::steps::SegmentHead;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::group::Group;
use crate::model::dense::keeping;
use crate::model::fcn::Head;
use crate::model::layers::Mode;
use crate::model::resnet::Resnet;
use crate::model::store::Store;

/// What a dense prediction network is made of, beside its weights.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The encoder's architecture.
    pub architecture: Architecture,
    /// The part above it.
    pub head: SegmentHead,
    /// Last stages that keep their size, 0 to 2: see [`keeping`].
    pub dilated: u64,
    /// Scores of each position: classes, or 1 for a depth.
    pub classes: i64,
}

/// A ResNet, a head, and bilinear scores at the input's resolution.
#[derive(Debug)]
pub struct Segmenter {
    /// All tensors: the ResNet's under torchvision's names, the head's as `head.*`.
    pub store: Store,
    resnet: Resnet,
    head: Head,
}

impl Segmenter {
    /// A copy of an encoder's ResNet (its projection head left behind) under a fresh head.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn new(encoder: &Store, layout: &Layout, seed: u64, device: Device) -> Result<Self> {
        let mut store = Store::default();
        for (name, tensor) in encoder.deep_copy().tensors() {
            if !name.starts_with("fc.") {
                store.insert(name.clone(), tensor.shallow_clone());
            }
        }
        Head::bind(&mut store, &layout.head, layout.architecture.features(), layout.classes, Some(seed))?;
        let store = store.to_device(device);
        store.train(true);
        Self::bind(store, layout)
    }

    /// The network with these tensors.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn bind(mut store: Store, layout: &Layout) -> Result<Self> {
        let resnet = keeping(&store, &layout.architecture, layout.dilated)?;
        let head = Head::bind(&mut store, &layout.head, layout.architecture.features(), layout.classes, None)?;
        Ok(Self { store, resnet, head })
    }

    /// Makes its rows in training some of those of a batch that the ranks of a group share: statistics of batch norm are those
    /// of all rows, and what dropout leaves out is drawn for all.
    #[must_use]
    pub fn among(mut self, group: Option<&Arc<Group>>) -> Self {
        if let Some(group) = group {
            self.resnet.share(group);
            self.head.share(group);
        }
        self
    }

    /// Scores at the input's resolution: [n, 3, h, w] to [n, classes, h, w], bilinear, half-pixel centres
    /// (`align_corners = false`).
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let size = x.size();
        let scores = self.head.forward(&self.resnet.map(x, mode, 4), mode);
        scores.upsample_bilinear2d([size[2], size[3]], false, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use harness_protocol::model::{Resnet as Config, Stem};
    use harness_protocol::steps::{Deeplab, Fcn};
    use tch::{Kind, no_grad};

    fn layout(stem: Stem, head: SegmentHead, dilated: u64) -> Layout {
        Layout { architecture: Architecture::Resnet50(Config { stem, width: 0.0625 }), head, dilated, classes: 5 }
    }

    fn fcn() -> SegmentHead {
        SegmentHead::Fcn(Fcn { channels: 12, dilation: 6 })
    }

    fn deeplab() -> SegmentHead {
        SegmentHead::Deeplab(Deeplab { channels: 12, rates: vec![2, 3], dropout: 0.5 })
    }

    fn network(layout: &Layout) -> Segmenter {
        let mut store = Store::default();
        Resnet::init(&mut store, 0, &layout.architecture);
        crate::model::Head::init(&mut store, 0, layout.architecture.features(), 8, true);
        Segmenter::new(&store, layout, 1, Device::Cpu).unwrap()
    }

    #[test]
    fn scores_come_back_at_full_size() {
        let x = Tensor::zeros([2, 3, 96, 64], (Kind::Float, Device::Cpu));
        for (stem, head, dilated, map) in [
            (Stem::Imagenet, fcn(), 1, [6, 4]),
            (Stem::Imagenet, deeplab(), 2, [12, 8]),
            (Stem::Small, fcn(), 1, [24, 16]),
        ] {
            let network = network(&layout(stem, head, dilated));
            assert_eq!(no_grad(|| network.resnet.map(&x, Mode::Eval, 4)).size()[2..], map);
            assert_eq!(no_grad(|| network.forward(&x, Mode::Eval)).size(), [2, 5, 96, 64]);
        }
    }

    #[test]
    fn the_head_has_the_published_layers() {
        let layout = layout(Stem::Imagenet, fcn(), 1);
        let network = network(&layout);
        let sizes: Vec<(String, Vec<i64>)> = network
            .store
            .parameters()
            .into_iter()
            .filter(|(name, _)| name.starts_with("head."))
            .map(|(name, tensor)| (name, tensor.size()))
            .collect();
        let features = layout.architecture.features();
        let named = |name: &str, size: &[i64]| (name.to_string(), size.to_vec());
        assert_eq!(
            sizes,
            [
                named("head.0.weight", &[12, features, 3, 3]),
                named("head.1.bias", &[12]),
                named("head.1.weight", &[12]),
                named("head.3.weight", &[12, 12, 3, 3]),
                named("head.4.bias", &[12]),
                named("head.4.weight", &[12]),
                named("head.6.weight", &[5, 12, 1, 1]),
            ]
        );
        assert!(network.store.tensors().keys().all(|name| !name.starts_with("fc.")));
        let bound = 1.0 / ((features * 9) as f64).sqrt();
        let weight = network.store.get("head.0.weight").unwrap();
        let widest = weight.abs().max().double_value(&[]);
        assert!(widest <= bound && widest > 0.98 * bound, "{widest} {bound}");
    }

    #[test]
    fn every_weight_learns_and_the_encoder_stays() {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let mut encoder = Store::default();
        Resnet::init(&mut encoder, 0, &architecture);
        let before = encoder.deep_copy();
        for (head, dilated) in [(fcn(), 1), (deeplab(), 2)] {
            let layout = Layout { architecture, head, dilated, classes: 3 };
            let network = Segmenter::new(&encoder, &layout, 1, Device::Cpu).unwrap();
            let x = seed::normal(2, "test", "x", &[2, 3, 16, 16], 1.0);
            let y = Tensor::zeros([2, 16, 16], (Kind::Int64, Device::Cpu));
            let scores = network.forward(&x, Mode::TRAIN);
            scores.cross_entropy_loss(&y, None::<&Tensor>, tch::Reduction::Mean, 255, 0.0).backward();
            for (name, tensor) in network.store.parameters() {
                assert!(tensor.grad().defined(), "{name}");
                let _ = no_grad(|| tensor.shallow_clone().g_add_scalar_(1.0));
            }
            for (name, tensor) in before.tensors() {
                assert!(encoder.get(name).unwrap().equal(tensor), "{name}");
            }
            assert!(!network.store.get("bn1.running_mean").unwrap().equal(&encoder.get("bn1.running_mean").unwrap()));
        }
    }
}
