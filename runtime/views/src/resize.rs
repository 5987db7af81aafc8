//! Pillow's antialiased resize, in its fixed-point arithmetic (`Resample.c`), and torchvision's size rules around it.

use crate::picture::{IndexMask, Picture};

/// The interpolation filter; both are widened when shrinking, so they do not alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle, support 1.
    Bilinear,
    /// Cubic with a = −0.5, support 2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Bicubic => 0.0,
        }
    }
}

const BITS: u32 = 22;

/// For each output position: first input position and fixed-point weights.
fn coefficients(input: usize, output: usize, filter: Filter) -> Vec<(usize, Vec<i32>)> {
    let scale = input as f64 / output as f64;
    let wide = scale.max(1.0);
    let support = filter.support() * wide;
    (0..output)
        .map(|position| {
            let centre = (position as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as i64).max(0) as usize;
            let last = ((centre + support + 0.5) as i64).min(input as i64).max(0) as usize;
            let weights: Vec<f64> = (first..last).map(|x| filter.weight((x as f64 - centre + 0.5) / wide)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = weights.iter().map(|w| {
                let w = if sum != 0.0 { w / sum } else { *w } * f64::from(1u32 << BITS);
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            });
            (first, fixed.collect())
        })
        .collect()
}

fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes to `width` × `height`: a horizontal pass, rounded to bytes, then a vertical one, as Pillow does.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    if picture.width == 0 || picture.height == 0 || width == 0 || height == 0 {
        return Picture::filled(width, height, [0; 3]);
    }
    let half = 1i32 << (BITS - 1);
    let narrowed;
    let mut source = picture;
    if width != picture.width {
        let columns = coefficients(picture.width, width, filter);
        let mut data = vec![0; 3 * width * picture.height];
        for (row, out) in picture.data.chunks_exact(3 * picture.width).zip(data.chunks_exact_mut(3 * width)) {
            for ((first, weights), pixel) in columns.iter().zip(out.chunks_exact_mut(3)) {
                let mut sums = [half; 3];
                for (weight, value) in weights.iter().zip(row[3 * first..].chunks_exact(3)) {
                    sums[0] += weight * i32::from(value[0]);
                    sums[1] += weight * i32::from(value[1]);
                    sums[2] += weight * i32::from(value[2]);
                }
                pixel.copy_from_slice(&sums.map(clip));
            }
        }
        narrowed = Picture { width, height: picture.height, data };
        source = &narrowed;
    }
    if height == source.height {
        return source.clone();
    }
    let stride = 3 * width;
    let mut data = vec![0; stride * height];
    let mut sums = vec![0i32; stride];
    for ((first, weights), out) in coefficients(source.height, height, filter).iter().zip(data.chunks_exact_mut(stride))
    {
        sums.fill(half);
        for (weight, row) in weights.iter().zip(source.data[first * stride..].chunks_exact(stride)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(*value);
            }
        }
        for (value, sum) in out.iter_mut().zip(&sums) {
            *value = clip(*sum);
        }
    }
    Picture { width, height, data }
}

/// Nearest neighbour with pixel centres: output x takes input ⌊(x + ½)·in/out⌋.
pub fn resize_index_nearest(mask: &IndexMask, width: usize, height: usize) -> IndexMask {
    let pick = |position: usize, input: usize, output: usize| {
        (((position as f64 + 0.5) * input as f64 / output as f64) as usize).min(input.saturating_sub(1))
    };
    let columns: Vec<usize> = (0..width).map(|x| pick(x, mask.width, width)).collect();
    let mut data = Vec::with_capacity(width * height);
    if !mask.data.is_empty() {
        for y in 0..height {
            let row = pick(y, mask.height, height) * mask.width;
            data.extend(columns.iter().map(|x| mask.data[row + x]));
        }
    }
    IndexMask { width, height, data }
}

/// torchvision's `Resize(short)`: the short side becomes `short`, the other ⌊short·long/short side⌋.
pub fn resize_shorter(picture: &Picture, short: usize, filter: Filter) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let (width, height) = if w <= h {
        (short, (short as f64 * h as f64 / w.max(1) as f64) as usize)
    } else {
        ((short as f64 * w as f64 / h.max(1) as f64) as usize, short)
    };
    if (width, height) == (w, h) { picture.clone() } else { resize(picture, width, height, filter) }
}

/// torchvision's `CenterCrop(size)`: offsets round((side − size)/2) half to even; a smaller picture gets black borders.
pub fn centre_crop(picture: &Picture, size: usize) -> Picture {
    let mut padded;
    let mut source = picture;
    if picture.width < size || picture.height < size {
        let (w, h) = (picture.width.max(size), picture.height.max(size));
        let (left, top) = ((w - picture.width) / 2, (h - picture.height) / 2);
        padded = Picture::filled(w, h, [0; 3]);
        for y in 0..picture.height {
            let to = 3 * ((top + y) * w + left);
            padded.data[to..to + 3 * picture.width]
                .copy_from_slice(&picture.data[3 * y * picture.width..3 * (y + 1) * picture.width]);
        }
        source = &padded;
    }
    let offset = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
    source.cropped(offset(source.width), offset(source.height), size, size)
}
