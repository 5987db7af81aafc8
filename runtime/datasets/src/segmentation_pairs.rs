//! `segmentation_pairs`: pictures with index masks, listed in a text file.

use std::collections::{BTreeMap, HashMap};

use harness_protocol::Location;
use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::SegmentationPairs;
use rayon::prelude::*;

use crate::built::{Built, count, describe, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::image_folder::{keep_copies_together, outputs};
use crate::mask::probe_mask;
use crate::masked::value_table;
use crate::split::{Purpose, draw, holdout_size};
use crate::tree::{Tree, clean, join};

/// Bytes of a picture that nearly always hold its size; the whole file is read where they do not.
const HEADER_BYTES: u64 = 1 << 16;

/// Describes listed pairs of picture and mask: `all`, and its parts `train` and `holdout`.
///
/// Checked here: both files of each line exist, the mask is a grey or palette PNG, and it is as large as the picture.
/// The masks' values are checked where they are decoded ([`crate::check_mask`]).
///
/// # Errors
/// `location` cannot be opened, there is no such list, or a line of it is wrong; the message names the line.
pub fn segmentation_pairs(
    params: &SegmentationPairs,
    location: &Location,
    hasher: &dyn FileHasher,
) -> Result<Built, Error> {
    let tree = Tree::open(location)?;
    let files = tree.list()?;
    let sizes: HashMap<&str, u64> = files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    let list = clean(params.list.trim_start_matches('/'))
        .map_err(|why| Error::layout(tree.place(), format!("list `{}`: {why}", params.list)))?;
    if !sizes.contains_key(list.as_str()) {
        let texts = some(files.iter().map(|f| f.path.as_str()).filter(|p| p.ends_with(".txt")), 8);
        let hint = if texts.is_empty() { "; it holds no .txt at all".into() } else { format!("; it holds {texts}") };
        return Err(Error::Missing { file: list, place: tree.place(), hint });
    }
    let text = String::from_utf8(tree.read(&list)?)
        .map_err(|_| Error::layout(format!("`{list}` in {}", tree.place()), "the list is not UTF-8 text"))?;

    let mut warnings = Vec::new();
    let pairs = parse(&text, &list, &sizes, &tree, &mut warnings)?;
    check_sizes(&tree, &list, &pairs)?;

    let mut paths: Vec<String> = pairs.iter().flat_map(|p| [p.picture.clone(), p.mask.clone()]).collect();
    paths.sort();
    paths.dedup();
    let described = describe(&tree, &sizes, &paths, hasher)?;
    let by_path: HashMap<&str, _> = described.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let entries: Vec<ImageEntry> = pairs
        .iter()
        .map(|p| ImageEntry {
            file: by_path[p.picture.as_str()].clone(),
            mask: Some(Box::new(by_path[p.mask.as_str()].clone())),
            ..ImageEntry::default()
        })
        .collect();
    let pictures: Vec<&str> = pairs.iter().map(|p| p.picture.as_str()).collect();
    let mut held_out =
        draw(Purpose::Holdout, params.split_seed, &pictures, holdout_size(pictures.len(), params.holdout));
    keep_copies_together(&entries, &mut held_out, &mut warnings);

    let mut ignore = params.ignore.clone();
    ignore.sort_unstable();
    ignore.dedup();
    let base = ImageManifest {
        format: MANIFEST_FORMAT,
        mask_classes: params.classes.clone(),
        ignore,
        mask_values: params.values.as_deref().map(value_table).unwrap_or_default(),
        ..ImageManifest::default()
    };
    let metrics = BTreeMap::from([("pictures".to_owned(), entries.len() as f64)]);
    let outputs = outputs(&base, entries, &held_out);
    Ok(Built { metrics, warnings, ..Built::new(outputs, tree.location().clone()) })
}

/// A line of the list, its paths found in the tree.
struct Pair {
    line: usize,
    picture: String,
    mask: String,
}

/// Reads the list; the pairs come sorted by picture.
fn parse(
    text: &str,
    list: &str,
    sizes: &HashMap<&str, u64>,
    tree: &Tree,
    warnings: &mut Vec<String>,
) -> Result<Vec<Pair>, Error> {
    let at = |line: usize| format!("`{list}` line {line} in {}", tree.place());
    let folder = list.rsplit_once('/').map_or("", |(folder, _)| folder);
    let find = |line: usize, path: &str| -> Result<String, Error> {
        let inside =
            clean(path.trim_start_matches('/')).map_err(|why| Error::layout(at(line), format!("`{path}`: {why}")))?;
        let beside = join(folder, &inside);
        if sizes.contains_key(inside.as_str()) {
            Ok(inside)
        } else if sizes.contains_key(beside.as_str()) {
            Ok(beside)
        } else {
            Err(Error::layout(
                at(line),
                if folder.is_empty() {
                    format!("there is no file `{inside}`")
                } else {
                    format!("there is no file `{inside}`, neither at the top nor beside the list (`{beside}`)")
                },
            ))
        }
    };
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut repeated = 0;
    for (index, content) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = index + 1;
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        // Names with spaces can be listed with a tab between the two.
        let fields: Vec<&str> = if content.contains('\t') {
            content.split('\t').map(str::trim).filter(|f| !f.is_empty()).collect()
        } else {
            content.split_whitespace().collect()
        };
        let [picture, mask] = fields[..] else {
            return Err(Error::layout(
                at(line),
                format!(
                    "`picture mask` is expected, but there {} (put a tab between names with spaces)",
                    if fields.len() == 1 { "is 1 field".to_owned() } else { format!("are {} fields", fields.len()) }
                ),
            ));
        };
        let pair = Pair { line, picture: find(line, picture)?, mask: find(line, mask)? };
        match pairs.get(&pair.picture) {
            Some(first) if first.mask == pair.mask => repeated += 1,
            Some(first) => {
                return Err(Error::layout(
                    at(line),
                    format!(
                        "`{}` has the mask `{}` here and `{}` in line {}",
                        pair.picture, pair.mask, first.mask, first.line
                    ),
                ));
            }
            None => {
                pairs.insert(pair.picture.clone(), pair);
            }
        }
    }
    if pairs.is_empty() {
        return Err(Error::layout(format!("`{list}` in {}", tree.place()), "the list is empty"));
    }
    if repeated > 0 {
        warnings.push(format!("{} of `{list}` left out because they repeat an earlier one", count(repeated, "line")));
    }
    Ok(pairs.into_values().collect())
}

