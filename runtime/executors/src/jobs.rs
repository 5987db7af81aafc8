//! The jobs of a run: submits them in arrays, follows their files, asks the queue rarely, and says of each once how it
//! ended.
//!
//! What is believed, in this order: the ending that the batch script left; the scheduler's word that a job ended; after
//! a grace time of being neither in the queue nor ended, that it is lost. A job that was preempted, lost or stopped at
//! its time limit gets another attempt, which goes on from the step's own checkpoint. Each attempt has a folder and a name
//! of its own, and `current` says which one counts: one that comes late finds that and does nothing.

use crate::clock::Clock;
use crate::scheduler::{Ask, Batch, Entry, PREFIX, Scheduler, Trouble};
use crate::script::{Beginning, Ending, NO_FOLDER, NO_JOB, NO_PROGRAM, NO_SPACE, quoted, script};
use crate::standing::{Standing, home};
use harness_protocol::{FromWorker, Job, Outcome, PROTOCOL_VERSION};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files of running jobs that are looked at in one round.
const FOLLOWED: usize = 64;
/// Bytes of one job's messages that are read in one round.
const READ_AT_ONCE: u64 = 1 << 20;
/// Lines of what a step printed that go into a message.
const TAIL: usize = 20;
/// Times a job may be lost before its step fails.
const MOST_LOST: u32 = 3;
/// Times a job may be preempted or stopped at its time limit before its step fails.
const MOST_STOPPED: u32 = 100;
/// A node's clock that is off by less says nothing.
const SKEW: f64 = 30.0;

/// What of a cluster's ways can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs are collected for so long before they are submitted together.
    pub gather: Duration,
    /// Members of an array at most.
    pub array: usize,
    /// The queue is asked at most so often…
    pub ask: Duration,
    /// …and, while nothing changes, less and less often down to this.
    pub ask_rarely: Duration,
    /// How long a job may be neither in the queue nor ended.
    pub grace: Duration,
    /// How long cancelled jobs have for their checkpoints.
    pub parting: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { gather: s(1), array: 500, ask: s(10), ask_rarely: s(60), grace: s(90), parting: s(40) }
    }
}

/// The program that runs a job, with the words before `--job FILE --events FILE`.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Its file, on the node.
    pub program: PathBuf,
    /// Its first arguments.
    pub words: Vec<String>,
}

/// A step to be computed as a job. Its key names it.
pub struct Order {
    /// The job; where its outputs go is decided here.
    pub job: Job,
    /// What runs it.
    pub runner: Runner,
    /// What it asks for.
    pub ask: Ask,
    /// The state of what the job reads, in any words: one that was submitted for another state is not followed on, since it may
    /// have read something else under the same key.
    pub inputs: String,
}

/// Where a step ran and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The node.
    pub host: String,
    /// The scheduler's name for the job.
    pub job: String,
    /// Seconds on nodes, all attempts together.
    pub ran_s: f64,
    /// Seconds from the order to the end that were not on a node.
    pub waited_s: f64,
    /// GPUs that it had.
    pub gpus: u32,
    /// Attempts that were made.
    pub attempts: u32,
    /// Where its outputs lie, until [`Jobs::forget`].
    pub out: PathBuf,
    /// What it printed, until then.
    pub log: PathBuf,
}

/// How a step ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It gave this.
    Done(Box<Outcome>),
    /// It, or what was asked for, was wrong; in words.
    Failed(String),
    /// Its process or its job ended without a word.
    Died(String),
    /// It was asked to stop.
    Cancelled,
}

/// What there is to say, each with the key of a step.
#[derive(Clone, Debug)]
pub enum Note {
    /// How its job stands in the queue now.
    Stands(String, Standing),
    /// It runs on this node.
    Began(String, String),
    /// Its program says this; never how it ended.
    Said(String, FromWorker),
    /// People should know; none for what concerns all jobs.
    Warned(Option<String>, String),
    /// It ended. Comes once for each order.
    Ended(String, End, Place),
}

struct Live {
    ask: Ask,
    runner: Runner,
    version: u32,
    kind: String,
    work: PathBuf,
    standing: Standing,
    /// Name of the attempt: its number and something that no other one has.
    attempt: String,
    ordered: Duration,
    /// When it was submitted; none while it waits for that.
    submitted: Option<Duration>,
    submitted_unix: f64,
    began: bool,
    host: String,
    /// Bytes of its messages that were read.
    read: u64,
    last: Option<FromWorker>,
    ending: Option<(Ending, Duration)>,
    /// Answers since the ending that decide what a `TERM` meant.
    asked_since: bool,
    /// Since when it is neither in the queue nor ended.
    missing: Option<Duration>,
    exit: Option<i32>,
    ran_s: f64,
    lost: u32,
    stopped: u32,
    /// What its checkpoints looked like when it was submitted.
    mark: u64,
    refused: Option<String>,
}

