//! The optimiser of a finetuned network: whichever its parameters ask for.

use std::collections::BTreeMap;

use harness_protocol::optimise;
use tch::Tensor;

use crate::error::Result;
use crate::optim::{Adam, Sgd};

/// One of the optimisers that finetuning may use.
#[derive(Debug)]
pub enum Finetuner {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
}

impl Finetuner {
    /// For these named tensors, which collect gradients.
    pub fn new(parameters: Vec<(String, Tensor)>, settings: &optimise::Finetuner) -> Self {
        match settings {
            optimise::Finetuner::Sgd(settings) => Self::Sgd(Sgd::new(parameters, settings)),
            optimise::Finetuner::Adam(settings) => Self::Adam(Adam::new(parameters, settings)),
        }
    }

    /// The parameters' tensors, in the order of [`Finetuner::step_along`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Sgd(sgd) => sgd.tensors().collect(),
            Self::Adam(adam) => adam.tensors().collect(),
        }
    }

    /// One step along these gradients, one for each parameter.
    pub fn step_along(&mut self, gradients: Vec<Tensor>, lr: f64) {
        match self {
            Self::Sgd(sgd) => sgd.step_along(gradients, lr),
            Self::Adam(adam) => adam.step_along(gradients, lr),
        }
    }

    /// What the next step depends on, beside the parameters.
    pub fn state(&self) -> &BTreeMap<String, Tensor> {
        match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::Adam(adam) => adam.state(),
        }
    }

    /// Takes a state as [`Finetuner::state`] gave it.
    ///
    /// # Errors
    /// It belongs to other weights.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.restore(state),
            Self::Adam(adam) => adam.restore(state),
        }
    }
}
