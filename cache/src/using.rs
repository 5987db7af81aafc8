//! What running processes rely on, so that garbage can be collected beside them.
//!
//! Two things keep collection and work apart. A lock (`collect`): whoever looks a result up, or stores one, holds it
//! shared from the look to the note that is left, or from the first blob to the record that names it; collection holds
//! it alone, so it waits for these short stretches and they for it. And a list for each process (`using/`): every key
//! that it looked up or will compute, locked for as long as the process lives. Collection leaves the keys in the lists
//! of living processes alone; the kernel releases the lock of a dead one.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Digest;
use crate::cache::{Cache, lock};
use crate::error::{Context, Error};
use crate::files::{entries, present};

/// This process's part.
#[derive(Default)]
pub(crate) struct Used {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file `collect`, and how many hold it shared in this process.
    shared: Option<(File, usize)>,
    /// The list of keys.
    list: Option<(File, PathBuf)>,
    listed: BTreeSet<Digest>,
    /// Of these, the lines that are not written yet.
    unwritten: String,
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some((_, path)) = &lock(&self.state).list {
            // An unlocked list that stays is removed by the next collection.
            let _ = fs::remove_file(path);
        }
    }
}

/// While this lives nothing is collected.
#[derive(Debug)]
pub struct Using<'a> {
    cache: &'a Cache,
}

impl Using<'_> {
    /// From now on, for as long as this process has the cache open, the records of this key and all they name stay.
    /// Written when this guard is dropped, or by [`Using::write`], which tells whether that worked.
    pub fn keep(&self, key: &Digest) {
        let mut state = lock(&self.cache.used().state);
        if state.listed.insert(*key) {
            state.unwritten.push_str(&format!("{key}\n"));
        }
    }

    /// Writes what [`Using::keep`] noted where other processes see it.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn write(&self) -> Result<(), Error> {
        let mut state = lock(&self.cache.used().state);
        if state.unwritten.is_empty() {
            return Ok(());
        }
        if state.list.is_none() {
            let folder = self.cache.dir().join("using");
            fs::create_dir_all(&folder).at("create the folder", &folder)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            let path = folder.join(format!("{}-{now}", std::process::id()));
            let file = File::create_new(&path).at("create", &path)?;
            // Nobody collects now, so nobody takes it for a dead one's.
            file.lock().at("lock", &path)?;
            state.list = Some((file, path));
        }
        let lines = std::mem::take(&mut state.unwritten);
        if let Some((file, path)) = &mut state.list {
            file.write_all(lines.as_bytes()).at("write", path)?;
        }
        Ok(())
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        // Whoever must know whether it worked has asked before.
        let _ = self.write();
        let mut state = lock(&self.cache.used().state);
        if let Some((file, holders)) = &mut state.shared {
            *holders -= 1;
            if *holders == 0 {
                // A lock that cannot be given back is given back with the process.
                let _ = file.unlock();
            }
        }
    }
}

impl Cache {
    /// Holds collection off: for the stretch between looking a result up and [`Using::keep`], and between storing
    /// blobs and appending the record that names them. Waits while somebody collects.
    ///
    /// # Errors
    /// The lock cannot be had from the file system.
    pub fn using(&self) -> Result<Using<'_>, Error> {
        let path = collect_path(self.dir());
        let mut state = lock(&self.used().state);
        if state.shared.is_none() {
            state.shared = Some((open(&path)?, 0));
        }
        if let Some((file, holders)) = &mut state.shared {
            if *holders == 0 {
                file.lock_shared().at("lock", &path)?;
            }
            *holders += 1;
        }
        Ok(Using { cache: self })
    }

    /// Waits until nobody looks up or stores, and holds them off; give it back by dropping it.
    pub(crate) fn collecting(&self) -> Result<File, Error> {
        let path = collect_path(self.dir());
        let file = open(&path)?;
        file.lock().at("lock", &path)?;
        Ok(file)
    }

    /// The keys that living processes rely on, this one among them. Lists of dead ones are removed, if `clean`.
    pub(crate) fn used_keys(&self, clean: bool) -> Result<BTreeSet<Digest>, Error> {
        let mut keys = lock(&self.used().state).listed.clone();
        for path in entries(&self.dir().join("using"))? {
            let Some(file) = present(File::open(&path)).at("read", &path)? else { continue };
            match file.try_lock_shared() {
                Ok(()) => {
                    if clean {
                        present(fs::remove_file(&path)).at("remove", &path)?;
                    }
                }
                Err(TryLockError::WouldBlock) => {
                    let text = present(fs::read_to_string(&path)).at("read", &path)?.unwrap_or_default();
                    keys.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
        }
        Ok(keys)
    }
}

fn collect_path(dir: &Path) -> PathBuf {
    dir.join("collect")
}

fn open(path: &Path) -> Result<File, Error> {
    File::options().create(true).truncate(false).read(true).write(true).open(path).at("open", path)
}
