//! Pillow's antialiased resize, in its fixed-point arithmetic (`Resample.c`), and torchvision's size rules around it.

use std::cell::RefCell;

use crate::picture::{IndexMask, Picture};
use crate::simd::{self, Groups, WeightPair};

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
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Bicubic => 0.0,
        }
    }
}

/// Bits behind the point of a weight: 8 for the value and 2 for cubic overshoot are left of 32.
pub(crate) const BITS: u32 = 22;

/// The input positions and fixed-point weights of every output position, all weights in one list.
struct Taps {
    /// First input position, first weight, number of weights.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    /// Maps the stretch `from`..`to` of `input` positions to `output` positions. Positions are single precision and
    /// weights double, as in `Resample.c`.
    fn new(input: usize, from: f32, to: f32, output: usize, filter: Filter) -> Self {
        let scale = f64::from(to - from) / output as f64;
        let wide = scale.max(1.0);
        let (support, narrow) = (filter.support() * wide, 1.0 / wide);
        let mut taps = Self { spans: Vec::with_capacity(output), weights: Vec::new() };
        let mut row = Vec::new();
        for position in 0..output {
            let centre = f64::from(from) + (position as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as i64).max(0) as usize;
            let last = ((centre + support + 0.5) as i64).clamp(0, input as i64) as usize;
            row.clear();
            row.extend((first..last).map(|x| filter.weight((x as f64 - centre + 0.5) * narrow)));
            let sum: f64 = row.iter().sum();
            taps.spans.push((first, taps.weights.len(), row.len()));
            taps.weights.extend(row.iter().map(|w| {
                let w = if sum != 0.0 { w / sum } else { *w } * f64::from(1u32 << BITS);
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            }));
        }
        taps
    }

    /// (first input position, weights) of each output position.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|&(first, start, count)| (first, &self.weights[start..start + count]))
    }

    /// First input position used, and the one behind the last.
    fn reach(&self) -> (usize, usize) {
        let ends = self.spans.iter().map(|(first, _, count)| first + count);
        (self.spans.first().map_or(0, |span| span.0), ends.max().unwrap_or(0))
    }
}

fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Half a unit: sums are rounded, not cut off.
pub(crate) const HALF: i32 = 1 << (BITS - 1);

/// A part of a picture, without a copy.
struct Part<'a> {
    data: &'a [u8],
    /// Bytes from row to row.
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> Part<'a> {
    /// The box, cut to the picture.
    fn of(picture: &'a Picture, left: usize, top: usize, width: usize, height: usize) -> Self {
        let (left, top) = (left.min(picture.width), top.min(picture.height));
        let (width, height) = (width.min(picture.width - left), height.min(picture.height - top));
        let start = (3 * (top * picture.width + left)).min(picture.data.len());
        Self { data: &picture.data[start..], stride: 3 * picture.width, width, height }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..y * self.stride + 3 * self.width]
    }
}

/// Resizes to `width` × `height`.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    resize_crop(picture, (0, 0, picture.width, picture.height), width, height, filter)
}

/// Resizes a part in whole pixels, (left, top, width, height), to `width` × `height`. Equal to cropping first, as
/// torchvision's `resized_crop` does: pixels outside have no weight. What lies outside of the picture is cut off.
pub fn resize_crop(
    picture: &Picture,
    part: (usize, usize, usize, usize),
    width: usize,
    height: usize,
    filter: Filter,
) -> Picture {
    let part = Part::of(picture, part.0, part.1, part.2, part.3);
    let whole = [0.0, 0.0, part.width as f32, part.height as f32];
    resample(&part, whole, width, height, filter)
}

/// Resizes the box (left, top, right, bottom), in fractions of pixels, to `width` × `height`, as Pillow's
/// `resize(size, filter, box)`: pixels around the box have weight where the filter reaches them. The box is cut to the
/// picture; an empty one gives a black picture.
pub fn resize_box(picture: &Picture, bounds: [f64; 4], width: usize, height: usize, filter: Filter) -> Picture {
    let part = Part::of(picture, 0, 0, picture.width, picture.height);
    let (w, h) = (picture.width as f64, picture.height as f64);
    let [left, top, right, bottom] = bounds;
    let cut = [left.clamp(0.0, w), top.clamp(0.0, h), right.clamp(0.0, w), bottom.clamp(0.0, h)].map(|x| x as f32);
    resample(&part, cut, width, height, filter)
}

