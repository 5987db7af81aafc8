//! Record logs: one append-only file per key, one line per record, newest last.
//!
//! A line is `{"sha256":"<of the record's bytes>","record":{…}}`. Appending is a single write under the log's lock;
//! the next commit syncs it. A line that was cut off by a crash ends without a line feed; the next append starts a new line.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::files::{is_damage, present, shard};
use crate::index::Table;
use crate::record::RECORD_FORMAT;
use crate::stamp::Stamp;
use crate::{Digest, KEY_FORMAT, Record};

#[derive(Serialize)]
struct LineOut<'a> {
    sha256: Digest,
    record: &'a RawValue,
}

#[derive(Deserialize)]
struct LineIn<'a> {
    sha256: Digest,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// What a log holds.
pub(crate) struct Log {
    /// The log's state when it was read.
    stamp: Stamp,
    /// The valid records with their lines, oldest first.
    pub records: Vec<(Record, Vec<u8>)>,
    /// What is wrong with the others: line number from 1, and why it cannot be used.
    pub damaged: Vec<(usize, String)>,
}

impl Cache {
    /// The newest valid record of a key, or `None`. A damaged line is passed over and noted.
    ///
    /// # Errors
    /// The log exists but cannot be read.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, Error> {
        let path = self.log_path(key);
        let now = SystemTime::now();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.trace().absent(&path);
                return Ok(None);
            }
            Err(error) if is_damage(&error) => {
                self.note(unreadable(&path, &error));
                // Where they cannot be moved either, the next one to append says so.
                let _ = self.revoke(key);
                return Ok(None);
            }
            Err(error) => return Err(Error::io("read the records", &path, error)),
        };
        let stamp = Stamp::of(&metadata);
        self.trace().file(&path, stamp, now);
        let stamp = stamp.to_bytes();
        if let Some(entry) = self.get(Table::Newest, &key.0)
            && let Some(line) = entry.strip_prefix(stamp.as_slice())
            && let Ok(line) = serde_json::from_slice::<LineIn>(line)
            && let Ok(record) = serde_json::from_str::<Record>(line.record.get())
        {
            // Checked when it was put there, and sealed since: the key needs no second look.
            return Ok(Some(record));
        }
        let Some(mut log) = self.read_log(key)? else { return Ok(None) };
        let Some((record, line)) = log.records.pop() else { return Ok(None) };
        self.index_line(key, log.stamp, &line);
        Ok(Some(record))
    }

    /// The newest valid record of a key as another cache can have it: without its log, if what the step printed was lost
    /// here. A result counts as much without it.
    ///
    /// # Errors
    /// The log of records, or the store, cannot be read.
    pub fn portable(&self, key: &Digest) -> Result<Option<Record>, Error> {
        let Some(mut record) = self.record(key)? else { return Ok(None) };
        let output = |blob: &Digest| record.outputs.values().any(|output| output.digest == *blob);
        if let Some(blob) = record.log.filter(|blob| !output(blob))
            && self.verified(&blob)?.is_none()
        {
            record.log = None;
        }
        Ok(Some(record))
    }

    /// Every valid record of a key, oldest first. Damaged lines are passed over and noted.
    ///
    /// # Errors
    /// The log exists but cannot be read.
    pub fn history(&self, key: &Digest) -> Result<Vec<Record>, Error> {
        let log = self.read_log(key)?;
        Ok(log.into_iter().flat_map(|log| log.records).map(|(record, _)| record).collect())
    }

    /// Adds a record; from now on it is the newest of its key, and after the next [`Cache::commit`] it outlives a power
    /// cut. Store the blobs it names before: a record is the last thing that a finished action writes.
    ///
    /// # Errors
    /// [`Error::ForeignDigest`] when the record's digest is not its key's; or the log cannot be written.
    pub fn append(&self, record: &Record) -> Result<(), Error> {
        let key = record.digest;
        let computed = record.key.digest();
        if computed != key {
            return Err(Error::ForeignDigest { kind: record.key.kind.clone(), claimed: key, computed });
        }
        let line = print(record)?;
        let parent = self.dir().join("records");
        let (folder, new_folder) = shard(&parent, &key.to_string())?;
        let path = self.log_path(&key);
        let action = "append a record to";
        let is_new = !path.exists();
        let mut file = File::options().create(true).read(true).append(true).open(&path).at(action, &path)?;
        file.lock().at(action, &path)?;
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if ends_within_a_line(&mut file).at(action, &path)? {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&line);
        bytes.push(b'\n');
        file.write_all(&bytes).at(action, &path)?;
        let stamp = Stamp::of(&file.metadata().at(action, &path)?);
        self.unsynced().add(path);
        if is_new {
            self.unsynced().add(folder);
        }
        if new_folder {
            self.unsynced().add(parent);
        }
        self.index_line(&key, stamp, &line);
        Ok(())
    }

    /// Has the next [`Cache::commit`] cover everything that a record stands for, as far as it is there: whoever made it may
    /// have died before its own.
    pub fn cover(&self, record: &Record) {
        let log = self.log_path(&record.digest);
        for path in std::iter::once(log).chain(record.blobs().map(|digest| self.blob_path(&digest))) {
            // Itself, its shard, and the folder of all shards.
            path.ancestors().take(3).for_each(|path| self.unsynced().add(path.to_owned()));
        }
    }

    /// Puts the records of a key out of use, into quarantine: what the disk did not take must not be taken for kept by the
    /// next process, to which the kernel says nothing of it any more.
    ///
    /// # Errors
    /// They cannot be moved.
    pub fn revoke(&self, key: &Digest) -> Result<(), Error> {
        let path = self.log_path(key);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let target = self.dir().join("quarantine").join(format!("{key}-{now}.jsonl"));
        present(std::fs::rename(&path, &target)).at("move to quarantine", &path)?;
        Ok(())
    }

    /// Reads a log and notes its damaged lines.
    pub(crate) fn read_log(&self, key: &Digest) -> Result<Option<Log>, Error> {
        let path = self.log_path(key);
        let opened = File::open(&path).and_then(|mut file| Ok((read(&mut file, key)?, file)));
        let (mut log, mut file) = match opened {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_damage(&error) => {
                self.note(unreadable(&path, &error));
                // Where they cannot be moved either, the next one to append says so.
                let _ = self.revoke(key);
                return Ok(None);
            }
            Err(error) => return Err(Error::io("read the records", &path, error)),
        };
        if !log.damaged.is_empty() {
            // Perhaps a line that is being written right now: writers hold the lock, so look again under it.
            file.lock_shared().at("read the records", &path)?;
            log = read(&mut file, key).at("read the records", &path)?;
        }
        for (number, reason) in &log.damaged {
            self.note(format!("{}, line {number}: {reason}; the line is passed over", path.display()));
        }
        Ok(Some(log))
    }

    pub(crate) fn log_path(&self, key: &Digest) -> PathBuf {
        let name = key.to_string();
        self.dir().join("records").join(&name[..2]).join(format!("{name}.jsonl"))
    }

    /// Puts the newest line of a log into the index.
    pub(crate) fn index_log(&self, key: &Digest, log: &Log) {
        if let Some((_, line)) = log.records.last() {
            self.index_line(key, log.stamp, line);
        }
    }

    fn index_line(&self, key: &Digest, stamp: Stamp, line: &[u8]) {
        let mut entry = stamp.to_bytes();
        entry.extend_from_slice(line);
        self.put(Table::Newest, &key.0, &entry);
    }
}

