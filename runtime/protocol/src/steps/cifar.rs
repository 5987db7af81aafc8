//! `cifar`: CIFAR-10 and CIFAR-100 in their official binary form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{Executor, MetricInfo, OutputInfo, StepKind};
use crate::value::PathRef;

/// `data_batch_1.bin` … `data_batch_5.bin`, `test_batch.bin`, `batches.meta.txt` of CIFAR-10's binary version, or `train.bin`,
/// `test.bin`, `fine_label_names.txt` of CIFAR-100's. Pictures are read where they lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cifar {
    /// The unpacked folder, or one that holds `cifar-10-batches-bin` or `cifar-100-binary`.
    pub path: PathRef,
}

impl StepKind for Cifar {
    const KIND: &'static str = "cifar";
    const VERSION: u32 = 1;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = false;
    const OUTPUTS: &'static [OutputInfo] = &[
        OutputInfo { name: "train", artifact: "labelled_images", doc: "The training pictures." },
        OutputInfo { name: "test", artifact: "labelled_images", doc: "The test pictures." },
    ];
    const METRICS: &'static [MetricInfo] = MetricInfo::CLASSES;
}
