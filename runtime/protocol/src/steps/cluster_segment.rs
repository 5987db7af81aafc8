//! `cluster_segment`: segmentation without labels, segments clustered and clusters matched to classes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::retrieve::KmeansRegions;
use super::segment::Profile;
use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{EncoderInput, MaskedInput, int};

/// Where the segments of a picture come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterRegions {
    /// K-means over the positions of the picture's own map; every pixel is in a segment.
    Kmeans(KmeansRegions),
    /// One segment a picture: what its saliency mask shows; the rest is background.
    Saliency(SaliencyMasks),
}

/// Masks from files: pictures are known by their bytes, every mask value but 0 is salient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaliencyMasks {
    /// The pictures of test with their saliency masks.
    pub masks: MaskedInput,
    /// Share of a picture below which its mask counts as empty; the published preparation drops below 1 %.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least: f64,
}

impl Default for ClusterRegions {
    fn default() -> Self {
        Self::Kmeans(KmeansRegions::default())
    }
}

/// Clusters the segments of test pictures (whitened principal components, K-means), matches clusters to classes as well as
/// can be and reports mIoU, the mean over several seeds. Nothing is trained, and no label is used but for the matching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSegment {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Pictures with masks that are clustered and matched.
    pub test: MaskedInput,
    /// Where the segments come from.
    #[serde(default)]
    pub regions: ClusterRegions,
    /// Last stages of the encoder that keep their size, dilated instead: with the ImageNet stem 0 gives a map of stride 32,
    /// 1 of 16, 2 of 8.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub dilated: u64,
    /// Side of the squares that pictures are resized to.
    #[serde(default = "int::<512>")]
    #[schemars(range(min = 16, max = 4096))]
    pub size: u64,
    /// Whitened principal components that are clustered; 0 clusters the features as they are.
    #[serde(default = "int::<32>")]
    #[schemars(range(min = 0, max = 100_000))]
    pub components: u64,
    /// Clusters; not written: as many as match the classes one to one (with saliency one less, background being one of its
    /// own). Another number gives each cluster the class that it overlaps most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000))]
    pub clusters: Option<u64>,
    /// Iterations of a start of the clustering, at most.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub iterations: u64,
    /// Starts of the clustering; the one with the least inertia counts.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 10_000))]
    pub restarts: u64,
    /// Seeds of the clustering, whose scores are averaged. They are no replicates: the encoder stays the same.
    #[serde(default = "seeds")]
    pub seeds: Vec<u64>,
    /// Published quirks or their repair: how absent classes count and how sizes change.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of the pictures' own K-means.
    #[serde(default)]
    pub seed: u64,
}

fn seeds() -> Vec<u64> {
    (1234..=1238).collect()
}

impl StepKind for ClusterSegment {
    const KIND: &'static str = "cluster_segment";
    const VERSION: u32 = 3;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "maps",
            artifact: "pictures",
            doc: "Legend, confusion matrix, test pictures with clusters, matched classes and truth (first seed).",
        },
        OutputInfo {
            name: "confusion",
            artifact: "file",
            doc: "Confusion matrix of the first seed and IoU of each class, JSON, rows = ground truth.",
        },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("miou", "Mean over classes of intersection over union on test, averaged over `seeds`.")
            .above("random_miou", "clusters dealt out by chance and matched alike"),
        MetricInfo::number("miou_std", "Standard deviation over `seeds` (n − 1), as a share; 0 for one seed."),
        MetricInfo::share(
            "random_miou",
            "mIoU of the same clusters dealt out to the segments by chance, then matched to classes in the same way: what \
             the match alone reaches.",
        ),
        MetricInfo::share("floor_miou", "mIoU of predicting the most frequent class of test at every pixel."),
        MetricInfo::share("background_miou", "mIoU of predicting class 0 at every pixel."),
        MetricInfo::share("pixel_accuracy", "Share of test pixels right, averaged over `seeds`."),
        MetricInfo::number("segments", "Segments that were clustered."),
        MetricInfo {
            higher_is_better: true,
            percent: true,
            on_test: true,
            ..MetricInfo::curve("seed_miou", "mIoU of each of `seeds`, in their order.")
        },
        MetricInfo {
            higher_is_better: true,
            percent: true,
            on_test: true,
            ..MetricInfo::curve("class_iou", "IoU of each class, first seed, over the class's index.")
        },
    ];

    fn problems(&self) -> Vec<Problem> {
        match self.seeds.is_empty() {
            true => vec![Problem::new("seeds", "at least one seed is needed")],
            false => Vec::new(),
        }
    }
}
