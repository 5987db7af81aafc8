//! A cache that machines share: results in an object store or a folder.
//!
//! What is there is what a local cache holds, under names that say what they are:
//!
//! ```text
//! <place>/harness-1/records/ab/<key>        one record, with its checksum (the line of a local record log)
//! <place>/harness-1/blobs/ab/<digest>       one blob
//! ```
//!
//! Nothing is believed: a record must have its checksum and the key that it is asked for, and a blob the digest that the
//! record says, before either enters the local cache. A record is sent after its blobs, so what can be found is whole.
//! Objects are written at once or not at all, and nothing is ever removed or changed but by the same content; a damaged
//! one is replaced when somebody sends it again. There are no locks: two machines that compute the same send the same.
//!
//! Credentials come from the environment only (`AWS_…`, `GOOGLE_…`, `AZURE_…`), never from a file of the project.

mod error;
mod place;
mod transfer;

pub use error::Error;
pub use place::Remote;
pub use transfer::{Fetched, Sent};
