//! The control channel: JSON lines over a Unix stream socket, apart from stdout and stderr.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use harness_protocol::{FromWorker, Job, PROTOCOL_VERSION, ToWorker};

use crate::steps;

/// No job has this number, so it cancels none.
const NONE: u64 = u64::MAX;

/// Number of the job that was asked to stop. The reading thread writes it while a job runs.
static CANCELLED: AtomicU64 = AtomicU64::new(NONE);

/// The worker's half of the handshake.
pub fn hello() -> FromWorker {
    FromWorker::Hello {
        protocol: PROTOCOL_VERSION,
        build: format!("harness-worker {}", env!("CARGO_PKG_VERSION")),
        libtorch: crate::provenance::libtorch_version(),
        cuda_devices: tch::Cuda::device_count().max(0) as u32,
        kinds: steps::versions(),
    }
}

/// Ends the process at once: without its channel a worker is of no use, and libtorch's own ending can hang on threads
/// that still compute. Checkpoints are written atomically, so nothing is half there.
fn leave(status: i32) -> ! {
    // SAFETY: takes a plain number and does not return.
    unsafe { libc::_exit(status) }
}

fn send(writer: &Mutex<UnixStream>, message: &FromWorker) {
    let Ok(mut line) = serde_json::to_vec(message) else { return };
    line.push(b'\n');
    let mut writer = writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if writer.write_all(&line).is_err() {
        leave(0);
    }
}

/// Takes messages until the channel closes. Jobs go to the main thread; a cancellation takes effect at once.
fn read(stream: UnixStream, writer: &Mutex<UnixStream>, jobs: &mpsc::Sender<Job>) -> ! {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(ToWorker::Hello { .. }) => send(writer, &hello()),
            Ok(ToWorker::Job(job)) => {
                if jobs.send(*job).is_err() {
                    break;
                }
            }
            Ok(ToWorker::Cancel { id }) => CANCELLED.store(id, Ordering::Relaxed),
            Ok(ToWorker::Shutdown) => break,
            Err(error) => {
                eprintln!("harness-worker: a message that cannot be understood: {error}");
                leave(2);
            }
        }
    }
    leave(0)
}

/// Serves jobs on the channel with this descriptor, one at a time, until it closes.
///
/// # Errors
/// It is no socket.
pub fn serve(descriptor: RawFd) -> std::io::Result<()> {
    // SAFETY: the parent passed this descriptor to us alone; the kernel refuses the next call if it is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it is open (just checked) and nobody else in this process owns it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    stream.peer_addr()?;
    let reader = stream.try_clone()?;
    let writer: &'static Mutex<UnixStream> = Box::leak(Box::new(Mutex::new(stream)));
    let (send_job, jobs) = mpsc::channel();
    std::thread::Builder::new().name("control".into()).spawn(move || read(reader, writer, &send_job))?;
    for job in jobs {
        let last = steps::run(&job, &|message| send(writer, &message), &CANCELLED);
        send(writer, &last);
    }
    Ok(())
}

/// Runs one job from a file, its messages as JSON lines in `events`; whether it finished. For schedulers and tests.
///
/// # Errors
/// The job cannot be read or the events cannot be written.
pub fn run_file(job: &std::path::Path, events: &std::path::Path) -> Result<bool, crate::Error> {
    let text = std::fs::read_to_string(job).map_err(crate::Error::io("read", job))?;
    let parsed: Job =
        serde_json::from_str(&text).map_err(|error| format!("`{}` is not a job: {error}", job.display()))?;
    let file = std::fs::File::create(events).map_err(crate::Error::io("write", events))?;
    let file = Mutex::new(std::io::LineWriter::new(file));
    let sink = |message: FromWorker| {
        if let Ok(line) = serde_json::to_string(&message) {
            let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // A full disk shows at the last message, which is checked.
            let _ = writeln!(file, "{line}");
        }
    };
    let last = steps::run(&parsed, &sink, &CANCELLED);
    let line = serde_json::to_string(&last).map_err(|error| error.to_string())?;
    let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    writeln!(file, "{line}").and_then(|()| file.flush()).map_err(crate::Error::io("write", events))?;
    Ok(matches!(last, FromWorker::Finished { .. }))
}
