//! Steps that run as jobs of a cluster: one thread prepares them, follows all their jobs, and takes their results. Only
//! this process touches the cache's records and index.

use super::{Computed, Message, Request, Slot, Task};
use crate::action;
use crate::events::Event;
use crate::inputs::Inputs;
use crate::worker::Ended;
use anyhow::{Context as _, Result};
use harness_cache::{Cache, Digest, Lease};
use harness_executors::{Ask, Clock, End, Jobs, Note, Order, Place, Runner, Scheduler, Settings, Standing};
use harness_protocol::{Executor, FromWorker, Job, Outcome};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// What a cluster is reached by.
pub struct Reach {
    /// Its scheduler.
    pub scheduler: Box<dyn Scheduler>,
    /// The clock that it is followed by.
    pub clock: Box<dyn Clock>,
    /// How it is followed.
    pub settings: Settings,
    /// Real time between two rounds.
    pub pause: Duration,
}

/// Open files that a run needs beside one for each job's lease.
const FILES: u64 = 256;

/// A step whose job is on its way.
struct Active {
    seat: usize,
    task: Task,
    lease: Lease,
    inputs: Inputs,
    start: Instant,
    /// Why attempts before failed.
    reasons: Vec<String>,
    /// What its program said to people.
    lines: String,
}

/// A step whose key another process computes.
struct Patient {
    seat: usize,
    task: Task,
    since: Instant,
    told: bool,
}

