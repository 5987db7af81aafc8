//! `pretrain`: MoCo v2 with two crops or constrained multi-scale crops, or class labels on the same views.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{MetricInfo, OutputInfo, Problem, StepKind};
use crate::model::Architecture;
use crate::optimise::{Optimizer, Precision, Schedule, Sgd};
use crate::steps::knn::KnnFeatures;
use crate::transform::{Augment, Centre, Normalisation, Views};
use crate::value::{ImagesInput, LabelledInput, Seconds, int, yes};

/// The objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Contrast {
    /// InfoNCE against a queue of keys from a momentum encoder (He et al. 2020; Chen et al. 2020).
    Moco(Moco),
    /// No contrast but class labels: cross-entropy of one view of each picture, by the same encoder, optimiser, views and
    /// augmentation. What contrastive pretraining is compared with.
    Supervised(Supervised),
}

/// Nothing to set: a linear layer on the features, and the labels of the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Supervised {}

impl Default for Contrast {
    fn default() -> Self {
        Self::Moco(Moco::default())
    }
}

/// MoCo v2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Moco {
    /// Length of the embedding.
    #[schemars(range(min = 2, max = 8192))]
    pub dim: u64,
    /// Keys in the queue; a multiple of the batch.
    #[schemars(range(min = 1))]
    pub queue: u64,
    /// Share of itself that the key encoder keeps in a step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// Temperature of the softmax.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Head of two layers with a ReLU (MoCo v2) instead of one linear layer.
    pub mlp: bool,
    /// Whether each crop is also the other one's key (the MoCo notebook for CIFAR): the two losses are added, and the
    /// queue takes the keys of both. For two crops only.
    pub symmetric: bool,
    /// The auxiliary loss that pulls queries to their nearest neighbours too (the study's section on them).
    pub neighbours: Option<Neighbours>,
}

/// The nearest-neighbour loss: among a second, aligned queue of the key encoder's backbone features, each query's
/// nearest are looked up, and its embedding is pulled to their embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Neighbours {
    /// Neighbours of each query; at most the queue's length.
    #[schemars(range(min = 1))]
    pub k: u64,
    /// Its share beside InfoNCE.
    #[schemars(range(min = 0.0))]
    pub weight: f64,
    /// First epochs that go without it: the study took 5 of 200, 20 of 800.
    pub warmup: u64,
    /// When the new keys enter the queue that neighbours are looked up in.
    pub enqueue: Enqueue,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { k: 20, weight: 0.4, warmup: 0, enqueue: Enqueue::Last }
    }
}

/// When the new keys enter the queue of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enqueue {
    /// After the loss, so that both queues hold the same pictures at the same place (the released warm-up builder).
    Last,
    /// Before the neighbours are looked up, while the embeddings are still the old ones: most queries then count an
    /// unrelated picture among their neighbours. As in the first released builder, for comparison.
    First,
}

impl Default for Moco {
    fn default() -> Self {
        Self {
            dim: 128,
            queue: int::<65536>(),
            momentum: 0.999,
            temperature: 0.2,
            mlp: yes(),
            symmetric: false,
            neighbours: None,
        }
    }
}

/// Batch norm of the pretraining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchNorm {
    /// Groups with statistics of their own; the key batch is shuffled among them (He et al. 2020, 3.3). 1 switches both off.
    #[schemars(range(min = 1, max = 256))]
    pub groups: u64,
}

impl Default for BatchNorm {
    fn default() -> Self {
        Self { groups: 2 }
    }
}

/// What is watched while pretraining. Never part of the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// kNN accuracy of the encoder in eval mode, on a copy, so that training does not notice.
    Knn(KnnMonitor),
}

/// kNN accuracy over the epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnnMonitor {
    /// Labelled pictures that vote.
    pub train: LabelledInput,
    /// Labelled pictures that are asked: a holdout of train, never the test split.
    pub test: LabelledInput,
    /// Epochs between two looks; the last epoch is always looked at.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 1))]
    pub every: u64,
    /// Neighbours that vote.
    #[serde(default = "int::<20>")]
    #[schemars(range(min = 1))]
    pub k: u64,
    /// Temperature of the votes.
    #[serde(default = "temperature")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Which features are compared.
    #[serde(default)]
    pub features: KnnFeatures,
    /// Transform of the pictures.
    #[serde(default)]
    pub transform: Centre,
}

