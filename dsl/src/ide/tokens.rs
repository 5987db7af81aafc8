//! What every stretch of a text is, for colours that know the language.

use crate::lexer::{Lexeme, Token};
use crate::parser::{DECLARATIONS, RESERVED};

/// What a stretch of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A word of the language.
    Keyword,
    /// A kind of step.
    Kind,
    /// The name of a field.
    Field,
    /// Any other name.
    Name,
    /// A number with its unit.
    Number,
    /// A text or a path.
    Text,
    /// An operator.
    Operator,
    /// A comment.
    Comment,
}

/// A stretch of text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemanticToken {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// What it is.
    pub kind: TokenKind,
}

/// All of a text in order; brackets and separators are left out.
pub(super) fn semantic_tokens(text: &str, lexemes: &[Lexeme]) -> Vec<SemanticToken> {
    let mut out = Vec::new();
    let mut end = 0;
    for (at, lexeme) in lexemes.iter().enumerate() {
        comments(text, end, lexeme.span.start, &mut out);
        end = lexeme.span.end;
        let next = lexemes.get(at + 1).map(|lexeme| &lexeme.token);
        let before = at.checked_sub(1).map(|at| &lexemes[at].token);
        let kind = match &lexeme.token {
            Token::Name(word) => {
                let begins = lexeme.first_on_line || matches!(before, None | Some(Token::Symbol("{" | "}" | ",")));
                let headed = matches!(next, Some(Token::Name(_) | Token::Text(_)));
                match word.as_str() {
                    word if RESERVED.contains(&word) => TokenKind::Keyword,
                    "from" | "when" if matches!(before, Some(Token::Name(_) | Token::Symbol("]" | ")"))) => {
                        TokenKind::Keyword
                    }
                    word if begins && headed && DECLARATIONS.contains(&word) => TokenKind::Keyword,
                    _ if begins && matches!(next, Some(Token::Name(_))) => TokenKind::Kind,
                    _ if matches!(next, Some(Token::Symbol("=")))
                        && (lexeme.first_on_line || !matches!(before, Some(Token::Name(_)))) =>
                    {
                        TokenKind::Field
                    }
                    _ => TokenKind::Name,
                }
            }
            Token::Int(_) | Token::Float(_) | Token::Duration(_) | Token::Size(_) => TokenKind::Number,
            Token::Text(_) | Token::Path(_) => TokenKind::Text,
            Token::Symbol("{" | "}" | "[" | "]" | "(" | ")" | "," | ".") | Token::Bad | Token::End => continue,
            Token::Symbol(_) => TokenKind::Operator,
        };
        out.push(SemanticToken { start: lexeme.span.start, end: lexeme.span.end, kind });
    }
    out
}

fn comments(text: &str, from: usize, to: usize, out: &mut Vec<SemanticToken>) {
    let Some(gap) = text.get(from..to) else { return };
    let mut start = from;
    for line in gap.split('\n') {
        if let Some(hash) = line.find('#') {
            let end = start + line.trim_end().len();
            out.push(SemanticToken { start: start + hash, end, kind: TokenKind::Comment });
        }
        start += line.len() + 1;
    }
}

/// Whether a place lies in a comment.
pub(super) fn in_comment(text: &str, lexemes: &[Lexeme], offset: usize) -> bool {
    // Comments lie between two lexemes.
    let behind = lexemes.partition_point(|lexeme| lexeme.span.start < offset);
    let from = behind.checked_sub(1).map_or(0, |before| lexemes[before].span.end);
    let to = lexemes.get(behind).map_or(text.len(), |lexeme| lexeme.span.start);
    let mut found = Vec::new();
    comments(text, from, to, &mut found);
    found.iter().any(|comment| comment.start < offset && offset <= comment.end)
}
