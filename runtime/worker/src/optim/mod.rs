//! Optimisers with state that can be saved.

pub mod adam;
pub mod finetuner;
pub mod sgd;
pub mod svm;

pub use adam::Adam;
pub use finetuner::Finetuner;
pub use sgd::Sgd;
