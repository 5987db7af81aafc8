//! What the readers of official layouts share: the folder that a layout starts in, its lists, its statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness_protocol::manifest::{FileEntry, ImageEntry};
use harness_protocol::{Location, Series};

use crate::built::{Built, describe, gini, max_min_ratio, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::image_folder::open_inside;
use crate::tree::{Tree, TreeFile, join};

/// How many folders deep below the path a layout is looked for: `VOCdevkit/VOC2007`.
const DEPTH: usize = 2;

/// A tree whose top is where a layout starts, and its files.
pub(crate) struct Layout {
    pub tree: Tree,
    files: Vec<TreeFile>,
    sizes: HashMap<String, u64>,
}

impl Layout {
    /// Opens the folder that holds all of `markers` (paths such as `ImageSets/Main`): `inside` itself, or the only one
    /// at most two folders below it.
    ///
    /// # Errors
    /// `location` cannot be opened; no folder has the markers, or several have. Says what was looked for and found.
    pub fn open(location: &Location, inside: &str, markers: &[&str]) -> Result<Self, Error> {
        let tree = open_inside(location, inside)?;
        let files = tree.list()?;
        let mut tops: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for file in &files {
            for marker in markers {
                if let Some(top) = top_of(&file.path, marker) {
                    tops.entry(top).or_default().insert(marker);
                }
            }
        }
        let whole: Vec<&str> = tops.iter().filter(|(_, has)| has.len() == markers.len()).map(|(top, _)| *top).collect();
        let looked = some(markers.iter().copied(), 6);
        let top = match whole[..] {
            [top] => top,
            // The place named wins over what lies deeper inside it.
            ["", ..] => "",
            [] => {
                let nearest = tops.iter().max_by_key(|(_, has)| has.len());
                let found = match nearest {
                    Some((top, has)) => {
                        let place = if top.is_empty() { "the top".into() } else { format!("`{top}`") };
                        let lacking = markers.iter().copied().filter(|marker| !has.contains(marker));
                        format!("{place} lacks {}", some(lacking, 6))
                    }
                    None => format!("found {}", tops_of(&files)),
                };
                return Err(Error::layout(
                    tree.place(),
                    format!("looked for {looked}, at the top and up to {DEPTH} folders below it; {found}"),
                ));
            }
            _ => {
                let named = some(whole.iter().copied(), 6);
                return Err(Error::layout(
                    tree.place(),
                    format!("several folders hold {looked}: {named}; name one of them in `inside`"),
                ));
            }
        };
        if top.is_empty() {
            return Ok(Self::of(tree, files));
        }
        let start = format!("{top}/");
        let inner = files
            .iter()
            .filter_map(|f| Some(TreeFile { path: f.path.strip_prefix(&start)?.to_owned(), size: f.size }))
            .collect();
        let prefix = join(&tree.location().prefix, top);
        let tree = tree.at(&prefix)?;
        Ok(Self::of(tree, inner))
    }

    fn of(tree: Tree, files: Vec<TreeFile>) -> Self {
        let sizes = files.iter().map(|f| (f.path.clone(), f.size)).collect();
        Self { tree, files, sizes }
    }

    /// The tree in words, for messages.
    pub fn place(&self) -> String {
        self.tree.place()
    }

    /// Every file, sorted by path.
    pub fn files(&self) -> &[TreeFile] {
        &self.files
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.sizes.contains_key(path)
    }

    /// Files right in `folder`: name without its ending -> path. Only those that `take` wants.
    pub fn stems(&self, folder: &str, take: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        let start = format!("{folder}/");
        let mut stems = BTreeMap::new();
        for file in self.files.iter().filter(|f| take(&f.path)) {
            if let Some(name) = file.path.strip_prefix(&start)
                && !name.contains('/')
            {
                let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
                stems.entry(stem.to_owned()).or_insert_with(|| file.path.clone());
            }
        }
        stems
    }

    /// The lines of a list that are not empty, with their numbers; line ends may be LF or CRLF.
    ///
    /// # Errors
    /// It cannot be read, is no UTF-8 text, or has no lines.
    pub fn lines(&self, list: &str) -> Result<Vec<(usize, String)>, Error> {
        let text = String::from_utf8(self.tree.read(list)?)
            .map_err(|_| Error::layout(self.at(list), "the list is not UTF-8 text"))?;
        let lines: Vec<(usize, String)> = text
            .trim_start_matches('\u{feff}')
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim().to_owned()))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        if lines.is_empty() { Err(Error::layout(self.at(list), "the list is empty")) } else { Ok(lines) }
    }

    /// A file of the layout in words.
    pub fn at(&self, path: &str) -> String {
        format!("`{path}` in {}", self.place())
    }

    /// Describes files by path, each once.
    ///
    /// # Errors
    /// One is not there or cannot be read.
    pub fn describe(
        &self,
        paths: impl IntoIterator<Item = String>,
        hasher: &dyn FileHasher,
    ) -> Result<HashMap<String, FileEntry>, Error> {
        let paths: Vec<String> = paths.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let sizes: HashMap<&str, u64> = self.sizes.iter().map(|(path, size)| (path.as_str(), *size)).collect();
        let described = describe(&self.tree, &sizes, &paths, hasher)?;
        Ok(described.into_iter().map(|entry| (entry.path.clone(), entry)).collect())
    }
}

