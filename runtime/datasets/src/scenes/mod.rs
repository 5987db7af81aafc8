//! `scenes`: textured backgrounds with objects of several shape classes, so that everything runs with no download.
//!
//! ```text
//! world, split, index -> Stream -> Scene::compose -> Scene::draw -> PNG + index mask -> one tar + manifests
//! ```
//!
//! The design was fixed before anything was tuned on it; `SCENES.md` beside this crate's manifest states it. In short:
//!
//! - A class is an outline and nothing else. Colour, texture, size, place and pose never look at it, and all outlines
//!   have the same area, so no mean colour or area gives the class away.
//! - Every picture has its own random stream, named by world, split and number. Splits share no stream, so no
//!   background, texture or object of one ever appears in another.
//! - Arithmetic is `f64` with `+ - * /`, `sqrt` and the pure-Rust `libm`, so the bytes are the same on every machine.

mod pack;
mod random;
mod scene;
mod shape;
mod texture;
mod video;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use harness_protocol::manifest::{
    Annotation, FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT, Sequence, VideoManifest,
};
use harness_protocol::steps::Scenes;
use harness_protocol::{Gallery, GalleryItem, Location, LocationForm};
use png::ColorType;
use rayon::prelude::*;

use crate::built::{Built, gini, json, max_min_ratio};
use crate::error::Error;
use crate::mask::{colour, encode_mask, encode_png};
use crate::npy::{Grid, write_grid};
use pack::{Pack, Packed};
use random::Stream;
use scene::{Drawn, Scene, Wanted};
use video::Video;

pub use shape::NAMES;

/// Pictures that are drawn before any is written: bounds memory.
const CHUNK: u64 = 512;
/// Pictures of train in the preview.
const SHOWN: u64 = 16;

/// Generates the world of `params` into a tar at `tar_path`: outputs `train`, `holdout`, `test`, `videos` and
/// `preview`; with `depth` also `train_depth`, `holdout_depth` and `test_depth`.
///
/// The same parameters give the same bytes, whatever the machine or the number of threads.
///
/// # Errors
/// The parameters do not fit together, or the tar cannot be written.
pub fn scenes(params: &Scenes, tar_path: &Path) -> Result<Built, Error> {
    check(params)?;
    let mut pack = Pack::create(tar_path)?;
    let mut warnings = Vec::new();
    let train_sizes = class_sizes(params, params.train, params.imbalance, &mut warnings);
    let classes: Vec<String> = NAMES[..params.classes as usize].iter().map(|&n| n.to_owned()).collect();
    let mask_classes: Vec<String> = ["background".to_owned()].into_iter().chain(classes.clone()).collect();
    let mut gallery = Gallery {
        title: "Scenes".into(),
        caption: "Pictures of train with the class of the largest visible object, each beside its mask (one colour a \
                  class, black is background); then first and last frames of videos with theirs (one colour an object)."
            .into(),
        items: Vec::new(),
    };

    let mut splits = Vec::new();
    for (split, pictures) in [("train", params.train), ("holdout", params.holdout), ("test", params.test)] {
        let sizes =
            if split == "train" { train_sizes.clone() } else { class_sizes(params, pictures, 1.0, &mut warnings) };
        let labels = shuffled_labels(params.world, split, &sizes);
        let mut entries = Vec::with_capacity(labels.len());
        for start in (0..pictures).step_by(CHUNK as usize) {
            let end = (start + CHUNK).min(pictures);
            let drawn: Vec<Files> = (start..end)
                .into_par_iter()
                .map(|index| {
                    let label = labels[index as usize];
                    let (scene, drawn, mask) = picture(params, split, index, label, &labels);
                    let shown = (split == "train" && index < SHOWN).then(|| beside(&drawn, &mask, NAMES[label]));
                    let (picture, mask) = encode(&drawn, &mask, &format!("{split}/images/{index:06}.png"), || {
                        format!("{split}/masks/{index:06}.png")
                    })?;
                    let depth = if params.depth { scene.depth(&drawn) } else { None };
                    let depth = depth.map(|values| {
                        let grid = Grid { width: drawn.side, height: drawn.side, values };
                        Packed::new(format!("{split}/depth/{index:06}.npy"), write_grid(&grid))
                    });
                    Ok(Files { picture, mask, depth, shown: shown.transpose()? })
                })
                .collect::<Result<_, Error>>()?;
            for (index, Files { picture, mask, depth, shown }) in (start..end).zip(drawn) {
                pack.add(&picture)?;
                pack.add(&mask)?;
                if let Some(depth) = &depth {
                    pack.add(depth)?;
                }
                gallery.items.extend(shown);
                let label = Some(labels[index as usize] as u32);
                entries.push(ImageEntry {
                    file: picture.entry,
                    label,
                    mask: Some(Box::new(mask.entry)),
                    depth: depth.map(|depth| Box::new(depth.entry)),
                    ..ImageEntry::default()
                });
            }
        }
        splits.push((split, entries));
    }

    let mut sequences = Vec::new();
    for index in 0..params.videos {
        let (sequence, shown) = sequence(params, index, &mut pack)?;
        sequences.push(sequence);
        if index < 2 {
            gallery.items.extend(shown);
        }
    }

    let archive = Some(pack.finish()?);
    let mut outputs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut pictures = 0;
    for (split, mut entries) in splits {
        pictures += entries.len();
        let manifest = |entries: Vec<ImageEntry>| {
            json(&ImageManifest {
                format: MANIFEST_FORMAT,
                classes: classes.clone(),
                mask_classes: mask_classes.clone(),
                entries,
                archive: archive.clone(),
                ..ImageManifest::default()
            })
        };
        if params.depth {
            outputs.push((format!("{split}_depth"), manifest(entries.clone())));
            entries.iter_mut().for_each(|entry| entry.depth = None);
        }
        outputs.push((split.into(), manifest(entries)));
    }
    sequences.sort_by(|a, b| a.name.cmp(&b.name));
    let videos = VideoManifest { format: MANIFEST_FORMAT, annotation: Annotation::Indexed, sequences, archive };
    outputs.push(("videos".into(), json(&videos)));
    outputs.push(("preview".into(), json(&gallery)));

    let mut metrics =
        BTreeMap::from([("pictures".to_owned(), pictures as f64), ("gini".to_owned(), gini(&train_sizes))]);
    metrics.extend(max_min_ratio(&train_sizes).map(|ratio| ("max_min_ratio".to_owned(), ratio)));
    let location = Location { path: tar_path.to_path_buf(), form: LocationForm::Tar, ..Location::default() };
    Ok(Built { metrics, warnings, ..Built::new(outputs, location) })
}

