//! Where a shared cache lies, and what its objects are called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use harness_cache::Digest;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;
use url::Url;

use crate::error::Error;

/// Names begin with it. Raised when a program of before could misread what is there.
const LAYOUT: &str = "harness-1";

/// Reaching a server takes no longer, nor does waiting for its next byte.
const PATIENCE: &str = "10 seconds";

/// A shared cache. Its calls block; it may be shared by threads.
pub struct Remote {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) url: String,
    pub(crate) runtime: Runtime,
    prefix: Path,
    /// Objects that were found damaged: they are written anew, whatever size they have.
    damaged: Mutex<BTreeSet<Path>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// The shared cache at `url`: a folder that is there (a path, or `file:///…`), `s3://bucket/prefix`,
    /// `gs://bucket/prefix` or `az://container/prefix`. Nothing is asked of a server yet.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::NoFolder`]; the environment holds settings that do not fit together.
    pub fn open(url: &str) -> Result<Remote, Error> {
        let bad = |why: String| Error::Url { url: url.into(), why };
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match scheme {
            None | Some("file") => (Arc::new(folder(url)?), Path::default()),
            Some(scheme) => {
                let parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
                if !parsed.username().is_empty() || parsed.password().is_some() {
                    // Not repeated: it holds a secret.
                    let url = format!("{scheme}://…");
                    let why = "it holds credentials, which belong into the environment".into();
                    return Err(Error::Url { url, why });
                }
                if parsed.host_str().is_none_or(str::is_empty) {
                    return Err(bad("it names no bucket".into()));
                }
                let prefix = Path::from_url_path(parsed.path()).map_err(|error| bad(error.to_string()))?;
                (cloud(scheme, url, &bad)?, prefix)
            }
        };
        // Two threads: one that transfers, and one while the other looks a name up.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("shared-cache")
            .enable_all()
            .build()
            .map_err(Error::System)?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Remote { store, url, runtime, prefix: prefix.join(LAYOUT), damaged: Mutex::default() })
    }

    /// The place, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes sure that the place can be reached and read, at the cost of one request.
    ///
    /// # Errors
    /// It cannot.
    pub fn greet(&self) -> Result<(), Error> {
        let mut listed = self.store.list(Some(&self.prefix));
        match self.runtime.block_on(listed.next()) {
            Some(Err(error)) => Err(Error::of(&self.url, "list results", &error)),
            _ => Ok(()),
        }
    }

    /// Keys of all results that are there.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn keys(&self) -> Result<BTreeSet<Digest>, Error> {
        Ok(self.list("records")?.into_keys().collect())
    }

    /// All blobs that are there, with their sizes in bytes.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn blobs(&self) -> Result<BTreeMap<Digest, u64>, Error> {
        self.list("blobs")
    }

    fn list(&self, kind: &'static str) -> Result<BTreeMap<Digest, u64>, Error> {
        let folder = self.prefix.clone().join(kind);
        let mut listed = self.store.list(Some(&folder));
        let mut all = BTreeMap::new();
        self.runtime.block_on(async {
            while let Some(found) = listed.next().await {
                let found = found.map_err(|error| Error::of(&self.url, "list results", &error))?;
                // Other names are nobody's result, such as what an upload that was cut off has left.
                let digest = found.location.filename().and_then(|name| name.parse::<Digest>().ok());
                all.extend(digest.map(|digest| (digest, found.size)));
            }
            Ok(all)
        })
    }

    pub(crate) fn record_path(&self, key: &Digest) -> Path {
        self.object("records", key)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> Path {
        self.object("blobs", digest)
    }

    fn object(&self, kind: &'static str, digest: &Digest) -> Path {
        let name = digest.to_string();
        self.prefix.clone().join(kind).join(&name[..2]).join(name.as_str())
    }

    pub(crate) fn is_damaged(&self, object: &Path) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(object)
    }

    pub(crate) fn set_damaged(&self, object: &Path, damaged: bool) {
        let mut all = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged {
            all.insert(object.clone())
        } else {
            all.remove(object)
        };
    }
}

fn folder(url: &str) -> Result<LocalFileSystem, Error> {
    let path = match url.strip_prefix("file://") {
        Some(_) => Url::parse(url).ok().and_then(|url| url.to_file_path().ok()),
        None => std::path::absolute(url).ok(),
    };
    let path = path.ok_or_else(|| Error::Url { url: url.into(), why: "it is no path".into() })?;
    if !path.is_dir() {
        return Err(Error::NoFolder { url: path.display().to_string() });
    }
    LocalFileSystem::new_with_prefix(&path).map_err(|error| Error::Url { url: url.into(), why: error.to_string() })
}

fn cloud(scheme: &str, url: &str, bad: &dyn Fn(String) -> Error) -> Result<Arc<dyn ObjectStore>, Error> {
    // Whoever works without a network is not kept waiting.
    let retry =
        RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: Duration::from_secs(20) };
    let settings = [
        (ClientConfigKey::ConnectTimeout, PATIENCE),
        (ClientConfigKey::ReadTimeout, PATIENCE),
        // Of a whole request: a large blob takes as long as it takes.
        (ClientConfigKey::Timeout, "1 day"),
    ];
    let refused = |error: object_store::Error| bad(error.to_string());
    Ok(match scheme {
        "s3" | "s3a" => {
            let given = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            let set =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(settings.into_iter().fold(given, set).build().map_err(refused)?)
        }
        "gs" => {
            let given = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Arc::new(settings.into_iter().fold(given, set).build().map_err(refused)?)
        }
        "az" | "abfs" | "abfss" => {
            let given = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
            let set =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(settings.into_iter().fold(given, set).build().map_err(refused)?)
        }
        other => return Err(bad(format!("there is no store `{other}`"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_is_refused_with_what_is_one() {
        let said = |url: &str| Remote::open(url).unwrap_err().to_string();
        assert!(said("ftp://host/folder").contains("no store `ftp`"));
        assert!(said("s3:///prefix").contains("names no bucket"));
        let secret = said("s3://AKIA:topsecret@bucket/prefix");
        assert!(secret.contains("credentials") && !secret.contains("topsecret"), "{secret}");
        let missing = said("/no/such/folder");
        assert!(missing.contains("is not there") && missing.contains("mounted"), "{missing}");
    }
}
