//! `propagate`: labels of a video's first frame carried through it by feature similarity, scored with J and F.

#[cfg(test)]
mod tests;
pub mod vote;

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::manifest::{Annotation, Sequence};
use harness_protocol::steps::{Propagate as Params, PropagateLayer};
use harness_protocol::{Gallery, Outcome};
use harness_views::loader::ordered;
use harness_views::{Filter, IndexMask, Picture, encode_png_index, resize_index_nearest, resize_shorter, voc_palette};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::context::Context;
use crate::data::Videos;
use crate::error::Result;
use crate::guard::{eval_guard, finite};
use crate::metric::davis::{ObjectScores, Summary, score, summarise};
use crate::model::dense::undecimated;
use crate::model::encoder::Prepare;
use crate::model::{Encoder, Mode, Resnet};
use crate::provenance::provenance;
use crate::steps::overlay::{beside, fit, item, overlay, spread};
use vote::{Propagator, Voting};

/// Sequences in the gallery.
const SHOWN: usize = 4;
/// Frames shown of each.
const FRAMES: usize = 5;
/// Longest side of a frame in the gallery, pixels.
const LONGEST: usize = 240;

/// Runs the step.
///
/// # Errors
/// An encoder without a network, a sequence that cannot be scored, files that changed, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let videos = context.videos(params.data.digest())?;
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("propagate")?;
    check(&videos)?;
    let stage = match params.layer {
        PropagateLayer::Layer3 => 3,
        PropagateLayer::Layer2 => 2,
    };
    let resnet = undecimated(&network.store, &network.architecture, stage)?;
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let voting = Voting {
        context: whole(params.context),
        radius: params.radius,
        top_k: i64::try_from(params.top_k).unwrap_or(i64::MAX),
        temperature: params.temperature,
    };
    let prepare = encoder.prepare();
    let total = videos.manifest.sequences.iter().map(|sequence| sequence.frames.len() as u64).sum();
    let size = params.size.map(whole);
    let run = Run { context, videos: &videos, resnet, stage, prepare, size, voting, total };
    eval_guard(&encoder, || no_grad(|| run.run()))
}

/// Refuses what cannot be scored before any time is spent: too few frames, no object in the first one.
fn check(videos: &Videos) -> Result<()> {
    for sequence in &videos.manifest.sequences {
        let name = &sequence.name;
        if sequence.frames.len() != sequence.masks.len() {
            let (frames, masks) = (sequence.frames.len(), sequence.masks.len());
            return Err(format!("{name}: {frames} frames and {masks} masks; every frame needs one").into());
        }
        if sequence.frames.len() < 3 {
            let frames = sequence.frames.len();
            return Err(
                format!("{name}: {frames} frames; the first and the last are not scored, so give at least 3").into()
            );
        }
        if objects(videos, sequence, 0)?.data.iter().all(|&id| id == 0) {
            let file = &sequence.masks[0].path;
            return Err(format!("{name}: the first mask `{file}` has no object; leave the sequence out").into());
        }
    }
    Ok(())
}

/// Object ids of a frame, 0 = background: void becomes background, as in the DAVIS evaluation.
fn objects(videos: &Videos, sequence: &Sequence, frame: usize) -> Result<IndexMask> {
    let mut mask = videos.mask(sequence, frame)?;
    for value in &mut mask.data {
        *value = match videos.manifest.annotation {
            Annotation::Binary => u8::from(*value > 127),
            Annotation::Indexed if *value == 255 => 0,
            Annotation::Indexed => *value,
        };
    }
    Ok(mask)
}

/// A running propagation.
struct Run<'a> {
    context: &'a Context<'a>,
    videos: &'a Videos,
    resnet: Resnet,
    stage: usize,
    prepare: Prepare,
    /// Short side of what the encoder sees, pixels; none: frames as they are.
    size: Option<usize>,
    voting: Voting,
    /// Frames of all sequences.
    total: u64,
}

