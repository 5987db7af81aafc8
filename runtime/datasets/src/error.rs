//! What can go wrong with a dataset, in words that name the thing, the place and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// Why a dataset could not be opened, described or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} `{}`: {}", path.display(), reason(error))]
    Io {
        /// What was tried: `open`, `read`, `write`…
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said. Not a `source`: the message has it already.
        error: io::Error,
    },
    /// A folder or archive that cannot be used as a tree of files.
    #[error("`{}` cannot be used as a dataset: {reason}", path.display())]
    Tree {
        /// The folder or archive.
        path: PathBuf,
        /// Why, and the way out.
        reason: String,
    },
    /// A file that the tree does not have.
    #[error("there is no file `{file}` in {place}{hint}")]
    Missing {
        /// Path inside the tree.
        file: String,
        /// The tree.
        place: String,
        /// What is there instead; empty, or starting with `; `.
        hint: String,
    },
    /// The folder asked for by `inside` is not there.
    #[error("there is no folder `{inside}` in {place}: {near}")]
    NoFolder {
        /// The folder.
        inside: String,
        /// The tree.
        place: String,
        /// The nearest folder that exists and what it holds.
        near: String,
    },
    /// No picture was found.
    #[error("no pictures in {place}: looked for files ending in {extensions}; found {found}")]
    NoPictures {
        /// The tree.
        place: String,
        /// The endings looked for.
        extensions: String,
        /// What is there.
        found: String,
    },
    /// The tree is there but does not hold what this kind of dataset needs.
    #[error("{place}: {reason}")]
    Layout {
        /// The tree, or a file of it, with the line number where there is one.
        place: String,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// A file is not the one the manifest describes.
    #[error(
        "`{path}` of the dataset at {place} changed since it was hashed: expected {expected}, found {found}; \
         restore the file, or run again so that the dataset is hashed anew"
    )]
    Changed {
        /// The tree.
        place: String,
        /// Path inside the tree.
        path: String,
        /// Size or digest in the manifest.
        expected: String,
        /// Size or digest of the bytes read.
        found: String,
    },
}

/// What the system said, with the way out where there is one.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "it does not exist; look at the step's `path`, and for `@name/…` at the root in harness.toml".into()
        }
        io::ErrorKind::PermissionDenied => format!("{error}; make it readable for the user who runs this"),
        _ => error.to_string(),
    }
}

impl Error {
    /// Wraps what the operating system said about a file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io { doing, path, error }
    }

    /// The tree at `path` cannot be used.
    pub(crate) fn tree(path: &Path, reason: impl Into<String>) -> Self {
        Self::Tree { path: path.to_path_buf(), reason: reason.into() }
    }

    /// Something at `place` is not as this kind of dataset needs it.
    pub(crate) fn layout(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Layout { place: place.into(), reason: reason.into() }
    }
}
