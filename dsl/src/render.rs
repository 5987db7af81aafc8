//! Diagnostics as people read them: the line itself, underlined, with what was expected.

use crate::diagnostic::{Diagnostic, Severity};
use crate::source::{Sources, Span};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::ops::Range;

/// Shows diagnostics with the lines they speak of, in colour (ANSI escapes) or plain.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for diagnostic in diagnostics {
        // Annotations by source: the main place's source first.
        let mut others: BTreeMap<usize, Vec<(Range<usize>, &str)>> = BTreeMap::new();
        for related in &diagnostic.related {
            others.entry(related.span.source).or_default().push((range(related.span, sources), &related.label));
        }
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(diagnostic.message.as_str())
            .id(diagnostic.code)
            .elements(None::<Snippet<'_, annotate_snippets::Annotation<'_>>>);
        if let Some(source) = sources.get(diagnostic.span.source) {
            let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(
                AnnotationKind::Primary
                    .span(range(diagnostic.span, sources))
                    .label((!diagnostic.label.is_empty()).then_some(diagnostic.label.as_str())),
            );
            for (range, label) in others.remove(&diagnostic.span.source).unwrap_or_default() {
                snippet = snippet.annotation(AnnotationKind::Context.span(range).label(label));
            }
            group = group.element(snippet);
        }
        for (index, places) in others {
            let Some(source) = sources.get(index) else { continue };
            let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
            for (range, label) in places {
                snippet = snippet.annotation(AnnotationKind::Context.span(range).label(label));
            }
            group = group.element(snippet);
        }
        for note in &diagnostic.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        for help in &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}

/// A span as a range inside its text, on character boundaries.
fn range(span: Span, sources: &Sources) -> Range<usize> {
    let Some(source) = sources.get(span.source) else { return 0..0 };
    let boundary = |mut offset: usize| {
        offset = offset.min(source.text.len());
        while !source.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let start = boundary(span.start);
    start..boundary(span.end).max(start)
}
