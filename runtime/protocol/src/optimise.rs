//! Optimisers and learning-rate schedules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Problem;

/// How weights follow gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum, PyTorch's order of operations, weight decay on all parameters.
    Sgd(Sgd),
}

/// Arithmetic of a network's passes. Part of the key as requested; what the device could do is written beside the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    Fp32,
    /// 32-bit, but products may be rounded to 10 bits of mantissa first, where a GPU has it; elsewhere as `fp32`.
    Tf32,
    /// Convolutions and linear layers in bfloat16; weights, batch norm's statistics, losses and the optimiser in fp32.
    Bf16,
}

/// Stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate at the start.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lr: f64,
    /// Momentum.
    #[serde(default = "momentum")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// L2 penalty, on every parameter.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

fn momentum() -> f64 {
    0.9
}

/// How the weights of a finetuned network follow gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finetuner {
    /// Stochastic gradient descent with momentum, PyTorch's order of operations, weight decay on all parameters.
    Sgd(Sgd),
    /// Adam as in PyTorch, weight decay as an L2 penalty (added to the gradient), on all parameters.
    Adam(Adam),
}

impl Finetuner {
    /// Learning rate at the start.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.lr,
            Self::Adam(adam) => adam.lr,
        }
    }
}

/// Adam (Kingma and Ba 2015).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// Learning rate at the start.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lr: f64,
    /// Share of the running mean of gradients that is kept in a step.
    #[serde(default = "momentum")]
    #[schemars(range(min = 0.0, max = 0.999999))]
    pub beta1: f64,
    /// Share of the running mean of squared gradients that is kept in a step.
    #[serde(default = "beta2")]
    #[schemars(range(min = 0.0, max = 0.999999))]
    pub beta2: f64,
    /// Added to the root of the mean square.
    #[serde(default = "epsilon")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub epsilon: f64,
    /// L2 penalty, on every parameter.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

/// How the learning rate falls, per epoch e = 0…E−1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// ½·lr·(1 + cos(π·e/E)), no warm-up (MoCo v2).
    Cosine(Cosine),
    /// × `factor` from each of the epochs in `at` on.
    Steps(Steps),
    /// lr·(1 − e/E)^power.
    Poly(Poly),
    /// The learning rate stays.
    Constant(Constant),
}

/// Half a cosine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// Number of the first epoch: 0, or 1 as in the MoCo notebook for CIFAR, where the last epoch has a rate of 0.
    #[schemars(range(min = 0, max = 1))]
    pub first: u64,
}

/// Nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {}

/// Step-wise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// First epochs (counted from 0) with a lower rate, rising.
    pub at: Vec<u64>,
    /// Factor of each.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub factor: f64,
}

/// A polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Poly {
    /// The exponent.
    #[schemars(range(min = 0.0))]
    pub power: f64,
}

impl Default for Poly {
    fn default() -> Self {
        Self { power: 0.9 }
    }
}

fn tenth() -> f64 {
    0.1
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Cosine(Cosine::default())
    }
}

impl Schedule {
    /// Learning rate of epoch `epoch` (from 0) out of `epochs`, for the starting rate `lr`.
    pub fn rate(&self, lr: f64, epoch: u64, epochs: u64) -> f64 {
        let share = epoch as f64 / epochs as f64;
        match self {
            Self::Cosine(cosine) => {
                let share = (epoch + cosine.first) as f64 / epochs as f64;
                0.5 * lr * (1.0 + (std::f64::consts::PI * share).cos())
            }
            Self::Steps(steps) => lr * steps.factor.powi(steps.at.iter().filter(|&&at| epoch >= at).count() as i32),
            Self::Poly(poly) => lr * (1.0 - share).powf(poly.power),
            Self::Constant(_) => lr,
        }
    }

    /// Relations between the fields.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        match self {
            Self::Steps(steps) if steps.at.windows(2).any(|pair| pair[0] >= pair[1]) => {
                vec![Problem::new(&format!("{field}.at"), format!("the epochs {:?} must rise", steps.at))]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of PROTOCOLS (cosine per epoch, lr 0.3), computed with numpy.
    #[test]
    fn cosine_has_the_published_values() {
        let rate = |e, n| Schedule::default().rate(0.3, e, n);
        for (epoch, epochs, value, tolerance) in [
            (0, 200, 0.3, 1e-12),
            (1, 200, 0.29998149, 1e-8),
            (100, 200, 0.15, 1e-9),
            (199, 200, 1.851e-5, 1e-8),
            (799, 800, 1.16e-6, 1e-8),
        ] {
            assert!(
                (rate(epoch, epochs) - value).abs() < tolerance,
                "epoch {epoch} of {epochs}: {}",
                rate(epoch, epochs)
            );
        }
    }

    #[test]
    fn cosine_may_count_from_one() {
        let rate = |e| Schedule::Cosine(Cosine { first: 1 }).rate(0.06, e, 200);
        assert!((rate(0) - 0.059996299).abs() < 1e-8 && rate(199).abs() < 1e-15 && (rate(99) - 0.03).abs() < 1e-12);
    }

    /// The study's segmentation: × 0.1 while epoch > 30 and again > 40 on VOC, lr·(1 − e/150)^0.9 on Cityscapes.
    #[test]
    fn segmentation_schedules_have_the_published_values() {
        let steps = Schedule::Steps(Steps { at: vec![31, 41], factor: 0.1 });
        let rates = [0, 30, 31, 40, 41, 44].map(|epoch| steps.rate(0.003, epoch, 45));
        let expected = [3e-3, 3e-3, 3e-4, 3e-4, 3e-5, 3e-5];
        assert!(rates.iter().zip(expected).all(|(rate, value)| (rate / value - 1.0).abs() < 1e-12), "{rates:?}");
        let poly = |epoch| Schedule::Poly(Poly::default()).rate(1e-4, epoch, 150);
        for (epoch, value) in [(0, 1e-4), (1, 9.939980e-5), (75, 5.358867e-5), (149, 1.1003171e-6)] {
            assert!((poly(epoch) / value - 1.0).abs() < 1e-6, "epoch {epoch}: {}", poly(epoch));
        }
    }

    #[test]
    fn steps_take_effect_at_their_epoch() {
        let schedule = Schedule::Steps(Steps { at: vec![60, 80], factor: 0.1 });
        assert_eq!(schedule.rate(30.0, 59, 100), 30.0);
        assert!((schedule.rate(30.0, 60, 100) - 3.0).abs() < 1e-12);
        assert!((schedule.rate(30.0, 80, 100) - 0.3).abs() < 1e-12);
    }
}
