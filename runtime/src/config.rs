//! Configuration: command line over environment over the project's `harness.toml` over the user's.

use anyhow::{Context as _, Result, bail};
use harness_executors::{Settings, Where};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Steps side by side on one machine, at most: each has a thread, and its program.
const MOST_JOBS: usize = 4096;
/// Jobs of a run in a cluster's queue, at most.
const MOST_QUEUED: usize = 1_000_000;

/// What a `harness.toml` may say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// Cache folder, relative to the file.
    cache: Option<PathBuf>,
    /// Threads of each worker. Results on the CPU depend on it, so it never comes from `-j`.
    threads: Option<u32>,
    /// Steps side by side.
    jobs: Option<usize>,
    /// `auto`, `cpu`, `cuda`, `cuda:0,1`.
    device: Option<String>,
    /// The worker binary.
    worker: Option<PathBuf>,
    /// Where each dataset root lies.
    roots: BTreeMap<String, PathBuf>,
    /// Memory that running steps may reserve together, such as `"16GiB"`.
    memory: Option<String>,
    /// How long to wait for another process that computes the same, such as `"10min"`; `"0s"` is not at all.
    wait: Option<String>,
    /// What a step may take.
    limits: LimitsFile,
    /// `local` or `slurm`.
    executor: Option<Where>,
    /// How the cluster is used.
    slurm: SlurmFile,
    /// Where results are shared between machines.
    remote: Option<RemoteFile>,
}

/// `remote` of a `harness.toml`: a place, or a place with what is done there.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "`remote` is a place, such as \"s3://bucket/prefix\", or { place = …, send = false }")]
enum RemoteFile {
    Place(String),
    Both(RemoteTable),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteTable {
    place: String,
    #[serde(default = "yes")]
    send: bool,
}

fn yes() -> bool {
    true
}

/// Where results are shared between machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// A folder, or the address of an object store.
    pub place: String,
    /// Whether results that are computed here go there; they come from there in any case.
    pub send: bool,
}

impl From<RemoteFile> for Shared {
    fn from(said: RemoteFile) -> Self {
        match said {
            RemoteFile::Place(place) => Self { place, send: true },
            RemoteFile::Both(RemoteTable { place, send }) => Self { place, send },
        }
    }
}

/// `[slurm]` of a `harness.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SlurmFile {
    partition: Option<String>,
    gpus: Option<u32>,
    cpus: Option<u32>,
    options: Option<Vec<String>>,
    jobs: Option<usize>,
    array: Option<usize>,
    grace: Option<String>,
    worker: Option<PathBuf>,
}

/// How the cluster is used. What a step says in `resources` goes before.
#[derive(Clone, Debug, Default)]
pub struct Slurm {
    /// Partition.
    pub partition: Option<String>,
    /// GPUs of a step that a worker runs.
    pub gpus: Option<u32>,
    /// Cores of a step.
    pub cpus: Option<u32>,
    /// Further options of `sbatch`.
    pub options: Vec<String>,
    /// Jobs in the queue at a time.
    pub jobs: usize,
    /// The worker binary on the nodes, where it lies elsewhere than here.
    pub worker: Option<PathBuf>,
    array: usize,
    grace: Duration,
}

impl Slurm {
    fn of(near: SlurmFile, far: SlurmFile) -> Result<Self> {
        let settings = Settings::default();
        let grace = near.grace.or(far.grace).map(|text| duration(&text)).transpose().context("grace")?;
        let slurm = Self {
            partition: near.partition.or(far.partition),
            gpus: near.gpus.or(far.gpus),
            cpus: near.cpus.or(far.cpus),
            options: near.options.or(far.options).unwrap_or_default(),
            jobs: near.jobs.or(far.jobs).unwrap_or(1000),
            worker: near.worker.or(far.worker),
            array: near.array.or(far.array).unwrap_or(settings.array),
            grace: grace.unwrap_or(settings.grace),
        };
        if slurm.jobs == 0 || slurm.array == 0 {
            bail!("jobs and array start at 1");
        }
        if slurm.jobs > MOST_QUEUED {
            bail!("jobs = {}: {MOST_QUEUED} in a cluster's queue are the most", slurm.jobs);
        }
        Ok(slurm)
    }

