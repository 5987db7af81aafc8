//! Tokens to syntax. The parser never gives up on a file: what cannot be read is reported once, skipped to the
//! next field or declaration, and reading goes on, so that five mistakes give five diagnostics. Only brackets
//! nested deeper than [`DEEPEST`] end it.

use crate::diagnostic::Diagnostic;
use crate::lexer::{Lexeme, Token, lex, unit};
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::{
    BestSyntax, BlockSyntax, ClaimSyntax, Definition, Expr, ExprKind, FieldSyntax, IndexSyntax, Item, Name, Operator,
    Postfix, StepSyntax, TableSyntax,
};

/// How deep brackets, blocks and signs may nest.
pub const DEEPEST: usize = 128;

/// Letters of a name.
const LONGEST_NAME: usize = 128;

/// Words that are never names.
pub const RESERVED: [&str; 10] = ["if", "then", "else", "and", "or", "not", "true", "false", "none", "in"];

/// Words that begin declarations.
pub const DECLARATIONS: [&str; 8] = ["param", "let", "import", "for", "replicate", "table", "claim", "figure"];

/// Something was reported; whoever called skips to where reading can go on.
struct Reported;
type Parsed<T> = Result<T, Reported>;

/// Reads one text.
pub fn parse(text: &str, source: usize, diagnostics: &mut Vec<Diagnostic>) -> Vec<Item> {
    let mut parser = Parser::new(text, source);
    if parser.other_language() {
        diagnostics.append(&mut parser.diagnostics);
        return Vec::new();
    }
    let items = parser.items(None);
    diagnostics.append(&mut parser.diagnostics);
    items
}

/// Reads a text that is one expression.
pub fn parse_expression(text: &str, source: usize, diagnostics: &mut Vec<Diagnostic>) -> Option<Expr> {
    let mut parser = Parser::new(text, source);
    let parsed = parser.bracketed(Parser::expression).ok();
    if parsed.is_some() && parser.peek() != &Token::End {
        parser.unexpected("the end of the value");
    }
    let good = parser.diagnostics.is_empty();
    diagnostics.append(&mut parser.diagnostics);
    parsed.filter(|_| good)
}

