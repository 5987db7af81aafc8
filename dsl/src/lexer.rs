//! Characters to tokens, with nom. It never stops: what is no token is reported and becomes [`Token::Bad`].
//!
//! There is no token for a line's end. Each lexeme knows whether a line began since the one before, and the parser
//! decides where that matters.

use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::suggest::did_you_mean;
use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{anychar, char, digit1, one_of};
use nom::combinator::{opt, peek, recognize, verify};
use nom::sequence::{pair, preceded};
use nom::{IResult, Parser};

/// A unit of text.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name or a word.
    Name(String),
    /// A whole number.
    Int(i64),
    /// A number with a point or an exponent, or a percentage as a fraction.
    Float(f64),
    /// A length of time in seconds.
    Duration(f64),
    /// A size in bytes.
    Size(i64),
    /// A text, escapes resolved.
    Text(String),
    /// A place in a dataset root: the root's name and the place in it, which may be empty. Boxed, since there are few of
    /// them and many of the others.
    Path(Box<(String, String)>),
    /// A bracket, an operator or a separator.
    Symbol(&'static str),
    /// Something already reported.
    Bad,
    /// The end of the text.
    End,
}

/// A token and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Lexeme {
    /// The token.
    pub token: Token,
    /// Where it is.
    pub span: Span,
    /// Whether a line began between the lexeme before and this one.
    pub first_on_line: bool,
}

/// Units of time with their seconds.
const DURATIONS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Units of size with their bytes: decimal and binary.
const SIZES: [(&str, f64); 10] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Splits a text into lexemes; the last one is [`Token::End`].
pub fn lex(text: &str, source: usize, diagnostics: &mut Vec<Diagnostic>) -> Vec<Lexeme> {
    // A lexeme for six bytes, white space and comments included, is what programs have.
    let mut lexemes = Vec::with_capacity(text.len() / 6 + 1);
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    loop {
        let (after_blank, first_on_line) = blank(rest);
        rest = after_blank;
        let start = text.len() - rest.len();
        if rest.is_empty() {
            lexemes.push(Lexeme { token: Token::End, span: Span { source, start, end: start }, first_on_line: true });
            return lexemes;
        }
        let mut problems = Problems { source, start, found: Vec::new() };
        let (after, token) = token(rest, &mut problems);
        // Every branch of `token` consumes something; should one not, the character is skipped all the same.
        rest = if after.len() < rest.len() { after } else { skip_character(rest) };
        let end = text.len() - rest.len();
        let span = Span { source, start, end };
        diagnostics.extend(problems.found);
        lexemes.push(Lexeme { token, span, first_on_line: first_on_line || lexemes.is_empty() });
    }
}

/// What is wrong with the token being read.
struct Problems {
    source: usize,
    start: usize,
    found: Vec<Diagnostic>,
}

impl Problems {
    /// Reports the whole stretch of this many bytes from the token's start.
    fn whole(&mut self, code: &'static str, length: usize, message: impl Into<String>) -> &mut Diagnostic {
        self.part(code, 0, length, message)
    }

    fn part(&mut self, code: &'static str, from: usize, to: usize, message: impl Into<String>) -> &mut Diagnostic {
        let span = Span { source: self.source, start: self.start + from, end: self.start + to };
        self.found.push(Diagnostic::error(code, span, message));
        let last = self.found.len() - 1;
        &mut self.found[last]
    }
}

fn skip_character(text: &str) -> &str {
    let mut characters = text.chars();
    characters.next();
    characters.as_str()
}

/// Skips white space and comments; says whether a line ended among them.
fn blank(text: &str) -> (&str, bool) {
    let bytes = text.as_bytes();
    let (mut at, mut ended) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            // Old Macintosh files end their lines with the carriage return alone.
            b'\n' | b'\r' => {
                ended = true;
                at += 1;
            }
            b' ' | b'\t' | 0x0b | 0x0c => at += 1,
            // The line's end is not the comment's.
            b'#' => {
                at += bytes[at..].iter().position(|&byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len() - at)
            }
            0x80.. => match text[at..].chars().next().filter(|next| next.is_whitespace()) {
                Some(space) => at += space.len_utf8(),
                None => break,
            },
            _ => break,
        }
    }
    (&text[at..], ended)
}

