//! The command line. Subcommands that only look are a file each in `cli/`, arguments and all.

pub mod cache;
pub mod compare;
pub mod completions;
pub mod export;
pub mod export_encoder;
pub mod fmt;
pub mod graph;
pub mod history;
pub mod job;
pub mod lsp;
pub mod man;
pub mod plan;
pub mod report;
pub mod serve;
pub mod show;
pub mod status;
pub mod verify;
pub mod views;
pub mod watch;
pub mod why;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use std::path::PathBuf;

pub use crate::words::{bytes, count};

/// A reproducible experiment harness for self-supervised vision research.
#[derive(Parser, Debug)]
#[command(name = "harness", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run an experiment: take from the cache what is known, compute the rest, render the summary
    Run(Run),
    /// Check files without running anything
    Check(Check),
    /// Lay out files in the one way they are written
    Fmt(fmt::Fmt),
    /// Draw what depends on what, a family a node, as Graphviz or Mermaid text
    Graph(graph::Graph),
    /// Serve an editor: the language server, over standard input and output
    Lsp,
    /// Say what a run would compute, why, and about how long it would take
    Plan(plan::Plan),
    /// Say what makes a step run again: what differs from its newest earlier result
    Why(why::Why),
    /// Show a picture's views as a pretraining's encoder sees them, with its crops drawn in
    Views(views::Views),
    /// Show a step: its parameters, key, outputs, numbers, where it ran and where its files lie
    Show(show::Show),
    /// Print what a step printed
    Log(show::Log),
    /// Say how the runs stand that go on now
    Status(status::Status),
    /// Follow a run from another terminal
    Watch(watch::Watch),
    /// Serve a page that follows a run live: to be read, on this machine alone unless told otherwise
    Serve(serve::Serve),
    /// Show the events of a recorded run again
    Replay(watch::Replay),
    /// List the runs of a file, and what each changed
    History(history::History),
    /// Put two runs side by side: what differs in their parameters and in their numbers
    Compare(compare::Compare),
    /// Compute a result again in a scratch place and compare
    Verify(verify::Verify),
    /// Explain an error code, for instance E0107, or list the codes
    Explain {
        /// The code
        #[arg(add = ArgValueCompleter::new(completions::codes))]
        code: Option<String>,
    },
    /// Describe a kind of step with all its fields, or list the kinds
    Describe {
        /// The kind
        #[arg(add = ArgValueCompleter::new(completions::kinds))]
        kind: Option<String>,
        /// Print the reference manual of all kinds as Markdown
        #[arg(long, conflicts_with = "kind")]
        markdown: bool,
    },
    /// Look after the cache
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Write what is known of a file: a page, Markdown, tables and figures for a paper, every number
    Report(report::Report),
    /// Write a run with its results as one archive, or its numbers as a table
    Export(export::Export),
    /// Take in an archive that `export` wrote, checking every byte
    Import(export::Import),
    /// Print what makes a shell complete commands, steps and runs
    Completions(completions::Completions),
    /// Run one `command` step from a file: for the batch scripts of a cluster's jobs
    #[command(hide = true)]
    Job(job::JobFile),
    /// Write a manual page for every subcommand
    Man(man::Man),
}

/// `harness run`
#[derive(Args, Debug)]
pub struct Run {
    /// The .exp file
    pub file: PathBuf,
    /// Families or labels of steps to compute, with what they need; all when none is named
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub targets: Vec<String>,
    /// Give a param another value: `-p epochs=5`
    #[arg(short, value_name = "NAME=VALUE", value_parser = param)]
    pub params: Vec<(String, String)>,
    /// Steps side by side
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// `auto`, `cpu`, `cuda`, or `cuda:0,1`
    #[arg(long)]
    pub device: Option<String>,
    /// Where steps run: `local`, or `slurm` as jobs of a cluster; without it each where its `resources` say
    #[arg(long, value_parser = crate::config::executor)]
    pub executor: Option<harness_executors::Where>,
    /// After a failure, go on with what does not depend on it
    #[arg(long)]
    pub keep_going: bool,
    /// Leave the shared cache (`remote` of harness.toml) alone
    #[arg(long)]
    pub offline: bool,
    /// Only say what would be computed
    #[arg(long)]
    pub dry_run: bool,
    /// Compute these families or labels although their results are known
    #[arg(long, value_name = "TARGET", add = ArgValueCompleter::new(completions::steps))]
    pub force: Vec<String>,
    /// Claims that fail or are undecided make the exit status 1
    #[arg(long)]
    pub strict: bool,
    /// Print events as JSON lines on standard output
    #[arg(long)]
    pub json: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Open a page in the browser that follows the run (`harness serve` is the same beside it)
    #[arg(long, conflicts_with = "dry_run")]
    pub open: bool,
    /// Also write curves here, as they grow, for TensorBoard: `tensorboard --logdir DIR`
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    pub tensorboard: Option<PathBuf>,
    /// Also write the summary here: DIR/summary.html and DIR/summary.md
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `harness check`
#[derive(Args, Debug)]
pub struct Check {
    /// The .exp files
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Give a param another value
    #[arg(short, value_name = "NAME=VALUE", value_parser = param)]
    pub params: Vec<(String, String)>,
    /// Write what the messages themselves suggest: the nearest name for a misspelt one
    #[arg(long)]
    pub fix: bool,
    /// Print diagnostics as JSON lines on standard output
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.into())),
        _ => Err(format!("`{text}` is not of the form name=value")),
    }
}

/// What most subcommands take beside their file.
#[derive(Args, Debug, Default)]
pub struct Place {
    /// Give a param another value
    #[arg(short, value_name = "NAME=VALUE", value_parser = param)]
    pub params: Vec<(String, String)>,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// `2026-11-25 00:31`, UTC.
pub fn when(unix_ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).unwrap_or_default()).ok();
    at.map_or("an unknown time".into(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Prints a value as JSON, for programs.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Rows with their columns one below the other, the last one as long as it is.
pub fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                line.push_str(&" ".repeat(widths[index] - cell.chars().count() + 2));
            }
        }
        line.trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_columns_are_for_people() {
        assert_eq!([bytes(512), bytes(1536), bytes(3 << 30)], ["512 B", "1.5 KiB", "3.0 GiB"]);
        let rows = [vec!["a".to_string(), "bcd".into()], vec!["é bc".into(), "x".into()]];
        assert_eq!(aligned(&rows), ["a     bcd", "é bc  x"]);
    }
}
