//! The vote as matrix products, for GPUs: queries go tile by tile, each tile against the window that its radius
//! reaches, so that neither memory nor much time is spent on what may not vote anyway.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use super::vote::{Rule, Voting};
use crate::error::Result;

/// Side of a tile of queries, positions.
const TILE: i64 = 12;
/// Added to the similarity of positions that must not vote, as in the published code.
const MASKED: f64 = -1e10;

/// A frame that can vote.
#[derive(Debug)]
struct Frame {
    /// [h, w, channels], each position of length 1.
    features: Tensor,
    /// [h, w, labels], soft.
    labels: Tensor,
}

impl Frame {
    /// Features and labels of a window, one row a position.
    fn window(&self, window: &Window) -> (Tensor, Tensor) {
        let cut = |map: &Tensor| {
            let part = map.narrow(0, window.top, window.height).narrow(1, window.left, window.width);
            part.reshape([window.height * window.width, map.size()[2]])
        };
        (cut(&self.features), cut(&self.labels))
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    top: i64,
    left: i64,
    height: i64,
    width: i64,
}

/// Queries that are answered together.
#[derive(Debug)]
struct Tile {
    queries: Window,
    reach: Window,
    /// [queries, reached positions]: true where a position is too far to vote.
    far: Tensor,
}

fn tiles(height: i64, width: i64, voting: &Voting, device: tch::Device) -> Vec<Tile> {
    let reach = (0..height.max(width)).take_while(|&dy| voting.reach(dy).is_some()).last().unwrap_or(0);
    let span = |start: i64, length: i64, side: i64| {
        let (low, high) = ((start - reach).max(0), (start + length + reach).min(side));
        (low, high - low)
    };
    let mut tiles = Vec::new();
    for top in (0..height).step_by(TILE as usize) {
        for left in (0..width).step_by(TILE as usize) {
            let queries = Window { top, left, height: TILE.min(height - top), width: TILE.min(width - left) };
            let (reach_top, reach_height) = span(top, queries.height, height);
            let (reach_left, reach_width) = span(left, queries.width, width);
            let reach = Window { top: reach_top, left: reach_left, height: reach_height, width: reach_width };
            let mut far = Vec::with_capacity((queries.height * queries.width * reach.height * reach.width) as usize);
            for qy in queries.top..queries.top + queries.height {
                for qx in queries.left..queries.left + queries.width {
                    for y in reach.top..reach.top + reach.height {
                        let wide = voting.reach(qy - y);
                        far.extend(
                            (reach.left..reach.left + reach.width)
                                .map(|x| wide.is_none_or(|wide| (qx - x).abs() > wide)),
                        );
                    }
                }
            }
            let shape = [queries.height * queries.width, reach.height * reach.width];
            let far = Tensor::from_slice(&far).reshape(shape).to_device(device);
            tiles.push(Tile { queries, reach, far });
        }
    }
    tiles
}

/// A video's first frame and the last ones, on any device.
#[derive(Debug)]
pub struct Tiles {
    voting: Voting,
    tiles: Vec<Tile>,
    first: Frame,
    /// The frames just before the next one, oldest first, the first frame of the video not among them.
    recent: VecDeque<Frame>,
    /// Number of the next frame.
    next: usize,
}

/// Features with length 1 at every position: [channels, h, w] to [h, w, channels].
fn unit(features: &Tensor) -> Tensor {
    let norm = features.norm_scalaropt_dim(2, [0i64].as_slice(), true).clamp_min(1e-12);
    (features / norm).permute([1, 2, 0]).contiguous()
}

impl Tiles {
    /// Starts with the first frame: features [channels, h, w] in fp32, labels [labels, h, w], soft.
    pub fn new(features: &Tensor, labels: &Tensor, voting: Voting) -> Self {
        let (height, width) = (features.size()[1], features.size()[2]);
        let tiles = tiles(height, width, &voting, features.device());
        let labels = labels.permute([1, 2, 0]).contiguous();
        Self { voting, tiles, first: Frame { features: unit(features), labels }, recent: VecDeque::new(), next: 1 }
    }

    /// Soft labels [labels, h, w] of the next frame, from its features [channels, h, w].
    ///
    /// # Errors
    /// libtorch's, such as features of another size.
    pub fn step(&mut self, features: &Tensor) -> Result<Tensor> {
        let features = unit(features);
        let labels = Tensor::zeros_like(&self.first.labels);
        for tile in &self.tiles {
            let Window { top, left, height, width } = tile.queries;
            let queries = features.f_narrow(0, top, height)?.f_narrow(1, left, width)?;
            let queries = queries.f_reshape([height * width, features.size()[2]])?;
            let votes = self.vote(&queries, tile)?.f_reshape([height, width, -1])?;
            labels.f_narrow(0, top, height)?.f_narrow(1, left, width)?.f_copy_(&votes)?;
        }
        let soft = labels.permute([2, 0, 1]).contiguous();
        self.recent.push_back(Frame { features, labels });
        if self.recent.len() > self.voting.context {
            self.recent.pop_front();
        }
        self.next += 1;
        Ok(soft)
    }