/// The bytes of the name that a text begins with; 0 if it begins with none.
fn name_length(text: &str) -> usize {
    match text.as_bytes() {
        [first, rest @ ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            1 + rest.iter().take_while(|next| next.is_ascii_alphanumeric() || **next == b'_').count()
        }
        _ => 0,
    }
}

/// The sign that a text begins with, the longest first.
fn symbol(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let equals = bytes.get(1) == Some(&b'=');
    Some(match bytes.first()? {
        b'.' if bytes.get(1) == Some(&b'.') => "..",
        b'=' if equals => "==",
        b'!' if equals => "!=",
        b'<' if equals => "<=",
        b'>' if equals => ">=",
        b'{' => "{",
        b'}' => "}",
        b'[' => "[",
        b']' => "]",
        b'(' => "(",
        b')' => ")",
        b',' => ",",
        b'=' => "=",
        b'<' => "<",
        b'>' => ">",
        b'+' => "+",
        b'-' => "-",
        b'*' => "*",
        b'/' => "/",
        b'.' => ".",
        b';' => ";",
        b':' => ":",
        _ => return None,
    })
}

fn token<'a>(text: &'a str, problems: &mut Problems) -> (&'a str, Token) {
    let letters = name_length(text);
    if letters > 0 {
        return (&text[letters..], Token::Name(text[..letters].to_owned()));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return number(text, problems);
    }
    if text.starts_with('"') {
        let (rest, content) = quoted(text, 0, problems);
        return (rest, content.map_or(Token::Bad, Token::Text));
    }
    if text.starts_with('@') {
        return path(text, problems);
    }
    if let Some(symbol) = symbol(text) {
        let rest = &text[symbol.len()..];
        if symbol == "." && rest.starts_with(|next: char| next.is_ascii_digit()) {
            // `.5`, unless it follows a name or a bracket, where it would be no better.
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let written = &rest[..digits];
            problems
                .whole("E0004", 1 + digits, "a number needs digits on both sides of its point")
                .help
                .push(format!("write `0.{written}`"));
            return (&rest[digits..], Token::Bad);
        }
        return (rest, Token::Symbol(symbol));
    }
    // A text in single quotes is one mistake.
    let single: IResult<&str, &str> =
        recognize((char('\''), take_while(|c| !matches!(c, '\'' | '\n' | '\r')), char('\''))).parse(text);
    if let Ok((rest, written)) = single {
        problems
            .whole("E0001", written.len(), "texts stand in double quotes")
            .help
            .push(format!("write `\"{}\"`", &written[1..written.len() - 1]));
        return (rest, Token::Bad);
    }
    // A run of characters that belong to nothing is one mistake, not many.
    let odd = |character: char| {
        !character.is_whitespace()
            && !character.is_ascii_alphanumeric()
            && !"\"@#_{}[](),=<>+-*/.;:!".contains(character)
    };
    let run: IResult<&str, &str> = take_while1(odd)(text);
    let (rest, run) = run.unwrap_or_else(|_| {
        let rest = skip_character(text);
        (rest, &text[..text.len() - rest.len()])
    });
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let shown: String = run.chars().take(20).map(escaped).collect();
    let problem = problems.whole("E0001", run.len(), format!("`{}` means nothing here", shown));
    match run {
        "%" => problem.help.push("`%` stands right behind a number, as in `10%`; there is no modulo".to_owned()),
        "!" => problem.help.push("write `not`".to_owned()),
        "&" | "&&" => problem.help.push("write `and`".to_owned()),
        "|" | "||" => problem.help.push("write `or`".to_owned()),
        "'" => problem.help.push("texts stand in double quotes".to_owned()),
        _ if run.chars().any(char::is_alphabetic) => {
            problem
                .help
                .push("names are made of the letters a to z, digits and `_`; anything may stand in quotes".to_owned());
        }
        _ => {}
    }
    (rest, Token::Bad)
}

/// `65_536`: a digit, then digits and underscores.
fn digits(text: &str) -> IResult<&str, &str> {
    recognize(pair(digit1, take_while(|next: char| next.is_ascii_digit() || next == '_'))).parse(text)
}

