//! `voc_classification`: pictures with one answer for each class, in the layout of VOC2007 and VOC2012.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness_protocol::Location;
use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::{Missing, VocClassification, VocSplit};

use crate::built::{Built, count, json, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::image_folder::is_picture;
use crate::layout::{Layout, class_sizes, report_classes};

/// Folder of the image sets.
const SETS: &str = "ImageSets/Main";

/// Describes the image sets, one manifest each: the answers for every class, 1 shown, -1 not shown, 0 difficult.
///
/// Classes are those of the files `<class>_<split>.txt`, sorted by name, which for VOC's own twenty is their usual order.
///
/// # Errors
/// `location` cannot be opened or is of another layout; an image set asked for is not there; a class file lists other
/// pictures than the others or an answer that is none of the three; pictures are missing and `missing` does not allow it.
pub fn voc_classification(
    params: &VocClassification,
    location: &Location,
    hasher: &dyn FileHasher,
) -> Result<Built, Error> {
    let layout = Layout::open(location, &params.inside, &[SETS])?;
    let sets = layout.stems(SETS, |path| path.ends_with(".txt"));
    let (splits, classes) = classes(&layout, &sets, params)?;
    let pictures = layout.stems("JPEGImages", is_picture);

    let mut warnings = Vec::new();
    let mut read = Vec::new();
    for split in splits {
        let answers = answers(&layout, &sets, &classes, split)?;
        let present = present(&layout, &pictures, split, &answers, params.missing, &mut warnings)?;
        if !present.is_empty() {
            read.push((split, answers, present));
        }
    }
    if read.is_empty() {
        return Err(Error::layout(layout.place(), "none of the pictures that its image sets list is there"));
    }
    let described =
        layout.describe(read.iter().flat_map(|(.., present)| present.iter().map(|id| pictures[id].clone())), hasher)?;

    let mut outputs = Vec::new();
    let mut sizes = None;
    for (split, answers, present) in &read {
        let mut entries: Vec<ImageEntry> = present
            .iter()
            .map(|id| ImageEntry {
                file: described[&pictures[id]].clone(),
                labels: answers.by_id[id].clone(),
                ..ImageEntry::default()
            })
            .collect();
        entries.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        let found = class_sizes(classes.len(), &entries);
        let without: Vec<&str> =
            classes.iter().zip(&found).filter(|(_, n)| **n == 0).map(|(class, _)| class.as_str()).collect();
        if !without.is_empty() {
            warnings.push(format!(
                "{} without a picture in `{}`: {}",
                if without.len() == 1 { "1 class is".into() } else { format!("{} classes are", without.len()) },
                split.name(),
                some(without, 8)
            ));
        }
        sizes.get_or_insert(found);
        let manifest =
            ImageManifest { format: MANIFEST_FORMAT, classes: classes.clone(), entries, ..ImageManifest::default() };
        outputs.push((split.name().to_owned(), json(&manifest)));
    }
    let mut built = Built { warnings, ..Built::new(outputs, layout.tree.location().clone()) };
    built.metrics.insert("pictures".into(), described.len() as f64);
    report_classes(&mut built, &sizes.unwrap_or_default());
    Ok(built)
}

/// The image sets to read and the classes that every one of them has a file for.
fn classes(
    layout: &Layout,
    sets: &BTreeMap<String, String>,
    params: &VocClassification,
) -> Result<(Vec<VocSplit>, Vec<String>), Error> {
    let mut by_split: BTreeMap<VocSplit, BTreeSet<&str>> = BTreeMap::new();
    for stem in sets.keys() {
        for split in VocSplit::ALL {
            if let Some(class) = stem.strip_suffix(split.name()).and_then(|rest| rest.strip_suffix('_')) {
                by_split.entry(split).or_default().insert(class);
            }
        }
    }
    let place = || format!("`{SETS}` in {}", layout.place());
    let there = some(by_split.keys().map(|split| split.name()), 4);
    let splits = match &params.splits {
        Some(wanted) => wanted.clone(),
        None => by_split.keys().copied().collect(),
    };
    if let Some(split) = splits.iter().find(|split| !by_split.contains_key(*split)) {
        let name = split.name();
        let found = if there.is_empty() { "no image set has any".into() } else { format!("there are {there}") };
        return Err(Error::layout(place(), format!("there is no `<class>_{name}.txt`; {found}")));
    }
    let all: BTreeSet<&str> = splits.iter().flat_map(|split| by_split[split].iter().copied()).collect();
    if all.is_empty() {
        let found = some(sets.keys().map(String::as_str), 8);
        return Err(Error::layout(
            place(),
            format!("looked for `<class>_<split>.txt` with the splits trainval, train, val or test; found {found}"),
        ));
    }
    for split in &splits {
        let lacking = all.iter().copied().filter(|class| !by_split[split].contains(class));
        let lacking = some(lacking, 6);
        if !lacking.is_empty() {
            return Err(Error::layout(
                place(),
                format!("the image set `{}` has no file for {lacking}, which the others have", split.name()),
            ));
        }
    }
    Ok((splits, all.into_iter().map(str::to_owned).collect()))
}

/// An image set: its ids in the order listed, and for each the answers for all classes.
struct Answers {
    ids: Vec<String>,
    by_id: HashMap<String, Vec<i8>>,
    /// The list that gave the ids.
    list: String,
}

fn answers(
    layout: &Layout,
    sets: &BTreeMap<String, String>,
    classes: &[String],
    split: VocSplit,
) -> Result<Answers, Error> {
    let name = split.name();
    let file = |class: &str| sets[&format!("{class}_{name}")].clone();
    // The set's own list where there is one; the first class's otherwise.
    let list = sets.get(name).cloned().unwrap_or_else(|| file(&classes[0]));
    let mut ids = Vec::new();
    let mut by_id: HashMap<String, Vec<i8>> = HashMap::new();
    for (line, text) in layout.lines(&list)? {
        let id = text.split_whitespace().next().unwrap_or_default().to_owned();
        if by_id.insert(id.clone(), Vec::with_capacity(classes.len())).is_some() {
            return Err(Error::layout(layout.at(&list), format!("line {line} lists `{id}` again")));
        }
        ids.push(id);
    }
    for (index, class) in classes.iter().enumerate() {
        let file = file(class);
        let bad = |line: usize, why: String| Err(Error::layout(layout.at(&file), format!("line {line}: {why}")));
        for (line, text) in layout.lines(&file)? {
            let fields: Vec<&str> = text.split_whitespace().collect();
            let [id, answer] = fields[..] else {
                return bad(line, format!("`id answer` is expected, not `{text}`"));
            };
            let answer = match answer {
                "1" | "+1" => 1,
                "0" => 0,
                "-1" => -1,
                other => return bad(line, format!("the answer is 1, 0 or -1, not `{other}`")),
            };
            let Some(answers) = by_id.get_mut(id) else {
                return bad(line, format!("`{id}` is not in `{list}`"));
            };
            if answers.len() != index {
                return bad(line, format!("`{id}` is listed again"));
            }
            answers.push(answer);
        }
        let lacking = some(ids.iter().map(String::as_str).filter(|id| by_id[*id].len() <= index), 3);
        if !lacking.is_empty() {
            return Err(Error::layout(layout.at(&file), format!("it has no line for {lacking}, which `{list}` lists")));
        }
    }
    Ok(Answers { ids, by_id, list })
}

/// The listed ids whose pictures are there.
fn present(
    layout: &Layout,
    pictures: &BTreeMap<String, String>,
    split: VocSplit,
    answers: &Answers,
    missing: Missing,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let (present, absent): (Vec<String>, Vec<String>) =
        answers.ids.iter().cloned().partition(|id| pictures.contains_key(id));
    let Some(first) = absent.first() else { return Ok(present) };
    let of = format!(
        "{} of the {} of the image set `{}` {} not in `JPEGImages`",
        absent.len(),
        count(answers.ids.len(), "picture"),
        split.name(),
        if absent.len() == 1 { "is" } else { "are" }
    );
    match missing {
        Missing::Error => Err(Error::layout(
            layout.place(),
            format!(
                "{of}; the first is `{first}` of `{}`. Put them there, name the other image sets in `splits`, or say \
                 `missing = skip` to do without them",
                answers.list
            ),
        )),
        Missing::Skip => {
            let left = if present.is_empty() { "the image set is left out" } else { "they are left out" };
            warnings.push(format!("{of} (first `{first}`): {left}"));
            Ok(present)
        }
    }
}
