//! Adam with an L2 penalty, in PyTorch's order of operations.

use std::collections::BTreeMap;

use harness_protocol::optimise;
use tch::{Kind, Tensor, no_grad};

use crate::error::Result;

/// d = g + wd·p; m = m + (1 − β₁)(d − m); v = β₂v + (1 − β₂)d²; p −= lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε).
#[derive(Debug)]
pub struct Adam {
    parameters: Vec<(String, Tensor)>,
    /// `mean/NAME`, `square/NAME` and `steps/NAME` (a count).
    state: BTreeMap<String, Tensor>,
    settings: optimise::Adam,
}

impl Adam {
    /// For these named tensors, which collect gradients.
    pub fn new(parameters: Vec<(String, Tensor)>, settings: &optimise::Adam) -> Self {
        Self { parameters, state: BTreeMap::new(), settings: *settings }
    }

    /// The parameters' tensors, in the order of [`Adam::step_along`].
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters.iter().map(|(_, tensor)| tensor)
    }

    /// One step along these gradients, one for each parameter; undefined ones leave theirs as it is.
    pub fn step_along(&mut self, gradients: Vec<Tensor>, lr: f64) {
        let optimise::Adam { beta1, beta2, epsilon, weight_decay, .. } = self.settings;
        no_grad(|| {
            for ((name, parameter), gradient) in self.parameters.iter().zip(gradients) {
                if !gradient.defined() {
                    continue;
                }
                let step = if weight_decay != 0.0 { gradient + parameter * weight_decay } else { gradient };
                let mut slot = |part: &str, empty: &dyn Fn() -> Tensor| {
                    self.state.entry(format!("{part}/{name}")).or_insert_with(empty).shallow_clone()
                };
                let (mut mean, mut square) =
                    (slot("mean", &|| parameter.zeros_like()), slot("square", &|| parameter.zeros_like()));
                let mut count = slot("steps", &|| Tensor::zeros([] as [i64; 0], (Kind::Int64, tch::Device::Cpu)));
                let _ = count.g_add_scalar_(1);
                let taken = count.int64_value(&[]) as i32;
                let _ = mean.lerp_(&step, 1.0 - beta1);
                let _ = square.g_mul_scalar_(beta2);
                let _ = square.g_add_(&(&step * &step * (1.0 - beta2)));
                let (left1, left2) = (1.0 - beta1.powi(taken), 1.0 - beta2.powi(taken));
                let root = square.sqrt() / left2.sqrt() + epsilon;
                let _ = parameter.shallow_clone().g_sub_(&(mean / root * (lr / left1)));
            }
        });
    }

    /// What the next step depends on, beside the parameters.
    pub fn state(&self) -> &BTreeMap<String, Tensor> {
        &self.state
    }

    /// Takes a state as [`Adam::state`] gave it.
    ///
    /// # Errors
    /// A tensor of it belongs to no parameter or has another shape.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        let known: BTreeMap<&str, &Tensor> =
            self.parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut taken = BTreeMap::new();
        for (name, tensor) in state {
            let of = name.split_once('/').and_then(|(part, of)| Some((part, *known.get(of)?)));
            let tensor = match of {
                Some(("steps", _)) if tensor.size().is_empty() => tensor.copy(),
                Some(("mean" | "square", parameter)) if parameter.size() == tensor.size() => {
                    tensor.to_device(parameter.device()).copy()
                }
                _ => return Err(format!("the optimiser's `{name}` belongs to no weight").into()),
            };
            taken.insert(name, tensor);
        }
        self.state = taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: optimise::Adam =
        optimise::Adam { lr: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };

    fn run(steps: usize, cut: Option<usize>) -> [f64; 2] {
        let p = Tensor::from_slice(&[2.0f64, -1.0]).set_requires_grad(true);
        let mut adam = Adam::new(vec![("p".into(), p.shallow_clone())], &SETTINGS);
        for step in 0..steps {
            if cut == Some(step) {
                let state = adam.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
                adam = Adam::new(vec![("p".into(), p.shallow_clone())], &SETTINGS);
                adam.restore(state).unwrap();
            }
            p.shallow_clone().zero_grad();
            ((&p * &p) * 1.5).sum(Kind::Double).backward();
            adam.step_along(vec![p.grad()], 0.1 / (step + 1) as f64);
        }
        [p.double_value(&[0]), p.double_value(&[1])]
    }

    /// Values of `torch.optim.Adam` (2.11, float64) on 1.5·p², learning rate 0.1/t.
    #[test]
    fn steps_equal_pytorchs() {
        for (steps, expected) in [(1, GOLDEN[0]), (2, GOLDEN[1]), (5, GOLDEN[2])] {
            let ours = run(steps, None);
            assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{steps}: {ours:?} {expected:?}");
        }
    }

    #[test]
    fn a_restored_state_goes_on_where_it_was() {
        assert_eq!(run(5, Some(3)), run(5, None));
        let mut adam = Adam::new(vec![("p".into(), Tensor::from_slice(&[1.0f32]))], &SETTINGS);
        let other = BTreeMap::from([("mean/q".to_string(), Tensor::from_slice(&[1.0f32]))]);
        assert!(adam.restore(other).unwrap_err().to_string().contains("`mean/q`"));
    }

    const GOLDEN: [[f64; 2]; 3] = [
        [1.900000000166113, -0.9000000003322259],
        [1.8500832430561154, -0.8502061143407883],
        [1.7721000761645305, -0.7727294131220582],
    ];
}
