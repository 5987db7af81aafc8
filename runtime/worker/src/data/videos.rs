//! A dataset of videos: its manifest and its files, every byte of which is checked against the manifest.

use std::sync::Arc;

use harness_datasets::Reader;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{Sequence, VideoManifest};
use harness_views::{IndexMask, Picture, decode_index, decode_rgb};

use crate::data::images::manifest;
use crate::error::Result;

/// Videos with masks. Cheap to clone; shared by threads.
#[derive(Clone, Debug)]
pub struct Videos {
    /// What there is.
    pub manifest: Arc<VideoManifest>,
    reader: Arc<Reader>,
}

impl Videos {
    /// Opens the dataset with this manifest digest.
    ///
    /// # Errors
    /// Its manifest is not there or another one, or its files cannot be opened.
    pub fn open(input: &InputFiles, digest: &str) -> Result<Self> {
        let manifest: VideoManifest = manifest(&input.file, digest)?;
        if manifest.sequences.is_empty() {
            return Err(format!("the dataset of `{}` has no videos", input.file.display()).into());
        }
        Ok(Self { manifest: Arc::new(manifest), reader: Arc::new(Reader::new(input)?) })
    }

    /// Frame `index` of a sequence, decoded.
    ///
    /// # Errors
    /// It changed, or is damaged; names it.
    pub fn frame(&self, sequence: &Sequence, index: usize) -> Result<Picture> {
        let file = &sequence.frames[index];
        decode_rgb(&self.reader.read_verified(file)?).map_err(|error| format!("`{}`: {error}", file.path).into())
    }

    /// Mask of frame `index` of a sequence, as stored.
    ///
    /// # Errors
    /// It changed, or is damaged; names it.
    pub fn mask(&self, sequence: &Sequence, index: usize) -> Result<IndexMask> {
        let file = &sequence.masks[index];
        decode_index(&self.reader.read_verified(file)?).map_err(|error| format!("`{}`: {error}", file.path).into())
    }
}
