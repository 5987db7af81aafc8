//! Optimisers with state that can be saved.

pub mod sgd;

pub use sgd::Sgd;
