//! Curves as SVG: replicates thin, their mean thick, one colour for a label.

use crate::format::number;
use crate::model::{Figure, Line};
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Points of a line beyond which it is thinned.
const MOST_POINTS: usize = 500;

/// Ticks at 1, 2 or 5 times a power of ten that cover the range.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).take(20).map(|i| i as f64 * step).collect()
}

fn finite(line: &Line) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> =
        line.x.iter().copied().zip(line.y.iter().copied()).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    if points.len() <= MOST_POINTS {
        return points;
    }
    // Keep the extremes of every stretch, so that a spike stays visible.
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
    let Some(first) = lines.first() else { return Vec::new() };
    first
        .iter()
        .filter_map(|&(x, _)| {
            let values: Option<Vec<f64>> =
                lines.iter().map(|line| line.iter().find(|point| point.0 == x).map(|point| point.1)).collect();
            values.map(|values| (x, values.iter().sum::<f64>() / values.len() as f64))
        })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The figure as an SVG element; a sentence when there is nothing to draw.
pub fn svg(figure: &Figure) -> String {
    let lines: Vec<(&Line, Vec<(f64, f64)>)> = figure.lines.iter().map(|line| (line, finite(line))).collect();
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    if all.is_empty() {
        return "<p class=\"empty\">no points</p>".into();
    }
    let range = |values: Vec<f64>| {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        if high - low < 1e-12 { (low - 0.5, high + 0.5) } else { (low, high) }
    };
    let (x0, x1) = range(all.iter().map(|p| p.0).collect());
    let (y0, y1) = range(all.iter().map(|p| p.1).collect());
    let margin = (y1 - y0) * 0.06;
    let (y0, y1) = (y0 - margin, y1 + margin);
    let px = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let py = |y: f64| HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&figure.title));
    // Writing to a string cannot fail.
    for tick in ticks(y0, y1) {
        let y = py(tick);
        let text = if figure.percent { format!("{}", (tick * 1000.0).round() / 10.0) } else { number(tick, false) };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    for tick in ticks(x0, x1) {
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            px(tick),
            HEIGHT - BOTTOM + 18.0,
            number(tick, false)
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
        let index = index % 8;
        let members: Vec<Vec<(f64, f64)>> =
            lines.iter().filter(|(line, _)| &line.label == label).map(|(_, points)| points.clone()).collect();
        let mut draw = |points: &[(f64, f64)], class: &str| {
            if let [(x, y)] = points {
                let _ =
                    write!(out, "<circle class=\"dot c{index}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", px(*x), py(*y));
                return;
            }
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            let _ = write!(out, "<polyline class=\"{class} c{index}\" points=\"{}\"/>", path.join(" "));
        };
        if members.len() > 1 {
            members.iter().for_each(|points| draw(points, "thin"));
            draw(&mean(&members), "thick");
        } else {
            members.iter().for_each(|points| draw(points, "thick"));
        }
    }
    out.push_str("</svg>");
    out
}

/// Labels of a figure in order of first appearance; at most eight have a colour of their own.
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
        let points = finite(&line(&x, &y));
        assert!(points.len() <= MOST_POINTS && points.contains(&(77_777.0, 9.0)), "{}", points.len());
    }
}
