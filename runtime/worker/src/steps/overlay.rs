//! Pictures for people: masks laid over pictures, side by side.

use base64::Engine as _;
use font8x8::UnicodeFonts as _;
use harness_protocol::GalleryItem;
use harness_views::{Filter, IndexMask, Picture, encode_png_rgb, resize, resize_index_nearest, voc_palette};

use crate::error::Result;
use crate::metric::bitmap::Bitmap;

/// Share of the mask's colour inside an area.
const COVER: f64 = 0.5;
/// Width of the gap between pictures side by side, pixels.
const GAP: usize = 2;

/// Width and height that fit into `longest` pixels, never larger than they are.
pub fn fit(width: usize, height: usize, longest: usize) -> (usize, usize) {
    let scale = (longest as f64 / width.max(height).max(1) as f64).min(1.0);
    let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (side(width), side(height))
}

/// The picture with its mask over it, both resized to `size`: areas in half the colour that their index has in VOC's
/// palette, outlined in the whole one. Indices for which `shown` is false leave the picture as it is.
pub fn overlay(picture: &Picture, mask: &IndexMask, size: (usize, usize), shown: impl Fn(u8) -> bool) -> Picture {
    let mut picture = resize(picture, size.0, size.1, Filter::Bilinear);
    let mask = resize_index_nearest(mask, size.0, size.1);
    let palette = voc_palette();
    let mut outline = vec![false; mask.data.len()];
    let mut indices = mask.data.clone();
    indices.sort_unstable();
    indices.dedup();
    for index in indices.into_iter().filter(|&index| shown(index)) {
        let area = Bitmap::of(&mask.data, mask.width, |value| value == index);
        let boundary = area.boundary();
        for (at, edge) in outline.iter_mut().enumerate() {
            let (x, y) = (at % mask.width, at / mask.width);
            *edge |= boundary.get(x, y) && mask.data[at] == index;
        }
    }
    for ((pixel, &index), edge) in picture.data.chunks_exact_mut(3).zip(&mask.data).zip(outline) {
        if !shown(index) {
            continue;
        }
        let cover = if edge { 1.0 } else { COVER };
        for (value, colour) in pixel.iter_mut().zip(palette[usize::from(index)]) {
            *value = (f64::from(*value) * (1.0 - cover) + f64::from(colour) * cover).round() as u8;
        }
    }
    picture
}

/// Side of a letter, pixels.
const LETTER: usize = 8;

/// Writes text, 8 × 8 pixels a letter; letters that the font lacks are left out, what lies outside is cut off.
pub fn write(picture: &mut Picture, left: usize, top: usize, text: &str, colour: [u8; 3]) {
    for (n, letter) in text.chars().enumerate() {
        let Some(rows) = font8x8::BASIC_FONTS.get(letter) else { continue };
        for (y, bits) in rows.into_iter().enumerate() {
            for x in (0..LETTER).filter(|x| bits >> x & 1 == 1) {
                fill(picture, (left + n * LETTER + x, top + y), (1, 1), colour);
            }
        }
    }
}

/// Fills a rectangle; what lies outside is cut off.
fn fill(picture: &mut Picture, (left, top): (usize, usize), (width, height): (usize, usize), colour: [u8; 3]) {
    for y in top..(top + height).min(picture.height) {
        for x in left..(left + width).min(picture.width) {
            picture.data[3 * (y * picture.width + x)..][..3].copy_from_slice(&colour);
        }
    }
}

/// The first letters of a name; a point stands for what is left out.
fn shortened(name: &str, letters: usize) -> String {
    match name.chars().count() > letters {
        true => name.chars().take(letters.saturating_sub(1)).chain(['.']).collect(),
        false => name.into(),
    }
}

/// What the colours of [`overlay`] stand for: a patch, index and name each, in columns.
pub fn legend(names: &[String]) -> Picture {
    const LETTERS: usize = 18;
    const ROWS: usize = 12;
    let palette = voc_palette();
    let (line, column) = (LETTER + 6, 2 * LETTER + (LETTERS + 1) * LETTER);
    let columns = names.len().div_ceil(ROWS).max(1);
    let mut picture = Picture::filled(columns * column, names.len().clamp(1, ROWS) * line, [255; 3]);
    for (index, name) in names.iter().enumerate() {
        let (left, top) = (index / ROWS * column, index % ROWS * line);
        fill(&mut picture, (left + 2, top + 2), (LETTER + 2, LETTER + 2), palette[index % 256]);
        let text = shortened(&format!("{index} {name}"), LETTERS);
        write(&mut picture, left + 2 * LETTER, top + 3, &text, [30, 30, 30]);
    }
    picture
}

