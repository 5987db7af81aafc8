//! Reading the files of a manifest, each checked against what the manifest says of it.

use harness_protocol::Location;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::FileEntry;

use crate::error::Error;
use crate::hash::digest;
use crate::tree::Tree;

/// Reads files of a dataset and vouches for their bytes. Shared by threads.
#[derive(Debug)]
pub struct Reader {
    tree: Tree,
}

impl Reader {
    /// Opens the files that a manifest lists.
    ///
    /// # Errors
    /// The input has no place for its files, or it cannot be opened ([`Tree::open`]).
    pub fn new(input: &InputFiles) -> Result<Self, Error> {
        match &input.data {
            Some(location) => Self::open(location),
            None => Err(Error::tree(&input.file, "nothing says where the files that this manifest lists lie")),
        }
    }

    /// Opens the files at a location.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn open(location: &Location) -> Result<Self, Error> {
        Ok(Self { tree: Tree::open(location)? })
    }

    /// The tree that is read from.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// All bytes of a file, whose size and SHA-256 are those of the manifest.
    ///
    /// # Errors
    /// The file cannot be read, or [`Error::Changed`]: it is not the one that was hashed.
    pub fn read_verified(&self, entry: &FileEntry) -> Result<Vec<u8>, Error> {
        let changed = |expected: String, found: String| Error::Changed {
            place: self.tree.place(),
            path: entry.path.clone(),
            expected,
            found,
        };
        let bytes = self.tree.read(&entry.path)?;
        if bytes.len() as u64 != entry.size {
            return Err(changed(format!("{} bytes", entry.size), format!("{} bytes", bytes.len())));
        }
        let found = digest(&bytes);
        if found != entry.digest {
            return Err(changed(format!("SHA-256 {}", entry.digest), found));
        }
        Ok(bytes)
    }
}
