//! How pictures become tensors: training views and the fixed transform of evaluations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Problem;
use crate::value::{Span, int};

/// The interpolation of a resize (Pillow's antialiased filters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Cubic, a = −0.5.
    Bicubic,
}

/// The fixed transform of evaluations: resize the short side, crop the centre, normalise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Centre {
    /// Short side after the resize, pixels.
    #[schemars(range(min = 4, max = 4096))]
    pub resize: u64,
    /// Side of the centre crop, pixels.
    #[schemars(range(min = 4, max = 4096))]
    pub crop: u64,
    /// Filter of the resize.
    pub interpolation: Interpolation,
}

impl Default for Centre {
    fn default() -> Self {
        Self { resize: 256, crop: 224, interpolation: Interpolation::Bilinear }
    }
}

impl Centre {
    /// Relations between the fields.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        if self.crop > self.resize {
            return vec![Problem::new(
                &format!("{field}.crop"),
                format!("a crop of {} does not fit into a short side of {}", self.crop, self.resize),
            )];
        }
        Vec::new()
    }
}

/// Mean and standard deviation that pictures in 0..1 are normalised by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Normalisation {
    /// Per channel, red first.
    pub mean: [f64; 3],
    /// Per channel, red first.
    pub std: [f64; 3],
}

impl Default for Normalisation {
    fn default() -> Self {
        Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }
}

/// Which crops of a picture are compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// Two random resized crops, query and key (MoCo).
    TwoCrops(TwoCrops),
    /// Two large crops and small ones that overlap the key crop (the study's constrained multi-scale cropping).
    MultiCrop(MultiCrop),
}

/// Two crops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwoCrops {
    /// Side in pixels.
    #[serde(default = "int::<224>")]
    #[schemars(range(min = 4, max = 2048))]
    pub size: u64,
    /// Share of the picture's area.
    #[serde(default = "large_scale")]
    pub scale: Span,
    /// Aspect ratio.
    #[serde(default = "aspect")]
    pub ratio: Span,
}

impl Default for TwoCrops {
    fn default() -> Self {
        Self { size: 224, scale: large_scale(), ratio: aspect() }
    }
}

/// Crops at two scales.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiCrop {
    /// The large crops: query and key.
    pub large: LargeCrops,
    /// The small crops, all queries.
    pub small: SmallCrops,
    /// Share of each small crop's target area that must lie inside the key crop.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub overlap: f64,
    /// Tries before a crop is taken unconstrained.
    #[schemars(range(min = 1, max = 1000))]
    pub max_tries: u64,
    /// Whether small crops are bound to the key crop at all.
    pub constrained: bool,
}

impl Default for MultiCrop {
    fn default() -> Self {
        let (large, small) = (LargeCrops::default(), SmallCrops::default());
        Self { large, small, overlap: 0.1, max_tries: 10, constrained: true }
    }
}

/// Large crops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LargeCrops {
    /// Side in pixels.
    #[schemars(range(min = 4, max = 2048))]
    pub size: u64,
    /// Share of the picture's area.
    pub scale: Span,
    /// Aspect ratio.
    pub ratio: Span,
}

impl Default for LargeCrops {
    fn default() -> Self {
        Self { size: 160, scale: large_scale(), ratio: aspect() }
    }
}

/// Small crops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmallCrops {
    /// How many.
    #[schemars(range(min = 1, max = 32))]
    pub count: u64,
    /// Side in pixels.
    #[schemars(range(min = 4, max = 2048))]
    pub size: u64,
    /// Share of the picture's area.
    pub scale: Span,
    /// Aspect ratio.
    pub ratio: Span,
}

impl Default for SmallCrops {
    fn default() -> Self {
        Self { count: 4, size: 96, scale: Span(0.05, 0.14), ratio: aspect() }
    }
}

fn large_scale() -> Span {
    Span(0.2, 1.0)
}

fn aspect() -> Span {
    Span(3.0 / 4.0, 4.0 / 3.0)
}

impl Default for Views {
    fn default() -> Self {
        Self::TwoCrops(TwoCrops::default())
    }
}

