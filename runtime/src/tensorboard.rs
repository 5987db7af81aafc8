//! Curves as event files that TensorBoard opens: a folder for each step, `DIR/<label>/events.out.tfevents.*`.
//!
//! The format is public and small: records of a length, a checksum of it, a message of Protocol Buffers and a checksum
//! of that (CRC-32C, rotated by 15 and offset, as TFRecord has it). The three messages that a scalar takes (`Event`,
//! `Summary`, `Summary.Value`) are written by hand below: a dozen lines, where the crates that exist bring a compiler of
//! the protocol and were last touched years ago. `testdata/tfevents.py` writes the same file with TensorBoard's own
//! library, byte by byte.
//!
//! TensorBoard's scalars are single precision and its steps whole numbers: a curve over fractions is numbered by its
//! points. The exact numbers are those of `harness export metrics`.

use crate::events::{Event, Status};
use crate::listen::Listener;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Added to the rotated checksum, so that a checksum of data with checksums in it is no trouble.
const MASK: u32 = 0xa282_ead8;
/// Letters of a folder's name at most.
const LONGEST: usize = 200;

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK)
}

/// One record.
fn record(out: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked(data).to_le_bytes())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes: a text or a message.
fn field(out: &mut Vec<u8>, number: u8, data: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

/// `Event { double wall_time = 1; int64 step = 2; … }` with the rest of it. What is 0 is not written.
fn event(wall_s: f64, step: i64, number: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if wall_s != 0.0 {
        out.push(1 << 3 | 1);
        out.extend_from_slice(&wall_s.to_le_bytes());
    }
    if step != 0 {
        out.push(2 << 3);
        varint(&mut out, step as u64);
    }
    field(&mut out, number, rest);
    out
}

/// A file of one step.
pub struct Writer<W: Write> {
    out: W,
    /// Points so far of the curves whose abscissae are fractions.
    counted: HashMap<String, i64>,
}

impl<W: Write> Writer<W> {
    /// Begins a file at a time, in seconds since 1970.
    ///
    /// # Errors
    /// It cannot be written, here as below.
    pub fn new(mut out: W, wall_s: f64) -> std::io::Result<Self> {
        record(&mut out, &event(wall_s, 0, 3, b"brain.Event:2"))?;
        Ok(Self { out, counted: HashMap::new() })
    }

    /// A point of a curve: `Summary { repeated Value value = 1 }`, `Value { string tag = 1; float simple_value = 2; }`.
    pub fn scalar(&mut self, wall_s: f64, name: &str, x: f64, y: f64) -> std::io::Result<()> {
        let step = if x.fract() == 0.0 && !self.counted.contains_key(name) && x.abs() < 9e15 {
            x as i64
        } else {
            let count = self.counted.entry(name.into()).or_default();
            *count += 1;
            *count - 1
        };
        let mut value = Vec::new();
        field(&mut value, 1, name.as_bytes());
        value.push(2 << 3 | 5);
        value.extend_from_slice(&(y as f32).to_le_bytes());
        let mut summary = Vec::new();
        field(&mut summary, 1, &value);
        record(&mut self.out, &event(wall_s, step, 5, &summary))
    }

    /// Hands everything on, so that a TensorBoard that is open sees it.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Files of steps, below one folder.
pub struct Folder {
    dir: PathBuf,
    taken: BTreeSet<String>,
}

impl Folder {
    /// Below `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), taken: BTreeSet::new() }
    }

    /// The file of a step that began at a time, in seconds since 1970. What another export left of it is replaced, so
    /// that no curve is shown twice.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&mut self, label: &str, wall_s: f64) -> std::io::Result<Writer<BufWriter<File>>> {
        // A label is shown as it is where a folder can be called so.
        let plain = |c: char| if c.is_alphanumeric() || "-_.=,[]() ".contains(c) { c } else { '_' };
        let name: String = label.chars().map(plain).take(LONGEST).collect();
        let name = if name.starts_with('.') { format!("_{name}") } else { name };
        let mut free = name.clone();
        let mut number = 2;
        while !self.taken.insert(free.clone()) {
            free = format!("{name}~{number}");
            number += 1;
        }
        let dir = self.dir.join(free);
        std::fs::create_dir_all(&dir)?;
        for old in std::fs::read_dir(&dir)?.flatten() {
            let name = old.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("events.out.tfevents.") && name.ends_with(".harness") {
                std::fs::remove_file(old.path())?;
            }
        }
        let file = File::create(dir.join(format!("events.out.tfevents.{:010}.harness", wall_s as u64)))?;
        Writer::new(BufWriter::new(file), wall_s)
    }
}

