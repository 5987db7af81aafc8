//! The linear support vector machine of the VOC evaluations: squared hinge, L2 penalty on weights and bias alike,
//!
//! ```text
//! ½‖(w, b)‖² + C Σ c(yᵢ)·max(0, 1 − yᵢ(w·xᵢ + b))²
//! ```
//!
//! Two solvers in turn. Coordinate descent in the dual (Hsieh et al. 2008) comes near quickly: one dual number for each
//! row, changed to its optimum with the others held, rows in an order drawn from a fixed seed, those that stay at 0 left
//! out for a while. Newton's method in the primal, its steps by conjugate gradients, ends it: also where a large C makes
//! coordinate descent slow. The objective is strongly convex with modulus 1, so the gradient's length bounds the distance
//! to the one solution, which is what the tolerance is about. Rows are fp32, everything else fp64.

use std::sync::atomic::{AtomicUsize, Ordering};

use harness_views::Stream;

/// Largest difference of the dual's projected gradients at which coordinate descent has come near enough.
const NEAR: f64 = 0.01;
/// Most passes of coordinate descent.
const PASSES: usize = 60;
/// Most steps of Newton's method; it takes some ten.
const STEPS: usize = 200;

/// Seed of the order of rows; the solution does not depend on it beyond the tolerance.
const ORDER: u64 = 0;

/// Rows to learn from: [count, columns], one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// Numbers in a row.
    pub columns: usize,
}

impl<'a> Rows<'a> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    /// One row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }
}

/// What is minimised, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// C.
    pub cost: f64,
    /// Weight of the positives' losses; the negatives' is 1.
    pub positive_weight: f64,
    /// Largest distance of (w, b) from the solution, relative to its length.
    pub tolerance: f64,
}

/// VOC07 in the study: C 0.5, positives count twice.
impl Default for Settings {
    fn default() -> Self {
        Self { cost: 0.5, positive_weight: 2.0, tolerance: 1e-6 }
    }
}

/// A separating plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// w.
    pub weight: Vec<f64>,
    /// b.
    pub bias: f64,
    /// Whether the tolerance was reached.
    pub converged: bool,
}

impl Plane {
    /// w·x + b.
    pub fn score(&self, row: &[f32]) -> f64 {
        dot(&self.weight, row) + self.bias
    }
}

#[inline(always)]
fn dot_in_lanes(weight: &[f64], row: &[f32]) -> f64 {
    // Eight sums side by side, always added in the same order: equal numbers on every processor.
    let mut sums = [0.0f64; 8];
    let (weights, rows) = (weight.chunks_exact(8), row.chunks_exact(8));
    let rest: f64 = weights.remainder().iter().zip(rows.remainder()).map(|(w, &x)| w * f64::from(x)).sum();
    for (w, x) in weights.zip(rows) {
        for lane in 0..8 {
            sums[lane] += w[lane] * f64::from(x[lane]);
        }
    }
    let four = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    (four[0] + four[2]) + (four[1] + four[3]) + rest
}

#[inline(always)]
fn add_plain(weight: &mut [f64], row: &[f32], step: f64) {
    for (w, &x) in weight.iter_mut().zip(row) {
        *w += step * f64::from(x);
    }
}

/// The same with wider registers; no fused operations, so the numbers are those of the plain one.
#[cfg(target_arch = "x86_64")]
mod wide {
    #[target_feature(enable = "avx2")]
    pub(super) fn dot(weight: &[f64], row: &[f32]) -> f64 {
        super::dot_in_lanes(weight, row)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn add(weight: &mut [f64], row: &[f32], step: f64) {
        super::add_plain(weight, row, step);
    }
}

fn dot(weight: &[f64], row: &[f32]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { wide::dot(weight, row) };
    }
    dot_in_lanes(weight, row)
}

fn add(weight: &mut [f64], row: &[f32], step: f64) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { wide::add(weight, row, step) };
    }
    add_plain(weight, row, step);
}

/// One problem: rows, what they are to be told apart by, and what a loss costs.
struct Problem<'a> {
    rows: Rows<'a>,
    chosen: &'a [usize],
    /// +1 and -1, by place in `chosen`.
    signs: Vec<f64>,
    /// C·c.
    costs: Vec<f64>,
}

