//! Operations that give every level of a channel another one, as Pillow's `ImageOps` computes them.

use crate::picture::Picture;

/// Maps every channel through a table of its own.
fn apply(picture: &mut Picture, tables: &[[u8; 256]; 3]) {
    for pixel in picture.data.chunks_exact_mut(3) {
        for (value, table) in pixel.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// How often each channel has each level. Two counters for each, so that equal neighbours do not wait for one another.
fn histograms(picture: &Picture) -> [[u32; 256]; 3] {
    let mut counts = [[0u32; 256]; 6];
    let mut pairs = picture.data.chunks_exact(6);
    for pair in &mut pairs {
        for (value, count) in pair.iter().zip(&mut counts) {
            count[usize::from(*value)] += 1;
        }
    }
    for (value, count) in pairs.remainder().iter().zip(&mut counts) {
        count[usize::from(*value)] += 1;
    }
    std::array::from_fn(|c| std::array::from_fn(|level| counts[c][level] + counts[c + 3][level]))
}

/// Keeps the highest `bits` bits of every channel; 8 and more keep all, 0 makes it black.
pub fn posterize(picture: &mut Picture, bits: u32) {
    let mask = !(255u32 >> bits.min(8)) as u8;
    picture.data.iter_mut().for_each(|value| *value &= mask);
}

/// Inverts the levels at or above the threshold.
pub fn solarize(picture: &mut Picture, threshold: f64) {
    let first = threshold.ceil().clamp(0.0, 256.0) as u16;
    picture.data.iter_mut().for_each(|value| *value ^= if u16::from(*value) >= first { 255 } else { 0 });
}

/// Inverts every level.
pub fn invert(picture: &mut Picture) {
    picture.data.iter_mut().for_each(|value| *value = !*value);
}

/// Stretches each channel so that its darkest level becomes 0 and its lightest 255; a channel of one level stays.
pub fn auto_contrast(picture: &mut Picture) {
    let tables = histograms(picture).map(|counts| {
        let low = counts.iter().position(|&count| count > 0).unwrap_or(0);
        let high = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        // The cast cuts off towards zero and clips, as Pillow does.
        std::array::from_fn(|level| (level as f64 * scale + offset) as u8)
    });
    apply(picture, &tables);
}

/// Equalises the histogram of each channel; a channel of one level, or of too few pixels to divide, stays.
pub fn equalize(picture: &mut Picture) {
    let tables = histograms(picture).map(|counts| {
        let total: u32 = counts.iter().sum();
        let last = counts.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
        let step = (total - last) / 255;
        if step == 0 {
            return identity();
        }
        let mut sum = step / 2;
        counts.map(|count| {
            let level = (sum / step).min(255) as u8;
            sum += count;
            level
        })
    });
    apply(picture, &tables);
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|level| level as u8)
}
