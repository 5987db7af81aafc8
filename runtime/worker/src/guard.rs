//! Proof that an evaluation did not change the encoder it evaluates.

use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::model::{Encoder, Store};

/// SHA-256 over names, shapes and bytes of tensors, in the order of their names.
pub fn digest<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(format!("{:?}{:?}", tensor.kind(), tensor.size()).as_bytes());
        hash.update(crate::model::store::bytes(tensor));
    }
    hash.finalize().into()
}

/// Digest of all weights and buffers of a store.
pub fn store_digest(store: &Store) -> [u8; 32] {
    digest(store.tensors().iter())
}

/// Runs an evaluation and makes sure that no tensor of the encoder moved meanwhile. The network itself has no mode: its
/// forward functions are told one, and [`Encoder::forward`] always says eval.
///
/// # Errors
/// What `evaluation` says, or that a tensor moved.
pub fn eval_guard<T>(encoder: &Encoder, evaluation: impl FnOnce() -> Result<T>) -> Result<T> {
    let Encoder::Network(network) = encoder else { return evaluation() };
    guard_store(&network.store, evaluation)
}

/// As [`eval_guard`], for a store.
///
/// # Errors
/// As [`eval_guard`].
pub fn guard_store<T>(store: &Store, evaluation: impl FnOnce() -> Result<T>) -> Result<T> {
    let before: Vec<(String, Tensor)> =
        store.tensors().iter().map(|(name, tensor)| (name.clone(), tch::no_grad(|| tensor.copy()))).collect();
    let result = evaluation()?;
    let moved = |(name, old): &&(String, Tensor)| {
        let now = &store.tensors()[name];
        // NaN is not equal to itself; the bytes are what counts.
        !now.equal(old) && digest([(name, old)].into_iter()) != digest([(name, now)].into_iter())
    };
    let names: Vec<&str> = before.iter().filter(moved).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(result);
    }
    Err(format!(
        "the evaluation changed the encoder ({} tensors, first `{}`), so its numbers are worth nothing; this is a defect of harness",
        names.len(),
        names[0]
    )
    .into())
}

/// Whether every value is finite.
pub fn finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().to_kind(Kind::Int64).int64_value(&[]) == 1
}