    /// How jobs are followed.
    pub fn settings(&self) -> Settings {
        Settings { array: self.array, grace: self.grace, ..Settings::default() }
    }
}

/// `local` or `slurm`.
pub fn executor(text: &str) -> Result<Where, String> {
    match text {
        "local" => Ok(Where::Local),
        "slurm" => Ok(Where::Slurm),
        other => Err(format!("there is no executor `{other}`; there are `local` and `slurm`")),
    }
}

/// `[limits]` of a `harness.toml`, and `[limits.KIND]` below it.
#[derive(Clone, Debug, Default, Deserialize)]
struct LimitsFile {
    #[serde(flatten)]
    every: LimitFile,
    #[serde(flatten)]
    kinds: BTreeMap<String, LimitFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LimitFile {
    /// Longest time, such as `"2h"`.
    time: Option<String>,
    /// How often a step that failed is tried again.
    retries: Option<u32>,
    /// Memory that it reserves, such as `"6GiB"`.
    memory: Option<String>,
}

/// What a step may take. Never part of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Longest time of one attempt.
    pub time: Option<Duration>,
    /// How often a step that failed is tried again.
    pub retries: u32,
    /// Memory that it reserves while it runs, in bytes.
    pub memory: u64,
}

/// The settled configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Cache folder.
    pub cache: PathBuf,
    /// Threads of each worker.
    pub threads: u32,
    /// Steps side by side; none means as many as fit.
    pub jobs: Option<usize>,
    /// `auto`, `cpu`, `cuda`, `cuda:0,1`.
    pub device: String,
    /// The worker binary, if it was named.
    pub worker: Option<PathBuf>,
    /// Where each dataset root lies.
    pub roots: BTreeMap<String, PathBuf>,
    /// Memory that running steps may reserve together, in bytes.
    pub memory: Option<u64>,
    /// How long to wait for another process that computes the same; none means as long as it takes.
    pub wait: Option<Duration>,
    limits: Limits,
    /// Where steps run, if that is said for all.
    pub executor: Option<Where>,
    /// How the cluster is used.
    pub slurm: Slurm,
    /// Where results are shared between machines.
    pub shared: Option<Shared>,
    /// The project's `harness.toml`, or where one would be looked for first.
    pub project_file: PathBuf,
    /// The folder of the `.exp` file: plain paths are relative to it.
    pub folder: PathBuf,
}

/// Limits of every kind, and of those that have their own.
#[derive(Clone, Debug, Default)]
struct Limits {
    every: Limit,
    kinds: BTreeMap<String, Limit>,
}

impl Limits {
    /// The nearer file wins, field by field; what a kind does not say, `[limits]` says.
    fn of(near: &LimitsFile, far: &LimitsFile) -> Result<Limits> {
        let settle = |files: [Option<&LimitFile>; 4]| -> Result<Limit> {
            let first = |get: fn(&LimitFile) -> Option<String>| files.iter().flatten().find_map(|file| get(file));
            Ok(Limit {
                time: first(|file| file.time.clone()).map(|text| duration(&text)).transpose()?,
                retries: files.iter().flatten().find_map(|file| file.retries).unwrap_or(0),
                memory: first(|file| file.memory.clone()).map(|text| bytes(&text)).transpose()?.unwrap_or(0),
            })
        };
        let mut kinds = BTreeMap::new();
        for name in near.kinds.keys().chain(far.kinds.keys()) {
            if harness_protocol::steps::kind(name).is_none() {
                bail!("[limits.{name}]: there is no kind of step `{name}`; `harness describe` lists them");
            }
            let files = [near.kinds.get(name), far.kinds.get(name), Some(&near.every), Some(&far.every)];
            kinds.insert(name.clone(), settle(files).with_context(|| format!("[limits.{name}]"))?);
        }
        let every = settle([Some(&near.every), Some(&far.every), None, None]).context("[limits]")?;
        Ok(Limits { every, kinds })
    }
}

