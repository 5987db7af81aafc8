//! The views of each step, prepared ahead on threads in a fixed order.

use std::panic::AssertUnwindSafe;

use harness_protocol::StepKind;
use harness_protocol::steps::pretrain::{Contrast, Pretrain as Params};
use harness_protocol::transform::Views;
use harness_views::loader::{Ordered, message, ordered_from};
use harness_views::{Recipe, ViewKey, views};

use crate::data::Pictures;
use crate::error::{Error, Result};
use crate::model::cost::Sides;
use crate::seed;

/// Prepared views of one step's pictures: bytes, each view row by row, RGB; pictures in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Which pictures.
    pub pictures: Vec<usize>,
    /// The first large crop of each.
    pub query: Vec<u8>,
    /// The second one; none where labels are learned from.
    pub key: Vec<u8>,
    /// The small crops of the first picture, then of the second…
    pub small: Vec<u8>,
}

/// Pictures that a thread prepares at a time: few enough that all threads work on the next batch.
const CHUNK: usize = 8;

/// Batches in the order of the steps. Three at most are in memory: one that waits, one being put together, one in parts.
pub struct Batches {
    ready: Ordered<Result<Batch>>,
}

impl Batches {
    /// From step `first` (counted over all epochs of `steps` steps) to the end, the rows of one of several ranks in each.
    pub fn new(
        pictures: &Pictures,
        params: &Params,
        steps: u64,
        first: u64,
        threads: usize,
        (rank, ranks): (usize, usize),
    ) -> Self {
        let (recipe, sides) = (recipe(params), sides(params));
        let (seed, whole, total) = (params.seed, params.batch as usize, params.epochs * steps);
        let batch = whole / ranks;
        let share = Share { whole, first: rank * batch, count: batch };
        let source = pictures.clone();
        let load = move |pieces: Vec<(u64, usize)>| -> Result<Batch> {
            let mut out = Batch::default();
            for (epoch, index) in pieces {
                let key = ViewKey { seed, kind: Params::KIND, epoch, picture: index as u64 };
                let made = guarded(source.path(index), || {
                    let picture = source.get(index)?;
                    Ok(views(&picture, &recipe, key))
                })?;
                out.pictures.push(index);
                for (at, view) in made.iter().enumerate() {
                    [&mut out.query, &mut out.key, &mut out.small][at.min(2)].extend_from_slice(&view.data);
                }
            }
            Ok(out)
        };
        let chunks = Chunks::new(seed, pictures.len(), share, steps, first..total);
        let bytes = [sides.large * sides.large, sides.large * sides.large, sides.count * sides.small * sides.small];
        Self::of(chunks, load, batch, bytes.map(|pixels| 3 * pixels as usize * batch), threads)
    }

    /// From pieces, each of which `load` makes on one of the threads.
    fn of<P: Send + 'static>(
        pieces: impl Iterator<Item = P> + Send + 'static,
        load: impl Fn(P) -> Result<Batch> + Send + Sync + 'static,
        batch: usize,
        bytes: [usize; 3],
        threads: usize,
    ) -> Self {
        let chunks = ordered_from(threads, batch.div_ceil(CHUNK) + threads, pieces, load);
        // On a thread of its own, so that whoever trains never waits for copies.
        Self { ready: ordered_from(1, 1, Joined { chunks, batch, bytes }, |batch| batch) }
    }

    /// The next step's views.
    ///
    /// # Errors
    /// A picture that is not the one any more that was looked at.
    pub fn next(&mut self) -> Result<Batch> {
        self.ready.next().ok_or("the loading threads ended early")??
    }
}

/// Which rows of every batch are a rank's.
#[derive(Clone, Copy)]
struct Share {
    /// Rows of the batch.
    whole: usize,
    /// The rank's first one.
    first: usize,
    /// How many it has.
    count: usize,
}

/// Pictures of each step in pieces: epoch and index of each.
struct Chunks {
    seed: u64,
    count: usize,
    share: Share,
    steps: u64,
    at: u64,
    end: u64,
    place: usize,
    order: Vec<usize>,
    epoch: Option<u64>,
}

impl Chunks {
    fn new(seed: u64, count: usize, share: Share, steps: u64, range: std::ops::Range<u64>) -> Self {
        Self { seed, count, share, steps, at: range.start, end: range.end, place: 0, order: Vec::new(), epoch: None }
    }
}

impl Iterator for Chunks {
    type Item = Vec<(u64, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.end {
            return None;
        }
        let (epoch, step) = (self.at / self.steps, (self.at % self.steps) as usize);
        if self.epoch != Some(epoch) {
            self.order = seed::permutation(self.seed, Params::KIND, "order", epoch, 0, self.count);
            self.epoch = Some(epoch);
        }
        let start = step * self.share.whole + self.share.first;
        let end = (self.place + CHUNK).min(self.share.count);
        let piece = self.order[start + self.place..start + end].iter().map(|&index| (epoch, index)).collect();
        self.place = end;
        if end == self.share.count {
            (self.at, self.place) = (self.at + 1, 0);
        }
        Some(piece)
    }
}

