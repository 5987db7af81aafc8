//! Ranges, means and labels that figures are drawn from.

use crate::format::{number, statistics};
use crate::model::Line;
use std::collections::BTreeMap;

/// Points of a line beyond which it is thinned.
const MOST_POINTS: usize = 500;

/// A tick as text, with no more digits than it needs.
pub(super) fn tick(value: f64) -> String {
    if value == 0.0 || (1e-4..1e7).contains(&value.abs()) {
        let text = format!("{value:.5}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return if text == "-0" { "0".into() } else { text.replace('-', "−") };
    }
    number(value, false)
}

/// A range that can be drawn: numbers that hardly differ for their size get room around them.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let size = low.abs().max(high.abs());
    if high - low > size * 1e-9 {
        return (low, high);
    }
    let room = if size == 0.0 { 0.5 } else { size * 0.05 };
    (low - room, high + room)
}

/// The same with a share of it to each side.
pub(super) fn room(values: impl Iterator<Item = f64>, share: f64) -> (f64, f64) {
    let (low, high) = range(values);
    (low - (high - low) * share, high + (high - low) * share)
}

/// The points that are numbers.
pub(super) fn finite(line: &Line, scale: f64) -> Vec<(f64, f64)> {
    let points = line.x.iter().copied().zip(line.y.iter().copied());
    points.filter(|(x, y)| x.is_finite() && y.is_finite()).map(|(x, y)| (x, y * scale)).collect()
}

/// The mean of the values, and it less and plus one standard deviation (n − 1).
pub(super) fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    statistics(&finite).map(|(mean, sd, _)| (mean, mean - sd.unwrap_or(0.0), mean + sd.unwrap_or(0.0)))
}

/// At most [`MOST_POINTS`] of the points, with the extremes of every stretch, so that a spike stays visible.
pub(super) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let mut pair: Vec<(f64, f64)> =
                chunk.iter().min_by(by).into_iter().chain(chunk.iter().max_by(by)).copied().collect();
            pair.sort_by(|a, b| a.0.total_cmp(&b.0));
            pair.dedup();
            pair
        })
        .collect()
}

/// Mean and standard deviation over lines at the positions that all of them have.
pub(super) fn curve_mean(lines: &[&Vec<(f64, f64)>]) -> Vec<(f64, f64, f64)> {
    let mut values: BTreeMap<u64, (f64, Vec<f64>)> = BTreeMap::new();
    for &(x, y) in lines.iter().copied().flatten() {
        values.entry(x.to_bits()).or_insert((x, Vec::new())).1.push(y);
    }
    let all = values.into_values().filter(|(_, values)| values.len() == lines.len());
    let mut points: Vec<(f64, f64, f64)> =
        all.filter_map(|(x, values)| statistics(&values).map(|(mean, sd, _)| (x, mean, sd.unwrap_or(0.0)))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Labels in order of first appearance.
pub(super) fn labels(lines: &[Line]) -> Vec<&str> {
    super::distinct(lines.iter().map(|line| line.label.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_the_digits_they_need() {
        assert_eq!(
            [0.0, -0.0, 25.0, 0.25, -12.5, 1e-3, 1e9].map(tick),
            ["0", "0", "25", "0.25", "−12.5", "0.001", "1000000000"]
        );
    }

    #[test]
    fn means_are_over_positions_that_all_lines_have() {
        let (a, b) = (vec![(1.0, 1.0), (2.0, 2.0)], vec![(1.0, 3.0)]);
        assert_eq!(curve_mean(&[&a, &b]), [(1.0, 2.0, std::f64::consts::SQRT_2)]);
    }

    #[test]
    fn a_spike_survives_thinning_and_equal_numbers_have_a_range() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        points[7777].1 = 9.0;
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.contains(&(7777.0, 9.0)));
        assert_eq!(range([2.0, 2.0].into_iter()), (1.9, 2.1));
        assert_eq!(range([0.0].into_iter()), (-0.5, 0.5));
    }
}
