//! `harness-worker`: started by `harness` with a control channel, or by hand with one job in a file.

use std::path::Path;
use std::process::ExitCode;

use harness_protocol::CONTROL_FD;
use harness_worker::{control, provenance};

const USAGE: &str = "harness-worker is started by `harness`; by hand: harness-worker --job FILE --events FILE";

fn main() -> ExitCode {
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

/// Dies with the thread that started it, and leaves Ctrl-C to `harness`, which cancels in order.
fn bind_to_parent() {
    // SAFETY: both calls take plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
}
