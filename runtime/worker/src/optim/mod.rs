//! Optimisers with state that can be saved.

pub mod sgd;
pub mod svm;

pub use sgd::Sgd;
