//! The dispatcher: owns the state of a run, hands actions to slots, and emits events. It never touches the terminal.

mod cluster;

pub use cluster::Reach;

use crate::action::{self, Action, Finished};
use crate::config::Config;
use crate::desk::Desk;
use crate::events::{Event, Status};
use crate::inputs::Inputs;
use crate::overlap::Overlap;
use crate::places::{Need, Places};
use crate::shared::Shared;
use crate::worker::{Ended, Worker};
use crate::{choice, command, datasets, devices};
use anyhow::Result;
use harness_cache::{ActionKey, Cache, Digest, Lease, Output, Record, Series, Using};
use harness_dsl::{Catalog, Program};
use harness_executors::{Resources, Where};
use harness_protocol::{Executor, FromWorker, Job, Outcome, steps};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a run is asked for.
pub struct Request<'a> {
    /// The program.
    pub program: &'a Program,
    /// Its kinds.
    pub catalog: &'a Catalog,
    /// The configuration.
    pub config: &'a Config,
    /// The cache.
    pub cache: &'a Cache,
    /// Where results go, if not into the cache: `verify` computes in a scratch place.
    pub results: Option<&'a Cache>,
    /// What other machines have computed, if results are shared.
    pub shared: Option<&'a Shared>,
    /// Which steps are wanted.
    pub wanted: Vec<bool>,
    /// Which steps are computed although their result is known.
    pub forced: Vec<bool>,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Device of each slot.
    pub slots: Vec<String>,
    /// The worker binary, if any step needs one.
    pub worker: Option<PathBuf>,
    /// Why there is none, if one is needed.
    pub missing_worker: Option<String>,
    /// Folder for the workers' output.
    pub logs: PathBuf,
    /// Set when the run is to stop in order.
    pub cancel: Arc<AtomicBool>,
    /// Set when it is to stop at once.
    pub hurry: Arc<AtomicBool>,
    /// What the cluster is reached by, if not by Slurm's own commands.
    pub reach: Option<&'a (dyn Fn() -> Reach + Sync)>,
}

/// How a step stands at the end.
#[derive(Clone, Debug)]
pub struct State {
    /// How it ended.
    pub status: Status,
    /// Its key, once its inputs were known.
    pub key: Option<Digest>,
    /// Its key in full, where its inputs were known.
    pub action: Option<ActionKey>,
    /// Its result.
    pub finished: Option<Finished>,
    /// Why it has none.
    pub error: Option<String>,
    /// Seconds it took in this run.
    pub wall_s: f64,
    /// Warnings of this run.
    pub warnings: Vec<String>,
}

enum Message {
    Event(Event),
    Done {
        step: usize,
        slot: usize,
        wall_s: f64,
        result: Box<Result<Computed, Ended>>,
    },
    /// What these steps left is on disk, or why it is not.
    Committed {
        batch: Vec<usize>,
        result: Result<(), String>,
    },
}

/// A result, stored and not yet synced.
struct Computed {
    finished: Finished,
    /// Whether it was there after all: another process left it.
    known: bool,
    warnings: Vec<String>,
    /// Held until the commit, so that no other process reports a result that a power cut could take back.
    lease: Lease,
}

/// Syncs begin at most so often: what is ready meanwhile shares one, and nothing is shown later than people notice.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);
/// A sync takes as long as the disk has to write for everybody on it: between two there is this many times as much time.
const COMMIT_SHARE: u32 = 4;
/// However slow the disk is, finished steps wait no longer for a sync to begin.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Records of the last minute may be of a process that has not committed them yet.
const FRESH_MS: u64 = 60_000;
/// Collection waits no longer than this for a look at many steps.
const BURST: Duration = Duration::from_millis(50);
/// Steps planned before the first of them is dealt with.
const TOGETHER: usize = 256;
/// Fewer are planned by one thread: waking the others takes longer.
const FEW: usize = 16;
/// Before a failed step is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Task {
    step: usize,
    label: String,
    action: Action,
    /// Outputs that other steps take.
    taken: BTreeSet<String>,
    force: bool,
    /// What it needs to begin.
    need: Need,
    /// What it says of itself.
    resources: Resources,
    /// The devices that it got.
    devices: Vec<String>,
}

/// What a slot is told.
enum Work {
    Task(Box<Task>),
    /// Its device goes to a step on another slot: an idle worker there must not keep memory.
    Rest,
}

/// Runs everything wanted; one state for each step of the program.
///
/// # Errors
/// Only what stops the whole run: the cache cannot be written any more.
pub fn run(request: &Request<'_>, emit: &mut dyn FnMut(Event)) -> Result<Vec<State>> {
    run_and_leave(request, emit).0
}

/// What a run leaves to be removed: small files of its programs, and of the leases that it gave back. They go when this is
/// dropped, which takes time that a caller may have other uses for.
#[derive(Debug)]
pub struct Leavings {
    _desks: Vec<Desk>,
    cache: Cache,
}

impl Drop for Leavings {
    fn drop(&mut self) {
        self.cache.sweep_leases();
    }
}

