//! What an editor asks of a text: where a name is declared and used, what stands at a place, what could stand there.
//!
//! All of it works on lexemes, so a text that is being typed, and so cannot be read as a program, is served as well.

mod complete;
mod context;
mod names;
mod paths;
mod tokens;

pub use complete::{Completion, CompletionKind};
pub use names::{Declaration, DeclarationKind, Names};
pub use paths::PathPlace;
pub use tokens::{SemanticToken, TokenKind};

use crate::catalog::{Catalog, Field, Kind, Type};
use crate::checker::{FUNCTIONS, wanted};
use crate::lexer::{Lexeme, lex};
use crate::parser::{DECLARATIONS, RESERVED};
use context::{Context, Frame};
use std::fmt::Write;

/// Whether a word is one of the language, which no name can be.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The words that are never names.
pub fn reserved() -> &'static [&'static str] {
    &RESERVED
}

/// The words that begin declarations.
pub fn declarations() -> &'static [&'static str] {
    &DECLARATIONS
}

/// The functions of values, and `best`.
pub fn functions() -> &'static [&'static str] {
    &FUNCTIONS
}

/// A text as it stands in an editor, cut into lexemes and lines once for everything that is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    text: String,
    lexemes: Vec<Lexeme>,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Default for Page {
    fn default() -> Self {
        Page::new("")
    }
}

impl Page {
    /// Reads a text.
    pub fn new(text: impl Into<String>) -> Page {
        let text = text.into();
        let lexemes = lex(&text, 0, &mut Vec::new());
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Page { text, lexemes, lines }
    }

    /// The page with the bytes from `start` to `end` replaced, as [`Page::new`] would read it. No lexeme goes past the end
    /// of its line, so the lines around the edit alone are read anew.
    ///
    /// # Panics
    /// `start` or `end` lies within a character, or beyond the end, or they are the wrong way round.
    pub fn edited(self, start: usize, end: usize, new: &str) -> Page {
        let Page { mut text, mut lexemes, mut lines } = self;
        let from = lines[lines.partition_point(|&line| line <= start) - 1];
        let below = lines.partition_point(|&line| line <= end);
        let to = lines.get(below).copied().unwrap_or(text.len());
        text.replace_range(start..end, new);
        let moved = |at: usize| at - end + start + new.len();
        let anew = &text[from..moved(to)];
        // At the beginning of a text alone it is no mistake.
        if anew.starts_with('\u{feff}') && from > 0 {
            return Page::new(text);
        }
        let last = below == lines.len();
        let first_line = lines.partition_point(|&line| line <= from);
        let breaks = anew.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| from + at + 1);
        // The line behind the edit begins with the last break in it.
        let breaks: Vec<usize> = breaks.collect();
        lines[below..].iter_mut().for_each(|line| *line = moved(*line));
        let kept = if last { below } else { below + 1 };
        lines.splice(first_line..kept, breaks);
        let first = lexemes.partition_point(|lexeme| lexeme.span.start < from);
        let behind = if last { lexemes.len() } else { lexemes.partition_point(|lexeme| lexeme.span.start < to) };
        let mut middle = lex(anew, 0, &mut Vec::new());
        if !last {
            middle.pop();
        }
        for lexeme in &mut middle {
            lexeme.span.start += from;
            lexeme.span.end += from;
        }
        for lexeme in &mut lexemes[behind..] {
            lexeme.span.start = moved(lexeme.span.start);
            lexeme.span.end = moved(lexeme.span.end);
        }
        lexemes.splice(first..behind, middle);
        Page { text, lexemes, lines }
    }

    /// The page with another text; what both begin and end with is not read anew.
    pub fn replaced(self, new: &str) -> Page {
        let old = self.text.as_bytes();
        let same = old.iter().zip(new.as_bytes()).take_while(|(a, b)| a == b).count();
        let mut start = same;
        while !(self.text.is_char_boundary(start) && new.is_char_boundary(start)) {
            start -= 1;
        }
        let behind = (old[start..].iter().rev()).zip(new.as_bytes()[start..].iter().rev()).take_while(|(a, b)| a == b);
        let mut behind = behind.count();
        while !(self.text.is_char_boundary(old.len() - behind) && new.is_char_boundary(new.len() - behind)) {
            behind -= 1;
        }
        let end = old.len() - behind;
        self.edited(start, end, &new[start..new.len() - behind])
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn lexemes(&self) -> &[Lexeme] {
        &self.lexemes
    }

    /// The line, and the column in UTF-16 units, of a byte; both from 0.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= offset).saturating_sub(1);
        (line as u32, self.text[self.lines[line]..offset].encode_utf16().count() as u32)
    }

    /// The byte of a line and a column in UTF-16 units; the nearest there is.
    pub fn offset(&self, line: u32, column: u32) -> usize {
        let Some(&start) = self.lines.get(line as usize) else { return self.text.len() };
        let mut units = 0;
        for (at, character) in self.text[start..].char_indices() {
            if units >= column as usize || character == '\n' {
                return start + at;
            }
            units += character.len_utf16();
        }
        self.text.len()
    }

    /// What stands at a place, as Markdown, and where it begins and ends in bytes.
    pub fn hover(
        &self,
        offset: usize,
        names: &Names,
        source: usize,
        catalog: &Catalog,
    ) -> Option<(String, usize, usize)> {
        hover(self, offset, names, source, catalog)
    }

    /// What could stand at a cursor, and the bytes of the word that it would replace.
    pub fn complete(
        &self,
        offset: usize,
        names: &Names,
        source: usize,
        catalog: &Catalog,
    ) -> (Vec<Completion>, usize, usize) {
        complete::complete(self, offset, names, source, catalog)
    }

    /// The path that is being written at a cursor: in a field that takes one, or behind `import`.
    pub fn path(&self, offset: usize, catalog: &Catalog) -> Option<PathPlace> {
        paths::place(self, offset, catalog)
    }

    /// What every stretch of it is, in order; brackets and separators are left out.
    pub fn semantic_tokens(&self) -> Vec<SemanticToken> {
        tokens::semantic_tokens(&self.text, &self.lexemes)
    }
}

