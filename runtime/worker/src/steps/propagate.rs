//! `propagate`: labels of a video's first frame carried through it by feature similarity, scored with J and F.

pub mod rows;
#[cfg(test)]
pub(crate) mod tests;
pub mod tiles;
pub mod vote;

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::manifest::Sequence;
use harness_protocol::steps::{Propagate as Params, PropagateLayer, PropagateProfile};
use harness_protocol::{Outcome, Produced};
use harness_views::loader::ordered;
use harness_views::{Filter, IndexMask, Picture, encode_png_index, resize_index_nearest, resize_shorter, voc_palette};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::context::Context;
use crate::data::Videos;
use crate::data::videos::frame_name;
use crate::error::Result;
use crate::guard::{eval_guard, finite};
use crate::model::dense::undecimated;
use crate::model::encoder::Prepare;
use crate::model::{Encoder, Mode, Resnet, store};
use crate::provenance::provenance;
use crate::steps::animation::gif;
use crate::steps::video::{Scored, Scores, gallery, over, pack, pool, shown, strip};
use vote::{Propagator, Rule, Voting};

/// Longest side of an animation, pixels.
const ANIMATED: usize = 320;
/// Hundredths of a second that each of its frames is shown.
const DELAY: u16 = 10;
/// The `dino` profile rounds the long side of frames down to a multiple of this.
const MULTIPLE: usize = 64;

/// Runs the step.
///
/// # Errors
/// An encoder without a network, a sequence that cannot be scored, files that changed, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let mut params: Params = context.params()?;
    harness_protocol::StepKind::settle(&mut params);
    let videos = context.videos(params.data.digest())?;
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("propagate")?;
    // Refuses what cannot be scored before any time is spent.
    for sequence in &videos.manifest.sequences {
        videos.first(sequence)?;
    }
    let stage = match params.layer {
        PropagateLayer::Layer3 => 3,
        PropagateLayer::Layer2 => 2,
    };
    let resnet = undecimated(&network.store, &network.architecture, stage)?;
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (Some(frames), Some(top_k), Some(temperature)) = (params.context, params.top_k, params.temperature) else {
        return Err("the defaults of `propagate` are not filled in".into());
    };
    let voting = Voting {
        rule: match params.profile {
            PropagateProfile::Videowalk => Rule::Videowalk,
            PropagateProfile::Dino => Rule::Dino,
        },
        context: whole(frames),
        radius: params.radius,
        top_k: i64::try_from(top_k).unwrap_or(i64::MAX),
        temperature,
    };
    let look = Look { prepare: encoder.prepare(), size: params.size.map(whole), rule: voting.rule };
    let total = videos.manifest.sequences.iter().map(|sequence| sequence.frames.len() as u64).sum();
    let pool = pool(context)?;
    let run = Run { context, videos: &videos, resnet, stage, look, voting, total, pool: &pool, soft: params.soft };
    eval_guard(&encoder, || no_grad(|| run.run()))
}

/// How frames go into the encoder.
#[derive(Clone)]
struct Look {
    prepare: Prepare,
    /// Short side of what the encoder sees, pixels; none: frames as they are.
    size: Option<usize>,
    rule: Rule,
}

impl Look {
    /// What the encoder sees of a frame.
    fn seen(&self, picture: Picture) -> Picture {
        let Some(short) = self.size else { return picture };
        match self.rule {
            Rule::Videowalk => resize_shorter(&picture, short, Filter::Bilinear),
            Rule::Dino => {
                let (width, height) = (picture.width, picture.height);
                let long = short as f64 * width.max(height) as f64 / width.min(height).max(1) as f64;
                let long = ((long as usize) / MULTIPLE * MULTIPLE).max(MULTIPLE);
                let (width, height) = if height > width { (short, long) } else { (long, short) };
                sampled(&picture, width, height)
            }
        }
    }
}

