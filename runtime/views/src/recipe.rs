//! A picture to its views: crops, each with its own augmentation, from streams that are known by their purpose.

use crate::crop::{CropBox, constrained_crop, random_resized_crop};
use crate::picture::Picture;
use crate::resize::{Filter, resize_crop};
use crate::rng::Stream;
use crate::{auto_augment, blur, colour};

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

/// AutoAugment in place of [`Augment`]: each time that one of these crops is made, one of the two is chosen.
///
/// The other branch is a flip, with [`Augment::flip`]'s chance, then AutoAugment; no jitter, grayscale or blur.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoAugment {
    /// Indices of the crops. The study takes all but the key, which has index 1.
    pub crops: Vec<usize>,
    /// Chance of AutoAugment, from 0 to 1. The study uses a half.
    pub probability: f64,
    /// Whether, in that branch, the picture is flipped before the crop is taken from it.
    pub flip_first: bool,
}

/// Crops and what happens to them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Recipe {
    /// Crops in order: 0 the query, 1 the key, then small ones.
    pub crops: Vec<Crop>,
    /// What happens to each.
    pub augment: Augment,
    /// AutoAugment of some of them.
    pub auto_augment: Option<AutoAugment>,
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
        if let Some(auto) = &self.auto_augment {
            within("auto_augment.probability".into(), auto.probability, 1.0)?;
            if let Some(index) = auto.crops.iter().find(|&&index| index >= self.crops.len()) {
                let wanted = format!("the index of a crop, below {}", self.crops.len());
                return wrong("auto_augment.crops".into(), index.to_string(), wanted);
            }
        }
        within("flip".into(), self.augment.flip, 1.0)
    }
}

/// What the random numbers of a picture's views are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    /// Seed of the step.
    pub seed: u64,
    /// Kind of the step, such as `pretrain`.
    pub kind: &'static str,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Index of the picture in its dataset.
    pub picture: u64,
}

/// The boxes of a recipe's crops in a `w` × `h` picture.
pub fn boxes(w: usize, h: usize, recipe: &Recipe, key: ViewKey) -> Vec<CropBox> {
    let mut boxes: Vec<CropBox> = Vec::with_capacity(recipe.crops.len());
    for (index, crop) in recipe.crops.iter().enumerate() {
        let mut stream = Stream::new(key.seed, key.kind, "crop", key.epoch, key.picture, index as u64);
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

/// How one view is made: everything that is random about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where it is taken.
    pub place: CropBox,
    /// The numbers of its augmentation.
    pub draws: Draws,
    /// AutoAugment's operations, if it was chosen over the augmentation.
    pub auto_augment: Option<[Option<auto_augment::Operation>; 2]>,
}

/// How the views of a `w` × `h` picture are made. Recipes that share a seed draw the same numbers for what they have in
/// common: boxes of large crops, jitter, flips.
pub fn plans(w: usize, h: usize, recipe: &Recipe, key: ViewKey) -> Vec<Plan> {
    let plan = |(index, place): (usize, CropBox)| {
        let stream = |purpose| Stream::new(key.seed, key.kind, purpose, key.epoch, key.picture, index as u64);
        let auto = recipe.auto_augment.as_ref().filter(|auto| auto.crops.contains(&index));
        let auto_augment = auto.and_then(|auto| {
            let (mut stream, side) = (stream("auto_augment"), recipe.crops[index].size);
            let chosen = stream.bernoulli(auto.probability);
            chosen.then(|| auto_augment::draw(&mut stream, (side, side)))
        });
        Plan { place, draws: Draws::new(&mut stream("augment")), auto_augment }
    };
    boxes(w, h, recipe, key).into_iter().enumerate().map(plan).collect()
}

/// The views of a picture.
pub fn views(picture: &Picture, recipe: &Recipe, key: ViewKey) -> Vec<Picture> {
    let plans = plans(picture.width, picture.height, recipe, key);
    plans.iter().zip(&recipe.crops).map(|(plan, crop)| view(picture, recipe, crop, plan)).collect()
}

/// One view, as planned.
fn view(picture: &Picture, recipe: &Recipe, crop: &Crop, plan: &Plan) -> Picture {
    let CropBox { top, left, height, width, .. } = plan.place;
    let (augment, side) = (&recipe.augment, crop.size);
    let flipped = plan.draws.flips(augment);
    let Some(operations) = plan.auto_augment else {
        let view = resize_crop(picture, (left, top, width, height), side, side, Filter::Bilinear);
        return plan.draws.apply(view, augment);
    };
    let first = recipe.auto_augment.as_ref().is_some_and(|auto| auto.flip_first);
    let mut view = if flipped && first {
        // What lies at the box in the flipped picture, without flipping all of it.
        let left = picture.width.saturating_sub(left + width);
        let part = picture.cropped(left, top, width, height).flipped();
        resize_crop(&part, (0, 0, part.width, part.height), side, side, Filter::Bilinear)
    } else {
        let view = resize_crop(picture, (left, top, width, height), side, side, Filter::Bilinear);
        if flipped { view.flipped() } else { view }
    };
    operations.into_iter().flatten().for_each(|operation| operation.apply(&mut view));
    view
}

/// One operation of the jitter.
enum Change {
    Brightness(f64),
    Contrast(f64),
    Saturation(f64),
    Hue(f64),
}

/// The random numbers of a view's augmentation, each uniform in 0..1 where nothing else is said. All are drawn whether
/// they are used or not, so that changing one chance moves no other.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    jitter: f64,
    /// Of brightness, contrast, saturation and hue, in −1..1.
    factors: [f64; 4],
    /// 0 to 3 in the order of the operations.
    order: Vec<usize>,
    grayscale: f64,
    blur: f64,
    radius: f64,
    flip: f64,
}

