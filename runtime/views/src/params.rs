//! The recipe that a pretraining's parameters ask for.

use harness_protocol::transform::{Augment as Augmentation, FlipOrder, Views};

use crate::recipe::{Augment, AutoAugment, Blur, Constraint, Crop, Jitter, Recipe};

impl Recipe {
    /// The crops of `views` and what `augment` does to them: crop 0 is the query, 1 the key, then come the small ones.
    pub fn of(views: &Views, augment: &Augmentation) -> Self {
        let crops = match views {
            Views::TwoCrops(two) => {
                let crop =
                    Crop { size: two.size as usize, scale: two.scale.ends(), ratio: two.ratio.ends(), inside: None };
                vec![crop.clone(), crop]
            }
            Views::MultiCrop(multi) => {
                let (large, small) = (multi.large, multi.small);
                let crop = Crop {
                    size: large.size as usize,
                    scale: large.scale.ends(),
                    ratio: large.ratio.ends(),
                    inside: None,
                };
                let max_tries = multi.max_tries as usize;
                let inside = multi.constrained.then_some(Constraint { crop: 1, min_overlap: multi.overlap, max_tries });
                let tiny =
                    Crop { size: small.size as usize, scale: small.scale.ends(), ratio: small.ratio.ends(), inside };
                let mut crops = vec![crop.clone(), crop];
                crops.extend(std::iter::repeat_n(tiny, small.count as usize));
                crops
            }
        };
        let auto_augment = match augment {
            Augmentation::MocoV2(_) => None,
            Augmentation::AutoAugment(auto) => Some(AutoAugment {
                crops: auto.views.iter().map(|&index| index as usize).collect(),
                probability: auto.probability,
                flip_first: auto.flip_order == FlipOrder::BeforeCrop,
            }),
        };
        let moco = augment.moco_v2();
        let jitter = Jitter {
            probability: moco.jitter.probability,
            brightness: moco.jitter.brightness,
            contrast: moco.jitter.contrast,
            saturation: moco.jitter.saturation,
            hue: moco.jitter.hue,
        };
        let blur = Blur { probability: moco.blur.probability, sigma: moco.blur.sigma.ends() };
        let augment = Augment { jitter: Some(jitter), grayscale: moco.grayscale, blur: Some(blur), flip: moco.flip };
        Recipe { crops, augment, auto_augment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::transform::{AutoAugment as Auto, MultiCrop};

    /// The study's settings are the defaults.
    #[test]
    fn the_defaults_are_the_study() {
        let recipe = Recipe::of(&Views::MultiCrop(MultiCrop::default()), &Augmentation::AutoAugment(Auto::default()));
        assert_eq!(recipe.check(), Ok(()));
        let sides: Vec<usize> = recipe.crops.iter().map(|crop| crop.size).collect();
        assert_eq!(sides, [160, 160, 96, 96, 96, 96]);
        let (large, small) = (&recipe.crops[1], &recipe.crops[5]);
        assert_eq!((large.scale, small.scale), ((0.2, 1.0), (0.05, 0.14)));
        assert_eq!((large.ratio, small.ratio), ((0.75, 4.0 / 3.0), (0.75, 4.0 / 3.0)));
        assert_eq!(large.inside, None);
        assert_eq!(small.inside, Some(Constraint { crop: 1, min_overlap: 0.1, max_tries: 10 }));
        let auto = AutoAugment { crops: vec![0, 2, 3, 4, 5], probability: 0.5, flip_first: false };
        assert_eq!(recipe.auto_augment, Some(auto));
        let jitter = Jitter { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        let blur = Blur { probability: 0.5, sigma: (0.1, 2.0) };
        assert_eq!(recipe.augment, Augment { jitter: Some(jitter), grayscale: 0.2, blur: Some(blur), flip: 0.5 });

        let two = Recipe::of(&Views::default(), &Augmentation::default());
        assert_eq!((two.crops.len(), two.crops[0].size, two.auto_augment), (2, 224, None));
    }
}
