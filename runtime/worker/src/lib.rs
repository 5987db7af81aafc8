//! The worker: models, losses, metrics and the steps that compute. The only crate that sees tch.
//!
//! ```text
//! control channel -> Job -> steps::run -> Context (inputs, progress, cancel) -> Outcome + files in out_dir
//! data (verified, decoded, in order) -> model -> loss -> optim
//! ```

pub mod cluster;
pub mod context;
pub mod control;
pub mod data;
pub mod device;
pub mod error;
pub mod features;
pub mod group;
pub mod guard;
pub mod loss;
pub mod metric;
pub mod model;
pub mod nccl;
pub mod npy;
pub mod optim;
pub mod provenance;
pub mod seed;
pub mod shim;
pub mod steps;
pub mod team;
#[cfg(test)]
mod testing;

pub use context::Context;
pub use error::{Error, Result};
