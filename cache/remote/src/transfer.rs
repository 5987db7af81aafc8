//! Results on their way: fetched into the local cache, sent from it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use harness_cache::{Cache, Digest, Hasher, Record};
use object_store::path::Path;
use object_store::{Error as Store, GetOptions, ObjectStore as _, ObjectStoreExt as _, WriteMultipart};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::Error;
use crate::place::Remote;

/// Results on their way at a time: enough that the waiting for a far server is done once for all of them.
const RESULTS: usize = 32;
/// Larger blobs are sent in parts of this size, bytes.
const PART: u64 = 8 << 20;
/// Parts of one blob at most: S3 takes ten thousand.
const PARTS: u64 = 9_000;
/// Parts of one blob on their way at a time.
const AHEAD: usize = 4;
/// Whether to stop is looked at so often.
const GLANCE: Duration = Duration::from_millis(100);

/// What came of asking for a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is in the local cache now, not yet committed; so many bytes came.
    Here(u64),
    /// It is not there.
    Unknown,
    /// What is there is not what it should be, in a full sentence; nothing of it counts.
    Damaged(String),
}

/// What came of sending a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is there now; so many bytes went.
    There(u64),
    /// It is gone from the local cache.
    Gone,
}

/// Whether a blob came.
enum Arrived {
    Bytes(u64),
    /// Why what is there cannot be used.
    Not(String),
}

impl Remote {
    /// Fetches results into `cache`, many at a time; tells of each as it comes. Whoever calls this holds a
    /// [`Cache::using`], and commits. What came before a stop or a failure stays and is not fetched again.
    ///
    /// # Errors
    /// None but those that are told.
    pub fn fetch(
        &self,
        cache: &Cache,
        keys: &[Digest],
        stop: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(Digest, Result<Fetched, Error>),
    ) {
        let work = stream::iter(keys).map(|key| async move { (*key, self.fetch_one(cache, key).await) });
        self.each(work.buffer_unordered(RESULTS), stop, tell);
    }

    /// Sends results of `cache`, many at a time; tells of each once it is there. Those that were sent before a stop or a
    /// failure are there.
    ///
    /// # Errors
    /// None but those that are told.
    pub fn send(
        &self,
        cache: &Cache,
        keys: &[Digest],
        stop: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(Digest, Result<Sent, Error>),
    ) {
        let work = stream::iter(keys).map(|key| async move { (*key, self.send_one(cache, key).await) });
        self.each(work.buffer_unordered(RESULTS), stop, tell);
    }

    /// Looks at results that are there, many at a time, and tells of each whether it is whole: its record valid, and every
    /// file that this names there with its size; or, `read` in full, with its content. What is damaged is sent anew by the
    /// next [`Remote::send`].
    ///
    /// # Errors
    /// None but those that are told.
    pub fn examine(
        &self,
        keys: &[Digest],
        read: bool,
        stop: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(Digest, Result<bool, Error>),
    ) {
        let work = stream::iter(keys).map(|key| async move { (*key, self.examine_one(key, read).await) });
        self.each(work.buffer_unordered(RESULTS), stop, tell);
    }

    /// Tells of each as it comes, until all have come or it is to stop: what is on its way then is dropped.
    fn each<T>(
        &self,
        work: impl stream::Stream<Item = (Digest, T)>,
        stop: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(Digest, T),
    ) {
        self.runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            while !stop() {
                match tokio::time::timeout(GLANCE, work.next()).await {
                    Ok(Some((key, result))) => tell(key, result),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
        });
    }

