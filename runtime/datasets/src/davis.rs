//! `davis`: videos with masks in the layout of DAVIS.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness_protocol::Location;
use harness_protocol::manifest::{Annotation, MANIFEST_FORMAT, Sequence, VideoManifest};
use harness_protocol::steps::{Davis, Year};
use rayon::prelude::*;

use crate::built::{Built, describe, json, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::image_folder::is_picture;
use crate::mask::{decode_mask, probe_mask};
use crate::segmentation_pairs::picture_size;
use crate::tree::{Tree, clean, join};

/// Describes the sequences of a split, sorted by name.
///
/// The list is `ImageSets/<year>/<split>.txt`, or else the one of the other year, or `ImageSets/<resolution>/` with its
/// pairs of frames. The first frame and mask of every sequence are looked at: they must be equally large, and the mask
/// must be of the year that `params` says.
///
/// # Errors
/// `location` cannot be opened, the layout or the list is not there, a sequence lacks frames or masks, or the
/// annotation is the other year's.
pub fn davis(params: &Davis, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    let tree = open_top(location)?;
    let files = tree.list()?;
    let sizes: HashMap<&str, u64> = files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    let frames = by_sequence(files.iter().map(|f| f.path.as_str()), "JPEGImages", &params.resolution);
    let masks = by_sequence(files.iter().map(|f| f.path.as_str()), "Annotations", &params.resolution);
    if frames.is_empty() {
        let resolutions: BTreeSet<&str> = files
            .iter()
            .filter_map(|f| f.path.strip_prefix("JPEGImages/")?.split_once('/').map(|(resolution, _)| resolution))
            .collect();
        return Err(Error::layout(
            tree.place(),
            format!(
                "there are no frames in `JPEGImages/{}/<sequence>/`; {}",
                params.resolution,
                if resolutions.is_empty() {
                    "there is no folder of a resolution at all".to_owned()
                } else {
                    format!("`resolution` can be {}", some(resolutions, 6))
                }
            ),
        ));
    }

    let (list, listed) = read_list(&tree, &sizes, params)?;
    let chosen = choose(&tree, &list, &listed, params)?;
    let mut warnings = Vec::new();
    let mut pairs = BTreeMap::new();
    for name in chosen {
        let (frames, masks) = (frames.get(name), masks.get(name));
        let kept = pair_up(name, frames, masks, params).map_err(|why| Error::layout(tree.place(), why))?;
        check_first(&tree, name, &kept, params.year, &mut warnings)?;
        check_sizes(&tree, name, &kept)?;
        pairs.insert(name, kept);
    }

    let paths: Vec<String> =
        pairs.values().flatten().flat_map(|(frame, mask)| [(*frame).to_owned(), (*mask).to_owned()]).collect();
    let mut described = describe(&tree, &sizes, &paths, hasher)?.into_iter();
    let sequences: Vec<Sequence> = pairs
        .iter()
        .map(|(name, kept)| {
            // `paths` alternates between frames and masks, sequence by sequence.
            let entries: Vec<_> = described.by_ref().take(2 * kept.len()).collect();
            let (frames, masks) = entries.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
            Sequence { name: (*name).to_owned(), frames, masks }
        })
        .collect();
    let metrics = BTreeMap::from([
        ("sequences".to_owned(), sequences.len() as f64),
        ("frames".to_owned(), sequences.iter().map(|s| s.frames.len()).sum::<usize>() as f64),
    ]);
    let annotation = match params.year {
        Year::Davis2016 => Annotation::Binary,
        Year::Davis2017 => Annotation::Indexed,
    };
    let manifest = VideoManifest { format: MANIFEST_FORMAT, annotation, sequences, archive: None };
    let outputs = vec![("videos".into(), json(&manifest))];
    Ok(Built { metrics, warnings, ..Built::new(outputs, tree.location().clone()) })
}

/// Opens the folder that holds `JPEGImages`: the top itself, or its one folder that does (`DAVIS`).
fn open_top(location: &Location) -> Result<Tree, Error> {
    let tree = Tree::open(location)?;
    let files = tree.list()?;
    if files.iter().any(|f| f.path.starts_with("JPEGImages/")) {
        return Ok(tree);
    }
    let tops: BTreeSet<&str> = files
        .iter()
        .filter_map(|f| f.path.split_once('/'))
        .filter(|(_, rest)| rest.starts_with("JPEGImages/"))
        .map(|(top, _)| top)
        .collect();
    let mut tops = tops.into_iter();
    match (tops.next(), tops.next()) {
        (Some(top), None) => Tree::open(&Location { prefix: join(&tree.location().prefix, top), ..location.clone() }),
        (None, _) => {
            let found: BTreeSet<&str> =
                files.iter().map(|f| f.path.split_once('/').map_or(f.path.as_str(), |(top, _)| top)).collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { some(found, 8) };
            Err(Error::layout(
                tree.place(),
                format!("there is no `JPEGImages`, neither at the top nor in a folder right below it; found {found}"),
            ))
        }
        (Some(first), Some(second)) => Err(Error::layout(
            tree.place(),
            format!("several folders hold `JPEGImages`, `{first}` and `{second}`; name one of them in the path"),
        )),
    }
}

/// Files of `<kind>/<resolution>/<sequence>/<name>` by sequence, then by name without ending.
fn by_sequence<'a>(
    paths: impl Iterator<Item = &'a str>,
    kind: &str,
    resolution: &str,
) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a str>> {
    let top = format!("{kind}/{resolution}/");
    let mut found: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for path in paths.filter(|p| is_picture(p)) {
        if let Some((sequence, file)) = path.strip_prefix(&top).and_then(|rest| rest.split_once('/'))
            && !file.contains('/')
        {
            let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
            found.entry(sequence).or_default().insert(stem, path);
        }
    }
    found
}

