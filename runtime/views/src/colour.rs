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
/// What depends on the hue alone is in a table. Greys need no case of their own: their saturation of 0 gives three
/// times the value, whatever their hue is.
pub fn hue(picture: &mut Picture, shift: f64) {
    let shift = ((shift * 255.0) as i32) as u8;
    // For each 8-bit hue, before the shift: how (v, p, q, t) become R, G, B, and the place in the sector.
    let sectors: [([usize; 3], f64); 256] = std::array::from_fn(|level| {
        const ORDER: [[usize; 3]; 6] = [[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]];
        let turn = f64::from((level as u8).wrapping_add(shift)) * 6.0 / 255.0;
        (ORDER[turn.floor() as usize % 6], f64::from((turn - turn.floor()) as f32))
    });
    let shares: [f64; 256] = std::array::from_fn(|level| f64::from((level as f64 / 255.0) as f32));
    for pixel in picture.data.chunks_exact_mut(3) {
        let (h, s, v) = to_hsv(pixel[0], pixel[1], pixel[2]);
        let (order, f) = sectors[usize::from(h)];
        let (fs, value) = (shares[usize::from(s)], f64::from(v));
        // Half up is half away from zero here; the numbers are between 0 and 255.
        let round = |x: f64| (x + 0.5) as i32 as u8;
        let levels =
            [v, round(value * (1.0 - fs)), round(value * (1.0 - fs * f)), round(value * (1.0 - fs * (1.0 - f)))];
        pixel.copy_from_slice(&order.map(|from| levels[from]));
    }
}

/// Pillow's HSV (`Convert.c`, after Python's colorsys), in its mixture of single and double precision. The hue of a
/// grey is without meaning.
fn to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let middle = r.max(g).min(r.min(g).max(b));
    let range = f32::from((max - min).max(1));
    let s = f32::from(max - min) / f32::from(max.max(1));
    // Of the three distances from the largest channel one is 0 and one is 1, so the hue, in sixths, is a whole number
    // more or less the third.
    let part = f64::from(f32::from(max - middle) / range);
    let (whole, sign) = if r == max {
        if g == min { (-1.0, 1.0) } else { (1.0, -1.0) }
    } else if g == max {
        if b == min { (1.0, 1.0) } else { (3.0, -1.0) }
    } else if r == min {
        (3.0, 1.0)
    } else {
        (5.0, -1.0)
    };
    let h = f64::from((whole + sign * part) as f32) / 6.0 + 1.0;
    // In turns; negative ones wrap around. The remainder of a division by 1, without its cost.
    let h = f64::from((if h >= 1.0 { h - 1.0 } else { h }) as f32);
    ((h * 255.0) as i32 as u8, (f64::from(s) * 255.0) as i32 as u8, max)
}
