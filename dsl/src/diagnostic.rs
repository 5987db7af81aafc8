//! What is wrong with a program, as data. Showing it is [`crate::render`]'s.

use crate::source::{Location, Sources, Span};
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// There is no program.
    Error,
    /// There is one, but something in it is probably not meant.
    Warning,
}

/// One finding about the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The code that [`crate::explain`] explains, such as `E0107`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
    /// The narrowest stretch of text that is to blame.
    pub span: Span,
    /// Where that is, as people count.
    #[serde(flatten)]
    pub location: Option<Location>,
    /// What to say right under the span; may be empty.
    pub label: String,
    /// What else is good to know.
    pub notes: Vec<String>,
    /// Ways out.
    pub help: Vec<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

/// Another place that belongs to a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The stretch of text.
    pub span: Span,
    /// Where that is, as people count.
    #[serde(flatten)]
    pub location: Option<Location>,
    /// What to say under it.
    pub label: String,
}

/// One safe edit that mends a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What is replaced.
    pub span: Span,
    /// By what.
    pub text: String,
}

impl Diagnostic {
    /// The edit that the diagnostic itself suggests: the nearest name for a misspelt one, a number or a text as it has
    /// to be written. None where more than that stretch of text, or a thought, is needed.
    pub fn fix(&self) -> Option<Fix> {
        let between = |help: &str, before: &str, after: &str| {
            help.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).map(str::to_owned)
        };
        let text = self.help.iter().find_map(|help| {
            let nearest = between(help, "did you mean `", "`?");
            let rewritten = || between(help, "write `", "`").filter(|_| matches!(self.code, "E0001" | "E0004"));
            nearest.or_else(rewritten)
        })?;
        Some(Fix { span: self.span, text })
    }

    /// An error at a place.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity: Severity::Error,
            message: message.into(),
            span,
            location: None,
            label: String::new(),
            notes: Vec::new(),
            help: Vec::new(),
            related: Vec::new(),
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, span, message) }
    }

    /// With words right under the span.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// With something else that is good to know.
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }

    /// With a way out.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// With a way out, if there is one.
    pub fn help_if(mut self, help: Option<String>) -> Diagnostic {
        self.help.extend(help);
        self
    }

    /// With another place that belongs to it.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Diagnostic {
        self.related.push(Related { span, location: None, label: label.into() });
        self
    }

    /// Fills in the places as people count them.
    pub fn locate(&mut self, sources: &Sources) {
        self.location = Some(sources.location(self.span));
        for related in &mut self.related {
            related.location = Some(sources.location(related.span));
        }
    }
}
