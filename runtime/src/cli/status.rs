//! `harness status`: the runs that go on now, from what they record. Works beside them.

use crate::cli::{aligned, count, print_json};
use crate::events;
use crate::listen::seconds;
use crate::{project, runs};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs that ended and are listed where none goes on.
const ENDED: usize = 3;

/// `harness status`
#[derive(Args, Debug)]
pub struct Status {
    /// Only runs of this .exp file
    pub file: Option<PathBuf>,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// A cache or configuration that cannot be read.
pub fn status(arguments: &Status) -> Result<ExitCode> {
    let (cache, _) = project::cache(arguments.file.as_deref(), arguments.cache.as_deref())?;
    let all = match &arguments.file {
        Some(file) => runs::of_file(cache.dir(), file),
        None => runs::all(cache.dir()),
    };
    let live: Vec<_> = all.iter().filter(|run| run.is_live()).map(|run| (run, run.told())).collect();
    if arguments.json {
        let mut shown = Vec::new();
        for (run, told) in &live {
            let done = told.steps.values().filter(|step| step.status.is_some()).count();
            let running: Vec<_> = told.running().map(|(label, step)| json!({ "label": label, "step": step })).collect();
            shown.push(json!({
                "run": run.id, "asked": run.asked, "steps": told.total, "done": done, "running": running,
            }));
        }
        print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (run, told) in &live {
        let since = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        let since = since.saturating_sub(run.asked.started_unix_ms) as f64 / 1e3;
        println!("{}  {}", run.id, run.asked.file);
        println!("  running for {}, process {} on {}", seconds(since), run.asked.pid, run.asked.host);
        let of = |status: events::Status| told.steps.values().filter(|step| step.status == Some(status)).count();
        let done = told.steps.values().filter(|step| step.status.is_some()).count();
        let mut parts = vec![
            format!("{} executed", of(events::Status::Executed)),
            format!("{} cached", of(events::Status::Cached)),
        ];
        if of(events::Status::Failed) > 0 {
            parts.push(format!("{} failed", of(events::Status::Failed)));
        }
        println!("  {done} of {} done: {}", count(told.total as usize, "step"), parts.join(", "));
        let rows: Vec<Vec<String>> = told
            .running()
            .map(|(label, step)| {
                let mut row = vec![format!("    {label}"), step.slot.clone()];
                row.push(match &step.progress {
                    Some(at) if at.total > 0 => {
                        let share = at.done as f64 / at.total as f64;
                        let left = if share > 0.0 { at.elapsed_s / share - at.elapsed_s } else { f64::NAN };
                        let left =
                            if left.is_finite() { format!(", about {} left", seconds(left)) } else { String::new() };
                        format!("{:.0} %  {}{left}", share * 100.0, at.stage)
                    }
                    _ => "started".into(),
                });
                row
            })
            .collect();
        aligned(&rows).iter().for_each(|line| println!("{line}"));
        for (label, step) in told.steps.iter().filter(|(_, step)| step.status == Some(events::Status::Failed)) {
            println!(
                "    failed: {label}: {}",
                step.error.as_deref().and_then(|e| e.lines().next()).unwrap_or_default()
            );
        }
    }
    if live.is_empty() {
        let of = arguments.file.as_ref().map(|file| format!(" of {}", file.display())).unwrap_or_default();
        println!("no run{of} goes on with the cache {}", cache.dir().display());
        if all.is_empty() {
            println!("and none is recorded; `harness run FILE` runs an experiment");
        } else {
            println!("the newest:");
            let rows: Vec<Vec<String>> = all
                .iter()
                .take(ENDED)
                .map(|run| {
                    vec![format!("  {}", run.id), run.asked.file.clone(), runs::standing(run, &run.told()).into()]
                })
                .collect();
            aligned(&rows).iter().for_each(|line| println!("{line}"));
        }
    } else {
        println!("`harness watch` follows the newest, `harness serve` in the browser");
    }
    Ok(ExitCode::SUCCESS)
}
