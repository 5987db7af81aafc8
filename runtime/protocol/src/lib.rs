//! What the two binaries agree on: the parameters of every kind of step, artifacts and manifests, jobs, events, versions.
//!
//! Only serde lives here. A kind of step is one file in [`steps`]: its documented parameter struct *is* the language's
//! schema, the manual and the job the worker gets; `harness-worker` has the file of the same name that runs it.

pub mod artifact;
pub mod job;
pub mod kind;
pub mod manifest;
pub mod model;
pub mod optimise;
pub mod select;
pub mod steps;
pub mod transform;
pub mod value;

pub use artifact::{Artifact, Gallery, GalleryItem};
pub use job::{FromWorker, Job, Location, LocationForm, Outcome, Produced, Series, ToWorker};
pub use kind::{Executor, KindInfo, MetricInfo, OutputInfo, Problem, StepKind};

/// Version of the messages on the control channel; the two binaries refuse each other by name when theirs differ.
pub const PROTOCOL_VERSION: u32 = 1;

/// Environment variable that names the file descriptor of the worker's control channel (a Unix stream socket).
pub const CONTROL_FD: &str = "HARNESS_CONTROL_FD";
