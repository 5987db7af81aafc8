//! Datasets made from datasets: a manifest in, a manifest out, no file copied.

mod long_tail;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use globset::GlobBuilder;
use harness_protocol::job::{InputFiles, Location, LocationForm};
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::{Concat, Draw, Filter, Holdout, LongTail, MaskLabels, Subset};
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::built::{Built, count, json as bytes_of, some};
use crate::error::Error;
use crate::image_folder::keep_copies_together;
use crate::layout::{class_sizes, report_classes};
use crate::mask::{check_mask, decode_mask};
use crate::segmentation_pairs::picture_size;
use crate::split::{Purpose, draw, holdout_size};
use crate::tree::Tree;

/// Files of a step's inputs, by digest.
pub type Inputs = BTreeMap<String, InputFiles>;

/// Makes a dataset from a step's resolved parameters and the files of its inputs.
pub type Deriver = fn(&Value, &Inputs) -> Result<Built, Error>;

/// The maker of every kind of derived dataset.
const DERIVERS: &[(&str, Deriver)] = &[
    ("concat", |params, inputs| concat(&crate::decode(params)?, inputs)),
    ("filter", |params, inputs| filter(&crate::decode(params)?, inputs)),
    ("holdout", |params, inputs| holdout(&crate::decode(params)?, inputs)),
    ("long_tail", |params, inputs| long_tail(&crate::decode(params)?, inputs)),
    ("mask_labels", |params, inputs| mask_labels(&crate::decode(params)?, inputs)),
    ("subset", |params, inputs| subset(&crate::decode(params)?, inputs)),
];

/// The maker of the kind called `kind`, if it makes datasets from datasets.
pub fn deriver(kind: &str) -> Option<Deriver> {
    DERIVERS.iter().find(|(name, _)| *name == kind).map(|(_, deriver)| *deriver)
}

/// Where the files of a derived dataset lie: where those of its `data` do.
///
/// # Errors
/// Nothing says where they are.
pub fn derived_location(params: &Value, inputs: &Inputs) -> Result<Location, Error> {
    let one = |value: &Value| {
        let digest = value.pointer("/$artifact/digest").and_then(Value::as_str).unwrap_or_default();
        location(inputs, digest)
    };
    match &params["data"] {
        Value::Array(parts) => Ok(Location {
            form: LocationForm::Union,
            parts: parts.iter().map(one).collect::<Result<_, _>>()?,
            ..Location::default()
        }),
        data => one(data),
    }
}

fn location(inputs: &Inputs, digest: &str) -> Result<Location, Error> {
    let data = inputs.get(digest).and_then(|input| input.data.clone());
    data.ok_or_else(|| Error::layout(format!("the manifest {digest}"), "nothing says where its files lie"))
}

/// A dataset that another is made from.
struct Source {
    manifest: ImageManifest,
    location: Location,
}

impl Source {
    fn open(inputs: &Inputs, digest: &str) -> Result<Self, Error> {
        let file = file_of(inputs, digest)?;
        let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
        let manifest: ImageManifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::layout(format!("`{}`", file.display()), format!("it is no manifest: {error}")))?;
        Ok(Self { manifest, location: location(inputs, digest)? })
    }

    /// The dataset in words, for messages.
    fn place(&self) -> String {
        match self.location.form {
            LocationForm::Union => "the concatenated dataset".into(),
            _ if self.location.prefix.is_empty() => format!("`{}`", self.location.path.display()),
            _ => format!("`{}` (folder `{}`)", self.location.path.display(), self.location.prefix),
        }
    }

    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::layout(self.place(), reason)
    }

    /// Indices of the entries of each class.
    fn by_class(&self, way: &str) -> Result<Vec<Vec<usize>>, Error> {
        let classes = self.manifest.classes.len();
        let mut members = vec![Vec::new(); classes];
        for (index, entry) in self.manifest.entries.iter().enumerate() {
            let members = entry.label.and_then(|label| members.get_mut(label as usize));
            let path = &entry.file.path;
            members.ok_or_else(|| self.bad(format!("`{path}` has no class to draw by; {way}")))?.push(index);
        }
        if classes == 0 { Err(self.bad(format!("there are no classes to draw by; {way}"))) } else { Ok(members) }
    }

    /// A seeded draw of `wanted` of the entries `among`.
    fn draw(&self, purpose: Purpose, seed: u64, among: &[usize], wanted: usize) -> Vec<usize> {
        let paths: Vec<&str> = among.iter().map(|&i| self.manifest.entries[i].file.path.as_str()).collect();
        let drawn = draw(purpose, seed, &paths, wanted);
        among.iter().zip(drawn).filter_map(|(index, drawn)| drawn.then_some(*index)).collect()
    }

    /// The dataset of these entries, which the report describes, with the list of their paths.
    fn chosen(&self, mut kept: Vec<usize>) -> Result<Built, Error> {
        kept.sort_unstable();
        let entries: Vec<ImageEntry> = kept.iter().map(|&index| self.manifest.entries[index].clone()).collect();
        if entries.is_empty() {
            return Err(self.bad("no picture is left"));
        }
        let list: String = entries.iter().map(|entry| format!("{}\n", entry.file.path)).collect();
        let manifest = ImageManifest { entries, ..self.manifest.clone() };
        let outputs = vec![("images".into(), bytes_of(&manifest)), ("list".into(), list.into_bytes())];
        let mut built = Built::new(outputs, self.location.clone());
        report(&mut built, &manifest);
        Ok(built)
    }
}

