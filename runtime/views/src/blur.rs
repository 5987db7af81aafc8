//! Pillow's Gaussian blur: three passes of a box with a fractional radius (`BoxBlur.c`), not an exact Gaussian.

use crate::picture::Picture;

/// The box radius whose three passes have the variance of a Gaussian of radius `sigma` (Gwosdek et al. 2011).
fn box_radius(sigma: f32) -> f32 {
    let variance = f64::from(sigma * sigma / 3.0);
    let length = (12.0 * variance + 1.0).sqrt();
    let whole = ((length - 1.0) / 2.0).floor();
    let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    (whole + part / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))) as f32
}

/// Blurs with radius `sigma` in pixels; 0 or less leaves the picture as it is.
pub fn gaussian_blur(picture: &mut Picture, sigma: f64) {
    if sigma <= 0.0 || picture.data.is_empty() {
        return;
    }
    let radius = box_radius(sigma as f32);
    let (width, height) = (picture.width, picture.height);
    passes(&mut picture.data, width, height, radius);
    let mut turned = transposed(&picture.data, width, height);
    passes(&mut turned, height, width, radius);
    picture.data = transposed(&turned, height, width);
}

fn transposed(data: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut out = vec![0; data.len()];
    for y in 0..height {
        for x in 0..width {
            let (from, to) = (3 * (y * width + x), 3 * (x * height + y));
            out[to..to + 3].copy_from_slice(&data[from..from + 3]);
        }
    }
    out
}

/// Three box passes along every row.
fn passes(data: &mut [u8], width: usize, height: usize, radius: f32) {
    let whole = radius as usize;
    let inner = ((1u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
    let outer = ((1u32 << 24) - (2 * whole as u32 + 1) * inner) / 2;
    let mut line = vec![[0u32; 3]; width + 2 * (whole + 1)];
    let pad = whole + 1;
    for row in data.chunks_exact_mut(3 * width).take(height) {
        for _ in 0..3 {
            // Borders repeat the last pixel.
            for (i, slot) in line.iter_mut().enumerate() {
                let x = i.saturating_sub(pad).min(width - 1);
                *slot = [u32::from(row[3 * x]), u32::from(row[3 * x + 1]), u32::from(row[3 * x + 2])];
            }
            let mut sums = [0u32; 3];
            line[1..2 * whole + 1].iter().for_each(|p| (0..3).for_each(|c| sums[c] += p[c]));
            for x in 0..width {
                for c in 0..3 {
                    sums[c] += line[x + 2 * whole + 1][c];
                    let edges = line[x][c] + line[x + 2 * whole + 2][c];
                    row[3 * x + c] = ((sums[c] * inner + edges * outer + (1 << 23)) >> 24) as u8;
                    sums[c] -= line[x + 1][c];
                }
            }
        }
    }
}
