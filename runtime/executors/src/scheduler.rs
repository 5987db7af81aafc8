//! What a cluster's scheduler must be able to do, in three calls.

use std::fmt;

/// Jobs of this program have names that begin so.
pub const PREFIX: &str = "harness-";

/// What a job asks for. Jobs that ask for the same can be of one array.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Partition; the cluster's default without one.
    pub partition: Option<String>,
    /// GPUs.
    pub gpus: u32,
    /// Cores.
    pub cpus: u32,
    /// Memory in MiB; the cluster's default without it.
    pub memory_mib: Option<u64>,
    /// Longest time in minutes; the partition's without it.
    pub minutes: Option<u64>,
    /// Further options of the site, such as `--account=vision`.
    pub options: Vec<String>,
}

/// Jobs that are submitted together: an array of `count` members, numbered from 0.
pub struct Batch<'a> {
    /// Name of the array, unique, beginning with [`PREFIX`].
    pub name: &'a str,
    /// What each asks for.
    pub ask: &'a Ask,
    /// The script that each runs; it learns its number from `SLURM_ARRAY_TASK_ID`.
    pub script: &'a str,
    /// How many there are.
    pub count: usize,
}

/// What the scheduler says of one job. Schedulers forget jobs some time after they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Name of its array.
    pub name: String,
    /// The scheduler's number of the array.
    pub array: String,
    /// Number within the array.
    pub index: usize,
    /// In the scheduler's words: `PENDING`, `RUNNING`, `PREEMPTED`…
    pub state: String,
    /// Why it waits or ended.
    pub reason: String,
    /// Where it runs or ran.
    pub node: String,
    /// Exit status of the script, once it ended.
    pub status: Option<i32>,
}

impl Entry {
    /// Whether it has not ended.
    pub fn is_live(&self) -> bool {
        const LIVE: [&str; 9] = [
            "PENDING",
            "RUNNING",
            "CONFIGURING",
            "COMPLETING",
            "SUSPENDED",
            "REQUEUED",
            "REQUEUE_HOLD",
            "RESIZING",
            "SIGNALING",
        ];
        LIVE.contains(&self.state.as_str()) || self.state == "STAGE_OUT" || self.state == "STOPPED"
    }
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such scheduler on this machine.
    Absent(String),
    /// It said no, and would again.
    Refused(String),
    /// It could not be asked, or did not answer: nobody knows what it did.
    Unreachable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Absent(text) | Trouble::Refused(text) | Trouble::Unreachable(text) => f.write_str(text),
        }
    }
}

/// A cluster's scheduler.
pub trait Scheduler: Send {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Submits an array; the scheduler's number of it.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] leaves open whether it was submitted.
    fn submit(&mut self, batch: &Batch<'_>) -> Result<String, Trouble>;

    /// All jobs of this user whose name begins with [`PREFIX`], in one question, those that ended a short time ago
    /// among them as far as the scheduler still knows them.
    ///
    /// # Errors
    /// It cannot be asked.
    fn queue(&mut self) -> Result<Vec<Entry>, Trouble>;

    /// Cancels jobs: each an array's number with the numbers of members.
    ///
    /// # Errors
    /// It cannot be asked.
    fn cancel(&mut self, jobs: &[(String, Vec<usize>)]) -> Result<(), Trouble>;
}
