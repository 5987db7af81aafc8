//! The vote on the CPU, row by row: similarities are computed for the positions that may vote, a strip of keys at a
//! time, and those that cannot be among the best are dropped at once. Exact, and nothing of the size of an affinity
//! matrix is ever held.

use std::collections::VecDeque;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Kind, Tensor};

use super::vote::{Rule, Voting};
use crate::error::Result;

/// Queries in a row that are compared together.
const QUERIES: usize = 6;
/// Keys in a row that are compared together.
const LANES: usize = 16;

/// Similarities of [`QUERIES`] queries with [`LANES`] keys.
type Block = [[f32; LANES]; QUERIES];

/// Sums of products over channels. `queries` is [channels, QUERIES]; `keys` starts at the first key of the strip, and
/// the same key's next channel lies `stride` numbers further on.
type Compare = fn(queries: &[f32], keys: &[f32], stride: usize, sums: &mut Block);

#[inline(always)]
fn compare(queries: &[f32], keys: &[f32], stride: usize, sums: &mut Block, add: impl Fn(f32, f32, f32) -> f32) {
    let mut block: Block = [[0.0; LANES]; QUERIES];
    for (query, keys) in queries.chunks_exact(QUERIES).zip(keys.chunks(stride)) {
        let Some(keys) = keys.first_chunk::<LANES>() else { break };
        for (sums, &query) in block.iter_mut().zip(query) {
            for (sum, &key) in sums.iter_mut().zip(keys) {
                *sum = add(query, key, *sum);
            }
        }
    }
    *sums = block;
}

fn compare_anywhere(queries: &[f32], keys: &[f32], stride: usize, sums: &mut Block) {
    compare(queries, keys, stride, sums, |query, key, sum| query * key + sum);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn compare_avx2(queries: &[f32], keys: &[f32], stride: usize, sums: &mut Block) {
    compare(queries, keys, stride, sums, f32::mul_add);
}

/// The fastest comparison that this processor can do. Products are rounded once where it has fused multiply-add, twice
/// where it has not, so the last digits differ between such machines.
fn fastest() -> Compare {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return |queries, keys, stride, sums| {
            // SAFETY: the processor has both features, as was just asked.
            unsafe { compare_avx2(queries, keys, stride, sums) }
        };
    }
    compare_anywhere
}

/// A frame that can vote.
#[derive(Debug)]
struct Frame {
    /// [h, channels, stride] and [`LANES`] more, each position of length 1.
    keys: Vec<f32>,
    /// [h, w, labels], soft.
    labels: Vec<f32>,
}

/// A video's first frame and the last ones, in memory.
#[derive(Debug)]
pub struct Rows {
    voting: Voting,
    height: usize,
    width: usize,
    channels: usize,
    labels: usize,
    /// Numbers from one channel of a row of positions to the next.
    stride: usize,
    first: Frame,
    /// The frames just before the next one, oldest first, the first frame of the video not among them.
    recent: VecDeque<Frame>,
    /// Number of the next frame.
    next: usize,
    compare: Compare,
    pool: ThreadPool,
}

impl Rows {
    /// Starts with the first frame: features [channels, h, w] in fp32, labels [labels, h, w], soft.
    ///
    /// # Errors
    /// libtorch's, or threads that cannot be started.
    pub fn new(features: &Tensor, labels: &Tensor, voting: Voting, threads: usize) -> Result<Self> {
        let side = |map: &Tensor, at: usize| map.size()[at] as usize;
        let (channels, height, width) = (side(features, 0), side(features, 1), side(features, 2));
        let pool = ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let mut rows = Self {
            voting,
            height,
            width,
            channels,
            labels: side(labels, 0),
            stride: width.max(LANES),
            first: Frame { keys: Vec::new(), labels: numbers(&labels.f_permute([1, 2, 0])?)? },
            recent: VecDeque::new(),
            next: 1,
            compare: fastest(),
            pool: pool.map_err(|error| format!("threads cannot be started: {error}"))?,
        };
        rows.first.keys = rows.keys(features)?;
        Ok(rows)
    }