/// Learns to tell the rows in `chosen` for which `positive` holds from the others there.
pub fn solve(rows: Rows, chosen: &[usize], positive: &[bool], settings: &Settings) -> Plane {
    let by = |yes: f64, no: f64| chosen.iter().map(|&index| if positive[index] { yes } else { no }).collect();
    let costs = by(settings.cost * settings.positive_weight, settings.cost);
    let problem = Problem { rows, chosen, signs: by(1.0, -1.0), costs };
    let mut plane = problem.descend();
    plane.converged = problem.newton(&mut plane, settings.tolerance);
    plane
}

impl Problem<'_> {
    fn row(&self, at: usize) -> &[f32] {
        self.rows.row(self.chosen[at])
    }

    /// Coordinate descent in the dual until it is near.
    fn descend(&self) -> Plane {
        let count = self.chosen.len();
        // 1 / 2C for each row; the dual's diagonal has it beside ‖x‖² + 1.
        let ridge = |at: usize| 0.5 / self.costs[at];
        let norm = |at| self.row(at).iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() + 1.0;
        let norms: Vec<f64> = (0..count).map(norm).collect();
        let (mut weight, mut bias) = (vec![0.0; self.rows.columns], 0.0);
        let mut dual = vec![0.0f64; count];
        let mut active: Vec<usize> = (0..count).collect();
        let mut left_out = f64::INFINITY;
        for pass in 0..PASSES {
            let order = Stream::new(ORDER, "linear_svm", "order", pass as u64, 0, 0).permutation(active.len());
            let (mut highest, mut lowest) = (f64::NEG_INFINITY, f64::INFINITY);
            let mut kept = Vec::with_capacity(active.len());
            for at in order.into_iter().map(|place| active[place]) {
                let (row, sign) = (self.row(at), self.signs[at]);
                let gradient = sign * (dot(&weight, row) + bias) - 1.0 + ridge(at) * dual[at];
                if dual[at] == 0.0 && gradient > left_out {
                    continue;
                }
                kept.push(at);
                let projected = if dual[at] == 0.0 { gradient.min(0.0) } else { gradient };
                highest = highest.max(projected);
                lowest = lowest.min(projected);
                if projected.abs() > 1e-14 {
                    let before = dual[at];
                    dual[at] = (before - gradient / (norms[at] + ridge(at))).max(0.0);
                    let step = (dual[at] - before) * sign;
                    add(&mut weight, row, step);
                    bias += step;
                }
            }
            kept.sort_unstable();
            active = kept;
            if highest - lowest <= NEAR {
                break;
            }
            left_out = if highest > 0.0 { highest } else { f64::INFINITY };
        }
        Plane { weight, bias, converged: false }
    }

    /// y·(w·x + b) of every row.
    fn margins(&self, plane: &Plane) -> Vec<f64> {
        (0..self.chosen.len()).map(|at| self.signs[at] * plane.score(self.row(at))).collect()
    }

    fn value(&self, plane: &Plane, margins: &[f64]) -> f64 {
        let losses = margins.iter().zip(&self.costs).map(|(margin, cost)| cost * (1.0 - margin).max(0.0).powi(2));
        0.5 * plane.length().powi(2) + losses.sum::<f64>()
    }

    /// plane + Σ factor·(x, 1) over the rows with a factor.
    fn gathered(&self, plane: &Plane, factors: impl Fn(usize) -> Option<f64>) -> Plane {
        let mut sum = plane.clone();
        for at in 0..self.chosen.len() {
            if let Some(factor) = factors(at) {
                add(&mut sum.weight, self.row(at), factor);
                sum.bias += factor;
            }
        }
        sum
    }

    /// Newton's method from a plane on; whether it came within the tolerance.
    fn newton(&self, plane: &mut Plane, tolerance: f64) -> bool {
        let mut margins = self.margins(plane);
        for _ in 0..STEPS {
            let short = |at: usize| (margins[at] < 1.0).then(|| 1.0 - margins[at]);
            let gradient = self.gathered(plane, |at| Some(-2.0 * self.costs[at] * self.signs[at] * short(at)?));
            let slope = gradient.length();
            if slope <= tolerance * plane.length().max(f64::MIN_POSITIVE) {
                return true;
            }
            // The second derivative is the identity plus the rows that lose anything.
            let curved = |direction: &Plane| {
                self.gathered(direction, |at| {
                    (margins[at] < 1.0).then(|| 2.0 * self.costs[at] * direction.score(self.row(at)))
                })
            };
            let goal = (0.1f64).min(slope / plane.length().max(slope)).max(1e-3) * slope;
            let step = conjugate(&gradient, curved, goal, 4 * (self.rows.columns + 1));
            // Halved until the value falls as it must; near the end the whole step always does.
            let along: Vec<f64> = (0..self.chosen.len()).map(|at| self.signs[at] * step.score(self.row(at))).collect();
            let (before, fall) = (self.value(plane, &margins), gradient.times(&step));
            let mut share = 1.0;
            loop {
                let moved = plane.plus(share, &step);
                let shifted: Vec<f64> = margins.iter().zip(&along).map(|(m, a)| m + share * a).collect();
                // Rounding hides a fall that is smaller than the value's last digits.
                if self.value(&moved, &shifted) <= before + 1e-4 * share * fall + 1e-15 * before.abs() {
                    *plane = moved;
                    margins = shifted;
                    break;
                }
                share *= 0.5;
                if share < 1e-10 {
                    return false;
                }
            }
        }
        false
    }
}

