//! By what a setting is chosen among several: never by test, unless it is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// By the result on test: as published, and better than the method is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BestOnTest {}

/// By the result on a part of train: drawn class by class, exact copies of a picture on one side, as `holdout` does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartOfTrain {
    /// Its share of the pictures of each class.
    #[schemars(range(min = 0.001, max = 0.9))]
    pub share: f64,
    /// Seed of the draw. Not the experiment's seed: replicates are judged by the same pictures.
    pub split_seed: u64,
}

impl Default for PartOfTrain {
    fn default() -> Self {
        Self { share: 0.1, split_seed: 0 }
    }
}
