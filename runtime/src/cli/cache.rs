//! `harness cache`: what the store holds, what of it may go, and what must stay.
//!
//! What stays by itself: for every file that was run, the newest result of each step that its newest text has; every
//! run that is pinned; what the files named with `--keep` refer to as they are now; and whatever a process relies on
//! that has the cache open. The rest may go: older than an age, oldest first down to a size, or all of it.

mod exchange;

use crate::cli::{aligned, bytes, count, print_json, when};
use crate::events::Status;
use crate::project::{self, Project};
use crate::runs::{self, Run};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use harness_cache::{Cache, Digest, Record};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Results that are listed without `--all`.
const LISTED: usize = 30;

/// `harness cache`
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// How much it holds
    Stat(Look),
    /// The results it holds, largest first, and what keeps each
    Ls(Ls),
    /// Remove results that nothing in use refers to
    Gc(Gc),
    /// Keep a run and all its results, whatever is collected
    Pin(Pin),
    /// Let collection have a run again
    Unpin(Pin),
    /// Hash everything again and report what is damaged or missing
    Verify(Look),
    /// Build the index anew from the records
    Rebuild(Look),
    /// Send the results that the shared cache lacks
    Push(Push),
    /// Fetch the results of a file's steps from the shared cache, or all that are there
    Pull(Pull),
}

