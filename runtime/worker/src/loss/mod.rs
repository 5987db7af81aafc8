//! Objectives. One loss, one file.

pub mod info_nce;

pub use info_nce::info_nce;
