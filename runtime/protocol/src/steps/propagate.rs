//! `propagate`: labels of a video's first frame carried through it by feature similarity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, StepKind};
use crate::value::{EncoderInput, VideosInput};

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

/// Whose way of propagating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PropagateProfile {
    /// Jabri et al. 2020, which the study follows: the whole first frame and a disc in the `context` frames before vote,
    /// the first frame standing in for those before the start; labels shrink and grow bilinearly.
    #[default]
    Videowalk,
    /// Caron et al. 2021 (DINO): a square in the first and the `context` frames before; all as similar as the `top_k`-th
    /// vote; labels shrink to the nearest; short side `size`, the long one rounded down to a multiple of 64; maps are
    /// stretched to 0..1 each before the largest is taken.
    Dino,
}

/// Video label propagation (Jabri et al. 2020), scored with J and F of DAVIS; nothing is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Propagate {
    /// Encoder, in eval mode.
    pub encoder: EncoderInput,
    /// Videos with masks; only the first frame's is used to predict.
    pub data: VideosInput,
    /// Whose way of propagating; the fields below say where the defaults differ.
    #[serde(default)]
    pub profile: PropagateProfile,
    /// Short side that frames are resized to before the encoder sees them, keeping their shape; left out, they go in
    /// as they are, as published (`dino`: 480). Masks are predicted and scored at their own size either way.
    #[serde(default)]
    #[schemars(range(min = 16, max = 4096))]
    pub size: Option<u64>,
    /// Which features are compared.
    #[serde(default)]
    pub layer: PropagateLayer,
    /// Earlier frames that vote, beside the first one. Left out: 20 (`dino`: 7).
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub context: Option<u64>,
    /// Positions of the feature grid at this Euclidean distance or farther do not vote, except in the first frame
    /// (`dino`: more than this many rows or columns away, the first frame included).
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub radius: f64,
    /// Candidates that vote. Left out: 10 (`dino`: 5).
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub top_k: Option<u64>,
    /// Temperature of the votes. Left out: 0.05 (`dino`: 0.1).
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: Option<f64>,
    /// Whether the soft label maps of every frame are kept too, as the output `soft`.
    #[serde(default)]
    pub soft: bool,
}

fn radius() -> f64 {
    12.0
}

/// What is reported of predicted masks of videos.
pub(super) const VIDEO_METRICS: &[MetricInfo] = &[
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

impl StepKind for Propagate {
    const KIND: &'static str = "propagate";
    const VERSION: u32 = 2;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "masks",
            artifact: "predictions",
            doc: "The predicted masks of every frame, palette PNGs in a tar, `<sequence>/<frame>.png`, as the official \
                  evaluation wants them.",
        },
        OutputInfo { name: "frames", artifact: "pictures", doc: "Frames with predicted masks over them." },
        OutputInfo { name: "objects", artifact: "file", doc: "J and F of every object (mean, recall, decay), JSON." },
        OutputInfo {
            name: "animations",
            artifact: "archive",
            doc: "Every video with its predicted masks, `<sequence>.gif` in a tar.",
        },
        OutputInfo {
            name: "soft",
            artifact: "file",
            doc: "With `soft = true`: soft labels as safetensors, `<sequence>` [frames, labels, h, w] and \
                  `<sequence>.ids` [labels].",
        },
    ];
    const METRICS: &'static [MetricInfo] = VIDEO_METRICS;

    fn settle(&mut self) {
        let dino = self.profile == PropagateProfile::Dino;
        if dino {
            self.size.get_or_insert(480);
        }
        self.context.get_or_insert(if dino { 7 } else { 20 });
        self.top_k.get_or_insert(if dino { 5 } else { 10 });
        self.temperature.get_or_insert(if dino { 0.1 } else { 0.05 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn defaults_follow_the_profile_and_are_in_the_key() {
        let resolved = |more: Value| {
            let input = json!({ "$artifact": { "kind": "encoder", "digest": "0" } });
            let mut params = json!({ "encoder": input, "data": input });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let params = crate::kind::resolve::<Propagate>(params).unwrap();
            ["size", "context", "radius", "top_k", "temperature"].map(|name| params[name].clone())
        };
        assert_eq!(json!(resolved(json!({}))), json!([null, 20, 12.0, 10, 0.05]));
        let dino = json!({ "profile": "dino" });
        assert_eq!(json!(resolved(dino)), json!([480, 7, 12.0, 5, 0.1]));
        let own = json!({ "profile": "dino", "context": 3, "top_k": 2, "size": 64, "temperature": 0.2, "radius": 5.0 });
        assert_eq!(json!(resolved(own)), json!([64, 3, 5.0, 2, 0.2]));
    }
}
