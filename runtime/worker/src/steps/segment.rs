//! `segment`: the whole network finetuned under a dense head, scored with mIoU at the masks' own resolution.

pub mod augment;
pub mod pairs;
pub mod report;
pub mod score;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use harness_protocol::steps::{Segment as Params, SegmentAugment, Select};
use harness_protocol::{Outcome, Series, StepKind};
use harness_views::loader::ordered;
use harness_views::{IndexMask, Stream};
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::context::Context;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::metric::iou::{Confusion, VOID};
use crate::model::segmenter::Layout;
use crate::model::{Encoder, Mode, Network, Segmenter, Store, store};
use crate::optim::Finetuner;
use crate::provenance::provenance;
use crate::seed;
use crate::steps::overlay::spread;
use augment::augmented;
use pairs::Pairs;
use score::{Input, Score, Shown, Task, score};

/// Test pictures in the gallery.
const SHOWN: usize = 8;

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
    /// Epochs that were scored (from 1), with their online mIoU on test and on what is held out.
    test: Vec<(u64, f64)>,
    held: Vec<(u64, f64)>,
    /// Scores on test of the last scored epoch, of the best on test, and of the best on what is held out.
    last: Option<Score>,
    test_best: Option<Score>,
    held_best: Option<Score>,
}

/// What the network computed on test in the epoch that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Last,
    Held,
    Test,
}

/// The pairs of a run.
struct Splits {
    train: Pairs,
    held: Option<Pairs>,
    test: Pairs,
}

/// Pictures and masks of one step: bytes, one after the other, RGB and classes, all of one size.
#[derive(Default)]
struct Batch {
    pictures: Vec<u8>,
    classes: Vec<u8>,
    width: usize,
    height: usize,
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
    let names = train.manifest.mask_classes.clone();
    let splits = splits(context, &params, &train, &test)?;
    let frequent = splits.train.most_frequent().ok_or("every pixel of train is void, so there is nothing to learn")?;
    if splits.test.most_frequent().is_none() {
        return Err("every pixel of test is void, so there is nothing to score".into());
    }
    let start = Instant::now();
    let mut run = Run::start(context, &params, network, names.len(), &splits)?;
    run.train(&splits)?;
    let seconds = start.elapsed().as_secs_f64();

    let place = run.place;
    let (profile, chosen) = (params.profile, run.chosen);
    let missing = "no epoch was scored; this is a defect of harness";
    let last = place.last.ok_or(missing)?;
    let test_best = place.test_best.ok_or(missing)?;
    let score = match chosen {
        Chosen::Last => &last,
        Chosen::Test => &test_best,
        Chosen::Held => place.held_best.as_ref().ok_or(missing)?,
    };
    if chosen == Chosen::Test {
        context.warn(format!(
            "the network of epoch {} counts because it is best on test: `miou` is better than the method is",
            score.epoch
        ));
    }
    let seen = place.epoch * run.steps * params.batch + place.test.len() as u64 * splits.test.len() as u64;
    let curve = |points: &[(u64, f64)]| Series {
        x: points.iter().map(|(epoch, _)| *epoch as f64).collect(),
        y: points.iter().map(|(_, value)| *value).collect(),
        x_label: "epoch".into(),
    };
    let losses: Vec<(u64, f64)> = (1..).zip(place.losses.iter().copied()).collect();
    let mut series = BTreeMap::from([
        ("loss".to_string(), curve(&losses)),
        ("test_miou".to_string(), curve(&place.test)),
        ("class_iou".to_string(), report::class_curve(&score.full)),
    ]);
    if splits.held.is_some() {
        series.insert("holdout_miou".into(), curve(&place.held));
    }
    let gallery = report::gallery(&splits.test, &run.shown, score, &names)?;
    Ok(Outcome {
        outputs: BTreeMap::from([
            ("overlays".into(), context.write_gallery("overlays", &gallery)?),
            (
                "confusion".into(),
                context.write("confusion.json", "file", &report::json(&score.full, &names, profile)?)?,
            ),
        ]),
        metrics: BTreeMap::from([
            ("miou".into(), score.full.miou(profile)),
            ("online_miou".into(), score.online.miou(profile)),
            ("pixel_accuracy".into(), score.full.pixel_accuracy()),
            ("floor_miou".into(), score.full.constant(frequent).miou(profile)),
            ("epoch".into(), score.epoch as f64),
            ("last_miou".into(), last.full.miou(profile)),
            ("test_best_miou".into(), test_best.full.miou(profile)),
            ("test_best_epoch".into(), test_best.epoch as f64),
        ]),
        series,
        provenance: provenance(context, seen, seconds),
    })
}

