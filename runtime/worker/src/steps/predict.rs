//! What a dense network predicts for many pictures, in batches of one size, without a tensor of it moving.

use harness_views::Picture;
use harness_views::loader::Ordered;
use tch::{Device, Tensor, no_grad};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::guard::{Guard, finite};
use crate::model::{Mode, Segmenter};
use crate::steps::finetune::Input;

/// Pictures in a forward pass of the evaluation, at most. Fixed, so that numbers do not depend on the training batch.
pub const BATCH: usize = 8;
/// Pixels in a forward pass, at most (a single picture may have more): eight squares of 512.
const PIXELS: usize = 8 * 512 * 512;

/// A network and how pictures go into it.
#[derive(Clone, Copy)]
pub struct Predictor<'a> {
    /// The job.
    pub context: &'a Context<'a>,
    /// The network, in eval mode.
    pub network: &'a Segmenter,
    /// How pictures are normalised.
    pub input: &'a Input,
    /// What progress is called.
    pub stage: &'a str,
}

impl Predictor<'_> {
    /// Calls `take` with each of the `total` items in order, its number, and what `reduce` makes of its batch's scores
    /// ([n, scores, h, w] to [n, h, w]) for it, on the CPU.
    ///
    /// # Errors
    /// Those of the items and of `take`, scores that are not finite, cancelled, libtorch's.
    pub fn each<T>(
        self,
        total: usize,
        items: Ordered<Result<T>>,
        picture: impl Fn(&T) -> &Picture,
        reduce: impl Fn(&Tensor) -> Result<Tensor>,
        mut take: impl FnMut(usize, T, Tensor) -> Result<()>,
    ) -> Result<()> {
        let guard = Guard::new(&self.network.store);
        let size = |item: &T| (picture(item).width, picture(item).height);
        let (mut waiting, mut done): (Vec<T>, usize) = (Vec::new(), 0);
        let mut items = items.peekable();
        while let Some(next) = items.next() {
            waiting.push(next??);
            let (width, height) = size(&waiting[0]);
            let room = (PIXELS / (width * height).max(1)).clamp(1, BATCH);
            let alike = matches!(items.peek(), Some(Ok(Ok(next))) if size(next) == (width, height));
            if alike && waiting.len() < room {
                continue;
            }
            self.context.check_cancelled()?;
            let bytes: Vec<u8> = waiting.iter().flat_map(|item| &picture(item).data).copied().collect();
            let x = self.input.tensor(&bytes, width, height)?;
            let scores = no_grad(|| self.network.forward(&x, Mode::Eval));
            if !finite(&scores) {
                return Err(Error::from("the network gives scores that are not finite; lower `optimizer.lr`"));
            }
            let reduced = reduce(&scores)?.f_to_device(Device::Cpu)?;
            for (at, item) in waiting.drain(..).enumerate() {
                take(done, item, reduced.f_get(at as i64)?.contiguous())?;
                done += 1;
            }
            self.context.progress(self.stage, done as u64, total as u64, "pictures");
        }
        guard.check()
    }
}
