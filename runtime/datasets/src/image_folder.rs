//! `image_folder`: a tree of pictures, one folder per class.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use harness_protocol::Location;
use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::{ImageFolder, Labels, Rule};

use crate::built::{Built, count, describe, json, some};
use crate::derived::report;
use crate::error::Error;
use crate::hash::FileHasher;
use crate::split::{Purpose, draw, holdout_size};
use crate::tree::{Tree, TreeFile, clean, join};

/// Endings of the files that count as pictures, compared without regard to case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

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
    let (pictures, named) = match &params.list {
        Some(list) => listed(&tree, &files, Path::new(&list.path), &mut warnings)?,
        None if params.rule == Rule::Official => (official(&files, pictures, &mut warnings), HashMap::new()),
        None => (pictures, HashMap::new()),
    };
    if pictures.is_empty() {
        return Err(Error::layout(tree.place(), "the published rule passes over every picture; say `rule = tree`"));
    }

    // Group by class; without labels there is one group with no name.
    let mut groups: BTreeMap<&str, Vec<&TreeFile>> = BTreeMap::new();
    let mut loose = Vec::new();
    for file in pictures {
        match params.labels {
            Labels::None => groups.entry("").or_default().push(file),
            Labels::Parent => {
                let parent = file.path.rsplit_once('/').map_or("", |(parent, _)| parent);
                if parent.is_empty() {
                    loose.push(file.path.as_str())
                } else {
                    groups.entry(parent).or_default().push(file)
                }
            }
            Labels::List => match named.get(file.path.as_str()) {
                Some(class) => groups.entry(class).or_default().push(file),
                None => loose.push(file.path.as_str()),
            },
            Labels::Folders => match file.path.split_once('/') {
                Some((class, _)) => groups.entry(class).or_default().push(file),
                None => loose.push(file.path.as_str()),
            },
        }
    }
    if params.labels == Labels::List
        && let Some(path) = loose.first()
    {
        let why = format!("the list has no second field for {}, such as `{path}`", count(loose.len(), "picture"));
        return Err(Error::layout(tree.place(), why));
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
    let labelled = params.labels != Labels::None;
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

    let base = ImageManifest { format: MANIFEST_FORMAT, classes, ..ImageManifest::default() };
    let all = ImageManifest { entries, ..base.clone() };
    let mut built = Built { warnings, ..Built::new(Vec::new(), tree.location().clone()) };
    report(&mut built, &all);
    built.outputs = outputs(&base, all.entries, &held_out);
    Ok(built)
}

/// The pictures that a list names, and the class that it gives them.
#[allow(clippy::type_complexity, reason = "two results of one walk over the list")]
fn listed<'a>(
    tree: &Tree,
    files: &'a [TreeFile],
    list: &Path,
    warnings: &mut Vec<String>,
) -> Result<(Vec<&'a TreeFile>, HashMap<&'a str, String>), Error> {
    let text = std::fs::read_to_string(list).map_err(Error::io("read", list))?;
    let known: HashMap<&str, &TreeFile> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let (mut found, mut named, mut absent, mut lines) = (BTreeSet::new(), HashMap::new(), Vec::new(), 0);
    for (line, path, class) in crate::lists::fields(&text) {
        lines += 1;
        match known.get(path) {
            Some(file) => {
                found.insert(*file);
                named.extend(class.map(|class| (file.path.as_str(), class.to_owned())));
            }
            None => absent.push((line, path)),
        }
    }
    if let Some((line, path)) = absent.first() {
        return Err(Error::layout(
            format!("`{}`", list.display()),
            format!(
                "{} of the {} {} not in {}: the first is `{path}` of line {line}; paths in a list start at the top of \
                 the tree (`inside` moves it)",
                absent.len(),
                count(lines, "picture"),
                if absent.len() == 1 { "is" } else { "are" },
                tree.place()
            ),
        ));
    }
    if found.is_empty() {
        return Err(Error::layout(format!("`{}`", list.display()), "the list is empty"));
    }
    if found.len() < lines {
        warnings.push(format!("{} of the list repeat an earlier one", count(lines - found.len(), "line")));
    }
    Ok((found.into_iter().collect(), named))
}

/// The study's rule: pictures right in the folders below the top, or at the top where there is no folder.
fn official<'a>(files: &[TreeFile], pictures: Vec<&'a TreeFile>, warnings: &mut Vec<String>) -> Vec<&'a TreeFile> {
    let depth = if files.iter().any(|file| file.path.contains('/')) { 1 } else { 0 };
    let all = pictures.len();
    let kept: Vec<&TreeFile> = pictures.into_iter().filter(|file| file.path.matches('/').count() == depth).collect();
    if kept.len() < all {
        warnings.push(format!("{} passed over by the published rule", count(all - kept.len(), "picture")));
    }
    kept
}

/// The three manifests `all`, `train` and `holdout`, which share everything but their entries.
pub(crate) fn outputs(base: &ImageManifest, entries: Vec<ImageEntry>, held_out: &[bool]) -> Vec<(String, Vec<u8>)> {
    let side = |wanted: bool| {
        let entries = entries.iter().zip(held_out).filter(|(_, out)| **out == wanted);
        json(&ImageManifest { entries: entries.map(|(e, _)| e.clone()).collect(), ..base.clone() })
    };
    let holdout = side(true);
    // Without a holdout, train is everything, and a million files are not written out twice.
    let train = held_out.contains(&true).then(|| side(false));
    let all = json(&ImageManifest { entries, ..base.clone() });
    let train = train.unwrap_or_else(|| all.clone());
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