fn file_of<'a>(inputs: &'a Inputs, digest: &str) -> Result<&'a Path, Error> {
    let input = inputs.get(digest).map(|input| input.file.as_path());
    input.ok_or_else(|| Error::layout(format!("the input {digest}"), "nothing says where it lies"))
}

/// Reports pictures, classes, and the digest of the sorted list of paths.
pub(crate) fn report(built: &mut Built, manifest: &ImageManifest) {
    built.metrics.insert("pictures".into(), manifest.entries.len() as f64);
    let sizes = class_sizes(manifest.classes.len(), &manifest.entries);
    report_classes(built, &sizes);
    let mut paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.file.path.as_str()).collect();
    paths.sort_unstable();
    let mut hash = Sha256::new();
    paths.iter().for_each(|path| hash.update(format!("{path}\n")));
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    built.notes.insert("paths_sha256".into(), hex.into());
    let named: BTreeMap<&str, u64> = manifest.classes.iter().map(String::as_str).zip(sizes).collect();
    if !named.is_empty() {
        built.notes.insert("class_counts".into(), json!(named));
    }
}

fn subset(params: &Subset, inputs: &Inputs) -> Result<Built, Error> {
    let source = Source::open(inputs, params.data.digest())?;
    if let Some(list) = &params.list {
        return listed(&source, file_of(inputs, &list.artifact.digest)?, &params.strip);
    }
    let wanted = usize::try_from(params.count.unwrap_or_default()).unwrap_or(usize::MAX);
    let there = source.manifest.entries.len();
    if wanted > there {
        return Err(source.bad(format!("{wanted} pictures are wanted, and there are {there}")));
    }
    let all: Vec<usize> = (0..there).collect();
    if params.draw == Draw::Random {
        return source.chosen(source.draw(Purpose::Subset, params.split_seed, &all, wanted));
    }
    let members = source.by_class("say `draw = random`")?;
    let mut kept = Vec::with_capacity(wanted);
    let mut short = Vec::new();
    for (class, (members, name)) in members.iter().zip(&source.manifest.classes).enumerate() {
        // Classes are sorted by name: the remainder goes to the first ones.
        let share =
            wanted / source.manifest.classes.len() + usize::from(class < wanted % source.manifest.classes.len());
        if members.len() < share {
            short.push((name.as_str(), members.len(), share));
        }
        kept.extend(source.draw(Purpose::Subset, params.split_seed, members, share));
    }
    if let Some((name, there, share)) = short.first() {
        return Err(source.bad(format!(
            "{} too small for a uniform draw of {wanted}: `{name}` has {} and would give {share}; lower `count`, or say \
             `draw = random`",
            if short.len() == 1 { "1 class is".to_owned() } else { format!("{} classes are", short.len()) },
            count(*there, "picture"),
        )));
    }
    source.chosen(kept)
}

