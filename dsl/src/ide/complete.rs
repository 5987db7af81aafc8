//! What could stand at a place.

use super::context::{Context, Frame};
use super::names::{DeclarationKind, Names};
use super::{Page, about_field, bare, variants, walk};
use crate::catalog::{Catalog, Type};

/// What a completion is, for its symbol in the editor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionKind {
    /// A word of the language.
    Keyword,
    /// A kind of step.
    Kind,
    /// A field.
    Field,
    /// A tag or a word of a choice.
    Word,
    /// A step.
    Step,
    /// A param, a `let` or an axis.
    Value,
    /// A number that a step measures.
    Metric,
    /// Something that a step gives.
    Output,
}

/// One thing that could stand at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// What it is called.
    pub label: String,
    /// What it is.
    pub kind: CompletionKind,
    /// What is written, where that is more than the label.
    pub insert: Option<String>,
    /// Beside the label.
    pub detail: String,
    /// Markdown.
    pub doc: String,
    /// Whether it fits best and comes first.
    pub first: bool,
}

fn completion(label: &str, kind: CompletionKind, detail: impl Into<String>) -> Completion {
    Completion { label: label.into(), kind, insert: None, detail: detail.into(), doc: String::new(), first: false }
}

/// What could stand at a cursor of a page, and the bytes of the word that it would replace.
pub(super) fn complete(
    page: &Page,
    offset: usize,
    names: &Names,
    source: usize,
    catalog: &Catalog,
) -> (Vec<Completion>, usize, usize) {
    if super::tokens::in_comment(page.text(), page.lexemes(), offset) {
        return (Vec::new(), offset, offset);
    }
    let context = Context::at_cursor(page.text(), page.lexemes(), offset);
    let (start, end) = context.word.unwrap_or((offset, offset));
    (items(&context, start, names, source, catalog), start, end)
}

fn items(context: &Context, start: usize, names: &Names, source: usize, catalog: &Catalog) -> Vec<Completion> {
    if let Some(owner) = context.member_of("", start) {
        return members(context, &owner, start, names, source, catalog);
    }
    if context.names_kind() {
        let words = ["param", "let", "import", "for", "replicate", "table", "figure", "claim"];
        let kinds = catalog.kinds.iter().map(|kind| Completion {
            insert: Some(format!("{} ", kind.name)),
            doc: kind.doc.clone(),
            ..completion(&kind.name, CompletionKind::Kind, kind.doc.lines().next().unwrap_or_default())
        });
        let words = words.iter().map(|word| completion(word, CompletionKind::Keyword, ""));
        return kinds.chain(words).collect();
    }
    if context.names_field {
        let own: &[(&str, &str)] = match context.frames.last() {
            Some(Frame::Other("table")) => {
                &[("rows", "an axis"), ("columns", "measured numbers"), ("against", "published figures")]
            }
            Some(Frame::Other("figure")) => &[
                ("x", "what it is drawn over"),
                ("y", "what is drawn"),
                ("baseline", "a member to take from the others"),
            ],
            _ => &[],
        };
        if !own.is_empty() {
            return own.iter().map(|(name, what)| completion(name, CompletionKind::Field, *what)).collect();
        }
        let path = context.path_before("", start);
        let fields = context.fields(catalog, "").and_then(|fields| walk(fields, &path)).unwrap_or_default();
        let fresh = fields.iter().filter(|field| !path.is_empty() || !context.written.contains(&field.name));
        return fresh
            .map(|field| Completion {
                insert: Some(format!("{} = ", field.name)),
                doc: about_field(field),
                first: field.required,
                ..completion(&field.name, CompletionKind::Field, crate::checker::wanted(&field.ty))
            })
            .collect();
    }
    let ty = context.value_type(catalog);
    let mut out: Vec<Completion> = Vec::new();
    if let Some(ty) = ty {
        match bare(ty) {
            Type::Bool => out.extend(["true", "false"].map(|word| completion(word, CompletionKind::Word, ""))),
            Type::Choice(words) => {
                out.extend(words.iter().map(|word| completion(word, CompletionKind::Word, "")));
            }
            Type::Tagged(_) => out.extend(variants(ty).iter().map(|variant| Completion {
                insert: (!variant.fields.is_empty()).then(|| format!("{} {{ }}", variant.name)),
                doc: variant.doc.clone(),
                ..completion(&variant.name, CompletionKind::Word, variant.doc.lines().next().unwrap_or_default())
            })),
            _ => {}
        }
        if matches!(ty, Type::Optional(_)) {
            out.push(completion("none", CompletionKind::Word, ""));
        }
        out.iter_mut().for_each(|item| item.first = true);
    }
    let accepted: Option<&[String]> = match ty.map(bare) {
        Some(Type::Input(kinds)) => Some(kinds),
        _ => None,
    };
    for declared in names.visible(source, start) {
        match &declared.kind {
            DeclarationKind::Step { kind, .. } => {
                let gives: Vec<&str> = catalog
                    .kind(kind)
                    .map(|kind| kind.outputs.iter().map(|output| output.artifact.as_str()).collect())
                    .unwrap_or_default();
                let fits = accepted.is_some_and(|accepted| {
                    accepted.iter().any(|kind| kind == "any" || gives.contains(&kind.as_str()))
                });
                out.push(Completion { first: fits, ..completion(&declared.name, CompletionKind::Step, kind.clone()) });
            }
            _ => out.push(completion(&declared.name, CompletionKind::Value, declared.value.clone())),
        }
    }
    // They speak of axes from outside the blocks.
    if context.frames.iter().any(|frame| matches!(frame, Frame::Other("table" | "figure" | "claim"))) {
        for axis in names.axes() {
            if out.iter().all(|item| item.label != axis.name) {
                out.push(completion(&axis.name, CompletionKind::Value, axis.value.clone()));
            }
        }
    }
    out
}

/// What stands behind the point of a step's name: in a statement its numbers, elsewhere what it gives.
fn members(
    context: &Context,
    owner: &str,
    start: usize,
    names: &Names,
    source: usize,
    catalog: &Catalog,
) -> Vec<Completion> {
    let Some(declared) = names.resolve(owner, source, start) else {
        return ["last", "best", "at"].map(|word| completion(word, CompletionKind::Word, "of a curve")).into();
    };
    let DeclarationKind::Step { kind, .. } = &declared.kind else { return Vec::new() };
    let Some(kind) = catalog.kind(kind) else { return Vec::new() };
    let statement = context.frames.iter().any(|frame| matches!(frame, Frame::Other("table" | "figure" | "claim")));
    if statement {
        let metrics = kind.metrics.iter().map(|metric| Completion {
            doc: metric.doc.clone(),
            ..completion(&metric.name, CompletionKind::Metric, if metric.series { "curve" } else { "number" })
        });
        return metrics.collect();
    }
    let outputs = kind.outputs.iter().map(|output| Completion {
        doc: output.doc.clone(),
        ..completion(&output.name, CompletionKind::Output, output.artifact.clone())
    });
    outputs.collect()
}
