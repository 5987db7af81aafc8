//! One cache folder: opening it, and what the other modules share.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use crate::Digest;
use crate::error::{Context, Error};
use crate::files;
use crate::index::{Index, Opened, Table};
use crate::lease::Released;
use crate::recent::Recent;
use crate::sync::Unsynced;
use crate::trace::Trace;
use crate::using::Used;

/// What VERSION says. Raised when a program of before could misread the folder.
const VERSION: &str = "harness-cache 2";

const FOLDERS: [&str; 6] = ["blobs", "records", "leases", "work", "tmp", "quarantine"];

/// A cache folder. Cheap to clone; clones share everything. Any number of processes may use one folder at once.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// The index's tables in memory.
type Memory = HashMap<(Table, Vec<u8>), Vec<u8>>;

struct Inner {
    dir: PathBuf,
    /// Holds a shared lock for as long as the folder is in use, so that collection can know.
    presence: File,
    opened: SystemTime,
    /// Opened at its first use: commands that ask nothing do not pay for it, nor take it from others.
    index: OnceLock<Option<Index>>,
    /// Stands in for the index where that is not to be had; lives as long as this process.
    memory: Mutex<Memory>,
    /// Answers of the last run, before the index is asked.
    recent: Recent,
    trace: Trace,
    notices: Mutex<Vec<String>>,
    unsynced: Unsynced,
    used: Used,
    released: Arc<Released>,
}

