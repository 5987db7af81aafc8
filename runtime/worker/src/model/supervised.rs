//! Learning from class labels, on the same encoder, batch norm and optimiser as the contrastive objective.

use std::sync::Arc;

use harness_protocol::model::Architecture;
use harness_protocol::optimise::Precision;
use tch::{Device, Reduction, Tensor};

use crate::error::Result;
use crate::group::{Gradients, Group};
use crate::model::contrastive::{Tower, rows_of, schedule};
use crate::model::head::Head;
use crate::model::resnet::Resnet;
use crate::model::store::Store;
use crate::optim::Sgd;

/// A ResNet with a linear layer of one output for each class, torchvision's `fc`.
#[derive(Debug)]
pub struct Supervised {
    /// Learns by gradients.
    pub tower: Tower,
    groups: usize,
    parts: usize,
    gradients: Gradients,
}

impl Supervised {
    /// An untrained network; the backbone's weights are those that MoCo starts from with the same seed. Batch norm has
    /// statistics of its own in each of `groups` parts of a batch, which is worked through in `parts` parts.
    ///
    /// # Errors
    /// None that settings of the protocol's ranges give.
    pub fn new(
        architecture: &Architecture,
        classes: i64,
        (groups, parts): (u64, u64),
        precision: Precision,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let mut store = Store::default();
        Resnet::init(&mut store, seed, architecture);
        Head::init(&mut store, seed, architecture.features(), classes, false);
        let store = store.to_device(device).channels_last();
        store.train(true);
        let mut tower = Tower::bind(store, architecture)?;
        tower.precision = precision;
        Ok(Self { tower, groups: groups as usize, parts: parts as usize, gradients: Gradients::default() })
    }

    /// As one of several ranks, each of which is given its rows of every batch and has its share of the groups of batch norm.
    #[must_use]
    pub fn among(mut self, group: Option<Arc<Group>>) -> Self {
        self.groups /= group.as_ref().map_or(1, |group| group.size());
        self.gradients = Gradients::new(group);
        self
    }

    /// One step along the gradient of the mean cross-entropy. `x`: [n, 3, side, side], normalised; `labels`: [n].
    ///
    /// The loss, nats; if it is not finite, nothing was learned.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn learn(&mut self, x: &Tensor, labels: &Tensor, sgd: &mut Sgd, lr: f64) -> Result<f64> {
        let momenta = schedule(1, self.groups, self.parts);
        let weights: Vec<&Tensor> = sgd.tensors().collect();
        let (gradients, value) = self.gradients.of(&weights, self.parts, |part| {
            let rows = |x: &Tensor| rows_of(x, part, self.parts);
            let (_, logits) = self.tower.forward(&rows(x), &momenta[part][0])?;
            Ok(logits.f_cross_entropy_loss(&rows(labels), None::<&Tensor>, Reduction::Mean, -100, 0.0)?)
        })?;
        self.tower.count_batch();
        if value.is_finite() {
            sgd.step_fused(gradients, lr)?;
        }
        Ok(value)
    }
}
