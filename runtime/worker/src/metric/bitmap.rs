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
                let mut bytes = [0u8; 64];
                bytes.iter_mut().zip(chunk).for_each(|(byte, &pixel)| *byte = u8::from(inside(pixel)));
                // Most words of a mask hold nothing.
                if bytes.iter().fold(0, |any, byte| any | byte) != 0 {
                    *word = bytes.as_chunks().0.iter().rev().fold(0, |bits, eight| bits << 8 | packed(*eight));
                }
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
        // A row with an empty word on either side, so that every word has neighbours.
        let mut grown = vec![0u64; self.stride + 2];
        let mut next = grown.clone();
        for y in 0..self.height {
            let row = self.row(y);
            let Some(first) = row.iter().position(|&word| word != 0) else { continue };
            let last = row.iter().rposition(|&word| word != 0).unwrap_or(first);
            // Only these words can ever hold something of this row.
            let (from, to) = (first.saturating_sub(radius / 64 + 1), (last + radius / 64 + 2).min(self.stride));
            grown[from..to + 2].fill(0);
            grown[first + 1..last + 2].copy_from_slice(&row[first..=last]);
            // `grown` widens by one pixel a turn; each width is laid over the rows that the disk reaches with it.
            for wide in 0..=radius {
                if wide > 0 {
                    let target = next[from + 1..to + 1].iter_mut();
                    for (word, near) in target.zip(grown[from..to + 2].windows(3)) {
                        *word = near[1] | near[1] << 1 | near[0] >> 63 | near[1] >> 1 | near[2] << 63;
                    }
                    if to == self.stride {
                        next[self.stride] &= tail;
                    }
                    next[from] = 0;
                    next[to + 1] = 0;
                    std::mem::swap(&mut grown, &mut next);
                }
                for dy in (0..=radius).filter(|&dy| reach[dy] == wide) {
                    for row in [y.checked_sub(dy), Some(y + dy).filter(|&row| row < self.height)].into_iter().flatten()
                    {
                        let target = &mut out.words[row * self.stride + from..row * self.stride + to];
                        target.iter_mut().zip(&grown[from + 1..to + 1]).for_each(|(word, bits)| *word |= bits);
                    }
                }
            }
        }
        out
    }
}

/// Eight bytes that are 0 or 1 as the lowest eight bits, the first byte lowest.
fn packed(bytes: [u8; 8]) -> u64 {
    // Byte i times the factor's byte 7 - i (2^i) lands in bit i of the highest byte; no two products share a bit.
    u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56
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
    fn pixels_are_where_they_were() {
        for (width, height) in [(1, 3), (7, 2), (64, 2), (130, 5)] {
            let pixels = speckles(width, height, 3);
            let map = Bitmap::of(&pixels, width, |p| p);
            let found: Vec<bool> = (0..width * height).map(|i| map.get(i % width, i / width)).collect();
            assert_eq!(found, pixels);
            assert_eq!(map.count(), pixels.iter().filter(|&&p| p).count() as u64);
        }
    }

    #[test]
    fn dilation_equals_its_definition() {
        for (width, height, radius) in
            [(130, 17, 3), (64, 9, 8), (5, 4, 2), (1, 1, 1), (70, 30, 0), (300, 5, 70), (257, 6, 64)]
        {
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
