//! Looks for test pictures that something is learned from: the same bytes in a test split and in anything that the step
//! or its encoder takes. It is found as soon as both datasets are known, before anything is computed on them, and kept
//! as a record, so that it is looked for once.

use crate::action::Finished;
use crate::datasets;
use anyhow::Result;
use harness_cache::{ActionKey, Cache, Digest, Record};
use harness_dsl::{Catalog, Program, Step};
use harness_protocol::StepKind;
use harness_protocol::manifest::{ImageManifest, VideoManifest};
use harness_protocol::steps::Embed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The field by which a step says that it knows.
pub use harness_dsl::ALLOWS_OVERLAP as ALLOWED;
/// The field by which a step says which parts of its own pictures it looks at.
const REGIONS: &str = "regions";
/// Files named in a message.
const SHOWN: usize = 3;

/// An output of a dataset step.
type Split = (usize, String);

/// What each step of a program is judged on and learns from.
pub struct Overlap<'a> {
    cache: &'a Cache,
    judged: Vec<Judged>,
}

struct Judged {
    step: usize,
    allowed: bool,
    tests: BTreeSet<Split>,
    learned: BTreeSet<Split>,
}

/// Test pictures that were learned from.
pub struct Found {
    /// The step that is judged on them.
    pub step: usize,
    /// Whether the step says that it knows.
    pub allowed: bool,
    /// How many there are, where, and what to do.
    pub text: String,
}

impl<'a> Overlap<'a> {
    /// For the wanted steps of a program.
    pub fn new(program: &Program, catalog: &Catalog, wanted: &[bool], cache: &'a Cache) -> Self {
        let mut learned: Vec<BTreeSet<Split>> = Vec::new();
        let mut judged = Vec::new();
        for step in &program.steps {
            let mut from = BTreeSet::new();
            let mut tests = BTreeSet::new();
            if let Some(kind) = catalog.kind(&step.kind).filter(|_| !datasets::is_dataset(&step.kind)) {
                let test = kind.judged_on().filter(|_| step.choice.is_none());
                for (name, value) in &step.params {
                    let field = kind.field(name);
                    if test == Some(name.as_str()) {
                        splits(value, program, &[], &mut tests);
                    } else if field.is_none_or(|field| !field.observes)
                        && name != REGIONS
                        && !(step.kind == Embed::KIND && name == "data")
                    {
                        // What is only watched is not learned from, nor is what is only looked at to be compared later,
                        // nor are masks that say where in a test picture to look.
                        splits(value, program, &learned, &mut from);
                    }
                }
            }
            if wanted.get(step.id) == Some(&true) && !tests.is_empty() && !from.is_empty() {
                let allowed = step.params.get(ALLOWED) == Some(&Value::Bool(true));
                judged.push(Judged { step: step.id, allowed, tests, learned: from.clone() });
            }
            learned.push(from);
        }
        Self { cache, judged }
    }

