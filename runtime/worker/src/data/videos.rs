//! A dataset of videos: its manifest and its files, every byte of which is checked against the manifest.

use std::sync::Arc;

use harness_datasets::Reader;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{Annotation, Sequence, VideoManifest};
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

    /// Object ids of a frame, 0 = background: void becomes background, as in the DAVIS evaluation.
    ///
    /// # Errors
    /// As [`Videos::mask`].
    pub fn objects(&self, sequence: &Sequence, frame: usize) -> Result<IndexMask> {
        let mut mask = self.mask(sequence, frame)?;
        match self.manifest.annotation {
            Annotation::Binary => mask.data.iter_mut().for_each(|value| *value = u8::from(*value > 127)),
            Annotation::Indexed => mask.data.iter_mut().filter(|value| **value == 255).for_each(|value| *value = 0),
        }
        Ok(mask)
    }

    /// The first frame's object ids, of a video that can be scored.
    ///
    /// # Errors
    /// Names the video that has not as many masks as frames, fewer than 3 of them, or no object in its first mask.
    pub fn first(&self, sequence: &Sequence) -> Result<IndexMask> {
        let name = &sequence.name;
        let (frames, masks) = (sequence.frames.len(), sequence.masks.len());
        if frames != masks {
            return Err(format!("{name}: {frames} frames and {masks} masks; every frame needs one").into());
        }
        if frames < 3 {
            return Err(
                format!("{name}: {frames} frames; the first and the last are not scored, so give at least 3").into()
            );
        }
        let first = self.objects(sequence, 0)?;
        if first.data.iter().all(|&id| id == 0) {
            let stored = self.mask(sequence, 0)?;
            let void = self.manifest.annotation == Annotation::Indexed && stored.data.contains(&255);
            let why = if void { "nothing but background and void" } else { "no object" };
            let file = &sequence.masks[0].path;
            return Err(format!("{name}: the first mask `{file}` has {why}; leave the sequence out").into());
        }
        Ok(first)
    }

    /// Object ids of a frame, as large as the first frame's.
    ///
    /// # Errors
    /// As [`Videos::mask`]; or it has another size.
    pub fn like(&self, first: &IndexMask, sequence: &Sequence, frame: usize) -> Result<IndexMask> {
        let mask = self.objects(sequence, frame)?;
        if (mask.width, mask.height) == (first.width, first.height) {
            return Ok(mask);
        }
        Err(format!(
            "{}, frame {}: `{}` is {}x{} and the first mask is {}x{}; masks of a video have one size",
            sequence.name,
            frame_name(sequence, frame),
            sequence.masks[frame].path,
            mask.width,
            mask.height,
            first.width,
            first.height
        )
        .into())
    }
}

/// A frame's name: its mask's file name without ending.
pub fn frame_name(sequence: &Sequence, frame: usize) -> &str {
    let path = sequence.masks[frame].path.as_str();
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}
