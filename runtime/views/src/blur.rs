//! Pillow's Gaussian blur: three passes of a box with a fractional radius (`BoxBlur.c`), not an exact Gaussian.

use crate::picture::Picture;
use crate::simd;

/// The box radius whose three passes have the variance of a Gaussian of radius `sigma` (Gwosdek et al., "Theoretical
/// foundations of Gaussian convolution by extended box filtering", 2011). In single precision, as Pillow computes it.
fn box_radius(sigma: f32) -> f32 {
    let variance = sigma * sigma / 3.0;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    whole + part / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
}

/// Largest radius; beyond it every picture is flat long since, and the sums below would not fit their integers.
const MOST_SIGMA: f64 = 10_000.0;

/// Blurs with radius `sigma` in pixels, at most 10,000; what is not above 0 leaves the picture as it is.
pub fn gaussian_blur(picture: &mut Picture, sigma: f64) {
    let sound = sigma > 0.0 && !picture.data.is_empty();
    if !sound {
        return;
    }
    let radius = box_radius(sigma.min(MOST_SIGMA) as f32);
    let (width, height) = (picture.width, picture.height);
    // Both directions run down the columns, where neighbouring bytes are summed side by side; turning the picture
    // costs less than running along its rows would.
    let mut turned = transposed(&picture.data, width, height);
    three_passes(&mut turned, 3 * height, width, radius);
    picture.data = transposed(&turned, height, width);
    three_passes(&mut picture.data, 3 * width, height, radius);
}

fn transposed(data: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut out = vec![0; data.len()];
    for (y, row) in data.chunks_exact(3 * width).enumerate() {
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let to = 3 * (x * height + y);
            out[to..to + 3].copy_from_slice(pixel);
        }
    }
    out
}

/// Three box passes down the columns of `rows` rows of `stride` bytes. Beyond the border the last row repeats.
fn three_passes(data: &mut Vec<u8>, stride: usize, rows: usize, radius: f32) {
    /// The same loops, compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn wide(data: &mut Vec<u8>, stride: usize, rows: usize, radius: f32) {
        passes(data, stride, rows, radius);
    }
    #[cfg(target_arch = "x86_64")]
    if simd::available() {
        // SAFETY: the processor has AVX2.
        return unsafe { wide(data, stride, rows, radius) };
    }
    passes(data, stride, rows, radius);
}

#[inline(always)]
fn passes(data: &mut Vec<u8>, stride: usize, rows: usize, radius: f32) {
    let whole = radius as usize;
    let inner = ((1u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
    let outer = (1u32 << 24).wrapping_sub((2 * whole as u32 + 1).wrapping_mul(inner)) / 2;
    let mut blurred = vec![0u8; data.len()];
    let mut sums = vec![0u32; stride];
    for _ in 0..3 {
        {
            // Row y + offset of the source, kept inside.
            let row = |y: usize, up: usize, down: usize| {
                let y = (y + down).saturating_sub(up).min(rows - 1);
                &data[y * stride..(y + 1) * stride]
            };
            // The box of row 0 without its lowest row, which the loop adds.
            sums.fill(0);
            for offset in 0..2 * whole {
                sums.iter_mut().zip(row(0, whole, offset)).for_each(|(sum, v)| *sum += u32::from(*v));
            }
            for (y, out) in blurred.chunks_exact_mut(stride).enumerate() {
                let (above, below) = (row(y, whole + 1, 0), row(y, 0, whole + 1));
                let (leaving, entering) = (row(y, whole, 0), row(y, 0, whole));
                let lines = above.iter().zip(below).zip(leaving.iter().zip(entering));
                for ((sum, out), ((above, below), (leaving, entering))) in sums.iter_mut().zip(out).zip(lines) {
                    *sum += u32::from(*entering);
                    let edges = u32::from(*above) + u32::from(*below);
                    *out = (sum.wrapping_mul(inner).wrapping_add(edges.wrapping_mul(outer)).wrapping_add(1 << 23) >> 24)
                        as u8;
                    *sum -= u32::from(*leaving);
                }
            }
        }
        std::mem::swap(data, &mut blurred);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn any_radius_is_survived() {
        let mut stream = Stream::new(0, "test", "noise", 0, 0, 0);
        for (width, height) in [(1, 1), (2, 1), (1, 5), (7, 3)] {
            let picture =
                Picture { width, height, data: (0..3 * width * height).map(|_| stream.next_u32() as u8).collect() };
            for sigma in [-1.0, 0.0, f64::NAN, 0.01, 3.0, 40.0, f64::INFINITY] {
                let mut blurred = picture.clone();
                gaussian_blur(&mut blurred, sigma);
                assert_eq!(
                    blurred == picture,
                    sigma.is_nan() || sigma <= 0.1 || width * height == 1,
                    "{width}×{height}, {sigma}"
                );
            }
        }
    }
}
