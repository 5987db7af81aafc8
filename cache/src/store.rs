//! The content store: immutable blobs named by their digest, and the digests of other people's files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::Digest;
use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::files::{is_damage, make_read_only, present, shard};
use crate::index::Table;
use crate::stamp::{Look, Stamp};

/// Fewer files are looked at by one thread: waking the others takes longer.
const FEW: usize = 16;

impl Cache {
    /// Stores bytes; gives their digest and size. Storing them again costs no space. As everything stored, they outlive
    /// a power cut after the next [`Cache::commit`].
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), Error> {
        let digest = Digest::of_bytes(bytes);
        if self.verified(&digest)?.is_none() {
            let mut temporary = self.temp_file()?;
            let path = temporary.path().to_owned();
            temporary.write_all(bytes).at("write", &path)?;
            self.publish(temporary, &digest)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Stores a copy of a file (sharing its blocks where the file system can); gives its digest and size. The digest
    /// is that of the copy, so a file that changes meanwhile cannot poison the store.
    ///
    /// # Errors
    /// [`Error::NotAFile`]; the file cannot be read; the store cannot be written.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let metadata = regular(path)?;
        if let Some(digest) = self.remembered(&metadata)
            && self.verified(&digest)?.is_some()
        {
            return Ok((digest, metadata.len()));
        }
        let mut source = File::open(path).at("read", path)?;
        let mut temporary = self.temp_file()?;
        let place = temporary.path().to_owned();
        // Uses copy_file_range, and so shares blocks on file systems that can.
        let size = io::copy(&mut source, temporary.as_file_mut()).at("copy to the cache", path)?;
        let digest = Digest::of_file(&place).at("read", &place)?;
        if self.verified(&digest)?.is_none() {
            self.publish(temporary, &digest)?;
        }
        Ok((digest, size))
    }

    /// Like [`Cache::put_file`], and the file is gone afterwards: on the cache's own file system it is renamed, not
    /// copied. For files that nobody has open for writing any more, such as a step's outputs in its work folder.
    ///
    /// # Errors
    /// As [`Cache::put_file`].
    pub fn take_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let metadata = fs::symlink_metadata(path).at("read", path)?;
        let store = fs::metadata(self.dir()).at("read", self.dir())?;
        // A second name of the same file could still be used to change it.
        if metadata.is_file() && metadata.nlink() == 1 && metadata.dev() == store.dev() {
            let file = File::open(path).at("read", path)?;
            make_read_only(&file, path)?;
            let digest = self.file_digest(path)?;
            if self.verified(&digest)?.is_none() {
                let target = self.blob_folder(&digest)?.join(digest.to_string());
                fs::rename(path, &target).at("move to the cache", path)?;
                self.settle(target);
                return Ok((digest, metadata.len()));
            }
            fs::remove_file(path).at("remove", path)?;
            return Ok((digest, metadata.len()));
        }
        let stored = self.put_file(path)?;
        fs::remove_file(path).at("remove", path)?;
        Ok(stored)
    }

    /// Takes a file that came from elsewhere, if it has the digest that it should have; whether it has. It must lie on the
    /// cache's own file system, such as in [`Cache::temp_dir`], and nobody else may write to it; where the answer is no it
    /// stays where it is.
    ///
    /// # Errors
    /// The file cannot be read; the store cannot be written.
    pub fn receive(&self, path: &Path, digest: &Digest) -> Result<bool, Error> {
        let file = File::open(path).at("read", path)?;
        make_read_only(&file, path)?;
        if Digest::of_open(&file).at("read", path)? != *digest {
            return Ok(false);
        }
        if self.verified(digest)?.is_none() {
            let target = self.blob_folder(digest)?.join(digest.to_string());
            fs::rename(path, &target).at("move to the cache", path)?;
            self.settle(target);
        }
        Ok(true)
    }

    /// Where a blob lies, if it is there. Says nothing of its content: see [`Cache::verified`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<PathBuf>, Error> {
        let path = self.blob_path(digest);
        Ok(present(fs::symlink_metadata(&path)).at("read", &path)?.map(|_| path))
    }

    /// Where a blob lies, if it is there and its content has its digest. Reads it only when `stat` shows a state not
    /// seen before. A corrupt blob is moved to `quarantine/`, noted, and answers `None`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn verified(&self, digest: &Digest) -> Result<Option<PathBuf>, Error> {
        let path = self.blob_path(digest);
        match self.file_digest(&path) {
            Ok(found) if found == *digest => Ok(Some(path)),
            Ok(_) | Err(Error::Changed { .. } | Error::NotAFile { .. }) => {
                self.quarantine(digest)?;
                Ok(None)
            }
            Err(Error::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Error::Io { why, .. }) if is_damage(&why) => {
                self.set_aside(digest, &why);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A blob's content, always hashed anew. A corrupt blob is moved to `quarantine/`, noted, and answers `None`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let intact = match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Digest::of_bytes(&bytes) == *digest,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => false,
            Err(error) if is_damage(&error) => {
                self.set_aside(digest, &error);
                return Ok(None);
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        if !intact {
            self.quarantine(digest)?;
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// The digest of any regular file. Answers from the stat table (device, inode, size, both times) when the file
    /// is in a state whose content was hashed before, at least two seconds after its last change.
    ///
    /// # Errors
    /// [`Error::NotAFile`]; [`Error::Changed`] when it changes while being read; it cannot be read.
    pub fn file_digest(&self, path: &Path) -> Result<Digest, Error> {
        Ok(self.look(path)?.digest)
    }

    /// A file's digest as [`Cache::file_digest`] gives it, with the state it was found in, for [`Cache::unchanged`].
    ///
    /// # Errors
    /// As [`Cache::file_digest`].
    pub fn look(&self, path: &Path) -> Result<Look, Error> {
        let look = self.look_now(path);
        match &look {
            Ok(look) => self.trace().file(path, look.stamp, if look.settled { SystemTime::now() } else { UNIX_EPOCH }),
            Err(_) => self.trace().absent(path),
        }
        look
    }

    fn look_now(&self, path: &Path) -> Result<Look, Error> {
        let metadata = regular(path)?;
        if let Some(digest) = self.remembered(&metadata) {
            return Ok(Look { digest, stamp: Stamp::of(&metadata), settled: true });
        }
        let file = File::open(path).at("read", path)?;
        // The look is dated before the reading, and the state is taken on both sides of it.
        let now = SystemTime::now();
        let before = Stamp::of(&file.metadata().at("read", path)?);
        let found = Digest::of_open(&file);
        if Stamp::of(&file.metadata().at("read", path)?) != before {
            return Err(Error::Changed { path: path.to_owned() });
        }
        let digest = found.at("read", path)?;
        let settled = before.settled(now);
        // Nothing is known for sure of a file that a power cut could still take back.
        if settled && !self.unsynced().has(path) {
            self.put(Table::Stamps, &before.identity(), &before.entry(&digest));
        }
        Ok(Look { digest, stamp: before, settled })
    }

    /// [`Cache::look`] at many files, on all cores, in the order of `paths`.
    ///
    /// # Errors
    /// That of the first file in the order of `paths` that has one.
    pub fn looks(&self, paths: &[PathBuf]) -> Result<Vec<Look>, Error> {
        if paths.len() < FEW {
            return paths.iter().map(|path| self.look(path)).collect();
        }
        paths.par_iter().map(|path| self.look(path)).collect::<Vec<_>>().into_iter().collect()
    }

    /// Whether nobody wrote to a file since a look, be it to write the same bytes, as far as `stat` shows it. Reads it
    /// only when the look came so soon after the file's last change that a change could hide in the clock's grain.
    ///
    /// # Errors
    /// It is gone, no file any more, or cannot be read.
    pub fn unchanged(&self, path: &Path, look: &Look) -> Result<bool, Error> {
        let now = Stamp::of(&regular(path)?);
        if now != look.stamp || look.settled {
            return Ok(now == look.stamp);
        }
        match self.file_digest(path) {
            Ok(digest) => Ok(digest == look.digest),
            Err(Error::Changed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// [`Cache::file_digest`] of many files on `threads` threads (0: one per core), in the order of `paths`.
    ///
    /// # Errors
    /// That of the first file in the order of `paths` that has one.
    pub fn file_digests(&self, paths: &[PathBuf], threads: usize) -> Result<Vec<Digest>, Error> {
        let all = || paths.par_iter().map(|path| self.file_digest(path)).collect::<Vec<_>>();
        if threads == 0 {
            return all().into_iter().collect();
        }
        let results = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => pool.install(all),
            // No threads to be had: slower, not wrong.
            Err(_) => paths.iter().map(|path| self.file_digest(path)).collect(),
        };
        results.into_iter().collect()
    }

    /// The first of some files that somebody wrote to since it was looked at, by its position; one that is gone or
    /// cannot be read counts as written to. See [`Cache::unchanged`].
    pub fn first_changed(&self, files: &[(PathBuf, Look)]) -> Option<usize> {
        let changed = |(path, look): &(PathBuf, Look)| !matches!(self.unchanged(path, look), Ok(true));
        if files.len() < FEW { files.iter().position(changed) } else { files.par_iter().position_first(changed) }
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir().join("blobs").join(&name[..2]).join(name)
    }

    /// Moves a blob that is not what its name says out of the way.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.blob_path(digest);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let target = self.dir().join("quarantine").join(format!("{digest}-{now}"));
        // Another process may have been quicker.
        if present(fs::rename(&path, &target)).at("move to quarantine", &path)?.is_some() {
            self.note(format!(
                "the stored file {} is corrupt: its content does not have its digest; moved to {}",
                path.display(),
                target.display()
            ));
        }
        Ok(())
    }

    /// Deals with a blob that cannot be read: away with it where that can be, and a word in any case. It counts as absent, so
    /// what made it runs again; other results are not touched.
    pub(crate) fn set_aside(&self, digest: &Digest, why: &io::Error) {
        self.note(format!(
            "the stored file {} cannot be read ({why}) and counts as lost; look at the disk",
            self.blob_path(digest).display()
        ));
        // Where it cannot be moved either, the next one to store it says so.
        let _ = self.quarantine(digest);
    }

    fn remembered(&self, metadata: &fs::Metadata) -> Option<Digest> {
        let stamp = Stamp::of(metadata);
        stamp.digest_in(&self.get(Table::Stamps, &stamp.identity())?)
    }

    fn temp_file(&self) -> Result<tempfile::NamedTempFile, Error> {
        let folder = self.dir().join("tmp");
        tempfile::NamedTempFile::new_in(&folder).at("create a file in", &folder)
    }

    fn blob_folder(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let parent = self.dir().join("blobs");
        let (folder, new) = shard(&parent, &digest.to_string())?;
        if new {
            self.unsynced().add(parent);
        }
        Ok(folder)
    }

    /// Gives a complete temporary file its name.
    fn publish(&self, temporary: tempfile::NamedTempFile, digest: &Digest) -> Result<(), Error> {
        let place = temporary.path().to_owned();
        make_read_only(temporary.as_file(), &place)?;
        let target = self.blob_folder(digest)?.join(digest.to_string());
        temporary.persist(&target).map_err(|error| Error::io("create", &target, error.error))?;
        self.settle(target);
        Ok(())
    }

    /// Leaves a new blob and its folder to the next commit.
    fn settle(&self, target: PathBuf) {
        if let Some(folder) = target.parent() {
            self.unsynced().add(folder.to_owned());
        }
        self.unsynced().add(target);
    }
}

fn regular(path: &Path) -> Result<fs::Metadata, Error> {
    let metadata = fs::metadata(path).at("read", path)?;
    if metadata.is_file() { Ok(metadata) } else { Err(Error::NotAFile { path: path.to_owned() }) }
}