/// A picture resized bilinearly about pixel centres without widening the filter, as OpenCV does, rounded to levels.
fn sampled(picture: &Picture, width: usize, height: usize) -> Picture {
    if (width, height) == (picture.width, picture.height) {
        return picture.clone();
    }
    // The two neighbours of an output position and the second one's weight.
    let taps = |output: usize, input: usize| -> Vec<(usize, usize, f32)> {
        let place = |at: usize| ((at as f64 + 0.5) * input as f64 / output as f64 - 0.5).clamp(0.0, (input - 1) as f64);
        (0..output)
            .map(|at| {
                let (low, part) = (place(at).floor() as usize, place(at).fract() as f32);
                (low, (low + 1).min(input - 1), part)
            })
            .collect()
    };
    let (columns, rows) = (taps(width, picture.width), taps(height, picture.height));
    let mut resized = Picture::filled(width, height, [0; 3]);
    let mut pixels = resized.data.chunks_exact_mut(3);
    for &(top, bottom, down) in &rows {
        for &(left, right, along) in &columns {
            let Some(pixel) = pixels.next() else { return resized };
            let corners =
                [picture.at(left, top), picture.at(right, top), picture.at(left, bottom), picture.at(right, bottom)]
                    .map(|corner| corner.map(f32::from));
            for (channel, value) in pixel.iter_mut().enumerate() {
                let [a, b, c, d] = corners.map(|corner| corner[channel]);
                let (upper, lower) = (a + (b - a) * along, c + (d - c) * along);
                *value = (upper + (lower - upper) * down).round() as u8;
            }
        }
    }
    resized
}

/// A running propagation.
struct Run<'a> {
    context: &'a Context<'a>,
    videos: &'a Videos,
    resnet: Resnet,
    stage: usize,
    look: Look,
    voting: Voting,
    /// Frames of all sequences.
    total: u64,
    pool: &'a ThreadPool,
    /// Whether soft maps are kept.
    soft: bool,
}

/// What was predicted of a video.
struct Predicted {
    /// Object ids of every frame, the first one's given.
    masks: Vec<IndexMask>,
    /// Soft labels of every frame [labels, h, w], if they are kept.
    soft: Vec<Tensor>,
    /// Object id of each label.
    ids: Vec<u8>,
}

