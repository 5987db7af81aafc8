//! `harness run` and `harness check`: from arguments to exit status.

use crate::cli;
use crate::config::{Config, Flags};
use crate::events::{Event, Status};
use crate::listen::{Lines, Listener, Screen, file};
use crate::run::{Request, State};
use crate::shared::Shared;
use crate::unchanged::{self, Said};
use crate::{catalog, devices, project, run as engine, runs, summary, tensorboard, text, worker};
use anyhow::{Context as _, Result};
use harness_cache::{Cache, Record};
use harness_dsl::{Pick, Severity, render};
use harness_protocol::{Executor, steps};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Whether messages are coloured: on a terminal, unless `NO_COLOR` is set.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows what was found; whether there is a program.
pub fn report(text: &text::Text, json: bool) -> bool {
    let found = &text.checked.diagnostics;
    if json {
        for diagnostic in found {
            // A diagnostic is plain data; it always serialises.
            if let Ok(line) = serde_json::to_string(diagnostic) {
                println!("{line}");
            }
        }
    }
    if !found.is_empty() {
        eprint!("{}", render(found, &text.checked.sources, colour()));
        let errors = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        if errors > 0 {
            let codes = found.iter().find(|d| d.severity == Severity::Error).map_or("E0101", |d| d.code);
            eprintln!("{errors} error{}; `harness explain {codes}` tells more", if errors == 1 { "" } else { "s" });
        }
    }
    text.checked.program.is_some()
}

/// Writes the edits that the diagnostics of a file suggest; whether there were any. What an imported file has wrong is
/// left to that file.
fn mend(path: &Path, text: &text::Text) -> Result<bool> {
    let found = text.checked.diagnostics.iter().filter(|found| found.span.source == 0);
    let mut fixes: Vec<harness_dsl::Fix> = found.filter_map(harness_dsl::Diagnostic::fix).collect();
    fixes.sort_by_key(|fix| std::cmp::Reverse(fix.span.start));
    let mut mended = text.text.clone();
    let mut before = usize::MAX;
    let mut made = Vec::new();
    for fix in &fixes {
        // From the back, so that places stay true; of two edits that overlap one is made.
        let Some(old) = mended.get(fix.span.start..fix.span.end).filter(|_| fix.span.end <= before) else { continue };
        let at = text.checked.sources.location(fix.span);
        let shown = |text: &str| match text {
            "" => "nothing".to_owned(),
            text => format!("`{}`", text.chars().map(visible).collect::<String>()),
        };
        made.push(format!("{}:{}:{}: {} is now {}", path.display(), at.line, at.column, shown(old), shown(&fix.text)));
        mended.replace_range(fix.span.start..fix.span.end, &fix.text);
        before = fix.span.start;
    }
    if mended != text.text {
        cli::fmt::replace(path, &mended)?;
        made.iter().rev().for_each(|line| eprintln!("{line}"));
        eprintln!("{}: {} mended", path.display(), made.len());
    }
    Ok(mended != text.text)
}

/// A character as it is, or by its number where it cannot be seen.
fn visible(character: char) -> String {
    if "\"'\\".contains(character) { character.to_string() } else { character.escape_debug().to_string() }
}

/// `harness check`
pub fn check(arguments: &cli::Check) -> Result<ExitCode> {
    let catalog = catalog::catalog();
    let mut good = true;
    for path in &arguments.files {
        let mut text = text::read_as_written(path, &catalog, &arguments.params)?;
        if arguments.fix && mend(path, &text)? {
            text = text::read_as_written(path, &catalog, &arguments.params)?;
        }
        let fine = report(&text, arguments.json);
        good &= fine;
        if let Some(program) = &text.checked.program {
            eprintln!(
                "{}: {}, {}, {}",
                path.display(),
                cli::count(program.steps.iter().filter(|step| !step.implied).count(), "step"),
                cli::count(program.tables.len(), "table"),
                cli::count(program.claims.len(), "claim")
            );
        }
        // The process is about to end; to take ten thousand steps apart is a tenth of its time.
        std::mem::forget(text);
    }
    Ok(ExitCode::from(if good { 0 } else { 2 }))
}

