//! `segment`: the whole network finetuned with a dilated FCN head, scored with mIoU at the masks' own resolution.

pub mod augment;
pub mod pairs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use harness_protocol::optimise::Optimizer;
use harness_protocol::steps::{Segment as Params, SegmentHead};
use harness_protocol::{Gallery, Outcome, Series};
use harness_views::loader::ordered;
use harness_views::{IndexMask, Stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use crate::context::Context;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::guard::{Guard, finite};
use crate::metric::iou::{Confusion, VOID};
use crate::model::{Encoder, Fcn, Mode, Network, Store, store};
use crate::optim::Sgd;
use crate::provenance::provenance;
use crate::seed;
use crate::steps::overlay::{beside, fit, item, overlay, spread};
use augment::{at_size, augmented, resized};
use pairs::{Pair, Pairs};

/// Pictures in a forward pass of the evaluation. Fixed, so that numbers do not depend on the training batch.
const BATCH: usize = 8;
/// Test pictures in the gallery.
const SHOWN: usize = 8;
/// Longest side of a picture in the gallery, pixels.
const LONGEST: usize = 240;

/// Where a run stands, beside its tensors. Epochs and steps count from 0 and name the next one to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Place {
    /// Key of the action, so that no other run goes on from here.
    key: String,
    epoch: u64,
    step: u64,
    /// Sum of the losses of the epoch's steps so far.
    sum: f64,
    /// Mean loss of the epochs done.
    losses: Vec<f64>,
}

/// Pictures and masks of one pass: bytes, one square after the other, RGB and classes.
struct Batch {
    pictures: Vec<u8>,
    classes: Vec<u8>,
}

impl Batch {
    fn with_room(count: usize, size: usize) -> Self {
        let area = count * size * size;
        Self { pictures: Vec::with_capacity(3 * area), classes: Vec::with_capacity(area) }
    }

    fn push(&mut self, pair: &Pair) {
        self.pictures.extend_from_slice(&pair.picture.data);
        self.classes.extend_from_slice(&pair.mask.data);
    }
}

/// Runs the step.
///
/// # Errors
/// An encoder without a network, classes that do not match, a batch larger than the dataset, pairs that cannot be used,
/// a loss that is not finite, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("segment")?;
    same_classes(&train, &test)?;
    let steps = train.len() as u64 / params.batch;
    if steps == 0 {
        return Err(format!(
            "a batch of {} is larger than the dataset of {} pictures; lower `batch` or use more pictures",
            params.batch,
            train.len()
        )
        .into());
    }
    let names = train.manifest.mask_classes.clone();
    let train = Pairs::check(context, &train, "train")?;
    let test = Pairs::check(context, &test, "test")?;
    let frequent = train.most_frequent().ok_or("every pixel of train is void, so there is nothing to learn")?;
    let start = Instant::now();
    let mut run = Run::start(context, &params, network, names.len() as i64, steps)?;
    let seen = run.train(&train)?;
    let (confusion, gallery) = run.evaluate(&test, &names)?;
    let seconds = start.elapsed().as_secs_f64();
    if confusion.total() == 0 {
        return Err("every pixel of test is void, so there is nothing to score".into());
    }

    let miou = confusion.miou(params.profile);
    let rows: Vec<&[u64]> = confusion.rows().collect();
    let report = json!({ "classes": names, "confusion": rows, "iou": confusion.per_class(), "miou": miou });
    let report = serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?;
    let x = (1..=params.epochs).map(|epoch| epoch as f64).collect();
    Ok(Outcome {
        outputs: BTreeMap::from([
            ("overlays".into(), context.write_gallery("overlays", &gallery)?),
            ("confusion".into(), context.write("confusion.json", "file", &report)?),
        ]),
        metrics: BTreeMap::from([
            ("miou".into(), miou),
            ("pixel_accuracy".into(), confusion.pixel_accuracy()),
            ("floor_miou".into(), confusion.constant(frequent).miou(params.profile)),
        ]),
        series: BTreeMap::from([("loss".into(), Series { x, y: run.place.losses, x_label: "epoch".into() })]),
        provenance: provenance(context, seen + test.len() as u64, seconds),
    })
}

