//! One way to lay out a text. Comments and line breaks stay where the author put them; indentation, spaces, blank
//! lines, redundant commas and the alignment of `=`, `{` and trailing comments are decided here.
//!
//! It works on lexemes, so nothing can be lost: every lexeme but a redundant comma comes out again, in order. What
//! it gives is read again and compared with what was read, and its own output is a fixed point (tested).

use crate::diagnostic::{Diagnostic, Severity};
use crate::lexer::{Lexeme, Token, lex};
use crate::parser::{RESERVED, parse};
use crate::source::Sources;

/// Columns of one level.
const INDENT: usize = 4;

/// Lays out one text.
///
/// # Errors
/// What makes the text unreadable, located: a text that cannot be read is not touched.
pub fn format(name: &str, text: &str) -> Result<String, (Vec<Diagnostic>, Sources)> {
    let mut sources = Sources::default();
    let source = sources.add(name, text);
    let mut diagnostics = Vec::new();
    let before = parse(text, source, &mut diagnostics);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        diagnostics.iter_mut().for_each(|diagnostic| diagnostic.locate(&sources));
        return Err((diagnostics, sources));
    }
    let formatted = lay_out(text, source);
    // Never trade a program for its looks: should the layout ever read differently, the text stays as it is.
    let mut found = Vec::new();
    let after = parse(&formatted, source, &mut found);
    if !found.is_empty() || crate::syntax::shape(&before) != crate::syntax::shape(&after) {
        return Ok(text.to_owned());
    }
    Ok(formatted)
}

/// Whether the layout of a text reads as the text itself does. [`format`] never gives another one; a fuzz target looks
/// whether it has to hold one back.
#[doc(hidden)]
pub fn lays_out(text: &str) -> bool {
    let mut found = Vec::new();
    let (before, after) = (parse(text, 0, &mut found), parse(&lay_out(text, 0), 0, &mut found));
    found.is_empty() && crate::syntax::shape(&before) == crate::syntax::shape(&after)
}

/// A lexeme with what lies before it.
struct Piece<'a> {
    token: Token,
    text: &'a str,
    /// Comments on lines of their own before it, each with whether a blank line precedes.
    comments: Vec<(&'a str, bool)>,
    /// A comment behind it on its line.
    trailing: Option<&'a str>,
    /// Line breaks between it (or its comments) and what is before.
    breaks: usize,
    /// Whether a blank line stands right before it, behind its comments.
    blank: bool,
    /// Whether nothing at all lies between it and the lexeme before.
    adjacent: bool,
}

impl Piece<'_> {
    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(found) if found == symbol)
    }

    fn opens(&self) -> bool {
        matches!(self.token, Token::Symbol("{" | "[" | "("))
    }

    fn closes(&self) -> bool {
        matches!(self.token, Token::Symbol("}" | "]" | ")"))
    }

    fn word(&self) -> Option<&str> {
        match &self.token {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Whether a value may end here, so that `[`, `(` and `-` behind it belong to it.
    fn ends_value(&self) -> bool {
        match &self.token {
            Token::Name(name) => {
                !RESERVED.contains(&name.as_str()) || matches!(name.as_str(), "true" | "false" | "none")
            }
            Token::Symbol(symbol) => matches!(*symbol, "}" | "]" | ")"),
            Token::Bad | Token::End => false,
            _ => true,
        }
    }

    /// Whether an expression goes on behind it, so that a break there does not begin an item.
    fn continues(&self) -> bool {
        match &self.token {
            Token::Symbol(symbol) => !matches!(*symbol, "{" | "}" | "[" | "]" | "(" | ")" | ","),
            Token::Name(name) => matches!(name.as_str(), "if" | "then" | "else" | "and" | "or" | "not" | "in"),
            _ => false,
        }
    }
}

fn pieces(text: &str, source: usize) -> Vec<Piece<'_>> {
    let lexemes: Vec<Lexeme> = lex(text, source, &mut Vec::new());
    let mut out: Vec<Piece<'_>> = Vec::with_capacity(lexemes.len());
    let mut end = text.len() - text.strip_prefix('\u{feff}').unwrap_or(text).len();
    for lexeme in lexemes {
        let gap = &text[end..lexeme.span.start];
        let mut piece = Piece {
            token: lexeme.token,
            text: &text[lexeme.span.start..lexeme.span.end],
            comments: Vec::new(),
            trailing: None,
            breaks: gap.matches('\n').count(),
            blank: false,
            adjacent: gap.is_empty() && !out.is_empty(),
        };
        let lines: Vec<&str> = gap.split('\n').collect();
        let mut blank = false;
        for (at, line) in lines.iter().enumerate() {
            let line = line.trim();
            match (at, line) {
                (0, comment) if !out.is_empty() => {
                    if !comment.is_empty()
                        && let Some(last) = out.last_mut()
                    {
                        last.trailing = Some(comment);
                    }
                }
                // The last stretch stands on the lexeme's own line.
                (at, "") => blank |= at + 1 < lines.len(),
                (_, comment) => {
                    piece.comments.push((comment, blank));
                    blank = false;
                }
            }
        }
        piece.blank = blank;
        end = lexeme.span.end;
        out.push(piece);
    }
    out
}

