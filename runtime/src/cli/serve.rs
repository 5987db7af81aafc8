//! `harness serve`: the live page, and the process of its own that `harness run --open` leaves it to.

use crate::cli::completions;
use crate::live::http::{self, Options};
use crate::live::source::{Source, Which};
use crate::project;
use anyhow::{Context as _, Result};
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// A page that `run --open` opened stays so long after the run's end and the last visit.
const LINGER: &str = "600";

/// `harness serve`
#[derive(Args, Debug)]
pub struct Serve {
    /// A run, or an .exp file for its newest one and each that begins later; without, the newest of the cache
    #[arg(value_name = "RUN|FILE", add = ArgValueCompleter::new(completions::runs))]
    pub run: Option<String>,
    /// Open the page in the browser
    #[arg(long)]
    pub open: bool,
    /// Port; without, 8710, or any free one where that is taken
    #[arg(long)]
    pub port: Option<u16>,
    /// Address to listen at; on another one than loopback the page asks for the token that is printed with its address
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Ask for a token on loopback too: on a machine with other users
    #[arg(long)]
    pub token: bool,
    /// End when the run has, and no page has followed it for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub linger: Option<u64>,
    /// Cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// No such run; the address cannot be had.
pub fn serve(arguments: &Serve) -> Result<ExitCode> {
    let file = arguments.run.as_deref().map(Path::new).filter(|path| path.extension().is_some_and(|e| e == "exp"));
    let (cache, _) = project::cache(file, arguments.cache.as_deref())?;
    let which = Which::of(cache.dir(), arguments.run.as_deref())?;
    let mut source = Source::new(cache.dir(), which);
    // The cache itself is not needed: whoever runs may hold it.
    drop(cache);
    source.look();
    let what = match source.generation {
        0 => "no run yet; the page shows the first that begins".into(),
        _ => format!("run {} of {}", source.live.id, source.live.asked.file),
    };
    let options = Options {
        bind: arguments.bind,
        port: arguments.port,
        token: arguments.token,
        linger: arguments.linger.map(Duration::from_secs),
    };
    http::serve(source, &options, |address| {
        // Programs read the address; it comes first, and at once.
        println!("{address}");
        eprintln!("{what} (Ctrl-C stops the page, not the run)");
        if !arguments.bind.is_loopback() {
            eprintln!("warning: the page goes over the network unencrypted; `ssh -L` to a loopback address is safer");
        }
        if arguments.open
            && let Err(error) = browse(address)
        {
            eprintln!("no browser could be started ({error}); open the address above");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Opens an address in the user's browser, and does not wait for it.
fn browse(address: &str) -> std::io::Result<()> {
    open::that_detached(address)
}

/// Serves a run that is about to begin from a process of its own, which outlives it, and opens the page; gives its
/// address.
///
/// # Errors
/// The process cannot be started, or says why it cannot serve.
pub fn beside(run: &str, cache: &Path) -> Result<String> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", run, "--open", "--linger", LINGER, "--cache"])
        .arg(cache)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C is for the run; the page shows how it ended.
        .process_group(0)
        .spawn()
        .context("the live page cannot be started")?;
    let mut address = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut address)?;
    }
    anyhow::ensure!(!address.trim().is_empty(), "the live page does not answer; `harness serve {run}` says why");
    Ok(address.trim().into())
}
