//! Trees that lie in a folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use walkdir::WalkDir;

use super::{TreeFile, hidden};
use crate::error::Error;

/// Every file below `top`, sorted; none if there is no such folder.
pub(super) fn list(top: &Path) -> Result<Vec<TreeFile>, Error> {
    if !top.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    let visible = |entry: &walkdir::DirEntry| entry.depth() == 0 || !hidden(&entry.file_name().to_string_lossy());
    for entry in WalkDir::new(top).follow_links(true).into_iter().filter_entry(visible) {
        let entry = match entry {
            Ok(entry) => entry,
            // A link to a folder above itself: everything below it is already in the list.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => {
                let path = error.path().unwrap_or(top).to_path_buf();
                // Entries that `filter_entry` never saw because the link could not be followed.
                if path.file_name().is_some_and(|name| hidden(&name.to_string_lossy())) {
                    continue;
                }
                let dangling = path.is_symlink() && !path.exists();
                let error: io::Error = error.into();
                return Err(if dangling {
                    Error::tree(&path, "it is a link that leads nowhere; mend or remove it")
                } else {
                    Error::Io { doing: "list", path, error }
                });
            }
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let below = entry.path().strip_prefix(top).unwrap_or(entry.path());
        let Some(path) = below.to_str() else {
            return Err(Error::tree(entry.path(), "its name is not UTF-8; rename it"));
        };
        let size = entry.metadata().map_err(|e| Error::Io {
            doing: "examine",
            path: entry.path().to_path_buf(),
            error: e.into(),
        })?;
        files.push(TreeFile { path: path.to_owned(), size: size.len() });
    }
    files.sort();
    Ok(files)
}

/// The first bytes of a file; none if there is no such file.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let data = file.metadata().map_err(Error::io("examine", path))?;
    if !data.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len().min(limit).min(1 << 28)).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}
