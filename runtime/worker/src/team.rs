//! Rank processes of one job: the worker that got the job is rank 0; it starts the others, watches them, and says what went
//! wrong in them.
//!
//! ```text
//! harness -> worker = rank 0 ─┬─ harness-worker --rank 1 …
//!                             └─ harness-worker --rank 2 …      all meet in a file, then only c10d speaks between them
//! ```
//!
//! Rank 0 alone reports, watches, and writes checkpoints and outputs. The others die with it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness_protocol::Job;

use crate::error::{Error, Result};
use crate::group::Group;

/// Longest wait for another rank in one operation, seconds, unless the environment says otherwise.
const PATIENCE: u64 = 600;

/// Environment variable with another number of seconds.
pub const PATIENCE_VARIABLE: &str = "HARNESS_RANK_TIMEOUT";

/// Time that ranks get to say what went wrong before they are ended.
const GRACE: Duration = Duration::from_secs(3);

/// Where a job's ranks are: one process alone, or several in a group.
#[derive(Debug)]
pub struct Team {
    group: Option<Arc<Group>>,
    size: usize,
    folder: PathBuf,
    peers: Mutex<Vec<Peer>>,
}

#[derive(Debug)]
struct Peer {
    rank: usize,
    device: String,
    process: Child,
    ended: Option<ExitStatus>,
}

fn patience() -> Duration {
    let said = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(said.unwrap_or(PATIENCE))
}

/// Devices of all ranks of a job, rank 0 first.
fn devices(job: &Job) -> Vec<&str> {
    std::iter::once(&job.device).chain(&job.peers).map(String::as_str).collect()
}

fn failure_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}.failed"))
}

fn here_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}.here"))
}

impl Team {
    /// One process alone.
    pub fn alone() -> Self {
        Self { group: None, size: 1, folder: PathBuf::new(), peers: Mutex::default() }
    }

