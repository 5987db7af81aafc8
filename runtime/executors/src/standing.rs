//! How a job stands, as its coordinator last knew: a small file beside it, for `plan`, `status`, and a coordinator that
//! was started again.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Label of its step.
    pub label: String,
    /// [`crate::Order::inputs`].
    pub inputs: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Name of its array; empty while it was not submitted.
    pub batch: String,
    /// Number within the array.
    pub index: usize,
    /// The scheduler's name for it, `123_4`, once known.
    pub job: Option<String>,
    /// In the scheduler's words.
    pub state: String,
    /// Why it waits.
    pub reason: String,
    /// Where it runs.
    pub node: String,
    /// When that was learned, in milliseconds since 1970 (UTC).
    pub seen_unix_ms: u64,
}

impl Standing {
    /// Of the action with this key, below a cache folder; none where no job of it is known.
    pub fn read(cache: &Path, key: &str) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(place(&home(cache), key)).ok()?).ok()
    }

    /// Writes it, complete or not at all.
    pub(crate) fn write(&self, home: &Path, key: &str) -> std::io::Result<()> {
        let path = place(home, key);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, &path)
    }

    /// In words: `Slurm job 123_4, PENDING (Priority)`.
    pub fn said(&self) -> String {
        let job = self.job.as_ref().map_or("a Slurm job".into(), |job| format!("Slurm job {job}"));
        let state = if self.state.is_empty() { "submitted" } else { &self.state };
        match (self.node.is_empty(), self.reason.is_empty() || self.reason == "None") {
            (false, _) => format!("{job}, {state} on {}", self.node),
            (true, false) => format!("{job}, {state} ({})", self.reason),
            (true, true) => format!("{job}, {state}"),
        }
    }
}

/// The executors' folder in a cache folder.
pub fn home(cache: &Path) -> PathBuf {
    cache.join("cluster")
}

fn place(home: &Path, key: &str) -> PathBuf {
    home.join("jobs").join(key).join("standing.json")
}
