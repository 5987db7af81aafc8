//! One persistent `harness-worker` process per slot: started when first needed, replaced when it dies.

use anyhow::{Context as _, Result, anyhow, bail};
use harness_protocol::{CONTROL_FD, FromWorker, Job, Outcome, PROTOCOL_VERSION, ToWorker};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a cancelled job has for its checkpoint before it is terminated.
const GRACE: Duration = Duration::from_secs(20);
/// How long a new worker has to say hello; loading libtorch with CUDA takes seconds on a cold disk.
const HELLO: Duration = Duration::from_secs(120);
/// Lines of a dead worker's output that go into the message.
const TAIL: usize = 20;

/// Why a job gave no outcome.
#[derive(Debug)]
pub enum Ended {
    /// It said why.
    Failed(String),
    /// The process died under it: what happened and the tail of its output.
    Died(String),
    /// It was asked to stop.
    Cancelled,
}

/// A running worker.
pub struct Worker {
    child: Child,
    stream: BufReader<UnixStream>,
    partial: Vec<u8>,
    output: PathBuf,
    /// What it said of itself: build and libtorch.
    pub build: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// CUDA devices it sees.
    pub cuda_devices: u32,
    /// What `CUDA_VISIBLE_DEVICES` said to it.
    gpu: Option<String>,
    next: u64,
}

/// The worker binary: as configured, else beside `harness`.
///
/// # Errors
/// It is not there; says how to build it.
pub fn binary(configured: Option<&Path>) -> Result<PathBuf> {
    let path = match configured {
        Some(path) => path.to_path_buf(),
        None => std::env::current_exe()?.with_file_name("harness-worker"),
    };
    if !path.is_file() {
        bail!(
            "the worker {} is not there; build it with `make build` (or `cargo build --release -p harness-worker`), or name it with HARNESS_WORKER",
            path.display()
        );
    }
    Ok(path)
}