pub(super) struct Cluster<'a> {
    request: &'a Request<'a>,
    send: Sender<Message>,
    jobs: Option<Jobs>,
    pause: Duration,
    active: BTreeMap<String, Active>,
    patient: Vec<Patient>,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(request: &'a Request<'a>, send: Sender<Message>) -> Self {
        Self {
            request,
            send,
            jobs: None,
            pause: Duration::from_millis(500),
            active: BTreeMap::new(),
            patient: Vec::new(),
        }
    }

    pub(super) fn serve(mut self, tasks: &Receiver<(usize, Task)>) {
        loop {
            let idle = self.active.is_empty() && self.patient.is_empty();
            let first = if idle {
                tasks.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                tasks.recv_timeout(self.pause)
            };
            match first {
                Ok((seat, task)) => {
                    self.accept(Patient { seat, task, since: Instant::now(), told: false });
                    while let Ok((seat, task)) = tasks.try_recv() {
                        self.accept(Patient { seat, task, since: Instant::now(), told: false });
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            std::mem::take(&mut self.patient).into_iter().for_each(|patient| self.accept(patient));
            self.round();
        }
    }

    /// One look at all jobs.
    fn round(&mut self) {
        let Some(mut jobs) = self.jobs.take() else { return };
        let mut notes = Vec::new();
        if self.request.cancel.load(Ordering::Relaxed) {
            jobs.cancel(&mut |note| notes.push(note));
        }
        if self.request.hurry.load(Ordering::Relaxed) {
            jobs.abandon(&mut |note| notes.push(note));
        }
        jobs.tick(&mut |note| notes.push(note));
        notes.into_iter().for_each(|note| self.note(&mut jobs, note));
        self.jobs = Some(jobs);
    }

    fn event(&self, event: Event) {
        let _ = self.send.send(Message::Event(event));
    }

    fn log(&self, task: Option<&Task>, level: &str, text: String) {
        let (step, label) = (task.map(|task| task.step), task.map(|task| task.label.clone()));
        self.event(Event::Log { step, label, level: level.into(), text });
    }

    fn done(&self, step: usize, seat: usize, wall_s: f64, result: Result<Computed, Ended>) {
        let _ = self.send.send(Message::Done { step, slot: seat, wall_s, result: Box::new(result) });
    }

    /// Begins a step, or leaves it among the patient ones.
    fn accept(&mut self, mut patient: Patient) {
        let (step, seat) = (patient.task.step, patient.seat);
        match self.begin(&mut patient) {
            Ok(Some(computed)) => self.done(step, seat, 0.0, Ok(computed)),
            Ok(None) => {}
            Err(Some(ended)) => self.done(step, seat, patient.since.elapsed().as_secs_f64(), Err(ended)),
            Err(None) => self.patient.push(patient),
        }
    }

    /// Orders a job; a result, if another process left one meanwhile. The error without content means to come again.
    fn begin(&mut self, patient: &mut Patient) -> Result<Option<Computed>, Option<Ended>> {
        let cache = self.request.cache;
        let task = &patient.task;
        let say = |error: &dyn std::fmt::Display| Some(Ended::Failed(error.to_string()));
        if self.request.cancel.load(Ordering::Relaxed) {
            return Err(Some(Ended::Cancelled));
        }
        let Some(lease) = cache.lease(&task.action.digest).map_err(|error| say(&error))? else {
            let holder = cache.holder(&task.action.digest).ok().flatten().unwrap_or("another process".into());
            if self.request.config.wait.is_some_and(|most| patient.since.elapsed() >= most) {
                return Err(say(&format!(
                    "{} computes it, and the configuration says not to wait longer (`wait`)",
                    holder.trim()
                )));
            }
            if !patient.told {
                self.log(Some(task), "info", format!("waits: {} computes it already", holder.trim()));
                patient.told = true;
            }
            return Err(None);
        };
        if (patient.told || !task.force)
            && let Some(finished) = action::lookup(cache, &task.action.digest).map_err(|error| say(&error))?
            && action::not_kept(&finished.record, &task.taken).is_empty()
        {
            return Ok(Some(Computed { finished, known: true, warnings: Vec::new(), lease }));
        }
        let inputs = Inputs::of(&task.action, cache, &self.request.config.folder).map_err(|error| say(&error))?;
        let order = self.order(task, inputs.state()).map_err(|error| say(&format!("{error:#}")))?;
        self.reach().map_err(|error| say(&format!("{error:#}")))?;
        let Some(jobs) = &mut self.jobs else { return Err(say(&"there is no cluster")) };
        if task.force {
            jobs.forget(&order.job.key);
        }
        let key = order.job.key.clone();
        let found = jobs.add(order).map_err(|error| say(&format!("its job cannot be written: {error}")))?;
        if found {
            self.log(Some(task), "info", "its job is there already: it is followed on".into());
        }
        let active = Active {
            seat: patient.seat,
            task: task.clone(),
            lease,
            inputs,
            start: patient.since,
            reasons: Vec::new(),
            lines: String::new(),
        };
        self.active.insert(key, active);
        Ok(None)
    }

    /// Reaches for the cluster when it is first needed.
    fn reach(&mut self) -> Result<()> {
        if self.jobs.is_some() {
            return Ok(());
        }
        let config = &self.request.config.slurm;
        let reach = match self.request.reach {
            Some(reach) => reach(),
            None => Reach {
                scheduler: Box::new(harness_executors::Slurm),
                clock: Box::new(harness_executors::System::default()),
                settings: config.settings(),
                pause: Duration::from_millis(500),
            },
        };
        let most = files();
        if most < config.jobs as u64 + FILES {
            self.log(None, "warn", format!(
                "this process may open {most} files, and each of up to {} jobs needs one for its lease: raise `ulimit -n`, or lower `jobs` under [slurm]",
                config.jobs
            ));
        }
        self.pause = reach.pause;
        let jobs = Jobs::new(self.request.cache.dir(), reach.scheduler, reach.clock, reach.settings);
        self.jobs = Some(jobs.context("the cluster's folder in the cache cannot be made")?);
        Ok(())
    }

    /// What is asked of the cluster for a step.
    fn order(&self, task: &Task, state: Digest) -> Result<Order> {
        let (request, action) = (self.request, &task.action);
        let (config, resources) = (request.config, &task.resources);
        let limit = config.limit(action.info.name);
        let worker = action.info.executor == Executor::Worker;
        let one = u32::from(worker);
        let gpus = match config.device.as_str() {
            // Whoever asks for the processor gets it on a node as well.
            "cpu" => 0,
            _ => resources.gpus.or(config.slurm.gpus).unwrap_or(one),
        };
        let time = resources.time.map(super::for_ever).or(limit.time);
        let memory = resources.memory.or(Some(limit.memory)).filter(|bytes| *bytes > 0);
        let ask = Ask {
            partition: resources.partition.clone().or(config.slurm.partition.clone()),
            gpus,
            cpus: resources.cpus.or(config.slurm.cpus).unwrap_or(config.threads),
            memory_mib: memory.map(|bytes| bytes.div_ceil(1 << 20)),
            minutes: time.map(|time| time.as_secs().div_ceil(60).max(1)),
            options: config.slurm.options.clone(),
        };
        let runner = if worker {
            let named = config.slurm.worker.as_ref().or(request.worker.as_ref());
            let Some(program) = named else {
                anyhow::bail!("{}", request.missing_worker.clone().unwrap_or("no worker binary was found".into()));
            };
            Runner { program: std::path::absolute(program)?, words: Vec::new() }
        } else {
            let folder = config.folder.to_string_lossy().into_owned();
            Runner { program: std::env::current_exe()?, words: vec!["job".into(), "--folder".into(), folder] }
        };
        let job = Job {
            id: 1,
            kind: action.info.name.into(),
            version: action.info.version,
            key: action.digest.to_string(),
            label: task.label.clone(),
            params: serde_json::Value::clone(&action.params),
            inputs: action.inputs.clone(),
            // The job's own folder, which is not known before it is ordered.
            out_dir: Default::default(),
            work_dir: request.cache.work_dir(&action.digest)?,
            device: if gpus > 0 { "cuda:0".into() } else { "cpu".into() },
            peers: (1..gpus).filter(|_| action.info.shared).map(|number| format!("cuda:{number}")).collect(),
            threads: config.threads,
        };
        // What it observes (`keep`) is not in the key and decides what a job leaves.
        let asked = serde_json::to_vec(&(state, &job.params))?;
        Ok(Order { job, runner, ask, inputs: Digest::of_bytes(&asked).to_string() })
    }

    fn note(&mut self, jobs: &mut Jobs, note: Note) {
        match note {
            Note::Warned(key, text) => {
                let task = key.and_then(|key| self.active.get(&key)).map(|active| &active.task);
                self.log(task, "warn", text);
            }
            Note::Stands(key, standing) => {
                let Some(active) = self.active.get(&key) else { return };
                let (step, label) = (active.task.step, active.task.label.clone());
                self.event(Event::StepQueued {
                    step,
                    label,
                    kind: active.task.action.info.name.into(),
                    key,
                    job: standing.job.unwrap_or_default(),
                    state: standing.state,
                    reason: standing.reason,
                    node: standing.node,
                });
            }
            Note::Began(key, host) => {
                let Some(active) = self.active.get(&key) else { return };
                self.event(Event::StepStarted {
                    step: active.task.step,
                    label: active.task.label.clone(),
                    kind: active.task.action.info.name.into(),
                    key,
                    slot: format!("slurm:{host}"),
                });
            }
            Note::Said(key, message) => {
                let Some(active) = self.active.get_mut(&key) else { return };
                let (step, label) = (active.task.step, active.task.label.clone());
                let event = match message {
                    FromWorker::Progress { stage, done, total, unit, .. } => {
                        let elapsed_s = active.start.elapsed().as_secs_f64();
                        Event::Progress { step, label, stage, done, total, unit, elapsed_s }
                    }
                    FromWorker::Metric { name, x, y, .. } => Event::Metric { step, label, name, x, y },
                    FromWorker::Log { level, text, .. } => {
                        active.lines.push_str(&format!("{level}: {text}\n"));
                        Event::Log { step: Some(step), label: Some(label), level, text }
                    }
                    _ => return,
                };
                self.event(event);
            }
            Note::Ended(key, end, place) => self.ended(jobs, &key, end, place),
        }
    }

    fn ended(&mut self, jobs: &mut Jobs, key: &str, end: End, place: Place) {
        let Some(mut active) = self.active.remove(key) else { return };
        let wall_s = active.start.elapsed().as_secs_f64();
        let (step, seat) = (active.task.step, active.seat);
        let ended = match end {
            End::Done(outcome) => self.take(&active, *outcome, &place).map_err(Ended::Failed),
            End::Failed(text) => Err(Ended::Failed(text)),
            End::Died(text) => Err(Ended::Died(text)),
            End::Cancelled => Err(Ended::Cancelled),
        };
        jobs.forget(key);
        let finished = match ended {
            Ok(finished) => finished,
            Err(Ended::Failed(reason) | Ended::Died(reason)) if self.may_retry(&active) => {
                active.reasons.push(reason.clone());
                let most = self.request.config.limit(active.task.action.info.name).retries as usize;
                let said = format!("attempt {} of {} failed: {reason}", active.reasons.len(), most + 1);
                self.log(Some(&active.task), "warn", said);
                let again = self.order(&active.task, active.inputs.state()).and_then(|order| Ok(jobs.add(order)?));
                match again {
                    Ok(_) => drop(self.active.insert(key.into(), active)),
                    Err(error) => self.done(step, seat, wall_s, Err(Ended::Failed(format!("{error:#}")))),
                }
                return;
            }
            Err(ended) => return self.done(step, seat, wall_s, Err(ended)),
        };
        let _ = self.request.cache.remove_work(&active.task.action.digest);
        let computed = Computed { finished, known: false, warnings: Vec::new(), lease: active.lease };
        self.done(step, seat, wall_s, Ok(computed));
    }

    fn may_retry(&self, active: &Active) -> bool {
        let most = self.request.config.limit(active.task.action.info.name).retries as usize;
        active.reasons.len() < most && !self.request.cancel.load(Ordering::Relaxed)
    }

    /// Takes what a job left into the cache.
    fn take(&self, active: &Active, mut outcome: Outcome, place: &Place) -> Result<action::Finished, String> {
        active.inputs.unchanged(self.request.cache)?;
        let log = place.out.with_file_name("said.txt");
        let mut text = active.lines.clone().into_bytes();
        text.extend(std::fs::read(&place.log).unwrap_or_default());
        // The log is for people; a full disk shows itself where results are stored.
        let _ = std::fs::write(&log, text);
        let said: [(&str, serde_json::Value); 5] = [
            ("host", json!(place.host)),
            ("executor", json!(format!("slurm, job {}", place.job))),
            ("waited_s", json!((place.waited_s * 10.0).round() / 10.0)),
            ("gpus", json!(place.gpus)),
            ("attempts", json!(place.attempts)),
        ];
        outcome.provenance.extend(said.into_iter().map(|(name, value)| (name.to_string(), value)));
        let device = if place.gpus > 0 { "cuda:0" } else { "cpu" };
        let slot = Slot {
            number: active.seat,
            device,
            request: self.request,
            send: self.send.clone(),
            worker: None,
            desk: None,
        };
        slot.store(&active.task, outcome, &place.out, Path::new(&log), place.ran_s, &active.reasons)
            .map_err(|error| format!("{error:#}"))
    }
}

/// Raises what this process may open to what it is allowed; how many files that is.
fn files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a struct that lives here.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 1024;
        }
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) == 0 { wanted.rlim_cur } else { limit.rlim_cur }
    }
}

/// Cancels the job that a run which is gone left in a cluster's queue for this key: its step is computed here now, and two
/// must not write the same checkpoint. Whether there was one.
pub fn call_off(cache: &Cache, key: &Digest) -> bool {
    let key = key.to_string();
    if Standing::read(cache.dir(), &key).is_none() {
        return false;
    }
    let scheduler = Box::new(harness_executors::Slurm);
    let clock = Box::new(harness_executors::System::default());
    Jobs::new(cache.dir(), scheduler, clock, Settings::default()).is_ok_and(|mut jobs| jobs.call_off(&key))
}