fn hover(
    page: &Page,
    offset: usize,
    names: &Names,
    source: usize,
    catalog: &Catalog,
) -> Option<(String, usize, usize)> {
    let text = page.text();
    let context = Context::at_word(page.lexemes(), offset)?;
    let (start, end) = context.word?;
    let word = &text[start..end];
    let found = |markdown: String| Some((markdown, start, end));
    if context.names_kind() {
        return catalog.kind(word).map(|kind| (about_kind(kind), start, end));
    }
    if context.names_field {
        let field = context.fields(catalog, &text[..start]).and_then(|fields| {
            let path = context.path_before(text, start);
            walk(fields, &path).and_then(|fields| fields.iter().find(|field| field.name == word))
        });
        return field.map(|field| (about_field(field), start, end));
    }
    if let Some(owner) = context.member_of(text, start)
        && let Some(declared) = names.resolve(&owner, source, start)
        && let DeclarationKind::Step { kind, .. } = &declared.kind
        && let Some(kind) = catalog.kind(kind)
    {
        let output =
            kind.output(word).map(|o| format!("output `{}` of `{owner}`: {}\n\n{}", o.name, o.artifact, o.doc));
        let metric = kind.metric(word).map(|metric| {
            let what = if metric.series { "curve" } else { "number" };
            let unit = if metric.percent { ", in percent" } else { "" };
            format!("{what} `{}` of `{owner}`{unit}\n\n{}", metric.name, metric.doc)
        });
        return found(output.or(metric)?);
    }
    if let Some(ty) = context.value_type(catalog) {
        if let Some(variant) = variants(ty).iter().find(|variant| variant.name == word) {
            let mut out = format!("`{word} {{ … }}`\n\n{}\n", variant.doc);
            list_fields(&mut out, &variant.fields);
            return found(out);
        }
        if names.resolve(word, source, start).is_none()
            && let Type::Choice(words) = bare(ty)
            && words.iter().any(|known| known == word)
        {
            return found(format!("`{word}`, one of {}", words.join(", ")));
        }
    }
    let declared = names.meant(word, source, start)?;
    found(match &declared.kind {
        DeclarationKind::Step { kind, base } => {
            let from = base.as_ref().map(|base| format!(" from {base}")).unwrap_or_default();
            let mut out = format!("```exp\n{kind} {word}{from}\n```\n");
            if let Some(kind) = catalog.kind(kind) {
                let _ = writeln!(out, "{}", kind.doc.lines().next().unwrap_or_default());
                let outputs: Vec<String> =
                    kind.outputs.iter().map(|o| format!("`{}` ({})", o.name, o.artifact)).collect();
                if !outputs.is_empty() {
                    let _ = writeln!(out, "\ngives {}", outputs.join(", "));
                }
                let metrics: Vec<String> = kind.metrics.iter().map(|metric| format!("`{}`", metric.name)).collect();
                if !metrics.is_empty() {
                    let _ = writeln!(out, "\nmeasures {}", metrics.join(", "));
                }
            }
            out
        }
        DeclarationKind::Param => format!("```exp\nparam {word} = {}\n```\n`-p {word}=…` sets it", declared.value),
        DeclarationKind::Let => format!("```exp\nlet {word} = {}\n```", declared.value),
        DeclarationKind::Axis { replicate } => {
            let (form, what) =
                if *replicate { ("replicate", "an axis to average over") } else { ("for", "an axis to compare along") };
            format!("```exp\n{form} {word} in {}\n```\n{what}", declared.value)
        }
        DeclarationKind::Table => format!("table `{word}`"),
        DeclarationKind::Figure => format!("figure `{word}`"),
        DeclarationKind::Claim => format!("claim “{word}”"),
    })
}

