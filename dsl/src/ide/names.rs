//! Where names are declared and used, over all texts of a program.

use super::Page;
use crate::lexer::{Lexeme, Token, lex};
use crate::parser::{DECLARATIONS, RESERVED};
use crate::source::{Sources, Span};
use rustc_hash::{FxHashMap, FxHashSet};

/// What a declaration declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclarationKind {
    /// A step.
    Step {
        /// Its kind.
        kind: String,
        /// The step it starts from.
        base: Option<String>,
    },
    /// A `param`.
    Param,
    /// A `let`.
    Let,
    /// The name of an axis, or one that goes along with it.
    Axis {
        /// Whether it is one to average over.
        replicate: bool,
    },
    /// A table.
    Table,
    /// A figure.
    Figure,
    /// A claim; its name is its text.
    Claim,
}

/// A declared name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The name, or a claim's text.
    pub name: String,
    /// What it stands for.
    pub kind: DeclarationKind,
    /// Where the name is.
    pub span: Span,
    /// The whole declaration, its braces included.
    pub whole: Span,
    /// Where the name is known; everywhere if none.
    pub scope: Option<Span>,
    /// The first line of what it stands for, as written.
    pub value: String,
}

/// The declarations of all texts of a program, and the uses in all but the first: those are looked for when they are
/// asked for, since that text is another one after every keystroke.
#[derive(Debug, Clone, Default)]
pub struct Names {
    declarations: Vec<Declaration>,
    /// Declarations by name.
    known: FxHashMap<String, Vec<usize>>,
    /// Which lexemes of the first text belong to the head of a declaration, and so are no use of a name.
    heads: Vec<bool>,
    /// Names that are used elsewhere, with the places.
    uses: FxHashMap<String, Vec<Span>>,
}

impl Names {
    /// Reads the names of all texts but those of `-p`.
    pub fn of(sources: &Sources) -> Names {
        let mut names = Names::default();
        for (source, text) in sources.iter().enumerate().filter(|(_, source)| !source.name.starts_with("-p ")) {
            let lexemes = lex(&text.text, source, &mut Vec::new());
            let heads = names.read(&text.text, &lexemes);
            if source == 0 {
                names.heads = heads;
                continue;
            }
            for (at, lexeme) in lexemes.iter().enumerate() {
                if let Some(name) = used(&lexemes, at, &heads) {
                    names.uses.entry(name.to_owned()).or_default().push(lexeme.span);
                }
            }
        }
        names
    }

    /// The names of a page, the first text, with those of the other texts as they are known already.
    pub fn with_page(&self, page: &Page) -> Names {
        let mut names = Names { uses: self.uses.clone(), ..Names::default() };
        names.heads = names.read(page.text(), page.lexemes());
        for declared in self.declarations.iter().filter(|declared| declared.span.source != 0) {
            names.declare(declared.clone());
        }
        names
    }

    fn declare(&mut self, declared: Declaration) {
        self.known.entry(declared.name.clone()).or_default().push(self.declarations.len());
        self.declarations.push(declared);
    }

    /// The declarations of one text, in order.
    pub fn declarations(&self, source: usize) -> impl Iterator<Item = &Declaration> {
        self.declarations.iter().filter(move |declared| declared.span.source == source)
    }

    /// What a name stands for at a place: the innermost declaration around it, else one of the top level.
    pub fn resolve(&self, name: &str, source: usize, offset: usize) -> Option<&Declaration> {
        let fits = |declared: &&Declaration| {
            !matches!(declared.kind, DeclarationKind::Claim)
                && declared
                    .scope
                    .is_none_or(|scope| scope.source == source && scope.start <= offset && offset <= scope.end)
        };
        let named = self.known.get(name).into_iter().flatten().map(|&at| &self.declarations[at]);
        named.filter(fits).min_by_key(|d| d.scope.map_or(usize::MAX, |scope| scope.end - scope.start))
    }