/// `harness cache push`
#[derive(Args, Debug)]
pub struct Push {
    /// The shared cache: a folder, s3://bucket/prefix, gs://…, az://…; that of harness.toml or $HARNESS_REMOTE without it
    #[arg(long, value_name = "PLACE")]
    pub remote: Option<String>,
    /// Read what is there in full and send what is damaged anew; without it, only what is missing or has another size
    #[arg(long)]
    pub verify: bool,
    /// Only say how much would go
    #[arg(long)]
    pub dry_run: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `harness cache pull`
#[derive(Args, Debug)]
pub struct Pull {
    /// The .exp file whose results are wanted; without one, everything that is there
    pub file: Option<PathBuf>,
    /// Give a param another value
    #[arg(short, value_name = "NAME=VALUE", value_parser = crate::cli::param, requires = "file")]
    pub params: Vec<(String, String)>,
    /// The shared cache: a folder, s3://bucket/prefix, gs://…, az://…; that of harness.toml or $HARNESS_REMOTE without it
    #[arg(long, value_name = "PLACE")]
    pub remote: Option<String>,
    /// Only say how many there are that are not here
    #[arg(long, conflicts_with = "file")]
    pub dry_run: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What only looks.
#[derive(Args, Debug)]
pub struct Look {
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `harness cache ls`
#[derive(Args, Debug)]
pub struct Ls {
    /// Every result
    #[arg(long)]
    pub all: bool,
    /// Oldest first
    #[arg(long)]
    pub by_age: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `harness cache gc`
#[derive(Args, Debug)]
pub struct Gc {
    /// Only what was computed, and last part of a run, longer ago: `30d`, `12h`. Folders of such runs go as well
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<u64>,
    /// Oldest first, until the store is no larger: `100GiB`, `500MB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Also keep what these files refer to, as they are now
    #[arg(long, value_name = "FILE")]
    pub keep: Vec<PathBuf>,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `harness cache pin` and `unpin`
#[derive(Args, Debug)]
pub struct Pin {
    /// A run: its id or a beginning of it, `latest`, or an .exp file for its newest one
    pub run: String,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// An age in milliseconds.
fn age(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no age: a number with s, min, h, d or w, such as `30d`");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let number: f64 = text[..split].trim().parse().map_err(|_| wrong())?;
    let unit = match &text[split..] {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "w" => 7.0 * 86400.0,
        _ => return Err(wrong()),
    };
    if number < 0.0 || !number.is_finite() { Err(wrong()) } else { Ok((number * unit * 1000.0) as u64) }
}

/// A size in bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is no size: a number with B, KB, MB, GB, TB or KiB, MiB, GiB, TiB, such as `100GiB`");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let number: f64 = text[..split].trim().parse().map_err(|_| wrong())?;
    let unit = match &text[split..] {
        "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => f64::from(1 << 20),
        "GiB" => f64::from(1 << 30),
        "TiB" => 1024.0 * f64::from(1 << 30),
        _ => return Err(wrong()),
    };
    if number < 0.0 || !number.is_finite() { Err(wrong()) } else { Ok((number * unit) as u64) }
}

/// Runs `harness cache …`.
///
/// # Errors
/// A cache that cannot be read or written, a run or file that is not there.
pub fn cache(command: &CacheCommand) -> Result<ExitCode> {
    match command {
        CacheCommand::Stat(look) => {
            let (store, _) = project::cache(None, look.cache.as_deref())?;
            stat(&store, &store.stat()?, look.json)?;
        }
        CacheCommand::Rebuild(look) => {
            let (store, _) = project::cache(None, look.cache.as_deref())?;
            stat(&store, &store.rebuild_index()?, look.json)?;
        }
        CacheCommand::Verify(look) => {
            let (store, _) = project::cache(None, look.cache.as_deref())?;
            return verify(&store, look.json);
        }
        CacheCommand::Ls(arguments) => ls(arguments)?,
        CacheCommand::Gc(arguments) => gc(arguments)?,
        CacheCommand::Push(arguments) => return exchange::push(arguments),
        CacheCommand::Pull(arguments) => return exchange::pull(arguments),
        CacheCommand::Pin(arguments) => pin(arguments, true)?,
        CacheCommand::Unpin(arguments) => pin(arguments, false)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn stat(store: &Cache, stat: &harness_cache::Stat, json: bool) -> Result<()> {
    if json {
        return print_json(stat);
    }
    println!("{}", store.dir().display());
    println!(
        "  {} for {} in {}",
        count(stat.records as usize, "record"),
        count(stat.keys as usize, "key"),
        bytes(stat.bytes)
    );
    println!("  {}, {}", count(stat.blobs as usize, "blob"), count(runs::all(store.dir()).len(), "recorded run"));
    if stat.damaged > 0 {
        println!("  {} cannot be used", count(stat.damaged as usize, "damaged record line"));
    }
    if stat.quarantined > 0 {
        println!(
            "  {} in quarantine (`harness cache gc` removes them)",
            count(stat.quarantined as usize, "damaged thing")
        );
    }
    if !stat.has_index {
        println!("  another process has the index");
    }
    Ok(())
}

fn verify(store: &Cache, json: bool) -> Result<ExitCode> {
    let report = store.verify_all()?;
    let code = if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        print_json(&report)?;
        return Ok(code);
    }
    println!("{}", store.dir().display());
    println!(
        "  {} intact, {}, {}",
        count(report.blobs as usize, "blob"),
        bytes(report.bytes),
        count(report.records as usize, "record")
    );
    for digest in &report.corrupt {
        println!("  corrupt, moved to quarantine: {digest}");
    }
    for missing in &report.missing {
        println!("  missing: `{}` of the result {} ({})", missing.output, missing.key, missing.blob);
    }
    if report.damaged > 0 {
        println!("  {} cannot be used", count(report.damaged as usize, "damaged record line"));
    }
    if !report.is_clean() {
        println!("  the steps concerned will be computed again when they are next asked for");
    }
    Ok(code)
}

/// A result in the store.
#[derive(Debug, Serialize)]
struct Held {
    key: Digest,
    kind: String,
    /// Steps that it was the result of, as `file: label`; of the newest run that had it.
    label: Option<String>,
    /// When it was computed, milliseconds since 1970 (UTC).
    computed_unix_ms: u64,
    /// When it was last computed or part of a run.
    used_unix_ms: u64,
    /// Bytes of its outputs and its log; results may share some.
    bytes: u64,
    /// Why it stays; none for one that may go.
    kept: Option<String>,
    #[serde(skip)]
    blobs: Vec<(Digest, u64)>,
}

/// What stays, and why: the first reason found.
fn kept(store: &Cache, all: &[Run], files: &[PathBuf], named: Option<&Path>) -> Result<BTreeMap<Digest, String>> {
    let mut kept = BTreeMap::new();
    for file in files {
        let Some(project) = Project::open(file, &[], named)? else {
            bail!("{} has mistakes, so what it refers to cannot be told", file.display());
        };
        if project.cache.dir() != store.dir() {
            bail!(
                "{} uses the cache {}; name this one with `--cache {}`",
                file.display(),
                project.cache.dir().display(),
                store.dir().display()
            );
        }
        for state in project.look(&vec![true; project.program.steps.len()])? {
            if let Some(key) = state.key {
                kept.entry(key).or_insert(format!("{} refers to it", file.display()));
            }
        }
    }
    for run in all.iter().filter(|run| run.is_pinned()) {
        for key in run.told().steps.into_values().filter_map(|step| step.key) {
            kept.entry(key).or_insert(format!("run {} is pinned", run.id));
        }
    }
    // The newest result of each step of each file; of steps that the newest text no longer has, none.
    let mut seen: BTreeMap<PathBuf, (Option<BTreeSet<String>>, BTreeSet<String>)> = BTreeMap::new();
    for run in all {
        let told = run.told();
        let (labels, found) = seen.entry(place(run)).or_insert_with(|| {
            let program = run.program();
            (program.map(|program| program.steps.into_iter().map(|step| step.label).collect()), BTreeSet::new())
        });
        for (label, step) in told.steps {
            let done = matches!(step.status, Some(Status::Executed | Status::Cached));
            let asked = labels.as_ref().is_none_or(|labels| labels.contains(&label));
            let (Some(key), true) = (step.key, asked) else { continue };
            if found.contains(&label) {
                continue;
            }
            // One that was not finished may have left a checkpoint to go on from; the result before it stays too.
            kept.entry(key).or_insert(format!("newest of {}", run.asked.file));
            if done {
                found.insert(label);
            }
        }
    }
    Ok(kept)
}

/// What makes runs those of one file.
fn place(run: &Run) -> PathBuf {
    if run.asked.path.as_os_str().is_empty() { PathBuf::from(&run.asked.file) } else { run.asked.path.clone() }
}

fn held(store: &Cache, all: &[Run], kept: &BTreeMap<Digest, String>) -> Result<Vec<Held>> {
    let mut labels: BTreeMap<Digest, (String, u64)> = BTreeMap::new();
    for run in all {
        for (label, step) in run.told().steps {
            if let Some(key) = step.key {
                let used = (format!("{}: {label}", run.asked.file), run.asked.started_unix_ms);
                labels.entry(key).or_insert(used);
            }
        }
    }
    let mut found = Vec::new();
    for key in store.key_list()? {
        let history: Vec<Record> = store.history(&key)?;
        let Some(newest) = history.last() else { continue };
        let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
        for record in &history {
            blobs.extend(record.outputs.values().map(|output| (output.digest, output.size)));
            if let Some(log) = record.log {
                let size = store.blob(&log)?.and_then(|path| path.metadata().ok()).map_or(0, |found| found.len());
                blobs.insert(log, size);
            }
        }
        let label = labels.get(&key);
        found.push(Held {
            key,
            kind: newest.key.kind.clone(),
            label: label.map(|(label, _)| label.clone()),
            computed_unix_ms: newest.finished_unix_ms,
            used_unix_ms: newest.finished_unix_ms.max(label.map_or(0, |(_, used)| *used)),
            bytes: blobs.values().sum(),
            kept: kept.get(&key).cloned(),
            blobs: blobs.into_iter().collect(),
        });
    }
    Ok(found)
}

fn ls(arguments: &Ls) -> Result<()> {
    let (store, _) = project::cache(None, arguments.cache.as_deref())?;
    let all = runs::all(store.dir());
    let mut held = held(&store, &all, &kept(&store, &all, &[], None)?)?;
    if arguments.by_age {
        held.sort_by_key(|one| one.used_unix_ms);
    } else {
        held.sort_by_key(|one| std::cmp::Reverse(one.bytes));
    }
    if arguments.json {
        return print_json(&held);
    }
    if held.is_empty() {
        println!("{} holds no result; `harness run FILE` computes some", store.dir().display());
        return Ok(());
    }
    let most = if arguments.all { held.len() } else { LISTED };
    print(&held.iter().take(most).collect::<Vec<_>>());
    if held.len() > most {
        println!("and {} more (`--all`)", held.len() - most);
    }
    println!("{} in {}", count(held.len(), "result"), bytes(store.stat()?.bytes));
    Ok(())
}

fn print(held: &[&Held]) {
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|one| {
            vec![
                one.key.to_string().chars().take(12).collect(),
                format!("{:>9}", bytes(one.bytes)),
                when(one.used_unix_ms),
                one.label.clone().unwrap_or_else(|| format!("a `{}`, of no recorded run", one.kind)),
                one.kept.as_ref().map(|why| format!("stays: {why}")).unwrap_or_default(),
            ]
        })
        .collect();
    aligned(&rows).iter().for_each(|line| println!("{line}"));
}

/// Of what may go, what goes: older than the age, then oldest first until the rest is small enough.
fn going(held: &[Held], total: u64, now: u64, older_than: Option<u64>, max_size: Option<u64>) -> Vec<&Held> {
    let mut may: Vec<&Held> = held.iter().filter(|one| one.kept.is_none()).collect();
    may.sort_by_key(|one| one.used_unix_ms);
    let old = |one: &Held| older_than.is_none_or(|age| one.used_unix_ms.saturating_add(age) <= now);
    let Some(most) = max_size else { return may.into_iter().filter(|one| old(one)).collect() };
    // Blobs that several results share are freed with the last of them.
    let mut sharers: BTreeMap<Digest, usize> = BTreeMap::new();
    for (blob, _) in held.iter().flat_map(|one| &one.blobs) {
        *sharers.entry(*blob).or_default() += 1;
    }
    let mut left = total;
    let mut going = Vec::new();
    for one in may {
        let by_age = older_than.is_some() && old(one);
        if left <= most && !by_age {
            continue;
        }
        for (blob, size) in &one.blobs {
            if let Some(count) = sharers.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    left = left.saturating_sub(*size);
                }
            }
        }
        going.push(one);
    }
    going
}

fn gc(arguments: &Gc) -> Result<()> {
    let (store, _) = project::cache(None, arguments.cache.as_deref())?;
    let all = runs::all(store.dir());
    let kept = kept(&store, &all, &arguments.keep, arguments.cache.as_deref())?;
    let held = held(&store, &all, &kept)?;
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let total = store.stat()?.bytes;
    let going = going(&held, total, now, arguments.older_than, arguments.max_size);
    let keep: BTreeSet<Digest> = {
        let going: BTreeSet<Digest> = going.iter().map(|one| one.key).collect();
        store.key_list()?.into_iter().chain(kept.keys().copied()).filter(|key| !going.contains(key)).collect()
    };
    let folders = old_runs(&all, arguments.older_than, now);
    let foreseen = store.gc(&keep, true)?;
    let ask = !arguments.dry_run && !arguments.yes && std::io::stdin().is_terminal();
    if !arguments.json && (arguments.dry_run || ask) {
        print(&going);
        folders.iter().for_each(|run| println!("the folder of run {} of {}", run.id, run.asked.file));
        said(&foreseen, folders.len(), "would go");
    }
    if ask {
        eprint!("remove them? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            eprintln!("nothing was removed");
            return Ok(());
        }
    }
    let mut freed = foreseen;
    if !arguments.dry_run {
        freed = store.gc(&keep, false)?;
        for run in &folders {
            std::fs::remove_dir_all(&run.dir).with_context(|| format!("{} cannot be removed", run.dir.display()))?;
        }
        store.flush();
    }
    if arguments.json {
        let runs: Vec<&str> = folders.iter().map(|run| run.id.as_str()).collect();
        return print_json(&serde_json::json!({
            "dry_run": arguments.dry_run, "results": going, "runs": runs, "freed": freed,
        }));
    }
    if !arguments.dry_run {
        said(&freed, folders.len(), "removed");
    }
    let left = total.saturating_sub(freed.blob_bytes);
    if let Some(most) = arguments.max_size.filter(|most| left > *most) {
        let more = bytes(left);
        println!("{more} stay, more than {}: all of it is in use (`harness cache ls` says by what)", bytes(most));
    }
    Ok(())
}

fn said(freed: &harness_cache::Freed, runs: usize, word: &str) {
    let mut parts = vec![count(freed.keys as usize, "result"), count(freed.blobs as usize, "blob")];
    if freed.work > 0 {
        parts.push(count(freed.work as usize, "work folder"));
    }
    if freed.leftovers > 0 {
        parts.push(count(freed.leftovers as usize, "leftover"));
    }
    if runs > 0 {
        parts.push(count(runs, "run folder"));
    }
    println!("{word}: {}; {}", parts.join(", "), bytes(freed.bytes));
    if freed.in_use > 0 {
        println!(
            "{} more may go and stay now: a process that runs relies on them",
            count(freed.in_use as usize, "result")
        );
    }
}

/// Runs whose folders go: older than the age, not pinned, not going on, and not the newest of their file.
fn old_runs(all: &[Run], older_than: Option<u64>, now: u64) -> Vec<&Run> {
    let Some(age) = older_than else { return Vec::new() };
    let mut newest = BTreeSet::new();
    all.iter()
        .filter(|run| {
            let first = newest.insert(place(run));
            let old = run.asked.started_unix_ms.saturating_add(age) <= now;
            !first && old && !run.is_pinned() && !run.is_live()
        })
        .collect()
}

fn pin(arguments: &Pin, pinned: bool) -> Result<()> {
    let file = Path::new(&arguments.run);
    let file = (file.extension().is_some_and(|extension| extension == "exp")).then_some(file);
    let (store, _) = project::cache(file, arguments.cache.as_deref())?;
    let run = runs::find(store.dir(), &arguments.run)?;
    let path = run.dir.join("pinned");
    if pinned {
        std::fs::write(&path, "").with_context(|| format!("{} cannot be written", path.display()))?;
        println!("run {} of {} and its results stay", run.id, run.asked.file);
    } else if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        println!("run {} of {} is no longer pinned", run.id, run.asked.file);
    } else {
        println!("run {} of {} was not pinned", run.id, run.asked.file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read_with_their_units() {
        assert_eq!((age("30d"), age("1.5h")), (Ok(30 * 86_400_000), Ok(5_400_000)));
        assert!(age("30").unwrap_err().contains("`30d`") && age("-1d").is_err() && age("3 months").is_err());
        assert_eq!((size("100GiB"), size("0.5 MB")), (Ok(100 << 30), Ok(500_000)));
        assert!(size("lots").is_err() && size("10G").unwrap_err().contains("100GiB"));
    }

    #[test]
    fn the_oldest_go_first_and_shared_bytes_count_once() {
        let blob = |name: &str| Digest::of_bytes(name.as_bytes());
        let one = |name: &str, used: u64, kept: bool, blobs: &[(&str, u64)]| Held {
            key: blob(name),
            kind: "k".into(),
            label: None,
            computed_unix_ms: used,
            used_unix_ms: used,
            bytes: blobs.iter().map(|(_, size)| size).sum(),
            kept: kept.then(|| "pinned".into()),
            blobs: blobs.iter().map(|(name, size)| (blob(name), *size)).collect(),
        };
        let held = [
            one("new", 900, false, &[("n", 50)]),
            one("old", 100, false, &[("shared", 40)]),
            one("older", 50, false, &[("shared", 40), ("o", 10)]),
            one("oldest", 10, true, &[("k", 100)]),
        ];
        let names = |going: Vec<&Held>| going.iter().map(|one| one.used_unix_ms).collect::<Vec<_>>();
        assert_eq!(names(going(&held, 200, 1000, None, None)), [50, 100, 900]);
        assert_eq!(names(going(&held, 200, 1000, Some(500), None)), [50, 100]);
        assert_eq!(names(going(&held, 200, 1000, None, Some(190))), [50]);
        // The first frees ten bytes only, since forty are shared.
        assert_eq!(names(going(&held, 200, 1000, None, Some(180))), [50, 100]);
        assert_eq!(names(going(&held, 200, 1000, None, Some(0))), [50, 100, 900]);
        assert_eq!(names(going(&held, 200, 1000, None, Some(500))), [0; 0]);
    }
}
