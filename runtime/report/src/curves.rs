//! Curves as SVG: replicates thin, their mean thick, one colour for a label.

use crate::format::number;
use crate::model::{Figure, Line};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Colours of the page's style.
pub(crate) const COLOURS: usize = 8;
/// How lines are broken, when colours run out.
const DASHES: [&str; 4] =
    ["", " stroke-dasharray=\"7 4\"", " stroke-dasharray=\"2 3\"", " stroke-dasharray=\"9 3 2 3\""];
/// Points of a line beyond which it is thinned.
const MOST_POINTS: usize = 500;

/// Ticks at 1, 2 or 5 times a power of ten that cover the range.
pub(crate) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
    let first = (low / step).ceil();
    (0..20).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= high + step * 1e-9).collect()
}

/// Ticks as text, all with the digits that tell them apart; shares in percent.
pub(crate) fn texts(ticks: &[f64], percent: bool) -> Vec<String> {
    let scale = if percent { 100.0 } else { 1.0 };
    let unit = if percent { " %" } else { "" };
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::MAX, f64::min) * scale;
    let largest = ticks.iter().fold(0.0, |most: f64, tick| most.max(tick.abs())) * scale;
    if !(1e-6..1e7).contains(&step) || largest >= 1e7 {
        return ticks.iter().map(|tick| format!("{}{unit}", number(tick * scale, false))).collect();
    }
    // A step is 1, 2 or 5 times a power of ten.
    let decimals = (-(step * 1.0001).log10().floor()).max(0.0) as usize;
    let text = |tick: f64| format!("{:.decimals$}{unit}", tick * scale + 0.0);
    ticks.iter().map(|&tick| text(if (tick * scale).abs() < step / 1e6 { 0.0 } else { tick })).collect()
}

/// A range that can be drawn: numbers that hardly differ for their size get room around them.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let size = low.abs().max(high.abs());
    if high - low > size * 1e-9 {
        return (low, high);
    }
    let room = if size == 0.0 { 0.5 } else { size * 0.05 };
    (low - room, high + room)
}