impl Record {
    /// The record as one line with its checksum, for keeping it elsewhere than in a cache folder.
    ///
    /// # Errors
    /// [`Error::Params`]: it cannot be written as JSON.
    pub fn to_line(&self) -> Result<Vec<u8>, Error> {
        print(self)
    }

    /// Reads what [`Record::to_line`] gave.
    ///
    /// # Errors
    /// Why it is not a whole record of this key that this program can read, as a clause.
    pub fn from_line(line: &[u8], key: &Digest) -> Result<Record, String> {
        parse(line, key)
    }
}

/// The key of a log by its path; `None` for a file that is no log.
fn unreadable(path: &Path, why: &std::io::Error) -> String {
    format!("the records {} cannot be read ({why}) and count as lost; look at the disk", path.display())
}

pub(crate) fn key_of(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()
}

fn read(file: &mut File, key: &Digest) -> std::io::Result<Log> {
    // Before the content: what is added after this makes the stamp an old one, never the content.
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let mut log = Log { stamp, records: Vec::new(), damaged: Vec::new() };
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match parse(line, key) {
            Ok(record) => log.records.push((record, line.to_vec())),
            Err(reason) => log.damaged.push((index + 1, reason)),
        }
    }
    Ok(log)
}

fn ends_within_a_line(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn print(record: &Record) -> Result<Vec<u8>, Error> {
    let refused = |error: serde_json::Error| Error::Params { kind: record.key.kind.clone(), reason: error.to_string() };
    let raw = serde_json::value::to_raw_value(record).map_err(refused)?;
    serde_json::to_vec(&LineOut { sha256: Digest::of_bytes(raw.get().as_bytes()), record: &raw }).map_err(refused)
}

fn parse(line: &[u8], key: &Digest) -> Result<Record, String> {
    let line: LineIn = serde_json::from_slice(line).map_err(|error| format!("not a record ({error})"))?;
    if Digest::of_bytes(line.record.get().as_bytes()) != line.sha256 {
        return Err("its checksum does not match its content".into());
    }
    let record: Record = serde_json::from_str(line.record.get())
        .map_err(|error| format!("a record this program cannot read ({error})"))?;
    if record.format > RECORD_FORMAT || record.key.format > KEY_FORMAT {
        return Err("written by a later version of this program".into());
    }
    if record.digest != *key || record.key.digest() != *key {
        return Err("the record of another key".into());
    }
    Ok(record)
}
