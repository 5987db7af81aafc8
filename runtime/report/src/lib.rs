//! Records to pages: tables, claims, figures and pictures as HTML, Markdown, LaTeX, CSV, Parquet, SVG and PDF. Runs
//! nothing, reads no cache.
//!
//! The caller fills a [`Summary`] (or a [`Comparison`]); [`render_html`] gives one self-contained page,
//! [`render_markdown`] one file, [`tables`] what goes into a paper, [`still`] its figures, [`tidy`] what pandas reads.

pub mod format;
pub mod model;
mod page;
pub mod still;
pub mod tables;
pub mod tidy;

pub use model::*;
pub use page::{Error, FILES, Templates, library, render_comparison, render_html, render_markdown};

/// Holds a text to the one kept in `snapshots/`; `HARNESS_SNAPSHOTS=write` keeps the new one.
#[cfg(test)]
pub(crate) fn snapshot(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(name);
    if std::env::var_os("HARNESS_SNAPSHOTS").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{} differs; HARNESS_SNAPSHOTS=write keeps what is made now", path.display());
}