    /// Soft labels of a tile's queries [queries, channels]: [queries, labels].
    fn vote(&self, queries: &Tensor, tile: &Tile) -> Result<Tensor> {
        let voting = &self.voting;
        if voting.rule == Rule::Dino {
            return self.vote_dino(queries, tile);
        }
        let mut candidates = Candidates::default();
        // The first frame as a whole.
        let channels = queries.size()[1];
        let (all, labels) =
            (self.first.features.f_reshape([-1, channels])?, self.first.labels.f_reshape([-1, self.labels()])?);
        candidates.add(&queries.f_matmul(&all.tr())?, &labels, voting.top_k, 1)?;
        // Its copies that stand in for frames before the video's start. Each copy has candidates of its own.
        let copies = (voting.context + 1).saturating_sub(self.next);
        if copies > 0 {
            let (window, labels) = self.first.window(&tile.reach);
            let near = queries.f_matmul(&window.tr())?.f_masked_fill(&tile.far, MASKED)?;
            candidates.add(&near, &labels, voting.top_k, copies)?;
        }
        if !self.recent.is_empty() {
            let (windows, labels): (Vec<Tensor>, Vec<Tensor>) =
                self.recent.iter().map(|frame| frame.window(&tile.reach)).unzip();
            let far = tile.far.f_unsqueeze(1)?;
            let near = queries.f_matmul(&Tensor::f_cat(&windows, 0)?.tr())?;
            let near = near.f_view([far.size()[0], windows.len() as i64, far.size()[2]])?;
            let near = near.f_masked_fill(&far, MASKED)?.f_flatten(1, 2)?;
            candidates.add(&near, &Tensor::f_cat(&labels, 0)?, voting.top_k, 1)?;
        }
        candidates.decide(voting)
    }

    /// The vote of the `dino` rule: all positions at least as similar as the k-th most similar one.
    fn vote_dino(&self, queries: &Tensor, tile: &Tile) -> Result<Tensor> {
        let voting = &self.voting;
        let frames = std::iter::once(&self.first).chain(&self.recent);
        let (windows, labels): (Vec<Tensor>, Vec<Tensor>) = frames.map(|frame| frame.window(&tile.reach)).unzip();
        let far = tile.far.f_unsqueeze(1)?;
        let near = queries.f_matmul(&Tensor::f_cat(&windows, 0)?.tr())?;
        let near = near.f_view([far.size()[0], windows.len() as i64, far.size()[2]])?;
        let near = near.f_masked_fill(&far, MASKED)?.f_flatten(1, 2)?;
        let (best, _) = near.f_topk(voting.top_k.min(near.size()[1]), 1, true, true)?;
        let last = best.f_narrow(1, best.size()[1] - 1, 1)?;
        let kept = near.f_masked_fill(&near.f_less_tensor(&last)?, MASKED)?;
        let weights = (kept / voting.temperature).f_softmax(1, Kind::Float)?;
        Ok(weights.f_matmul(&Tensor::f_cat(&labels, 0)?)?)
    }

    fn labels(&self) -> i64 {
        self.first.labels.size()[2]
    }
}

/// The best candidates of each group of frames; the best of all are among them.
#[derive(Default)]
struct Candidates {
    /// [queries, candidates] each.
    similar: Vec<Tensor>,
    /// [queries, candidates, labels] each.
    labels: Vec<Tensor>,
}

impl Candidates {
    /// Adds the best of `similar` [queries, positions] with `labels` [positions, labels], `copies` times.
    fn add(&mut self, similar: &Tensor, labels: &Tensor, top_k: i64, copies: usize) -> Result<()> {
        let (best, places) = similar.f_topk(top_k.min(similar.size()[1]), 1, true, true)?;
        let chosen = labels.f_index_select(0, &places.f_reshape([-1])?)?;
        let chosen = chosen.f_reshape([best.size()[0], best.size()[1], labels.size()[1]])?;
        // More copies than candidates that can win change nothing.
        for _ in 0..copies.min(usize::try_from(top_k).unwrap_or(usize::MAX)) {
            self.similar.push(best.shallow_clone());
            self.labels.push(chosen.shallow_clone());
        }
        Ok(())
    }

    /// The vote of the best of all: Σ softmax(similarity / T) · label.
    fn decide(self, voting: &Voting) -> Result<Tensor> {
        let (similar, labels) = (Tensor::f_cat(&self.similar, 1)?, Tensor::f_cat(&self.labels, 1)?);
        let (best, places) = similar.f_topk(voting.top_k.min(similar.size()[1]), 1, true, true)?;
        let weights = (best / voting.temperature).f_softmax(1, Kind::Float)?.f_unsqueeze(2)?;
        let places = places.f_unsqueeze(2)?.f_expand([-1, -1, labels.size()[2]], false)?;
        Ok((weights * labels.f_gather(1, &places, false)?).f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
    }
}
