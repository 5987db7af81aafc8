//! A cluster that exists only in files: a scheduler that keeps its jobs waiting, starts them in another order, loses
//! some, starts some twice, preempts some, and answers questions late, wrongly empty, or not at all. For tests.

use crate::clock::Clock;
use crate::scheduler::{Batch, Entry, Scheduler, Trouble};
use crate::script::{Beginning, Ending};
use harness_protocol::{FromWorker, Job};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong, each in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Jobs that vanish before they begin.
    pub lost: u64,
    /// Jobs that are killed midway, their node forgotten or reported.
    pub killed: u64,
    /// Jobs that are preempted, with time for a checkpoint.
    pub preempted: u64,
    /// Jobs that their node starts anew, under the same name.
    pub restarted: u64,
    /// Endings that arrive up to a minute after the queue says that the job ended.
    pub late: u64,
    /// Submissions that are not answered, half of which were made.
    pub unanswered: u64,
    /// Questions that are not answered, or answered with nothing.
    pub deaf: u64,
}

impl Faults {
    /// Some of everything.
    pub const MANY: Self = Self { lost: 3, killed: 3, preempted: 3, restarted: 3, late: 10, unanswered: 10, deaf: 10 };
}

/// What a job does: gets its folder for outputs, gives its last message.
pub type Body = Box<dyn FnMut(&Job) -> FromWorker + Send>;

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// How often each key's job ran to its end.
    pub ran: BTreeMap<String, u32>,
    /// When the queue was asked.
    pub asked: Vec<Duration>,
    /// Arrays that were submitted.
    pub arrays: usize,
    /// Faults that were injected.
    pub faults: usize,
    /// Jobs that were cancelled.
    pub cancelled: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Ends,
    Killed,
    Preempted,
    Restarted,
}

struct Member {
    entry: Entry,
    /// Where the cluster's folder is, and `key/attempt` below it.
    home: PathBuf,
    job: String,
    fate: Fate,
    began: f64,
    done: bool,
}

enum Event {
    Start,
    End,
    Visible(String, String),
    Forget,
}

struct State {
    members: Vec<Member>,
    /// By time and order, so that equal times stay in order.
    events: BTreeMap<(Duration, u64), (usize, Event)>,
    forgotten: BTreeSet<usize>,
    places: HashMap<(String, usize), usize>,
    counted: Counted,
    faults: Faults,
    dice: u64,
    sequence: u64,
    arrays: u64,
    body: Body,
    /// How long a job runs at most, in seconds; at least a tenth of it.
    length: u64,
}

/// The cluster. Clones are the same one.
#[derive(Clone)]
pub struct Simulated<C> {
    state: Arc<Mutex<State>>,
    clock: C,
}

impl State {
    /// A number below `limit`: xorshift (Marsaglia 2003), its upper half.
    fn below(&mut self, limit: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 32) % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        let hit = self.below(100) < percent;
        self.counted.faults += usize::from(hit);
        hit
    }

    fn at(&mut self, time: Duration, member: usize, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), (member, event));
    }

    fn seconds(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(1000 * least + self.below(1000 * (most - least).max(1)))
    }

    /// Lets everything happen that is due.
    fn advance(&mut self, now: Duration, unix: f64) {
        while let Some(entry) = self.events.first_entry() {
            let (time, _) = *entry.key();
            if time > now {
                break;
            }
            let (member, event) = entry.remove();
            self.happen(time, unix - (now - time).as_secs_f64(), member, event);
        }
    }

    fn happen(&mut self, now: Duration, unix: f64, index: usize, event: Event) {
        let (home, job) = (self.members[index].home.clone(), self.members[index].job.clone());
        let (key, attempt) = job.split_once('/').unwrap_or_default();
        let folder = home.join("jobs").join(&job);
        let ending = home.join("ends").join(format!("{key}.{attempt}"));
        match event {
            Event::Start => {
                if self.members[index].done {
                    return;
                }
                // As the batch script does.
                let counts =
                    fs::read_to_string(home.join("jobs").join(key).join("current")).is_ok_and(|it| it == attempt);
                if !counts || ending.exists() {
                    self.close(now, index, "COMPLETED");
                    return;
                }
                let host = format!("node{}", self.below(20));
                let beginning = Beginning { host: host.clone(), began: unix };
                let _ = write(&folder.join("began"), &serde_json::to_vec(&beginning).unwrap_or_default());
                let member = &mut self.members[index];
                (member.entry.state, member.entry.node, member.began) = ("RUNNING".into(), host, unix);
                let length = self.length;
                let end = now + self.seconds(length / 10, length);
                self.at(end, index, Event::End);
            }
            Event::End => {
                if self.members[index].done {
                    return;
                }
                match self.members[index].fate {
                    Fate::Killed => {
                        let state = if self.below(2) == 0 { "NODE_FAIL" } else { "FORGOTTEN" };
                        self.close(now, index, state);
                        if state == "FORGOTTEN" {
                            self.forgotten.insert(index);
                        }
                    }
                    Fate::Restarted => {
                        // Its node came back and begins it anew.
                        self.members[index].fate = Fate::Ends;
                        let again = now + self.seconds(1, 30);
                        self.at(again, index, Event::Start);
                    }
                    fate => {
                        let Some(parsed) = fs::read(folder.join("job.json"))
                            .ok()
                            .and_then(|bytes| serde_json::from_slice::<Job>(&bytes).ok())
                        else {
                            self.close(now, index, "COMPLETED");
                            return;
                        };
                        let _ = fs::remove_dir_all(&parsed.out_dir);
                        let _ = fs::create_dir_all(&parsed.out_dir);
                        let preempted = fate == Fate::Preempted;
                        let last =
                            if preempted { FromWorker::Cancelled { id: parsed.id } } else { (self.body)(&parsed) };
                        if !preempted {
                            *self.counted.ran.entry(parsed.key.clone()).or_default() += 1;
                        }
                        let status = i32::from(!matches!(last, FromWorker::Finished { .. }));
                        let _ = fs::write(folder.join("log.txt"), "");
                        let line = serde_json::to_string(&last).unwrap_or_default();
                        let _ = fs::write(folder.join("events.jsonl"), format!("{line}\n"));
                        let told = if preempted { "TERM" } else { "" };
                        let host = self.members[index].entry.node.clone();
                        let left =
                            Ending { status, told: told.into(), host, began: self.members[index].began, ended: unix };
                        let text = serde_json::to_string(&left).unwrap_or_default();
                        let late = self.chance(self.faults.late);
                        let when = if late { now + self.seconds(1, 60) } else { now };
                        self.at(when, index, Event::Visible(ending.to_string_lossy().into_owned(), text));
                        let state = if preempted {
                            "PREEMPTED"
                        } else if status == 0 {
                            "COMPLETED"
                        } else {
                            "FAILED"
                        };
                        self.close(now, index, state);
                    }
                }
            }
            Event::Visible(path, text) => {
                let _ = write(Path::new(&path), text.as_bytes());
            }
            Event::Forget => {
                self.forgotten.insert(index);
            }
        }
    }

    fn close(&mut self, now: Duration, index: usize, state: &str) {
        let member = &mut self.members[index];
        (member.entry.state, member.done) = (state.into(), true);
        self.at(now + Duration::from_secs(300), index, Event::Forget);
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("simulated");
    fs::write(&new, bytes)?;
    fs::rename(new, path)
}

