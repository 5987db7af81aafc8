//! Claims that are well-formed and cannot mean what they say.

use super::measure::Measured;
use super::{Binding, Checker};
use crate::diagnostic::Diagnostic;
use crate::program::{Comparison, Expression, Relation};
use crate::source::Span;
use crate::syntax::{Expr, ExprKind, Operator};
use std::collections::BTreeSet;

/// A measured number of a claim.
#[derive(Clone)]
pub(super) struct Number {
    family: usize,
    metric: String,
    percent: bool,
    on_test: bool,
}

impl Number {
    pub(super) fn of(measured: &Measured) -> Number {
        let (family, metric) = (measured.reference.family, &measured.metric);
        Number { family, metric: metric.name.clone(), percent: metric.percent, on_test: metric.on_test }
    }
}

/// What a side of a comparison is a number of.
#[derive(Clone, PartialEq)]
enum Unit {
    /// Written in the text.
    Plain,
    /// In percent.
    Share,
    /// Another measured number, by its metric.
    Other(String),
    /// A product, a quotient, or a mixture.
    Unknown,
}

impl Checker<'_> {
    /// Says what a comparison cannot mean; false where it can mean nothing.
    pub(super) fn sensible(
        &mut self,
        comparison: &Comparison,
        at: Span,
        sides: [&Expr; 2],
        bindings: &[Binding],
    ) -> bool {
        let units = sides.map(|side| self.unit(side));
        if units == [Unit::Plain, Unit::Plain] {
            let diagnostic = Diagnostic::error("E0120", at, "nothing measured is in this comparison")
                .label("the same whatever the steps measure")
                .help("a measured number is `step.metric`, as in `nn[moco].top1`");
            self.report(diagnostic);
            return false;
        }
        let mut places: Vec<BTreeSet<&str>> = Vec::new();
        // Of every replicated number those on the outermost axis.
        for side in [&comparison.left, &comparison.right] {
            side.cells(&mut |cells| {
                let outermost: BTreeSet<&str> = cells.iter().filter_map(|cell| cell.places().next()).collect();
                if !outermost.is_empty() {
                    places.push(outermost);
                }
            });
        }
        if let Some((first, others)) = places.split_first() {
            let common = first.iter().filter(|place| others.iter().all(|other| other.contains(*place)));
            if common.count() == 0 {
                let show = |places: &BTreeSet<&str>| places.iter().copied().collect::<Vec<_>>().join(", ");
                let other = others.iter().find(|other| other.is_disjoint(first)).unwrap_or(first);
                let note = format!("one is of {}, another of {}", show(first), show(other));
                let diagnostic = Diagnostic::error("E0120", at, "these numbers have no replicate in common")
                    .label("cannot be paired")
                    .note(note)
                    .help("differences are taken within each replicate: leave the index of the replicate out");
                self.report(diagnostic);
                return false;
            }
        }
        if bindings.is_empty() && same(&comparison.left, &comparison.right) {
            let diagnostic = Diagnostic::warning("W0209", at, "both sides of the comparison are the same number")
                .label("their difference is 0 whatever is measured")
                .help("compare with another member of the family, or with a number");
            self.report(diagnostic);
            return true;
        }
        for (this, other) in [(0, 1), (1, 0)] {
            let number = constant(if this == 0 { &comparison.left } else { &comparison.right });
            if let (Some(number), Unit::Share) = (number, &units[other]) {
                self.share(number, sides[this], subtracts(sides[other]));
                break;
            }
            if let (Unit::Share, ExprKind::Chain(_, rest)) = (&units[this], &sides[this].kind) {
                // `nn[a].top1 > nn[b].top1 + 0.02`
                let margin = rest.iter().find(|(_, part)| matches!(part.kind, ExprKind::Float(size) if size < 0.1));
                if let Some((_, part)) = margin
                    && let ExprKind::Float(size) = part.kind
                    && units[other] == Unit::Share
                {
                    self.share(size, part, true);
                    break;
                }
            }
            if let (Unit::Share, Unit::Other(metric)) = (&units[this], &units[other]) {
                let share = self.first(sides[this]).map(|number| number.metric.clone()).unwrap_or_default();
                let message = format!("`{share}` is a share in percent, and `{metric}` is none");
                let diagnostic = Diagnostic::warning("W0209", at, message)
                    .label("compares numbers of different units")
                    .help("compare a number with the same one of another step");
                self.report(diagnostic);
                break;
            }
        }
        let greater = matches!(comparison.relation, Relation::Greater | Relation::GreaterOrEqual);
        self.flattering(sides[0], greater);
        self.flattering(sides[1], !greater);
        true
    }

    /// A share beside a number that is probably meant as a fraction, or that no share reaches.
    fn share(&mut self, number: f64, written: &Expr, difference: bool) {
        let explicit = self.written(written.span).ends_with('%');
        let size = number.abs();
        // Half a point of difference is a claim; a hundredth of one is a fraction.
        let small = if difference { 0.1 } else { 1.0 };
        let diagnostic = if size > 100.0 {
            Diagnostic::warning("W0209", written.span, format!("no share is {}", show(number)))
                .label("beyond 100 percent")
                .note("shares are in percent here, from 0 to 100: `50` and `50%` are the same")
        } else if size > 0.0 && size < small && !explicit {
            let (percent, points) = (show(number * 100.0), show(number));
            let what = if difference { "points of a difference" } else { "percent" };
            Diagnostic::warning(
                "W0209",
                written.span,
                format!("shares are in percent here, and this is {points} {what}"),
            )
            .label(format!("{points} of 100"))
            .help(format!("write `{percent}%` if that is meant, or `{points}%` if it is right"))
        } else {
            return;
        };
        self.report(diagnostic);
    }

    /// The best of several members by test data on the side that is to win: chosen by what it is judged on.
    fn flattering(&mut self, expr: &Expr, wins: bool) {
        match &expr.kind {
            ExprKind::Negate(inner) => self.flattering(inner, !wins),
            ExprKind::Chain(first, rest) => {
                self.flattering(first, wins);
                for (operator, part) in rest {
                    match operator {
                        Operator::Add => self.flattering(part, wins),
                        Operator::Subtract => self.flattering(part, !wins),
                        _ => {}
                    }
                }
            }
            ExprKind::Call { function, arguments } => {
                let numbers: Vec<Number> =
                    arguments.iter().filter_map(|argument| self.numbers.get(&argument.span).cloned()).collect();
                let several = numbers.windows(2).any(|pair| pair[0].family == pair[1].family && pair[0].on_test);
                let chooses = function.text == if wins { "max" } else { "min" };
                if several && chooses {
                    let name = self.family_name(numbers[0].family);
                    let metric = &numbers[0].metric;
                    let message = format!("a choice by test data: the best `{metric}` of several `{name}`");
                    let diagnostic = Diagnostic::warning("W0204", expr.span, message)
                        .label("chosen by what it is judged on")
                        .note("the best of several on the test data is better than it would be on other data")
                        .help("choose by a split that nothing is judged on: `best(family, by = val.metric)`");
                    self.report(diagnostic);
                }
            }
            _ => {}
        }
    }

    fn unit(&self, expr: &Expr) -> Unit {
        match &expr.kind {
            ExprKind::Negate(inner) => self.unit(inner),
            ExprKind::Call { arguments, .. } => arguments.iter().map(|part| self.unit(part)).fold(Unit::Plain, joined),
            ExprKind::Chain(first, rest) => {
                let sum = rest.iter().all(|(operator, _)| matches!(operator, Operator::Add | Operator::Subtract));
                let unit = rest.iter().map(|(_, part)| self.unit(part)).fold(self.unit(first), joined);
                if sum || unit == Unit::Plain { unit } else { Unit::Unknown }
            }
            _ => match self.numbers.get(&expr.span) {
                Some(number) if number.percent => Unit::Share,
                Some(number) => Unit::Other(number.metric.clone()),
                None => Unit::Plain,
            },
        }
    }

    /// The first measured number in an expression.
    fn first(&self, expr: &Expr) -> Option<&Number> {
        match &expr.kind {
            ExprKind::Negate(inner) => self.first(inner),
            ExprKind::Call { arguments, .. } => arguments.iter().find_map(|part| self.first(part)),
            ExprKind::Chain(first, rest) => {
                self.first(first).or_else(|| rest.iter().find_map(|(_, part)| self.first(part)))
            }
            _ => self.numbers.get(&expr.span),
        }
    }
}

