//! Characters to tokens, with nom. It never stops: what is no token is reported and becomes [`Token::Bad`].
//!
//! There is no token for a line's end. Each lexeme knows whether a line began since the one before, and the parser
//! decides where that matters.

use crate::diagnostic::{Diagnostic, Fix};
use crate::source::Span;
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

    /// Makes an edit of bytes from the token's start the remedy of the last problem.
    fn edit(&mut self, from: usize, to: usize, text: impl Into<String>) {
        let span = Span { source: self.source, start: self.start + from, end: self.start + to };
        if let Some(last) = self.found.last_mut() {
            last.edit = Some(Fix { span, text: text.into() });
        }
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
    // Comments of other languages.
    if let Some(behind) = text.strip_prefix("//") {
        let line = text.find(['\n', '\r']).unwrap_or(text.len());
        let problem = problems.whole("E0001", 2, "a comment begins with `#`");
        // Before a number it may be the division of other languages, and what it leaves is no comment.
        if behind.trim_start().starts_with(|next: char| next.is_ascii_digit() || next == '(') {
            problem.help.push("write `#`; for a quotient without its fraction there is `round`".to_owned());
        } else {
            problem.help.push("write `#`".to_owned());
            problems.edit(0, 2, "#");
        }
        return (&text[line..], Token::Bad);
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
            problems.edit(0, 1 + digits, format!("0.{written}"));
            return (&rest[digits..], Token::Bad);
        }
        return (rest, Token::Symbol(symbol));
    }
    // A text in single quotes, or in those that a word processor makes, is one mistake.
    for (open, close) in [('\'', '\''), ('‘', '’'), ('“', '”'), ('„', '“'), ('«', '»'), ('”', '”'), ('`', '`')]
    {
        let mut characters = text.chars();
        if characters.next() != Some(open) {
            continue;
        }
        let inner: &str = characters.as_str();
        let end = inner.find(['\n', '\r']).unwrap_or(inner.len());
        // Where the closing one was mended by hand already.
        let Some(close_at) = inner[..end].find([close, '"']) else { continue };
        let closing = inner[close_at..].chars().next().map_or(1, char::len_utf8);
        let length = open.len_utf8() + close_at + closing;
        let content = &inner[..close_at];
        let written = format!("\"{}\"", content.replace('\\', "\\\\"));
        problems
            .whole("E0001", length, "texts stand in straight double quotes")
            .help
            .push(format!("write `{written}`"));
        problems.edit(0, length, written);
        return (&text[length..], Token::Text(content.to_owned()));
    }
    // Signs that a word processor or a page sets in place of others.
    const SET: [(char, &str); 8] =
        [('–', "-"), ('—', "-"), ('−', "-"), ('×', "*"), ('·', "*"), ('≤', "<="), ('≥', ">="), ('≠', "!=")];
    if let Some((sign, plain)) = SET.iter().find(|(sign, _)| text.starts_with(*sign)) {
        let length = sign.len_utf8();
        let message = format!("`{sign}` means nothing here");
        problems.whole("E0001", length, message).help.push(format!("write `{plain}`"));
        problems.edit(0, length, *plain);
        return (&text[length..], Token::Symbol(plain));
    }
    // What takes no room on the screen.
    if let Some(first) = text.chars().next().filter(|first| invisible(*first)) {
        let length = first.len_utf8();
        let message = format!("an invisible character, U+{:04X}", first as u32);
        problems.whole("E0001", length, message).help.push("delete it".to_owned());
        problems.edit(0, length, "");
        return (&text[length..], Token::Bad);
    }
    // A run of characters that belong to nothing is one mistake, not many.
    let odd = |character: char| {
        !character.is_whitespace()
            && !character.is_ascii_alphanumeric()
            && !invisible(character)
            && !SET.iter().any(|(sign, _)| *sign == character)
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
    // A word needs room behind it where a sign does not.
    let room = if rest.starts_with(char::is_whitespace) { "" } else { " " };
    let mut edit = None;
    match run {
        "%" => problem.help.push("`%` stands right behind a number, as in `10%`; there is no modulo".to_owned()),
        "!" => {
            problem.help.push("write `not`".to_owned());
            edit = Some(format!("not{room}"));
        }
        "&" | "&&" => {
            problem.help.push("write `and`".to_owned());
            edit = Some("and".to_owned()).filter(|_| room.is_empty());
        }
        "|" | "||" => {
            problem.help.push("write `or`".to_owned());
            edit = Some("or".to_owned()).filter(|_| room.is_empty());
        }
        "^" => problem.help.push("there is no power: write `1e-3`, or the product `2 * 2 * 2`".to_owned()),
        "“" | "”" | "„" | "‘" | "’" | "'" | "`" | "«" | "»" => {
            problem.help.push("texts stand in straight double quotes: `\"…\"`".to_owned());
        }
        _ if run.chars().any(char::is_alphabetic) => {
            problem
                .help
                .push("names are made of the letters a to z, digits and `_`; anything may stand in quotes".to_owned());
        }
        _ => {}
    }
    if let Some(text) = edit {
        problems.edit(0, run.len(), text);
    }
    (rest, Token::Bad)
}

