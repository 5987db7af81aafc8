//! Looking over the whole cache: counting, checking every byte, and building the index anew.

use std::fs;

use rayon::prelude::*;
use serde::Serialize;

use crate::Digest;
use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::files::{entries, is_damage, present, sharded_entries};
use crate::log::key_of;

/// How much a cache holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stat {
    /// Number of blobs.
    pub blobs: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// Number of keys with at least one valid record.
    pub keys: u64,
    /// Number of valid records.
    pub records: u64,
    /// Number of record lines that cannot be used.
    pub damaged: u64,
    /// Number of things in quarantine.
    pub quarantined: u64,
    /// Whether this process has the index; another one has it, or it is unusable, where not.
    pub has_index: bool,
}

/// A blob that a record names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// The record's key.
    pub key: Digest,
    /// The output's name, or `log`.
    pub output: String,
    /// The blob.
    pub blob: Digest,
}

/// What [`Cache::verify_all`] found. The notices say the same in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of intact blobs.
    pub blobs: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// Number of valid records.
    pub records: u64,
    /// Blobs that were corrupt and are in quarantine now.
    pub corrupt: Vec<Digest>,
    /// Number of record lines that cannot be used.
    pub damaged: u64,
    /// Blobs that newest records name and that are not there (any more): these steps will run again.
    pub missing: Vec<Missing>,
}

impl Report {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.corrupt.is_empty() && self.damaged == 0 && self.missing.is_empty()
    }
}

impl Cache {
    /// Hashes every blob and reads every record, whatever the stat table says. Corrupt blobs go to quarantine.
    ///
    /// # Errors
    /// Something cannot be read at all.
    pub fn verify_all(&self) -> Result<Report, Error> {
        let mut report = Report::default();
        let checked: Vec<Option<(Digest, Option<u64>)>> = self
            .blob_list()?
            .into_par_iter()
            .map(|digest| {
                let path = self.blob_path(&digest);
                if path.is_dir() {
                    return Ok(Some((digest, None)));
                }
                let read = || -> std::io::Result<_> { Ok((fs::metadata(&path)?.len(), Digest::of_file(&path)?)) };
                match read() {
                    Ok((size, found)) => Ok(Some((digest, (found == digest).then_some(size)))),
                    // Collected meanwhile.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) if is_damage(&error) => Ok(Some((digest, None))),
                    Err(error) => Err(Error::io("read", &path, error)),
                }
            })
            .collect::<Result<_, Error>>()?;
        for (digest, size) in checked.into_iter().flatten() {
            match size {
                Some(size) => {
                    report.blobs += 1;
                    report.bytes += size;
                }
                None => {
                    self.quarantine(&digest)?;
                    report.corrupt.push(digest);
                }
            }
        }
        let logs: Vec<(u64, u64, Vec<Missing>)> =
            self.key_list()?.into_par_iter().map(|key| self.check_log(key)).collect::<Result<_, Error>>()?;
        for (records, damaged, missing) in logs {
            report.records += records;
            report.damaged += damaged;
            for Missing { key, output, blob } in &missing {
                self.note(format!("the record {key} names the blob {blob} as `{output}`, which is not in the store"));
            }
            report.missing.extend(missing);
        }
        Ok(report)
    }

    /// Numbers of valid and damaged records of a key, and what its newest one misses. A damaged line with a valid one after it
    /// was made good and is none.
    fn check_log(&self, key: Digest) -> Result<(u64, u64, Vec<Missing>), Error> {
        let Some(log) = self.read_log(&key)? else { return Ok((0, 0, Vec::new())) };
        let mut missing = Vec::new();
        if let Some((newest, _)) = log.records.last() {
            for (name, output) in &newest.outputs {
                if self.blob(&output.digest)?.is_none() {
                    missing.push(Missing { key, output: name.clone(), blob: output.digest });
                }
            }
            // What a step printed is for people: the result is whole without it, and computing it again costs more.
            if let Some(blob) = newest.log
                && self.blob(&blob)?.is_none()
            {
                self.note(format!("what the step of the record {key} printed is lost; its result is whole"));
            }
        }
        let lines = log.records.len() + log.damaged.len();
        let open = log.damaged.last().is_some_and(|(number, _)| *number >= lines);
        Ok((log.records.len() as u64, if open { log.damaged.len() as u64 } else { 0 }, missing))
    }

    /// Empties the index and fills it from the records. The stat table and the facts start empty, so the next look
    /// at a file reads it. Without the index (another process has it), only counts.
    ///
    /// # Errors
    /// Something cannot be read at all.
    pub fn rebuild_index(&self) -> Result<Stat, Error> {
        self.clear_index();
        for key in self.key_list()? {
            if let Some(log) = self.read_log(&key)? {
                self.index_log(&key, &log);
            }
        }
        self.flush();
        self.stat()
    }

    /// Counts what is there, from the truth and not from the index.
    ///
    /// # Errors
    /// Something cannot be read at all.
    pub fn stat(&self) -> Result<Stat, Error> {
        let mut stat = Stat { has_index: self.index().is_some(), ..Stat::default() };
        for digest in self.blob_list()? {
            let path = self.blob_path(&digest);
            if let Some(metadata) = present(fs::metadata(&path)).at("read", &path)? {
                stat.blobs += 1;
                stat.bytes += metadata.len();
            }
        }
        for key in self.key_list()? {
            let Some(log) = self.read_log(&key)? else { continue };
            stat.keys += u64::from(!log.records.is_empty());
            stat.records += log.records.len() as u64;
            stat.damaged += log.damaged.len() as u64;
        }
        stat.quarantined = entries(&self.dir().join("quarantine"))?.len() as u64;
        Ok(stat)
    }

    /// Every key that has a record log, in the order of the digests.
    ///
    /// # Errors
    /// The folder of records cannot be read.
    pub fn key_list(&self) -> Result<Vec<Digest>, Error> {
        Ok(sharded_entries(&self.dir().join("records"))?.iter().filter_map(|path| key_of(path)).collect())
    }

    /// Every blob, in the order of the digests.
    pub(crate) fn blob_list(&self) -> Result<Vec<Digest>, Error> {
        let paths = sharded_entries(&self.dir().join("blobs"))?;
        Ok(paths.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect())
    }
}
