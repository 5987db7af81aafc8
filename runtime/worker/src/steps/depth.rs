//! `depth`: the whole network finetuned to say how far away each pixel is, scored with RMSE over test's valid pixels.

pub mod report;
#[cfg(test)]
mod tests;
pub mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use harness_protocol::steps::{Depth as Params, Select};
use harness_protocol::{Outcome, StepKind};
use harness_views::Stream;
use harness_views::loader::ordered;
use tch::{Kind, Reduction, Tensor};

use crate::context::Context;
use crate::data::Images;
use crate::error::Result;
use crate::metric::depth::{Errors, Totals};
use crate::model::segmenter::Layout;
use crate::model::{Encoder, Mode, Segmenter};
use crate::provenance::provenance;
use crate::steps::finetune::{self, Input, Settings, Shown, Source, Split, finetune};
use crate::steps::predict::{BATCH, Predictor};
use views::{Views, augmented};

/// Pictures and depth maps of one step, one after the other, all of one size.
#[derive(Default)]
struct Batch {
    pictures: Vec<u8>,
    depth: Vec<f32>,
    width: usize,
    height: usize,
}

impl finetune::Batch for Batch {
    fn known(&self) -> usize {
        self.depth.iter().filter(|&&depth| depth > 0.0).count()
    }

    fn side(&self) -> (usize, usize) {
        (self.width, self.height)
    }
}

/// Depth as something to finetune for.
struct Task<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    input: Input,
    train: Views,
    held: Option<Views>,
    test: Views,
}

impl finetune::Task for Task<'_> {
    type Batch = Batch;
    type Score = Errors;
    const MEASURE: &'static str = "rmse";

    fn measure(&self, errors: &Errors) -> f64 {
        errors.rmse()
    }

    fn better(new: f64, old: f64) -> bool {
        new < old
    }

    fn train(&self) -> usize {
        self.train.len()
    }

    fn count(&self, split: Split) -> usize {
        match split {
            Split::Held => self.held.as_ref().map_or(0, Views::len),
            Split::Test => self.test.len(),
        }
    }

    fn source(&self) -> Source<Batch> {
        let (views, params) = (self.train.clone(), self.params.clone());
        Arc::new(move |epoch, indices| batch(&views, &params, epoch, indices))
    }

    /// Absolute error of pixels whose depth is known.
    fn loss(&self, network: &Segmenter, batch: &Batch, reduction: Reduction) -> Result<Tensor> {
        let rows = batch.depth.len() / (batch.width * batch.height).max(1);
        let shape = [rows as i64, batch.height as i64, batch.width as i64];
        let depth = Tensor::f_from_slice(&batch.depth)?.f_view(shape)?.f_to_device(self.input.device)?;
        let x = self.input.tensor(&batch.pictures, batch.width, batch.height)?;
        let predicted = network.forward(&x, Mode::TRAIN).f_squeeze_dim(1)?;
        let known = depth.f_gt(0.0)?;
        let (predicted, depth) = (predicted.f_masked_select(&known)?, depth.f_masked_select(&known)?);
        Ok(predicted.f_l1_loss(&depth, reduction)?)
    }

    fn score(&self, network: &Segmenter, split: Split, shown: &[usize]) -> Result<(Errors, Shown)> {
        let (views, stage) = match (split, &self.held) {
            (Split::Held, Some(held)) => (held, "holdout"),
            _ => (&self.test, "test"),
        };
        let (mut errors, mut kept) = (Errors::default(), Shown::new());
        let source = views.clone();
        let items = ordered(self.context.threads(), 2 * BATCH, (0..views.len()).collect(), move |at| source.get(at));
        let predictor = Predictor { context: self.context, network, input: &self.input, stage };
        predictor.each(
            views.len(),
            items,
            |view| &view.picture,
            |scores| Ok(scores.f_squeeze_dim(1)?),
            |index, view, predicted| {
                let values = Vec::<f32>::try_from(predicted.f_to_kind(Kind::Float)?.f_reshape([-1])?)?;
                errors.add(&view.depth, &values);
                if shown.contains(&index) {
                    kept.insert(index, predicted);
                }
                Ok(())
            },
        )?;
        Ok((errors, kept))
    }
}

