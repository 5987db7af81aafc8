//! Recorded runs: what `runs/<id>/` says of a run that ended, of one that goes on, and of one that was killed.
//!
//! A run's folder holds `run.json` (what was asked), `source.exp` (the text), `program.json` (the checked program) and
//! `events.jsonl` (what happened). Whoever runs holds a lock on the events: the kernel releases it however the process
//! ends, so nobody has to guess from process numbers whether a run goes on.

use crate::cli;
use crate::events::Status;
use anyhow::{Context as _, Result, bail};
use harness_cache::{Cache, Digest};
use harness_dsl::Program;
use harness_executors::Standing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What was asked of a run: `run.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The file as it was named.
    pub file: String,
    /// The file's absolute place then.
    pub path: PathBuf,
    /// When it began, milliseconds since 1970 (UTC).
    pub started_unix_ms: u64,
    /// Params given other values.
    pub params: Vec<(String, String)>,
    /// Steps asked for; all when none is named.
    pub targets: Vec<String>,
    /// Steps computed although known.
    pub force: Vec<String>,
    /// The process.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// Version of `harness`.
    pub harness: String,
}

impl Asked {
    /// For a run that begins now.
    pub fn now(arguments: &cli::Run) -> Self {
        Self {
            file: arguments.file.display().to_string(),
            path: arguments.file.canonicalize().unwrap_or_else(|_| arguments.file.clone()),
            started_unix_ms: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default(),
            params: arguments.params.clone(),
            targets: arguments.targets.clone(),
            force: arguments.force.clone(),
            pid: std::process::id(),
            host: crate::run::host(),
            harness: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Writes `run.json` into the run's folder.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::write(dir.join("run.json"), serde_json::to_vec_pretty(self)?)
    }
}

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name: when it began (UTC), and its process.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What was asked.
    pub asked: Asked,
}

/// How a step of a run stood last.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepEnd {
    /// Its kind.
    pub kind: String,
    /// Its key, once its inputs were known.
    pub key: Option<Digest>,
    /// How it ended; none while it is computed.
    pub status: Option<Status>,
    /// Seconds in that run.
    pub wall_s: f64,
    /// Its numbers. What JSON has no number for is not a number here.
    pub metrics: BTreeMap<String, f64>,
    /// Why it has no result.
    pub error: Option<String>,
    /// The slot that computes it.
    pub slot: String,
    /// How its job stands in a cluster's queue.
    pub queued: Option<String>,
    /// The last that it said of how far it is.
    pub progress: Option<Progress>,
    /// Lines about it: level, text.
    pub lines: Vec<(String, String)>,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// What is counted.
    pub stage: String,
    /// Done so far.
    pub done: u64,
    /// In the whole step.
    pub total: u64,
    /// Name of a unit.
    pub unit: String,
    /// Seconds since the step began.
    pub elapsed_s: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    /// Steps by how they ended.
    pub executed: u64,
    /// Known before.
    pub cached: u64,
    /// Could not be computed.
    pub failed: u64,
    /// Not tried.
    pub skipped: u64,
    /// Seconds.
    pub wall_s: f64,
    /// Whether it was told to stop.
    pub interrupted: bool,
    /// Claims with their outcomes.
    pub claims: BTreeMap<String, String>,
    /// The page.
    pub summary: Option<String>,
}

/// What a run's events tell.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// How many steps it is about.
    pub total: u64,
    /// Steps by label.
    pub steps: BTreeMap<String, StepEnd>,
    /// How it ended; none while it goes on, or when its process died.
    pub end: Option<End>,
}

/// How a run stands, in one word.
pub fn standing(run: &Run, told: &Told) -> &'static str {
    match &told.end {
        Some(end) if end.interrupted => "interrupted",
        Some(end) if end.failed > 0 => "failed",
        Some(_) => "finished",
        None if run.is_live() => "running",
        None => "killed",
    }
}

impl Run {
    /// When it began: `2026-11-25 00:31`, UTC.
    pub fn began(&self) -> String {
        match self.asked.started_unix_ms {
            0 => self.id.clone(),
            ms => cli::when(ms),
        }
    }

    /// Whether its process holds its events open.
    pub fn is_live(&self) -> bool {
        let Ok(file) = File::open(self.dir.join("events.jsonl")) else { return false };
        matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// Whether collection must leave it alone.
    pub fn is_pinned(&self) -> bool {
        self.dir.join("pinned").exists()
    }

    /// The checked program that ran.
    pub fn program(&self) -> Option<Program> {
        serde_json::from_slice(&std::fs::read(self.dir.join("program.json")).ok()?).ok()
    }

    /// The steps that ended with a result, and its key. Each step's last word counts.
    pub fn results(&self) -> HashMap<String, Digest> {
        let mut found = HashMap::new();
        self.ends(|ended| {
            match (ended.status, ended.key) {
                (Status::Executed | Status::Cached, Some(key)) => found.insert(ended.label.into_owned(), key),
                _ => found.remove(ended.label.as_ref()),
            };
        });
        found
    }

    /// Kinds of the steps that were executed, with the seconds each took.
    pub fn times(&self) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        self.ends(|ended| {
            if ended.status == Status::Executed {
                found.extend(ended.wall_s.map(|wall_s| (ended.kind.into_owned(), wall_s)));
            }
        });
        found
    }

    /// Tells of every step that ended. Lines that cannot be read (cut off by a crash) are passed over.
    fn ends(&self, mut tell: impl FnMut(Ended<'_>)) {
        let text = std::fs::read_to_string(self.dir.join("events.jsonl")).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("{\"event\":\"step_finished\"")) {
            if let Ok(ended) = serde_json::from_str(line) {
                tell(ended);
            }
        }
    }

    /// What its events tell. Lines that cannot be read (cut off by a crash) are passed over.
    pub fn told(&self) -> Told {
        let text = std::fs::read_to_string(self.dir.join("events.jsonl")).unwrap_or_default();
        let mut told = Told::default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines {
            // Only the last word of each step counts, and only while it is computed.
            if line.starts_with("{\"event\":\"metric\"") {
                continue;
            }
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            told.take(&event);
        }
        told
    }
}

impl Told {
    fn take(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
        let count = |name: &str| event[name].as_u64().unwrap_or_default();
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        match event["event"].as_str().unwrap_or_default() {
            "run_started" => self.total = count("steps"),
            "step_queued" => {
                let step = self.steps.entry(text("label")).or_default();
                let standing = Standing {
                    job: Some(text("job")),
                    state: text("state"),
                    reason: text("reason"),
                    node: text("node"),
                    ..Standing::default()
                };
                step.queued = Some(standing.said());
            }
            "step_started" => {
                let step = self.steps.entry(text("label")).or_default();
                (step.kind, step.key, step.slot) = (text("kind"), text("key").parse().ok(), text("slot"));
            }
            "progress" => {
                let (stage, unit) = (text("stage"), text("unit"));
                let elapsed_s = number(&event["elapsed_s"]);
                let progress = Progress { stage, done: count("done"), total: count("total"), unit, elapsed_s };
                self.steps.entry(text("label")).or_default().progress = Some(progress);
            }
            "log" => {
                if let Some(label) = event["label"].as_str() {
                    self.steps.entry(label.into()).or_default().lines.push((text("level"), text("text")));
                }
            }
            "step_finished" => {
                let step = self.steps.entry(text("label")).or_default();
                step.kind = text("kind");
                step.key = event["key"].as_str().and_then(|key| key.parse().ok());
                step.status = serde_json::from_value(event["status"].clone()).ok();
                step.wall_s = number(&event["wall_s"]);
                step.error = event["error"].as_str().map(String::from);
                step.progress = None;
                let metrics = event["metrics"].as_object().into_iter().flatten();
                step.metrics = metrics.map(|(name, value)| (name.clone(), number(value))).collect();
            }
            "run_finished" => {
                let claims = event["claims"].as_object().into_iter().flatten();
                self.end = Some(End {
                    executed: count("executed"),
                    cached: count("cached"),
                    failed: count("failed"),
                    skipped: count("skipped"),
                    wall_s: number(&event["wall_s"]),
                    interrupted: event["interrupted"].as_bool().unwrap_or_default(),
                    claims: claims.map(|(t, o)| (t.clone(), o.as_str().unwrap_or_default().into())).collect(),
                    summary: event["summary"].as_str().map(String::from),
                });
            }
            _ => {}
        }
    }

    /// Steps whose jobs wait in a cluster's queue, if the run goes on.
    pub fn queued(&self) -> impl Iterator<Item = (&String, &str)> {
        let waits = |step: &StepEnd| step.status.is_none() && step.slot.is_empty();
        self.steps
            .iter()
            .filter(move |(_, step)| waits(step))
            .filter_map(|(label, step)| Some((label, step.queued.as_deref()?)))
    }

    /// Steps being computed, if the run goes on.
    pub fn running(&self) -> impl Iterator<Item = (&String, &StepEnd)> {
        self.steps.iter().filter(|(_, step)| step.status.is_none() && !step.slot.is_empty())
    }
}

/// Every recorded run of a cache, newest first.
pub fn all(cache: &Path) -> Vec<Run> {
    let folders = std::fs::read_dir(cache.join("runs")).into_iter().flatten().flatten();
    let mut runs: Vec<Run> = folders.filter_map(|folder| read(&folder.path())).collect();
    runs.sort_by(|a, b| (b.asked.started_unix_ms, &b.id).cmp(&(a.asked.started_unix_ms, &a.id)));
    runs
}

fn read(dir: &Path) -> Option<Run> {
    let id = dir.file_name()?.to_str()?.to_string();
    let asked = std::fs::read(dir.join("run.json")).ok().and_then(|bytes| serde_json::from_slice::<Asked>(&bytes).ok());
    let asked = asked.or_else(|| {
        // Recorded before `run.json` was: its first event names the file, its name the time.
        let events = std::fs::read_to_string(dir.join("events.jsonl")).ok()?;
        let first: Value = serde_json::from_str(events.lines().next()?).ok()?;
        let stamp = id.get(..15)?;
        let began = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", stamp).ok()?.in_tz("UTC").ok()?;
        let started_unix_ms = u64::try_from(began.timestamp().as_millisecond()).ok()?;
        Some(Asked { file: first["file"].as_str()?.into(), started_unix_ms, ..Asked::default() })
    })?;
    Some(Run { id, dir: dir.to_path_buf(), asked })
}

/// Whether a run is one of this file: of the same place, or, where that place is gone (a project that was moved or
/// taken over from elsewhere), of the same name.
pub fn is_of(run: &Run, file: &Path) -> bool {
    let same_name = Path::new(&run.asked.file).file_name() == file.file_name();
    let path = &run.asked.path;
    same_name && (path.as_os_str().is_empty() || !path.exists() || file.canonicalize().is_ok_and(|file| file == *path))
}

/// The runs of a file, newest first.
pub fn of_file(cache: &Path, file: &Path) -> Vec<Run> {
    all(cache).into_iter().filter(|run| is_of(run, file)).collect()
}

/// The run that `name` means: its id or a beginning of it, `latest`, `latest~1` (the one before), or an `.exp` file
/// (its newest run) with `~N` as well.
///
/// # Errors
/// No such run, with the nearest one; several that begin alike; no run at all, with what to type.
pub fn find(cache: &Path, name: &str) -> Result<Run> {
    let runs = all(cache);
    let (base, back) = match name.rsplit_once('~') {
        Some((base, back)) if back.chars().all(|c| c.is_ascii_digit()) => (base, back.parse().unwrap_or(1)),
        _ => (name, 0),
    };
    let as_file = Path::new(base);
    if base.ends_with(".exp") || as_file.is_file() {
        let mut runs: Vec<Run> = runs.into_iter().filter(|run| is_of(run, as_file)).collect();
        return match runs.len() {
            0 => bail!("{base} has not been run with this cache; `harness run {base}` runs it"),
            n if back >= n => bail!("{base} has {n} recorded run{}, so there is no `{name}`", plural(n)),
            _ => Ok(runs.swap_remove(back)),
        };
    }
    if runs.is_empty() {
        bail!("nothing has been run with the cache {}; `harness run FILE` runs an experiment", cache.display());
    }
    if base == "latest" {
        let n = runs.len();
        return runs.into_iter().nth(back).with_context(|| format!("{n} runs are recorded, so there is no `{name}`"));
    }
    let found: Vec<&Run> = runs.iter().filter(|run| run.id == base || run.id.starts_with(base)).collect();
    match found.as_slice() {
        [run] => Ok((*run).clone()),
        [] => {
            let shared = |id: &str| id.chars().zip(base.chars()).take_while(|(a, b)| a == b).count();
            // The longest common beginning; the newest among equals.
            let nearest = runs.iter().rev().max_by_key(|run| shared(&run.id)).map_or("", |run| run.id.as_str());
            bail!("there is no run `{base}`; the nearest is `{nearest}` (`harness history FILE` lists those of a file)")
        }
        several => match several.iter().find(|run| run.id == base) {
            Some(run) => Ok((*run).clone()),
            None => {
                let names: Vec<&str> = several.iter().map(|run| run.id.as_str()).collect();
                bail!("`{base}` begins {} runs: {}; name one of them in full", several.len(), names.join(", "))
            }
        },
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// How a step ended, as its event says; what it measured is passed over.
#[derive(Deserialize)]
struct Ended<'a> {
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    key: Option<Digest>,
    status: Status,
    wall_s: Option<f64>,
}

/// Results that earlier runs of a file had, read run by run, newest first, and no further back than is asked.
#[derive(Debug)]
pub struct Earlier {
    unread: std::vec::IntoIter<Run>,
    /// Keys of each label, newest first, each once.
    found: HashMap<String, Vec<Digest>>,
}

impl Earlier {
    /// Of this file; nothing is read yet.
    pub fn of(cache: &Cache, file: &Path) -> Self {
        Self { unread: of_file(cache.dir(), file).into_iter(), found: HashMap::new() }
    }

    /// What `wanted` makes of the newest result of a label that it makes something of.
    ///
    /// # Errors
    /// Those of `wanted`.
    pub fn find<T>(
        &mut self,
        label: &str,
        mut wanted: impl FnMut(&Digest) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let mut at = 0;
        loop {
            while let Some(key) = self.found.get(label).and_then(|keys| keys.get(at)) {
                if let Some(one) = wanted(key)? {
                    return Ok(Some(one));
                }
                at += 1;
            }
            let Some(run) = self.unread.next() else { return Ok(None) };
            for (label, key) in run.results() {
                let keys = self.found.entry(label).or_default();
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(runs: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (index, (id, file)) in runs.iter().enumerate() {
            let folder = dir.path().join("runs").join(id);
            std::fs::create_dir_all(&folder).unwrap();
            let asked = Asked { file: (*file).into(), started_unix_ms: index as u64 + 1, ..Asked::default() };
            asked.write(&folder).unwrap();
        }
        dir
    }

    #[test]
    fn runs_are_found_by_name_beginning_file_and_distance() {
        let dir =
            cache(&[("20260101-000000-7", "a.exp"), ("20260102-000000-8", "b.exp"), ("20260103-000000-9", "a.exp")]);
        let id = |name: &str| find(dir.path(), name).map(|run| run.id).map_err(|error| error.to_string());
        assert_eq!(id("latest").unwrap(), "20260103-000000-9");
        assert_eq!(id("latest~1").unwrap(), "20260102-000000-8");
        assert_eq!(id("20260102").unwrap(), "20260102-000000-8");
        assert_eq!(id("a.exp").unwrap(), "20260103-000000-9");
        assert_eq!(id("a.exp~1").unwrap(), "20260101-000000-7");
        assert!(id("a.exp~2").unwrap_err().contains("has 2 recorded runs"));
        assert!(id("c.exp").unwrap_err().contains("`harness run c.exp`"));
        assert!(id("20260102-999999-8").unwrap_err().contains("nearest is `20260102-000000-8`"));
        assert!(id("202601").unwrap_err().contains("begins 3 runs"));
        assert!(
            find(tempfile::tempdir().unwrap().path(), "latest")
                .unwrap_err()
                .to_string()
                .contains("nothing has been run")
        );
    }

    #[test]
    fn a_cut_off_line_hides_nothing_before_it() {
        let dir = cache(&[("1-a", "a.exp")]);
        let run = find(dir.path(), "1-a").unwrap();
        let lines = [
            r#"{"event":"run_started","run":"1-a","file":"a.exp","steps":2,"cache":"c"}"#,
            r#"{"event":"step_started","step":0,"label":"x","kind":"command","key":"00","slot":"cpu#0"}"#,
            r#"{"event":"step_finished","step":0,"label":"x","kind":"command","key":null,"status":"executed","wall_s":1.5,"metrics":{"loss":null,"top1":0.5},"error":null}"#,
            r#"{"event":"step_started","step":1,"label":"y","kind":"command","key":"00","slot":"cpu#0"}"#,
            r#"{"event":"step_fin"#,
        ];
        std::fs::write(run.dir.join("events.jsonl"), lines.join("\n")).unwrap();
        let told = run.told();
        assert_eq!((told.total, told.steps["x"].status, told.steps["x"].wall_s), (2, Some(Status::Executed), 1.5));
        assert!(told.steps["x"].metrics["loss"].is_nan());
        assert_eq!(told.running().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["y"]);
        // Nobody holds its events, and they have no end.
        assert_eq!(standing(&run, &told), "killed");
    }
}
