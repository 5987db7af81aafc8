//! The state of everything below a folder in one digest: as long as it stays, nothing below was written to, added or
//! taken away, and what was found out from these files holds.
//!
//! A table of states, file by file, costs memory and a look-up for each; a million files that nobody touched should cost
//! a million calls of `stat` and nothing else. The rule for what a state is worth is that of single files: it counts
//! only where every file had been left alone for a while before the look.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::stamp::Stamp;
use crate::{Digest, Hasher};

/// Files looked at by one thread before it asks for more.
const CHUNK: usize = 512;

/// What is known of the folders above one that is looked at.
struct Above<'a> {
    device: u64,
    inode: u64,
    above: Option<&'a Above<'a>>,
}

impl Above<'_> {
    fn has(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode) || self.above.is_some_and(|above| above.has(device, inode))
    }
}

impl Cache {
    /// The state of all files below a folder, links followed; `None` where something changed too shortly ago for its
    /// times to tell of the next change. Two equal states mean the same names, files and contents.
    ///
    /// # Errors
    /// The folder, or one below it, cannot be read.
    pub fn tree_state(&self, top: &Path) -> Result<Option<Digest>, Error> {
        let now = SystemTime::now();
        let read = || {
            let folder = openat(CWD, top, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let of = fstat(&folder)?;
            state(&folder, &Above { device: of.st_dev, inode: of.st_ino, above: None }, now)
        };
        let state = read();
        self.trace().tree(top, state.unwrap_or_default());
        state.map_err(std::io::Error::from).at("look through the folder", top)
    }
}

fn stamp(stat: &Stat) -> Stamp {
    Stamp::new(
        (stat.st_dev, stat.st_ino),
        stat.st_size as u64,
        (stat.st_mtime, stat.st_mtime_nsec as i64),
        (stat.st_ctime, stat.st_ctime_nsec as i64),
    )
}

/// The state of a folder; none where something in it is not settled.
fn state(folder: &OwnedFd, above: &Above<'_>, now: SystemTime) -> Result<Option<Digest>, Errno> {
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    let parts = |chunk: &[CString]| part(folder, chunk, above, now);
    let parts: Vec<Option<Digest>> = if names.len() <= CHUNK {
        vec![parts(&names)?]
    } else {
        names.par_chunks(CHUNK).map(parts).collect::<Result<_, _>>()?
    };
    let mut hasher = Hasher::default();
    for part in parts {
        let Some(part) = part else { return Ok(None) };
        hasher.update(&part.0);
    }
    Ok(Some(hasher.finish()))
}

/// The state of some entries of a folder.
fn part(folder: &OwnedFd, names: &[CString], above: &Above<'_>, now: SystemTime) -> Result<Option<Digest>, Errno> {
    let mut hasher = Hasher::default();
    let mut add = |name: &CStr, kind: u8, what: &[u8]| {
        hasher.update(&(name.to_bytes().len() as u32).to_be_bytes());
        hasher.update(name.to_bytes());
        hasher.update(&[kind, what.len() as u8]);
        hasher.update(what);
    };
    let mut below: Vec<(&CString, Above<'_>)> = Vec::new();
    for name in names {
        match statat(folder.as_fd(), name, AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                if above.has(stat.st_dev, stat.st_ino) {
                    // A link to a folder above itself holds nothing that is not looked at anyway.
                    add(name, b'l', &[]);
                } else {
                    below.push((name, Above { device: stat.st_dev, inode: stat.st_ino, above: Some(above) }));
                }
            }
            Ok(stat) => {
                let stamp = stamp(&stat);
                if !stamp.settled(now) {
                    return Ok(None);
                }
                add(name, b'f', &stamp.to_bytes());
            }
            // A link that leads nowhere; or gone since it was listed, which the next look tells.
            Err(Errno::NOENT | Errno::LOOP) => add(name, b'n', &[]),
            Err(error) => return Err(error),
        }
    }
    let states = below
        .par_iter()
        .map(|(name, at)| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            state(&openat(folder.as_fd(), *name, flags, Mode::empty())?, at, now)
        })
        .collect::<Result<Vec<_>, Errno>>()?;
    for ((name, _), state) in below.iter().zip(states) {
        let Some(state) = state else { return Ok(None) };
        add(name, b'd', &state.0);
    }
    Ok(Some(hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    /// Makes everything below old: its times cannot be set back, so the look is dated ahead.
    fn state_of(top: &Path) -> Option<Digest> {
        let folder = openat(CWD, top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let of = fstat(&folder).unwrap();
        let above = Above { device: of.st_dev, inode: of.st_ino, above: None };
        state(&folder, &above, SystemTime::now() + Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn every_change_below_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        for n in 0..CHUNK + 20 {
            fs::create_dir_all(top.join(format!("f{}", n % 3))).unwrap();
            fs::write(top.join(format!("f{}/{n}\n", n % 3)), "x").unwrap();
        }
        (0..CHUNK + 3).for_each(|n| fs::write(top.join(format!("{n}")), "y").unwrap());
        std::os::unix::fs::symlink("..", top.join("f0/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", top.join("dangling")).unwrap();
        let mut seen = vec![state_of(top).unwrap()];
        assert_eq!(state_of(top), Some(seen[0]));
        let mut differs = |what: &str| {
            let now = state_of(top).unwrap();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(top.join("f1/1\n"), "z").unwrap();
        differs("a file rewritten in the same length");
        fs::write(top.join("new"), "").unwrap();
        differs("a new file");
        fs::rename(top.join("new"), top.join("f2/new")).unwrap();
        differs("a file moved");
        fs::remove_file(top.join("f2/2\n")).unwrap();
        differs("a file removed");
        fs::create_dir(top.join("empty")).unwrap();
        differs("an empty folder");
        fs::write(top.join("nowhere"), "now it is").unwrap();
        differs("a link that leads somewhere now");
    }

    #[test]
    fn what_was_just_written_has_no_state() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let top = dir.path().join("data");
        fs::create_dir_all(top.join("deep/deeper")).unwrap();
        assert!(cache.tree_state(&top).unwrap().is_some(), "folders alone have nothing to be read");
        fs::write(top.join("deep/deeper/file"), "x").unwrap();
        assert_eq!(cache.tree_state(&top).unwrap(), None);
        assert!(cache.tree_state(&top.join("missing")).is_err());
    }
}