/// Makes sure that a mask value means the same in both splits.
pub(crate) fn same_classes(train: &Images, test: &Images) -> Result<()> {
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

/// Looks at every pair once and takes away from train what is held out.
fn splits(context: &Context, params: &Params, train: &Images, test: &Images) -> Result<Splits> {
    let held = match params.select {
        Select::Holdout(held) => ((train.len() as f64 * held.share) as usize).max(1),
        _ => 0,
    };
    let left = train.len().saturating_sub(held);
    if (left as u64) < params.batch {
        let what = if held > 0 { format!(" of which {held} are held out") } else { String::new() };
        return Err(format!(
            "a batch of {} is larger than the dataset of {} pictures{what}; lower `batch` or use more pictures",
            params.batch,
            train.len()
        )
        .into());
    }
    let all = Pairs::check(context, train, "train", params.profile)?;
    let test = Pairs::check(context, test, "test", params.profile)?;
    all.warn(context, "train");
    test.warn(context, "test");
    if held == 0 {
        return Ok(Splits { train: all, held: None, test });
    }
    let mut order = seed::permutation(params.seed, Params::KIND, "held out", 0, 0, all.len());
    let mut out = order.split_off(left);
    order.sort_unstable();
    out.sort_unstable();
    let held = all.only(out);
    if held.most_frequent().is_none() {
        return Err("every pixel of what is held out is void, so no epoch can be chosen by it".into());
    }
    Ok(Splits { train: all.only(order), held: Some(held), test })
}

/// A running finetuning.
struct Run<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    classes: usize,
    /// Steps of an epoch.
    steps: u64,
    segmenter: Segmenter,
    optimizer: Finetuner,
    input: Input,
    chosen: Chosen,
    place: Place,
    /// Predictions of the epoch that counts so far.
    shown: Shown,
}

impl<'a> Run<'a> {
    /// From the checkpoint in the work folder, else from the beginning.
    fn start(
        context: &'a Context<'a>,
        params: &'a Params,
        network: &'a Network,
        classes: usize,
        splits: &Splits,
    ) -> Result<Self> {
        let steps = splits.train.len() as u64 / params.batch;
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
        classes: usize,
        steps: u64,
    ) -> Result<Self> {
        let layout = Layout {
            architecture: network.architecture,
            head: params.head.clone(),
            dilated: params.dilated,
            classes: classes as i64,
        };
        let segmenter = Segmenter::new(&network.store, &layout, params.seed, context.device)?;
        let optimizer = Finetuner::new(segmenter.store.parameters(), &params.optimizer);
        let input = Input { mean: network.mean, std: network.std, device: context.device };
        let chosen = match params.select {
            Select::Last(_) => Chosen::Last,
            Select::Holdout(_) => Chosen::Held,
            Select::BestOnTest(_) => Chosen::Test,
        };
        let place = Place { key: context.job.key.clone(), ..Place::default() };
        let shown = Shown::new();
        Ok(Self { context, params, classes, steps, segmenter, optimizer, input, chosen, place, shown })
    }

    fn checkpoint(&self) -> PathBuf {
        self.context.job.work_dir.join("checkpoint.safetensors")
    }

