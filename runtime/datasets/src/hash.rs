//! Digests of a tree's files.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::tree::Tree;

/// Finds the digests of a tree's files, perhaps from a table of those it has seen before.
pub trait FileHasher {
    /// Hexadecimal SHA-256 of the bytes of each path, in the order of `paths`.
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

/// Hexadecimal SHA-256 of some bytes, 64 characters.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
