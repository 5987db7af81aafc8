//! Records to pages: tables, claims, curves and pictures as HTML and Markdown. Runs nothing, reads no cache.
//!
//! The caller fills a [`Summary`]; [`render_html`] gives one self-contained page, [`render_markdown`] one file.

pub mod charts;
pub mod curves;
pub mod format;
pub mod model;
mod page;

pub use model::*;
pub use page::{Error, render_html, render_markdown};
