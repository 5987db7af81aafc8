//! Finetuning of a dense network: epochs and steps, checkpoints that a stopped run goes on from, and which epoch counts.
//!
//! What is predicted, learned from and scored is a [`Task`]: classes for `segment`, metres for `depth`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use harness_datasets::hold_out;
use harness_protocol::Series;
use harness_protocol::optimise;
use harness_protocol::optimise::Schedule;
use harness_protocol::steps::Select;
use harness_views::loader::ordered;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::context::Context;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::group::{Gradients, Group};
use crate::model::segmenter::Layout;
use crate::model::{Network, Segmenter, Store, store};
use crate::optim::Finetuner;
use crate::seed;
use crate::steps::overlay::spread;

/// Test pictures whose predictions are kept to look at.
const SHOWN: usize = 8;

/// Predictions at the truth's own size, [height, width], by number of the picture.
pub type Shown = BTreeMap<usize, Tensor>;

/// Prepares the training views of an epoch's pictures, on loading threads.
pub type Source<B> = Arc<dyn Fn(u64, &[usize]) -> Result<B> + Send + Sync>;

/// A part of the data that is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Held out of train.
    Held,
    /// Reported on.
    Test,
}

/// Training views of one step, of one size.
pub trait Batch: Send + 'static {
    /// Pixels whose truth is known.
    fn known(&self) -> usize;
    /// Width and height of each view.
    fn side(&self) -> (usize, usize);
}

/// What is learned and how it is scored.
pub trait Task {
    /// Views of one step.
    type Batch: Batch;
    /// What is known of a network's predictions.
    type Score: Clone + Serialize + DeserializeOwned;
    /// What epochs are compared by: the curves `test_NAME` and `holdout_NAME`.
    const MEASURE: &'static str;

    /// The number that epochs are compared by.
    fn measure(&self, score: &Self::Score) -> f64;
    /// Whether a number is better than another.
    fn better(new: f64, old: f64) -> bool;
    /// Pictures to learn from.
    fn train(&self) -> usize;
    /// Pictures of a split that is scored; 0 where nothing is held out.
    fn count(&self, split: Split) -> usize;
    /// Training views.
    fn source(&self) -> Source<Self::Batch>;
    /// The loss of a step, one number: the mean or the sum over pixels whose truth is known.
    ///
    /// # Errors
    /// libtorch's.
    fn loss(&self, network: &Segmenter, batch: &Self::Batch, reduction: Reduction) -> Result<Tensor>;
    /// Scores a network, without a tensor of it moving; with the predictions of some pictures.
    ///
    /// # Errors
    /// Files that changed, predictions that are not finite, cancelled, libtorch's.
    fn score(&self, network: &Segmenter, split: Split, shown: &[usize]) -> Result<(Self::Score, Shown)>;
}

/// How a network is finetuned.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What it is made of.
    pub layout: &'a Layout,
    /// How weights follow gradients.
    pub optimizer: &'a optimise::Finetuner,
    /// How the learning rate falls.
    pub schedule: &'a Schedule,
    /// Passes over train.
    pub epochs: u64,
    /// Pictures in a step.
    pub batch: u64,
    /// Epochs between two scorings.
    pub every: u64,
    /// Which epoch counts.
    pub select: &'a Select,
    /// Seed of head, order, dropout.
    pub seed: u64,
}

/// The score of an epoch, from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored<S> {
    /// Epoch of the network, from 1.
    pub epoch: u64,
    /// Its score on test.
    pub score: S,
}

/// What a finetuning ends with.
#[derive(Debug)]
pub struct Finished<S> {
    /// The epoch that counts.
    pub chosen: Scored<S>,
    /// The last one.
    pub last: Scored<S>,
    /// The best on test.
    pub test_best: Scored<S>,
    /// Curves: `loss`, `test_NAME` and, where something was held out, `holdout_NAME`.
    pub series: BTreeMap<String, Series>,
    /// Predictions of the epoch that counts.
    pub shown: Shown,
    /// Pictures that went through the network.
    pub seen: u64,
}

