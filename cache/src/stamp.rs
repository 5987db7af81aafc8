//! What `stat` says of a file, and when that can stand for its content.
//!
//! The rule is that of git's index against "racily clean" entries (git, Documentation/technical/racy-git.txt): a
//! file that was changed within the clock's grain of being looked at can change again without its times moving, so
//! only files whose times are clearly older than the look are remembered. Both times count: the modification time can
//! be set by hand, the change time cannot. The look is dated by this machine's clock, so a server whose clock is more
//! than the margin behind can hide a change of the last moments; and a program that writes through a memory map moves
//! the times only when a page is first touched after being written back.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Digest;

/// Coarser than the time stamps of any file system in use (FAT has two seconds).
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// One state of one file, as far as `stat` can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Nanoseconds since 1970; unlike `modified` it cannot be set by hand.
    changed: i128,
}

impl Stamp {
    /// Length of [`Stamp::to_bytes`].
    pub const BYTES: usize = 56;

    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp::new(
            (metadata.dev(), metadata.ino()),
            metadata.size(),
            (metadata.mtime(), metadata.mtime_nsec()),
            (metadata.ctime(), metadata.ctime_nsec()),
        )
    }

    /// From device and inode, size, and seconds and nanoseconds of both times.
    pub fn new((device, inode): (u64, u64), size: u64, modified: (i64, i64), changed: (i64, i64)) -> Stamp {
        let nanos = |(seconds, rest): (i64, i64)| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Stamp { device, inode, size, modified: nanos(modified), changed: nanos(changed) }
    }

    /// Whether the file had been left alone for long enough when somebody looked at `look`.
    pub fn settled(&self, look: SystemTime) -> bool {
        let look = look.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        self.modified.max(self.changed) + (SETTLED_AFTER.as_nanos() as i128) < look
    }

    /// The key of the stat table: which file this is.
    pub fn identity(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.device.to_be_bytes());
        bytes[8..].copy_from_slice(&self.inode.to_be_bytes());
        bytes
    }

    /// The whole stamp in 56 bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.identity().to_vec();
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.modified.to_be_bytes());
        bytes.extend(self.changed.to_be_bytes());
        bytes
    }

    /// An entry of the stat table: the stamp, then the digest of the content it stands for.
    pub fn entry(self, digest: &Digest) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        bytes.extend(digest.0);
        bytes
    }

    /// The digest in an entry, if the entry is of exactly this state.
    pub fn digest_in(self, entry: &[u8]) -> Option<Digest> {
        let digest = entry.strip_prefix(self.to_bytes().as_slice())?;
        digest.try_into().ok().map(Digest)
    }
}

/// A file's digest and the state in which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The content's digest.
    pub digest: Digest,
    pub(crate) stamp: Stamp,
    /// Whether the state can only stand for this content.
    pub(crate) settled: bool,
}

impl Look {
    /// The state and the content as bytes: two looks have the same where nothing was written between them, as far as `stat`
    /// can tell.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.stamp.to_bytes();
        bytes.extend(self.digest.0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { device: 1, inode: 2, size: 3, modified: 10_000_000_000, changed: 11_000_000_000 }
    }

    #[test]
    fn settled_only_well_after_both_times() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!stamp().settled(at(12)));
        assert!(!stamp().settled(at(13)));
        assert!(stamp().settled(at(14)));
        assert!(!Stamp { modified: 99_000_000_000, ..stamp() }.settled(at(14)));
    }

    #[test]
    fn an_entry_answers_only_for_its_own_state() {
        let digest = Digest::of_bytes(b"content");
        let entry = stamp().entry(&digest);
        assert_eq!(stamp().digest_in(&entry), Some(digest));
        for other in [
            Stamp { size: 4, ..stamp() },
            Stamp { inode: 3, ..stamp() },
            Stamp { device: 3, ..stamp() },
            Stamp { modified: 1, ..stamp() },
            Stamp { changed: 1, ..stamp() },
        ] {
            assert_eq!(other.digest_in(&entry), None);
        }
        assert_eq!(stamp().digest_in(&entry[..60]), None);
    }
}
