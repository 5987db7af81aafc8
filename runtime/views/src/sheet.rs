//! A sheet that shows how a picture's views came about: the picture with its crops drawn in, and the views themselves.

use crate::crop::CropBox;
use crate::picture::Picture;
use crate::recipe::{Plan, Recipe, ViewKey, plans, views};
use crate::resize::{Filter, resize};

/// Pixels between what is shown.
const GAP: usize = 6;
/// Width of a view's frame, pixels.
const FRAME: usize = 3;
/// Views smaller than this are enlarged by a whole number, pixel by pixel.
const LEAST_SIDE: usize = 96;
const PAPER: [u8; 3] = [255; 3];

/// Colours of crops by their index, for the colour-blind too (Okabe and Ito 2008), with their names.
const COLOURS: [([u8; 3], &str); 7] = [
    ([0, 114, 178], "blue"),
    ([213, 94, 0], "vermilion"),
    ([0, 158, 115], "green"),
    ([204, 121, 167], "pink"),
    ([240, 228, 66], "yellow"),
    ([86, 180, 233], "sky blue"),
    ([230, 159, 0], "orange"),
];

/// Colour of a crop and its name. From the ninth crop on those of the small ones come again.
pub fn colour(crop: usize) -> ([u8; 3], &'static str) {
    COLOURS[if crop < COLOURS.len() { crop } else { 2 + (crop - 2) % (COLOURS.len() - 2) }]
}

/// What happened to a view, in words.
pub fn story(plan: &Plan, recipe: &Recipe) -> String {
    let mut parts: Vec<String> = Vec::new();
    let flipped = plan.draws.flips(&recipe.augment);
    match plan.auto_augment {
        Some(operations) => {
            parts.extend(flipped.then(|| "flip".into()));
            let said: Vec<String> =
                operations.into_iter().flatten().map(|operation| format!("{operation:.4?}")).collect();
            let none = if said.is_empty() { "no operation".into() } else { said.join(", ") };
            parts.push(format!("AutoAugment: {none}"));
        }
        None => {
            parts.extend(plan.draws.said(&recipe.augment));
            parts.extend(flipped.then(|| "flip".into()));
        }
    }
    if parts.is_empty() { "nothing".into() } else { parts.join("; ") }
}

/// One band for each key: the picture with the boxes of its crops, the key's twice as thick, and beside it the views as
/// the encoder saw them, framed in the colour of their box, the two large ones first.
pub fn sheet(picture: &Picture, recipe: &Recipe, keys: &[ViewKey]) -> Picture {
    let bands: Vec<Picture> = keys.iter().map(|&key| band(picture, recipe, key)).collect();
    let width = bands.iter().map(|band| band.width).max().unwrap_or(0);
    let height = bands.iter().map(|band| band.height).sum();
    let mut sheet = Picture::filled(width, height, PAPER);
    let mut top = 0;
    for band in &bands {
        paste(&mut sheet, band, 0, top);
        top += band.height;
    }
    sheet
}

fn band(picture: &Picture, recipe: &Recipe, key: ViewKey) -> Picture {
    let plans = plans(picture.width, picture.height, recipe, key);
    let least = recipe.crops.iter().map(|crop| crop.size).min().unwrap_or(1).max(1);
    let times = LEAST_SIDE.div_ceil(least);
    let mut framed = Vec::new();
    for (index, view) in views(picture, recipe, key).iter().enumerate() {
        let large = enlarged(view, times);
        let mut frame = Picture::filled(large.width + 2 * FRAME, large.height + 2 * FRAME, colour(index).0);
        paste(&mut frame, &large, FRAME, FRAME);
        framed.push(frame);
    }
    // The large views in one row, the others in rows of four below.
    let (large, small) = framed.split_at(framed.len().min(2));
    let mut rows: Vec<&[Picture]> = vec![large];
    rows.extend(small.chunks(4));
    let height_of = |row: &[Picture]| row.iter().map(|view| view.height + GAP).max().unwrap_or(0);
    let width_of = |row: &[Picture]| row.iter().map(|view| view.width + GAP).sum::<usize>();
    let right: usize = rows.iter().map(|row| width_of(row)).max().unwrap_or(0);
    let down: usize = rows.iter().map(|row| height_of(row)).sum::<usize>().saturating_sub(GAP);

    // The picture as high as the views beside it, so that boxes can be told apart in small ones too.
    let scale = down as f64 / picture.height.max(1) as f64;
    let scale = scale.min(2.0 * down as f64 / picture.width.max(1) as f64);
    let side = |pixels: usize| ((pixels as f64 * scale).round() as usize).max(1);
    let mut shown = resize(picture, side(picture.width), side(picture.height), Filter::Bilinear);
    // The query and the key last, so that they lie on top.
    let order = (2..plans.len()).chain(0..plans.len().min(2));
    for index in order {
        draw(&mut shown, &plans[index].place, scale, if index == 1 { 4 } else { 2 }, colour(index).0);
    }

    let mut band = Picture::filled(GAP + shown.width + GAP + right, GAP + down.max(shown.height) + GAP, PAPER);
    paste(&mut band, &shown, GAP, GAP);
    let mut top = GAP;
    for row in rows {
        let mut left = GAP + shown.width + GAP;
        for view in row {
            paste(&mut band, view, left, top);
            left += view.width + GAP;
        }
        top += height_of(row);
    }
    band
}

