//! Tables and claims: which numbers of which steps they are about.

use super::claims::Number;
use super::sound::Reported;
use super::value::{FamilyRef, Value, ValueKind};
use super::{Binding, Checker, Node};
use crate::catalog::Metric;
use crate::diagnostic::Diagnostic;
use crate::program::{
    Aggregate, Arithmetic, CellRef, Claim, Comparison, Condition, Expression, Pick, Program, Relation,
};
use crate::source::Span;
use crate::suggest::nearest_or_all;
use crate::syntax::{ClaimSyntax, Expr, ExprKind, Operator, Postfix};

/// Terms of one expression in a claim.
const MOST_TERMS: usize = 256;

/// A family's metric, as written.
pub(super) struct Measured {
    pub(super) reference: FamilyRef,
    pub(super) metric: Metric,
    pub(super) pick: Pick,
    /// Whether a curve stands as a whole, nothing picked from it.
    pub(super) whole: bool,
}

impl Checker<'_> {
    /// Checks tables and claims.
    pub(super) fn statements(&mut self, nodes: &[Node], bindings: &[Binding], order: &[usize], program: &mut Program) {
        for node in nodes {
            match node {
                Node::Family(_) => {}
                Node::Block { scope, nodes, .. } => {
                    if nodes.iter().any(holds_statements) {
                        for binding in self.axis(node, *scope, bindings) {
                            let mut inner = bindings.to_vec();
                            inner.push(binding);
                            self.statements(nodes, &inner, order, program);
                        }
                    }
                }
                Node::Claim(claim, scope) => {
                    if let Some(claim) = self.claim(claim, *scope, bindings, order) {
                        program.claims.push(claim);
                    }
                }
                Node::Table(table, scope) => {
                    if *scope != 0 {
                        self.report(
                            Diagnostic::error("E0119", table.name.span, "tables stand at the top level")
                                .label("inside a block"),
                        );
                    } else if program.tables.iter().any(|known| known.name == table.name.text) {
                        self.report(
                            Diagnostic::error(
                                "E0102",
                                table.name.span,
                                format!("there are two tables `{}`", table.name.text),
                            )
                            .label("declared again"),
                        );
                    } else if let Some(table) = self.table(table, order) {
                        program.tables.push(table);
                    }
                }
                Node::Figure(figure, scope) => {
                    let at = figure.name.span;
                    if *scope != 0 {
                        self.report(
                            Diagnostic::error("E0124", at, "figures stand at the top level").label("inside a block"),
                        );
                    } else if program.figures.iter().any(|known| known.name == figure.name.text) {
                        self.report(
                            Diagnostic::error("E0102", at, format!("there are two figures `{}`", figure.name.text))
                                .label("declared again"),
                        );
                    } else if let Some(figure) = self.figure(figure, order) {
                        program.figures.push(figure);
                    }
                }
            }
        }
    }

    fn claim(&mut self, claim: &ClaimSyntax, scope: usize, bindings: &[Binding], order: &[usize]) -> Option<Claim> {
        if bindings.iter().any(|b| b.replicate) {
            self.report(
                Diagnostic::error("E0120", claim.span, "a claim is about all replicates")
                    .label("inside a `replicate` block")
                    .help("put it behind the block"),
            );
            return None;
        }
        let mut comparisons = Vec::new();
        let parts: Vec<&Expr> = match &claim.condition.kind {
            ExprKind::Chain(first, rest) if rest.iter().all(|(operator, _)| *operator == Operator::And) => {
                std::iter::once(first.as_ref()).chain(rest.iter().map(|(_, part)| part)).collect()
            }
            _ => vec![&claim.condition],
        };
        for part in parts {
            comparisons.push(self.comparison(part, scope, bindings, order)?);
        }
        let places: Vec<String> = bindings.iter().map(|b| format!("{} = {}", b.axis, b.label)).collect();
        let text =
            if places.is_empty() { claim.text.clone() } else { format!("{} ({})", claim.text, places.join(", ")) };
        Some(Claim {
            text,
            condition: Condition { comparisons },
            span: claim.span,
            source: self.written(claim.condition.span),
        })
    }

    /// A stretch of text on one line.
    pub(super) fn written(&self, span: Span) -> String {
        self.sources.slice(span).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn comparison(&mut self, expr: &Expr, scope: usize, bindings: &[Binding], order: &[usize]) -> Option<Comparison> {
        let found = match &expr.kind {
            ExprKind::Chain(left, rest) => match rest.as_slice() {
                [(operator, right)] => Some((left, *operator, right)),
                _ => None,
            },
            ExprKind::Wrong => return None,
            _ => None,
        };
        let relation = found.and_then(|(_, operator, _)| match operator {
            Operator::Less => Some(Relation::Less),
            Operator::LessOrEqual => Some(Relation::LessOrEqual),
            Operator::Greater => Some(Relation::Greater),
            Operator::GreaterOrEqual => Some(Relation::GreaterOrEqual),
            _ => None,
        });
        let (Some((left, operator, right)), Some(relation)) = (found, relation) else {
            let mut diagnostic =
                Diagnostic::error("E0120", expr.span, "a claim compares numbers with `<`, `<=`, `>` or `>=`")
                    .label("not such a comparison");
            if found.is_some_and(|(_, operator, _)| matches!(operator, Operator::Equal | Operator::NotEqual)) {
                diagnostic =
                    diagnostic.help("measured numbers are never equal but by chance; state how far apart they may be");
            } else {
                diagnostic = diagnostic.help("several comparisons are joined by `and`");
            }
            self.report(diagnostic);
            return None;
        };
        let _ = operator;
        let sides = [left.as_ref(), right];
        let (left, right) =
            (self.expression(left, scope, bindings, order), self.expression(right, scope, bindings, order));
        let (left, right) = (left?, right?);
        let mut axes = Vec::new();
        replicate_axes(&left, &mut axes);
        replicate_axes(&right, &mut axes);
        if let Some(other) = axes.iter().find(|other| **other != axes[0]) {
            let (first, other) = (axes[0].clone(), other.clone());
            self.report(
                Diagnostic::error("E0120", expr.span, "these numbers are replicated along different axes")
                    .label("cannot be paired")
                    .note(format!("one along {first}, another along {other}"))
                    .help("put the steps into the same `replicate` blocks, or index the replicate that you mean"),
            );
            return None;
        }
        let comparison = Comparison { left, relation, right, source: self.written(expr.span) };
        self.sensible(&comparison, expr.span, sides, bindings).then_some(comparison)
    }

    /// An expression over measured numbers.
    fn expression(&mut self, expr: &Expr, scope: usize, bindings: &[Binding], order: &[usize]) -> Option<Expression> {
        if !self.tick(expr.span) {
            return None;
        }
        match &expr.kind {
            ExprKind::Negate(inner) => {
                Some(Expression::Negated(Box::new(self.expression(inner, scope, bindings, order)?)))
            }
            ExprKind::Chain(first, rest) if rest.iter().all(|(operator, _)| arithmetic(*operator).is_some()) => {
                if rest.len() > MOST_TERMS {
                    self.report(
                        Diagnostic::error("E0120", expr.span, format!("more than {MOST_TERMS} terms"))
                            .label("too long"),
                    );
                    return None;
                }
                let mut left = self.expression(first, scope, bindings, order)?;
                for (operator, right) in rest {
                    let right = self.expression(right, scope, bindings, order)?;
                    left = Expression::Binary {
                        operator: arithmetic(*operator)?,
                        left: Box::new(left),
                        right: Box::new(right),
                    };
                }
                Some(left)
            }
            ExprKind::Call { function, arguments } => {
                let known = ["mean", "max", "min", "sum"];
                let function = match function.text.as_str() {
                    "mean" => Aggregate::Mean,
                    "max" => Aggregate::Max,
                    "min" => Aggregate::Min,
                    "sum" => Aggregate::Sum,
                    other => {
                        let help = nearest_or_all(other, &known);
                        self.report(
                            Diagnostic::error(
                                "E0120",
                                function.span,
                                format!("`{other}` is no function of measured numbers"),
                            )
                            .label("not known here")
                            .help_if(help),
                        );
                        return None;
                    }
                };
                if arguments.is_empty() {
                    self.report(Diagnostic::error("E0120", expr.span, "a function of nothing").label("needs numbers"));
                    return None;
                }
                let arguments: Option<Vec<Expression>> =
                    arguments.iter().map(|argument| self.expression(argument, scope, bindings, order)).collect();
                Some(Expression::Call { function, arguments: arguments? })
            }
            ExprKind::Postfix(..) => {
                let measured = self.measured(expr, scope, bindings, true)?;
                let cells = self.cells(&measured, bindings, order, expr.span, None)?;
                self.numbers.insert(expr.span, Number::of(&measured));
                Some(Expression::Measured { cells, pick: measured.pick, source: self.written(expr.span) })
            }
            _ => {
                let value = self.evaluate(expr, scope, bindings);
                match (&value.kind, value.number()) {
                    // Shares are measured in percent here, so `30%` means what `30` does, wherever it was written.
                    (_, Some(number)) if [value.span, expr.span].iter().any(|&at| self.written(at).ends_with('%')) => {
                        Some(Expression::Number(number * 100.0))
                    }
                    (_, Some(number)) => Some(Expression::Number(number)),
                    (ValueKind::Wrong, _) => None,
                    (ValueKind::Word(word), _) => {
                        let word = word.clone();
                        self.unknown_name(&word, value.span);
                        None
                    }
                    (ValueKind::Family(reference), _) => {
                        let names = self.metric_names(reference.family);
                        let name = self.family_name(reference.family);
                        let help = crate::suggest::list(&names.iter().map(String::as_str).collect::<Vec<_>>())
                            .map(|all| format!("it measures {all}"));
                        self.report(
                            Diagnostic::error("E0111", expr.span, format!("`{name}` is a step; which of its numbers?"))
                                .label("a step, no number")
                                .help_if(help),
                        );
                        None
                    }
                    _ => {
                        self.report(
                            Diagnostic::error(
                                "E0120",
                                expr.span,
                                format!("expected a number, found {}", value.found()),
                            )
                            .label("no number"),
                        );
                        None
                    }
                }
            }
        }
    }

    pub(super) fn metric_names(&self, family: usize) -> Vec<String> {
        self.kind_of(family)
            .map(|kind| kind.metrics.iter().map(|metric| metric.name.clone()).collect())
            .unwrap_or_default()
    }

    /// `family[index].metric` with `.last`, `.best` or `.at(x)` for curves.
    pub(super) fn measured(
        &mut self,
        expr: &Expr,
        scope: usize,
        bindings: &[Binding],
        need_pick: bool,
    ) -> Option<Measured> {
        let (base, parts): (&Expr, &[Postfix]) = match &expr.kind {
            ExprKind::Postfix(base, parts) => (base, parts),
            _ => (expr, &[]),
        };
        let value = self.evaluate(base, scope, bindings);
        let reference = match value.kind {
            ValueKind::Family(reference) => reference,
            ValueKind::Wrong => return None,
            ValueKind::Word(word) => {
                self.unknown_name(&word, base.span);
                return None;
            }
            kind => {
                let found = Value { kind, span: base.span }.found();
                self.report(
                    Diagnostic::error(
                        "E0111",
                        base.span,
                        format!("expected a step's number such as `name.metric`, found {found}"),
                    )
                    .label("no step"),
                );
                return None;
            }
        };
        self.metric_of(reference, parts, expr.span, scope, bindings, need_pick)
    }

    /// The metric that `parts` behind a family say; `span` is where all of it is.
    pub(super) fn metric_of(
        &mut self,
        mut reference: FamilyRef,
        parts: &[Postfix],
        span: Span,
        scope: usize,
        bindings: &[Binding],
        need_pick: bool,
    ) -> Option<Measured> {
        let mut rest = parts;
        while let [Postfix::Index(items, _), others @ ..] = rest {
            reference.index.extend(self.index(items, scope, bindings)?);
            rest = others;
        }
        let family = reference.family;
        let name = self.family_name(family);
        let names = self.metric_names(family);
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let [Postfix::Member(metric), rest @ ..] = rest else {
            let help = crate::suggest::list(&known).map(|all| format!("it measures {all}"));
            self.report(
                Diagnostic::error("E0111", span, format!("`{name}` is a step; which of its numbers?"))
                    .label("a metric is missing")
                    .help_if(help),
            );
            return None;
        };
        let kind = self.kind_of(family)?;
        let (dynamic, kind_name) = (kind.dynamic_metrics, kind.name.clone());
        let found = kind.metric(&metric.text).cloned();
        let metric_info = match found {
            Some(info) => info,
            None if dynamic => {
                let declared = self.declared_metrics(family);
                if !declared.contains(&metric.text) {
                    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
                    let help = nearest_or_all(&metric.text, &known)
                        .or(Some(format!("declare it: `metrics = [\"{}\"]`", metric.text)));
                    self.report(
                        Diagnostic::error(
                            "E0111",
                            metric.span,
                            format!("`{name}` declares no metric `{}`", metric.text),
                        )
                        .label("unknown metric")
                        .help_if(help),
                    );
                    return None;
                }
                Metric {
                    name: metric.text.clone(),
                    doc: format!("Reported by the program of `{name}`."),
                    series: false,
                    higher_is_better: true,
                    on_test: false,
                    floor: None,
                    floor_label: None,
                    percent: false,
                }
            }
            None => {
                let help = nearest_or_all(&metric.text, &known);
                self.report(
                    Diagnostic::error("E0111", metric.span, format!("a `{kind_name}` measures no `{}`", metric.text))
                        .label("unknown metric")
                        .related(self.declared(family), format!("`{name}` defined here"))
                        .help_if(help),
                );
                return None;
            }
        };
        let pick = match rest {
            [] => Pick::Last,
            [Postfix::Member(word)] if word.text == "last" => Pick::Last,
            [Postfix::Member(word)] if word.text == "best" => Pick::Best,
            [Postfix::Member(word), Postfix::Call(arguments, _)] if word.text == "at" && arguments.len() == 1 => {
                let place = self.evaluate(&arguments[0], scope, bindings);
                match place.number() {
                    Some(x) => Pick::At(x),
                    None => {
                        self.report(
                            Diagnostic::error(
                                "E0111",
                                place.span,
                                format!("`.at` takes a number, found {}", place.found()),
                            )
                            .label("no number"),
                        );
                        return None;
                    }
                }
            }
            _ => {
                self.report(
                    Diagnostic::error(
                        "E0111",
                        span,
                        "a curve is followed by `.last`, `.best` or `.at(x)`, and nothing else",
                    )
                    .label("cannot follow"),
                );
                return None;
            }
        };
        if metric_info.series && rest.is_empty() && need_pick {
            self.report(
                Diagnostic::error("E0111", span, format!("`{}` is a curve, and a number is needed", metric.text))
                    .label("which of its points?")
                    .help(format!("write `{}.last`, `.best` or `.at(epoch)`", metric.text)),
            );
            return None;
        }
        if !metric_info.series && !rest.is_empty() {
            self.report(
                Diagnostic::error("E0111", span, format!("`{}` is one number, no curve", metric.text))
                    .label("nothing can be picked from it"),
            );
            return None;
        }
        let whole = metric_info.series && rest.is_empty();
        Some(Measured { reference, metric: metric_info, pick, whole })
    }

    /// Metrics that a step declares itself, in its field `metrics`.
    pub(super) fn declared_metrics(&mut self, family: usize) -> Vec<String> {
        let Some(&member) = self.families[family].members.first() else { return Vec::new() };
        let raw = self.raw(member);
        let Some((_, Value { kind: ValueKind::List(items), .. })) = raw.iter().find(|(name, _)| name == "metrics")
        else {
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| match &item.kind {
                ValueKind::Text(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// The numbers of the members that are left: one for each replicate.
    pub(super) fn cells(
        &mut self,
        measured: &Measured,
        bindings: &[Binding],
        order: &[usize],
        span: Span,
        row: Option<(&str, &str)>,
    ) -> Option<Vec<CellRef>> {
        let cell = |step: usize, replicate: Option<String>| CellRef {
            step: order.get(step).copied().unwrap_or(step),
            metric: measured.metric.name.clone(),
            replicate,
        };
        if measured.reference.best.is_some() {
            let picks = self.choose(&measured.reference, bindings, row, span, true)?;
            let cells: Vec<CellRef> = picks.into_iter().map(|pick| cell(pick.step, pick.replicate)).collect();
            self.shown(measured, &cells, order, span);
            return Some(cells);
        }
        let mut members = self.select(&measured.reference, bindings, span)?;
        if let Some((axis, label)) = row {
            members.retain(|m| self.members[*m].bindings.iter().all(|b| b.axis != axis || b.label == label));
        }
        let mut cells = Vec::new();
        let mut free: Vec<(String, String)> = Vec::new();
        for member in members {
            let place: Vec<&Binding> = self.members[member].bindings.iter().collect();
            for b in place.iter().filter(|b| !b.replicate) {
                match free.iter().find(|(axis, _)| *axis == b.axis) {
                    Some((_, label)) if *label != b.label => {
                        let (axis, label) = (b.axis.clone(), b.label.clone());
                        let name = self.family_name(measured.reference.family);
                        self.report(
                            Diagnostic::error(
                                "E0112",
                                span,
                                format!("`{name}` has several members along `{axis}`, and nothing says which"),
                            )
                            .label("which one?")
                            .related(self.declared(measured.reference.family), format!("`{name}` defined here"))
                            .help(format!("write `{name}[{axis} = {label}]`, or make `{axis}` the rows of a table")),
                        );
                        return None;
                    }
                    Some(_) => {}
                    None => free.push((b.axis.clone(), b.label.clone())),
                }
            }
            let replicates: Vec<String> =
                place.iter().filter(|b| b.replicate).map(|b| format!("{}={}", b.axis, b.label)).collect();
            cells.push(cell(member, (!replicates.is_empty()).then(|| replicates.join(", "))));
        }
        self.shown(measured, &cells, order, span);
        Some(cells)
    }

    /// Notes a number that a statement shows.
    pub(super) fn shown(&mut self, measured: &Measured, cells: &[CellRef], order: &[usize], span: Span) {
        if order.is_empty() {
            // A choice looks at it, and shows it nowhere.
            return;
        }
        let steps = cells.iter().map(|cell| cell.step).collect();
        self.reported.push(Reported { steps, on_test: measured.metric.on_test, span });
    }
}

/// The replicate axes of every replicated measurement in an expression, such as `seed, fold`.
fn replicate_axes(expression: &Expression, axes: &mut Vec<String>) {
    match expression {
        Expression::Number(_) => {}
        Expression::Measured { cells, .. } => {
            axes.extend(cells.iter().filter_map(|cell| cell.replicate.as_deref()).take(1).map(|label| {
                let names: Vec<&str> =
                    label.split(", ").map(|place| place.split('=').next().unwrap_or(place)).collect();
                names.join(", ")
            }));
        }
        Expression::Negated(inner) => replicate_axes(inner, axes),
        Expression::Binary { left, right, .. } => {
            replicate_axes(left, axes);
            replicate_axes(right, axes);
        }
        Expression::Call { arguments, .. } => arguments.iter().for_each(|argument| replicate_axes(argument, axes)),
    }
}

fn holds_statements(node: &Node) -> bool {
    match node {
        Node::Family(_) => false,
        Node::Claim(..) | Node::Table(..) | Node::Figure(..) => true,
        Node::Block { nodes, .. } => nodes.iter().any(holds_statements),
    }
}

fn arithmetic(operator: Operator) -> Option<Arithmetic> {
    match operator {
        Operator::Add => Some(Arithmetic::Add),
        Operator::Subtract => Some(Arithmetic::Subtract),
        Operator::Multiply => Some(Arithmetic::Multiply),
        Operator::Divide => Some(Arithmetic::Divide),
        _ => None,
    }
}
