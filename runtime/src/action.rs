//! From a step whose inputs are known to its action: key, job, and what the cache has of it.

use crate::config::Config;
use crate::text::{Reference, fields, references, substitute};
use anyhow::{Context as _, Result, anyhow, bail};
use harness_cache::{ActionKey, Cache, Digest, Record};
use harness_dsl::{Catalog, Program, Step};
use harness_protocol::job::{InputFiles, Location, LocationForm};
use harness_protocol::{Artifact, KindInfo, steps};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// A step that has a result, with what its successors need of it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The record of its action.
    pub record: Record,
    /// Where the files of its manifests lie, by the manifest's digest.
    pub data: BTreeMap<String, Location>,
}

/// One action: everything that is computed, or looked up.
#[derive(Clone)]
pub struct Action {
    /// The kind.
    pub info: &'static KindInfo,
    /// The key.
    pub key: ActionKey,
    /// Its digest.
    pub digest: Digest,
    /// Parameters with defaults resolved, inputs as artifacts and observing fields. Those of the key where nothing observes.
    pub params: Arc<Value>,
    /// The observing fields that are set.
    pub observed: BTreeMap<String, Value>,
    /// Files of the inputs, by digest.
    pub inputs: BTreeMap<String, InputFiles>,
}

/// Builds the action of `step`, whose inputs are all in `finished`.
///
/// # Errors
/// A file that is not there, a root that is not mapped, an output that an input does not have, a field that does not
/// fit the others.
pub fn action(
    step: &Step,
    program: &Program,
    catalog: &Catalog,
    config: &Config,
    cache: &Cache,
    finished: &[Option<Finished>],
) -> Result<Action> {
    let info = steps::kind(&step.kind).ok_or_else(|| anyhow!("there is no kind `{}`", step.kind))?;
    let mut params = fields(step, catalog);
    let mut inputs = BTreeMap::new();
    let mut failure = None;
    substitute(
        &mut params,
        &mut |reference| match artifact(reference, program, config, cache, finished, &mut inputs) {
            Ok(artifact) => Some(json!({ "$artifact": artifact })),
            Err(error) => {
                failure.get_or_insert(error);
                None
            }
        },
    );
    if let Some(error) = failure {
        return Err(error);
    }
    if step.kind == "command" {
        let name = params.get("run").and_then(|run| run.get(0)).and_then(Value::as_str).unwrap_or_default();
        let path = crate::command::search_path(params.get("env"));
        let program = crate::command::program(name, &config.folder, &path)
            .with_context(|| format!("the program `{name}` is neither on PATH nor beside the file"))?;
        params.insert("program_digest".into(), cache.file_digest(&program)?.to_string().into());
        let code = crate::command::code_digests(&params, &program, &config.folder, cache)?;
        params.insert("code_digests".into(), Value::Object(code));
    }
    let params = (info.resolve)(Value::Object(params)).map_err(|problems| {
        let said: Vec<String> = problems
            .iter()
            .map(|p| format!("{}{}{}", p.field, if p.field.is_empty() { "" } else { ": " }, p.message))
            .collect();
        anyhow!("{}", said.join("; "))
    })?;
    let (keyed, observed) = split(&params, catalog, info);
    let params = Arc::new(params);
    let mut key = ActionKey::new(info.name, info.version, keyed);
    if key.params == params {
        key.params = params.clone();
    }
    let digest = key.digest();
    Ok(Action { info, key, digest, params, observed, inputs })
}

/// Takes the observing fields out of the parameters.
pub fn split(params: &Value, catalog: &Catalog, info: &KindInfo) -> (Value, BTreeMap<String, Value>) {
    let mut keyed: Map<String, Value> = params.as_object().cloned().unwrap_or_default();
    let mut observed = BTreeMap::new();
    for field in catalog.kind(info.name).into_iter().flat_map(|kind| &kind.fields).filter(|field| field.observes) {
        if let Some(value) = keyed.remove(&field.name)
            && !value.is_null()
        {
            observed.insert(field.name.clone(), value);
        }
    }
    (Value::Object(keyed), observed)
}

/// The outputs of each step that wanted steps take.
pub fn taken(program: &Program, wanted: &[bool]) -> Vec<BTreeSet<String>> {
    let mut taken: Vec<BTreeSet<String>> = vec![BTreeSet::new(); program.steps.len()];
    for step in program.steps.iter().filter(|step| wanted[step.id]) {
        references(&step.params, &mut |reference| {
            if let Reference::Step { step, output } = reference
                && !taken[step].contains(output)
            {
                taken[step].insert(output.to_string());
            }
        });
    }
    taken
}

