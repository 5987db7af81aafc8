//! What is learned: one optimiser step of either objective, and its tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness_protocol::StepKind;
use harness_protocol::steps::pretrain::{Contrast, Moco as Settings, Pretrain as Params};
use tch::{Device, Kind, Tensor};

use super::batches::{Batch, sides};
use crate::data::Images;
use crate::error::Result;
use crate::group::Group;
use crate::model::contrastive::{Moco, Sample, Tower, Turn};
use crate::model::cost;
use crate::model::supervised::Supervised;
use crate::optim::Sgd;
use crate::seed;

/// Class of each picture, and how many classes there are.
#[derive(Clone, Debug)]
pub struct Labels {
    of: Vec<i64>,
    classes: i64,
}

/// The labels, where they are learned from.
///
/// # Errors
/// A picture without one, or fewer than two classes.
pub fn labels(params: &Params, images: &Images) -> Result<Option<Labels>> {
    if !matches!(params.contrast, Contrast::Supervised(_)) {
        return Ok(None);
    }
    let classes = images.manifest.classes.len() as i64;
    if classes < 2 {
        return Err(format!(
            "`contrast = supervised` learns from class labels, and this dataset has {classes} classes; take one with labels"
        )
        .into());
    }
    Ok(Some(Labels { of: images.labels()?, classes }))
}

/// Pixels of the views of one picture, and floating-point operations for it summed over all epochs.
pub fn cost(params: &Params, classes: i64) -> (i64, f64) {
    let (sides, epochs) = (sides(params), params.epochs as f64);
    match &params.contrast {
        Contrast::Moco(moco) => {
            let warmup =
                moco.neighbours.map_or(params.epochs, |neighbours| neighbours.warmup.min(params.epochs)) as f64;
            let of = |neighbours| cost::moco(&params.encoder, moco, sides, neighbours) as f64;
            let pixels = 2 * sides.large * sides.large + sides.count * sides.small * sides.small;
            (pixels, warmup * of(false) + if warmup < epochs { (epochs - warmup) * of(true) } else { 0.0 })
        }
        Contrast::Supervised(_) => {
            let each = cost::supervised(&params.encoder, classes as u64, sides.large);
            (sides.large * sides.large, epochs * each as f64)
        }
    }
}

enum Kinds {
    Moco(Box<Moco>, Settings),
    Supervised(Box<Supervised>, Labels),
}

/// An objective with everything that it learns.
pub struct Objective {
    kind: Kinds,
    device: Device,
    group: Option<Arc<Group>>,
}

/// The most parts that divide a rank's groups of batch norm, no more than asked for: parts only save memory.
fn parts(params: &Params, ranks: usize) -> u64 {
    let groups = params.batch_norm.groups / ranks as u64;
    (1..=params.accumulate.min(groups)).rev().find(|parts| groups.is_multiple_of(*parts)).unwrap_or(1)
}