/// The folder above `marker` in `path`, when it lies at most [`DEPTH`] deep: `VOCdevkit/VOC2007` for `ImageSets/Main` in
/// `VOCdevkit/VOC2007/ImageSets/Main/cat_test.txt`.
fn top_of<'a>(path: &'a str, marker: &str) -> Option<&'a str> {
    let mut start = 0;
    for _ in 0..=DEPTH {
        if path[start..].strip_prefix(marker).is_some_and(|rest| rest.starts_with('/') || rest.is_empty()) {
            return Some(path[..start].trim_end_matches('/'));
        }
        start += path[start..].find('/')? + 1;
    }
    None
}

/// What lies at the top, in words.
fn tops_of(files: &[TreeFile]) -> String {
    let tops: BTreeSet<&str> =
        files.iter().map(|f| f.path.split_once('/').map_or(f.path.as_str(), |(top, _)| top)).collect();
    if tops.is_empty() { "nothing at all".into() } else { some(tops, 8) }
}

/// Reports class sizes: how many classes, how unequal they are, and the sizes themselves.
pub(crate) fn report_classes(built: &mut Built, sizes: &[u64]) {
    built.metrics.insert("classes".into(), sizes.len() as f64);
    if sizes.is_empty() {
        return;
    }
    built.metrics.insert("gini".into(), gini(sizes));
    built.metrics.extend(max_min_ratio(sizes).map(|ratio| ("max_min_ratio".to_owned(), ratio)));
    let counts = Series {
        x: (0..sizes.len()).map(|class| class as f64).collect(),
        y: sizes.iter().map(|&size| size as f64).collect(),
        x_label: "class".into(),
    };
    built.series.insert("class_counts".into(), counts);
}

/// How many entries have each class: by label, or by the answers of pictures that show several.
pub(crate) fn class_sizes(classes: usize, entries: &[ImageEntry]) -> Vec<u64> {
    let mut sizes = vec![0; classes];
    for entry in entries {
        if let Some(size) = entry.label.and_then(|label| sizes.get_mut(label as usize)) {
            *size += 1;
        }
        for (size, _) in sizes.iter_mut().zip(&entry.labels).filter(|(_, answer)| **answer == 1) {
            *size += 1;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tops_are_found_at_component_boundaries() {
        let path = "VOCdevkit/VOC2007/ImageSets/Main/cat_test.txt";
        assert_eq!(top_of(path, "ImageSets/Main"), Some("VOCdevkit/VOC2007"));
        assert_eq!(top_of(&path[10..], "ImageSets/Main"), Some("VOC2007"));
        assert_eq!(top_of(&path[18..], "ImageSets/Main"), Some(""));
        assert_eq!(top_of(path, "ImageSets/Mai"), None);
        assert_eq!(top_of("a/b/c/ImageSets/Main/x.txt", "ImageSets/Main"), None);
        assert_eq!(top_of("MyImageSets/Main/x.txt", "ImageSets/Main"), None);
    }
}
