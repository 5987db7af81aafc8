//! Dataset steps, which `harness` executes itself: manifests of the user's files, and generated scenes.

use crate::action::{Action, Finished};
use crate::config::Config;
use anyhow::{Context as _, Result};
use harness_cache::{ActionKey, Cache, Digest, Output, Record, Series};
use harness_datasets::{Built, Error, FileHasher, ParallelHasher, Tree};
use harness_protocol::job::{Location, LocationForm};
use harness_protocol::steps::Scenes;
use harness_protocol::value::PathRef;
use harness_protocol::{KindInfo, steps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Whether steps of this kind describe files of the user's: they are looked at in every run, by their stats.
pub fn is_external(kind: &str) -> bool {
    harness_datasets::builder(kind).is_some()
}

/// Digests of files through the cache's table, so that the second look at a dataset is a stat.
struct Remembered<'a>(&'a Cache);

impl FileHasher for Remembered<'_> {
    fn digests(&self, tree: &Tree, paths: &[String]) -> Result<Vec<String>, Error> {
        let location = tree.location();
        if location.form == LocationForm::Folder {
            let full: Option<Vec<PathBuf>> = paths.iter().map(|path| tree.absolute(path)).collect();
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
            if let Some(full) = full
                && let Ok(digests) = self.0.file_digests(&full, threads)
            {
                return Ok(digests.iter().map(Digest::to_string).collect());
            }
            return ParallelHasher.digests(tree, paths);
        }
        // An archive is known by its own digest, and that by its stat; its members are hashed once.
        let Ok(archive) = self.0.file_digest(&location.path) else { return ParallelHasher.digests(tree, paths) };
        let asked = Digest::of_bytes(format!("{}\0{}", location.prefix, paths.join("\0")).as_bytes());
        let fact = format!("members/1/{archive}/{asked}");
        if let Ok(Some(bytes)) = self.0.recall(fact.as_bytes())
            && let Ok(digests) = serde_json::from_slice::<Vec<String>>(&bytes)
            && digests.len() == paths.len()
        {
            return Ok(digests);
        }
        let digests = ParallelHasher.digests(tree, paths)?;
        if let Ok(bytes) = serde_json::to_vec(&digests) {
            // A table that cannot be written only makes the next look slower.
            let _ = self.0.remember(fact.as_bytes(), &bytes);
        }
        Ok(digests)
    }
}

/// Describes a dataset of the user's as it lies there now. The record is not yet appended.
///
/// # Errors
/// The root is not mapped, the files are not there or not as the kind needs them.
pub fn external(
    info: &'static KindInfo,
    params: &Value,
    config: &Config,
    cache: &Cache,
) -> Result<(Finished, Vec<String>)> {
    let path: PathRef = serde_json::from_value(params["path"].clone())?;
    let place = config.place(path.root.as_deref(), &path.path)?;
    let location = harness_datasets::locate(&place).with_context(|| format!("the dataset {path}"))?;
    let hasher = Remembered(cache);
    // A list is a place too: its reader wants to know where it lies.
    let mut params = params.clone();
    if let Some(list) = params.get_mut("list").filter(|list| list.is_object()) {
        let named: PathRef = serde_json::from_value(list.clone())?;
        let place = config.place(named.root.as_deref(), &named.path)?;
        *list = json!({ "root": null, "path": place });
    }
    let asked = known_by(info, &params, &location, cache);
    if let Some(known) = asked.as_ref().and_then(|asked| recall(asked, cache)) {
        return Ok(known);
    }
    let builder = harness_datasets::builder(info.name).with_context(|| format!("nothing builds `{}`", info.name))?;
    let built = builder(&params, &location, &hasher)?;
    // The key has what decides the result: the other parameters and the content found, not the place.
    let mut keyed = params.as_object().cloned().unwrap_or_default();
    keyed.remove("path");
    if keyed.get("list").is_some_and(Value::is_object) {
        keyed.remove("list");
    }
    let contents: BTreeMap<&str, String> =
        built.outputs.iter().map(|(name, bytes)| (name.as_str(), Digest::of_bytes(bytes).to_string())).collect();
    let key = ActionKey::new(info.name, info.version, json!({ "params": keyed, "content": contents }));
    let location = built.location.clone();
    let (finished, warnings) = finish(info, key, built, cache)?;
    // Files that changed meanwhile have another state now, and then nothing is known of this one.
    if let Some(asked) = asked.filter(|asked| cache.tree_state(&asked.top).ok().flatten() == Some(asked.state)) {
        let known = Known { state: asked.state, record: finished.record, location, warnings };
        if let Ok(bytes) = serde_json::to_vec(&known) {
            // A table that cannot be written only makes the next look slower.
            let _ = cache.remember(asked.fact.as_bytes(), &bytes);
        }
        return Ok((Finished { record: known.record, data: finished.data }, known.warnings));
    }
    Ok((finished, warnings))
}

/// A question whose answer holds for as long as no file below a folder changes.
struct Asked {
    top: PathBuf,
    state: Digest,
    fact: String,
}

/// What was found out of a folder.
#[derive(Serialize, Deserialize)]
struct Known {
    /// Of the folder.
    state: Digest,
    record: Record,
    location: Location,
    warnings: Vec<String>,
}

