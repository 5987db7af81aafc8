//! Proof that an evaluation did not change the encoder it evaluates.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

use crate::error::Result;
use crate::model::store::bytes;
use crate::model::{Encoder, Store};

/// What the tensors of a store were at some time.
#[derive(Debug)]
pub struct Guard<'a> {
    store: &'a Store,
    before: BTreeMap<String, Tensor>,
}

impl<'a> Guard<'a> {
    /// Remembers every tensor of a store, weights and buffers.
    pub fn new(store: &'a Store) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), no_grad(|| tensor.detach().copy()));
        Self { store, before: store.tensors().iter().map(copy).collect() }
    }

    /// Makes sure that every tensor is bit for bit what it was.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<()> {
        let moved = |(name, old): &(&String, &Tensor)| match self.store.tensors().get(*name) {
            // NaN is not equal to itself, so the bytes decide.
            Some(now) => !now.equal(old) && bytes(now) != bytes(old),
            None => true,
        };
        let names: Vec<&String> = self.before.iter().filter(moved).map(|(name, _)| name).collect();
        match names.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "the evaluation changed {} tensors of the encoder, first `{first}`, so its numbers are worth nothing; \
                 this is a defect of harness",
                names.len()
            )
            .into()),
        }
    }
}

/// Runs an evaluation and makes sure that no tensor of the encoder moved meanwhile. A network has no mode of its own: its
/// forward functions are told one, and [`Encoder::forward`] always says eval; an exported module is put into eval mode
/// when it is loaded.
///
/// # Errors
/// What `evaluation` says, or that a tensor moved.
pub fn eval_guard<T>(encoder: &Encoder, evaluation: impl FnOnce() -> Result<T>) -> Result<T> {
    match encoder {
        Encoder::Network(network) => {
            let guard = Guard::new(&network.store);
            let result = evaluation()?;
            guard.check()?;
            Ok(result)
        }
        // An exported module is a closed box: what it would be saved as tells whether anything in it moved.
        Encoder::Torchscript(module) => {
            let before = module.state()?;
            let result = evaluation()?;
            if module.state()? != before {
                return Err(
                    "the exported module changed while it was evaluated, so its numbers are worth nothing: it \
                            updates a buffer also in eval mode; export it with torch.jit.freeze, or without that"
                        .into(),
                );
            }
            Ok(result)
        }
        Encoder::Pixels(_) | Encoder::Histogram(_) => evaluation(),
    }
}

/// Whether every value is finite.
pub fn finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().to_kind(Kind::Int64).int64_value(&[]) == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;
    use harness_protocol::model::{Architecture, Resnet, Stem};

    #[test]
    fn a_moved_buffer_is_noticed() {
        let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.0625 });
        let encoder = Encoder::random(architecture, [0.5; 3], [0.5; 3], 0).unwrap();
        let network = encoder.need_network("test").unwrap();
        let x = crate::seed::normal(0, "test", "x", &[2, 3, 8, 8], 1.0);
        let forward = |mode| no_grad(|| network.resnet.forward(&x, mode));
        assert!(eval_guard(&encoder, || Ok(forward(Mode::Eval))).is_ok());
        let message = eval_guard(&encoder, || Ok(forward(Mode::TRAIN))).unwrap_err().to_string();
        assert!(message.contains("`bn1.running_mean`"), "{message}");
    }

    #[test]
    fn infinity_and_nan_are_not_finite() {
        assert!(finite(&Tensor::from_slice(&[1.0f32, 0.0])));
        assert!(!finite(&Tensor::from_slice(&[1.0f32, f32::NAN])));
        assert!(!finite(&Tensor::from_slice(&[f32::INFINITY])));
    }
}