impl Run<'_> {
    fn run(&self) -> Result<Outcome> {
        let context = self.context;
        let sequences = &self.videos.manifest.sequences;
        let start = Instant::now();
        let (mut scores, mut copies) = (Vec::new(), Vec::new());
        let mut archive = tar::Builder::new(Vec::new());
        let mut items = Vec::new();
        let shown = spread(sequences.len(), SHOWN);
        let mut done = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let truth = self.truth(sequence)?;
            let predicted = self.predict(sequence, &truth[0], done)?;
            done += sequence.frames.len() as u64;
            for (frame, mask) in predicted.iter().enumerate() {
                append(&mut archive, &format!("{}/{frame:05}.png", sequence.name), mask)?;
            }
            if shown.contains(&index) {
                let row = self.strip(sequence, &predicted)?;
                let at = spread(predicted.len(), FRAMES);
                let frames: Vec<String> = at.iter().map(usize::to_string).collect();
                items.push((index, row, format!("{}, frames {}", sequence.name, frames.join(", "))));
            }
            let width = truth[0].width;
            let of = |masks: Vec<IndexMask>| masks.into_iter().map(|mask| mask.data).collect::<Vec<_>>();
            let truth = of(truth);
            let still = vec![truth[0].clone(); truth.len()];
            let judge = |masks: &[Vec<u8>]| {
                score(&sequence.name, width, masks, &truth).map_err(|error| crate::Error::Step(error.to_string()))
            };
            scores.extend(judge(&of(predicted))?);
            copies.extend(judge(&still)?);
        }
        let seconds = start.elapsed().as_secs_f64();
        let (ours, floor) = (total(&scores)?, total(&copies)?);
        let items = items
            .into_iter()
            .map(|(index, row, caption)| {
                let of: Vec<ObjectScores> =
                    scores.iter().filter(|s| s.sequence == sequences[index].name).cloned().collect();
                let Summary { j, f, .. } = total(&of)?;
                item(&row, format!("{caption}; J {:.3}, F {:.3}", j.mean, f.mean))
            })
            .collect::<Result<Vec<_>>>()?;
        let gallery = Gallery {
            title: "Propagated masks".into(),
            caption: "Frames of a video from its first to its last, left to right. The first one's mask is given; the \
                      others are predicted. A colour is an object."
                .into(),
            items,
        };
        let archive = archive.into_inner().map_err(|error| format!("the masks cannot be packed: {error}"))?;
        let report = json!({ "objects": scores, "mean": ours, "copied": copies, "copied_mean": floor });
        let report = serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?;
        Ok(Outcome {
            outputs: BTreeMap::from([
                ("frames".into(), context.write_gallery("frames", &gallery)?),
                ("masks".into(), context.write("masks.tar", "archive", &archive)?),
                ("objects".into(), context.write("objects.json", "file", &report)?),
            ]),
            metrics: BTreeMap::from([
                ("jf".into(), ours.jf),
                ("j".into(), ours.j.mean),
                ("f".into(), ours.f.mean),
                ("j_recall".into(), ours.j.recall),
                ("f_recall".into(), ours.f.recall),
                ("j_decay".into(), ours.j.decay),
                ("f_decay".into(), ours.f.decay),
                ("copy_jf".into(), floor.jf),
                ("copy_j".into(), floor.j.mean),
                ("copy_f".into(), floor.f.mean),
            ]),
            series: BTreeMap::new(),
            provenance: provenance(context, self.total, seconds),
        })
    }

    /// The masks of all frames, which have one size.
    fn truth(&self, sequence: &Sequence) -> Result<Vec<IndexMask>> {
        let (videos, owned) = (self.videos.clone(), sequence.clone());
        let threads = self.context.threads();
        let frames = (0..sequence.masks.len()).collect();
        let masks: Vec<IndexMask> = ordered(threads, 2 * threads, frames, move |frame| objects(&videos, &owned, frame))
            .map(|mask| mask?)
            .collect::<Result<_>>()?;
        for (mask, file) in masks.iter().zip(&sequence.masks) {
            let (size, first) = ((mask.width, mask.height), (masks[0].width, masks[0].height));
            if size != first {
                return Err(format!(
                    "`{}` is {}x{} and the first mask of {} is {}x{}; masks of a video have one size",
                    file.path, size.0, size.1, sequence.name, first.0, first.1
                )
                .into());
            }
        }
        Ok(masks)
    }

    /// Object ids of every frame, the first one's given. `before` frames of other sequences are done.
    fn predict(&self, sequence: &Sequence, first: &IndexMask, before: u64) -> Result<Vec<IndexMask>> {
        let context = self.context;
        let device = context.device;
        let mut ids = first.data.clone();
        ids.sort_unstable();
        ids.dedup();

        let (videos, owned, prepare, short) = (self.videos.clone(), sequence.clone(), self.prepare, self.size);
        let threads = context.threads();
        let count = sequence.frames.len();
        let frames = ordered(threads, threads + 1, (0..count).collect(), move |frame| -> Result<_> {
            let picture = videos.frame(&owned, frame)?;
            let size = (picture.width, picture.height);
            let seen = match short {
                Some(short) => resize_shorter(&picture, short, Filter::Bilinear),
                None => picture,
            };
            Ok((prepare.numbers(&seen), (seen.width, seen.height), size))
        });
        let mut propagator: Option<Propagator> = None;
        let (mut predicted, mut size) = (Vec::with_capacity(count), None);
        for (frame, loaded) in frames.enumerate() {
            context.check_cancelled()?;
            let (numbers, seen, (width, height)) = loaded??;
            let &mut (first_width, first_height) = size.get_or_insert((width, height));
            if (width, height) != (first_width, first_height) {
                return Err(format!(
                    "`{}` is {width}x{height} and the first frame of {} is {first_width}x{first_height}; frames of a \
                     video have one size",
                    sequence.frames[frame].path, sequence.name
                )
                .into());
            }
            let features = self.features(&numbers, seen)?;
            if !finite(&features) {
                return Err("the encoder gives features that are not finite, so its weights are not usable".into());
            }
            match &mut propagator {
                None => {
                    let labels = one_hot(first, &ids, features.size()[1], features.size()[2])?.f_to_device(device)?;
                    propagator = Some(Propagator::new(&features, &labels, self.voting));
                    predicted.push(first.clone());
                }
                Some(propagator) => {
                    let soft = propagator.step(&features)?;
                    let mask = hardened(&soft, &ids, width, height)?;
                    let same = (mask.width, mask.height) == (first.width, first.height);
                    predicted.push(if same { mask } else { resize_index_nearest(&mask, first.width, first.height) });
                }
            }
            context.progress(&sequence.name, before + frame as u64 + 1, self.total, "frames");
        }
        Ok(predicted)
    }

    /// The map of a frame: [channels, h, w], fp32.
    fn features(&self, numbers: &[f32], (width, height): (usize, usize)) -> Result<Tensor> {
        let x = Tensor::f_from_slice(numbers)?.f_view([1, 3, height as i64, width as i64])?;
        let x = x.f_to_device(self.context.device)?;
        // Channels last in memory, which convolutions and the comparison of positions are faster with.
        let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        Ok(self.resnet.map(&x, Mode::Eval, self.stage).f_get(0)?.f_to_kind(Kind::Float)?)
    }

    /// Frames from first to last with their predicted masks.
    fn strip(&self, sequence: &Sequence, predicted: &[IndexMask]) -> Result<Picture> {
        let mut row = Vec::new();
        for frame in spread(predicted.len(), FRAMES) {
            let picture = self.videos.frame(sequence, frame)?;
            let size = fit(picture.width, picture.height, LONGEST);
            row.push(overlay(&picture, &predicted[frame], size, |id| id != 0));
        }
        Ok(beside(&row))
    }
}

