//! `harness history`: the runs of a file, and what each changed against the one before.

use crate::cli::{count, print_json};
use crate::compare::{Change, changes, outside};
use crate::listen::seconds;
use crate::{project, runs};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Changes of a run that are shown without `--all`.
const SHOWN: usize = 8;

/// `harness history`
#[derive(Args, Debug)]
pub struct History {
    /// The .exp file
    pub file: PathBuf,
    /// How many runs, newest first
    #[arg(short = 'n', long, default_value_t = 20)]
    pub number: usize,
    /// Every change of every run
    #[arg(long)]
    pub all: bool,
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
/// The file was never run; a cache that cannot be read.
pub fn history(arguments: &History) -> Result<ExitCode> {
    let (cache, _) = project::cache(Some(&arguments.file), arguments.cache.as_deref())?;
    let all = runs::of_file(cache.dir(), &arguments.file);
    if all.is_empty() {
        let file = arguments.file.display();
        bail!("{file} has not been run with the cache {}; `harness run {file}` runs it", cache.dir().display());
    }
    let mut shown = Vec::new();
    for (index, run) in all.iter().enumerate().take(arguments.number) {
        let told = run.told();
        let earlier = all.get(index + 1);
        let before = earlier.and_then(|before| before.program());
        let changed: Vec<Change> = match (earlier, &before, run.program()) {
            (Some(earlier), Some(before), Some(now)) => {
                let mut found = changes(before, &now);
                found.extend(outside(&cache, &earlier.told(), &now, &told));
                found
            }
            _ => Vec::new(),
        };
        let standing = runs::standing(run, &told);
        if arguments.json {
            shown.push(json!({
                "run": run.id, "asked": run.asked, "standing": standing, "end": told.end, "pinned": run.is_pinned(),
                "changes": changed,
            }));
            continue;
        }
        let pinned = if run.is_pinned() { ", pinned" } else { "" };
        println!("{}  {} UTC  {standing}{pinned}", run.id, run.began());
        if let Some(end) = &told.end {
            let mut parts = vec![format!("{} executed", end.executed), format!("{} cached", end.cached)];
            if end.failed > 0 {
                parts.push(format!("{} failed", end.failed));
            }
            if end.skipped > 0 {
                parts.push(format!("{} skipped", end.skipped));
            }
            println!("  {} in {}", parts.join(", "), seconds(end.wall_s));
            let outcome = |word: &str| end.claims.values().filter(|outcome| *outcome == word).count();
            if !end.claims.is_empty() {
                let (holds, fails) = (outcome("holds"), outcome("fails"));
                let undecided = end.claims.len() - holds - fails;
                println!("  claims: {holds} hold, {fails} fail, {undecided} undecided");
            }
        }
        if !run.asked.targets.is_empty() {
            println!("  only {}", run.asked.targets.join(", "));
        }
        if !run.asked.force.is_empty() {
            println!("  computed again: {}", run.asked.force.join(", "));
        }
        let lines: Vec<String> = changed.iter().map(Change::told).collect();
        let most = if arguments.all { lines.len() } else { SHOWN };
        lines.iter().take(most).for_each(|line| println!("    {line}"));
        if lines.len() > most {
            println!("    and {} more (`--all`)", count(lines.len() - most, "change"));
        }
        if before.is_some() && lines.is_empty() {
            println!("    the same experiment as before");
        }
    }
    if arguments.json {
        print_json(&shown)?;
    } else if all.len() > arguments.number {
        println!("and {} before (`-n` shows more)", count(all.len() - arguments.number, "run"));
    }
    Ok(ExitCode::SUCCESS)
}
