//! A dataset of pictures: its manifest and its files, every byte of which is checked against the manifest.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use harness_datasets::Reader;
use harness_datasets::hash::Hashing;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{FileEntry, ImageManifest};
use harness_views::{IndexMask, Picture, decode_index, decode_rgb};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads a manifest and makes sure that it is the one with this digest. The text of a million files is as large as what
/// it says, so it is not held beside it.
pub(crate) fn manifest<T: DeserializeOwned>(path: &Path, digest: &str) -> Result<T> {
    let failed = |error| Error::io("read", path)(error);
    let mut reader = BufReader::with_capacity(1 << 16, Hashing::new(File::open(path).map_err(failed)?));
    let manifest = serde_json::from_reader(&mut reader);
    // What is buffered has been hashed.
    let found = reader.into_inner().digest().map_err(failed)?;
    if found != digest {
        return Err(format!("the manifest `{}` has digest {found}, not {digest}", path.display()).into());
    }
    manifest.map_err(|error| format!("the manifest `{}` cannot be read: {error}", path.display()).into())
}

/// Pictures with what is known of them. Cheap to clone; shared by threads.
#[derive(Clone, Debug)]
pub struct Images {
    /// What there is.
    pub manifest: Arc<ImageManifest>,
    reader: Arc<Reader>,
}

impl Images {
    /// Opens the dataset with this manifest digest.
    ///
    /// # Errors
    /// Its manifest is not there or another one, or its files cannot be opened.
    pub fn open(input: &InputFiles, digest: &str) -> Result<Self> {
        let manifest: ImageManifest = manifest(&input.file, digest)?;
        if manifest.entries.is_empty() {
            return Err(format!("the dataset of `{}` has no pictures", input.file.display()).into());
        }
        if !matches!(manifest.mask_values.len(), 0 | 256) {
            let found = manifest.mask_values.len();
            return Err(format!("the manifest `{}` maps {found} mask values, not 256", input.file.display()).into());
        }
        Ok(Self { manifest: Arc::new(manifest), reader: Arc::new(Reader::new(input)?) })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.manifest.entries.len()
    }

    /// Some of the pictures, by index.
    ///
    /// # Panics
    /// There is no picture of that index.
    pub fn only(&self, rows: &[usize]) -> Self {
        let entries = rows.iter().map(|&row| self.manifest.entries[row].clone()).collect();
        let manifest = ImageManifest { entries, ..ImageManifest::clone(&self.manifest) };
        Self { manifest: Arc::new(manifest), reader: self.reader.clone() }
    }

    /// Never: a dataset without pictures cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.manifest.entries.is_empty()
    }

    fn bytes(&self, file: &FileEntry) -> Result<Vec<u8>> {
        Ok(self.reader.read_verified(file)?)
    }

    /// Path of a picture, for messages.
    pub fn path(&self, index: usize) -> &str {
        &self.manifest.entries[index].file.path
    }

    /// One picture, decoded.
    ///
    /// # Errors
    /// It changed, or is damaged; names it.
    pub fn picture(&self, index: usize) -> Result<Picture> {
        let file = &self.manifest.entries[index].file;
        decode_rgb(&self.bytes(file)?).map_err(|error| format!("`{}`: {error}", file.path).into())
    }

    /// The mask of a picture.
    ///
    /// # Errors
    /// There is none, it changed, or it is damaged; names it.
    pub fn mask(&self, index: usize) -> Result<IndexMask> {
        let entry = &self.manifest.entries[index];
        let file = entry.mask.as_ref().ok_or_else(|| format!("`{}` has no mask", entry.file.path))?;
        let mut mask = decode_index(&self.bytes(file)?).map_err(|error| format!("`{}`: {error}", file.path))?;
        if let Ok(table) = <&[u8; 256]>::try_from(self.manifest.mask_values.as_slice()) {
            mask.data.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
        }
        Ok(mask)
    }

    /// The raw bytes of a picture's depth map (`.npy`), checked against the manifest.
    ///
    /// # Errors
    /// There is none, or it changed; names it.
    pub fn depth(&self, index: usize) -> Result<Vec<u8>> {
        let entry = &self.manifest.entries[index];
        self.bytes(entry.depth.as_ref().ok_or_else(|| format!("`{}` has no depth map", entry.file.path))?)
    }

    /// For every picture, one answer for each class: 1 present, -1 absent, 0 difficult.
    ///
    /// # Errors
    /// A picture has not one answer for each class.
    pub fn multilabels(&self) -> Result<Vec<Vec<i8>>> {
        let classes = self.manifest.classes.len();
        let answers = |entry: &harness_protocol::manifest::ImageEntry| {
            if entry.labels.len() == classes && classes > 0 {
                return Ok(entry.labels.clone());
            }
            let (path, found) = (&entry.file.path, entry.labels.len());
            Err(Error::Step(format!("`{path}` has {found} answers for {classes} classes; one for each is needed")))
        };
        self.manifest.entries.iter().map(answers).collect()
    }

    /// Class index of every picture.
    ///
    /// # Errors
    /// A picture has none, or one outside the classes.
    pub fn labels(&self) -> Result<Vec<i64>> {
        let classes = self.manifest.classes.len();
        let label = |entry: &harness_protocol::manifest::ImageEntry| match entry.label {
            Some(label) if (label as usize) < classes => Ok(i64::from(label)),
            Some(label) => Err(Error::Step(format!(
                "`{}` has class {label}, and there are {classes} classes (0 to {})",
                entry.file.path,
                classes.saturating_sub(1)
            ))),
            None => Err(Error::Step(format!("`{}` has no class label", entry.file.path))),
        };
        self.manifest.entries.iter().map(label).collect()
    }
}
