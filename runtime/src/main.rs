//! The `harness` binary: it checks, plans, looks up, dispatches and reports. It never links libtorch.

mod action;
mod catalog;
mod cli;
mod command;
mod config;
mod datasets;
mod describe;
mod devices;
mod events;
mod fmt;
mod inputs;
mod listen;
mod overlap;
mod run;
mod start;
mod summary;
mod text;
mod why;
mod worker;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A reader that closes the pipe (`| head`) ends this process quietly, as it ends others.
    // SAFETY: setting a signal's disposition before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let cli = cli::Cli::parse();
    let result = match cli.command {
        cli::Command::Run(arguments) => start::run(&arguments),
        cli::Command::Why(arguments) => why::why(&arguments),
        cli::Command::Check(arguments) => start::check(&arguments),
        cli::Command::Fmt(arguments) => fmt::fmt(&arguments),
        cli::Command::Explain { code } => describe::explain(&code),
        cli::Command::Describe { kind } => describe::kind(kind.as_deref()),
        cli::Command::Cache(command) => describe::cache(&command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
