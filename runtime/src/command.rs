//! Runs `command` steps: any program in a fresh directory, its inputs staged read-only, its environment cleared.

use crate::worker::{Ended, tail};
use anyhow::Result;
use harness_protocol::steps::Command as Params;
use harness_protocol::{Job, Outcome, Produced};
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Finds the program as a shell would, and beside the `.exp` file when the name has a slash.
pub fn program(name: &str, folder: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(folder.join(name)).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs the program to its end. `log` receives its stdout and stderr.
pub fn run(job: &Job, folder: &Path, log: &Path, cancel: &AtomicBool) -> Result<Outcome, Ended> {
    let failed = |message: String| Ended::Failed(message);
    let params: Params = serde_json::from_value(job.params.clone()).map_err(|e| failed(e.to_string()))?;
    let io = |what: &str, path: &Path, error: std::io::Error| {
        failed(format!("{} cannot be {what}: {error}", path.display()))
    };
    let dir = job.out_dir.join("run");
    let staged = dir.join("inputs");
    std::fs::create_dir_all(&staged).map_err(|e| io("created", &staged, e))?;
    let digests = params.inputs.iter().map(|(name, input)| (name, input.digest()));
    for (name, digest) in digests.chain(params.files.iter().map(|(name, file)| (name, file.artifact.digest.as_str()))) {
        let Some(files) = job.inputs.get(digest) else {
            return Err(failed(format!("the input `{name}` was not staged")));
        };
        let target = staged.join(name);
        std::os::unix::fs::symlink(&files.file, &target).map_err(|e| io("staged", &target, e))?;
        if let Some(data) = &files.data {
            let target = staged.join(format!("{name}.data"));
            std::os::unix::fs::symlink(&data.path, &target).map_err(|e| io("staged", &target, e))?;
        }
    }
    let fill = |text: &str| -> Result<String, Ended> {
        let mut text = text.replace("{seed}", &params.seed.to_string());
        for name in params.inputs.keys().chain(params.files.keys()) {
            text = text.replace(&format!("{{inputs.{name}}}"), &staged.join(name).to_string_lossy());
        }
        for (name, output) in &params.outputs {
            text = text.replace(&format!("{{outputs.{name}}}"), &dir.join(&output.path).to_string_lossy());
        }
        match ["{inputs.", "{outputs."].iter().find_map(|open| text.find(open)) {
            Some(at) => {
                let name = text[at..].split_inclusive('}').next().unwrap_or_default().to_string();
                Err(failed(format!("`{name}` in `run` names nothing that this step declares")))
            }
            None => Ok(text),
        }
    };
    for output in params.outputs.values() {
        if let Some(parent) = dir.join(&output.path).parent() {
            std::fs::create_dir_all(parent).map_err(|e| io("created", parent, e))?;
        }
    }
    let Some(program) = program(&params.run[0], folder) else {
        return Err(failed(format!("the program `{}` is neither on PATH nor beside the file", params.run[0])));
    };
    let out = std::fs::File::create(log).map_err(|e| io("written", log, e))?;
    let err = out.try_clone().map_err(|e| io("written", log, e))?;
    let mut command = Command::new(&program);
    for argument in &params.run[1..] {
        command.arg(fill(argument)?);
    }
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &dir).env("LANG", "C.UTF-8");
    for (name, value) in &params.env {
        command.env(name, fill(value)?);
    }
    command.current_dir(&dir).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    // SAFETY: prctl with plain numbers, async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|e| io("started", &program, e))?;
    let group = -(child.id() as i32);
    let start = Instant::now();
    let mut stopping: Option<(Instant, Ended)> = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failed(e.to_string()))? {
            break status;
        }
        let timeout = params.timeout.filter(|timeout| start.elapsed().as_secs_f64() > timeout.0);
        match &stopping {
            None => {
                let why = match timeout {
                    Some(timeout) => Some(Ended::Failed(format!(
                        "`{}` was stopped after its timeout of {} s",
                        params.run[0], timeout.0
                    ))),
                    None if cancel.load(Ordering::Relaxed) => Some(Ended::Cancelled),
                    None => None,
                };
                if let Some(why) = why {
                    // SAFETY: plain numbers; the group is the child's own.
                    unsafe { libc::kill(group, libc::SIGTERM) };
                    stopping = Some((Instant::now(), why));
                }
            }
            Some((since, _)) if since.elapsed() > Duration::from_secs(5) => {
                // SAFETY: as above.
                unsafe { libc::kill(group, libc::SIGKILL) };
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    // Whatever it started and left behind ends with it.
    // SAFETY: as above.
    unsafe { libc::kill(group, libc::SIGKILL) };
    if let Some((_, why)) = stopping {
        return Err(why);
    }
    if !status.success() {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (_, Some(signal)) => format!("died of signal {signal}"),
            _ => "failed".into(),
        };
        let tail = tail(log, 20);
        let tail = if tail.trim().is_empty() {
            "; it printed nothing".into()
        } else {
            format!("; the end of what it printed:\n{tail}")
        };
        return Err(failed(format!("`{}` {how}{tail}", params.run.join(" "))));
    }
    collect(job, &params, &dir)
}

