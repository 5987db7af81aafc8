//! Declared figures of numbers as SVG: bars with their spread and every single value, or points over another number.

use crate::curves::{COLOURS, escape, range, texts, ticks};
use crate::format::statistics;
use crate::model::{Chart, Mark};
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 56.0;
/// Characters of a bar's label that fit under it.
const FITS: usize = 18;

fn finite(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|value| value.is_finite()).collect()
}

/// The values of a mark, its mean, and its mean less and plus one standard deviation.
fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    statistics(&finite(values)).map(|(mean, sd, _)| (mean, mean - sd.unwrap_or(0.0), mean + sd.unwrap_or(0.0)))
}

/// The vertical axis over these values; bars begin at zero.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, out: &mut String, label: &str, percent: bool) {
        let marks = ticks(self.low, self.high);
        for (&tick, text) in marks.iter().zip(texts(&marks, percent)) {
            let y = self.y(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">{}</text>",
            escape(label)
        );
    }
}

/// Names of what is measured, in order of first appearance: a colour each.
pub fn series(chart: &Chart) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for mark in &chart.marks {
        if !names.contains(&mark.series) {
            names.push(mark.series.clone());
        }
    }
    names
}

/// The chart as an SVG element; a sentence when there is nothing to draw.
pub fn svg(chart: &Chart) -> String {
    let drawn: Vec<&Mark> = chart
        .marks
        .iter()
        .filter(|mark| spread(&mark.values).is_some() && (chart.x_label.is_none() || spread(&mark.x).is_some()))
        .collect();
    if drawn.is_empty() {
        return "<p class=\"empty\">no numbers yet</p>".into();
    }
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&chart.title));
    match &chart.x_label {
        None => bars(&mut out, chart, &drawn),
        Some(label) => points(&mut out, chart, &drawn, label),
    }
    out.push_str("</svg>");
    let missing = chart.marks.len() - drawn.len();
    if missing > 0 {
        let _ = write!(out, "<p class=\"small\">{missing} of {} have no number.</p>", chart.marks.len());
    }
    out
}

fn extent<'a>(values: impl Iterator<Item = &'a [f64]>) -> (f64, f64) {
    let ends = values.flat_map(|values| {
        let spread = spread(values).map(|(_, low, high)| [low, high]);
        finite(values).into_iter().chain(spread.into_iter().flatten()).collect::<Vec<f64>>()
    });
    range(ends)
}

fn colour(chart: &Chart, mark: &Mark) -> usize {
    series(chart).iter().position(|name| *name == mark.series).unwrap_or(0) % COLOURS
}

fn bars(out: &mut String, chart: &Chart, drawn: &[&Mark]) {
    let (low, high) = extent(drawn.iter().map(|mark| mark.values.as_slice()));
    // A bar's length is its value, so it begins at zero.
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = Scale { low, high: high + (high - low) * 0.06 };
    scale.draw(out, &chart.y_label, chart.percent);
    let mut labels: Vec<&str> = Vec::new();
    drawn.iter().for_each(|mark| {
        if !labels.contains(&mark.label.as_str()) {
            labels.push(&mark.label);
        }
    });
    let many = series(chart).len();
    let place = (WIDTH - LEFT - RIGHT) / labels.len() as f64;
    let width = (place * 0.7 / many as f64).min(64.0);
    for (at, label) in labels.iter().enumerate() {
        let middle = LEFT + (at as f64 + 0.5) * place;
        let count = label.chars().count();
        let fits = ((place / 6.5) as usize).clamp(3, FITS.max(count));
        let short: String = if count > fits {
            label.chars().take(fits.saturating_sub(1)).chain(['…']).collect()
        } else {
            (*label).into()
        };
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\"><title>{}</title>{}</text>",
            HEIGHT - BOTTOM + 18.0,
            escape(label),
            escape(&short)
        );
        for mark in drawn.iter().filter(|mark| mark.label == *label) {
            let Some((mean, low, high)) = spread(&mark.values) else { continue };
            let number = series(chart).iter().position(|name| *name == mark.series).unwrap_or(0);
            let x = middle + (number as f64 - (many as f64 - 1.0) / 2.0) * width;
            let (top, bottom) = (scale.y(mean.max(0.0)), scale.y(mean.min(0.0)));
            let _ = write!(
                out,
                "<rect class=\"bar-of c{}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: {}</title></rect>",
                colour(chart, mark),
                x - width * 0.45,
                width * 0.9,
                (bottom - top).max(0.5),
                escape(label),
                crate::format::number(mean, chart.percent)
            );
            let _ = write!(
                out,
                "<line class=\"whisker\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                scale.y(low),
                scale.y(high)
            );
            let values = finite(&mark.values);
            for (index, value) in values.iter().enumerate() {
                // Side by side, so that equal values stay visible.
                let aside = (index as f64 - (values.len() as f64 - 1.0) / 2.0) * (width * 0.5 / values.len() as f64);
                let _ = write!(
                    out,
                    "<circle class=\"single\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>",
                    x + aside,
                    scale.y(*value)
                );
            }
        }
    }
}

