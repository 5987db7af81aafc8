//! What the measured numbers say: claims decided, replicates summarised.

use crate::program::{Aggregate, Arithmetic, CellRef, Claim, Comparison, Expression, Pick, Relation};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeSet;

/// The number that a step measured.
type Value<'a> = dyn Fn(usize, &str, Pick) -> Option<f64> + 'a;
/// What a step's training was.
type Training<'a> = dyn Fn(usize) -> Option<String> + 'a;

/// What the numbers say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The whole 95 % interval satisfies every comparison.
    Holds,
    /// The whole 95 % interval violates some comparison.
    Fails,
    /// Neither; or numbers are missing; or a single one satisfies it.
    Undecided,
}

/// A mean with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean difference, left side minus right side.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many pairs.
    pub n: usize,
}

/// A claim decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the numbers say.
    pub outcome: Outcome,
    /// Why, in one line for people.
    pub detail: String,
    /// Of the comparison that decides: the mean difference and its interval. None for a single pair.
    pub difference: Option<Interval>,
    /// Of the same comparison: the difference within each replicate.
    #[serde(default)]
    pub pairs: Vec<f64>,
    /// Whether some comparison rests on one pair, and so is a plain comparison that never holds.
    pub single: bool,
    /// The numbers that are not there, as `metric of step` labels.
    pub missing: Vec<String>,
}

/// Replicates in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Arithmetic mean; not a number when there are no values.
    pub mean: f64,
    /// Standard deviation with n - 1 in the denominator; none for fewer than two values.
    pub sd: Option<f64>,
    /// How many values.
    pub n: usize,
}

