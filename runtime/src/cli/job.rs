//! `harness job`: runs one step of the kind `command` from a file, as `harness-worker` runs the others. The batch script
//! of a cluster's job calls it; hidden, since nobody else has a use for it.

use crate::worker::Ended;
use crate::{command, start};
use anyhow::{Context as _, Result};
use clap::Args;
use harness_protocol::{FromWorker, Job, PROTOCOL_VERSION, steps};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// `harness job`
#[derive(Args, Debug)]
pub struct JobFile {
    /// The folder of the .exp file
    #[arg(long)]
    pub folder: PathBuf,
    /// The job
    #[arg(long)]
    pub job: PathBuf,
    /// Where its messages go
    #[arg(long)]
    pub events: PathBuf,
}

/// Runs it. SIGTERM stops the program.
///
/// # Errors
/// The job cannot be read, or its messages cannot be written.
pub fn job(arguments: &JobFile) -> Result<ExitCode> {
    let unreadable = || format!("{} is no job", arguments.job.display());
    let bytes = std::fs::read(&arguments.job).with_context(unreadable)?;
    let job: Job = serde_json::from_slice(&bytes).with_context(unreadable)?;
    let mut events = std::fs::File::create(&arguments.events)
        .with_context(|| format!("{} cannot be written", arguments.events.display()))?;
    let mut say = |message: &FromWorker| -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        events.write_all(&line).with_context(|| format!("{} cannot be written", arguments.events.display()))
    };
    say(&FromWorker::Hello {
        protocol: PROTOCOL_VERSION,
        build: format!("harness {}", env!("CARGO_PKG_VERSION")),
        libtorch: String::new(),
        cuda_devices: 0,
        kinds: steps::ALL.iter().map(|kind| (kind.name.to_string(), kind.version)).collect(),
    })?;
    let (cancel, hurry) = start::interrupts()?;
    let log = arguments.job.with_file_name("log.txt");
    let gpu = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let last = match command::run(
        &job,
        &job.out_dir.join("run"),
        &arguments.folder,
        &log,
        [&cancel, &hurry],
        None,
        gpu.as_deref(),
    ) {
        Ok(outcome) => FromWorker::Finished { id: job.id, outcome },
        Err(Ended::Failed(message) | Ended::Died(message)) => FromWorker::Failed { id: job.id, message },
        Err(Ended::Cancelled) => FromWorker::Cancelled { id: job.id },
    };
    say(&last)?;
    Ok(ExitCode::from(u8::from(!matches!(last, FromWorker::Finished { .. }))))
}
