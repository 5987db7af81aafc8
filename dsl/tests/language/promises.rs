//! What holds of any text whatever; the property tests and the fuzz target hold the crate to it.

use crate::catalog::{catalog, check_with};
use harness_dsl::ide::{Names, Page};
use harness_dsl::{Severity, format, render};

/// Reads, checks, shows, lays out and asks about a text; gives the codes found.
///
/// # Panics
/// Where a promise is broken.
pub fn kept(text: &str) -> Vec<&'static str> {
    let checked =
        check_with(text, &[("base.exp", "param size = 4"), ("study.exp", "let long = \"ten\"")], &[("epochs", "5")]);
    let wrong = checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    assert_eq!(checked.program.is_none(), wrong, "a program comes out exactly when nothing is wrong");
    for diagnostic in &checked.diagnostics {
        for span in diagnostic.related.iter().map(|related| related.span).chain([diagnostic.span]) {
            let source = checked.sources.get(span.source).expect("a diagnostic is in some text");
            assert!(span.start <= span.end && span.end <= source.text.len(), "{diagnostic:?}");
        }
        if let Some(fix) = diagnostic.fix().filter(|fix| fix.span.source == 0) {
            assert!(text.get(fix.span.start..fix.span.end).is_some(), "an edit cuts a letter: {diagnostic:?}");
        }
        assert!(harness_dsl::explain(diagnostic.code).is_some(), "{} has no page", diagnostic.code);
    }
    render(&checked.diagnostics, &checked.sources, true);
    if let Some(program) = &checked.program {
        for (at, step) in program.steps.iter().enumerate() {
            assert_eq!(step.id, at);
            assert!(step.inputs.iter().all(|&input| input < at), "`{}` comes before what it needs", step.label);
        }
        let labels: std::collections::HashSet<&str> = program.steps.iter().map(|step| step.label.as_str()).collect();
        assert_eq!(labels.len(), program.steps.len(), "two steps have one label");
    }
    if let Ok(formatted) = format("test.exp", text) {
        assert!(harness_dsl::lays_out(text), "the layout reads differently");
        assert_eq!(format("test.exp", &formatted).as_deref(), Ok(&*formatted), "the layout is no fixed point");
        // Comments are kept, all of them.
        assert_eq!(comments(&formatted), comments(text), "a comment is lost");
    }
    let page = Page::new(text);
    let names = Names::of(&checked.sources);
    for at in [0, text.len() / 3, text.len() / 2, text.len()] {
        let at = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        page.hover(at, &names, 0, &catalog());
        page.complete(at, &names, 0, &catalog());
        if let Some(declared) = names.at(&page, at) {
            names.places(&page, declared);
        }
        let (line, column) = page.position(at);
        assert_eq!(page.offset(line, column), at);
        // What is left of a text after an edit is what would have been read.
        assert_eq!(Page::new(&text[at..]).replaced(text), page, "an edited page differs");
    }
    let tokens = page.semantic_tokens();
    assert!(tokens.windows(2).all(|pair| pair[0].end <= pair[1].start), "tokens overlap");
    checked.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// The comments of a text in order, without the space around them.
fn comments(text: &str) -> Vec<String> {
    let page = Page::new(text);
    let comments =
        page.semantic_tokens().into_iter().filter(|token| token.kind == harness_dsl::ide::TokenKind::Comment);
    comments.map(|token| text[token.start..token.end].trim().to_owned()).collect()
}
