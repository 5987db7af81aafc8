//! Lines of files that grow: the events of a run, and what its programs print.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A longer line is passed over. No event is that long.
const LONGEST: usize = 4 << 20;
/// Bytes that one look reads at most, so that whoever looks can do something else meanwhile.
const ONCE: usize = 8 << 20;

/// A file that is read as it grows. It need not be there yet.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
    /// Whether the rest of the line is passed over.
    skipping: bool,
    /// Bytes from its end where reading begins; all of it without.
    last: Option<u64>,
}

impl Tail {
    /// From its beginning.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, partial: Vec::new(), skipping: false, last: None }
    }

    /// From so many bytes before its end as it stands when it is first seen.
    pub fn last(path: PathBuf, bytes: u64) -> Self {
        Self { last: Some(bytes), ..Self::new(path) }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives each whole line that came since the last look to `take`; whether there is more to read at once.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(&mut self, take: &mut dyn FnMut(&str)) -> std::io::Result<bool> {
        if self.file.is_none() {
            let mut file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if let Some(last) = self.last {
                let length = file.metadata()?.len();
                if length > last {
                    file.seek(SeekFrom::Start(length - last))?;
                    // It begins somewhere in a line.
                    self.skipping = true;
                }
            }
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut chunk = vec![0; 64 << 10];
        let mut taken = 0;
        while taken < ONCE {
            let read = match file.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            taken += read;
            let mut rest = &chunk[..read];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, after) = rest.split_at(end);
                if self.skipping {
                    self.skipping = false;
                } else if self.partial.is_empty() {
                    take(&String::from_utf8_lossy(line));
                } else {
                    self.partial.extend_from_slice(line);
                    if self.partial.len() <= LONGEST {
                        take(&String::from_utf8_lossy(&self.partial));
                    }
                }
                self.partial.clear();
                rest = &after[1..];
            }
            if !self.skipping {
                self.partial.extend_from_slice(rest);
            }
            if self.partial.len() > LONGEST {
                self.skipping = true;
                self.partial = Vec::new();
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn lines(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        while tail.read(&mut |line| lines.push(line.to_string())).unwrap() {}
        lines
    }

    #[test]
    fn lines_come_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut tail = Tail::new(path.clone());
        assert!(lines(&mut tail).is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines(&mut tail), ["one"]);
        // A letter of two bytes comes in two parts.
        file.write_all(b"o\n\nthr\xc3").unwrap();
        assert_eq!(lines(&mut tail), ["two", ""]);
        file.write_all(b"\xa9e\n").unwrap();
        assert_eq!(lines(&mut tail), ["thr\u{e9}e"]);
    }

    #[test]
    fn the_end_of_a_long_file_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "first line\nsecond\nthird\n").unwrap();
        assert_eq!(lines(&mut Tail::last(path.clone(), 10)), ["third"]);
        assert_eq!(lines(&mut Tail::last(path.clone(), 100)).len(), 3);
        // A line without end takes no memory without end.
        std::fs::write(&path, [vec![b'x'; LONGEST + 10], b"\nnext\n".to_vec()].concat()).unwrap();
        let mut tail = Tail::new(path);
        assert_eq!(lines(&mut tail), ["next"]);
    }
}
