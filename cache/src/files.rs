//! Small steps on the file system that every other module needs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error};

/// Makes a name in `folder` outlive a power cut: a rename or a creation is safe once its folder is.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|file| file.sync_all()).at("write the folder", folder)
}

/// Creates the subfolder of `parent` that holds names starting like `name`; with whether it is new.
pub(crate) fn shard(parent: &Path, name: &str) -> Result<(PathBuf, bool), Error> {
    let folder = parent.join(&name[..2]);
    match fs::create_dir(&folder) {
        Ok(()) => Ok((folder, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((folder, false)),
        Err(error) => Err(Error::io("create the folder", &folder, error)),
    }
}

/// Makes a file read-only for everybody.
pub(crate) fn make_read_only(file: &File, path: &Path) -> Result<(), Error> {
    file.set_permissions(fs::Permissions::from_mode(0o444)).at("protect", path)
}

/// `None` where there is no such thing.
pub(crate) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a failed attempt to read says that the file itself is broken, and not that this process lacks rights, memory or
/// file numbers, or that the whole disk or its connection is gone.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let broken = [Errno::IO, Errno::LOOP, Errno::NOTDIR, Errno::ISDIR, Errno::BADMSG, Errno::UCLEAN];
    error.raw_os_error().is_some_and(|code| broken.iter().any(|errno| errno.raw_os_error() == code))
}

/// The entries of a folder in the order of their names; none where the folder is missing.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let Some(found) = present(fs::read_dir(folder)).at("read the folder", folder)? else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in found {
        paths.push(entry.at("read the folder", folder)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The entries of all shards of a folder such as `blobs/`, in the order of their names.
pub(crate) fn sharded_entries(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for folder in entries(parent)? {
        if folder.is_dir() {
            paths.extend(entries(&folder)?);
        }
    }
    Ok(paths)
}

/// Bytes of everything below `path`, links not followed.
pub(crate) fn size_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    entries(path).unwrap_or_default().iter().map(|entry| size_below(entry)).sum()
}

/// Removes a file or a folder with all it holds; no error where there is none.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let Some(metadata) = present(fs::symlink_metadata(path)).at("remove", path)? else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    present(removed).at("remove", path)?;
    Ok(())
}
