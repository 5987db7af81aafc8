//! Stochastic gradient descent with momentum, in PyTorch's order of operations.

use std::collections::BTreeMap;

use harness_protocol::optimise;
use tch::{Tensor, no_grad};

use crate::error::Result;

/// d = g + wd·p; the buffer becomes d at its first step, later momentum·buffer + d; p −= lr·buffer.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<(String, Tensor)>,
    buffers: BTreeMap<String, Tensor>,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// For these named tensors, which collect gradients.
    pub fn new(parameters: Vec<(String, Tensor)>, settings: &optimise::Sgd) -> Self {
        let optimise::Sgd { momentum, weight_decay, .. } = *settings;
        Self { parameters, buffers: BTreeMap::new(), momentum, weight_decay }
    }

    /// The parameters' tensors, in the order of [`Sgd::step_along`].
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters.iter().map(|(_, tensor)| tensor)
    }

    /// One step along the gradients that `backward` left. Parameters without a gradient stay.
    pub fn step(&mut self, lr: f64) {
        let gradients: Vec<Tensor> = self.tensors().map(Tensor::grad).collect();
        self.step_along(gradients, lr);
    }

    /// One step along these gradients, one for each parameter; undefined ones leave theirs as it is.
    pub fn step_along(&mut self, gradients: Vec<Tensor>, lr: f64) {
        no_grad(|| {
            for ((name, parameter), gradient) in self.parameters.iter().zip(gradients) {
                if !gradient.defined() {
                    continue;
                }
                let step = if self.weight_decay != 0.0 { gradient + parameter * self.weight_decay } else { gradient };
                let step = if self.momentum == 0.0 {
                    step
                } else {
                    match self.buffers.get_mut(name) {
                        Some(buffer) => {
                            let _ = buffer.g_mul_scalar_(self.momentum);
                            buffer.g_add_(&step)
                        }
                        // The gradient's own storage is reused by the next backward pass.
                        None => {
                            self.buffers.insert(name.clone(), step.copy());
                            step
                        }
                    }
                };
                let _ = parameter.shallow_clone().g_sub_(&(step * lr));
            }
        });
    }

    /// [`Sgd::step_along`] for all parameters in one pass over their memory, gradients of all defined and ours to overwrite.
    /// The same formula; the last digits may differ, as fewer roundings lie between.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step_fused(&mut self, gradients: Vec<Tensor>, lr: f64) -> Result<()> {
        let first = self.buffers.is_empty();
        if first && self.momentum != 0.0 {
            let blank = |(name, tensor): &(String, Tensor)| (name.clone(), empty_like(tensor).zero_());
            self.buffers = self.parameters.iter().map(blank).collect();
        }
        let parameters: Vec<&Tensor> = self.parameters.iter().map(|(_, tensor)| tensor).collect();
        let buffers: Vec<&Tensor> = self.parameters.iter().filter_map(|(name, _)| self.buffers.get(name)).collect();
        // A fused step goes through memory as it lies, so gradients have to lie as their weights do.
        let gradients: Vec<Tensor> = parameters
            .iter()
            .zip(gradients)
            .map(
                |(weight, gradient)| {
                    if gradient.stride() == weight.stride() { gradient } else { copied_like(weight, &gradient) }
                },
            )
            .collect();
        crate::shim::sgd(&parameters, &gradients, &buffers, lr, self.momentum, self.weight_decay, first)
    }

    /// Forgets the gradients.
    pub fn zero_grad(&self) {
        for (_, parameter) in &self.parameters {
            parameter.shallow_clone().zero_grad();
        }
    }

    /// Momentum buffers by the name of their parameter; those of parameters that had no step yet are missing.
    pub fn state(&self) -> &BTreeMap<String, Tensor> {
        &self.buffers
    }

    /// Takes momentum buffers as [`Sgd::state`] gave them.
    ///
    /// # Errors
    /// One belongs to no parameter or has another shape.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        for (name, tensor) in &state {
            let fits =
                self.parameters.iter().any(|(other, parameter)| other == name && parameter.size() == tensor.size());
            if !fits {
                return Err(format!("the momentum of `{name}` belongs to no weight").into());
            }
        }
        // Buffers lie in memory as their weights do, which a fused step relies on.
        for (name, tensor) in state {
            let Some((_, weight)) = self.parameters.iter().find(|(other, _)| *other == name) else { continue };
            let buffer = copied_like(weight, &tensor);
            self.buffers.insert(name, buffer);
        }
        Ok(())
    }
}

