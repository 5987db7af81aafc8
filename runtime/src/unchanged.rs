//! A run that would find everything as the run before found it says so without finding it again.
//!
//! After a run in which every step was known, `summaries/<file>/unchanged` holds what decided that: how it was asked,
//! the texts, and what every file that it looked at showed (`Cache::observations`); and what it said. As long as all of
//! that is the same, so is every key, every result and every word, and the next run repeats the words. Anything else,
//! and anything that could not be known for sure, such as a file that changed a moment ago, takes the long way.

use crate::cli;
use crate::config::Config;
use crate::events::{Event, Status};
use crate::summary;
use crate::text::Text;
use harness_cache::{Cache, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the file begins with.
const MARK: &[u8] = b"harness unchanged 1\n";

/// What a run said that found everything.
#[derive(Default, Serialize, Deserialize)]
pub struct Said {
    /// See [`asked`].
    pub asked: String,
    /// Places of the texts that were read, as they were opened, with the digests of what they said.
    pub texts: Vec<(PathBuf, Digest)>,
    /// Number of steps.
    pub steps: usize,
    /// Claims and their outcomes.
    pub claims: BTreeMap<String, String>,
    /// Whether a claim fails or is undecided.
    pub undecided: bool,
    /// What the summary shows ([`crate::summary::standing`]).
    pub standing: String,
    /// Name of the checked program beside this file.
    pub program: String,
    /// Its events but the first and the last, one a line.
    #[serde(skip)]
    pub lines: Vec<u8>,
}

impl Said {
    /// Puts the summary and the checked program into the folder of a run.
    ///
    /// # Errors
    /// One of them is not there, or the folder cannot be written.
    pub fn link(&self, home: &Path, run: &Path) -> std::io::Result<()> {
        summary::link(&home.join(&self.program), &run.join("program.json"))?;
        summary::FILES.iter().try_for_each(|name| summary::link(&home.join(name), &run.join(name)))
    }
}

/// Takes down what a run says.
#[derive(Default)]
pub struct Hearing {
    lines: Vec<u8>,
    /// Whether every step was known.
    all_known: bool,
}

impl Hearing {
    /// Of a run that begins.
    pub fn new() -> Self {
        Self { lines: Vec::new(), all_known: true }
    }

    /// Takes an event down.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { .. } | Event::RunFinished { .. } => return,
            Event::StepFinished { status: Status::Cached, .. } | Event::Log { .. } => {}
            _ => self.all_known = false,
        }
        if !self.all_known {
            self.lines = Vec::new();
        } else if serde_json::to_writer(&mut self.lines, event).is_ok() {
            self.lines.push(b'\n');
        } else {
            self.all_known = false;
        }
    }
}

/// Everything that decides a run beside files: the arguments, the configuration, the place, the environment and the
/// program itself. None for runs that do more than look.
pub fn asked(arguments: &cli::Run, config: &Config) -> Option<String> {
    let shown = arguments.out.is_some() || arguments.open || arguments.tensorboard.is_some();
    if arguments.dry_run || !arguments.force.is_empty() || shown {
        return None;
    }
    let build = std::env::current_exe().and_then(std::fs::metadata).map(|m| (m.len(), m.modified().ok())).ok()?;
    let environment = ["PATH", "HOME", "CUDA_VISIBLE_DEVICES"].map(std::env::var_os);
    let here = std::env::current_dir().ok()?;
    // Who listens, and what would compute, make no difference where nothing is computed.
    let mut config = config.clone();
    (config.jobs, config.device) = (None, String::new());
    let (file, targets, params) = (&arguments.file, &arguments.targets, &arguments.params);
    let text = format!("{file:?}\n{targets:?}\n{params:?}\n{config:?}\n{build:?}\n{environment:?}\n{here:?}");
    Some(Digest::of_bytes(text.as_bytes()).to_string())
}

/// What the run before said, if this one would find the same.
pub fn recall(home: &Path, asked: &str, cache: &Cache) -> Option<Said> {
    let bytes = std::fs::read(home.join("unchanged")).ok()?;
    let (content, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let rest = content.strip_prefix(MARK)?;
    if Digest::of_bytes(content).0 != *seal {
        return None;
    }
    let (head, rest) = part(rest)?;
    let (lines, observations) = part(rest)?;
    let mut said: Said = serde_json::from_slice(head).ok()?;
    if said.asked != asked {
        return None;
    }
    let same =
        |(path, digest): &(PathBuf, Digest)| std::fs::read(path).is_ok_and(|text| Digest::of_bytes(&text) == *digest);
    // Another file of the same name may have its summary there.
    if !std::fs::read_to_string(home.join("standing")).is_ok_and(|found| found == said.standing) {
        return None;
    }
    if !said.texts.iter().all(same) || !cache.sees(observations) {
        return None;
    }
    said.lines = lines.to_vec();
    Some(said)
}

/// Keeps what a run said for the next one, if it found everything and that can be relied on.
pub fn keep(home: &Path, said: Said, asked: &str, text: &Text, resolved: &[u8], hearing: Hearing, cache: &Cache) {
    let path = home.join("unchanged");
    let quiet = text.checked.diagnostics.is_empty() && !said.standing.is_empty();
    let observations = cache.observations().filter(|_| quiet && hearing.all_known);
    let Some(observations) = observations else {
        // What it says is not so any more; the next look would find that out by itself.
        let _ = std::fs::remove_file(&path);
        return;
    };
    let program = format!("program-{}.json", Digest::of_bytes(resolved).short());
    if !home.join(&program).is_file() {
        for old in std::fs::read_dir(home).into_iter().flatten().flatten() {
            if old.file_name().to_string_lossy().starts_with("program-") {
                let _ = std::fs::remove_file(old.path());
            }
        }
        if std::fs::write(home.join(&program), resolved).is_err() {
            return;
        }
    }
    let said = Said { asked: asked.into(), texts: text.read.clone(), program, ..said };
    let Ok(head) = serde_json::to_vec(&said) else { return };
    let mut bytes = MARK.to_vec();
    for part in [&head, &hearing.lines] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend(observations);
    let seal = Digest::of_bytes(&bytes);
    bytes.extend_from_slice(&seal.0);
    let temporary = home.join(format!("unchanged.{}.tmp", std::process::id()));
    // Without it the next run takes the long way.
    if std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path)).is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(8)?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(status: Status) -> Event {
        Event::StepFinished {
            step: 0,
            label: "a".into(),
            kind: "command".into(),
            key: None,
            status,
            wall_s: 0.0,
            metrics: BTreeMap::new(),
            error: None,
        }
    }

    #[test]
    fn only_runs_that_found_everything_are_heard() {
        let mut hearing = Hearing::new();
        let warning = Event::Log { step: None, label: None, level: "warn".into(), text: "so".into() };
        hearing.event(&step(Status::Cached));
        hearing.event(&warning);
        assert!(hearing.all_known);
        assert_eq!(hearing.lines.iter().filter(|byte| **byte == b'\n').count(), 2);
        for status in [Status::Executed, Status::Failed, Status::Skipped] {
            let mut hearing = Hearing::new();
            hearing.event(&step(status));
            hearing.event(&step(Status::Cached));
            assert!(!hearing.all_known && hearing.lines.is_empty());
        }
    }
}
