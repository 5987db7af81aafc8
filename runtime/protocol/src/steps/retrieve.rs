//! `retrieve`: semantic segment retrieval, segments of test pictures named after their nearest ones of train.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::segment::Profile;
use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{EncoderInput, MaskedInput, int, yes};

/// Where the segments of a picture come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Regions {
    /// K-means over the positions of the picture's own map; every pixel is in a segment.
    Kmeans(KmeansRegions),
    /// One segment a picture: what its saliency mask shows; the rest is background.
    Saliency(SaliencyRegions),
}

/// K-means on the L2-normalised features of one picture's positions, k-means++ seeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmeansRegions {
    /// Segments of each picture.
    #[schemars(range(min = 1, max = 64))]
    pub k: u64,
    /// Iterations of a start, at most.
    #[schemars(range(min = 1, max = 100_000))]
    pub iterations: u64,
    /// Starts; the one with the least inertia counts.
    #[schemars(range(min = 1, max = 10_000))]
    pub restarts: u64,
}

impl Default for KmeansRegions {
    fn default() -> Self {
        Self { k: 5, iterations: 100, restarts: 10 }
    }
}

/// Masks from files: pictures are known by their bytes, every mask value but 0 is salient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaliencyRegions {
    /// The pictures of train with their saliency masks.
    pub train: MaskedInput,
    /// The pictures of test with their saliency masks.
    pub test: MaskedInput,
    /// Share of a picture below which its mask counts as empty; the published preparation drops below 1 %.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least: f64,
}

impl Default for Regions {
    fn default() -> Self {
        Self::Kmeans(KmeansRegions::default())
    }
}

/// Names each segment of test after the nearest segment of train (cosine) and reports mIoU. Nothing is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retrieve {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Pictures with masks whose segments are the bank.
    pub train: MaskedInput,
    /// Pictures with masks whose segments are named.
    pub test: MaskedInput,
    /// Where the segments come from.
    #[serde(default)]
    pub regions: Regions,
    /// Whether segments of train may be named class 0 (background); with saliency they never are.
    #[serde(default = "yes")]
    pub background: bool,
    /// Last stages of the encoder that keep their size, dilated instead: with the ImageNet stem 0 gives a map of stride 32,
    /// 1 of 16, 2 of 8.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub dilated: u64,
    /// Side of the squares that pictures and masks are resized to.
    #[serde(default = "int::<512>")]
    #[schemars(range(min = 16, max = 4096))]
    pub size: u64,
    /// Classes of the second score, by name: all others but background become void in both splits. None: no such score.
    #[serde(default)]
    pub subset: Vec<String>,
    /// Published quirks or their repair: how absent classes count and how sizes change.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of K-means.
    #[serde(default)]
    pub seed: u64,
}

impl StepKind for Retrieve {
    const KIND: &'static str = "retrieve";
    const VERSION: u32 = 3;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "segments",
            artifact: "pictures",
            doc: "Legend, confusion matrix, test pictures with segments, names and truth, and what was retrieved.",
        },
        OutputInfo {
            name: "confusion",
            artifact: "file",
            doc: "Confusion matrix over test and IoU of each class, JSON, rows = ground truth.",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("miou", "Mean over classes of intersection over union on test, at `size`².")
            .above("floor_miou", "most frequent class of train for every segment"),
        MetricInfo::share("full_miou", "The same at the masks' own resolution."),
        MetricInfo::share("subset_miou", "Mean over the classes of `subset` alone, all other objects void.")
            .above("subset_floor_miou", "most frequent of them in train for every segment"),
        MetricInfo::share(
            "subset_floor_miou",
            "`subset_miou` of naming every segment after the class of `subset` that has most pixels of train.",
        ),
        MetricInfo::share(
            "floor_miou",
            "mIoU of naming every segment after the class that has most pixels of train, of those a segment can have; \
             outside all segments is background.",
        ),
        MetricInfo::share("background_miou", "mIoU of predicting class 0 at every pixel."),
        MetricInfo::share("pixel_accuracy", "Share of test pixels named right, at `size`²."),
        MetricInfo::number("bank", "Segments of train that have a name."),
        MetricInfo {
            higher_is_better: true,
            percent: true,
            on_test: true,
            ..MetricInfo::curve("class_iou", "Intersection over union of each class on test, over the class's index.")
        },
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut seen = std::collections::BTreeSet::new();
        match self.subset.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => vec![Problem::new("subset", format!("`{twice}` is listed twice"))],
            None => Vec::new(),
        }
    }
}
