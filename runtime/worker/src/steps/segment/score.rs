//! How well a network segments: confusion matrices at its input size and at the masks' own, without a tensor of it moving.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness_protocol::steps::Profile;
use harness_views::IndexMask;
use harness_views::loader::ordered;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::guard::{Guard, finite};
use crate::metric::iou::Confusion;
use crate::model::{Mode, Segmenter};
use crate::steps::segment::augment::{mask_at, pair_at};
use crate::steps::segment::pairs::{Pair, Pairs};

/// Pictures in a forward pass of the evaluation, at most. Fixed, so that numbers do not depend on the training batch.
const BATCH: usize = 8;
/// Pixels in a forward pass, at most (a single picture may have more): eight squares of 512.
const PIXELS: usize = 8 * 512 * 512;

/// What a network scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Epoch of the network, from 1.
    pub epoch: u64,
    /// At the network's input size.
    pub online: Confusion,
    /// At the masks' own size.
    pub full: Confusion,
}

/// Predictions at the masks' own size, by number of the pair.
pub type Shown = BTreeMap<usize, IndexMask>;

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

/// What is scored and how.
pub struct Task<'a> {
    /// The pairs.
    pub pairs: &'a Pairs,
    /// Side of the squares that the network sees; none: pictures as they are.
    pub square: Option<usize>,
    /// Number of classes.
    pub classes: usize,
    /// How sizes change.
    pub profile: Profile,
    /// Numbers of the pairs whose predictions are wanted.
    pub shown: &'a [usize],
    /// What progress is called.
    pub stage: &'a str,
}

/// Scores a network in eval mode: the matrices at its input size and at the masks' own, and some predictions.
///
/// # Errors
/// Pairs that changed, scores that are not finite, cancelled, libtorch's.
pub fn score(
    context: &Context,
    network: &Segmenter,
    input: &Input,
    task: &Task,
) -> Result<(Confusion, Confusion, Shown)> {
    let Task { square, classes, profile, .. } = *task;
    let total = task.pairs.len();
    let (mut online, mut full, mut shown) = (Confusion::new(classes), Confusion::new(classes), Shown::new());
    let (source, threads) = (task.pairs.clone(), context.threads());
    let seen = move |index: usize| -> Result<(Arc<Pair>, Option<Pair>)> {
        let pair = source.get(index)?;
        let small = square.map(|side| pair_at(&pair, side, side, profile));
        Ok((pair, small))
    };
    let pairs = ordered(threads, 2 * BATCH, (0..total).collect(), seen);
    let guard = Guard::new(&network.store);
    let mut waiting: Vec<(Arc<Pair>, Option<Pair>)> = Vec::new();
    let mut done = 0;
    let mut pairs = pairs.peekable();
    while let Some(next) = pairs.next() {
        waiting.push(next??);
        let size = |(pair, small): &(Arc<Pair>, Option<Pair>)| {
            let picture = &small.as_ref().unwrap_or(pair).picture;
            (picture.width, picture.height)
        };
        let (width, height) = size(&waiting[0]);
        let room = (PIXELS / (width * height).max(1)).clamp(1, BATCH);
        let alike = matches!(pairs.peek(), Some(Ok(Ok(next))) if size(next) == (width, height));
        if alike && waiting.len() < room {
            continue;
        }
        context.check_cancelled()?;
        let bytes: Vec<u8> =
            waiting.iter().flat_map(|(pair, small)| &small.as_ref().unwrap_or(pair).picture.data).copied().collect();
        let scores = no_grad(|| Ok::<_, Error>(network.forward(&input.tensor(&bytes, width, height)?, Mode::Eval)))?;
        if !finite(&scores) {
            return Err("the network gives scores that are not finite; lower `optimizer.lr`".into());
        }
        let predicted = scores.f_argmax(1, false)?.to_kind(Kind::Uint8).f_to_device(Device::Cpu)?;
        for (at, (pair, small)) in waiting.drain(..).enumerate() {
            let data = Vec::<u8>::try_from(predicted.get(at as i64).f_reshape([-1])?)?;
            let mut predicted = IndexMask { width, height, data };
            online.add(&small.as_ref().unwrap_or(&pair).mask.data, &predicted.data);
            if (pair.mask.width, pair.mask.height) != (width, height) {
                predicted = mask_at(&predicted, pair.mask.width, pair.mask.height, profile);
            }
            full.add(&pair.mask.data, &predicted.data);
            if task.shown.contains(&done) {
                shown.insert(done, predicted);
            }
            done += 1;
        }
        context.progress(task.stage, done as u64, total as u64, "pictures");
    }
    guard.check()?;
    Ok((online, full, shown))
}
