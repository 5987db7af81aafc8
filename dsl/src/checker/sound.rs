//! What is legal and probably wrong, and numbers that nobody should believe: looked for in the program as a whole, once
//! it can be read.

use super::{Checker, Node};
use crate::catalog::Type;
use crate::diagnostic::Diagnostic;
use crate::program::{Program, Step};
use crate::source::Span;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// The field by which a step says that it is judged on what was learned from, and why that is known.
pub const ALLOWS_OVERLAP: &str = "allow_overlap";

/// The output of a dataset that holds all of its other ones.
const ALL: &str = "all";

/// A part of a dataset: the step and its output.
type Split = (usize, String);

/// A number that a table, a figure or a claim shows: the steps that measure it, and where it is written.
pub(super) struct Reported {
    pub(super) steps: Vec<usize>,
    pub(super) on_test: bool,
    pub(super) span: Span,
}

impl Checker<'_> {
    /// Looks at a program without errors.
    pub(super) fn sound(&mut self, nodes: &[Node], program: &Program) {
        self.unused();
        self.idle_axes(nodes, program);
        self.not_replaced();
        self.off_the_axis();
        let judged: Vec<BTreeSet<Split>> = program.steps.iter().map(|step| self.judged_on(step, program)).collect();
        self.leaks(program, &judged);
        self.choices_on_test(program, &judged);
    }

    /// Texts with `{name}` or `~` in them, which nothing replaces: found while fields were looked at.
    fn not_replaced(&mut self) {
        std::mem::take(&mut self.literal).into_iter().for_each(|(_, found)| self.report(found));
    }

    /// Params that nothing uses. Those of imported files may serve other experiments.
    fn unused(&mut self) {
        let here = |span: &Span| span.source == 0 && !self.used.contains(span);
        let params = self.params.iter().filter(|(_, _, span)| here(span));
        let found: Vec<(String, Span)> = params.map(|(name, _, span)| (name.clone(), *span)).collect();
        for (name, span) in found {
            self.report(
                Diagnostic::warning("W0201", span, format!("the param `{name}` is never used"))
                    .label("changes nothing")
                    .note(format!("`-p {name}=…` would be a run that looks different and is not")),
            );
        }
    }

    /// Splits that a step measures on.
    fn judged_on(&self, step: &Step, program: &Program) -> BTreeSet<Split> {
        let mut found = BTreeSet::new();
        if step.choice.is_some() {
            return found;
        }
        let Some(kind) = self.catalog.kind(&step.kind) else { return found };
        if let Some(value) = kind.judged_on().and_then(|field| step.params.get(field)) {
            self.splits(value, program, &mut found);
        }
        found
    }

    /// The parts of datasets that a value names.
    fn splits(&self, value: &Json, program: &Program, into: &mut BTreeSet<Split>) {
        for (step, output) in references(value) {
            if program.steps.get(step).is_some_and(|from| self.gives_data(from, &output)) {
                into.insert((step, output));
            }
        }
    }

    fn gives_data(&self, step: &Step, output: &str) -> bool {
        let artifact = self.catalog.kind(&step.kind).and_then(|kind| kind.output(output));
        artifact.is_some_and(|output| {
            let artifact = output.artifact.as_str();
            artifact.ends_with("images") || artifact == "videos" || artifact.starts_with("same as")
        })
    }

    /// Steps that are judged on the very split that something before them learned from.
    fn leaks(&mut self, program: &Program, judged: &[BTreeSet<Split>]) {
        // What each step has learned from, with the step and field that say so.
        let mut learned: Vec<BTreeMap<Split, (usize, String)>> = Vec::with_capacity(program.steps.len());
        let mut found: Vec<Diagnostic> = Vec::new();
        for step in &program.steps {
            let mut from: BTreeMap<Split, (usize, String)> = BTreeMap::new();
            let kind = self.catalog.kind(&step.kind);
            let test = kind.and_then(|kind| kind.judged_on()).filter(|_| step.choice.is_none());
            let dataset = kind.and_then(|kind| kind.outputs.first()).is_some_and(|o| self.gives_data(step, &o.name));
            let looks = kind.and_then(|kind| kind.outputs.first()).is_some_and(|o| o.artifact == "features");
            for (name, value) in step.params.iter().filter(|_| !dataset) {
                let observes = kind.and_then(|kind| kind.field(name)).is_some_and(|field| field.observes);
                if test == Some(name.as_str()) || observes || (looks && name == "data") {
                    continue;
                }
                let mut splits = BTreeSet::new();
                if holds_given(value) {
                    self.splits(&without_given(value), program, &mut splits);
                } else {
                    self.splits(value, program, &mut splits);
                }
                from.extend(splits.into_iter().map(|split| (split, (step.id, name.clone()))));
                for (input, _) in references(value) {
                    if let Some(before) = learned.get(input) {
                        from.extend(before.iter().map(|(split, who)| (split.clone(), who.clone())));
                    }
                }
            }
            let allowed = step.params.get(ALLOWS_OVERLAP) == Some(&Json::Bool(true));
            // `all` of a dataset holds its other parts.
            let shares = |split: &Split| {
                let parts = || from.iter().find(|((of, part), _)| *of == split.0 && (part == ALL || split.1 == ALL));
                let same = from.get(split).map(|who| (split.1.clone(), who));
                same.or_else(|| parts().map(|((_, part), who)| (part.clone(), who)))
            };
            let shared = judged[step.id].iter().find_map(|split| Some((split, shares(split)?)));
            if let (Some((split, (part, (who, field)))), false) = (shared, allowed) {
                let at = test.and_then(|test| step.field_spans.get(test)).copied().unwrap_or(step.span);
                let name = self.written(at);
                let (verb, place) = if *who == step.id {
                    ("it learns".to_owned(), step.field_spans.get(field).copied())
                } else {
                    let who = &program.steps[*who];
                    (format!("`{}` learned", who.name), who.field_spans.get(field).copied())
                };
                let mut diagnostic =
                    Diagnostic::error("E0126", at, format!("`{}` is judged on `{name}`, from which {verb}", step.name))
                        .label("judged on this");
                if part != split.1 {
                    let dataset = &program.steps[split.0].name;
                    let (whole, other) = if part == ALL { (&part, &split.1) } else { (&split.1, &part) };
                    let note = format!("`{dataset}.{whole}` is all of `{dataset}`, and `.{other}` is a part of it");
                    diagnostic = diagnostic.note(note);
                }
                if let Some(place) = place.filter(|place| *place != at) {
                    diagnostic = diagnostic.related(place, "learned from here");
                }
                let known = kind.is_some_and(|kind| kind.field(ALLOWS_OVERLAP).is_some());
                let or = if known {
                    format!(", or say `{ALLOWS_OVERLAP} = true` if that is what is studied")
                } else {
                    String::new()
                };
                found.push(diagnostic.help(format!("name a split that nothing learned from{or}")));
            }
            learned.push(if dataset { BTreeMap::new() } else { from });
        }
        found.into_iter().for_each(|diagnostic| self.report(diagnostic));
    }

    fn split_name(&self, program: &Program, (step, output): &Split) -> String {
        let step = &program.steps[*step];
        let first = self.catalog.kind(&step.kind).and_then(|kind| kind.outputs.first());
        if first.is_some_and(|first| first.name == *output) {
            step.name.clone()
        } else {
            format!("{}.{output}", step.name)
        }
    }

    /// Choices that look at data which the chosen is judged on, or which is called a test split.
    fn choices_on_test(&mut self, program: &Program, judged: &[BTreeSet<Split>]) {
        let reported = std::mem::take(&mut self.reported);
        let mut found = Vec::new();
        for step in program.steps.iter().filter(|step| step.choice.is_some()) {
            let Some(place) = self.choices.iter().find(|chosen| chosen.span == step.span) else { continue };
            let (span, by_span) = (place.span, place.by_span);
            let measuring = references(&step.params["by"]);
            let Some(choice) = &step.choice else { continue };
            let mut looked: BTreeSet<Split> = BTreeSet::new();
            for (by, _) in &measuring {
                let by = &program.steps[*by];
                let kind = self.catalog.kind(&by.kind);
                if kind.and_then(|kind| kind.metric(&choice.metric)).is_some_and(|metric| !metric.on_test) {
                    // A curve watched while training: on the data of the field that observes.
                    for value in observed(kind.map(|kind| kind.fields.as_slice()).unwrap_or_default(), by) {
                        self.splits(value, program, &mut looked);
                    }
                    continue;
                }
                looked.extend(judged[by.id].iter().cloned());
            }
            // Everything that rests on the choice, the choice itself among it.
            let mut rests: BTreeSet<usize> = BTreeSet::from([step.id]);
            for later in &program.steps {
                if later.inputs.iter().any(|input| rests.contains(input)) {
                    rests.insert(later.id);
                }
            }
            let on = |id: usize| -> BTreeSet<Split> {
                if id == step.id {
                    // The chosen one's own numbers.
                    return references(&step.params["of"]).iter().flat_map(|(of, _)| judged[*of].clone()).collect();
                }
                judged[id].clone()
            };
            let shown = reported.iter().find_map(|shown| {
                let id = shown.steps.iter().copied().find(|id| rests.contains(id))?;
                let split = on(id).into_iter().find(|split| looked.contains(split))?;
                shown.on_test.then_some((shown.span, split))
            });
            // Shown in no table and no claim, and yet measured to be looked at.
            let judging = program.steps.iter().filter(|later| rests.contains(&later.id) && later.choice.is_none());
            let measured = judging.filter_map(|later| {
                let split = judged[later.id].iter().find(|split| looked.contains(split))?.clone();
                let test = self.catalog.kind(&later.kind).and_then(|kind| kind.judged_on());
                let at = test.and_then(|test| later.field_spans.get(test)).copied().unwrap_or(later.span);
                Some((at, split))
            });
            let shown = shown.or_else(|| measured.into_iter().next());
            let test = looked.iter().find(|(_, output)| output == "test").cloned();
            let message = |name: &str| format!("a choice by test data: `{}` is measured on `{name}`", choice.by);
            let help = "choose by a split that nothing is judged on, such as the `holdout` of a `holdout` step";
            if let Some((at, split)) = shown {
                let name = self.split_name(program, &split);
                let warning = Diagnostic::warning("W0204", by_span, message(&name))
                    .label("looks at what the result is judged on")
                    .related(at, format!("judged on `{name}` here"))
                    .note("the best of several on the test data is better than it would be on other data");
                found.push(warning.help(help));
            } else if let Some(split) = test {
                let name = self.split_name(program, &split);
                let warning = Diagnostic::warning("W0204", by_span, message(&name))
                    .label("a test split")
                    .related(span, "chosen here");
                found.push(warning.help(help));
            }
        }
        found.into_iter().for_each(|diagnostic| self.report(diagnostic));
    }
}

