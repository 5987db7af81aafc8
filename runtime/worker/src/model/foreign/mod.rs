//! Weights that were not written by harness: PyTorch's two checkpoint formats and safetensors, read as data, and how the
//! tensors in them fit an architecture.
//!
//! ```text
//! file -checkpoint::read-> named tensors -fit::select-> the encoder's tensors, and what matched, was missing, was left over
//! ```

pub mod checkpoint;
pub mod fit;
pub mod pickle;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, Format};
pub use fit::Fit;
