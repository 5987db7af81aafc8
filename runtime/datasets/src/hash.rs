//! Digests of a tree's files.

use harness_digest::{Digest, Hasher};
use rayon::prelude::*;
use std::io::{self, Read};

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

/// Reads through, and hashes what goes by: a large file is then read once and never held.
#[derive(Debug)]
pub struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    /// Around a reader that is at its beginning.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Reads what is left, and gives the hexadecimal digest of everything.
    ///
    /// # Errors
    /// The reader's.
    pub fn digest(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish().to_string())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}

/// Hexadecimal digest of some bytes as `harness-digest` defines it, 64 characters: their SHA-256 unless they are many.
pub fn digest(bytes: &[u8]) -> String {
    Digest::of_bytes(bytes).to_string()
}
