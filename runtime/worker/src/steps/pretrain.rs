//! `pretrain`: MoCo v2 with two crops or constrained multi-scale crops.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness_protocol::optimise::Optimizer;
use harness_protocol::steps::pretrain::{Contrast, KnnMonitor, Moco as Settings, Monitor, Pretrain as Params};
use harness_protocol::transform::{self, Views};
use harness_protocol::{Outcome, Series};
use harness_views::loader::ordered;
use harness_views::{Augment, Blur, Constraint, Crop, Jitter, Recipe, ViewKey, views};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::context::Context;
use crate::data::{Images, Pictures};
use crate::error::{Error, Result};
use crate::metric::knn::accuracy;
use crate::model::contrastive::{Moco, Sample, Turn};
use crate::model::{Encoder, Store, store};
use crate::optim::Sgd;
use crate::provenance::provenance;
use crate::seed;
use crate::steps::knn;

/// Where a run stands, beside its tensors. Epochs and steps count from 0 and name the next one to do; the
/// step after an epoch's last one means that the epoch is not closed yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Place {
    /// Key of the action, so that no other run goes on from here.
    key: String,
    epoch: u64,
    step: u64,
    /// Of the queue.
    pointer: i64,
    /// Sum of the losses of the epoch's steps so far.
    sum: f64,
    curves: BTreeMap<String, Series>,
}

/// Prepared views of one step's pictures: bytes, each view row by row, RGB; pictures in order.
struct Batch {
    query: Vec<u8>,
    key: Vec<u8>,
    /// The small crops of the first picture, then of the second…
    small: Vec<u8>,
}

/// Sides of the views, and how many small ones there are.
#[derive(Clone, Copy, Debug)]
struct Sides {
    large: i64,
    small: i64,
    count: i64,
}

/// Runs the step.
///
/// # Errors
/// A batch larger than the dataset, pictures that cannot be used, a loss that is not finite, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let images = context.images(params.data.digest())?;
    let steps = images.len() as u64 / params.batch;
    if steps == 0 {
        return Err(format!(
            "a batch of {} is larger than the dataset of {} pictures; lower `batch` or use more pictures",
            params.batch,
            images.len()
        )
        .into());
    }
    let monitor = match &params.monitor {
        Some(Monitor::Knn(knn)) => {
            let (train, test) = (context.images(knn.train.digest())?, context.images(knn.test.digest())?);
            Some(Watch { settings: knn, train, test })
        }
        None => None,
    };
    let pictures = Pictures::check(context, &images)?;
    Run::start(context, &params, steps, monitor)?.run(&pictures)
}

/// What the kNN monitor needs.
struct Watch<'a> {
    settings: &'a KnnMonitor,
    train: Images,
    test: Images,
}

/// A running pretraining.
struct Run<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    settings: Settings,
    steps: u64,
    watch: Option<Watch<'a>>,
    moco: Moco,
    sgd: Sgd,
    place: Place,
    lr: f64,
}

impl<'a> Run<'a> {
    /// From the checkpoint in the work folder, else from the beginning.
    fn start(context: &'a Context<'a>, params: &'a Params, steps: u64, watch: Option<Watch<'a>>) -> Result<Self> {
        let Contrast::Moco(settings) = params.contrast;
        let Optimizer::Sgd(optimizer) = params.optimizer;
        let moco = Moco::new(&params.encoder, &settings, params.batch_norm.groups, params.seed, context.device)?;
        let sgd = Sgd::new(moco.query.store.parameters(), &optimizer);
        let place = Place { key: context.job.key.clone(), ..Place::default() };
        let mut run = Self { context, params, settings, steps, watch, moco, sgd, place, lr: optimizer.lr };
        if run.checkpoint().is_file() {
            match run.restore() {
                Ok(true) => {
                    context.info(format!("going on from epoch {}, step {}", run.place.epoch + 1, run.place.step + 1))
                }
                Ok(false) => context.info("the checkpoint belongs to another run; starting from the beginning"),
                Err(error) => {
                    context.warn(format!("the checkpoint cannot be used, starting from the beginning: {error}"));
                    let place = Place { key: context.job.key.clone(), ..Place::default() };
                    let moco =
                        Moco::new(&params.encoder, &settings, params.batch_norm.groups, params.seed, context.device)?;
                    let sgd = Sgd::new(moco.query.store.parameters(), &optimizer);
                    run = Self { moco, sgd, place, ..run };
                }
            }
        }
        Ok(run)
    }

    fn checkpoint(&self) -> PathBuf {
        self.context.job.work_dir.join("checkpoint.safetensors")
    }

