//! Runs `command` steps: any program in a fresh directory, its inputs staged read-only, its environment cleared.

use crate::spawn::{Running, Start};
use crate::worker::{Ended, tail};
use anyhow::{Context as _, Result, bail};
use harness_cache::{Cache, Digest};
use harness_protocol::steps::Command as Params;
use harness_protocol::{Job, Outcome, Produced};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The user's files up to this size are staged as copies, larger ones as links. A script that is a copy finds no
/// neighbours that were not declared.
const COPIED_UP_TO: u64 = 16 << 20;
/// Up to this size through memory, at once with hashing.
const READ_UP_TO: u64 = 256 << 10;

/// Where a step's programs are looked for: in what the step's `env` sets as `PATH`, or else in this process's. What is filled in
/// later names no folder yet.
pub fn search_path(env: Option<&Value>) -> OsString {
    let own = env.and_then(|env| env["PATH"].as_str()).filter(|path| !path.contains('{'));
    own.map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
}

/// Finds the program as a shell would that has this search path, and beside the `.exp` file when the name has a slash.
pub fn program(name: &str, folder: &Path, path: &OsStr) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(folder.join(name)).filter(|path| path.is_file());
    }
    // A thousand steps ask for the same few programs.
    static FOUND: Mutex<BTreeMap<(OsString, String), PathBuf>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = (path.to_owned(), name.to_string());
    if let Some(path) = found.get(&asked).filter(|path| is_program(path)) {
        return Some(path.clone());
    }
    let place = std::env::split_paths(path).map(|dir| dir.join(name)).find(|path| is_program(path))?;
    // The step starts in another folder.
    let place = std::path::absolute(place).ok()?;
    found.insert(asked, place.clone());
    Some(place)
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Has the cache take down where a program was looked for ([`program`]), and that it is not at the earlier places.
fn observe(name: &str, folder: &Path, path: &OsStr, cache: &Cache) {
    static SEEN: Mutex<BTreeSet<(OsString, String)>> = Mutex::new(BTreeSet::new());
    if name.contains('/') {
        cache.is_file(&folder.join(name));
    } else if SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert((path.to_owned(), name.into())) {
        let _ = std::env::split_paths(path).find(|dir| {
            let place = dir.join(name);
            cache.is_file(&place) && is_program(&place)
        });
    }
}

/// A file, or a folder of files, that belongs to what a step runs.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    /// Its name in the key: its path as the step names it; `#!name` for an interpreter.
    name: String,
    /// Where it lies.
    place: PathBuf,
}

/// What a step runs beside its program: what the arguments and the field `code` name, and the interpreter of a script.
/// By their names in the key, with their digests.
///
/// # Errors
/// Something in `code` is not there or cannot be read.
pub fn code_digests(
    params: &Map<String, Value>,
    program: &Path,
    folder: &Path,
    cache: &Cache,
) -> Result<Map<String, Value>> {
    let (files, folders) = code(params, program, folder, &search_path(params.get("env")), cache)?;
    let mut found = Map::new();
    for folder in folders {
        found.extend(folder_digests(&folder, cache)?);
    }
    found.extend(digests(files, cache)?);
    Ok(found)
}

fn digests(files: Vec<Code>, cache: &Cache) -> Result<Map<String, Value>> {
    let (names, places): (Vec<String>, Vec<PathBuf>) = files.into_iter().map(|code| (code.name, code.place)).unzip();
    let looks = cache.looks(&places)?;
    Ok(names.into_iter().zip(looks).map(|(name, look)| (name, look.digest.to_string().into())).collect())
}

/// What was found in a folder of code when it was in a state.
#[derive(Serialize, Deserialize)]
struct Known {
    state: Digest,
    digests: Map<String, Value>,
}

