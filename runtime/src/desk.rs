//! Where programs work: folders in the cache's place for temporary files, one for each program, none used twice.
//!
//! File systems are slow in making files where many were just removed: ext4 passes over every inode that was freed within the
//! last five seconds, one after the other, for each new one. Of a thousand short programs in a row that is most of the time.
//! So what is small stays where it is for a while, and goes at once with all the others.

use harness_cache::{Cache, Error};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Folders of programs that ended, at most.
const MOST_FOLDERS: usize = 1000;
/// Bytes in all of them, at most.
const MOST_BYTES: u64 = 64 << 20;
/// Files and folders in one that is kept for a while, at most.
const MOST_ENTRIES: usize = 32;

/// Folders for one program after the other.
#[derive(Debug)]
pub struct Desk {
    folder: TempDir,
    /// The number of the next one.
    next: u64,
    /// Folders of programs that ended, and their bytes.
    spent: usize,
    bytes: u64,
}

impl Desk {
    /// On the cache's file system, so that outputs are moved into the store and not copied. All goes when it is dropped.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        Ok(Self { folder: cache.temp_dir()?, next: 0, spent: 0, bytes: 0 })
    }

    /// Where outputs go.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the next program works: a folder in [`Desk::path`] that is not there yet.
    pub fn place(&mut self) -> PathBuf {
        self.next += 1;
        self.current()
    }

    fn current(&self) -> PathBuf {
        self.folder.path().join(format!("run-{}", self.next))
    }

    /// Ends the use of the folder given last, whose outputs were taken. Whether there can be another.
    pub fn cleared(&mut self) -> bool {
        let place = self.current();
        match weight(&place) {
            Some(bytes) if self.bytes + bytes <= MOST_BYTES && self.spent < MOST_FOLDERS => {
                self.spent += 1;
                self.bytes += bytes;
                true
            }
            // A new desk in place of a full one: what the old one holds goes with it.
            Some(_) => false,
            None => fs::remove_dir_all(&place).is_ok(),
        }
    }
}

/// The bytes of a folder's files, if those are few.
fn weight(folder: &Path) -> Option<u64> {
    let (mut bytes, mut entries, mut open) = (0, 0, vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            entries += 1;
            if entries > MOST_ENTRIES {
                return None;
            }
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(desk: &Desk) -> usize {
        fs::read_dir(desk.folder.path()).unwrap().count()
    }

    #[test]
    fn small_ones_stay_for_a_while_and_large_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut desk = Desk::new(&cache).unwrap();
        let first = desk.place();
        fs::create_dir_all(first.join("inputs")).unwrap();
        fs::write(first.join("inputs/a"), "a").unwrap();
        assert!(desk.cleared());
        assert_eq!((desk.bytes, folders(&desk)), (1, 1));
        // Each gets its own.
        let second = desk.place();
        assert!(second != first && !second.exists());
        fs::create_dir(&second).unwrap();
        for number in 0..=MOST_ENTRIES {
            fs::write(second.join(number.to_string()), "").unwrap();
        }
        assert!(desk.cleared());
        assert_eq!(folders(&desk), 1, "many files go at once");
        let third = desk.place();
        fs::create_dir(&third).unwrap();
        fs::File::create(third.join("large")).unwrap().set_len(MOST_BYTES).unwrap();
        assert!(!desk.cleared(), "the desk is full");
        drop(desk);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}