impl Objective {
    /// Untrained. Of several ranks each makes the same.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(params: &Params, labels: Option<Labels>, device: Device, group: Option<Arc<Group>>) -> Result<Self> {
        let parts = parts(params, group.as_ref().map_or(1, |group| group.size()));
        let kind = match (&params.contrast, labels) {
            (Contrast::Supervised(_), Some(labels)) => {
                let split = (params.batch_norm.groups, parts);
                let (classes, precision) = (labels.classes, params.precision);
                let made = Supervised::new(&params.encoder, classes, split, precision, params.seed, device)?;
                Kinds::Supervised(Box::new(made.among(group.clone())), labels)
            }
            (Contrast::Supervised(_), None) => return Err("labels are needed, and none were read".into()),
            (Contrast::Moco(settings), _) => {
                let moco = Moco::new(&params.encoder, settings, params.batch_norm.groups, params.seed, device)?;
                let moco = moco.precision(params.precision).parts(parts).among(group.clone());
                Kinds::Moco(Box::new(moco), *settings)
            }
        };
        Ok(Self { kind, device, group })
    }

    /// Untrained again.
    ///
    /// # Errors
    /// libtorch's.
    pub fn restart(&mut self, params: &Params, device: Device) -> Result<()> {
        let labels = match &self.kind {
            Kinds::Supervised(_, labels) => Some(labels.clone()),
            Kinds::Moco(..) => None,
        };
        *self = Self::new(params, labels, device, self.group.clone())?;
        Ok(())
    }

    /// The network that gradients reach and that becomes the encoder.
    pub fn student(&self) -> &Tower {
        match &self.kind {
            Kinds::Moco(moco, _) => &moco.query,
            Kinds::Supervised(supervised, _) => &supervised.tower,
        }
    }

    /// Classes that are learned; 0 for none.
    pub fn classes(&self) -> i64 {
        if let Kinds::Supervised(_, labels) = &self.kind { labels.classes } else { 0 }
    }

    /// Row of the queue that comes next; 0 where there is none.
    pub fn pointer(&self) -> i64 {
        if let Kinds::Moco(moco, _) = &self.kind { moco.pointer } else { 0 }
    }

    /// Sets that row.
    pub fn point_to(&mut self, pointer: i64) {
        if let Kinds::Moco(moco, _) = &mut self.kind {
            moco.pointer = pointer;
        }
    }

    /// Makes the running statistics of batch norm, which each rank moves by its own rows, the ranks' means. No training pass
    /// reads them, and means of moved values are the moved means, so this is only needed before somebody else looks.
    ///
    /// # Errors
    /// Another rank ended or hangs.
    pub fn settle(&self) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let tensors = self.tensors();
        let running = tensors.into_iter().filter(|(name, _)| name.contains(".running_"));
        group.average(&running.map(|(_, tensor)| tensor).collect::<Vec<_>>())
    }

    /// Every tensor that the next step depends on but the optimiser's, sharing storage.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let named = |part: &str, tower: &Tower| -> Vec<(String, Tensor)> {
            tower.store.tensors().iter().map(|(name, tensor)| (format!("{part}/{name}"), tensor.detach())).collect()
        };
        match &self.kind {
            Kinds::Moco(moco, _) => {
                let mut tensors = BTreeMap::from([("queue".to_string(), moco.queue.shallow_clone())]);
                tensors.extend(moco.features.as_ref().map(|queue| ("features".to_string(), queue.shallow_clone())));
                tensors.extend(named("query", &moco.query));
                tensors.extend(named("key", &moco.key));
                tensors
            }
            Kinds::Supervised(supervised, _) => named("query", &supervised.tower).into_iter().collect(),
        }
    }

    /// One optimiser step. Its loss, nats.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn step(
        &mut self,
        params: &Params,
        batch: &Batch,
        sgd: &mut Sgd,
        epoch: u64,
        step: u64,
        lr: f64,
    ) -> Result<f64> {
        let ranks = self.group.as_ref().map_or(1, |group| group.size() as i64);
        let (count, sides, device) = (params.batch as i64 / ranks, sides(params), self.device);
        let tensor = |bytes: &[u8], count, side| tensor(params, bytes, count, side, device);
        match &mut self.kind {
            Kinds::Moco(moco, settings) => {
                let small = match sides.count {
                    0 => None,
                    each => Some(tensor(&batch.small, count * each, sides.small)?),
                };
                let query = tensor(&batch.query, count, sides.large)?;
                let sample = Sample { query, key: tensor(&batch.key, count, sides.large)?, small };
                let order = |purpose| {
                    let order =
                        seed::permutation(params.seed, Params::KIND, purpose, epoch, step, params.batch as usize);
                    order.into_iter().map(|index| index as i64).collect::<Vec<i64>>()
                };
                let shuffles = [order("shuffle"), order("shuffle back")];
                let neighbours = settings.neighbours.is_some_and(|neighbours| epoch >= neighbours.warmup);
                moco.learn(&sample, sgd, Turn { lr, shuffles: [&shuffles[0], &shuffles[1]], neighbours })
            }
            Kinds::Supervised(supervised, labels) => {
                let classes: Vec<i64> = batch.pictures.iter().map(|&index| labels.of[index]).collect();
                let classes = Tensor::f_from_slice(&classes)?.f_to_device(device)?;
                supervised.learn(&tensor(&batch.query, count, sides.large)?, &classes, sgd, lr)
            }
        }
    }
}

/// Bytes of `count` square views as a normalised tensor [count, 3, side, side], its channels last in memory.
fn tensor(params: &Params, bytes: &[u8], count: i64, side: i64, device: Device) -> Result<Tensor> {
    let row = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).to_device(device);
    let bytes = Tensor::f_from_data_size(bytes, &[count, side, side, 3], Kind::Uint8)?;
    let mut unit = bytes.f_to_device(device)?.f_to_kind(Kind::Float)?;
    unit /= 255.0;
    unit -= row(params.normalise.mean);
    unit /= row(params.normalise.std);
    Ok(unit.f_permute([0, 3, 1, 2])?)
}