impl Draws {
    /// Draws them.
    pub fn new(stream: &mut Stream) -> Self {
        // Fields are drawn in the order they are written in.
        Self {
            jitter: stream.unit(),
            factors: std::array::from_fn(|_| stream.uniform(-1.0, 1.0)),
            order: stream.permutation(4),
            grayscale: stream.unit(),
            blur: stream.unit(),
            radius: stream.unit(),
            flip: stream.unit(),
        }
    }

    /// Whether the view is flipped.
    pub fn flips(&self, augment: &Augment) -> bool {
        self.flip < augment.flip
    }

    /// The blur's radius, if there is any.
    fn radius(&self, augment: &Augment) -> Option<f64> {
        let blur = augment.blur.filter(|blur| self.blur < blur.probability)?;
        Some(blur.sigma.0 + (blur.sigma.1 - blur.sigma.0) * self.radius)
    }

    /// The operations of the jitter in their order, if there is any.
    fn jitter(&self, augment: &Augment) -> Option<Vec<Change>> {
        let jitter = augment.jitter.filter(|jitter| self.jitter < jitter.probability)?;
        let factor = |width: f64, draw: f64| (1.0 + width * draw).max(0.0);
        let change = |operation: &usize| match operation {
            0 => Change::Brightness(factor(jitter.brightness, self.factors[0])),
            1 => Change::Contrast(factor(jitter.contrast, self.factors[1])),
            2 => Change::Saturation(factor(jitter.saturation, self.factors[2])),
            _ => Change::Hue(jitter.hue * self.factors[3]),
        };
        Some(self.order.iter().map(change).collect())
    }

    /// What [`Draws::apply`] does but for the flip, in words.
    pub fn said(&self, augment: &Augment) -> Vec<String> {
        let jitter = self.jitter(augment).map(|changes| {
            let said = changes.iter().map(|change| match change {
                Change::Brightness(factor) => format!("brightness {factor:.2}"),
                Change::Contrast(factor) => format!("contrast {factor:.2}"),
                Change::Saturation(factor) => format!("saturation {factor:.2}"),
                Change::Hue(shift) => format!("hue {shift:+.3}"),
            });
            format!("jitter ({})", said.collect::<Vec<_>>().join(", "))
        });
        let grayscale = (self.grayscale < augment.grayscale).then(|| "grayscale".to_string());
        let blur = self.radius(augment).map(|radius| format!("blur {radius:.2}"));
        [jitter, grayscale, blur].into_iter().flatten().collect()
    }

    /// Augments a view.
    pub fn apply(&self, mut view: Picture, augment: &Augment) -> Picture {
        for change in self.jitter(augment).into_iter().flatten() {
            match change {
                Change::Brightness(factor) => colour::brightness(&mut view, factor),
                Change::Contrast(factor) => colour::contrast(&mut view, factor),
                Change::Saturation(factor) => colour::saturation(&mut view, factor),
                Change::Hue(shift) => colour::hue(&mut view, shift),
            }
        }
        if self.grayscale < augment.grayscale {
            colour::grayscale(&mut view);
        }
        if let Some(radius) = self.radius(augment) {
            blur::gaussian_blur(&mut view, radius);
        }
        if self.flips(augment) { view.flipped() } else { view }
    }
}

