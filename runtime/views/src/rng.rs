//! Counter-based random numbers: a number depends on what it is for, never on who draws it or when.

/// Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const M: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(W[0]), key[1].wrapping_add(W[1])];
        }
        let (a, b) = (M[0] * u64::from(counter[0]), M[1] * u64::from(counter[2]));
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// FNV-1a over 64 bits, finished with a SplitMix step so that near inputs give far keys.
fn mix(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers that is known by its purpose.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    high: u64,
    low: u64,
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of (seed, kind, purpose, epoch, item, crop). Equal arguments give equal numbers, on any thread. The kind
    /// is that of the step that draws: what shares a seed and a kind is compared in pairs, and nothing that one kind draws
    /// is met again in another.
    pub fn new(seed: u64, kind: &str, purpose: &str, epoch: u64, item: u64, crop: u64) -> Self {
        let key = mix(&[&seed.to_le_bytes(), kind.as_bytes(), purpose.as_bytes()]);
        let high = mix(&[&epoch.to_le_bytes(), &item.to_le_bytes(), &crop.to_le_bytes()]);
        Self { key: [key as u32, (key >> 32) as u32], high, low: 0, block: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.low as u32, (self.low >> 32) as u32, self.high as u32, (self.high >> 32) as u32];
            self.block = philox(counter, self.key);
            self.low = self.low.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform between `a` and `b`.
    pub fn uniform(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * self.unit()
    }

    /// Uniform among 0..n, without bias (Lemire's multiplication with rejection); 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let reject = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= reject {
                return (wide >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn bernoulli(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Standard normal (Box and Muller 1958; one of the pair).
    pub fn normal(&mut self) -> f64 {
        // Not the platform's functions: the numbers are the same on every machine.
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// Puts a slice in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// The numbers 0..n in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
        assert_eq!(philox(pi.0, pi.1), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn streams_differ_by_every_argument_and_repeat() {
        let first = |s, k, p, e, i, c| Stream::new(s, k, p, e, i, c).next_u64();
        let base = first(1, "pretrain", "crop", 2, 3, 4);
        assert_eq!(base, first(1, "pretrain", "crop", 2, 3, 4));
        for other in [
            first(0, "pretrain", "crop", 2, 3, 4),
            first(1, "linear_probe", "crop", 2, 3, 4),
            first(1, "pretrain", "augment", 2, 3, 4),
            first(1, "pretrainc", "rop", 2, 3, 4),
            first(1, "pretrain", "crop", 3, 3, 4),
            first(1, "pretrain", "crop", 2, 4, 4),
            first(1, "pretrain", "crop", 2, 3, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn moments_are_right() {
        let mut stream = Stream::new(7, "test", "test", 0, 0, 0);
        let n = 100_000;
        let normal: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let var = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.015 && (var - 1.0).abs() < 0.02, "{mean} {var}");
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[stream.below(7) as usize] += 1);
        assert!(counts.iter().all(|&c| (9_600..10_400).contains(&c)), "{counts:?}");
        let mut order = stream.permutation(100);
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
