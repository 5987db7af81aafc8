//! What `propagate` and `score_video` share: scoring masks against a dataset of videos, and showing them.

use std::collections::BTreeMap;

use harness_protocol::manifest::Sequence;
use harness_protocol::{Gallery, GalleryItem};
use harness_views::{IndexMask, Picture};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::context::Context;
use crate::data::Videos;
use crate::data::videos::frame_name;
use crate::error::{Error, Result};
use crate::metric::davis::{DavisError, FrameScores, Judge, ObjectScores, Summary, summarise};
use crate::steps::overlay::{beside, fit, item, overlay, spread};

/// Sequences in the gallery.
const SHOWN: usize = 4;
/// Frames shown of each.
const FRAMES: usize = 5;
/// Longest side of a frame in the gallery, pixels.
const LONGEST: usize = 240;

/// Scores of a dataset's videos, sequence by sequence.
#[derive(Debug, Default)]
pub struct Scores {
    /// Of the predictions.
    pub predicted: Vec<ObjectScores>,
    /// Of the first annotation copied to every frame.
    pub copied: Vec<ObjectScores>,
    /// J and F of every scored frame.
    pub frames: Vec<FrameRow>,
}

/// J and F of one object in one frame.
#[derive(Clone, Debug, Serialize)]
pub struct FrameRow {
    /// Name of the video.
    pub sequence: String,
    /// The object's id.
    pub object: u8,
    /// Name of the frame.
    pub frame: String,
    /// Region similarity.
    pub j: f64,
    /// Boundary accuracy.
    pub f: f64,
}

/// What is scored: the annotation's objects as `of_truth` leaves them.
pub struct Scored<'a> {
    /// The job, for warnings.
    pub context: &'a Context<'a>,
    /// The videos.
    pub videos: &'a Videos,
    /// Threads that read and score.
    pub pool: &'a ThreadPool,
    /// Whether all annotated objects count as one.
    pub one_object: bool,
}

impl Scored<'_> {
    /// The first frame's objects.
    ///
    /// # Errors
    /// As [`Videos::first`].
    pub fn first(&self, sequence: &Sequence) -> Result<IndexMask> {
        Ok(self.merged(self.videos.first(sequence)?))
    }

    fn merged(&self, mut mask: IndexMask) -> IndexMask {
        if self.one_object {
            mask.data.iter_mut().for_each(|id| *id = u8::from(*id != 0));
        }
        mask
    }

    /// Scores the inner frames of a video; `predicted` gives the mask of a frame, of the first annotation's size.
    ///
    /// # Errors
    /// The first frame's, in frame order, that cannot be read or scored.
    pub fn score(
        &self,
        sequence: &Sequence,
        first: &IndexMask,
        predicted: impl Fn(usize) -> Result<IndexMask> + Sync,
        into: &mut Scores,
    ) -> Result<()> {
        let judge = Judge::new(&sequence.name, first.width, &first.data, sequence.masks.len()).map_err(told)?;
        let missing: Vec<u8> = (1..=judge.objects()).filter(|id| !first.data.contains(id)).collect();
        if !missing.is_empty() {
            let ids: Vec<String> = missing.iter().map(u8::to_string).collect();
            self.context.warn(format!(
                "{}, frame {}: the ids go up to {} and the first mask lacks {}; the evaluation scores them as objects \
                 all the same",
                sequence.name,
                frame_name(sequence, 0),
                judge.objects(),
                ids.join(", ")
            ));
        }
        let inner: Vec<usize> = (1..sequence.masks.len() - 1).collect();
        let frame = |&frame: &usize| -> Result<FrameScores> {
            let truth = self.merged(self.videos.like(first, sequence, frame)?);
            judge.frame(frame_name(sequence, frame), &predicted(frame)?.data, &truth.data).map_err(told)
        };
        let frames: Vec<Result<FrameScores>> = self.pool.install(|| inner.par_iter().map(frame).collect());
        let frames: Vec<FrameScores> = frames.into_iter().collect::<Result<_>>()?;
        if let Some((at, id)) = frames.iter().enumerate().find_map(|(at, frame)| Some((at, frame.unknown?))) {
            self.context.warn(format!(
                "{}, frame {}: the annotation has object {id}, and the first frame's objects end at {}; it is never \
                 predicted and not scored, as in the evaluation",
                sequence.name,
                frame_name(sequence, inner[at]),
                judge.objects()
            ));
        }
        into.predicted.extend(judge.objects_of(frames.iter().map(|frame| &frame.predicted)));
        into.copied.extend(judge.objects_of(frames.iter().map(|frame| &frame.copied)));
        for object in 1..=judge.objects() {
            for (&number, scores) in inner.iter().zip(&frames) {
                let [j, f] = scores.predicted[usize::from(object) - 1];
                let frame = frame_name(sequence, number).to_string();
                into.frames.push(FrameRow { sequence: sequence.name.clone(), object, frame, j, f });
            }
        }
        Ok(())
    }
}