/// What becomes of a job.
enum Verdict {
    Wait,
    End(End),
    /// Another attempt, and why.
    Again(String),
}

/// The jobs of a run.
pub struct Jobs {
    scheduler: Box<dyn Scheduler>,
    clock: Box<dyn Clock>,
    settings: Settings,
    home: PathBuf,
    live: BTreeMap<String, Live>,
    /// Members of this process's arrays that are not forgotten.
    batches: BTreeMap<String, usize>,
    asked: Option<Duration>,
    interval: Duration,
    /// No submission before.
    resume: Duration,
    pause: Duration,
    /// Where the next round of following begins.
    next: String,
    cancelled: Option<Duration>,
    /// Said once: troubles, and hosts with wrong clocks.
    said: BTreeSet<String>,
}

impl Jobs {
    /// With its folder in a cache folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(
        cache: &Path,
        scheduler: Box<dyn Scheduler>,
        clock: Box<dyn Clock>,
        settings: Settings,
    ) -> io::Result<Self> {
        let home = home(cache);
        for folder in ["jobs", "batches", "ends"] {
            fs::create_dir_all(home.join(folder))?;
        }
        sweep(&home);
        let interval = settings.ask;
        Ok(Self {
            scheduler,
            clock,
            settings,
            home,
            live: BTreeMap::new(),
            batches: BTreeMap::new(),
            asked: None,
            interval,
            resume: Duration::ZERO,
            pause: Duration::ZERO,
            next: String::new(),
            cancelled: None,
            said: BTreeSet::new(),
        })
    }

    /// Jobs that have not ended.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Takes an order, or takes over the job that another process left for the same key: whether it did that.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn add(&mut self, order: Order) -> io::Result<bool> {
        let now = self.clock.now();
        let key = order.job.key.clone();
        let mut left = self.left(&key);
        if left.as_ref().is_some_and(|(standing, _)| standing.inputs != order.inputs) {
            self.call_off(&key);
            left = None;
        }
        let mut live = Live {
            ask: order.ask,
            runner: order.runner,
            version: order.job.version,
            kind: order.job.kind.clone(),
            work: order.job.work_dir.clone(),
            standing: Standing { label: order.job.label.clone(), inputs: order.inputs, ..Standing::default() },
            attempt: String::new(),
            ordered: now,
            submitted: None,
            submitted_unix: self.clock.unix(),
            began: false,
            host: String::new(),
            read: 0,
            last: None,
            ending: None,
            asked_since: false,
            missing: None,
            exit: None,
            ran_s: 0.0,
            lost: 0,
            stopped: 0,
            mark: mark(&order.job.work_dir),
            refused: None,
        };
        let adopted = left.is_some();
        match left {
            Some((standing, attempt)) => {
                (live.standing, live.attempt, live.submitted) = (standing, attempt, Some(now));
                self.interval = self.settings.ask;
            }
            None => self.write(&key, &mut live, order.job)?,
        }
        self.live.insert(key, live);
        Ok(adopted)
    }

    /// The job that another process submitted for this key.
    fn left(&self, key: &str) -> Option<(Standing, String)> {
        let folder = self.home.join("jobs").join(key);
        let mut standing: Standing = serde_json::from_slice(&fs::read(folder.join("standing.json")).ok()?).ok()?;
        let attempt = fs::read_to_string(folder.join("current")).ok()?.trim().to_string();
        let of_it = attempt.split('-').next().and_then(|number| number.parse().ok()) == Some(standing.attempt);
        if standing.batch.is_empty() || !of_it || !folder.join(&attempt).join("job.json").is_file() {
            return None;
        }
        // What failed while nobody looked is tried again.
        let ending = fs::read(self.home.join("ends").join(format!("{key}.{attempt}"))).ok();
        let ending = ending.and_then(|bytes| serde_json::from_slice::<Ending>(&bytes).ok());
        if ending.is_some_and(|ending| ending.status != 0 && ending.told.is_empty()) {
            return None;
        }
        let id = fs::read_to_string(self.home.join("batches").join(&standing.batch).join("id")).ok();
        standing.job = id.map(|id| format!("{}_{}", id.trim(), standing.index)).or(standing.job);
        Some((standing, attempt))
    }

    /// Writes the files of a new attempt.
    fn write(&self, key: &str, live: &mut Live, mut job: Job) -> io::Result<()> {
        let folder = self.home.join("jobs").join(key);
        let before =
            Standing::read(self.home.parent().unwrap_or(&self.home), key).map_or(0, |standing| standing.attempt);
        let number = before.max(live.standing.attempt) + 1;
        let attempt = format!("{number}-{}", token());
        let at = folder.join(&attempt);
        fs::create_dir_all(&at)?;
        job.out_dir = at.join("out");
        fs::write(at.join("job.json"), serde_json::to_vec(&job)?)?;
        let mut words = vec![live.runner.program.to_string_lossy().into_owned()];
        words.extend(live.runner.words.iter().cloned());
        words.extend(["--job".into(), at.join("job.json").to_string_lossy().into_owned()]);
        words.extend(["--events".into(), at.join("events.jsonl").to_string_lossy().into_owned()]);
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        fs::write(at.join("run"), format!("exec {}\n", words.join(" ")))?;
        let new = folder.join("current.new");
        fs::write(&new, &attempt)?;
        fs::rename(&new, folder.join("current"))?;
        let (label, inputs) = (live.standing.label.clone(), live.standing.inputs.clone());
        live.standing = Standing { label, inputs, attempt: number, ..Standing::default() };
        live.standing.write(&self.home, key)?;
        live.attempt = attempt;
        live.mark = mark(&live.work);
        (live.submitted, live.began, live.read, live.last) = (None, false, 0, None);
        (live.ending, live.asked_since, live.missing, live.exit, live.refused) = (None, false, None, None, None);
        Ok(())
    }

    /// Cancels the job that another process submitted for this key, and forgets it. For the holder of the key's lease: nobody
    /// follows that job any more. Whether there was one.
    pub fn call_off(&mut self, key: &str) -> bool {
        let Some((standing, _)) = self.left(key) else { return false };
        if let Some((id, index)) = number(&standing) {
            // One that goes on finds that it does not count any more.
            let _ = self.scheduler.cancel(&[(id, vec![index])]);
        }
        self.forget(key);
        true
    }

    /// Removes what is left of a step's jobs, once its outputs are taken.
    pub fn forget(&mut self, key: &str) {
        let folder = self.home.join("jobs").join(key);
        // First: an attempt that comes late must find that it does not count.
        let _ = fs::remove_file(folder.join("current"));
        let standing = fs::read(folder.join("standing.json")).ok();
        let _ = fs::remove_dir_all(&folder);
        for ending in entries(&self.home.join("ends")) {
            if ending.starts_with(key) {
                let _ = fs::remove_file(self.home.join("ends").join(ending));
            }
        }
        let batch = standing.and_then(|bytes| serde_json::from_slice::<Standing>(&bytes).ok()).map(|s| s.batch);
        if let Some(left) = batch.as_ref().and_then(|batch| self.batches.get_mut(batch)) {
            *left = left.saturating_sub(1);
        }
        if let Some(batch) = batch.filter(|batch| self.batches.get(batch) == Some(&0)) {
            self.batches.remove(&batch);
            let _ = fs::remove_dir_all(self.home.join("batches").join(batch));
        }
    }

    /// Asks every job to stop: those that run write their checkpoints. They end within [`Settings::parting`].
    pub fn cancel(&mut self, on: &mut dyn FnMut(Note)) {
        if self.cancelled.is_some() {
            return;
        }
        self.cancelled = Some(self.clock.now());
        let mut arrays: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for live in self.live.values() {
            if let Some((id, index)) = number(&live.standing) {
                arrays.entry(id).or_default().push(index);
            }
        }
        let arrays: Vec<_> = arrays.into_iter().collect();
        let told = if arrays.is_empty() { Ok(()) } else { self.scheduler.cancel(&arrays) };
        if let Err(trouble) = &told {
            on(Note::Warned(None, format!("jobs may go on in the queue: {trouble}")));
        }
        let keys: Vec<String> = self.live.keys().cloned().collect();
        for key in keys {
            self.follow(&key, on);
            let Some(live) = self.live.get(&key) else { continue };
            // What has not begun leaves nothing to wait for; should it begin after all it finds that it does not count.
            if !live.began && (live.submitted.is_none() || told.is_ok() && number(&live.standing).is_some()) {
                let _ = fs::remove_file(self.home.join("jobs").join(&key).join("current"));
                self.end(&key, End::Cancelled, on);
                self.forget(&key);
            }
        }
    }

    /// Gives up waiting for cancelled jobs.
    pub fn abandon(&mut self, on: &mut dyn FnMut(Note)) {
        let keys: Vec<String> = self.live.keys().cloned().collect();
        keys.iter().for_each(|key| self.end(key, End::Cancelled, on));
    }

    /// One round: whatever is due. To be called about once a second.
    pub fn tick(&mut self, on: &mut dyn FnMut(Note)) {
        if self.cancelled.is_none() {
            self.submit(on);
        }
        self.collect();
        self.look(on);
        self.ask(on);
        let now = self.clock.now();
        let over = self.cancelled.is_some_and(|since| now.saturating_sub(since) > self.settings.parting);
        let keys: Vec<String> = self
            .live
            .iter()
            .filter(|(_, live)| live.ending.is_some() || live.refused.is_some() || over)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.follow(&key, on);
            let verdict = self.judge(&key, now);
            self.carry_out(&key, verdict, over, on);
        }
    }

    fn carry_out(&mut self, key: &str, verdict: Verdict, over: bool, on: &mut dyn FnMut(Note)) {
        match verdict {
            Verdict::Wait if over => self.end(key, End::Cancelled, on),
            Verdict::Wait => {}
            Verdict::End(end) => self.end(key, end, on),
            Verdict::Again(_) if self.cancelled.is_some() => self.end(key, End::Cancelled, on),
            Verdict::Again(why) => {
                on(Note::Warned(
                    Some(key.into()),
                    format!("{why}; another attempt goes on from its checkpoint, if it left one"),
                ));
                if let Err(error) = self.again(key) {
                    self.end(key, End::Failed(format!("{why}; another attempt cannot be written: {error}")), on);
                }
            }
        }
    }

    fn end(&mut self, key: &str, end: End, on: &mut dyn FnMut(Note)) {
        let Some(live) = self.live.remove(key) else { return };
        let at = self.home.join("jobs").join(key).join(&live.attempt);
        let ran_s = live.ran_s + live.ending.as_ref().map_or(0.0, |(ending, _)| (ending.ended - ending.began).max(0.0));
        let total = self.clock.now().saturating_sub(live.ordered).as_secs_f64();
        let place = Place {
            host: live.host,
            job: live.standing.job.unwrap_or_default(),
            ran_s,
            waited_s: (total - ran_s).max(0.0),
            gpus: live.ask.gpus,
            attempts: live.standing.attempt,
            out: at.join("out"),
            log: at.join("log.txt"),
        };
        on(Note::Ended(key.into(), end, place));
    }

    /// Prepares another attempt of a job.
    fn again(&mut self, key: &str) -> io::Result<()> {
        let Some(mut live) = self.live.remove(key) else { return Ok(()) };
        if let Some((ending, _)) = &live.ending {
            live.ran_s += (ending.ended - ending.began).max(0.0);
        }
        let folder = self.home.join("jobs").join(key).join(&live.attempt);
        if let Some(left) = self.batches.get_mut(&live.standing.batch) {
            *left = left.saturating_sub(1);
        }
        let job = fs::read(folder.join("job.json")).and_then(|bytes| Ok(serde_json::from_slice::<Job>(&bytes)?));
        let written = job.and_then(|job| self.write(key, &mut live, job));
        if written.is_ok() {
            let _ = fs::remove_dir_all(&folder);
        }
        self.live.insert(key.into(), live);
        written
    }

    /// Submits what has been collected for long enough, those that ask for the same together.
    fn submit(&mut self, on: &mut dyn FnMut(Note)) {
        let now = self.clock.now();
        if now < self.resume {
            return;
        }
        let mut groups: BTreeMap<Ask, Vec<String>> = BTreeMap::new();
        let mut due: BTreeSet<Ask> = BTreeSet::new();
        for (key, live) in self.live.iter().filter(|(_, live)| live.submitted.is_none() && live.refused.is_none()) {
            let group = groups.entry(live.ask.clone()).or_default();
            group.push(key.clone());
            if now.saturating_sub(live.ordered) >= self.settings.gather || group.len() >= self.settings.array {
                due.insert(live.ask.clone());
            }
        }
        for (ask, keys) in groups.into_iter().filter(|(ask, _)| due.contains(ask)) {
            for keys in keys.chunks(self.settings.array.max(1)) {
                if !self.submit_array(&ask, keys, on) {
                    return;
                }
            }
        }
    }

    /// Whether to go on submitting.
    fn submit_array(&mut self, ask: &Ask, keys: &[String], on: &mut dyn FnMut(Note)) -> bool {
        let name = format!("{PREFIX}{}", token());
        let folder = self.home.join("batches").join(&name);
        let text = script(&self.home, &name);
        let mut written = fs::create_dir_all(&folder);
        let mut tasks = String::new();
        for (index, key) in keys.iter().enumerate() {
            let Some(live) = self.live.get_mut(key) else { continue };
            tasks.push_str(&format!("{key}/{}\t{}\n", live.attempt, live.runner.program.display()));
            (live.standing.batch, live.standing.index) = (name.clone(), index);
            written = written.and_then(|()| live.standing.write(&self.home, key));
        }
        written = written.and_then(|()| fs::write(folder.join("tasks"), tasks));
        let now = self.clock.now();
        let answer = match &written {
            Ok(()) => self.scheduler.submit(&Batch { name: &name, ask, script: &text, count: keys.len() }),
            Err(error) => Err(Trouble::Refused(format!("{} cannot be written: {error}", folder.display()))),
        };
        // What is in doubt counts as submitted: the queue will show its name, or not, and then it is lost.
        let (id, refused, again) = match answer {
            Ok(id) => {
                self.pause = Duration::ZERO;
                // Found by its name in the queue too, should this not be kept.
                let _ = fs::write(folder.join("id"), &id);
                (Some(id), None, true)
            }
            Err(Trouble::Unreachable(text)) => {
                self.pause = (self.pause * 2).clamp(self.settings.ask, Duration::from_secs(300));
                self.resume = now + self.pause;
                self.warn_once(format!("{text}; trying on"), on);
                (None, None, false)
            }
            Err(Trouble::Refused(text) | Trouble::Absent(text)) => (None, Some(text), true),
        };
        self.batches.insert(name, keys.len());
        self.interval = self.settings.ask;
        let unix = self.clock.unix();
        for key in keys {
            let Some(live) = self.live.get_mut(key) else { continue };
            (live.submitted, live.submitted_unix) = (Some(now), unix);
            live.refused.clone_from(&refused);
            if let Some(id) = &id {
                live.standing.job = Some(format!("{id}_{}", live.standing.index));
                live.standing.state = "PENDING".into();
                live.standing.seen_unix_ms = (unix * 1e3) as u64;
                let _ = live.standing.write(&self.home, key);
                on(Note::Stands(key.clone(), live.standing.clone()));
            }
        }
        again
    }

    fn warn_once(&mut self, text: String, on: &mut dyn FnMut(Note)) {
        if self.said.insert(text.clone()) {
            on(Note::Warned(None, text));
        }
    }

    /// Takes the endings that scripts left: one look into one folder.
    fn collect(&mut self) {
        let now = self.clock.now();
        for name in entries(&self.home.join("ends")) {
            let Some((key, attempt)) = name.split_once('.') else { continue };
            let Some(live) = self.live.get_mut(key) else { continue };
            if live.attempt != attempt {
                // Of an attempt that does not count any more.
                let _ = fs::remove_file(self.home.join("ends").join(&name));
            } else if live.ending.is_none()
                && let Ok(bytes) = fs::read(self.home.join("ends").join(&name))
                && let Ok(ending) = serde_json::from_slice::<Ending>(&bytes)
            {
                live.host.clone_from(&ending.host);
                live.ending = Some((ending, now));
            }
        }
    }

    /// Looks at the files of some jobs that may run, others each time.
    fn look(&mut self, on: &mut dyn FnMut(Note)) {
        let runs = |live: &Live| live.submitted.is_some() && live.ending.is_none() && live.refused.is_none();
        let after: Vec<String> = self
            .live
            .range(self.next.clone()..)
            .chain(self.live.range(..self.next.clone()))
            .filter(|(_, live)| runs(live))
            .map(|(key, _)| key.clone())
            .take(FOLLOWED + 1)
            .collect();
        self.next = after.get(FOLLOWED).cloned().unwrap_or_default();
        for key in after.iter().take(FOLLOWED) {
            self.follow(key, on);
        }
    }

    /// Reads what a job wrote since the last look.
    fn follow(&mut self, key: &str, on: &mut dyn FnMut(Note)) {
        let unix = self.clock.unix();
        let Some(live) = self.live.get_mut(key) else { return };
        let folder = self.home.join("jobs").join(key).join(&live.attempt);
        if !live.began {
            let Ok(bytes) = fs::read(folder.join("began")) else { return };
            let Ok(beginning) = serde_json::from_slice::<Beginning>(&bytes) else { return };
            live.began = true;
            live.host.clone_from(&beginning.host);
            on(Note::Began(key.into(), beginning.host.clone()));
            // It began after it was submitted and before it was seen here, whatever its clock says.
            let ahead = beginning.began - unix;
            let behind = live.submitted_unix - beginning.began;
            if ahead > SKEW || behind > SKEW && live.submitted_unix > 0.0 && !live.standing.batch.is_empty() {
                let (by, word) = if ahead > SKEW { (ahead, "ahead of") } else { (behind, "behind") };
                let text = format!(
                    "the clock of {} is {by:.0} s {word} this machine's; nothing is decided by it, but times in its logs are off",
                    beginning.host
                );
                self.warn_once(text, on);
            }
        }
        let Some(live) = self.live.get_mut(key) else { return };
        let mut progress = None;
        while let Ok(more) = read_on(&folder.join("events.jsonl"), &mut live.read) {
            let ended = more.is_empty();
            for line in more.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Ok(message) = serde_json::from_slice::<FromWorker>(line) else { continue };
                match message {
                    FromWorker::Hello { protocol, kinds, .. } => {
                        let version = kinds.get(&live.kind).copied();
                        let same =
                            protocol == PROTOCOL_VERSION && version.is_none_or(|version| version == live.version);
                        if !same && live.refused.is_none() {
                            live.refused = Some(format!(
                                "{} on {} is of another version (protocol {protocol}, `{}` {}) than this `harness` (protocol {PROTOCOL_VERSION}, `{}` {}); build both from the same source, where the nodes see it",
                                live.runner.program.display(),
                                live.host,
                                live.kind,
                                version.unwrap_or_default(),
                                live.kind,
                                live.version
                            ));
                        }
                    }
                    FromWorker::Finished { .. } | FromWorker::Failed { .. } | FromWorker::Cancelled { .. } => {
                        live.last = Some(message);
                    }
                    // Only how far it is now.
                    FromWorker::Progress { .. } => progress = Some(message),
                    other => on(Note::Said(key.into(), other)),
                }
            }
            if ended || live.ending.is_none() {
                break;
            }
        }
        if let Some(message) = progress {
            on(Note::Said(key.into(), message));
        }
    }

    /// Asks the queue, if it is time, and takes in what it says.
    fn ask(&mut self, on: &mut dyn FnMut(Note)) {
        let now = self.clock.now();
        let oldest = self.live.values().filter(|live| live.refused.is_none()).filter_map(|live| live.submitted).min();
        let since = self.asked.max(oldest);
        if oldest.is_none()
            || since.is_some_and(|since| now.saturating_sub(since) < self.interval.max(self.settings.ask))
            || self.asked.is_some_and(|asked| now.saturating_sub(asked) < self.settings.ask)
        {
            return;
        }
        self.asked = Some(now);
        let found = match self.scheduler.queue() {
            Ok(found) => found,
            Err(trouble) => {
                // Not being told is no news: jobs go on, and their endings come as files.
                self.interval = (self.interval * 2).min(self.settings.ask_rarely * 5);
                self.warn_once(format!("the queue cannot be asked: {trouble}; trying on"), on);
                return;
            }
        };
        let mut known: HashMap<(String, usize), Entry> = HashMap::new();
        for entry in found {
            // Of two with one name (one was submitted twice) the one that lives counts.
            let name = (entry.name.clone(), entry.index);
            if known.get(&name).is_none_or(|before| !before.is_live()) {
                known.insert(name, entry);
            }
        }
        let mut changed = false;
        let unix_ms = (self.clock.unix() * 1e3) as u64;
        let keys: Vec<String> = self.live.keys().cloned().collect();
        for key in keys {
            let Some(live) = self.live.get_mut(&key) else { continue };
            // What was submitted while the question was on its way need not be in the answer.
            if live.submitted.is_none_or(|submitted| submitted >= now) || live.refused.is_some() {
                continue;
            }
            live.asked_since = live.ending.as_ref().is_some_and(|(_, since)| *since < now);
            let entry = known.get(&(live.standing.batch.clone(), live.standing.index));
            if let Some(entry) = entry {
                let standing = Standing {
                    job: Some(format!("{}_{}", entry.array, entry.index)),
                    state: entry.state.clone(),
                    reason: entry.reason.clone(),
                    node: entry.node.clone(),
                    seen_unix_ms: unix_ms,
                    ..live.standing.clone()
                };
                let moved = Standing { seen_unix_ms: live.standing.seen_unix_ms, ..standing.clone() } != live.standing;
                let found = live.standing.job.is_none();
                live.standing = standing;
                live.exit = entry.status;
                if moved {
                    changed = true;
                    let _ = live.standing.write(&self.home, &key);
                    on(Note::Stands(key.clone(), live.standing.clone()));
                }
                if found && self.cancelled.is_some() {
                    let _ = self.scheduler.cancel(&[(entry.array.clone(), vec![entry.index])]);
                }
            }
            if entry.is_some_and(Entry::is_live) {
                live.missing = None;
                continue;
            }
            let since = *live.missing.get_or_insert(now);
            changed = true;
            let over = now.saturating_sub(since) >= self.settings.grace || self.cancelled.is_some() && !live.began;
            if live.ending.is_none() && over {
                let verdict = self.missed(&key, entry.is_some());
                self.carry_out(&key, verdict, false, on);
            }
        }
        self.interval = if changed { self.settings.ask } else { (self.interval * 3 / 2).min(self.settings.ask_rarely) };
    }

    /// What becomes of a job that is gone and left no ending.
    fn missed(&mut self, key: &str, told: bool) -> Verdict {
        let Some(live) = self.live.get_mut(key) else { return Verdict::Wait };
        if self.cancelled.is_some() {
            return Verdict::End(End::Cancelled);
        }
        let job = live.standing.job.clone().unwrap_or("a job".into());
        let node = if live.standing.node.is_empty() { String::new() } else { format!(" on {}", live.standing.node) };
        let failed = |text: String| Verdict::End(End::Failed(text));
        let state = if told { live.standing.state.as_str() } else { "" };
        match state {
            "TIMEOUT" => timed_out(live),
            "PREEMPTED" | "NODE_FAIL" | "BOOT_FAIL" | "REVOKED" => {
                stopped(live, &format!("job {job} ended as {state}{node}"))
            }
            "OUT_OF_MEMORY" => {
                failed(format!("job {job} ran out of memory{node}; give it more with `resources = {{ memory = … }}`"))
            }
            "CANCELLED" => failed(format!("job {job} was cancelled by somebody (`scancel`)")),
            "FAILED" => match live.exit {
                Some(NO_FOLDER | NO_JOB) => failed(format!(
                    "the folder {} cannot be seen{node}; put the cache onto a file system that the nodes share (`cache = …` in harness.toml, or `--cache`)",
                    self.home.display()
                )),
                Some(NO_SPACE) => failed(format!(
                    "job {job} could not write how it ended into {}{node}: the file system is full, or a quota is",
                    self.home.display()
                )),
                status => Verdict::End(End::Died(format!(
                    "job {job} failed{node} ({}{}) and left no word{}",
                    live.standing.reason,
                    status.map(|status| format!(", status {status}")).unwrap_or_default(),
                    printed(&self.home.join("jobs").join(key).join(&live.attempt).join("log.txt"))
                ))),
            },
            _ => {
                live.lost += 1;
                if live.lost > MOST_LOST {
                    return Verdict::End(End::Died(format!(
                        "its job vanished {} times from the queue without a trace, last {job}{node}; ask the cluster's administrators, or look at the logs of the node",
                        live.lost
                    )));
                }
                Verdict::Again(format!("job {job} vanished from the queue and left no word"))
            }
        }
    }

    /// What becomes of a job that left an ending, or must not go on.
    fn judge(&mut self, key: &str, now: Duration) -> Verdict {
        let cancelled = self.cancelled.is_some();
        let Some(live) = self.live.get_mut(key) else { return Verdict::Wait };
        if let Some(text) = live.refused.clone() {
            if let Some((id, index)) = number(&live.standing) {
                let _ = self.scheduler.cancel(&[(id, vec![index])]);
            }
            return Verdict::End(End::Failed(text));
        }
        let Some((ending, since)) = live.ending.clone() else { return Verdict::Wait };
        let age = now.saturating_sub(since);
        let job = live.standing.job.clone().unwrap_or("a job".into());
        let log = self.home.join("jobs").join(key).join(&live.attempt).join("log.txt");
        match &live.last {
            Some(FromWorker::Finished { outcome, .. }) if ending.status == 0 => {
                return Verdict::End(End::Done(Box::new(outcome.clone())));
            }
            Some(FromWorker::Failed { message, .. }) => return Verdict::End(End::Failed(message.clone())),
            _ if cancelled => return Verdict::End(End::Cancelled),
            Some(FromWorker::Cancelled { .. }) => {}
            _ if !ending.told.is_empty() => {}
            _ if ending.status == NO_PROGRAM => {
                return Verdict::End(End::Failed(format!(
                    "the program {} is not there on {}, or may not be run; put it where the nodes see it (`worker = …` in harness.toml)",
                    live.runner.program.display(),
                    ending.host
                )));
            }
            // What it said may be on its way: a file server shows things one after the other.
            _ if age < if ending.status == 0 { self.settings.grace } else { Duration::from_secs(3) } => {
                return Verdict::Wait;
            }
            _ => {
                let how = match ending.status {
                    0 => "ended without a word".into(),
                    137 => "was killed (signal 9: by hand, or because memory ran out)".into(),
                    status if status > 128 => format!("died of signal {}", status - 128),
                    status => format!("ended with status {status}"),
                };
                return Verdict::End(End::Died(format!(
                    "its program {how} on {} (job {job}){}",
                    ending.host,
                    printed(&log)
                )));
            }
        }
        match (ending.told.as_str(), live.standing.state.as_str()) {
            ("USR1", _) | (_, "TIMEOUT") => timed_out(live),
            // Only the queue knows whether somebody cancelled it or something else needed its place.
            _ if !live.asked_since && age < self.settings.grace => {
                self.interval = self.settings.ask;
                Verdict::Wait
            }
            (_, "CANCELLED") => Verdict::End(End::Failed(format!("job {job} was cancelled by somebody (`scancel`)"))),
            _ => {
                let why = format!("job {job} was preempted on {}", ending.host);
                stopped(live, &why)
            }
        }
    }
}

