//! How well a network segments: confusion matrices at its input size and at the masks' own.

use std::sync::Arc;

use harness_protocol::steps::Profile;
use harness_views::IndexMask;
use harness_views::loader::ordered;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::metric::iou::Confusion;
use crate::steps::finetune::Shown;
use crate::steps::predict::{BATCH, Predictor};
use crate::steps::segment::augment::{mask_at, pair_at};
use crate::steps::segment::pairs::{Pair, Pairs};

/// What a network scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// At the network's input size.
    pub online: Confusion,
    /// At the masks' own size.
    pub full: Confusion,
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
}

/// Scores a network: the matrices at its input size and at the masks' own, and some predictions.
///
/// # Errors
/// Pairs that changed, scores that are not finite, cancelled, libtorch's.
pub fn score(predictor: Predictor, task: &Task) -> Result<(Score, Shown)> {
    let Task { square, classes, profile, .. } = *task;
    let total = task.pairs.len();
    let (mut online, mut full, mut shown) = (Confusion::new(classes), Confusion::new(classes), Shown::new());
    let source = task.pairs.clone();
    let seen = move |index: usize| -> Result<(Arc<Pair>, Option<Pair>)> {
        let pair = source.get(index)?;
        let small = square.map(|side| pair_at(&pair, side, side, profile));
        Ok((pair, small))
    };
    let pairs = ordered(predictor.context.threads(), 2 * BATCH, (0..total).collect(), seen);
    predictor.each(
        total,
        pairs,
        |(pair, small)| &small.as_ref().unwrap_or(pair).picture,
        |scores| Ok(scores.f_argmax(1, false)?.to_kind(Kind::Uint8)),
        |index, (pair, small), predicted| {
            let mut predicted = mask_of(&predicted)?;
            online.add(&small.as_ref().unwrap_or(&pair).mask.data, &predicted.data);
            let (width, height) = (pair.mask.width, pair.mask.height);
            if (predicted.width, predicted.height) != (width, height) {
                predicted = mask_at(&predicted, width, height, profile);
            }
            full.add(&pair.mask.data, &predicted.data);
            if task.shown.contains(&index) {
                let shape = [height as i64, width as i64];
                shown.insert(index, Tensor::f_from_data_size(&predicted.data, &shape, Kind::Uint8)?);
            }
            Ok(())
        },
    )?;
    Ok((Score { online, full }, shown))
}

/// A prediction as a mask: from [height, width] of bytes.
///
/// # Errors
/// It is no such tensor.
pub fn mask_of(predicted: &Tensor) -> Result<IndexMask> {
    let (height, width) = predicted.size2()?;
    let data = Vec::<u8>::try_from(predicted.f_reshape([-1])?)?;
    Ok(IndexMask { width: width as usize, height: height as usize, data })
}
