//! What building a dataset gives, and the small things all builders share.

use std::collections::{BTreeMap, HashMap};

use harness_protocol::manifest::FileEntry;
use harness_protocol::{Location, Series};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::hash::FileHasher;
use crate::tree::Tree;

/// What building a dataset gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Outputs in the order of the step's declaration: name and bytes (a manifest or a gallery, as compact JSON).
    pub outputs: Vec<(String, Vec<u8>)>,
    /// Numbers by name.
    pub metrics: BTreeMap<String, f64>,
    /// Curves by name.
    pub series: BTreeMap<String, Series>,
    /// What is not a number, by name: for the record.
    pub notes: BTreeMap<String, Value>,
    /// Where the files of all manifests lie.
    pub location: Location,
    /// What a person should know of, one sentence each.
    pub warnings: Vec<String>,
}

impl Built {
    /// With nothing to report yet.
    pub(crate) fn new(outputs: Vec<(String, Vec<u8>)>, location: Location) -> Self {
        Self {
            outputs,
            metrics: BTreeMap::new(),
            series: BTreeMap::new(),
            notes: BTreeMap::new(),
            location,
            warnings: Vec::new(),
        }
    }

    /// The bytes of the output called `name`.
    pub fn output(&self, name: &str) -> Option<&[u8]> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice())
    }
}

/// Compact JSON; the same value always gives the same bytes.
pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Structs of strings, numbers and lists: serialising them cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Describes each path of `paths`, in order.
pub(crate) fn describe(
    tree: &Tree,
    sizes: &HashMap<&str, u64>,
    paths: &[String],
    hasher: &dyn FileHasher,
) -> Result<Vec<FileEntry>, Error> {
    let digests = hasher.digests(tree, paths)?;
    if digests.len() != paths.len() {
        return Err(Error::layout(tree.place(), format!("{} digests came for {} files", digests.len(), paths.len())));
    }
    paths
        .iter()
        .zip(digests)
        .map(|(path, digest)| match sizes.get(path.as_str()) {
            Some(&size) => Ok(FileEntry { path: path.clone(), size, digest }),
            None => Err(Error::Missing { file: path.clone(), place: tree.place(), hint: String::new() }),
        })
        .collect()
}

/// Gini coefficient of class sizes: 0 for equal ones, towards 1 when one class has everything.
///
/// G = Σᵢ (2i − n − 1) xᵢ / (n Σ xᵢ) with the sizes sorted upwards and i from 1 (Gini's mean difference, halved and
/// divided by the mean).
pub fn gini(sizes: &[u64]) -> f64 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let (n, total) = (sizes.len() as f64, sizes.iter().sum::<u64>() as f64);
    if total == 0.0 {
        return 0.0;
    }
    let weighted: f64 = sizes.iter().enumerate().map(|(i, &x)| (2.0 * (i + 1) as f64 - n - 1.0) * x as f64).sum();
    weighted / (n * total)
}

/// The largest class over the smallest; none when a class is empty or there is no class.
pub fn max_min_ratio(sizes: &[u64]) -> Option<f64> {
    match (sizes.iter().max(), sizes.iter().min()) {
        (Some(&max), Some(&min)) if min > 0 => Some(max as f64 / min as f64),
        _ => None,
    }
}

/// `1 picture`, `2 pictures`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A few names of many, quoted.
pub(crate) fn some<'a>(names: impl IntoIterator<Item = &'a str>, shown: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(shown).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > shown {
        text += &format!(" and {} more", names.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gini_of_known_sizes() {
        assert_eq!(gini(&[5, 5, 5]), 0.0);
        // One of four has everything: (n - 1) / n.
        assert_eq!(gini(&[0, 0, 0, 8]), 0.75);
        assert_eq!(gini(&[3, 1]), 0.25);
        assert_eq!(gini(&[]), 0.0);
    }

    #[test]
    fn ratio_of_known_sizes() {
        assert_eq!(max_min_ratio(&[10, 4, 5]), Some(2.5));
        assert_eq!(max_min_ratio(&[1, 0]), None);
        assert_eq!(max_min_ratio(&[]), None);
    }
}