/// Augments one view with numbers drawn from the stream.
pub fn augment(view: Picture, augment: &Augment, stream: &mut Stream) -> Picture {
    Draws::new(stream).apply(view, augment)
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
        let augment = Augment { jitter: Some(jitter), grayscale: 0.2, blur: Some(blur), flip: 0.5 };
        Recipe { crops, augment, auto_augment: None }
    }

    fn with_auto_augment() -> Recipe {
        let auto = AutoAugment { crops: vec![0, 2, 3, 4, 5], probability: 0.5, flip_first: false };
        Recipe { auto_augment: Some(auto), ..recipe(4) }
    }

    fn noise() -> Picture {
        let mut stream = Stream::new(0, "test", "noise", 0, 0, 0);
        Picture { width: 40, height: 30, data: (0..3600).map(|_| stream.next_u32() as u8).collect() }
    }

    #[test]
    fn methods_that_share_a_seed_share_their_large_crops() {
        let key = ViewKey { seed: 3, kind: "test", epoch: 1, picture: 9 };
        let (two, six) = (views(&noise(), &recipe(0), key), views(&noise(), &recipe(4), key));
        assert_eq!(two[..], six[..2]);
        assert_ne!(two[0], two[1]);
        assert!(six[2..].iter().all(|view| view.width == 8));
        assert_ne!(two, views(&noise(), &recipe(0), ViewKey { epoch: 2, ..key }));
    }

    /// What pairs of runs are compared by: AutoAugment moves nothing but the crops that it was chosen for.
    #[test]
    fn auto_augment_takes_half_of_the_other_crops_and_leaves_the_key_alone() {
        let (mut chosen, n) = ([0; 6], 500);
        for picture in 0..n {
            let key = ViewKey { seed: 5, kind: "test", epoch: 0, picture };
            let (plain, auto) = (recipe(4), with_auto_augment());
            let (without, with) = (views(&noise(), &plain, key), views(&noise(), &auto, key));
            let (old, new) = (plans(40, 30, &plain, key), plans(40, 30, &auto, key));
            for index in 0..6 {
                assert_eq!((old[index].place, &old[index].draws), (new[index].place, &new[index].draws));
                match new[index].auto_augment {
                    None => assert_eq!(without[index], with[index]),
                    Some(operations) => {
                        chosen[index] += 1;
                        let CropBox { top, left, height, width, .. } = new[index].place;
                        let side = auto.crops[index].size;
                        let part = (left, top, width, height);
                        let mut view = resize_crop(&noise(), part, side, side, Filter::Bilinear);
                        if new[index].draws.flip < 0.5 {
                            view = view.flipped();
                        }
                        operations.into_iter().flatten().for_each(|operation| operation.apply(&mut view));
                        assert_eq!(view, with[index]);
                    }
                }
            }
        }
        assert_eq!(chosen[1], 0);
        // Four standard deviations of 500 fair choices.
        assert!([0, 2, 3, 4, 5].iter().all(|&index| (206..=294).contains(&chosen[index])), "{chosen:?}");
    }

    /// The order of the study's script for independent crops: the whole picture is flipped, then cropped.
    #[test]
    fn a_flip_may_come_before_the_crop() {
        let mut first = with_auto_augment();
        first.crops.iter_mut().for_each(|crop| crop.inside = None);
        first.augment.flip = 1.0;
        first.auto_augment = Some(AutoAugment { crops: vec![0, 3], probability: 1.0, flip_first: true });
        let picture = noise();
        for index in 0..40 {
            let key = ViewKey { seed: 6, kind: "test", epoch: 0, picture: index };
            let made = views(&picture, &first, key);
            for (crop, plan) in [0, 3].map(|at| (at, plans(40, 30, &first, key).swap_remove(at))) {
                let CropBox { top, left, height, width, .. } = plan.place;
                let side = first.crops[crop].size;
                let part = (left, top, width, height);
                let mut view = resize_crop(&picture.flipped(), part, side, side, Filter::Bilinear);
                plan.auto_augment.unwrap().into_iter().flatten().for_each(|operation| operation.apply(&mut view));
                assert_eq!(view, made[crop]);
            }
        }
    }

    #[test]
    fn chances_and_ranges_are_those_asked_for() {
        let grey = |view: &Picture| view.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        let (mut greys, mut same, n) = (0, 0, 2_000);
        for picture in 0..n {
            let mut stream = Stream::new(1, "test", "augment", 0, picture, 0);
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
        let mut few = Recipe { crops: recipe(0).crops, ..with_auto_augment() };
        assert_eq!(
            few.check().unwrap_err().to_string(),
            "auto_augment.crops is 2; it must be the index of a crop, below 2"
        );
        few.auto_augment = Some(AutoAugment { crops: vec![0], probability: 2.0, flip_first: false });
        assert!(few.check().unwrap_err().to_string().starts_with("auto_augment.probability is 2"));
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
                let views = views(&picture, &recipe, ViewKey { seed: 0, kind: "test", epoch: 0, picture: 0 });
                assert!(views.iter().zip(&recipe.crops).all(|(v, c)| v.data.len() == 3 * c.size * c.size));
            }
        }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let picture = noise();
        let mut stream = Stream::new(0, "test", "augment", 0, 0, 0);
        assert_eq!(augment(picture.clone(), &Augment::default(), &mut stream), picture);
    }
}
