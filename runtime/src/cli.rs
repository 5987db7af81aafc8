//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A reproducible experiment harness for self-supervised vision research.
#[derive(Parser, Debug)]
#[command(name = "harness", version, about, propagate_version = true)]
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
    Fmt(Fmt),
    /// Say what makes a step run again: what differs from its newest earlier result
    Why(Why),
    /// Explain an error code, for instance E0107
    Explain {
        /// The code
        code: String,
    },
    /// Describe a kind of step with all its fields, or list the kinds
    Describe {
        /// The kind
        kind: Option<String>,
    },
    /// Look after the cache
    #[command(subcommand)]
    Cache(CacheCommand),
}

/// `harness run`
#[derive(Args, Debug)]
pub struct Run {
    /// The .exp file
    pub file: PathBuf,
    /// Families or labels of steps to compute, with what they need; all when none is named
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
    /// After a failure, go on with what does not depend on it
    #[arg(long)]
    pub keep_going: bool,
    /// Only say what would be computed
    #[arg(long)]
    pub dry_run: bool,
    /// Compute these families or labels although their results are known
    #[arg(long, value_name = "TARGET")]
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
    /// Print diagnostics as JSON lines on standard output
    #[arg(long)]
    pub json: bool,
}

/// `harness fmt`
#[derive(Args, Debug)]
pub struct Fmt {
    /// The .exp files; `-` reads standard input and prints to standard output
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Change nothing; exit status 1 if a file is not laid out
    #[arg(long)]
    pub check: bool,
}

/// `harness why`
#[derive(Args, Debug)]
pub struct Why {
    /// The .exp file
    pub file: PathBuf,
    /// A family or the label of a step: `'nearest[seed=1, method=moco]'`
    pub step: String,
    /// Give a param another value
    #[arg(short, value_name = "NAME=VALUE", value_parser = param)]
    pub params: Vec<(String, String)>,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// `harness cache`
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// How much it holds
    Stat {
        /// Cache folder
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
    },
    /// Hash everything again and report what is damaged or missing
    Verify {
        /// Cache folder
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
    },
    /// Build the index anew from the records
    Rebuild {
        /// Cache folder
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
    },
}

fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.into())),
        _ => Err(format!("`{text}` is not of the form name=value")),
    }
}
