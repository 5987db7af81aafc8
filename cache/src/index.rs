//! The index: the only module that knows sled. Everything in it can be derived again, so nothing here is an error:
//! an index that is held by another process, damaged or lost makes answers slower, never different.

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Digest;

/// What the index keeps, each a map from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// Key digest -> stamp of its record log, then the log's newest valid line.
    Newest,
    /// Device and inode -> stamp and digest of a file's content.
    Stamps,
    /// Whatever a caller wants to remember.
    Facts,
}

const TABLES: [Table; 3] = [Table::Newest, Table::Stamps, Table::Facts];

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Newest => "newest",
            Table::Stamps => "stamps",
            Table::Facts => "facts",
        }
    }
}

/// sled's own memory, in bytes. The index is small, and `harness` is not the process that needs the memory.
const MEMORY: u64 = 16 << 20;

/// Bytes of check in front of every value, against damage that sled's own checksums let through.
const CHECK: usize = 8;

/// Written to a new index at once, so that one without it has lost its content.
const MARK: &[u8] = b"harness-cache index";

pub(crate) struct Index {
    db: Option<sled::Db>,
    trees: Vec<sled::Tree>,
    folder: PathBuf,
    aside: PathBuf,
    broken: AtomicBool,
    // Last, so that it is released after the database is closed.
    _lock: File,
}

/// How opening went.
pub(crate) enum Opened {
    Ready(Index),
    /// Opened anew after the damaged one was moved aside; with what was wrong.
    Replaced(Index, String),
    /// Another process has it.
    Held,
    /// It cannot be had; with the reason.
    Unusable(String),
}

impl Index {
    /// Opens the index of the cache at `dir`.
    pub fn open(dir: &Path) -> Opened {
        let lock = match File::options().create(true).truncate(false).write(true).open(dir.join("index.lock")) {
            Ok(lock) => lock,
            Err(error) => return Opened::Unusable(format!("its lock cannot be opened: {error}")),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Opened::Held,
            Err(TryLockError::Error(error)) => return Opened::Unusable(format!("its lock cannot be taken: {error}")),
        }
        let folder = dir.join("index.sled");
        let aside = dir.join("quarantine");
        let damage = match open_sled(&folder) {
            Ok((db, trees)) => return Opened::Ready(Index::of(db, trees, folder, aside, lock)),
            Err(Refusal::Held) => return Opened::Held,
            Err(Refusal::Damaged(reason)) => reason,
        };
        if let Err(error) = move_aside(&folder, &aside) {
            return Opened::Unusable(format!("it is damaged ({damage}) and cannot be moved aside: {error}"));
        }
        match open_sled(&folder) {
            Ok((db, trees)) => Opened::Replaced(Index::of(db, trees, folder, aside, lock), damage),
            Err(Refusal::Held) => Opened::Held,
            Err(Refusal::Damaged(reason)) => Opened::Unusable(reason),
        }
    }

    fn of(db: sled::Db, trees: Vec<sled::Tree>, folder: PathBuf, aside: PathBuf, lock: File) -> Index {
        Index { db: Some(db), trees, folder, aside, broken: AtomicBool::new(false), _lock: lock }
    }

    /// The value stored under `key`, if there is an intact one.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let stored = self.guarded(|| self.tree(table).get(key))??;
        unseal(table, key, &stored)
    }

    /// Stores a value; forgotten if the index turns out to be damaged.
    pub fn put(&self, table: Table, key: &[u8], value: &[u8]) {
        self.guarded(|| self.tree(table).insert(key, seal(table, key, value)));
    }

    /// Empties every table.
    pub fn clear(&self) {
        for table in TABLES {
            self.guarded(|| self.tree(table).clear());
        }
    }

    /// Forgets one entry.
    pub fn forget(&self, table: Table, key: &[u8]) {
        self.guarded(|| self.tree(table).remove(key));
    }

    /// Writes everything to disk.
    pub fn flush(&self) {
        self.guarded(|| self.db.as_ref().map_or(Ok(0), |db| db.flush()));
    }

    /// Whether an operation failed: the index is set aside when it is dropped, and answers nothing until then.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        &self.trees[table as usize]
    }

    /// Runs one operation; a failure, and sled answers some damage by a panic, retires the index.
    fn guarded<T>(&self, operation: impl FnOnce() -> sled::Result<T>) -> Option<T> {
        if self.is_broken() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(operation)) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(_)) | Err(_) => {
                self.broken.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.flush();
        let (trees, db) = (std::mem::take(&mut self.trees), self.db.take());
        let closed = catch_unwind(AssertUnwindSafe(|| drop((trees, db))));
        if self.is_broken() || closed.is_err() {
            // Nothing can be reported from here, and a folder that stays is found damaged at the next opening.
            let _ = move_aside(&self.folder, &self.aside);
        }
    }
}

enum Refusal {
    Held,
    Damaged(String),
}

fn open_sled(folder: &Path) -> Result<(sled::Db, Vec<sled::Tree>), Refusal> {
    let existed = folder.exists();
    let open = || {
        let db = sled::Config::default().path(folder).cache_capacity(MEMORY).mode(sled::Mode::LowSpace).open()?;
        let trees = TABLES.iter().map(|table| db.open_tree(table.name())).collect::<sled::Result<Vec<_>>>()?;
        // sled takes a log that it cannot read for an empty one; the mark tells the two apart.
        let lost = existed && !db.contains_key(MARK)?;
        if !existed {
            db.insert(MARK, &[])?;
            db.flush()?;
        }
        Ok::<_, sled::Error>((db, trees, lost))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok((_, _, true))) => Err(Refusal::Damaged("it lost what it held".into())),
        Ok(Ok((db, trees, false))) => Ok((db, trees)),
        // sled gives this as text only. Our own lock leaves one case: a process that is just closing it.
        Ok(Err(error)) if error.to_string().contains("could not acquire lock") => Err(Refusal::Held),
        Ok(Err(error)) => Err(Refusal::Damaged(error.to_string())),
        Err(_) => Err(Refusal::Damaged("reading it panicked".into())),
    }
}

fn move_aside(folder: &Path, aside: &Path) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    fs::rename(folder, aside.join(format!("index.sled-{now}")))
}

/// A check over table, key and value, then the value.
fn seal(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = check(table, key, value).to_vec();
    sealed.extend_from_slice(value);
    sealed
}

fn unseal(table: Table, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (found, value) = sealed.split_at_checked(CHECK)?;
    (found == check(table, key, value)).then(|| value.to_vec())
}

fn check(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut text = table.name().as_bytes().to_vec();
    text.extend((key.len() as u64).to_be_bytes());
    text.extend_from_slice(key);
    text.extend_from_slice(value);
    let mut short = [0; CHECK];
    short.copy_from_slice(&Digest::of_bytes(&text).0[..CHECK]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_hold_for_one_entry_only() {
        let sealed = seal(Table::Facts, b"key", b"value");
        assert_eq!(unseal(Table::Facts, b"key", &sealed).as_deref(), Some(&b"value"[..]));
        assert_eq!(unseal(Table::Stamps, b"key", &sealed), None);
        assert_eq!(unseal(Table::Facts, b"other", &sealed), None);
        assert_eq!(unseal(Table::Facts, b"key", &sealed[..sealed.len() - 1]), None);
        assert_eq!(unseal(Table::Facts, b"key", b"short"), None);
    }
}