/// Runs the step.
///
/// # Errors
/// An encoder without a network, a batch larger than the dataset, maps that cannot be used, a loss that is not finite,
/// cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    finetune::shareable(context, params.batch)?;
    let select = params.select.ok_or("`select` was not settled; this is a defect of harness")?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("depth")?;
    let task = splits(context, &params, select, Input::of(network, context.device), &train, &test)?;
    let known = task.train.totals();
    let unknown = "no pixel of what is learned from has a known depth";
    let (learned, middle) = (known.mean().ok_or(unknown)?, known.geometric_mean().ok_or(unknown)?);
    let truth = task.test.totals();
    let start = Instant::now();
    let (architecture, head) = (network.architecture, params.head.clone());
    let layout = Layout { architecture, head, dilated: params.dilated, classes: 1 };
    let settings = Settings {
        layout: &layout,
        optimizer: &params.optimizer,
        schedule: &params.schedule,
        epochs: params.epochs,
        batch: params.batch,
        every: params.every,
        select: &select,
        seed: params.seed,
    };
    let Some(done) = finetune(context, &task, network, settings)? else { return Ok(Outcome::default()) };
    let seconds = start.elapsed().as_secs_f64();

    // Each error has the constant that is best for it: the mean, and the mean of logarithms.
    let errors = &done.chosen.score;
    let (floor_rmse, floor_log_rmse) = (truth.constant(learned).0, truth.constant(middle).1);
    let gallery = report::gallery(&task.test, &done.shown, &done.chosen)?;
    Ok(Outcome {
        outputs: BTreeMap::from([("maps".into(), context.write_gallery("maps", &gallery)?)]),
        metrics: BTreeMap::from([
            ("rmse".into(), errors.rmse()),
            ("log_rmse".into(), errors.log_rmse()),
            ("floor_rmse".into(), floor_rmse),
            ("floor_log_rmse".into(), floor_log_rmse),
            ("train_mean".into(), learned),
            ("valid".into(), errors.valid as f64 / errors.pixels.max(1) as f64),
            ("epoch".into(), done.chosen.epoch as f64),
            ("last_rmse".into(), done.last.score.rmse()),
            ("test_best_rmse".into(), done.test_best.score.rmse()),
            ("test_best_epoch".into(), done.test_best.epoch as f64),
        ]),
        series: done.series,
        provenance: provenance(context, done.seen, seconds),
    })
}

/// Looks at every picture once and takes away from train what is held out.
fn splits<'a>(
    context: &'a Context,
    params: &'a Params,
    select: Select,
    input: Input,
    train: &Images,
    test: &Images,
) -> Result<Task<'a>> {
    let (learned, out) = finetune::split(context, train, &select, params.batch)?;
    let all = Views::check(context, train, "train", params.profile)?;
    let test = Views::check(context, test, "test", params.profile)?;
    if out.is_empty() {
        return Ok(Task { context, params, input, train: all, held: None, test });
    }
    let held = all.only(out);
    if held.totals() == Totals::default() {
        return Err(
            "no pixel of what is held out has a known depth, so no epoch can be chosen by it; use another `select.holdout.split_seed` \
                    or a larger `select.holdout.share`"
                .into(),
        );
    }
    Ok(Task { context, params, input, train: all.only(learned), held: Some(held), test })
}

/// Training views of a step.
fn batch(views: &Views, params: &Params, epoch: u64, indices: &[usize]) -> Result<Batch> {
    let mut batch = Batch::default();
    for (&index, at) in indices.iter().zip(0..) {
        let stream = Stream::new(params.seed, Params::KIND, "augment", epoch, index as u64, 0);
        let view = augmented(&*views.get(index)?, &params.augment, stream);
        let (width, height) = (view.picture.width, view.picture.height);
        if at == 0 {
            (batch.width, batch.height) = (width, height);
        }
        if (batch.width, batch.height) != (width, height) {
            return Err(format!(
                "the pictures of a step must have one size: `{}` is {}x{} and `{}` is {width}x{height}; bring the dataset \
                 to one size",
                views.path(indices[0]),
                batch.width,
                batch.height,
                views.path(index)
            )
            .into());
        }
        batch.pictures.extend_from_slice(&view.picture.data);
        batch.depth.extend_from_slice(&view.depth);
    }
    Ok(batch)
}