/// Writes the curves of a run while they grow: `harness run --tensorboard DIR`.
pub struct Board {
    folder: Folder,
    open: HashMap<usize, Writer<BufWriter<File>>>,
    broken: bool,
}

impl Board {
    /// Below `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { folder: Folder::new(dir), open: HashMap::new(), broken: false }
    }

    fn writer(&mut self, step: usize, label: &str) -> std::io::Result<&mut Writer<BufWriter<File>>> {
        if !self.open.contains_key(&step) {
            let writer = self.folder.file(label, now_s())?;
            self.open.insert(step, writer);
        }
        self.open.get_mut(&step).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn take(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Metric { step, label, name, x, y } => {
                let writer = self.writer(*step, label)?;
                writer.scalar(now_s(), name, *x, *y)?;
                writer.flush()
            }
            Event::StepFinished { step, label, status: Status::Executed, metrics, .. } if !metrics.is_empty() => {
                let writer = self.writer(*step, label)?;
                numbers(writer, now_s(), metrics)?;
                writer.flush()?;
                self.open.remove(step);
                Ok(())
            }
            Event::StepFinished { step, .. } => {
                self.open.remove(step);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The numbers of a result, each a curve of one point.
///
/// # Errors
/// They cannot be written.
pub fn numbers<W: Write>(writer: &mut Writer<W>, wall_s: f64, metrics: &BTreeMap<String, f64>) -> std::io::Result<()> {
    metrics.iter().try_for_each(|(name, value)| writer.scalar(wall_s, &format!("result/{name}"), 0.0, *value))
}

impl Listener for Board {
    fn event(&mut self, event: &Event) {
        if self.broken {
            return;
        }
        if let Err(error) = self.take(event) {
            self.broken = true;
            eprintln!(
                "warning: curves can no longer be written for TensorBoard into {}: {error}",
                self.folder.dir.display()
            );
        }
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same calls as in `testdata/tfevents.py`.
    #[test]
    fn a_file_is_that_of_tensorboards_own_library() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 1_764_000_000.25).unwrap();
        writer.scalar(1_764_000_001.5, "loss", 1.0, 4.625).unwrap();
        writer.scalar(1_764_000_002.5, "loss", 2.0, f64::NAN).unwrap();
        writer.scalar(1_764_000_003.5, "loss", 300.0, 0.1).unwrap();
        writer.scalar(1_764_000_004.5, "result/top1", 0.0, -0.0).unwrap();
        writer.scalar(1_764_000_005.5, "größe", 1e6, 1e30).unwrap();
        let golden = include_bytes!("testdata/events.out.tfevents.golden");
        assert_eq!(out, golden);
    }

    #[test]
    fn fractions_are_numbered_by_their_points() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 0.0).unwrap();
        let before = writer.out.len();
        writer.scalar(0.0, "a", 0.5, 1.0).unwrap();
        writer.scalar(0.0, "a", 1.0, 1.0).unwrap();
        let (first, second) = out[before..].split_at((out.len() - before - 2) / 2);
        // The second one says step 1 in two bytes more.
        assert_eq!(second.len(), first.len() + 2);
        assert_eq!(&second[12..14], [2 << 3, 1]);
    }

    #[test]
    fn labels_become_folders_below_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        for label in ["moco[seed=1]", "../../x", "a/b", "a:b", ".hidden"] {
            folder.file(label, 1.0).unwrap();
        }
        Folder::new(dir.path()).file("moco[seed=1]", 2.0).unwrap();
        let mut found: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, ["_.._.._x", "_.hidden", "a_b", "a_b~2", "moco[seed=1]"]);
        let files = std::fs::read_dir(dir.path().join("moco[seed=1]")).unwrap().count();
        assert_eq!(files, 1, "an earlier export of the same step is replaced");
    }
}
