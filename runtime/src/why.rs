//! Why a step runs: what differs between its key and that of its newest earlier result, followed to the file of the
//! dataset or the output of the step that it comes from.

use crate::config::Config;
use crate::project::Project;
use crate::run::State;
use crate::runs::Earlier;
use crate::text::{Reference, fields, substitute};
use crate::{action, command, datasets, inputs};
use anyhow::Result;
use harness_cache::{ActionKey, Cache, Difference, Digest, Record};
use harness_dsl::{Catalog, Step};
use harness_protocol::steps;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

/// Files of a dataset that are named.
const NAMED: usize = 5;
/// Letters of a value that are shown.
const SHOWN: usize = 80;
/// Letters of a long value before the place where it differs.
const LEAD: usize = 20;
/// The digest of what is not known yet.
const UNKNOWN: &str = "unknown";

/// How a file of a dataset changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path in the dataset.
    pub path: String,
    /// Its digest before; none for a new one.
    pub before: Option<String>,
    /// Its digest now; none for one that is gone.
    pub after: Option<String>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// No earlier run of this file has a result of this name.
    New,
    /// A field has another value.
    Field {
        /// Dotted path.
        field: String,
        /// Earlier value.
        before: Option<Value>,
        /// Present value.
        after: Option<Value>,
    },
    /// The kind is implemented anew.
    Version {
        /// The kind.
        kind: String,
        /// Earlier version.
        before: Value,
        /// Present version.
        after: Value,
    },
    /// The program of a `command` is another one.
    Program {
        /// As written.
        program: String,
        /// Earlier digest.
        before: String,
        /// Present digest.
        after: String,
    },
    /// A file of the user's has other content.
    File {
        /// The field that names it.
        field: String,
        /// Its path as written.
        path: String,
        /// Earlier digest.
        before: String,
        /// Present digest.
        after: String,
    },
    /// An output of another step has other content.
    Input {
        /// The field that takes it.
        field: String,
        /// The step that gives it.
        step: String,
        /// Which of its outputs.
        output: String,
        /// Earlier digest.
        before: String,
        /// Present digest.
        after: String,
        /// For datasets: the files that differ.
        files: Vec<FileChange>,
    },
    /// The dataset itself has other content.
    Content {
        /// Which output.
        output: String,
        /// Earlier digest.
        before: String,
        /// Present digest.
        after: String,
        /// The files that differ.
        files: Vec<FileChange>,
    },
    /// A result is recorded and its bytes are gone or damaged.
    Lost {
        /// The outputs that cannot be read.
        outputs: Vec<String>,
    },
    /// A result is recorded, and epochs that other steps take were not kept in it.
    NotKept {
        /// The outputs that are lacking.
        outputs: Vec<String>,
    },
    /// A step that it takes something from runs first.
    Waits {
        /// That step.
        step: String,
    },
    /// Its inputs or its fields do not permit it to run.
    Failed {
        /// What is wrong.
        error: String,
    },
}

/// How a step stands before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its result is known.
    Known,
    /// It will be computed.
    Runs,
    /// It takes something from a step that will run: known if that gives the bytes it gave before.
    Depends,
    /// It cannot be computed.
    Fails,
}

/// A step explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Its label.
    pub label: String,
    /// Its family.
    pub family: String,
    /// Its kind.
    pub kind: String,
    /// How it stands.
    pub standing: Standing,
    /// Its key, once its inputs are known.
    pub key: Option<Digest>,
    /// The newest earlier result of the same name, which the causes compare with.
    pub against: Option<Against>,
    /// Why it runs; for a known one: how it differs from the newest result that is another one.
    pub causes: Vec<Cause>,
}

impl Explained {
    /// Of a step whose result is there, compared with nothing.
    fn known(step: &Step, state: &State) -> Self {
        Self {
            label: step.label.clone(),
            family: step.name.clone(),
            kind: step.kind.clone(),
            standing: Standing::Known,
            key: state.key,
            against: None,
            causes: Vec::new(),
        }
    }
}

/// An earlier result.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// Its key.
    pub key: Digest,
    /// When it was finished, milliseconds since 1970 (UTC).
    pub finished_unix_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// Its epochs, where it has such a field.
    #[serde(skip)]
    pub epochs: Option<f64>,
}

