//! `scenes`: pictures and videos from a deterministic generator, so that everything runs with no download.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{Span, int};

/// How varied the pictures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Every family of backgrounds, textures and poses.
    #[default]
    General,
    /// One family of backgrounds with a horizon and objects standing on it, as a road scene has.
    Specific,
}

/// Textured backgrounds with objects of several shape classes: labels, index masks, and videos with theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scenes {
    /// Seed of the whole world. Not the experiment's seed: replicates see the same data.
    pub world: u64,
    /// Pictures of `.train`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train: u64,
    /// Pictures of `.holdout`, for monitors and choices.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub holdout: u64,
    /// Pictures of `.test`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test: u64,
    /// Side of a picture, pixels.
    #[schemars(range(min = 16, max = 1024))]
    pub size: u64,
    /// Shape classes.
    #[schemars(range(min = 2, max = 12))]
    pub classes: u64,
    /// Objects in a picture: `1..1` is object-centric, `3..6` scene-centric. The label is the largest object's class.
    pub objects: Span,
    /// Size of the largest class over that of the smallest, in `.train` only; 1 is uniform.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub imbalance: f64,
    /// How varied the pictures are.
    pub domain: Domain,
    /// Whether pictures have depth maps too, as the outputs `train_depth`, `holdout_depth` and `test_depth`; only the
    /// `specific` domain has a geometry.
    pub depth: bool,
    /// Test videos.
    #[schemars(range(min = 0, max = 10_000))]
    pub videos: u64,
    /// Frames of a video.
    #[schemars(range(min = 3, max = 1000))]
    pub frames: u64,
    /// Side of a frame, pixels.
    #[schemars(range(min = 16, max = 1024))]
    pub video_size: u64,
}

impl Default for Scenes {
    fn default() -> Self {
        Self {
            world: 0,
            train: int::<2000>(),
            holdout: 200,
            test: 500,
            size: 64,
            classes: 8,
            objects: Span(1.0, 1.0),
            imbalance: 1.0,
            domain: Domain::General,
            depth: false,
            videos: 4,
            frames: 16,
            video_size: 128,
        }
    }
}

impl StepKind for Scenes {
    const KIND: &'static str = "scenes";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "train",
            artifact: "annotated_images",
            doc: "Pictures to learn from, with labels and masks.",
        },
        OutputInfo { name: "holdout", artifact: "annotated_images", doc: "Pictures for monitors and choices." },
        OutputInfo { name: "test", artifact: "annotated_images", doc: "Pictures to report on." },
        OutputInfo {
            name: "train_depth",
            artifact: "depth_images",
            doc: "With `depth = true`: the pictures of `.train` with depth maps.",
        },
        OutputInfo {
            name: "holdout_depth",
            artifact: "depth_images",
            doc: "With `depth = true`: those of `.holdout`.",
        },
        OutputInfo { name: "test_depth", artifact: "depth_images", doc: "With `depth = true`: those of `.test`." },
        OutputInfo {
            name: "videos",
            artifact: "videos",
            doc: "Videos of moving, deforming, occluding objects with their masks.",
        },
        OutputInfo { name: "preview", artifact: "pictures", doc: "A few pictures, masks and frames to look at." },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("pictures", "Number of pictures in all splits."),
        MetricInfo::number("gini", "Gini coefficient of the class sizes of train."),
        MetricInfo::number("max_min_ratio", "Largest class of train over the smallest."),
    ];

    fn problems(&self) -> Vec<Problem> {
        let (low, high) = self.objects.ends();
        if low.fract() != 0.0 || high.fract() != 0.0 || low < 1.0 || high < low || high > 12.0 {
            return vec![Problem::new(
                "objects",
                format!("objects are whole numbers 1 <= low <= high <= 12, not {low}..{high}"),
            )];
        }
        if self.train < self.classes {
            return vec![Problem::new(
                "train",
                format!("{} pictures cannot hold {} classes", self.train, self.classes),
            )];
        }
        if self.depth && self.domain != Domain::Specific {
            return vec![Problem::new("depth", "only the specific domain has a geometry; add `domain = specific`")];
        }
        Vec::new()
    }
}
