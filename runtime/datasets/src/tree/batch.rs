//! One of CIFAR's binary batches as a tree: a picture at a fixed place for each `00042.ppm`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::TreeFile;
use crate::error::Error;

/// Pixels of a plane.
const PLANE: usize = 32 * 32;
/// What a picture starts with once it is a file of its own: a portable pixmap, colours side by side.
const HEADER: &[u8] = b"P6\n32 32\n255\n";

/// An open batch.
#[derive(Debug)]
pub(super) struct Batch {
    path: PathBuf,
    file: File,
    records: u64,
    /// Label bytes before the pixels of a record: one in CIFAR-10, two in CIFAR-100.
    labels: u64,
}

/// How many records a batch of `length` bytes has, and how many label bytes each; none where it is no batch.
pub(crate) fn shape(length: u64) -> Option<(u64, u64)> {
    [1, 2].into_iter().find_map(|labels| {
        let record = labels + 3 * PLANE as u64;
        (length > 0 && length.is_multiple_of(record)).then_some((length / record, labels))
    })
}

impl Batch {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("examine", path))?.len();
        let Some((records, labels)) = shape(length) else {
            let why = format!("its {length} bytes are no whole number of pictures of 32 x 32; fetch it again");
            return Err(Error::tree(path, why));
        };
        Ok(Self { path: path.to_path_buf(), file, records, labels })
    }

    pub(super) fn list(&self) -> Vec<TreeFile> {
        let size = (HEADER.len() + 3 * PLANE) as u64;
        (0..self.records).map(|index| TreeFile { path: format!("{index:05}.ppm"), size }).collect()
    }

    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let index = name.strip_suffix(".ppm").and_then(|number| number.parse::<u64>().ok());
        let Some(index) = index.filter(|index| *index < self.records) else { return Ok(None) };
        let mut planes = [0; 3 * PLANE];
        let offset = index * (self.labels + 3 * PLANE as u64) + self.labels;
        self.file.read_exact_at(&mut planes, offset).map_err(Error::io("read", &self.path))?;
        let mut bytes = HEADER.to_vec();
        // Red, green and blue lie one plane after the other.
        bytes.extend((0..PLANE).flat_map(|at| [planes[at], planes[PLANE + at], planes[2 * PLANE + at]]));
        bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Some(bytes))
    }
}