    /// Looks at every step whose datasets have all become known since the last look.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn look(&mut self, program: &Program, finished: &[Option<Finished>]) -> Result<Vec<Found>> {
        let known = |split: &Split| finished.get(split.0).is_some_and(Option::is_some);
        let (ready, later): (Vec<Judged>, Vec<Judged>) = std::mem::take(&mut self.judged)
            .into_iter()
            .partition(|judged| judged.tests.iter().chain(&judged.learned).all(known));
        self.judged = later;
        let digest = |(step, output): &Split| {
            let record = &finished.get(*step)?.as_ref()?.record;
            Some(record.outputs.get(output)?.digest.to_string())
        };
        let mut found = Vec::new();
        for judged in ready {
            let learned: BTreeSet<String> = judged.learned.iter().filter_map(digest).collect();
            for test in &judged.tests {
                let Some(test_digest) = digest(test) else { continue };
                let shared = self.find(&test_digest, &learned)?;
                let Some(most) = shared.by.iter().max_by_key(|by| by.shared) else { continue };
                let name = |split: &Split| named(program, split);
                let train = judged.learned.iter().find(|split| digest(split).as_ref() == Some(&most.manifest));
                let train = train.map(name).unwrap_or_default();
                let label = &program.steps[judged.step].label;
                let text = message(label, &name(test), &train, &shared, most, judged.allowed);
                found.push(Found { step: judged.step, allowed: judged.allowed, text });
            }
        }
        Ok(found)
    }

    fn find(&self, test: &str, learned: &BTreeSet<String>) -> Result<Shared> {
        let key = ActionKey::new("overlap", 2, json!({ "test": test, "learned": learned }));
        if let Some(record) = self.cache.record(&key.digest())?
            && let Ok(shared) = serde_json::from_value(record.provenance.clone())
        {
            return Ok(shared);
        }
        let tests = self.files(test)?;
        let mut all: HashSet<&str> = HashSet::new();
        let mut by = Vec::new();
        for manifest in learned {
            let files: HashMap<String, String> =
                self.files(manifest)?.into_iter().map(|(path, digest)| (digest, path)).collect();
            let shared: Vec<&(String, String)> =
                tests.iter().filter(|(_, digest)| files.contains_key(digest)).collect();
            if !shared.is_empty() {
                all.extend(shared.iter().map(|(path, _)| path.as_str()));
                let pair = |(path, digest): &&(String, String)| (path.clone(), files[digest].clone());
                let files = shared.iter().take(SHOWN).map(pair).collect();
                by.push(By { manifest: manifest.clone(), shared: shared.len(), files });
            }
        }
        let shared = Shared { tests: tests.len(), shared: all.len(), by };
        let mut record = Record::new(key);
        record.metrics.insert("shared".into(), shared.shared as f64);
        record.provenance = json!(shared);
        self.cache.append(&record)?;
        Ok(shared)
    }

    /// Path and digest of the pictures or frames of a manifest; none where the artifact is something else.
    fn files(&self, digest: &str) -> Result<Vec<(String, String)>> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(Vec::new()) };
        let Some(path) = self.cache.verified(&digest)? else { return Ok(Vec::new()) };
        let bytes = std::fs::read(&path)?;
        if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) {
            return Ok(manifest.entries.into_iter().map(|entry| (entry.file.path, entry.file.digest)).collect());
        }
        let frames = serde_json::from_slice::<VideoManifest>(&bytes).map(|manifest| manifest.sequences);
        let frames = frames.unwrap_or_default().into_iter().flat_map(|sequence| sequence.frames);
        Ok(frames.map(|frame| (frame.path, frame.digest)).collect())
    }
}

/// What a test split shares with the datasets that were learned from.
#[derive(Serialize, Deserialize)]
struct Shared {
    tests: usize,
    shared: usize,
    by: Vec<By>,
}

/// What it shares with one of them: how many, and the first ones' paths there and here.
#[derive(Serialize, Deserialize)]
struct By {
    manifest: String,
    shared: usize,
    files: Vec<(String, String)>,
}

fn message(label: &str, test: &str, train: &str, shared: &Shared, most: &By, allowed: bool) -> String {
    let files: Vec<String> = most
        .files
        .iter()
        .map(|(test, train)| if test == train { format!("`{test}`") } else { format!("`{test}` (there `{train}`)") })
        .collect();
    let more = if most.shared > files.len() { ", …" } else { "" };
    let others = if shared.by.len() > 1 { " and others" } else { "" };
    let way = if allowed {
        "its numbers flatter".to_owned()
    } else {
        format!("take them out of one of the two, or say `{ALLOWED} = true` to have flattering numbers with a warning")
    };
    format!(
        "`{label}` is judged on what was learned from: {} of the {} files of `{test}` {} also in `{train}`{others}, byte for \
         byte: {}{more}; {way}",
        shared.shared,
        shared.tests,
        if shared.shared == 1 { "is" } else { "are" },
        files.join(", "),
    )
}

fn named(program: &Program, (step, output): &Split) -> String {
    program.steps.get(*step).map(|step: &Step| format!("{}.{output}", step.label)).unwrap_or_default()
}

/// The dataset outputs that a value refers to, and those that the steps it refers to learned from.
fn splits(value: &Value, program: &Program, learned: &[BTreeSet<Split>], into: &mut BTreeSet<Split>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref") {
                let step = reference["step"].as_u64().unwrap_or_default() as usize;
                if program.steps.get(step).is_some_and(|step| datasets::is_dataset(&step.kind)) {
                    into.insert((step, reference["output"].as_str().unwrap_or_default().to_owned()));
                } else if let Some(learned) = learned.get(step) {
                    into.extend(learned.iter().cloned());
                }
            }
            // What is given along with the test pictures (`regions = saliency { test = … }`) is not learned from.
            let given = |name: &str| matches!(name, "test" | "masks");
            let fields = fields.iter().filter(|(name, _)| !given(name));
            fields.for_each(|(_, value)| splits(value, program, learned, into));
        }
        Value::Array(values) => values.iter().for_each(|value| splits(value, program, learned, into)),
        _ => {}
    }
}
