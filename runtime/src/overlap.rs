//! Looks for test pictures that something was learned from: the same bytes in the test split and in anything that the
//! step or its encoder used before. What was found is kept as a record, so that it is looked for once.

use crate::action::Action;
use anyhow::Result;
use harness_cache::{ActionKey, Cache, Digest, Record};
use harness_protocol::StepKind;
use harness_protocol::manifest::{ImageEntry, ImageManifest};
use harness_protocol::steps::Embed;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// What the steps of a run learned from, and what was found so far.
pub struct Overlap<'a> {
    cache: &'a Cache,
    /// Of each step: digests of all artifacts that it and the steps before it took.
    used: Vec<Rc<BTreeSet<String>>>,
    found: HashMap<Digest, Option<Found>>,
}

#[derive(Clone)]
struct Found {
    shared: u64,
    first: String,
}

impl<'a> Overlap<'a> {
    /// For a program of `steps` steps.
    pub fn new(steps: usize, cache: &'a Cache) -> Self {
        Self { cache, used: vec![Rc::default(); steps], found: HashMap::new() }
    }

    /// Notes what a step takes and, if it is judged on a `test` split, says what of that split was learned from.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn look(&mut self, step: usize, name: &str, before: &[usize], action: &Action) -> Result<Option<String>> {
        let mut used: BTreeSet<String> = before.iter().flat_map(|&input| self.used[input].iter().cloned()).collect();
        let fields = action.params.as_object().into_iter().flatten();
        // What is only watched is not learned from, nor is what is only looked at to be compared later.
        let seen = |field: &str| field == "test" || (action.info.name == Embed::KIND && field == "data");
        for (_, value) in fields.filter(|(field, _)| !seen(field) && !action.observed.contains_key(*field)) {
            artifacts(value, &mut used);
        }
        let test = action.params.pointer("/test/$artifact/digest").and_then(Value::as_str);
        let found = match test {
            Some(test) => self.find(test, &used)?,
            None => None,
        };
        used.extend(test.map(String::from));
        self.used[step] = Rc::new(used);
        Ok(found.map(|Found { shared, first }| {
            let (pictures, are) = if shared == 1 { ("picture", "is") } else { ("pictures", "are") };
            format!(
                "`{name}`: {shared} test {pictures} {are}, byte for byte, among those that it or its encoder learned from \
                 (first: `{first}`), so its numbers flatter; take them out of one of the two"
            )
        }))
    }

    fn find(&mut self, test: &str, used: &BTreeSet<String>) -> Result<Option<Found>> {
        let key = ActionKey::new("overlap", 1, json!({ "test": test, "used": used }));
        if let Some(known) = self.found.get(&key.digest()) {
            return Ok(known.clone());
        }
        let record = match self.cache.record(&key.digest())? {
            Some(record) => record,
            None => {
                let mut record = Record::new(key);
                let mut others = BTreeSet::new();
                for digest in used {
                    others.extend(self.entries(digest)?.into_iter().map(|entry| entry.file.digest));
                }
                let shared: Vec<String> = self
                    .entries(test)?
                    .into_iter()
                    .filter(|entry| others.contains(&entry.file.digest))
                    .map(|entry| entry.file.path)
                    .collect();
                record.metrics.insert("shared".into(), shared.len() as f64);
                record.provenance = json!({ "first": shared.first() });
                self.cache.append(&record)?;
                record
            }
        };
        let shared = record.metrics.get("shared").copied().unwrap_or_default() as u64;
        let first = record.provenance["first"].as_str().unwrap_or_default().to_string();
        let found = (shared > 0).then_some(Found { shared, first });
        self.found.insert(record.digest, found.clone());
        Ok(found)
    }

    /// Pictures of a manifest; none where the artifact is something else.
    fn entries(&self, digest: &str) -> Result<Vec<ImageEntry>> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(Vec::new()) };
        let Some(path) = self.cache.verified(&digest)? else { return Ok(Vec::new()) };
        let mut start = [0; 1];
        let file = std::fs::File::open(&path)?;
        // Encoders and archives are large and do not begin like a manifest.
        if std::os::unix::fs::FileExt::read_at(&file, &mut start, 0)? == 0 || start[0] != b'{' {
            return Ok(Vec::new());
        }
        let manifest: Option<ImageManifest> = serde_json::from_slice(&std::fs::read(&path)?).ok();
        Ok(manifest.map(|manifest| manifest.entries).unwrap_or_default())
    }
}

/// Digests of the artifacts anywhere in a value.
fn artifacts(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(digest) = fields.get("$artifact").and_then(|artifact| artifact["digest"].as_str()) {
                into.insert(digest.into());
            }
            fields.values().for_each(|value| artifacts(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| artifacts(value, into)),
        _ => {}
    }
}
