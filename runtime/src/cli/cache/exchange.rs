//! `harness cache push` and `pull`: results to the shared cache, and from it.

use super::{Pull, Push};
use crate::cli::{bytes, count, print_json};
use crate::config::{Config, Shared as Settings};
use crate::project::{self, Project};
use crate::shared::Shared;
use crate::{run as engine, start};
use anyhow::{Result, bail};
use harness_cache::{Cache, Digest};
use harness_remote::{Error, Fetched, Remote, Sent};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// What became of some results.
#[derive(Debug, Default, Serialize)]
struct Account {
    /// The shared cache.
    place: String,
    /// Results that had to go or come.
    lacking: usize,
    /// Of these, results that went or came.
    done: usize,
    /// Bytes that did.
    bytes: u64,
    /// Results that are on both sides already.
    there: usize,
    /// Results that were there and not intact; of those that had to go.
    damaged: usize,
    /// Why others did not, by result.
    failed: BTreeMap<Digest, String>,
    /// Whether it was interrupted.
    interrupted: bool,
}

impl Account {
    fn new(remote: &Remote, lacking: usize, there: usize) -> Self {
        Self { place: remote.url().into(), lacking, there, ..Self::default() }
    }

    fn take(&mut self, key: Digest, result: Result<u64, String>) {
        match result {
            Ok(some) => {
                self.done += 1;
                self.bytes += some;
            }
            Err(why) => {
                self.failed.insert(key, why);
            }
        }
    }

    fn say_damaged(&self) {
        if self.damaged > 0 {
            println!("  of these, {} there and not intact", count(self.damaged, "result"));
        }
    }

    fn show(&self, verb: &str, json: bool) -> Result<ExitCode> {
        let code = match (self.interrupted, self.failed.is_empty()) {
            (true, _) => ExitCode::from(130),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        };
        if json {
            print_json(self)?;
            return Ok(code);
        }
        println!("{}", self.place);
        println!(
            "  {} {verb} ({}), {} on both sides before",
            count(self.done, "result"),
            bytes(self.bytes),
            self.there
        );
        self.say_damaged();
        for (key, why) in &self.failed {
            println!("  {}: {why}", key.short());
        }
        if self.interrupted {
            println!("  interrupted; the same command goes on from here");
        }
        Ok(code)
    }
}

/// The shared cache that was named, or that of the configuration.
fn remote(named: Option<&String>, config: &Config) -> Result<Remote> {
    let place = named.cloned().or_else(|| config.shared.as_ref().map(|shared| shared.place.clone()));
    let Some(place) = place else {
        bail!(
            "no shared cache is named: write `remote = \"s3://bucket/prefix\"` (or a folder) in {}, set HARNESS_REMOTE, or give `--remote PLACE`",
            config.project_file.display()
        );
    };
    let remote = Remote::open(&place)?;
    remote.greet()?;
    Ok(remote)
}

fn bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} results  {elapsed}");
    ProgressBar::new(total as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ "))
}

