//! `propagate`: labels of a video's first frame carried through it by feature similarity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, StepKind};
use crate::value::{EncoderInput, VideosInput, int};

/// Which features are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PropagateLayer {
    /// The third stage with all its convolutions at stride 1: stride 8 with the ImageNet stem, 2 with the small one.
    #[default]
    Layer3,
    /// The second stage at stride 1: stride 4 with the ImageNet stem, 1 with the small one.
    Layer2,
}

/// Video label propagation (Jabri et al. 2020), scored with J and F of DAVIS; nothing is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Propagate {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Videos with masks; only the first frame's is used to predict.
    pub data: VideosInput,
    /// Short side that frames are resized to before the encoder sees them, keeping their shape; left out, they go in
    /// as they are, as published. Masks are predicted and scored at their own size either way.
    #[serde(default)]
    #[schemars(range(min = 16, max = 4096))]
    pub size: Option<u64>,
    /// Which features are compared.
    #[serde(default)]
    pub layer: PropagateLayer,
    /// Earlier frames that vote, beside the first one.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 1, max = 1000))]
    pub context: u64,
    /// Positions of the feature grid at this distance or farther do not vote, except in the first frame.
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub radius: f64,
    /// Candidates that vote.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub top_k: u64,
    /// Temperature of the votes.
    #[serde(default = "temperature")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
}

fn radius() -> f64 {
    12.0
}

fn temperature() -> f64 {
    0.05
}

impl StepKind for Propagate {
    const KIND: &'static str = "propagate";
    const VERSION: u32 = 1;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "frames", artifact: "pictures", doc: "Frames with predicted masks over them." },
        OutputInfo {
            name: "masks",
            artifact: "archive",
            doc: "The predicted masks, index PNGs in a tar, `<sequence>/%05d.png`.",
        },
        OutputInfo { name: "objects", artifact: "file", doc: "J and F of every object (mean, recall, decay), JSON." },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::share("jf", "Mean of J and F over objects.").above("copy_jf", "first mask copied to every frame"),
        MetricInfo::share("j", "Region similarity J, mean over objects.")
            .above("copy_j", "first mask copied to every frame"),
        MetricInfo::share("f", "Boundary accuracy F, mean over objects.")
            .above("copy_f", "first mask copied to every frame"),
        MetricInfo::share("j_recall", "Share of frames with J above one half, mean over objects."),
        MetricInfo::share("f_recall", "Share of frames with F above one half, mean over objects."),
        MetricInfo {
            higher_is_better: false,
            ..MetricInfo::share("j_decay", "J of the first quarter less that of the last.")
        },
        MetricInfo {
            higher_is_better: false,
            ..MetricInfo::share("f_decay", "F of the first quarter less that of the last.")
        },
        MetricInfo::share("copy_jf", "Mean of J and F of copying the first mask to every frame."),
        MetricInfo::share("copy_j", "J of copying the first mask to every frame."),
        MetricInfo::share("copy_f", "F of copying the first mask to every frame."),
    ];
}
