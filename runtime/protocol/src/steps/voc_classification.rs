//! `voc_classification`: pictures with several labels each, in the layout of VOC2007 and VOC2012.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::PathRef;

/// What happens to a listed picture that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It is an error that says how many are missing.
    #[default]
    Error,
    /// It is left out, which the summary says.
    Skip,
}

/// An image set of VOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VocSplit {
    /// Both to learn from.
    Trainval,
    /// To learn from.
    Train,
    /// To choose by.
    Val,
    /// To report on.
    Test,
}

impl VocSplit {
    /// All of them, in the order of the outputs.
    pub const ALL: [Self; 4] = [Self::Trainval, Self::Train, Self::Val, Self::Test];

    /// Name of the image set and of the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trainval => "trainval",
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// `JPEGImages/<id>.jpg` and `ImageSets/Main/<class>_<split>.txt` with `id answer` a line: 1 shown, -1 not shown, 0 shown
/// but difficult.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocClassification {
    /// The folder, .tar or .zip that holds `ImageSets`, or that holds `VOCdevkit/VOC2007` or `VOC2007` that does.
    pub path: PathRef,
    /// Folder inside `path` that holds `ImageSets`, for a development kit with several years: `"VOCdevkit/VOC2012"`.
    #[serde(default)]
    pub inside: String,
    /// The image sets to read; left out, every one that is there.
    #[serde(default)]
    pub splits: Option<Vec<VocSplit>>,
    /// What happens to a listed picture that is not there.
    #[serde(default)]
    pub missing: Missing,
}

impl StepKind for VocClassification {
    const KIND: &'static str = "voc_classification";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "trainval", artifact: "multilabel_images", doc: "The image set `trainval`." },
        OutputInfo { name: "train", artifact: "multilabel_images", doc: "The image set `train`." },
        OutputInfo { name: "val", artifact: "multilabel_images", doc: "The image set `val`." },
        OutputInfo { name: "test", artifact: "multilabel_images", doc: "The image set `test`." },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("pictures", "Number of different pictures in all image sets read."),
        MetricInfo::number("classes", "Number of classes."),
        MetricInfo::number(
            "gini",
            "Gini coefficient of the numbers of pictures that show each class, 0 for equal ones.",
        ),
        MetricInfo::number("max_min_ratio", "Pictures of the class shown most over those of the one shown least."),
        MetricInfo::curve("class_counts", "Pictures that show each class (difficult ones not counted)."),
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(splits) = &self.splits {
            let mut sorted = splits.clone();
            sorted.sort();
            sorted.dedup();
            if splits.is_empty() {
                problems.push(Problem::new("splits", "it is empty; leave it out to read every image set"));
            } else if sorted.len() < splits.len() {
                problems.push(Problem::new("splits", "an image set is named twice"));
            }
        }
        problems
    }
}
