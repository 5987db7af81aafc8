//! Finds the run to look at, reads what it records as it records it, and goes on to the next run.

use crate::live::load::Meter;
use crate::live::model::{Live, Standing};
use crate::live::tail::Tail;
use crate::runs::{self, Run};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Between two questions whether the run goes on, and whether there is another one.
const ASK: Duration = Duration::from_millis(400);
/// Between two looks at what programs print.
const OUTPUT: Duration = Duration::from_millis(150);
/// A run has its events within that time.
const BEGINS: Duration = Duration::from_secs(60);
/// Bytes of a program's earlier output that are shown.
const EARLIER: u64 = 4 << 10;

/// Which run to look at.
#[derive(Clone, Debug)]
pub enum Which {
    /// This one.
    Run(Box<Run>),
    /// The newest one of a file, and each that begins later.
    File(PathBuf),
    /// The newest one of the cache, and each that begins later.
    Newest,
}

impl Which {
    /// What the words of a command line mean: nothing, a run, or a file.
    ///
    /// # Errors
    /// There is no such run.
    pub fn of(cache: &Path, name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(Self::Newest) };
        let file = Path::new(name);
        if file.extension().is_some_and(|extension| extension == "exp") {
            if !file.is_file() && runs::of_file(cache, file).is_empty() {
                bail!("there is no file {name}, and no run of one");
            }
            return Ok(Self::File(file.to_path_buf()));
        }
        Ok(Self::Run(Box::new(runs::find(cache, name)?)))
    }
}

/// Whether nobody writes the run's events any more. One that just begins has none yet.
fn is_gone(run: &Run) -> bool {
    let begins = SystemTime::now() < SystemTime::UNIX_EPOCH + Duration::from_millis(run.asked.started_unix_ms) + BEGINS;
    !run.is_live() && (!begins || run.dir.join("events.jsonl").is_file())
}

/// What is looked at.
pub struct Source {
    cache: PathBuf,
    which: Which,
    /// The run's folder, once there is one.
    pub dir: Option<PathBuf>,
    /// What is known of it.
    pub live: Live,
    /// How many runs were looked at so far: another one has another number.
    pub generation: u64,
    /// The machine.
    pub meter: Meter,
    /// Whether the run is one of this machine, so that its load says something.
    pub here: bool,
    events: Option<Tail>,
    run: Option<Run>,
    outputs: BTreeMap<usize, Vec<Tail>>,
    asked: Option<Instant>,
    listed: Option<SystemTime>,
    read_output: Instant,
    /// How often in a row the run's process was not found.
    gone: u32,
}

impl Source {
    /// Looks at nothing yet.
    pub fn new(cache: &Path, which: Which) -> Self {
        Self {
            cache: cache.to_path_buf(),
            which,
            dir: None,
            live: Live::default(),
            generation: 0,
            meter: Meter::new(),
            here: true,
            events: None,
            run: None,
            outputs: BTreeMap::new(),
            asked: None,
            listed: None,
            read_output: Instant::now(),
            gone: 0,
        }
    }

    /// Takes what is new; whether anything is.
    pub fn look(&mut self) -> bool {
        let before = (self.generation, self.live.version, self.meter.looks);
        let ask = self.asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if ask {
            self.asked = Some(Instant::now());
            self.find();
        }
        let gone = ask && self.live.end.is_none() && self.run.as_ref().is_some_and(is_gone);
        self.read_events();
        // Its last words may have come between the question and the reading; between a file's creation and its lock it
        // looks like a run that is gone.
        if ask {
            self.gone = if gone { self.gone + 1 } else { 0 };
            if self.gone > 1 {
                let last = self.events.as_ref().and_then(|tail| std::fs::metadata(tail.path()).ok()?.modified().ok());
                self.live.kill(last);
            }
        }
        if self.read_output.elapsed() >= OUTPUT {
            self.read_output = Instant::now();
            self.read_outputs();
        }
        if self.live.end.is_none() && !self.live.killed {
            self.meter.look();
        }
        before != (self.generation, self.live.version, self.meter.looks)
    }

    fn read_events(&mut self) {
        let Some(tail) = &mut self.events else { return };
        let live = &mut self.live;
        loop {
            match tail.read(&mut |line| live.line(line)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    live.say("warn", "", &format!("{} cannot be read: {error}", tail.path().display()));
                    self.events = None;
                    break;
                }
            }
        }
    }

    fn find(&mut self) {
        let found = match &self.which {
            Which::Run(_) if self.run.is_some() => return,
            Which::Run(run) => Some((**run).clone()),
            Which::File(_) | Which::Newest => {
                // A folder's time changes with its entries; without a new one there is no new run.
                let listed = std::fs::metadata(self.cache.join("runs")).and_then(|folder| folder.modified()).ok();
                let settled = listed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > 4 * ASK);
                if self.listed == listed && settled {
                    return;
                }
                self.listed = listed;
                let mut runs = match &self.which {
                    Which::File(file) => runs::of_file(&self.cache, file),
                    _ => runs::all(&self.cache),
                }
                .into_iter();
                // What a run is asked for is written before its events are.
                runs.find(|run| run.dir.join("events.jsonl").is_file())
            }
        };
        let Some(run) = found.filter(|run| self.run.as_ref().is_none_or(|known| known.id != run.id)) else { return };
        self.generation += 1;
        self.live = Live::new(&run);
        self.here = run.asked.host.is_empty() || run.asked.host == crate::run::host();
        self.events = Some(Tail::new(run.dir.join("events.jsonl")));
        self.outputs.clear();
        self.gone = 0;
        self.dir = Some(run.dir.clone());
        self.run = Some(run);
    }

    /// What the programs of running steps print.
    fn read_outputs(&mut self) {
        let Some(dir) = &self.dir else { return };
        let mut running: BTreeMap<usize, String> = BTreeMap::new();
        for (_, step) in self.live.shown().filter(|(_, step)| step.standing == Standing::Running) {
            running.extend(step.slot_number().map(|slot| (slot, step.label.clone())));
        }
        self.outputs.retain(|slot, _| running.contains_key(slot));
        for (slot, label) in running {
            let tails = self.outputs.entry(slot).or_insert_with(|| {
                ["worker", "program"].map(|of| Tail::last(dir.join(format!("{of}-{slot}.txt")), EARLIER)).into()
            });
            for tail in tails {
                let live = &mut self.live;
                let _ = tail.read(&mut |line| live.say("out", &label, line));
            }
        }
    }
}
