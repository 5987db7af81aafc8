//! Expressions to values.

use super::value::{FamilyRef, Place, Value, ValueKind};
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
                for (operator, right) in rest {
                    let right = self.evaluate(right, scope, bindings);
                    let kind = self.operate(&value, *operator, &right, span);
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
            (O::Equal | O::NotEqual, ..) => {
                let equal = match (left.number(), right.number()) {
                    (Some(a), Some(b)) => a == b,
                    _ => left.kind == right.kind,
                };
                V::Bool(equal == (operator == O::Equal))
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
            ("range", _) => {
                self.wrong(span, "`range` takes one or two integers: `range(3)` is [0, 1, 2]".into(), "not integers")
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
