//! Binary pictures, 64 pixels a word: what makes boundary scores of whole videos cheap.

/// A binary picture. Bit `x` of a row is the pixel in column `x`; bits past the width are always 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    width: usize,
    height: usize,
    /// Words in a row.
    stride: usize,
    words: Vec<u64>,
}

impl Bitmap {
    /// An empty picture of `width` × `height` pixels.
    pub fn new(width: usize, height: usize) -> Self {
        let stride = width.div_ceil(64);
        Self { width, height, stride, words: vec![0; stride * height] }
    }

    /// The pixels (row by row, `pixels.len() / width` rows) for which `inside` holds.
    pub fn of<T: Copy>(pixels: &[T], width: usize, inside: impl Fn(T) -> bool) -> Self {
        let height = pixels.len().checked_div(width).unwrap_or(0);
        let mut map = Self::new(width, height);
        for (y, row) in pixels.chunks_exact(width.max(1)).enumerate() {
            let words = &mut map.words[y * map.stride..(y + 1) * map.stride];
            for (word, chunk) in words.iter_mut().zip(row.chunks(64)) {
                *word = chunk.iter().enumerate().fold(0, |bits, (x, &pixel)| bits | (u64::from(inside(pixel)) << x));
            }
        }
        map
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Whether the pixel is set.
    ///
    /// # Panics
    /// If the pixel lies outside.
    pub fn get(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y}) outside {} x {}", self.width, self.height);
        self.words[y * self.stride + x / 64] >> (x % 64) & 1 == 1
    }

    /// Number of set pixels.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Number of pixels set in both; the pictures have the same size.
    pub fn count_and(&self, other: &Self) -> u64 {
        self.words.iter().zip(&other.words).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }

    /// Number of pixels set in one of the two or both; the pictures have the same size.
    pub fn count_or(&self, other: &Self) -> u64 {
        self.words.iter().zip(&other.words).map(|(a, b)| u64::from((a | b).count_ones())).sum()
    }

    fn row(&self, y: usize) -> &[u64] {
        &self.words[y * self.stride..(y + 1) * self.stride]
    }

    /// The boundary as the DAVIS evaluation draws it: a pixel that differs from its right, lower or lower right
    /// neighbour; in the last row only the right one counts, in the last column only the lower one, and the last pixel
    /// never is boundary. So the picture's border makes none (davis2017-evaluation, `_seg2bmap`).
    pub fn boundary(&self) -> Self {
        let mut out = Self::new(self.width, self.height);
        if self.width == 0 || self.height == 0 {
            return out;
        }
        let last = (self.width - 1) / 64;
        let last_bit = 1u64 << ((self.width - 1) % 64);
        for y in 0..self.height {
            let here = self.row(y);
            let below = if y + 1 < self.height { self.row(y + 1) } else { here };
            let target = &mut out.words[y * self.stride..(y + 1) * self.stride];
            for (i, word) in target.iter_mut().enumerate() {
                // Bit x of these is pixel x + 1.
                let right = here[i] >> 1 | here.get(i + 1).map_or(0, |next| next << 63);
                let corner = below[i] >> 1 | below.get(i + 1).map_or(0, |next| next << 63);
                // In the last row `below` is the row itself, so that the last two terms add nothing.
                *word = (here[i] ^ right) | (here[i] ^ below[i]) | (here[i] ^ corner);
            }
            // What lies right of the last column is no pixel: only the lower neighbour counts there.
            target[last] = (target[last] & (last_bit - 1)) | ((here[last] ^ below[last]) & last_bit);
        }
        out
    }

    /// Every pixel within a disk dx² + dy² ≤ radius² of a set one.
    pub fn dilate(&self, radius: usize) -> Self {
        let mut out = Self::new(self.width, self.height);
        if self.width == 0 || self.height == 0 {
            return out;
        }
        // Half the disk's width, dy rows away from its centre.
        let reach: Vec<usize> = (0..=radius).map(|dy| (radius * radius - dy * dy).isqrt()).collect();
        let tail = match self.width % 64 {
            0 => u64::MAX,
            bits => (1 << bits) - 1,
        };
        let mut grown = self.row(0).to_vec();
        let mut next = grown.clone();
        for y in 0..self.height {
            if self.row(y).iter().all(|&word| word == 0) {
                continue;
            }
            grown.copy_from_slice(self.row(y));
            // `grown` widens by one pixel a turn; each width is laid over the rows that the disk reaches with it.
            for wide in 0..=radius {
                if wide > 0 {
                    for i in 0..self.stride {
                        let from_left = if i > 0 { grown[i - 1] >> 63 } else { 0 };
                        let from_right = grown.get(i + 1).map_or(0, |word| word << 63);
                        next[i] = grown[i] | grown[i] << 1 | from_left | grown[i] >> 1 | from_right;
                    }
                    next[self.stride - 1] &= tail;
                    std::mem::swap(&mut grown, &mut next);
                }
                for dy in (0..=radius).filter(|&dy| reach[dy] == wide) {
                    for row in [y.checked_sub(dy), Some(y + dy).filter(|&row| row < self.height)].into_iter().flatten()
                    {
                        let target = &mut out.words[row * self.stride..(row + 1) * self.stride];
                        target.iter_mut().zip(&grown).for_each(|(word, bits)| *word |= bits);
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A speckled picture, the same every time.
    fn speckles(width: usize, height: usize, one_in: u64) -> Vec<bool> {
        let mut state = 1u64;
        (0..width * height)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33).is_multiple_of(one_in)
            })
            .collect()
    }

    #[test]
    fn dilation_equals_its_definition() {
        for (width, height, radius) in [(130, 17, 3), (64, 9, 8), (5, 4, 2), (1, 1, 1), (70, 30, 0)] {
            let pixels = speckles(width, height, 23);
            let grown = Bitmap::of(&pixels, width, |p| p).dilate(radius);
            for y in 0..height {
                for x in 0..width {
                    let near = (0..width * height).any(|i| {
                        let (dx, dy) = ((i % width).abs_diff(x), (i / width).abs_diff(y));
                        pixels[i] && dx * dx + dy * dy <= radius * radius
                    });
                    assert_eq!(grown.get(x, y), near, "({x}, {y}) of {width} x {height}, radius {radius}");
                }
            }
        }
    }

    #[test]
    fn boundary_equals_its_definition() {
        for (width, height) in [(130, 17), (64, 9), (65, 3), (1, 5), (5, 1), (1, 1)] {
            let pixels = speckles(width, height, 3);
            let boundary = Bitmap::of(&pixels, width, |p| p).boundary();
            for y in 0..height {
                for x in 0..width {
                    let here = pixels[y * width + x];
                    let mut expected = false;
                    let (right, lower) = (x + 1 < width, y + 1 < height);
                    if right {
                        expected |= here != pixels[y * width + x + 1];
                    }
                    if lower {
                        expected |= here != pixels[(y + 1) * width + x];
                    }
                    if right && lower {
                        expected |= here != pixels[(y + 1) * width + x + 1];
                    }
                    assert_eq!(boundary.get(x, y), expected, "({x}, {y}) of {width} x {height}");
                }
            }
        }
    }
}
