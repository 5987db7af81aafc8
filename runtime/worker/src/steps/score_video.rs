//! `score_video`: J and F of predicted masks of videos, whoever made them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use harness_datasets::{Reader, Tree};
use harness_protocol::manifest::{FileEntry, MaskManifest, Sequence};
use harness_protocol::steps::{ReadMasks, ScoreVideo as Params};
use harness_protocol::value::PredictionsInput;
use harness_protocol::{Location, LocationForm, Outcome};
use harness_views::{IndexMask, decode_index};
use serde_json::json;

use crate::context::Context;
use crate::data::images::manifest;
use crate::data::videos::frame_name;
use crate::error::Result;
use crate::metric::davis::{ObjectScores, Statistics, Summary};
use crate::provenance::provenance;
use crate::steps::video::{Scored, Scores, gallery, pool, shown, strip};

/// Runs the step.
///
/// # Errors
/// Predictions that lack a frame, have another size or an unknown object; videos that cannot be scored; files that
/// changed; cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let videos = context.videos(params.data.digest())?;
    let predictions = Predictions::open(context, &params.predictions, params.read)?;
    let sequences = &videos.manifest.sequences;
    predictions.check(sequences)?;
    let pool = pool(context)?;
    let one_object = params.read == ReadMasks::OneObject;
    let scored = Scored { context, videos: &videos, pool: &pool, one_object };
    let total = sequences.iter().map(|sequence| sequence.frames.len() as u64).sum();
    let start = Instant::now();
    let mut scores = Scores::default();
    let mut done = 0;
    for sequence in sequences {
        context.check_cancelled()?;
        let first = scored.first(sequence)?;
        scored.score(sequence, &first, |frame| predictions.mask(sequence, frame, &first), &mut scores)?;
        done += sequence.frames.len() as u64;
        context.progress(&sequence.name, done, total, "frames");
    }
    let seconds = start.elapsed().as_secs_f64();
    let (mut strips, mut names) = (Vec::new(), Vec::new());
    for index in shown(&videos) {
        let sequence = &sequences[index];
        let first = scored.first(sequence)?;
        // The first and the last frame need no prediction; without one they are shown as they are.
        let mask = |frame: usize| match frame {
            0 => Ok(first.clone()),
            frame if predictions.has(sequence, frame) => predictions.mask(sequence, frame, &first),
            _ => Ok(IndexMask { data: vec![0; first.data.len()], ..first }),
        };
        strips.push(strip(&videos, sequence, mask)?);
        names.push(sequence.name.as_str());
    }
    let gallery = gallery("Scored masks", strips, &names, &scores)?;
    let (ours, floor) = scores.summaries()?;
    let by_sequence: Vec<_> =
        scores.sequences().into_iter().map(|(name, summary)| json!({ "sequence": name, "mean": summary })).collect();
    let report = json!({
        "objects": scores.predicted, "sequences": by_sequence, "mean": ours,
        "copied": scores.copied, "copied_mean": floor, "frames": scores.frames,
    });
    let report = serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?;
    let csv = |name: &str, text: String| context.write(name, "file", text.as_bytes());
    Ok(Outcome {
        outputs: BTreeMap::from([
            ("objects".into(), csv("objects.csv", objects_csv(&scores.predicted))?),
            ("sequences".into(), csv("sequences.csv", sequences_csv(&scores.sequences()))?),
            ("overall".into(), csv("overall.csv", overall_csv(&ours))?),
            ("report".into(), context.write("report.json", "file", &report)?),
            ("frames".into(), context.write_gallery("frames", &gallery)?),
        ]),
        metrics: scores.metrics()?,
        series: BTreeMap::new(),
        provenance: provenance(context, total, seconds),
    })
}

/// Where predicted masks are.
struct Predictions {
    files: Files,
    read: ReadMasks,
    /// Path by sequence and frame.
    paths: BTreeMap<(String, String), usize>,
    entries: Vec<FileEntry>,
}

enum Files {
    /// The user's, each checked against its digest.
    Listed(Reader),
    /// In an archive that is known by its own digest.
    Packed(Tree),
}