impl Against {
    fn of(record: &Record) -> Self {
        Self {
            key: record.digest,
            finished_unix_ms: record.finished_unix_ms,
            seconds: record.duration_s,
            epochs: record.key.params.get("epochs").and_then(Value::as_f64),
        }
    }
}

/// Explains every wanted step, in the order of the program; those that are `known` as well: what changed since the result before.
///
/// # Errors
/// The cache cannot be read.
pub fn explain(project: &Project, states: &[State], wanted: &[bool], known: bool) -> Result<Vec<Option<Explained>>> {
    let mut earlier = Earlier::of(&project.cache, &project.file);
    // Only what is lost makes anybody ask.
    let taken = LazyCell::new(|| action::taken(&project.program, wanted));
    let mut explained: Vec<Option<Explained>> = Vec::new();
    for (step, state) in project.program.steps.iter().zip(states) {
        explained.push(match wanted[step.id] {
            true if state.finished.is_some() && !known => Some(Explained::known(step, state)),
            true => Some(one(project, step, state, states, &explained, &mut earlier, &|| &taken[step.id])?),
            false => None,
        });
    }
    Ok(explained)
}

fn one<'t>(
    project: &Project,
    step: &Step,
    state: &State,
    states: &[State],
    before: &[Option<Explained>],
    earlier: &mut Earlier,
    taken: &dyn Fn() -> &'t BTreeSet<String>,
) -> Result<Explained> {
    let cache = &project.cache;
    let known = state.finished.is_some();
    // The same key again means that its result was lost: see below.
    let other =
        earlier.find(&step.label, |key| if Some(*key) == state.key { Ok(None) } else { Ok(cache.record(key)?) })?;
    let mut causes = Vec::new();
    let mut standing = if known { Standing::Known } else { Standing::Runs };
    let mut lost = None;
    if !known && let Some(key) = state.key {
        lost = cache.record(&key)?;
    }
    if let Some(record) = &lost {
        let mut outputs = Vec::new();
        for (name, output) in &record.outputs {
            if cache.verified(&output.digest)?.is_none() {
                outputs.push(name.clone());
            }
        }
        let lacking = action::not_kept(record, taken());
        causes.push(match outputs.is_empty() && !lacking.is_empty() {
            true => Cause::NotKept { outputs: lacking },
            false => Cause::Lost { outputs },
        });
    }
    match (&state.action, &other) {
        (None, _) if state.error.is_some() && state.status == crate::events::Status::Failed => {
            standing = Standing::Fails;
            causes.push(Cause::Failed { error: state.error.clone().unwrap_or_default() });
        }
        (Some(_), _) if lost.is_some() => {}
        (Some(action), Some(other)) => causes.extend(differences(project, step, other, action)),
        (Some(_), None) if !known => causes.push(Cause::New),
        (Some(_), None) => {}
        (None, _) => {
            match &other {
                // Nothing of a choice can be told before its numbers are there.
                _ if step.choice.is_some() => {}
                // What can be compared although some inputs are still to come.
                Some(other) => match provisional(step, &project.catalog, &project.config, cache, states) {
                    Ok(action) => causes.extend(differences(project, step, other, &action)),
                    Err(error) => {
                        standing = Standing::Fails;
                        causes.push(Cause::Failed { error: format!("{error:#}") });
                    }
                },
                None => causes.push(Cause::New),
            }
            let upstream = |wanted: Standing| {
                let inputs = step.inputs.iter().filter_map(|&input| before[input].as_ref());
                inputs.filter(move |input| input.standing == wanted).map(|input| input.label.clone())
            };
            let fails: Vec<String> = upstream(Standing::Fails).collect();
            if !fails.is_empty() {
                standing = Standing::Fails;
                causes.extend(fails.into_iter().map(|step| Cause::Waits { step }));
            } else if standing != Standing::Fails {
                if causes.is_empty() {
                    standing = Standing::Depends;
                }
                causes.extend(
                    upstream(Standing::Runs).chain(upstream(Standing::Depends)).map(|step| Cause::Waits { step }),
                );
            }
        }
    }
    let against = other.as_ref().or(lost.as_ref()).map(Against::of);
    Ok(Explained { standing, against, causes, ..Explained::known(step, state) })
}

