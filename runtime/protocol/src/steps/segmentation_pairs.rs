//! `segmentation_pairs`: pictures with index masks, listed in a text file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::PathRef;

/// Pictures and their masks (index PNGs), `image mask` on each line of a text file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentationPairs {
    /// The folder, or the .tar or .zip.
    pub path: PathRef,
    /// The text file inside it. Its paths are relative to `path`, or to the list's own folder if they are not there.
    pub list: String,
    /// Names of the classes, in the order of the mask's values from 0.
    pub classes: Vec<String>,
    /// The mask value of each class, in the order of `classes`, where they are not 0, 1, 2…; every other value is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<u8>>,
    /// Mask values that mean no class, beside 255.
    #[serde(default)]
    pub ignore: Vec<u8>,
    /// Share of the pairs that goes to `.holdout` instead of `.train`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub holdout: f64,
    /// Seed of the holdout.
    #[serde(default)]
    pub split_seed: u64,
}

impl StepKind for SegmentationPairs {
    const KIND: &'static str = "segmentation_pairs";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "all", artifact: "masked_images", doc: "Every pair." },
        OutputInfo { name: "train", artifact: "masked_images", doc: "The pairs that are not held out." },
        OutputInfo { name: "holdout", artifact: "masked_images", doc: "The pairs held out." },
    ];
    const METRICS: &'static [MetricInfo] = &[MetricInfo::number("pictures", "Number of pairs.")];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.classes.len() < 2 || self.classes.len() > 255 {
            problems
                .push(Problem::new("classes", format!("{} classes: between 2 and 255 are needed", self.classes.len())));
        }
        if let Some(values) = &self.values {
            let mut different = values.clone();
            different.sort_unstable();
            different.dedup();
            if values.len() != self.classes.len() {
                let (values, classes) = (values.len(), self.classes.len());
                problems
                    .push(Problem::new("values", format!("{values} values for {classes} classes; one each is needed")));
            } else if different.len() < values.len() {
                problems.push(Problem::new("values", "a value stands for two classes"));
            }
            if !self.ignore.is_empty() {
                problems.push(Problem::new("ignore", "with `values` every other value is void; leave `ignore` out"));
            }
        }
        for value in &self.ignore {
            if self.values.is_none() && usize::from(*value) < self.classes.len() {
                problems.push(Problem::new(
                    "ignore",
                    format!("value {value} is ignored and also the class `{}`", self.classes[usize::from(*value)]),
                ));
            }
        }
        problems
    }
}