/// As [`run`], and leaves the removal of small files to the caller.
pub fn run_and_leave(request: &Request<'_>, emit: &mut dyn FnMut(Event)) -> (Result<Vec<State>>, Leavings) {
    let (states, desks) = std::thread::scope(|scope| {
        let (send, receive) = channel::<Message>();
        let mut slots: Vec<Sender<Work>> = Vec::new();
        let mut served = Vec::new();
        let places = places(request);
        for (number, &device) in places.seats().iter().enumerate() {
            let (task_send, tasks) = channel::<Work>();
            slots.push(task_send);
            let (send, device) = (send.clone(), request.slots[device].as_str());
            let slot = Slot { number, device, request, send, worker: None, desk: None };
            served.push(scope.spawn(move || slot.serve(tasks)));
        }
        let (cluster, orders) = channel();
        let messages = send.clone();
        scope.spawn(move || cluster::Cluster::new(request, messages).serve(&orders));
        let (commits, batches) = channel();
        scope.spawn(move || committer(request.results.unwrap_or(request.cache), &batches, &send));
        let (results, handed) = channel();
        if let Some(shared) = request.shared {
            scope.spawn(move || shared.serve(request.cache, &handed, &request.cancel));
        }
        let states = Dispatcher::new(request, slots, cluster, places, commits, results, &mut *emit).serve(&receive);
        let desks: Vec<Desk> = served.into_iter().filter_map(|slot| slot.join().ok().flatten()).collect();
        (states, desks)
    });
    let leavings = Leavings { _desks: desks, cache: request.results.unwrap_or(request.cache).clone() };
    if let Some(event) = request.shared.and_then(|shared| shared.news(true)) {
        emit(event);
    }
    (states, leavings)
}

/// The places of a run: the devices of this machine, to be shared where a step says how much it needs of one, and those
/// in the cluster's queue.
fn places(request: &Request<'_>) -> Places {
    let said = |step: &harness_dsl::Step| Resources::of(&step.params).unwrap_or_default();
    let shares = request.program.steps.iter().any(|step| request.wanted[step.id] && said(step).gpu_memory.is_some());
    let memories = if shares { devices::memories(&request.slots) } else { vec![None; request.slots.len()] };
    Places::new(&memories, request.config.slurm.jobs, request.config.memory)
}

/// What the committer is told.
enum Commit {
    /// A step's result is stored.
    Stored(usize, Option<Lease>),
    /// Nothing else goes on: waiting for more would only be waiting.
    Now,
}

/// Syncs what finished steps left, many at a time, and then gives their leases back.
fn committer(cache: &Cache, batches: &Receiver<Commit>, send: &Sender<Message>) {
    let mut next = Instant::now();
    while let Ok(first) = batches.recv() {
        let Commit::Stored(step, lease) = first else { continue };
        let mut batch = vec![(step, lease)];
        while let Ok(Commit::Stored(step, lease)) = batches.recv_timeout(next.saturating_duration_since(Instant::now()))
        {
            batch.push((step, lease));
        }
        let start = Instant::now();
        let result = cache.commit().map_err(|error| error.to_string());
        let steps = batch.iter().map(|(step, _)| *step).collect();
        drop(batch);
        if send.send(Message::Committed { batch: steps, result }).is_err() {
            break;
        }
        next = Instant::now() + (start.elapsed() * COMMIT_SHARE).clamp(COMMIT_PAUSE, LONGEST_PAUSE);
    }
}

struct Dispatcher<'a, 'e> {
    request: &'a Request<'a>,
    slots: Vec<Sender<Work>>,
    cluster: Sender<(usize, Task)>,
    places: Places,
    commits: Sender<Commit>,
    /// Takes results that are safe here to the shared cache.
    results: Sender<Digest>,
    /// Keys of results that wait for their commit.
    uncommitted: BTreeSet<Digest>,
    /// Number of steps that do.
    committing: usize,
    emit: &'e mut dyn FnMut(Event),
    states: Vec<State>,
    finished: Vec<Option<Finished>>,
    waiting: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// Outputs of each step that wanted steps take.
    taken: Vec<BTreeSet<String>>,
    ready: VecDeque<usize>,
    queued: VecDeque<Task>,
    /// Steps whose action is queued or running for another step: equal keys are computed once.
    followers: BTreeMap<Digest, Vec<usize>>,
    running: usize,
    stopping: bool,
    overlap: Overlap<'a>,
    /// Warnings that were said: replicates share them.
    said: BTreeSet<String>,
}

impl<'a, 'e> Dispatcher<'a, 'e> {
    fn new(
        request: &'a Request<'a>,
        slots: Vec<Sender<Work>>,
        cluster: Sender<(usize, Task)>,
        places: Places,
        commits: Sender<Commit>,
        results: Sender<Digest>,
        emit: &'e mut dyn FnMut(Event),
    ) -> Self {
        let steps = &request.program.steps;
        let mut dependents = vec![Vec::new(); steps.len()];
        for step in steps {
            step.inputs.iter().for_each(|&input| dependents[input].push(step.id));
        }
        let blank = State {
            status: Status::Skipped,
            key: None,
            action: None,
            finished: None,
            error: None,
            wall_s: 0.0,
            warnings: Vec::new(),
        };
        Self {
            request,
            overlap: Overlap::new(request.program, request.catalog, &request.wanted, request.cache),
            said: BTreeSet::new(),
            slots,
            cluster,
            places,
            commits,
            results,
            uncommitted: BTreeSet::new(),
            committing: 0,
            emit,
            states: vec![blank; steps.len()],
            finished: vec![None; steps.len()],
            waiting: steps.iter().map(|step| step.inputs.len()).collect(),
            dependents,
            taken: action::taken(request.program, &request.wanted),
            ready: steps
                .iter()
                .filter(|step| step.inputs.is_empty() && request.wanted[step.id])
                .map(|step| step.id)
                .collect(),
            queued: VecDeque::new(),
            followers: BTreeMap::new(),
            running: 0,
            stopping: false,
        }
    }