impl Run<'_> {
    fn run(&self) -> Result<Outcome> {
        let context = self.context;
        let sequences = &self.videos.manifest.sequences;
        let start = Instant::now();
        let scored = Scored { context, videos: self.videos, pool: self.pool, one_object: false };
        let mut scores = Scores::default();
        let (mut masks, mut animations) = (tar::Builder::new(Vec::new()), tar::Builder::new(Vec::new()));
        let mut soft = BTreeMap::new();
        let (mut strips, mut names) = (Vec::new(), Vec::new());
        let shown = shown(self.videos);
        let mut done = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let first = scored.first(sequence)?;
            let predicted = self.predict(sequence, &first, done)?;
            done += sequence.frames.len() as u64;
            scored.score(sequence, &first, |frame| Ok(predicted.masks[frame].clone()), &mut scores)?;
            self.keep(sequence, &predicted, &mut masks, &mut animations)?;
            if self.soft {
                soft.insert(sequence.name.clone(), Tensor::f_stack(&predicted.soft, 0)?);
                soft.insert(format!("{}.ids", sequence.name), Tensor::f_from_slice(&predicted.ids)?);
            }
            if shown.contains(&index) {
                strips.push(strip(self.videos, sequence, |frame| Ok(predicted.masks[frame].clone()))?);
                names.push(sequence.name.as_str());
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let (ours, floor) = scores.summaries()?;
        let gallery = gallery("Propagated masks", strips, &names, &scores)?;
        let report = json!({
            "objects": scores.predicted, "mean": ours, "copied": scores.copied, "copied_mean": floor,
            "frames": scores.frames,
        });
        let report = serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?;
        let packed = |archive: tar::Builder<Vec<u8>>, file: &str, kind: &str| -> Result<Produced> {
            let bytes = archive.into_inner().map_err(|error| format!("`{file}` cannot be packed: {error}"))?;
            context.write(file, kind, &bytes)
        };
        let mut outputs = BTreeMap::from([
            ("frames".into(), context.write_gallery("frames", &gallery)?),
            ("masks".into(), packed(masks, "masks.tar", "predictions")?),
            ("animations".into(), packed(animations, "animations.tar", "archive")?),
            ("objects".into(), context.write("objects.json", "file", &report)?),
        ]);
        if self.soft {
            outputs.insert("soft".into(), context.write("soft.safetensors", "file", &store::encode(&soft, None)?)?);
        }
        Ok(Outcome {
            outputs,
            metrics: scores.metrics()?,
            series: BTreeMap::new(),
            provenance: provenance(context, self.total, seconds),
        })
    }

    /// Packs a video's masks as the official evaluation wants them, and an animation of them.
    fn keep(
        &self,
        sequence: &Sequence,
        predicted: &Predicted,
        masks: &mut tar::Builder<Vec<u8>>,
        animations: &mut tar::Builder<Vec<u8>>,
    ) -> Result<()> {
        let name = &sequence.name;
        let palette = voc_palette();
        let (videos, all) = (self.videos, &predicted.masks);
        let packed = |frame: usize| -> Result<(Vec<u8>, Picture)> {
            let mask = &all[frame];
            let png = encode_png_index(mask, Some(&palette));
            let png = png.map_err(|error| format!("{name}, frame {}: {error}", frame_name(sequence, frame)))?;
            Ok((png, over(&videos.frame(sequence, frame)?, mask, ANIMATED)))
        };
        let frames: Vec<Result<(Vec<u8>, Picture)>> =
            self.pool.install(|| (0..all.len()).into_par_iter().map(packed).collect());
        let mut pictures = Vec::with_capacity(frames.len());
        for (frame, packed) in frames.into_iter().enumerate() {
            let (png, picture) = packed?;
            pack(masks, &format!("{name}/{}.png", frame_name(sequence, frame)), &png)?;
            pictures.push(picture);
        }
        pack(animations, &format!("{name}.gif"), &gif(&pictures, DELAY)?)
    }

    /// Carries the first mask through a video. `before` frames of other sequences are done.
    fn predict(&self, sequence: &Sequence, first: &IndexMask, before: u64) -> Result<Predicted> {
        let context = self.context;
        let device = context.device;
        let mut ids = first.data.clone();
        ids.sort_unstable();
        ids.dedup();

        let (videos, owned, look) = (self.videos.clone(), sequence.clone(), self.look.clone());
        let threads = context.threads();
        let count = sequence.frames.len();
        let frames = ordered(threads, threads + 1, (0..count).collect(), move |frame| -> Result<_> {
            let picture = videos.frame(&owned, frame)?;
            let size = (picture.width, picture.height);
            let seen = look.seen(picture);
            Ok((look.prepare.numbers(&seen), (seen.width, seen.height), size))
        });
        let mut propagator: Option<Propagator> = None;
        let mut predicted = Predicted { masks: Vec::with_capacity(count), soft: Vec::new(), ids };
        let mut size = None;
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
                let name = frame_name(sequence, frame);
                return Err(format!(
                    "{}, frame {name}: the encoder gives features that are not finite, so its weights are not usable",
                    sequence.name
                )
                .into());
            }
            let soft = match &mut propagator {
                None => {
                    let labels = self.labels(first, &predicted.ids, features.size()[1], features.size()[2])?;
                    let labels = labels.f_to_device(device)?;
                    propagator = Some(Propagator::new(&features, &labels, self.voting, threads)?);
                    predicted.masks.push(first.clone());
                    labels
                }
                Some(propagator) => {
                    let soft = propagator.step(&features)?;
                    let (across, down) = if self.voting.rule == Rule::Dino { seen } else { (width, height) };
                    let mask = hardened(&soft, &predicted.ids, across, down, self.voting.rule)?;
                    let same = (mask.width, mask.height) == (first.width, first.height);
                    predicted.masks.push(if same {
                        mask
                    } else {
                        resize_index_nearest(&mask, first.width, first.height)
                    });
                    soft
                }
            };
            if self.soft {
                predicted.soft.push(soft.f_to_device(Device::Cpu)?);
            }
            context.progress(&sequence.name, before + frame as u64 + 1, self.total, "frames");
        }
        Ok(predicted)
    }

    /// The first frame's labels on the feature grid: [labels, h, w].
    fn labels(&self, first: &IndexMask, ids: &[u8], height: i64, width: i64) -> Result<Tensor> {
        match self.voting.rule {
            Rule::Videowalk => one_hot(first, ids, height, width),
            Rule::Dino => one_hot(&resize_index_nearest(first, width as usize, height as usize), ids, height, width),
        }
    }

    /// The map of a frame: [channels, h, w], fp32.
    fn features(&self, numbers: &[f32], (width, height): (usize, usize)) -> Result<Tensor> {
        let x = Tensor::f_from_slice(numbers)?.f_view([1, 3, height as i64, width as i64])?;
        let x = x.f_to_device(self.context.device)?;
        // Channels last in memory, which convolutions and the comparison of positions are faster with.
        let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        Ok(self.resnet.map(&x, Mode::Eval, self.stage).f_get(0)?.f_to_kind(Kind::Float)?)
    }
}

