//! `segment`: the whole network finetuned under a dense head, scored with mIoU at the masks' own resolution.

pub mod augment;
pub mod pairs;
pub mod report;
pub mod score;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use harness_protocol::steps::{Segment as Params, SegmentAugment};
use harness_protocol::{Outcome, StepKind};
use harness_views::Stream;
use tch::{Kind, Reduction, Tensor};

use crate::context::Context;
use crate::data::Images;
use crate::error::Result;
use crate::metric::iou::VOID;
use crate::model::segmenter::Layout;
use crate::model::{Encoder, Mode, Segmenter};
use crate::provenance::provenance;
use crate::steps::finetune::{self, Input, Settings, Shown, Source, Split, finetune};
use crate::steps::predict::Predictor;
use augment::augmented;
use pairs::Pairs;
use score::{Score, score};

/// Pictures and masks of one step: bytes, one after the other, RGB and classes, all of one size.
#[derive(Default)]
struct Batch {
    pictures: Vec<u8>,
    classes: Vec<u8>,
    width: usize,
    height: usize,
}

impl finetune::Batch for Batch {
    fn known(&self) -> usize {
        self.classes.iter().filter(|&&class| class != VOID).count()
    }

    fn side(&self) -> (usize, usize) {
        (self.width, self.height)
    }
}

/// Semantic segmentation as something to finetune for.
struct Task<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    classes: usize,
    input: Input,
    train: Pairs,
    held: Option<Pairs>,
    test: Pairs,
}

impl finetune::Task for Task<'_> {
    type Batch = Batch;
    type Score = Score;
    const MEASURE: &'static str = "miou";

    fn measure(&self, score: &Score) -> f64 {
        score.online.miou(self.params.profile)
    }

    fn better(new: f64, old: f64) -> bool {
        new > old
    }

    fn train(&self) -> usize {
        self.train.len()
    }

    fn count(&self, split: Split) -> usize {
        match split {
            Split::Held => self.held.as_ref().map_or(0, Pairs::len),
            Split::Test => self.test.len(),
        }
    }

    fn source(&self) -> Source<Batch> {
        let (pairs, params) = (self.train.clone(), self.params.clone());
        Arc::new(move |epoch, indices| views(&pairs, &params, epoch, indices))
    }

    /// Cross-entropy of pixels that are not void.
    fn loss(&self, network: &Segmenter, batch: &Batch, reduction: Reduction) -> Result<Tensor> {
        let rows = batch.classes.len() / (batch.width * batch.height).max(1);
        let shape = [rows as i64, batch.height as i64, batch.width as i64];
        let classes = Tensor::f_from_data_size(&batch.classes, &shape, Kind::Uint8)?;
        let classes = classes.f_to_device(self.input.device)?.to_kind(Kind::Int64);
        let x = self.input.tensor(&batch.pictures, batch.width, batch.height)?;
        let scores = network.forward(&x, Mode::TRAIN);
        Ok(scores.f_cross_entropy_loss(&classes, None::<&Tensor>, reduction, i64::from(VOID), 0.0)?)
    }

    fn score(&self, network: &Segmenter, split: Split, shown: &[usize]) -> Result<(Score, Shown)> {
        let square = match self.params.augment {
            SegmentAugment::Warp(_) => self.params.size.map(|size| size as usize),
            _ => None,
        };
        let (pairs, stage) = match (split, &self.held) {
            (Split::Held, Some(held)) => (held, "holdout"),
            _ => (&self.test, "test"),
        };
        let predictor = Predictor { context: self.context, network, input: &self.input, stage };
        let (classes, profile) = (self.classes, self.params.profile);
        score(predictor, &score::Task { pairs, square, classes, profile, shown })
    }
}

/// Runs the step.
///
/// # Errors
/// An encoder without a network, classes that do not match, a batch larger than the dataset, pairs that cannot be used,
/// a loss that is not finite, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    finetune::shareable(context, params.batch)?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("segment")?;
    same_classes(&train, &test)?;
    let names = train.manifest.mask_classes.clone();
    let input = Input::of(network, context.device);
    let task = splits(context, &params, input, &train, &test)?;
    let frequent = task.train.most_frequent().ok_or("every pixel of train is void, so there is nothing to learn")?;
    if task.test.most_frequent().is_none() {
        return Err("every pixel of test is void, so there is nothing to score".into());
    }
    let start = Instant::now();
    let layout = Layout {
        architecture: network.architecture,
        head: params.head.clone(),
        dilated: params.dilated,
        classes: names.len() as i64,
    };
    let settings = Settings {
        layout: &layout,
        optimizer: &params.optimizer,
        schedule: &params.schedule,
        epochs: params.epochs,
        batch: params.batch,
        every: params.every,
        select: &params.select,
        seed: params.seed,
    };
    let Some(done) = finetune(context, &task, network, settings)? else { return Ok(Outcome::default()) };
    let seconds = start.elapsed().as_secs_f64();

    let (profile, score) = (params.profile, &done.chosen.score);
    let mut series = done.series;
    series.insert("class_iou".into(), report::class_curve(&score.full));
    let gallery = report::gallery(&task.test, &done.shown, &done.chosen, &names)?;
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
            ("epoch".into(), done.chosen.epoch as f64),
            ("last_miou".into(), done.last.score.full.miou(profile)),
            ("test_best_miou".into(), done.test_best.score.full.miou(profile)),
            ("test_best_epoch".into(), done.test_best.epoch as f64),
        ]),
        series,
        provenance: provenance(context, done.seen, seconds),
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
fn splits<'a>(
    context: &'a Context,
    params: &'a Params,
    input: Input,
    train: &Images,
    test: &Images,
) -> Result<Task<'a>> {
    let (learned, out) = finetune::split(context, train, &params.select, params.batch)?;
    let all = Pairs::check(context, train, "train", params.profile)?;
    let test = Pairs::check(context, test, "test", params.profile)?;
    all.warn(context, "train");
    test.warn(context, "test");
    let classes = all.pixels.len();
    if out.is_empty() {
        return Ok(Task { context, params, classes, input, train: all, held: None, test });
    }
    let held = all.only(out);
    let train = all.only(learned);
    // Where all of train is void, that is what is said.
    if held.most_frequent().is_none() && train.most_frequent().is_some() {
        return Err(
            "every pixel of what is held out is void, so no epoch can be chosen by it; use another `select.holdout.split_seed` or a \
                    larger `select.holdout.share`"
                .into(),
        );
    }
    Ok(Task { context, params, classes, input, train, held: Some(held), test })
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
