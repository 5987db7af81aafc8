//! `subset`: some pictures of a dataset.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{FileInput, ImagesInput};

/// How pictures are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// Equally many of every class: count / classes, rounded down, and one more of each of the first classes by name
    /// until the count is reached; within a class by a seeded order of its paths.
    #[default]
    Uniform,
    /// The first ones of a seeded order of all paths, whatever their labels.
    Random,
}

/// Some pictures of a dataset, by a seeded draw or by a list. Nothing is copied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// The dataset.
    pub data: ImagesInput,
    /// How many pictures are drawn.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub count: Option<u64>,
    /// How they are drawn.
    #[serde(default)]
    pub draw: Draw,
    /// Instead of a draw: a text file whose lines start with the path of a picture, as published splits come.
    #[serde(default)]
    pub list: Option<FileInput>,
    /// Folder that the list's paths start with and the dataset's do not: `"train"`.
    #[serde(default)]
    pub strip: String,
    /// Seed of the draw. Not the experiment's seed: replicates see the same data.
    #[serde(default)]
    pub split_seed: u64,
}

impl StepKind for Subset {
    const KIND: &'static str = "subset";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "images", artifact: "same as data", doc: "The pictures chosen." },
        OutputInfo { name: "list", artifact: "file", doc: "Their paths, sorted, one a line." },
    ];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;

    fn problems(&self) -> Vec<Problem> {
        match (&self.count, &self.list) {
            (None, None) => vec![Problem::new("count", "say how many pictures, or give a `list`")],
            (Some(_), Some(_)) => vec![Problem::new("list", "a list says which pictures: leave `count` out")],
            (Some(_), None) if !self.strip.is_empty() => {
                vec![Problem::new("strip", "it belongs to a `list`, and there is none")]
            }
            _ => Vec::new(),
        }
    }
}
