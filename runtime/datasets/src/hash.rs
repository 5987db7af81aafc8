//! Digests of a tree's files.

use harness_digest::Digest;
use rayon::prelude::*;

use crate::error::Error;
use crate::tree::Tree;

/// Finds the digests of a tree's files, perhaps from a table of those it has seen before.
pub trait FileHasher {
    /// Hexadecimal digest (as `harness-digest` defines it) of the bytes of each path, in the order of `paths`.
    ///
    /// # Errors
    /// A file cannot be read.
    fn digests(&self, tree: &Tree, paths: &[String]) -> Result<Vec<String>, Error>;
}

/// Reads and hashes every file, several at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParallelHasher;

impl FileHasher for ParallelHasher {
    fn digests(&self, tree: &Tree, paths: &[String]) -> Result<Vec<String>, Error> {
        paths.par_iter().map(|path| Ok(digest(&tree.read(path)?))).collect()
    }
}

/// Hexadecimal digest of some bytes as `harness-digest` defines it, 64 characters: their SHA-256 unless they are many.
pub fn digest(bytes: &[u8]) -> String {
    Digest::of_bytes(bytes).to_string()
}