/// What the checker of the language has checked already, for callers that come another way.
fn check(params: &Scenes) -> Result<(), Error> {
    use harness_protocol::StepKind;
    let wrong = |field: &str, text: String| Err(Error::layout("scenes", format!("`{field}`: {text}")));
    if let Some(problem) = params.problems().first() {
        return wrong(&problem.field, problem.message.clone());
    }
    if params.classes < 2 || params.classes > NAMES.len() as u64 {
        return wrong("classes", format!("{} is not between 2 and {}", params.classes, NAMES.len()));
    }
    for (field, side) in [("size", params.size), ("video_size", params.video_size)] {
        if !(16..=1024).contains(&side) {
            return wrong(field, format!("{side} is not between 16 and 1024 pixels"));
        }
    }
    for (field, pictures) in [("train", params.train), ("holdout", params.holdout), ("test", params.test)] {
        if !(1..=1_000_000).contains(&pictures) {
            return wrong(field, format!("{pictures} is not between 1 and 1000000 pictures"));
        }
    }
    if !(1.0..=1000.0).contains(&params.imbalance) {
        return wrong("imbalance", format!("{} is not between 1 and 1000", params.imbalance));
    }
    if params.videos > 10_000 || !(3..=1000).contains(&params.frames) {
        return wrong("frames", "at most 10000 videos of 3 to 1000 frames are made".into());
    }
    Ok(())
}

/// Pictures of each class: as equal as can be, or falling geometrically from the largest to the smallest, whose ratio
/// is `imbalance`. Which class is how frequent is drawn from the world.
fn class_sizes(params: &Scenes, pictures: u64, imbalance: f64, warnings: &mut Vec<String>) -> Vec<u64> {
    let classes = params.classes as usize;
    let mut ranks: Vec<usize> = (0..classes).collect();
    if imbalance > 1.0 {
        Stream::new(params.world, "class frequency", 0).shuffle(&mut ranks);
    }
    // imbalance^(-rank / (classes - 1)), by libm so that it is the same everywhere.
    let weights: Vec<f64> =
        ranks.iter().map(|&rank| libm::pow(imbalance, -(rank as f64) / (classes - 1) as f64)).collect();
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / total * pictures as f64).collect();
    let mut sizes: Vec<u64> = exact.iter().map(|e| e.floor() as u64).collect();
    // Largest remainders get what is left; of equal ones the first class.
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())).then(a.cmp(&b)));
    let left = pictures.saturating_sub(sizes.iter().sum());
    for &class in order.iter().cycle().take(left as usize) {
        sizes[class] += 1;
    }
    if pictures >= classes as u64 && sizes.contains(&0) {
        for class in 0..classes {
            if sizes[class] == 0 {
                let largest = (0..classes).max_by_key(|&c| (sizes[c], c)).unwrap_or(0);
                sizes[largest] -= 1;
                sizes[class] = 1;
            }
        }
        warnings.push(format!(
            "{pictures} pictures are too few for an imbalance of {imbalance}: the rarest classes have one picture each"
        ));
    }
    sizes
}