fn collect(job: &Job, params: &Params, dir: &Path) -> Result<Outcome, Ended> {
    let failed = |message: String| Ended::Failed(message);
    let mut outcome = Outcome::default();
    for (name, output) in &params.outputs {
        let path = dir.join(&output.path);
        let file = format!("output-{name}");
        let target = job.out_dir.join(&file);
        if path.is_symlink() {
            return Err(failed(format!(
                "the output `{name}` ({}) is a link; outputs are plain files or folders",
                output.path
            )));
        } else if path.is_dir() {
            if output.kind != "folder" {
                return Err(failed(format!(
                    "the output `{name}` ({}) is a folder and was declared as {}",
                    output.path, output.kind
                )));
            }
            pack(&path, &target).map_err(|e| failed(format!("the folder `{name}` cannot be packed: {e}")))?;
        } else if path.is_file() {
            if output.kind == "folder" {
                return Err(failed(format!(
                    "the output `{name}` ({}) is a file and was declared as a folder",
                    output.path
                )));
            }
            std::fs::rename(&path, &target).map_err(|e| failed(format!("{}: {e}", path.display())))?;
        } else {
            return Err(failed(format!(
                "`{}` ended well but did not write its output `{name}` ({})",
                params.run[0], output.path
            )));
        }
        outcome.outputs.insert(name.clone(), Produced { kind: output.kind.clone(), file });
    }
    if !params.metrics.is_empty() {
        let path = dir.join("metrics.json");
        let text = std::fs::read(&path)
            .map_err(|_| failed(format!("`{}` declares metrics and did not write metrics.json", params.run[0])))?;
        let found: BTreeMap<String, f64> = serde_json::from_slice(&text)
            .map_err(|e| failed(format!("metrics.json must be one object of numbers, `{{\"accuracy\": 0.5}}`: {e}")))?;
        for name in &params.metrics {
            match found.get(name) {
                Some(value) => outcome.metrics.insert(name.clone(), *value),
                None => return Err(failed(format!("metrics.json has no `{name}`, which the step declares"))),
            };
        }
    }
    outcome.provenance.insert("program".into(), params.run.join(" ").into());
    Ok(outcome)
}

/// Packs a folder as a tar whose bytes depend on names and contents alone.
fn pack(folder: &Path, target: &Path) -> std::io::Result<()> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { walk(&entry.path(), files)? } else { files.push(entry.path()) }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    files.sort();
    let mut tar = tar::Builder::new(std::fs::File::create(target)?);
    for path in files {
        let bytes = std::fs::read(&path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path.strip_prefix(folder).unwrap_or(&path), bytes.as_slice())?;
    }
    tar.into_inner()?.sync_all()
}