impl Predictions {
    fn open(context: &Context, predictions: &PredictionsInput, read: ReadMasks) -> Result<Self> {
        let input = context.input(predictions.digest())?;
        let (files, entries) = if predictions.artifact.kind == "mask_files" {
            let manifest: MaskManifest = manifest(&input.file, predictions.digest())?;
            (Files::Listed(Reader::new(input)?), manifest.files)
        } else {
            let location = Location { path: input.file.clone(), form: LocationForm::Tar, ..Location::default() };
            let tree = Tree::open(&location)?;
            let listed = tree.list()?.into_iter();
            let entries = listed.map(|file| FileEntry { path: file.path, size: file.size, digest: String::new() });
            let entries = entries.collect();
            (Files::Packed(tree), entries)
        };
        let mut paths = BTreeMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let Some((folder, file)) = entry.path.rsplit_once('/') else { continue };
            let Some((stem, ending)) = file.rsplit_once('.') else { continue };
            if !ending.eq_ignore_ascii_case("png") {
                continue;
            }
            let sequence = folder.rsplit_once('/').map_or(folder, |(_, name)| name);
            if let Some(other) = paths.insert((sequence.to_string(), stem.to_string()), at) {
                let other: &FileEntry = &entries[other];
                return Err(format!(
                    "`{}` and `{}` are both predictions of {sequence}, frame {stem}; give the folder of one result",
                    other.path, entry.path
                )
                .into());
            }
        }
        Ok(Self { files, read, paths, entries })
    }

    fn find(&self, sequence: &Sequence, frame: usize) -> Option<&FileEntry> {
        let key = (sequence.name.clone(), frame_name(sequence, frame).to_string());
        self.paths.get(&key).map(|&at| &self.entries[at])
    }

    fn has(&self, sequence: &Sequence, frame: usize) -> bool {
        self.find(sequence, frame).is_some()
    }

    /// Names every sequence that lacks predictions of scored frames.
    fn check(&self, sequences: &[Sequence]) -> Result<()> {
        let mut lacking = Vec::new();
        for sequence in sequences {
            let scored = 1..sequence.masks.len().saturating_sub(1);
            let missing: Vec<&str> =
                scored.clone().filter(|&at| !self.has(sequence, at)).map(|at| frame_name(sequence, at)).collect();
            if !missing.is_empty() {
                let more = missing.len().saturating_sub(5);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let named = missing.iter().take(5).copied().collect::<Vec<_>>().join(", ");
                lacking.push(format!(
                    "{}: {} of {} scored frames have no prediction: {named}{more}",
                    sequence.name,
                    missing.len(),
                    scored.len()
                ));
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let mut known: Vec<&str> = self.paths.keys().map(|(sequence, _)| sequence.as_str()).collect();
        known.dedup();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        Err(format!(
            "predictions are looked for as `<sequence>/<frame>.png`, and some are not there; sequences found: {known}\n  {}",
            lacking.join("\n  ")
        )
        .into())
    }

    /// Object ids of a predicted mask, of the first annotation's size.
    fn mask(&self, sequence: &Sequence, frame: usize, first: &IndexMask) -> Result<IndexMask> {
        let entry = self.find(sequence, frame).ok_or_else(|| {
            format!("{}, frame {}: there is no prediction", sequence.name, frame_name(sequence, frame))
        })?;
        let bytes = match &self.files {
            Files::Listed(reader) => reader.read_verified(entry)?,
            Files::Packed(tree) => tree.read(&entry.path)?,
        };
        let place = || format!("{}, frame {}: `{}`", sequence.name, frame_name(sequence, frame), entry.path);
        let mut mask = decode_index(&bytes).map_err(|error| format!("{}: {error}", place()))?;
        if (mask.width, mask.height) != (first.width, first.height) {
            return Err(format!(
                "{} is {}x{} and the annotation {}x{}; predictions have the annotation's size",
                place(),
                mask.width,
                mask.height,
                first.width,
                first.height
            )
            .into());
        }
        if self.read == ReadMasks::OneObject {
            mask.data.iter_mut().for_each(|id| *id = u8::from(*id != 0));
        }
        Ok(mask)
    }
}

/// Heads of the statistics, the two means first as the official tables have them.
const COLUMNS: &str = "J-Mean,F-Mean,J-Recall,J-Decay,F-Recall,F-Decay";

fn numbers(j: &Statistics, f: &Statistics) -> String {
    [j.mean, f.mean, j.recall, j.decay, f.recall, f.decay].map(|value| format!("{value:.6}")).join(",")
}

fn objects_csv(scores: &[ObjectScores]) -> String {
    let rows = scores.iter().map(|s| format!("{}_{},{}\n", quoted(&s.sequence), s.object, numbers(&s.j, &s.f)));
    format!("Sequence,{COLUMNS}\n{}", rows.collect::<String>())
}

fn sequences_csv(scores: &[(&str, Summary)]) -> String {
    let rows = scores.iter().map(|(name, s)| format!("{},{}\n", quoted(name), numbers(&s.j, &s.f)));
    format!("Sequence,{COLUMNS}\n{}", rows.collect::<String>())
}

/// As the official table over all objects.
fn overall_csv(s: &Summary) -> String {
    let values = [s.jf, s.j.mean, s.j.recall, s.j.decay, s.f.mean, s.f.recall, s.f.decay];
    let values = values.map(|value| format!("{value:.6}")).join(",");
    format!("J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay\n{values}\n")
}

/// A name that does not break the table: folder names hardly ever need it, but nothing forbids a comma in one.
fn quoted(name: &str) -> String {
    name.replace([',', '"', '\n', '\r'], "_")
}
