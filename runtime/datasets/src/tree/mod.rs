//! A tree of files, whether it lies in a folder, a tar or a zip.
//!
//! Reading needs only `&self` and no lock: archives are indexed once and then read at offsets (`pread`), so several
//! threads read at the same time.

mod archive;
mod batch;
mod folder;

use std::path::{Path, PathBuf};

use harness_protocol::{Location, LocationForm};

use crate::error::Error;
use archive::Archive;
use batch::Batch;
pub(crate) use batch::shape as batch_shape;

/// One file of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeFile {
    /// Path relative to the tree's top, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// A tree of files that can be listed and read from several threads.
///
/// Hidden files (a path component that starts with `.`) and `__MACOSX` folders do not belong to it.
#[derive(Debug)]
pub struct Tree {
    location: Location,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The absolute path of the tree's top.
    Folder(PathBuf),
    Archive(Archive),
    /// One of CIFAR's binary batches.
    Batch(Batch),
    /// Trees side by side, under their numbers.
    Union(Vec<Tree>),
}

/// Finds out how the bytes at `path` lie: a folder, a `.tar` or a `.zip`.
///
/// # Errors
/// Nothing is there, or it is neither of the three.
pub fn locate(path: &Path) -> Result<Location, Error> {
    let data = std::fs::metadata(path).map_err(Error::io("open", path))?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let form = match ending.as_str() {
        _ if data.is_dir() => LocationForm::Folder,
        "tar" => LocationForm::Tar,
        "zip" => LocationForm::Zip,
        "tgz" | "gz" | "bz2" | "xz" | "zst" => {
            return Err(Error::tree(
                path,
                "compressed archives cannot be read at random; unpack it, or turn it into a plain .tar",
            ));
        }
        _ => return Err(Error::tree(path, "it is neither a folder nor a .tar nor a .zip")),
    };
    Ok(Location { path: path.to_path_buf(), form, ..Location::default() })
}

impl Tree {
    /// Opens the tree at `location`; a tar or zip is indexed once here.
    ///
    /// # Errors
    /// Nothing is there, the archive is broken, compressed or names files outside itself, or `location.prefix` is not a
    /// path inside the tree. That the prefix exists is not checked here: see [`Tree::list`].
    pub fn open(location: &Location) -> Result<Self, Error> {
        let path = &location.path;
        if location.form == LocationForm::Union {
            let parts = location.parts.iter().map(Self::open).collect::<Result<_, _>>()?;
            return Ok(Self { location: location.clone(), source: Source::Union(parts) });
        }
        let prefix = if location.prefix.is_empty() {
            String::new()
        } else {
            clean(&location.prefix).map_err(|why| Error::tree(path, format!("folder `{}`: {why}", location.prefix)))?
        };
        let data = std::fs::metadata(path).map_err(Error::io("open", path))?;
        let source = match location.form {
            LocationForm::Folder if !data.is_dir() => return Err(Error::tree(path, "it is a file, not a folder")),
            LocationForm::Tar | LocationForm::Zip if data.is_dir() => {
                return Err(Error::tree(path, "it is a folder, not an archive"));
            }
            LocationForm::Folder => {
                Source::Folder(std::path::absolute(path).map_err(Error::io("open", path))?.join(&prefix))
            }
            LocationForm::Tar => Source::Archive(Archive::tar(path)?),
            LocationForm::Zip => Source::Archive(Archive::zip(path)?),
            LocationForm::Batch => Source::Batch(Batch::open(path)?),
            LocationForm::File | LocationForm::Union => {
                return Err(Error::tree(path, "it is a single file, not a tree of files"));
            }
        };
        Ok(Self { location: Location { prefix, ..location.clone() }, source })
    }

    /// The same folder or archive with another folder of it as the top; an archive is not indexed again.
    ///
    /// # Errors
    /// `prefix` is not a path inside it.
    pub(crate) fn at(self, prefix: &str) -> Result<Self, Error> {
        let path = &self.location.path;
        let prefix = clean(prefix).map_err(|why| Error::tree(path, format!("folder `{prefix}`: {why}")))?;
        let source = match self.source {
            Source::Folder(_) => {
                Source::Folder(std::path::absolute(path).map_err(Error::io("open", path))?.join(&prefix))
            }
            other => other,
        };
        Ok(Self { location: Location { prefix, ..self.location }, source })
    }

