//! Where in a text a place is: in which braces, at a field's name or at a value.

use super::{fields_at, walk};
use crate::catalog::{Catalog, Field, Type};
use crate::lexer::{Lexeme, Token};
use crate::parser::{DECLARATIONS, RESERVED};

/// An open bracket and what it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The braces of a step.
    Step {
        /// Its kind.
        kind: String,
    },
    /// The braces of a field's value.
    Value {
        /// The field's dotted name.
        path: Vec<String>,
        /// The tag before the braces.
        tag: Option<String>,
    },
    /// `[` or `(`.
    Bracket,
    /// The braces of `for` or `replicate`.
    Block,
    /// The braces of a `table`, `figure` or `claim`.
    Other(&'static str),
}

/// A place in a text.
#[derive(Debug, Clone)]
pub struct Context {
    /// The open brackets, outermost first.
    pub frames: Vec<Frame>,
    /// The lexemes since the innermost bracket opened, or since the last separator in it.
    pub item: Vec<Lexeme>,
    /// The word at the place, in bytes.
    pub word: Option<(usize, usize)>,
    /// Whether a field's name stands there.
    pub names_field: bool,
    /// The fields that the innermost braces hold already.
    pub written: Vec<String>,
    /// What was written before a list that is the value of a field: `paths = [`.
    list: Vec<Lexeme>,
}

impl Context {
    /// The place of the word that an offset lies in or behind.
    pub fn at_word(lexemes: &[Lexeme], offset: usize) -> Option<Context> {
        let near = near(lexemes, offset);
        let word = near.iter().find(|lexeme| {
            matches!(lexeme.token, Token::Name(_)) && lexeme.span.start <= offset && offset <= lexeme.span.end
        });
        let (start, end) = word.map(|lexeme| (lexeme.span.start, lexeme.span.end))?;
        let mut context = Self::before(declaration(lexemes, start), start);
        context.word = Some((start, end));
        // A field's name is followed by `=`, or by a point and further names.
        let first = lexemes.partition_point(|lexeme| lexeme.span.start < end);
        let behind: Vec<&Token> = lexemes[first..].iter().map(|lexeme| &lexeme.token).take(8).collect();
        let mut at = 0;
        while matches!(behind.get(at), Some(Token::Symbol("."))) && matches!(behind.get(at + 1), Some(Token::Name(_))) {
            at += 2;
        }
        context.names_field &= matches!(behind.get(at), Some(Token::Symbol("=")));
        Some(context)
    }

    /// The place of a cursor: the word being typed before it does not count.
    pub fn at_cursor(text: &str, lexemes: &[Lexeme], offset: usize) -> Context {
        let word = near(lexemes, offset).iter().find(|lexeme| {
            matches!(lexeme.token, Token::Name(_)) && lexeme.span.start < offset && offset <= lexeme.span.end
        });
        let start = word.map_or(offset, |lexeme| lexeme.span.start);
        let mut context = Self::before(declaration(lexemes, start), start);
        context.word = Some((start, offset.max(start)));
        // On a line of its own a new item begins, unless an operator asks for more.
        let gap = context.item.last().map_or(start, |last| last.span.end);
        let asks = context.item.last().is_some_and(|last| {
            matches!(last.token, Token::Symbol("=" | "+" | "-" | "*" | "/" | "<" | ">" | "." | ".."))
        });
        if text.get(gap..start).is_some_and(|gap| gap.contains('\n')) && !asks {
            context.item.clear();
            context.names_field = context.takes_fields();
        }
        context
    }

    /// The place of a text or a path in quotes, which is a value as a whole.
    pub fn at_value(lexemes: &[Lexeme], start: usize) -> Context {
        Self::before(declaration(lexemes, start), start)
    }