/// The digests of a folder's files; without looking at each where nothing in it was touched.
fn folder_digests(folder: &Code, cache: &Cache) -> Result<Map<String, Value>> {
    let state = || cache.tree_state(&folder.place).ok().flatten();
    let fact = format!("code/1/{}/{}", folder.name, folder.place.display());
    let before = state();
    if let (Some(before), Some(bytes)) = (before, cache.recall(fact.as_bytes())?)
        && let Ok(known) = serde_json::from_slice::<Known>(&bytes)
        && known.state == before
    {
        return Ok(known.digests);
    }
    let mut files = BTreeMap::new();
    below(&folder.place, &folder.name, &mut files)?;
    let files = files.into_iter().map(|(name, place)| Code { name, place }).collect();
    let digests = digests(files, cache)?;
    if let Some(state) = before.filter(|before| state() == Some(*before))
        && let Ok(bytes) = serde_json::to_vec(&Known { state, digests: digests.clone() })
    {
        // A table that cannot be written only makes the next look slower.
        let _ = cache.remember(fact.as_bytes(), &bytes);
    }
    Ok(digests)
}

/// The files that belong to a step, and the folders.
fn code(
    params: &Map<String, Value>,
    program: &Path,
    folder: &Path,
    path: &OsStr,
    cache: &Cache,
) -> Result<(Vec<Code>, Vec<Code>)> {
    let texts = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
    };
    let outputs: BTreeSet<&str> = params
        .get("outputs")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values)
        .filter_map(|output| output.get("path").and_then(Value::as_str))
        .collect();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut folders = Vec::new();
    let run = texts(params.get("run"));
    // What is filled in later names no file yet.
    let filled = |argument: &str| argument.starts_with("{inputs.") || argument.starts_with("{outputs.");
    for argument in run.iter().skip(1).filter(|argument| !filled(argument)) {
        let value = argument.split_once('=').filter(|_| argument.starts_with('-')).map(|(_, value)| value);
        for name in [Some(argument.as_str()), value].into_iter().flatten() {
            let place = folder.join(name);
            let known = Path::new(name).is_absolute() || inside(name).is_some_and(|name| !outputs.contains(name));
            if known && cache.is_file(&place) {
                found.insert(name.into(), place);
            }
        }
    }
    for name in texts(params.get("code")) {
        let place = folder.join(&name);
        if place.is_dir() {
            folders.push(Code { name, place });
        } else if cache.is_file(&place) {
            found.insert(name, place);
        } else {
            bail!("`{name}`, named in `code`, is not beside the file ({})", place.display());
        }
    }
    observe(&run[0], folder, path, cache);
    for (name, place) in interpreters(program, path) {
        observe(&name, Path::new("/"), path, cache);
        found.insert(format!("#!{name}"), place);
    }
    Ok((found.into_iter().map(|(name, place)| Code { name, place }).collect(), folders))
}

/// A relative path that stays below its folder, without a leading `./`.
fn inside(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let plain = !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    plain.then_some(name)
}

/// Every file below a folder of code, links followed, hidden ones and compiled leftovers aside.
fn below(top: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let mut open = vec![(top.to_path_buf(), name.trim_end_matches('/').to_string(), Vec::new())];
    while let Some((folder, path, mut above)) = open.pop() {
        let unreadable = || format!("{} cannot be read", folder.display());
        let of = std::fs::metadata(&folder).with_context(unreadable)?;
        if above.contains(&(of.dev(), of.ino())) {
            // A link to a folder above itself holds nothing that is not found anyway.
            continue;
        }
        above.push((of.dev(), of.ino()));
        let entries = std::fs::read_dir(&folder).with_context(unreadable)?;
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                bail!("{} has a name that is not UTF-8; rename it", entry.path().display());
            };
            if name.starts_with('.') || name == "__pycache__" {
                continue;
            }
            let path = format!("{path}/{name}");
            if entry.path().is_dir() {
                open.push((entry.path(), path, above.clone()));
            } else if entry.path().is_file() {
                found.insert(path, entry.path());
            }
        }
    }
    Ok(())
}

