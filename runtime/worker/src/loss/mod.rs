//! Objectives. One loss, one file.

pub mod info_nce;
pub mod neighbours;

pub use info_nce::info_nce;
pub use neighbours::{nearest, neighbours};
