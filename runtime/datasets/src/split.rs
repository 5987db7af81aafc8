//! Seeded choices among files that depend on nothing but the seed and the paths.
//!
//! A file's rank is SHA-256 of the purpose, the seed and its path, so adding a file moves no other across the sides by
//! more than the one place it takes, and no generator's stream has to be kept the same for ever.

use sha2::{Digest, Sha256};

/// What a draw is for; draws for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Which files are held out.
    Holdout,
    /// Which files of a class are kept.
    PerClass,
    /// Which files a subset has.
    Subset,
    /// Which class has which rank in a long tail.
    LongTail,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Holdout => "holdout",
            Self::PerClass => "per_class",
            Self::Subset => "subset",
            Self::LongTail => "long_tail",
        }
    }
}

/// A file's place in the seeded order: SHA-256(purpose, 0, seed little-endian, path).
pub fn rank(purpose: Purpose, seed: u64, path: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(purpose.name());
    hash.update([0]);
    hash.update(seed.to_le_bytes());
    hash.update(path);
    hash.finalize().into()
}

/// Marks the first `wanted` of `paths` in the seeded order.
pub fn draw(purpose: Purpose, seed: u64, paths: &[&str], wanted: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_cached_key(|&i| (rank(purpose, seed, paths[i]), paths[i]));
    let mut drawn = vec![false; paths.len()];
    for &i in order.iter().take(wanted) {
        drawn[i] = true;
    }
    drawn
}

/// How many of `n` files a share of `share` holds out: the nearest whole number, but never all of them.
pub fn holdout_size(n: usize, share: f64) -> usize {
    ((n as f64 * share).round() as usize).min(n.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_paths_does_not_matter() {
        let a = draw(Purpose::Holdout, 3, &["x", "y", "z", "w"], 2);
        let b = draw(Purpose::Holdout, 3, &["w", "z", "y", "x"], 2);
        assert_eq!(a, b.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn purposes_and_seeds_differ() {
        let first = rank(Purpose::Holdout, 0, "a");
        assert_ne!(first, rank(Purpose::PerClass, 0, "a"));
        assert_ne!(first, rank(Purpose::Holdout, 1, "a"));
    }

    #[test]
    fn some_files_always_stay() {
        assert_eq!(holdout_size(1, 0.9), 0);
        assert_eq!(holdout_size(10, 0.25), 3);
        assert_eq!(holdout_size(10, 0.0), 0);
        assert_eq!(holdout_size(0, 0.5), 0);
    }
}
