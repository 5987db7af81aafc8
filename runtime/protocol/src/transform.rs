//! How pictures become tensors: training views and the fixed transform of evaluations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Problem;
use crate::value::{Span, int, yes};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiCrop {
    /// The large crops: query and key.
    pub large: LargeCrops,
    /// The small crops, all queries.
    pub small: SmallCrops,
    /// Share of each small crop's target area that must lie inside the key crop.
    #[serde(default = "overlap")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub overlap: f64,
    /// Tries before a crop is taken unconstrained.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_tries: u64,
    /// Whether small crops are bound to the key crop at all.
    #[serde(default = "yes")]
    pub constrained: bool,
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

fn overlap() -> f64 {
    0.1
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

/// What happens to each crop, in this order: jitter, grayscale, blur, flip (MoCo v2's `aug-plus`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
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

impl Default for Augment {
    fn default() -> Self {
        Self { jitter: Jitter::default(), grayscale: 0.2, blur: Blur::default(), flip: 0.5 }
    }
}