/// The written fields in which a step differs from a recorded result of its name, as far as that is known without
/// looking at its inputs.
pub fn fields_since(step: &Step, catalog: &Catalog, config: &Config, cache: &Cache, record: &Record) -> Vec<String> {
    // The key of a dataset holds what was found there, which is not looked at.
    if datasets::is_external(&step.kind) {
        return Vec::new();
    }
    let Ok(now) = provisional(step, catalog, config, cache, &[]) else { return Vec::new() };
    let known = |difference: &Difference| {
        let after = difference.after.as_ref().and_then(Value::as_str);
        after != Some(UNKNOWN) && !difference.path.ends_with(".$artifact.kind") && !difference.path.contains("digest")
    };
    let differences = record.key.diff(&now).into_iter().filter(known);
    differences.map(|difference| format!("`{}`", difference.path.trim_start_matches("params."))).collect()
}

/// The key of a step with what is known of its inputs; the digests of the others are [`UNKNOWN`].
fn provisional(step: &Step, catalog: &Catalog, config: &Config, cache: &Cache, states: &[State]) -> Result<ActionKey> {
    let info = steps::kind(&step.kind).ok_or_else(|| anyhow::anyhow!("there is no kind `{}`", step.kind))?;
    let mut params = fields(step, catalog);
    let unknown = || json!({ "$artifact": { "kind": "file", "digest": UNKNOWN } });
    substitute(&mut params, &mut |reference| {
        Some(match reference {
            Reference::Step { step, output } => {
                let state = states.get(step).and_then(|state| state.finished.as_ref());
                let found = state.and_then(|finished| finished.record.outputs.get(output));
                found.map_or_else(unknown, |o| json!({ "$artifact": { "kind": o.kind, "digest": o.digest } }))
            }
            Reference::Path { root, path } => {
                let place = config.place(root, path);
                let digest = place.and_then(|place| Ok(cache.file_digest(&place)?));
                digest.map_or_else(|_| unknown(), |d| json!({ "$artifact": { "kind": "file", "digest": d } }))
            }
        })
    });
    if step.kind == "command"
        && let Some(name) = params.get("run").and_then(|run| run.get(0)).and_then(Value::as_str)
        && let Some(program) = command::program(name, &config.folder, &command::search_path(params.get("env")))
    {
        let digest = cache.file_digest(&program)?.to_string();
        params.insert("program_digest".into(), digest.into());
    }
    let params = (info.resolve)(Value::Object(params)).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let (keyed, _) = action::split(&params, catalog, info);
    Ok(ActionKey::new(info.name, info.version, keyed))
}

fn differences(project: &Project, step: &Step, before: &Record, now: &ActionKey) -> Vec<Cause> {
    let written = fields(step, &project.catalog);
    before.key.diff(now).iter().filter_map(|difference| cause(project, step, &written, difference)).collect()
}

/// What a difference between two keys comes from.
fn cause(project: &Project, step: &Step, written: &Map<String, Value>, difference: &Difference) -> Option<Cause> {
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or("nothing").to_string();
    let (before, after) = (text(&difference.before), text(&difference.after));
    if after == UNKNOWN {
        return None;
    }
    let path = difference.path.strip_prefix("params.").unwrap_or(&difference.path);
    // The key of a dataset holds its fields and the contents found, side by side.
    if datasets::is_external(&step.kind)
        && let Some(output) = path.strip_prefix("content.")
    {
        let files = changed(&project.cache, &before, &after);
        return Some(Cause::Content { output: output.into(), before, after, files });
    }
    let path = if datasets::is_external(&step.kind) { path.strip_prefix("params.").unwrap_or(path) } else { path };
    if path == "version" {
        let value = |value: &Option<Value>| value.clone().unwrap_or_default();
        let (before, after) = (value(&difference.before), value(&difference.after));
        return Some(Cause::Version { kind: step.kind.clone(), before, after });
    }
    if path == "program_digest" {
        let program = written.get("run").and_then(|run| run.get(0)).and_then(Value::as_str).unwrap_or_default();
        return Some(Cause::Program { program: program.into(), before, after });
    }
    if let Some(field) = path.strip_suffix(".$artifact.digest") {
        let place = at(written, field);
        if let Some(reference) = place.and_then(|place| place.get("$ref")) {
            let from = reference["step"].as_u64().and_then(|id| project.program.steps.get(id as usize));
            return Some(Cause::Input {
                field: field.into(),
                step: from.map(|from| from.label.clone()).unwrap_or_default(),
                output: reference["output"].as_str().unwrap_or_default().into(),
                files: changed(&project.cache, &before, &after),
                before,
                after,
            });
        }
        let path = place.and_then(|place| place.get("path")).and_then(Value::as_str).unwrap_or(field).to_string();
        return Some(Cause::File { field: field.into(), path, before, after });
    }
    // Another kind of content comes with another content, which is told.
    if path.ends_with(".$artifact.kind") {
        return None;
    }
    Some(Cause::Field { field: path.into(), before: difference.before.clone(), after: difference.after.clone() })
}

