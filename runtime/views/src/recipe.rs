//! A picture to its views: crops, each with its own augmentation, from streams that are known by their purpose.

use crate::crop::{CropBox, constrained_crop, random_resized_crop};
use crate::picture::Picture;
use crate::resize::{Filter, resize_crop};
use crate::rng::Stream;
use crate::{blur, colour};

/// One crop of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Crop {
    /// Side of the view, pixels.
    pub size: usize,
    /// Share of the picture's area.
    pub scale: (f64, f64),
    /// Aspect ratio.
    pub ratio: (f64, f64),
    /// Another, earlier crop that it has to overlap.
    pub inside: Option<Constraint>,
}

/// How a crop is bound to another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// Index of the other crop, smaller than the crop's own.
    pub crop: usize,
    /// Share of the target area inside it.
    pub min_overlap: f64,
    /// Tries before it is taken unbound.
    pub max_tries: usize,
}

/// Colour jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Chance.
    pub probability: f64,
    /// Half width of the factor around 1.
    pub brightness: f64,
    /// Half width of the factor around 1.
    pub contrast: f64,
    /// Half width of the factor around 1.
    pub saturation: f64,
    /// Largest shift, turns.
    pub hue: f64,
}

/// Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blur {
    /// Chance.
    pub probability: f64,
    /// Radius, pixels.
    pub sigma: (f64, f64),
}

/// What happens to each crop, in this order: jitter, grayscale, blur, flip (MoCo v2).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Augment {
    /// Colour jitter.
    pub jitter: Option<Jitter>,
    /// Chance of grayscale.
    pub grayscale: f64,
    /// Blur.
    pub blur: Option<Blur>,
    /// Chance of a horizontal flip.
    pub flip: f64,
}

/// Crops and what happens to them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Recipe {
    /// Crops in order: 0 the query, 1 the key, then small ones.
    pub crops: Vec<Crop>,
    /// What happens to each.
    pub augment: Augment,
}

/// What the random numbers of a picture's views are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    /// Seed.
    pub seed: u64,
    /// Epoch.
    pub epoch: u64,
    /// Index of the picture in its dataset.
    pub picture: u64,
}

/// The boxes of a recipe's crops in a `w` × `h` picture.
pub fn boxes(w: usize, h: usize, recipe: &Recipe, key: ViewKey) -> Vec<CropBox> {
    let mut boxes: Vec<CropBox> = Vec::with_capacity(recipe.crops.len());
    for (index, crop) in recipe.crops.iter().enumerate() {
        let mut stream = Stream::new(key.seed, "crop", key.epoch, key.picture, index as u64);
        let bound = crop.inside.as_ref().and_then(|inside| Some((inside, *boxes.get(inside.crop)?)));
        boxes.push(match bound {
            Some((inside, other)) => constrained_crop(
                &mut stream,
                w,
                h,
                crop.scale,
                crop.ratio,
                &other,
                inside.min_overlap,
                inside.max_tries,
            ),
            None => random_resized_crop(&mut stream, w, h, crop.scale, crop.ratio),
        });
    }
    boxes
}

/// The views of a picture. Recipes that share a seed draw the same numbers for the crops they have in common.
pub fn views(picture: &Picture, recipe: &Recipe, key: ViewKey) -> Vec<Picture> {
    boxes(picture.width, picture.height, recipe, key)
        .iter()
        .zip(&recipe.crops)
        .enumerate()
        .map(|(index, (place, crop))| {
            let part = (place.left, place.top, place.width, place.height);
            let view = resize_crop(picture, part, crop.size, crop.size, Filter::Bilinear);
            let mut stream = Stream::new(key.seed, "augment", key.epoch, key.picture, index as u64);
            augment(view, &recipe.augment, &mut stream)
        })
        .collect()
}

/// Augments one view. Every number is drawn whether it is used or not, so that changing one chance moves no other.
pub fn augment(mut view: Picture, augment: &Augment, stream: &mut Stream) -> Picture {
    let jittered = stream.unit();
    let factors: [f64; 4] = std::array::from_fn(|_| stream.uniform(-1.0, 1.0));
    let order = stream.permutation(4);
    if let Some(jitter) = augment.jitter
        && jittered < jitter.probability
    {
        for operation in order {
            match operation {
                0 => colour::brightness(&mut view, (1.0 + jitter.brightness * factors[0]).max(0.0)),
                1 => colour::contrast(&mut view, (1.0 + jitter.contrast * factors[1]).max(0.0)),
                2 => colour::saturation(&mut view, (1.0 + jitter.saturation * factors[2]).max(0.0)),
                _ => colour::hue(&mut view, jitter.hue * factors[3]),
            }
        }
    }
    if stream.bernoulli(augment.grayscale) {
        colour::grayscale(&mut view);
    }
    let (blurred, radius) = (stream.unit(), stream.unit());
    if let Some(blur) = augment.blur
        && blurred < blur.probability
    {
        blur::gaussian_blur(&mut view, blur.sigma.0 + (blur.sigma.1 - blur.sigma.0) * radius);
    }
    if stream.bernoulli(augment.flip) { view.flipped() } else { view }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(small: usize) -> Recipe {
        let large = Crop { size: 16, scale: (0.2, 1.0), ratio: (0.75, 4.0 / 3.0), inside: None };
        let inside = Some(Constraint { crop: 1, min_overlap: 0.1, max_tries: 10 });
        let tiny = Crop { size: 8, scale: (0.05, 0.14), inside, ..large.clone() };
        let mut crops = vec![large.clone(), large];
        crops.extend(std::iter::repeat_n(tiny, small));
        let jitter = Jitter { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        let blur = Blur { probability: 0.5, sigma: (0.1, 2.0) };
        Recipe { crops, augment: Augment { jitter: Some(jitter), grayscale: 0.2, blur: Some(blur), flip: 0.5 } }
    }

    fn noise() -> Picture {
        let mut stream = Stream::new(0, "noise", 0, 0, 0);
        Picture { width: 40, height: 30, data: (0..3600).map(|_| stream.next_u32() as u8).collect() }
    }

    #[test]
    fn methods_that_share_a_seed_share_their_large_crops() {
        let key = ViewKey { seed: 3, epoch: 1, picture: 9 };
        let (two, six) = (views(&noise(), &recipe(0), key), views(&noise(), &recipe(4), key));
        assert_eq!(two[..], six[..2]);
        assert_ne!(two[0], two[1]);
        assert!(six[2..].iter().all(|view| view.width == 8));
        assert_ne!(two, views(&noise(), &recipe(0), ViewKey { epoch: 2, ..key }));
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let picture = noise();
        let mut stream = Stream::new(0, "augment", 0, 0, 0);
        assert_eq!(augment(picture.clone(), &Augment::default(), &mut stream), picture);
    }
}
