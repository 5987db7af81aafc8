//! Labels of a frame from labelled frames before it (videowalk, Jabri et al. 2020, `test.py`).
//!
//! Every position of the feature grid asks all positions of the first frame and those within a radius in the frames
//! just before; the most similar ones vote with their soft labels. Queries go tile by tile, each against the window
//! that its radius reaches, so that neither memory nor time is spent on what is masked out anyway.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use crate::error::Result;

/// Side of a tile of queries, positions.
const TILE: i64 = 12;
/// Added to the similarity of positions that must not vote, as in the published code.
const MASKED: f64 = -1e10;

/// How frames vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voting {
    /// Frames before this one that vote, beside the first; before the video's start they are copies of the first.
    pub context: usize,
    /// Positions at this Euclidean distance or farther do not vote, except in the first frame. In grid positions.
    pub radius: f64,
    /// Candidates that vote, out of all frames together.
    pub top_k: i64,
    /// Temperature of the softmax over their similarities.
    pub temperature: f64,
}

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
    /// [queries, reached positions]: true where the distance is the radius or more.
    far: Tensor,
}

fn tiles(height: i64, width: i64, radius: f64, device: tch::Device) -> Vec<Tile> {
    // Largest whole distance below the radius.
    let reach = (radius.min((height + width) as f64).ceil() as i64 - 1).max(0);
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
                        for x in reach.left..reach.left + reach.width {
                            far.push(((qy - y).pow(2) + (qx - x).pow(2)) as f64 >= radius * radius);
                        }
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

/// Carries labels through a video, frame by frame.
#[derive(Debug)]
pub struct Propagator {
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

impl Propagator {
    /// Starts with the first frame: features [channels, h, w] in fp32, labels [labels, h, w], soft.
    pub fn new(features: &Tensor, labels: &Tensor, voting: Voting) -> Self {
        let (height, width) = (features.size()[1], features.size()[2]);
        let tiles = tiles(height, width, voting.radius, features.device());
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// sin(0.37·i + 0.11·i^1.5) row by row over [frames, channels, h, w], computed in double precision.
    fn waves(shape: [i64; 4]) -> Tensor {
        let count = shape.iter().product::<i64>();
        let value = |i: i64| (0.37 * i as f64 + 0.11 * (i as f64).powf(1.5)).sin();
        Tensor::from_slice(&(0..count).map(value).collect::<Vec<f64>>()).reshape(shape)
    }

    /// One-hot labels [2, h, w] of a rectangle.
    fn rectangle(height: i64, width: i64, rows: std::ops::Range<i64>, columns: std::ops::Range<i64>) -> Tensor {
        let inside = |i: i64| rows.contains(&(i / width)) && columns.contains(&(i % width));
        let object: Vec<f32> = (0..height * width).map(|i| f32::from(u8::from(inside(i)))).collect();
        let object = Tensor::from_slice(&object).reshape([height, width]);
        Tensor::stack(&[1.0 - &object, object], 0)
    }

    fn run(features: &Tensor, labels: &Tensor, voting: Voting) -> Vec<Tensor> {
        let mut propagator = Propagator::new(&features.get(0), labels, voting);
        (1..features.size()[0]).map(|frame| propagator.step(&features.get(frame)).unwrap()).collect()
    }

    /// Numbers of two independent implementations of the published algorithm.
    #[test]
    fn golden_video() {
        let voting = Voting { context: 2, radius: 2.5, top_k: 3, temperature: 0.05 };
        let features = waves([4, 3, 4, 5]).to_kind(Kind::Float);
        let frames = run(&features, &rectangle(4, 5, 1..3, 1..3), voting);
        for (frame, expected) in frames.iter().zip([4.089318, 4.214499, 5.165817]) {
            let sum = frame.get(1).sum(Kind::Double).double_value(&[]);
            assert!((sum - expected).abs() < 1e-5, "{sum} instead of {expected}");
            let total = frame.sum(Kind::Double).double_value(&[]);
            assert!((total - 20.0).abs() < 1e-4, "labels of a position add up to 1: {total}");
        }
        let row = Vec::<f32>::try_from(frames[2].get(1).get(0)).unwrap();
        for (value, expected) in row.iter().zip([0.985698, 0.0, 0.562961, 0.525696, 0.0]) {
            assert!((value - expected).abs() < 1e-5, "{row:?}");
        }
    }

    /// The algorithm as published, all frames against all positions, without tiles.
    fn plain(features: &Tensor, labels: &Tensor, voting: Voting) -> Vec<Tensor> {
        let (height, width) = (features.size()[2], features.size()[3]);
        let flat = |map: &Tensor| map.reshape([map.size()[0], -1]);
        let unit: Vec<Tensor> = (0..features.size()[0])
            .map(|frame| {
                let map = flat(&features.get(frame));
                &map / map.norm_scalaropt_dim(2, [0i64].as_slice(), true)
            })
            .collect();
        let place = |index: i64| (index / width, index % width);
        let count = height * width;
        let far: Vec<bool> = (0..count * count)
            .map(|i| (place(i / count), place(i % count)))
            .map(|((y, x), (v, u))| ((y - v).pow(2) + (x - u).pow(2)) as f64 >= voting.radius.powi(2))
            .collect();
        let far = Tensor::from_slice(&far).reshape([count, count]);
        let mut soft = vec![flat(labels)];
        for frame in 1..unit.len() {
            let mut context = vec![0];
            context.extend((frame as i64 - voting.context as i64..frame as i64).map(|t| t.max(0) as usize));
            let similar: Vec<Tensor> = context
                .iter()
                .enumerate()
                .map(|(at, &other)| {
                    let similar = unit[frame].tr().matmul(&unit[other]);
                    if at == 0 { similar } else { similar.masked_fill(&far, MASKED) }
                })
                .collect();
            let labels: Vec<&Tensor> = context.iter().map(|&other| &soft[other]).collect();
            let (best, places) = Tensor::cat(&similar, 1).topk(voting.top_k, 1, true, true);
            let weights = (best / voting.temperature).softmax(1, Kind::Float);
            let all = Tensor::cat(&labels, 1);
            let chosen = all.index_select(1, &places.reshape([-1])).reshape([-1, count, voting.top_k]);
            soft.push((chosen * weights.unsqueeze(0)).sum_dim_intlist([2i64].as_slice(), false, Kind::Float));
        }
        soft[1..].iter().map(|map| map.reshape([-1, height, width])).collect()
    }

    #[test]
    fn tiles_change_nothing() {
        let features = crate::seed::normal(3, "features", &[9, 6, 17, 29], 1.0);
        let labels = rectangle(17, 29, 4..12, 8..22);
        for (context, radius, top_k) in [(3, 4.0, 7), (20, 2.5, 10), (1, 100.0, 5), (2, 0.5, 3)] {
            let voting = Voting { context, radius, top_k, temperature: 0.1 };
            let (ours, expected) = (run(&features, &labels, voting), plain(&features, &labels, voting));
            for (frame, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
                let off = (ours - expected).abs().max().double_value(&[]);
                assert!(off < 1e-4, "frame {}: {off} with {voting:?}", frame + 1);
            }
        }
    }

    #[test]
    fn a_still_video_keeps_its_labels() {
        let frame = crate::seed::normal(4, "features", &[1, 16, 13, 14], 1.0);
        let features = frame.expand([5, 16, 13, 14], false);
        let labels = rectangle(13, 14, 3..9, 2..12);
        let voting = Voting { context: 2, radius: 3.0, top_k: 3, temperature: 0.01 };
        for frame in run(&features, &labels, voting) {
            assert!((frame - &labels).abs().max().double_value(&[]) < 1e-3);
        }
    }

    #[test]
    fn more_votes_than_candidates_are_all_candidates() {
        let voting = Voting { context: 1, radius: 1.5, top_k: 1000, temperature: 1.0 };
        let features = Tensor::ones([2, 2, 3, 3], (Kind::Float, Device::Cpu));
        let frames = run(&features, &rectangle(3, 3, 0..1, 0..3), voting);
        // Equal similarities: the centre averages the whole first frame and its own copy around it.
        let centre = frames[0].double_value(&[1, 1, 1]);
        assert!((centre - (3.0 + 3.0) / (9.0 + 9.0)).abs() < 1e-6, "{centre}");
    }
}