/// One line of the result.
#[derive(Default)]
struct Line {
    indent: usize,
    text: String,
    comment: Option<String>,
    blank_before: bool,
    /// Where its first `=` stands, if the line is one or more whole fields or a definition.
    equals: Option<usize>,
    /// Where its first `{` stands, if the line is a whole declaration.
    brace: Option<usize>,
}

/// An open bracket.
struct Open {
    /// Whether it spans lines.
    wide: bool,
    /// Its bracket.
    brace: bool,
    /// Index of the line it stands on.
    line: usize,
    /// Its line's indentation.
    indent: usize,
}

fn lay_out(text: &str, source: usize) -> String {
    let pieces = pieces(text, source);
    let wide = wide(&pieces);
    let mut lines: Vec<Line> = vec![Line::default()];
    let mut open: Vec<Open> = Vec::new();
    let mut fresh = true;
    let mut previous: Option<usize> = None;
    for (at, piece) in pieces.iter().enumerate() {
        let before = previous.map(|index| &pieces[index]);
        let ended = piece.token == Token::End;
        // A comma that only repeats what a line's end or a closing bracket says.
        if piece.is(",") && piece.trailing.is_none() && piece.comments.is_empty() {
            let next = &pieces[at + 1];
            let in_braces = open.last().is_none_or(|open| open.brace);
            let breaks = next.breaks > 0 || next.token == Token::End;
            let first = before.is_none_or(|before| before.opens() || before.is(","));
            if next.closes() || first || (in_braces && breaks) || next.is(",") {
                continue;
            }
        }
        let commented = !piece.comments.is_empty();
        let belongs = piece.is("{") && before.is_some_and(|before| before.trailing.is_none()) && !commented;
        let closes_wide = piece.closes() && open.last().is_some_and(|open| open.wide && open.brace);
        let after_wide = before.is_some_and(|before| before.is("{")) && open.last().is_some_and(|open| open.wide);
        let holds_nothing = before.is_some_and(|before| before.opens() && before.trailing.is_none());
        let empty = piece.closes() && holds_nothing && !commented;
        let breaks = !(fresh || ended || empty)
            && (commented
                || before.is_some_and(|before| before.trailing.is_some())
                || (piece.breaks > 0 && !belongs && !piece.is(","))
                || closes_wide
                || after_wide);
        let level = |open: &[Open], piece: &Piece<'_>, before: Option<&Piece<'_>>| {
            let inner = open.last().map_or(0, |open| open.indent + usize::from(open.wide));
            let goes_on = before.is_some_and(|before| before.continues()) || piece.is("{");
            match open.last() {
                Some(open) if piece.closes() => open.indent,
                _ => inner + usize::from(goes_on),
            }
        };
        if commented {
            let closing = piece.closes();
            let inside = open.last().map_or(0, |open| open.indent + usize::from(open.wide));
            let indent = if closing || ended { inside } else { level(&open, piece, before) };
            for (number, (comment, blank)) in piece.comments.iter().enumerate() {
                let line = start(&mut lines, &mut fresh, indent);
                line.blank_before = *blank && (number > 0 || before.is_some_and(|before| !before.opens()));
                line.comment = Some((*comment).to_owned());
                fresh = false;
            }
        }
        if ended {
            break;
        }
        if breaks || fresh || commented {
            let indent = level(&open, piece, before);
            let gap = piece.blank || (!commented && piece.breaks > 1);
            let edge = piece.closes() || (!commented && before.is_none_or(Piece::opens));
            let line = start(&mut lines, &mut fresh, indent);
            line.blank_before = gap && !edge;
            fresh = false;
        } else if let Some(before) = before
            && space(before, piece, previous.and_then(|index| index.checked_sub(1)).map(|index| &pieces[index]))
        {
            current(&mut lines).text.push(' ');
        }
        let number = lines.len() - 1;
        if piece.opens() {
            let indent = lines[number].indent;
            let line = &mut lines[number];
            if piece.is("{") && line.brace.is_none() {
                line.brace = Some(line.text.chars().count());
            }
            open.push(Open { wide: wide[at], brace: piece.is("{"), line: number, indent });
        } else if piece.closes()
            && let Some(closed) = open.pop()
            && closed.line != number
        {
            // Nothing on a line that holds a part of something wider is aligned.
            for line in [closed.line, number] {
                (lines[line].equals, lines[line].brace) = (Some(usize::MAX), Some(usize::MAX));
            }
        } else if piece.is("=") && open.last().is_none_or(|open| open.line != number) {
            let line = &mut lines[number];
            line.equals.get_or_insert(line.text.chars().count());
        }
        let line = current(&mut lines);
        line.text.push_str(piece.text);
        line.comment = piece.trailing.map(str::to_owned);
        previous = Some(at);
    }
    align(&mut lines);
    write(&lines)
}