    /// Soft labels [labels, h, w] of the next frame, from its features [channels, h, w].
    ///
    /// # Errors
    /// libtorch's, such as features of another size.
    pub fn step(&mut self, features: &Tensor) -> Result<Tensor> {
        let keys = self.keys(features)?;
        let mut labels = vec![0.0; self.height * self.width * self.labels];
        self.pool.install(|| {
            let rows = labels.par_chunks_mut(self.width * self.labels).enumerate();
            rows.for_each(|(y, row)| self.vote(y, &keys, row));
        });
        let shape = [self.height as i64, self.width as i64, self.labels as i64];
        let soft = Tensor::f_from_slice(&labels)?.f_view(shape)?.f_permute([2, 0, 1])?.f_contiguous()?;
        self.recent.push_back(Frame { keys, labels });
        if self.recent.len() > self.voting.context {
            self.recent.pop_front();
        }
        self.next += 1;
        Ok(soft)
    }

    /// Features [channels, h, w] with length 1 at every position, as [`Frame::keys`] has them.
    fn keys(&self, features: &Tensor) -> Result<Vec<f32>> {
        let shape = [self.channels, self.height, self.width].map(|side| side as i64);
        if features.size() != shape {
            return Err(format!("features of {:?} in a video whose first ones are {shape:?}", features.size()).into());
        }
        let norm = features.f_norm_scalaropt_dim(2, [0i64].as_slice(), true)?.f_clamp_min(1e-12)?;
        let unit = (features / norm).f_permute([1, 0, 2])?;
        let pad = (self.stride - self.width) as i64;
        let mut keys = numbers(&unit.f_constant_pad_nd([0, pad])?)?;
        keys.resize(keys.len() + LANES, 0.0);
        Ok(keys)
    }

    /// Soft labels [w, labels] of row `y` of the frame with these keys.
    fn vote(&self, y: usize, keys: &[f32], labels: &mut [f32]) {
        let queries = self.queries(&keys[y * self.channels * self.stride..]);
        let mut best: Vec<Best> = (0..self.width).map(|_| Best::new(&self.voting)).collect();
        // The newest frames first: the most similar positions are mostly there, and the sooner they are known, the
        // fewer others are looked at twice.
        for (at, frame) in self.recent.iter().enumerate().rev() {
            for (row, wide) in self.near(y) {
                self.strip(frame, at + 1, row, &queries, Some(wide), 1, &mut best);
            }
        }
        match self.voting.rule {
            Rule::Dino => {
                for (row, wide) in self.near(y) {
                    self.strip(&self.first, 0, row, &queries, Some(wide), 1, &mut best);
                }
            }
            Rule::Videowalk => {
                let copies = self.voting.copies(self.next);
                if copies > 0 {
                    for (row, wide) in self.near(y) {
                        self.strip(&self.first, 0, row, &queries, Some(wide), copies, &mut best);
                    }
                }
                for row in 0..self.height {
                    self.strip(&self.first, 0, row, &queries, None, 1, &mut best);
                }
            }
        }
        for (best, out) in best.into_iter().zip(labels.chunks_exact_mut(self.labels)) {
            for (weight, frame, place) in best.decide(self.voting.temperature) {
                let frame = if frame == 0 { &self.first } else { &self.recent[frame as usize - 1] };
                let label = &frame.labels[place as usize * self.labels..][..self.labels];
                out.iter_mut().zip(label).for_each(|(sum, &label)| *sum += weight * label);
            }
        }
    }

