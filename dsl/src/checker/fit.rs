//! A value against what a field wants.

use super::value::{Record, Value, ValueKind};
use super::{Checker, with_articles};
use crate::catalog::{Field, Type, Variant};
use crate::diagnostic::{Diagnostic, Related};
use crate::source::Span;
use crate::suggest::{did_you_mean, either, nearest, nearest_or_all};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// What fitting collects beside the JSON.
#[derive(Default)]
pub struct Fitted {
    /// Where each written field is, by dotted name.
    pub spans: BTreeMap<String, Span>,
    /// Members referred to.
    pub inputs: Vec<usize>,
}

/// What a type is called in messages.
pub fn wanted(ty: &Type) -> String {
    let between = |min: Option<String>, max: Option<String>| match (min, max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    };
    match ty {
        Type::Bool => "`true` or `false`".into(),
        Type::Int { min, max } => {
            format!("an integer{}", between(min.map(|m| m.to_string()), max.map(|m| m.to_string())))
        }
        Type::Float { min: Some(min), max: None, exclusive_min: true } => format!("a number above {min}"),
        Type::Float { min, max, .. } => {
            format!("a number{}", between(min.map(|m| m.to_string()), max.map(|m| m.to_string())))
        }
        Type::Text => "a text in quotes".into(),
        Type::Choice(words) => either(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_or_default(),
        Type::Path => "a path such as `@root/folder`".into(),
        Type::Duration => "a duration such as `90s`".into(),
        Type::Size => "a size such as `2GiB`".into(),
        Type::Range(_) => "a range such as `0.2..1.0`".into(),
        Type::List(inner) => format!("a list of {}", wanted(inner)),
        Type::Map(_) | Type::Record(_) => "a record `{ … }`".into(),
        Type::Tagged(variants) => {
            let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
            format!("{}, with `{{ … }}`", either(&names).unwrap_or_default())
        }
        Type::Input(kinds) => format!("a step that gives {}", with_articles(kinds)),
        Type::Optional(inner) => format!("{} or `none`", wanted(inner)),
        Type::Any => "a value".into(),
    }
}

/// Names that other programs give to fields.
const ALIASES: [(&str, &str); 6] = [
    ("learning_rate", "lr"),
    ("wd", "weight_decay"),
    ("batch_size", "batch"),
    ("batchsize", "batch"),
    ("num_epochs", "epochs"),
    ("n_epochs", "epochs"),
];

/// Where a field of this name is, if it is one further in, or has another name: in words for a help line.
fn within(name: &str, fields: &[Field]) -> Option<String> {
    let known = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, known)| known);
    if known != name && fields.iter().any(|field| field.name == known) {
        return Some(format!("it is called `{known}`"));
    }
    fields.iter().find_map(|field| {
        let ty = match &field.ty {
            Type::Optional(inner) => inner.as_ref(),
            ty => ty,
        };
        let has = |fields: &[Field]| fields.iter().any(|field| field.name == known);
        let outer = &field.name;
        match ty {
            Type::Tagged(variants) => {
                let tag = &variants.iter().find(|variant| has(&variant.fields))?.name;
                Some(format!("it is a field of `{outer}`: `{outer} = {tag} {{ {known} = … }}`"))
            }
            Type::Record(inner) if has(inner) => {
                Some(format!("it is a field of `{outer}`: `{outer} = {{ {known} = … }}`"))
            }
            _ => None,
        }
    })
}

/// Whether one stretch of text lies in another.
fn inside(outer: Span, inner: Span) -> bool {
    outer.source == inner.source && outer.start <= inner.start && inner.end <= outer.end
}