thread_local! {
    /// What the horizontal pass gives, used again by the next resize of the thread.
    static NARROWED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A horizontal pass, rounded to bytes, then a vertical one; a direction that nothing changes in is left out.
fn resample(part: &Part, bounds: [f32; 4], width: usize, height: usize, filter: Filter) -> Picture {
    NARROWED.with_borrow_mut(|narrowed| resample_in(narrowed, part, bounds, width, height, filter))
}

fn resample_in(
    narrowed: &mut Vec<u8>,
    part: &Part,
    [left, top, right, bottom]: [f32; 4],
    width: usize,
    height: usize,
    filter: Filter,
) -> Picture {
    let sound = right > left && bottom > top && width > 0 && height > 0;
    if !sound {
        return Picture::filled(width, height, [0; 3]);
    }
    let stride = 3 * width;
    let same_columns = width == part.width && left == 0.0 && right == width as f32;
    let same_rows = height == part.height && top == 0.0 && bottom == height as f32;
    let rows = Taps::new(part.height, top, bottom, height, filter);
    let (first_row, end_row) = if same_rows { (0, part.height) } else { rows.reach() };

    let source = if same_columns {
        Part { data: &part.data[first_row * part.stride..], ..*part }
    } else {
        let columns = Taps::new(part.width, left, right, width, filter);
        // Whole vectors in every row, and a byte to spare.
        let stride = (stride + 1).next_multiple_of(32);
        let length = stride * (end_row - first_row);
        // Never shrunk, so that nothing is cleared twice; what an earlier resize left is written over.
        narrowed.resize(narrowed.len().max(length), 0);
        horizontal(part, first_row, &columns, &mut narrowed[..length], stride);
        Part { data: &narrowed[..length], stride, width, height: end_row - first_row }
    };
    let mut data = vec![0; stride * height];
    if same_rows {
        for (y, out) in data.chunks_exact_mut(stride).enumerate() {
            out.copy_from_slice(source.row(y));
        }
        return Picture { width, height, data };
    }
    vertical(&source, first_row, &rows, &mut data);
    Picture { width, height, data }
}

/// Every output row is a weighted sum of rows of the source, which begins at row `first_row`.
fn vertical(source: &Part, first_row: usize, rows: &Taps, data: &mut [u8]) {
    let (mut pairs, mut sums) = (Vec::new(), Vec::new());
    for ((first, weights), out) in rows.iter().zip(data.chunks_exact_mut(3 * source.width)) {
        pairs.clear();
        pairs.extend(weights.chunks(2).map(|pair| {
            let (high, low) = simd::split(pair[0]);
            let (high_two, low_two) = pair.get(1).map_or((0, 0), |weight| simd::split(*weight));
            let packed = |first: i16, second: i16| i32::from(second) << 16 | i32::from(first as u16);
            WeightPair { high: packed(high, high_two), low: packed(low, low_two), two: pair.len() == 2 }
        }));
        let start = (first - first_row) * source.stride;
        let done = simd::vertical(&source.data[start.min(source.data.len())..], source.stride, &pairs, out);
        let out = &mut out[done..];
        sums.clear();
        sums.resize(out.len(), HALF);
        for (weight, y) in weights.iter().zip(first - first_row..) {
            for (sum, value) in sums.iter_mut().zip(&source.row(y)[done..]) {
                *sum += weight * i32::from(*value);
            }
        }
        for (value, sum) in out.iter_mut().zip(&sums) {
            *value = clip(*sum);
        }
    }
}

/// Every output pixel is a weighted sum of pixels of its row. The rows of the part from `first_row` on, to rows of
/// `stride` bytes.
fn horizontal(part: &Part, first_row: usize, columns: &Taps, out: &mut [u8], stride: usize) {
    let mut weights: Vec<[i16; 8]> = Vec::new();
    let mut spans = Vec::with_capacity(columns.spans.len());
    if simd::available() {
        for (first, taps) in columns.iter() {
            let start = weights.len();
            weights.extend(taps.chunks(4).map(|four| {
                let mut group = [0; 8];
                for (n, weight) in four.iter().enumerate() {
                    (group[n], group[n + 4]) = simd::split(*weight);
                }
                group
            }));
            spans.push(Groups { first, start, count: weights.len() - start });
        }
    }
    for (n, out) in out.chunks_mut(4 * stride).enumerate() {
        let first = first_row + 4 * n;
        // To the end of the data, not only of the row: vectors read on behind it, with weights of zero.
        let four = [0, 1, 2, 3].map(|y| part.data.get((first + y) * part.stride..).unwrap_or_default());
        let whole = !spans.is_empty() && out.len() == 4 * stride;
        if whole && simd::horizontal_four(four, &spans, &weights, out, stride) {
            continue;
        }
        for (y, out) in out.chunks_exact_mut(stride).enumerate() {
            horizontal_row(part.row(first + y), columns, out);
        }
    }
}

fn horizontal_row(row: &[u8], columns: &Taps, out: &mut [u8]) {
    for ((first, weights), pixel) in columns.iter().zip(out.chunks_exact_mut(3)) {
        let mut sums = [HALF; 3];
        for (weight, value) in weights.iter().zip(row[3 * first..].chunks_exact(3)) {
            sums[0] += weight * i32::from(value[0]);
            sums[1] += weight * i32::from(value[1]);
            sums[2] += weight * i32::from(value[2]);
        }
        pixel.copy_from_slice(&sums.map(clip));
    }
}

/// Nearest neighbour with pixel centres, as Pillow: output x takes input ⌊(x + ½)·in/out⌋. An empty mask gives zeros.
pub fn resize_index_nearest(mask: &IndexMask, width: usize, height: usize) -> IndexMask {
    // Pillow adds the step up, and where a centre falls on an edge of two pixels the rounding of these sums decides.
    let picks = |input: usize, output: usize| -> Vec<usize> {
        let step = input as f64 / output as f64;
        let mut at = step * 0.5;
        let next = |_| {
            let pick = (at as usize).min(input.saturating_sub(1));
            at += step;
            pick
        };
        (0..output).map(next).collect()
    };
    let (columns, rows) = (picks(mask.width, width), picks(mask.height, height));
    let mut data = Vec::with_capacity(width * height);
    if mask.data.is_empty() {
        data.resize(width * height, 0);
    } else {
        for row in rows.into_iter().map(|row| row * mask.width) {
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
