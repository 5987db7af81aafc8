//! `long_tail`: a long-tailed draw from a labelled dataset.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{LabelledInput, int};

/// A long-tailed draw: class sizes follow the quantiles of a Lomax (shifted Pareto) law between `largest` and `smallest`.
///
/// With q(r) = ((r + 1/2) / C)^(-1/alpha) - 1 for the ranks r = 0 … C - 1 of C classes, the class of rank r gets
/// smallest + (largest - smallest) (q(r) - q(C - 1)) / (q(0) - q(C - 1)) pictures, rounded. The shape is that of
/// ImageNet-LT (C = 1000, 1280, 5), the draw is not: give its published list to `subset` for that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LongTail {
    /// The dataset.
    pub data: LabelledInput,
    /// Pictures of the largest class.
    #[serde(default = "int::<1280>")]
    #[schemars(range(min = 1))]
    pub largest: u64,
    /// Pictures of the smallest class.
    #[serde(default = "int::<5>")]
    #[schemars(range(min = 1))]
    pub smallest: u64,
    /// Power of the law; larger is less steep. Left out, `count` decides.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha: Option<f64>,
    /// Pictures in all: the power that comes nearest is looked for.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub count: Option<u64>,
    /// Seed of which class has which rank, and of the draw. A class too small for its rank leaves it to the next one.
    #[serde(default)]
    pub split_seed: u64,
}

impl StepKind for LongTail {
    const KIND: &'static str = "long_tail";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "images", artifact: "same as data", doc: "The pictures chosen." },
        OutputInfo { name: "list", artifact: "file", doc: "Their paths, sorted, one a line." },
    ];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::CLASSES[0],
        MetricInfo::CLASSES[1],
        MetricInfo::CLASSES[2],
        MetricInfo::CLASSES[3],
        MetricInfo::CLASSES[4],
        MetricInfo::number("alpha", "Power of the law that was used."),
        MetricInfo::number("many", "Number of classes with more than 100 pictures."),
        MetricInfo::number("medium", "Number of classes with 20 to 100 pictures."),
        MetricInfo::number("few", "Number of classes with fewer than 20 pictures."),
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.smallest > self.largest {
            let (low, high) = (self.smallest, self.largest);
            problems.push(Problem::new("smallest", format!("{low} is more than the largest class has, {high}")));
        }
        if self.alpha.is_some() == self.count.is_some() {
            problems.push(Problem::new("alpha", "say either `alpha` or `count`: one follows from the other"));
        }
        problems
    }
}