fn check_scale(scale: Span, field: &str, problems: &mut Vec<Problem>) {
    if !(scale.0 > 0.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
        problems.push(Problem::new(
            field,
            format!("a share of the area lies in 0 < low <= high <= 1, not {}..{}", scale.0, scale.1),
        ));
    }
}

fn check_ratio(ratio: Span, field: &str, problems: &mut Vec<Problem>) {
    if !(ratio.0 > 0.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
        problems.push(Problem::new(field, format!("aspect ratios are 0 < low <= high, not {}..{}", ratio.0, ratio.1)));
    }
}

impl Views {
    /// How many crops there are of a picture.
    pub fn count(&self) -> u64 {
        match self {
            Self::TwoCrops(_) => 2,
            Self::MultiCrop(multi) => 2 + multi.small.count,
        }
    }

    /// Relations between the fields.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self {
            Self::TwoCrops(two) => {
                check_scale(two.scale, &format!("{field}.two_crops.scale"), &mut problems);
                check_ratio(two.ratio, &format!("{field}.two_crops.ratio"), &mut problems);
            }
            Self::MultiCrop(multi) => {
                check_scale(multi.large.scale, &format!("{field}.multi_crop.large.scale"), &mut problems);
                check_ratio(multi.large.ratio, &format!("{field}.multi_crop.large.ratio"), &mut problems);
                check_scale(multi.small.scale, &format!("{field}.multi_crop.small.scale"), &mut problems);
                check_ratio(multi.small.ratio, &format!("{field}.multi_crop.small.ratio"), &mut problems);
            }
        }
        problems
    }
}

/// Colour jitter: each factor from 1 ± value, the hue shift from ± value, in a random order (torchvision's ColorJitter).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// Chance that it is applied.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f64,
    /// Half width of the brightness factor.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub brightness: f64,
    /// Half width of the contrast factor.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub contrast: f64,
    /// Half width of the saturation factor.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub saturation: f64,
    /// Largest hue shift, in turns.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub hue: f64,
}

impl Default for Jitter {
    fn default() -> Self {
        Self { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 }
    }
}

/// Gaussian blur as Pillow approximates it (three box passes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Blur {
    /// Chance that it is applied.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f64,
    /// Radius in pixels.
    pub sigma: Span,
}

impl Default for Blur {
    fn default() -> Self {
        Self { probability: 0.5, sigma: Span(0.1, 2.0) }
    }
}

/// What happens to each crop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// In this order: jitter, grayscale, blur, flip (MoCo v2's `aug-plus`).
    MocoV2(MocoV2),
    /// For some crops, each time, one of two: a flip and AutoAugment's policy for ImageNet, or what MoCo v2 does.
    AutoAugment(AutoAugment),
}

impl Default for Augment {
    fn default() -> Self {
        Self::MocoV2(MocoV2::default())
    }
}

/// Jitter, grayscale, blur and flip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MocoV2 {
    /// Colour jitter.
    pub jitter: Jitter,
    /// Chance of grayscale (ITU-R 601 luma).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub grayscale: f64,
    /// Blur.
    pub blur: Blur,
    /// Chance of a horizontal flip.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
}

impl Default for MocoV2 {
    fn default() -> Self {
        Self { jitter: Jitter::default(), grayscale: 0.2, blur: Blur::default(), flip: 0.5 }
    }
}

/// AutoAugment (Cubuk et al. 2019) beside MoCo v2's augmentation. Pictures that AutoAugment is chosen for are flipped by
/// the same chance, but neither jittered nor turned grey nor blurred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AutoAugment {
    /// Crops that it is chosen for, by their index: 0 the query, 1 the key, then the small ones. The study takes all
    /// but the key; of two crops that is `[0]`.
    pub views: Vec<u64>,
    /// Chance that it is chosen.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f64,
    /// Whether it flips before or after the crop is taken.
    pub flip_order: FlipOrder,
    /// Colour jitter, where it is not chosen.
    pub jitter: Jitter,
    /// Chance of grayscale, where it is not chosen.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub grayscale: f64,
    /// Blur, where it is not chosen.
    pub blur: Blur,
    /// Chance of a horizontal flip, in either case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip: f64,
}

