//! Garbage collection: removes what no kept key needs.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::Digest;
use crate::cache::Cache;
use crate::error::{Context, Error};
use crate::files::{entries, present, remove, size_below};
use crate::index::Table;

/// Larger blobs are not searched for digests: lists of files are far smaller, and arrays are not text.
const SEARCHED_UP_TO: u64 = 256 << 20;

/// Folders with a folder for each key that is not finished: what its step works in, and what its jobs on a cluster left.
const KEYED: [&str; 2] = ["work", "cluster/jobs"];

/// What [`Cache::gc`] removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// Number of blobs.
    pub blobs: u64,
    /// Number of keys whose records went.
    pub keys: u64,
    /// Number of work folders.
    pub work: u64,
    /// Number of leftovers: temporary files of killed processes, and things in quarantine.
    pub leftovers: u64,
    /// Space of all of these, in bytes.
    pub bytes: u64,
    /// Of the space, that of blobs.
    pub blob_bytes: u64,
    /// Number of keys being computed right now: they stay.
    pub leased: u64,
    /// Number of keys that could go and stay, because a living process relies on them.
    pub in_use: u64,
}

impl Cache {
    /// Removes the records of every key outside `keep`, then every blob that no remaining record needs: neither as
    /// output or log, nor named in such a blob, directly or through others. Named means that the blob is JSON text
    /// with the digest in it, as a manifest has; a blob is rather kept than lost. Also removes work folders of keys
    /// that go; and, where nobody else has the cache open, temporary files left by processes that died, and the
    /// quarantine.
    ///
    /// Safe beside processes that use the cache: keys being computed stay, and so does every key that a living process
    /// said it relies on ([`crate::Using::keep`]). While somebody looks up or stores (milliseconds, or as long as a
    /// large output takes to be written), this waits; while this works, they do.
    ///
    /// With `dry_run` only counts.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn gc(&self, keep: &BTreeSet<Digest>, dry_run: bool) -> Result<Freed, Error> {
        let _collecting = if dry_run { None } else { Some(self.collecting()?) };
        let alone = Alone::new(self)?;
        let mut freed = Freed::default();
        let mut kept_blobs = BTreeSet::new();
        let mut open = Vec::new();
        let leased = self.leased_keys()?;
        let used = self.used_keys(!dry_run)?;
        freed.leased = leased.len() as u64;
        for key in self.key_list()? {
            if keep.contains(&key) || leased.contains(&key) || used.contains(&key) {
                freed.in_use += u64::from(!keep.contains(&key) && !leased.contains(&key));
                for (record, _) in self.read_log(&key)?.into_iter().flat_map(|log| log.records) {
                    open.extend(record.blobs());
                }
                continue;
            }
            let path = self.log_path(&key);
            freed.keys += 1;
            self.count_and_remove(&path, dry_run, &mut freed)?;
            if !dry_run {
                self.forget(Table::Newest, &key.0);
            }
        }
        let all: BTreeSet<Digest> = self.blob_list()?.into_iter().collect();
        while let Some(digest) = open.pop() {
            if kept_blobs.insert(digest) {
                open.extend(self.named_in(&digest, &all)?);
            }
        }
        let before = freed.bytes;
        for digest in all.difference(&kept_blobs) {
            freed.blobs += 1;
            self.count_and_remove(&self.blob_path(digest), dry_run, &mut freed)?;
        }
        freed.blob_bytes = freed.bytes - before;
        let mut unfinished = Vec::new();
        for folder in KEYED {
            unfinished.extend(entries(&self.dir().join(folder))?);
        }
        for path in unfinished {
            let key = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            if let Some(key) = key
                && !keep.contains(&key)
                && !leased.contains(&key)
                && !used.contains(&key)
            {
                freed.work += 1;
                self.count_and_remove(&path, dry_run, &mut freed)?;
            }
        }
        if alone.is_none() {
            return Ok(freed);
        }
        for path in entries(&self.dir().join("tmp"))? {
            // Alone in the cache, so whatever is older than this process's opening belongs to nobody. Times of files are
            // coarser than the clock.
            let metadata = present(fs::symlink_metadata(&path)).at("read", &path)?;
            let modified = metadata.and_then(|metadata| metadata.modified().ok());
            if modified.is_some_and(|time| time + Duration::from_secs(1) < self.opened()) {
                freed.leftovers += 1;
                self.count_and_remove(&path, dry_run, &mut freed)?;
            }
        }
        if !dry_run {
            entries(&self.dir().join("leases"))?.iter().for_each(|path| crate::lease::remove_released(path));
        }
        for path in entries(&self.dir().join("quarantine"))? {
            freed.leftovers += 1;
            self.count_and_remove(&path, dry_run, &mut freed)?;
        }
        Ok(freed)
    }

    fn count_and_remove(&self, path: &Path, dry_run: bool, freed: &mut Freed) -> Result<(), Error> {
        freed.bytes += size_below(path);
        if dry_run { Ok(()) } else { remove(path) }
    }

    /// The keys whose lease somebody holds.
    fn leased_keys(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut leased = BTreeSet::new();
        for path in entries(&self.dir().join("leases"))? {
            let key = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            if let Some(key) = key
                && self.holder(&key)?.is_some()
            {
                leased.insert(key);
            }
        }
        Ok(leased)
    }

    /// The stored blobs whose digests occur in a blob, if that is JSON text.
    fn named_in(&self, digest: &Digest, all: &BTreeSet<Digest>) -> Result<Vec<Digest>, Error> {
        let path = self.blob_path(digest);
        let Some(mut file) = present(File::open(&path)).at("read", &path)? else { return Ok(Vec::new()) };
        let metadata = file.metadata().at("read", &path)?;
        let mut text = vec![0];
        if !metadata.is_file()
            || metadata.len() > SEARCHED_UP_TO
            || file.read(&mut text).at("read", &path)? == 0
            || !matches!(text[0], b'{' | b'[')
        {
            return Ok(Vec::new());
        }
        file.read_to_end(&mut text).at("read", &path)?;
        let words = text.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| word.len() == 64);
        let digests = words.filter_map(|word| std::str::from_utf8(word).ok()?.parse::<Digest>().ok());
        Ok(digests.filter(|digest| all.contains(digest)).collect())
    }
}

/// Being the only one in the cache. Others that open it meanwhile wait.
struct Alone<'a>(&'a Cache);

impl<'a> Alone<'a> {
    /// None while another process (or another [`Cache::open`] of this one) has the cache open.
    fn new(cache: &'a Cache) -> Result<Option<Alone<'a>>, Error> {
        let version = cache.dir().join("VERSION");
        match cache.presence().try_lock() {
            Ok(()) => Ok(Some(Alone(cache))),
            Err(error) => {
                // Changing a lock's kind gives up the old one first.
                cache.presence().lock_shared().at("lock", &version)?;
                match error {
                    TryLockError::WouldBlock => Ok(None),
                    TryLockError::Error(error) => Err(Error::io("lock", &version, error)),
                }
            }
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // A lock can only be missing here if the kernel has none left; then collection in another process is
        // possible too early, which its own leases still guard.
        let _ = self.0.presence().lock_shared();
    }
}
