//! The shared cache in a run: what is not known here is asked for there, and what was computed here is sent there.
//!
//! Neither ever stops a run: a place that cannot be reached is said once, and the run goes on as if there were none.
//! Results come before a step is queued, many at a time; they go after they are safe here, while the run goes on.

use crate::config::Shared as Settings;
use crate::events::Event;
use crate::words::{bytes, count};
use anyhow::Result;
use harness_cache::{Cache, Digest};
use harness_remote::{Error, Fetched, Remote, Sent};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A shared cache, and what became of it in this run.
#[derive(Debug)]
pub struct Shared {
    remote: Remote,
    /// Whether results go there.
    sends: bool,
    told: Mutex<Told>,
    /// Results handed over that are neither there nor given up.
    waiting: AtomicUsize,
}

/// What is told of it.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Whether it has answered.
    greeted: bool,
    /// Whether it is not to be asked any more.
    down: bool,
    fetched: usize,
    fetched_bytes: u64,
    sent: usize,
    sent_bytes: u64,
    /// Results that are only here.
    kept: usize,
    /// What was not said yet.
    problems: Vec<String>,
}

impl Shared {
    /// The shared cache of these settings. Nothing is asked of it yet.
    ///
    /// # Errors
    /// They name no place that can be used.
    pub fn open(settings: &Settings) -> Result<Self> {
        let remote = Remote::open(&settings.place)?;
        Ok(Self { remote, sends: settings.send, told: Mutex::default(), waiting: AtomicUsize::new(0) })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on without it.
    fn give_up(&self, error: &Error) {
        let mut told = self.told();
        if !told.down {
            told.down = true;
            told.problems.push(format!("{error}; going on without it"));
        }
    }

    /// Whether it is there, which is asked once.
    fn is_up(&self) -> bool {
        let told = self.told().clone();
        if told.greeted || told.down {
            return !told.down;
        }
        match self.remote.greet() {
            Ok(()) => self.told().greeted = true,
            Err(error) => self.give_up(&error),
        }
        !self.told().down
    }

    /// Where it is.
    pub fn place(&self) -> &str {
        self.remote.url()
    }

    /// Fetches what is there of some results; those that came. They are safe here: a stop leaves them.
    ///
    /// # Errors
    /// The local cache cannot be written.
    pub fn fetch(&self, cache: &Cache, keys: &[Digest], stop: &AtomicBool) -> Result<BTreeSet<Digest>> {
        let mut came = BTreeSet::new();
        if keys.is_empty() || !self.is_up() {
            return Ok(came);
        }
        let using = cache.using()?;
        let mut failure = None;
        let aborted = AtomicBool::new(false);
        let halt = || aborted.store(true, Ordering::Relaxed);
        let ended = || aborted.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed);
        self.remote.fetch(cache, keys, &ended, &mut |key, result| match result {
            Ok(Fetched::Here(some)) => {
                using.keep(&key);
                came.insert(key);
                let mut told = self.told();
                told.fetched += 1;
                told.fetched_bytes += some;
            }
            Ok(Fetched::Unknown) => {}
            Ok(Fetched::Damaged(text)) => self.told().problems.push(text),
            Err(Error::Cache(error)) => {
                failure.get_or_insert(error);
                halt();
            }
            Err(error) => {
                self.give_up(&error);
                halt();
            }
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        if !came.is_empty() {
            cache.commit()?;
        }
        Ok(came)
    }

    /// Whether results are to be handed over, for [`Shared::serve`] to send.
    pub fn takes(&self) -> bool {
        self.sends && !self.told().down
    }

    /// Counts a result that is handed over.
    pub fn expect(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends results as they are handed over, until there will be no more and all are there, it is to stop, or there is
    /// no reaching it.
    pub fn serve(&self, cache: &Cache, handed: &Receiver<Digest>, stop: &AtomicBool) {
        while let Ok(first) = handed.recv() {
            let keys: Vec<Digest> = std::iter::once(first).chain(handed.try_iter()).collect();
            let mut left: BTreeSet<Digest> = keys.iter().copied().collect();
            if !stop.load(Ordering::Relaxed) && self.is_up() {
                self.remote.send(cache, &keys, &|| stop.load(Ordering::Relaxed), &mut |key, result| {
                    left.remove(&key);
                    match result {
                        Ok(Sent::There(some)) => {
                            let mut told = self.told();
                            told.sent += 1;
                            told.sent_bytes += some;
                        }
                        Ok(Sent::Gone) => {}
                        Err(error @ (Error::Cache(_) | Error::NotWhole { .. })) => {
                            let mut told = self.told();
                            told.kept += 1;
                            told.problems.push(error.to_string());
                        }
                        Err(error) => {
                            self.told().kept += 1;
                            self.give_up(&error);
                        }
                    }
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                });
            }
            self.told().kept += left.len();
            self.waiting.fetch_sub(left.len(), Ordering::Relaxed);
        }
    }

    /// What is to be said by now, of problems at once and of the rest at the end.
    pub fn news(&self, at_the_end: bool) -> Option<Event> {
        let mut told = self.told();
        let problems = std::mem::take(&mut told.problems);
        let done = at_the_end && (told.fetched > 0 || told.sent > 0 || told.kept > 0);
        if problems.is_empty() && !done {
            return None;
        }
        Some(self.event(&told, at_the_end, problems))
    }

    /// That it is waited for.
    pub fn sending(&self) -> Event {
        self.event(&self.told(), false, Vec::new())
    }

    fn event(&self, told: &Told, ended: bool, problems: Vec<String>) -> Event {
        Event::Shared {
            place: self.remote.url().to_string(),
            fetched: told.fetched,
            fetched_bytes: told.fetched_bytes,
            sent: told.sent,
            sent_bytes: told.sent_bytes,
            kept: told.kept,
            waiting: self.waiting(),
            ended,
            problems,
        }
    }

    /// How many results are still on their way.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// What is said of it at the end, in a line; none where nothing came or went.
pub fn line(place: &str, fetched: (usize, u64), sent: (usize, u64), kept: usize) -> Option<String> {
    let mut said = Vec::new();
    let some = |(number, size): (usize, u64), verb: &str| {
        (number > 0).then(|| format!("{} {verb} ({})", count(number, "result"), bytes(size)))
    };
    said.extend(some(fetched, "fetched"));
    said.extend(some(sent, "sent"));
    if kept > 0 {
        said.push(format!("{} not sent (`harness cache push` sends what is missing there)", count(kept, "result")));
    }
    (!said.is_empty()).then(|| format!("shared cache {place}: {}", said.join(", ")))
}
