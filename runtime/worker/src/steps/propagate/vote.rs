//! Labels of a frame from labelled frames before it (videowalk, Jabri et al. 2020; DINO, Caron et al. 2021).
//!
//! Every position of the feature grid asks positions of the first frame and of the frames just before; the most similar
//! ones vote with their soft labels. On the CPU [`Rows`] computes what may vote and nothing else; elsewhere [`Tiles`]
//! does with matrix products.

use tch::{Device, Tensor};

use super::rows::Rows;
use super::tiles::Tiles;
use crate::error::Result;

/// Which positions may vote, and how votes are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The whole first frame; in the other frames what is less than the radius away (Euclidean). Before the video's
    /// start the first frame stands in for the missing ones, each copy with candidates of its own. Exactly `top_k` vote.
    Videowalk,
    /// Within a square of side 2 · radius + 1 in every frame, the first one too; nothing stands in for frames before
    /// the start. Whatever is at least as similar as the `top_k`-th candidate votes.
    Dino,
}

/// How frames vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voting {
    /// Who may vote.
    pub rule: Rule,
    /// Frames before this one that vote, beside the first.
    pub context: usize,
    /// How far voters may be away, in grid positions.
    pub radius: f64,
    /// Candidates that vote, out of all frames together.
    pub top_k: i64,
    /// Temperature of the softmax over their similarities.
    pub temperature: f64,
}

impl Voting {
    /// How many columns away a position may be that is `dy` rows away; none if that row is too far.
    pub fn reach(&self, dy: i64) -> Option<i64> {
        match self.rule {
            Rule::Videowalk => {
                let left = self.radius * self.radius - (dy * dy) as f64;
                // The largest whole number whose square is below `left`; capped, since grids are smaller anyway.
                (left > 0.0).then(|| {
                    let mut wide = left.min(1e12).sqrt().floor() as i64;
                    while (wide * wide) as f64 >= left {
                        wide -= 1;
                    }
                    wide
                })
            }
            Rule::Dino => (dy.abs() as f64 <= self.radius).then(|| self.radius.min(1e6).floor() as i64),
        }
    }

    /// How often the first frame stands in for frames before the start, for frame `next` of a video.
    pub fn copies(&self, next: usize) -> usize {
        match self.rule {
            Rule::Videowalk => (self.context + 1).saturating_sub(next),
            Rule::Dino => 0,
        }
    }
}

/// Carries labels through a video, frame by frame.
#[derive(Debug)]
pub enum Propagator {
    /// On the CPU.
    Rows(Rows),
    /// On any device.
    Tiles(Tiles),
}

impl Propagator {
    /// Starts with the first frame: features [channels, h, w] in fp32, labels [labels, h, w], soft. Results on the CPU
    /// do not depend on the number of threads.
    ///
    /// # Errors
    /// libtorch's, or threads that cannot be started.
    pub fn new(features: &Tensor, labels: &Tensor, voting: Voting, threads: usize) -> Result<Self> {
        match features.device() {
            Device::Cpu => Ok(Self::Rows(Rows::new(features, labels, voting, threads)?)),
            _ => Ok(Self::Tiles(Tiles::new(features, labels, voting))),
        }
    }