fn about_kind(kind: &Kind) -> String {
    let mut out = format!("**{}**\n\n{}\n", kind.name, kind.doc);
    list_fields(&mut out, &kind.fields);
    out
}

fn list_fields(out: &mut String, fields: &[Field]) {
    for field in fields {
        let needed = if field.required { ", required" } else { "" };
        let _ = write!(out, "\n- `{}`: {}{needed}", field.name, wanted(&field.ty));
    }
}

fn about_field(field: &Field) -> String {
    let default = match &field.default {
        _ if field.required => "\n\nrequired".to_owned(),
        Some(value) if !value.is_null() => format!("\n\ndefault `{}`", shortened(&value.to_string())),
        _ => String::new(),
    };
    let observes = if field.observes { "\n\nonly observes: never makes a step run again" } else { "" };
    let mut out = format!("`{}`: {}\n\n{}{default}{observes}\n", field.name, wanted(&field.ty), field.doc);
    match bare(&field.ty) {
        Type::Record(fields) => list_fields(&mut out, fields),
        Type::Tagged(variants) => {
            for variant in variants {
                let _ = write!(out, "\n- `{}`: {}", variant.name, variant.doc.lines().next().unwrap_or_default());
            }
        }
        _ => {}
    }
    out
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 120 { text.to_owned() } else { text.chars().take(119).chain(['…']).collect() }
}

/// The type inside `optional`, `list` and `map`.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Optional(inner) | Type::List(inner) | Type::Map(inner) => bare(inner),
        other => other,
    }
}

fn variants(ty: &Type) -> &[crate::catalog::Variant] {
    match bare(ty) {
        Type::Tagged(variants) => variants,
        _ => &[],
    }
}

/// The fields of a value of this type, written with this tag.
fn fields_of<'a>(ty: &'a Type, tag: Option<&str>, default: Option<&serde_json::Value>) -> Option<&'a [Field]> {
    match (bare(ty), tag) {
        (Type::Record(fields), None) => Some(fields),
        (Type::Tagged(variants), Some(tag)) => {
            variants.iter().find(|variant| variant.name == tag).map(|variant| variant.fields.as_slice())
        }
        // Reached into with `a.b = v`: the default's tag is meant.
        (Type::Tagged(variants), None) => {
            let tag = default.and_then(|value| value.as_object()?.keys().next().cloned());
            let one = tag.and_then(|tag| variants.iter().find(|variant| variant.name == tag));
            one.or(variants.first()).map(|variant| variant.fields.as_slice())
        }
        _ => None,
    }
}

/// The fields that lie behind the names of a dotted path.
fn walk<'a>(fields: &'a [Field], path: &[String]) -> Option<&'a [Field]> {
    path.iter().try_fold(fields, |fields, name| {
        let field = fields.iter().find(|field| field.name == *name)?;
        fields_of(&field.ty, None, field.default.as_ref())
    })
}

/// The fields that the innermost open brace takes.
fn fields_at<'a>(frames: &[Frame], catalog: &'a Catalog) -> Option<&'a [Field]> {
    let mut fields: Option<&[Field]> = None;
    for frame in frames {
        fields = match frame {
            Frame::Step { kind } => catalog.kind(kind).map(|kind| kind.fields.as_slice()),
            Frame::Value { path, tag } => {
                let (last, before) = path.split_last()?;
                let outer = walk(fields?, before)?;
                let field = outer.iter().find(|field| field.name == *last)?;
                fields_of(&field.ty, tag.as_deref(), field.default.as_ref())
            }
            Frame::Bracket => fields,
            Frame::Block | Frame::Other(_) => None,
        };
    }
    fields
}