    /// What a name stands for at a place, or the one axis of that name: tables, figures and claims speak of axes from
    /// outside their blocks.
    pub fn meant(&self, name: &str, source: usize, offset: usize) -> Option<&Declaration> {
        self.resolve(name, source, offset).or_else(|| {
            let named = self.known.get(name).into_iter().flatten().map(|&at| &self.declarations[at]);
            let mut axes = named.filter(|declared| matches!(declared.kind, DeclarationKind::Axis { .. }));
            axes.next().filter(|_| axes.next().is_none())
        })
    }

    /// The axes of all blocks.
    pub(super) fn axes(&self) -> impl Iterator<Item = &Declaration> {
        self.declarations.iter().filter(|declared| matches!(declared.kind, DeclarationKind::Axis { .. }))
    }

    /// Names that can be used at a place.
    pub fn visible(&self, source: usize, offset: usize) -> Vec<&Declaration> {
        let named = |declared: &&Declaration| {
            !matches!(declared.kind, DeclarationKind::Claim | DeclarationKind::Table | DeclarationKind::Figure)
        };
        let mut seen = FxHashSet::default();
        let known = self.declarations.iter().filter(named).filter(|declared| {
            self.resolve(&declared.name, source, offset).is_some_and(|found| found.span == declared.span)
        });
        known.filter(|declared| seen.insert(declared.name.as_str())).collect()
    }

    /// The declaration whose name, or one of whose uses, lies at a place of the page that these are the names of.
    pub fn at(&self, page: &Page, offset: usize) -> Option<&Declaration> {
        let covers = |span: Span| span.source == 0 && span.start <= offset && offset <= span.end;
        let declared = self.declarations.iter().find(|declared| covers(declared.span));
        declared.or_else(|| {
            let lexemes = page.lexemes();
            let first = lexemes.partition_point(|lexeme| lexeme.span.end < offset);
            let near = (first..lexemes.len()).take_while(|&at| lexemes[at].span.start <= offset);
            let (name, at) = near.filter_map(|at| Some((used(lexemes, at, &self.heads)?, at))).next()?;
            self.meant(name, 0, lexemes[at].span.start)
        })
    }

    /// Every place where a declared name stands, its declaration first, those in the page before those elsewhere.
    pub fn places(&self, page: &Page, declared: &Declaration) -> Vec<Span> {
        let name = declared.name.as_str();
        let same =
            |span: &Span| self.meant(name, span.source, span.start).is_some_and(|found| found.span == declared.span);
        let lexemes = page.lexemes();
        let named = |at: &usize| matches!(&lexemes[*at].token, Token::Name(other) if other == name);
        let here = (0..lexemes.len()).filter(named).filter(|&at| used(lexemes, at, &self.heads).is_some());
        let here = here.map(|at| lexemes[at].span);
        let elsewhere = self.uses.get(name).into_iter().flatten().copied();
        std::iter::once(declared.span).chain(here.chain(elsewhere).filter(same)).collect()
    }

    /// Reads the declarations of a text; says which lexemes are of their heads.
    fn read(&mut self, text: &str, lexemes: &[Lexeme]) -> Vec<bool> {
        let partner = partners(lexemes);
        // Blocks that are open, by where they end: names declared with `let` inside are known there alone.
        let mut blocks: Vec<Span> = Vec::new();
        let mut declared = vec![false; lexemes.len()];
        let mut at = 0;
        while at < lexemes.len() {
            let start = lexemes[at].span.start;
            blocks.retain(|block| start < block.end);
            at = self.declaration(text, lexemes, &partner, at, &mut blocks, &mut declared).unwrap_or(at + 1);
        }
        declared
    }

