//! `harness watch` and `harness replay`: a recorded run through the listeners that show a run as it goes on.

use crate::cli::completions;
use crate::events::Event;
use crate::listen::{Lines, Listener, Screen};
use crate::live::screen;
use crate::live::source::{Source, Which};
use crate::start::colour;
use crate::{project, runs};
use anyhow::{Result, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks at the events of a run that goes on.
const PAUSE: Duration = Duration::from_millis(40);

/// `harness watch`
#[derive(Args, Debug)]
pub struct Watch {
    /// A run, or an .exp file for its newest one; without, the newest run that goes on
    #[arg(value_name = "RUN|FILE", add = ArgValueCompleter::new(completions::runs))]
    pub run: Option<String>,
    /// Lines as `harness run` prints them, not the full screen; so it is wherever there is no terminal
    #[arg(long)]
    pub plain: bool,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print events as JSON lines on standard output
    #[arg(long)]
    pub json: bool,
}

/// `harness replay`
#[derive(Args, Debug)]
pub struct Replay {
    /// A run, or an .exp file for its newest one
    #[arg(value_name = "RUN|FILE", add = ArgValueCompleter::new(completions::runs))]
    pub run: String,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print events as JSON lines on standard output
    #[arg(long)]
    pub json: bool,
}

fn file_of(run: &str) -> Option<&Path> {
    let path = Path::new(run.rsplit_once('~').map_or(run, |(base, _)| base));
    (path.extension().is_some_and(|extension| extension == "exp")).then_some(path)
}

/// Runs `harness watch`.
///
/// # Errors
/// No such run; none goes on; its events cannot be read.
pub fn watch(arguments: &Watch) -> Result<ExitCode> {
    let (cache, _) = project::cache(arguments.run.as_deref().and_then(file_of), arguments.cache.as_deref())?;
    let run = match &arguments.run {
        Some(name) => runs::find(cache.dir(), name)?,
        None => match runs::all(cache.dir()).into_iter().find(runs::Run::is_live) {
            Some(run) => run,
            None => bail!(
                "no run goes on with the cache {}; `harness replay RUN` shows one that ended",
                cache.dir().display()
            ),
        },
    };
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if terminal && !arguments.plain && !arguments.json {
        return full(cache.dir(), run);
    }
    eprintln!("run {} (Ctrl-C stops watching, not the run)", run.id);
    follow(&run, arguments.json, true)
}

/// The full screen, and what is to be said once it is gone.
fn full(cache: &Path, run: runs::Run) -> Result<ExitCode> {
    let mut source = Source::new(cache, Which::Run(Box::new(run)));
    screen::show(&mut source, colour())?;
    let live = &source.live;
    let Some(end) = &live.end else {
        match live.killed {
            false => eprintln!("the run {} goes on; `harness watch {}` follows it again", live.id, live.id),
            true => eprintln!("the run {} was killed; `harness run {}` goes on from there", live.id, live.asked.file),
        }
        return Ok(if live.killed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    };
    let mut screen = Screen::new(false, colour());
    screen.event(&Event::RunFinished {
        run: live.id.clone(),
        executed: end.executed as usize,
        cached: end.cached as usize,
        failed: end.failed as usize,
        skipped: end.skipped as usize,
        wall_s: end.wall_s,
        interrupted: end.interrupted,
        claims: end.claims.clone(),
        summary: end.summary.clone(),
    });
    Ok(status(end.failed > 0, end.interrupted))
}

/// The exit status of a run that ended so.
fn status(failed: bool, interrupted: bool) -> ExitCode {
    ExitCode::from(match () {
        () if interrupted => 130,
        () if failed => 1,
        () => 0,
    })
}

/// Runs `harness replay`.
///
/// # Errors
/// No such run, or its events cannot be read.
pub fn replay(arguments: &Replay) -> Result<ExitCode> {
    let (cache, _) = project::cache(file_of(&arguments.run), arguments.cache.as_deref())?;
    follow(&runs::find(cache.dir(), &arguments.run)?, arguments.json, false)
}

/// Feeds the events of a run to the listeners; waits for more while it goes on, if asked to.
fn follow(run: &runs::Run, json: bool, wait: bool) -> Result<ExitCode> {
    let path = run.dir.join("events.jsonl");
    let Ok(file) = File::open(&path) else { bail!("the run {} recorded no events ({})", run.id, path.display()) };
    let mut listener: Box<dyn Listener> = if json {
        Box::new(Lines::new(std::io::stdout()))
    } else {
        Box::new(Screen::new(wait && std::io::stderr().is_terminal(), colour()))
    };
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    let mut last_look = false;
    loop {
        let read = reader.read_line(&mut line)?;
        // A line without its end is still being written.
        if read == 0 || !line.ends_with('\n') {
            if last_look || !wait {
                break;
            }
            if run.is_live() {
                std::thread::sleep(PAUSE);
            } else {
                // Its last words may have come between the reading and the question.
                last_look = true;
            }
            continue;
        }
        if let Ok(event) = serde_json::from_str::<Event>(&line) {
            listener.event(&event);
            if let Event::RunFinished { failed, interrupted, .. } = event {
                return Ok(status(failed > 0, interrupted));
            }
        }
        line.clear();
    }
    drop(listener);
    if run.is_live() {
        eprintln!("the run goes on; `harness watch {}` follows it", run.id);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "the run {} has no end: its process was killed. What it finished is kept; `harness run {}` goes on from there",
        run.id, run.asked.file
    );
    Ok(ExitCode::FAILURE)
}
