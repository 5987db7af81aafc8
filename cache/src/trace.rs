//! What a process saw of the file system, so that the next one can tell whether it would see the same.
//!
//! What a run finds in the cache follows from texts, configuration and the states of files. When every file that the
//! run looked at is in the same state, or still absent, the next run would find the same, and need not find it again: a
//! `stat` for each file takes the place of reading the text, making every key and looking up every result. The rule for
//! states is the usual one: one that was seen too shortly after the file's last change tells nothing, and then nothing
//! is remembered at all.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::Digest;
use crate::cache::{Cache, lock};
use crate::stamp::Stamp;

/// More observations than this are not remembered.
const MOST: usize = 500_000;

/// What one path showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// No file, and nothing else that counts as one: absent, or a folder.
    NoFile,
    /// A file in this state.
    File(Stamp),
    /// A folder, with the state of everything below it.
    Tree(Digest),
}

/// This process's part.
#[derive(Default)]
pub(crate) struct Trace {
    active: AtomicBool,
    /// Something was seen that cannot be remembered.
    void: AtomicBool,
    seen: Mutex<HashMap<PathBuf, Seen>>,
}

impl Trace {
    fn note(&self, path: &Path, seen: Option<Seen>) {
        if !self.active.load(Ordering::Relaxed) || self.void.load(Ordering::Relaxed) {
            return;
        }
        let mut all = lock(&self.seen);
        match seen {
            // Seen in two states: the file changed under the run.
            Some(seen) if all.get(path).is_some_and(|before| *before != seen) => self.give_up(all),
            Some(seen) if all.len() < MOST => {
                if !all.contains_key(path) {
                    all.insert(path.to_owned(), seen);
                }
            }
            _ => self.give_up(all),
        }
    }

    fn give_up(&self, mut all: MutexGuard<'_, HashMap<PathBuf, Seen>>) {
        self.void.store(true, Ordering::Relaxed);
        *all = HashMap::new();
    }

    /// A file in a state, at a time when it was looked at.
    pub fn file(&self, path: &Path, stamp: Stamp, look: SystemTime) {
        if self.active.load(Ordering::Relaxed) {
            self.note(path, stamp.settled(look).then_some(Seen::File(stamp)));
        }
    }

    pub fn absent(&self, path: &Path) {
        self.note(path, Some(Seen::NoFile));
    }

    pub fn tree(&self, path: &Path, state: Option<Digest>) {
        self.note(path, state.map(Seen::Tree));
    }
}

impl Cache {
    /// From now on, what this process sees of files through the cache is taken down.
    pub fn observe(&self) {
        self.trace().active.store(true, Ordering::Relaxed);
    }

    /// What was seen is not all that decides: nothing will be remembered.
    pub fn observe_nothing(&self) {
        self.trace().note(Path::new(""), None);
    }

    /// Whether there is a regular file (links followed) at `path`; taken down.
    pub fn is_file(&self, path: &Path) -> bool {
        let now = SystemTime::now();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                self.trace().file(path, Stamp::of(&metadata), now);
                true
            }
            _ => {
                self.trace().absent(path);
                false
            }
        }
    }

    /// Everything that was seen since [`Cache::observe`], for [`Cache::sees`]; `None` where it cannot be remembered:
    /// something changed a moment ago, or meanwhile.
    pub fn observations(&self) -> Option<Vec<u8>> {
        let trace = self.trace();
        if !trace.active.load(Ordering::Relaxed) || trace.void.load(Ordering::Relaxed) {
            return None;
        }
        let mut bytes = Vec::new();
        for (path, seen) in lock(&trace.seen).iter() {
            let path = path.as_os_str().as_bytes();
            bytes.extend(u32::try_from(path.len()).ok()?.to_be_bytes());
            bytes.extend(path);
            match seen {
                Seen::NoFile => bytes.push(0),
                Seen::File(stamp) => {
                    bytes.push(1);
                    bytes.extend(stamp.to_bytes());
                }
                Seen::Tree(state) => {
                    bytes.push(2);
                    bytes.extend(state.0);
                }
            }
        }
        Some(bytes)
    }

    /// Whether everything is as the process saw it that left these observations.
    pub fn sees(&self, observations: &[u8]) -> bool {
        let Some(parts) = split(observations) else { return false };
        let same = |(path, kind, what): &(&Path, u8, &[u8])| match kind {
            0 => !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()),
            1 => fs::metadata(path).is_ok_and(|found| found.is_file() && Stamp::of(&found).to_bytes() == *what),
            _ => self.tree_state(path).is_ok_and(|state| state.is_some_and(|state| state.0 == *what)),
        };
        parts.par_iter().all(same)
    }
}

/// The single observations; `None` where the bytes are damaged.
fn split(mut bytes: &[u8]) -> Option<Vec<(&Path, u8, &[u8])>> {
    let mut parts = Vec::with_capacity(bytes.len() / 128);
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at_checked(4)?;
        let (path, rest) = rest.split_at_checked(u32::from_be_bytes(length.try_into().ok()?) as usize)?;
        let (kind, rest) = rest.split_first()?;
        let size = match kind {
            0 => 0,
            1 => Stamp::BYTES,
            2 => 32,
            _ => return None,
        };
        let (what, rest) = rest.split_at_checked(size)?;
        parts.push((Path::new(std::ffi::OsStr::from_bytes(path)), *kind, what));
        bytes = rest;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What the trace saw of these files, had it looked a minute later.
    fn observed(cache: &Cache, files: &[&Path]) -> Option<Vec<u8>> {
        let later = SystemTime::now() + Duration::from_secs(60);
        for file in files {
            match fs::metadata(file) {
                Ok(metadata) => cache.trace().file(file, Stamp::of(&metadata), later),
                Err(_) => cache.trace().absent(file),
            }
        }
        cache.observations()
    }

    #[test]
    fn holds_until_anything_that_was_seen_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let (there, missing) = (dir.path().join("there\n"), dir.path().join("missing"));
        fs::write(&there, "x").unwrap();
        assert_eq!(cache.observations(), None, "nothing is taken down before it is asked for");
        cache.observe();
        let seen = observed(&cache, &[&there, &missing]).unwrap();
        assert!(cache.sees(&seen));
        fs::write(&missing, "").unwrap();
        assert!(!cache.sees(&seen));
        fs::remove_file(&missing).unwrap();
        fs::create_dir(&missing).unwrap();
        assert!(cache.sees(&seen), "a folder is no file");
        fs::write(&there, "y").unwrap();
        assert!(!cache.sees(&seen));
        fs::remove_file(&there).unwrap();
        assert!(!cache.sees(&seen));
        assert!(!cache.sees(&seen[..seen.len() - 1]));
    }

    #[test]
    fn what_was_written_just_now_or_meanwhile_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let cache = Cache::open(&dir.path().join("a")).unwrap();
        cache.observe();
        assert!(cache.is_file(&file));
        assert_eq!(cache.observations(), None);

        let cache = Cache::open(&dir.path().join("b")).unwrap();
        cache.observe();
        assert!(observed(&cache, &[&file]).is_some());
        fs::write(&file, "longer").unwrap();
        assert_eq!(observed(&cache, &[&file]), None, "seen in two states");

        let cache = Cache::open(&dir.path().join("c")).unwrap();
        cache.observe();
        cache.observe_nothing();
        assert_eq!(cache.observations(), None);
    }
}
