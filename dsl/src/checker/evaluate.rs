//! Expressions to values.

use super::value::{FamilyRef, Place, Record, Value, ValueKind};
use super::{Binding, Checker, DEEPEST, DEEPEST_VALUE};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::suggest::nearest_or_all;
use crate::syntax::{Expr, ExprKind, IndexSyntax, Operator, Postfix};

/// Functions of values, and `best`, which is read apart from them.
pub const FUNCTIONS: [&str; 9] = ["mean", "max", "min", "sum", "len", "range", "zip", "round", "best"];
/// Items of a list that a function makes.
const LONGEST: i64 = 100_000;

impl Checker<'_> {
    /// What an expression is worth in a scope at a place on the axes around it.
    pub(super) fn evaluate(&mut self, expr: &Expr, scope: usize, bindings: &[Binding]) -> Value {
        let span = expr.span;
        if !self.tick(span) {
            return wrong(span);
        }
        if self.nesting >= DEEPEST_VALUE {
            self.report(
                Diagnostic::error("E0012", span, format!("values are nested deeper than {DEEPEST_VALUE} levels"))
                    .label("too deep"),
            );
            return wrong(span);
        }
        self.nesting += 1;
        let value = self.evaluate_nested(expr, scope, bindings);
        self.nesting -= 1;
        value
    }

    fn evaluate_nested(&mut self, expr: &Expr, scope: usize, bindings: &[Binding]) -> Value {
        let span = expr.span;
        let kind = match &expr.kind {
            ExprKind::Int(value) => ValueKind::Int(*value),
            ExprKind::Float(value) => ValueKind::Float(*value),
            ExprKind::Bool(value) => ValueKind::Bool(*value),
            ExprKind::None => ValueKind::None,
            ExprKind::Text(text) => ValueKind::Text(text.clone()),
            ExprKind::Duration(seconds) => ValueKind::Duration(*seconds),
            ExprKind::Size(bytes) => ValueKind::Size(*bytes),
            ExprKind::Path { root, path } => ValueKind::Path(root.clone(), path.clone()),
            ExprKind::Wrong => ValueKind::Wrong,
            ExprKind::Name(name) => self.look_up(name, span, scope, bindings),
            ExprKind::List(items) => {
                ValueKind::List(items.iter().map(|item| self.evaluate(item, scope, bindings)).collect())
            }
            ExprKind::Record(fields) => ValueKind::Record(self.record_value(fields, scope, bindings)),
            ExprKind::Tagged { tag, fields } => {
                ValueKind::Tagged(tag.text.clone(), self.record_value(fields, scope, bindings))
            }
            ExprKind::Range(low, high) => {
                let (low, high) = (self.evaluate(low, scope, bindings), self.evaluate(high, scope, bindings));
                match (low.number(), high.number()) {
                    (Some(a), Some(b)) if a <= b => {
                        let whole = matches!((&low.kind, &high.kind), (ValueKind::Int(_), ValueKind::Int(_)));
                        ValueKind::Range(a, b, whole)
                    }
                    (Some(a), Some(b)) => {
                        self.wrong(span, format!("the range {a}..{b} runs backwards"), "low end first")
                    }
                    _ => self.not_numbers(&[&low, &high], "a range", span),
                }
            }
            ExprKind::Negate(inner) => match self.evaluate(inner, scope, bindings).kind {
                ValueKind::Int(value) => match value.checked_neg() {
                    Some(value) => ValueKind::Int(value),
                    None => self.wrong(span, "the result is too large for an integer".into(), "overflows"),
                },
                ValueKind::Word(word) => {
                    self.unknown_name(&word, inner.span);
                    ValueKind::Wrong
                }
                ValueKind::Float(value) => ValueKind::Float(-value),
                ValueKind::Wrong => ValueKind::Wrong,
                other => {
                    let found = Value { kind: other, span }.found();
                    self.wrong(span, format!("`-` takes a number, found {found}"), "not a number")
                }
            },
            ExprKind::Not(inner) => match self.evaluate(inner, scope, bindings) {
                Value { kind: ValueKind::Bool(flag), .. } => ValueKind::Bool(!flag),
                Value { kind: ValueKind::Wrong, .. } => ValueKind::Wrong,
                other => {
                    self.wrong(span, format!("`not` takes true or false, found {}", other.found()), "not a condition")
                }
            },
            ExprKind::If(parts) => {
                let (condition, yes, no) = parts.as_ref();
                match self.evaluate(condition, scope, bindings) {
                    Value { kind: ValueKind::Bool(true), .. } => return self.evaluate(yes, scope, bindings),
                    Value { kind: ValueKind::Bool(false), .. } => return self.evaluate(no, scope, bindings),
                    Value { kind: ValueKind::Wrong, .. } => ValueKind::Wrong,
                    other => self.wrong(
                        condition.span,
                        format!("`if` takes true or false, found {}", other.found()),
                        "not a condition",
                    ),
                }
            }
            ExprKind::Chain(first, rest) => {
                let mut value = self.evaluate(first, scope, bindings);
                for (operator, written) in rest {
                    let right = self.evaluate(written, scope, bindings);
                    let kind = match operator {
                        Operator::Equal | Operator::NotEqual => {
                            let equal = self.equal((first, &value), (written, &right), span);
                            equal.map_or(ValueKind::Wrong, |equal| {
                                ValueKind::Bool(equal == (*operator == Operator::Equal))
                            })
                        }
                        _ => self.operate(&value, *operator, &right, span),
                    };
                    value = Value { kind, span };
                }
                value.kind
            }
            ExprKind::Call { function, arguments } => {
                let arguments: Vec<Value> =
                    arguments.iter().map(|argument| self.evaluate(argument, scope, bindings)).collect();
                if !FUNCTIONS.contains(&function.text.as_str()) {
                    let help = nearest_or_all(&function.text, &FUNCTIONS);
                    self.report(
                        Diagnostic::error("E0118", function.span, format!("there is no function `{}`", function.text))
                            .label("unknown function")
                            .help_if(help),
                    );
                    ValueKind::Wrong
                } else {
                    self.call(&function.text, &arguments, span)
                }
            }
            ExprKind::Best(best) => self.best(best, span, scope, bindings),
            ExprKind::Postfix(base, parts) => self.postfix(base, parts, scope, bindings),
        };
        Value { kind, span }
    }

    fn wrong(&mut self, span: Span, message: String, label: &str) -> ValueKind {
        self.report(Diagnostic::error("E0118", span, message).label(label));
        ValueKind::Wrong
    }

    fn not_numbers(&mut self, values: &[&Value], what: &str, span: Span) -> ValueKind {
        for value in values {
            if value.kind == ValueKind::Wrong {
                return ValueKind::Wrong;
            }
            if let ValueKind::Word(word) = &value.kind {
                self.unknown_name(word, value.span);
                return ValueKind::Wrong;
            }
        }
        match values.iter().find(|value| value.number().is_none()) {
            Some(value) => {
                self.wrong(value.span, format!("{what} takes numbers, found {}", value.found()), "not a number")
            }
            None => self.wrong(span, format!("{what} takes numbers"), "not numbers"),
        }
    }

    /// A name: an axis or a `let` of the scopes around, a param, a family; else a word that a field may know.
    pub(super) fn look_up(&mut self, name: &str, span: Span, scope: usize, bindings: &[Binding]) -> ValueKind {
        let mut at = Some(scope);
        while let Some(index) = at {
            if self.scopes[index].axis.as_deref() == Some(name)
                && let Some(binding) = bindings.iter().find(|b| b.axis == name)
            {
                self.origins.insert(span, (binding.value.span, name.to_owned()));
                return binding.value.kind.clone();
            }
            if self.scopes[index].along.iter().any(|along| along == name) {
                let axis = self.scopes[index].axis.as_ref();
                let binding = bindings.iter().find(|b| Some(&b.axis) == axis);
                if let Some((_, value)) = binding.and_then(|b| b.along.iter().find(|(along, _)| along == name)) {
                    self.origins.insert(span, (value.span, name.to_owned()));
                    return value.kind.clone();
                }
            }
            if let Some((expr, declared)) = self.scopes[index].lets.get(name).cloned() {
                if self.circular.contains(&declared) {
                    return ValueKind::Wrong;
                }
                if let Some(place) = self.open_lets.iter().position(|(open, _)| *open == declared) {
                    let circle: Vec<String> =
                        self.open_lets[place..].iter().map(|(_, name)| format!("`{name}`")).collect();
                    self.circular.extend(self.open_lets[place..].iter().map(|(open, _)| *open));
                    self.report(
                        Diagnostic::error("E0115", declared, format!("`{name}` is defined by itself"))
                            .label("leads back here")
                            .note(format!("the circle: {}", circle.join(", "))),
                    );
                    return ValueKind::Wrong;
                }
                if self.open_lets.len() >= DEEPEST {
                    self.report(
                        Diagnostic::error("E0115", span, format!("`{name}` is defined by too many names in a row"))
                            .label("too many"),
                    );
                    return ValueKind::Wrong;
                }
                self.origins.insert(span, (expr.span, name.to_owned()));
                self.open_lets.push((declared, name.to_owned()));
                let value = self.evaluate(&expr, index, bindings);
                self.open_lets.pop();
                return value.kind;
            }
            at = self.scopes[index].parent;
        }
        if self.open_params.iter().any(|open| open == name) {
            self.report(
                Diagnostic::error("E0115", span, format!("the param `{name}` is defined by itself"))
                    .label("leads back to itself"),
            );
            return ValueKind::Wrong;
        }
        if self.pending.contains_key(name) {
            if self.open_params.len() >= DEEPEST {
                self.report(
                    Diagnostic::error("E0115", span, format!("`{name}` is defined by too many params in a row"))
                        .label("too many"),
                );
                return ValueKind::Wrong;
            }
            self.param(name);
        }
        if let Some((_, value, at)) = self.params.iter().find(|(known, ..)| known == name) {
            self.used.insert(*at);
            self.origins.insert(span, (value.span, name.to_owned()));
            let kind = value.kind.clone();
            let weight = value.weight();
            return if self.spend(weight, span) { kind } else { ValueKind::Wrong };
        }
        match self.names.get(name) {
            Some(&family) => ValueKind::Family(FamilyRef::whole(family, name)),
            None if super::borrowed(name).is_some() => {
                self.unknown_name(name, span);
                ValueKind::Wrong
            }
            None => ValueKind::Word(name.into()),
        }
    }

    /// Places on axes as written in an index.
    pub(super) fn index(&mut self, items: &[IndexSyntax], scope: usize, bindings: &[Binding]) -> Option<Vec<Place>> {
        let mut places = Vec::new();
        for item in items {
            let value = self.evaluate(&item.value, scope, bindings);
            if value.kind == ValueKind::Wrong {
                return None;
            }
            match value.label(|family| self.family_name(family)) {
                Some(label) => {
                    let axis = item.axis.as_ref().map(|axis| (axis.text.clone(), axis.span));
                    places.push(Place { axis, label, span: value.span });
                }
                None => {
                    self.wrong(
                        value.span,
                        format!("a place on an axis is a number, a text or a step, found {}", value.found()),
                        "no place on an axis",
                    );
                    return None;
                }
            }
        }
        Some(places)
    }

    fn postfix(&mut self, base: &Expr, parts: &[Postfix], scope: usize, bindings: &[Binding]) -> ValueKind {
        let mut value = self.evaluate(base, scope, bindings);
        if let ValueKind::Word(word) = &value.kind {
            let word = word.clone();
            self.unknown_name(&word, value.span);
            return ValueKind::Wrong;
        }
        for part in parts {
            value.kind = match (value.kind, part) {
                (ValueKind::Wrong, _) => return ValueKind::Wrong,
                (ValueKind::Family(mut reference), Postfix::Index(items, _)) => {
                    let Some(places) = self.index(items, scope, bindings) else { return ValueKind::Wrong };
                    reference.index.extend(places);
                    ValueKind::Family(reference)
                }
                (ValueKind::Family(mut reference), Postfix::Member(name)) if reference.output.is_none() => {
                    reference.output = Some((name.text.clone(), name.span));
                    ValueKind::Family(reference)
                }
                (ValueKind::Record(record) | ValueKind::Tagged(_, record), Postfix::Member(name)) => {
                    match record.iter().find(|(known, _)| *known == name.text) {
                        Some((_, inner)) => inner.kind.clone(),
                        None => {
                            let known: Vec<&str> = record.iter().map(|(known, _)| known.as_str()).collect();
                            let help = nearest_or_all(&name.text, &known);
                            self.report(
                                Diagnostic::error(
                                    "E0104",
                                    name.span,
                                    format!("the record has no field `{}`", name.text),
                                )
                                .label("unknown field")
                                .help_if(help),
                            );
                            return ValueKind::Wrong;
                        }
                    }
                }
                (ValueKind::List(items), Postfix::Index(index, span)) => {
                    let place = match index.as_slice() {
                        [only] if only.axis.is_none() => self.evaluate(&only.value, scope, bindings).kind,
                        _ => ValueKind::Wrong,
                    };
                    match place {
                        ValueKind::Int(at) if at >= 0 && (at as usize) < items.len() => items[at as usize].kind.clone(),
                        _ => {
                            return self.wrong(
                                *span,
                                format!("a list of {} is indexed by an integer from 0", items.len()),
                                "not a place in it",
                            );
                        }
                    }
                }
                (kind, part) => {
                    let span = match part {
                        Postfix::Member(name) => name.span,
                        Postfix::Index(_, span) | Postfix::Call(_, span) => *span,
                    };
                    let found = Value { kind, span }.found();
                    return self.wrong(span, format!("{found} has no parts like this"), "cannot follow here");
                }
            };
        }
        value.kind
    }

    /// Whether two values are equal; none where they never can be, which is said.
    fn equal(&mut self, left: (&Expr, &Value), right: (&Expr, &Value), span: Span) -> Option<bool> {
        use ValueKind as V;
        if left.1.kind == V::Wrong || right.1.kind == V::Wrong {
            return None;
        }
        for (this, other) in [(left, right), (right, left)] {
            // A word that stands for itself is the name of nothing, unless the other side is a word that a name stands for.
            if let (ExprKind::Name(name), V::Word(word)) = (&this.0.kind, &this.1.kind)
                && name == word
            {
                let through = matches!(other.1.kind, V::Word(_))
                    && !matches!(&other.0.kind, ExprKind::Name(name) if Some(name.as_str()) == other.1.word());
                if !through {
                    self.unknown_word(word, this.1.span, matches!(other.1.kind, V::Text(_)));
                    return None;
                }
            }
            if let (ExprKind::Name(axis), ExprKind::Text(text)) = (&this.0.kind, &other.0.kind)
                && matches!(this.1.kind, V::Text(_))
                && self.axes.contains_key(axis)
            {
                self.compared.push((axis.clone(), text.clone(), other.0.span));
            }
        }
        match (&left.1.kind, &right.1.kind) {
            (V::None, _) | (_, V::None) => return Some(left.1.kind == right.1.kind),
            (V::Text(a) | V::Word(a), V::Text(b) | V::Word(b)) => return Some(a == b),
            (V::Word(_), V::Family(_)) | (V::Family(_), V::Word(_)) => return Some(left.1.word() == right.1.word()),
            (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => return Some(same(a, b)),
            _ => {}
        }
        if let Some((a, b)) = left.1.number().zip(right.1.number()) {
            return Some(a == b);
        }
        let mut diagnostic =
            Diagnostic::error("E0118", span, format!("{} and {} are never equal", left.1.found(), right.1.found()))
                .label("of different types");
        for ((expr, value), other) in [(left, right.1), (right, left.1)] {
            let V::Text(text) = &value.kind else { continue };
            let unquoted = match &other.kind {
                V::Family(_) => self.names.contains_key(text),
                V::Int(_) | V::Float(_) => text.parse::<f64>().is_ok(),
                V::Bool(_) => matches!(text.as_str(), "true" | "false"),
                _ => false,
            };
            if unquoted && matches!(expr.kind, ExprKind::Text(_)) {
                diagnostic = diagnostic.help(format!("write `{text}` without quotes"));
            }
        }
        self.report(diagnostic);
        None
    }

    fn operate(&mut self, left: &Value, operator: Operator, right: &Value, span: Span) -> ValueKind {
        use Operator as O;
        use ValueKind as V;
        match (operator, &left.kind, &right.kind) {
            (_, V::Wrong, _) | (_, _, V::Wrong) => V::Wrong,
            (O::And, V::Bool(a), V::Bool(b)) => V::Bool(*a && *b),
            (O::Or, V::Bool(a), V::Bool(b)) => V::Bool(*a || *b),
            (O::And | O::Or, ..) => {
                self.wrong(span, format!("`{}` takes conditions", operator.text()), "not conditions")
            }
            (O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual, ..) => match left.comparable(right) {
                Some((a, b)) => V::Bool(match operator {
                    O::Less => a < b,
                    O::LessOrEqual => a <= b,
                    O::Greater => a > b,
                    _ => a >= b,
                }),
                None => self.not_numbers(&[left, right], "a comparison", span),
            },
            (O::Add, V::Text(a), V::Text(b)) if a.len() + b.len() < 1 << 16 => {
                if !self.spend((a.len() + b.len()) / 64, span) {
                    return V::Wrong;
                }
                V::Text(format!("{a}{b}"))
            }
            // A number in a text is written as in the program, 0.03 and 65536.
            (O::Add, V::Text(text), V::Int(_) | V::Float(_)) if text.len() < 1 << 16 => match &right.kind {
                V::Int(number) => V::Text(format!("{text}{number}")),
                _ => V::Text(format!("{text}{}", right.number().unwrap_or_default())),
            },
            (O::Add, V::Int(_) | V::Float(_), V::Text(text)) if text.len() < 1 << 16 => match &left.kind {
                V::Int(number) => V::Text(format!("{number}{text}")),
                _ => V::Text(format!("{}{text}", left.number().unwrap_or_default())),
            },
            (O::Add, V::List(a), V::List(b)) if ((a.len() + b.len()) as i64) < LONGEST => {
                if !self.spend(left.weight() + right.weight(), span) {
                    return V::Wrong;
                }
                V::List(a.iter().chain(b).cloned().collect())
            }
            (O::Add, V::Text(_), V::Text(_)) | (O::Add, V::List(_), V::List(_)) => {
                self.wrong(span, "the result is too long".into(), "too long")
            }
            (O::Add | O::Subtract, V::Duration(a), V::Duration(b)) => {
                let sign = if operator == O::Add { 1.0 } else { -1.0 };
                self.finite(a + sign * b, V::Duration, span)
            }
            (O::Multiply, V::Duration(a), _) if right.number().is_some() => {
                self.finite(a * right.number().unwrap_or(1.0), V::Duration, span)
            }
            (O::Multiply, _, V::Duration(b)) if left.number().is_some() => {
                self.finite(b * left.number().unwrap_or(1.0), V::Duration, span)
            }
            (O::Divide, V::Duration(a), _) if right.number().is_some_and(|b| b != 0.0) => {
                self.finite(a / right.number().unwrap_or(1.0), V::Duration, span)
            }
            (O::Add | O::Subtract, V::Size(a), V::Size(b)) => {
                let result = if operator == O::Add { a.checked_add(*b) } else { a.checked_sub(*b) };
                match result {
                    Some(bytes) if bytes >= 0 => V::Size(bytes),
                    _ => self.wrong(span, "no such size".into(), "out of range"),
                }
            }
            (O::Multiply, V::Size(a), V::Int(b)) | (O::Multiply, V::Int(b), V::Size(a)) => match a.checked_mul(*b) {
                Some(bytes) if bytes >= 0 => V::Size(bytes),
                _ => self.wrong(span, "no such size".into(), "out of range"),
            },
            (O::Add | O::Subtract | O::Multiply, V::Int(a), V::Int(b)) => {
                let result = match operator {
                    O::Add => a.checked_add(*b),
                    O::Subtract => a.checked_sub(*b),
                    _ => a.checked_mul(*b),
                };
                result
                    .map(V::Int)
                    .unwrap_or_else(|| self.wrong(span, "the result is too large for an integer".into(), "overflows"))
            }
            (O::Divide, V::Int(a), V::Int(b)) if *b != 0 && a.checked_rem(*b) == Some(0) => V::Int(a / b),
            // `pictures/train`: a path, and no quotient of names.
            (O::Divide, V::Word(word), _) | (O::Divide, _, V::Word(word)) => {
                let written = self.written(span);
                let at = if matches!(left.kind, V::Word(_)) { left.span } else { right.span };
                let word = word.clone();
                let before = self.diagnostics.len();
                self.unknown_name(&word, at);
                let bare = written.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b));
                if let Some(found) = self.diagnostics.get_mut(before).filter(|_| bare) {
                    found.help = vec![format!("a path stands in quotes: `\"{written}\"`")];
                    found.edit = Some(crate::diagnostic::Fix { span, text: format!("\"{written}\"") });
                }
                V::Wrong
            }
            _ => match (left.number(), right.number()) {
                (Some(_), Some(0.0)) if operator == O::Divide => {
                    self.wrong(span, "division by zero".into(), "divides by zero")
                }
                (Some(a), Some(b)) => {
                    let result = match operator {
                        O::Add => a + b,
                        O::Subtract => a - b,
                        O::Multiply => a * b,
                        _ => a / b,
                    };
                    self.finite(result, V::Float, span)
                }
                _ => self.not_numbers(&[left, right], &format!("`{}`", operator.text()), span),
            },
        }
    }

    /// A number that a field can hold.
    fn finite(&mut self, result: f64, kind: impl Fn(f64) -> ValueKind, span: Span) -> ValueKind {
        if result.is_finite() {
            return kind(result);
        }
        self.wrong(span, "the result is too large".into(), "overflows")
    }

    fn call(&mut self, function: &str, arguments: &[Value], span: Span) -> ValueKind {
        use ValueKind as V;
        if arguments.iter().any(|argument| argument.kind == V::Wrong) {
            return V::Wrong;
        }
        if !self.spend(arguments.iter().map(Value::weight).sum(), span) {
            return V::Wrong;
        }
        match (function, arguments) {
            ("len", [Value { kind: V::List(items), .. }]) => V::Int(items.len() as i64),
            ("len", [Value { kind: V::Text(text), .. }]) => V::Int(text.chars().count() as i64),
            ("len", _) => self.wrong(span, "`len` takes one list or text".into(), "not a list"),
            ("range", [Value { kind: V::Int(from), .. }, Value { kind: V::Int(to), .. }]) => {
                if to.saturating_sub(*from) > LONGEST {
                    return self.wrong(span, format!("the list would have more than {LONGEST} items"), "too long");
                }
                if !self.spend(to.saturating_sub(*from).max(0) as usize, span) {
                    return V::Wrong;
                }
                V::List((*from..*to).map(|value| Value { kind: V::Int(value), span }).collect())
            }
            ("range", [Value { kind: V::Int(_), .. }]) => {
                let from = Value { kind: V::Int(0), span };
                self.call("range", &[from, arguments[0].clone()], span)
            }
            ("range", [_, _, _]) if arguments.iter().all(|argument| matches!(argument.kind, V::Int(_))) => {
                let mut diagnostic = Diagnostic::error("E0118", span, "`range` takes a start and an end, and no step")
                    .label("three integers");
                let numbers: Vec<i64> = arguments
                    .iter()
                    .filter_map(|argument| match argument.kind {
                        V::Int(number) => Some(number),
                        _ => None,
                    })
                    .collect();
                if let [from, to, step] = numbers[..]
                    && let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0)
                {
                    let all: Vec<String> = (from..to).step_by(step).take(21).map(|number| number.to_string()).collect();
                    diagnostic = match all.len() {
                        1..=20 => diagnostic.help(format!("write the list: `[{}]`", all.join(", "))),
                        _ => diagnostic.help("write the list, as in `[10, 20, 30]`"),
                    };
                }
                self.report(diagnostic);
                V::Wrong
            }
            ("range", _) => {
                let odd = arguments.iter().find(|argument| !matches!(argument.kind, V::Int(_)));
                let found = odd.map_or(format!("{} values", arguments.len()), Value::found);
                let at = odd.map_or(span, |odd| odd.span);
                let message = format!("`range` takes one or two integers, found {found}: `range(3)` is [0, 1, 2]");
                self.wrong(at, message, "not one or two integers")
            }
            ("zip", [Value { kind: V::List(a), span: at }, Value { kind: V::List(b), span: other }])
                if a.len() != b.len() =>
            {
                let values = |n: usize| format!("{n} value{}", if n == 1 { "" } else { "s" });
                let message =
                    format!("`zip` pairs lists of one length, found {} and {}", values(a.len()), values(b.len()));
                let (short, long, few, many) =
                    if a.len() < b.len() { (*at, *other, a.len(), b.len()) } else { (*other, *at, b.len(), a.len()) };
                self.report(
                    Diagnostic::error("E0118", short, message)
                        .label(format!("{} of the other list would be left out", values(many - few)))
                        .related(long, values(many)),
                );
                V::Wrong
            }
            ("zip", [Value { kind: V::List(a), .. }, Value { kind: V::List(b), .. }]) => V::List(
                a.iter().zip(b).map(|(a, b)| Value { kind: V::List(vec![a.clone(), b.clone()]), span }).collect(),
            ),
            ("zip", _) => self.wrong(span, "`zip` takes two lists".into(), "not two lists"),
            ("round", [only]) => match only.number() {
                Some(number) if number.abs() < 9e15 => V::Int(number.round() as i64),
                _ => self.not_numbers(&[only], "`round`", span),
            },
            ("round", _) => self.wrong(span, "`round` takes one number".into(), "not one number"),
            (_, several) => {
                let items: Vec<Value> = match several {
                    [Value { kind: V::List(items), .. }] => items.clone(),
                    _ => several.to_vec(),
                };
                let numbers: Option<Vec<f64>> = items.iter().map(Value::number).collect();
                let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
                    return self.not_numbers(&items.iter().collect::<Vec<_>>(), &format!("`{function}`"), span);
                };
                let whole = items.iter().all(|item| matches!(item.kind, V::Int(_)));
                let result = match function {
                    "mean" => numbers.iter().sum::<f64>() / numbers.len() as f64,
                    "sum" => numbers.iter().sum(),
                    "max" => numbers.iter().copied().fold(f64::MIN, f64::max),
                    _ => numbers.iter().copied().fold(f64::MAX, f64::min),
                };
                if whole && function != "mean" && result.abs() < 9e15 {
                    V::Int(result as i64)
                } else {
                    self.finite(result, V::Float, span)
                }
            }
        }
    }
}