/// One channel per id, 1 where the mask has it, resized to `height` × `width` (bilinear, half-pixel centres, not
/// widened): [ids, height, width].
fn one_hot(mask: &IndexMask, ids: &[u8], height: i64, width: i64) -> Result<Tensor> {
    let values = Tensor::f_from_slice(&mask.data)?.f_view([1, mask.height as i64, mask.width as i64])?;
    let ids = Tensor::f_from_slice(ids)?.f_view([-1, 1, 1])?;
    let maps = values.f_eq_tensor(&ids)?.f_to_kind(Kind::Float)?.f_unsqueeze(0)?;
    Ok(maps.f_upsample_bilinear2d([height, width], false, None, None)?.f_squeeze_dim(0)?)
}

/// Soft labels [ids, h, w], resized to `width` × `height` (bilinear, half-pixel centres): the id of the largest at each
/// pixel. The `dino` rule stretches every map to 0..1 before.
fn hardened(soft: &Tensor, ids: &[u8], width: usize, height: usize, rule: Rule) -> Result<IndexMask> {
    let size = [height as i64, width as i64];
    let mut soft = soft.f_unsqueeze(0)?.f_upsample_bilinear2d(size, false, None, None)?;
    if rule == Rule::Dino {
        let low = soft.f_amin([2, 3].as_slice(), true)?;
        let range = soft.f_amax([2, 3].as_slice(), true)?.f_sub(&low)?;
        // A map that is the same everywhere stays as it is: stretching it would divide by nothing.
        let flat = range.f_le(0.0)?;
        let stretched = soft.f_sub(&low)?.f_div(&range.f_masked_fill(&flat, 1.0)?)?;
        soft = soft.f_where_self(&flat, &stretched)?;
    }
    let largest = soft.f_argmax(1, false)?.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_reshape([-1])?;
    let data = Vec::<u8>::try_from(largest)?.into_iter().map(|channel| ids[usize::from(channel)]).collect();
    Ok(IndexMask { width, height, data })
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
        assert_eq!(hardened(&maps, &[0, 3], 8, 4, Rule::Videowalk).unwrap(), mask);
    }

    #[test]
    fn dino_stretches_every_map() {
        // The object's map is weak everywhere, but has its largest value at the right.
        let soft = Tensor::from_slice(&[0.9f32, 0.8, 0.7, 0.1, 0.2, 0.3]).view([2, 1, 3]);
        let plain = hardened(&soft, &[0, 4], 3, 1, Rule::Videowalk).unwrap();
        assert_eq!(plain.data, [0, 0, 0]);
        let stretched = hardened(&soft, &[0, 4], 3, 1, Rule::Dino).unwrap();
        assert_eq!(stretched.data, [0, 0, 4]);
        let flat = Tensor::from_slice(&[0.0f32, 0.0, 0.0, 1.0, 1.0, 1.0]).view([2, 1, 3]);
        assert_eq!(hardened(&flat, &[0, 4], 3, 1, Rule::Dino).unwrap().data, [4, 4, 4]);
    }

    #[test]
    fn dino_sees_multiples_of_sixty_four() {
        let look = Look { prepare: Encoder::Pixels(1).prepare(), size: Some(480), rule: Rule::Dino };
        let size = |width, height| {
            let seen = look.seen(Picture::filled(width, height, [9, 8, 7]));
            assert!(seen.data.chunks_exact(3).all(|pixel| pixel == [9, 8, 7]));
            (seen.width, seen.height)
        };
        assert_eq!(size(854, 480), (832, 480));
        assert_eq!(size(480, 854), (480, 832));
        assert_eq!(size(427, 240), (832, 480));
        assert_eq!(size(480, 480), (448, 480));
    }

    #[test]
    fn sampling_is_bilinear_about_pixel_centres() {
        let mut picture = Picture::filled(4, 1, [0; 3]);
        picture.data = [0, 40, 80, 120].into_iter().flat_map(|v| [v; 3]).collect();
        let half = sampled(&picture, 2, 1);
        assert_eq!(half.data, [20, 20, 20, 100, 100, 100]);
        let twice = sampled(&picture, 8, 1);
        let levels: Vec<u8> = twice.data.chunks_exact(3).map(|pixel| pixel[0]).collect();
        assert_eq!(levels, [0, 10, 30, 50, 70, 90, 110, 120]);
    }
}