/// The pictures that a published list names.
fn listed(source: &Source, list: &Path, strip: &str) -> Result<Built, Error> {
    let text = std::fs::read_to_string(list).map_err(Error::io("read", list))?;
    let known: HashMap<&str, usize> =
        source.manifest.entries.iter().enumerate().map(|(i, entry)| (entry.file.path.as_str(), i)).collect();
    let strip = strip.trim_matches('/');
    let mut kept = BTreeSet::new();
    let mut absent = Vec::new();
    for (number, path) in crate::lists::paths(&text) {
        let inside = match path.strip_prefix(strip) {
            Some(rest) if !strip.is_empty() => rest.trim_start_matches('/'),
            _ => path,
        };
        match known.get(inside) {
            Some(index) => {
                kept.insert(*index);
            }
            None => absent.push((number, path)),
        }
    }
    if let Some((number, path)) = absent.first() {
        let example = source.manifest.entries.first().map_or("", |entry| entry.file.path.as_str());
        return Err(Error::layout(
            format!("`{}`", list.display()),
            format!(
                "{} not in {}: the first is `{path}` of line {number}; paths there look like `{example}` (`strip` takes a \
                 folder off the list's paths)",
                if absent.len() == 1 { "1 picture is".to_owned() } else { format!("{} pictures are", absent.len()) },
                source.place()
            ),
        ));
    }
    source.chosen(kept.into_iter().collect())
}

fn long_tail(params: &LongTail, inputs: &Inputs) -> Result<Built, Error> {
    let source = Source::open(inputs, params.data.digest())?;
    let members = source.by_class("a long tail needs a class for every picture")?;
    let classes = members.len();
    let (alpha, sizes) = match (params.alpha, params.count) {
        (Some(alpha), _) => (alpha, long_tail::sizes(classes, params.largest, params.smallest, alpha)),
        (None, wanted) => {
            let wanted = wanted.unwrap_or_default();
            long_tail::nearest(classes, params.largest, params.smallest, wanted).map_err(|why| source.bad(why))?
        }
    };
    // Ranks from the largest on go to classes in a seeded order; one too small for a rank waits for a later one.
    let names: Vec<&str> = source.manifest.classes.iter().map(String::as_str).collect();
    let mut waiting: Vec<usize> = (0..classes).collect();
    waiting.sort_by_cached_key(|&class| crate::split::rank(Purpose::LongTail, params.split_seed, names[class]));
    let mut kept = Vec::new();
    for (rank, &size) in sizes.iter().enumerate() {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let Some(at) = waiting.iter().position(|&class| members[class].len() >= size) else {
            let fullest = waiting.iter().map(|&class| members[class].len()).max().unwrap_or_default();
            return Err(source.bad(format!(
                "no class is left for rank {rank} of {classes}, which has {}: the largest of the rest has {fullest}; lower \
                 `largest`",
                count(size, "picture")
            )));
        };
        let class = waiting.remove(at);
        kept.extend(source.draw(Purpose::Subset, params.split_seed, &members[class], size));
    }
    let mut built = source.chosen(kept)?;
    let classes_with = |from: u64, to: u64| sizes.iter().filter(|size| (from..=to).contains(*size)).count() as f64;
    built.metrics.insert("alpha".into(), alpha);
    built.metrics.insert("many".into(), classes_with(101, u64::MAX));
    built.metrics.insert("medium".into(), classes_with(20, 100));
    built.metrics.insert("few".into(), classes_with(0, 19));
    Ok(built)
}

