//! `image_folder`: a tree of pictures, one folder per class.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::PathRef;

/// Where labels come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// The name of the folder right below `path` that a picture lies in, classes sorted by name.
    #[default]
    Folders,
    /// The whole folder that a picture lies in, below `path`: `a/airfield`, for trees with several levels.
    Parent,
    /// The second field of the picture's line in `list`, classes sorted by name.
    List,
    /// There are none; pictures may lie at any depth.
    None,
}

/// Which pictures of the tree belong to the dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// All of them, at any depth.
    #[default]
    Tree,
    /// The study's: those right in the folders below the top, or at the top where there is no folder. What lies deeper,
    /// or beside folders, is passed over.
    Official,
}

/// Pictures in a folder tree, or in the same tree inside a .tar or .zip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFolder {
    /// The folder, or the archive.
    pub path: PathRef,
    /// Folder inside `path` that is the top of the tree: `"train"`.
    #[serde(default)]
    pub inside: String,
    /// Where labels come from.
    #[serde(default)]
    pub labels: Labels,
    /// Which pictures of the tree belong to the dataset.
    #[serde(default)]
    pub rule: Rule,
    /// Only the pictures that this text file names, a path from the top of the tree at the start of each line.
    #[serde(default)]
    pub list: Option<PathRef>,
    /// Share of each class that goes to `.holdout` instead of `.train`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub holdout: f64,
    /// Take at most this many pictures of each class (of the whole tree without labels), by a seeded draw.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub per_class: Option<u64>,
    /// Seed of the holdout and of the draw. Not the experiment's seed: replicates see the same data.
    #[serde(default)]
    pub split_seed: u64,
}

impl StepKind for ImageFolder {
    const KIND: &'static str = "image_folder";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "all", artifact: "labelled_images", doc: "Every picture." },
        OutputInfo { name: "train", artifact: "labelled_images", doc: "The pictures that are not held out." },
        OutputInfo { name: "holdout", artifact: "labelled_images", doc: "The pictures held out." },
    ];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.labels == Labels::List && self.list.is_none() {
            problems.push(Problem::new("labels", "they come from a list, and there is none: give `list`"));
        }
        if self.rule == Rule::Official && self.list.is_some() {
            problems.push(Problem::new("rule", "a list says which pictures belong to the dataset: leave `rule` out"));
        }
        problems
    }
}