impl<C: Clock + Clone + Sync> Simulated<C> {
    /// A cluster on which jobs take up to `length` seconds and do what `body` says.
    pub fn new(clock: C, faults: Faults, seed: u64, length: u64, body: Body) -> Self {
        let state = State {
            members: Vec::new(),
            events: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            places: HashMap::new(),
            counted: Counted::default(),
            faults,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            sequence: 0,
            arrays: 0,
            body,
            length,
        };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(self.clock.now(), self.clock.unix());
        state
    }

    /// Lets everything happen that is due. To be called now and then by whoever waits for it.
    pub fn advance(&self) {
        drop(self.state());
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        self.state().counted.clone()
    }
}

impl<C: Clock + Clone + Sync> Scheduler for Simulated<C> {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<String, Trouble> {
        let now = self.clock.now();
        let mut state = self.state();
        let faults = state.faults;
        let unanswered = state.chance(faults.unanswered);
        if unanswered && state.below(2) == 0 {
            return Err(Trouble::Unreachable("it was not reached".into()));
        }
        state.arrays += 1;
        state.counted.arrays += 1;
        let array = state.arrays.to_string();
        // The script says where the lists are.
        let home = batch.script.lines().find_map(|line| line.strip_prefix("home='"));
        let home = PathBuf::from(home.unwrap_or_default().trim_end_matches('\''));
        let tasks = fs::read_to_string(home.join("batches").join(batch.name).join("tasks")).unwrap_or_default();
        for (index, line) in tasks.lines().enumerate().take(batch.count) {
            if state.chance(faults.lost) {
                continue;
            }
            let fate = match () {
                () if state.chance(faults.killed) => Fate::Killed,
                () if state.chance(faults.preempted) => Fate::Preempted,
                () if state.chance(faults.restarted) => Fate::Restarted,
                () => Fate::Ends,
            };
            let entry = Entry {
                name: batch.name.into(),
                array: array.clone(),
                index,
                state: "PENDING".into(),
                reason: "Priority".into(),
                ..Entry::default()
            };
            let job = line.split('\t').next().unwrap_or_default().to_string();
            let member = state.members.len();
            state.members.push(Member { entry, home: home.clone(), job, fate, began: 0.0, done: false });
            state.places.insert((array.clone(), index), member);
            // In whatever order, and some only after long.
            let long = state.below(20) == 0;
            let start = now + state.seconds(1, if long { 900 } else { 120 });
            state.at(start, member, Event::Start);
        }
        if unanswered { Err(Trouble::Unreachable("no answer came".into())) } else { Ok(array) }
    }

    fn queue(&mut self) -> Result<Vec<Entry>, Trouble> {
        let now = self.clock.now();
        let mut state = self.state();
        let faults = state.faults;
        state.counted.asked.push(now);
        if state.chance(faults.deaf) {
            return if state.below(2) == 0 { Err(Trouble::Unreachable("no answer".into())) } else { Ok(Vec::new()) };
        }
        let shown =
            |(index, member): (usize, &Member)| (!state.forgotten.contains(&index)).then(|| member.entry.clone());
        Ok(state.members.iter().enumerate().filter_map(shown).collect())
    }

    fn cancel(&mut self, jobs: &[(String, Vec<usize>)]) -> Result<(), Trouble> {
        let now = self.clock.now();
        let mut state = self.state();
        for (array, members) in jobs {
            for index in members {
                let Some(&member) = state.places.get(&(array.clone(), *index)) else { continue };
                if !state.members[member].done {
                    state.counted.cancelled += 1;
                    state.close(now, member, "CANCELLED");
                }
            }
        }
        Ok(())
    }
}
