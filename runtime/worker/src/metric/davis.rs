//! J, F and their statistics over a video's frames (davis2017-evaluation, semi-supervised; Pont-Tuset et al. 2017).

use serde::{Deserialize, Serialize};

use super::bitmap::Bitmap;

/// Region similarity J: intersection over union of prediction and truth, 1 when both are empty. 0..1.
pub fn region(predicted: &Bitmap, truth: &Bitmap) -> f64 {
    let union = predicted.count_or(truth);
    if union == 0 { 1.0 } else { predicted.count_and(truth) as f64 / union as f64 }
}

/// Distance in pixels at which boundaries still match: ⌈0.008 · diagonal⌉, 8 at 854 × 480.
pub fn tolerance(width: usize, height: usize) -> usize {
    // Not `hypot`: the evaluation takes the root of the sum of squares.
    (0.008 * ((height * height + width * width) as f64).sqrt()).ceil() as usize
}

/// A mask with its boundary and what lies near that: what J and F need of it, however many masks it is compared with.
#[derive(Clone, Debug)]
pub struct Outline {
    map: Bitmap,
    boundary: Bitmap,
    /// Pixels of the boundary.
    length: u64,
    /// All pixels within the tolerance of the boundary.
    near: Bitmap,
}

impl Outline {
    /// Of a mask, with the tolerance of its size.
    pub fn of(map: Bitmap) -> Self {
        let boundary = map.boundary();
        let length = boundary.count();
        let near = if length == 0 { boundary.clone() } else { boundary.dilate(tolerance(map.width(), map.height())) };
        Self { map, boundary, length, near }
    }

    /// Region similarity J of this mask as a prediction of `truth`: intersection over union, 1 when both are empty.
    pub fn region(&self, truth: &Self) -> f64 {
        region(&self.map, &truth.map)
    }

    /// Boundary accuracy F of this mask as a prediction of `truth`: the harmonic mean of the shares of either boundary
    /// that lie within [`tolerance`] of the other. 0..1.
    pub fn contour(&self, truth: &Self) -> f64 {
        let (precision, recall) = match (self.length, truth.length) {
            (0, 0) => (1.0, 1.0),
            (0, _) => (1.0, 0.0),
            (_, 0) => (0.0, 1.0),
            _ => (
                self.boundary.count_and(&truth.near) as f64 / self.length as f64,
                truth.boundary.count_and(&self.near) as f64 / truth.length as f64,
            ),
        };
        if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
    }
}

/// Boundary accuracy F, see [`Outline::contour`].
pub fn contour(predicted: &Bitmap, truth: &Bitmap) -> f64 {
    Outline::of(predicted.clone()).contour(&Outline::of(truth.clone()))
}

/// What DAVIS reports of a value over the frames of a video.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Mean over frames.
    pub mean: f64,
    /// Share of frames above one half.
    pub recall: f64,
    /// Mean of the first quarter of the frames less that of the last; quarters share the frames at their edges.
    pub decay: f64,
}

/// Statistics of values in frame order; none without values. Values that are not numbers are left out of means, and are
/// not above one half, as in the evaluation.
pub fn statistics(values: &[f64]) -> Option<Statistics> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = |part: &[f64]| {
        let numbers = part.iter().filter(|value| !value.is_nan());
        numbers.clone().sum::<f64>() / numbers.count() as f64
    };
    // The evaluation's round(linspace(1, n, 5) + 1e-10) − 1, but not its 8-bit indices, which wrap at 257 frames.
    let edge = |i: usize| (1.0 + (n - 1) as f64 / 4.0 * i as f64 + 1e-10).round_ties_even() as usize - 1;
    Some(Statistics {
        mean: mean(values),
        recall: values.iter().filter(|&&value| value > 0.5).count() as f64 / n as f64,
        decay: mean(&values[edge(0)..=edge(1)]) - mean(&values[edge(3)..=edge(4)]),
    })
}

/// Scores of one object of one video.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectScores {
    /// Name of the video.
    pub sequence: String,
    /// The object's id in the masks.
    pub object: u8,
    /// Region similarity.
    pub j: Statistics,
    /// Boundary accuracy.
    pub f: Statistics,
}