/// The written value at a path such as `source.copy.of` or `views[1].size`.
pub fn at<'a>(written: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.').flat_map(|part| part.split('[')).map(|part| part.trim_end_matches(']'));
    let mut value = written.get(parts.next()?)?;
    for part in parts {
        value = match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            other => other.get(part)?,
        };
    }
    Some(value)
}

/// Files that differ between two manifests; none where the contents are no manifests, or no longer there.
pub fn changed(cache: &Cache, before: &str, after: &str) -> Vec<FileChange> {
    let (Some(before), Some(after)) = (listed(cache, before), listed(cache, after)) else { return Vec::new() };
    let mut changes: Vec<FileChange> = Vec::new();
    for (path, digest) in &after {
        let old = before.get(path);
        if old != Some(digest) {
            changes.push(FileChange { path: path.clone(), before: old.cloned(), after: Some(digest.clone()) });
        }
    }
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    changes.extend(gone.map(|(path, old)| FileChange { path: path.clone(), before: Some(old.clone()), after: None }));
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn listed(cache: &Cache, digest: &str) -> Option<BTreeMap<String, String>> {
    let path = cache.verified(&digest.parse().ok()?).ok().flatten()?;
    // A manifest is text that begins with a brace; a checkpoint of gigabytes is not read for that.
    let mut first = [0];
    std::io::Read::read_exact(&mut std::fs::File::open(&path).ok()?, &mut first).ok()?;
    if first != *b"{" {
        return None;
    }
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let mut files = BTreeMap::new();
    inputs::list(&manifest, &mut files);
    (!files.is_empty()).then_some(files)
}

/// The beginning of a digest, enough for people.
pub fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// Two values as `20 -> 30`; long ones from shortly before the place where they begin to differ.
pub fn moved(before: &Option<Value>, after: &Option<Value>) -> String {
    let text = |value: &Option<Value>| value.as_ref().map_or("nothing".to_string(), Value::to_string);
    let (before, after) = (text(before), text(after));
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let long = before.chars().count().max(after.chars().count()) > SHOWN;
    let skipped = if long { same.saturating_sub(LEAD) } else { 0 };
    let cut = |text: &str| {
        let shown: String = text.chars().skip(skipped).take(SHOWN).collect();
        let head = if skipped > 0 { "…" } else { "" };
        let tail = if text.chars().count() > skipped + SHOWN { "…" } else { "" };
        format!("{head}{shown}{tail}")
    };
    format!("{} -> {}", cut(&before), cut(&after))
}

/// Files in words: `a.png changed (3f2a… -> 9d3c…), b.png is new, and 3 more`.
pub fn files(changes: &[FileChange], digests: bool) -> String {
    let mut said: Vec<String> = changes
        .iter()
        .take(NAMED)
        .map(|change| match (&change.before, &change.after) {
            (Some(before), Some(after)) if digests => {
                format!("{} changed ({} -> {})", change.path, short(before), short(after))
            }
            (Some(_), Some(_)) => format!("{} changed", change.path),
            (None, _) => format!("{} is new", change.path),
            (_, None) => format!("{} is gone", change.path),
        })
        .collect();
    if changes.len() > NAMED {
        said.push(format!("and {} more", changes.len() - NAMED));
    }
    said.join(", ")
}

/// A reason in words. For several members of a family at once: without digests, and with families for members.
pub fn told(cause: &Cause, many: bool) -> String {
    let family = |label: &str| match (many, label.split_once('[')) {
        (true, Some((family, _))) => family.to_string(),
        _ => label.to_string(),
    };
    let digests = |before: &str, after: &str| {
        if many { String::new() } else { format!(", {} -> {}", short(before), short(after)) }
    };
    match cause {
        Cause::New => "no earlier run has a result of this name".into(),
        Cause::Field { field, before, after } => format!("{field}: {}", moved(before, after)),
        Cause::Version { kind, before, after } => {
            format!("`{kind}` computes something else now: version {before} -> {after}")
        }
        Cause::Program { program, before, after } => {
            format!("the program `{program}` is another one{}", digests(before, after))
        }
        Cause::File { field, path, before, after } => {
            format!("{field}: the file {path} changed{}", digests(before, after))
        }
        Cause::Input { field, step, output, before, after, files: changes } => {
            let head = format!("{field}: `{}.{output}` has another content{}", family(step), digests(before, after));
            if changes.is_empty() { head } else { format!("{head}: {}", files(changes, !many)) }
        }
        Cause::Content { output, before, after, files: changes } => {
            let head = format!("{output}: another content{}", digests(before, after));
            if changes.is_empty() { head } else { format!("{head}: {}", files(changes, !many)) }
        }
        Cause::NotKept { outputs } => format!("{} is taken and was not kept when it ran", outputs.join(", ")),
        Cause::Lost { outputs } if outputs.is_empty() => "its result is recorded and incomplete".into(),
        Cause::Lost { outputs } => {
            format!("its result is recorded and gone or damaged in the store: {}", outputs.join(", "))
        }
        Cause::Waits { step } => format!("takes the result of `{}`", family(step)),
        Cause::Failed { error } => error.lines().next().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_like_sentences() {
        let field = Cause::Field { field: "k".into(), before: Some(json!(20)), after: Some(json!(30)) };
        assert_eq!(told(&field, false), "k: 20 -> 30");
        let change = |path: &str, before: Option<&str>, after: Option<&str>| FileChange {
            path: path.into(),
            before: before.map(String::from),
            after: after.map(String::from),
        };
        let input = Cause::Input {
            field: "train".into(),
            step: "photos[seed=1]".into(),
            output: "images".into(),
            before: "aaaaaaaaaaaaaaaa".into(),
            after: "bbbbbbbbbbbbbbbb".into(),
            files: vec![
                change("a.png", Some("1111111111111"), Some("2222222222222")),
                change("b.png", None, Some("3")),
            ],
        };
        assert_eq!(
            told(&input, false),
            "train: `photos[seed=1].images` has another content, aaaaaaaaaaaa -> bbbbbbbbbbbb: a.png changed (111111111111 -> 222222222222), b.png is new"
        );
        assert_eq!(told(&input, true), "train: `photos.images` has another content: a.png changed, b.png is new");
        let many: Vec<FileChange> = (0..8).map(|i| change(&format!("{i}"), Some("x"), None)).collect();
        assert!(files(&many, false).ends_with("4 is gone, and 3 more"));
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let long = |end: &str| Some(Value::from(format!("{}{end}", "x".repeat(200))));
        assert_eq!(moved(&long("1"), &long("22")), format!("…{0}1\" -> …{0}22\"", "x".repeat(LEAD)));
        assert_eq!(moved(&None, &Some(json!(1))), "nothing -> 1");
    }

    #[test]
    fn written_values_are_found_by_their_path() {
        let written = json!({ "source": { "copy": { "of": { "$ref": 1 } } }, "views": [{ "size": 3 }, { "size": 4 }] });
        let written = written.as_object().unwrap();
        assert_eq!(at(written, "source.copy.of"), Some(&json!({ "$ref": 1 })));
        assert_eq!(at(written, "views[1].size"), Some(&json!(4)));
        assert_eq!(at(written, "views[2].size"), None);
    }
}
