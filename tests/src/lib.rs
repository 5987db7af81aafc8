//! End-to-end tests over the two real binaries: a builder that runs `harness` in a folder of its own.

pub mod browser;
pub mod slurm;
pub mod sources;
pub mod trial;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with files and a cache, and `harness` run in it.
pub struct Test {
    dir: tempfile::TempDir,
}

/// What a run gave.
pub struct Ran {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Path of one of the two binaries, in the target folder of the test itself.
///
/// # Panics
/// When it was not built: `make test` builds both first.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let path = test.ancestors().nth(2).expect("target/<profile>/deps/<test>").join(name);
    assert!(path.is_file(), "{} is not built; run `make build`, or `make test`", path.display());
    path
}

impl Default for Test {
    fn default() -> Self {
        Self::new()
    }
}

impl Test {
    /// An empty folder.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// With a file.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
        std::fs::write(path, text).expect("the file can be written");
    }

    /// `harness` with a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("harness"));
        command.args(arguments).current_dir(self.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path());
        for name in ["LD_LIBRARY_PATH", "LIBTORCH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `harness` to its end.
    pub fn harness(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("harness starts");
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Starts `harness` and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("harness starts")
    }
}

impl Ran {
    /// With this exit status, or the test fails showing everything.
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// With these words on standard error.
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
        self
    }

    /// The events of a `--json` run.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// The last event.
    pub fn end(&self) -> Value {
        self.events().pop().unwrap_or_default()
    }

    /// Counts of the last event: executed, cached, failed, skipped.
    pub fn counts(&self) -> [u64; 4] {
        let end = self.end();
        assert_eq!(end["event"], "run_finished", "{end}");
        ["executed", "cached", "failed", "skipped"].map(|name| end[name].as_u64().expect("a count"))
    }

    /// Status of a step by its label.
    pub fn status(&self, label: &str) -> String {
        let events = self.events();
        let found = events.iter().find(|e| e["event"] == "step_finished" && e["label"] == label);
        found.unwrap_or_else(|| panic!("no step {label} in {}", self.stdout))["status"]
            .as_str()
            .unwrap_or_default()
            .into()
    }
}

/// The folder with real sample data, if it is there.
pub fn shared_data() -> Option<PathBuf> {
    let path = std::env::var_os("HARNESS_SHARED_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no sample data at {}", path.display());
    None
}

/// Waits until something is there.
///
/// # Panics
/// It never comes.
pub fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed().as_secs() < 60, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}
