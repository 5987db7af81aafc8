//! What can go wrong with a shared cache: each error names the place, what failed, and the way out.

use harness_cache::Digest;
use object_store::Error as Store;
use std::error::Error as _;

/// An error of a shared cache. None of them means that something stored was lost, here or there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given names no place that can be used.
    #[error(
        "`{url}` is no place for a shared cache ({why}); write a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or \
         `az://container/prefix`"
    )]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        why: String,
    },
    /// The folder is not there.
    #[error(
        "the folder `{url}` of the shared cache is not there: create it once, or see whether its file system is mounted"
    )]
    NoFolder {
        /// The folder.
        url: String,
    },
    /// The bucket or container is not there.
    #[error("the bucket of the shared cache `{url}` is not there: create it, or correct `remote`")]
    NoBucket {
        /// The place.
        url: String,
    },
    /// Credentials are missing, wrong, or not enough.
    #[error("the shared cache `{url}` refuses to {action}: {hint} ({why})")]
    Denied {
        /// The place.
        url: String,
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// Where credentials come from.
        hint: &'static str,
        /// The store's word.
        why: String,
    },
    /// It cannot be reached, or failed.
    #[error("the shared cache `{url}` cannot be reached to {action}: {why}")]
    Unreachable {
        /// The place.
        url: String,
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The store's word.
        why: String,
    },
    /// A result to send is not whole here.
    #[error(
        "the stored file {blob} of the result {key} is missing or damaged here, so it is not sent; run its step again"
    )]
    NotWhole {
        /// The result.
        key: Digest,
        /// Its file.
        blob: Digest,
    },
    /// The cache on this machine failed.
    #[error(transparent)]
    Cache(#[from] harness_cache::Error),
    /// No thread or socket could be had.
    #[error("the shared cache needs threads of its own, and the system gives none: {0}")]
    System(std::io::Error),
}

impl Error {
    /// Sorts a failure of the store at `url`.
    pub(crate) fn of(url: &str, action: &'static str, error: &Store) -> Error {
        let (url, why) = (url.to_owned(), chain(error));
        match error {
            _ if why.contains("NoSuchBucket") || why.contains("ContainerNotFound") => Error::NoBucket { url },
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
                Error::Denied { hint: hint(&url), url, action, why }
            }
            // What lists says so in words only.
            _ if ["403 Forbidden", "401 Unauthorized", "InvalidAccessKeyId"].iter().any(|word| why.contains(word)) => {
                Error::Denied { hint: hint(&url), url, action, why }
            }
            // Asked where a machine of the provider would find its credentials: there were none nearer.
            _ if why.contains("169.254.169.254") || why.contains("metadata.google") => Error::Denied {
                hint: hint(&url),
                url,
                action,
                why: "no credentials in the environment, and this machine has none of the provider's".into(),
            },
            _ => Error::Unreachable { url, action, why },
        }
    }
}

/// Where credentials of a place come from.
fn hint(url: &str) -> &'static str {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        "s3" | "s3a" => {
            "see that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION are set and may use this bucket"
        }
        "gs" => "see that GOOGLE_APPLICATION_CREDENTIALS names a service account that may use this bucket",
        "az" | "abfs" | "abfss" => {
            "see that AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY are set and may use this container"
        }
        _ => "give this user permission there",
    }
}

/// What an error says, with what it says of its reason, in one line and no longer than people read.
fn chain(error: &Store) -> String {
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(one) = reason {
        let said = one.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        reason = one.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(500) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