/// A number and its unit.
fn measure(text: &str, units: &[(&str, f64)], example: &str) -> Result<f64> {
    let text = text.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = (text[..at].parse::<f64>(), text[at..].trim());
    match (number, units.iter().find(|(name, _)| *name == unit)) {
        (Ok(number), Some((_, factor))) => Ok(number * factor),
        _ => {
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            bail!("`{text}` is not of the form {example}; units are {}", names.join(", "))
        }
    }
}

/// `90s`, `30min`, `2h`, `1d`.
pub fn duration(text: &str) -> Result<Duration> {
    let seconds = measure(text, &[("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)], "`2h`")?;
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// `500MB`, `16GiB`.
pub fn bytes(text: &str) -> Result<u64> {
    let units = [("B", 1.0), ("MB", 1e6), ("GB", 1e9), ("MiB", 1024.0 * 1024.0), ("GiB", 1024.0 * 1024.0 * 1024.0)];
    Ok(measure(text, &units, "`16GiB`")? as u64)
}

/// What the command line says over all of it.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--cache`
    pub cache: Option<PathBuf>,
    /// `-j`
    pub jobs: Option<usize>,
    /// `--device`
    pub device: Option<String>,
    /// `--executor`
    pub executor: Option<Where>,
    /// `--offline`
    pub offline: bool,
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut file: File = toml::from_str(&text).with_context(|| format!("{} is not a harness.toml", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let place = |path: &mut PathBuf| {
        let text = path.to_string_lossy();
        *path = match (text.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => base.join(&*path),
        };
    };
    file.roots.values_mut().for_each(place);
    file.cache.iter_mut().for_each(place);
    file.worker.iter_mut().for_each(place);
    file.slurm.worker.iter_mut().for_each(place);
    if let Some(RemoteFile::Place(remote) | RemoteFile::Both(RemoteTable { place: remote, .. })) = &mut file.remote
        && !remote.contains("://")
    {
        let mut path = PathBuf::from(&*remote);
        place(&mut path);
        *remote = path.to_string_lossy().into_owned();
    }
    Ok(file)
}

impl Config {
    /// Finds and merges the configuration for experiments in `folder`.
    ///
    /// # Errors
    /// A `harness.toml` that cannot be read or holds what it must not, an environment variable that is no number.
    pub fn find(folder: &Path, flags: &Flags) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let project = folder.ancestors().map(|dir| dir.join("harness.toml")).find(|path| path.is_file());
        let user = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
            .map(|dir| dir.join("harness/harness.toml"))
            .filter(|path| path.is_file());
        let near = project.as_deref().map(read).transpose()?.unwrap_or_default();
        let far = user.as_deref().map(read).transpose()?.unwrap_or_default();
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| -> Result<Option<u32>> {
            env(name).map(|value| value.parse().with_context(|| format!("{name}={value} is no number"))).transpose()
        };
        let beside = project.as_deref().and_then(Path::parent).unwrap_or(&folder).join(".harness");
        let threads = number("HARNESS_THREADS")?.or(near.threads).or(far.threads).unwrap_or(1);
        let jobs = flags.jobs.or(number("HARNESS_JOBS")?.map(|n| n as usize)).or(near.jobs).or(far.jobs);
        if threads == 0 || jobs == Some(0) {
            bail!("threads and jobs start at 1");
        }
        if let Some(jobs) = jobs.filter(|jobs| *jobs > MOST_JOBS) {
            bail!(
                "jobs = {jobs}: a machine runs {MOST_JOBS} steps side by side at most; a cluster runs more (`--executor slurm`)"
            );
        }
        let limits = Limits::of(&near.limits, &far.limits)?;
        let wait = env("HARNESS_WAIT").or(near.wait).or(far.wait).map(|text| duration(&text)).transpose();
        let wait = wait.context("wait")?;
        let memory = near.memory.or(far.memory).map(|text| bytes(&text)).transpose().context("memory")?;
        let said = env("HARNESS_EXECUTOR").map(|text| executor(&text)).transpose().map_err(anyhow::Error::msg)?;
        let shared = match env("HARNESS_REMOTE") {
            Some(off) if off == "off" => None,
            Some(place) => Some(Shared { place, send: true }),
            None => near.remote.or(far.remote).map(Shared::from),
        };
        let mut roots = far.roots;
        roots.extend(near.roots);
        Ok(Self {
            cache: flags
                .cache
                .clone()
                .or(env("HARNESS_CACHE").map(PathBuf::from))
                .or(near.cache)
                .or(far.cache)
                .map_or(Ok(beside), std::path::absolute)?,
            threads,
            jobs,
            device: flags
                .device
                .clone()
                .or(env("HARNESS_DEVICE"))
                .or(near.device)
                .or(far.device)
                .unwrap_or("auto".into()),
            worker: env("HARNESS_WORKER").map(PathBuf::from).or(near.worker).or(far.worker),
            roots,
            memory,
            wait,
            limits,
            executor: flags.executor.or(said).or(near.executor).or(far.executor),
            slurm: Slurm::of(near.slurm, far.slurm).context("[slurm]")?,
            shared: shared.filter(|_| !flags.offline),
            project_file: project.unwrap_or(folder.join("harness.toml")),
            folder,
        })
    }

    /// What a step of a kind may take.
    pub fn limit(&self, kind: &str) -> Limit {
        self.limits.kinds.get(kind).copied().unwrap_or(self.limits.every)
    }

    /// The place on this machine of `@root/path`, or of a plain path beside the `.exp` file.
    ///
    /// # Errors
    /// A root that no `harness.toml` maps.
    pub fn place(&self, root: Option<&str>, path: &str) -> Result<PathBuf> {
        let Some(root) = root else { return Ok(self.folder.join(path)) };
        let Some(base) = self.roots.get(root) else {
            let known: Vec<&str> = self.roots.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "none is mapped yet".into() } else { format!("mapped are {}", known.join(", ")) };
            bail!(
                "the dataset root `@{root}` is not mapped on this machine ({known}); write `{root} = \"/path/to/it\"` under `[roots]` in {}",
                self.project_file.display()
            );
        };
        Ok(if path.is_empty() { base.clone() } else { base.join(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_settled_field_by_field() {
        let file = |text: &str| toml::from_str::<File>(text).unwrap().limits;
        let near = file("[limits]\ntime = \"2h\"\n[limits.pretrain]\nretries = 2\nmemory = \"6GiB\"\n");
        let far = file("[limits]\nretries = 1\n[limits.pretrain]\ntime = \"1d\"\n");
        let limits = Limits::of(&near, &far).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(limits.every, Limit { time: Some(2 * hour), retries: 1, memory: 0 });
        assert_eq!(limits.kinds["pretrain"], Limit { time: Some(24 * hour), retries: 2, memory: 6 << 30 });
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        assert!(toml::from_str::<File>("[limits]\ntiem = \"2h\"\n").is_err());
        let wrong = |text: &str| Limits::of(&toml::from_str::<File>(text).unwrap().limits, &LimitsFile::default());
        assert!(wrong("[limits.pretrian]\nretries = 1\n").unwrap_err().to_string().contains("`pretrian`"));
        assert!(format!("{:#}", wrong("[limits]\ntime = \"2 weeks\"\n").unwrap_err()).contains("`2 weeks`"));
        assert_eq!(bytes("1.5 GB").unwrap(), 1_500_000_000);
    }
}