fn joined(a: Unit, b: Unit) -> Unit {
    match (a, b) {
        (Unit::Plain, other) | (other, Unit::Plain) => other,
        (a, b) if a == b => a,
        _ => Unit::Unknown,
    }
}

/// Whether a side is a difference of measured numbers.
fn subtracts(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Chain(_, rest) if rest.iter().any(|(operator, _)| *operator == Operator::Subtract))
}

fn constant(expression: &Expression) -> Option<f64> {
    match expression {
        Expression::Number(number) => Some(*number),
        Expression::Negated(inner) => constant(inner).map(|number| -number),
        _ => None,
    }
}

/// Whether two expressions are the same numbers, however they are written.
fn same(a: &Expression, b: &Expression) -> bool {
    use Expression as E;
    match (a, b) {
        (E::Number(a), E::Number(b)) => a == b,
        (E::Measured { cells, pick, .. }, E::Measured { cells: others, pick: other, .. }) => {
            cells == others && pick == other
        }
        (E::Negated(a), E::Negated(b)) => same(a, b),
        (E::Binary { operator, left, right }, E::Binary { operator: other, left: l, right: r }) => {
            operator == other && same(left, l) && same(right, r)
        }
        (E::Call { function, arguments }, E::Call { function: other, arguments: others }) => {
            function == other
                && arguments.len() == others.len()
                && arguments.iter().zip(others).all(|(a, b)| same(a, b))
        }
        _ => false,
    }
}

/// A number without the noise of binary fractions.
fn show(number: f64) -> String {
    ((number * 1e6).round() / 1e6).to_string()
}