    /// Soft labels [labels, h, w] of the next frame, from its features [channels, h, w].
    ///
    /// # Errors
    /// libtorch's, such as features of another size.
    pub fn step(&mut self, features: &Tensor) -> Result<Tensor> {
        match self {
            Self::Rows(rows) => rows.step(features),
            Self::Tiles(tiles) => tiles.step(features),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// Added to the similarity of positions that must not vote, as in the published code.
    const MASKED: f64 = -1e10;

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

    /// Soft labels of all frames but the first: by rows, with three threads, and by tiles.
    fn run(features: &Tensor, labels: &Tensor, voting: Voting) -> [Vec<Tensor>; 2] {
        let first = features.get(0);
        [Propagator::new(&first, labels, voting, 3).unwrap(), Propagator::Tiles(Tiles::new(&first, labels, voting))]
            .map(|mut propagator| {
                (1..features.size()[0]).map(|frame| propagator.step(&features.get(frame)).unwrap()).collect()
            })
    }

    /// Numbers of two independent implementations of the published algorithm.
    #[test]
    fn golden_video() {
        let voting = Voting { rule: Rule::Videowalk, context: 2, radius: 2.5, top_k: 3, temperature: 0.05 };
        let features = waves([4, 3, 4, 5]).to_kind(Kind::Float);
        for frames in run(&features, &rectangle(4, 5, 1..3, 1..3), voting) {
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
    }

    /// The algorithms as published, all positions of all frames with a mask over them.
    fn plain(features: &Tensor, labels: &Tensor, voting: Voting) -> Vec<Tensor> {
        let (height, width) = (features.size()[2], features.size()[3]);
        let dino = voting.rule == Rule::Dino;
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
            .map(|((y, x), (v, u))| match dino {
                true => (y - v).abs().max((x - u).abs()) as f64 > voting.radius,
                false => ((y - v).pow(2) + (x - u).pow(2)) as f64 >= voting.radius.powi(2),
            })
            .collect();
        let far = Tensor::from_slice(&far).reshape([count, count]);
        let mut soft = vec![flat(labels)];
        for frame in 1..unit.len() {
            let mut context = vec![0];
            let before = frame as i64 - voting.context as i64..frame as i64;
            match dino {
                true => context.extend(before.filter(|&t| t > 0).map(|t| t as usize)),
                false => context.extend(before.map(|t| t.max(0) as usize)),
            }
            let similar: Vec<Tensor> = context
                .iter()
                .enumerate()
                .map(|(at, &other)| {
                    let similar = unit[frame].tr().matmul(&unit[other]);
                    if at == 0 && !dino { similar } else { similar.masked_fill(&far, MASKED) }
                })
                .collect();
            let labels: Vec<&Tensor> = context.iter().map(|&other| &soft[other]).collect();
            let (similar, labels) = (Tensor::cat(&similar, 1), Tensor::cat(&labels, 1));
            let (best, places) = similar.topk(voting.top_k, 1, true, true);
            soft.push(match dino {
                true => {
                    // exp, thresholded at the k-th value, normalised.
                    let weights = (&similar / voting.temperature).exp();
                    let (best, _) = weights.topk(voting.top_k, 1, true, true);
                    let least = best.min_dim(1, true).0;
                    let weights = weights.masked_fill(&weights.less_tensor(&least), 0.0);
                    let sum = weights.sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
                    labels.matmul(&(weights / sum).tr())
                }
                false => {
                    let weights = (best / voting.temperature).softmax(1, Kind::Float);
                    let chosen = labels.index_select(1, &places.reshape([-1])).reshape([-1, count, voting.top_k]);
                    (chosen * weights.unsqueeze(0)).sum_dim_intlist([2i64].as_slice(), false, Kind::Float)
                }
            });
        }
        soft[1..].iter().map(|map| map.reshape([-1, height, width])).collect()
    }

    #[test]
    fn computing_only_what_may_vote_changes_nothing() {
        let features = crate::seed::normal(3, "test", "features", &[9, 6, 17, 29], 1.0);
        let labels = rectangle(17, 29, 4..12, 8..22);
        let walk = [(3, 4.0, 7), (20, 2.5, 10), (1, 100.0, 5), (2, 0.5, 3)].map(|set| (Rule::Videowalk, set));
        let dino = [(3, 4.0, 7), (7, 2.0, 5), (1, 100.0, 5), (2, 0.5, 1)].map(|set| (Rule::Dino, set));
        for (rule, (context, radius, top_k)) in walk.into_iter().chain(dino) {
            let voting = Voting { rule, context, radius, top_k, temperature: 0.1 };
            let expected = plain(&features, &labels, voting);
            for ours in run(&features, &labels, voting) {
                for (frame, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
                    let off = (ours - expected).abs().max().double_value(&[]);
                    assert!(off < 1e-4, "frame {}: {off} with {voting:?}", frame + 1);
                }
            }
        }
    }

    /// Channels, widths and heights that are no multiple of anything.
    #[test]
    fn odd_sizes_are_computed_whole() {
        for (channels, height, width) in [(1, 1, 1), (3, 2, 5), (17, 5, 16), (5, 3, 33), (9, 30, 2)] {
            let features = crate::seed::normal(5, "test", "odd", &[4, channels, height, width], 1.0);
            let labels = rectangle(height, width, 0..1, 0..1);
            for rule in [Rule::Videowalk, Rule::Dino] {
                let voting = Voting { rule, context: 2, radius: 3.0, top_k: 1, temperature: 0.1 };
                // With one channel all similarities are 1 or -1, and any of the equal ones may win.
                if channels == 1 && rule == Rule::Videowalk && width * height > 1 {
                    continue;
                }
                let expected = plain(&features, &labels, voting);
                for ours in run(&features, &labels, voting) {
                    for (ours, expected) in ours.iter().zip(&expected) {
                        let off = (ours - expected).abs().max().double_value(&[]);
                        assert!(off < 1e-4, "{channels} x {height} x {width}, {rule:?}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let features = crate::seed::normal(6, "test", "features", &[5, 8, 13, 21], 1.0);
        let labels = rectangle(13, 21, 2..9, 3..12);
        let voting = Voting { rule: Rule::Videowalk, context: 3, radius: 4.0, top_k: 5, temperature: 0.05 };
        let all = |threads: usize| -> Vec<Tensor> {
            let mut propagator = Propagator::new(&features.get(0), &labels, voting, threads).unwrap();
            (1..5).map(|frame| propagator.step(&features.get(frame)).unwrap()).collect()
        };
        assert!(all(1).iter().zip(all(4)).all(|(one, four)| one.equal(&four)));
    }

    #[test]
    fn ties_all_vote_in_dino() {
        let features = Tensor::ones([2, 2, 3, 3], (Kind::Float, Device::Cpu));
        let voting = Voting { rule: Rule::Dino, context: 7, radius: 1.0, top_k: 1, temperature: 0.1 };
        for frames in run(&features, &rectangle(3, 3, 0..1, 0..3), voting) {
            let centre = frames[0].double_value(&[1, 1, 1]);
            assert!((centre - 3.0 / 9.0).abs() < 1e-6, "{centre}");
            let corner = frames[0].double_value(&[1, 0, 0]);
            assert!((corner - 2.0 / 4.0).abs() < 1e-6, "{corner}");
        }
    }

    #[test]
    fn reach_is_the_published_neighbourhood() {
        let voting = Voting { rule: Rule::Videowalk, context: 1, radius: 12.0, top_k: 1, temperature: 1.0 };
        let reach: Vec<Option<i64>> = (0..14).map(|dy| voting.reach(dy)).collect();
        let expected = [11, 11, 11, 11, 11, 10, 10, 9, 8, 7, 6, 4].map(Some);
        assert_eq!(reach[..12], expected);
        assert_eq!(reach[12..], [None, None]);
        let square = Voting { rule: Rule::Dino, ..voting };
        assert_eq!([0, -12, 12, 13].map(|dy| square.reach(dy)), [Some(12), Some(12), Some(12), None]);
    }

    #[test]
    fn a_still_video_keeps_its_labels() {
        let frame = crate::seed::normal(4, "test", "features", &[1, 16, 13, 14], 1.0);
        let features = frame.expand([5, 16, 13, 14], false);
        let labels = rectangle(13, 14, 3..9, 2..12);
        let voting = Voting { rule: Rule::Videowalk, context: 2, radius: 3.0, top_k: 3, temperature: 0.01 };
        for frame in run(&features, &labels, voting).into_iter().flatten() {
            assert!((frame - &labels).abs().max().double_value(&[]) < 1e-3);
        }
    }

    #[test]
    fn more_votes_than_candidates_are_all_candidates() {
        let voting = Voting { rule: Rule::Videowalk, context: 1, radius: 1.5, top_k: 1000, temperature: 1.0 };
        let features = Tensor::ones([2, 2, 3, 3], (Kind::Float, Device::Cpu));
        for frames in run(&features, &rectangle(3, 3, 0..1, 0..3), voting) {
            // Equal similarities: the centre averages the whole first frame and its own copy around it.
            let centre = frames[0].double_value(&[1, 1, 1]);
            assert!((centre - (3.0 + 3.0) / (9.0 + 9.0)).abs() < 1e-6, "{centre}");
        }
    }
}
