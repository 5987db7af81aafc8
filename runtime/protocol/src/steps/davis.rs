//! `davis`: videos with masks in the layout of DAVIS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// Which annotation a DAVIS tree carries. Always said, since the layouts look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Year {
    /// One object, 8-bit grey 0/255.
    #[serde(rename = "2016")]
    Davis2016,
    /// Several objects, palette PNG, pixel = object id, 255 = void.
    #[serde(rename = "2017")]
    Davis2017,
}

/// `JPEGImages/480p/<sequence>/%05d.jpg`, `Annotations/480p/<sequence>/%05d.png`, `ImageSets/<year>/<split>.txt`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Davis {
    /// The folder, .tar or .zip that holds `JPEGImages`, or that holds the one folder `DAVIS` that does.
    pub path: PathRef,
    /// Which annotation it carries: `"2016"` or `"2017"`.
    pub year: Year,
    /// Name of the list in `ImageSets/2017` or `ImageSets/2016` with one sequence a line.
    #[serde(default = "val")]
    pub split: String,
    /// Folder of the resolution.
    #[serde(default = "resolution")]
    pub resolution: String,
    /// Only these sequences of the split.
    #[serde(default)]
    pub sequences: Option<Vec<String>>,
    /// Only the first frames of each sequence.
    #[serde(default)]
    #[schemars(range(min = 3))]
    pub max_frames: Option<u64>,
}

fn val() -> String {
    "val".into()
}

fn resolution() -> String {
    "480p".into()
}

impl StepKind for Davis {
    const KIND: &'static str = "davis";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "videos", artifact: "videos", doc: "The split's sequences." }];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("sequences", "Number of sequences."),
        MetricInfo::number("frames", "Number of frames in all."),
    ];
}
