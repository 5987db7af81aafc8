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

/// Boundary accuracy F: harmonic mean of the shares of either boundary that lie within [`tolerance`] of the other. 0..1.
pub fn contour(predicted: &Bitmap, truth: &Bitmap) -> f64 {
    let radius = tolerance(truth.width(), truth.height());
    let (predicted, truth) = (predicted.boundary(), truth.boundary());
    let (of_predicted, of_truth) = (predicted.count(), truth.count());
    let (precision, recall) = match (of_predicted, of_truth) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        _ => (
            predicted.count_and(&truth.dilate(radius)) as f64 / of_predicted as f64,
            truth.count_and(&predicted.dilate(radius)) as f64 / of_truth as f64,
        ),
    };
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
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

/// Statistics of values in frame order; none without values.
pub fn statistics(values: &[f64]) -> Option<Statistics> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
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
        /// Frame, from 0.
        frame: usize,
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
        /// Frame, from 0.
        frame: usize,
        /// The id.
        id: u8,
        /// Highest id of the first frame.
        objects: u8,
    },
}

/// Scores every object of a video: ids 1…max of the first annotation, first and last frame left out.
///
/// Masks are object ids row by row, `width` pixels a row, 0 = background; void must be 0 already.
///
/// # Errors
/// Masks that do not belong together, fewer than 3 frames, no object in the first frame, unknown predicted ids.
pub fn score(
    sequence: &str,
    width: usize,
    predicted: &[Vec<u8>],
    truth: &[Vec<u8>],
) -> Result<Vec<ObjectScores>, DavisError> {
    let name = || sequence.to_string();
    if predicted.len() != truth.len() {
        return Err(DavisError::FrameCount { sequence: name(), predicted: predicted.len(), truth: truth.len() });
    }
    if truth.len() < 3 {
        return Err(DavisError::TooShort { sequence: name(), frames: truth.len() });
    }
    let expected = truth[0].len();
    for masks in [predicted, truth] {
        if let Some((frame, mask)) = masks.iter().enumerate().find(|(_, mask)| mask.len() != expected) {
            return Err(DavisError::Size { sequence: name(), frame, pixels: mask.len(), expected });
        }
    }
    let objects = truth[0].iter().copied().max().unwrap_or(0);
    if objects == 0 {
        return Err(DavisError::NoObject { sequence: name() });
    }
    for (frame, mask) in predicted.iter().enumerate() {
        if let Some(&id) = mask.iter().find(|&&id| id > objects) {
            return Err(DavisError::UnknownObject { sequence: name(), frame, id, objects });
        }
    }
    let scored = 1..truth.len() - 1;
    let mut scores = Vec::with_capacity(usize::from(objects));
    for object in 1..=objects {
        let (mut j, mut f) = (Vec::new(), Vec::new());
        for frame in scored.clone() {
            let map = |mask: &[u8]| Bitmap::of(mask, width, |id| id == object);
            let (predicted, truth) = (map(&predicted[frame]), map(&truth[frame]));
            j.push(region(&predicted, &truth));
            f.push(contour(&predicted, &truth));
        }
        // At least one frame is scored, so both have statistics.
        if let (Some(j), Some(f)) = (statistics(&j), statistics(&f)) {
            scores.push(ObjectScores { sequence: name(), object, j, f });
        }
    }
    Ok(scores)
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

/// Means over objects; none without objects.
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
        assert!(matches!(error(&unknown, &truth), DavisError::UnknownObject { frame: 1, id: 3, objects: 1, .. }));
        let nothing = vec![vec![0u8; 4]; 3];
        assert!(matches!(error(&nothing, &nothing), DavisError::NoObject { .. }));
    }
}
