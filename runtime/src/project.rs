//! A file with its program, its configuration and its cache: what most subcommands look at. Nothing is run.

use crate::config::{Config, Flags};
use crate::run::{Request, State};
use crate::{catalog, run as engine, start, text};
use anyhow::{Context as _, Result};
use harness_cache::Cache;
use harness_dsl::{Catalog, Program};
use std::path::{Path, PathBuf};

/// A checked file with what belongs to it.
pub struct Project {
    /// The kinds.
    pub catalog: Catalog,
    /// The file.
    pub file: PathBuf,
    /// What it says, without its program.
    pub text: text::Text,
    /// What it means.
    pub program: Program,
    /// The configuration.
    pub config: Config,
    /// The cache.
    pub cache: Cache,
}

/// The folder a file's configuration is looked for in.
pub fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The cache of the current folder, or of `file`'s.
///
/// # Errors
/// A configuration that cannot be read, a cache folder that cannot be used.
pub fn cache(file: Option<&Path>, named: Option<&Path>) -> Result<(Cache, Config)> {
    let flags = Flags { cache: named.map(Path::to_path_buf), ..Flags::default() };
    let config = Config::find(file.map_or(Path::new("."), folder), &flags)?;
    let cache = Cache::open(&config.cache).with_context(|| format!("the cache {}", config.cache.display()))?;
    Ok((cache, config))
}

impl Project {
    /// Reads and checks `file`; none when it has mistakes, which are then shown.
    ///
    /// # Errors
    /// The file or the configuration cannot be read, the cache cannot be used.
    pub fn open(file: &Path, params: &[(String, String)], named: Option<&Path>) -> Result<Option<Self>> {
        let catalog = catalog::catalog();
        let mut text = text::read(file, &catalog, &params.to_vec())?;
        if !start::report(&text, false) {
            return Ok(None);
        }
        let Some(program) = text.checked.program.take() else { return Ok(None) };
        let (cache, config) = cache(Some(file), named)?;
        Ok(Some(Self { catalog, file: file.to_path_buf(), text, program, config, cache }))
    }

    /// How the wanted steps stand, without computing any: datasets are looked at, keys made, results looked up.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn look(&self, wanted: &[bool]) -> Result<Vec<State>> {
        engine::run(&self.request(wanted), &mut |_| ())
    }

    /// What is asked when nothing is to be computed.
    pub fn request(&self, wanted: &[bool]) -> Request<'_> {
        Request {
            program: &self.program,
            catalog: &self.catalog,
            config: &self.config,
            cache: &self.cache,
            results: None,
            shared: None,
            wanted: wanted.to_vec(),
            forced: vec![false; self.program.steps.len()],
            keep_going: true,
            dry_run: true,
            slots: vec!["cpu".into()],
            worker: None,
            missing_worker: None,
            logs: self.cache.dir().join("runs"),
            cancel: Default::default(),
            hurry: Default::default(),
            reach: None,
        }
    }

    /// What would run the file, for messages.
    pub fn run_command(&self) -> String {
        format!("harness run {}", self.file.display())
    }
}
