//! What a step gets: its job, its inputs, and ways to say how far it is and to notice that it should stop.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness_protocol::job::InputFiles;
use harness_protocol::{FromWorker, Gallery, Job, Produced};
use serde::de::DeserializeOwned;
use tch::Device;

use crate::data::{Images, Videos};
use crate::error::{Error, Result};
use crate::team::Team;

/// Shortest time between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Where a job's messages go.
pub type Sink<'a> = &'a (dyn Fn(FromWorker) + Sync);

/// A running job.
pub struct Context<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its device.
    pub device: Device,
    /// The ranks that share it.
    pub team: Team,
    sink: Sink<'a>,
    cancelled: &'a AtomicU64,
    told: Mutex<Option<(Instant, String)>>,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Context<'a> {
    /// A job on its device. `cancelled` holds the number of the job that is asked to stop.
    ///
    /// # Errors
    /// There is no such device.
    pub fn new(job: &'a Job, sink: Sink<'a>, cancelled: &'a AtomicU64) -> Result<Self> {
        let device = crate::device::parse(&job.device)?;
        let (told, warnings) = (Mutex::new(None), Mutex::default());
        Ok(Self { job, device, team: Team::alone(), sink, cancelled, told, warnings })
    }

    /// As one of several ranks. Above rank 0 the device is the rank's own, and nothing is reported.
    ///
    /// # Errors
    /// There is no such device.
    pub fn with_team(mut self, team: Team) -> Result<Self> {
        if let Some(peer) = team.rank().checked_sub(1) {
            let device = self.job.peers.get(peer).ok_or("the job has no device for this rank")?;
            self.device = crate::device::parse(device)?;
        }
        self.team = team;
        Ok(self)
    }

    /// Sends a message; of several ranks the first one alone does.
    fn send(&self, message: FromWorker) {
        if self.team.leads() {
            (self.sink)(message);
        }
    }

    /// The step's parameters.
    ///
    /// # Errors
    /// They are not those of `T`, which a job made by `harness` of the same version never is.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.job.params.clone())
            .map_err(|error| format!("the parameters of this job do not fit `{}`: {error}", self.job.kind).into())
    }

    /// Says how far the job is: `done` of `total` units in the whole job. Called as often as convenient; sent at most
    /// ten times a second, and at once when the stage changes or the end is reached.
    pub fn progress(&self, stage: &str, done: u64, total: u64, unit: &str) {
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let soon = told.as_ref().is_some_and(|(at, last)| at.elapsed() < PROGRESS_EVERY && last == stage);
        if soon && done < total {
            return;
        }
        *told = Some((Instant::now(), stage.into()));
        let (stage, unit) = (stage.into(), unit.into());
        self.send(FromWorker::Progress { id: self.job.id, stage, done, total, unit });
    }

    /// One point of a curve, while it grows; the whole curve belongs in the outcome too.
    pub fn metric(&self, name: &str, x: f64, y: f64) {
        self.send(FromWorker::Metric { id: self.job.id, name: name.into(), x, y });
    }

    /// A line for people.
    pub fn info(&self, text: impl Into<String>) {
        self.send(FromWorker::Log { id: self.job.id, level: "info".into(), text: text.into() });
    }

    /// A warning for people. It is kept beside the result, so that a summary says it also where the result is known.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        self.warnings.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text.clone());
        self.send(FromWorker::Log { id: self.job.id, level: "warn".into(), text });
    }

    /// All warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Whether the job was asked to stop. Steps that can resume write their checkpoint then.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) == self.job.id
    }

    /// Stops here if the job was asked to.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Threads of the data pipeline.
    pub fn threads(&self) -> usize {
        (self.job.threads as usize / self.team.size()).max(1)
    }

    /// Where an input lies.
    ///
    /// # Errors
    /// The job does not list it.
    pub fn input(&self, digest: &str) -> Result<&InputFiles> {
        self.job.inputs.get(digest).ok_or_else(|| format!("the job does not say where input {digest} lies").into())
    }

    /// An input's own file.
    ///
    /// # Errors
    /// The job does not list it.
    pub fn input_file(&self, digest: &str) -> Result<&Path> {
        Ok(&self.input(digest)?.file)
    }

    /// A dataset of pictures.
    ///
    /// # Errors
    /// Its manifest or its files cannot be opened, or the manifest is not the one with this digest.
    pub fn images(&self, digest: &str) -> Result<Images> {
        Images::open(self.input(digest)?, digest)
    }

    /// A dataset of videos.
    ///
    /// # Errors
    /// As [`Context::images`].
    pub fn videos(&self, digest: &str) -> Result<Videos> {
        Videos::open(self.input(digest)?, digest)
    }

    /// Path of an output file.
    pub fn out(&self, name: &str) -> PathBuf {
        self.job.out_dir.join(name)
    }

    /// Writes an output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, kind: &str, bytes: &[u8]) -> Result<Produced> {
        let path = self.out(name);
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        Ok(Produced { kind: kind.into(), file: name.into() })
    }

    /// Writes pictures to look at as the output file `NAME.json`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_gallery(&self, name: &str, gallery: &Gallery) -> Result<Produced> {
        let bytes = serde_json::to_vec(gallery).map_err(|error| Error::Step(error.to_string()))?;
        self.write(&format!("{name}.json"), "pictures", &bytes)
    }
}