    /// Writes everything that the rest of the run depends on.
    fn save(&self) -> Result<()> {
        let tensors = self.segmenter.store.tensors().iter();
        let mut tensors: BTreeMap<String, Tensor> =
            tensors.map(|(name, tensor)| (format!("network/{name}"), tensor.detach())).collect();
        let state = self.optimizer.state().iter();
        tensors.extend(state.map(|(name, tensor)| (format!("optimizer/{name}"), tensor.shallow_clone())));
        for (index, mask) in &self.shown {
            let tensor = Tensor::f_from_data_size(&mask.data, &[mask.height as i64, mask.width as i64], Kind::Uint8)?;
            tensors.insert(format!("shown/{index}"), tensor);
        }
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
        let (mut network, mut state, mut shown) = (Store::default(), BTreeMap::new(), Shown::new());
        for (name, tensor) in tensors {
            match name.split_once('/') {
                Some(("network", name)) => network.insert(name, tensor),
                Some(("optimizer", name)) => {
                    state.insert(name.to_string(), tensor);
                }
                Some(("shown", index)) if tensor.dim() == 2 => {
                    let index = index.parse().map_err(|_| format!("`{name}` is no prediction"))?;
                    let (height, width) = (tensor.size()[0] as usize, tensor.size()[1] as usize);
                    shown.insert(
                        index,
                        IndexMask { width, height, data: Vec::<u8>::try_from(tensor.f_reshape([-1])?)? },
                    );
                }
                _ => return Err(format!("it has a tensor `{name}`, which no segmentation has").into()),
            }
        }
        self.segmenter.store.assign(&network)?;
        self.optimizer.restore(state)?;
        (self.place, self.shown) = (place, shown);
        Ok(true)
    }

    /// Trains to the last epoch and scores on the way.
    fn train(&mut self, splits: &Splits) -> Result<()> {
        let (context, params, steps) = (self.context, self.params, self.steps);
        let pairs = &splits.train;
        let first = self.place.epoch * steps + self.place.step;
        let total = params.epochs * steps;
        let (source, settings, batch, count) = (pairs.clone(), params.clone(), params.batch as usize, pairs.len());
        // A thread prepares a whole batch, while the network learns from the one before.
        let mut batches = ordered(context.threads(), context.threads(), (first..total).collect(), move |at: u64| {
            let (epoch, step) = (at / steps, (at % steps) as usize);
            let order = seed::permutation(settings.seed, Params::KIND, "order", epoch, 0, count);
            views(&source, &settings, epoch, &order[step * batch..(step + 1) * batch])
        });
        // A run that was stopped between an epoch's end and its score.
        self.score_if_due(splits)?;
        for at in first..total {
            let (epoch, step) = (at / steps, at % steps);
            if context.cancelled() {
                self.save()?;
                return Err(Error::Cancelled);
            }
            let batch = batches.next().ok_or("the loading threads ended early")???;
            let lr = params.schedule.rate(params.optimizer.lr(), epoch, params.epochs);
            seed::reseed(params.seed, Params::KIND, "dropout", at);
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
            let stage = format!("epoch {}/{}", epoch + 1, params.epochs);
            context.progress(&stage, (at + 1) * params.batch, total * params.batch, "pictures");
            if step + 1 == steps {
                let mean = self.place.sum / steps as f64;
                self.place.losses.push(mean);
                self.place = Place { epoch: epoch + 1, step: 0, sum: 0.0, ..std::mem::take(&mut self.place) };
                self.save()?;
                context.metric("loss", (epoch + 1) as f64, mean);
                self.score_if_due(splits)?;
            }
        }
        Ok(())
    }

