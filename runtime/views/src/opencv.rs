//! OpenCV's `resize`: cubic without antialiasing for pictures, nearest by the upper left corner for masks. What the
//! study's segmentation code uses; Pillow's, which the rest of harness uses, are in [`crate::resize`](mod@crate::resize).

use crate::picture::{IndexMask, Picture};

/// The four input positions of every output position and their weights.
///
/// Output x lies at (x + ½)·in/out − ½; positions outside take the nearest one inside.
fn taps(input: usize, output: usize) -> Vec<([usize; 4], [f64; 4])> {
    const A: f64 = -0.75;
    let scale = input as f64 / output as f64;
    (0..output)
        .map(|x| {
            let place = (x as f64 + 0.5) * scale - 0.5;
            let first = place.floor();
            let t = place - first;
            let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
            let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
            let (a, b, c) = (far(t + 1.0), near(t), near(1.0 - t));
            let weights = [a, b, c, 1.0 - a - b - c];
            let at = |offset: i64| (first as i64 + offset).clamp(0, input as i64 - 1) as usize;
            ([at(-1), at(0), at(1), at(2)], weights)
        })
        .collect()
}

/// `INTER_CUBIC`: cubic convolution with a = −0.75, half-pixel centres, borders repeated, not widened when shrinking (so
/// it aliases). An empty picture gives black. OpenCV 4 computes in fixed point and may be a level off.
pub fn resize_cubic(picture: &Picture, width: usize, height: usize) -> Picture {
    let mut out = Picture::filled(width, height, [0; 3]);
    if picture.data.is_empty() {
        return out;
    }
    if (width, height) == (picture.width, picture.height) {
        return picture.clone();
    }
    let (columns, rows) = (taps(picture.width, width), taps(picture.height, height));
    // Rows that were resized across, kept until no output row needs them.
    let mut wide: Vec<(usize, Vec<f64>)> = Vec::new();
    for ((from, weights), out) in rows.iter().zip(out.data.chunks_exact_mut(3 * width.max(1))) {
        wide.retain(|(row, _)| *row >= from[0]);
        for &row in from {
            if !wide.iter().any(|(have, _)| *have == row) {
                let source = &picture.data[3 * row * picture.width..3 * (row + 1) * picture.width];
                let mut sums = Vec::with_capacity(3 * width);
                for (positions, weights) in &columns {
                    for channel in 0..3 {
                        let taps = positions.iter().zip(weights);
                        sums.push(taps.map(|(&x, weight)| f64::from(source[3 * x + channel]) * weight).sum());
                    }
                }
                wide.push((row, sums));
            }
        }
        let lines = from.map(|row| wide.iter().find(|(have, _)| *have == row).map_or(&[][..], |(_, sums)| sums));
        for (at, value) in out.iter_mut().enumerate() {
            let sum: f64 = lines.iter().zip(weights).map(|(line, &weight)| line[at] * weight).sum();
            // The cast saturates, which is the clipping.
            *value = sum.round_ties_even() as u8;
        }
    }
    out
}

/// `INTER_NEAREST`: output x takes input ⌊x·in/out⌋. An empty mask gives zeros.
pub fn resize_index_floor(mask: &IndexMask, width: usize, height: usize) -> IndexMask {
    if mask.data.is_empty() {
        return IndexMask { width, height, data: vec![0; width * height] };
    }
    let pick = |input: usize, output: usize| -> Vec<usize> {
        // OpenCV divides the sizes the other way round and inverts the quotient, which can differ in the last bit.
        let scale = 1.0 / (output as f64 / input as f64);
        (0..output).map(|x| ((x as f64 * scale) as usize).min(input - 1)).collect()
    };
    let columns = pick(mask.width, width);
    let rows = pick(mask.height, height);
    let data = rows.iter().flat_map(|y| columns.iter().map(move |x| mask.data[y * mask.width + x])).collect();
    IndexMask { width, height, data }
}
