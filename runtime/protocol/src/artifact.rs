//! What steps give and take: content with a kind and a digest.

use serde::{Deserialize, Serialize};

/// Kinds of content that outputs can have.
///
/// `images` is a manifest without labels or masks, `labelled_images` has labels, `masked_images` has masks,
/// `annotated_images` has both, `multilabel_images` has one answer for each class, `depth_images` has masks and depth
/// maps; `predictions` is a tar of masks of videos, `<sequence>/<frame>.png`, `mask_files` a manifest of such; `file` is
/// anything opaque.
pub const KINDS: &[&str] = &[
    "images",
    "labelled_images",
    "masked_images",
    "annotated_images",
    "multilabel_images",
    "depth_images",
    "videos",
    "mask_files",
    "predictions",
    "encoder",
    "features",
    "metrics",
    "pictures",
    "archive",
    "folder",
    "file",
];

/// One piece of content: its kind and the SHA-256 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// One of [`KINDS`].
    pub kind: String,
    /// Hexadecimal SHA-256, 64 characters.
    pub digest: String,
}

/// Pictures to look at, an output of kind `pictures`: one JSON file that carries its PNGs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gallery {
    /// Heading, for instance `Nearest neighbours`.
    pub title: String,
    /// What is seen, and how to read the colours.
    pub caption: String,
    /// The pictures in reading order.
    pub items: Vec<GalleryItem>,
}

/// One picture of a [`Gallery`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GalleryItem {
    /// Short text below the picture.
    pub caption: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The PNG, base64 (standard alphabet, padded).
    pub png_base64: String,
}