/// Mean, standard deviation (n - 1) and count.
pub fn summarise(values: &[f64]) -> Summary {
    let n = values.len();
    if n == 0 {
        return Summary { mean: f64::NAN, sd: None, n };
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
    Summary { mean, sd, n }
}

/// Decides a claim from measured numbers.
///
/// `value` gives the number that a step measured, or none if there is none (yet); `training` tells what the number's
/// training was, since numbers of one training are repetitions of an evaluation and not independent of each other.
/// None stands for a training of its own.
///
/// Over replicates, the differences between left and right side are taken within each replicate, and the 95 % interval
/// of their mean (Student's t with n - 1 degrees of freedom) decides: the claim holds when the whole interval satisfies
/// it and fails when the whole interval violates it. Where several `replicate` axes are nested, the outermost one along
/// which trainings differ is taken as independent, and what lies inside or along other ones is averaged first; places
/// that share a training count as one. A single pair is a plain comparison, which can fail but never hold.
pub fn evaluate_claim(claim: &Claim, value: &Value<'_>, training: &Training<'_>) -> Verdict {
    let findings: Vec<Finding> =
        claim.condition.comparisons.iter().map(|comparison| compare(comparison, value, training)).collect();
    let missing: Vec<String> = findings
        .iter()
        .flat_map(|finding| finding.missing.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let outcome = if findings.iter().any(|finding| finding.outcome == Outcome::Fails) {
        Outcome::Fails
    } else if !findings.is_empty() && findings.iter().all(|finding| finding.outcome == Outcome::Holds) {
        Outcome::Holds
    } else {
        Outcome::Undecided
    };
    let deciding = findings.iter().find(|finding| finding.outcome == outcome);
    let detail = match findings.as_slice() {
        [only] => only.detail.clone(),
        several => several
            .iter()
            .zip(&claim.condition.comparisons)
            .map(|(finding, comparison)| format!("{}: {}", comparison.source, finding.detail))
            .collect::<Vec<_>>()
            .join("; "),
    };
    Verdict {
        outcome,
        detail,
        difference: deciding.and_then(|finding| finding.difference),
        pairs: deciding.map(|finding| finding.pairs.clone()).unwrap_or_default(),
        single: findings.iter().any(|finding| finding.single),
        missing,
    }
}

/// What the numbers say of one comparison.
struct Finding {
    outcome: Outcome,
    detail: String,
    difference: Option<Interval>,
    pairs: Vec<f64>,
    single: bool,
    missing: Vec<String>,
}

impl Finding {
    fn undecided(detail: impl Into<String>) -> Finding {
        Finding {
            outcome: Outcome::Undecided,
            detail: detail.into(),
            difference: None,
            pairs: Vec::new(),
            single: false,
            missing: Vec::new(),
        }
    }
}

fn compare(comparison: &Comparison, value: &Value<'_>, training: &Training<'_>) -> Finding {
    let mut measured = Vec::new();
    for side in [&comparison.left, &comparison.right] {
        side.cells(&mut |cells| {
            if cells.iter().any(|cell| cell.replicate.is_some()) {
                measured.push(cells);
            }
        });
    }
    let depth = measured.iter().flat_map(|cells| cells.iter()).map(|cell| cell.places().count()).max().unwrap_or(0);
    let mut found: Option<Units> = None;
    for level in 0..depth {
        let Some(units) = units(&measured, level, training) else {
            return Finding::undecided("the two sides have no replicate in common");
        };
        let independent = units.groups.len() > 1;
        if independent || found.is_none() {
            found = Some(units);
        }
        if independent {
            break;
        }
    }
    let one = Units { level: 0, groups: Vec::new(), left_out: 0 };
    let (all, Units { level, groups, left_out }) = (found.is_none(), found.unwrap_or(one));
    let units: Vec<Option<(usize, &[String])>> =
        if all { vec![None] } else { groups.iter().map(|group| Some((level, group.as_slice()))).collect() };

    let mut missing = Vec::new();
    let differences: Vec<Option<f64>> = units
        .iter()
        .map(|unit| {
            let left = number(&comparison.left, *unit, value, &mut missing);
            let right = number(&comparison.right, *unit, value, &mut missing);
            Some(left? - right?)
        })
        .collect();
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        let detail = format!("missing: {}", missing.join(", "));
        return Finding { missing, ..Finding::undecided(detail) };
    }
    let differences: Vec<f64> = differences.into_iter().flatten().collect();
    if differences.len() != units.len() || differences.iter().any(|difference| !difference.is_finite()) {
        return Finding::undecided("the difference is not a finite number");
    }
    let first = measured.iter().flat_map(|cells| cells.iter()).next();
    let axes: Vec<&str> =
        first.into_iter().flat_map(CellRef::places).map(|place| place.split('=').next().unwrap_or(place)).collect();
    let axis = axes.get(level).copied().unwrap_or("pair");
    // Of one training all replicates are evaluations, along the other axes too.
    let most = measured.iter().map(|cells| cells.len()).max().unwrap_or(0);
    let again = (groups.len() == 1 && groups[0].len() > 1).then_some(most);
    let mut finding = decide(&differences, comparison.relation, axis, again);
    if level > 0 {
        finding.detail.push_str(&format!(", evaluations along {} averaged first", axes[..level].join(" and ")));
    }
    if left_out > 0 {
        let common: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
        finding.detail.push_str(&format!(
            ", paired on the {} common {} only ({})",
            common.len(),
            if common.len() == 1 { "replicate" } else { "replicates" },
            common.join("; ")
        ));
    }
    finding
}

/// What is independent of each other along one replicate axis.
struct Units {
    /// Which axis, the outermost one first.
    level: usize,
    /// Places on it, those that share their trainings together.
    groups: Vec<Vec<String>>,
    /// Places that not every number has.
    left_out: usize,
}

/// The independent units along an axis; none where the numbers have no place on it in common.
fn units(measured: &[&[CellRef]], level: usize, training: &Training<'_>) -> Option<Units> {
    // Of each number the trainings by place, places in order of appearance.
    let mut sets: Vec<Vec<(&str, BTreeSet<String>)>> = Vec::new();
    for cells in measured {
        let mut set: Vec<(&str, BTreeSet<String>)> = Vec::new();
        for cell in cells.iter() {
            let Some(place) = cell.places().nth(level) else { continue };
            let at = set.iter().position(|(known, _)| *known == place).unwrap_or_else(|| {
                set.push((place, BTreeSet::new()));
                set.len() - 1
            });
            // A step whose training is not known has one of its own.
            set[at].1.insert(training(cell.step).unwrap_or_else(|| format!("\0{}", cell.step)));
        }
        if !set.is_empty() {
            sets.push(set);
        }
    }
    let all: BTreeSet<&str> = sets.iter().flatten().map(|(place, _)| *place).collect();
    let common: Vec<&str> =
        sets.first()?.iter().map(|(place, _)| *place).filter(|place| all_have(&sets, place)).collect();
    if common.is_empty() {
        return None;
    }
    // A number whose trainings are the same at every place is a constant there, such as a baseline, and makes nothing
    // dependent; where all numbers are, nothing along this axis is independent.
    let of = |set: &[(&str, BTreeSet<String>)], place: &str| {
        set.iter().find(|(known, _)| *known == place).map(|(_, trainings)| trainings.clone()).unwrap_or_default()
    };
    let varying: Vec<Vec<BTreeSet<String>>> = sets
        .iter()
        .map(|set| common.iter().map(|place| of(set, place)).collect::<Vec<_>>())
        .filter(|trainings| trainings.windows(2).any(|pair| pair[0] != pair[1]))
        .collect();
    let mut group: Vec<usize> = (0..common.len()).map(|at| if varying.is_empty() { 0 } else { at }).collect();
    for trainings in &varying {
        for later in 1..common.len() {
            for earlier in 0..later {
                if group[earlier] != group[later] && !trainings[earlier].is_disjoint(&trainings[later]) {
                    let (keep, gone) = (group[earlier].min(group[later]), group[earlier].max(group[later]));
                    group.iter_mut().filter(|group| **group == gone).for_each(|group| *group = keep);
                }
            }
        }
    }
    let mut groups: Vec<(usize, Vec<String>)> = Vec::new();
    for (place, group) in common.iter().zip(group) {
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, places)) => places.push((*place).to_owned()),
            None => groups.push((group, vec![(*place).to_owned()])),
        }
    }
    let groups: Vec<Vec<String>> = groups.into_iter().map(|(_, places)| places).collect();
    Some(Units { level, groups, left_out: all.len() - common.len() })
}

