//! A picture to its views: crops, each with its own augmentation, from streams that are known by their purpose.

use crate::crop::{CropBox, constrained_crop, random_resized_crop};
use crate::picture::Picture;
use crate::resize::{Filter, resize_crop};
use crate::rng::Stream;
use crate::{blur, colour};

/// One crop of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Crop {
    /// Side of the view in pixels, at least 1.
    pub size: usize,
    /// Share of the picture's area: least and most, above 0.
    pub scale: (f64, f64),
    /// Aspect ratio, width over height: least and most, above 0.
    pub ratio: (f64, f64),
    /// Another, earlier crop that it has to overlap.
    pub inside: Option<Constraint>,
}

/// How a crop is bound to another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// Index of the other crop, smaller than the crop's own.
    pub crop: usize,
    /// Share of the crop's drawn area, from 0 to 1, that must lie inside the other. The study uses 0.1.
    pub min_overlap: f64,
    /// Tries before it is taken unbound. The study uses 10.
    pub max_tries: usize,
}

/// Colour jitter: four operations in random order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Chance that there is any, from 0 to 1.
    pub probability: f64,
    /// Half width of the factor around 1, at least 0.
    pub brightness: f64,
    /// Half width of the factor around 1, at least 0.
    pub contrast: f64,
    /// Half width of the factor around 1, at least 0.
    pub saturation: f64,
    /// Largest shift of the hue in turns, from 0 to 0.5.
    pub hue: f64,
}

/// Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blur {
    /// Chance, from 0 to 1.
    pub probability: f64,
    /// Radius in pixels of the view: least and most, at least 0.
    pub sigma: (f64, f64),
}

/// What happens to each crop, in this order: jitter, grayscale, blur, flip (MoCo v2). The default is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Augment {
    /// Colour jitter.
    pub jitter: Option<Jitter>,
    /// Chance of grayscale, from 0 to 1.
    pub grayscale: f64,
    /// Blur.
    pub blur: Option<Blur>,
    /// Chance of a horizontal flip, from 0 to 1.
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

/// A number in a recipe that has no meaning.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}; it must be {wanted}")]
pub struct RecipeError {
    /// Where, as in `crops[2].inside.crop`.
    pub field: String,
    /// What is there.
    pub value: String,
    /// What may be there.
    pub wanted: String,
}

impl Recipe {
    /// Whether every number has a meaning. [`views`] never fails: a number out of its range gives views of little use,
    /// such as a crop bound to a later one, which is taken unbound; so this is asked first.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), RecipeError> {
        let wrong = |field: String, value: String, wanted: String| Err(RecipeError { field, value, wanted });
        let span = |field: String, (low, high): (f64, f64), zero: bool| {
            let sound = low <= high && high.is_finite() && (low > 0.0 || zero && low == 0.0);
            let least = if zero { "at least 0" } else { "above 0" };
            if sound { Ok(()) } else { wrong(field, format!("{low} to {high}"), format!("{least}, the smaller first")) }
        };
        let within = |field: String, value: f64, most: f64| {
            let sound = (0.0..=most).contains(&value);
            if sound { Ok(()) } else { wrong(field, value.to_string(), format!("from 0 to {most}")) }
        };
        for (index, crop) in self.crops.iter().enumerate() {
            let field = |name: &str| format!("crops[{index}].{name}");
            if crop.size == 0 {
                return wrong(field("size"), "0".into(), "at least 1".into());
            }
            span(field("scale"), crop.scale, false)?;
            span(field("ratio"), crop.ratio, false)?;
            if let Some(inside) = &crop.inside {
                if inside.crop >= index {
                    return wrong(
                        field("inside.crop"),
                        inside.crop.to_string(),
                        format!("an earlier crop, below {index}"),
                    );
                }
                within(field("inside.min_overlap"), inside.min_overlap, 1.0)?;
            }
        }
        if let Some(jitter) = &self.augment.jitter {
            within("jitter.probability".into(), jitter.probability, 1.0)?;
            within("jitter.brightness".into(), jitter.brightness, f64::MAX)?;
            within("jitter.contrast".into(), jitter.contrast, f64::MAX)?;
            within("jitter.saturation".into(), jitter.saturation, f64::MAX)?;
            within("jitter.hue".into(), jitter.hue, 0.5)?;
        }
        within("grayscale".into(), self.augment.grayscale, 1.0)?;
        if let Some(blur) = &self.augment.blur {
            within("blur.probability".into(), blur.probability, 1.0)?;
            span("blur.sigma".into(), blur.sigma, true)?;
        }
        within("flip".into(), self.augment.flip, 1.0)
    }
}

/// What the random numbers of a picture's views are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    /// Seed of the pretraining.
    pub seed: u64,
    /// Epoch, from 0.
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
    fn chances_and_ranges_are_those_asked_for() {
        let grey = |view: &Picture| view.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        let (mut greys, mut same, n) = (0, 0, 2_000);
        for picture in 0..n {
            let mut stream = Stream::new(1, "augment", 0, picture, 0);
            let view = augment(noise(), &Augment { flip: 0.5, grayscale: 0.2, ..Augment::default() }, &mut stream);
            greys += u64::from(grey(&view));
            same += u64::from(view == noise());
        }
        // Four standard deviations of n draws: 0.2 ± 0.036, and 0.8·0.5 ± 0.044 that nothing was done.
        assert!((329..=471).contains(&greys) && (712..=888).contains(&same), "{greys} {same}");
    }

    #[test]
    fn a_number_without_meaning_is_named() {
        assert_eq!(recipe(4).check(), Ok(()));
        let broken = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = recipe(2);
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        let later = broken(&|r| r.crops[2].inside = Some(Constraint { crop: 3, min_overlap: 0.1, max_tries: 10 }));
        assert_eq!(later, "crops[2].inside.crop is 3; it must be an earlier crop, below 2");
        let turned = broken(&|r| r.crops[1].scale = (1.0, 0.2));
        assert_eq!(turned, "crops[1].scale is 1 to 0.2; it must be above 0, the smaller first");
        assert_eq!(broken(&|r| r.augment.flip = 1.5), "flip is 1.5; it must be from 0 to 1");
        assert!(broken(&|r| r.augment.grayscale = f64::NAN).starts_with("grayscale is NaN"));
        assert!(broken(&|r| r.crops[0].size = 0).starts_with("crops[0].size is 0"));
    }

    #[test]
    fn any_picture_and_any_recipe_give_views_of_the_size_asked_for() {
        let odd = Constraint { crop: 7, min_overlap: 2.0, max_tries: 0 };
        let mut wild = recipe(1);
        wild.crops[2].inside = Some(odd);
        wild.crops[0].scale = (-1.0, f64::NAN);
        wild.crops[1].ratio = (0.0, f64::INFINITY);
        for (width, height) in [(1, 1), (1, 90), (300, 2), (0, 0), (0, 5)] {
            for recipe in [recipe(4), wild.clone()] {
                let picture = Picture::filled(width, height, [1, 2, 3]);
                let views = views(&picture, &recipe, ViewKey { seed: 0, epoch: 0, picture: 0 });
                assert!(views.iter().zip(&recipe.crops).all(|(v, c)| v.data.len() == 3 * c.size * c.size));
            }
        }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let picture = noise();
        let mut stream = Stream::new(0, "augment", 0, 0, 0);
        assert_eq!(augment(picture.clone(), &Augment::default(), &mut stream), picture);
    }
}