/// Makes sure that a mask value means the same in both splits.
fn same_classes(train: &Images, test: &Images) -> Result<()> {
    let (ours, theirs) = (&train.manifest.mask_classes, &test.manifest.mask_classes);
    if ours == theirs {
        return Ok(());
    }
    let name = |names: &[String], at: usize| names.get(at).map_or("nothing".into(), |name| format!("`{name}`"));
    let at = (0..).find(|&at| ours.get(at) != theirs.get(at)).unwrap_or(0);
    Err(format!(
        "the masks of train and test have different classes: {} is {} in train and {} in test",
        at,
        name(ours, at),
        name(theirs, at)
    )
    .into())
}

/// A running finetuning.
struct Run<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    network: &'a Network,
    classes: i64,
    /// Steps of an epoch.
    steps: u64,
    fcn: Fcn,
    sgd: Sgd,
    lr: f64,
    place: Place,
}

impl<'a> Run<'a> {
    /// From the checkpoint in the work folder, else from the beginning.
    fn start(
        context: &'a Context<'a>,
        params: &'a Params,
        network: &'a Network,
        classes: i64,
        steps: u64,
    ) -> Result<Self> {
        let mut run = Self::fresh(context, params, network, classes, steps)?;
        if run.checkpoint().is_file() {
            match run.restore() {
                Ok(true) => {
                    context.info(format!("going on from epoch {}, step {}", run.place.epoch + 1, run.place.step + 1));
                }
                Ok(false) => context.info("the checkpoint belongs to another run; starting from the beginning"),
                Err(error) => {
                    context.warn(format!("the checkpoint cannot be used, starting from the beginning: {error}"));
                    run = Self::fresh(context, params, network, classes, steps)?;
                }
            }
        }
        Ok(run)
    }

    fn fresh(
        context: &'a Context<'a>,
        params: &'a Params,
        network: &'a Network,
        classes: i64,
        steps: u64,
    ) -> Result<Self> {
        let SegmentHead::Fcn(settings) = params.head;
        let Optimizer::Sgd(optimizer) = params.optimizer;
        let fcn = Fcn::new(&network.store, &network.architecture, &settings, classes, params.seed, context.device)?;
        let sgd = Sgd::new(fcn.store.parameters(), &optimizer);
        let place = Place { key: context.job.key.clone(), ..Place::default() };
        Ok(Self { context, params, network, classes, steps, fcn, sgd, lr: optimizer.lr, place })
    }

    fn checkpoint(&self) -> PathBuf {
        self.context.job.work_dir.join("checkpoint.safetensors")
    }

    /// Writes everything that the rest of the run depends on.
    fn save(&self) -> Result<()> {
        let tensors = self.fcn.store.tensors().iter();
        let mut tensors: BTreeMap<String, Tensor> =
            tensors.map(|(name, tensor)| (format!("network/{name}"), tensor.detach())).collect();
        let momenta = self.sgd.state().iter();
        tensors.extend(momenta.map(|(name, tensor)| (format!("momentum/{name}"), tensor.shallow_clone())));
        let header = serde_json::to_string(&self.place).map_err(|error| error.to_string())?;
        store::write_atomic(&self.checkpoint(), &store::encode(&tensors, Some(&header))?)
    }

    /// Takes a checkpoint; false if it is another run's.
    fn restore(&mut self) -> Result<bool> {
        let (tensors, header) = store::read(&self.checkpoint())?;
        let header = header.ok_or("it does not say where it stands")?;
        let place: Place = serde_json::from_str(&header).map_err(|error| error.to_string())?;
        if place.key != self.place.key {
            return Ok(false);
        }
        let (mut network, mut momenta) = (Store::default(), BTreeMap::new());
        for (name, tensor) in tensors {
            match name.split_once('/') {
                Some(("network", name)) => network.insert(name, tensor),
                Some(("momentum", name)) => {
                    momenta.insert(name.to_string(), tensor);
                }
                _ => return Err(format!("it has a tensor `{name}`, which no segmentation has").into()),
            }
        }
        self.fcn.store.assign(&network)?;
        self.sgd.restore(momenta)?;
        self.place = place;
        Ok(true)
    }

