//! The one tar that holds all generated files, written so that the same files give the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use harness_digest::Hasher;
use harness_protocol::manifest::FileEntry;

use crate::error::Error;
use crate::hash::digest;

/// A generated file: where it goes and its bytes.
pub(crate) struct Packed {
    pub entry: FileEntry,
    pub bytes: Vec<u8>,
}

impl Packed {
    pub fn new(path: String, bytes: Vec<u8>) -> Self {
        Self { entry: FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) }, bytes }
    }
}

/// A tar being written: plain USTAR, times and owners zero, members in the order they are added.
pub(crate) struct Pack<'a> {
    path: &'a Path,
    tar: tar::Builder<Hashed<BufWriter<File>>>,
}

impl<'a> Pack<'a> {
    pub fn create(path: &'a Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("write", path))?;
        Ok(Self { path, tar: tar::Builder::new(Hashed { inner: BufWriter::new(file), hash: Hasher::default() }) })
    }

    pub fn add(&mut self, file: &Packed) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header.set_size(file.entry.size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        self.tar
            .append_data(&mut header, &file.entry.path, file.bytes.as_slice())
            .map_err(Error::io("write", self.path))
    }

    /// Ends the tar; gives the digest of its bytes.
    pub fn finish(self) -> Result<String, Error> {
        let write = |e| Error::io("write", self.path)(e);
        let mut hashed = self.tar.into_inner().map_err(write)?;
        hashed.flush().map_err(write)?;
        Ok(hashed.hash.finish().to_string())
    }
}

/// Hashes what is written through it.
struct Hashed<W> {
    inner: W,
    hash: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
