//! Trees inside an uncompressed tar or a zip: one pass over the headers, then reads at offsets without a lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use zip::CompressionMethod;

use super::{TreeFile, clean, hidden};
use crate::error::Error;

/// Longest chain of links inside a tar that is followed.
const MAX_LINKS: usize = 16;

/// Where the bytes of a member lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    /// Bytes in the archive.
    stored: u64,
    /// Bytes of the file.
    size: u64,
    deflated: bool,
}

/// An open archive and where its members lie.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    members: BTreeMap<String, Place>,
}

impl Archive {
    /// Indexes an uncompressed tar. Of members with the same name the last counts, as when unpacking.
    pub(super) fn tar(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::tree(path, reason);
        let broken = |e: io::Error| bad(format!("the tar is damaged, or it is no tar: {e}"));
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("examine", path))?.len();
        refuse_compressed(path, &file)?;
        let mut members = BTreeMap::new();
        let mut links = BTreeMap::new();
        // Headers are read one by one with a seek over the bytes between them.
        let mut archive = tar::Archive::new(file.try_clone().map_err(Error::io("open", path))?);
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let kind = entry.header().entry_type();
            let raw = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(&raw) else {
                return Err(bad(format!("member `{}` is not named in UTF-8", String::from_utf8_lossy(&raw))));
            };
            if kind.is_dir() {
                continue;
            }
            let name = clean(name).map_err(|why| bad(format!("member `{name}`: {why}")))?;
            if kind.is_gnu_sparse() {
                return Err(bad(format!("member `{name}` is stored sparse; pack the tar again without --sparse")));
            } else if kind.is_file() || kind.is_contiguous() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|end| end > length) {
                    return Err(bad(format!("the tar ends in the middle of `{name}`; it was cut short")));
                }
                links.remove(&name);
                members.insert(name, Place { offset, stored: size, size, deflated: false });
            } else if kind.is_hard_link() || kind.is_symlink() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let base = if kind.is_symlink() { parent(&name) } else { "" };
                members.remove(&name);
                links.insert(name.clone(), (resolve(base, &target), target));
            }
        }
        for (name, (first, target)) in links.iter().filter(|(name, _)| !hidden(name)) {
            let mut place = first.clone();
            for _ in 0..MAX_LINKS {
                match place.as_ref().and_then(|p| links.get(p)) {
                    Some((next, _)) => place = next.clone(),
                    None => break,
                }
            }
            let Some(found) = place.and_then(|p| members.get(&p).copied()) else {
                return Err(bad(format!(
                    "member `{name}` is a link to `{target}`, which is no file of the archive; \
                     pack it again with the files instead of links (tar --dereference --hard-dereference)"
                )));
            };
            members.insert(name.clone(), found);
        }
        Ok(Self { path: path.to_path_buf(), file, members })
    }

    /// Indexes a zip with stored or deflated members.
    pub(super) fn zip(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::tree(path, reason);
        let broken = |e: zip::result::ZipError| bad(format!("the zip is damaged, or it is no zip: {e}"));
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("examine", path))?.len();
        let mut archive =
            zip::ZipArchive::new(BufReader::new(file.try_clone().map_err(Error::io("open", path))?)).map_err(broken)?;
        let mut members = BTreeMap::new();
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(broken)?;
            let name = entry.name().map_err(broken)?.into_owned();
            if entry.is_dir() {
                continue;
            }
            let name = clean(&name).map_err(|why| bad(format!("member `{name}`: {why}")))?;
            if hidden(&name) {
                continue;
            }
            if entry.is_symlink() {
                return Err(bad(format!("member `{name}` is a link; pack the zip again with the file itself")));
            }
            if entry.encrypted() {
                return Err(bad(format!("member `{name}` is encrypted; unpack it")));
            }
            let deflated = match entry.compression() {
                CompressionMethod::Stored => false,
                CompressionMethod::Deflated => true,
                other => {
                    return Err(bad(format!(
                        "member `{name}` is compressed by {other}; only stored and deflated members can be read"
                    )));
                }
            };
            let (offset, stored, size) = (entry.data_start(), entry.compressed_size(), entry.size());
            let offset = offset.ok_or_else(|| bad(format!("the bytes of `{name}` cannot be found in the zip")))?;
            if offset.checked_add(stored).is_none_or(|end| end > length) || (!deflated && stored != size) {
                return Err(bad(format!("the zip says that `{name}` lies beyond its end; it is damaged")));
            }
            members.insert(name, Place { offset, stored, size, deflated });
        }
        Ok(Self { path: path.to_path_buf(), file, members })
    }

    /// Files below `prefix`, their paths relative to it.
    pub(super) fn list(&self, prefix: &str) -> Vec<TreeFile> {
        let top = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let below =
            self.members.range(top.clone()..).map_while(|(name, place)| Some((name.strip_prefix(&top)?, place)));
        below
            .filter(|(name, _)| !hidden(name))
            .map(|(name, place)| TreeFile { path: name.to_owned(), size: place.size })
            .collect()
    }

    /// The first bytes of a member; none if there is no such member.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(place) = self.members.get(name) else { return Ok(None) };
        let wanted = place.size.min(limit);
        let failed = Error::io("read", &self.path);
        if !place.deflated {
            let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
            self.file.read_exact_at(&mut bytes, place.offset).map_err(failed)?;
            return Ok(Some(bytes));
        }
        let source = Range { file: &self.file, at: place.offset, end: place.offset + place.stored };
        // The size comes from the archive's own directory, so it is not trusted with memory.
        let mut bytes = Vec::with_capacity(usize::try_from(wanted.min(1 << 24)).unwrap_or(0));
        DeflateDecoder::new(BufReader::new(source)).take(wanted).read_to_end(&mut bytes).map_err(failed)?;
        if (bytes.len() as u64) < wanted {
            return Err(Error::tree(
                &self.path,
                format!("member `{name}` ends after {} of {wanted} bytes; the zip is damaged", bytes.len()),
            ));
        }
        Ok(Some(bytes))
    }
}

/// Bytes of a file between two offsets, read without moving the file's own position.
struct Range<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Says what to do about a compressed tar instead of calling it damaged.
fn refuse_compressed(path: &Path, file: &File) -> Result<(), Error> {
    let mut start = [0; 6];
    let read = file.read_at(&mut start, 0).map_err(Error::io("read", path))?;
    let magics: [(&str, &[u8]); 4] = [
        ("gzip", &[0x1f, 0x8b]),
        ("bzip2", b"BZh"),
        ("xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]),
        ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    match magics.iter().find(|(_, magic)| start[..read].starts_with(magic)) {
        Some((name, _)) => Err(Error::tree(
            path,
            format!("it is compressed by {name}, so files cannot be read at random; uncompress it to a plain .tar"),
        )),
        None => Ok(()),
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The member that a link names; none if it leads out of the archive.
fn resolve(base: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