    /// Trains to the last epoch; how many pictures went through the network.
    fn train(&mut self, pairs: &Pairs) -> Result<u64> {
        let (context, params, steps) = (self.context, self.params, self.steps);
        let first = self.place.epoch * steps + self.place.step;
        let total = params.epochs * steps;
        let (source, settings, batch, count) = (pairs.clone(), params.clone(), params.batch as usize, pairs.len());
        // A thread prepares a whole batch, while the network learns from the one before.
        let mut batches = ordered(context.threads(), context.threads(), (first..total).collect(), move |at: u64| {
            let (epoch, step) = (at / steps, (at % steps) as usize);
            let order = seed::permutation(settings.seed, "order", epoch, 0, count);
            views(&source, &settings, epoch, &order[step * batch..(step + 1) * batch])
        });
        for at in first..total {
            let (epoch, step) = (at / steps, at % steps);
            if context.cancelled() {
                self.save()?;
                return Err(Error::Cancelled);
            }
            let batch = batches.next().ok_or("the loading threads ended early")???;
            let lr = params.schedule.rate(self.lr, epoch, params.epochs);
            let loss = self.step(&batch, lr)?;
            if !loss.is_finite() {
                return Err(format!(
                    "the loss is not finite in epoch {} at step {} (learning rate {lr}); lower `optimizer.lr`",
                    epoch + 1,
                    step + 1
                )
                .into());
            }
            self.place.sum += loss;
            self.place.step = step + 1;
            if step + 1 == steps {
                let mean = self.place.sum / steps as f64;
                self.place.losses.push(mean);
                self.place = Place { epoch: epoch + 1, step: 0, sum: 0.0, ..std::mem::take(&mut self.place) };
                self.save()?;
                context.metric("loss", (epoch + 1) as f64, mean);
            }
            let stage = format!("epoch {}/{}", epoch + 1, params.epochs);
            context.progress(&stage, (at + 1) * params.batch, total * params.batch, "pictures");
        }
        Ok((total - first) * params.batch)
    }

    /// One step; its loss, 0 where the batch has no pixel of a class and nothing can be learned.
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<f64> {
        if batch.classes.iter().all(|&class| class == VOID) {
            return Ok(0.0);
        }
        let size = self.params.size as i64;
        let classes = Tensor::f_from_data_size(&batch.classes, &[self.params.batch as i64, size, size], Kind::Uint8)?;
        let classes = classes.f_to_device(self.context.device)?.to_kind(Kind::Int64);
        let scores = self.fcn.forward(&self.tensor(&batch.pictures)?, Mode::TRAIN);
        let loss = scores.f_cross_entropy_loss(&classes, None::<&Tensor>, Reduction::Mean, i64::from(VOID), 0.0)?;
        let value = loss.double_value(&[]);
        if value.is_finite() {
            let weights: Vec<&Tensor> = self.sgd.tensors().collect();
            let gradients = Tensor::f_run_backward(&[&loss], &weights, false, false)?;
            self.sgd.step_along(gradients, lr);
        }
        Ok(value)
    }