    /// Where the tree lies, its prefix cleaned.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The tree in words, for messages.
    pub fn place(&self) -> String {
        if let Source::Union(parts) = &self.source {
            return parts.iter().map(Self::place).collect::<Vec<_>>().join(" and ");
        }
        match self.location.prefix.as_str() {
            "" => format!("`{}`", self.location.path.display()),
            prefix => format!("`{}` (folder `{prefix}`)", self.location.path.display()),
        }
    }

    /// Every file, sorted by path (by bytes). Empty when the prefix does not exist.
    ///
    /// # Errors
    /// A folder cannot be walked, a link in it leads nowhere, or a name is not UTF-8. Links that lead back to a folder
    /// above them are not followed.
    pub fn list(&self) -> Result<Vec<TreeFile>, Error> {
        match &self.source {
            Source::Folder(top) => folder::list(top),
            Source::Archive(archive) => Ok(archive.list(&self.location.prefix)),
            Source::Batch(batch) => Ok(batch.list()),
            Source::Union(parts) => {
                let mut files = Vec::new();
                for (number, part) in parts.iter().enumerate() {
                    let inner = part.list()?.into_iter();
                    files.extend(inner.map(|f| TreeFile { path: format!("{number}/{}", f.path), size: f.size }));
                }
                files.sort();
                Ok(files)
            }
        }
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// There is no such file, `path` leads out of the tree, or the bytes cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.read_start(path, u64::MAX)
    }

    /// The first `limit` bytes of a file, or all of them if it is shorter: enough for headers.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn read_start(&self, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let inside = clean(path).map_err(|why| Error::layout(self.place(), format!("path `{path}`: {why}")))?;
        let missing = || Error::Missing { file: path.into(), place: self.place(), hint: String::new() };
        match &self.source {
            Source::Folder(top) => folder::read(&top.join(inside), limit)?.ok_or_else(missing),
            Source::Archive(archive) => {
                let full = join(&self.location.prefix, &inside);
                archive.read(&full, limit)?.ok_or_else(missing)
            }
            Source::Batch(batch) => batch.read(&inside, limit)?.ok_or_else(missing),
            Source::Union(parts) => {
                let (part, rest) = part_of(parts, &inside).ok_or_else(missing)?;
                part.read_start(rest, limit)
            }
        }
    }

    /// For a folder, the absolute path of one of its files (it need not exist): what a table of sizes and times is
    /// keyed by. None for archives, whose own file ([`Location::path`]) is the one to watch.
    pub fn absolute(&self, path: &str) -> Option<PathBuf> {
        match &self.source {
            Source::Folder(top) => Some(top.join(clean(path).ok()?)),
            Source::Archive(_) | Source::Batch(_) => None,
            Source::Union(parts) => {
                let inside = clean(path).ok()?;
                let (part, rest) = part_of(parts, &inside)?;
                part.absolute(rest)
            }
        }
    }
}

/// The tree of a union that holds `path`, and the path in it.
fn part_of<'a, 'p>(parts: &'a [Tree], path: &'p str) -> Option<(&'a Tree, &'p str)> {
    let (number, rest) = path.split_once('/')?;
    Some((parts.get(number.parse::<usize>().ok()?)?, rest))
}

/// A relative path with `/`, without `.` and empty components.
///
/// # Errors
/// In words, when it is empty, absolute or has a `..`.
pub(crate) fn clean(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Err("absolute paths are refused; give it relative to the top of the tree".into());
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("`..` is refused; paths stay inside the tree".into()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Err("it is empty".into()) } else { Ok(parts.join("/")) }
}

/// `top/path`, or `path` alone when there is no top.
pub(crate) fn join(top: &str, path: &str) -> String {
    match (top, path) {
        ("", path) => path.into(),
        (top, "") => top.into(),
        (top, path) => format!("{top}/{path}"),
    }
}

/// Whether a path below the tree's top has a component that systems leave behind and people do not mean.
pub(crate) fn hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean("./a//b/./c"), Ok("a/b/c".into()));
        assert!(clean("../a").is_err());
        assert!(clean("a/../../b").is_err());
        assert!(clean("/etc/passwd").is_err());
        assert!(clean("").is_err());
        assert!(clean("./").is_err());
    }

    #[test]
    fn hidden_names() {
        assert!(hidden(".DS_Store"));
        assert!(hidden("a/._b.jpg"));
        assert!(hidden("__MACOSX/a.jpg"));
        assert!(!hidden("a.b/c.jpg"));
    }
}
