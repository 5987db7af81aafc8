//! Datasets: folder, tar and zip trees, their manifests, and the procedural scenes. No torch.
//!
//! ```text
//! Location -> Tree -> builder (image_folder, segmentation_pairs, davis) -> Built (manifests)
//! Scenes params -> scenes() -> one tar + Built
//! manifest entry -> Reader::read_verified -> bytes (checked against their digest)
//! ```
//!
//! A manifest holds relative paths, sizes and digests only, so the same tree as a folder, a tar or a zip gives the same
//! manifest, and therefore the same keys, on every machine.

pub mod built;
pub mod davis;
pub mod error;
pub mod hash;
pub mod image_folder;
pub mod mask;
pub mod reader;

pub mod scenes;
pub mod segmentation_pairs;
pub mod split;
pub mod tree;

pub use built::Built;
pub use davis::davis;
pub use error::Error;
pub use hash::{FileHasher, ParallelHasher};
pub use image_folder::image_folder;
pub use mask::{IndexMask, check_mask, decode_mask};
pub use reader::Reader;

pub use scenes::scenes;
pub use segmentation_pairs::segmentation_pairs;
pub use tree::{Tree, TreeFile, locate};