pub fn push(arguments: &Push) -> Result<ExitCode> {
    let (store, config) = project::cache(None, arguments.cache.as_deref())?;
    let remote = remote(arguments.remote.as_ref(), &config)?;
    let (cancel, _) = start::interrupts()?;
    let (theirs, blobs) = (remote.keys()?, remote.blobs()?);
    let (mut there, mut doubtful, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
    // What is here stays while it is on its way; other results may be collected meanwhile.
    let using = store.using()?;
    for key in store.key_list()? {
        using.keep(&key);
        match theirs.contains(&key) {
            false => lacking.push(key),
            // Another machine may have computed it as well, with other bytes.
            true if arguments.verify || !has_all(&store, &key, &blobs)? => doubtful.push(key),
            true => there.push(key),
        }
    }
    using.write()?;
    drop(using);
    let mut account = Account::new(&remote, 0, 0);
    let looked = bar(doubtful.len());
    remote.examine(&doubtful, arguments.verify, &|| cancel.load(Ordering::Relaxed), &mut |key, result| {
        looked.inc(1);
        match result {
            Ok(true) => there.push(key),
            Ok(false) => {
                account.damaged += 1;
                lacking.push(key);
            }
            Err(error) => account.take(key, Err(stop_if_hopeless(&error, &cancel))),
        }
    });
    looked.finish_and_clear();
    (account.lacking, account.there) = (lacking.len(), there.len());
    if arguments.dry_run {
        return told(&account, "would be sent", arguments.json);
    }
    let bar = bar(lacking.len());
    remote.send(&store, &lacking, &|| cancel.load(Ordering::Relaxed), &mut |key, result| {
        bar.inc(1);
        account.take(
            key,
            match result {
                Ok(Sent::There(some)) => Ok(some),
                Ok(Sent::Gone) => Err("it has no whole record here".into()),
                Err(error) => Err(stop_if_hopeless(&error, &cancel)),
            },
        );
    });
    bar.finish_and_clear();
    account.interrupted = interrupted(&cancel, &account);
    account.show("sent", arguments.json)
}

pub fn pull(arguments: &Pull) -> Result<ExitCode> {
    if let Some(file) = &arguments.file {
        return pull_file(arguments, file);
    }
    let (store, config) = project::cache(None, arguments.cache.as_deref())?;
    let remote = remote(arguments.remote.as_ref(), &config)?;
    let using = store.using()?;
    let mut lacking = Vec::new();
    let theirs = remote.keys()?;
    for key in &theirs {
        if !is_here(&store, key)? {
            lacking.push(*key);
        }
    }
    let mut account = Account::new(&remote, lacking.len(), theirs.len() - lacking.len());
    if arguments.dry_run {
        return told(&account, "would be fetched", arguments.json);
    }
    let (cancel, _) = start::interrupts()?;
    let bar = bar(lacking.len());
    remote.fetch(&store, &lacking, &|| cancel.load(Ordering::Relaxed), &mut |key, result| {
        bar.inc(1);
        using.keep(&key);
        account.take(
            key,
            match result {
                Ok(Fetched::Here(some)) => Ok(some),
                Ok(Fetched::Unknown) => Err("it is gone from there".into()),
                Ok(Fetched::Damaged(why)) => Err(why),
                Err(error) => Err(stop_if_hopeless(&error, &cancel)),
            },
        );
    });
    bar.finish_and_clear();
    store.commit()?;
    account.interrupted = interrupted(&cancel, &account);
    account.show("fetched", arguments.json)
}

/// Results of the steps of a file: datasets are looked at and keys made as for a run, and nothing is computed.
fn pull_file(arguments: &Pull, file: &Path) -> Result<ExitCode> {
    let Some(project) = Project::open(file, &arguments.params, arguments.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let place = remote(arguments.remote.as_ref(), &project.config)?.url().to_string();
    let shared = Shared::open(&Settings { place, send: false })?;
    let (cancel, _) = start::interrupts()?;
    let wanted = vec![true; project.program.steps.len()];
    let mut request = project.request(&wanted);
    request.shared = Some(&shared);
    request.cancel = cancel.clone();
    let mut problems = Vec::new();
    let mut came = (0, 0);
    let states = engine::run(&request, &mut |event| {
        if let crate::events::Event::Shared { fetched, fetched_bytes, problems: said, .. } = event {
            came = (fetched, fetched_bytes);
            problems.extend(said);
        }
    })?;
    let known = states.iter().filter(|state| state.finished.is_some()).count();
    let interrupted = cancel.load(Ordering::Relaxed);
    if arguments.json {
        print_json(&serde_json::json!({
            "place": shared.place(), "fetched": came.0, "bytes": came.1, "known": known,
            "steps": states.len(), "problems": problems, "interrupted": interrupted,
        }))?;
    } else {
        println!("{}", shared.place());
        println!(
            "  {} fetched ({}); {known} of {} are known now",
            count(came.0, "result"),
            bytes(came.1),
            count(states.len(), "step")
        );
        problems.iter().for_each(|problem| println!("  {problem}"));
    }
    Ok(match (interrupted, problems.is_empty()) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// Whether all files of a result are among the blobs of the shared cache, each in its size.
fn has_all(store: &Cache, key: &Digest, blobs: &BTreeMap<Digest, u64>) -> Result<bool> {
    let Some(record) = store.record(key)? else { return Ok(true) };
    for blob in record.blobs() {
        let Some(path) = store.blob(&blob)? else { continue };
        let size = path.metadata().ok().map(|metadata| metadata.len());
        if size.is_some() && size != blobs.get(&blob).copied() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a result is here with all its files.
fn is_here(store: &Cache, key: &Digest) -> Result<bool> {
    let Some(record) = store.record(key)? else { return Ok(false) };
    for blob in record.blobs() {
        if store.blob(&blob)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn told(account: &Account, what: &str, json: bool) -> Result<ExitCode> {
    if json {
        print_json(account)?;
    } else {
        println!("{}", account.place);
        println!("  {} {what}, {} on both sides", count(account.lacking, "result"), account.there);
        account.say_damaged();
    }
    Ok(ExitCode::SUCCESS)
}

/// Why it failed. Where every other would fail as well, nothing more is tried.
fn stop_if_hopeless(error: &Error, cancel: &AtomicBool) -> String {
    if !matches!(error, Error::NotWhole { .. }) {
        cancel.store(true, Ordering::Relaxed);
    }
    error.to_string()
}

/// Whether it was a person who ended it.
fn interrupted(cancel: &AtomicBool, account: &Account) -> bool {
    cancel.load(Ordering::Relaxed) && account.failed.is_empty()
}