fn current(lines: &mut Vec<Line>) -> &mut Line {
    if lines.is_empty() {
        lines.push(Line::default());
    }
    let last = lines.len() - 1;
    &mut lines[last]
}

/// A new line, or the last one while it is empty.
fn start<'a>(lines: &'a mut Vec<Line>, fresh: &mut bool, indent: usize) -> &'a mut Line {
    if !*fresh {
        lines.push(Line::default());
    }
    let line = current(lines);
    line.indent = indent;
    line
}

/// For every bracket that opens: whether a line ends between it and its partner.
fn wide(pieces: &[Piece<'_>]) -> Vec<bool> {
    let mut wide = vec![false; pieces.len()];
    let mut open: Vec<usize> = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let belongs = piece.is("{") && piece.comments.is_empty();
        let empty = piece.closes() && at > 0 && pieces[at - 1].opens() && pieces[at - 1].trailing.is_none();
        let breaks = piece.breaks > 0 && !belongs && !piece.is(",") && !empty;
        let ends_line = breaks || !piece.comments.is_empty();
        if ends_line {
            open.iter().for_each(|&bracket| wide[bracket] = true);
        }
        if piece.closes() {
            open.pop();
        }
        if piece.opens() {
            open.push(at);
        }
        if piece.trailing.is_some() {
            open.iter().for_each(|&bracket| wide[bracket] = true);
        }
    }
    wide
}

/// Whether a space stands between two lexemes on one line. `earlier` is the one before both.
fn space(before: &Piece<'_>, piece: &Piece<'_>, earlier: Option<&Piece<'_>>) -> bool {
    match (&before.token, &piece.token) {
        (_, Token::Symbol("," | "." | "..")) | (Token::Symbol("." | ".."), _) => false,
        (Token::Symbol("(" | "["), _) | (_, Token::Symbol(")" | "]")) => false,
        (Token::Symbol("{"), Token::Symbol("}")) => false,
        // A sign belongs to what follows it, an operator to both sides.
        (Token::Symbol("-"), _) => earlier.is_some_and(Piece::ends_value),
        (_, Token::Symbol("[" | "(")) => {
            let member = before.word().is_some_and(|word| !RESERVED.contains(&word));
            !(member || (before.closes() && piece.adjacent))
        }
        // A kept epoch belongs to its step: `moco@50`.
        (_, Token::Path(_)) => !piece.adjacent,
        _ => true,
    }
}

/// Aligns `=`, `{` and trailing comments over runs of lines that belong together.
fn align(lines: &mut [Line]) {
    align_by(lines, |line| line.equals);
    // A line with fields in braces has both; whichever comes first on it counts.
    for line in lines.iter_mut() {
        if line.equals.is_some_and(|at| at != usize::MAX) {
            line.brace = None;
        }
    }
    align_by(lines, |line| line.brace);
    let mut from = 0;
    while from < lines.len() {
        let mut to = from;
        while to < lines.len()
            && lines[to].comment.is_some()
            && !lines[to].text.is_empty()
            && lines[to].indent == lines[from].indent
            && (to == from || !lines[to].blank_before)
        {
            to += 1;
        }
        let widest = lines[from..to].iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
        for line in &mut lines[from..to] {
            pad(&mut line.text, usize::MAX, widest);
        }
        from = to.max(from + 1);
    }
}

fn align_by(lines: &mut [Line], place: impl Fn(&Line) -> Option<usize>) {
    let usable = |line: &Line| place(line).filter(|&at| at != usize::MAX && at > 0);
    let mut from = 0;
    while from < lines.len() {
        let mut to = from;
        while to < lines.len()
            && usable(&lines[to]).is_some()
            && lines[to].indent == lines[from].indent
            && (to == from || !lines[to].blank_before)
        {
            to += 1;
        }
        let widest = lines[from..to].iter().filter_map(usable).max().unwrap_or(0);
        for line in &mut lines[from..to] {
            if let Some(at) = usable(line) {
                pad(&mut line.text, at, widest);
            }
        }
        from = to.max(from + 1);
    }
}