    fn before(lexemes: &[Lexeme], offset: usize) -> Context {
        let mut frames: Vec<(Frame, Vec<Lexeme>, Vec<String>)> = Vec::new();
        let mut item: Vec<Lexeme> = Vec::new();
        let mut written: Vec<String> = Vec::new();
        for lexeme in lexemes {
            if lexeme.span.end > offset || lexeme.token == Token::End {
                break;
            }
            let in_braces = frames.last().is_none_or(|(frame, ..)| *frame != Frame::Bracket);
            let asks = item.last().is_some_and(|last| {
                matches!(last.token, Token::Symbol(symbol) if !matches!(symbol, ")" | "]" | "}"))
                    || matches!(&last.token, Token::Name(word) if matches!(word.as_str(), "and" | "or" | "not" | "then" | "else" | "in" | "if"))
            });
            if lexeme.first_on_line && in_braces && !asks && !matches!(lexeme.token, Token::Symbol("{")) {
                item.clear();
            }
            match &lexeme.token {
                Token::Symbol(symbol @ ("{" | "[" | "(")) => {
                    let frame = if *symbol == "{" {
                        brace(&item, frames.last().map(|(frame, ..)| frame))
                    } else {
                        Frame::Bracket
                    };
                    let mut outer = std::mem::take(&mut item);
                    outer.push(lexeme.clone());
                    frames.push((frame, outer, std::mem::take(&mut written)));
                }
                Token::Symbol("}" | "]" | ")") => {
                    if let Some((_, outer, before)) = frames.pop() {
                        (item, written) = (outer, before);
                        item.push(lexeme.clone());
                    }
                }
                Token::Symbol(",") => item.clear(),
                Token::Symbol("=") => {
                    if let Some(Lexeme { token: Token::Name(name), .. }) = item.first() {
                        written.push(name.clone());
                    }
                    item.push(lexeme.clone());
                }
                _ => item.push(lexeme.clone()),
            }
        }
        let lists = frames.iter().rev().take_while(|(frame, ..)| *frame == Frame::Bracket).last();
        let list = lists.map(|(_, outer, _)| outer.clone()).unwrap_or_default();
        let mut context = Context {
            frames: frames.into_iter().map(|(frame, ..)| frame).collect(),
            item,
            word: None,
            names_field: false,
            written,
            list,
        };
        let only_path = context.item.iter().enumerate().all(|(at, lexeme)| match &lexeme.token {
            Token::Name(_) => at % 2 == 0,
            Token::Symbol(".") => at % 2 == 1,
            _ => false,
        });
        context.names_field = context.takes_fields() && only_path && context.item.len().is_multiple_of(2);
        context
    }