fn all_have(sets: &[Vec<(&str, BTreeSet<String>)>], place: &str) -> bool {
    sets.iter().all(|set| set.iter().any(|(known, _)| *known == place))
}

/// Decides by differences; `again` says how many replicates of one training there are, where there is but one.
fn decide(differences: &[f64], relation: Relation, axis: &str, again: Option<usize>) -> Finding {
    let summary = summarise(differences);
    let n = summary.n;
    let Some(sd) = summary.sd else {
        let satisfied = satisfies(summary.mean, relation);
        return Finding {
            outcome: if satisfied { Outcome::Undecided } else { Outcome::Fails },
            detail: format!(
                "difference {}, {}{}",
                show(summary.mean),
                again.map_or("a single pair".to_owned(), |n| format!("one training evaluated {n} times")),
                match (satisfied, again) {
                    (true, None) => ": satisfied, but one pair proves nothing",
                    (true, Some(_)) => ": satisfied, but one training proves nothing",
                    _ => "",
                }
            ),
            difference: None,
            pairs: differences.to_vec(),
            single: true,
            missing: Vec::new(),
        };
    };
    let half = half_width(sd / (n as f64).sqrt(), (n - 1) as f64);
    let interval = Interval { mean: summary.mean, low: summary.mean - half, high: summary.mean + half, n };
    let (low, high) = (satisfies(interval.low, relation), satisfies(interval.high, relation));
    let outcome = match (low, high) {
        (true, true) => Outcome::Holds,
        (false, false) => Outcome::Fails,
        _ => Outcome::Undecided,
    };
    let (mean, plus_minus) = with_error(interval.mean, half);
    let mut detail = format!(
        "{n} {axis}s, difference {mean} ± {plus_minus} (95 % interval {} to {})",
        show(interval.low),
        show(interval.high)
    );
    if sd == 0.0 {
        detail.push_str(", all differences equal");
    }
    let pairs = differences.to_vec();
    Finding { outcome, detail, difference: Some(interval), pairs, single: false, missing: Vec::new() }
}

/// Half of the 95 % interval around a mean with this standard error, by Student's t. Without spread it is a point.
fn half_width(error: f64, freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(student) if error > 0.0 => student.inverse_cdf(0.975) * error,
        _ => 0.0,
    }
}

/// The mean of differences taken within pairs, with its 95 % interval (Student's t with n - 1 degrees of freedom); none
/// for fewer than two, or where one is not finite.
pub fn paired_interval(differences: &[f64]) -> Option<Interval> {
    let Summary { mean, sd, n } = summarise(differences);
    let half = half_width(sd? / (n as f64).sqrt(), (n - 1) as f64);
    (mean.is_finite() && half.is_finite()).then_some(Interval { mean, low: mean - half, high: mean + half, n })
}