    /// Reads the head of a declaration that begins at a lexeme; gives the lexeme behind it.
    fn declaration(
        &mut self,
        text: &str,
        lexemes: &[Lexeme],
        partner: &[usize],
        at: usize,
        blocks: &mut Vec<Span>,
        declared: &mut [bool],
    ) -> Option<usize> {
        let token = |at: usize| lexemes.get(at).map(|lexeme| &lexeme.token);
        let name = |at: usize| match token(at) {
            Some(Token::Name(name)) => Some(name.as_str()),
            _ => None,
        };
        let word = name(at)?;
        let begins =
            at == 0 || lexemes[at].first_on_line || matches!(token(at - 1), Some(Token::Symbol("{" | "}" | ",")));
        if !begins || RESERVED.contains(&word) {
            return None;
        }
        let whole = |last: usize| lexemes[at].span.to(lexemes[last.min(lexemes.len() - 1)].span);
        // The first line from one lexeme up to another, or to the line's end.
        let line = |from: usize, to: usize| {
            let start = lexemes.get(from).map_or(text.len(), |lexeme| lexeme.span.start);
            let end = lexemes.get(to).map_or(text.len(), |lexeme| lexeme.span.start);
            let all = text.get(start..end.max(start)).unwrap_or_default();
            let first = all.lines().next().unwrap_or_default();
            first.split(" #").next().unwrap_or_default().trim().to_owned()
        };
        let open = |from: usize| {
            (from..lexemes.len().min(from + 64)).find(|&at| matches!(token(at), Some(Token::Symbol("{"))))
        };
        match word {
            "param" | "let" if matches!(token(at + 2), Some(Token::Symbol("="))) => {
                let called = name(at + 1)?;
                // Up to the next lexeme that begins a line outside the value's brackets.
                let mut end = at + 3;
                while end < lexemes.len() && token(end) != Some(&Token::End) {
                    if lexemes[end].first_on_line && end > at + 3 {
                        break;
                    }
                    end = partner[end].max(end) + 1;
                }
                let scope = if word == "let" { blocks.last().copied() } else { None };
                let kind = if word == "let" { DeclarationKind::Let } else { DeclarationKind::Param };
                declared[at..at + 2].fill(true);
                self.declare(Declaration {
                    name: called.to_owned(),
                    kind,
                    span: lexemes[at + 1].span,
                    whole: whole(end.saturating_sub(1)),
                    scope,
                    value: line(at + 3, end),
                });
                Some(at + 3)
            }
            "for" | "replicate" => {
                let mut names = vec![at + 1];
                while matches!(token(names[names.len() - 1] + 1), Some(Token::Symbol(","))) {
                    names.push(names[names.len() - 1] + 2);
                }
                let keyword = names[names.len() - 1] + 1;
                if name(keyword) != Some("in") {
                    return None;
                }
                let brace = open(keyword)?;
                let block = lexemes[brace].span.to(lexemes[partner[brace]].span);
                // The condition behind `when` sees the axis too.
                let scope = lexemes[keyword].span.to(block);
                let value = line(keyword + 1, brace);
                for index in names {
                    let Some(called) = name(index) else { continue };
                    declared[index] = true;
                    self.declare(Declaration {
                        name: called.to_owned(),
                        kind: DeclarationKind::Axis { replicate: word == "replicate" },
                        span: lexemes[index].span,
                        whole: whole(partner[brace]),
                        scope: Some(scope),
                        value: value.clone(),
                    });
                }
                declared[at] = true;
                blocks.push(block);
                Some(keyword + 1)
            }
            "claim" => {
                let Some(Token::Text(said)) = token(at + 1) else { return None };
                let brace = open(at + 2)?;
                declared[at] = true;
                self.declare(Declaration {
                    name: said.clone(),
                    kind: DeclarationKind::Claim,
                    span: lexemes[at + 1].span,
                    whole: whole(partner[brace]),
                    scope: None,
                    value: String::new(),
                });
                Some(brace + 1)
            }
            "table" | "figure" if name(at + 1).is_some() => {
                let brace = open(at + 2)?;
                let kind = if word == "table" { DeclarationKind::Table } else { DeclarationKind::Figure };
                declared[at..at + 2].fill(true);
                self.declare(Declaration {
                    name: name(at + 1)?.to_owned(),
                    kind,
                    span: lexemes[at + 1].span,
                    whole: whole(partner[brace]),
                    scope: None,
                    value: String::new(),
                });
                Some(brace + 1)
            }
            "import" => {
                declared[at] = true;
                Some(at + 1)
            }
            kind if !DECLARATIONS.contains(&kind) => {
                let called = name(at + 1)?;
                let from = name(at + 2) == Some("from");
                let mut brace = if from { at + 4 } else { at + 2 };
                // `from base[lr = 0.1]`
                if from && matches!(token(brace), Some(Token::Symbol("["))) {
                    brace = partner[brace] + 1;
                }
                if lexemes[at + 1].first_on_line || !matches!(token(brace), Some(Token::Symbol("{"))) {
                    return None;
                }
                declared[at..at + 2].fill(true);
                if from {
                    declared[at + 2] = true;
                }
                self.declare(Declaration {
                    name: called.to_owned(),
                    kind: DeclarationKind::Step {
                        kind: kind.to_owned(),
                        base: if from { name(at + 3).map(str::to_owned) } else { None },
                    },
                    span: lexemes[at + 1].span,
                    whole: whole(partner[brace]),
                    scope: None,
                    value: String::new(),
                });
                Some(if from { at + 4 } else { brace + 1 })
            }
            _ => None,
        }
    }
}

