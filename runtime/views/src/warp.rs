//! Rotation and scaling about the centre in one warp, as segmentation training uses it (OpenCV's `getRotationMatrix2D`
//! and `warpAffine` on the same canvas).

use crate::picture::{IndexMask, Picture};
use crate::resize::Filter;

/// Bits behind the point of a place while it is summed, and of the place that is interpolated at, as in OpenCV.
const SUM_BITS: u32 = 10;
const PLACE_BITS: u32 = 5;

/// Output pixel → input place, for a rotation by `degrees` (counter-clockwise) and a scaling about (w/2, h/2).
///
/// Places are in units of 2⁻ᵇⁱᵗˢ pixels. Column and row parts are rounded one by one before they are summed.
struct Inverse {
    columns: Vec<(i64, i64)>,
    rows: Vec<(i64, i64)>,
    shift: u32,
}

impl Inverse {
    fn new(width: usize, height: usize, degrees: f64, scale: f64, bits: u32) -> Self {
        let (sin, cos) = libm::sincos(degrees.to_radians());
        let (a, b) = (cos / scale, sin / scale);
        let (cx, cy) = (width as f64 / 2.0, height as f64 / 2.0);
        let fixed = |x: f64| (x * f64::from(1u32 << SUM_BITS)).round_ties_even() as i64;
        let shift = SUM_BITS - bits;
        let half = (1i64 << shift) / 2;
        let columns = (0..width).map(|x| x as f64).map(|x| (fixed(a * x), fixed(b * x))).collect();
        let rows = (0..height)
            .map(|y| y as f64)
            .map(|y| {
                let (x0, y0) = (-b * y + cx - a * cx + b * cy, a * y + cy - b * cx - a * cy);
                (fixed(x0).saturating_add(half), fixed(y0).saturating_add(half))
            })
            .collect();
        Self { columns, rows, shift }
    }

    /// The places of one output row.
    fn row(&self, y: usize) -> impl Iterator<Item = (i64, i64)> {
        let (x0, y0) = self.rows[y];
        self.columns
            .iter()
            .map(move |(x, y)| (x0.saturating_add(*x) >> self.shift, y0.saturating_add(*y) >> self.shift))
    }
}

/// Weights of the four taps around a place, at `t` behind the second one: linear, or cubic convolution with a = −0.75.
fn weights(filter: Filter, t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    if filter == Filter::Bilinear {
        return [0.0, 1.0 - t, t, 0.0];
    }
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let (a, b, c) = (far(t + 1.0), near(t), near(1.0 - t));
    [a, b, c, 1.0 - a - b - c]
}

/// Rotates a picture counter-clockwise by `degrees` and scales it by `scale` (above 0) about its centre, same canvas;
/// what comes from outside is `border`. `Bicubic` is OpenCV's here (a = −0.75), neither filter is widened when
/// shrinking. A scale that is not above 0 gives the border everywhere.
pub fn rotate_scale(picture: &Picture, degrees: f64, scale: f64, filter: Filter, border: [u8; 3]) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let mut out = Picture::filled(w, h, border);
    let sound = scale > 0.0 && scale.is_finite() && degrees.is_finite();
    if !sound {
        return out;
    }
    let inverse = Inverse::new(w, h, degrees, scale, PLACE_BITS);
    let steps = 1i64 << PLACE_BITS;
    let table: Vec<[f64; 4]> = (0..steps).map(|t| weights(filter, t as f64 / steps as f64)).collect();
    for (y, row) in out.data.chunks_exact_mut(3 * w.max(1)).enumerate() {
        for ((px, py), pixel) in inverse.row(y).zip(row.chunks_exact_mut(3)) {
            let (x0, y0) = ((px >> PLACE_BITS).saturating_sub(1), (py >> PLACE_BITS).saturating_sub(1));
            if x0 <= -4 || y0 <= -4 || x0 >= w as i64 || y0 >= h as i64 {
                continue;
            }
            let (wx, wy) = (table[(px & (steps - 1)) as usize], table[(py & (steps - 1)) as usize]);
            let mut sums = [0.0; 3];
            for (sy, wy) in (y0..).zip(wy) {
                for (sx, wx) in (x0..).zip(wx) {
                    let inside = sx >= 0 && sy >= 0 && sx < w as i64 && sy < h as i64;
                    let value = if inside { picture.at(sx as usize, sy as usize) } else { border };
                    (0..3).for_each(|c| sums[c] += wx * wy * f64::from(value[c]));
                }
            }
            // The cast saturates, which is the clipping.
            (0..3).for_each(|c| pixel[c] = sums[c].round_ties_even() as u8);
        }
    }
    out
}

/// The same warp for a mask, nearest neighbour; what comes from outside is `border`.
pub fn rotate_scale_index(mask: &IndexMask, degrees: f64, scale: f64, border: u8) -> IndexMask {
    let (width, height) = (mask.width, mask.height);
    IndexMask { width, height, data: rotate_scale_values(&mask.data, (width, height), degrees, scale, border) }
}

/// The same warp for any map of `width` × `height` values (depth, say), row by row, nearest neighbour; what comes from
/// outside is `border`.
pub fn rotate_scale_values<T: Copy>(
    values: &[T],
    (w, h): (usize, usize),
    degrees: f64,
    scale: f64,
    border: T,
) -> Vec<T> {
    let sound = scale > 0.0 && scale.is_finite() && degrees.is_finite();
    if !sound {
        return vec![border; w * h];
    }
    let inverse = Inverse::new(w, h, degrees, scale, 0);
    let mut data = Vec::with_capacity(w * h);
    for y in 0..h {
        data.extend(inverse.row(y).map(|(x, y)| match (usize::try_from(x), usize::try_from(y)) {
            (Ok(x), Ok(y)) if x < w && y < h => values[y * w + x],
            _ => border,
        }));
    }
    data
}