/// What cannot be scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DavisError {
    /// Prediction and truth do not belong together.
    #[error("{sequence}: {predicted} predicted masks for {truth} annotated frames; give one for each")]
    FrameCount {
        /// Video.
        sequence: String,
        /// Masks given.
        predicted: usize,
        /// Masks wanted.
        truth: usize,
    },
    /// Nothing is left without the first and the last frame.
    #[error("{sequence}: {frames} frames; the first and the last are not scored, so at least 3 are needed")]
    TooShort {
        /// Video.
        sequence: String,
        /// Frames it has.
        frames: usize,
    },
    /// Sizes differ.
    #[error("{sequence}, frame {frame}: the mask has {pixels} pixels, the first one {expected}")]
    Size {
        /// Video.
        sequence: String,
        /// Name or number of the frame.
        frame: String,
        /// Pixels of this mask.
        pixels: usize,
        /// Pixels of the first frame's annotation.
        expected: usize,
    },
    /// The first frame has no object.
    #[error("{sequence}: the first frame's mask holds no object; leave the sequence out")]
    NoObject {
        /// Video.
        sequence: String,
    },
    /// A prediction with an id that the first frame does not have.
    #[error("{sequence}, frame {frame}: object {id} is predicted, but the first frame's objects end at {objects}")]
    UnknownObject {
        /// Video.
        sequence: String,
        /// Name or number of the frame.
        frame: String,
        /// The id.
        id: u8,
        /// Highest id of the first frame.
        objects: u8,
    },
}

/// Scores the frames of one video. Masks are object ids row by row, 0 = background; void must be 0 already.
#[derive(Debug)]
pub struct Judge {
    sequence: String,
    width: usize,
    pixels: usize,
    /// Ids are 1 to this, as the evaluation has it, whether or not the first annotation shows each of them.
    objects: u8,
    first: Vec<Outline>,
}

/// J and F of the objects of one frame, in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameScores {
    /// Of the prediction.
    pub predicted: Vec<[f64; 2]>,
    /// Of the first frame's annotation, as if nothing had moved.
    pub copied: Vec<[f64; 2]>,
    /// The highest annotated id that the first frame does not have, if there is one. It is not scored.
    pub unknown: Option<u8>,
}

impl Judge {
    /// For a video of `frames` frames whose first annotation is `first`, `width` pixels a row.
    ///
    /// # Errors
    /// Fewer than 3 frames, or no object in the first one.
    pub fn new(sequence: &str, width: usize, first: &[u8], frames: usize) -> Result<Self, DavisError> {
        let sequence = sequence.to_string();
        if frames < 3 {
            return Err(DavisError::TooShort { sequence, frames });
        }
        let objects = first.iter().copied().max().unwrap_or(0);
        if objects == 0 {
            return Err(DavisError::NoObject { sequence });
        }
        let first_outlines = outlines(first, width, objects);
        Ok(Self { sequence, width, pixels: first.len(), objects, first: first_outlines })
    }

    /// Highest id of the first annotation; ids 1 to this are scored.
    pub fn objects(&self) -> u8 {
        self.objects
    }

    /// Scores one frame. `name` is for messages.
    ///
    /// # Errors
    /// Masks of another size than the first annotation, or a predicted id beyond its objects.
    pub fn frame(&self, name: &str, predicted: &[u8], truth: &[u8]) -> Result<FrameScores, DavisError> {
        let names = || (self.sequence.clone(), name.to_string());
        for mask in [predicted, truth] {
            if mask.len() != self.pixels {
                let (sequence, frame) = names();
                return Err(DavisError::Size { sequence, frame, pixels: mask.len(), expected: self.pixels });
            }
        }
        let highest = |mask: &[u8]| mask.iter().fold(0, |highest: u8, &id| highest.max(id));
        let id = highest(predicted);
        if id > self.objects {
            let (sequence, frame) = names();
            return Err(DavisError::UnknownObject { sequence, frame, id, objects: self.objects });
        }
        let outlines = |mask: &[u8]| outlines(mask, self.width, self.objects);
        let truth_outlines = outlines(truth);
        let compare = |masks: &[Outline]| {
            masks.iter().zip(&truth_outlines).map(|(mask, truth)| [mask.region(truth), mask.contour(truth)]).collect()
        };
        Ok(FrameScores {
            predicted: compare(&outlines(predicted)),
            copied: compare(&self.first),
            unknown: Some(highest(truth)).filter(|&id| id > self.objects),
        })
    }

    /// Statistics of every object over its frames' [J, F], in frame order; first and last frame must be left out.
    pub fn objects_of<'a>(&self, frames: impl Iterator<Item = &'a Vec<[f64; 2]>> + Clone) -> Vec<ObjectScores> {
        (1..=self.objects)
            .filter_map(|object| {
                let of = |which: usize| {
                    let values = frames.clone().map(|scores| scores[usize::from(object) - 1][which]);
                    statistics(&values.collect::<Vec<f64>>())
                };
                Some(ObjectScores { sequence: self.sequence.clone(), object, j: of(0)?, f: of(1)? })
            })
            .collect()
    }
}