/// Pieces put together to batches.
struct Joined {
    chunks: Ordered<Result<Batch>>,
    batch: usize,
    bytes: [usize; 3],
}

impl Iterator for Joined {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut out = Batch::default();
        while out.pictures.len() < self.batch {
            let piece = match self.chunks.next()? {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Some(Err(error)),
                Err(panic) => return Some(Err(Error::Step(panic))),
            };
            if out.pictures.is_empty() {
                let [query, key, small] = self.bytes.map(Vec::with_capacity);
                out = Batch { pictures: Vec::with_capacity(self.batch), query, key, small };
            }
            out.pictures.extend(piece.pictures);
            out.query.extend_from_slice(&piece.query);
            out.key.extend_from_slice(&piece.key);
            out.small.extend_from_slice(&piece.small);
        }
        Some(Ok(out))
    }
}

/// Sides of the views that the parameters ask for.
pub fn sides(params: &Params) -> Sides {
    match &params.views {
        Views::TwoCrops(two) => Sides { large: two.size as i64, small: 0, count: 0 },
        Views::MultiCrop(multi) => {
            let (large, small) = (multi.large, multi.small);
            Sides { large: large.size as i64, small: small.size as i64, count: small.count as i64 }
        }
    }
}

/// The crops and augmentation of the parameters.
fn recipe(params: &Params) -> Recipe {
    let mut recipe = Recipe::of(&params.views, &params.augment);
    // Labels are learned from one view, the one that would be the query.
    if matches!(params.contrast, Contrast::Supervised(_)) {
        recipe.crops.truncate(1);
    }
    recipe
}

/// What `make` gives; if it panics, an error that names the picture.
fn guarded<T>(path: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|panic| Err(Error::Step(format!("making the views of `{path}`: {}", message(panic)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_picture_that_makes_the_code_panic_is_named() {
        let said = guarded::<()>("a/7.jpg", || panic!("out of bounds")).unwrap_err().to_string();
        assert_eq!(said, "making the views of `a/7.jpg`: out of bounds");
        assert_eq!(guarded("a/8.jpg", || Ok(3)).unwrap(), 3);
    }

    /// However slow whoever trains is, and however many pictures there are.
    #[test]
    fn a_bounded_number_of_batches_is_in_memory() {
        let (batch, threads) = (16, 3);
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let load = move |piece: Vec<usize>| {
            counter.fetch_add(piece.len(), Ordering::SeqCst);
            Ok(Batch { pictures: piece, ..Batch::default() })
        };
        let pieces = (0..1_000_000usize).step_by(CHUNK).map(|first| (first..first + CHUNK).collect());
        let mut batches = Batches::of(pieces, load, batch, [0; 3], threads);
        for taken in 1..=5 {
            let pictures = batches.next().unwrap().pictures;
            assert_eq!(pictures, ((taken - 1) * batch..taken * batch).collect::<Vec<_>>());
            std::thread::sleep(std::time::Duration::from_millis(30));
            // The one taken, the next one, and pieces of one more and of each thread.
            let most = (taken + 1) * batch + (batch.div_ceil(CHUNK) + threads) * CHUNK;
            assert!(begun.load(Ordering::SeqCst) <= most, "{} of {most}", begun.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn pieces_are_the_steps_of_each_epochs_order() {
        // 23 pictures, batches of 11: two steps an epoch, one picture left out of each; from the second step on.
        let whole = Share { whole: 11, first: 0, count: 11 };
        let pieces: Vec<Vec<(u64, usize)>> = Chunks::new(5, 23, whole, 2, 1..6).collect();
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [8, 3, 8, 3, 8, 3, 8, 3, 8, 3]);
        let flat: Vec<(u64, usize)> = pieces.concat();
        for at in 1..6u64 {
            let (epoch, step) = (at / 2, (at % 2) as usize);
            let order = seed::permutation(5, Params::KIND, "order", epoch, 0, 23);
            let wanted: Vec<(u64, usize)> = order[step * 11..step * 11 + 11].iter().map(|&i| (epoch, i)).collect();
            assert_eq!(flat[(at as usize - 1) * 11..at as usize * 11], wanted);
        }
    }

    #[test]
    fn ranks_share_every_batch_without_loss_or_repetition() {
        let of = |first, count| -> Vec<(u64, usize)> {
            Chunks::new(5, 50, Share { whole: 24, first, count }, 2, 0..4).collect::<Vec<_>>().concat()
        };
        let (whole, ranks) = (of(0, 24), [of(0, 12), of(12, 12)]);
        for step in 0..4 {
            let joined: Vec<(u64, usize)> =
                ranks.iter().flat_map(|rank| rank[step * 12..(step + 1) * 12].to_vec()).collect();
            assert_eq!(joined, whole[step * 24..(step + 1) * 24]);
        }
    }
}