/// New memory, laid out to the last stride as a weight's.
fn empty_like(weight: &Tensor) -> Tensor {
    Tensor::empty_strided(weight.size(), weight.stride(), (weight.kind(), weight.device()))
}

fn copied_like(weight: &Tensor, from: &Tensor) -> Tensor {
    let mut laid = empty_like(weight);
    no_grad(|| laid.copy_(from));
    laid
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps on f(p) = ½·a·p², by hand: g = a·p, d = g + wd·p, v = d, then 0.9 v + d; p −= lr·v.
    #[test]
    fn steps_equal_those_by_hand() {
        let settings = optimise::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let p = Tensor::from_slice(&[2.0f32, -1.0]).set_requires_grad(true);
        let mut sgd = Sgd::new(vec![("p".into(), p.shallow_clone())], &settings);
        let (mut by_hand, mut v) = ([2.0f64, -1.0], [0.0f64; 2]);
        for step in 0..3 {
            sgd.zero_grad();
            ((&p * &p) * 1.5).sum(tch::Kind::Float).backward();
            sgd.step(0.1);
            for i in 0..2 {
                let d = 3.0 * by_hand[i] + 0.01 * by_hand[i];
                v[i] = if step == 0 { d } else { 0.9 * v[i] + d };
                by_hand[i] -= 0.1 * v[i];
                assert!((p.double_value(&[i as i64]) - by_hand[i]).abs() < 1e-6, "step {step}");
            }
        }
    }

    #[test]
    fn fused_steps_are_the_same_steps() {
        for momentum in [0.0, 0.9] {
            let settings = optimise::Sgd { lr: 0.1, momentum, weight_decay: 0.01 };
            let shapes: [&[i64]; 3] = [&[3], &[4, 3, 3, 3], &[17, 5]];
            let make = || -> Vec<(String, Tensor)> {
                let draw = |(i, shape): (usize, &&[i64])| {
                    let tensor = crate::seed::normal(i as u64, "test", "p", shape, 1.0).to_kind(tch::Kind::Double);
                    // As convolutions' weights lie: channels last.
                    let last = shape.len() == 4;
                    let laid = |t: Tensor| t.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
                    (i.to_string(), if last { laid(tensor) } else { tensor })
                };
                shapes.iter().enumerate().map(draw).collect()
            };
            let (plain, fused) = (make(), make());
            let share = |list: &[(String, Tensor)]| list.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
            let (mut one, mut all) = (Sgd::new(share(&plain), &settings), Sgd::new(share(&fused), &settings));
            for step in 0..3 {
                let gradients = || -> Vec<Tensor> {
                    let draw =
                        |shape: &&[i64]| crate::seed::normal(step, "test", "g", shape, 1.0).to_kind(tch::Kind::Double);
                    shapes.iter().map(draw).collect()
                };
                one.step_along(gradients(), 0.1);
                all.step_fused(gradients(), 0.1).unwrap();
            }
            for ((name, ours), (_, theirs)) in fused.iter().zip(&plain) {
                assert!((ours - theirs).abs().max().double_value(&[]) < 1e-12, "{name}");
            }
            assert_eq!(one.state().len(), all.state().len());
            for (name, buffer) in one.state() {
                assert!((buffer - &all.state()[name]).abs().max().double_value(&[]) < 1e-12, "{name}");
            }
        }
    }

    #[test]
    fn restored_momentum_goes_on_where_it_was() {
        let settings = optimise::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let run = |cut: bool| {
            let p = Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
            let mut sgd = Sgd::new(vec![("p".into(), p.shallow_clone())], &settings);
            for step in 0..4 {
                if cut && step == 2 {
                    let state = sgd.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
                    sgd = Sgd::new(vec![("p".into(), p.shallow_clone())], &settings);
                    sgd.restore(state).unwrap();
                }
                sgd.zero_grad();
                (&p * &p).sum(tch::Kind::Float).backward();
                sgd.step(0.1);
            }
            p.double_value(&[0])
        };
        assert_eq!(run(false), run(true));
    }
}
