//! How far predicted depth is off: root mean squared errors pooled over all valid pixels of a set, in metres and in natural
//! logarithms.

use serde::{Deserialize, Serialize};

/// A map's value that published code writes for "unknown", beside 0.
const UNKNOWN: f32 = 255.0;
/// Only positive depth is possible: predictions below this count as this, as in the published evaluation.
const LEAST: f64 = 1e-9;

/// Whether a true depth counts: a finite number above 0 that is not 255, the published code's mark.
pub fn valid(depth: f32) -> bool {
    depth.is_finite() && depth > 0.0 && depth != UNKNOWN
}

/// Sums over the valid pixels of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Valid pixels.
    pub valid: u64,
    /// All pixels.
    pub pixels: u64,
    squares: f64,
    log_squares: f64,
}

impl Errors {
    /// Adds a picture's pixels; of a predicted value below 1e-9 (a negative one, say) 1e-9 is taken.
    pub fn add(&mut self, truth: &[f32], predicted: &[f32]) {
        self.pixels += truth.len() as u64;
        for (&truth, &predicted) in truth.iter().zip(predicted).filter(|(truth, _)| valid(**truth)) {
            let (truth, predicted) = (f64::from(truth), f64::from(predicted).max(LEAST));
            self.valid += 1;
            self.squares += (predicted - truth).powi(2);
            self.log_squares += (predicted.ln() - truth.ln()).powi(2);
        }
    }

    fn root(&self, squares: f64) -> f64 {
        if self.valid == 0 { 0.0 } else { (squares / self.valid as f64).sqrt() }
    }

    /// √(Σ(p − y)² / n), the unit of the maps; 0 without a valid pixel.
    pub fn rmse(&self) -> f64 {
        self.root(self.squares)
    }

    /// √(Σ(ln p − ln y)² / n); 0 without a valid pixel.
    pub fn log_rmse(&self) -> f64 {
        self.root(self.log_squares)
    }
}

/// Sums of true depth from which the errors of any constant prediction are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Valid pixels.
    pub valid: u64,
    sum: f64,
    squares: f64,
    logs: f64,
    log_squares: f64,
}

impl Totals {
    /// Adds a picture's pixels.
    pub fn add(&mut self, truth: &[f32]) {
        for depth in truth.iter().copied().filter(|&depth| valid(depth)).map(f64::from) {
            self.valid += 1;
            self.sum += depth;
            self.squares += depth * depth;
            self.logs += depth.ln();
            self.log_squares += depth.ln().powi(2);
        }
    }

    /// Adds another set's.
    pub fn merge(&mut self, other: &Self) {
        self.valid += other.valid;
        self.sum += other.sum;
        self.squares += other.squares;
        self.logs += other.logs;
        self.log_squares += other.log_squares;
    }

    /// Mean depth; none without a valid pixel.
    pub fn mean(&self) -> Option<f64> {
        (self.valid > 0).then(|| self.sum / self.valid as f64)
    }

    /// Exponential of the mean logarithm of depths; none without a valid pixel.
    pub fn geometric_mean(&self) -> Option<f64> {
        (self.valid > 0).then(|| (self.logs / self.valid as f64).exp())
    }

    /// `rmse` and `log_rmse` of predicting `depth` (above 0) at every pixel.
    pub fn constant(&self, depth: f64) -> (f64, f64) {
        let root = |value: f64, sum: f64, squares: f64| {
            let n = self.valid.max(1) as f64;
            ((n * value * value - 2.0 * value * sum + squares).max(0.0) / n).sqrt()
        };
        (root(depth, self.sum, self.squares), root(depth.ln(), self.logs, self.log_squares))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `tests/golden/depth.py`.
    #[test]
    fn errors_equal_the_definitions() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/depth.json")).unwrap();
        let number = |name: &str| golden[name].as_f64().unwrap();
        let (mut errors, mut totals) = (Errors::default(), Totals::default());
        for picture in 0..3usize {
            let wave = |at: usize, step: f64| (step * ((at + 1) as f64).powi(2) % std::f64::consts::TAU).sin();
            let truth: Vec<f32> = (0..35)
                .map(|at| match at % 11 {
                    3 => 0.0,
                    5 => 255.0,
                    7 => f32::NAN,
                    _ => (4.0 + 3.0 * wave(35 * picture + at, 0.7)) as f32,
                })
                .collect();
            let predicted: Vec<f32> = (0..35).map(|at| (3.5 + 4.0 * wave(35 * picture + at, 0.9)) as f32).collect();
            errors.add(&truth, &predicted);
            totals.add(&truth);
        }
        assert_eq!((errors.valid, errors.pixels), (golden["valid"].as_u64().unwrap(), 105));
        assert_eq!(totals.valid, errors.valid);
        let close = |ours: f64, name: &str| assert!((ours - number(name)).abs() < 1e-12, "{name}: {ours}");
        close(errors.rmse(), "rmse");
        close(errors.log_rmse(), "log_rmse");
        let mean = totals.mean().unwrap();
        close(mean, "mean");
        close(totals.constant(mean).0, "mean_rmse");
        close(totals.constant(mean).1, "mean_log_rmse");
        // No constant has a smaller log error.
        let middle = totals.geometric_mean().unwrap();
        for other in [0.9 * middle, 1.1 * middle, mean] {
            assert!(totals.constant(middle).1 < totals.constant(other).1);
        }
    }

    #[test]
    fn what_is_unknown_does_not_count() {
        assert!([0.0, -1.0, 255.0, f32::NAN, f32::INFINITY].iter().all(|&depth| !valid(depth)));
        assert!([1e-6, 1.0, 254.0, 300.0].iter().all(|&depth| valid(depth)));
        let mut errors = Errors::default();
        errors.add(&[0.0, f32::NAN], &[7.0, 7.0]);
        assert_eq!((errors.rmse(), errors.log_rmse(), errors.pixels), (0.0, 0.0, 2));
        // A negative prediction counts as hardly anything, not as its square.
        errors.add(&[2.0], &[-5.0]);
        assert!((errors.rmse() - 2.0).abs() < 1e-8);
        assert_eq!(Totals::default().mean(), None);
    }
}
