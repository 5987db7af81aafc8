//! Leases: who computes a key. A lock of the kernel, so that a killed holder leaves nothing to clean up.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Digest;
use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::files::present;

/// How long a waiting process sleeps between two looks: short beside any step worth caching.
const PAUSE: Duration = Duration::from_millis(25);

/// Files of leases that were given back and lie there still, at most. File systems are slow in making files where many were
/// just removed (ext4 passes over each inode that was freed within the last five seconds), so they go together.
const MOST_RELEASED: usize = 4096;

/// The right to compute one key. Ends when dropped, and by the kernel's hand when the process dies.
#[derive(Debug)]
pub struct Lease {
    key: Digest,
    path: PathBuf,
    released: Arc<Released>,
    _lock: File,
}

/// Files of leases that this process gave back. They do no harm where they lie: what counts is the lock.
#[derive(Debug, Default)]
pub(crate) struct Released(Mutex<Vec<PathBuf>>);

impl Released {
    /// Removes them, unless somebody holds them by now.
    fn sweep(&self) {
        let paths = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        paths.iter().for_each(|path| remove_released(path));
    }
}

/// Removes the file of a lease that nobody holds.
pub(crate) fn remove_released(path: &Path) {
    let Ok(lock) = File::open(path) else { return };
    // Removed while locked; whoever opened the same file before finds it gone and opens a new one. A file that cannot be
    // removed does no harm.
    if lock.try_lock().is_ok() && is_at(&lock, path).is_ok_and(|there| there) {
        let _ = fs::remove_file(path);
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        self.sweep();
    }
}

/// Whether an open file is the one that lies at the path.
fn is_at(file: &File, path: &Path) -> Result<bool, Error> {
    let ours = file.metadata().at("read the lease", path)?;
    let there = present(fs::metadata(path)).at("read the lease", path)?;
    Ok(there.is_some_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

impl Lease {
    /// The key it is for.
    pub fn key(&self) -> &Digest {
        &self.key
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let many = {
            let mut released = self.released.0.lock().unwrap_or_else(PoisonError::into_inner);
            released.push(path);
            released.len() > MOST_RELEASED
        };
        if many {
            self.released.sweep();
        }
    }
}

impl Cache {
    /// Whether somebody holds the lease of a key; answers without looking into the file.
    ///
    /// # Errors
    /// The file system refuses the lock file.
    pub fn is_leased(&self, key: &Digest) -> Result<bool, Error> {
        let path = self.lease_path(key);
        let Some(lock) = present(File::open(&path)).at("read the lease", &path)? else { return Ok(false) };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(Error::io("lock the lease", &path, error)),
        }
    }

    /// Takes the lease of a key; `None` while somebody else, in this process or another, holds it.
    ///
    /// # Errors
    /// The file system refuses the lock file.
    pub fn lease(&self, key: &Digest) -> Result<Option<Lease>, Error> {
        let path = self.lease_path(key);
        loop {
            let mut lock = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .at("create the lease", &path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock the lease", &path, error)),
            }
            // The holder before may have removed the file between the opening and the lock.
            if is_at(&lock, &path)? {
                // For people only (`holder`), so a full disk is no reason to refuse.
                let _ = lock.set_len(0).and_then(|()| lock.write_all(introduction().as_bytes()));
                return Ok(Some(Lease { key: *key, path, released: self.released(), _lock: lock }));
            }
        }
    }

    /// Removes the files of leases that were given back. They are many after a long run and would go with the last clone
    /// of the cache, unless the process ends before.
    pub fn sweep_leases(&self) {
        self.released().sweep();
    }

    /// Waits for the lease of a key: asks `poll` before every further look whether to go on, and gives `None` once
    /// it says no. Look for a record after getting it: the holder before has most likely left one.
    ///
    /// # Errors
    /// As [`Cache::lease`].
    pub fn wait_lease(&self, key: &Digest, poll: &mut dyn FnMut() -> bool) -> Result<Option<Lease>, Error> {
        loop {
            if let Some(lease) = self.lease(key)? {
                return Ok(Some(lease));
            }
            if !poll() {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Who holds the lease of a key, in words for people: process, host and since when. `None` when nobody does.
    ///
    /// # Errors
    /// The file system refuses the lock file.
    pub fn holder(&self, key: &Digest) -> Result<Option<String>, Error> {
        let path = self.lease_path(key);
        let Some(lock) = present(File::open(&path)).at("read the lease", &path)? else { return Ok(None) };
        match lock.try_lock_shared() {
            // Left by a process that died.
            Ok(()) => Ok(None),
            // Gone by now: released in between.
            Err(TryLockError::WouldBlock) => present(fs::read_to_string(&path)).at("read the lease", &path),
            Err(TryLockError::Error(error)) => Err(Error::io("lock the lease", &path, error)),
        }
    }

    fn lease_path(&self, key: &Digest) -> PathBuf {
        self.dir().join("leases").join(key.to_string())
    }
}

fn introduction() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("process {} on {}, since {since}", std::process::id(), host.trim())
}
