//! Layouts of pictures with masks: VOC2012 and its repack, Cityscapes, NYUD.

use std::collections::BTreeSet;

use harness_protocol::Location;
use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::{Cityscapes, Missing, Nyud, VocSegmentation};
use rayon::prelude::*;

use crate::built::{Built, count, json, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::image_folder::is_picture;
use crate::layout::Layout;
use crate::mask::probe_mask;
use crate::npy;
use crate::segmentation_pairs::picture_size;

/// VOC's classes by mask value.
const VOC: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// The classes of the Cityscapes benchmark with their label ids, in the order of their train ids.
const CITYSCAPES: [(&str, u8); 19] = [
    ("road", 7),
    ("sidewalk", 8),
    ("building", 11),
    ("wall", 12),
    ("fence", 13),
    ("pole", 17),
    ("traffic light", 19),
    ("traffic sign", 20),
    ("vegetation", 21),
    ("terrain", 22),
    ("sky", 23),
    ("person", 24),
    ("rider", 25),
    ("car", 26),
    ("truck", 27),
    ("bus", 28),
    ("train", 31),
    ("motorcycle", 32),
    ("bicycle", 33),
];

/// NYUDv2's 40 classes, from mask value 1 on.
const NYUD: [&str; 40] = [
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "night stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "other structure",
    "other furniture",
    "other prop",
];

/// The table that reads `values[class]` as `class` and everything else as void.
pub(crate) fn value_table(values: &[u8]) -> Vec<u8> {
    let mut table = vec![255; 256];
    for (class, value) in values.iter().enumerate() {
        table[usize::from(*value)] = u8::try_from(class).unwrap_or(255);
    }
    table
}

/// One picture with the files that belong to it.
#[derive(Clone, Debug)]
struct Item {
    picture: String,
    mask: String,
    depth: Option<String>,
}

/// What a split's list names, and where its masks lie.
struct Listed<'a> {
    /// Name of the split and output.
    split: &'a str,
    /// What lists it, in words.
    list: String,
    items: Vec<Item>,
    /// Ids of what is listed but not there, with what is lacking.
    absent: Vec<(String, &'static str)>,
}

impl Listed<'_> {
    /// Applies `missing`; whether anything is left.
    fn settle(&self, layout: &Layout, missing: Missing, warnings: &mut Vec<String>) -> Result<bool, Error> {
        let Some((first, lacks)) = self.absent.first() else { return Ok(true) };
        let (absent, all) = (self.absent.len(), self.absent.len() + self.items.len());
        let of = format!(
            "{absent} of the {} of `{}` {} incomplete (first `{first}`, which has no {lacks})",
            count(all, "picture"),
            self.split,
            if absent == 1 { "is" } else { "are" }
        );
        if missing == Missing::Error {
            let way = "complete the tree, or say `missing = skip` to do without them";
            return Err(Error::layout(layout.place(), format!("{of}, as {} has it; {way}", self.list)));
        }
        let left = if self.items.is_empty() { "the split is left out" } else { "they are left out" };
        warnings.push(format!("{of}: {left}"));
        Ok(!self.items.is_empty())
    }
}

/// Describes VOC2012's segmentation sets, official or repacked; `trainaug` takes its masks from `SegmentationClassAug`.
///
/// # Errors
/// `location` is of another layout, a listed picture or mask is missing, or a mask does not fit its picture.
pub fn voc_segmentation(
    params: &VocSegmentation,
    location: &Location,
    hasher: &dyn FileHasher,
) -> Result<Built, Error> {
    let official = Layout::open(location, &params.inside, &["ImageSets/Segmentation", "JPEGImages"]);
    let (layout, sets, folder) = match official {
        Ok(layout) => (layout, "ImageSets/Segmentation", "JPEGImages"),
        Err(error) => match Layout::open(location, &params.inside, &["sets", "images"]) {
            Ok(layout) => (layout, "sets", "images"),
            // Both layouts were looked for; the official one's message names what is there.
            Err(Error::Layout { place, reason }) => {
                let official = match error {
                    Error::Layout { reason, .. } => reason,
                    other => other.to_string(),
                };
                return Err(Error::layout(place, format!("{official}; and for the repack: {reason}")));
            }
            Err(error) => return Err(error),
        },
    };
    let lists = layout.stems(sets, |path| path.ends_with(".txt"));
    let pictures = layout.stems(folder, is_picture);
    let mut splits = Vec::new();
    for split in ["train", "val", "trainval", "trainaug"] {
        let Some(list) = lists.get(split) else { continue };
        let masks = layout
            .stems(if split == "trainaug" { "SegmentationClassAug" } else { "SegmentationClass" }, |path| {
                path.ends_with(".png")
            });
        let mut listed = Listed { split, list: format!("`{list}`"), items: Vec::new(), absent: Vec::new() };
        for id in ids(&layout, list)? {
            match (pictures.get(&id), masks.get(&id)) {
                (Some(picture), Some(mask)) => {
                    listed.items.push(Item { picture: picture.clone(), mask: mask.clone(), depth: None });
                }
                (None, _) => listed.absent.push((id, "picture")),
                (_, None) => listed.absent.push((id, "mask")),
            }
        }
        splits.push(listed);
    }
    if splits.is_empty() {
        let found = some(lists.keys().map(String::as_str), 8);
        return Err(Error::layout(
            layout.place(),
            format!("looked in `{sets}` for train.txt, val.txt, trainval.txt or trainaug.txt; found {found}"),
        ));
    }
    let base = ImageManifest { mask_classes: VOC.map(String::from).to_vec(), ..ImageManifest::default() };
    build(&layout, &base, &splits, params.missing, hasher)
}

