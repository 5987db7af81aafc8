//! The texts of a program and places in them.

use serde::{Deserialize, Serialize};

/// A stretch of one source text, in bytes, end exclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Index of the text in [`Sources`].
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The smallest span around both; this one's source counts.
    pub fn to(self, other: Span) -> Span {
        if other.source != self.source {
            return self;
        }
        Span { source: self.source, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Where a span begins and ends, as people count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The source's name.
    pub file: String,
    /// Line of the first character, from 1.
    pub line: usize,
    /// Column of the first character, in characters, from 1.
    pub column: usize,
    /// Line just past the last character, from 1.
    pub end_line: usize,
    /// Column just past the last character, from 1.
    pub end_column: usize,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name that messages show.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The texts that a program was read from: the file itself first, then its imports as they were met, then the
/// values of `-p` (each a tiny text named `-p NAME`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a text and gives its index.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        self.files.push(Source { name: name.into(), text: text.into() });
        self.files.len() - 1
    }

    /// The text of that index.
    pub fn get(&self, index: usize) -> Option<&Source> {
        self.files.get(index)
    }

    /// All texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }

    /// The characters that a span covers; empty for a span that fits no text.
    pub fn slice(&self, span: Span) -> &str {
        self.get(span.source).and_then(|source| source.text.get(span.start..span.end)).unwrap_or("")
    }

    /// Where a span is, as people count.
    pub fn location(&self, span: Span) -> Location {
        let Some(source) = self.get(span.source) else {
            return Location { file: String::new(), line: 1, column: 1, end_line: 1, end_column: 1 };
        };
        let place = |offset: usize| {
            let before = clamp(&source.text, offset);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        };
        let (line, column) = place(span.start);
        let (end_line, end_column) = place(span.end);
        Location { file: source.name.clone(), line, column, end_line, end_column }
    }
}

/// The text up to an offset, moved back to the nearest character boundary.
fn clamp(text: &str, offset: usize) -> &str {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