struct Parser<'a> {
    text: &'a str,
    lexemes: Vec<Lexeme>,
    at: usize,
    depth: usize,
    /// Inside `( )` and `[ ]`, where newlines mean nothing.
    joined: bool,
    /// Whether `name {` may be a tagged record; not in the list of a `for`.
    tagged: bool,
    given_up: bool,
    /// The name of the field being read, which counts as written even if its value cannot be read.
    partial: Option<Vec<Name>>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, source: usize) -> Parser<'a> {
        let mut diagnostics = Vec::new();
        let lexemes = lex(text, source, &mut diagnostics);
        Parser {
            text,
            lexemes,
            at: 0,
            depth: 0,
            joined: false,
            tagged: true,
            given_up: false,
            partial: None,
            diagnostics,
        }
    }

    // ---- looking and moving ----

    fn lexeme(&self, ahead: usize) -> &Lexeme {
        // The last lexeme is the end, and there always is one.
        &self.lexemes[(self.at + ahead).min(self.lexemes.len() - 1)]
    }

    fn peek(&self) -> &Token {
        &self.lexeme(0).token
    }

    fn span(&self) -> Span {
        self.lexeme(0).span
    }

    /// Where the lexeme before ends: the place for what is missing.
    fn before(&self) -> Span {
        match self.at.checked_sub(1).and_then(|at| self.lexemes.get(at)) {
            Some(lexeme) => lexeme.span,
            None => self.span(),
        }
    }

    fn advance(&mut self) {
        if self.at + 1 < self.lexemes.len() {
            self.at += 1;
        }
    }

    fn at_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == word)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.at_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    /// Whether the next lexeme goes on with the expression: on the same line, or where newlines mean nothing.
    fn goes_on(&self) -> bool {
        self.joined || !self.lexeme(0).first_on_line
    }

    // ---- reporting ----

    fn report(&mut self, diagnostic: Diagnostic) {
        if !self.given_up {
            self.diagnostics.push(diagnostic);
        }
    }

    /// How the next token is called in a message.
    fn found(&self) -> String {
        match self.peek() {
            Token::Name(name) if RESERVED.contains(&name.as_str()) => format!("the word `{name}`"),
            Token::Name(name) => format!("`{name}`"),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Duration(_) => "a duration".to_owned(),
            Token::Size(_) => "a size".to_owned(),
            Token::Text(_) => "a text".to_owned(),
            Token::Path(_) => "a path".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::Bad => "this".to_owned(),
            Token::End => "the end of the text".to_owned(),
        }
    }

    fn unexpected(&mut self, expected: &str) -> Reported {
        // What the lexer has reported is not reported again, nor what comes of it right behind.
        let behind = self.at.checked_sub(1).and_then(|at| self.lexemes.get(at));
        let reported = behind.is_some_and(|lexeme| lexeme.token == Token::Bad) && !self.lexeme(0).first_on_line;
        if self.peek() != &Token::Bad && !reported {
            let mut diagnostic =
                Diagnostic::error("E0010", self.span(), format!("expected {expected}, found {}", self.found()))
                    .label(format!("expected {expected}"));
            diagnostic = self.way_out(diagnostic, expected);
            self.report(diagnostic);
        }
        Reported
    }

    /// What people mean who write this where something else was expected.
    fn way_out(&self, diagnostic: Diagnostic, expected: &str) -> Diagnostic {
        let behind = self.at.checked_sub(1).and_then(|at| self.lexemes.get(at));
        let touches = behind.is_some_and(|lexeme| lexeme.span.end == self.span().start);
        match (behind.map(|lexeme| &lexeme.token), self.peek()) {
            (_, Token::Symbol(";")) => {
                let diagnostic = diagnostic.help("fields and declarations are separated by commas or newlines");
                let next = &self.lexeme(1);
                let last = next.first_on_line || matches!(next.token, Token::End | Token::Symbol("}"));
                diagnostic.edit(self.span(), if last { "" } else { "," })
            }
            (_, Token::Symbol("/")) if expected == "a value" => {
                let place = self.bare_place();
                let written = &self.text[place.start..place.end];
                diagnostic
                    .help(format!("a path stands in quotes: `\"{written}\"`"))
                    .edit(place, format!("\"{written}\""))
            }
            (Some(Token::Symbol("*")), Token::Symbol("*")) => {
                diagnostic.help("there is no power: write `1e-3`, or the product `2 * 2 * 2`")
            }
            (Some(Token::Name(letter)), Token::Text(_)) if touches && matches!(letter.as_str(), "f" | "r" | "b") => {
                diagnostic.help("a text is `\"…\"` alone, and texts are joined with `+`: `\"size-\" + n`")
            }
            (Some(Token::Int(_) | Token::Float(_)), Token::Name(word)) if unit(word).is_some() => {
                let unit = unit(word).unwrap_or_default();
                let number = behind.map_or(self.span(), |lexeme| lexeme.span);
                let written = &self.text[number.start..number.end];
                let whole = number.to(self.span());
                let help = format!("a number and its unit are one word: write `{written}{unit}`");
                diagnostic.help(help).edit(whole, format!("{written}{unit}"))
            }
            (Some(Token::Symbol(",")), Token::Int(_)) if touches => {
                diagnostic.help("the decimal sign is a point, as in `1.5`; a comma separates fields")
            }
            (_, Token::Name(word)) if word == "if" && expected.contains("new line") => {
                diagnostic.help("a choice is written `if condition then 1 else 2`")
            }
            (_, Token::Name(word)) if word == "for" && expected.contains("`]`") => {
                diagnostic.help("a list is written out, or is a `range`; `for` stands before a block of steps")
            }
            (Some(Token::Name(_)), Token::Symbol(":")) if expected == "`=`" => {
                diagnostic.help("a param has the type of its value: `param epochs = 200`")
            }
            (Some(Token::Name(word)), Token::Symbol("{")) if word == "claim" => {
                diagnostic.help("`claim \"what is claimed\" { nn.top1 > 50 }`")
            }
            (Some(Token::Name(_)), Token::Symbol("(")) if expected == "`{`" => {
                diagnostic.help("fields stand between braces: `pretrain moco { epochs = 200 }`")
            }
            _ => diagnostic,
        }
    }

    /// A path without quotes that begins here, as far as it goes.
    fn bare_place(&self) -> Span {
        let start = self.span().start;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| c.is_whitespace() || ",)]}".contains(c)).unwrap_or(rest.len());
        Span { start, end: start + length, ..self.span() }
    }

    /// How far a place is from its line's beginning.
    fn column(&self, at: usize) -> usize {
        at - self.text[..at].rfind(['\n', '\r']).map_or(0, |end| end + 1)
    }

    /// Says so where the text is in another language altogether, instead of one mistake for each of its lines.
    fn other_language(&mut self) -> bool {
        let first = self.peek().clone();
        let second = self.lexeme(1);
        let (json, yaml) = (
            matches!((&first, &second.token), (Token::Symbol("{"), Token::Text(_)))
                || matches!((&first, &second.token), (Token::Symbol("["), Token::Symbol("{") | Token::Text(_))),
            matches!((&first, &second.token), (Token::Name(_), Token::Symbol(":")))
                || self.text.trim_start().starts_with("---"),
        );
        if !json && !yaml {
            return false;
        }
        let what = if json { "JSON" } else { "YAML" };
        let mut span = self.span();
        span.end = second.span.end.max(span.end);
        // What the lexer says of the rest is no help.
        self.diagnostics.clear();
        self.report(
            Diagnostic::error("E0010", span, format!("this looks like {what}, which an experiment is not written in"))
                .label("expected a declaration")
                .help("a step is written `pretrain moco { data = world, epochs = 200 }`; see docs/tutorial.md"),
        );
        true
    }

    // ---- recovery ----

    /// Skips to the next field: past a comma, or to a line's first lexeme or a closing brace, at this depth.
    fn skip_field(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                Token::End => return,
                Token::Symbol("{" | "[" | "(") => depth += 1,
                Token::Symbol("}") if depth == 0 => return,
                Token::Symbol("}" | "]" | ")") => depth = depth.saturating_sub(1),
                Token::Symbol(",") if depth == 0 => {
                    self.advance();
                    return;
                }
                _ => {}
            }
            self.advance();
            if self.lexeme(0).first_on_line && (depth == 0 || self.starts_declaration()) {
                return;
            }
        }
    }

    /// Skips to the next declaration or to the brace that closes the block.
    fn skip_item(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                Token::End => return,
                Token::Symbol("{") => depth += 1,
                Token::Symbol("}") if depth == 0 => return,
                Token::Symbol("}") => depth -= 1,
                _ => {}
            }
            self.advance();
            if self.lexeme(0).first_on_line && (depth == 0 || self.starts_declaration()) && !self.at_symbol("}") {
                return;
            }
            if depth == 0 && self.at_symbol("}") {
                return;
            }
        }
    }

    /// Whether a declaration, which can be no field, begins here.
    fn starts_declaration(&self) -> bool {
        let Token::Name(first) = self.peek() else { return false };
        match (first.as_str(), &self.lexeme(1).token, &self.lexeme(2).token) {
            ("import", Token::Text(_), _) | ("claim", Token::Text(_), Token::Symbol("{")) => true,
            ("param" | "let", Token::Name(_), Token::Symbol("=")) => true,
            ("for" | "replicate", Token::Name(_), Token::Name(word)) if word == "in" => true,
            ("for", Token::Name(_), Token::Symbol(",")) => true,
            ("table" | "figure", Token::Name(_), Token::Text(_)) => true,
            (_, Token::Name(_), Token::Symbol("{")) => !RESERVED.contains(&first.as_str()),
            (_, Token::Name(_), Token::Name(word)) => word == "from" && !RESERVED.contains(&first.as_str()),
            _ => false,
        }
    }

    // ---- nesting ----

    fn nested<T>(&mut self, read: impl FnOnce(&mut Parser<'a>) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEEPEST {
            let diagnostic =
                Diagnostic::error("E0012", self.span(), format!("this is nested deeper than {DEEPEST} levels"))
                    .help("give a part of it a name with `let`");
            self.report(diagnostic);
            // Nothing behind this place can be read sensibly.
            self.given_up = true;
            self.at = self.lexemes.len() - 1;
            return Err(Reported);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Reads something inside `( )` or `[ ]`, where newlines mean nothing.
    fn bracketed<T>(&mut self, read: impl FnOnce(&mut Parser<'a>) -> Parsed<T>) -> Parsed<T> {
        self.within(true, read)
    }

    fn within<T>(&mut self, joined: bool, read: impl FnOnce(&mut Parser<'a>) -> Parsed<T>) -> Parsed<T> {
        let before = (self.joined, self.tagged);
        (self.joined, self.tagged) = (joined, true);
        let read = self.nested(read);
        (self.joined, self.tagged) = before;
        read
    }

    // ---- declarations ----

    /// Declarations up to the end of the text, or of the block that opened there.
    fn items(&mut self, open: Option<Span>) -> Vec<Item> {
        let mut items = Vec::new();
        loop {
            match (self.peek(), open) {
                (Token::End, None) => return items,
                (Token::End, Some(open)) => {
                    self.unclosed(open, "{");
                    return items;
                }
                (Token::Symbol("}"), Some(_)) => {
                    self.advance();
                    return items;
                }
                (Token::Symbol("}"), None) => {
                    let diagnostic = Diagnostic::error("E0011", self.span(), "this `}` closes nothing");
                    self.report(diagnostic);
                    self.advance();
                    continue;
                }
                (Token::Symbol(","), _) => {
                    self.advance();
                    continue;
                }
                _ => {}
            }
            let start = self.at;
            match self.item() {
                Ok(item) => {
                    items.push(item);
                    self.end_of_item();
                }
                Err(Reported) => {
                    if self.at == start {
                        self.advance();
                        if self.lexeme(0).first_on_line {
                            continue;
                        }
                    }
                    if !(self.lexeme(0).first_on_line && self.starts_declaration()) {
                        self.skip_item();
                    }
                }
            }
        }
    }

    /// Declarations are separated by newlines or commas.
    fn end_of_item(&mut self) {
        let ends = self.lexeme(0).first_on_line
            || matches!(self.peek(), Token::End | Token::Symbol("}" | ","))
            || self.starts_declaration();
        if !ends && self.at_symbol(";") {
            self.unexpected("a new line");
            self.advance();
        } else if !ends {
            self.unexpected("a new line");
            self.skip_item();
        }
    }

    fn item(&mut self) -> Parsed<Item> {
        let Token::Name(word) = self.peek().clone() else {
            return Err(self.unexpected("a declaration"));
        };
        if RESERVED.contains(&word.as_str()) {
            return Err(self.unexpected("a declaration"));
        }
        let mut word = word;
        let lower = word.to_lowercase();
        if lower != word && DECLARATIONS.contains(&lower.as_str()) {
            // No kind of step is called like a declaration in other letters.
            self.report(
                Diagnostic::error("E0010", self.span(), format!("expected a declaration, found `{word}`"))
                    .label("capital letters are other ones")
                    .help(format!("did you mean `{lower}`?")),
            );
            word = lower;
        }
        match word.as_str() {
            "import" => {
                self.advance();
                let (path, span) = self.text("the name of a file in quotes")?;
                Ok(Item::Import { path, span })
            }
            "param" => self.definition().map(Item::Param),
            "let" => self.definition().map(Item::Let),
            "for" | "replicate" => self.nested(|parser| parser.block(word == "replicate")),
            "table" => self.table().map(Item::Table),
            "figure" => self.table().map(Item::Figure),
            "claim" => self.claim(),
            _ => self.step(),
        }
    }

    fn text(&mut self, expected: &str) -> Parsed<(String, Span)> {
        let Token::Text(text) = self.peek().clone() else {
            return Err(self.unexpected(expected));
        };
        let span = self.span();
        self.advance();
        Ok((text, span))
    }

    fn name(&mut self, expected: &str) -> Parsed<Name> {
        let Token::Name(text) = self.peek().clone() else {
            return Err(self.unexpected(expected));
        };
        let span = self.span();
        if RESERVED.contains(&text.as_str()) {
            self.report(
                Diagnostic::error("E0016", span, format!("`{text}` is a word of the language and cannot be a name"))
                    .label(format!("expected {expected}")),
            );
            self.advance();
            return Err(Reported);
        }
        if text.len() > LONGEST_NAME {
            let shown: String = text.chars().take(20).collect();
            let message = format!("a name has at most {LONGEST_NAME} letters, and `{shown}…` has {}", text.len());
            self.report(Diagnostic::error("E0016", span, message));
            self.advance();
            return Err(Reported);
        }
        self.advance();
        Ok(Name { text, span })
    }

    fn definition(&mut self) -> Parsed<Definition> {
        self.advance();
        let name = self.name("a name")?;
        if !self.take_symbol("=") {
            return Err(self.unexpected("`=`"));
        }
        Ok(Definition { name, value: self.expression()? })
    }

    /// `for name, name in list when condition { … }`. What is wrong before the brace leaves the axis declared and the
    /// block open, so that what stands in it is read as what it is.
    fn block(&mut self, replicate: bool) -> Parsed<Item> {
        let start = self.span();
        self.advance();
        // `replicate 3 {`: a count, not an axis.
        if replicate && let Token::Int(count) = *self.peek() {
            let axis = Name { text: "seed".to_owned(), span: self.span() };
            self.report(
                Diagnostic::error("E0010", self.span(), "expected the name of an axis, found a number")
                    .label("expected the name of an axis")
                    .help(format!("write `replicate seed in range({count}) {{ … }}`, or list the seeds: `[1, 2, 3]`")),
            );
            let list = Expr { kind: ExprKind::Wrong, span: self.span() };
            let items = self.behind_header(start);
            return Ok(Item::Block(BlockSyntax { replicate, axis, along: Vec::new(), list, when: None, items }));
        }
        let bracket = self.at_symbol("(");
        if bracket {
            self.report(
                Diagnostic::error("E0010", self.span(), "expected the name of an axis, found `(`")
                    .label("expected the name of an axis")
                    .help("there are no brackets around it: `for x in [1, 2] { … }`"),
            );
            self.advance();
        }
        let axis = self.name("the name of an axis")?;
        let mut along = Vec::new();
        let wrong = |span: Span| Expr { kind: ExprKind::Wrong, span };
        let mut list = wrong(self.span());
        let mut when = None;
        let mut good = !bracket;
        while self.take_symbol(",") {
            match self.name("a name for what goes along with the axis") {
                Ok(name) => along.push(name),
                Err(Reported) => good = false,
            }
        }
        // After the first mistake the rest of the header is no longer judged.
        let header = |parser: &mut Self| -> Parsed<(Expr, Option<Expr>)> {
            if !parser.take_word("in") {
                let told = parser.at_symbol("=") || parser.at_symbol("[");
                let reported = parser.unexpected("`in`");
                if told && let Some(last) = parser.diagnostics.last_mut() {
                    last.help.push(format!("an axis runs over a list: `for {} in [1, 2] {{ … }}`", axis.text));
                }
                return Err(reported);
            }
            let list = parser.untagged()?;
            let mut when = None;
            if parser.at_word("if") && !parser.lexeme(0).first_on_line {
                let diagnostic = Diagnostic::error("E0010", parser.span(), "expected `{`, found the word `if`")
                    .label("expected `{`")
                    .help("`when` is the filter: write `when`")
                    .edit(parser.span(), "when");
                parser.report(diagnostic);
                parser.advance();
                parser.untagged()?;
                return Ok((Expr { kind: ExprKind::Wrong, ..list }, None));
            }
            if parser.take_word("when") {
                let condition = parser.untagged()?;
                if parser.at_symbol("=") {
                    let diagnostic = Diagnostic::error("E0010", parser.span(), "expected `{`, found `=`")
                        .label("sets, and does not compare")
                        .help("`==` compares: write `==`")
                        .edit(parser.span(), "==");
                    parser.report(diagnostic);
                    return Err(Reported);
                }
                when = Some(condition);
            }
            Ok((list, when))
        };
        if good || bracket {
            match header(self) {
                Ok((found, condition)) if good => (list, when) = (found, condition),
                Ok(_) => {}
                Err(Reported) => good = false,
            }
        }
        // `for a in [1, 2], b in [3, 4] {`
        if good && self.at_symbol(",") {
            self.report(
                Diagnostic::error("E0010", self.span(), "expected `{`, found `,`")
                    .label("a second axis, or values that go along with the first?")
                    .help(format!(
                        "for pairs write `for {}, other in zip(…, …)`; for every combination nest a second `for`",
                        axis.text
                    )),
            );
            while self.take_symbol(",") {
                if let Ok(name) = self.name("a name") {
                    along.push(name);
                }
                while !self.header_ends() && !self.at_symbol(",") {
                    self.skip_balanced();
                }
            }
            (list, when) = (wrong(self.span()), None);
            good = false;
        }
        let items = if good && self.at_symbol("{") {
            let open = self.open()?;
            self.items(Some(open))
        } else {
            if good {
                let python = self.at_symbol(":");
                self.unexpected("`{`");
                if python && let Some(last) = self.diagnostics.last_mut() {
                    last.help.push("a block stands between braces: `for x in [1, 2] { … }`".to_owned());
                }
            }
            if !good {
                (list, when) = (wrong(list.span), None);
            }
            self.behind_header(start)
        };
        Ok(Item::Block(BlockSyntax { replicate, axis, along, list, when, items }))
    }

    /// An expression in a block's header, where `name {` is no tagged record.
    fn untagged(&mut self) -> Parsed<Expr> {
        let before = std::mem::replace(&mut self.tagged, false);
        let read = self.expression();
        self.tagged = before;
        read
    }

    /// Whether a block's header ends here: at its brace, or with its line.
    fn header_ends(&self) -> bool {
        matches!(self.peek(), Token::End | Token::Symbol("{" | "}")) || self.lexeme(0).first_on_line
    }

    /// Skips one lexeme, or a bracket with what is in it.
    fn skip_balanced(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                Token::End => return,
                Token::Symbol("[" | "(") => depth += 1,
                Token::Symbol("]" | ")") => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }

    /// The items of a block whose header is wrong: those between its braces, or, without braces, those that are set in
    /// further than the header.
    fn behind_header(&mut self, start: Span) -> Vec<Item> {
        while !self.header_ends() {
            self.skip_balanced();
        }
        if self.at_symbol("{") && !self.lexeme(0).first_on_line {
            let open = self.span();
            self.advance();
            return self.items(Some(open));
        }
        let column = self.column(start.start);
        let mut items = Vec::new();
        while let Token::Name(_) = self.peek()
            && self.column(self.span().start) > column
            && self.lexeme(0).first_on_line
        {
            let before = self.at;
            match self.item() {
                Ok(item) => items.push(item),
                Err(Reported) => {
                    if self.at == before {
                        self.advance();
                    }
                    if !self.lexeme(0).first_on_line {
                        self.skip_item();
                    }
                }
            }
        }
        items
    }

    fn open(&mut self) -> Parsed<Span> {
        let span = self.span();
        if self.take_symbol("{") { Ok(span) } else { Err(self.unexpected("`{`")) }
    }

    /// `table name "Title" { … }`, or the same of a figure.
    fn table(&mut self) -> Parsed<TableSyntax> {
        let what = if self.at_word("figure") { "the name of a figure" } else { "the name of a table" };
        self.advance();
        let name = self.name(what)?;
        let title = match self.peek().clone() {
            Token::Text(title) => {
                self.advance();
                Some(title)
            }
            _ => None,
        };
        let open = self.open()?;
        let fields = self.within(false, |parser| Ok(parser.fields(open)))?;
        Ok(TableSyntax { name, title, fields })
    }

    fn claim(&mut self) -> Parsed<Item> {
        self.advance();
        let (text, span) = self.text("what is claimed, in quotes")?;
        let open = self.open()?;
        // One condition stands alone between the braces, so newlines need not separate anything.
        let condition = self.bracketed(Parser::expression)?;
        if !self.take_symbol("}") {
            if matches!(self.peek(), Token::End) || self.starts_declaration() {
                self.unclosed(open, "{");
            } else {
                return Err(self.unexpected("`}`, since a claim states one condition"));
            }
        }
        Ok(Item::Claim(ClaimSyntax { text, span, condition }))
    }

    fn step(&mut self) -> Parsed<Item> {
        let kind = self.name("a kind of step")?;
        if self.at_symbol("=") {
            // `moco = pretrain(…)`: a step, as a call.
            let called = match (&self.lexeme(1).token, &self.lexeme(2).token) {
                (Token::Name(called), Token::Symbol("(" | "{")) => Some(called.clone()),
                _ => None,
            };
            let help = match called {
                Some(called) => format!("a step is written `{called} {} {{ … }}`", kind.text),
                None => format!("write `let {} = …` for a value and `param {} = …` for a knob", kind.text, kind.text),
            };
            self.report(
                Diagnostic::error("E0010", kind.span, format!("`{}` is not declared", kind.text))
                    .label("expected a declaration")
                    .help(help),
            );
            return Err(Reported);
        }
        if !matches!(self.peek(), Token::Name(_)) || self.lexeme(0).first_on_line {
            let span = kind.span;
            if self.peek() != &Token::Bad {
                self.report(
                    Diagnostic::error("E0010", span, format!("expected a declaration, found `{}`", kind.text))
                        .label("a kind of step is followed by the step's name")
                        .help_if(did_you_mean(&kind.text, DECLARATIONS)),
                );
            }
            return Err(Reported);
        }
        let name = self.name("the step's name")?;
        let (mut base, mut index) = (None, Vec::new());
        if self.take_word("from") {
            base = Some(self.name("the step to start from")?);
            if self.at_symbol("[") && !self.lexeme(0).first_on_line {
                let open = self.span();
                self.advance();
                index = self.bracketed(|parser| parser.index(open))?;
            }
        }
        let mut name = name;
        if let Some(better) = self.joined_name(&name).filter(|_| base.is_none()) {
            name.text = better;
            while !self.at_symbol("{") && !self.header_ends() {
                self.skip_balanced();
            }
        }
        let open = match self.open() {
            Ok(open) => open,
            Err(reported) => {
                if let Some(near) = did_you_mean(&kind.text, DECLARATIONS)
                    && let Some(last) = self.diagnostics.last_mut()
                    && last.code == "E0010"
                {
                    last.help.push(format!("`{}` is no declaration; {near}", kind.text));
                }
                return Err(reported);
            }
        };
        let fields = self.within(false, |parser| Ok(parser.fields(open)))?;
        let whole = kind.span.to(self.before());
        Ok(Item::Step(StepSyntax { kind, name, base, index, fields, whole }))
    }

    /// Says so where a step's name goes on with what no name has, and gives a name that it could have.
    fn joined_name(&mut self, name: &Name) -> Option<String> {
        let touches = self.span().start == name.span.end && !self.lexeme(0).first_on_line;
        let whole = |parser: &Self| {
            let rest = &parser.text[name.span.start..];
            let length = rest.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(rest.len());
            Span { end: name.span.start + length, ..name.span }
        };
        match (self.peek(), &self.lexeme(1).token, &self.lexeme(2).token) {
            (Token::Symbol("-" | "." | "/" | "+"), ..) if touches => {
                let span = whole(self);
                let better: String = self.text[span.start..span.end]
                    .chars()
                    .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                    .collect();
                self.report(
                    Diagnostic::error("E0010", span, format!("expected `{{`, found {}", self.found()))
                        .label("no name")
                        .help(format!("names are made of letters, digits and `_`, such as `{better}`")),
                );
                Some(better)
            }
            (Token::Symbol("{"), Token::Name(axis), Token::Symbol("}")) if touches => {
                let axis = axis.clone();
                let span = name.span.to(self.lexeme(2).span);
                let short = name.text.trim_end_matches('_').to_owned();
                self.report(
                    Diagnostic::error("E0010", span, "names are not put together")
                        .label("no name")
                        .help(format!("in `for {axis} in …` write `{short}`: each member is `{short}[{axis} = …]`")),
                );
                for _ in 0..3 {
                    self.advance();
                }
                // As it would be without: the short name may well be another step's.
                Some(format!("{}_{axis}", short))
            }
            _ => None,
        }
    }

    // ---- fields ----

    /// Fields up to the closing brace.
    fn fields(&mut self, open: Span) -> Vec<FieldSyntax> {
        let mut fields = Vec::new();
        loop {
            match self.peek() {
                Token::Symbol("}") => {
                    self.advance();
                    return fields;
                }
                Token::End => {
                    self.unclosed(open, "{");
                    return fields;
                }
                _ if self.lexeme(0).first_on_line && self.starts_declaration() => {
                    self.unclosed(open, "{");
                    return fields;
                }
                Token::Symbol(",") => {
                    self.advance();
                    continue;
                }
                _ => {}
            }
            let start = self.at;
            self.partial = None;
            match self.field() {
                Ok(field) => {
                    fields.push(field);
                    let ends =
                        self.lexeme(0).first_on_line || matches!(self.peek(), Token::End | Token::Symbol("}" | ","));
                    if !ends && self.at_symbol(";") {
                        self.unexpected("a comma or a new line");
                        self.advance();
                    } else if !ends {
                        let before = self.diagnostics.len();
                        if let (Token::Bad, Some(field)) = (self.peek(), fields.last_mut()) {
                            // What the lexer reported belongs to the value: `10 %`.
                            field.value.kind = ExprKind::Wrong;
                        }
                        self.unexpected("a comma or a new line");
                        if let (Some(diagnostic), Some(field)) = (self.diagnostics.get(before), fields.last_mut())
                            && diagnostic.edit.as_ref().is_some_and(|edit| edit.span.start < diagnostic.span.start)
                        {
                            // The value was half of what is meant.
                            field.value.kind = ExprKind::Wrong;
                        }
                        self.skip_field();
                    }
                }
                Err(Reported) => {
                    if let Some(path) = self.partial.take() {
                        let span = path[0].span.to(path[path.len() - 1].span);
                        fields.push(FieldSyntax { path, value: Expr { kind: ExprKind::Wrong, span } });
                    }
                    if self.at == start && !self.at_symbol("}") {
                        self.advance();
                        if self.lexeme(0).first_on_line {
                            continue;
                        }
                    }
                    // The mistake may have ended with its line.
                    if !self.lexeme(0).first_on_line {
                        self.skip_field();
                    }
                }
            }
        }
    }

    fn field(&mut self) -> Parsed<FieldSyntax> {
        let mut path = vec![self.name("the name of a field")?];
        while self.at_symbol(".") {
            self.advance();
            path.push(self.name("the name of a field")?);
        }
        if path.len() > DEEPEST {
            let span = path[0].span.to(path[path.len() - 1].span);
            self.report(Diagnostic::error("E0012", span, format!("this is nested deeper than {DEEPEST} levels")));
            return Err(Reported);
        }
        self.partial = Some(path.clone());
        if self.at_symbol(":") && !self.lexeme(0).first_on_line {
            // What is meant is clear, and what follows is read as the value.
            let at = self.span();
            let before = if self.before().end == at.start { " " } else { "" };
            let behind = if self.lexeme(1).span.start == at.end { " " } else { "" };
            let diagnostic = Diagnostic::error("E0010", at, "expected `=`, found `:`")
                .label("expected `=`")
                .help("a field is written `name = value`")
                .edit(at, format!("{before}={behind}"));
            self.report(diagnostic);
            self.advance();
        } else if !self.take_symbol("=") {
            let last = path[path.len() - 1].text.clone();
            let found_brace = self.at_symbol("{");
            let reported = self.unexpected("`=`");
            if found_brace && let Some(diagnostic) = self.diagnostics.last_mut() {
                diagnostic.help.push(format!("a record is written `{last} = {{ … }}`"));
            }
            return Err(reported);
        }
        // Fields inside the value leave their own names behind.
        let value = self.expression().inspect_err(|_| self.partial = Some(path.clone()))?;
        Ok(FieldSyntax { path, value })
    }

    fn unclosed(&mut self, open: Span, bracket: &str) {
        // A text that is not closed swallowed the bracket that would close this one.
        let close = if bracket == "{" {
            '}'
        } else if bracket == "[" {
            ']'
        } else {
            ')'
        };
        let swallowed = |found: &Diagnostic| {
            found.code == "E0002"
                && found.span.start > open.start
                && self.text.get(found.span.start..found.span.end).is_some_and(|text| text.contains(close))
        };
        if self.diagnostics.iter().any(swallowed) {
            return;
        }
        let diagnostic = Diagnostic::error("E0011", open, format!("this `{bracket}` is not closed"))
            .label("opened here")
            .related(self.before(), "expected to be closed by here");
        self.report(diagnostic);
    }

    // ---- expressions, loosest first ----

    fn expression(&mut self) -> Parsed<Expr> {
        if self.at_word("if") {
            return self.nested(Parser::conditional);
        }
        self.chain(&[("or", Operator::Or)], |parser| {
            parser.chain(&[("and", Operator::And)], |parser| {
                if parser.at_word("not") { parser.nested(Parser::not) } else { parser.comparison() }
            })
        })
    }

    fn conditional(&mut self) -> Parsed<Expr> {
        let start = self.span();
        self.advance();
        let condition = self.expression()?;
        if !self.take_word("then") {
            return Err(self.unexpected("`then`"));
        }
        let then = self.expression()?;
        if !self.take_word("else") {
            return Err(self.unexpected("`else`, since every `if` gives a value"));
        }
        let other = self.expression()?;
        let span = start.to(other.span);
        Ok(Expr { kind: ExprKind::If(Box::new((condition, then, other))), span })
    }

    fn not(&mut self) -> Parsed<Expr> {
        let start = self.span();
        self.advance();
        let inner = if self.at_word("not") { self.nested(Parser::not)? } else { self.comparison()? };
        let span = start.to(inner.span);
        Ok(Expr { kind: ExprKind::Not(Box::new(inner)), span })
    }

    /// Operators of one precedence. Their names are words or symbols.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: impl Fn(&mut Parser<'a>) -> Parsed<Expr>,
    ) -> Parsed<Expr> {
        let first = operand(self)?;
        let mut rest: Vec<(Operator, Expr)> = Vec::new();
        while self.goes_on() {
            let found = operators.iter().find(|(text, _)| self.at_symbol(text) || self.at_word(text));
            let Some(&(text, operator)) = found else { break };
            if operator == Operator::Subtract && self.lexeme(0).first_on_line {
                // `[1` newline `-2]`: a difference by the rules, two items to the eye.
                let diagnostic = Diagnostic::error("E0010", self.span(), "a line begins with `-`")
                    .label("a difference, or an item of its own?")
                    .help("put the `-` at the end of the line above, or a comma before it");
                self.report(diagnostic);
            }
            self.advance();
            let right = match operand(self) {
                Ok(right) => right,
                Err(reported) => {
                    if matches!(text, "and" | "or")
                        && self.at_word("if")
                        && let Some(last) = self.diagnostics.last_mut()
                    {
                        last.help.push("put the `if` in brackets".to_owned());
                    }
                    return Err(reported);
                }
            };
            rest.push((operator, right));
        }
        Ok(match rest.last() {
            None => first,
            Some((_, last)) => {
                let span = first.span.to(last.span);
                Expr { kind: ExprKind::Chain(Box::new(first), rest), span }
            }
        })
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        const COMPARISONS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let compared = self.chain(&COMPARISONS, Parser::range)?;
        if let ExprKind::Chain(_, rest) = &compared.kind
            && rest.len() > 1
            && COMPARISONS.iter().any(|(_, operator)| *operator == rest[0].0)
        {
            let diagnostic =
                Diagnostic::error("E0015", compared.span, "comparisons do not chain").help("write `a < b and b < c`");
            self.report(diagnostic);
            return Ok(Expr { kind: ExprKind::Wrong, span: compared.span });
        }
        Ok(compared)
    }

    fn range(&mut self) -> Parsed<Expr> {
        let low = self.sum()?;
        if !(self.goes_on() && self.at_symbol("..")) {
            return Ok(low);
        }
        self.advance();
        let high = self.sum()?;
        let span = low.span.to(high.span);
        Ok(Expr { kind: ExprKind::Range(Box::new(low), Box::new(high)), span })
    }

    fn sum(&mut self) -> Parsed<Expr> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], |parser| {
            parser.chain(&[("*", Operator::Multiply), ("/", Operator::Divide)], Parser::signed)
        })
    }

    fn signed(&mut self) -> Parsed<Expr> {
        if !self.at_symbol("-") {
            return self.postfix();
        }
        let start = self.span();
        self.advance();
        let inner = self.nested(Parser::signed)?;
        let span = start.to(inner.span);
        Ok(Expr { kind: ExprKind::Negate(Box::new(inner)), span })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let base = self.primary()?;
        let mut parts = Vec::new();
        let mut end = base.span;
        // A postfix stands on the line of what it belongs to, in brackets too: `[a` newline `[1]]` are two items.
        while !self.lexeme(0).first_on_line {
            match self.peek() {
                Token::Symbol(".") => {
                    self.advance();
                    let name = self.name("a name")?;
                    end = name.span;
                    parts.push(Postfix::Member(name));
                }
                Token::Symbol("[") => {
                    let open = self.span();
                    self.advance();
                    let items = self.bracketed(|parser| parser.index(open))?;
                    end = self.before();
                    parts.push(Postfix::Index(items, open.to(end)));
                }
                Token::Symbol("(") if matches!(parts.last(), Some(Postfix::Member(_))) => {
                    let open = self.span();
                    self.advance();
                    let arguments = self.bracketed(|parser| parser.list_until(")", open))?;
                    end = self.before();
                    parts.push(Postfix::Call(arguments, open.to(end)));
                }
                // `name@50`: the checkpoint of an epoch, which reads like a path with a number for a root.
                Token::Path(place) if self.span().start == end.end => {
                    let (root, path) = place.as_ref();
                    let (text, span) = (format!("@{root}"), self.span());
                    if !path.is_empty() || root.is_empty() || !root.bytes().all(|b| b.is_ascii_digit()) {
                        let diagnostic = Diagnostic::error("E0013", span, "behind a step, `@` is followed by an epoch")
                            .label("no whole number")
                            .help("write `name@50` or `name[seed = 1]@50`; a path stands apart from what is before it");
                        self.report(diagnostic);
                        self.advance();
                        return Ok(Expr { kind: ExprKind::Wrong, span: base.span.to(end) });
                    }
                    self.advance();
                    end = span;
                    parts.push(Postfix::Member(Name { text, span }));
                }
                _ => break,
            }
        }
        if parts.is_empty() {
            return Ok(base);
        }
        let span = base.span.to(end);
        Ok(Expr { kind: ExprKind::Postfix(Box::new(base), parts), span })
    }

    fn index(&mut self, open: Span) -> Parsed<Vec<IndexSyntax>> {
        let mut items = Vec::new();
        loop {
            match self.peek() {
                Token::Symbol("]") => {
                    self.advance();
                    return Ok(items);
                }
                Token::Symbol(",") => {
                    self.advance();
                    continue;
                }
                Token::End => {
                    self.unclosed(open, "[");
                    return Err(Reported);
                }
                _ => {}
            }
            let named = matches!(self.peek(), Token::Name(_)) && self.lexeme(1).token == Token::Symbol("=");
            let axis = if named { Some(self.name("the name of an axis")?) } else { None };
            if axis.is_some() {
                self.advance();
            }
            let value = self.expression()?;
            items.push(IndexSyntax { axis, value });
            if !(self.lexeme(0).first_on_line || self.at_symbol(",") || self.at_symbol("]")) {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    /// Items separated by commas or newlines, up to the closing bracket.
    fn list_until(&mut self, close: &'static str, open: Span) -> Parsed<Vec<Expr>> {
        let mut items = Vec::new();
        loop {
            if self.take_symbol(close) {
                return Ok(items);
            }
            if self.take_symbol(",") {
                continue;
            }
            if self.peek() == &Token::End || (self.lexeme(0).first_on_line && self.starts_declaration()) {
                self.unclosed(open, if close == "]" { "[" } else { "(" });
                return Err(Reported);
            }
            match self.expression() {
                Ok(item) => items.push(item),
                Err(reported) => {
                    self.skip_list(close);
                    return Err(reported);
                }
            }
            if !(self.lexeme(0).first_on_line || self.at_symbol(",") || self.at_symbol(close)) {
                let expected = format!("`,` or `{close}`");
                let reported = self.unexpected(&expected);
                self.skip_list(close);
                return Err(reported);
            }
        }
    }

    /// Skips what is left of a list with a mistake in it, past its closing bracket, if it has one before its field ends.
    fn skip_list(&mut self, close: &str) {
        let (start, mut depth) = (self.at, 0usize);
        loop {
            match self.peek() {
                Token::Symbol("[" | "(" | "{") => depth += 1,
                Token::Symbol(symbol) if depth == 0 && *symbol == close => {
                    self.advance();
                    return;
                }
                Token::Symbol("]" | ")" | "}") if depth > 0 => depth -= 1,
                Token::End | Token::Symbol("]" | ")" | "}") => break,
                _ if self.lexeme(0).first_on_line && self.starts_declaration() => break,
                _ => {}
            }
            self.advance();
        }
        // It has none: what follows is no part of it.
        self.at = start;
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let span = self.span();
        let kind = match self.peek().clone() {
            Token::Int(value) => ExprKind::Int(value),
            Token::Float(value) => ExprKind::Float(value),
            Token::Duration(seconds) => ExprKind::Duration(seconds),
            Token::Size(bytes) => ExprKind::Size(bytes),
            Token::Text(text) => ExprKind::Text(text),
            Token::Path(place) => {
                let (root, path) = *place;
                ExprKind::Path { root, path }
            }
            Token::Bad => ExprKind::Wrong,
            Token::Name(name) => match name.as_str() {
                "true" => ExprKind::Bool(true),
                "false" => ExprKind::Bool(false),
                "none" => ExprKind::None,
                _ if RESERVED.contains(&name.as_str()) => return Err(self.unexpected("a value")),
                _ => return self.named(),
            },
            Token::Symbol("(") => {
                self.advance();
                let inner = self.bracketed(Parser::expression)?;
                if !self.take_symbol(")") {
                    if self.peek() == &Token::End {
                        self.unclosed(span, "(");
                        return Err(Reported);
                    }
                    return Err(self.unexpected("`)`"));
                }
                return Ok(inner);
            }
            Token::Symbol("[") => {
                self.advance();
                let items = self.bracketed(|parser| parser.list_until("]", span))?;
                return Ok(Expr { kind: ExprKind::List(items), span: span.to(self.before()) });
            }
            Token::Symbol("{") if self.tagged => {
                self.advance();
                let fields = self.within(false, |parser| Ok(parser.fields(span)))?;
                return Ok(Expr { kind: ExprKind::Record(fields), span: span.to(self.before()) });
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.advance();
        Ok(Expr { kind, span })
    }

    /// A name, a tagged record or a call.
    fn named(&mut self) -> Parsed<Expr> {
        let name = self.name("a value")?;
        let same_line = !self.lexeme(0).first_on_line;
        if same_line && self.at_symbol("(") {
            let open = self.span();
            self.advance();
            if name.text == "best" {
                let best = self.bracketed(|parser| parser.best(open))?;
                let span = name.span.to(self.before());
                return Ok(Expr { kind: ExprKind::Best(Box::new(best)), span });
            }
            let arguments = self.bracketed(|parser| parser.list_until(")", open))?;
            let span = name.span.to(self.before());
            return Ok(Expr { kind: ExprKind::Call { function: name, arguments }, span });
        }
        if same_line && self.tagged && self.at_symbol("{") {
            let open = self.span();
            self.advance();
            let fields = self.within(false, |parser| Ok(parser.fields(open)))?;
            let span = name.span.to(self.before());
            return Ok(Expr { kind: ExprKind::Tagged { tag: name, fields }, span });
        }
        Ok(Expr { kind: ExprKind::Name(name.text), span: name.span })
    }

    /// `family, by = metric)`
    fn best(&mut self, open: Span) -> Parsed<BestSyntax> {
        let family = self.expression()?;
        self.take_symbol(",");
        if !(self.at_word("by") && self.lexeme(1).token == Token::Symbol("=")) {
            let reported = self.unexpected("`by = ` and the number to choose by");
            if let Some(last) = self.diagnostics.last_mut() {
                last.help.push("as in `best(moco, by = val.top1)`".to_owned());
            }
            return Err(reported);
        }
        self.advance();
        self.advance();
        let by = self.expression()?;
        self.take_symbol(",");
        if self.peek() == &Token::End {
            self.unclosed(open, "(");
            return Err(Reported);
        }
        if !self.take_symbol(")") {
            return Err(self.unexpected("`)`"));
        }
        Ok(BestSyntax { family, by })
    }
}