/// The first bytes of a file; none where it cannot be read.
fn beginning(path: &Path) -> Vec<u8> {
    /// Device, inode, size, and both times.
    type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));
    // A thousand steps ask for the same few programs. A file changed this recently can change again unseen.
    const SETTLED: i64 = 2;
    static READ: Mutex<BTreeMap<PathBuf, (Stamp, Vec<u8>)>> = Mutex::new(BTreeMap::new());
    let Ok(m) = std::fs::metadata(path) else { return Vec::new() };
    let stamp = (m.dev(), m.ino(), m.size(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
    let mut known = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, start)) = known.get(path).filter(|(of, _)| *of == stamp) {
        return start.clone();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let mut start = Vec::new();
    if std::fs::File::open(path).and_then(|file| file.take(256).read_to_end(&mut start)).is_err() {
        return Vec::new();
    }
    if m.mtime().max(m.ctime()) + SETTLED < now {
        known.insert(path.into(), (stamp, start.clone()));
    }
    start
}

/// The programs that a script's first line names: the interpreter, and what `env` would start.
fn interpreters(script: &Path, path: &OsStr) -> Vec<(String, PathBuf)> {
    let start = beginning(script);
    if !start.starts_with(b"#!") {
        return Vec::new();
    }
    let line = String::from_utf8_lossy(&start[2..]).lines().next().unwrap_or_default().to_string();
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return Vec::new() };
    let mut found = vec![(first.to_string(), PathBuf::from(first))];
    if first.ends_with("/env")
        && let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('='))
        && let Some(place) = program(name, Path::new("/"), path)
    {
        found.push((name.to_string(), place));
    }
    found.retain(|(_, place)| place.is_file());
    found
}

/// Whether a step's program is run from a staged copy: scripts beside the `.exp` file, but no machine code, which may
/// need its neighbours.
fn staged_program(name: &str, place: &Path) -> bool {
    name.contains('/') && inside(name).is_some() && beginning(place).starts_with(b"#!")
}

/// What the step reads where the user can change it, with the digests of the key: the program, interpreters, and
/// arguments with absolute paths. What is staged as a copy is safe from changes.
pub fn watched(params: &Value, folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let path = search_path(params.get("env"));
    if let (Some(digest), Some(name)) =
        (params["program_digest"].as_str(), params.pointer("/run/0").and_then(Value::as_str))
        && let Some(program) = program(name, folder, &path)
    {
        if !staged_program(name, &program) {
            files.push((program.clone(), digest.to_string()));
        }
        let interpreters: BTreeMap<String, PathBuf> = interpreters(&program, &path).into_iter().collect();
        for (name, digest) in params["code_digests"].as_object().into_iter().flatten() {
            let place = match name.strip_prefix("#!") {
                Some(name) => interpreters.get(name).cloned(),
                // What is too large for a copy is staged as a link.
                None => Some(folder.join(name)).filter(|path| Path::new(name).is_absolute() || !is_copied(path)),
            };
            files.extend(place.zip(digest.as_str().map(String::from)));
        }
    }
    files
}

/// Whether a file of the user's is staged as a copy.
fn is_copied(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= COPIED_UP_TO)
}

/// Puts a file of the user's where the step finds it, and makes sure that it is the one the key was made from.
fn stage(place: &Path, target: &Path, digest: &str) -> Result<(), String> {
    let said = |what: &str, error: std::io::Error| format!("{} cannot be {what}: {error}", place.display());
    if let Some(parent) = target.parent().filter(|parent| !parent.is_dir()) {
        std::fs::create_dir_all(parent).map_err(|error| said("staged", error))?;
    }
    let changed = || format!("{} changed between planning and the start of the step; run it again", place.display());
    let metadata = std::fs::metadata(place).map_err(|error| said("read", error))?;
    if metadata.is_file() && metadata.len() <= READ_UP_TO {
        // What is written is what was hashed.
        let bytes = std::fs::read(place).map_err(|error| said("read", error))?;
        if Digest::of_bytes(&bytes).to_string() != digest {
            return Err(changed());
        }
        let mode = metadata.permissions().mode() & 0o555;
        return std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(target)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(|error| said("staged", error));
    }
    if metadata.len() <= COPIED_UP_TO {
        std::fs::copy(place, target).map_err(|error| said("staged", error))?;
        let mode = metadata.permissions().mode() & 0o555;
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(mode)).map_err(|e| said("staged", e))?;
    } else {
        std::os::unix::fs::symlink(place, target).map_err(|error| said("staged", error))?;
    }
    let found = Digest::of_file(target).map_err(|error| said("read", error))?;
    if found.to_string() != digest {
        return Err(changed());
    }
    Ok(())
}

