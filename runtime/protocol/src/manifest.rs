//! Manifests: what a dataset holds, file by file, with the digests the files must have.
//!
//! A manifest names relative paths only, so a folder, a tar and a zip of the same tree give the same bytes and the same
//! digest. Where the bytes lie travels beside it ([`crate::job::Location`]).

use serde::{Deserialize, Serialize};

/// Version of the stored form.
pub const MANIFEST_FORMAT: u32 = 1;

/// One file of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path relative to the dataset's root, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal SHA-256 of the bytes.
    pub digest: String,
}

/// One picture with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// The picture.
    pub file: FileEntry,
    /// Class index into [`ImageManifest::classes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<u32>,
    /// One value for each class of [`ImageManifest::classes`], for pictures that show several: 1 present, -1 absent,
    /// 0 present but difficult (VOC's third answer). Empty where pictures are not labelled so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<i8>,
    /// Index mask (8-bit grey or palette PNG), same size as the picture unless the layout says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Box<FileEntry>>,
    /// Depth map: a NumPy file of H x W floats, metres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Box<FileEntry>>,
}

/// Pictures, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Names of the classes of the pictures' labels; empty without labels.
    pub classes: Vec<String>,
    /// Names of the classes in the masks, by index; empty without masks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask_classes: Vec<String>,
    /// Mask values that count as no class (void); 255 always does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<u8>,
    /// What each mask value is read as: 256 values from that of 0 to that of 255 (255 = void), applied before
    /// [`ImageManifest::mask_classes`] and [`ImageManifest::ignore`] are looked at; empty where values are classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask_values: Vec<u8>,
    /// The pictures, sorted by path.
    pub entries: Vec<ImageEntry>,
    /// Digest of the tar in the store that holds the files, for datasets that were generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// Videos with masks, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoManifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// How masks are to be read.
    pub annotation: Annotation,
    /// The sequences, sorted by name.
    pub sequences: Vec<Sequence>,
    /// Digest of the tar in the store that holds the files, for datasets that were generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// How the pixels of a video's masks are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Annotation {
    /// One object: values above 127 are it (DAVIS 2016, 8-bit grey 0/255).
    Binary,
    /// Pixel value = object id, 255 = void (DAVIS 2017, palette PNG).
    #[default]
    Indexed,
}

/// One video: as many masks as frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Name, unique in the manifest.
    pub name: String,
    /// Frames in order.
    pub frames: Vec<FileEntry>,
    /// Masks of the frames, in the same order.
    pub masks: Vec<FileEntry>,
}

/// Masks of videos that a program of the user's predicted: files `…/<sequence>/<frame>.png`, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskManifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The files.
    pub files: Vec<FileEntry>,
}
