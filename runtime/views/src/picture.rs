//! Pictures and index masks as plain bytes.

use crate::simd;

/// An RGB picture, 8 bits a channel, row by row, `data.len() == 3 × width × height`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// R, G, B of each pixel.
    pub data: Vec<u8>,
}

/// A class or object index for every pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexMask {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One index each.
    pub data: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, data: colour.iter().copied().cycle().take(3 * width * height).collect() }
    }

    /// The pixel at (x, y).
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let i = 3 * (y * self.width + x);
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }

    /// A part of it; what lies outside is cut off.
    pub fn cropped(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let (left, top) = (left.min(self.width), top.min(self.height));
        let (width, height) = (width.min(self.width - left), height.min(self.height - top));
        let mut data = Vec::with_capacity(3 * width * height);
        for y in top..top + height {
            let start = 3 * (y * self.width + left);
            data.extend_from_slice(&self.data[start..start + 3 * width]);
        }
        Self { width, height, data }
    }

    /// Left and right exchanged.
    pub fn flipped(&self) -> Self {
        let mut data = vec![0; self.data.len()];
        let stride = 3 * self.width.max(1);
        for (from, to) in self.data.chunks_exact(stride).zip(data.chunks_exact_mut(stride)) {
            let done = simd::reverse_pixels(from, to);
            let left = to.len() - 3 * done;
            for (from, to) in from[3 * done..].chunks_exact(3).zip(to[..left].chunks_exact_mut(3).rev()) {
                to.copy_from_slice(from);
            }
        }
        Self { width: self.width, height: self.height, data }
    }

    /// [`Normaliser::write`], for once.
    ///
    /// # Panics
    /// If `out` is shorter.
    pub fn write_normalised(&self, mean: [f64; 3], std: [f64; 3], out: &mut [f32]) {
        Normaliser::new(mean, std).write(self, out);
    }
}

/// Bytes to numbers for a network: `(value / 255 − mean) / std` in single precision, as torchvision computes it.
#[derive(Clone, Debug)]
pub struct Normaliser {
    tables: Box<[[f32; 256]; 3]>,
}

impl Normaliser {
    /// Mean and standard deviation of each channel, red first, of values in 0..1.
    pub fn new(mean: [f64; 3], std: [f64; 3]) -> Self {
        let table = |c: usize| std::array::from_fn(|v| (v as f32 / 255.0 - mean[c] as f32) / std[c] as f32);
        Self { tables: Box::new([table(0), table(1), table(2)]) }
    }

    /// Writes a picture channel by channel (CHW) into the first 3 × width × height numbers of `out`.
    ///
    /// # Panics
    /// If `out` is shorter.
    pub fn write(&self, picture: &Picture, out: &mut [f32]) {
        let area = picture.width * picture.height;
        let (red, rest) = out.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        let [reds, greens, blues] = &*self.tables;
        let channels = red.iter_mut().zip(green).zip(&mut blue[..area]);
        for (((red, green), blue), pixel) in channels.zip(picture.data.chunks_exact(3)) {
            *red = reds[usize::from(pixel[0])];
            *green = greens[usize::from(pixel[1])];
            *blue = blues[usize::from(pixel[2])];
        }
    }
}

impl IndexMask {
    /// A part of it; what lies outside is cut off.
    pub fn cropped(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let (left, top) = (left.min(self.width), top.min(self.height));
        let (width, height) = (width.min(self.width - left), height.min(self.height - top));
        let rows = self.data.chunks_exact(self.width.max(1)).skip(top).take(height);
        Self { width, height, data: rows.flat_map(|row| row[left..left + width].iter().copied()).collect() }
    }

    /// Left and right exchanged.
    pub fn flipped(&self) -> Self {
        let data = self.data.chunks_exact(self.width.max(1)).flat_map(|row| row.iter().rev().copied()).collect();
        Self { width: self.width, height: self.height, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_channels_lie_one_after_another() {
        let picture = Picture { width: 2, height: 1, data: vec![0, 51, 255, 255, 102, 0] };
        let mut out = [9.0; 7];
        picture.write_normalised([0.5, 0.2, 0.0], [0.5, 0.1, 2.0], &mut out);
        let expected = [-1.0, 1.0, 0.0, 2.0, 0.5, 0.0, 9.0];
        assert!(out.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let picture = Picture { width: 3, height: 2, data: (0..18).collect() };
        let part = picture.cropped(2, 1, 9, 9);
        assert_eq!(part, Picture { width: 1, height: 1, data: vec![15, 16, 17] });
        assert!(picture.cropped(7, 0, 1, 1).data.is_empty());
        let mask = IndexMask { width: 3, height: 2, data: (0..6).collect() };
        assert_eq!(mask.cropped(1, 0, 9, 1), IndexMask { width: 2, height: 1, data: vec![1, 2] });
        assert_eq!(mask.cropped(7, 0, 1, 1), IndexMask { width: 0, height: 1, data: vec![] });
        let mask = IndexMask { width: 3, height: 2, data: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(mask.flipped().data, [3, 2, 1, 6, 5, 4]);
    }
}