    /// Starts the other ranks of a job and meets them; alone, if it has none.
    ///
    /// # Errors
    /// A process cannot be started or ends before all have met.
    pub fn lead(job: &Job) -> Result<Self> {
        if job.peers.is_empty() {
            return Ok(Self::alone());
        }
        let folder = job.work_dir.join("ranks");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("clear", &folder)(error));
            }
            _ => std::fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?,
        }
        let file = folder.join("job.json");
        let text = serde_json::to_vec(job).map_err(|error| error.to_string())?;
        std::fs::write(&file, text).map_err(Error::io("write", &file))?;
        let program = std::env::current_exe().map_err(Error::io("find", Path::new("harness-worker")))?;
        let mut team = Self { group: None, size: job.peers.len() + 1, folder, peers: Mutex::default() };
        for (rank, device) in devices(job).into_iter().enumerate().skip(1) {
            let process = Command::new(&program)
                .args(["--rank", &rank.to_string(), "--job"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .map_err(Error::io("start", &program))?;
            let peer = Peer { rank, device: device.into(), process, ended: None };
            team.peers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(peer);
        }
        // A file of each, so that one that ends early is noticed at once and not when the meeting's time is over.
        let deadline = Instant::now() + patience();
        let size = team.size;
        while !(1..size).all(|rank| here_file(&team.folder, rank).is_file()) {
            if let Some(why) = team.trouble() {
                return Err(Error::Step(why));
            }
            if Instant::now() > deadline {
                return Err(format!("the {size} ranks of this job did not all start within {:?}", patience()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        match team.join(job, 0) {
            Ok(group) => team.group = Some(Arc::new(group)),
            Err(error) => return Err(team.explained(error)),
        }
        Ok(team)
    }

    /// Meets the others as a rank above 0.
    ///
    /// # Errors
    /// They did not come.
    pub fn follow(job: &Job, rank: usize) -> Result<Self> {
        let mut team = Self {
            group: None,
            size: job.peers.len() + 1,
            folder: job.work_dir.join("ranks"),
            peers: Mutex::default(),
        };
        let here = here_file(&team.folder, rank);
        std::fs::write(&here, []).map_err(Error::io("write", &here))?;
        team.group = Some(Arc::new(team.join(job, rank)?));
        Ok(team)
    }

    /// Several ranks in one process, for tests.
    #[cfg(test)]
    pub fn of(group: Arc<Group>, folder: &Path) -> Self {
        Self { size: group.size(), group: Some(group), folder: folder.to_path_buf(), peers: Mutex::default() }
    }

    fn join(&self, job: &Job, rank: usize) -> Result<Group> {
        let devices = devices(job);
        let device = crate::device::parse(devices[rank])?;
        Group::join(&self.folder.join("meeting"), rank, devices.len(), patience(), device)
    }

    /// The group, if there are several ranks.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// Which rank this is, from 0.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rank())
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this one reports and writes.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Whether any rank says yes; all have to ask.
    ///
    /// # Errors
    /// Another rank ended or hangs.
    pub fn any(&self, yes: bool) -> Result<bool> {
        match &self.group {
            Some(group) => Ok(group.total(f64::from(u8::from(yes)))? > 0.0),
            None => Ok(yes),
        }
    }

    /// Whether a number is the same on every rank; all have to ask.
    ///
    /// # Errors
    /// Another rank ended or hangs.
    pub fn agrees(&self, number: u64) -> Result<bool> {
        let Some(group) = &self.group else { return Ok(true) };
        let (value, size) = (number as f64, group.size() as f64);
        // Equal sums of values and of squares leave no room for a difference.
        let (sum, squares) = (group.total(value)?, group.total(value * value)?);
        Ok(sum == value * size && squares == value * value * size)
    }

    /// Rank 0 does something that takes as long as it takes, and the others wait without losing patience; `turn` is a name
    /// that no other such wait of the job has.
    ///
    /// # Errors
    /// What rank 0's work gave.
    pub fn wait_for_leader<T: Default>(&self, turn: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.size() == 1 {
            return work();
        }
        let done = self.folder.join(format!("{turn}.done"));
        if self.leads() {
            let made = work();
            std::fs::write(&done, []).map_err(Error::io("write", &done))?;
            return made;
        }
        while !done.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(T::default())
    }

    /// What went wrong in another rank, if something did: its own words, or how it ended.
    fn trouble(&self) -> Option<String> {
        let mut peers = self.peers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut lost = None;
        for peer in peers.iter_mut() {
            if peer.ended.is_none() {
                peer.ended = peer.process.try_wait().ok().flatten();
            }
            let Some(status) = peer.ended.filter(|status| !status.success()) else { continue };
            let who = format!("rank {} of {} (`{}`)", peer.rank, self.size, peer.device);
            if let Ok(words) = std::fs::read_to_string(failure_file(&self.folder, peer.rank)) {
                // One that lost the others says so too, but another one is the cause.
                match words.strip_prefix("lost: ") {
                    Some(words) => lost = lost.or(Some(format!("{who}: {words}"))),
                    None => return Some(format!("{who}: {words}")),
                }
            } else {
                let how = match status.signal() {
                    Some(signal) => format!("was ended by signal {signal}"),
                    None => format!("ended with status {}", status.code().unwrap_or(-1)),
                };
                return Some(format!("{who} {how}; run again, and the step goes on from its checkpoint"));
            }
        }
        lost
    }

    /// An error of this rank, or that the others were lost if it came after that.
    pub fn blame(&self, error: Error) -> Error {
        match &self.group {
            Some(group) => group.blame(error),
            None => error,
        }
    }

    /// An error of rank 0, replaced by that of the rank that caused it.
    pub fn explained(&self, error: Error) -> Error {
        if !matches!(error, Error::Ranks(_)) {
            return error;
        }
        let deadline = Instant::now() + GRACE;
        loop {
            match self.trouble() {
                Some(why) => return Error::Step(why),
                None if Instant::now() > deadline => {
                    return Error::Step(format!(
                        "{error}; none of them ended, so one hangs: it is stopped now; run again, and the step goes on from its checkpoint"
                    ));
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let peers = std::mem::take(&mut *self.peers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if peers.is_empty() {
            return;
        }
        let deadline = Instant::now() + GRACE;
        for mut peer in peers {
            while matches!(peer.process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = peer.process.kill();
            let _ = peer.process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a rank above 0 of the job in a file to its end; whether it went well. What went wrong is written beside the job.
///
/// # Errors
/// The job cannot be read.
pub fn run_rank(rank: usize, file: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
    let job: Job =
        serde_json::from_str(&text).map_err(|error| format!("`{}` is not a job: {error}", file.display()))?;
    let Err(error) = crate::steps::run_rank(&job, rank) else { return Ok(true) };
    let words = match error {
        Error::Ranks(words) => format!("lost: {words}"),
        other => other.to_string(),
    };
    let said = failure_file(&job.work_dir.join("ranks"), rank);
    std::fs::write(&said, words).map_err(Error::io("write", &said))?;
    Ok(false)
}