impl Cache {
    /// Opens the cache at `dir`, creating it where it is missing. Takes milliseconds whatever the cache holds.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::NotWritable`], [`Error::DiskFull`], [`Error::Version`].
    pub fn open(dir: &Path) -> Result<Cache, Error> {
        if let Err(error) = fs::create_dir_all(dir) {
            let blocking = dir.ancestors().find(|part| part.exists() && !part.is_dir());
            return Err(match blocking {
                Some(part) => Error::NotADirectory { path: part.to_owned() },
                None => Error::io("create the cache folder", dir, error),
            });
        }
        let dir = fs::canonicalize(dir).at("read the cache folder", dir)?;
        let version = dir.join("VERSION");
        check_version(&dir, &version)?;
        for folder in FOLDERS {
            let folder = dir.join(folder);
            match fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(Error::io("create the folder", &folder, error)),
            }
        }
        // Modes do not tell whether writing works (they bind no superuser, and a mount can be read-only): try.
        let tmp = dir.join("tmp");
        let mut probe = tempfile::NamedTempFile::new_in(&tmp).at("create a file in", &tmp)?;
        if !version.exists() {
            let place = probe.path().to_owned();
            writeln!(probe, "{VERSION}")
                .and_then(|()| probe.as_file().set_permissions(fs::Permissions::from_mode(0o644)))
                .and_then(|()| probe.as_file().sync_all())
                .at("write", &place)?;
            match probe.persist_noclobber(&version) {
                Ok(_) => files::sync_folder(&dir)?,
                // Somebody else was opening it too.
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &version, error.error)),
            }
            check_version(&dir, &version)?;
        }
        let presence = File::open(&version).at("read", &version)?;
        // Waits only while somebody collects garbage.
        presence.lock_shared().at("lock", &version)?;
        let inner = Inner {
            dir,
            presence,
            opened: SystemTime::now(),
            index: OnceLock::new(),
            memory: Mutex::default(),
            recent: Recent::default(),
            trace: Trace::default(),
            notices: Mutex::default(),
            unsynced: Unsynced::default(),
            used: Used::default(),
            released: Arc::default(),
        };
        Ok(Cache { inner: Arc::new(inner) })
    }

    pub(crate) fn released(&self) -> Arc<Released> {
        self.inner.released.clone()
    }

    /// The cache folder, as an absolute path.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Keeps a small derived fact. Best effort: a fact may be forgotten at any time, so it must be derivable again.
    /// Whatever decides the fact belongs in `key`.
    ///
    /// # Errors
    /// None at present; the index never refuses, it forgets.
    pub fn remember(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.put(Table::Facts, key, value);
        Ok(())
    }

    /// A fact kept by [`Cache::remember`], if it is still known.
    ///
    /// # Errors
    /// None at present.
    pub fn recall(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.get(Table::Facts, key))
    }

    /// The folder where an action of this key leaves what it needs to resume; created where missing. For the holder
    /// of the key's lease only.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn work_dir(&self, key: &Digest) -> Result<PathBuf, Error> {
        let path = self.work_place(key);
        fs::create_dir_all(&path).at("create the folder", &path)?;
        Ok(path)
    }

    /// Where [`Cache::work_dir`] is, or would be.
    pub fn work_place(&self, key: &Digest) -> PathBuf {
        self.dir().join("work").join(key.to_string())
    }

    /// Removes the folder of [`Cache::work_dir`] with all it holds, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_work(&self, key: &Digest) -> Result<(), Error> {
        files::remove(&self.work_place(key))
    }

    /// A fresh folder on the cache's file system, removed when dropped.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn temp_dir(&self) -> Result<tempfile::TempDir, Error> {
        let tmp = self.dir().join("tmp");
        tempfile::TempDir::new_in(&tmp).at("create a folder in", &tmp)
    }

    /// What was found wrong since the last call, in full sentences for whoever shows them.
    pub fn notices(&self) -> Vec<String> {
        if let Some(Some(index)) = self.inner.index.get()
            && index.is_broken()
        {
            self.note_once("the index failed; going on without it, and it will be built anew at the next start".into());
        }
        std::mem::take(&mut lock(&self.inner.notices))
    }

    /// Writes the index to disk. Only speed depends on it; it also happens twice a second, and at the end of the
    /// last clone. For results see [`Cache::commit`].
    pub fn flush(&self) {
        if let Some(Some(index)) = self.inner.index.get() {
            index.flush();
        }
    }

    pub(crate) fn note(&self, notice: String) {
        lock(&self.inner.notices).push(notice);
    }

    fn note_once(&self, notice: String) {
        let mut notices = lock(&self.inner.notices);
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    pub(crate) fn unsynced(&self) -> &Unsynced {
        &self.inner.unsynced
    }

    pub(crate) fn recent(&self) -> &Recent {
        &self.inner.recent
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.inner.trace
    }

    pub(crate) fn used(&self) -> &Used {
        &self.inner.used
    }

    pub(crate) fn opened(&self) -> SystemTime {
        self.inner.opened
    }

    pub(crate) fn presence(&self) -> &File {
        &self.inner.presence
    }

    /// The index, or `None` where another process has it or it is unusable.
    pub(crate) fn index(&self) -> Option<&Index> {
        self.inner
            .index
            .get_or_init(|| match Index::open(self.dir()) {
                Opened::Ready(index) => Some(index),
                Opened::Replaced(index, damage) => {
                    self.note(format!(
                        "the index of {} was damaged ({damage}): moved to quarantine and built anew from the records; no result is lost",
                        self.dir().display()
                    ));
                    Some(index)
                }
                Opened::Held => None,
                Opened::Unusable(reason) => {
                    self.note(format!("going on without the index of {}: {reason}", self.dir().display()));
                    None
                }
            })
            .as_ref()
            .filter(|index| !index.is_broken())
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if let Some(value) = self.recent().get(table, key) {
            return Some(value);
        }
        let value = match self.index() {
            Some(index) => index.get(table, key),
            None => lock(&self.inner.memory).get(&(table, key.to_vec())).cloned(),
        }?;
        self.recent().put(table, key, &value);
        Some(value)
    }

    pub(crate) fn put(&self, table: Table, key: &[u8], value: &[u8]) {
        self.recent().put(table, key, value);
        match self.index() {
            Some(index) => index.put(table, key, value),
            None => {
                lock(&self.inner.memory).insert((table, key.to_vec()), value.to_vec());
            }
        }
    }

    pub(crate) fn forget(&self, table: Table, key: &[u8]) {
        self.recent().forget(table, key);
        match self.index() {
            Some(index) => index.forget(table, key),
            None => {
                lock(&self.inner.memory).remove(&(table, key.to_vec()));
            }
        }
    }

    pub(crate) fn clear_index(&self) {
        self.recent().clear();
        if let Some(index) = self.index() {
            index.clear();
        }
        lock(&self.inner.memory).clear();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever reports something as stored commits before; this is for those who only ever store.
        let _ = self.unsynced.commit(&self.dir);
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// No holder of these locks leaves a value half changed, so a panic elsewhere is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_version(dir: &Path, version: &Path) -> Result<(), Error> {
    let Some(text) = files::present(fs::read(version)).at("read", version)? else { return Ok(()) };
    let found = String::from_utf8_lossy(&text).trim().to_owned();
    if found != VERSION {
        return Err(Error::Version { path: dir.to_owned(), found, expected: VERSION.into() });
    }
    Ok(())
}