    /// Square pictures as a normalised tensor [count, 3, size, size], its channels last in memory.
    fn tensor(&self, bytes: &[u8]) -> Result<Tensor> {
        let size = self.params.size as i64;
        let count = bytes.len() as i64 / (3 * size * size);
        let row = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).to_device(self.context.device);
        let bytes = Tensor::f_from_data_size(bytes, &[count, size, size, 3], Kind::Uint8)?;
        let unit = bytes.f_to_device(self.context.device)?.to_kind(Kind::Float) / 255.0;
        Ok(((unit - row(self.network.mean)) / row(self.network.std)).permute([0, 3, 1, 2]))
    }

    /// Scores the network on test, in eval mode and without a tensor of it moving; some pictures of how it does.
    fn evaluate(&self, test: &Pairs, names: &[String]) -> Result<(Confusion, Gallery)> {
        let context = self.context;
        let (size, total) = (self.params.size as usize, test.len());
        let mut confusion = Confusion::new(self.classes as usize);
        let (shown, mut items) = (spread(total, SHOWN), Vec::new());
        let source = test.clone();
        let threads = context.threads();
        let mut pairs = ordered(threads, 2 * BATCH, (0..total).collect(), move |index| -> Result<_> {
            let pair = source.get(index)?;
            let small = resized(&pair, size);
            Ok((pair, small))
        });
        let guard = Guard::new(&self.fcn.store);
        for start in (0..total).step_by(BATCH) {
            context.check_cancelled()?;
            let count = BATCH.min(total - start);
            let (mut batch, mut whole) = (Batch::with_room(count, size), Vec::with_capacity(count));
            for _ in 0..count {
                let (pair, small) = pairs.next().ok_or("the loading threads ended early")???;
                batch.push(&small);
                whole.push(pair);
            }
            let scores = no_grad(|| Ok::<_, Error>(self.fcn.forward(&self.tensor(&batch.pictures)?, Mode::Eval)))?;
            if !finite(&scores) {
                return Err("the network gives scores that are not finite; lower `optimizer.lr`".into());
            }
            let classes = scores.f_argmax(1, false)?.to_kind(Kind::Uint8).f_to_device(Device::Cpu)?;
            for (at, pair) in whole.iter().enumerate() {
                let classes = Vec::<u8>::try_from(classes.get(at as i64).f_reshape([-1])?)?;
                let predicted = at_size(classes, size, pair.mask.width, pair.mask.height);
                let mut own = Confusion::new(self.classes as usize);
                own.add(&pair.mask.data, &predicted.data);
                confusion.merge(&own);
                let index = start + at;
                if shown.contains(&index) {
                    let caption =
                        format!("{}: {:.1} % of pixels right", test.path(index), 100.0 * own.pixel_accuracy());
                    items.push(item(&beside(&panels(pair, &predicted)), caption)?);
                }
            }
            context.progress("test", (start + count) as u64, total as u64, "pictures");
        }
        guard.check()?;
        let legend = names.iter().take(24).enumerate().map(|(class, name)| format!("{class} {name}"));
        let gallery = Gallery {
            title: "Segmentation".into(),
            caption: format!(
                "Test pictures; left: the picture, middle: predicted, right: ground truth. Colours are PASCAL VOC's, by \
                 class: {}{}. Void is left as it is.",
                legend.collect::<Vec<_>>().join(", "),
                if names.len() > 24 { ", …" } else { "" }
            ),
            items,
        };
        Ok((confusion, gallery))
    }
}

/// Augmented pairs of a step.
fn views(pairs: &Pairs, params: &Params, epoch: u64, indices: &[usize]) -> Result<Batch> {
    let size = params.size as usize;
    let mut batch = Batch::with_room(indices.len(), size);
    for &index in indices {
        let stream = Stream::new(params.seed, "segment", epoch, index as u64, 0);
        batch.push(&augmented(&*pairs.get(index)?, &params.augment, params.profile, size, stream));
    }
    Ok(batch)
}

/// The picture, the prediction over it, the ground truth over it.
fn panels(pair: &Pair, predicted: &IndexMask) -> [harness_views::Picture; 3] {
    let size = fit(pair.picture.width, pair.picture.height, LONGEST);
    let over = |mask: &IndexMask, shown: fn(u8) -> bool| overlay(&pair.picture, mask, size, shown);
    [over(&pair.mask, |_| false), over(predicted, |_| true), over(&pair.mask, |class| class != VOID)]
}