/// Another attempt if the last one got on, by what it left as checkpoints.
fn timed_out(live: &mut Live) -> Verdict {
    let limit = live.ask.minutes.map_or("its partition's limit".into(), |minutes| format!("{minutes} min"));
    if mark(&live.work) == live.mark {
        return Verdict::End(End::Failed(format!(
            "its time was over ({limit}) and it left no checkpoint to go on from; give it more with `resources = {{ time = … }}`"
        )));
    }
    stopped(live, &format!("its time was over ({limit})"))
}

fn stopped(live: &mut Live, why: &str) -> Verdict {
    live.stopped += 1;
    if live.stopped > MOST_STOPPED {
        return Verdict::End(End::Failed(format!("{why}, the {}th time", live.stopped)));
    }
    Verdict::Again(why.into())
}

/// The scheduler's number of a job's array, and the job's number in it.
fn number(standing: &Standing) -> Option<(String, usize)> {
    standing.job.as_ref().and_then(|job| job.split_once('_')).map(|(id, _)| (id.to_string(), standing.index))
}

/// A word that no other process or call makes.
fn token() -> String {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    std::process::id().hash(&mut hasher);
    std::time::SystemTime::now().hash(&mut hasher);
    format!("{:012x}", hasher.finish() & 0xffff_ffff_ffff)
}