    /// Writes everything that the rest of the run depends on.
    fn save(&mut self) -> Result<()> {
        self.place.pointer = self.moco.pointer;
        let mut tensors = BTreeMap::from([("queue".to_string(), self.moco.queue.shallow_clone())]);
        if let Some(features) = &self.moco.features {
            tensors.insert("features".into(), features.shallow_clone());
        }
        let parts = [("query", &self.moco.query.store), ("key", &self.moco.key.store)];
        for (part, store) in parts {
            tensors.extend(store.tensors().iter().map(|(name, tensor)| (format!("{part}/{name}"), tensor.detach())));
        }
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
        let (mut query, mut key, mut momenta) = (Store::default(), Store::default(), BTreeMap::new());
        for (name, tensor) in tensors {
            match name.split_once('/') {
                Some(("query", name)) => query.insert(name, tensor),
                Some(("key", name)) => key.insert(name, tensor),
                Some(("momentum", name)) => {
                    momenta.insert(name.to_string(), tensor);
                }
                _ => {
                    let to = if name == "features" { self.moco.features.as_mut() } else { Some(&mut self.moco.queue) };
                    tch::no_grad(|| to.map(|to| to.f_copy_(&tensor)).transpose())?;
                }
            }
        }
        self.moco.query.store.assign(&query)?;
        self.moco.key.store.assign(&key)?;
        self.sgd.restore(momenta)?;
        self.moco.pointer = place.pointer;
        self.place = place;
        Ok(true)
    }

    fn run(mut self, pictures: &Pictures) -> Result<Outcome> {
        let (context, params, steps) = (self.context, self.params, self.steps);
        let (recipe, sides) = recipe(params);
        let start = Instant::now();
        let mut watching = Duration::ZERO;
        if self.place.step == steps {
            watching += self.close_epoch(params.schedule.rate(self.lr, self.place.epoch, params.epochs))?;
        }
        let first = self.place.epoch * steps + self.place.step;
        let total = params.epochs * steps;

        let items: Vec<u64> = (first..total).collect();
        let (source, seed, batch) = (pictures.clone(), params.seed, params.batch as usize);
        // A thread prepares a whole batch; one batch waits while the next ones are being made.
        let mut batches =
            ordered(context.threads(), 1, items, move |at| load(&source, &recipe, seed, at / steps, at % steps, batch));

        for at in first..total {
            let (epoch, step) = (at / steps, at % steps);
            if context.cancelled() {
                self.save()?;
                return Err(Error::Cancelled);
            }
            let views = batches.next().ok_or("the loading threads ended early")???;
            let lr = params.schedule.rate(self.lr, epoch, params.epochs);
            let loss = self.step(&views, sides, epoch, step, lr)?;
            if !loss.is_finite() {
                return Err(format!(
                    "the loss is not finite in epoch {} at step {} (learning rate {lr}); lower `optimizer.lr` \
                     or raise `contrast.moco.temperature`",
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
                watching += self.close_epoch(lr)?;
            }
        }

        let seconds = (start.elapsed() - watching).as_secs_f64();
        let seen = params.epochs * steps * params.batch;
        let pixels = 2 * sides.large * sides.large + sides.count * sides.small * sides.small;
        let encoder = self.encoder()?;
        let final_loss = self.place.curves.get("loss").and_then(|curve| curve.y.last().copied()).unwrap_or(f64::NAN);
        Ok(Outcome {
            outputs: BTreeMap::from([(
                "encoder".into(),
                context.write("encoder.safetensors", "encoder", &encoder.encode()?)?,
            )]),
            metrics: BTreeMap::from([
                ("final_loss".into(), final_loss),
                ("steps".into(), (params.epochs * steps) as f64),
                ("pictures".into(), seen as f64),
                ("pixels".into(), seen as f64 * pixels as f64),
            ]),
            series: self.place.curves,
            provenance: provenance(context, (total - first) * params.batch, seconds),
        })
    }

    /// After an epoch's last step: what is watched, the curves, the checkpoint. The time that watching took.
    fn close_epoch(&mut self, lr: f64) -> Result<Duration> {
        let (epoch, look) = (self.place.epoch, Instant::now());
        match self.watch(epoch) {
            Err(Error::Cancelled) => {
                // The epoch stays open, so that the next run looks at it.
                self.save()?;
                return Err(Error::Cancelled);
            }
            other => other?,
        }
        let watched = look.elapsed();
        self.point("loss", epoch, self.place.sum / self.steps as f64);
        self.point("lr", epoch, lr);
        self.place = Place { epoch: epoch + 1, step: 0, sum: 0.0, ..std::mem::take(&mut self.place) };
        self.save()?;
        Ok(watched)
    }

    /// One step of the objective. Its loss.
    fn step(&mut self, batch: &Batch, sides: Sides, epoch: u64, step: u64, lr: f64) -> Result<f64> {
        let count = self.params.batch as i64;
        let small = match sides.count {
            0 => None,
            each => Some(self.tensor(&batch.small, count * each, sides.small)?),
        };
        let sample = Sample {
            query: self.tensor(&batch.query, count, sides.large)?,
            key: self.tensor(&batch.key, count, sides.large)?,
            small,
        };
        let order = |purpose| {
            let order = seed::permutation(self.params.seed, purpose, epoch, step, count as usize);
            order.into_iter().map(|index| index as i64).collect::<Vec<i64>>()
        };
        let shuffles = [order("shuffle"), order("shuffle back")];
        let neighbours = self.settings.neighbours.is_some_and(|neighbours| epoch >= neighbours.warmup);
        let turn = Turn { lr, shuffles: [&shuffles[0], &shuffles[1]], neighbours };
        self.moco.learn(&sample, &mut self.sgd, turn)
    }

    /// Bytes of `count` square views as a normalised tensor [count, 3, side, side], its channels last in memory.
    fn tensor(&self, bytes: &[u8], count: i64, side: i64) -> Result<Tensor> {
        let (mean, std) = (self.params.normalise.mean, self.params.normalise.std);
        let row = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).to_device(self.context.device);
        let bytes = Tensor::f_from_data_size(bytes, &[count, side, side, 3], Kind::Uint8)?;
        let unit = bytes.f_to_device(self.context.device)?.to_kind(Kind::Float) / 255.0;
        Ok(((unit - row(mean)) / row(std)).permute([0, 3, 1, 2]))
    }

    fn point(&mut self, name: &str, epoch: u64, value: f64) {
        let curve = self
            .place
            .curves
            .entry(name.into())
            .or_insert_with(|| Series { x_label: "epoch".into(), ..Series::default() });
        curve.x.push((epoch + 1) as f64);
        curve.y.push(value);
        self.context.metric(name, (epoch + 1) as f64, value);
    }

    /// The query encoder as it is now, with storage of its own.
    fn encoder(&self) -> Result<Encoder> {
        let normalise = self.params.normalise;
        Encoder::network(self.params.encoder, normalise.mean, normalise.std, self.moco.query.store.deep_copy())
    }

    /// Looks at the kNN accuracy of a copy in eval mode; the run itself does not notice.
    fn watch(&mut self, epoch: u64) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let settings = watch.settings;
        let last = epoch + 1 == self.params.epochs;
        if !last && !(epoch + 1).is_multiple_of(settings.every) {
            return Ok(());
        }
        let task = knn::Task {
            train: &watch.train,
            test: &watch.test,
            k: usize::try_from(settings.k).unwrap_or(usize::MAX),
            temperature: settings.temperature,
            features: settings.features,
            transform: settings.transform,
        };
        let answer = knn::answer(self.context, &self.encoder()?, &task, |_| ())?;
        let (top1, _) = accuracy(&answer.votes, &answer.truth);
        self.point("knn_top1", epoch, top1);
        Ok(())
    }
}

