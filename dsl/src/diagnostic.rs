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
    /// The edit that mends it, where it is another one than the nearest name in its place.
    #[serde(skip)]
    pub edit: Option<Fix>,
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
    /// to be written. None where more than that stretch of text, or a thought, is needed, and none for a warning, since
    /// what it speaks of has a meaning already.
    pub fn fix(&self) -> Option<Fix> {
        if self.severity == Severity::Warning {
            return None;
        }
        if let Some(edit) = &self.edit {
            return Some(edit.clone());
        }
        // Where a word is looked up among known ones. A function is none: `median` is no misspelt `mean`.
        if !matches!(self.code, "E0010" | "E0101" | "E0103" | "E0104" | "E0108" | "E0110" | "E0111") {
            return None;
        }
        let nearest = self.help.iter().find_map(|help| help.strip_prefix("did you mean `")?.strip_suffix("`?"))?;
        // Of two names that are equally near neither is taken.
        (!nearest.contains('`')).then(|| Fix { span: self.span, text: nearest.to_owned() })
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
            edit: None,
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

    /// With the edit that mends it.
    pub fn edit(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.edit = Some(Fix { span, text: text.into() });
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