/// `.5` behind digits; not the first point of `..`.
fn fraction(text: &str) -> IResult<&str, &str> {
    recognize(preceded(char('.'), digits)).parse(text)
}

fn exponent(text: &str) -> IResult<&str, &str> {
    recognize((one_of("eE"), opt(one_of("+-")), digit1)).parse(text)
}

/// Digits with what may follow: a fraction, an exponent, `%` or a unit.
fn number<'a>(text: &'a str, problems: &mut Problems) -> (&'a str, Token) {
    // Most numbers are digits with a point among them at most, and nothing behind.
    let bytes = text.as_bytes();
    let run = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends = |at: usize| {
        let behind = bytes.get(at).copied().unwrap_or(b' ');
        !matches!(behind, b'.' | b'%' | b'_') && !behind.is_ascii_alphanumeric()
    };
    let whole = run(0);
    if ends(whole)
        && let Ok(value) = text[..whole].parse()
    {
        return (&text[whole..], Token::Int(value));
    }
    if bytes.get(whole) == Some(&b'.') {
        let all = run(whole + 1);
        if all > whole + 1
            && ends(all)
            && let Ok(value) = text[..all].parse::<f64>()
            && value.is_finite()
        {
            return (&text[all..], Token::Float(value));
        }
    }
    let parts: IResult<&str, (&str, Option<&str>, Option<&str>)> = (digits, opt(fraction), opt(exponent)).parse(text);
    let Ok((rest, (whole, fraction, exponent))) = parts else {
        return (skip_character(text), Token::Bad);
    };
    let plain = |part: &str| part.replace('_', "");
    let length = text.len() - rest.len();
    let mantissa = format!("{}{}", plain(whole), plain(fraction.unwrap_or("")));
    let exact = fraction.is_none() && exponent.is_none();

    // `5.` without digits behind the point, which is not a range and not a member.
    let lone_point: IResult<&str, char> =
        preceded(char('.'), peek(verify(anychar, |next| *next != '.' && !next.is_ascii_alphabetic()))).parse(rest);
    if fraction.is_none() && (lone_point.is_ok() || rest == ".") {
        problems
            .whole("E0004", length + 1, "a number needs digits on both sides of its point")
            .help
            .push(format!("write `{whole}.0`"));
        return (&rest[1..], Token::Bad);
    }

    if let Some(rest) = rest.strip_prefix('%') {
        // The decimal point moves in the text, so that 10% is the very number that 0.1 is.
        let shift: i64 = exponent.and_then(|text| text[1..].parse().ok()).unwrap_or(0);
        let value = format!("{mantissa}e{}", shift.saturating_sub(2)).parse().unwrap_or(f64::INFINITY);
        return (rest, finite(value, length + 1, problems));
    }
    let letters = name_length(rest);
    if letters > 0 {
        let (unit, after) = rest.split_at(letters);
        let value: f64 = format!("{mantissa}{}", exponent.unwrap_or("")).parse().unwrap_or(f64::INFINITY);
        let length = length + unit.len();
        if let Some((_, seconds)) = DURATIONS.iter().find(|(known, _)| *known == unit) {
            return match finite(value * seconds, length, problems) {
                Token::Float(value) => (after, Token::Duration(value)),
                other => (after, other),
            };
        }
        if let Some((_, bytes)) = SIZES.iter().find(|(known, _)| *known == unit) {
            let bytes = (value * bytes).round();
            // 2^53: up to here every whole number of bytes is exact.
            if bytes > 9_007_199_254_740_992.0 {
                problems.whole("E0004", length, "this size is too large");
                return (after, Token::Bad);
            }
            return (after, Token::Size(bytes as i64));
        }
        let known = DURATIONS.iter().map(|(unit, _)| *unit).chain(SIZES.iter().map(|(unit, _)| *unit));
        let help = did_you_mean(unit, known);
        let problem = problems.part(
            "E0004",
            length - unit.len(),
            length,
            format!("`{unit}` is no unit, and a name does not begin with a digit"),
        );
        problem.help.extend(help);
        problem.notes.push("units are ms, s, min, h, d and B, kB, MB, GB, TB, KiB, MiB, GiB, TiB".to_owned());
        return (after, Token::Bad);
    }
    if exact {
        return match mantissa.parse() {
            Ok(value) => (rest, Token::Int(value)),
            Err(_) => {
                problems.whole("E0004", length, format!("this number is too large: whole numbers end at {}", i64::MAX));
                (rest, Token::Bad)
            }
        };
    }
    let value = format!("{mantissa}{}", exponent.unwrap_or("")).parse().unwrap_or(f64::INFINITY);
    (rest, finite(value, length, problems))
}