fn concat(params: &Concat, inputs: &Inputs) -> Result<Built, Error> {
    let sources: Vec<Source> =
        params.data.iter().map(|input| Source::open(inputs, input.digest())).collect::<Result<_, _>>()?;
    let first = &sources[0].manifest;
    for source in &sources[1..] {
        let other = &source.manifest;
        if (&other.mask_classes, &other.ignore, &other.mask_values)
            != (&first.mask_classes, &first.ignore, &first.mask_values)
        {
            let (here, there) = (other.mask_classes.len(), first.mask_classes.len());
            return Err(source.bad(format!(
                "its masks are read differently from those of {}: {here} and {there} classes, or other values",
                sources[0].place()
            )));
        }
    }
    let classes: BTreeSet<&str> = sources.iter().flat_map(|s| s.manifest.classes.iter().map(String::as_str)).collect();
    let multi = sources.iter().any(|s| s.manifest.entries.iter().any(|entry| !entry.labels.is_empty()));
    if multi && sources.iter().any(|s| s.manifest.classes != first.classes) {
        return Err(sources[0].bad("pictures with several labels can be joined only where the classes are the same"));
    }
    let classes: Vec<&str> = classes.into_iter().collect();
    let mut entries = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut copies = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let placed = |file: &FileEntry| FileEntry { path: format!("{number}/{}", file.path), ..file.clone() };
        let renamed: Vec<Option<u32>> = source
            .manifest
            .classes
            .iter()
            .map(|class| classes.binary_search(&class.as_str()).ok().and_then(|at| u32::try_from(at).ok()))
            .collect();
        for entry in &source.manifest.entries {
            let placed = ImageEntry {
                file: placed(&entry.file),
                label: entry.label.and_then(|label| renamed.get(label as usize).copied().flatten()),
                labels: entry.labels.clone(),
                mask: entry.mask.as_deref().map(placed).map(Box::new),
                depth: entry.depth.as_deref().map(placed).map(Box::new),
            };
            if seen.insert(entry.file.digest.clone(), placed.file.path.clone()).is_some() {
                copies.push(placed.file.path.clone());
            }
            entries.push(placed);
        }
    }
    // With ten datasets and more the numbers in front do not sort as they count.
    entries.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    let manifest = ImageManifest {
        format: MANIFEST_FORMAT,
        classes: classes.into_iter().map(str::to_owned).collect(),
        entries,
        archive: None,
        ..first.clone()
    };
    let location = Location {
        form: LocationForm::Union,
        parts: sources.iter().map(|source| source.location.clone()).collect(),
        ..Location::default()
    };
    let mut built = Built::new(vec![("images".into(), bytes_of(&manifest))], location);
    report(&mut built, &manifest);
    if !copies.is_empty() {
        let shown = some(copies.iter().map(String::as_str), 3);
        built.warnings.push(format!(
            "{} an exact copy of another one: {shown}",
            match copies.len() {
                1 => "1 picture is".to_owned(),
                n => format!("{n} pictures are"),
            }
        ));
    }
    Ok(built)
}

fn filter(params: &Filter, inputs: &Inputs) -> Result<Built, Error> {
    let mut source = Source::open(inputs, params.data.digest())?;
    if let Some(wanted) = &params.classes {
        keep_classes(&mut source, wanted)?;
    }
    if let Some(pattern) = &params.glob {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| Error::layout("`glob`", error.to_string()))?.compile_matcher();
        source.manifest.entries.retain(|entry| glob.is_match(&entry.file.path));
        if source.manifest.entries.is_empty() {
            return Err(source.bad(format!("no path fits `{pattern}`")));
        }
    }
    if let Some(side) = params.min_side {
        let tree = Tree::open(&source.location)?;
        let large = |entry: &ImageEntry| -> Result<bool, Error> {
            let (width, height) = picture_size(&tree, &entry.file.path)?;
            Ok(width.min(height) as u64 >= side)
        };
        let large: Vec<bool> = source.manifest.entries.par_iter().map(large).collect::<Result<_, _>>()?;
        let mut large = large.into_iter();
        source.manifest.entries.retain(|_| large.next().unwrap_or_default());
        if source.manifest.entries.is_empty() {
            return Err(source.bad(format!("no picture is {side} pixels high and wide")));
        }
    }
    let all = (0..source.manifest.entries.len()).collect();
    let mut built = source.chosen(all)?;
    built.outputs.truncate(1);
    Ok(built)
}

/// Keeps the classes named, in the order they had, and the pictures that show one of them.
fn keep_classes(source: &mut Source, wanted: &[String]) -> Result<(), Error> {
    let classes = std::mem::take(&mut source.manifest.classes);
    if let Some(unknown) = wanted.iter().find(|name| !classes.contains(name)) {
        let known = some(classes.iter().map(String::as_str), 12);
        let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are {known}") };
        return Err(source.bad(format!("there is no class `{unknown}`; {known}")));
    }
    let kept: Vec<usize> = (0..classes.len()).filter(|&class| wanted.contains(&classes[class])).collect();
    let renamed = |label: u32| kept.binary_search(&(label as usize)).ok().and_then(|at| u32::try_from(at).ok());
    source.manifest.entries.retain_mut(|entry| {
        entry.label = entry.label.and_then(renamed);
        if !entry.labels.is_empty() {
            entry.labels = kept.iter().map(|&class| entry.labels[class]).collect();
        }
        entry.label.is_some() || entry.labels.contains(&1)
    });
    source.manifest.classes = kept.into_iter().map(|class| classes[class].clone()).collect();
    Ok(())
}