    /// Rows that reach row `y`, each with how many columns away a position of it may be.
    fn near(&self, y: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.height).filter_map(move |row| Some((row, self.voting.reach(row as i64 - y as i64)? as usize)))
    }

    /// Queries of a row of keys, packed: for every [`QUERIES`] in a row, [channels, QUERIES]; 0 past the end.
    fn queries(&self, row: &[f32]) -> Vec<f32> {
        let tiles = self.width.div_ceil(QUERIES);
        let mut packed = vec![0.0; tiles * self.channels * QUERIES];
        for (tile, packed) in packed.chunks_exact_mut(self.channels * QUERIES).enumerate() {
            let left = tile * QUERIES;
            let count = QUERIES.min(self.width - left);
            for (channel, packed) in packed.chunks_exact_mut(QUERIES).enumerate() {
                packed[..count].copy_from_slice(&row[channel * self.stride + left..][..count]);
            }
        }
        packed
    }

    /// Offers the keys of row `row` of a frame, up to `wide` columns away or all, `copies` times each.
    #[expect(clippy::too_many_arguments, reason = "what is compared with what, once, in the innermost loop")]
    fn strip(
        &self,
        frame: &Frame,
        number: usize,
        row: usize,
        queries: &[f32],
        wide: Option<usize>,
        copies: usize,
        best: &mut [Best],
    ) {
        let keys = &frame.keys[row * self.channels * self.stride..];
        let size = self.channels * QUERIES;
        let mut block = [[0.0; LANES]; QUERIES];
        for ((tile, best), queries) in best.chunks_mut(QUERIES).enumerate().zip(queries.chunks_exact(size)) {
            let left = tile * QUERIES;
            // Columns that a query at `x` may ask.
            let span = |x: usize| match wide {
                Some(wide) => (x.saturating_sub(wide), (x + wide + 1).min(self.width)),
                None => (0, self.width),
            };
            let (from, to) = (span(left).0, span(left + best.len() - 1).1);
            for start in (from..to).step_by(LANES) {
                (self.compare)(queries, &keys[start..], self.stride, &mut block);
                for (at, (best, sums)) in best.iter_mut().zip(&block).enumerate() {
                    // Most strips hold nothing of use to a query; this one look tells.
                    if !sums.iter().fold(false, |any, &sum| any | (sum >= best.floor)) {
                        continue;
                    }
                    let (from, to) = span(left + at);
                    let (from, to) = (from.max(start), to.min(start + LANES));
                    for x in from..to {
                        if sums[x - start] >= best.floor {
                            best.offer(sums[x - start], number, row * self.width + x, copies);
                        }
                    }
                }
            }
        }
    }
}

/// The numbers of a tensor in reading order.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::<f32>::try_from(tensor.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?)?)
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    similar: f32,
    frame: u32,
    place: u32,
}

/// The best candidates of a query so far.
#[derive(Debug)]
struct Best {
    wanted: usize,
    /// Whether whatever equals the last of the wanted ones counts too.
    ties: bool,
    /// What is less similar cannot be among the wanted ones.
    floor: f32,
    /// The wanted ones and some more.
    found: Vec<Candidate>,
    /// How many may be held before the useless ones are dropped.
    room: usize,
}

impl Best {
    fn new(voting: &Voting) -> Self {
        let wanted = usize::try_from(voting.top_k).unwrap_or(1).max(1);
        let room = wanted.saturating_mul(2).saturating_add(LANES);
        Self { wanted, ties: voting.rule == Rule::Dino, floor: f32::NEG_INFINITY, found: Vec::new(), room }
    }

    fn offer(&mut self, similar: f32, frame: usize, place: usize, copies: usize) {
        // More copies than candidates that can win change nothing.
        for _ in 0..copies.min(self.wanted) {
            self.found.push(Candidate { similar, frame: frame as u32, place: place as u32 });
        }
        if self.found.len() >= self.room {
            self.drop_useless();
        }
    }

    fn drop_useless(&mut self) {
        if self.found.len() <= self.wanted {
            return;
        }
        let order = |a: &Candidate, b: &Candidate| {
            b.similar.total_cmp(&a.similar).then((a.frame, a.place).cmp(&(b.frame, b.place)))
        };
        let (_, last, _) = self.found.select_nth_unstable_by(self.wanted - 1, order);
        self.floor = last.similar;
        if self.ties {
            let floor = self.floor;
            self.found.retain(|candidate| candidate.similar >= floor);
            self.room = self.room.max(2 * self.found.len());
        } else {
            self.found.truncate(self.wanted);
        }
    }

    /// Weight, frame and position of those that vote: softmax(similarity / temperature), best first.
    fn decide(mut self, temperature: f64) -> impl Iterator<Item = (f32, u32, u32)> {
        self.drop_useless();
        let order = |c: &Candidate| (c.frame, c.place);
        self.found.sort_unstable_by(|a, b| b.similar.total_cmp(&a.similar).then(order(a).cmp(&order(b))));
        let top = self.found.first().map_or(0.0, |best| f64::from(best.similar));
        let weight = move |c: &Candidate| ((f64::from(c.similar) - top) / temperature).exp();
        let sum: f64 = self.found.iter().map(weight).sum();
        self.found.into_iter().map(move |c| ((weight(&c) / sum) as f32, c.frame, c.place))
    }
}