/// When AutoAugment's branch flips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlipOrder {
    /// Crop, flip, AutoAugment: the study's script for constrained crops.
    #[default]
    AfterCrop,
    /// Flip, crop, AutoAugment: its script for crops that are independent of each other.
    BeforeCrop,
}

impl Default for AutoAugment {
    fn default() -> Self {
        let MocoV2 { jitter, grayscale, blur, flip } = MocoV2::default();
        Self {
            views: vec![0, 2, 3, 4, 5],
            probability: 0.5,
            flip_order: FlipOrder::default(),
            jitter,
            grayscale,
            blur,
            flip,
        }
    }
}

impl Augment {
    /// What happens to crops that AutoAugment is not chosen for.
    pub fn moco_v2(&self) -> MocoV2 {
        match self {
            Self::MocoV2(moco) => *moco,
            Self::AutoAugment(auto) => {
                MocoV2 { jitter: auto.jitter, grayscale: auto.grayscale, blur: auto.blur, flip: auto.flip }
            }
        }
    }

    /// Relations between the fields, and with the crops.
    pub fn problems(&self, field: &str, views: &Views) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (tag, sigma) = match self {
            Self::MocoV2(_) => ("moco_v2", self.moco_v2().blur.sigma),
            Self::AutoAugment(_) => ("auto_augment", self.moco_v2().blur.sigma),
        };
        let field = |name: &str| format!("{field}.{tag}.{name}");
        if !(sigma.0 >= 0.0 && sigma.0 <= sigma.1) {
            problems.push(Problem::new(&field("blur.sigma"), "radii are 0 <= low <= high"));
        }
        let Self::AutoAugment(auto) = self else { return problems };
        let crops = views.count();
        if auto.views.is_empty() {
            problems
                .push(Problem::new(&field("views"), "no crop is named; take `moco_v2` if none is to be chosen for"));
        }
        for (at, index) in auto.views.iter().enumerate() {
            if *index >= crops {
                let queries: Vec<String> =
                    (0..crops).filter(|index| *index != 1).map(|index| index.to_string()).collect();
                let text = format!(
                    "there is no crop {index}: they are 0 to {}; all but the key are [{}]",
                    crops - 1,
                    queries.join(", ")
                );
                problems.push(Problem::new(&field("views"), text));
                break;
            }
            if auto.views[..at].contains(index) {
                problems.push(Problem::new(&field("views"), format!("crop {index} is named twice")));
            }
        }
        let bound = matches!(views, Views::MultiCrop(multi) if multi.constrained);
        if bound && auto.flip_order == FlipOrder::BeforeCrop {
            problems.push(Problem::new(
                &field("flip_order"),
                "crops bound to the key crop lie in the picture as it is; take `after_crop`, or `constrained = false`",
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(augment: serde_json::Value, views: serde_json::Value) -> Vec<String> {
        let augment: Augment = serde_json::from_value(augment).unwrap();
        let views: Views = serde_json::from_value(views).unwrap();
        augment.problems("augment", &views).into_iter().map(|p| format!("{}: {}", p.field, p.message)).collect()
    }

    #[test]
    fn auto_augment_is_checked_against_the_crops() {
        use serde_json::json;
        let (two, six) = (json!({ "two_crops": {} }), json!({ "multi_crop": {} }));
        assert_eq!(said(json!({ "auto_augment": {} }), six.clone()), [] as [&str; 0]);
        assert_eq!(said(json!({ "auto_augment": { "views": [0] } }), two.clone()), [] as [&str; 0]);
        assert_eq!(
            said(json!({ "auto_augment": {} }), two),
            ["augment.auto_augment.views: there is no crop 2: they are 0 to 1; all but the key are [0]"]
        );
        assert_eq!(
            said(json!({ "auto_augment": { "views": [0, 2, 0], "blur": { "sigma": [2.0, 0.1] } } }), six.clone()),
            [
                "augment.auto_augment.blur.sigma: radii are 0 <= low <= high",
                "augment.auto_augment.views: crop 0 is named twice"
            ]
        );
        let before = json!({ "auto_augment": { "flip_order": "before_crop" } });
        assert_eq!(said(before.clone(), six).len(), 1);
        assert_eq!(said(before, json!({ "multi_crop": { "constrained": false } })), [] as [&str; 0]);
    }
}
