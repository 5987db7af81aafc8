//! `best(family, by = metric)`: which members it chooses from, and by which numbers. Which of them it is, is known once
//! there are results; until then a step of its own stands for it.

use super::measure::Measured;
use super::value::{ChoiceRef, FamilyRef, Value, ValueKind};
use super::{Binding, Checker};
use crate::diagnostic::Diagnostic;
use crate::program::{Axis, Choice, Step};
use crate::source::Span;
use crate::suggest::nearest_or_all;
use crate::syntax::{BestSyntax, Expr, ExprKind, Name, Postfix};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// A choice that a step or a statement needs.
pub(super) struct Chosen {
    /// The members to choose from.
    pub(super) of: Vec<usize>,
    /// For each of them the members that measure.
    pub(super) by: Vec<Vec<usize>>,
    pub(super) choice: Choice,
    /// Where `best(…)` is first.
    pub(super) span: Span,
    /// Where the number is.
    pub(super) by_span: Span,
    label: String,
}

/// The choice for one replicate of a statement, or for one step.
pub(super) struct Pick {
    /// The number of the step that stands for it, behind those of the members.
    pub(super) step: usize,
    /// A member that may be chosen: all are of one kind.
    pub(super) example: usize,
    /// The place on the replicate axes.
    pub(super) replicate: Option<String>,
}