/// The question that a dataset step asks of a folder; none where it is an archive, or changed a moment ago.
fn known_by(info: &KindInfo, params: &Value, location: &Location, cache: &Cache) -> Option<Asked> {
    if location.form != LocationForm::Folder {
        // An archive is known by its own digest; asking for it has the cache take down its state.
        if cache.file_digest(&location.path).is_err() {
            cache.observe_nothing();
        }
        return None;
    }
    let state = cache.tree_state(&location.path).ok()??;
    // Its list may lie elsewhere.
    let list = match params.get("list").and_then(|list| list["path"].as_str()) {
        Some(list) => cache.file_digest(Path::new(list)).ok()?.to_string(),
        None => String::new(),
    };
    // Another build may describe otherwise.
    let build = std::env::current_exe().and_then(std::fs::metadata).map(|m| (m.len(), m.modified().ok())).ok()?;
    let text = format!("{}\0{}\0{params}\0{list}\0{build:?}", info.name, info.version);
    let fact = format!("dataset/1/{}/{}", location.path.display(), Digest::of_bytes(text.as_bytes()));
    Some(Asked { top: location.path.clone(), state, fact })
}

/// The answer, if it is known and its manifests are there.
fn recall(asked: &Asked, cache: &Cache) -> Option<(Finished, Vec<String>)> {
    let known: Known = serde_json::from_slice(&cache.recall(asked.fact.as_bytes()).ok()??).ok()?;
    if known.state != asked.state {
        return None;
    }
    let mut data = BTreeMap::new();
    for output in known.record.outputs.values() {
        cache.verified(&output.digest).ok()??;
        data.insert(output.digest.to_string(), known.location.clone());
    }
    Some((Finished { record: known.record, data }, known.warnings))
}

/// Whether steps of this kind make datasets from datasets: they take no time and run where they are planned.
pub fn is_derived(kind: &str) -> bool {
    harness_datasets::deriver(kind).is_some()
}

/// Whether steps of this kind give datasets, and nothing else.
pub fn is_dataset(kind: &str) -> bool {
    is_external(kind) || is_derived(kind) || kind == "scenes"
}

/// Makes a dataset from others into `store`, or finds that it was made before. The record is not yet appended if it is
/// new, which the last of what comes back tells.
///
/// # Errors
/// The datasets are not as the kind needs them, or the cache cannot be read.
pub fn derived(action: &Action, cache: &Cache, store: &Cache, force: bool) -> Result<(Finished, Vec<String>, bool)> {
    if !force && let Some(mut known) = crate::action::lookup(cache, &action.digest)? {
        let location = harness_datasets::derived_location(&action.params, &action.inputs)?;
        let manifests = known.record.outputs.values().filter(|output| crate::action::is_manifest(&output.kind));
        known.data = manifests.map(|output| (output.digest.to_string(), location.clone())).collect();
        let warnings: Vec<String> =
            serde_json::from_value(known.record.provenance["warnings"].clone()).unwrap_or_default();
        return Ok((known, warnings, false));
    }
    let deriver = harness_datasets::deriver(action.info.name).context("nothing makes this kind")?;
    let mut built = deriver(&action.params, &action.inputs)?;
    // They are said again whenever the dataset is used.
    built.notes.insert("warnings".into(), json!(built.warnings));
    let (mut finished, warnings) = finish(action.info, action.key.clone(), built, store)?;
    let like = |data: &Value| data.pointer("/$artifact/kind").and_then(Value::as_str).map(String::from);
    let data = &action.params["data"];
    let kind = like(data).or_else(|| like(&data[0])).unwrap_or("images".into());
    for output in finished.record.outputs.values_mut().filter(|output| output.kind.starts_with("same as ")) {
        output.kind.clone_from(&kind);
    }
    Ok((finished, warnings, true))
}

/// Generates scenes into the store.
///
/// # Errors
/// The store cannot be written.
pub fn scenes(key: ActionKey, params: &Value, cache: &Cache) -> Result<(Finished, Vec<String>)> {
    let params: Scenes = serde_json::from_value(params.clone())?;
    let dir = cache.temp_dir()?;
    let tar = dir.path().join("scenes.tar");
    let built = harness_datasets::scenes(&params, &tar)?;
    let (digest, size) = cache.take_file(&tar)?;
    let info = steps::kind("scenes").context("the kind `scenes` is gone")?;
    let (mut finished, warnings) = finish(info, key, built, cache)?;
    finished
        .record
        .outputs
        .insert("archive".into(), Output { kind: "archive".into(), digest, size, name: "scenes.tar".into() });
    finished.data = crate::action::archives(cache, &finished.record)?.unwrap_or_default();
    Ok((finished, warnings))
}

fn finish(info: &KindInfo, key: ActionKey, built: Built, cache: &Cache) -> Result<(Finished, Vec<String>)> {
    let mut record = Record::new(key);
    let mut data = BTreeMap::new();
    for (name, bytes) in &built.outputs {
        let kind = info.outputs.iter().find(|output| output.name == name).map_or("file", |output| output.artifact);
        let digest = Digest::of_bytes(bytes);
        if cache.verified(&digest)?.is_none() {
            cache.put_bytes(bytes)?;
        }
        data.insert(digest.to_string(), built.location.clone());
        record.outputs.insert(
            name.clone(),
            Output { kind: kind.into(), digest, size: bytes.len() as u64, name: format!("{name}.json") },
        );
    }
    record.metrics = built.metrics;
    record.provenance = json!(built.notes);
    let series = built.series.into_iter();
    record.series = series.map(|(name, s)| (name, Series { x: s.x, y: s.y, x_label: s.x_label })).collect();
    Ok((Finished { record, data }, built.warnings))
}