fn paste(onto: &mut Picture, picture: &Picture, left: usize, top: usize) {
    for y in 0..picture.height {
        let (from, to) = (3 * y * picture.width, 3 * ((top + y) * onto.width + left));
        onto.data[to..to + 3 * picture.width].copy_from_slice(&picture.data[from..from + 3 * picture.width]);
    }
}

/// Every pixel `times` × `times` times.
fn enlarged(view: &Picture, times: usize) -> Picture {
    let (width, height) = (view.width * times, view.height * times);
    let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| view.at(x / times, y / times))).collect();
    Picture { width, height, data }
}

/// The outline of a crop, inside its box.
fn draw(shown: &mut Picture, place: &CropBox, scale: f64, thick: usize, colour: [u8; 3]) {
    let at = |pixels: usize| (pixels as f64 * scale).round() as usize;
    let (left, top) = (at(place.left), at(place.top));
    let right = at(place.left + place.width).min(shown.width);
    let bottom = at(place.top + place.height).min(shown.height);
    for y in top..bottom {
        for x in left..right {
            if x < left + thick || y < top + thick || x + thick >= right || y + thick >= bottom {
                let to = 3 * (y * shown.width + x);
                shown.data[to..to + 3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::transform::{Augment, AutoAugment, MultiCrop, Views};

    fn photograph() -> Picture {
        let mut data = Vec::new();
        for y in 0..150 {
            data.extend((0..200).flat_map(|x| [x as u8, (y + x / 2) as u8, (x * y / 100) as u8]));
        }
        Picture { width: 200, height: 150, data }
    }

    fn official() -> Recipe {
        Recipe::of(&Views::MultiCrop(MultiCrop::default()), &Augment::AutoAugment(AutoAugment::default()))
    }

    /// Whether `part` lies somewhere in the sheet, to the byte.
    fn holds(sheet: &Picture, part: &Picture) -> bool {
        let fits = |left: usize, top: usize| {
            (0..part.height).all(|y| {
                let at = 3 * ((top + y) * sheet.width + left);
                sheet.data[at..at + 3 * part.width] == part.data[3 * y * part.width..3 * (y + 1) * part.width]
            })
        };
        (0..=sheet.height - part.height).any(|top| (0..=sheet.width - part.width).any(|left| fits(left, top)))
    }

    #[test]
    fn the_views_are_on_the_sheet_as_the_encoder_sees_them() {
        let (picture, recipe) = (photograph(), official());
        let keys = [0, 1].map(|epoch| ViewKey { seed: 4, kind: "test", epoch, picture: 7 });
        let sheet = sheet(&picture, &recipe, &keys);
        for key in keys {
            for view in views(&picture, &recipe, key) {
                assert!(holds(&sheet, &view));
            }
        }
        let colours = sheet.data.chunks_exact(3).filter(|pixel| *pixel == colour(1).0).count();
        // Two frames of the key view at least, and its box on the picture.
        assert!(colours > 2 * 4 * FRAME * 160 + 200, "{colours}");
    }

    #[test]
    fn any_picture_can_be_shown() {
        let key = ViewKey { seed: 0, kind: "test", epoch: 0, picture: 0 };
        let mut tiny = official();
        tiny.crops.iter_mut().for_each(|crop| crop.size = 5);
        for (width, height) in [(1, 1), (3, 700), (900, 2)] {
            for recipe in [official(), tiny.clone(), Recipe::of(&Views::default(), &Augment::default())] {
                let sheet = sheet(&Picture::filled(width, height, [9, 9, 9]), &recipe, &[key]);
                assert_eq!(sheet.data.len(), 3 * sheet.width * sheet.height);
                assert!(sheet.width < 4000 && sheet.height < 2500, "{}×{}", sheet.width, sheet.height);
            }
        }
    }

    #[test]
    fn what_happened_is_told() {
        let recipe = official();
        let told: Vec<String> = (0..40)
            .flat_map(|picture| plans(200, 150, &recipe, ViewKey { seed: 4, kind: "test", epoch: 0, picture }))
            .map(|plan| story(&plan, &recipe))
            .collect();
        for words in ["AutoAugment: ", "Equalize", "jitter (", "hue ", "blur ", "flip", "grayscale", "no operation"] {
            assert!(told.iter().any(|line| line.contains(words)), "{words}: {told:#?}");
        }
    }
}