/// How often a run writes down where it stands, to go on from there when it is killed: whichever comes first. It also does
/// when it is cancelled. Never part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoints {
    /// Longest time between two, `10min`; `0s` after every step.
    pub interval: Seconds,
    /// Epochs between two.
    #[schemars(range(min = 1))]
    pub epochs: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { interval: Seconds(600.0), epochs: 1 }
    }
}

/// Pretraining of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// Pictures to learn from.
    pub data: ImagesInput,
    /// Network.
    #[serde(default)]
    pub encoder: Architecture,
    /// Passes over the data.
    #[serde(default = "int::<200>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Pictures in a step; what is left at an epoch's end is dropped.
    #[serde(default = "int::<256>")]
    #[schemars(range(min = 2))]
    pub batch: u64,
    /// How weights follow gradients.
    #[serde(default = "optimizer")]
    pub optimizer: Optimizer,
    /// How the learning rate falls.
    #[serde(default)]
    pub schedule: Schedule,
    /// Parts that a batch is worked through in, one after the other, to need less memory. A divisor of `batch_norm.groups`:
    /// no group is cut, so gradients, statistics and keys are those of the whole batch, but for rounding.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 1, max = 256))]
    pub accumulate: u64,
    /// Arithmetic.
    #[serde(default)]
    pub precision: Precision,
    /// The objective.
    #[serde(default)]
    pub contrast: Contrast,
    /// The crops that are compared.
    #[serde(default)]
    pub views: Views,
    /// What happens to each crop.
    #[serde(default)]
    pub augment: Augment,
    /// Normalisation of the pictures.
    #[serde(default)]
    pub normalise: Normalisation,
    /// Batch norm.
    #[serde(default)]
    pub batch_norm: BatchNorm,
    /// Seed of weights, queue, order, crops and augmentation.
    #[serde(default)]
    pub seed: u64,
    /// What is watched on the way.
    #[serde(default)]
    #[schemars(extend("x-observes" = true))]
    pub monitor: Option<Monitor>,
    /// Epochs whose encoder stays, each an output of its own: `keep = [50, 100]`, then `name@50`.
    #[serde(default)]
    #[schemars(extend("x-observes" = true))]
    pub keep: Option<Vec<u64>>,
    /// How often the run writes down where it stands.
    #[serde(default)]
    #[schemars(extend("x-observes" = true))]
    pub checkpoint: Option<Checkpoints>,
}

fn temperature() -> f64 {
    0.07
}

fn optimizer() -> Optimizer {
    Optimizer::Sgd(Sgd { lr: 0.3, momentum: 0.9, weight_decay: 1e-4 })
}