fn outlines(mask: &[u8], width: usize, objects: u8) -> Vec<Outline> {
    (1..=objects).map(|object| Outline::of(Bitmap::of(mask, width, |id| id == object))).collect()
}

/// Scores every object of a video: ids 1…max of the first annotation, first and last frame left out.
///
/// # Errors
/// As [`Judge`]'s, or not as many predictions as annotations.
pub fn score(
    sequence: &str,
    width: usize,
    predicted: &[Vec<u8>],
    truth: &[Vec<u8>],
) -> Result<Vec<ObjectScores>, DavisError> {
    if predicted.len() != truth.len() {
        let sequence = sequence.to_string();
        return Err(DavisError::FrameCount { sequence, predicted: predicted.len(), truth: truth.len() });
    }
    let first = truth.first().map_or(&[][..], Vec::as_slice);
    let judge = Judge::new(sequence, width, first, truth.len())?;
    let frames = (1..truth.len() - 1)
        .map(|frame| Ok(judge.frame(&frame.to_string(), &predicted[frame], &truth[frame])?.predicted))
        .collect::<Result<Vec<_>, DavisError>>()?;
    Ok(judge.objects_of(frames.iter()))
}

/// Means over the objects of all sequences (not over sequences).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Region similarity.
    pub j: Statistics,
    /// Boundary accuracy.
    pub f: Statistics,
    /// Mean of the two means.
    pub jf: f64,
}