/// Describes Cityscapes' train and val with the 19 classes of its benchmark.
///
/// # Errors
/// As [`voc_segmentation`].
pub fn cityscapes(params: &Cityscapes, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    let layout = Layout::open(location, "", &["leftImg8bit", "gtFine"])?;
    let mut splits = Vec::new();
    let mut cities = BTreeSet::new();
    for split in ["train", "val"] {
        let start = format!("leftImg8bit/{split}/");
        let list = format!("the folder `leftImg8bit/{split}`");
        let mut listed = Listed { split, list, items: Vec::new(), absent: Vec::new() };
        for file in layout.files() {
            let Some(name) = file.path.strip_prefix(&start).and_then(|rest| rest.strip_suffix("_leftImg8bit.png"))
            else {
                continue;
            };
            cities.extend(name.split_once('/').map(|(city, _)| city.to_owned()));
            let mask = format!("gtFine/{split}/{name}_gtFine_labelIds.png");
            if layout.has(&mask) {
                listed.items.push(Item { picture: file.path.clone(), mask, depth: None });
            } else {
                listed.absent.push((name.to_owned(), "`_gtFine_labelIds.png`"));
            }
        }
        if listed.items.len() + listed.absent.len() > 0 {
            splits.push(listed);
        }
    }
    if splits.is_empty() {
        return Err(Error::layout(
            layout.place(),
            "looked for `leftImg8bit/train/<city>/*_leftImg8bit.png` and the same of `val`; there is neither",
        ));
    }
    let base = ImageManifest {
        mask_classes: CITYSCAPES.map(|(name, _)| name.to_owned()).to_vec(),
        mask_values: value_table(&CITYSCAPES.map(|(_, id)| id)),
        ..ImageManifest::default()
    };
    let mut built = build(&layout, &base, &splits, params.missing, hasher)?;
    built.metrics.insert("cities".into(), cities.len() as f64);
    Ok(built)
}

/// Describes NYUDv2 as multi-task work lays it out: masks, and depth maps where a whole set has them.
///
/// # Errors
/// As [`voc_segmentation`]; also a depth map that is no grid of numbers or does not fit its picture.
pub fn nyud(params: &Nyud, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    let layout = Layout::open(location, "", &["gt_sets", "images", "segmentation"])?;
    let pictures = layout.stems("images", is_picture);
    let masks = layout.stems("segmentation", |path| path.ends_with(".png"));
    let depths = layout.stems("depth", |path| path.ends_with(".npy"));
    let mut splits = Vec::new();
    for split in ["train", "val"] {
        let list = format!("gt_sets/{split}.txt");
        if !layout.has(&list) {
            continue;
        }
        let mut listed = Listed { split, list: format!("`{list}`"), items: Vec::new(), absent: Vec::new() };
        for id in ids(&layout, &list)? {
            match (pictures.get(&id), masks.get(&id)) {
                (Some(picture), Some(mask)) => listed.items.push(Item {
                    picture: picture.clone(),
                    mask: mask.clone(),
                    depth: depths.get(&id).cloned(),
                }),
                (None, _) => listed.absent.push((id, "picture")),
                (_, None) => listed.absent.push((id, "mask")),
            }
        }
        splits.push(listed);
    }
    if splits.is_empty() {
        return Err(Error::layout(
            layout.place(),
            "looked for `gt_sets/train.txt` and `gt_sets/val.txt`; there is neither",
        ));
    }
    let classes: Vec<u8> = (1..=40).collect();
    let base = ImageManifest {
        mask_classes: NYUD.map(String::from).to_vec(),
        mask_values: value_table(&classes),
        ..ImageManifest::default()
    };
    build(&layout, &base, &splits, params.missing, hasher)
}

