//! The `harness` binary: it checks, plans, looks up, dispatches and reports. It never links libtorch.

mod action;
mod catalog;
mod choice;
mod cli;
mod command;
mod compare;
mod config;
mod datasets;
mod describe;
mod desk;
mod devices;
mod events;
mod implied;
mod inputs;
mod listen;
mod live;
mod manual;
mod overlap;
mod places;
mod project;
mod run;
mod runs;
mod shared;
mod spawn;
mod start;
mod summary;
mod tensorboard;
mod text;
mod torch_file;
mod unchanged;
mod why;
mod words;
mod worker;

use clap::Parser;
use std::process::ExitCode;

/// A run of ten thousand steps is mostly small strings and maps; this halves what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A reader that closes the pipe (`| head`) ends this process quietly, as it ends others.
    // SAFETY: setting a signal's disposition before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    silence_the_index();
    cli::completions::answer();
    let cli = cli::Cli::parse();
    let result = match cli.command {
        cli::Command::Run(arguments) => start::run(&arguments),
        cli::Command::Plan(arguments) => cli::plan::plan(&arguments),
        cli::Command::Why(arguments) => cli::why::why(&arguments),
        cli::Command::Views(arguments) => cli::views::views(&arguments),
        cli::Command::Show(arguments) => cli::show::show(&arguments),
        cli::Command::Log(arguments) => cli::show::log(&arguments),
        cli::Command::Status(arguments) => cli::status::status(&arguments),
        cli::Command::Watch(arguments) => cli::watch::watch(&arguments),
        cli::Command::Serve(arguments) => cli::serve::serve(&arguments),
        cli::Command::Replay(arguments) => cli::watch::replay(&arguments),
        cli::Command::History(arguments) => cli::history::history(&arguments),
        cli::Command::Compare(arguments) => cli::compare::compare(&arguments),
        cli::Command::Verify(arguments) => cli::verify::verify(&arguments),
        cli::Command::Check(arguments) => start::check(&arguments),
        cli::Command::Fmt(arguments) => cli::fmt::fmt(&arguments),
        cli::Command::Graph(arguments) => cli::graph::graph(&arguments),
        cli::Command::Lsp => cli::lsp::lsp(),
        cli::Command::Job(arguments) => cli::job::job(&arguments),
        cli::Command::Explain { code } => describe::explain(code.as_deref()),
        cli::Command::Describe { markdown: true, .. } => describe::all(),
        cli::Command::Describe { kind, .. } => describe::kind(kind.as_deref()),
        cli::Command::Cache(command) => cli::cache::cache(&command),
        cli::Command::Report(arguments) => cli::report::report(&arguments),
        cli::Command::Export(arguments) => cli::export::export(&arguments),
        cli::Command::Import(arguments) => cli::export::import(&arguments),
        cli::Command::Completions(arguments) => cli::completions::completions(&arguments),
        cli::Command::Man(arguments) => cli::man::man(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// sled answers a full disk and some damage by a panic, which the cache takes for what it is: the index is set aside and
/// made anew. Nobody needs to read of it.
fn silence_the_index() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/sled-")) {
            others(panic);
        }
    }));
}
