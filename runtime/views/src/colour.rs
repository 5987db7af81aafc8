//! Colour operations as Pillow's `ImageEnhance` and torchvision's PIL path compute them.

use crate::picture::Picture;
use crate::simd;

/// ITU-R 601 luma in Pillow's fixed point.
fn luma(pixel: &[u8]) -> u8 {
    ((u32::from(pixel[0]) * 19595 + u32::from(pixel[1]) * 38470 + u32::from(pixel[2]) * 7471 + 0x8000) >> 16) as u8
}

/// `degenerate + factor·(value − degenerate)` in single precision, cut off towards zero and clipped (`Blend.c`).
fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (low, high) = (f32::from(degenerate), f32::from(value));
    // A cast from float saturates, which is the clipping.
    (low + factor * (high - low)) as u8
}

/// Grey with three equal channels.
pub fn grayscale(picture: &mut Picture) {
    let done = simd::grayscale(&mut picture.data);
    for pixel in picture.data[done..].chunks_exact_mut(3) {
        let grey = luma(pixel);
        pixel.fill(grey);
    }
}

/// Blends every value with the same level.
fn blend_level(picture: &mut Picture, level: u8, factor: f32) {
    let done = simd::blend_level(&mut picture.data, level, factor);
    picture.data[done..].iter_mut().for_each(|value| *value = blend(level, *value, factor));
}

/// Brightness: blends with black.
pub fn brightness(picture: &mut Picture, factor: f64) {
    blend_level(picture, 0, factor as f32);
}

/// Contrast: blends with the mean luma, rounded.
pub fn contrast(picture: &mut Picture, factor: f64) {
    let (sum, done) = simd::luma_sum(&picture.data);
    let sum = sum + picture.data[done..].chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum::<u64>();
    let count = (picture.width * picture.height).max(1);
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    blend_level(picture, mean, factor as f32);
}

/// Saturation: blends with the picture's own grey.
pub fn saturation(picture: &mut Picture, factor: f64) {
    let done = simd::saturation(&mut picture.data, factor as f32);
    for pixel in picture.data[done..].chunks_exact_mut(3) {
        let grey = luma(pixel);
        pixel.iter_mut().for_each(|value| *value = blend(grey, *value, factor as f32));
    }
}

/// Sharpness: blends with the picture smoothed by a 3 × 3 filter whose centre weighs 5 of 13 (`ImageFilter.SMOOTH`);
/// the pixels at the border are taken as they are.
pub fn sharpness(picture: &mut Picture, factor: f64) {
    let (width, height) = (picture.width, picture.height);
    if width < 3 || height < 3 {
        return;
    }
    let (stride, source) = (3 * width, picture.data.clone());
    for y in 1..height - 1 {
        let rows = [y - 1, y, y + 1].map(|y| &source[y * stride..(y + 1) * stride]);
        for at in 3..stride - 3 {
            let across = |row: &[u8]| u32::from(row[at - 3]) + u32::from(row[at]) + u32::from(row[at + 3]);
            let sum: u32 = rows.iter().map(|row| across(row)).sum::<u32>() + 4 * u32::from(rows[1][at]);
            // Rounded; 13 is odd, so there is no half to be unsure about.
            let smooth = ((2 * sum + 13) / 26) as u8;
            picture.data[y * stride + at] = blend(smooth, rows[1][at], factor as f32);
        }
    }
}

/// Hue: through Pillow's 8-bit HSV, the hue shifted by `shift` turns with wrap-around.
///
/// Pillow computes in a mixture of single and double precision. Single precision in this order gives the same 8-bit
/// numbers for every colour and every shift; the tests go through all of them. Greys need no case of their own: their
/// saturation of 0 gives three times the value, whatever their hue is.
pub fn hue(picture: &mut Picture, shift: f64) {
    let shift = ((shift * 255.0) as i32) as u8;
    let done = simd::hue(&mut picture.data, shift);
    for pixel in picture.data[done..].chunks_exact_mut(3) {
        let (h, s, v) = to_hsv(pixel[0], pixel[1], pixel[2]);
        pixel.copy_from_slice(&from_hsv(h.wrapping_add(shift), s, v));
    }
}

/// Pillow's HSV (`Convert.c`, after Python's colorsys). The hue of a grey is without meaning.
fn to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let middle = r.max(g).min(r.min(g).max(b));
    let range = f32::from((max - min).max(1));
    let s = f32::from(max - min) / f32::from(max.max(1));
    // Of the three distances from the largest channel one is 0 and one is 1, so the hue, in sixths, is a whole number
    // more or less the third.
    let part = f32::from(max - middle) / range;
    let (whole, sign) = if r == max {
        if g == min { (-1.0, 1.0) } else { (1.0, -1.0) }
    } else if g == max {
        if b == min { (1.0, 1.0) } else { (3.0, -1.0) }
    } else if r == min {
        (3.0, 1.0)
    } else {
        (5.0, -1.0)
    };
    let turn = (whole + sign * part) / 6.0;
    let turn = if turn < 0.0 { turn + 1.0 } else { turn };
    ((turn * 255.0) as u8, (s * 255.0) as u8, max)
}

/// The way back.
fn from_hsv(h: u8, s: u8, v: u8) -> [u8; 3] {
    let six = 6 * u16::from(h);
    let (sector, left) = (six / 255, six % 255);
    let fraction = f32::from(left) * (1.0 / 255.0);
    let s = f32::from(s) * (1.0 / 255.0);
    // Half up is half away from zero here; the numbers are between 0 and 255.
    let level = |share: f32| (f32::from(v) * (1.0 - share) + 0.5) as u8;
    let low = level(s);
    // Falling in odd sectors, rising in even ones.
    let between = level(s * if sector % 2 == 1 { fraction } else { 1.0 - fraction });
    match sector {
        1 => [between, v, low],
        2 => [low, v, between],
        3 => [low, between, v],
        4 => [between, low, v],
        5 => [v, low, between],
        _ => [v, between, low],
    }
}
