//! `score_video`: J and F of predicted masks of videos.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, StepKind};
use crate::value::{PredictionsInput, VideosInput};

/// How predicted masks are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadMasks {
    /// A pixel's value is its object's id (DAVIS 2017).
    #[default]
    Ids,
    /// Whatever is not 0 is the one object (DAVIS 2016); the annotation's objects are one too.
    OneObject,
}

/// Scores predicted masks of videos with J and F as the evaluation of DAVIS 2017 does (semi-supervised): first and last
/// frame left out, means over the objects of all sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreVideo {
    /// The predicted masks: what `propagate` or a `command` gave, or a `mask_folder` of files that lie somewhere.
    pub predictions: PredictionsInput,
    /// Videos with their true masks.
    pub data: VideosInput,
    /// How predicted masks are read.
    #[serde(default)]
    pub read: ReadMasks,
}

impl StepKind for ScoreVideo {
    const KIND: &'static str = "score_video";
    const VERSION: u32 = 1;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo {
            name: "objects",
            artifact: "file",
            doc: "A CSV line for every object: sequence and object, J and F with their mean, recall and decay.",
        },
        OutputInfo { name: "sequences", artifact: "file", doc: "The same as means over each sequence's objects, CSV." },
        OutputInfo { name: "overall", artifact: "file", doc: "The same over all objects, CSV with one line." },
        OutputInfo { name: "report", artifact: "file", doc: "All of it with J and F of every frame, JSON." },
        OutputInfo { name: "frames", artifact: "pictures", doc: "Frames with predicted masks over them." },
    ];
    const METRICS: &'static [MetricInfo] = super::propagate::VIDEO_METRICS;
}