/// Runs the program to its end in `dir`, which is made. `log` receives its stdout and stderr. `cancel` asks it
/// to end, `hurry` ends it. `limit` is the time it may take whatever the step
/// itself says; `gpu` what `CUDA_VISIBLE_DEVICES` is to say.
pub fn run(
    job: &Job,
    dir: &Path,
    folder: &Path,
    log: &Path,
    [cancel, hurry]: [&AtomicBool; 2],
    limit: Option<Duration>,
    gpu: Option<&str>,
) -> Result<Outcome, Ended> {
    let failed = |message: String| Ended::Failed(message);
    let params: Params = serde_json::from_value(job.params.clone()).map_err(|e| failed(e.to_string()))?;
    let io = |what: &str, path: &Path, error: std::io::Error| {
        failed(format!("{} cannot be {what}: {error}", path.display()))
    };
    let staged = dir.join("inputs");
    std::fs::create_dir(dir).map_err(|e| io("created", dir, e))?;
    if !params.inputs.is_empty() || !params.files.is_empty() {
        std::fs::create_dir(&staged).map_err(|e| io("created", &staged, e))?;
    }
    for (name, input) in &params.inputs {
        let Some(files) = job.inputs.get(input.digest()) else {
            return Err(failed(format!("the input `{name}` was not staged")));
        };
        let target = staged.join(name);
        std::os::unix::fs::symlink(&files.file, &target).map_err(|e| io("staged", &target, e))?;
        if let Some(data) = &files.data {
            let target = staged.join(format!("{name}.data"));
            std::os::unix::fs::symlink(&data.path, &target).map_err(|e| io("staged", &target, e))?;
        }
    }
    for (name, file) in &params.files {
        let digest = &file.artifact.digest;
        let Some(files) = job.inputs.get(digest) else {
            return Err(failed(format!("the input `{name}` was not staged")));
        };
        stage(&files.file, &staged.join(name), digest).map_err(failed)?;
    }
    for (name, digest) in &params.code_digests {
        if let Some(name) = inside(name).filter(|name| !name.starts_with("#!")) {
            stage(&folder.join(name), &dir.join(name), digest).map_err(failed)?;
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
        if let Some(parent) = dir.join(&output.path).parent().filter(|parent| !parent.is_dir()) {
            std::fs::create_dir_all(parent).map_err(|e| io("created", parent, e))?;
        }
    }
    let Some(mut program) = program(&params.run[0], folder, &search_path(job.params.get("env"))) else {
        return Err(failed(format!("the program `{}` is neither on PATH nor beside the file", params.run[0])));
    };
    if staged_program(&params.run[0], &program) {
        let target = dir.join(inside(&params.run[0]).unwrap_or(&params.run[0]));
        stage(&program, &target, &params.program_digest).map_err(failed)?;
        program = target;
    }
    let out = std::fs::File::create(log).map_err(|e| io("written", log, e))?;
    let arguments: Vec<String> = params.run[1..].iter().map(|argument| fill(argument)).collect::<Result<_, _>>()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut environment: BTreeMap<OsString, OsString> =
        BTreeMap::from([("PATH".into(), path), ("HOME".into(), dir.into()), ("LANG".into(), "C.UTF-8".into())]);
    environment.extend(gpu.map(|gpu| ("CUDA_VISIBLE_DEVICES".into(), gpu.into())));
    for (name, value) in &params.env {
        environment.insert(name.into(), fill(value)?.into());
    }
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let started =
        Start { program: &program, arguments: &arguments, environment: &environment, folder: dir, output: &out };
    let mut child = started.spawn().map_err(|e| io("started", &program, e))?;
    let start = Instant::now();
    let mut stopping: Option<(Instant, Ended)> = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failed(e.to_string()))? {
            break status;
        }
        let limits = params.timeout.map(|timeout| timeout.0).into_iter().chain(limit.map(|limit| limit.as_secs_f64()));
        let timeout = limits.reduce(f64::min).filter(|&most| start.elapsed().as_secs_f64() > most);
        match &stopping {
            None => {
                let why = match timeout {
                    Some(timeout) => {
                        Some(Ended::Failed(format!("`{}` was stopped after its timeout of {timeout} s", params.run[0])))
                    }
                    None if cancel.load(Ordering::Relaxed) => Some(Ended::Cancelled),
                    None => None,
                };
                if let Some(why) = why {
                    child.signal(libc::SIGTERM);
                    stopping = Some((Instant::now(), why));
                }
            }
            Some((since, _)) if since.elapsed() > Duration::from_secs(5) || hurry.load(Ordering::Relaxed) => {
                child.signal(libc::SIGKILL);
            }
            _ => {}
        }
        wait(&child, Duration::from_millis(20));
    };
    // Whatever it started and left behind ends with it.
    child.signal(libc::SIGKILL);
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
    collect(job, &params, dir)
}

