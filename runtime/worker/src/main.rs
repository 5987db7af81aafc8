//! `harness-worker`: started by `harness` with a control channel, or by hand with one job in a file.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use harness_protocol::CONTROL_FD;
use harness_worker::{control, provenance, team};

const USAGE: &str = "harness-worker is started by `harness`; by hand: harness-worker --job FILE --events FILE";

fn main() -> ExitCode {
    wait_without_spinning();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (words.as_slice(), std::env::var(CONTROL_FD)) {
        (["--version"], _) => {
            println!("harness-worker {} (libtorch {})", env!("CARGO_PKG_VERSION"), provenance::libtorch_version());
            ExitCode::SUCCESS
        }
        (["--job", job, "--events", events], _) => {
            tch::set_num_interop_threads(1);
            match control::run_file(Path::new(job), Path::new(events)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(error) => {
                    eprintln!("harness-worker: {error}");
                    ExitCode::from(2)
                }
            }
        }
        (["--rank", rank, "--job", job], _) => {
            bind_to_parent();
            tch::set_num_interop_threads(1);
            match rank
                .parse()
                .map_err(|_| "it is no number".into())
                .and_then(|rank| team::run_rank(rank, Path::new(job)))
            {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(error) => {
                    eprintln!("harness-worker: rank {rank}: {error}");
                    ExitCode::from(2)
                }
            }
        }
        ([], Ok(descriptor)) => {
            bind_to_parent();
            tch::set_num_interop_threads(1);
            let served = match descriptor.parse() {
                Ok(number) => control::serve(number),
                Err(_) => Err(std::io::Error::other("it is no number")),
            };
            match served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("harness-worker: {CONTROL_FD}={descriptor} is no control channel: {error}");
                    ExitCode::from(2)
                }
            }
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Starts this program again with OpenMP's idle threads put to sleep soon. By default they spin for milliseconds, and
/// where pictures are prepared on the same cores that costs several times the work itself (65 against 400 pictures a
/// second on two cores). libgomp reads this before `main`, so it has to be in the environment of a new start; whoever
/// sets one of the variables keeps their choice and saves the second start.
fn wait_without_spinning() {
    const SPIN: &str = "GOMP_SPINCOUNT";
    if [SPIN, "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // It only comes back when it failed; then the worker is slow, and right.
        let _ = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(SPIN, "1000").exec();
    }
}

/// Dies with the thread that started it, and leaves Ctrl-C to `harness`, which cancels in order.
fn bind_to_parent() {
    // SAFETY: both calls take plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
}