/// Checks that each mask is one and as large as its picture; the first bad line of the list is reported.
fn check_sizes(tree: &Tree, list: &str, pairs: &[Pair]) -> Result<(), Error> {
    let check = |pair: &Pair| -> Result<(), (usize, Error)> {
        let at = || format!("`{list}` line {} in {}", pair.line, tree.place());
        let picture = picture_size(tree, &pair.picture).map_err(|error| (pair.line, error))?;
        let start = tree.read_start(&pair.mask, 64).map_err(|error| (pair.line, error))?;
        let mask = probe_mask(&start)
            .map_err(|why| (pair.line, Error::layout(at(), format!("mask `{}` is {why}", pair.mask))))?;
        if picture != (mask.width, mask.height) {
            let reason = format!(
                "picture `{}` is {}x{} but its mask `{}` is {}x{}; they must be equally large",
                pair.picture, picture.0, picture.1, pair.mask, mask.width, mask.height
            );
            return Err((pair.line, Error::layout(at(), reason)));
        }
        Ok(())
    };
    let bad = pairs.par_iter().filter_map(|pair| check(pair).err()).min_by_key(|(line, _)| *line);
    bad.map_or(Ok(()), |(_, error)| Err(error))
}

/// Width and height of a picture, from its header.
///
/// # Errors
/// It cannot be read, or it is no picture of a known format.
pub(crate) fn picture_size(tree: &Tree, path: &str) -> Result<(usize, usize), Error> {
    let start = tree.read_start(path, HEADER_BYTES)?;
    let size = match imagesize::blob_size(&start) {
        Ok(size) => Ok(size),
        // Long comments or thumbnails can come first.
        Err(_) if start.len() as u64 == HEADER_BYTES => imagesize::blob_size(&tree.read(path)?),
        Err(error) => Err(error),
    };
    size.map(|s| (s.width, s.height)).map_err(|error| {
        Error::layout(format!("`{path}` in {}", tree.place()), format!("it is no picture that can be read: {error}"))
    })
}
