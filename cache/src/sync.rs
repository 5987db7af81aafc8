//! Making what was stored outlive a power cut, in groups: a sync costs as much for a thousand small files as for one.
//!
//! Blobs and records get their names at once, so that everybody can use them, and are safe after the next commit.
//! Should the power fail before, a name may stand for a file whose bytes never arrived: its digest, or the record's
//! checksum, tells, and it counts as absent. What was committed is not touched by that.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cache::{Cache, lock};
use crate::error::{Context, Error};
use crate::files::present;

/// Up to so many files are synced one by one. Above, the whole file system is: one call, whatever the number.
const ONE_BY_ONE: usize = 8;

/// Files and folders that were changed since the last commit.
#[derive(Default)]
pub(crate) struct Unsynced {
    paths: Mutex<BTreeSet<PathBuf>>,
    /// Held while syncing, so that nobody takes files for safe that another thread is only about to sync. Holds what
    /// went wrong: the kernel reports a lost page once, so after a failure no later success means anything.
    failed: Mutex<Option<String>>,
}

impl Unsynced {
    /// Notes a file or folder whose content the next commit must cover.
    pub fn add(&self, path: PathBuf) {
        lock(&self.paths).insert(path);
    }

    /// Whether a file waits for its commit.
    pub fn has(&self, path: &Path) -> bool {
        lock(&self.paths).contains(path)
    }

    /// Makes everything noted so far safe. `dir` is the cache folder.
    pub fn commit(&self, dir: &Path) -> Result<(), Error> {
        let mut failed = lock(&self.failed);
        let paths = std::mem::take(&mut *lock(&self.paths));
        let result = match &*failed {
            Some(reason) => Err(Error::io("sync", dir, io::Error::other(reason.clone()))),
            None if paths.len() > ONE_BY_ONE => sync_all(dir),
            None => paths.iter().try_for_each(|path| sync(path)),
        };
        if let Err(error) = &result {
            failed.get_or_insert_with(|| format!("an earlier sync failed: {error}"));
        }
        result
    }
}

impl Cache {
    /// Makes everything that was stored and appended so far outlive a power cut. Call it before reporting a result as
    /// kept; calls of several threads share their syncs.
    ///
    /// # Errors
    /// The disk did not take it. From then on every commit of this process fails: what the disk lost is not told twice.
    pub fn commit(&self) -> Result<(), Error> {
        self.unsynced().commit(self.dir())
    }
}

fn sync(path: &Path) -> Result<(), Error> {
    // Gone again: collected, or found damaged.
    let Some(file) = present(File::open(path)).at("sync", path)? else { return Ok(()) };
    file.sync_all().at("sync", path)
}

fn sync_all(dir: &Path) -> Result<(), Error> {
    let folder = File::open(dir).at("sync", dir)?;
    rustix::fs::syncfs(&folder).map_err(io::Error::from).at("sync", dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let unsynced = Unsynced::default();
        for count in [0, 2, ONE_BY_ONE + 5] {
            for number in 0..count {
                let path = folder.path().join(number.to_string());
                std::fs::write(&path, b"x").unwrap();
                unsynced.add(path);
            }
            unsynced.add(folder.path().join("gone"));
            unsynced.commit(folder.path()).unwrap();
            assert!(lock(&unsynced.paths).is_empty());
        }
    }

    #[test]
    fn a_failure_is_not_forgotten() {
        let unsynced = Unsynced::default();
        // The kernel syncs no such thing.
        unsynced.add("/proc/self/status".into());
        let folder = tempfile::tempdir().unwrap();
        let first = unsynced.commit(folder.path()).unwrap_err().to_string();
        assert!(first.contains("/proc/self/status"), "{first}");
        let second = unsynced.commit(folder.path()).unwrap_err().to_string();
        assert!(second.contains("an earlier sync failed"), "{second}");
    }
}
