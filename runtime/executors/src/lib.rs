//! Where steps run beyond this machine: jobs of a cluster's scheduler.
//!
//! ```text
//! Order --> Jobs --(arrays)--> Scheduler: Slurm, or a simulated one
//!             ^                    |
//!             |                    v
//!          Notes <-- files <-- the batch script on a node --> harness-worker --job … --events …
//! ```
//!
//! A job is a file, what it says is a file, and how it ended is a file: an exit status is believed, an absence from the
//! queue is not. [`Jobs`] owns all of that; it knows nothing of caches and keys beyond their names, starts no thread and
//! reads no clock but the one it is given, so that ten thousand jobs are simulated in seconds.

mod clock;
mod jobs;
mod resources;
mod scheduler;
mod script;
pub mod simulated;
mod slurm;
mod standing;

pub use clock::{Clock, Scaled, System};
pub use jobs::{End, Jobs, Note, Order, Place, Runner, Settings};
pub use resources::{FIELD, Resources, Where};
pub use scheduler::{Ask, Batch, Entry, PREFIX, Scheduler, Trouble};
pub use slurm::Slurm;
pub use standing::Standing;