    /// Scores the network if its epoch is one to be scored and was not yet.
    fn score_if_due(&mut self, splits: &Splits) -> Result<()> {
        let (params, epoch) = (self.params, self.place.epoch);
        let scored = self.place.last.as_ref().map_or(0, |score| score.epoch);
        let due = epoch % params.every == 0 || epoch == params.epochs;
        if epoch == 0 || self.place.step != 0 || scored == epoch || !due {
            return Ok(());
        }
        let held = splits.held.as_ref().map(|held| self.score(held, &[], "holdout")).transpose()?;
        let shown = spread(splits.test.len(), SHOWN);
        let (online, full, shown) = self.score(&splits.test, &shown, "test")?;
        let score = Score { epoch, online, full };

        let miou = score.online.miou(params.profile);
        let best = |points: &[(u64, f64)]| points.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
        let best_on_test = miou > best(&self.place.test);
        self.place.test.push((epoch, miou));
        self.context.metric("test_miou", epoch as f64, miou);
        let mut best_held = false;
        if let Some((online, ..)) = held {
            let miou = online.miou(params.profile);
            best_held = miou > best(&self.place.held);
            self.place.held.push((epoch, miou));
            self.context.metric("holdout_miou", epoch as f64, miou);
        }
        if best_on_test {
            self.place.test_best = Some(score.clone());
        }
        if best_held {
            self.place.held_best = Some(score.clone());
        }
        self.place.last = Some(score);
        let counts = match self.chosen {
            Chosen::Last => true,
            Chosen::Held => best_held,
            Chosen::Test => best_on_test,
        };
        if counts {
            self.shown = shown;
        }
        self.save()
    }

    fn score(&self, pairs: &Pairs, shown: &[usize], stage: &str) -> Result<(Confusion, Confusion, Shown)> {
        let square = match self.params.augment {
            SegmentAugment::Warp(_) => self.params.size.map(|size| size as usize),
            _ => None,
        };
        let (classes, profile) = (self.classes, self.params.profile);
        let task = Task { pairs, square, classes, profile, shown, stage };
        score(self.context, &self.segmenter, &self.input, &task)
    }

    /// One step; its loss, 0 where the batch has no pixel of a class and nothing can be learned.
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<f64> {
        if batch.classes.iter().all(|&class| class == VOID) {
            return Ok(0.0);
        }
        let shape = [self.params.batch as i64, batch.height as i64, batch.width as i64];
        let classes = Tensor::f_from_data_size(&batch.classes, &shape, Kind::Uint8)?;
        let classes = classes.f_to_device(self.context.device)?.to_kind(Kind::Int64);
        let x = self.input.tensor(&batch.pictures, batch.width, batch.height)?;
        let scores = self.segmenter.forward(&x, Mode::TRAIN);
        let loss = scores.f_cross_entropy_loss(&classes, None::<&Tensor>, Reduction::Mean, i64::from(VOID), 0.0)?;
        let value = loss.double_value(&[]);
        if value.is_finite() {
            self.optimizer.descend(&loss, lr)?;
        }
        Ok(value)
    }
}

/// Augmented pairs of a step.
fn views(pairs: &Pairs, params: &Params, epoch: u64, indices: &[usize]) -> Result<Batch> {
    let size = params.size.unwrap_or_default() as usize;
    let mut batch = Batch::default();
    for (&index, at) in indices.iter().zip(0..) {
        let stream = Stream::new(params.seed, Params::KIND, "augment", epoch, index as u64, 0);
        let view = augmented(&*pairs.get(index)?, &params.augment, params.profile, size, stream);
        if at == 0 {
            (batch.width, batch.height) = (view.picture.width, view.picture.height);
        }
        if (batch.width, batch.height) != (view.picture.width, view.picture.height) {
            return Err(format!(
                "`zoom` takes pictures as they are, so they must have one size: `{}` is {}x{} and `{}` is {}x{}; use \
                 `warp` or `crop`",
                pairs.path(indices[0]),
                batch.width,
                batch.height,
                pairs.path(index),
                view.picture.width,
                view.picture.height
            )
            .into());
        }
        batch.pictures.extend_from_slice(&view.picture.data);
        batch.classes.extend_from_slice(&view.mask.data);
    }
    Ok(batch)
}
