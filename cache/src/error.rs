//! What can go wrong: each error names the path, what failed, and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the cache. None of them means that something stored was lost.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache folder's path leads to something else.
    #[error(
        "the cache folder `{}` is a file, not a folder: name another folder (`--cache DIR`), or move the file away",
        path.display()
    )]
    NotADirectory {
        /// The path that was given.
        path: PathBuf,
    },
    /// The folder exists, but nothing can be written there.
    #[error(
        "cannot {action} `{}`: it is not writable ({why}); give this user write permission, or name another cache folder (`--cache DIR`)",
        path.display()
    )]
    NotWritable {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        why: io::Error,
    },
    /// No space is left, or the quota is used up.
    #[error(
        "cannot {action} `{}`: no space is left ({why}); free some (`harness cache gc` removes what no run refers to), or name a cache folder on another disk (`--cache DIR`); what was already stored is safe",
        path.display()
    )]
    DiskFull {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        why: io::Error,
    },
    /// The folder was written in another layout.
    #[error(
        "the cache folder `{}` is of version `{found}` and this program reads `{expected}`: use the program that wrote it, or name another cache folder (`--cache DIR`)",
        path.display()
    )]
    Version {
        /// The cache folder.
        path: PathBuf,
        /// What its VERSION file says.
        found: String,
        /// What this program writes there.
        expected: String,
    },
    /// Something else than a regular file was to be hashed or stored.
    #[error("`{}` is not a regular file: only regular files can be hashed and stored", path.display())]
    NotAFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// A file changed while its digest was computed, so the digest would belong to neither state.
    #[error("`{}` changed while it was being read: let whatever writes it finish, then try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The record to append does not carry the digest of its own key.
    #[error(
        "the record of the `{kind}` step names the digest {claimed} but its key has {computed}: build it with `Record::new`"
    )]
    ForeignDigest {
        /// The step's kind.
        kind: String,
        /// What the record says.
        claimed: crate::Digest,
        /// What its key gives.
        computed: crate::Digest,
    },
    /// A parameter is a number that no key may hold.
    #[error("`{path}` is not a finite number: keys hold finite numbers only; correct the value or leave it out")]
    NotFinite {
        /// Where in the parameters, such as `views[0].scale`.
        path: String,
    },
    /// Parameters that cannot be written as JSON.
    #[error("the parameters of the `{kind}` step cannot be written as JSON: {reason}")]
    Params {
        /// The step's kind.
        kind: String,
        /// Why not.
        reason: String,
    },
    /// Anything else the file system refused.
    #[error("cannot {action} `{}`: {why}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        why: io::Error,
    },
}

impl Error {
    /// A failed attempt to write a file of [`crate::Cache::temp_dir`], sorted as the cache's own.
    pub fn writing(path: &Path, source: io::Error) -> Error {
        Error::io("write", path, source)
    }

    /// Sorts a failed attempt to write into the kinds that have a way out of their own.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { action, path, why: source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !action.starts_with("read") => {
                Error::NotWritable { action, path, why: source }
            }
            _ => Error::Io { action, path, why: source },
        }
    }
}

/// Shortens `map_err` at every call into the file system.
pub(crate) trait Context<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(action, path, source))
    }
}