    fn takes_fields(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Step { .. } | Frame::Value { .. } | Frame::Other("table" | "figure")))
    }

    /// Whether a declaration begins at the place, so that its first word says of what kind.
    pub fn names_kind(&self) -> bool {
        self.item.is_empty() && matches!(self.frames.last(), None | Some(Frame::Block))
    }

    /// The fields of the innermost braces.
    pub fn fields<'a>(&self, catalog: &'a Catalog, _before: &str) -> Option<&'a [Field]> {
        fields_at(&self.frames, catalog)
    }

    /// The names before the one at `start` in a dotted field name.
    pub fn path_before(&self, _text: &str, _start: usize) -> Vec<String> {
        self.item
            .iter()
            .filter_map(|lexeme| match &lexeme.token {
                Token::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// The name before a point that the word at `start` stands behind: `nn` in `nn[moco].top1`.
    pub fn member_of(&self, _text: &str, _start: usize) -> Option<String> {
        let mut before = self.item.iter().rev();
        if !matches!(before.next().map(|lexeme| &lexeme.token), Some(Token::Symbol("."))) {
            return None;
        }
        let mut depth = 0usize;
        for lexeme in before {
            match &lexeme.token {
                Token::Symbol("]" | ")") => depth += 1,
                Token::Symbol("[" | "(") => depth = depth.saturating_sub(1),
                Token::Name(name) if depth == 0 => return Some(name.clone()),
                _ if depth == 0 => return None,
                _ => {}
            }
        }
        None
    }

    /// The type of the value at the place, where it is a field's own value or stands in a list that is one.
    pub fn value_type<'a>(&self, catalog: &'a Catalog) -> Option<&'a Type> {
        let frames: Vec<Frame> = self.frames.iter().filter(|frame| **frame != Frame::Bracket).cloned().collect();
        let item = if frames.len() < self.frames.len() {
            // A list right behind `=`; an index and the arguments of a function are something else.
            let [.., Lexeme { token: Token::Symbol("="), .. }, Lexeme { token: Token::Symbol("["), .. }] =
                self.list.as_slice()
            else {
                return None;
            };
            &self.list
        } else {
            &self.item
        };
        let equals = item.iter().position(|lexeme| lexeme.token == Token::Symbol("="))?;
        let path: Vec<String> = item[..equals]
            .iter()
            .filter_map(|lexeme| match &lexeme.token {
                Token::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let (last, before) = path.split_last()?;
        if let Some(fields) = fields_at(&frames, catalog) {
            let fields = walk(fields, before)?;
            return fields.iter().find(|field| field.name == *last).map(|field| &field.ty);
        }
        // A record whose names are free.
        let (Frame::Value { path, tag: None }, outer) = frames.split_last()? else { return None };
        let (last, before) = path.split_last()?;
        let fields = walk(fields_at(outer, catalog)?, before)?;
        match &fields.iter().find(|field| field.name == *last)?.ty {
            Type::Map(inner) => Some(inner),
            _ => None,
        }
    }
}

/// The few lexemes around a place.
fn near(lexemes: &[Lexeme], offset: usize) -> &[Lexeme] {
    let at = lexemes.partition_point(|lexeme| lexeme.span.end < offset);
    &lexemes[at..lexemes.len().min(at + 3)]
}

/// The lexemes from the beginning of the top-level declaration that a place lies in or behind: what is before it is not
/// around it.
fn declaration(lexemes: &[Lexeme], offset: usize) -> &[Lexeme] {
    let (mut depth, mut begin) = (0usize, 0);
    for (at, lexeme) in lexemes.iter().enumerate().take_while(|(_, lexeme)| lexeme.span.end <= offset) {
        match &lexeme.token {
            Token::Symbol("{" | "[" | "(") => depth += 1,
            Token::Symbol("}" | "]" | ")") => depth = depth.saturating_sub(1),
            Token::Name(_) if depth == 0 && lexeme.first_on_line => {
                if matches!(lexemes.get(at + 1).map(|next| &next.token), Some(Token::Name(_) | Token::Text(_))) {
                    begin = at;
                }
            }
            _ => {}
        }
    }
    &lexemes[begin..]
}

/// What an opening brace belongs to.
fn brace(item: &[Lexeme], outer: Option<&Frame>) -> Frame {
    let names: Vec<&str> = item
        .iter()
        .filter_map(|lexeme| match &lexeme.token {
            Token::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let equals = item.iter().position(|lexeme| lexeme.token == Token::Symbol("="));
    if let Some(equals) = equals
        && !matches!(names.first(), Some(&"let" | &"param"))
        && !matches!(outer, None | Some(Frame::Block))
    {
        let path = item[..equals]
            .iter()
            .filter_map(|lexeme| match &lexeme.token {
                Token::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let tag = match item.last().map(|lexeme| &lexeme.token) {
            Some(Token::Name(tag)) if !RESERVED.contains(&tag.as_str()) => Some(tag.clone()),
            _ => None,
        };
        return Frame::Value { path, tag };
    }
    match names.first() {
        Some(&"for" | &"replicate") => Frame::Block,
        Some(&"table") => Frame::Other("table"),
        Some(&"figure") => Frame::Other("figure"),
        Some(&"claim") => Frame::Other("claim"),
        Some(kind) if names.len() >= 2 && equals.is_none() && !DECLARATIONS.contains(kind) => {
            Frame::Step { kind: (*kind).to_owned() }
        }
        _ => Frame::Other("value"),
    }
}