fn total(scores: &[ObjectScores]) -> Result<Summary> {
    summarise(scores).ok_or_else(|| "there is no object to score".into())
}

/// One channel per id, 1 where the mask has it, resized to `height` × `width` (bilinear, half-pixel centres, not
/// widened): [ids, height, width].
fn one_hot(mask: &IndexMask, ids: &[u8], height: i64, width: i64) -> Result<Tensor> {
    let values = Tensor::f_from_slice(&mask.data)?.f_view([1, mask.height as i64, mask.width as i64])?;
    let ids = Tensor::f_from_slice(ids)?.f_view([-1, 1, 1])?;
    let maps = values.f_eq_tensor(&ids)?.f_to_kind(Kind::Float)?.f_unsqueeze(0)?;
    Ok(maps.f_upsample_bilinear2d([height, width], false, None, None)?.f_squeeze_dim(0)?)
}

/// Soft labels [ids, h, w], resized to the frame (bilinear, half-pixel centres): the id of the largest at each pixel.
fn hardened(soft: &Tensor, ids: &[u8], width: usize, height: usize) -> Result<IndexMask> {
    let size = [height as i64, width as i64];
    let soft = soft.f_unsqueeze(0)?.f_upsample_bilinear2d(size, false, None, None)?;
    let largest = soft.f_argmax(1, false)?.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_reshape([-1])?;
    let data = Vec::<u8>::try_from(largest)?.into_iter().map(|channel| ids[usize::from(channel)]).collect();
    Ok(IndexMask { width, height, data })
}

/// Adds a mask to a tar whose bytes depend on nothing else: no times, no owners.
fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mask: &IndexMask) -> Result<()> {
    let png = encode_png_index(mask, Some(&voc_palette())).map_err(|error| format!("`{path}`: {error}"))?;
    let mut header = tar::Header::new_ustar();
    header.set_size(png.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let packed = archive.append_data(&mut header, path, png.as_slice());
    packed.map_err(|error| format!("`{path}` cannot be packed: {error}").into())
}

#[cfg(test)]
mod parts {
    use super::*;

    #[test]
    fn labels_shrink_and_grow_about_pixel_centres() {
        // An object in the left half: 8 x 4 pixels, grid 4 x 2.
        let mask = IndexMask { width: 8, height: 4, data: (0..32).map(|i| if i % 8 < 4 { 3 } else { 0 }).collect() };
        let maps = one_hot(&mask, &[0, 3], 2, 4).unwrap();
        assert_eq!(maps.size(), [2, 2, 4]);
        assert_eq!(Vec::<f32>::try_from(maps.get(1).reshape([-1])).unwrap(), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(hardened(&maps, &[0, 3], 8, 4).unwrap(), mask);
    }

    #[test]
    fn packed_masks_are_the_same_bytes_every_time() {
        let mask = IndexMask { width: 3, height: 2, data: vec![0, 1, 2, 2, 1, 0] };
        let pack = || {
            let mut archive = tar::Builder::new(Vec::new());
            append(&mut archive, "video/00000.png", &mask).unwrap();
            archive.into_inner().unwrap()
        };
        let bytes = pack();
        assert_eq!(bytes, pack());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("video/00000.png"));
        let mut png = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut png).unwrap();
        assert_eq!(harness_views::decode_index(&png).unwrap(), mask);
    }
}