/// The name that a lexeme uses, if it does.
fn used<'a>(lexemes: &'a [Lexeme], at: usize, heads: &[bool]) -> Option<&'a str> {
    let Token::Name(name) = &lexemes[at].token else { return None };
    if heads.get(at).is_some_and(|head| *head) || RESERVED.contains(&name.as_str()) {
        return None;
    }
    let symbol = |at: Option<usize>| match at.and_then(|at| lexemes.get(at)).map(|lexeme| &lexeme.token) {
        Some(Token::Symbol(symbol)) => *symbol,
        _ => "",
    };
    let member = symbol(at.checked_sub(1)) == ".";
    // A field's name, unless it names an axis in an index, which it does as well.
    let field = symbol(Some(at + 1)) == "=" || (symbol(Some(at + 1)) == "." && starts_field(lexemes, at));
    let tag = symbol(Some(at + 1)) == "{" && symbol(at.checked_sub(1)) == "=";
    (!member && !tag && (!field || in_index(lexemes, at))).then_some(name)
}

/// For every opening bracket the lexeme that closes it (the last one if none does); for others themselves.
fn partners(lexemes: &[Lexeme]) -> Vec<usize> {
    let mut partner: Vec<usize> = (0..lexemes.len()).collect();
    let mut open = Vec::new();
    for (at, lexeme) in lexemes.iter().enumerate() {
        match lexeme.token {
            Token::Symbol("{" | "[" | "(") => {
                partner[at] = lexemes.len() - 1;
                open.push(at);
            }
            Token::Symbol("}" | "]" | ")") => {
                if let Some(opened) = open.pop() {
                    partner[opened] = at;
                }
            }
            _ => {}
        }
    }
    partner
}

/// Whether `a` of `a.b = …` begins a field.
fn starts_field(lexemes: &[Lexeme], at: usize) -> bool {
    let mut end = at;
    while matches!(lexemes.get(end + 1).map(|lexeme| &lexeme.token), Some(Token::Symbol(".")))
        && matches!(lexemes.get(end + 2).map(|lexeme| &lexeme.token), Some(Token::Name(_)))
    {
        end += 2;
    }
    matches!(lexemes.get(end + 1).map(|lexeme| &lexeme.token), Some(Token::Symbol("=")))
}

/// Whether the innermost open bracket before a lexeme is a square one.
fn in_index(lexemes: &[Lexeme], at: usize) -> bool {
    let mut depth = 0usize;
    for lexeme in lexemes[..at].iter().rev() {
        match lexeme.token {
            Token::Symbol("}" | "]" | ")") => depth += 1,
            Token::Symbol(open @ ("{" | "[" | "(")) if depth == 0 => return open == "[",
            Token::Symbol("{" | "[" | "(") => depth -= 1,
            _ => {}
        }
    }
    false
}
