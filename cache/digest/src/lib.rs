//! The digest of a content: the names of blobs, keys and everything that is compared by content.
//!
//! A content of up to [`CHUNK`] bytes has the SHA-256 of its bytes, as `sha256sum` prints it. A longer one is cut into
//! chunks of [`CHUNK`] bytes (the last may be shorter), and its digest is
//!
//! ```text
//! SHA-512/256( "harness chunks 1\n" | length in bytes, 64 bits, big-endian | SHA-256 of each chunk, 32 bytes each )
//! ```
//!
//! so that all cores can hash one large file. The outer function differs from the inner one: the text that it hashes is
//! itself a possible content, and must not have the same digest as the large file that it stands for.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512_256};

/// Bytes of a chunk. Part of the definition: another value gives other digests.
pub const CHUNK: usize = 4 << 20;

/// What the outer hash begins with.
const DOMAIN: &[u8] = b"harness chunks 1\n";

/// Bytes read at a time: large enough that system calls do not show, small enough for the cache of a core.
const BUFFER: usize = 256 * 1024;

/// The digest of a content. Written everywhere as 64 lower-case hexadecimal digits.
///
/// The processor's SHA instructions are used where it has them (found out at run time).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`; on all cores where they are many.
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        if bytes.len() <= CHUNK {
            return Digest(Sha256::digest(bytes).into());
        }
        let chunks: Vec<[u8; 32]> = bytes.par_chunks(CHUNK).map(|chunk| Sha256::digest(chunk).into()).collect();
        join(bytes.len() as u64, &chunks)
    }

    /// The digest of everything that `reader` still gives.
    ///
    /// # Errors
    /// Whatever reading fails with; an interrupted read is tried again.
    pub fn of_reader(reader: impl Read) -> io::Result<Digest> {
        Digest::read_by(reader, BUFFER)
    }

    fn read_by(mut reader: impl Read, bytes: usize) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0u8; bytes];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest of the file's content, read on all cores where it is large. Always reads it.
    ///
    /// # Errors
    /// Opening or reading the file.
    pub fn of_file(path: &Path) -> io::Result<Digest> {
        Digest::of_open(&File::open(path)?)
    }

    /// The digest of an open file's content from its beginning, as [`Digest::of_file`].
    ///
    /// # Errors
    /// Reading the file; [`io::ErrorKind::UnexpectedEof`] where it gets shorter meanwhile.
    pub fn of_open(file: &File) -> io::Result<Digest> {
        let metadata = file.metadata()?;
        let length = metadata.len();
        if !metadata.is_file() || length <= CHUNK as u64 {
            // One more than expected, so that the end shows in the first look; there are many tiny files.
            return Digest::read_by(file, (length as usize).saturating_add(1).clamp(512, BUFFER));
        }
        let chunks: Vec<[u8; 32]> = (0..length.div_ceil(CHUNK as u64))
            .into_par_iter()
            .map_init(
                || vec![0u8; BUFFER],
                |buffer, index| {
                    let (mut at, end) = (index * CHUNK as u64, length.min((index + 1) * CHUNK as u64));
                    let mut hash = Sha256::new();
                    while at < end {
                        let wanted = buffer.len().min((end - at) as usize);
                        file.read_exact_at(&mut buffer[..wanted], at)?;
                        hash.update(&buffer[..wanted]);
                        at += wanted as u64;
                    }
                    Ok(hash.finalize().into())
                },
            )
            .collect::<io::Result<_>>()?;
        Ok(join(length, &chunks))
    }

    /// The first 12 digits: enough to tell results apart on a screen, never enough to find one.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

fn join(length: u64, chunks: &[[u8; 32]]) -> Digest {
    let mut outer = Sha512_256::new();
    outer.update(DOMAIN);
    outer.update(length.to_be_bytes());
    chunks.iter().for_each(|chunk| outer.update(chunk));
    Digest(outer.finalize().into())
}

/// Takes a content piece by piece, for bytes that are hashed while they are written. Also a [`Write`].
#[derive(Clone, Default)]
pub struct Hasher {
    /// Of the chunk that is not yet full.
    open: Sha256,
    filled: usize,
    length: u64,
    chunks: Vec<[u8; 32]>,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            // A chunk is closed by the byte after it, since a content of exactly one chunk has none.
            if self.filled == CHUNK {
                self.chunks.push(std::mem::take(&mut self.open).finalize().into());
                self.filled = 0;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            self.open.update(now);
            self.filled += now.len();
            bytes = rest;
        }
    }

    /// The digest of all that was taken.
    pub fn finish(mut self) -> Digest {
        let last = self.open.finalize().into();
        if self.chunks.is_empty() {
            return Digest(last);
        }
        self.chunks.push(last);
        join(self.length, &self.chunks)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: a digest is 64 hexadecimal digits in lower case")]
pub struct NotADigest(pub String);

impl FromStr for Digest {
    type Err = NotADigest;

    /// Accepts lower case only, so that a digest has one spelling and one file name.
    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        let mut bytes = [0u8; 32];
        let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
            return Err(NotADigest(text.to_owned()));
        }
        Ok(Digest(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a short period.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn known_digests() {
        // FIPS 180-2, appendix B.1, and the empty message.
        assert_eq!(
            Digest::of_bytes(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::of_bytes(b"").short(), "e3b0c44298fc");
        // From golden.py beside this crate.
        for (length, expected) in [
            (CHUNK, "513fab63adf64b3fb0399b786e47f98f256631223c25cd5a4fa303035f4eb81c"),
            (CHUNK + 1, "affafe4c97ee3661e7372f38d9453b411e4ddb6a47147cbcc9fc27f6a68305c0"),
            (3 * CHUNK, "78d41131ef1fcc8d5e2fcb1e6c511b3a2ad26e9d76b03562518d37ecb7efac08"),
            (3 * CHUNK + 12_345, "ca5bc0bbc8d770189faf7a6f11ea045fcd67e12f52c56623f8f4f9bb3114e421"),
        ] {
            assert_eq!(Digest::of_bytes(&bytes(length)).to_string(), expected, "{length}");
        }
    }

    #[test]
    fn every_way_gives_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 5, BUFFER + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let bytes = bytes(length);
            let expected = Digest::of_bytes(&bytes);
            assert_eq!(Digest::of_reader(&bytes[..]).unwrap(), expected, "{length}");
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Digest::of_file(&path).unwrap(), expected, "{length}");
            for piece in [4099, CHUNK, CHUNK + 3] {
                let mut hasher = Hasher::default();
                bytes.chunks(piece).for_each(|piece| hasher.update(piece));
                assert_eq!(hasher.finish(), expected, "{length} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_stands_for_a_long_content_is_not_taken_for_it() {
        let long = bytes(CHUNK + 1);
        let mut text = DOMAIN.to_vec();
        text.extend((long.len() as u64).to_be_bytes());
        long.chunks(CHUNK).for_each(|chunk| text.extend(Digest::of_bytes(chunk).0));
        assert_ne!(Digest::of_bytes(&text), Digest::of_bytes(&long));
        // Nor does a cut at another place, or a zero at the end, go unseen.
        assert_ne!(Digest::of_bytes(&[&long[..], &[0]].concat()), Digest::of_bytes(&long));
    }

    #[test]
    fn text_round_trip() {
        let digest = Digest::of_bytes(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        for wrong in ["", "abc", &digest.to_string().to_uppercase(), &format!("{digest}0"), &"é".repeat(32)] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
