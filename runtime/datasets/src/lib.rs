//! Datasets: folder, tar and zip trees, their manifests, and the procedural scenes. No torch.
//!
//! ```text
//! Location -> Tree -> builder (image_folder, voc_classification, davis, …) -> Built (manifests)
//! Scenes params -> scenes() -> one tar + Built
//! manifest entry -> Reader::read_verified -> bytes (checked against their digest)
//! ```
//!
//! A manifest holds relative paths, sizes and digests only, so the same tree as a folder, a tar or a zip gives the same
//! manifest, and therefore the same keys, on every machine.

pub mod built;
pub mod cifar;
pub mod davis;
pub mod derived;
pub mod error;
pub mod hash;
pub mod image_folder;
mod layout;
mod lists;
pub mod mask;
pub mod mask_folder;
pub mod masked;
pub mod npy;
pub mod reader;

pub mod scenes;
pub mod segmentation_pairs;
pub mod split;
pub mod tree;
pub mod voc_classification;

pub use built::Built;
pub use cifar::cifar;
pub use davis::davis;
pub use derived::{derived_location, deriver, hold_out};
pub use error::Error;
pub use hash::{FileHasher, ParallelHasher};
pub use image_folder::image_folder;
pub use mask::{IndexMask, check_mask, decode_mask};
pub use mask_folder::mask_folder;
pub use masked::{cityscapes, nyud, voc_segmentation};
pub use reader::Reader;

pub use scenes::scenes;
pub use segmentation_pairs::segmentation_pairs;
pub use tree::{Tree, TreeFile, locate};
pub use voc_classification::voc_classification;

/// Builds a dataset of the user's from a step's resolved parameters.
pub type Builder = fn(&serde_json::Value, &harness_protocol::Location, &dyn FileHasher) -> Result<Built, Error>;

/// The builder of every kind that describes files of the user's.
const BUILDERS: &[(&str, Builder)] = &[
    ("cifar", |params, location, hasher| cifar(&decode(params)?, location, hasher)),
    ("cityscapes", |params, location, hasher| cityscapes(&decode(params)?, location, hasher)),
    ("davis", |params, location, hasher| davis(&decode(params)?, location, hasher)),
    ("image_folder", |params, location, hasher| image_folder(&decode(params)?, location, hasher)),
    ("mask_folder", |params, location, hasher| mask_folder(&decode(params)?, location, hasher)),
    ("nyud", |params, location, hasher| nyud(&decode(params)?, location, hasher)),
    ("segmentation_pairs", |params, location, hasher| segmentation_pairs(&decode(params)?, location, hasher)),
    ("voc_classification", |params, location, hasher| voc_classification(&decode(params)?, location, hasher)),
    ("voc_segmentation", |params, location, hasher| voc_segmentation(&decode(params)?, location, hasher)),
];

/// The builder of the kind called `kind`, if it describes files of the user's.
pub fn builder(kind: &str) -> Option<Builder> {
    BUILDERS.iter().find(|(name, _)| *name == kind).map(|(_, builder)| *builder)
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(params: &serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(params.clone()).map_err(|error| Error::layout("the step's fields", error.to_string()))
}
