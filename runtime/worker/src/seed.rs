//! All random tensors: drawn on the CPU from streams known by seed and purpose, so that they are the same on every
//! device, with any number of threads, and whatever else was drawn before.

use harness_views::Stream;
use tch::{Kind, Tensor};

/// Normal numbers with mean 0 and the given standard deviation, in fp32 on the CPU.
pub fn normal(seed: u64, purpose: &str, shape: &[i64], std: f64) -> Tensor {
    let mut stream = Stream::new(seed, purpose, 0, 0, 0);
    draw(shape, || stream.normal() * std)
}

/// Uniform numbers in ±`bound`, in fp32 on the CPU.
pub fn uniform(seed: u64, purpose: &str, shape: &[i64], bound: f64) -> Tensor {
    let mut stream = Stream::new(seed, purpose, 0, 0, 0);
    draw(shape, || stream.uniform(-bound, bound))
}

fn draw(shape: &[i64], mut next: impl FnMut() -> f64) -> Tensor {
    let count = shape.iter().product::<i64>().max(0);
    let values: Vec<f32> = (0..count).map(|_| next() as f32).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(Kind::Float)
}

/// 0..n in a random order that depends on the seed, the purpose, the epoch and the step.
pub fn permutation(seed: u64, purpose: &str, epoch: u64, step: u64, n: usize) -> Vec<usize> {
    Stream::new(seed, purpose, epoch, step, 0).permutation(n)
}

/// Sets libtorch's own generator, which dropout draws from, to a state that depends on the seed, the purpose and the step.
pub fn reseed(seed: u64, purpose: &str, step: u64) {
    tch::manual_seed((Stream::new(seed, purpose, step, 0, 0).next_u64() >> 1) as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_known_by_seed_and_purpose() {
        let a = normal(1, "a", &[100, 100], 0.5);
        assert!(a.equal(&normal(1, "a", &[100, 100], 0.5)));
        assert!(!a.equal(&normal(2, "a", &[100, 100], 0.5)));
        assert!(!a.equal(&normal(1, "b", &[100, 100], 0.5)));
        assert!((a.std(true).double_value(&[]) - 0.5).abs() < 0.02);
        let u = uniform(1, "a", &[10_000], 0.25);
        assert!(u.abs().max().double_value(&[]) <= 0.25);
    }
}