/// The label of each picture of a split, in a random order.
fn shuffled_labels(world: u64, split: &str, sizes: &[u64]) -> Vec<usize> {
    let mut labels: Vec<usize> =
        sizes.iter().enumerate().flat_map(|(class, &n)| std::iter::repeat_n(class, n as usize)).collect();
    Stream::new(world, &format!("{split} labels"), 0).shuffle(&mut labels);
    labels
}

/// The files of one picture of a split.
struct Files {
    picture: Packed,
    mask: Packed,
    depth: Option<Packed>,
    /// What the preview shows of it.
    shown: Option<GalleryItem>,
}

/// Draws one picture and its mask, in which values are classes plus 1. The classes of the objects beside the labelled
/// one follow the labels of the split, so that a rare class is rare everywhere.
fn picture(params: &Scenes, split: &str, index: u64, label: usize, labels: &[usize]) -> (Scene, Drawn, Vec<u8>) {
    let mut stream = Stream::new(params.world, split, index);
    let (low, high) = params.objects.ends();
    let objects = (low as usize, high as usize);
    let wanted = Wanted { domain: params.domain, class: label, classes: labels, objects };
    let scene = Scene::compose(&mut stream, &wanted);
    let drawn = scene.draw(params.size as usize);
    let mask = drawn
        .owner
        .iter()
        .map(|&owner| match owner {
            0 => 0,
            owner => scene.objects[usize::from(owner) - 1].class as u8 + 1,
        })
        .collect();
    (scene, drawn, mask)
}

/// Draws one video into the tar; gives also what the preview shows of it.
fn sequence(params: &Scenes, index: u64, pack: &mut Pack<'_>) -> Result<(Sequence, Vec<GalleryItem>), Error> {
    let name = format!("video_{index:03}");
    let mut stream = Stream::new(params.world, "videos", index);
    let frames = params.frames as usize;
    let video = Video::compose(&mut stream, params.domain, params.classes as usize, frames);
    let mut sequence = Sequence { name: name.clone(), frames: Vec::new(), masks: Vec::new() };
    let mut shown = Vec::new();
    // In chunks, as the pictures are.
    let all: Vec<usize> = (0..frames).collect();
    for part in all.chunks(64) {
        let drawn: Vec<(Packed, Packed, Option<GalleryItem>)> = part
            .par_iter()
            .map(|&frame| {
                let drawn = video.at(frame).draw(params.video_size as usize);
                let caption = format!("{name} frame {frame}");
                let item = (frame == 0 || frame + 1 == frames).then(|| beside(&drawn, &drawn.owner, &caption));
                let path = format!("videos/{name}/frames/{frame:05}.png");
                let (picture, mask) =
                    encode(&drawn, &drawn.owner, &path, || format!("videos/{name}/masks/{frame:05}.png"))?;
                Ok((picture, mask, item.transpose()?))
            })
            .collect::<Result<_, Error>>()?;
        for (picture, mask, item) in drawn {
            pack.add(&picture)?;
            pack.add(&mask)?;
            sequence.frames.push(picture.entry);
            sequence.masks.push(mask.entry);
            shown.extend(item);
        }
    }
    Ok((sequence, shown))
}

/// The two files of a drawn scene.
fn encode(
    drawn: &Drawn,
    mask: &[u8],
    path: &str,
    mask_path: impl FnOnce() -> String,
) -> Result<(Packed, Packed), Error> {
    let failed = |why: String| Error::layout(path, format!("the picture cannot be encoded: {why}"));
    let side = drawn.side;
    let picture = encode_png(&drawn.rgb, side, side, ColorType::Rgb, None).map_err(failed)?;
    let mask = encode_mask(mask, side, side).map_err(failed)?;
    Ok((Packed::new(path.to_owned(), picture), Packed::new(mask_path(), mask)))
}

/// A picture of the preview: the drawn scene on the left, its mask in colours on the right.
fn beside(drawn: &Drawn, mask: &[u8], caption: &str) -> Result<GalleryItem, Error> {
    let side = drawn.side;
    let rgb: Vec<u8> = drawn
        .rgb
        .chunks_exact(3 * side)
        .zip(mask.chunks_exact(side))
        .flat_map(|(row, mask)| row.iter().copied().chain(mask.iter().flat_map(|&value| colour(value))))
        .collect();
    let png = encode_png(&rgb, 2 * side, side, ColorType::Rgb, None)
        .map_err(|why| Error::layout(caption, format!("the preview cannot be encoded: {why}")))?;
    Ok(GalleryItem {
        caption: caption.to_owned(),
        width: 2 * side,
        height: side,
        png_base64: base64::engine::general_purpose::STANDARD.encode(png),
    })
}

/// What the manifests of a world say of one of its files, for tests and tools that look for doubles.
pub fn files(manifest: &ImageManifest) -> impl Iterator<Item = &FileEntry> {
    manifest
        .entries
        .iter()
        .flat_map(|entry| std::iter::once(&entry.file).chain(entry.mask.as_deref()).chain(entry.depth.as_deref()))
}
