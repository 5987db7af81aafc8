//! A run as it goes on, for whoever looks at it: read from what the run records, never from the run itself.
//!
//! ```text
//! runs/<id>/events.jsonl -Tail-> events -Live-> what is shown now -> the full screen of `watch`, the page of `serve`
//! ```
//!
//! A watcher costs the run nothing but the reading of a file, attaches to a run that was started elsewhere, and outlives
//! one that is killed.

pub mod http;
pub mod load;
pub mod model;
pub mod screen;
pub mod source;
pub mod tail;
pub mod update;