/// Numbers of the pictures that are learned from and of those that are held out, each in ascending order. Exact copies of a
/// picture are on one side, and the draw does not follow the step's seed: replicates are judged by the same pictures.
///
/// # Errors
/// Nothing can be held out, or what is left is smaller than a batch.
pub fn split(context: &Context, train: &Images, select: &Select, batch: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let count = train.len();
    let mut out = vec![false; count];
    if let Select::Holdout(part) = select {
        // Drawn from all of them: what a picture as a whole shows says little about its pixels.
        let mut entries = train.manifest.entries.clone();
        entries.iter_mut().for_each(|entry| entry.label = None);
        let least = 0.75 / count.max(1) as f64;
        let (held, said) = hold_out(&entries, part.share.max(least), part.split_seed);
        said.into_iter().for_each(|text| context.info(text));
        if !held.contains(&true) {
            return Err(format!(
                "no epoch can be chosen by a part of train: of its {count} pictures none can be held out, since all are \
                 copies of each other or there is one; `select = last` holds nothing out"
            )
            .into());
        }
        out = held;
    }
    let (held, learned): (Vec<usize>, Vec<usize>) = (0..count).partition(|&at| out[at]);
    if (learned.len() as u64) < batch {
        let what = if held.is_empty() { String::new() } else { format!(" of which {} are held out", held.len()) };
        let way = if held.is_empty() { "" } else { "; `select = last` holds nothing out" };
        return Err(format!(
            "a batch of {batch} is larger than the dataset of {count} pictures{what}; lower `batch` or use more \
             pictures{way}"
        )
        .into());
    }
    Ok((learned, held))
}

/// Makes sure that a batch can be dealt to the ranks of a job in equal parts.
///
/// # Errors
/// It cannot.
pub fn shareable(context: &Context, batch: u64) -> Result<()> {
    let ranks = context.team.size() as u64;
    if batch.is_multiple_of(ranks) {
        return Ok(());
    }
    let less = (1..ranks).rev().find(|&fewer| batch.is_multiple_of(fewer)).unwrap_or(1);
    Err(format!(
        "{ranks} devices cannot share a batch of {batch} in equal parts; ask for {less} (`resources.gpus`), or make `batch` a \
         multiple of {ranks} (which is another training)"
    )
    .into())
}

/// What the network computed on test in the epoch that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Last,
    Held,
    Test,
}

/// Where a run stands, beside its tensors. Epochs and steps count from 0 and name the next one to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place<S> {
    /// Key of the action, so that no other run goes on from here.
    key: String,
    epoch: u64,
    step: u64,
    /// Sum of the losses of the epoch's steps so far.
    sum: f64,
    /// Mean loss of the epochs done.
    losses: Vec<f64>,
    /// Epochs that were scored (from 1), with what is measured on test and on what is held out.
    test: Vec<(u64, f64)>,
    held: Vec<(u64, f64)>,
    /// Scores on test of the last scored epoch, of the best on test, and of the best on what is held out.
    last: Option<Scored<S>>,
    test_best: Option<Scored<S>>,
    held_best: Option<Scored<S>>,
}

impl<S> Place<S> {
    fn start(key: &str) -> Self {
        Self {
            key: key.into(),
            epoch: 0,
            step: 0,
            sum: 0.0,
            losses: Vec::new(),
            test: Vec::new(),
            held: Vec::new(),
            last: None,
            test_best: None,
            held_best: None,
        }
    }

    /// The last epoch that was scored, from 1; 0 before.
    fn scored(&self) -> u64 {
        self.last.as_ref().map_or(0, |score| score.epoch)
    }
}

/// Finetunes a copy of `network` to the last epoch, from where it was stopped if it was, and chooses the epoch that counts.
/// None of ranks above 0, which score nothing.
///
/// # Errors
/// A loss that is not finite, cancelled (a checkpoint is written then), what the task fails with, another rank that ended.
pub fn finetune<T: Task>(
    context: &Context,
    task: &T,
    network: &Network,
    settings: Settings,
) -> Result<Option<Finished<T::Score>>> {
    let mut run = Run::start(context, task, network, settings)?;
    run.train()?;
    if context.team.leads() { run.finished().map(Some) } else { Ok(None) }
}

/// What all ranks know before a step.
enum Turn {
    /// The user wants to stop.
    Stop,
    /// Pixels of the whole batch whose truth is known.
    Go { known: f64 },
}

