//! Colour operations as Pillow's `ImageEnhance` and torchvision's PIL path compute them.

use crate::picture::Picture;

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
    for pixel in picture.data.chunks_exact_mut(3) {
        let grey = luma(pixel);
        pixel.fill(grey);
    }
}

/// Brightness: blends with black.
pub fn brightness(picture: &mut Picture, factor: f64) {
    let table: [u8; 256] = std::array::from_fn(|v| blend(0, v as u8, factor as f32));
    picture.data.iter_mut().for_each(|value| *value = table[*value as usize]);
}

/// Contrast: blends with the mean luma, rounded.
pub fn contrast(picture: &mut Picture, factor: f64) {
    let sum: u64 = picture.data.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let count = (picture.width * picture.height).max(1);
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    let table: [u8; 256] = std::array::from_fn(|v| blend(mean, v as u8, factor as f32));
    picture.data.iter_mut().for_each(|value| *value = table[*value as usize]);
}

/// Saturation: blends with the picture's own grey.
pub fn saturation(picture: &mut Picture, factor: f64) {
    for pixel in picture.data.chunks_exact_mut(3) {
        let grey = luma(pixel);
        pixel.iter_mut().for_each(|value| *value = blend(grey, *value, factor as f32));
    }
}

/// Hue: through Pillow's 8-bit HSV, the hue shifted by `shift` turns with wrap-around.
pub fn hue(picture: &mut Picture, shift: f64) {
    let shift = ((shift * 255.0) as i32) as u8;
    for pixel in picture.data.chunks_exact_mut(3) {
        let (h, s, v) = to_hsv(pixel[0], pixel[1], pixel[2]);
        pixel.copy_from_slice(&to_rgb(h.wrapping_add(shift), s, v));
    }
}

fn to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return (0, 0, max);
    }
    let range = f32::from(max - min);
    let s = range / f32::from(max);
    let part = |c: u8| f32::from(max - c) / range;
    let (rc, gc, bc) = (part(r), part(g), part(b));
    let h = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    // In turns; negative ones wrap around. The remainder of a division by 1, without its cost.
    let h = f64::from(h) / 6.0 + 1.0;
    let h = (if h >= 1.0 { h - 1.0 } else { h }) as f32;
    ((f64::from(h) * 255.0) as u8, (f64::from(s) * 255.0) as u8, max)
}

fn to_rgb(h: u8, s: u8, v: u8) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let fs = f64::from((f64::from(s) / 255.0) as f32);
    let turn = f64::from(h) * 6.0 / 255.0;
    let sector = turn.floor();
    let f = f64::from((turn - sector) as f32);
    let value = f64::from(v);
    let round = |x: f64| (x as f32).round() as u8;
    let (p, q, t) = (round(value * (1.0 - fs)), round(value * (1.0 - fs * f)), round(value * (1.0 - fs * (1.0 - f))));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