impl Worker {
    /// Starts a worker whose stdout and stderr go to `output`, and shakes hands. `gpu` is what `CUDA_VISIBLE_DEVICES`
    /// is to say.
    ///
    /// # Errors
    /// It cannot be started, says nothing, or speaks another version.
    pub fn start(binary: &Path, output: &Path, gpu: Option<&str>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let log = std::fs::File::create(output).with_context(|| format!("{} cannot be written", output.display()))?;
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(binary);
        command
            .env(CONTROL_FD, fd.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: the terminal's Ctrl-C is for `harness`, which then cancels the job in order.
            .process_group(0);
        if let Some(gpu) = gpu {
            command.env("CUDA_VISIBLE_DEVICES", gpu);
        }
        // SAFETY: fcntl is async-signal-safe and touches the child's own descriptor only.
        unsafe {
            command.pre_exec(move || {
                if libc::fcntl(fd, libc::F_SETFD, 0) == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn().with_context(|| format!("{} cannot be started", binary.display()))?;
        drop(theirs);
        ours.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut worker = Self {
            child,
            stream: BufReader::new(ours),
            partial: Vec::new(),
            output: output.to_path_buf(),
            build: String::new(),
            libtorch: String::new(),
            cuda_devices: 0,
            gpu: gpu.map(String::from),
            next: 0,
        };
        worker.send(&ToWorker::Hello { protocol: PROTOCOL_VERSION })?;
        let start = Instant::now();
        loop {
            match worker.receive() {
                Ok(Some(FromWorker::Hello { protocol, build, libtorch, cuda_devices, kinds })) => {
                    if protocol != PROTOCOL_VERSION {
                        bail!(
                            "{} speaks protocol {protocol} and harness {PROTOCOL_VERSION}; build both from the same source (`make build`)",
                            binary.display()
                        );
                    }
                    for info in harness_protocol::steps::ALL {
                        // A kind that it lacks altogether it refuses itself, by name.
                        if kinds.get(info.name).is_some_and(|version| *version != info.version) {
                            bail!(
                                "{} has version {} of `{}` and harness has {}; build both from the same source (`make build`)",
                                binary.display(),
                                kinds.get(info.name).copied().unwrap_or_default(),
                                info.name,
                                info.version
                            );
                        }
                    }
                    worker.build = build;
                    worker.libtorch = libtorch;
                    worker.cuda_devices = cuda_devices;
                    return Ok(worker);
                }
                Ok(Some(other)) => bail!("{} said {other:?} instead of hello", binary.display()),
                Ok(None) if start.elapsed() < HELLO => {}
                Ok(None) => {
                    bail!("{} said nothing for {} s; its output: {}", binary.display(), HELLO.as_secs(), worker.tail())
                }
                Err(_) => bail!("{} did not start: {}", binary.display(), worker.died()),
            }
        }
    }

    fn send(&mut self, message: &ToWorker) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        Ok(())
    }

    /// The next message; none when nothing came within the stream's timeout.
    fn receive(&mut self) -> Result<Option<FromWorker>> {
        match self.stream.read_until(b'\n', &mut self.partial) {
            Ok(_) if self.partial.ends_with(b"\n") => {
                let message = serde_json::from_slice(&self.partial);
                self.partial.clear();
                Ok(Some(message.context("the worker sent what is no message")?))
            }
            Ok(_) => Err(anyhow!("the control channel closed")),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs one job to its end, passing on what it says; stops it in order after `limit`. After anything but an outcome or a failure that it reported
    /// itself the process is gone and must be replaced ([`Worker::alive`]).
    pub fn run(
        &mut self,
        mut job: Job,
        cancel: &AtomicBool,
        hurry: &AtomicBool,
        limit: Option<Duration>,
        on: &mut dyn FnMut(FromWorker),
    ) -> Result<Outcome, Ended> {
        self.next += 1;
        job.id = self.next;
        let id = job.id;
        if self.send(&ToWorker::Job(Box::new(job))).is_err() {
            return Err(Ended::Died(self.died()));
        }
        let mut asked: Option<Instant> = None;
        let start = Instant::now();
        let late = || limit.filter(|limit| start.elapsed() > *limit);
        let stopped = || match late() {
            Some(limit) if !cancel.load(Ordering::Relaxed) => Ended::Failed(format!(
                "it was stopped after its time limit of {}; where the kind can, the next attempt goes on from there",
                crate::listen::seconds(limit.as_secs_f64())
            )),
            _ => Ended::Cancelled,
        };
        loop {
            match (cancel.load(Ordering::Relaxed) || late().is_some(), asked) {
                (true, None) => {
                    asked = Some(Instant::now());
                    let _ = self.send(&ToWorker::Cancel { id });
                }
                (true, Some(since)) if since.elapsed() > GRACE || hurry.load(Ordering::Relaxed) => {
                    self.stop();
                    return Err(stopped());
                }
                _ => {}
            }
            match self.receive() {
                Ok(Some(FromWorker::Finished { id: of, outcome })) if of == id => return Ok(outcome),
                Ok(Some(FromWorker::Failed { id: of, message })) if of == id => return Err(Ended::Failed(message)),
                Ok(Some(FromWorker::Cancelled { id: of })) if of == id => return Err(stopped()),
                Ok(Some(message)) => on(message),
                Ok(None) => {}
                Err(_) if asked.is_some() => {
                    self.stop();
                    return Err(stopped());
                }
                Err(_) => return Err(Ended::Died(self.died())),
            }
        }
    }

    /// Whether it was started with these devices to see.
    pub fn sees(&self, gpu: Option<&str>) -> bool {
        self.gpu.as_deref() == gpu
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain numbers; the group is the child's own.
        unsafe { libc::kill(-(self.child.id() as i32), signal) };
    }

    /// Terminates, then kills.
    fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let since = Instant::now();
        while self.alive() && since.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(libc::SIGKILL);
        let _ = self.child.wait();
    }

    /// What became of a process whose channel closed, with the tail of its output.
    fn died(&mut self) -> String {
        let since = Instant::now();
        while self.alive() && since.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let how = match self.child.try_wait() {
            Ok(Some(status)) => match (status.signal(), status.code()) {
                (Some(9), _) => "it was killed (signal 9: by hand, or because memory ran out)".into(),
                (Some(signal), _) => format!("it died of signal {signal}"),
                (_, Some(code)) => format!("it ended with status {code}"),
                _ => "it ended".into(),
            },
            _ => {
                self.stop();
                "it closed its channel and was stopped".into()
            }
        };
        let tail = self.tail();
        let tail = if tail.trim().is_empty() {
            "; it printed nothing".into()
        } else {
            format!("; the end of what it printed:\n{tail}")
        };
        format!("{how}{tail}")
    }

    /// The last lines of its stdout and stderr.
    pub fn tail(&self) -> String {
        tail(&self.output, TAIL)
    }

    /// Position in its output now, to cut out one job's part later.
    pub fn output_position(&self) -> u64 {
        std::fs::metadata(&self.output).map(|metadata| metadata.len()).unwrap_or(0)
    }

    /// What it printed since `position`.
    pub fn output_since(&self, position: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(&self.output)
            && file.seek(SeekFrom::Start(position)).is_ok()
        {
            let _ = file.take(1 << 24).read_to_end(&mut bytes);
        }
        bytes
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.alive() && self.send(&ToWorker::Shutdown).is_ok() {
            let since = Instant::now();
            while self.alive() && since.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if self.alive() {
            self.stop();
        }
    }
}

/// The last `lines` lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let Ok(mut file) = std::fs::File::open(path) else { return String::new() };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)));
    let mut bytes = Vec::new();
    let _ = file.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