impl StepKind for Pretrain {
    const KIND: &'static str = "pretrain";
    const VERSION: u32 = 3;
    const RANDOM: bool = true;
    const SHARED: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[OutputInfo {
        name: "encoder",
        artifact: "encoder",
        doc: "The query encoder after the last epoch, its head as `fc.*`.",
    }];
    const METRICS: &'static [MetricInfo] = &[
        MetricInfo::number("final_loss", "Mean loss of the last epoch, nats."),
        MetricInfo::number("steps", "Optimiser steps."),
        MetricInfo::number("pictures", "Pictures seen, counted at every visit."),
        MetricInfo::number("pixels", "Pixels of all views: those of a picture, once for each view."),
        MetricInfo::number(
            "flops",
            "Floating-point operations of convolutions, linear layers and products with the queue, forward and backward: two \
             for each multiply-add, counted from shapes.",
        ),
        MetricInfo::number(
            "device_hours",
            "Hours that devices were at it, watching left out; differs from run to run.",
        )
        .varying(),
        MetricInfo::curve("loss", "Mean loss of each epoch, nats."),
        MetricInfo::curve("lr", "Learning rate of each epoch."),
        MetricInfo {
            higher_is_better: true,
            percent: true,
            ..MetricInfo::curve("knn_top1", "kNN accuracy on the monitor's holdout.")
        },
    ];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.encoder.problems("encoder");
        problems.extend(self.schedule.problems("schedule"));
        problems.extend(self.views.problems("views"));
        match &self.contrast {
            Contrast::Moco(moco) => self.moco_problems(moco, &mut problems),
            Contrast::Supervised(_) => self.supervised_problems(&mut problems),
        }
        if !self.batch.is_multiple_of(self.batch_norm.groups) {
            problems.push(Problem::new(
                "batch_norm.groups",
                format!("a batch of {} cannot be split in {} equal groups", self.batch, self.batch_norm.groups),
            ));
        } else if self.batch / self.batch_norm.groups < 2 {
            problems.push(Problem::new("batch_norm.groups", "a group needs at least two pictures for its statistics"));
        }
        if !self.batch_norm.groups.is_multiple_of(self.accumulate) {
            problems.push(Problem::new(
                "accumulate",
                format!(
                    "{} parts would cut the {} groups of batch norm; make `batch_norm.groups` a multiple of `accumulate`",
                    self.accumulate, self.batch_norm.groups
                ),
            ));
        }
        for epoch in self.keep.iter().flatten().filter(|epoch| !(1..=self.epochs).contains(*epoch)) {
            problems.push(Problem::new("keep", format!("there is no epoch {epoch}; epochs are 1 to {}", self.epochs)));
        }
        if self.checkpoint.is_some_and(|checkpoint| checkpoint.interval.0.is_nan() || checkpoint.interval.0 < 0.0) {
            problems.push(Problem::new("checkpoint.interval", "a time is 0 or more"));
        }
        problems.extend(self.augment.problems("augment", &self.views));
        if let Some(Monitor::Knn(knn)) = &self.monitor {
            problems.extend(knn.transform.problems("monitor.knn.transform"));
        }
        problems
    }
}

impl Pretrain {
    fn moco_problems(&self, moco: &Moco, problems: &mut Vec<Problem>) {
        let keys = if moco.symmetric { 2 * self.batch } else { self.batch };
        if !moco.queue.is_multiple_of(keys) {
            let below = moco.queue - moco.queue % keys;
            let nearest = if below == 0 { keys } else { below };
            let twice = if moco.symmetric { "twice " } else { "" };
            problems.push(Problem::new(
                "contrast.moco.queue",
                format!(
                    "a queue of {} is not a multiple of {twice}the batch of {}; {nearest} is",
                    moco.queue, self.batch
                ),
            ));
        }
        if moco.symmetric && !matches!(self.views, Views::TwoCrops(_)) {
            problems.push(Problem::new("contrast.moco.symmetric", "a symmetric loss takes `views = two_crops`"));
        }
        if let Some(neighbours) = moco.neighbours {
            if neighbours.k > moco.queue {
                problems.push(Problem::new(
                    "contrast.moco.neighbours.k",
                    format!("{} neighbours cannot be found in a queue of {}", neighbours.k, moco.queue),
                ));
            }
            if neighbours.warmup >= self.epochs {
                problems.push(Problem::new(
                    "contrast.moco.neighbours.warmup",
                    format!("a warm-up of {} epochs leaves none of the {}", neighbours.warmup, self.epochs),
                ));
            }
            if moco.symmetric {
                problems.push(Problem::new(
                    "contrast.moco.neighbours",
                    "neighbours are defined for the one-sided loss; leave `symmetric` out",
                ));
            }
        }
    }

    fn supervised_problems(&self, problems: &mut Vec<Problem>) {
        if ["images", "masked_images"].contains(&self.data.artifact.kind.as_str()) {
            problems.push(Problem::new(
                "data",
                "these pictures have no class labels, and `contrast = supervised` learns from nothing else; take a dataset \
                 with labels, such as `image_folder` with one folder for each class",
            ));
        }
        if !matches!(self.views, Views::TwoCrops(_)) {
            problems.push(Problem::new(
                "views",
                "`contrast = supervised` looks at one view of each picture, the first of `views = two_crops`",
            ));
        }
    }
}