impl Plane {
    fn times(&self, other: &Self) -> f64 {
        self.weight.iter().zip(&other.weight).map(|(a, b)| a * b).sum::<f64>() + self.bias * other.bias
    }

    fn length(&self) -> f64 {
        self.times(self).sqrt()
    }

    fn plus(&self, factor: f64, other: &Self) -> Self {
        let weight = self.weight.iter().zip(&other.weight).map(|(a, b)| a + factor * b).collect();
        Self { weight, bias: self.bias + factor * other.bias, converged: false }
    }
}

/// Solves `curved`(s) = -gradient until the residual is no longer than `goal`.
fn conjugate(gradient: &Plane, curved: impl Fn(&Plane) -> Plane, goal: f64, most: usize) -> Plane {
    let zero = Plane { weight: vec![0.0; gradient.weight.len()], bias: 0.0, converged: false };
    let mut step = zero.clone();
    let mut residual = zero.plus(-1.0, gradient);
    let mut direction = residual.clone();
    let mut squared = residual.times(&residual);
    for _ in 0..most {
        if squared.sqrt() <= goal {
            break;
        }
        let bent = curved(&direction);
        let size = squared / direction.times(&bent);
        step = step.plus(size, &direction);
        residual = residual.plus(-size, &bent);
        let now = residual.times(&residual);
        direction = residual.plus(now / squared, &direction);
        squared = now;
    }
    step
}