/// The points that are numbers.
fn finite(line: &Line) -> Vec<(f64, f64)> {
    let points = line.x.iter().copied().zip(line.y.iter().copied());
    points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

/// Points that are not numbers.
fn lost(line: &Line) -> usize {
    line.x.len().max(line.y.len()) - finite(line).len()
}

/// At most [`MOST_POINTS`] of the points, with the extremes of every stretch, so that a spike stays visible.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
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

/// Mean over lines at the positions that all of them have.
fn mean(lines: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let mut sums: BTreeMap<u64, (f64, f64, usize)> = BTreeMap::new();
    for &(x, y) in lines.iter().flatten() {
        let sum = sums.entry(x.to_bits()).or_insert((x, 0.0, 0));
        (sum.1, sum.2) = (sum.1 + y, sum.2 + 1);
    }
    let all = sums.into_values().filter(|(_, _, count)| *count == lines.len());
    let mut points: Vec<(f64, f64)> = all.map(|(x, sum, count)| (x, sum / count as f64)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The figure as an SVG element; a sentence when there is nothing to draw.
pub fn svg(figure: &Figure) -> String {
    let lines: Vec<(&Line, Vec<(f64, f64)>)> = figure.lines.iter().map(|line| (line, finite(line))).collect();
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    if all.is_empty() {
        return "<p class=\"empty\">no points</p>".into();
    }
    let (x0, x1) = range(all.iter().map(|p| p.0));
    let (y0, y1) = range(all.iter().map(|p| p.1));
    let margin = (y1 - y0) * 0.06;
    let (y0, y1) = (y0 - margin, y1 + margin);
    let px = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let py = |y: f64| HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&figure.title));
    // Writing to a string cannot fail.
    let marks = ticks(y0, y1);
    for (&tick, text) in marks.iter().zip(texts(&marks, figure.percent)) {
        let y = py(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let mut marks = ticks(x0, x1);
    // Between two epochs there is none.
    if all.iter().all(|point| point.0.fract() == 0.0) {
        marks.retain(|tick| (tick - tick.round()).abs() < 1e-9);
    }
    for (&tick, text) in marks.iter().zip(texts(&marks, false)) {
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            px(tick),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = write!(
        out,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(&figure.x_label)
    );
    for (index, label) in labels(figure).iter().enumerate() {
        // More labels than colours: the same colours again, dashed.
        let dash = DASHES[index / COLOURS % DASHES.len()];
        let index = index % COLOURS;
        let members: Vec<Vec<(f64, f64)>> =
            lines.iter().filter(|(line, _)| &line.label == label).map(|(_, points)| points.clone()).collect();
        let mut draw = |points: &[(f64, f64)], class: &str| {
            if let [(x, y)] = points {
                let _ =
                    write!(out, "<circle class=\"dot c{index}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", px(*x), py(*y));
                return;
            }
            let path: Vec<String> =
                thinned(points).iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            let _ = write!(out, "<polyline class=\"{class} c{index}\"{dash} points=\"{}\"/>", path.join(" "));
        };
        if members.len() > 1 {
            members.iter().for_each(|points| draw(points, "thin"));
            draw(&mean(&members), "thick");
        } else {
            members.iter().for_each(|points| draw(points, "thick"));
        }
    }
    out.push_str("</svg>");
    let lost: usize = figure.lines.iter().map(lost).sum();
    if lost > 0 {
        let _ = write!(out, "<p class=\"small\">{lost} points are not numbers and are left out.</p>");
    }
    out
}

/// Labels of a figure in order of first appearance.
pub fn labels(figure: &Figure) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for line in &figure.lines {
        if !labels.contains(&line.label) {
            labels.push(line.label.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(x: &[f64], y: &[f64]) -> Line {
        Line { label: "a<b".into(), replicate: None, x: x.into(), y: y.into() }
    }

    #[test]
    fn odd_series_are_drawn_or_said_to_be_empty() {
        let figure = |lines| Figure { title: "t<i>".into(), x_label: "epoch".into(), percent: false, lines };
        assert!(svg(&figure(vec![])).contains("no points"));
        assert!(svg(&figure(vec![line(&[1.0], &[f64::NAN])])).contains("no points"));
        assert!(svg(&figure(vec![line(&[1.0], &[2.0])])).contains("<circle"));
        let flat = svg(&figure(vec![line(&[0.0, 1.0], &[2.0, 2.0]), line(&[0.0, 1.0], &[2.0, 2.0])]));
        assert!(flat.contains("thin") && flat.contains("thick") && !flat.contains("NaN") && !flat.contains("<i>"));
    }

    #[test]
    fn long_series_keep_their_spikes() {
        let x: Vec<f64> = (0..100_000).map(f64::from).collect();
        let mut y = vec![0.0; 100_000];
        y[77_777] = 9.0;
        let points = thinned(&finite(&line(&x, &y)));
        assert!(points.len() <= MOST_POINTS && points.contains(&(77_777.0, 9.0)), "{}", points.len());
    }

    #[test]
    fn means_are_taken_before_points_are_thinned() {
        let x: Vec<f64> = (0..2_000).map(f64::from).collect();
        let wave = |phase: f64| x.iter().map(|x| (x * 0.7 + phase).sin()).collect::<Vec<_>>();
        let lines = [finite(&line(&x, &wave(0.0))), finite(&line(&x, &wave(1.0)))];
        let mean = mean(&lines);
        assert_eq!(mean.len(), 2_000);
        assert!((mean[3].1 - (lines[0][3].1 + lines[1][3].1) / 2.0).abs() < 1e-15);
        let figure = Figure { lines: vec![line(&x, &wave(0.0)), line(&x, &wave(1.0))], ..Figure::default() };
        let svg = svg(&figure);
        let thick = svg.split("class=\"thick").nth(1).unwrap().split('"').nth(2).unwrap();
        assert!(thick.split(' ').count() > 100, "{thick}");
    }

    #[test]
    fn numbers_that_hardly_differ_can_be_read() {
        let figure = Figure { lines: vec![line(&[0.0, 1.0], &[1e6, 1e6 + 1e-7])], ..Figure::default() };
        let svg = svg(&figure);
        assert!(svg.matches("class=\"tick\"").count() >= 6 && !svg.contains("inf"), "{svg}");
        assert!(ticks(0.0, 1e-300).len() > 2);
    }

    #[test]
    fn ticks_have_equally_many_digits() {
        assert_eq!(texts(&[1.8, 2.0, 2.2], false), ["1.8", "2.0", "2.2"]);
        assert_eq!(texts(&[0.34, 0.35, 0.36], true), ["34 %", "35 %", "36 %"]);
        assert_eq!(texts(&[0.0, 0.005, 0.01], true), ["0.0 %", "0.5 %", "1.0 %"]);
        assert_eq!(texts(&[-0.5, -1e-17, 0.5], false), ["-0.5", "0.0", "0.5"]);
        assert_eq!(texts(&[0.0, 20.0, 40.0], false), ["0", "20", "40"]);
        assert_eq!(texts(&[1e9, 2e9], false), ["1000000000", "2000000000"]);
    }

    #[test]
    fn lost_points_are_counted_and_labels_stay_apart() {
        let mut lines = vec![line(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 2.0])];
        for at in 0..9 {
            lines.push(Line { label: format!("l{at}"), ..line(&[1.0, 2.0], &[0.0, 1.0]) });
        }
        let svg = svg(&Figure { lines, ..Figure::default() });
        assert!(svg.contains("1 points are not numbers"));
        let strokes: Vec<&str> = svg.split("<polyline ").skip(1).map(|p| p.split(" points").next().unwrap()).collect();
        let distinct: std::collections::BTreeSet<&&str> = strokes.iter().collect();
        assert_eq!((strokes.len(), distinct.len()), (10, 10));
    }
}