/// Asks all ranks whether to go on with a step, of which this one has `batch`.
fn turn<B: Batch>(group: Option<&Arc<Group>>, cancelled: bool, batch: &B) -> Result<Turn> {
    let (width, height) = batch.side();
    let mine = [f64::from(u8::from(cancelled)), batch.known() as f64, width as f64, height as f64];
    let mut all = mine.to_vec();
    if let Some(group) = group {
        let row = Tensor::f_from_slice(&mine)?.f_view([1, 4])?.f_to_device(group.device())?;
        all = Vec::try_from(group.gather(&row)?.f_reshape([-1])?.f_to_device(Device::Cpu)?)?;
    }
    let rows = || all.chunks_exact(4);
    if rows().any(|row| row[0] > 0.0) {
        return Ok(Turn::Stop);
    }
    if let Some(other) = rows().find(|row| row[2..] != all[2..4]) {
        return Err(format!(
            "the pictures of a step must have one size, and there are some of {}x{} and some of {}x{}; bring the dataset to \
             one size, or use an augmentation that does",
            all[2], all[3], other[2], other[3]
        )
        .into());
    }
    Ok(Turn::Go { known: rows().map(|row| row[1]).sum() })
}

/// A running finetuning.
struct Run<'a, T: Task> {
    context: &'a Context<'a>,
    task: &'a T,
    settings: Settings<'a>,
    /// Steps of an epoch.
    steps: u64,
    segmenter: Segmenter,
    optimizer: Finetuner,
    gradients: Gradients,
    chosen: Chosen,
    place: Place<T::Score>,
    /// Predictions of the epoch that counts so far.
    shown: Shown,
}

impl<'a, T: Task> Run<'a, T> {
    /// From the checkpoint in the work folder, else from the beginning.
    fn start(context: &'a Context<'a>, task: &'a T, network: &Network, settings: Settings<'a>) -> Result<Self> {
        let mut run = Self::fresh(context, task, network, settings)?;
        if run.checkpoint().is_file() {
            match run.restore() {
                Ok(true) => {
                    context.info(format!("going on from epoch {}, step {}", run.place.epoch + 1, run.place.step + 1));
                }
                Ok(false) => context.info("the checkpoint belongs to another run; starting from the beginning"),
                Err(error) => {
                    context.warn(format!("the checkpoint cannot be used, starting from the beginning: {error}"));
                    run = Self::fresh(context, task, network, settings)?;
                }
            }
        }
        // Before this no rank goes on to a step after which there is another checkpoint.
        let place = &run.place;
        if !context.team.agrees(place.epoch * run.steps + place.step)? || !context.team.agrees(place.scored())? {
            return Err("the ranks read different checkpoints; does every device see the same cache folder?".into());
        }
        Ok(run)
    }

    fn fresh(context: &'a Context<'a>, task: &'a T, network: &Network, settings: Settings<'a>) -> Result<Self> {
        let group = context.team.group();
        let segmenter = Segmenter::new(&network.store, settings.layout, settings.seed, context.device)?.among(group);
        let optimizer = Finetuner::new(segmenter.store.parameters(), settings.optimizer);
        let chosen = match settings.select {
            Select::Last(_) => Chosen::Last,
            Select::Holdout(_) => Chosen::Held,
            Select::BestOnTest(_) => Chosen::Test,
        };
        let steps = task.train() as u64 / settings.batch;
        let (place, shown) = (Place::start(&context.job.key), Shown::new());
        let gradients = Gradients::new(group.cloned());
        Ok(Self { context, task, settings, steps, segmenter, optimizer, gradients, chosen, place, shown })
    }

    fn checkpoint(&self) -> PathBuf {
        self.context.job.work_dir.join("checkpoint.safetensors")
    }

    /// Writes everything that the rest of the run depends on, which does not tell how many ranks there are; rank 0 does.
    fn save(&self) -> Result<()> {
        if !self.context.team.leads() {
            return Ok(());
        }
        let tensors = self.segmenter.store.tensors().iter();
        let mut tensors: BTreeMap<String, Tensor> =
            tensors.map(|(name, tensor)| (format!("network/{name}"), tensor.detach())).collect();
        let state = self.optimizer.state().iter();
        tensors.extend(state.map(|(name, tensor)| (format!("optimizer/{name}"), tensor.shallow_clone())));
        let shown = self.shown.iter();
        tensors.extend(shown.map(|(index, predicted)| (format!("shown/{index}"), predicted.shallow_clone())));
        let header = serde_json::to_string(&self.place).map_err(|error| error.to_string())?;
        store::write_atomic(&self.checkpoint(), &store::encode(&tensors, Some(&header))?)
    }