/// Solves problems on `threads` threads; results in their order, each the same with any number of threads.
pub fn solve_all<T: Sync, R: Send>(problems: &[T], threads: usize, solve: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, problem)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, problems.get(at)?)))
        {
            done.push((at, solve(problem)));
        }
        done
    };
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.clamp(1, problems.len().max(1))).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Number of the fold of every row, as scikit-learn's `StratifiedKFold` without shuffling deals them out: each class's rows
/// in their order, as many to each fold as an even deal of the sorted labels gives.
pub fn folds(positive: &[bool], count: usize) -> Vec<usize> {
    // Classes are numbered by first appearance there.
    let first = positive.first().copied().unwrap_or_default();
    let mut sorted: Vec<bool> = positive.to_vec();
    sorted.sort_by_key(|&label| label != first);
    let mut fold = vec![0; positive.len()];
    for class in [first, !first] {
        let dealt = |fold: usize| sorted.iter().skip(fold).step_by(count).filter(|&&label| label == class).count();
        let numbers = (0..count).flat_map(|fold| std::iter::repeat_n(fold, dealt(fold)));
        let members = positive.iter().enumerate().filter(|&(_, &label)| label == class).map(|(index, _)| index);
        members.zip(numbers).for_each(|(index, number)| fold[index] = number);
    }
    fold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn planes_are_those_of_scikit_learn() {
        let golden = golden::file();
        let (x, labels) = golden::table(240, 24, 9, 6.0, 0);
        let (y, truth) = golden::table(180, 24, 9, 6.0, 90_000);
        let scaled = |x: Vec<f32>| -> Vec<f32> {
            x.chunks_exact(24)
                .flat_map(|row| {
                    let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() + 1e-5;
                    row.iter().map(move |&v| (f64::from(v) / norm) as f32)
                })
                .collect()
        };
        let (x, y) = (scaled(x), scaled(y));
        let (rows, asked) = (Rows { values: &x, columns: 24 }, Rows { values: &y, columns: 24 });
        let all: Vec<usize> = (0..240).collect();
        for entry in golden["svm"].as_array().unwrap() {
            let classes: Vec<i64> = serde_json::from_value(entry["classes"].clone()).unwrap();
            let positive: Vec<bool> = labels.iter().map(|label| classes.contains(label)).collect();
            let truth: Vec<bool> = truth.iter().map(|label| classes.contains(label)).collect();
            for cost in ["0.5", "100.0"] {
                let settings = Settings { cost: cost.parse().unwrap(), ..Settings::default() };
                let plane = solve(rows, &all, &positive, &settings);
                assert!(plane.converged);
                let expected: Vec<f64> = serde_json::from_value(entry[cost]["weight"].clone()).unwrap();
                let bias = entry[cost]["bias"].as_f64().unwrap();
                let apart = plane.weight.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
                    + (plane.bias - bias).powi(2);
                let size = expected.iter().map(|w| w * w).sum::<f64>() + bias * bias;
                assert!((apart / size).sqrt() < 1e-4, "{cost}: {}", (apart / size).sqrt());
                let scores: Vec<f64> = (0..180).map(|index| plane.score(asked.row(index))).collect();
                let ap = crate::metric::precision::envelope(&scores, &truth).unwrap();
                assert!((ap - entry[cost]["envelope"].as_f64().unwrap()).abs() < 5e-4, "{cost}: {ap}");
            }
            let fold: Vec<usize> = serde_json::from_value(entry["fold"].clone()).unwrap();
            assert_eq!(folds(&positive, 3), fold);
            for (cost, expected) in [0.01, 0.1, 1.0, 10.0].iter().zip(entry["cross_validated"].as_array().unwrap()) {
                let settings = Settings { cost: *cost, ..Settings::default() };
                let mean = (0..3)
                    .map(|held| {
                        let part = |inside: bool| -> Vec<usize> {
                            (0..240).filter(|&at| (fold[at] == held) != inside).collect()
                        };
                        let plane = solve(rows, &part(true), &positive, &settings);
                        let scores: Vec<f64> = part(false).iter().map(|&at| plane.score(rows.row(at))).collect();
                        let truth: Vec<bool> = part(false).iter().map(|&at| positive[at]).collect();
                        crate::metric::precision::stepwise(&scores, &truth).unwrap() / 3.0
                    })
                    .sum::<f64>();
                assert!((mean - expected.as_f64().unwrap()).abs() < 5e-4, "{cost}: {mean} {expected}");
            }
        }
    }

    #[test]
    fn registers_and_threads_change_nothing() {
        let mut stream = Stream::new(3, "test", "numbers", 0, 0, 0);
        let weight: Vec<f64> = (0..37).map(|_| stream.normal()).collect();
        let row: Vec<f32> = (0..37).map(|_| stream.normal() as f32).collect();
        assert_eq!(dot(&weight, &row).to_bits(), dot_in_lanes(&weight, &row).to_bits());
        let (mut a, mut b) = (weight.clone(), weight.clone());
        add(&mut a, &row, 0.3);
        add_plain(&mut b, &row, 0.3);
        assert_eq!(a, b);
        let problems: Vec<u64> = (0..50).collect();
        let squares: Vec<u64> = problems.iter().map(|n| n * n).collect();
        for threads in [1, 3, 100] {
            assert_eq!(solve_all(&problems, threads, |n| n * n), squares);
        }
        assert!(solve_all(&[0u8; 0], 4, |n| *n).is_empty());
    }
}