/// Moves what stands at a column to another; columns beyond the text mean its end.
fn pad(text: &mut String, at: usize, to: usize) {
    let at = at.min(text.chars().count());
    let byte = text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    text.insert_str(byte, &" ".repeat(to.saturating_sub(at)));
}

fn write(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        if line.text.is_empty() && line.comment.is_none() {
            continue;
        }
        if line.blank_before && !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&" ".repeat(line.indent * INDENT));
        out.push_str(&line.text);
        if let Some(comment) = &line.comment {
            if !line.text.is_empty() {
                out.push_str("  ");
            }
            out.push_str(comment);
        }
        let trimmed = out.trim_end_matches([' ', '\t', '\r']).len();
        out.truncate(trimmed);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::shape;
    use proptest::prelude::*;

    const STUDY: &str = include_str!("../tests/language/study.exp");

    fn good(text: &str) -> Option<Vec<crate::syntax::Item>> {
        let mut found = Vec::new();
        let items = parse(text, 0, &mut found);
        found.is_empty().then(|| shape(&items))
    }

    fn comments(text: &str) -> Vec<String> {
        let pieces = pieces(text, 0);
        let all = pieces.iter().flat_map(|piece| piece.comments.iter().map(|(text, _)| *text).chain(piece.trailing));
        let mut all: Vec<String> = all.map(|comment| comment.trim_end().to_owned()).collect();
        // One behind a dropped comma comes in another order.
        all.sort();
        all
    }

    /// The layout reads the same, keeps every comment, and is a fixed point.
    fn holds(text: &str) -> Result<(), TestCaseError> {
        let Some(before) = good(text) else { return Ok(()) };
        let once = lay_out(text, 0);
        prop_assert_eq!(good(&once), Some(before), "from\n{}\nto\n{}", text, once);
        prop_assert_eq!(comments(&once), comments(text), "from\n{}\nto\n{}", text, once);
        prop_assert_eq!(&lay_out(&once, 0), &once, "not a fixed point");
        Ok(())
    }

    /// The study with its white space changed where that means nothing, or may mean nothing.
    fn shaken() -> impl Strategy<Value = String> {
        let count = STUDY.len();
        prop::collection::vec(
            (0..count, prop::sample::select(vec!["\n", " ", "\n\n\n", "  # note\n", ",", "\r\n", "\t"])),
            0..12,
        )
        .prop_map(|mut places| {
            places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            let mut text = STUDY.to_owned();
            for (at, with) in places {
                if text.is_char_boundary(at) {
                    text.insert_str(at, with);
                }
            }
            text
        })
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "param a = ",
            "let b = ",
            "scenes w ",
            "knn nn from w ",
            "for s in ",
            "claim \"c\" ",
            "table t \"T\" ",
            "x = ",
            "y.z = ",
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            ",",
            "1",
            "-",
            "+",
            "..",
            "*",
            "if ",
            " then ",
            " else ",
            "\n",
            " ",
            "# c\n",
            "\"t\"",
            "@a/b ",
            "a",
            "a.b",
            "f(",
            "not ",
            " and ",
            " < ",
            "none",
            "10%",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_shaken_study_reads_the_same(text in shaken()) {
            holds(&text)?;
        }

        #[test]
        fn whatever_reads_reads_the_same(parts in prop::collection::vec(piece(), 0..24)) {
            holds(&parts.concat())?;
        }
    }

    #[test]
    fn the_rules_in_one_text() {
        let text = "\n\n# head\nparam   x=1   # one\nparam longer = -2+3*-x # two\n\n\nlet l = [1,2\n  3,\n  # four\n  -4,\n]\n\
                    pretrain moco\n{\n data=world , epochs = 5\n\n   views = multi_crop { large = { count = 2,\n      size = 16 }, small={} }\n   # end\n}\n\
                    pretrain a from moco {\n}\npretrain abc from moco {contrast.momentum=0.5}\n# tail";
        let expected = "\
# head
param x      = 1            # one
param longer = -2 + 3 * -x  # two

let l = [1, 2
    3,
    # four
    -4
]
pretrain moco {
    data = world, epochs = 5

    views = multi_crop {
        large = {
            count = 2
            size  = 16
        }, small = {}
    }
    # end
}
pretrain a from moco   {}
pretrain abc from moco { contrast.momentum = 0.5 }
# tail
";
        assert_eq!(format("t.exp", text), Ok(expected.to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_not_touched() {
        let (found, _) = format("t.exp", "param x 1").unwrap_err();
        assert_eq!(found.len(), 1);
    }
}