    /// Takes a checkpoint; false if it is another run's.
    fn restore(&mut self) -> Result<bool> {
        let (tensors, header) = store::read(&self.checkpoint())?;
        let header = header.ok_or("it does not say where it stands")?;
        let place: Place<T::Score> = serde_json::from_str(&header).map_err(|error| error.to_string())?;
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
                    shown.insert(index.parse().map_err(|_| format!("`{name}` is no prediction"))?, tensor);
                }
                _ => return Err(format!("it has a tensor `{name}`, which no finetuning has").into()),
            }
        }
        self.segmenter.store.assign(&network)?;
        self.optimizer.restore(state)?;
        (self.place, self.shown) = (place, shown);
        Ok(true)
    }

    /// Trains to the last epoch and scores on the way.
    fn train(&mut self) -> Result<()> {
        let (context, settings, steps) = (self.context, self.settings, self.steps);
        let Settings { epochs, batch, seed, .. } = settings;
        let first = self.place.epoch * steps + self.place.step;
        let total = epochs * steps;
        let (source, count, each) = (self.task.source(), self.task.train(), batch as usize);
        // A thread prepares a whole batch, while the network learns from the one before.
        let kind = context.job.kind.as_str();
        let owned = kind.to_string();
        // Each rank has its own rows of every batch.
        let share = each / context.team.size();
        let own = context.team.rank() * share;
        let mut batches = ordered(context.threads(), context.threads(), (first..total).collect(), move |at: u64| {
            let (epoch, step) = (at / steps, (at % steps) as usize);
            let order = seed::permutation(seed, &owned, "order", epoch, 0, count);
            source(epoch, &order[step * each + own..][..share])
        });
        // A run that was stopped between an epoch's end and its score.
        self.score_if_due()?;
        for at in first..total {
            let (epoch, step) = (at / steps, at % steps);
            let views = batches.next().ok_or("the loading threads ended early")???;
            let known = match turn(context.team.group(), context.cancelled(), &views)? {
                Turn::Go { known } => known,
                Turn::Stop => {
                    self.save()?;
                    return Err(Error::Cancelled);
                }
            };
            let lr = settings.schedule.rate(settings.optimizer.lr(), epoch, epochs);
            seed::reseed(seed, kind, "dropout", at);
            let loss = self.step(&views, known, lr)?;
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
            context.progress(&format!("epoch {}/{epochs}", epoch + 1), (at + 1) * batch, total * batch, "pictures");
            if step + 1 == steps {
                let mean = self.place.sum / steps as f64;
                self.place.losses.push(mean);
                (self.place.epoch, self.place.step, self.place.sum) = (epoch + 1, 0, 0.0);
                self.save()?;
                context.metric("loss", (epoch + 1) as f64, mean);
                self.score_if_due()?;
            }
        }
        Ok(())
    }

    /// One step, whose whole batch has `known` pixels to learn from; its loss, 0 where there are none. Both are the same on
    /// all ranks.
    fn step(&mut self, batch: &T::Batch, known: f64, lr: f64) -> Result<f64> {
        if known == 0.0 {
            return Ok(0.0);
        }
        let ranks = self.gradients.ranks() as f64;
        let (task, segmenter) = (self.task, &self.segmenter);
        let (gradients, value) = self.gradients.of(&self.optimizer.tensors(), 1, |_| match ranks {
            1.0 => task.loss(segmenter, batch, Reduction::Mean),
            // Means over the ranks are to be means over all pixels, wherever most of them are.
            _ => Ok(task.loss(segmenter, batch, Reduction::Sum)? * (ranks / known)),
        })?;
        if value.is_finite() {
            self.optimizer.step_along(gradients, lr);
        }
        Ok(value)
    }

    /// Scores the network if its epoch is one to be scored and was not yet. Rank 0 does, and the others wait.
    fn score_if_due(&mut self) -> Result<()> {
        let epoch = self.place.epoch;
        let due = epoch.is_multiple_of(self.settings.every) || epoch == self.settings.epochs;
        if epoch == 0 || self.place.step != 0 || self.place.scored() == epoch || !due {
            return Ok(());
        }
        let team = &self.context.team;
        let stopped = match team.wait_for_leader(&format!("score-{epoch}"), || self.score(epoch)) {
            Err(Error::Cancelled) => true,
            other => other.map(|()| false)?,
        };
        if team.any(stopped)? { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn score(&mut self, epoch: u64) -> Result<()> {
        let held = match self.task.count(Split::Held) {
            0 => None,
            _ => Some(self.task.score(&self.segmenter, Split::Held, &[])?.0),
        };
        let shown = spread(self.task.count(Split::Test), SHOWN);
        let (score, shown) = self.task.score(&self.segmenter, Split::Test, &shown)?;
        let value = self.task.measure(&score);
        let score = Scored { epoch, score };

        // Of several equal ones the first is the best.
        let best = |points: &[(u64, f64)], new: f64| points.iter().all(|(_, old)| T::better(new, *old));
        let best_on_test = best(&self.place.test, value);
        self.place.test.push((epoch, value));
        self.context.metric(&format!("test_{}", T::MEASURE), epoch as f64, value);
        let mut best_held = false;
        if let Some(held) = held {
            let value = self.task.measure(&held);
            best_held = best(&self.place.held, value);
            self.place.held.push((epoch, value));
            self.context.metric(&format!("holdout_{}", T::MEASURE), epoch as f64, value);
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

    fn finished(self) -> Result<Finished<T::Score>> {
        let Self { context, task, settings, steps, chosen, place, shown, .. } = self;
        let missing = "no epoch was scored; this is a defect of harness";
        let last = place.last.ok_or(missing)?;
        let test_best = place.test_best.ok_or(missing)?;
        let chosen = match chosen {
            Chosen::Last => last.clone(),
            Chosen::Test => {
                context.warn(format!(
                    "the network of epoch {} counts because it is best on test: `{}` is better than the method is",
                    test_best.epoch,
                    T::MEASURE
                ));
                test_best.clone()
            }
            Chosen::Held => place.held_best.ok_or(missing)?,
        };
        let curve = |points: &[(u64, f64)]| Series {
            x: points.iter().map(|(epoch, _)| *epoch as f64).collect(),
            y: points.iter().map(|(_, value)| *value).collect(),
            x_label: "epoch".into(),
        };
        let losses: Vec<(u64, f64)> = (1..).zip(place.losses.iter().copied()).collect();
        let mut series = BTreeMap::from([
            ("loss".to_string(), curve(&losses)),
            (format!("test_{}", T::MEASURE), curve(&place.test)),
        ]);
        if !place.held.is_empty() {
            series.insert(format!("holdout_{}", T::MEASURE), curve(&place.held));
        }
        let scored = task.count(Split::Test) + task.count(Split::Held);
        let seen = place.epoch * steps * settings.batch + place.test.len() as u64 * scored as u64;
        Ok(Finished { chosen, last, test_best, series, shown, seen })
    }
}

/// Normalises pictures for a network.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Mean of its input, per channel.
    pub mean: [f64; 3],
    /// Standard deviation, per channel.
    pub std: [f64; 3],
    /// Where it computes.
    pub device: Device,
}

impl Input {
    /// What a network takes.
    pub fn of(network: &Network, device: Device) -> Self {
        Self { mean: network.mean, std: network.std, device }
    }

    /// Pictures of one size, one after the other, as a normalised tensor [count, 3, height, width], its channels last in
    /// memory.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn tensor(&self, bytes: &[u8], width: usize, height: usize) -> Result<Tensor> {
        let count = bytes.len() / (3 * width * height).max(1);
        let row = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).to_device(self.device);
        let shape = [count as i64, height as i64, width as i64, 3];
        let bytes = Tensor::f_from_data_size(bytes, &shape, Kind::Uint8)?;
        let unit = bytes.f_to_device(self.device)?.to_kind(Kind::Float) / 255.0;
        Ok(((unit - row(self.mean)) / row(self.std)).permute([0, 3, 1, 2]))
    }
}
