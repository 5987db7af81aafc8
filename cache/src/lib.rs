//! Digests, action keys, a content store, records and their index. Knows no steps and no language.
//!
//! The truth is on the file system: immutable blobs named by their digest, and append-only record logs whose lines
//! carry their own checksums. Everything in the index (sled) is derived and may vanish at any time; see README.md
//! beside this crate for the layout and the guarantees. Local file systems only: leases are `flock`s.
//!
//! ```
//! use harness_cache::{ActionKey, Cache, Record};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let cache = Cache::open(&folder.path().join("cache"))?;
//! let key = ActionKey::new("knn", 1, serde_json::json!({"k": 20}));
//! let Some(lease) = cache.lease(&key.digest())? else { return Ok(()) };
//! let (digest, _size) = cache.put_bytes(b"the result")?;
//! let mut record = Record::new(key);
//! record.log = Some(digest);
//! cache.append(&record)?;
//! cache.commit()?;
//! drop(lease);
//! assert_eq!(cache.record(&record.digest)?, Some(record));
//! # Ok(())
//! # }
//! ```

mod cache;
mod error;
mod files;
mod gc;
mod index;
mod key;
mod lease;
mod log;
mod recent;
mod record;
mod stamp;
mod store;
mod sync;
mod trace;
mod tree;
mod using;
mod verify;

pub use cache::Cache;
pub use error::Error;
pub use gc::Freed;
pub use harness_digest::{CHUNK, Digest, Hasher, NotADigest};
pub use key::{ActionKey, Difference, KEY_FORMAT, canonical_json};
pub use lease::Lease;
pub use record::{Output, RECORD_FORMAT, Record, Series};
pub use stamp::Look;
pub use using::Using;
pub use verify::{Missing, Report, Stat};