    fn serve(mut self, receive: &Receiver<Message>) -> Result<Vec<State>> {
        loop {
            while !self.ready.is_empty() {
                self.prepare_many()?;
            }
            self.look_ahead()?;
            self.news();
            if self.request.cancel.load(Ordering::Relaxed) {
                self.stopping = true;
            }
            if self.stopping {
                self.queued.clear();
            }
            while self.places.has_room() && self.start()? {
                self.running += 1;
            }
            if self.running == 0 && self.committing == 0 && self.ready.is_empty() {
                break;
            }
            if self.running == 0 {
                // The committer outlives this.
                let _ = self.commits.send(Commit::Now);
            }
            match receive.recv_timeout(Duration::from_millis(100)) {
                Ok(Message::Event(event)) => {
                    if let Event::Log { level, text, .. } = &event
                        && level == "warn"
                    {
                        self.said.insert(text.clone());
                    }
                    (self.emit)(event);
                }
                Ok(Message::Done { step, slot, wall_s, result }) => {
                    self.running -= 1;
                    self.places.free(slot);
                    let followers =
                        self.states[step].key.and_then(|key| self.followers.remove(&key)).unwrap_or_default();
                    match *result {
                        Ok(Computed { finished, known, warnings, lease }) => {
                            let status = if known { Status::Cached } else { Status::Executed };
                            self.states[step].warnings.extend(warnings);
                            for follower in followers {
                                if action::not_kept(&finished.record, &self.taken[follower]).is_empty() {
                                    self.keep(follower, Status::Cached, finished.clone(), 0.0, None);
                                } else {
                                    self.ready.push_back(follower);
                                }
                            }
                            self.keep(step, status, finished, wall_s, Some(lease));
                        }
                        Err(Ended::Cancelled) => {
                            for step in followers.into_iter().chain([step]) {
                                self.conclude(step, Status::Skipped, None, Some("interrupted".into()), wall_s);
                            }
                        }
                        Err(Ended::Failed(error)) => {
                            for step in followers.into_iter().chain([step]) {
                                self.fail(step, error.clone(), wall_s, !self.request.keep_going);
                            }
                        }
                        // A process that dies says nothing about the experiment: the rest goes on.
                        Err(Ended::Died(error)) => {
                            for step in followers.into_iter().chain([step]) {
                                self.fail(step, format!("the worker died: {error}"), wall_s, false);
                            }
                        }
                    }
                }
                Ok(Message::Committed { batch, result }) => {
                    for step in batch {
                        self.committing -= 1;
                        if let Some(key) = self.states[step].key {
                            self.uncommitted.remove(&key);
                        }
                        if let Err(error) = &result {
                            self.stopping = true;
                            self.finished[step] = None;
                            let state = &mut self.states[step];
                            // The kernel tells of a lost page once: to the next process all would seem well.
                            if let Some(key) = state.key.filter(|_| state.status == Status::Executed) {
                                let _ = self.request.results.unwrap_or(self.request.cache).revoke(&key);
                            }
                            state.status = Status::Failed;
                            state.error = Some(format!("its result could not be kept: {error}"));
                        }
                        self.hand_over(step);
                        self.report(step);
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        // What is no step's result, such as a look for shared pictures.
        self.request.cache.commit()?;
        if let Some(shared) = self.request.shared.filter(|shared| shared.waiting() > 0) {
            // What is said from here on is said while people wait for it.
            (self.emit)(shared.sending());
        }
        // What was never reached was skipped; say so once for each.
        for step in 0..self.states.len() {
            if self.request.wanted[step] && self.finished[step].is_none() && self.states[step].error.is_none() {
                let why = self.blocker(step);
                self.conclude(step, Status::Skipped, None, Some(why), 0.0);
            }
        }
        for (state, finished) in self.states.iter_mut().zip(self.finished) {
            state.finished = finished;
        }
        Ok(self.states)
    }

    /// Starts the first queued task that there is room for; whether there was one.
    fn start(&mut self) -> Result<bool> {
        let Some((index, seats)) = self.places.next(self.queued.iter_mut().map(|task| &mut task.need)) else {
            return Ok(false);
        };
        let Some(mut task) = self.queued.remove(index) else { return Ok(false) };
        let Some((&seat, others)) = seats.split_first() else { return Ok(false) };
        let sent = if task.need.cluster {
            self.cluster.send((seat, task)).is_ok()
        } else {
            let device = |seat: &usize| self.request.slots[self.places.seats()[*seat]].clone();
            task.devices = seats.iter().map(device).collect();
            others.iter().for_each(|&other| drop(self.slots[other].send(Work::Rest)));
            self.slots[seat].send(Work::Task(Box::new(task))).is_ok()
        };
        anyhow::ensure!(sent, "slot {seat} ended on its own");
        Ok(true)
    }

    /// What a step needs to begin.
    fn need(&self, resources: &Resources, kind: &str) -> Result<Need> {
        let request = self.request;
        // What is verified is computed here, whatever computed it first.
        let all = if request.results.is_some() { Some(Where::Local) } else { request.config.executor };
        let cluster = resources.executor(all) == Where::Slurm && kind != "scenes";
        let gpus = request.slots.iter().filter(|slot| slot.starts_with("cuda")).count();
        let asked = resources.gpus.unwrap_or(1).max(1) as usize;
        if asked > 1 && steps::kind(kind).is_none_or(|kind| !kind.shared && kind.executor == Executor::Worker) {
            let shared: Vec<&str> = steps::ALL.iter().filter(|kind| kind.shared).map(|kind| kind.name).collect();
            anyhow::bail!(
                "`{kind}` runs on one device and asks for {asked} (`resources`); several are for {}",
                shared.join(", ")
            );
        }
        let devices = if gpus == 0 { 1 } else { asked };
        if !cluster && gpus > 0 && devices > gpus {
            anyhow::bail!(
                "it asks for {devices} GPUs and this run has {gpus}; ask for fewer (`resources`), or run it on a cluster (`--executor slurm`)"
            );
        }
        let memory = resources.memory.unwrap_or(request.config.limit(kind).memory);
        Ok(Need { devices, device_memory: resources.gpu_memory, memory, cluster, overtaken: 0 })
    }

    fn blocker(&self, step: usize) -> String {
        let steps = &self.request.program.steps;
        let failed = steps[step].inputs.iter().find(|&&input| self.states[input].status == Status::Failed);
        let skipped = steps[step].inputs.iter().find(|&&input| self.finished[input].is_none());
        match (failed, skipped) {
            (Some(&input), _) => format!("`{}` failed", steps[input].label),
            (None, Some(&input)) if !self.request.dry_run => format!("`{}` has no result", steps[input].label),
            (None, Some(&input)) => format!("known once `{}` is computed", steps[input].label),
            _ if self.request.dry_run => "would be computed".into(),
            _ if self.request.cancel.load(Ordering::Relaxed) => "interrupted".into(),
            _ => "the run stopped at a failure (`--keep-going` goes on)".into(),
        }
    }

    /// Refuses the steps that would be judged on what is learned from, as soon as both datasets are known.
    fn look_ahead(&mut self) -> Result<()> {
        for found in self.overlap.look(self.request.program, &self.finished)? {
            if found.allowed {
                self.states[found.step].warnings.push(found.text);
            } else if self.states[found.step].error.is_none() {
                self.fail(found.step, found.text, 0.0, !self.request.keep_going);
            }
        }
        Ok(())
    }

    /// Prepares the steps that are ready, for [`BURST`] at most.
    fn prepare_many(&mut self) -> Result<()> {
        let start = Instant::now();
        // Until what is found or will be computed is noted, nobody may collect it.
        let using = self.request.cache.using()?;
        while !self.ready.is_empty() && start.elapsed() < BURST {
            self.look_ahead()?;
            let steps: Vec<usize> = self.ready.drain(..self.ready.len().min(TOGETHER)).collect();
            let plan = |&step: &usize| plan(self.request, &self.finished, step);
            let planned: Vec<Planned> =
                if steps.len() < FEW { steps.iter().map(plan).collect() } else { steps.par_iter().map(plan).collect() };
            self.notices(if let [step] = steps[..] { Some(step) } else { None });
            let planned = self.ask_others(&steps, planned)?;
            for (step, planned) in steps.into_iter().zip(planned) {
                self.prepare(step, planned, &using)?;
            }
        }
        Ok(using.write()?)
    }

    /// Fetches what the shared cache has of the results that are not known here.
    fn ask_others(&mut self, steps: &[usize], mut planned: Vec<Planned>) -> Result<Vec<Planned>> {
        let Some(shared) = self.request.shared else { return Ok(planned) };
        let cache = self.request.cache;
        let mut unknown = BTreeSet::new();
        for (&step, plan) in steps.iter().zip(&planned) {
            // Whoever computes it here is nearer.
            if let Planned::Action(found) = plan
                && let (action, Ok(None)) = found.as_ref()
                && !self.request.forced[step]
                && !self.followers.contains_key(&action.digest)
                && !self.uncommitted.contains(&action.digest)
                // Those are looked up where they are made.
                && (!datasets::is_derived(action.info.name) || action::lookup(cache, &action.digest)?.is_none())
            {
                unknown.insert(action.digest);
            }
        }
        let unknown: Vec<Digest> = unknown.into_iter().collect();
        let came = shared.fetch(cache, &unknown, &self.request.cancel)?;
        for (&step, plan) in steps.iter().zip(&mut planned) {
            if let Planned::Action(found) = plan
                && !self.request.forced[step]
                && came.contains(&found.0.digest)
            {
                found.1 = action::lookup(cache, &found.0.digest);
            }
        }
        self.news();
        Ok(planned)
    }

    /// Hands a result that was computed here to whoever sends it.
    fn hand_over(&mut self, step: usize) {
        let spec = &self.request.program.steps[step];
        let state = &self.states[step];
        if let (Some(shared), Some(key), Status::Executed) = (self.request.shared, state.key, state.status)
            // What is found in files of the user's, or by comparing results, is found at once on any machine.
            && spec.choice.is_none()
            && !datasets::is_external(&spec.kind)
            && shared.takes()
        {
            shared.expect();
            // The sender outlives this.
            let _ = self.results.send(key);
        }
    }

    /// Says what is wrong with the shared cache.
    fn news(&mut self) {
        if let Some(event) = self.request.shared.and_then(|shared| shared.news(false)) {
            (self.emit)(event);
        }
    }

    /// Takes a step from the cache if its result is there, or queues it.
    fn prepare(&mut self, step: usize, planned: Planned, using: &Using<'_>) -> Result<()> {
        if self.states[step].error.is_some() {
            // It was refused before its turn came.
            return Ok(());
        }
        let request = self.request;
        let spec = &request.program.steps[step];
        let info = steps::kind(&spec.kind);
        if let Some(choice) = &spec.choice {
            match choice::choose(spec, choice, request.program, &self.finished) {
                Ok((mut finished, warnings)) => {
                    let digest = finished.record.digest;
                    using.keep(&digest);
                    self.states[step].key = Some(digest);
                    self.states[step].action = Some(finished.record.key.clone());
                    self.states[step].warnings = warnings;
                    if request.cache.record(&digest)?.is_some() || request.dry_run {
                        self.conclude(step, Status::Cached, Some(finished), None, 0.0);
                    } else {
                        stamp(&mut finished.record, 0.0);
                        request.cache.append(&finished.record)?;
                        self.keep(step, Status::Executed, finished, 0.0, None);
                    }
                }
                Err(error) => self.fail(step, format!("{error:#}"), 0.0, !request.keep_going),
            }
            return Ok(());
        }
        if let Some(info) = info.filter(|info| datasets::is_external(info.name)) {
            let start = Instant::now();
            let params = crate::text::fields(spec, request.catalog);
            let described = (info.resolve)(Value::Object(params))
                .map_err(|problems| anyhow::anyhow!("{problems:?}"))
                .and_then(|params| datasets::external(info, &params, request.config, request.cache));
            match described {
                Ok((mut finished, warnings)) => {
                    let digest = finished.record.digest;
                    using.keep(&digest);
                    self.states[step].key = Some(digest);
                    self.states[step].action = Some(finished.record.key.clone());
                    self.states[step].warnings = warnings;
                    let status = match request.cache.record(&digest)? {
                        Some(known) if !request.forced[step] => {
                            finished.record = known;
                            Status::Cached
                        }
                        _ => {
                            stamp(&mut finished.record, start.elapsed().as_secs_f64());
                            request.cache.append(&finished.record)?;
                            Status::Executed
                        }
                    };
                    let wall_s = start.elapsed().as_secs_f64();
                    if status == Status::Executed {
                        self.keep(step, status, finished, wall_s, None);
                    } else {
                        self.conclude(step, status, Some(finished), None, wall_s);
                    }
                }
                Err(error) => self.fail(step, format!("{error:#}"), start.elapsed().as_secs_f64(), !request.keep_going),
            }
            return Ok(());
        }
        let (mut action, known) = match planned {
            Planned::Action(found) => {
                let (action, known) = *found;
                (action, known?)
            }
            Planned::Impossible(error) => {
                self.fail(step, error, 0.0, !request.keep_going);
                return Ok(());
            }
            // Handled above.
            Planned::Look => return Ok(()),
        };
        using.keep(&action.digest);
        self.states[step].key = Some(action.digest);
        self.states[step].action = Some(action.key.clone());
        if datasets::is_derived(action.info.name) {
            let start = Instant::now();
            let store = request.results.unwrap_or(request.cache);
            match datasets::derived(&action, request.cache, store, request.forced[step]) {
                Ok((mut finished, warnings, new)) => {
                    self.states[step].warnings = warnings;
                    if new {
                        stamp(&mut finished.record, start.elapsed().as_secs_f64());
                        store.append(&finished.record)?;
                    }
                    let wall_s = start.elapsed().as_secs_f64();
                    if new && request.results.is_none() {
                        self.keep(step, Status::Executed, finished, wall_s, None);
                    } else {
                        let status = if new { Status::Executed } else { Status::Cached };
                        self.conclude(step, status, Some(finished), None, wall_s);
                    }
                }
                Err(error) => self.fail(step, format!("{error:#}"), start.elapsed().as_secs_f64(), !request.keep_going),
            }
            return Ok(());
        }
        let lacking =
            known.as_ref().map(|found| action::not_kept(&found.record, &self.taken[step])).unwrap_or_default();
        let known = if lacking.is_empty() { known } else { None };
        let ours = self.uncommitted.contains(&action.digest);
        if let Some(finished) = known
            && (ours || request.dry_run || is_kept(request.cache, &finished.record)?)
        {
            for name in action.observed.keys().filter(|name| !finished.record.observed.contains_key(*name)) {
                self.states[step].warnings.push(format!(
                    "`{}`: what `{name}` observes was not recorded when it ran; `--force {}` computes it again",
                    spec.label, spec.name
                ));
            }
            if ours || is_fresh(&finished.record) && !request.dry_run {
                // Whoever made it may have died between its record and its commit.
                if !ours {
                    request.cache.cover(&finished.record);
                }
                self.keep(step, Status::Cached, finished, 0.0, None);
            } else {
                self.conclude(step, Status::Cached, Some(finished), None, 0.0);
            }
        } else if request.dry_run {
            // What the end of the run says of steps without a result is what is wanted.
        } else if let Some(followers) = self.followers.get_mut(&action.digest) {
            followers.push(step);
        } else {
            let resources = Resources::of(&spec.params).map_err(anyhow::Error::msg);
            let need = resources.and_then(|resources| Ok((self.need(&resources, &spec.kind)?, resources)));
            let (need, resources) = match need {
                Ok(found) => found,
                Err(error) => {
                    self.fail(step, format!("{error:#}"), 0.0, !request.keep_going);
                    return Ok(());
                }
            };
            self.followers.insert(action.digest, Vec::new());
            if !lacking.is_empty() {
                let text = format!("{} was not kept when it ran: it is computed again", lacking.join(", "));
                let (step, label) = (Some(step), Some(spec.label.clone()));
                (self.emit)(Event::Log { step, label, level: "info".into(), text });
            }
            if request.catalog.kind(&spec.kind).is_some_and(|kind| kind.field("keep").is_some()) {
                let equal = self.equal(step, &action.digest);
                let taken: Vec<&BTreeSet<String>> = equal.iter().map(|&other| &self.taken[other]).collect();
                action.keep_also(request.cache.record(&action.digest)?.as_ref(), &taken);
            }
            let (label, force) = (spec.label.clone(), request.forced[step]);
            let (taken, devices) = (self.taken[step].clone(), Vec::new());
            self.queued.push_back(Task { step, label, action, taken, force, need, resources, devices });
        }
        self.notices(Some(step));
        Ok(())
    }

    fn action(&self, step: usize) -> Result<Action> {
        let Request { program, catalog, config, cache, .. } = self.request;
        action::action(&program.steps[step], program, catalog, config, cache, &self.finished)
    }

    /// Other wanted steps of the same key that take a kept epoch, as far as their inputs are known.
    fn equal(&self, step: usize, digest: &Digest) -> Vec<usize> {
        let steps = &self.request.program.steps;
        let asks = |other: &usize| {
            *other != step
                && self.request.wanted[*other]
                && steps[*other].kind == steps[step].kind
                && self.taken[*other].iter().any(|name| name.contains('@'))
                && steps[*other].inputs.iter().all(|&input| self.finished[input].is_some())
        };
        let same = |other: &usize| self.action(*other).is_ok_and(|action| action.digest == *digest);
        (0..steps.len()).filter(asks).filter(same).collect()
    }

    /// Says what the cache found wrong, of a step where it is known of which.
    fn notices(&mut self, step: Option<usize>) {
        let label = step.map(|step| self.request.program.steps[step].label.clone());
        for text in self.request.cache.notices() {
            (self.emit)(Event::Log { step, label: label.clone(), level: "warn".into(), text });
        }
    }

    fn fail(&mut self, step: usize, error: String, wall_s: f64, stop: bool) {
        self.stopping |= stop;
        self.conclude(step, Status::Failed, None, Some(error), wall_s);
    }

    fn conclude(
        &mut self,
        step: usize,
        status: Status,
        finished: Option<Finished>,
        error: Option<String>,
        wall_s: f64,
    ) {
        self.settle(step, status, finished, error, wall_s);
        self.report(step);
    }

    /// Takes a result that is stored and not yet synced: what depends on it may begin, and it is reported once it is
    /// safe.
    fn keep(&mut self, step: usize, status: Status, finished: Finished, wall_s: f64, lease: Option<Lease>) {
        self.settle(step, status, Some(finished), None, wall_s);
        self.uncommitted.extend(self.states[step].key);
        self.committing += 1;
        // The committer outlives this: it ends when this sender goes.
        let _ = self.commits.send(Commit::Stored(step, lease));
    }

    fn settle(&mut self, step: usize, status: Status, finished: Option<Finished>, error: Option<String>, wall_s: f64) {
        let state = &mut self.states[step];
        (state.status, state.error, state.wall_s) = (status, error, wall_s);
        // What was warned of when it was computed still holds.
        let kept = finished.as_ref().map(|finished| finished.record.provenance["warnings"].clone());
        for text in kept.and_then(|kept| serde_json::from_value::<Vec<String>>(kept).ok()).unwrap_or_default() {
            if !state.warnings.contains(&text) {
                state.warnings.push(text);
            }
        }
        self.finished[step] = finished;
        if self.finished[step].is_some() {
            for &next in &self.dependents[step] {
                self.waiting[next] -= 1;
                if self.waiting[next] == 0 && self.request.wanted[next] {
                    self.ready.push_back(next);
                }
            }
        }
    }

    /// Says how a step ended.
    fn report(&mut self, step: usize) {
        let spec = &self.request.program.steps[step];
        for text in self.states[step].warnings.clone() {
            if !self.said.insert(text.clone()) {
                continue;
            }
            (self.emit)(Event::Log { step: Some(step), label: Some(spec.label.clone()), level: "warn".into(), text });
        }
        let state = &self.states[step];
        (self.emit)(Event::StepFinished {
            step,
            label: spec.label.clone(),
            kind: spec.kind.clone(),
            key: state.key.map(|key| key.to_string()),
            status: state.status,
            wall_s: state.wall_s,
            metrics: self.finished[step].as_ref().map(|finished| finished.record.metrics.clone()).unwrap_or_default(),
            error: state.error.clone(),
        });
    }
}

/// What is found out about a step before its turn, for many steps at once: nothing here depends on the run's state.
enum Planned {
    /// It describes files of the user's, which are looked at in its turn, or takes the best of others.
    Look,
    /// Its action, with its result where that is known and wanted.
    Action(Box<(Action, Result<Option<Finished>>)>),
    /// Its action cannot be built; why.
    Impossible(String),
}

/// Builds the action of a step whose inputs are all in `finished`, and looks it up.
fn plan(request: &Request<'_>, finished: &[Option<Finished>], step: usize) -> Planned {
    let spec = &request.program.steps[step];
    if spec.choice.is_some() || datasets::is_external(&spec.kind) {
        return Planned::Look;
    }
    match action::action(spec, request.program, request.catalog, request.config, request.cache, finished) {
        // Those are looked up where they are made.
        Ok(action) if request.forced[step] || datasets::is_derived(action.info.name) => {
            Planned::Action(Box::new((action, Ok(None))))
        }
        Ok(action) => {
            let mut known = action::lookup(request.cache, &action.digest);
            if let Ok(Some(known)) = &mut known {
                // The same, and there may be many thousands.
                known.record.key = action.key.clone();
            }
            Planned::Action(Box::new((action, known)))
        }
        Err(error) => Planned::Impossible(format!("{error:#}")),
    }
}

/// Whether a result is safe to report: old, or given back by whoever computed it.
fn is_kept(cache: &Cache, record: &Record) -> Result<bool> {
    Ok(!is_fresh(record) || !cache.is_leased(&record.digest)?)
}

/// Whether it may be of a process that has not committed it yet.
fn is_fresh(record: &Record) -> bool {
    record.finished_unix_ms.saturating_add(FRESH_MS) >= now_ms()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// So many seconds; the longest time there is where they are more than that.
pub(crate) fn for_ever(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// One slot: a thread with at most one worker process.
struct Slot<'a> {
    number: usize,
    device: &'a str,
    request: &'a Request<'a>,
    send: Sender<Message>,
    worker: Option<Worker>,
    desk: Option<Desk>,
}

impl Slot<'_> {
    /// Works until there is nothing to do; gives what there is to remove.
    fn serve(mut self, tasks: Receiver<Work>) -> Option<Desk> {
        for work in tasks {
            let Work::Task(task) = work else {
                self.worker = None;
                continue;
            };
            let start = Instant::now();
            let mut reasons = Vec::new();
            let result = loop {
                // A slot that died would be waited for without end.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.compute(&task, start, &reasons)));
                let result = result.unwrap_or_else(|_| {
                    self.worker = None;
                    Err(Ended::Failed(
                        "harness itself failed here; the message above says where, please report it".into(),
                    ))
                });
                let (Err(Ended::Failed(reason) | Ended::Died(reason)), false) =
                    (&result, self.request.cancel.load(Ordering::Relaxed))
                else {
                    break result;
                };
                let most = self.request.config.limit(task.action.info.name).retries as usize;
                if reasons.len() >= most {
                    break result;
                }
                reasons.push(reason.clone());
                self.event(Event::Log {
                    step: Some(task.step),
                    label: Some(task.label.clone()),
                    level: "warn".into(),
                    text: format!("attempt {} of {} failed: {reason}", reasons.len(), most + 1),
                });
                std::thread::sleep(RETRY_PAUSE);
            };
            let wall_s = match &result {
                Ok(Computed { known: true, .. }) => 0.0,
                _ => start.elapsed().as_secs_f64(),
            };
            // One that stayed would keep memory of a device that others use.
            if task.need.device_memory.is_some() {
                self.worker = None;
            }
            let result = Box::new(result);
            let _ = self.send.send(Message::Done { step: task.step, slot: self.number, wall_s, result });
        }
        self.desk
    }

    fn event(&self, event: Event) {
        let _ = self.send.send(Message::Event(event));
    }

    /// One attempt. `reasons` are those of the attempts before.
    fn compute(&mut self, task: &Task, start: Instant, reasons: &[String]) -> Result<Computed, Ended> {
        let cache = self.request.results.unwrap_or(self.request.cache);
        let say = |error: &dyn std::fmt::Display| Ended::Failed(error.to_string());
        let Task { action, step, label, .. } = task;
        let mut told = false;
        let asked = Instant::now();
        let patience = self.request.config.wait.unwrap_or(Duration::MAX);
        let lease = cache
            .wait_lease(&action.digest, &mut || {
                if !told {
                    told = true;
                    let holder = cache.holder(&action.digest).ok().flatten().unwrap_or("another process".into());
                    let text = format!("waits: {} computes it already", holder.trim());
                    self.event(Event::Log {
                        step: Some(*step),
                        label: Some(label.clone()),
                        level: "info".into(),
                        text,
                    });
                }
                !self.request.cancel.load(Ordering::Relaxed) && asked.elapsed() < patience
            })
            .map_err(|error| say(&error))?;
        let Some(lease) = lease else {
            if self.request.cancel.load(Ordering::Relaxed) {
                return Err(Ended::Cancelled);
            }
            let holder = cache.holder(&action.digest).ok().flatten().unwrap_or("another process".into());
            let patience = crate::listen::seconds(patience.as_secs_f64());
            return Err(Ended::Failed(format!(
                "{} computes it, and the configuration says not to wait longer than {patience} (`wait`)",
                holder.trim()
            )));
        };
        if (told || !task.force)
            && let Some(finished) = action::lookup(cache, &action.digest).map_err(|error| say(&error))?
            && action::not_kept(&finished.record, &task.taken).is_empty()
        {
            return Ok(Computed { finished, known: true, warnings: Vec::new(), lease });
        }
        if cluster::call_off(self.request.cache, &action.digest) {
            self.event(Event::Log {
                step: Some(*step),
                label: Some(label.clone()),
                level: "warn".into(),
                text: "a job of an earlier run was in the cluster's queue for it; it is computed here, and the job was cancelled".into(),
            });
        }
        self.event(Event::StepStarted {
            step: *step,
            label: label.clone(),
            kind: action.info.name.into(),
            key: action.digest.to_string(),
            slot: format!("{}#{}", task.devices.join("+"), self.number),
        });
        if action.info.name == "scenes" {
            let _using = cache.using().map_err(|error| say(&error))?;
            let (mut finished, warnings) = datasets::scenes(action.key.clone(), &action.params, cache)
                .map_err(|error| say(&format!("{error:#}")))?;
            stamp(&mut finished.record, start.elapsed().as_secs_f64());
            cache.append(&finished.record).map_err(|error| say(&error))?;
            return Ok(Computed { finished, known: false, warnings, lease });
        }
        let (gpu, device) = devices::seen(&task.devices);
        let limit = task.resources.time.map(for_ever);
        let limit = limit.or(self.request.config.limit(action.info.name).time);
        let program = action.info.executor == Executor::Harness;
        let mut desk = match self.desk.take().filter(|_| program) {
            Some(desk) => desk,
            None => Desk::new(cache).map_err(|error| say(&error))?,
        };
        let (out, place) = (desk.path().to_owned(), desk.place());
        // Whoever watches reads what a program prints as it does.
        let shown = self.request.logs.join(format!("program-{}.txt", self.number));
        let log = if program && self.request.logs.is_dir() { shown } else { out.join("log.txt") };
        let job = Job {
            id: 0,
            kind: action.info.name.into(),
            version: action.info.version,
            key: action.digest.to_string(),
            label: label.clone(),
            params: Value::clone(&action.params),
            inputs: action.inputs.clone(),
            out_dir: out.clone(),
            work_dir: cache.work_place(&action.digest),
            device,
            peers: devices::peers(action.info.shared, task.resources.gpus, &task.devices),
            threads: self.request.config.threads,
        };
        let looked = self.request.cache;
        let inputs = Inputs::of(action, looked, &self.request.config.folder).map_err(|error| say(&error))?;
        let outcome = if program {
            let folder = &self.request.config.folder;
            command::run(&job, &place, folder, &log, [&self.request.cancel, &self.request.hurry], limit, gpu.as_deref())
        } else {
            cache.work_dir(&action.digest).map_err(|error| say(&error))?;
            self.run_in_worker(job, task, start, &log, limit, gpu.as_deref())
        };
        let result = outcome.and_then(|mut outcome| {
            inputs.unchanged(looked).map_err(|error| say(&error))?;
            let gpus = task.devices.iter().filter(|device| device.starts_with("cuda")).count();
            if gpus > 0 {
                outcome.provenance.insert("gpus".into(), gpus.into());
            }
            self.store(task, outcome, &out, &log, start.elapsed().as_secs_f64(), reasons)
                .map_err(|error| say(&format!("{error:#}")))
        });
        if program {
            // A file that was written to may still be, by what escaped; the next program gets another one.
            if std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
                let _ = std::fs::remove_file(&log);
            }
            // Of a failed one outputs may lie there still.
            self.desk = (result.is_ok() && desk.cleared()).then_some(desk);
        } else if result.is_ok() {
            let _ = cache.remove_work(&action.digest);
        }
        Ok(Computed { finished: result?, known: false, warnings: Vec::new(), lease })
    }

    fn run_in_worker(
        &mut self,
        job: Job,
        task: &Task,
        start: Instant,
        log: &Path,
        limit: Option<Duration>,
        gpu: Option<&str>,
    ) -> Result<Outcome, Ended> {
        if self.worker.as_mut().is_some_and(|worker| !worker.alive() || !worker.sees(gpu)) {
            self.worker = None;
        }
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                let binary = self.request.worker.as_deref().ok_or_else(|| {
                    Ended::Failed(self.request.missing_worker.clone().unwrap_or("no worker binary was found".into()))
                })?;
                let output = self.request.logs.join(format!("worker-{}.txt", self.number));
                Worker::start(binary, &output, gpu).map_err(|error| Ended::Failed(format!("{error:#}")))?
            }
        };
        let position = worker.output_position();
        let (send, step, label) = (self.send.clone(), task.step, task.label.clone());
        let mut lines = String::new();
        let mut result = worker.run(job, &self.request.cancel, &self.request.hurry, limit, &mut |message| {
            let label = label.clone();
            let event = match message {
                FromWorker::Progress { stage, done, total, unit, .. } => {
                    Event::Progress { step, label, stage, done, total, unit, elapsed_s: start.elapsed().as_secs_f64() }
                }
                FromWorker::Metric { name, x, y, .. } => Event::Metric { step, label, name, x, y },
                FromWorker::Log { level, text, .. } => {
                    lines.push_str(&format!("{level}: {text}\n"));
                    Event::Log { step: Some(step), label: Some(label), level, text }
                }
                _ => return,
            };
            let _ = send.send(Message::Event(event));
        });
        let mut text = lines.into_bytes();
        text.extend(worker.output_since(position));
        // The log is for people; a full disk shows itself where results are stored.
        let _ = std::fs::write(log, text);
        if let Ok(outcome) = &mut result {
            outcome.provenance.insert("worker".into(), worker.build.clone().into());
            outcome.provenance.insert("libtorch".into(), worker.libtorch.clone().into());
        }
        if worker.alive() {
            self.worker = Some(worker);
        }
        result
    }

    /// Puts what a step produced into the store and appends its record.
    fn store(
        &self,
        task: &Task,
        outcome: Outcome,
        out: &Path,
        log: &Path,
        seconds: f64,
        reasons: &[String],
    ) -> Result<Finished> {
        let cache = self.request.results.unwrap_or(self.request.cache);
        let _using = cache.using()?;
        let mut record = Record::new(task.action.key.clone());
        for (name, produced) in outcome.outputs {
            anyhow::ensure!(
                Path::new(&produced.file).components().all(|part| matches!(part, std::path::Component::Normal(_))),
                "the output `{name}` lies outside its folder"
            );
            let (digest, size) = cache.take_file(&out.join(&produced.file))?;
            record.outputs.insert(name, Output { kind: produced.kind, digest, size, name: produced.file });
        }
        record.metrics = outcome.metrics;
        record.series =
            outcome.series.into_iter().map(|(name, s)| (name, Series { x: s.x, y: s.y, x_label: s.x_label })).collect();
        record.observed = task.action.observed.clone();
        let mut provenance = outcome.provenance;
        // The worker sees its device alone and calls it the first.
        let device = if task.devices.is_empty() { self.device.into() } else { task.devices.join("+") };
        provenance.insert("device".into(), device.into());
        if !reasons.is_empty() {
            provenance.insert("failed attempts".into(), json!(reasons));
        }
        provenance.insert("threads".into(), self.request.config.threads.into());
        record.provenance = json!(provenance);
        if let Ok(metadata) = std::fs::metadata(log) {
            // Most print nothing, and that is stored already.
            let stored = if metadata.len() == 0 { cache.put_bytes(&[])? } else { cache.put_file(log)? };
            record.log = Some(stored.0);
        }
        stamp(&mut record, seconds);
        let before = cache.record(&task.action.digest)?;
        cache.append(&record)?;
        if let Some(before) = before {
            let moved: Vec<&str> = record
                .outputs
                .iter()
                .filter(|(name, output)| before.outputs.get(*name).is_some_and(|old| old.digest != output.digest))
                .map(|(name, _)| name.as_str())
                .collect();
            if !moved.is_empty() {
                let text =
                    format!("computed again and different from before: {}; the new result counts", moved.join(", "));
                self.event(Event::Log {
                    step: Some(task.step),
                    label: Some(task.label.clone()),
                    level: "warn".into(),
                    text,
                });
            }
        }
        let data = action::archives(cache, &record)?.unwrap_or_default();
        Ok(Finished { record, data })
    }
}

/// Fills in when and where a record was made.
fn stamp(record: &mut Record, seconds: f64) {
    record.finished_unix_ms = now_ms();
    record.duration_s = seconds;
    let mut provenance: BTreeMap<String, Value> = serde_json::from_value(record.provenance.clone()).unwrap_or_default();
    // A cluster's node has said its name.
    provenance.entry("host".into()).or_insert_with(|| host().into());
    provenance.insert("harness".into(), env!("CARGO_PKG_VERSION").into());
    record.provenance = json!(provenance);
}

/// The machine's name.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_string())
        .unwrap_or_else(|_| "unknown".into())
}
