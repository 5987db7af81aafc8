//! How each kind of step runs: one file per kind, of the same name as in the protocol.

pub mod animation;
pub mod cluster_segment;
pub mod depth;
pub mod embed;
pub mod encoder;
pub mod finetune;
pub mod knn;
pub mod linear_probe;
pub mod linear_svm;
pub mod overlay;
pub mod predict;
pub mod pretrain;
pub mod propagate;
pub mod retrieve;
pub mod score_video;
pub mod segment;
pub mod segments;
#[cfg(test)]
mod tests;
pub mod video;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use harness_protocol::{FromWorker, Job, Outcome, StepKind};

use crate::context::{Context, Sink};
use crate::error::{Error, Result, panic_message};
use crate::team::Team;

/// How a kind of step runs.
pub struct Run {
    /// Name of the kind.
    pub kind: &'static str,
    /// Version of what it computes.
    pub version: u32,
    /// Runs a job of it.
    pub run: fn(&Context) -> Result<Outcome>,
    /// Whether several ranks can share it.
    pub shared: bool,
}

const fn run_of<T: StepKind>(run: fn(&Context) -> Result<Outcome>) -> Run {
    Run { kind: T::KIND, version: T::VERSION, run, shared: T::SHARED }
}

/// Every kind that this worker runs, sorted by name.
pub const ALL: &[Run] = &[
    run_of::<harness_protocol::steps::Embed>(embed::run),
    run_of::<harness_protocol::steps::ClusterSegment>(cluster_segment::run),
    run_of::<harness_protocol::steps::Depth>(depth::run),
    run_of::<harness_protocol::steps::Encoder>(encoder::run),
    run_of::<harness_protocol::steps::Knn>(knn::run),
    run_of::<harness_protocol::steps::LinearProbe>(linear_probe::run),
    run_of::<harness_protocol::steps::LinearSvm>(linear_svm::run),
    run_of::<harness_protocol::steps::Pretrain>(pretrain::run),
    run_of::<harness_protocol::steps::Propagate>(propagate::run),
    run_of::<harness_protocol::steps::Retrieve>(retrieve::run),
    run_of::<harness_protocol::steps::ScoreVideo>(score_video::run),
    run_of::<harness_protocol::steps::Segment>(segment::run),
];

/// Version of each kind, for the handshake.
pub fn versions() -> BTreeMap<String, u32> {
    ALL.iter().map(|run| (run.kind.to_string(), run.version)).collect()
}

/// The kind of a job, if this worker can run it as it asks.
fn found(job: &Job) -> Result<&'static Run> {
    let run = ALL.iter().find(|run| run.kind == job.kind).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|run| run.kind).collect();
        format!("this worker does not run `{}`, only {}", job.kind, names.join(", "))
    })?;
    if run.version != job.version {
        return Err(format!(
            "this worker has version {} of `{}`, and the job asks for version {}; build both from the same source",
            run.version, job.kind, job.version
        )
        .into());
    }
    if !run.shared && !job.peers.is_empty() {
        let names: Vec<&str> = ALL.iter().filter(|run| run.shared).map(|run| run.kind).collect();
        return Err(format!(
            "`{}` runs on one device, and the job has {}; several are for {}",
            job.kind,
            job.peers.len() + 1,
            names.join(", ")
        )
        .into());
    }
    if let Some(Err(problems)) = harness_protocol::steps::kind(&job.kind).map(|kind| (kind.resolve)(job.params.clone()))
    {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
        return Err(lines.join("\n").into());
    }
    Ok(run)
}

fn try_run(job: &Job, sink: Sink, cancelled: &AtomicU64) -> Result<Outcome> {
    let run = found(job)?;
    for folder in [&job.out_dir, &job.work_dir] {
        std::fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
    }
    let context = Context::new(job, sink, cancelled)?.with_team(Team::lead(job)?)?;
    start(&context)?;
    let mut outcome = guarded(run, &context).map_err(|error| context.team.explained(error))?;
    let warnings = context.warnings();
    if !warnings.is_empty() {
        outcome.provenance.insert("warnings".into(), warnings.into());
    }
    Ok(outcome)
}

/// Runs a step. Its panics are errors; and whatever fails after other ranks were lost does so for that.
fn guarded(run: &Run, context: &Context) -> Result<Outcome> {
    catch_unwind(AssertUnwindSafe(|| (run.run)(context)))
        .unwrap_or_else(|panic| Err(panic_message(panic.as_ref()).into()))
        .map_err(|error| context.team.blame(error))
}

/// How every job starts.
fn start(context: &Context) -> Result<()> {
    tch::set_num_threads(context.threads() as i32);
    crate::shim::arithmetic(false)
}

/// Runs a job as one of its ranks above 0.
///
/// # Errors
/// The step's.
pub fn run_rank(job: &Job, rank: usize) -> Result<()> {
    let never = AtomicU64::new(u64::MAX);
    let work = || {
        let run = found(job)?;
        let context = Context::new(job, &|_| (), &never)?.with_team(Team::follow(job, rank)?)?;
        start(&context)?;
        guarded(run, &context).map(drop)
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic_message(panic.as_ref()).into()))
}

/// Runs a job to its end, whatever that is; the last message. A panic in it is a failure of the job alone.
pub fn run(job: &Job, sink: Sink, cancelled: &AtomicU64) -> FromWorker {
    let id = job.id;
    let last = match catch_unwind(AssertUnwindSafe(|| try_run(job, sink, cancelled))) {
        Ok(Ok(outcome)) => FromWorker::Finished { id, outcome },
        Ok(Err(Error::Cancelled)) => FromWorker::Cancelled { id },
        Ok(Err(error)) => FromWorker::Failed { id, message: error.to_string() },
        Err(panic) => FromWorker::Failed { id, message: panic_message(panic.as_ref()) },
    };
    // All tensors of the job are gone by now; the next one gets the memory that they took.
    if let (FromWorker::Failed { .. }, Ok(device)) = (&last, crate::device::parse(&job.device)) {
        crate::shim::release_memory(device);
    }
    last
}