fn told(error: DavisError) -> Error {
    let hint = match &error {
        DavisError::UnknownObject { .. } => "; if any id means the one object, say `read = one_object`",
        _ => "",
    };
    Error::Step(format!("{error}{hint}"))
}

/// Threads for reading and scoring, as many as the job may use.
///
/// # Errors
/// They cannot be started.
pub fn pool(context: &Context) -> Result<ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads()).build();
    pool.map_err(|error| format!("threads cannot be started: {error}").into())
}

impl Scores {
    /// Means over all objects: of the predictions, and of copies of the first annotation.
    ///
    /// # Errors
    /// There is no object.
    pub fn summaries(&self) -> Result<(Summary, Summary)> {
        Ok((total(&self.predicted)?, total(&self.copied)?))
    }

    /// Means over the objects of each sequence, in order.
    pub fn sequences(&self) -> Vec<(&str, Summary)> {
        let parts = self.predicted.chunk_by(|a, b| a.sequence == b.sequence);
        parts.filter_map(|part| Some((part.first()?.sequence.as_str(), summarise(part)?))).collect()
    }

    /// The metrics of a step.
    ///
    /// # Errors
    /// There is no object.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let (ours, floor) = self.summaries()?;
        let named = [
            ("jf", ours.jf),
            ("j", ours.j.mean),
            ("f", ours.f.mean),
            ("j_recall", ours.j.recall),
            ("f_recall", ours.f.recall),
            ("j_decay", ours.j.decay),
            ("f_decay", ours.f.decay),
            ("copy_jf", floor.jf),
            ("copy_j", floor.j.mean),
            ("copy_f", floor.f.mean),
        ];
        Ok(named.map(|(name, value)| (name.to_string(), value)).into())
    }
}

fn total(scores: &[ObjectScores]) -> Result<Summary> {
    summarise(scores).ok_or_else(|| "there is no object to score".into())
}

/// Which sequences of a dataset are shown.
pub fn shown(videos: &Videos) -> Vec<usize> {
    spread(videos.manifest.sequences.len(), SHOWN)
}

/// Some frames of a video from first to last with masks over them.
///
/// # Errors
/// A frame cannot be read.
pub fn strip(
    videos: &Videos,
    sequence: &Sequence,
    mask: impl Fn(usize) -> Result<IndexMask>,
) -> Result<(Picture, String)> {
    let at = spread(sequence.frames.len(), FRAMES);
    let mut row = Vec::new();
    for &frame in &at {
        let picture = videos.frame(sequence, frame)?;
        row.push(over(&picture, &mask(frame)?, LONGEST));
    }
    let names: Vec<String> = at.iter().map(usize::to_string).collect();
    Ok((beside(&row), format!("{}, frames {}", sequence.name, names.join(", "))))
}

/// A frame with a mask over it, no longer than `longest`.
pub fn over(picture: &Picture, mask: &IndexMask, longest: usize) -> Picture {
    overlay(picture, mask, fit(picture.width, picture.height, longest), |id| id != 0)
}

/// Strips as items of a gallery, each with its sequence's scores.
///
/// # Errors
/// A picture is empty.
pub fn gallery(title: &str, strips: Vec<(Picture, String)>, names: &[&str], scores: &Scores) -> Result<Gallery> {
    let of = scores.sequences();
    let items = strips.into_iter().zip(names).map(|((row, caption), name)| {
        let score = of.iter().find(|(sequence, _)| sequence == name).map(|(_, s)| (s.j.mean, s.f.mean));
        let score = score.map_or(String::new(), |(j, f)| format!("; J {j:.3}, F {f:.3}"));
        item(&row, caption + &score)
    });
    Ok(Gallery {
        title: title.into(),
        caption: "Frames of a video from its first to its last, left to right. The first one's mask is given; the \
                  others are predicted. A colour is an object."
            .into(),
        items: items.collect::<Result<Vec<GalleryItem>>>()?,
    })
}

/// Adds a file to a tar whose bytes depend on nothing else: no times, no owners.
///
/// # Errors
/// It cannot be packed.
pub fn pack(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let packed = archive.append_data(&mut header, path, bytes);
    packed.map_err(|error| format!("`{path}` cannot be packed: {error}").into())
}