    async fn fetch_one(&self, cache: &Cache, key: &Digest) -> Result<Fetched, Error> {
        let place = self.record_path(key);
        let failed = |error| Error::of(&self.url, "fetch a result", &error);
        let line = match self.store.get(&place).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(Store::NotFound { .. }) => return Ok(Fetched::Unknown),
            Err(error) => return Err(failed(error)),
        };
        let mut record = match Record::from_line(&line, key) {
            Ok(record) => record,
            Err(why) => return Ok(self.damaged(&place, &why)),
        };
        let mut bytes = line.len() as u64;
        let blobs: BTreeSet<Digest> = record.blobs().collect();
        for blob in blobs {
            let size = record.outputs.values().find(|output| output.digest == blob).map(|output| output.size);
            match self.fetch_blob(cache, &blob, size).await? {
                Arrived::Bytes(some) => bytes += some,
                // A log, without which a result is the same.
                Arrived::Not(_) if size.is_none() => {
                    self.set_damaged(&self.blob_path(&blob), true);
                    record.log = None;
                }
                Arrived::Not(why) => return Ok(self.damaged(&self.blob_path(&blob), &why)),
            }
        }
        blocking(cache, move |cache| cache.append(&record)).await?;
        Ok(Fetched::Here(bytes))
    }

    fn damaged(&self, place: &Path, why: &str) -> Fetched {
        self.set_damaged(place, true);
        Fetched::Damaged(format!(
            "`{place}` of the shared cache `{}` cannot be used: {why}; its step is computed here, and sent in its place",
            self.url
        ))
    }

    /// Has a blob in the local cache, fetched if it is not there. `size`, where the record says one, in bytes.
    async fn fetch_blob(&self, cache: &Cache, digest: &Digest, size: Option<u64>) -> Result<Arrived, Error> {
        let wanted = *digest;
        if blocking(cache, move |cache| cache.verified(&wanted)).await?.is_some() {
            return Ok(Arrived::Bytes(0));
        }
        let place = self.blob_path(digest);
        let failed = |error| Error::of(&self.url, "fetch a result's file", &error);
        let found = match self.store.get(&place).await {
            Ok(found) => found,
            Err(Store::NotFound { .. }) => return Ok(Arrived::Not("it is missing".into())),
            Err(error) => return Err(failed(error)),
        };
        if let Some(size) = size.filter(|size| *size != found.meta.size) {
            return Ok(Arrived::Not(format!("it has {} bytes, not {size}", found.meta.size)));
        }
        let folder = cache.temp_dir()?;
        let path = folder.path().join("blob");
        let io = |error| harness_cache::Error::writing(&path, error);
        let mut file = tokio::fs::File::create(&path).await.map_err(io)?;
        let (mut chunks, mut bytes) = (found.into_stream(), 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(failed)?;
            file.write_all(&chunk).await.map_err(io)?;
            bytes += chunk.len() as u64;
        }
        file.flush().await.map_err(io)?;
        drop(file);
        let arrived = path.clone();
        Ok(match blocking(cache, move |cache| cache.receive(&arrived, &wanted)).await? {
            true => Arrived::Bytes(bytes),
            false => Arrived::Not("its content does not have the digest that its name says".into()),
        })
    }

    async fn examine_one(&self, key: &Digest, read: bool) -> Result<bool, Error> {
        let failed = |error| Error::of(&self.url, "read a result", &error);
        let line = match self.store.get(&self.record_path(key)).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(Store::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let Ok(record) = Record::from_line(&line, key) else { return Ok(false) };
        let mut whole = true;
        for blob in record.blobs().collect::<BTreeSet<Digest>>() {
            let place = self.blob_path(&blob);
            let intact = match self.store.get_opts(&place, GetOptions { head: !read, ..GetOptions::default() }).await {
                Ok(found) if read => {
                    let (mut hasher, mut chunks) = (Hasher::default(), found.into_stream());
                    while let Some(chunk) = chunks.next().await {
                        hasher.update(&chunk.map_err(failed)?);
                    }
                    hasher.finish() == blob
                }
                Ok(found) => record.outputs.values().all(|it| it.digest != blob || it.size == found.meta.size),
                Err(Store::NotFound { .. }) => false,
                Err(error) => return Err(failed(error)),
            };
            self.set_damaged(&place, !intact);
            whole &= intact;
        }
        Ok(whole)
    }

    async fn send_one(&self, cache: &Cache, key: &Digest) -> Result<Sent, Error> {
        let wanted = *key;
        let Some(record) = blocking(cache, move |cache| cache.portable(&wanted)).await? else { return Ok(Sent::Gone) };
        let mut bytes = 0;
        for blob in record.blobs().collect::<BTreeSet<Digest>>() {
            bytes += self.send_blob(cache, key, &blob).await?;
        }
        let line = record.to_line()?;
        bytes += line.len() as u64;
        let place = self.record_path(key);
        let failed = |error| Error::of(&self.url, "send a result", &error);
        self.store.put(&place, line.into()).await.map_err(failed)?;
        self.set_damaged(&place, false);
        Ok(Sent::There(bytes))
    }

    /// Has a blob there, sent if it is not; how many bytes went.
    async fn send_blob(&self, cache: &Cache, key: &Digest, digest: &Digest) -> Result<u64, Error> {
        let wanted = *digest;
        let not_whole = || Error::NotWhole { key: *key, blob: wanted };
        let path = blocking(cache, move |cache| cache.verified(&wanted)).await?.ok_or_else(not_whole)?;
        let mut file = tokio::fs::File::open(&path).await.map_err(|_| not_whole())?;
        let size = file.metadata().await.map_err(|_| not_whole())?.len();
        let place = self.blob_path(digest);
        let failed = |error| Error::of(&self.url, "send a result's file", &error);
        match self.store.head(&place).await {
            Ok(found) if found.size == size && !self.is_damaged(&place) => return Ok(0),
            Ok(_) | Err(Store::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        // What is read now is what counts, whatever was there when it was looked at.
        let mut hasher = Hasher::default();
        let part = PART.max(size.div_ceil(PARTS));
        if size <= part {
            let mut content = Vec::with_capacity(size as usize);
            file.read_to_end(&mut content).await.map_err(|_| not_whole())?;
            hasher.update(&content);
            if hasher.finish() != wanted {
                return Err(not_whole());
            }
            self.store.put(&place, content.into()).await.map_err(failed)?;
        } else {
            let upload = self.store.put_multipart(&place).await.map_err(failed)?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, part as usize);
            let mut buffer = vec![0; 1 << 20];
            loop {
                let read = file.read(&mut buffer).await.map_err(|_| not_whole())?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                upload.wait_for_capacity(AHEAD).await.map_err(failed)?;
                upload.write(&buffer[..read]);
            }
            if hasher.finish() != wanted {
                // Nothing is there until it is finished.
                let _ = upload.abort().await;
                return Err(not_whole());
            }
            upload.finish().await.map_err(failed)?;
        }
        self.set_damaged(&place, false);
        Ok(size)
    }
}

/// Calls the local cache, which reads and hashes, where that holds up no transfer.
async fn blocking<T: Send + 'static>(
    cache: &Cache,
    call: impl FnOnce(&Cache) -> Result<T, harness_cache::Error> + Send + 'static,
) -> Result<T, Error> {
    let cache = cache.clone();
    match tokio::task::spawn_blocking(move || call(&cache)).await {
        Ok(result) => Ok(result?),
        // It panicked, and says so as if it had been called here.
        Err(panic) => match panic.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(stopped) => Err(Error::System(std::io::Error::other(stopped))),
        },
    }
}
