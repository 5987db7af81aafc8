//! Where a path is being written. What lies at it, only somebody who may look at the disk can say.

use super::context::Context;
use super::{Page, bare};
use crate::catalog::{Catalog, Type};
use crate::lexer::{Lexeme, Token, lex};

/// A cursor in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPlace {
    /// The root of `@root/…`; the name is still being written where [`PathPlace::names_root`] says so.
    pub root: Option<String>,
    /// Whether the cursor is in the name of the root.
    pub names_root: bool,
    /// What stands before the last `/`, that included, below the root if there is one.
    pub folder: String,
    /// What stands between that and the cursor.
    pub typed: String,
    /// First byte of the part that the cursor is in.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// First byte of the whole value, its `@` and quote included.
    pub whole: usize,
    /// Whether it stands in quotes.
    pub quoted: bool,
    /// Whether a quote behind it is still missing.
    pub open: bool,
    /// Whether it names a file of experiments to import.
    pub import: bool,
}

impl PathPlace {
    /// The text that puts `name` here (`/` behind it for a folder), and the first byte of what it replaces: the part at
    /// the cursor, or all before it where the name cannot stand without quotes.
    pub fn write(&self, name: &str, folder: bool, page: &Page) -> (String, usize) {
        let followed = page.text()[self.end..].starts_with('/');
        let slash = if (folder || self.names_root) && !followed { "/" } else { "" };
        if self.quoted {
            let quote = if self.open && !folder && !self.names_root { "\"" } else { "" };
            return (format!("{}{slash}{quote}", escaped(name)), self.start);
        }
        if name.chars().all(|c| !c.is_whitespace() && !",)]}".contains(c)) {
            return (format!("{name}{slash}"), self.start);
        }
        // Bare paths end at a blank.
        let before = self.root.as_deref().filter(|_| !self.names_root).map(|root| format!("{root}/"));
        let before = format!("{}{}", before.unwrap_or_default(), self.folder);
        (format!("@\"{}{slash}\"", escaped(&format!("{before}{name}"))), self.whole)
    }
}

/// A text as it stands between quotes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.extend(control.escape_unicode()),
            other => out.push(other),
        }
    }
    out
}

/// The path around a cursor.
pub(super) fn place(page: &Page, offset: usize, catalog: &Catalog) -> Option<PathPlace> {
    let (text, lexemes) = (page.text(), page.lexemes());
    let index = lexemes.partition_point(|lexeme| lexeme.span.end < offset);
    // Behind a closed text begins something else.
    let index = index + lexemes[index..].iter().take(2).position(|lexeme| holds(text, lexeme, offset))?;
    let lexeme = &lexemes[index];
    let begin = lexeme.span.start;
    let rooted = text[begin..].starts_with('@');
    let open = begin + usize::from(rooted);
    let quoted = text[open..].starts_with('"');
    let from = open + usize::from(quoted);
    if offset < from || !(rooted || quoted) {
        return None;
    }
    let import = index.checked_sub(1).is_some_and(|before| {
        lexemes[before].token == Token::Name("import".into()) && lexemes[before].first_on_line && !lexeme.first_on_line
    });
    if !import && !matches!(Context::at_value(lexemes, begin).value_type(catalog).map(bare), Some(Type::Path)) {
        return None;
    }
    let closed = !matches!(lexeme.token, Token::Bad) && quoted;
    let last = match (quoted, closed) {
        (true, true) => lexeme.span.end - 1,
        // Up to the line's end all belongs to a text without a quote behind it: what is behind the cursor was not meant.
        (true, false) => offset,
        (false, _) => lexeme.span.end,
    };
    let start = text[from..offset].rfind('/').map_or(from, |slash| from + slash + 1);
    let end = text[offset..last].find('/').map_or(last, |slash| offset + slash);
    let (folder, typed) = (plain(&text[from..start], quoted)?, plain(&text[start..offset], quoted)?);
    let (root, folder) = match (rooted, folder.split_once('/')) {
        (false, _) => (None, folder),
        (true, Some((root, below))) => (Some(root.to_owned()), below.to_owned()),
        (true, None) => (Some(typed.clone()), String::new()),
    };
    let names_root = rooted && start == from;
    let open = quoted && !closed;
    Some(PathPlace { root, names_root, folder, typed, start, end, whole: begin, quoted, open, import })
}

/// Whether a cursor is in a text or a path.
fn holds(text: &str, lexeme: &Lexeme, offset: usize) -> bool {
    let within = lexeme.span.start < offset && offset <= lexeme.span.end;
    within
        && match lexeme.token {
            Token::Text(_) => offset < lexeme.span.end,
            Token::Path(_) => offset < lexeme.span.end || !text[lexeme.span.start + 1..].starts_with('"'),
            Token::Bad => text[lexeme.span.start..].starts_with(['"', '@']),
            _ => false,
        }
}

/// A stretch of a path with its escapes resolved.
fn plain(written: &str, quoted: bool) -> Option<String> {
    if !quoted {
        return Some(written.to_owned());
    }
    match lex(&format!("\"{written}\""), 0, &mut Vec::new()).into_iter().next()?.token {
        Token::Text(text) => Some(text),
        _ => None,
    }
}
