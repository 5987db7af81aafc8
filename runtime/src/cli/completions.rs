//! `harness completions`: what shells need, made from the command line itself.
//!
//! The printed script asks `harness` at every TAB, so that names of steps come from the file on the command line and
//! names of runs from the cache.

mod bash;

use crate::{catalog, devices, project, runs, text};
use anyhow::Result;
use bash::Bash;
use clap::{Arg, Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::engine::{PathCompleter, ValueCompleter as _};
use clap_complete::env::{EnvCompleter, Fish, Shells, Zsh};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

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
    let shells: [&dyn EnvCompleter; 3] = [&Bash, &Zsh, &Fish];
    clap_complete::CompleteEnv::with_factory(command).var(ASKS).shells(Shells(&shells)).complete();
}

/// The command line with what its values can be, where they are what their names say.
fn command() -> Command {
    fn known(argument: Arg) -> Arg {
        if argument.get::<ArgValueCompleter>().is_some() || !argument.get_action().takes_values() {
            return argument;
        }
        let folder = argument.get_value_names().is_some_and(|names| names.iter().any(|name| *name == "DIR"));
        match argument.get_id().as_str() {
            "file" | "files" => argument.add(ArgValueCompleter::new(experiments)),
            "params" => argument.add(ArgValueCompleter::new(params)),
            "run" => argument.add(ArgValueCompleter::new(runs)),
            "device" => argument.add(ArgValueCompleter::new(devices)),
            "executor" => argument.add(ArgValueCompleter::new(executors)),
            _ if folder => argument.add(ArgValueCompleter::new(folders)),
            _ => argument,
        }
    }
    fn all(command: Command) -> Command {
        command.mut_args(known).mut_subcommands(all)
    }
    all(super::Cli::command())
}

/// The words of the command line, where the shell gave the line as it stands.
static WORDS: OnceLock<Vec<String>> = OnceLock::new();

/// The `.exp` file on the command line being completed.
fn file() -> Option<PathBuf> {
    let words: Vec<PathBuf> = match WORDS.get() {
        Some(words) => words.iter().map(PathBuf::from).collect(),
        None => std::env::args_os().map(PathBuf::from).collect(),
    };
    let home = |word: PathBuf| match (word.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => word,
    };
    words.into_iter().map(home).find(|word| is_experiment(word))
}

fn is_experiment(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "exp") && path.is_file()
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
pub fn runs(word: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = word.to_str() else { return Vec::new() };
    let near = file();
    let Ok((cache, _)) = project::cache(near.as_deref(), None) else { return Vec::new() };
    let latest = std::iter::once("latest".to_string()).filter(|name| name.starts_with(current));
    let ids = runs::all(cache.dir()).into_iter().filter(|run| run.id.starts_with(current));
    latest
        .map(CompletionCandidate::new)
        .chain(ids.map(|run| CompletionCandidate::new(run.id).help(Some(run.asked.file.into()))))
        .chain(experiments(word))
        .collect()
}

/// `.exp` files, and the folders on the way to them.
fn experiments(current: &OsStr) -> Vec<CompletionCandidate> {
    PathCompleter::any().filter(is_experiment).complete(current)
}

/// Folders below this one or another.
fn folders(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = PathCompleter::dir().complete(current);
    found.retain(|candidate| candidate.get_value() != ".");
    found
}

/// Params of the file, as `name=`; behind that the value it has.
fn params(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let Some(file) = file() else { return Vec::new() };
    let Ok(text) = text::read(&file, &catalog::catalog(), &Vec::new()) else { return Vec::new() };
    let params = text.checked.program.map(|program| program.params).unwrap_or_default();
    let valued = current.contains('=');
    let shown = params.into_iter().map(|(name, value)| {
        let value = value.to_string();
        let written = if valued { format!("{name}={value}") } else { format!("{name}=") };
        CompletionCandidate::new(written).help(Some(format!("now {value}").into()))
    });
    shown.filter(|candidate| candidate.get_value().to_str().is_some_and(|text| text.starts_with(current))).collect()
}

fn words(current: &OsStr, known: impl IntoIterator<Item = (String, &'static str)>) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let fits = known.into_iter().filter(|(word, _)| word.starts_with(current));
    fits.map(|(word, help)| CompletionCandidate::new(word).help(Some(help.into()))).collect()
}

/// What `--device` takes, with the GPUs of this machine.
fn devices(current: &OsStr) -> Vec<CompletionCandidate> {
    let general = [("auto", "GPUs where there are any"), ("cpu", "no GPU"), ("cuda", "every GPU")];
    let gpus = (0..devices::gpus()).map(|number| (format!("cuda:{number}"), "one GPU"));
    words(current, general.map(|(word, help)| (word.to_owned(), help)).into_iter().chain(gpus))
}

/// What `--executor` takes.
fn executors(current: &OsStr) -> Vec<CompletionCandidate> {
    let known = [("local", "on this machine"), ("slurm", "as jobs of a cluster")];
    words(current, known.map(|(word, help)| (word.to_owned(), help)))
}