impl Checker<'_> {
    /// `best(family, by = metric)` as a reference.
    pub(super) fn best(&mut self, best: &BestSyntax, span: Span, scope: usize, bindings: &[Binding]) -> ValueKind {
        let value = self.evaluate(&best.family, scope, bindings);
        let reference = match value.kind {
            ValueKind::Wrong => return ValueKind::Wrong,
            ValueKind::Family(reference) if reference.output.is_none() && reference.best.is_none() => reference,
            ValueKind::Word(word) => {
                self.unknown_name(&word, value.span);
                return ValueKind::Wrong;
            }
            ValueKind::Family(reference) => {
                let name = &reference.name;
                let diagnostic = Diagnostic::error("E0125", value.span, "`best` chooses among the members of a family")
                    .label("a part of a step")
                    .help(format!("choose the step and take its part: `best({name}, by = …).part`"));
                self.report(diagnostic);
                return ValueKind::Wrong;
            }
            kind => {
                let found = Value { kind, span }.found();
                let message = format!("`best` chooses among the members of a family, found {found}");
                self.report(Diagnostic::error("E0125", value.span, message).label("no family of steps"));
                return ValueKind::Wrong;
            }
        };
        let Some(measured) = self.chosen_by(&reference, &best.by, scope, bindings) else { return ValueKind::Wrong };
        let Measured { reference: by, metric, pick, .. } = measured;
        let choice = ChoiceRef { by, metric, pick, span, by_span: best.by.span };
        ValueKind::Family(FamilyRef { best: Some(Box::new(choice)), ..reference })
    }

    /// The number behind `by`: of the family itself (`top1`), or of one that lies along the same axes (`val.top1`).
    fn chosen_by(&mut self, family: &FamilyRef, expr: &Expr, scope: usize, bindings: &[Binding]) -> Option<Measured> {
        let (inner, negated) = match &expr.kind {
            ExprKind::Negate(inner) => (inner.as_ref(), true),
            _ => (expr, false),
        };
        let (base, parts): (&Expr, &[Postfix]) = match &inner.kind {
            ExprKind::Postfix(base, parts) => (base, parts),
            _ => (inner, &[]),
        };
        let own = match &base.kind {
            ExprKind::Name(name) => (matches!(self.look_up(name, base.span, scope, bindings), ValueKind::Word(_))
                || parts.is_empty() && self.measures(family.family, name))
            .then(|| Name { text: name.clone(), span: base.span }),
            _ => None,
        };
        let mut measured = match own {
            Some(name) => {
                if !self.measures(family.family, &name.text) {
                    let known = self.metric_names(family.family);
                    let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
                    let steps: Vec<String> = self.names.keys().cloned().collect();
                    known.extend(steps.iter().map(String::as_str));
                    let owner = &family.name;
                    let diagnostic = Diagnostic::error(
                        "E0111",
                        name.span,
                        format!("`{}` is neither a number that `{owner}` measures nor a step", name.text),
                    )
                    .label("unknown number")
                    .help_if(nearest_or_all(&name.text, &known));
                    self.report(diagnostic);
                    return None;
                }
                let reference = FamilyRef { output: None, best: None, ..family.clone() };
                let parts: Vec<Postfix> = std::iter::once(Postfix::Member(name)).chain(parts.iter().cloned()).collect();
                self.metric_of(reference, &parts, inner.span, scope, bindings, true)?
            }
            None => self.measured(inner, scope, bindings, true)?,
        };
        if measured.reference.best.is_some() {
            let diagnostic = Diagnostic::error("E0125", expr.span, "a choice is made by what the members measure")
                .label("a choice itself")
                .help("name the family: `by = val.top1`");
            self.report(diagnostic);
            return None;
        }
        if negated {
            let kind = self.kind_of(measured.reference.family)?;
            if kind.metric(&measured.metric.name).is_some() {
                let metric = &measured.metric.name;
                let better = if measured.metric.higher_is_better { "more" } else { "less" };
                let diagnostic =
                    Diagnostic::error("E0125", expr.span, format!("of `{metric}`, {better} is better: that is known"))
                        .label("no sign needed")
                        .help(format!("write `{}`", self.written(inner.span)));
                self.report(diagnostic);
                return None;
            }
            measured.metric.higher_is_better = false;
        }
        Some(measured)
    }

    /// Whether a family measures a number of this name.
    fn measures(&mut self, family: usize, name: &str) -> bool {
        self.kind_of(family).is_some_and(|kind| kind.metric(name).is_some())
            || self.declared_metrics(family).iter().any(|declared| declared == name)
    }

    /// The choices that a reference stands for at a place: one for each replicate that the place leaves open, if it may
    /// leave any open (`statement`). Within one replicate the replicate's own numbers choose; where all replicates are
    /// asked for, their mean chooses one member for all of them.
    pub(super) fn choose(
        &mut self,
        reference: &FamilyRef,
        bindings: &[Binding],
        row: Option<(&str, &str)>,
        span: Span,
        statement: bool,
    ) -> Option<Vec<Pick>> {
        let best = reference.best.as_deref()?.clone();
        let name = self.family_name(reference.family);
        let mut found = self.select(reference, bindings, span)?;
        if let Some((axis, label)) = row {
            found.retain(|m| self.members[*m].bindings.iter().all(|b| b.axis != axis || b.label == label));
        }
        if found.is_empty() {
            // A row that the family has no member in.
            return if statement { Some(Vec::new()) } else { self.one(reference, bindings, span).map(|_| Vec::new()) };
        }
        if !self.spend(found.len(), span) {
            return None;
        }
        let mut labels: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
        for b in found.iter().flat_map(|m| self.members[*m].bindings.iter()) {
            labels.entry(&b.axis).or_default().insert(&b.label);
        }
        let varies = |axis: &str| labels.get(axis).is_some_and(|labels| labels.len() > 1);
        let first = &self.members[found[0]].bindings;
        let open: Vec<String> =
            first.iter().filter(|b| !b.replicate && varies(&b.axis)).map(|b| b.axis.clone()).collect();
        let repeated: Vec<String> =
            first.iter().filter(|b| b.replicate && varies(&b.axis)).map(|b| b.axis.clone()).collect();
        if let (false, Some(axis)) = (statement, repeated.first()) {
            let diagnostic = Diagnostic::error(
                "E0125",
                span,
                format!("`{name}` is replicated along `{axis}`, and a replicate is not chosen"),
            )
            .label("one choice for several replicates")
            .help(format!("put this inside `replicate {axis} in …`, so that each replicate chooses for itself"))
            .note("the best of several seeds says how lucky the luckiest was");
            self.report(diagnostic);
            return None;
        }
        if open.is_empty() {
            let mut diagnostic =
                Diagnostic::error("E0125", span, format!("there is one `{name}` here: nothing to choose"))
                    .label("needs a `for` axis to choose along")
                    .related(self.declared(reference.family), format!("`{name}` defined here"));
            if let Some(axis) = repeated.first() {
                diagnostic = diagnostic.note(format!("`{axis}` is an axis to average over, not to choose along"));
            }
            self.report(diagnostic);
            return None;
        }
        let by_name = self.family_name(best.by.family);
        let by_axes: Vec<String> = match self.families[best.by.family].members.first() {
            Some(&member) => self.members[member].bindings.iter().map(|b| b.axis.clone()).collect(),
            None => return None,
        };
        if let Some(axis) = open.iter().find(|axis| !by_axes.contains(axis)) {
            let diagnostic = Diagnostic::error(
                "E0125",
                best.by_span,
                format!("`{by_name}` is the same for every `{name}`: it does not lie along `{axis}`"),
            )
            .label("cannot tell the members apart")
            .related(self.declared(best.by.family), format!("`{by_name}` defined here"))
            .help(format!("measure each of them: put `{by_name}` inside `for {axis} in …`"));
            self.report(diagnostic);
            return None;
        }
        // Groups by replicate, each with the members by place, in order.
        let mut groups: Vec<(String, Vec<(String, usize)>)> = Vec::new();
        for member in found {
            let bindings = &self.members[member].bindings;
            let words = |keep: &dyn Fn(&Binding) -> bool, equals: &str| {
                let words: Vec<String> =
                    bindings.iter().filter(|b| keep(b)).map(|b| format!("{}{equals}{}", b.axis, b.label)).collect();
                words.join(", ")
            };
            let replicate = words(&|b| b.replicate, "=");
            let place = words(&|b| open.contains(&b.axis), "=");
            match groups.iter_mut().find(|(known, _)| *known == replicate) {
                Some((_, members)) => members.push((place, member)),
                None => groups.push((replicate, vec![(place, member)])),
            }
        }
        let places = |members: &[(String, usize)]| members.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>();
        let all = places(&groups[0].1);
        if let Some((replicate, _)) = groups.iter().find(|(_, members)| places(members) != all) {
            let diagnostic =
                Diagnostic::error("E0125", span, format!("not every `{name}` is there in every replicate"))
                    .label("cannot choose one for all")
                    .note(format!("other ones for {replicate} than for {}", groups[0].0));
            self.report(diagnostic);
            return None;
        }
        let mut by = Vec::new();
        for (_, member) in &groups[0].1 {
            let several = groups.len() > 1;
            let own = self.members[*member].bindings.iter().filter(|b| !(b.replicate && several));
            let mut around: Vec<Binding> = own.cloned().collect();
            around.extend(
                bindings.iter().filter(|b| !around.iter().any(|own| own.axis == b.axis)).cloned().collect::<Vec<_>>(),
            );
            let measured =
                Measured { reference: best.by.clone(), metric: best.metric.clone(), pick: best.pick, whole: false };
            let cells = self.cells(&measured, &around, &[], best.by_span, None)?;
            if cells.is_empty() {
                let diagnostic = Diagnostic::error("E0113", best.by_span, format!("`{by_name}` has no member here"))
                    .label("nothing to choose by");
                self.report(diagnostic);
                return None;
            }
            by.push(cells.into_iter().map(|cell| cell.step).collect::<Vec<_>>());
        }
        let mean = by.iter().any(|members| members.len() > 1);
        let written = self.written(best.by_span);
        let choice = Choice {
            places: all,
            metric: best.metric.name.clone(),
            pick: best.pick,
            higher_is_better: best.metric.higher_is_better,
            by: if mean { format!("mean of {written}") } else { written },
        };
        let mut picks = Vec::new();
        for (replicate, members) in groups {
            let of: Vec<usize> = members.into_iter().map(|(_, member)| member).collect();
            let example = of[0];
            let step = self.chosen(of, by.clone(), choice.clone(), &best, &name);
            picks.push(Pick { step, example, replicate: (!replicate.is_empty()).then_some(replicate) });
        }
        Some(picks)
    }

    /// The number of the step that stands for a choice: the same choice is made once.
    fn chosen(&mut self, of: Vec<usize>, by: Vec<Vec<usize>>, choice: Choice, best: &ChoiceRef, name: &str) -> usize {
        let same = |known: &Chosen| known.of == of && known.by == by && known.choice == choice;
        if let Some(at) = self.choices.iter().position(same) {
            return self.members.len() + at;
        }
        let mut label = format!("best({name}, by = {})", choice.by);
        let places: Vec<String> = self.fixed(&of).iter().map(|b| format!("{}={}", b.axis, b.label)).collect();
        if !places.is_empty() {
            label = format!("{label}[{}]", places.join(", "));
        }
        // The same words may choose among other members, or by other ones.
        let others = self.choices.iter().filter(|known| known.label == label).count();
        if others > 0 {
            label = format!("{label} ({})", others + 1);
        }
        let (span, by_span) = (best.span, best.by_span);
        self.choices.push(Chosen { of, by, choice, span, by_span, label });
        self.members.len() + self.choices.len() - 1
    }

    /// The places that all of these members have in common.
    fn fixed(&self, of: &[usize]) -> Vec<Binding> {
        let first = &self.members[of[0]].bindings;
        let common = |b: &&Binding| {
            of.iter().all(|m| self.members[*m].bindings.iter().any(|o| o.axis == b.axis && o.label == b.label))
        };
        first.iter().filter(common).cloned().collect()
    }

    /// The step that stands for a choice. `order` gives the new numbers of steps, if they have new ones.
    pub(super) fn choice_step(&self, at: usize, order: &[usize]) -> Step {
        let chosen = &self.choices[at];
        let new = |member: usize| order.get(member).copied().unwrap_or(member);
        let refer = |member: &usize| json!({ "$ref": { "step": new(*member), "output": "" } });
        let family = self.members[chosen.of[0]].family;
        let mut inputs: Vec<usize> = chosen.of.iter().chain(chosen.by.iter().flatten()).map(|m| new(*m)).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let of: Vec<Json> = chosen.of.iter().map(refer).collect();
        let by: Vec<Vec<Json>> = chosen.by.iter().map(|members| members.iter().map(refer).collect()).collect();
        let axes = self.fixed(&chosen.of).into_iter();
        Step {
            id: new(self.members.len() + at),
            name: format!("best({}, by = {})", self.family_name(family), chosen.choice.by),
            label: chosen.label.clone(),
            kind: self.families[family].syntax.kind.text.clone(),
            axes: axes.map(|b| Axis { name: b.axis, value: b.label, replicate: b.replicate }).collect(),
            params: serde_json::Map::from_iter([("of".into(), json!(of)), ("by".into(), json!(by))]),
            inputs,
            span: chosen.span,
            field_spans: BTreeMap::new(),
            implied: true,
            choice: Some(chosen.choice.clone()),
        }
    }
}