/// Names in a folder.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Complete lines that were added to a file since `position`, which moves behind them. A file that became shorter was
/// begun anew.
fn read_on(path: &Path, position: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *position {
        *position = 0;
    }
    file.seek(SeekFrom::Start(*position))?;
    let mut bytes = Vec::new();
    file.take(READ_AT_ONCE).read_to_end(&mut bytes)?;
    let most = u64::try_from(bytes.len()).unwrap_or(u64::MAX) == READ_AT_ONCE;
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => bytes.truncate(end + 1),
        // One line that is longer than a round: in one piece.
        None if most => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*position))?;
            bytes.clear();
            file.read_to_end(&mut bytes)?;
            bytes.truncate(bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        }
        None => bytes.clear(),
    }
    *position += bytes.len() as u64;
    Ok(bytes)
}

/// What a step printed last, for a message.
fn printed(log: &Path) -> String {
    let Ok(mut file) = File::open(log) else { return String::new() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024))).and_then(|_| file.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    match read {
        Ok(_) if !text.trim().is_empty() => {
            format!("; the end of what it printed:\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"))
        }
        _ => "; it printed nothing".into(),
    }
}

/// What the files below a folder look like: changes when one is added, removed or written.
fn mark(folder: &Path) -> u64 {
    fn below(folder: &Path, found: &mut BTreeSet<(PathBuf, u64, Option<std::time::SystemTime>)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => below(&path, found),
                Ok(metadata) => drop(found.insert((path, metadata.len(), metadata.modified().ok()))),
                Err(_) => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    below(folder, &mut found);
    let mut hasher = std::hash::DefaultHasher::new();
    found.hash(&mut hasher);
    hasher.finish()
}

/// Removes lists of arrays none of whose jobs is there any more.
fn sweep(home: &Path) {
    for name in entries(&home.join("batches")) {
        let folder = home.join("batches").join(&name);
        let tasks = fs::read_to_string(folder.join("tasks")).unwrap_or_default();
        let jobs = tasks.lines().filter_map(|line| line.split('\t').next());
        let fresh = fs::metadata(&folder).and_then(|metadata| metadata.modified());
        // One that is being written by another process has no jobs yet.
        let old = fresh.ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(3600));
        if old && jobs.into_iter().all(|job| !home.join("jobs").join(job).exists()) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