/// The list of the split: its path and the sequences it names, in its order.
fn read_list(tree: &Tree, sizes: &HashMap<&str, u64>, params: &Davis) -> Result<(String, Vec<String>), Error> {
    let years = match params.year {
        Year::Davis2016 => ["2016", "2017"],
        Year::Davis2017 => ["2017", "2016"],
    };
    let tried: Vec<String> = years
        .into_iter()
        .chain([params.resolution.as_str()])
        .map(|folder| format!("ImageSets/{folder}/{}.txt", params.split))
        .collect();
    let Some(list) = tried.iter().find(|path| sizes.contains_key(path.as_str())) else {
        let lists: BTreeSet<&str> = sizes.keys().copied().filter(|p| p.starts_with("ImageSets/")).collect();
        let found =
            if lists.is_empty() { "there is no list at all".into() } else { format!("found {}", some(lists, 8)) };
        return Err(Error::layout(
            tree.place(),
            format!("there is no list of the split `{}`: tried {}; {found}", params.split, tried.join(", ")),
        ));
    };
    let at = format!("`{list}` in {}", tree.place());
    let text = String::from_utf8(tree.read(list)?).map_err(|_| Error::layout(&at, "the list is not UTF-8 text"))?;
    let mut names: Vec<String> = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let Some(field) = line.split_whitespace().next() else { continue };
        let field = clean(field.trim_start_matches('/'))
            .map_err(|why| Error::layout(format!("`{list}` line {} in {}", index + 1, tree.place()), why))?;
        // A sequence's name, or `/JPEGImages/480p/<sequence>/00000.jpg /Annotations/…`.
        let parts: Vec<&str> = field.split('/').collect();
        let name = if parts.len() >= 2 { parts[parts.len() - 2] } else { parts[0] };
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(Error::layout(at, "the list is empty"));
    }
    Ok((list.to_string(), names))
}

/// The sequences asked for, all of which the list must name.
fn choose<'a>(tree: &Tree, list: &str, listed: &'a [String], params: &Davis) -> Result<BTreeSet<&'a str>, Error> {
    let Some(wanted) = &params.sequences else { return Ok(listed.iter().map(String::as_str).collect()) };
    if wanted.is_empty() {
        return Err(Error::layout(tree.place(), "`sequences` is empty; leave it out to take the whole split"));
    }
    wanted
        .iter()
        .map(|name| {
            listed.iter().find(|n| *n == name).map(String::as_str).ok_or_else(|| {
                let known = some(listed.iter().map(String::as_str), 30);
                Error::layout(tree.place(), format!("`{list}` has no sequence `{name}`; it has {known}"))
            })
        })
        .collect()
}