/// The difference of the means of two independent samples, the second less the first, with its 95 % interval (Welch's
/// t: unequal variances, degrees of freedom after Welch and Satterthwaite); none where either has fewer than two values.
/// `n` counts both.
pub fn welch_interval(first: &[f64], second: &[f64]) -> Option<Interval> {
    let (a, b) = (summarise(first), summarise(second));
    let (va, vb) = (a.sd?.powi(2) / a.n as f64, b.sd?.powi(2) / b.n as f64);
    let freedom = (va + vb).powi(2) / (va.powi(2) / (a.n - 1) as f64 + vb.powi(2) / (b.n - 1) as f64);
    let mean = b.mean - a.mean;
    let half = half_width((va + vb).sqrt(), freedom);
    (mean.is_finite() && half.is_finite()).then_some(Interval {
        mean,
        low: mean - half,
        high: mean + half,
        n: a.n + b.n,
    })
}

/// Whether a difference of left and right side satisfies the comparison. Each relation is a half line, so an
/// interval satisfies (violates) it as a whole exactly when both of its ends do.
fn satisfies(difference: f64, relation: Relation) -> bool {
    match relation {
        Relation::Less => difference < 0.0,
        Relation::LessOrEqual => difference <= 0.0,
        Relation::Greater => difference > 0.0,
        Relation::GreaterOrEqual => difference >= 0.0,
    }
}

/// A number and its uncertainty, both to the uncertainty's second significant digit.
fn with_error(mean: f64, half: f64) -> (String, String) {
    if half == 0.0 {
        return (show(mean), "0".to_owned());
    }
    let digits = 1 - half.log10().floor() as i32;
    if !(0..=12).contains(&digits) {
        return (show(mean), show(half));
    }
    (format!("{mean:.*}", digits as usize), format!("{half:.*}", digits as usize))
}

/// Four significant digits, without a trailing run of zeros.
fn show(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    if !(0..=12).contains(&digits) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", digits as usize);
    match text.split_once('.') {
        Some((_, fraction)) if fraction.bytes().all(|byte| byte == b'0') => {
            text[..text.len() - fraction.len() - 1].to_owned()
        }
        Some(_) => text.trim_end_matches('0').to_owned(),
        None => text,
    }
}

/// The expression's value in one unit, some places on one axis; every number that is not there goes to `missing`.
fn number(
    expression: &Expression,
    within: Option<(usize, &[String])>,
    value: &Value<'_>,
    missing: &mut Vec<String>,
) -> Option<f64> {
    match expression {
        Expression::Number(number) => Some(*number),
        Expression::Measured { cells, pick, source } => {
            let mut found = Vec::new();
            let before = missing.len();
            let inside = |cell: &CellRef| match (cell.places().nth(within.map_or(0, |(level, _)| level)), within) {
                (None, _) => cell.replicate.is_none(),
                (Some(place), Some((_, group))) => group.iter().any(|known| known == place),
                (Some(_), None) => false,
            };
            for cell in cells.iter().filter(|cell| inside(cell)) {
                match value(cell.step, &cell.metric, *pick) {
                    Some(number) => found.push(number),
                    None => missing.push(match &cell.replicate {
                        Some(replicate) => format!("{source} ({replicate})"),
                        None => source.clone(),
                    }),
                }
            }
            if found.is_empty() && missing.len() == before {
                missing.push(source.clone());
            }
            (missing.len() == before).then(|| summarise(&found).mean)
        }
        Expression::Negated(inner) => number(inner, within, value, missing).map(|number| -number),
        Expression::Binary { operator, left, right } => {
            let left = number(left, within, value, missing);
            let right = number(right, within, value, missing);
            let (left, right) = (left?, right?);
            Some(match operator {
                Arithmetic::Add => left + right,
                Arithmetic::Subtract => left - right,
                Arithmetic::Multiply => left * right,
                Arithmetic::Divide => left / right,
            })
        }
        Expression::Call { function, arguments } => {
            let values: Vec<Option<f64>> =
                arguments.iter().map(|argument| number(argument, within, value, missing)).collect();
            let values: Vec<f64> = values.into_iter().collect::<Option<_>>()?;
            match function {
                Aggregate::Mean => Some(summarise(&values).mean),
                Aggregate::Sum => Some(values.iter().sum()),
                Aggregate::Max => values.into_iter().reduce(f64::max),
                Aggregate::Min => values.into_iter().reduce(f64::min),
            }
        }
    }
}