/// Kept epochs (`encoder@50`) among the outputs `taken` that a result lacks: `keep` is no part of the key, so an earlier
/// result may have others.
pub fn not_kept(record: &Record, taken: &BTreeSet<String>) -> Vec<String> {
    taken.iter().filter(|name| name.contains('@') && !record.outputs.contains_key(*name)).cloned().collect()
}

/// Epochs that outputs are of.
fn epochs<'a>(outputs: impl Iterator<Item = &'a String>) -> BTreeSet<u64> {
    outputs.filter_map(|name| name.rsplit_once('@')?.1.parse().ok()).collect()
}

impl Action {
    /// Has the epochs kept too that an earlier result kept, or that steps with the same key take: what is computed takes
    /// their place, and nothing that somebody takes is lost by it.
    pub fn keep_also(&mut self, record: Option<&Record>, taken: &[&BTreeSet<String>]) {
        let asked = self.params.get("keep").and_then(Value::as_array);
        let mut all: BTreeSet<u64> = asked.into_iter().flatten().filter_map(Value::as_u64).collect();
        let before = all.len();
        all.extend(record.into_iter().flat_map(|record| epochs(record.outputs.keys())));
        all.extend(taken.iter().flat_map(|taken| epochs(taken.iter())));
        if all.len() > before {
            Arc::make_mut(&mut self.params)["keep"] = json!(all);
            self.observed.insert("keep".into(), json!(all));
        }
    }
}

fn artifact(
    reference: Reference<'_>,
    program: &Program,
    config: &Config,
    cache: &Cache,
    finished: &[Option<Finished>],
    inputs: &mut BTreeMap<String, InputFiles>,
) -> Result<Artifact> {
    match reference {
        Reference::Path { root, path } => {
            let place = config.place(root, path)?;
            let digest = cache
                .file_digest(&place)
                .with_context(|| format!("the file {} cannot be read", place.display()))?
                .to_string();
            inputs.insert(digest.clone(), InputFiles { file: place, data: None });
            Ok(Artifact { kind: "file".into(), digest })
        }
        Reference::Step { step, output } => {
            let label = program.steps.get(step).map(|step| step.label.as_str()).unwrap_or_default();
            let from =
                finished.get(step).and_then(Option::as_ref).with_context(|| format!("`{label}` has no result"))?;
            let Some(found) = from.record.outputs.get(output) else {
                let names: Vec<&str> = from.record.outputs.keys().map(String::as_str).collect();
                bail!("`{label}` gave no output `{output}`; it gave {}", names.join(", "));
            };
            let digest = found.digest.to_string();
            let file = cache
                .blob(&found.digest)?
                .with_context(|| format!("the output `{output}` of `{label}` is gone from the cache"))?;
            inputs.insert(digest.clone(), InputFiles { file, data: from.data.get(&digest).cloned() });
            Ok(Artifact { kind: found.kind.clone(), digest })
        }
    }
}

/// The newest record of an action whose outputs are all there and intact.
///
/// # Errors
/// The cache cannot be read.
pub fn lookup(cache: &Cache, digest: &Digest) -> Result<Option<Finished>> {
    let Some(record) = cache.record(digest)? else { return Ok(None) };
    for output in record.outputs.values() {
        if cache.verified(&output.digest)?.is_none() {
            return Ok(None);
        }
    }
    let data = archives(cache, &record)?;
    Ok(data.map(|data| Finished { record, data }))
}

/// Where the generated files of a record's manifests lie; none when an archive is gone or damaged.
pub fn archives(cache: &Cache, record: &Record) -> Result<Option<BTreeMap<String, Location>>> {
    let mut data = BTreeMap::new();
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    for output in record.outputs.values().filter(|output| is_manifest(&output.kind)) {
        if !record.outputs.contains_key("archive") {
            break;
        }
        for archive in record.outputs.values().filter(|output| output.kind == "archive") {
            if seen.insert(archive.digest) && cache.verified(&archive.digest)?.is_none() {
                return Ok(None);
            }
            if let Some(path) = cache.blob(&archive.digest)? {
                data.insert(output.digest.to_string(), tar_at(&path));
            }
        }
    }
    Ok(Some(data))
}

/// Whether content of this kind is a manifest, whose files lie elsewhere.
pub fn is_manifest(kind: &str) -> bool {
    kind == "videos" || kind == "images" || kind.ends_with("_images")
}

fn tar_at(path: &Path) -> Location {
    Location { path: path.to_path_buf(), form: LocationForm::Tar, ..Location::default() }
}