/// Frames with their masks in order.
fn pair_up<'a>(
    name: &str,
    frames: Option<&BTreeMap<&'a str, &'a str>>,
    masks: Option<&BTreeMap<&'a str, &'a str>>,
    params: &Davis,
) -> Result<Vec<(&'a str, &'a str)>, String> {
    let resolution = &params.resolution;
    let frames = frames.ok_or_else(|| {
        format!("sequence `{name}` is listed but `JPEGImages/{resolution}/{name}/` holds no frames; take it out, or name the others in `sequences`")
    })?;
    let masks = masks
        .ok_or_else(|| format!("sequence `{name}` has frames but `Annotations/{resolution}/{name}/` holds no masks"))?;
    let counts = format!("{} frames and {} masks", frames.len(), masks.len());
    if let Some(frame) = frames.keys().find(|stem| !masks.contains_key(*stem)) {
        return Err(format!("sequence `{name}` has {counts}: frame `{frame}` has no mask"));
    }
    if let Some(mask) = masks.keys().find(|stem| !frames.contains_key(*stem)) {
        return Err(format!("sequence `{name}` has {counts}: mask `{mask}` has no frame"));
    }
    if frames.len() < 3 && params.max_frames.is_some() {
        return Err(format!("sequence `{name}` has only {counts}; `max_frames` keeps at least 3"));
    }
    let limit = params.max_frames.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(frames.iter().zip(masks.values()).map(|((_, frame), mask)| (*frame, *mask)).take(limit).collect())
}

/// Checks that all frames and masks of a sequence are equally large, by their headers.
fn check_sizes(tree: &Tree, name: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
    let bad = |reason: String| Error::layout(format!("sequence `{name}` in {}", tree.place()), reason);
    let size = |(frame, path): &(&str, &str)| -> Result<[(usize, usize); 2], Error> {
        let mask = probe_mask(&tree.read_start(path, 64)?).map_err(|why| bad(format!("mask `{path}` is {why}")))?;
        Ok([picture_size(tree, frame)?, (mask.width, mask.height)])
    };
    let sizes: Vec<[(usize, usize); 2]> = pairs.par_iter().map(size).collect::<Result<_, _>>()?;
    let Some([first, _]) = sizes.first().copied() else { return Ok(()) };
    for ((frame, mask), found) in pairs.iter().zip(&sizes) {
        for (file, (width, height)) in [frame, mask].into_iter().zip(found) {
            if (*width, *height) != first {
                let (w, h) = first;
                return Err(bad(format!(
                    "`{file}` is {width}x{height}, and the first frame {w}x{h}; all must be equal"
                )));
            }
        }
    }
    Ok(())
}

/// Looks at a sequence's first pair: sizes, and whether the mask is of the year that was said.
fn check_first(
    tree: &Tree,
    name: &str,
    pairs: &[(&str, &str)],
    year: Year,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(&(frame, path)) = pairs.first() else { return Ok(()) };
    let bad = |reason: String| Error::layout(format!("sequence `{name}` in {}", tree.place()), reason);
    let bytes = tree.read(path)?;
    let header = probe_mask(&bytes).map_err(|why| bad(format!("mask `{path}` is {why}")))?;
    let (width, height) = picture_size(tree, frame)?;
    if (width, height) != (header.width, header.height) {
        return Err(bad(format!(
            "frame `{frame}` is {width}x{height} but its mask `{path}` is {}x{}; they must be equally large",
            header.width, header.height
        )));
    }
    let mask = decode_mask(&bytes).map_err(|why| bad(format!("mask `{path}` is {why}")))?;
    let values: BTreeSet<u8> = mask.values.iter().copied().collect();
    let shown = values.iter().take(6).map(u8::to_string).collect::<Vec<_>>().join(", ");
    match year {
        // One bit of grey is read as 0/1, which is a 2016 mask too once it is scaled; the layout never has that.
        Year::Davis2017 if !mask.palette && values.contains(&255) && values.iter().all(|v| matches!(v, 0 | 255)) => {
            Err(bad(format!(
                "mask `{path}` is grey with the values {shown} only: this is the annotation of DAVIS 2016 (one \
                 object, 0/255), read as that of 2017 (object numbers, 255 = void); say `year: \"2016\"`"
            )))
        }
        Year::Davis2016
            if values.iter().any(|v| (1..=127).contains(v)) && !values.iter().any(|v| (128..255).contains(v)) =>
        {
            Err(bad(format!(
                "mask `{path}` holds the values {shown}: this is the annotation of DAVIS 2017 (object numbers), read \
                 as that of 2016 (one object, 0/255); say `year: \"2017\"`"
            )))
        }
        _ => {
            if values.iter().all(|v| matches!((year, v), (_, 0) | (Year::Davis2017, 255))) {
                warnings.push(format!("sequence `{name}` has no object in its first frame"));
            }
            Ok(())
        }
    }
}
