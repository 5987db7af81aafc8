//! `image_folder`: a tree of pictures, one folder per class.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use harness_protocol::Location;
use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::{ImageFolder, Labels};

use crate::built::{Built, count, describe, gini, json, max_min_ratio, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::split::{Purpose, draw, holdout_size};
use crate::tree::{Tree, TreeFile, clean, join};

/// Endings of the files that count as pictures, compared without regard to case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "ppm", "bmp", "tif", "tiff", "webp"];

/// Whether a file counts as a picture by its ending.
pub fn is_picture(path: &str) -> bool {
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, ending)| ending);
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// Describes a tree of pictures: `all`, and its parts `train` and `holdout`.
///
/// Classes are the folders right below the top that hold pictures, sorted by name; pictures are sorted by path. The
/// parts are drawn class by class ([`crate::split`]). Exact copies of one picture never lie on both sides: if the draw
/// parts them, all stay in `train`.
///
/// # Errors
/// `location` cannot be opened, `inside` does not exist, there are no pictures, or one cannot be read.
pub fn image_folder(params: &ImageFolder, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    let tree = open_inside(location, &params.inside)?;
    let files = tree.list()?;
    if files.is_empty() && !tree.location().prefix.is_empty() {
        return Err(no_folder(location, &tree.location().prefix)?);
    }
    let mut warnings = Vec::new();
    let pictures: Vec<&TreeFile> = files.iter().filter(|f| is_picture(&f.path)).collect();
    if pictures.is_empty() {
        return Err(no_pictures(&tree, &files));
    }

    // Group by class; without labels there is one group with no name.
    let mut groups: BTreeMap<&str, Vec<&TreeFile>> = BTreeMap::new();
    let mut loose = Vec::new();
    for file in pictures {
        match params.labels {
            Labels::None => groups.entry("").or_default().push(file),
            Labels::Folders => match file.path.split_once('/') {
                Some((class, _)) => groups.entry(class).or_default().push(file),
                None => loose.push(file.path.as_str()),
            },
        }
    }
    if groups.is_empty() {
        return Err(Error::layout(
            tree.place(),
            format!(
                "{} lie at the top, such as {}, but labels come from the folders below it; \
                 put each class in a folder, or say `labels: none`",
                count(loose.len(), "picture"),
                some(loose.iter().copied(), 1)
            ),
        ));
    }
    if !loose.is_empty() {
        warnings.push(format!(
            "{} beside the class folders left out, such as {}: they have no label",
            count(loose.len(), "picture"),
            some(loose.iter().copied(), 1)
        ));
    }
    let labelled = params.labels == Labels::Folders;
    let classes: Vec<String> = if labelled { groups.keys().map(|c| (*c).to_owned()).collect() } else { Vec::new() };

    // The seeded draws, class by class.
    let mut kept: Vec<(&TreeFile, Option<u32>, bool)> = Vec::new();
    for (class, members) in groups.values().enumerate() {
        let label = labelled.then(|| u32::try_from(class).unwrap_or(u32::MAX));
        let paths: Vec<&str> = members.iter().map(|f| f.path.as_str()).collect();
        let wanted = params.per_class.map_or(paths.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
        let chosen = draw(Purpose::PerClass, params.split_seed, &paths, wanted);
        let members: Vec<&TreeFile> = members.iter().zip(chosen).filter_map(|(f, c)| c.then_some(*f)).collect();
        let paths: Vec<&str> = members.iter().map(|f| f.path.as_str()).collect();
        let out = draw(Purpose::Holdout, params.split_seed, &paths, holdout_size(paths.len(), params.holdout));
        kept.extend(members.into_iter().zip(out).map(|(file, out)| (file, label, out)));
    }
    kept.sort_by(|a, b| a.0.cmp(b.0));

    let sizes: HashMap<&str, u64> = kept.iter().map(|(f, ..)| (f.path.as_str(), f.size)).collect();
    let paths: Vec<String> = kept.iter().map(|(f, ..)| f.path.clone()).collect();
    let described = describe(&tree, &sizes, &paths, hasher)?;
    let mut held_out: Vec<bool> = kept.iter().map(|(.., out)| *out).collect();
    let entries: Vec<ImageEntry> = described
        .into_iter()
        .zip(&kept)
        .map(|(file, (_, label, _))| ImageEntry { file, label: *label, ..ImageEntry::default() })
        .collect();

    keep_copies_together(&entries, &mut held_out, &mut warnings);
    warn_of_two_labels(&entries, &classes, &mut warnings);
    if params.holdout > 0.0 && !held_out.contains(&true) {
        warnings.push("the holdout is empty: no class has enough pictures for its share".into());
    }

    let mut metrics =
        BTreeMap::from([("pictures".to_owned(), entries.len() as f64), ("classes".to_owned(), classes.len() as f64)]);
    if labelled {
        let mut class_sizes = vec![0_u64; classes.len()];
        for label in entries.iter().filter_map(|e| e.label) {
            class_sizes[label as usize] += 1;
        }
        metrics.insert("gini".into(), gini(&class_sizes));
        metrics.extend(max_min_ratio(&class_sizes).map(|ratio| ("max_min_ratio".to_owned(), ratio)));
    }
    let base = ImageManifest { format: MANIFEST_FORMAT, classes, ..ImageManifest::default() };
    let outputs = outputs(&base, entries, &held_out);
    Ok(Built { metrics, warnings, ..Built::new(outputs, tree.location().clone()) })
}

/// The three manifests `all`, `train` and `holdout`, which share everything but their entries.
pub(crate) fn outputs(base: &ImageManifest, entries: Vec<ImageEntry>, held_out: &[bool]) -> Vec<(String, Vec<u8>)> {
    let side = |wanted: bool| {
        let entries = entries.iter().zip(held_out).filter(|(_, out)| **out == wanted);
        json(&ImageManifest { entries: entries.map(|(e, _)| e.clone()).collect(), ..base.clone() })
    };
    let (train, holdout) = (side(false), side(true));
    let all = json(&ImageManifest { entries, ..base.clone() });
    vec![("all".into(), all), ("train".into(), train), ("holdout".into(), holdout)]
}

/// Moves held-out copies of training pictures to `train`, and says how many.
pub(crate) fn keep_copies_together(entries: &[ImageEntry], held_out: &mut [bool], warnings: &mut Vec<String>) {
    let train: HashSet<&str> =
        entries.iter().zip(&*held_out).filter(|(_, out)| !**out).map(|(e, _)| e.file.digest.as_str()).collect();
    let mut moved = Vec::new();
    for (entry, out) in entries.iter().zip(held_out.iter_mut()) {
        if *out && train.contains(entry.file.digest.as_str()) {
            *out = false;
            moved.push(entry.file.path.as_str());
        }
    }
    if !moved.is_empty() {
        warnings.push(format!(
            "{} of the holdout moved to train, where exact copies lie: {}",
            count(moved.len(), "picture"),
            some(moved, 3)
        ));
    }
}

fn warn_of_two_labels(entries: &[ImageEntry], classes: &[String], warnings: &mut Vec<String>) {
    let mut labels: BTreeMap<&str, (BTreeSet<u32>, &str)> = BTreeMap::new();
    for entry in entries {
        if let Some(label) = entry.label {
            labels.entry(&entry.file.digest).or_insert_with(|| (BTreeSet::new(), &entry.file.path)).0.insert(label);
        }
    }
    let several: Vec<_> = labels.values().filter(|(labels, _)| labels.len() > 1).collect();
    if let Some((labels, path)) = several.first() {
        let names = labels.iter().filter_map(|&l| classes.get(l as usize).map(String::as_str));
        let verb = if several.len() == 1 { "has" } else { "have" };
        warnings.push(format!(
            "{} {verb} more than one label, as copies lie in several class folders; `{path}` is in {}",
            count(several.len(), "picture"),
            some(names, 4)
        ));
    }
}

/// Opens the tree with `inside` as its top.
pub(crate) fn open_inside(location: &Location, inside: &str) -> Result<Tree, Error> {
    let inside = inside.trim_end_matches('/');
    let inside = if matches!(inside, "" | ".") {
        String::new()
    } else {
        clean(inside).map_err(|why| Error::tree(&location.path, format!("folder `{inside}`: {why}")))?
    };
    let prefix = join(&location.prefix, &inside);
    Tree::open(&Location { prefix, ..location.clone() })
}

/// The error for a folder without files: which part of its path exists, and what lies there.
fn no_folder(location: &Location, prefix: &str) -> Result<Error, Error> {
    let top = Tree::open(&Location { prefix: String::new(), ..location.clone() })?;
    let files = top.list()?;
    let mut near = prefix;
    let inner = loop {
        near = near.rsplit_once('/').map_or("", |(above, _)| above);
        let start = if near.is_empty() { String::new() } else { format!("{near}/") };
        let inner: BTreeSet<&str> = files
            .iter()
            .filter_map(|f| f.path.strip_prefix(&start)?.split_once('/').map(|(folder, _)| folder))
            .collect();
        if near.is_empty() || files.iter().any(|f| f.path.starts_with(&start)) {
            break inner;
        }
    };
    let place = if near.is_empty() { "its top".to_owned() } else { format!("the nearest, `{near}`,") };
    let holds = if inner.is_empty() { "no folders".to_owned() } else { some(inner, 8) };
    Ok(Error::NoFolder { inside: prefix.into(), place: top.place(), near: format!("{place} holds {holds}") })
}

fn no_pictures(tree: &Tree, files: &[TreeFile]) -> Error {
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let ending = name.rsplit_once('.').map_or("no ending".to_owned(), |(_, e)| format!(".{}", e.to_lowercase()));
        *endings.entry(ending).or_default() += 1;
    }
    let found = if files.is_empty() {
        "no files at all".to_owned()
    } else {
        let list: Vec<String> = endings.iter().take(6).map(|(e, n)| format!("{n} with {e}")).collect();
        format!("{} ({})", count(files.len(), "file"), list.join(", "))
    };
    Error::NoPictures { place: tree.place(), extensions: EXTENSIONS.join(", "), found }
}