/// The first word of each line, each once.
fn ids(layout: &Layout, list: &str) -> Result<Vec<String>, Error> {
    let mut seen = BTreeSet::new();
    for (line, text) in layout.lines(list)? {
        let id = text.split_whitespace().next().unwrap_or_default();
        // Lists with paths (`/JPEGImages/a.jpg /SegmentationClass/a.png`) belong to `segmentation_pairs`.
        if id.contains('/') {
            let why = format!("line {line} is `{text}`, a path: one id a line is expected");
            return Err(Error::layout(layout.at(list), why));
        }
        if !seen.insert(id.to_owned()) {
            return Err(Error::layout(layout.at(list), format!("line {line} lists `{id}` again")));
        }
    }
    Ok(seen.into_iter().collect())
}

/// Checks every item and describes the splits; a split with depth maps throughout also gives `<split>_depth`.
fn build(
    layout: &Layout,
    base: &ImageManifest,
    splits: &[Listed<'_>],
    missing: Missing,
    hasher: &dyn FileHasher,
) -> Result<Built, Error> {
    let mut warnings = Vec::new();
    let mut kept = Vec::new();
    for listed in splits {
        if listed.settle(layout, missing, &mut warnings)? {
            kept.push(listed);
        }
    }
    if kept.is_empty() {
        return Err(Error::layout(layout.place(), "no split has a complete picture"));
    }
    for listed in &kept {
        let bad = listed.items.par_iter().filter_map(|item| check(layout, item).err().map(|e| (&item.picture, e)));
        if let Some((_, error)) = bad.min_by_key(|(picture, _)| (*picture).clone()) {
            return Err(error);
        }
    }
    let files = kept.iter().flat_map(|listed| &listed.items);
    let described = layout.describe(
        files.flat_map(|i| [Some(i.picture.clone()), Some(i.mask.clone()), i.depth.clone()].into_iter().flatten()),
        hasher,
    )?;
    let mut outputs = Vec::new();
    let mut pictures = BTreeSet::new();
    for listed in kept {
        let mut entries: Vec<ImageEntry> = listed
            .items
            .iter()
            .map(|item| ImageEntry {
                file: described[&item.picture].clone(),
                mask: Some(Box::new(described[&item.mask].clone())),
                depth: item.depth.as_ref().map(|depth| Box::new(described[depth].clone())),
                ..ImageEntry::default()
            })
            .collect();
        entries.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        pictures.extend(entries.iter().map(|entry| entry.file.path.clone()));
        let manifest =
            |entries: Vec<ImageEntry>| json(&ImageManifest { format: MANIFEST_FORMAT, entries, ..base.clone() });
        let deep = entries.iter().filter(|entry| entry.depth.is_some()).count();
        if deep == entries.len() {
            outputs.push((format!("{}_depth", listed.split), manifest(entries.clone())));
        } else if deep > 0 {
            warnings.push(format!(
                "only {deep} of the {} of `{}` have a depth map: there is no `{}_depth`",
                count(entries.len(), "picture"),
                listed.split,
                listed.split
            ));
        }
        entries.iter_mut().for_each(|entry| entry.depth = None);
        outputs.push((listed.split.to_owned(), manifest(entries)));
    }
    let mut built = Built { warnings, ..Built::new(outputs, layout.tree.location().clone()) };
    built.metrics.insert("pictures".into(), pictures.len() as f64);
    Ok(built)
}

/// Whether the mask is one, the depth map a grid of numbers, and both as large as the picture.
fn check(layout: &Layout, item: &Item) -> Result<(), Error> {
    let (width, height) = picture_size(&layout.tree, &item.picture)?;
    let start = layout.tree.read_start(&item.mask, 64)?;
    let mask = probe_mask(&start)
        .map_err(|why| Error::layout(layout.place(), format!("the mask `{}` is {why}", item.mask)))?;
    if (width, height) != (mask.width, mask.height) {
        let reason = format!(
            "picture `{}` is {width}x{height} but its mask `{}` is {}x{}; they must be equally large",
            item.picture, item.mask, mask.width, mask.height
        );
        return Err(Error::layout(layout.place(), reason));
    }
    if let Some(depth) = &item.depth {
        let start = layout.tree.read_start(depth, npy::HEADER)?;
        let grid = npy::grid_header(&start)
            .map_err(|why| Error::layout(layout.place(), format!("the depth map `{depth}` is {why}")))?;
        if (width, height) != (grid.width, grid.height) {
            let reason = format!(
                "picture `{}` is {width}x{height} but its depth map `{depth}` is {}x{}; they must be equally large",
                item.picture, grid.width, grid.height
            );
            return Err(Error::layout(layout.place(), reason));
        }
    }
    Ok(())
}