fn finite(value: f64, length: usize, problems: &mut Problems) -> Token {
    if value.is_finite() {
        return Token::Float(value);
    }
    problems.whole("E0004", length, "this number is too large");
    Token::Bad
}

/// A text in quotes, which ends on its line. `before` bytes of the token came before the quote.
fn quoted<'a>(text: &'a str, before: usize, problems: &mut Problems) -> (&'a str, Option<String>) {
    let mut content = String::new();
    let mut good = true;
    let mut rest = &text[1..];
    let at = |rest: &str| before + text.len() - rest.len();
    loop {
        let run: IResult<&str, &str> = take_while(|c| !matches!(c, '"' | '\\' | '\n' | '\r'))(rest);
        if let Ok((after, run)) = run {
            content.push_str(run);
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('"') {
            return (after, good.then_some(content));
        }
        let Some(after) = rest.strip_prefix('\\') else {
            let end = at(rest);
            problems
                .whole("E0002", end, "this text is not closed")
                .help
                .push("a text ends with `\"` on the line it begins on".to_owned());
            return (rest, None);
        };
        let from = at(rest);
        let escaped: IResult<&str, char> = escape(after);
        match escaped {
            Ok((after, character)) => {
                content.push(character);
                rest = after;
            }
            Err(_) => {
                good = false;
                let stop = if after.starts_with(['\n', '\r']) { after } else { skip_character(after) };
                let written = &rest[..rest.len() - stop.len()];
                problems
                    .part("E0003", from, from + written.len(), format!("`{written}` is no escape"))
                    .help
                    .push("there are `\\n`, `\\t`, `\\\"`, `\\\\` and `\\u{1f600}`".to_owned());
                rest = stop;
            }
        }
    }
}

/// What may follow a backslash.
fn escape(text: &str) -> IResult<&str, char> {
    let (rest, letter) = one_of("nt\"\\u")(text)?;
    match letter {
        'n' => Ok((rest, '\n')),
        't' => Ok((rest, '\t')),
        'u' => {
            let (rest, hex) =
                nom::sequence::delimited(char('{'), take_while1(|digit: char| digit.is_ascii_hexdigit()), char('}'))
                    .parse(rest)?;
            let character = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
            character
                .map(|character| (rest, character))
                .ok_or_else(|| nom::Err::Error(nom::error::Error::new(rest, nom::error::ErrorKind::HexDigit)))
        }
        other => Ok((rest, other)),
    }
}

/// `@root/path`, up to white space or one of `,)]}`; or `@"root/path with space"`.
fn path<'a>(text: &'a str, problems: &mut Problems) -> (&'a str, Token) {
    let after = &text[1..];
    let (rest, content) = if after.starts_with('"') {
        let (rest, content) = quoted(after, 1, problems);
        match content {
            Some(content) => (rest, content),
            None => return (rest, Token::Bad),
        }
    } else {
        let bare: IResult<&str, &str> = take_while(|c: char| !c.is_whitespace() && !",)]}".contains(c))(after);
        match bare {
            Ok((rest, bare)) => (rest, bare.to_owned()),
            Err(_) => (after, String::new()),
        }
    };
    let length = text.len() - rest.len();
    let (root, path) = content.split_once('/').unwrap_or((&content, ""));
    if root.is_empty() {
        problems.whole("E0005", length, "this path names no root").help.push(
            "write `@root/path`, where harness.toml says where `root` is; a path on this machine is a text in quotes"
                .to_owned(),
        );
        return (rest, Token::Bad);
    }
    if path.split('/').any(|part| part == "..") || root == ".." {
        problems.whole("E0005", length, format!("this path leaves its root `{root}`"));
        return (rest, Token::Bad);
    }
    (rest, Token::Path(Box::new((root.to_owned(), path.to_owned()))))
}