fn wrong(span: Span) -> Value {
    Value { kind: ValueKind::Wrong, span }
}

/// Whether two values of one type are equal, wherever they are written.
fn same(a: &ValueKind, b: &ValueKind) -> bool {
    use ValueKind as V;
    let fields = |a: &Record, b: &Record| {
        let there = |name: &str, value: &Value| {
            b.iter().find(|(other, _)| other == name).is_some_and(|(_, other)| same(&value.kind, &other.kind))
        };
        a.len() == b.len() && a.iter().all(|(name, value)| there(name, value))
    };
    match (a, b) {
        (V::List(a), V::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a.kind, &b.kind)),
        (V::Record(a), V::Record(b)) => fields(a, b),
        (V::Tagged(one, a), V::Tagged(other, b)) => one == other && fields(a, b),
        (V::Family(a), V::Family(b)) => {
            let places = |family: &FamilyRef| -> Vec<String> { family.index.iter().map(|p| p.label.clone()).collect() };
            let output = |family: &FamilyRef| family.output.as_ref().map(|(name, _)| name.clone());
            a.family == b.family && output(a) == output(b) && places(a) == places(b) && a.best == b.best
        }
        (V::Int(_) | V::Float(_), V::Int(_) | V::Float(_)) => {
            let number = |kind: &V| match kind {
                V::Int(number) => *number as f64,
                V::Float(number) => *number,
                _ => f64::NAN,
            };
            number(a) == number(b)
        }
        _ => a == b,
    }
}