/// Sleeps until the child ends, or for `most`.
fn wait(child: &Running, most: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    // A child that was not waited for keeps its number, so this is the right one.
    let pidfd = Pid::from_raw(child.id()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return std::thread::sleep(most.min(Duration::from_millis(2))) };
    let timeout = Timespec::try_from(most).ok();
    // Interrupted or refused: the caller looks and comes back.
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref());
}

fn collect(job: &Job, params: &Params, dir: &Path) -> Result<Outcome, Ended> {
    let failed = |message: String| Ended::Failed(message);
    let mut outcome = Outcome::default();
    let top = dir.canonicalize().map_err(|e| failed(format!("{}: {e}", dir.display())))?;
    for (name, output) in &params.outputs {
        let path = dir.join(&output.path);
        // A link on the way would lead to files of somebody else, which are not to be moved.
        if path.parent().and_then(|parent| parent.canonicalize().ok()).is_some_and(|parent| !parent.starts_with(&top)) {
            return Err(failed(format!(
                "the output `{name}` ({}) lies behind a link that leaves the step's folder; outputs are plain files or folders",
                output.path
            )));
        }
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
        // Nothing but a plain file: reading anything else can wait for ever.
        let plain = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let text = if plain { std::fs::read(&path) } else { Err(std::io::ErrorKind::NotFound.into()) };
        let text =
            text.map_err(|_| failed(format!("`{}` declares metrics and did not write metrics.json", params.run[0])))?;
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

/// Packs a folder as a tar whose bytes depend on names and contents alone. Links to files are packed as the files.
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
        let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
        let odd = |why: &str| std::io::Error::other(format!("`{}` in it {why}", name.display()));
        let plain = std::fs::metadata(&path).map_err(|error| odd(&error.to_string()))?;
        // Reading a pipe or a device can wait for ever, or never end.
        if !plain.is_file() {
            return Err(odd("is no plain file"));
        }
        let mut file = std::fs::File::open(&path).map_err(|error| odd(&error.to_string()))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(plain.len());
        header.set_mode(0o644);
        let mut counted = Counted { file: (&mut file).take(plain.len()), bytes: 0 };
        tar.append_data(&mut header, &name, &mut counted)?;
        if counted.bytes != plain.len() {
            return Err(odd("got shorter while it was read"));
        }
    }
    tar.into_inner()?.sync_all()
}

/// Counts what is read.
struct Counted<R> {
    file: R,
    bytes: u64,
}

impl<R: std::io::Read> std::io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