/// The views of a step, by the order of its epoch.
fn load(pictures: &Pictures, recipe: &Recipe, seed: u64, epoch: u64, step: u64, batch: usize) -> Result<Batch> {
    let order = seed::permutation(seed, "order", epoch, 0, pictures.len());
    let mut out = Batch { query: Vec::new(), key: Vec::new(), small: Vec::new() };
    for &index in &order[step as usize * batch..(step as usize + 1) * batch] {
        let picture = pictures.get(index)?;
        let key = ViewKey { seed, epoch, picture: index as u64 };
        for (at, view) in views(&picture, recipe, key).into_iter().enumerate() {
            let place = match at {
                0 => &mut out.query,
                1 => &mut out.key,
                _ => &mut out.small,
            };
            if place.is_empty() {
                place.reserve_exact(view.data.len() * batch * if at > 1 { recipe.crops.len() - 2 } else { 1 });
            }
            place.extend_from_slice(&view.data);
        }
    }
    Ok(out)
}

/// The crops and augmentation of the parameters.
fn recipe(params: &Params) -> (Recipe, Sides) {
    let (crops, sides) = match &params.views {
        Views::TwoCrops(two) => {
            let crop = Crop { size: two.size as usize, scale: two.scale.ends(), ratio: two.ratio.ends(), inside: None };
            (vec![crop.clone(), crop], Sides { large: two.size as i64, small: 0, count: 0 })
        }
        Views::MultiCrop(multi) => {
            let (large, small) = (multi.large, multi.small);
            let crop =
                Crop { size: large.size as usize, scale: large.scale.ends(), ratio: large.ratio.ends(), inside: None };
            let inside = multi.constrained.then_some(Constraint {
                crop: 1,
                min_overlap: multi.overlap,
                max_tries: multi.max_tries as usize,
            });
            let tiny = Crop { size: small.size as usize, scale: small.scale.ends(), ratio: small.ratio.ends(), inside };
            let mut crops = vec![crop.clone(), crop];
            crops.extend(std::iter::repeat_n(tiny, small.count as usize));
            (crops, Sides { large: large.size as i64, small: small.size as i64, count: small.count as i64 })
        }
    };
    let transform::Augment { jitter, grayscale, blur, flip } = params.augment;
    let augment = Augment {
        jitter: Some(Jitter {
            probability: jitter.probability,
            brightness: jitter.brightness,
            contrast: jitter.contrast,
            saturation: jitter.saturation,
            hue: jitter.hue,
        }),
        grayscale,
        blur: Some(Blur { probability: blur.probability, sigma: blur.sigma.ends() }),
        flip,
    };
    (Recipe { crops, augment }, sides)
}
