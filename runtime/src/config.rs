//! Configuration: command line over environment over the project's `harness.toml` over the user's.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// The project's `harness.toml`, or where one would be looked for first.
    pub project_file: PathBuf,
    /// The folder of the `.exp` file: plain paths are relative to it.
    pub folder: PathBuf,
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
            project_file: project.unwrap_or(folder.join("harness.toml")),
            folder,
        })
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