/// Which pictures are held out: a share of each class (of all without one), drawn by path; exact copies of a picture that
/// stays stay too. And what is to be said of that.
pub fn hold_out(entries: &[ImageEntry], share: f64, seed: u64) -> (Vec<bool>, Vec<String>) {
    let mut groups: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        groups.entry(entry.label).or_default().push(index);
    }
    let mut held_out = vec![false; entries.len()];
    for members in groups.values() {
        let paths: Vec<&str> = members.iter().map(|&index| entries[index].file.path.as_str()).collect();
        let drawn = draw(Purpose::Holdout, seed, &paths, holdout_size(members.len(), share));
        members.iter().zip(drawn).for_each(|(&index, out)| held_out[index] = out);
    }
    let mut warnings = Vec::new();
    keep_copies_together(entries, &mut held_out, &mut warnings);
    (held_out, warnings)
}

fn holdout(params: &Holdout, inputs: &Inputs) -> Result<Built, Error> {
    let source = Source::open(inputs, params.data.digest())?;
    let (held_out, warnings) = hold_out(&source.manifest.entries, params.share, params.split_seed);
    let side = |wanted: bool| {
        let entries = source.manifest.entries.iter().zip(&held_out).filter(|(_, out)| **out == wanted);
        ImageManifest { entries: entries.map(|(entry, _)| entry.clone()).collect(), ..source.manifest.clone() }
    };
    let (train, holdout) = (side(false), side(true));
    if holdout.entries.is_empty() {
        return Err(source.bad("nothing would be held out: no class has enough pictures for the share"));
    }
    let outputs = vec![("train".into(), bytes_of(&train)), ("holdout".into(), bytes_of(&holdout))];
    let mut built = Built { warnings, ..Built::new(outputs, source.location.clone()) };
    report(&mut built, &train);
    Ok(built)
}

fn mask_labels(params: &MaskLabels, inputs: &Inputs) -> Result<Built, Error> {
    let source = Source::open(inputs, params.data.digest())?;
    let ImageManifest { mask_classes, ignore, mask_values, .. } = &source.manifest;
    let answers: Vec<usize> =
        (0..mask_classes.len()).filter(|&class| !params.without.contains(&mask_classes[class])).collect();
    if answers.is_empty() {
        return Err(source.bad("no class of the masks is left to answer for; look at `without`"));
    }
    let tree = Tree::open(&source.location)?;
    let entry = |entry: &ImageEntry| -> Result<ImageEntry, Error> {
        let file = entry.mask.as_ref();
        let file = file.ok_or_else(|| source.bad(format!("`{}` has no mask", entry.file.path)))?;
        let bad = |why: String| source.bad(format!("the mask `{}`: {why}", file.path));
        let mut mask = decode_mask(&tree.read(&file.path)?).map_err(bad)?;
        if let Ok(table) = <&[u8; 256]>::try_from(mask_values.as_slice()) {
            mask.values.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
        }
        check_mask(&mask.values, mask.width, mask_classes.len(), ignore).map_err(bad)?;
        let mut pixels = [0_u64; 256];
        mask.values.iter().for_each(|value| pixels[usize::from(*value)] += 1);
        let answer = |&class: &usize| match pixels[class] {
            0 => -1,
            n if n < params.pixels => 0,
            _ => 1,
        };
        Ok(ImageEntry {
            file: entry.file.clone(),
            labels: answers.iter().map(answer).collect(),
            ..ImageEntry::default()
        })
    };
    let entries = source.manifest.entries.par_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let manifest = ImageManifest {
        format: MANIFEST_FORMAT,
        classes: answers.iter().map(|&class| mask_classes[class].clone()).collect(),
        entries,
        archive: source.manifest.archive.clone(),
        ..ImageManifest::default()
    };
    let mut built = Built::new(vec![("images".into(), bytes_of(&manifest))], source.location.clone());
    report(&mut built, &manifest);
    Ok(built)
}
