//! The working set: the index entries that the last run of the same experiment used, in one small file beside it.
//!
//! A run that finds everything as it was asks the same few thousand questions as the run before. With their answers at
//! hand it needs neither the index, which takes time to open and admits one process, nor a look-up in it for each step.
//! Nothing is trusted more for that: an entry is the index's own, with the state of the file that it was made from, and
//! counts only while `stat` shows that state. The file is sealed as a whole, may vanish at any time, and is written
//! anew where the answers have changed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Digest;
use crate::cache::Cache;
use crate::index::Table;

/// What the file begins with.
const MARK: &[u8] = b"harness-cache recent 1\n";

/// More entries than this are not kept: reading them would cost what they save.
const MOST: usize = 200_000;

/// Which entry: the table, the length of the key, and the key itself or its digest where it is longer.
type Key = [u8; 34];

fn key_of(table: Table, key: &[u8]) -> Key {
    let mut name = [0; 34];
    name[0] = table as u8;
    if key.len() <= 32 {
        name[1] = key.len() as u8;
        name[2..2 + key.len()].copy_from_slice(key);
    } else {
        name[1] = u8::MAX;
        name[2..].copy_from_slice(&Digest::of_bytes(key).0);
    }
    name
}

/// Where an entry's value lies.
enum Place {
    /// In the file that was read.
    Read(std::ops::Range<usize>),
    /// Put since.
    New(Box<[u8]>),
}

struct Entry {
    place: Place,
    used: AtomicBool,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    entries: HashMap<Key, Entry>,
}

/// This process's part.
#[derive(Default)]
pub(crate) struct Recent {
    /// Whether anybody asked for a working set; without one every question goes to the index.
    active: AtomicBool,
    state: RwLock<State>,
}

impl Recent {
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if !self.active.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let entry = state.entries.get(&key_of(table, key))?;
        entry.used.store(true, Ordering::Relaxed);
        Some(match &entry.place {
            Place::Read(range) => state.bytes[range.clone()].to_vec(),
            Place::New(bytes) => bytes.to_vec(),
        })
    }

    pub fn put(&self, table: Table, key: &[u8], value: &[u8]) {
        if self.active.load(Ordering::Relaxed) {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.entries.len() < MOST {
                let entry = Entry { place: Place::New(value.into()), used: AtomicBool::new(true) };
                state.entries.insert(key_of(table, key), entry);
            } else {
                // An older answer must not stay in front of a newer one.
                state.entries.remove(&key_of(table, key));
            }
        }
    }

    pub fn forget(&self, table: Table, key: &[u8]) {
        if self.active.load(Ordering::Relaxed) {
            self.state.write().unwrap_or_else(PoisonError::into_inner).entries.remove(&key_of(table, key));
        }
    }

    pub fn clear(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    fn load(&self, path: &Path) {
        let state = fs::read(path).ok().and_then(read).unwrap_or_default();
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.active.store(true, Ordering::Relaxed);
    }

    /// The file's new content; `None` where it is what was read.
    fn written(&self) -> Option<Vec<u8>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let used = |entry: &Entry| entry.used.load(Ordering::Relaxed);
        let same = |entry: &Entry| used(entry) && matches!(entry.place, Place::Read(_));
        if state.entries.values().all(same) || state.entries.len() >= MOST {
            return None;
        }
        let mut bytes = MARK.to_vec();
        for (key, entry) in state.entries.iter().filter(|(_, entry)| used(entry)) {
            let value = match &entry.place {
                Place::Read(range) => &state.bytes[range.clone()],
                Place::New(bytes) => bytes,
            };
            bytes.extend_from_slice(key);
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value);
        }
        let seal = Digest::of_bytes(&bytes);
        bytes.extend_from_slice(&seal.0);
        Some(bytes)
    }
}

/// The entries in a file's content; `None` where it is damaged or of another program.
fn read(bytes: Vec<u8>) -> Option<State> {
    let (content, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if !content.starts_with(MARK) || Digest::of_bytes(content).0 != *seal {
        return None;
    }
    let (mut at, end) = (MARK.len(), content.len());
    let mut entries = HashMap::with_capacity(end / 512);
    while at < end {
        let key: Key = content.get(at..at + 34)?.try_into().ok()?;
        let length = u32::from_be_bytes(content.get(at + 34..at + 38)?.try_into().ok()?) as usize;
        at += 38 + length;
        content.get(at - length..at)?;
        entries.insert(key, Entry { place: Place::Read(at - length..at), used: AtomicBool::new(false) });
    }
    Some(State { bytes, entries })
}

impl Cache {
    /// Answers from the working set that [`Cache::keep_recent`] left in the file `path`, before the index is asked.
    /// A file that is missing or damaged answers nothing.
    pub fn load_recent(&self, path: &Path) {
        self.recent().load(path);
    }

    /// Leaves what was asked since [`Cache::load_recent`] for the next process that asks the same; does nothing where
    /// that is there already. Best effort: without it the next process is slower.
    pub fn keep_recent(&self, path: &Path) {
        let Some(bytes) = self.recent().written() else { return };
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        if fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_there_the_next_time_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recent");
        let long = vec![7; 100];
        let first = Recent::default();
        first.put(Table::Facts, b"early", b"not active yet");
        first.load(&path);
        first.put(Table::Facts, &long, b"of a long key");
        first.put(Table::Stamps, b"a", b"1");
        first.put(Table::Stamps, b"b", b"2");
        std::fs::write(&path, first.written().unwrap()).unwrap();

        let second = Recent::default();
        second.load(&path);
        assert_eq!(second.get(Table::Facts, b"early"), None);
        assert_eq!(second.get(Table::Facts, &long).as_deref(), Some(&b"of a long key"[..]));
        assert_eq!(second.get(Table::Newest, b"a"), None, "another table's");
        assert_eq!(second.get(Table::Stamps, b"a").as_deref(), Some(&b"1"[..]));
        // `b` was not asked for, so it goes.
        let third = Recent::default();
        std::fs::write(&path, second.written().unwrap()).unwrap();
        third.load(&path);
        assert_eq!(third.get(Table::Stamps, b"b"), None);
        assert!(third.get(Table::Stamps, b"a").is_some() && third.get(Table::Facts, &long).is_some());
        assert!(third.written().is_none(), "asked the same: nothing to write");
        third.put(Table::Stamps, b"a", b"3");
        assert_eq!(third.get(Table::Stamps, b"a").as_deref(), Some(&b"3"[..]));
        third.forget(Table::Stamps, b"a");
        assert_eq!(third.get(Table::Stamps, b"a"), None);
    }

    #[test]
    fn damage_anywhere_makes_it_answer_nothing() {
        let recent = Recent::default();
        recent.load(Path::new("/nowhere"));
        recent.put(Table::Stamps, b"key", b"value");
        let bytes = recent.written().unwrap();
        assert_eq!(read(bytes.clone()).unwrap().entries.len(), 1);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(damaged).is_none(), "{at}");
            assert!(read(bytes[..at].to_vec()).is_none(), "cut at {at}");
        }
    }
}