/// The references in a value: step and output.
pub(super) fn references(value: &Json) -> Vec<(usize, String)> {
    fn walk(value: &Json, into: &mut Vec<(usize, String)>) {
        match value {
            Json::Object(map) => match map.get("$ref") {
                Some(reference) => {
                    let step = reference["step"].as_u64().unwrap_or_default() as usize;
                    into.push((step, reference["output"].as_str().unwrap_or_default().to_owned()));
                }
                None => map.values().for_each(|inner| walk(inner, into)),
            },
            Json::Array(items) => items.iter().for_each(|inner| walk(inner, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, &mut found);
    found
}

/// Whether there is something in a value that [`without_given`] leaves out.
fn holds_given(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.iter().any(|(name, inner)| is_given(name) || holds_given(inner)),
        Json::Array(items) => items.iter().any(holds_given),
        _ => false,
    }
}

fn is_given(name: &str) -> bool {
    matches!(name, "test" | "masks")
}

/// A value without what is given along with the test pictures, such as `test` of `regions = saliency { … }`: nothing is
/// learned from that.
fn without_given(value: &Json) -> Json {
    match value {
        Json::Object(map) => map
            .iter()
            .filter(|(name, _)| !is_given(name))
            .map(|(name, inner)| (name.clone(), without_given(inner)))
            .collect(),
        Json::Array(items) => items.iter().map(without_given).collect(),
        other => other.clone(),
    }
}

/// What stands in a field called `test` of the fields that observe.
fn observed<'a>(fields: &[crate::catalog::Field], step: &'a Step) -> Vec<&'a Json> {
    fn tests<'a>(value: &'a Json, into: &mut Vec<&'a Json>) {
        if let Json::Object(map) = value {
            for (name, inner) in map {
                if name == "test" { into.push(inner) } else { tests(inner, into) }
            }
        }
    }
    let mut found = Vec::new();
    for field in fields.iter().filter(|field| field.observes && !matches!(field.ty, Type::Bool)) {
        if let Some(value) = step.params.get(&field.name) {
            tests(value, &mut found);
        }
    }
    found
}
