//! `concat`: several datasets as one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::ImagesInput;

/// Several datasets as one. Paths get the number of their dataset in front (`0/…`, `1/…`); classes are joined by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// The datasets, all of one kind.
    pub data: Vec<ImagesInput>,
}

impl StepKind for Concat {
    const KIND: &'static str = "concat";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] =
        &[OutputInfo { name: "images", artifact: "same as data", doc: "All pictures." }];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;

    fn problems(&self) -> Vec<Problem> {
        if self.data.len() < 2 {
            return vec![Problem::new("data", "name at least two datasets")];
        }
        match self.data.iter().find(|input| input.artifact.kind != self.data[0].artifact.kind) {
            Some(other) => {
                let (first, other) = (&self.data[0].artifact.kind, &other.artifact.kind);
                vec![Problem::new("data", format!("the first dataset gives {first}, another one {other}"))]
            }
            None => Vec::new(),
        }
    }
}