impl Checker<'_> {
    /// Fits a record's fields. `place` is the dotted name before them.
    #[allow(clippy::too_many_arguments, reason = "one call's context, not a thing of its own")]
    pub fn fit_fields(
        &mut self,
        record: &Record,
        fields: &[Field],
        what: &str,
        place: &str,
        at: Span,
        from: usize,
        out: &mut Fitted,
    ) -> Map<String, Json> {
        let mut map = Map::new();
        // Two misspellings of one field do not both stand for it.
        let mut suggested: Vec<&str> = Vec::new();
        for (name, value) in record {
            let Some(field) = fields.iter().find(|field| field.name == *name) else {
                let span = self.field_names.get(&(value.span, name.clone())).copied().unwrap_or(value.span);
                let diagnostic =
                    Diagnostic::error("E0104", span, format!("{what} has no field `{name}`")).label("unknown field");
                let set = |field: &&str| record.iter().any(|(written, _)| written == *field);
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                let free: Vec<&str> =
                    names.iter().filter(|field| !set(field) && !suggested.contains(field)).copied().collect();
                // A field that is set already is not meant a second time.
                let taken = nearest(name, names.iter().copied()).filter(|near| set(near));
                let help = match (taken, within(name, fields)) {
                    (Some(near), _) => Some(format!("`{near}` is set already: delete one of the two")),
                    (None, Some(place)) if nearest(name, free.iter().copied()).is_none() => Some(place),
                    _ => nearest_or_all(name, &free),
                };
                suggested.extend(nearest(name, free.iter().copied()));
                self.report(diagnostic.help_if(help));
                continue;
            };
            let top = place.is_empty();
            let place = if top { name.clone() } else { format!("{place}.{name}") };
            out.spans.insert(place.clone(), value.span);
            let before = self.diagnostics.len();
            if let Some(json) = self.fit(value, &field.ty, field.default.as_ref(), &place, from, out) {
                map.insert(name.clone(), json);
            }
            if top && self.diagnostics.len() > before {
                self.trace(before, value.span, from);
            }
        }
        if place.is_empty() && self.orphans.contains(&from) {
            return map;
        }
        let missing = |field: &&Field| {
            // What is there under a misspelt name is not missing.
            let there = record.iter().any(|(name, _)| *name == field.name) || suggested.contains(&field.name.as_str());
            field.required && !there
        };
        for field in fields.iter().filter(missing) {
            self.report(
                Diagnostic::error("E0105", at, format!("{what} needs the field `{}`", field.name))
                    .label(format!("`{}` is missing", field.name))
                    .help(format!("add `{} = …`, {}", field.name, wanted(&field.ty))),
            );
        }
        map
    }

    /// Adds to what is wrong with a field's value where it was written and where it is used, if these are two places:
    /// a name stands for it, or the field is inherited.
    fn trace(&mut self, first: usize, value: Span, member: usize) {
        let syntax = &self.families[self.members[member].family].syntax;
        let inherited = !inside(syntax.whole, value);
        let base = syntax.base.as_ref().map(|base| base.text.as_str()).unwrap_or_default();
        for diagnostic in &mut self.diagnostics[first..] {
            let at = diagnostic.span;
            // A name, and what it stands for, and what that stands for.
            let mut written = self.origins.get(&at);
            for _ in 0..2 {
                if let Some((origin, name)) = written {
                    diagnostic.related.push(Related {
                        span: *origin,
                        location: None,
                        label: format!("`{name}` is this"),
                    });
                    written = self.origins.get(origin).filter(|(next, _)| next != origin);
                }
            }
            if !inside(value, at) && !inside(syntax.whole, at) {
                diagnostic.related.push(Related { span: value, location: None, label: "used here".into() });
            }
            if inherited && !inside(syntax.whole, at) {
                let label = format!("`{}` has it from `{base}`", syntax.name.text);
                diagnostic.related.push(Related { span: syntax.name.span, location: None, label });
            }
        }
    }

    fn mismatch(&mut self, value: &Value, ty: &Type, place: &str) -> Option<Json> {
        if value.kind == ValueKind::Wrong {
            return None;
        }
        if let ValueKind::Word(word) = &value.kind {
            self.unknown_name(word, value.span);
            return None;
        }
        let written = self.written(value.span);
        let is_number = written.starts_with(|c: char| c.is_ascii_digit()) && value.number().is_some();
        let found = if is_number && matches!(value.kind, ValueKind::Float(_)) {
            format!("the number {written}")
        } else {
            value.found()
        };
        let mut diagnostic =
            Diagnostic::error("E0106", value.span, format!("`{place}` takes {}, found {found}", wanted(ty)))
                .label(format!("expected {}", wanted(ty)));
        match (ty, &value.kind) {
            // The same number, as it has to be written.
            (Type::Int { .. }, ValueKind::Float(number))
                if number.fract() == 0.0 && number.abs() < 9e15 && is_number && !written.ends_with('%') =>
            {
                diagnostic = diagnostic.help(format!("write `{number:.0}`")).edit(value.span, format!("{number:.0}"));
            }
            (Type::Tagged(variants), ValueKind::Text(text)) if variants.iter().any(|v| v.name == *text) => {
                diagnostic = diagnostic.help(format!("without quotes: `{text}`"));
                if written == format!("\"{text}\"") {
                    diagnostic = diagnostic.edit(value.span, text.clone());
                }
            }
            (Type::Input(_), ValueKind::Text(text))
                if self.names.contains_key(text.split(['.', '[', '@']).next().unwrap_or(text)) =>
            {
                diagnostic = diagnostic.help(format!("steps are named without quotes: `{text}`"));
            }
            (Type::Text, ValueKind::Int(_) | ValueKind::Float(_)) => {
                diagnostic = diagnostic.help(format!("in quotes: `\"{written}\"`, or joined to a text: `\"\" + n`"));
            }
            (Type::Duration, ValueKind::Int(_) | ValueKind::Float(_)) if is_number => {
                diagnostic = diagnostic.help(format!("say of what: `{written}s`, `{written}min` or `{written}h`"));
            }
            (Type::Size, ValueKind::Int(_) | ValueKind::Float(_)) if is_number => {
                diagnostic = diagnostic.help(format!("say of what: `{written}MB` or `{written}GiB`"));
            }
            _ => {}
        }
        self.report(diagnostic);
        None
    }

    fn fit(
        &mut self,
        value: &Value,
        ty: &Type,
        default: Option<&Json>,
        place: &str,
        from: usize,
        out: &mut Fitted,
    ) -> Option<Json> {
        // Tags have a name space of their own: where a tag is wanted, the name of a step is just a word.
        if let (ValueKind::Family(_), Some(word)) = (&value.kind, value.word())
            && matches!(ty, Type::Choice(_) | Type::Tagged(_))
        {
            let word = Value { kind: ValueKind::Word(word.to_owned()), span: value.span };
            return self.fit(&word, ty, default, place, from, out);
        }
        match (ty, &value.kind) {
            (_, ValueKind::Wrong) => None,
            (Type::Optional(_), ValueKind::None) => Some(Json::Null),
            (Type::Optional(inner), _) => self.fit(value, inner, default, place, from, out),
            (Type::Bool, ValueKind::Bool(flag)) => Some(json!(flag)),
            (Type::Int { min, max }, ValueKind::Int(number)) => {
                if min.is_some_and(|min| *number < min) || max.is_some_and(|max| *number > max) {
                    return self.out_of_range(value, ty, place);
                }
                Some(json!(number))
            }
            (Type::Float { min, max, exclusive_min }, ValueKind::Int(_) | ValueKind::Float(_)) => {
                let number = value.number()?;
                let low = min.is_some_and(|min| number < min || *exclusive_min && number == min);
                if low || max.is_some_and(|max| number > max) || !number.is_finite() {
                    return self.out_of_range(value, ty, place);
                }
                Some(json!(number))
            }
            (Type::Text, ValueKind::Text(text)) => {
                self.literally(text, value.span, false, from);
                Some(json!(text))
            }
            (Type::Choice(words), ValueKind::Word(word) | ValueKind::Text(word)) => {
                if words.contains(word) {
                    return Some(json!(word));
                }
                let known: Vec<&str> = words.iter().map(String::as_str).collect();
                self.report(
                    Diagnostic::error("E0108", value.span, format!("`{place}` cannot be `{word}`"))
                        .label(format!("expected {}", wanted(ty)))
                        .help_if(did_you_mean(word, known)),
                );
                None
            }
            // The word `none` has a meaning of its own, and is also one that a choice can have.
            (Type::Choice(words), ValueKind::None) if words.iter().any(|word| word == "none") => Some(json!("none")),
            (Type::Choice(words), ValueKind::Int(number)) if words.contains(&number.to_string()) => {
                Some(json!(number.to_string()))
            }
            (Type::Path, ValueKind::Path(root, path)) => Some(json!({ "root": root, "path": path })),
            (Type::Path, ValueKind::Text(path)) => {
                self.literally(path, value.span, true, from);
                Some(json!({ "root": null, "path": path }))
            }
            (Type::Duration, ValueKind::Duration(seconds)) => Some(json!(seconds)),
            (Type::Size, ValueKind::Size(bytes)) => Some(json!(bytes)),
            (Type::Range(inner), ValueKind::Range(low, high, whole)) => {
                let mut ends = Vec::new();
                for end in [*low, *high] {
                    let kind = if *whole { ValueKind::Int(end as i64) } else { ValueKind::Float(end) };
                    ends.push(self.fit(&Value { kind, span: value.span }, inner, None, place, from, out)?);
                }
                Some(Json::Array(ends))
            }
            (Type::List(inner), ValueKind::List(items)) => {
                let fitted: Vec<Option<Json>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.fit(item, inner, None, &format!("{place}[{index}]"), from, out))
                    .collect();
                fitted.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
            }
            (Type::Map(inner), ValueKind::Record(record)) => {
                let mut map = Map::new();
                for (name, item) in record {
                    let place = format!("{place}.{name}");
                    out.spans.insert(place.clone(), item.span);
                    if let Some(json) = self.fit(item, inner, None, &place, from, out) {
                        map.insert(name.clone(), json);
                    }
                }
                Some(Json::Object(map))
            }
            (Type::Record(fields), ValueKind::Record(record)) => {
                let what = format!("`{place}`");
                Some(Json::Object(self.fit_fields(record, fields, &what, place, value.span, from, out)))
            }
            (Type::Tagged(variants), ValueKind::Word(tag)) => {
                self.fit_tag(tag, &Vec::new(), variants, value, place, from, out)
            }
            (Type::Tagged(variants), ValueKind::Tagged(tag, record)) => {
                self.fit_tag(tag, record, variants, value, place, from, out)
            }
            // Fields reached into with `a.b = v` over a default: the default's tag is meant.
            (Type::Tagged(variants), ValueKind::Record(record)) => {
                let tag = default
                    .and_then(Json::as_object)
                    .and_then(|map| map.keys().next().cloned())
                    .or_else(|| (variants.len() == 1).then(|| variants[0].name.clone()));
                match tag {
                    Some(tag) => self.fit_tag(&tag, record, variants, value, place, from, out),
                    None => self.mismatch(value, ty, place),
                }
            }
            (Type::Input(accepted), ValueKind::Family(reference)) => {
                let (member, output) = self.input(reference, accepted, value.span, place, from)?;
                out.inputs.push(member);
                Some(json!({ "$ref": { "step": member, "output": output } }))
            }
            (Type::Any, _) => self.fit_any(value, place, from, out),
            _ => self.mismatch(value, ty, place),
        }
    }

    /// A value of a field that takes anything: as it is, references resolved.
    fn fit_any(&mut self, value: &Value, place: &str, from: usize, out: &mut Fitted) -> Option<Json> {
        let record = |checker: &mut Self, record: &Record, out: &mut Fitted| {
            let fitted = record.iter().map(|(name, item)| {
                let place = format!("{place}.{name}");
                out.spans.insert(place.clone(), item.span);
                checker.fit_any(item, &place, from, out).map(|json| (name.clone(), json))
            });
            let fitted: Vec<Option<(String, Json)>> = fitted.collect();
            fitted.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
        };
        match &value.kind {
            ValueKind::Wrong => None,
            ValueKind::Word(word) => {
                self.unknown_name(word, value.span);
                None
            }
            ValueKind::Family(_) => self.fit(value, &Type::Input(vec!["any".into()]), None, place, from, out),
            ValueKind::List(items) => {
                let fitted: Vec<Option<Json>> = items.iter().map(|item| self.fit_any(item, place, from, out)).collect();
                fitted.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
            }
            ValueKind::Record(fields) => record(self, fields, out),
            ValueKind::Tagged(tag, fields) => record(self, fields, out).map(|body| json!({ tag.as_str(): body })),
            ValueKind::Path(root, path) => Some(json!({ "root": root, "path": path })),
            _ => Some(self.json(value)),
        }
    }

    /// Notes what looks in a text as if it were replaced, and is not: names in braces, and in paths what a shell replaces.
    fn literally(&mut self, text: &str, span: Span, path: bool, from: usize) {
        if !text.contains(['{', '$', '~']) || self.literal.iter().any(|(_, known)| inside(span, known.span)) {
            return;
        }
        // Of a part of the text, if it stands there as it is.
        let part = |checker: &Self, part: &str| match checker.sources.slice(span).find(part) {
            Some(at) => Span { start: span.start + at, end: span.start + at + part.len(), ..span },
            None => span,
        };
        if path && (text.starts_with("~/") || text.starts_with('$')) {
            let sign = text.split('/').next().unwrap_or(text).to_owned();
            let rest = text[sign.len()..].trim_start_matches('/');
            let diagnostic =
                Diagnostic::warning("W0208", part(self, &sign), format!("`{sign}` in a path is not replaced"))
                    .label("a folder of this very name")
                    .help(format!("name the folder in harness.toml, under `[roots]`, and write `@name/{rest}`"));
            self.literal.push((String::new(), diagnostic));
            return;
        }
        let member = &self.members[from];
        let family = &self.families[member.family];
        // A program of one's own has placeholders, replaced when it starts.
        let command = self.catalog.kind(&family.syntax.kind.text).is_some_and(|kind| kind.dynamic_outputs);
        let mut lets = Vec::new();
        let mut at = Some(family.scope);
        while let Some(scope) = at {
            lets.extend(self.scopes[scope].lets.keys().map(String::as_str));
            at = self.scopes[scope].parent;
        }
        let along = member.bindings.iter().flat_map(|b| b.along.iter().map(|(name, _)| name.as_str()));
        let known = member.bindings.iter().map(|b| b.axis.as_str()).chain(along);
        let params = &self.params;
        let names = |name: &str| {
            known.clone().any(|axis| axis == name)
                || lets.contains(&name)
                || params.iter().any(|(param, ..)| param == name)
        };
        let mut rest = text;
        let mut found = None;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, _)) = after.split_once('}') else { break };
            // A shell's own, or a placeholder.
            let others = before.ends_with('$') || command && name == "seed";
            if !others && names(name) {
                found = Some(name.to_owned());
                break;
            }
            rest = after;
        }
        let Some(name) = found else { return };
        let sign = format!("{{{name}}}");
        // The text taken apart: what stands around the name, joined to it.
        let parts: Vec<String> =
            text.split(&sign).map(|part| if part.is_empty() { String::new() } else { format!("{part:?}") }).collect();
        let mut joined = String::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                joined += if joined.is_empty() { "" } else { " + " };
                joined += &name;
            }
            if !part.is_empty() {
                joined += if joined.is_empty() { "" } else { " + " };
                joined += part;
            }
        }
        let mut diagnostic =
            Diagnostic::warning("W0208", part(self, &sign), format!("`{sign}` in a text is not replaced"))
                .label("stays as it is")
                .help(format!("join texts and numbers with `+`: `{joined}`"));
        if command {
            diagnostic =
                diagnostic.note("replaced when a command starts are `{inputs.NAME}`, `{outputs.NAME}` and `{seed}`");
        }
        self.literal.push((name, diagnostic));
    }

    fn out_of_range(&mut self, value: &Value, ty: &Type, place: &str) -> Option<Json> {
        let number = value.number().unwrap_or_default();
        let mut diagnostic = Diagnostic::error("E0107", value.span, format!("`{place}` is out of range: {number}"))
            .label(format!("expected {}", wanted(ty)));
        if let Type::Float { max: Some(max), .. } = ty
            && *max <= 1.0
            && matches!(value.kind, ValueKind::Int(2..))
            && number / 100.0 <= *max
        {
            diagnostic = diagnostic.help(format!("a share of {number} in a hundred is `{number}%`"));
        }
        self.report(diagnostic);
        None
    }

    #[allow(clippy::too_many_arguments, reason = "one call's context, not a thing of its own")]
    fn fit_tag(
        &mut self,
        tag: &str,
        record: &Record,
        variants: &[Variant],
        value: &Value,
        place: &str,
        from: usize,
        out: &mut Fitted,
    ) -> Option<Json> {
        let Some(variant) = variants.iter().find(|variant| variant.name == tag) else {
            let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
            // The tag alone, unless a name stands for the whole.
            let mut span = value.span;
            if self.sources.slice(span).starts_with(tag) {
                span.end = span.start + tag.len();
            }
            self.report(
                Diagnostic::error("E0108", span, format!("`{place}` cannot be `{tag}`"))
                    .label("unknown here")
                    .help_if(nearest_or_all(tag, &names)),
            );
            return None;
        };
        let place = format!("{place}.{tag}");
        let body = self.fit_fields(record, &variant.fields, &format!("`{tag}`"), &place, value.span, from, out);
        Some(json!({ tag: body }))
    }
}