/// Characters that take no room, which pasted texts bring along: zero-width spaces and joiners, soft hyphens, marks of
/// direction and of byte order.
fn invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Words for units, as people write them out.
const SPELT: [(&str, &[&str]); 5] = [
    ("ms", &["msec", "msecs", "millis", "milliseconds"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("min", &["mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("d", &["day", "days"]),
];

/// The unit that a word stands for: itself, in other capitals, or spelt out.
pub(crate) fn unit(word: &str) -> Option<&'static str> {
    let mut known = DURATIONS.iter().map(|(unit, _)| *unit).chain(SIZES.iter().map(|(unit, _)| *unit));
    let lower = word.to_lowercase();
    known.clone().find(|unit| *unit == word).or_else(|| {
        let spelt = SPELT.iter().find(|(_, words)| words.contains(&lower.as_str())).map(|(unit, _)| *unit);
        spelt.or_else(|| known.find(|unit| unit.to_lowercase() == lower && lower.len() > 1))
    })
}

/// `65_536`: a digit, then digits and underscores.
fn digits(text: &str) -> IResult<&str, &str> {
    recognize(pair(digit1, take_while(|next: char| next.is_ascii_digit() || next == '_'))).parse(text)
}

/// `.5` behind digits; not the first point of `..`.
fn fraction(text: &str) -> IResult<&str, &str> {
    recognize(preceded(char('.'), digits)).parse(text)
}

fn exponent_of(text: &str) -> IResult<&str, &str> {
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
    let parts: IResult<&str, (&str, Option<&str>, Option<&str>)> =
        (digits, opt(fraction), opt(exponent_of)).parse(text);
    let Ok((rest, (whole, fraction, exponent))) = parts else {
        return (skip_character(text), Token::Bad);
    };
    let plain = |part: &str| part.replace('_', "");
    let length = text.len() - rest.len();
    let mantissa = format!("{}{}", plain(whole), plain(fraction.unwrap_or("")));
    let exact = fraction.is_none() && exponent.is_none();

    // `1.e-3`: the exponent right behind the point.
    let lone_exponent: IResult<&str, &str> = preceded(char('.'), exponent_of).parse(rest);
    if fraction.is_none()
        && exponent.is_none()
        && let Ok((after, exponent)) = lone_exponent
        && name_length(after) == 0
    {
        let all = length + 1 + exponent.len();
        problems
            .whole("E0004", all, "a number needs digits on both sides of its point")
            .help
            .push(format!("write `{whole}.0{exponent}`"));
        problems.edit(0, all, format!("{whole}.0{exponent}"));
        return (after, Token::Bad);
    }

    // `5.` without digits behind the point, which is not a range and not a member.
    let lone_point: IResult<&str, char> =
        preceded(char('.'), peek(verify(anychar, |next| *next != '.' && !next.is_ascii_alphabetic()))).parse(rest);
    if fraction.is_none() && (lone_point.is_ok() || rest == ".") {
        problems
            .whole("E0004", length + 1, "a number needs digits on both sides of its point")
            .help
            .push(format!("write `{whole}.0`"));
        problems.edit(0, length + 1, format!("{whole}.0"));
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
        let (from, written) = (length - unit.len(), unit);
        let known = self::unit(unit);
        let problem = problems.part(
            "E0004",
            from,
            length,
            format!("`{unit}` is no unit, and a name does not begin with a digit"),
        );
        match (known, unit) {
            (Some(unit), _) => problem.help.push(format!("did you mean `{unit}`?")),
            // Thousands, or bytes: that is for the writer to say.
            (None, "k" | "K") if fraction.is_none() => {
                problem.help.push(format!("write `{}_000` for thousands, or `{}kB` for a size", whole, &text[..from]));
            }
            (None, "M" | "m") if fraction.is_none() => {
                problem.help.push(format!(
                    "write `{whole}_000_000` for millions, `{whole}MB` for a size, `{whole}min` for a time"
                ));
            }
            _ => {}
        }
        problem.notes.push("units are ms, s, min, h, d and B, kB, MB, GB, TB, KiB, MiB, GiB, TiB".to_owned());
        if let Some(unit) = known {
            problems.edit(from, from + written.len(), unit);
        }
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