fn points(out: &mut String, chart: &Chart, drawn: &[&Mark], label: &str) {
    let room = |(low, high): (f64, f64)| (low - (high - low) * 0.08, high + (high - low) * 0.08);
    let (low, high) = room(extent(drawn.iter().map(|mark| mark.values.as_slice())));
    let (left, right) = room(extent(drawn.iter().map(|mark| mark.x.as_slice())));
    let scale = Scale { low, high };
    scale.draw(out, &chart.y_label, chart.percent);
    let px = |x: f64| LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let marks = ticks(left, right);
    for (&tick, text) in marks.iter().zip(texts(&marks, chart.x_percent)) {
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
        HEIGHT - 12.0,
        escape(label)
    );
    for mark in drawn {
        let (Some((y, y0, y1)), Some((x, x0, x1))) = (spread(&mark.values), spread(&mark.x)) else { continue };
        for (a, b, c, d) in [(x0, x1, y, y), (x, x, y0, y1)] {
            let _ = write!(
                out,
                "<line class=\"whisker\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                px(a),
                px(b),
                scale.y(c),
                scale.y(d)
            );
        }
        // Replicates come in pairs where both were measured.
        if mark.x.len() == mark.values.len() {
            for (x, y) in mark.x.iter().zip(&mark.values).filter(|(x, y)| x.is_finite() && y.is_finite()) {
                let _ =
                    write!(out, "<circle class=\"single\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"/>", px(*x), scale.y(*y));
            }
        }
        let _ = write!(
            out,
            "<circle class=\"dot c{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/>",
            colour(chart, mark),
            px(x),
            scale.y(y)
        );
        let (anchor, aside) = if px(x) > WIDTH * 0.75 { ("end", -8.0) } else { ("start", 8.0) };
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            px(x) + aside,
            scale.y(y) - 7.0,
            escape(&mark.label)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(label: &str, values: &[f64], x: &[f64]) -> Mark {
        Mark { label: label.into(), series: "nn.top1".into(), values: values.into(), x: x.into() }
    }

    #[test]
    fn bars_show_every_value_and_say_what_is_missing() {
        let marks = vec![mark("a<b", &[0.2, 0.3, 0.4], &[]), mark("none", &[f64::NAN], &[]), mark("one", &[0.1], &[])];
        let chart = Chart { title: "t".into(), percent: true, marks, ..Chart::default() };
        let svg = svg(&chart);
        assert_eq!((svg.matches("<rect").count(), svg.matches("class=\"single\"").count()), (2, 4));
        assert!(svg.contains("1 of 3 have no number") && svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        // Zero belongs to the axis of bars.
        assert!(svg.contains(">0 %<"), "{svg}");
    }

    #[test]
    fn points_need_both_numbers() {
        let chart = |marks| Chart { x_label: Some("video.jf".into()), marks, ..Chart::default() };
        let both = svg(&chart(vec![mark("a", &[1.0, 2.0], &[3.0, 4.0]), mark("b", &[1.0], &[])]));
        assert_eq!(both.matches("class=\"dot").count(), 1);
        assert!(svg(&chart(vec![mark("b", &[1.0], &[])])).contains("no numbers yet"));
        // Equal numbers are still drawn.
        assert!(!svg(&chart(vec![mark("a", &[1.0], &[1.0])])).contains("NaN"));
    }
}