/// `harness run`
pub fn run(arguments: &cli::Run) -> Result<ExitCode> {
    let start = Instant::now();
    let folder = project::folder(&arguments.file);
    let flags = Flags {
        cache: arguments.cache.clone(),
        jobs: arguments.jobs,
        device: arguments.device.clone(),
        executor: arguments.executor,
        offline: arguments.offline,
    };
    // What is wrong with it is said below, after what is wrong with the text.
    let config = Config::find(folder, &flags);
    let asked = config.as_ref().ok().and_then(|config| unchanged::asked(arguments, config));
    if let (Some(asked), Ok(config)) = (&asked, &config)
        && config.cache.is_dir()
        && let Some(code) = repeat(arguments, &config.cache, asked, start)?
    {
        return Ok(code);
    }
    let catalog = catalog::catalog();
    let text = text::read(&arguments.file, &catalog, &arguments.params)?;
    if !report(&text, false) {
        return Ok(ExitCode::from(2));
    }
    let Some(program) = &text.checked.program else { return Ok(ExitCode::from(2)) };
    let config = config?;
    let wanted = text::select(program, &arguments.targets)?;
    let mut forced = vec![false; program.steps.len()];
    for step in text::matching(program, &arguments.force)? {
        forced[step] = true;
        // What only it implies is part of it.
        program.steps[step]
            .inputs
            .iter()
            .filter(|&&input| program.steps[input].implied)
            .for_each(|&input| forced[input] = true);
    }
    let shared = match &config.shared {
        Some(settings) if !arguments.dry_run => Some(Shared::open(settings)?),
        _ => None,
    };
    let slots = devices::slots(&config.device, config.jobs, config.threads)?;
    let cache = Cache::open(&config.cache).with_context(|| format!("the cache {}", config.cache.display()))?;
    let home = cache.dir().join("summaries").join(stem(&arguments.file));
    let recent = home.join("recent");
    cache.load_recent(&recent);
    if asked.is_some() {
        cache.observe();
    }
    let needs_worker = program
        .steps
        .iter()
        .any(|step| wanted[step.id] && steps::kind(&step.kind).is_some_and(|kind| kind.executor == Executor::Worker));
    // Only its place is looked up: a run that finds everything in the cache starts no worker, and needs none.
    let worker = if needs_worker { worker::binary(config.worker.as_deref()).map_err(Some) } else { Err(None) };

    // A dry run leaves nothing behind: it is no result that anybody would look for.
    let (id, dir) = if arguments.dry_run { (run_id(), PathBuf::new()) } else { run_folder(&cache)? };
    let resolved = serde_json::to_vec(program).unwrap_or_default();
    if !arguments.dry_run {
        let _ = runs::Asked::now(arguments).write(&dir);
        let _ = std::fs::write(dir.join("source.exp"), &text.text);
        let _ = std::fs::write(dir.join("program.json"), &resolved);
    }

    if arguments.open {
        match cli::serve::beside(&id, cache.dir()) {
            Ok(address) => eprintln!("live page: {address}"),
            // A page that cannot be shown is no reason not to compute.
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    let mut listeners = listeners(arguments, &dir);
    let mut hearing = unchanged::Hearing::new();
    let mut emit = |event: Event| {
        if asked.is_some() {
            hearing.event(&event);
        }
        listeners.iter_mut().for_each(|listener| listener.event(&event));
    };

    let (cancel, hurry) = interrupts()?;
    let name = arguments.file.display().to_string();
    emit(Event::RunStarted {
        run: id.clone(),
        file: name.clone(),
        steps: wanted.iter().filter(|wanted| **wanted).count(),
        cache: cache.dir().display().to_string(),
    });
    let (worker, missing) = match worker {
        Ok(path) => (Some(path), None),
        Err(error) => (None, error),
    };
    let request = Request {
        program,
        catalog: &catalog,
        config: &config,
        cache: &cache,
        results: None,
        shared: shared.as_ref(),
        wanted,
        forced,
        keep_going: arguments.keep_going,
        dry_run: arguments.dry_run,
        slots,
        worker,
        missing_worker: missing.map(|error| format!("{error:#}")),
        logs: dir.clone(),
        cancel: cancel.clone(),
        hurry,
        reach: None,
    };
    let (states, leavings) = engine::run_and_leave(&request, &mut emit);
    let tidying = std::thread::spawn(move || drop(leavings));
    let states = states?;

    let interrupted = cancel.load(Ordering::Relaxed);
    let count = |status: Status| {
        states.iter().zip(&request.wanted).filter(|(state, wanted)| **wanted && state.status == status).count()
    };
    let failed = count(Status::Failed);
    let claims = summary::verdicts(&request, &states);
    let outcomes: BTreeMap<String, String> =
        claims.iter().map(|(claim, verdict)| (claim.text.clone(), summary::outcome(verdict).to_string())).collect();
    let wall_s = start.elapsed().as_secs_f64();
    let run = harness_report::RunInfo {
        id: id.clone(),
        wall_s,
        executed: count(Status::Executed) as u64,
        cached: count(Status::Cached) as u64,
        failed: failed as u64,
        skipped: count(Status::Skipped) as u64,
        interrupted,
        machine: summary::machine(),
    };
    let mut shown = None;
    if !arguments.dry_run {
        let standing = summary::standing(&request, &text, &states, &resolved);
        let render = || summary::build(&request, &text, &states, &claims, run);
        match summary::keep(&home, &standing, &dir, arguments.out.as_deref(), render) {
            Ok(path) => shown = Some((path, standing)),
            Err(error) => {
                emit(Event::Log { step: None, label: None, level: "warn".into(), text: format!("{error:#}") })
            }
        }
    }
    let undecided = claims.iter().any(|(_, verdict)| summary::outcome(verdict) != "holds");
    let said = Said {
        steps: count(Status::Cached),
        claims: outcomes.clone(),
        undecided,
        standing: shown.as_ref().map(|(_, standing)| standing.clone()).unwrap_or_default(),
        ..Said::default()
    };
    emit(Event::RunFinished {
        run: id,
        executed: count(Status::Executed),
        cached: count(Status::Cached),
        failed,
        skipped: count(Status::Skipped),
        wall_s: start.elapsed().as_secs_f64(),
        interrupted,
        claims: outcomes,
        summary: shown.map(|(path, _): (PathBuf, _)| path.display().to_string()),
    });
    if let Some(asked) = &asked {
        unchanged::keep(&home, said, asked, &text, &resolved, hearing, &cache);
    }
    if !arguments.dry_run {
        cache.keep_recent(&recent);
    }
    cache.flush();
    // Should it have failed, what is left does no harm, and `cache gc` finds it.
    let _ = tidying.join();
    // The process ends here: taking thousands of steps apart one by one would cost more than looking them up.
    std::mem::forget((states, resolved, text));
    Ok(ExitCode::from(match () {
        () if interrupted => 130,
        () if failed > 0 => 1,
        () if arguments.strict && undecided && !arguments.dry_run => 1,
        () => 0,
    }))
}

/// Who shows and keeps the events of a run with this folder.
fn listeners(arguments: &cli::Run, dir: &Path) -> Vec<Box<dyn Listener>> {
    let mut listeners: Vec<Box<dyn Listener>> = Vec::new();
    listeners.push(Box::new(Screen::new(std::io::stderr().is_terminal() && !arguments.json, colour())));
    if !arguments.dry_run {
        listeners.extend(file(&dir.join("events.jsonl")).map(|lines| Box::new(lines) as Box<dyn Listener>));
    }
    if let Some(dir) = &arguments.tensorboard {
        listeners.push(Box::new(tensorboard::Board::new(dir)));
    }
    if arguments.json {
        listeners.push(Box::new(Lines::new(std::io::stdout())));
    }
    listeners
}

/// Says what the run before said, where nothing that decides it changed; none where that is not sure.
fn repeat(arguments: &cli::Run, cache: &Path, asked: &str, start: Instant) -> Result<Option<ExitCode>> {
    let cache = Cache::open(cache).with_context(|| format!("the cache {}", cache.display()))?;
    let home = cache.dir().join("summaries").join(stem(&arguments.file));
    // Nothing is collected between the look and the word.
    let _using = cache.using()?;
    let Some(said) = unchanged::recall(&home, asked, &cache) else { return Ok(None) };
    let (id, dir) = run_folder(&cache)?;
    let kept = said.link(&home, &dir).and_then(|()| std::fs::copy(&arguments.file, dir.join("source.exp")));
    if kept.is_err() {
        // The long way makes what is missing.
        let _ = std::fs::remove_dir_all(&dir);
        return Ok(None);
    }
    let _ = runs::Asked::now(arguments).write(&dir);
    let mut listeners = listeners(arguments, &dir);
    let started = Event::RunStarted {
        run: id.clone(),
        file: arguments.file.display().to_string(),
        steps: said.steps,
        cache: cache.dir().display().to_string(),
    };
    listeners.iter_mut().for_each(|listener| listener.event(&started));
    listeners.iter_mut().for_each(|listener| listener.known(&said.lines));
    let finished = Event::RunFinished {
        run: id,
        executed: 0,
        cached: said.steps,
        failed: 0,
        skipped: 0,
        wall_s: start.elapsed().as_secs_f64(),
        interrupted: false,
        claims: said.claims,
        summary: Some(home.join(summary::FILES[0]).display().to_string()),
    };
    listeners.iter_mut().for_each(|listener| listener.event(&finished));
    Ok(Some(ExitCode::from(u8::from(arguments.strict && said.undecided))))
}

/// A number of a step: a metric, or a point of a curve.
pub fn number(state: &State, step: usize, metric: &str, pick: Pick, request: &Request<'_>) -> Option<f64> {
    let kind = request.catalog.kind(&request.program.steps[step].kind)?;
    let up = kind.metric(metric).is_none_or(|metric| metric.higher_is_better);
    measured(&state.finished.as_ref()?.record, metric, pick, up)
}

/// A number of a record: a metric, or a point of a curve; the best one is the highest if `up`.
pub fn measured(record: &Record, metric: &str, pick: Pick, up: bool) -> Option<f64> {
    if let Some(value) = record.metrics.get(metric) {
        return Some(*value);
    }
    let series = record.series.get(metric)?;
    match pick {
        Pick::Last => series.y.last().copied(),
        Pick::At(x) => series.x.iter().position(|at| *at == x).and_then(|index| series.y.get(index)).copied(),
        Pick::Best => series.y.iter().copied().filter(|y| !y.is_nan()).reduce(|a, b| if (a > b) == up { a } else { b }),
    }
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or("experiment".into(), |stem| stem.to_string_lossy().into_owned())
}

/// A folder for a run, which nobody else has: processes of two machines or containers can have the same number.
fn run_folder(cache: &Cache) -> Result<(String, PathBuf)> {
    let (base, runs) = (run_id(), cache.dir().join("runs"));
    std::fs::create_dir_all(&runs).with_context(|| format!("{} cannot be created", runs.display()))?;
    for number in 1.. {
        let id = if number == 1 { base.clone() } else { format!("{base}-{number}") };
        let dir = runs.join(&id);
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok((id, dir)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{} cannot be created", dir.display())),
        }
    }
    unreachable!("a folder is made or refused")
}

fn run_id() -> String {
    format!("{}-{}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"), std::process::id())
}

/// The first interrupt stops in order (checkpoints are written), the second at once.
pub fn interrupts() -> Result<(Arc<AtomicBool>, Arc<AtomicBool>)> {
    let (cancel, hurry) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    // A run outlives its terminal (`harness watch` attaches to it from another one) and the readers of its pipes: what it says goes nowhere then, and what it finds stays.
    // SAFETY: setting dispositions; nothing else in this process sets these.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let (first, second) = (cancel.clone(), hurry.clone());
        // SAFETY: the action only loads and stores atomics, which is async-signal-safe.
        unsafe {
            signal_hook::low_level::register(signal, move || {
                if first.swap(true, Ordering::Relaxed) {
                    second.store(true, Ordering::Relaxed);
                }
            })?;
        }
    }
    Ok((cancel, hurry))
}