/// A confusion matrix: a row for each true class, a column for each predicted one; the darker, the larger the share of the
/// row. Named on the left; columns have the same order.
pub fn matrix<'a>(rows: impl Iterator<Item = &'a [u64]>, names: &[String]) -> Picture {
    const LETTERS: usize = 16;
    const CELL: usize = 14;
    let left = (LETTERS + 1) * LETTER;
    let mut picture = Picture::filled(left + names.len() * CELL + 1, names.len() * CELL + 1, [255; 3]);
    for (truth, (row, name)) in rows.zip(names).enumerate() {
        let top = truth * CELL;
        write(&mut picture, 2, top + 3, &shortened(&format!("{truth} {name}"), LETTERS), [30, 30, 30]);
        let total: u64 = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
            let mix = |light: f64, dark: f64| (light + (dark - light) * share.sqrt()).round() as u8;
            let colour = [mix(244.0, 16.0), mix(246.0, 62.0), mix(250.0, 140.0)];
            fill(&mut picture, (left + predicted * CELL + 1, top + 1), (CELL - 1, CELL - 1), colour);
        }
    }
    picture
}

/// Pictures of one height in a row, with white gaps.
pub fn beside(pictures: &[Picture]) -> Picture {
    let height = pictures.iter().map(|picture| picture.height).max().unwrap_or(0);
    let gaps = GAP * pictures.len().saturating_sub(1);
    let width = pictures.iter().map(|picture| picture.width).sum::<usize>() + gaps;
    let mut row = Picture::filled(width, height, [255; 3]);
    let mut left = 0;
    for picture in pictures {
        for y in 0..picture.height {
            let (from, to) = (3 * y * picture.width, 3 * (y * width + left));
            row.data[to..to + 3 * picture.width].copy_from_slice(&picture.data[from..from + 3 * picture.width]);
        }
        left += picture.width + GAP;
    }
    row
}

/// A picture as an item of a gallery.
///
/// # Errors
/// It is empty.
pub fn item(picture: &Picture, caption: String) -> Result<GalleryItem> {
    let png = encode_png_rgb(picture).map_err(|error| error.to_string())?;
    Ok(GalleryItem {
        caption,
        width: picture.width,
        height: picture.height,
        png_base64: base64::engine::general_purpose::STANDARD.encode(png),
    })
}

/// `count` of the numbers below `total`, first and last among them, evenly spaced.
pub fn spread(total: usize, count: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|i| if count == 1 { 0 } else { i * (total - 1) / (count - 1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_tinted_and_outlined() {
        let mask = IndexMask { width: 6, height: 6, data: (0..36).map(|i| u8::from(i % 6 > 1)).collect() };
        let over = overlay(&Picture::filled(6, 6, [100; 3]), &mask, (6, 6), |index| index != 0);
        assert_eq!(over.at(0, 3), [100; 3]);
        assert_eq!(over.at(4, 3), [114, 50, 50]);
        let whole = IndexMask { data: vec![1; 36], ..mask };
        let over = overlay(&Picture::filled(6, 6, [100; 3]), &whole, (3, 3), |_| false);
        assert_eq!(over, Picture::filled(3, 3, [100; 3]));
    }

    #[test]
    fn legends_show_colours_and_names() {
        let names: Vec<String> = ["road", "a name much too long to be shown"].map(String::from).to_vec();
        let legend = legend(&names);
        assert_eq!((legend.width, legend.height), (168, 28));
        assert_eq!((legend.at(5, 5), legend.at(5, 19)), ([0, 0, 0], [128, 0, 0]));
        let dark = |y: usize| (16..168).filter(|&x| (y..y + 14).any(|y| legend.at(x, y) == [30; 3])).max().unwrap();
        assert!(dark(0) < 16 + 6 * 8 && dark(14) < 16 + 18 * 8);
        assert_eq!(shortened("a name much too long", 6), "a nam.");
        let many: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        assert_eq!(super::legend(&many).width, 3 * 168);
    }

    #[test]
    fn a_matrix_is_dark_where_the_rows_share_is() {
        let names: Vec<String> = ["a", "b"].map(String::from).to_vec();
        let rows: [&[u64]; 2] = [&[9, 0], &[0, 0]];
        let picture = matrix(rows.into_iter(), &names);
        let cell = |truth: usize, predicted: usize| picture.at(136 + predicted * 14 + 5, truth * 14 + 5);
        assert_eq!([cell(0, 0), cell(0, 1), cell(1, 1)], [[16, 62, 140], [244, 246, 250], [244, 246, 250]]);
    }

    #[test]
    fn rows_keep_their_pictures() {
        let row = beside(&[Picture::filled(2, 3, [1; 3]), Picture::filled(4, 3, [2; 3])]);
        assert_eq!((row.width, row.height), (8, 3));
        assert_eq!([row.at(1, 2), row.at(2, 2), row.at(4, 0), row.at(7, 2)], [[1; 3], [255; 3], [2; 3], [2; 3]]);
    }

    #[test]
    fn spread_reaches_both_ends() {
        assert_eq!(spread(50, 5), [0, 12, 24, 36, 49]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(9, 1), [0]);
        assert_eq!(fit(854, 480, 427), (427, 240));
        assert_eq!(fit(48, 48, 320), (48, 48));
    }
}
