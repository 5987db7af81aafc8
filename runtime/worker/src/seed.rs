//! All random tensors: drawn on the CPU from streams known by seed, kind of step and purpose, so that they are the same on
//! every device, with any number of threads, and whatever else was drawn before.

use harness_views::Stream;
use tch::{Kind, Tensor};

/// In place of a step's kind for the initial values of networks, whose purposes are the names of the tensors: whatever starts
/// from a seed starts from the same network. Random weights are then what the pretraining of that seed began with, and
/// differences between the two are differences in pairs.
pub const NETWORK: &str = "network";

/// Normal numbers with mean 0 and the given standard deviation, in fp32 on the CPU.
pub fn normal(seed: u64, kind: &str, purpose: &str, shape: &[i64], std: f64) -> Tensor {
    let mut stream = Stream::new(seed, kind, purpose, 0, 0, 0);
    draw(shape, || stream.normal() * std)
}

/// Uniform numbers in ±`bound`, in fp32 on the CPU.
pub fn uniform(seed: u64, kind: &str, purpose: &str, shape: &[i64], bound: f64) -> Tensor {
    let mut stream = Stream::new(seed, kind, purpose, 0, 0, 0);
    draw(shape, || stream.uniform(-bound, bound))
}

fn draw(shape: &[i64], mut next: impl FnMut() -> f64) -> Tensor {
    let count = shape.iter().product::<i64>().max(0);
    let values: Vec<f32> = (0..count).map(|_| next() as f32).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(Kind::Float)
}

/// 0..n in a random order that depends on the seed, the kind, the purpose, the epoch and the step.
pub fn permutation(seed: u64, kind: &str, purpose: &str, epoch: u64, step: u64, n: usize) -> Vec<usize> {
    Stream::new(seed, kind, purpose, epoch, step, 0).permutation(n)
}

/// Sets libtorch's own generator, which dropout draws from, to a state that depends on the seed, the kind, the purpose and the step.
pub fn reseed(seed: u64, kind: &str, purpose: &str, step: u64) {
    tch::manual_seed((Stream::new(seed, kind, purpose, step, 0, 0).next_u64() >> 1) as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_known_by_seed_kind_and_purpose() {
        let a = normal(1, "k", "a", &[100, 100], 0.5);
        assert!(a.equal(&normal(1, "k", "a", &[100, 100], 0.5)));
        assert!(!a.equal(&normal(2, "k", "a", &[100, 100], 0.5)));
        assert!(!a.equal(&normal(1, "l", "a", &[100, 100], 0.5)));
        assert!(!a.equal(&normal(1, "k", "b", &[100, 100], 0.5)));
        assert!((a.std(true).double_value(&[]) - 0.5).abs() < 0.02);
        let u = uniform(1, "k", "a", &[10_000], 0.25);
        assert!(u.abs().max().double_value(&[]) <= 0.25);
    }
}
