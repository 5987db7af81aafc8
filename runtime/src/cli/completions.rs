//! `harness completions` and `harness man`: what shells and manuals need, made from the command line itself.
//!
//! The printed script asks `harness` at every TAB, so that names of steps come from the file on the command line and
//! names of runs from the cache.

use crate::project;
use crate::{catalog, runs, text};
use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::CompletionCandidate;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The variable through which a shell asks.
const ASKS: &str = "COMPLETE";

/// `harness completions`
#[derive(Args, Debug)]
#[command(
    after_help = "bash:  source <(harness completions bash)      in ~/.bashrc\nzsh:   source <(harness completions zsh)       in ~/.zshrc, after compinit\nfish:  harness completions fish | source       in ~/.config/fish/config.fish"
)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// `harness man`
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the pages
    pub dir: PathBuf,
}

/// Prints the script of a shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(arguments: &Completions) -> Result<ExitCode> {
    let shell: &dyn EnvCompleter = match arguments.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(ASKS, "harness", "harness", "harness", &mut script)?;
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks, and ends; does nothing otherwise.
pub fn answer() {
    clap_complete::CompleteEnv::with_factory(super::Cli::command).var(ASKS).complete();
}

/// Writes a page for every subcommand.
///
/// # Errors
/// The folder cannot be written.
pub fn man(arguments: &Man) -> Result<ExitCode> {
    std::fs::create_dir_all(&arguments.dir)
        .with_context(|| format!("{} cannot be created", arguments.dir.display()))?;
    clap_mangen::generate_to(super::Cli::command(), &arguments.dir)
        .with_context(|| format!("{} cannot be written", arguments.dir.display()))?;
    println!("the manual pages are in {}; `man -l {0}/harness.1` shows the first", arguments.dir.display());
    Ok(ExitCode::SUCCESS)
}

/// The `.exp` file on the command line being completed.
fn file() -> Option<PathBuf> {
    let words = std::env::args_os().map(PathBuf::from);
    words.into_iter().find(|word| word.extension().is_some_and(|extension| extension == "exp") && word.is_file())
}

/// Families and labels of the file's steps. Labels are offered without spaces, which they are understood without.
pub fn steps(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let Some(file) = file() else { return Vec::new() };
    let Ok(text) = text::read(&file, &catalog::catalog(), &Vec::new()) else { return Vec::new() };
    let Some(program) = text.checked.program else { return Vec::new() };
    let mut found: Vec<CompletionCandidate> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for step in program.steps.iter().filter(|step| !step.implied) {
        for name in [step.name.clone(), step.label.replace(' ', "")] {
            if name.starts_with(current) && seen.insert(name.clone()) {
                found.push(CompletionCandidate::new(name).help(Some(step.kind.clone().into())));
            }
        }
    }
    found
}

/// Kinds of steps.
pub fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let all = catalog::catalog().kinds.into_iter().filter(|kind| kind.name.starts_with(current));
    all.map(|kind| {
        let help = kind.doc.lines().next().unwrap_or_default().to_owned();
        CompletionCandidate::new(kind.name).help(Some(help.into()))
    })
    .collect()
}

/// Codes of diagnostics.
pub fn codes(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let all = harness_dsl::EXPLANATIONS.iter().filter(|(code, _)| code.starts_with(&current.to_uppercase()));
    all.map(|(code, page)| CompletionCandidate::new(*code).help(page.lines().next().map(|line| line.to_owned().into())))
        .collect()
}

/// Ids of recorded runs, newest first.
pub fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let near = file();
    let Ok((cache, _)) = project::cache(near.as_deref(), None) else { return Vec::new() };
    let latest = std::iter::once("latest".to_string()).filter(|name| name.starts_with(current));
    let ids = runs::all(cache.dir()).into_iter().filter(|run| run.id.starts_with(current));
    latest
        .map(CompletionCandidate::new)
        .chain(ids.map(|run| CompletionCandidate::new(run.id).help(Some(run.asked.file.into()))))
        .chain(experiments(current))
        .collect()
}

/// The `.exp` files of the current folder.
fn experiments(current: &str) -> Vec<CompletionCandidate> {
    let entries = std::fs::read_dir(Path::new(".")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".exp") && name.starts_with(current)).map(CompletionCandidate::new).collect()
}