/// Means over objects; none without objects. A mean of no numbers is left out of them.
pub fn summarise(scores: &[ObjectScores]) -> Option<Summary> {
    if scores.is_empty() {
        return None;
    }
    let mean = |value: &dyn Fn(&ObjectScores) -> f64| scores.iter().map(value).sum::<f64>() / scores.len() as f64;
    let j = Statistics { mean: mean(&|s| s.j.mean), recall: mean(&|s| s.j.recall), decay: mean(&|s| s.j.decay) };
    let f = Statistics { mean: mean(&|s| s.f.mean), recall: mean(&|s| s.f.recall), decay: mean(&|s| s.f.decay) };
    Some(Summary { j, f, jf: (j.mean + f.mean) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    fn map(width: usize, height: usize, inside: impl Fn(usize, usize) -> bool) -> Bitmap {
        let pixels: Vec<bool> = (0..width * height).map(|i| inside(i / width, i % width)).collect();
        Bitmap::of(&pixels, width, |p| p)
    }

    fn rectangle(width: usize, height: usize, rows: Range<usize>, cols: Range<usize>) -> Bitmap {
        map(width, height, |y, x| rows.contains(&y) && cols.contains(&x))
    }

    fn disc(row: i64, col: i64, radius: i64) -> Bitmap {
        map(854, 480, |y, x| (y as i64 - row).pow(2) + (x as i64 - col).pow(2) <= radius * radius)
    }

    #[track_caller]
    fn assert_scores(predicted: &Bitmap, truth: &Bitmap, j: f64, f: f64) {
        assert!((region(predicted, truth) - j).abs() < 1e-6, "J {} instead of {j}", region(predicted, truth));
        assert!((contour(predicted, truth) - f).abs() < 1e-6, "F {} instead of {f}", contour(predicted, truth));
    }

    /// Values of the official evaluation code.
    #[test]
    fn rectangles_score_as_in_the_official_code() {
        let truth = rectangle(854, 480, 100..300, 200..500);
        let moved = |dy: usize, dx: usize| rectangle(854, 480, 100 + dy..300 + dy, 200 + dx..500 + dx);
        let empty = Bitmap::new(854, 480);
        assert_scores(&truth, &truth, 1.0, 1.0);
        assert_scores(&moved(3, 3), &truth, 0.951505, 1.0);
        assert_scores(&moved(8, 0), &truth, 0.923077, 1.0);
        assert_scores(&moved(9, 0), &truth, 0.913876, 0.416);
        assert_scores(&moved(20, 20), &truth, 0.724138, 0.034);
        assert_scores(&empty, &truth, 0.0, 0.0);
        assert_scores(&map(854, 480, |_, _| true), &truth, 0.146370, 0.0);
        assert_scores(&rectangle(854, 480, 0..200, 0..300), &truth, 0.090909, 0.045364);
        assert_scores(&empty, &empty, 1.0, 1.0);
    }

    #[test]
    fn discs_and_small_pictures_score_as_in_the_official_code() {
        assert_scores(&disc(250, 405, 95), &disc(240, 400, 100), 0.851363, 0.603281);
        assert_scores(&rectangle(64, 64, 12..44, 11..38), &rectangle(64, 64, 10..40, 10..40), 0.75, 0.281485);
    }

    #[test]
    fn tolerance_follows_the_diagonal() {
        assert_eq!([tolerance(854, 480), tolerance(214, 120), tolerance(64, 64)], [8, 2, 1]);
    }

    #[test]
    fn decay_has_the_official_bins() {
        for (n, decay) in [(4, 0.666667), (5, 0.75), (10, 0.777778), (68, 0.746269)] {
            let values: Vec<f64> = (0..n).map(|i| 1.0 - f64::from(i) / f64::from(n - 1)).collect();
            let found = statistics(&values).unwrap().decay;
            assert!((found - decay).abs() < 1e-6, "n = {n}: {found}");
        }
    }

    #[test]
    fn statistics_of_a_series() {
        let found = statistics(&[0.9, 0.8, 0.85, 0.7, 0.6, 0.65, 0.5, 0.4, 0.45, 0.3]).unwrap();
        assert!((found.mean - 0.615).abs() < 1e-12);
        assert!((found.recall - 0.6).abs() < 1e-12);
        assert!((found.decay - 0.466667).abs() < 1e-6);
        assert_eq!(statistics(&[]), None);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let found = statistics(&[1.0, f64::NAN, 0.4, 0.8, f64::NAN]).unwrap();
        assert!((found.mean - 2.2 / 3.0).abs() < 1e-12);
        assert_eq!(found.recall, 2.0 / 5.0);
        assert!((found.decay - (1.0 - 0.8)).abs() < 1e-12);
    }

    #[test]
    fn copies_and_unknown_annotations_are_told() {
        let judge = Judge::new("toy", 2, &[1, 0, 0, 2], 4).unwrap();
        let scores = judge.frame("00001", &[0, 0, 0, 2], &[0, 5, 0, 2]).unwrap();
        assert_eq!(scores.predicted, [[1.0, 1.0], [1.0, 1.0]]);
        assert_eq!(scores.copied[0], [0.0, 0.0]);
        assert_eq!(scores.copied[1], [1.0, 1.0]);
        assert_eq!(scores.unknown, Some(5));
    }

    #[test]
    fn the_mean_is_over_objects_not_sequences() {
        let flat = |value: f64| Statistics { mean: value, recall: value, decay: value };
        let scores: Vec<ObjectScores> = [("a", 1, 1.0), ("b", 1, 0.0), ("b", 2, 0.0), ("b", 3, 0.0)]
            .map(|(name, object, value)| ObjectScores { sequence: name.into(), object, j: flat(value), f: flat(value) })
            .to_vec();
        assert_eq!(summarise(&scores).unwrap().jf, 0.25);
    }

    #[test]
    fn more_than_256_frames_keep_their_bins() {
        let values: Vec<f64> = (0..300).map(|i| 1.0 - f64::from(i) / 299.0).collect();
        let found = statistics(&values).unwrap().decay;
        // Quarters of a falling line lie three quarters apart.
        assert!((found - 0.75).abs() < 0.01, "{found}");
    }

    #[test]
    fn only_the_inner_frames_count() {
        let truth = vec![vec![1, 0, 0, 2]; 4];
        let wrong = vec![0u8; 4];
        let predicted = vec![wrong.clone(), truth[0].clone(), truth[0].clone(), wrong];
        let scores = score("toy", 2, &predicted, &truth).unwrap();
        assert_eq!(scores.iter().map(|s| s.object).collect::<Vec<_>>(), [1, 2]);
        assert!(scores.iter().all(|s| s.j.mean == 1.0 && s.f.mean == 1.0));
        assert_eq!(summarise(&scores).unwrap().jf, 1.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let truth = vec![vec![1u8, 0, 0, 0]; 3];
        let error = |predicted: &[Vec<u8>], truth: &[Vec<u8>]| score("toy", 2, predicted, truth).unwrap_err();
        assert!(matches!(error(&truth[..2], &truth), DavisError::FrameCount { predicted: 2, truth: 3, .. }));
        assert!(matches!(error(&truth[..2], &truth[..2]), DavisError::TooShort { frames: 2, .. }));
        assert!(matches!(error(&[vec![1], vec![1], vec![1]], &truth), DavisError::Size { .. }));
        let unknown = vec![vec![1u8, 0, 0, 0], vec![3, 0, 0, 0], vec![1, 0, 0, 0]];
        assert!(matches!(error(&unknown, &truth), DavisError::UnknownObject { id: 3, objects: 1, .. }));
        assert_eq!(
            error(&unknown, &truth).to_string(),
            "toy, frame 1: object 3 is predicted, but the first frame's objects end at 1"
        );
        let nothing = vec![vec![0u8; 4]; 3];
        assert!(matches!(error(&nothing, &nothing), DavisError::NoObject { .. }));
    }
}
