//! Figures as files for a paper, and as what a page shows before its script has run, without one, and on paper: SVG drawn
//! by plotters, and PDF made of it by svg2pdf with a font that travels with this crate.

mod numbers;

use crate::model::{Difference, Drawing, Figure, Group, Line, Mark};
use numbers::{curve_mean, finite, labels, room, spread, thinned, tick};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::{Arc, LazyLock};

/// Plotters knows whole pixels only: everything is drawn so many times larger.
const SCALE: i32 = 4;
/// Width of a figure in points.
pub const WIDTH: i32 = 640;
/// Height of the part with axes, where rows do not decide it.
const HEIGHT: i32 = 300;
/// What labels are set in; Liberation Sans has the widths of the other two.
const FAMILY: &str = "Liberation Sans, Arial, Helvetica, sans-serif";
/// Classes beyond which a row for each is too long for a page.
pub const MOST_ROWS: usize = 40;
/// Classes up to which a confusion matrix has its numbers written in.
pub const MOST_NUMBERS: usize = 12;

/// Colours that stay apart for people who see fewer of them (Okabe and Ito 2008; their yellow, too pale on white, is left
/// out and a brown and a grey are added). The page's script has the same.
pub const COLOURS: [(u8, u8, u8); 8] = [
    (0x00, 0x72, 0xb2),
    (0xd5, 0x5e, 0x00),
    (0x00, 0x9e, 0x73),
    (0xb4, 0x5c, 0x8c),
    (0xe0, 0x95, 0x00),
    (0x3a, 0xa0, 0xdc),
    (0x7a, 0x4a, 0x20),
    (0x6b, 0x72, 0x78),
];
const INK: RGBColor = RGBColor(0x1c, 0x20, 0x24);
const SOFT: RGBColor = RGBColor(0x60, 0x68, 0x70);
const GRID: RGBColor = RGBColor(0xdf, 0xe3, 0xe7);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// Why a figure could not be drawn or turned into a PDF.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake in how it is drawn.
    #[error("the figure `{0}` cannot be drawn: {1}")]
    Drawing(String, String),
    /// The SVG is none.
    #[error("the figure `{0}` cannot be read back: {1}")]
    Svg(String, #[source] Box<svg2pdf::usvg::Error>),
    /// The PDF cannot be written.
    #[error("the figure `{0}` cannot be made a PDF: {1}")]
    Pdf(String, String),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// A mean, and it less and plus one standard deviation.
type Spread = (f64, f64, f64);
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn colour(index: usize) -> RGBColor {
    let (r, g, b) = COLOURS[index % COLOURS.len()];
    RGBColor(r, g, b)
}

fn font(size: i32, colour: &RGBColor) -> TextStyle<'static> {
    // Plotters writes 1 / 1.24 of the size it is given.
    (FAMILY, f64::from(size * SCALE) * 1.24).into_font().color(colour)
}

fn anchored(size: i32, colour: &RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    font(size, colour).pos(Pos::new(h, v))
}

fn line(colour: &impl Color, width: i32) -> ShapeStyle {
    colour.stroke_width((width * SCALE / 2) as u32)
}

/// About how wide a text of 12 points is, in points.
fn width_of(text: &str) -> i32 {
    (text.chars().count() as f64 * 6.4).ceil() as i32
}

/// The figure as an SVG document of its own; none when there is no number to draw.
///
/// # Errors
/// Only a mistake of this crate.
pub fn svg(figure: &Figure) -> Result<Option<String>, Error> {
    let scale = if figure.percent { 100.0 } else { 1.0 };
    let mut text = String::new();
    let drawn =
        match &figure.drawing {
            Drawing::Curves { lines } => curves(&mut text, figure, lines, scale),
            Drawing::Bars { marks } => {
                let names = distinct(marks.iter().map(|mark| mark.label.as_str()));
                let series = distinct(marks.iter().map(|mark| mark.series.as_str()));
                let entries = marks.iter().filter_map(|mark| {
                    let (mean, low, high) = spread(&mark.values)?;
                    Some(Entry {
                        row: names.iter().position(|name| *name == mark.label)?,
                        series: series.iter().position(|name| *name == mark.series)?,
                        mean,
                        low,
                        high,
                        values: &mark.values,
                    })
                });
                rows(&mut text, figure, &names, &series, &entries.collect::<Vec<_>>(), true, scale)
            }
            Drawing::Differences { rows: differences } => {
                let names: Vec<&str> = differences.iter().map(|row| row.label.as_str()).collect();
                let series = distinct(differences.iter().map(|row| row.series.as_str()));
                let entries: Vec<Entry<'_>> =
                    differences.iter().enumerate().filter_map(|(at, row)| difference(at, row, &series)).collect();
                rows(&mut text, figure, &names, &series, &entries, false, scale)
            }
            Drawing::Points { x_percent, marks } => points(&mut text, figure, marks, scale, *x_percent),
            Drawing::Classes { classes, groups } if classes.len() <= MOST_ROWS => {
                let names: Vec<&str> = classes.iter().map(String::as_str).collect();
                let series: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
                let values: Vec<(usize, usize, Vec<f64>)> = of_classes(groups, classes.len());
                let entries = values.iter().filter_map(|(row, series, values)| {
                    let (mean, low, high) = spread(values)?;
                    Some(Entry { row: *row, series: *series, mean, low, high, values })
                });
                rows(&mut text, figure, &names, &series, &entries.collect::<Vec<_>>(), true, scale)
            }
            // A row for each would not fit: over the class's place.
            Drawing::Classes { groups, .. } => {
                let lines: Vec<Line> = groups
                    .iter()
                    .flat_map(|group| {
                        group.values.iter().map(|values| Line {
                            label: group.label.clone(),
                            replicate: None,
                            x: (0..values.len()).map(|at| at as f64).collect(),
                            y: values.clone(),
                        })
                    })
                    .collect();
                curves(&mut text, figure, &lines, scale)
            }
            Drawing::Histogram { classes, counts } if classes.len() <= MOST_ROWS => {
                let names: Vec<&str> = classes.iter().map(String::as_str).collect();
                let entries = counts
                    .iter()
                    .enumerate()
                    .filter(|(_, count)| count.is_finite())
                    .map(|(row, count)| Entry { row, series: 0, mean: *count, low: *count, high: *count, values: &[] });
                rows(&mut text, figure, &names, &[""], &entries.collect::<Vec<_>>(), true, scale)
            }
            Drawing::Histogram { counts, .. } => tail(&mut text, figure, counts),
            Drawing::Confusion { classes, counts } => confusion(&mut text, classes, counts),
        };
    match drawn {
        Ok(true) => Ok(Some(titled(figure, text))),
        Ok(false) => Ok(None),
        Err(error) => Err(Error::Drawing(figure.name.clone(), error.to_string())),
    }
}

/// The figure as a PDF of one page of its size; none when there is no number to draw. Texts stay texts, in Liberation
/// Sans, which is embedded.
///
/// # Errors
/// Only a mistake of this crate.
pub fn pdf(figure: &Figure) -> Result<Option<Vec<u8>>, Error> {
    use svg2pdf::usvg;
    static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(include_bytes!("../../vendor/liberation/LiberationSans-Regular.ttf").to_vec());
        fonts.set_sans_serif_family("Liberation Sans");
        Arc::new(fonts)
    });
    let Some(svg) = svg(figure)? else { return Ok(None) };
    let options = usvg::Options { fontdb: FONTS.clone(), ..usvg::Options::default() };
    let tree =
        usvg::Tree::from_str(&svg, &options).map_err(|error| Error::Svg(figure.name.clone(), Box::new(error)))?;
    let page = svg2pdf::PageOptions { dpi: 72.0 };
    let bytes = svg2pdf::to_pdf(&tree, svg2pdf::ConversionOptions::default(), page);
    bytes.map(Some).map_err(|error| Error::Pdf(figure.name.clone(), error.to_string()))
}

/// Names in order of first appearance.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    names.for_each(|name| {
        if !found.contains(&name) {
            found.push(name);
        }
    });
    found
}

/// Values by class and group.
fn of_classes(groups: &[Group], classes: usize) -> Vec<(usize, usize, Vec<f64>)> {
    let mut found = Vec::new();
    for class in 0..classes {
        for (at, group) in groups.iter().enumerate() {
            found.push((class, at, group.values.iter().filter_map(|values| values.get(class).copied()).collect()));
        }
    }
    found
}

fn difference<'a>(row: usize, difference: &'a Difference, series: &[&str]) -> Option<Entry<'a>> {
    let at = series.iter().position(|name| *name == difference.series)?;
    let (mean, low, high) = match difference.interval {
        Some(interval) => (interval.mean, interval.low, interval.high),
        None => spread(&difference.values).map(|(mean, ..)| (mean, mean, mean))?,
    };
    mean.is_finite().then_some(Entry { row, series: at, mean, low, high, values: &difference.values })
}

/// A drawn SVG with a title for readers of screens, in points, so that a page and a paper place it right.
fn titled(figure: &Figure, text: String) -> String {
    let body = text.find('>').map_or("", |at| &text[at + 1..]);
    let size = |name: &str| {
        let rest = text.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
        rest.split('"').next().and_then(|digits| digits.parse::<i32>().ok()).unwrap_or(WIDTH * SCALE)
    };
    let (width, height) = (size("width"), size("height"));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>{body}",
        width / SCALE,
        height / SCALE,
        crate::format::escape(&figure.title),
    )
}

fn canvas(text: &mut String, height: i32) -> Area<'_> {
    SVGBackend::with_string(text, ((WIDTH * SCALE) as u32, (height * SCALE) as u32)).into_drawing_area()
}

/// How the names of the series fall on lines above the figure: offset and line of each, and the height of all.
fn legend_places(names: &[&str]) -> (Vec<(i32, i32)>, i32) {
    if names.len() < 2 {
        return (Vec::new(), 6);
    }
    let (mut x, mut row, mut places) = (8, 0, Vec::new());
    for name in names {
        let width = width_of(name) + 34;
        if x + width > WIDTH && x > 8 {
            (x, row) = (8, row + 1);
        }
        places.push((x, row));
        x += width;
    }
    (places, (row + 1) * 18 + 6)
}

/// Names with their colours; curves show their line, everything else its mark.
fn legend(area: &Area<'_>, names: &[&str], lines: bool) -> Drawn {
    let (places, _) = legend_places(names);
    for (index, ((x, row), name)) in places.into_iter().zip(names).enumerate() {
        let (x, y) = (x * SCALE, (row * 18 + 12) * SCALE);
        if lines {
            for part in dashes(&[(f64::from(x), f64::from(y)), (f64::from(x + 18 * SCALE), f64::from(y))], index) {
                let part: Vec<(i32, i32)> = part.iter().map(|(x, y)| (*x as i32, *y as i32)).collect();
                area.draw(&PathElement::new(part, line(&colour(index), 4)))?;
            }
        } else {
            let box_ = [(x + 4 * SCALE, y - 5 * SCALE), (x + 14 * SCALE, y + 5 * SCALE)];
            area.draw(&Rectangle::new(box_, colour(index).filled()))?;
        }
        let style = anchored(12, &INK, HPos::Left, VPos::Center);
        area.draw(&Text::new((*name).to_string(), (x + 22 * SCALE, y), style))?;
    }
    Ok(())
}

/// A line as the parts that are drawn: whole, or broken in one of three ways, so that lines are told apart without
/// colours too. Positions are pixels.
fn dashes(points: &[(f64, f64)], index: usize) -> Vec<Vec<(f64, f64)>> {
    let pattern: &[f64] = match index % 4 {
        0 => return vec![points.to_vec()],
        1 => &[9.0, 4.0],
        2 => &[2.5, 3.0],
        _ => &[9.0, 3.0, 2.5, 3.0],
    };
    let pattern: Vec<f64> = pattern.iter().map(|length| length * f64::from(SCALE)).collect();
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let (mut at, mut left) = (0, pattern[0]);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let step = length.min(left);
            let share = if length > 0.0 { step / length } else { 1.0 };
            let next = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            if at % 2 == 0 {
                if part.is_empty() {
                    part.push(from);
                }
                part.push(next);
            }
            left -= step;
            from = next;
            if left > 1e-9 {
                break;
            }
            if at % 2 == 0 {
                parts.push(std::mem::take(&mut part));
            }
            at = (at + 1) % pattern.len();
            left = pattern[at];
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// A number's name with its unit.
fn unit(label: &str, percent: bool) -> String {
    match (label.is_empty(), percent) {
        (_, false) => label.into(),
        (true, true) => "%".into(),
        (false, true) => format!("{label}, %"),
    }
}

/// Axes with numbers on both sides.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    figure: &Figure,
    x: (f64, f64),
    y: (f64, f64),
    x_label: &str,
) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin_right(14 * SCALE)
        .margin_top(6 * SCALE)
        .x_label_area_size(40 * SCALE)
        .y_label_area_size(58 * SCALE)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(line(&GRID, 2))
        .axis_style(line(&GRID, 2))
        .label_style(font(12, &SOFT))
        .axis_desc_style(font(12, &SOFT))
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| tick(*value))
        .x_desc(x_label)
        .y_desc(unit(&figure.y_label, figure.percent))
        .draw()?;
    Ok(chart)
}

fn curves(text: &mut String, figure: &Figure, lines: &[Line], scale: f64) -> Result<bool, Box<dyn std::error::Error>> {
    let scaled: Vec<(&str, Vec<(f64, f64)>)> =
        lines.iter().map(|line| (line.label.as_str(), finite(line, scale))).collect();
    let all = || scaled.iter().flat_map(|(_, points)| points.iter());
    if all().next().is_none() {
        return Ok(false);
    }
    let names = labels(lines);
    let x = numbers::range(all().map(|point| point.0));
    let y = room(all().map(|point| point.1), 0.06);
    let (_, top) = legend_places(&names);
    let root = canvas(text, top + HEIGHT);
    let (above, below) = root.split_vertically(top * SCALE);
    legend(&above, &names, true)?;
    let chart = axes(&below, figure, x, y, &figure.x_label)?;
    let plot = chart.plotting_area();
    for (index, name) in names.iter().enumerate() {
        let members: Vec<&Vec<(f64, f64)>> =
            scaled.iter().filter(|(label, _)| label == name).map(|(_, points)| points).collect();
        let mean = curve_mean(&members);
        if members.len() > 1 {
            let upper = mean.iter().map(|(x, mean, sd)| (*x, mean + sd));
            let lower = mean.iter().rev().map(|(x, mean, sd)| (*x, mean - sd));
            let band: Vec<(f64, f64)> = upper.chain(lower).map(|(x, v)| (x, v.clamp(y.0, y.1))).collect();
            if mean.len() > 1 {
                plot.draw(&Polygon::new(band, colour(index).mix(0.16)))?;
            }
            for points in &members {
                plot.draw(&PathElement::new(thinned(points), line(&colour(index).mix(0.45), 1)))?;
            }
        }
        let points: Vec<(f64, f64)> = mean.iter().map(|(x, mean, _)| (*x, *mean)).collect();
        if let [only] = points.as_slice() {
            plot.draw(&Circle::new(*only, 3 * SCALE, colour(index).filled()))?;
        }
        let pixels: Vec<(f64, f64)> = thinned(&points)
            .iter()
            .map(|point| plot.map_coordinate(point))
            .map(|(x, y)| (f64::from(x), f64::from(y)))
            .collect();
        for part in dashes(&pixels, index).into_iter().filter(|part| part.len() > 1) {
            let part: Vec<(i32, i32)> = part.iter().map(|(x, y)| (x.round() as i32, y.round() as i32)).collect();
            root.draw(&PathElement::new(part, line(&colour(index), 4)))?;
        }
    }
    root.present()?;
    Ok(true)
}

/// One mark of a figure with rows.
struct Entry<'a> {
    row: usize,
    series: usize,
    mean: f64,
    low: f64,
    high: f64,
    values: &'a [f64],
}

/// A row for each name from the top, its label at the left: bars from zero (`bars`), or points around zero.
fn rows(
    text: &mut String,
    figure: &Figure,
    names: &[&str],
    series: &[&str],
    entries: &[Entry<'_>],
    bars: bool,
    scale: f64,
) -> Result<bool, Box<dyn std::error::Error>> {
    if entries.is_empty() {
        return Ok(false);
    }
    let values = entries
        .iter()
        .flat_map(|entry| [entry.mean, entry.low, entry.high, 0.0].into_iter().chain(entry.values.iter().copied()));
    let values: Vec<f64> = values.filter(|value| value.is_finite()).map(|value| value * scale).collect();
    let (mut low, mut high) = room(values.iter().copied(), 0.05);
    if bars && values.iter().all(|value| *value >= 0.0) {
        low = 0.0;
    }
    if bars && values.iter().all(|value| *value <= 0.0) {
        high = 0.0;
    }
    // Of differences each row stands alone; of bars every series has its own place in a row.
    let lanes = if bars { series.len().max(1) } else { 1 };
    let lane = if lanes == 1 { 22 } else { 15 };
    let height = names.len() as i32 * (lanes as i32 * lane + if lanes == 1 { 0 } else { 8 });
    let (_, top) = legend_places(series);
    let most = WIDTH * 2 / 5;
    let left = names.iter().map(|name| width_of(name)).max().unwrap_or(0).min(most) + 14;
    let root = canvas(text, top + height + 50);
    let (above, below) = root.split_vertically(top * SCALE);
    legend(&above, series, false)?;
    let count = names.len() as f64;
    let mut chart = ChartBuilder::on(&below)
        .margin_right(14 * SCALE)
        .margin_top(4 * SCALE)
        .x_label_area_size(40 * SCALE)
        .y_label_area_size(left * SCALE)
        .build_cartesian_2d(low..high, 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(line(&GRID, 2))
        .axis_style(line(&GRID, 2))
        .label_style(font(12, &SOFT))
        .axis_desc_style(font(12, &SOFT))
        .x_labels(7)
        .y_labels(0)
        .x_label_formatter(&|value| tick(*value))
        .x_desc(unit(&figure.y_label, figure.percent))
        .draw()?;
    let plot = chart.plotting_area();
    if low < 0.0 && high > 0.0 || !bars {
        plot.draw(&PathElement::new(vec![(0.0, 0.0), (0.0, count)], line(&SOFT, 2)))?;
    }
    for (row, name) in names.iter().enumerate() {
        let fits = ((left - 14) as f64 / 6.4).floor() as usize;
        let short: String = if name.chars().count() > fits {
            name.chars().take(fits.saturating_sub(1)).chain(['…']).collect()
        } else {
            (*name).to_string()
        };
        let (_, y) = plot.map_coordinate(&(low, count - row as f64 - 0.5));
        root.draw(&Text::new(short, ((left - 8) * SCALE, y), anchored(12, &INK, HPos::Right, VPos::Center)))?;
    }
    for entry in entries {
        let size = 0.74 / lanes as f64;
        let own = if bars { entry.series } else { 0 };
        let middle = count - entry.row as f64 - 0.5 - (own as f64 - (lanes as f64 - 1.0) / 2.0) * size;
        let (mean, from, to) = (entry.mean * scale, entry.low * scale, entry.high * scale);
        let (x, y) = plot.map_coordinate(&(mean, middle));
        let (x0, y0) = plot.map_coordinate(&(0.0_f64.clamp(low, high), middle + size * 0.42));
        let (_, y1) = plot.map_coordinate(&(mean, middle - size * 0.42));
        if bars {
            root.draw(&Rectangle::new(
                [(x0.min(x), y0.min(y1)), (x0.max(x), y0.max(y1))],
                colour(entry.series).mix(0.8).filled(),
            ))?;
        }
        if to > from {
            let (a, b) = (plot.map_coordinate(&(from, middle)).0, plot.map_coordinate(&(to, middle)).0);
            let width = if bars { 2 } else { 4 };
            let ink = if bars { INK } else { colour(entry.series) };
            root.draw(&PathElement::new(vec![(a, y), (b, y)], line(&ink, width)))?;
            for end in [a, b] {
                root.draw(&PathElement::new(vec![(end, y - 3 * SCALE), (end, y + 3 * SCALE)], line(&ink, width)))?;
            }
        }
        if !bars {
            root.draw(&Circle::new((x, y), 4 * SCALE, colour(entry.series).filled()))?;
        }
        let values: Vec<f64> = entry.values.iter().copied().filter(|value| value.is_finite()).collect();
        for (index, value) in values.iter().enumerate().filter(|_| values.len() > 1 || !bars) {
            let (x, y) = plot.map_coordinate(&(value * scale, middle));
            // One above the other, so that equal values stay visible.
            let step = if bars { 0.25 * f64::from(lane) } else { 0.4 * f64::from(lane) };
            let aside = (index as f64 - (values.len() as f64 - 1.0) / 2.0) * step / values.len() as f64;
            let at = (x, y + (aside * f64::from(SCALE)) as i32);
            root.draw(&Circle::new(at, 2 * SCALE, PAPER.filled()))?;
            root.draw(&Circle::new(at, 2 * SCALE, line(&INK, 2)))?;
        }
    }
    root.present()?;
    Ok(true)
}

fn points(
    text: &mut String,
    figure: &Figure,
    marks: &[Mark],
    scale: f64,
    x_percent: bool,
) -> Result<bool, Box<dyn std::error::Error>> {
    let x_scale = if x_percent { 100.0 } else { 1.0 };
    let drawn: Vec<(&Mark, Spread, Spread)> = marks
        .iter()
        .filter_map(|mark| {
            let times = |(mean, low, high): Spread, by: f64| (mean * by, low * by, high * by);
            Some((mark, times(spread(&mark.x)?, x_scale), times(spread(&mark.values)?, scale)))
        })
        .collect();
    if drawn.is_empty() {
        return Ok(false);
    }
    let series = distinct(marks.iter().map(|mark| mark.series.as_str()));
    let singles = |values: &[f64], by: f64| values.iter().filter(|v| v.is_finite()).map(|v| v * by).collect::<Vec<_>>();
    let x = drawn.iter().flat_map(|(mark, x, _)| [x.1, x.2].into_iter().chain(singles(&mark.x, x_scale)));
    let y = drawn.iter().flat_map(|(mark, _, y)| [y.1, y.2].into_iter().chain(singles(&mark.values, scale)));
    let (x, y) = (room(x, 0.1), room(y, 0.1));
    let (_, top) = legend_places(&series);
    let root = canvas(text, top + HEIGHT + 40);
    let (above, below) = root.split_vertically(top * SCALE);
    legend(&above, &series, false)?;
    let chart = axes(&below, figure, x, y, &unit(&figure.x_label, x_percent))?;
    let plot = chart.plotting_area();
    for (mark, x, y) in &drawn {
        let own = colour(series.iter().position(|name| *name == mark.series).unwrap_or(0));
        plot.draw(&PathElement::new(vec![(x.1, y.0), (x.2, y.0)], line(&own, 2)))?;
        plot.draw(&PathElement::new(vec![(x.0, y.1), (x.0, y.2)], line(&own, 2)))?;
        if mark.x.len() == mark.values.len() && mark.x.len() > 1 {
            for (x, y) in mark.x.iter().zip(&mark.values).filter(|(x, y)| x.is_finite() && y.is_finite()) {
                plot.draw(&Circle::new((x * x_scale, y * scale), 2 * SCALE, line(&own, 2)))?;
            }
        }
        plot.draw(&Circle::new((x.0, y.0), 9 * SCALE / 2, own.filled()))?;
        let (px, py) = plot.map_coordinate(&(x.0, y.0));
        let (h, aside) = if px > WIDTH * SCALE * 3 / 4 { (HPos::Right, -8) } else { (HPos::Left, 8) };
        let at = (px + aside * SCALE, py - 6 * SCALE);
        root.draw(&Text::new(mark.label.clone(), at, anchored(12, &INK, h, VPos::Bottom)))?;
    }
    root.present()?;
    Ok(true)
}

/// Sizes of many classes, largest first, as an area over their rank.
fn tail(text: &mut String, figure: &Figure, counts: &[f64]) -> Result<bool, Box<dyn std::error::Error>> {
    if !counts.iter().any(|count| count.is_finite()) {
        return Ok(false);
    }
    let high = counts.iter().copied().filter(|count| count.is_finite()).fold(1.0, f64::max);
    let root = canvas(text, HEIGHT);
    let chart = axes(&root, figure, (0.0, counts.len() as f64), (0.0, high * 1.06), "class, largest first")?;
    let plot = chart.plotting_area();
    for (rank, count) in counts.iter().enumerate() {
        let corners = [(rank as f64, 0.0), (rank as f64 + 1.0, *count)];
        plot.draw(&Rectangle::new(corners, colour(0).mix(0.8).filled()))?;
    }
    root.present()?;
    Ok(true)
}

fn confusion(text: &mut String, classes: &[String], counts: &[Vec<f64>]) -> Result<bool, Box<dyn std::error::Error>> {
    let n = classes.len();
    if n == 0 || counts.len() != n {
        return Ok(false);
    }
    let most = WIDTH / 4;
    let longest = classes.iter().map(|name| width_of(name)).max().unwrap_or(0).min(most);
    let left = longest + 30;
    let size = (WIDTH - left - 14).min(n as i32 * 46).max(n as i32);
    let height = size * 4 / 5;
    let root = canvas(text, height + longest + 44);
    let cell = |at: usize, of: i32| of * SCALE * at as i32 / n as i32;
    let (x0, y0) = (left * SCALE, 8 * SCALE);
    let fits = (f64::from(longest) / 6.4).ceil() as usize;
    let short = |name: &str| -> String {
        if name.chars().count() <= fits { name.into() } else { name.chars().take(fits - 1).chain(['…']).collect() }
    };
    // With many classes every other name, every third…
    let every = (n as i32 * 13 / height.max(1) + 1).max(1) as usize;
    for (row, name) in classes.iter().enumerate() {
        let total: f64 = counts[row].iter().sum();
        for column in 0..n {
            let count = counts[row].get(column).copied().unwrap_or(0.0);
            let share = if total > 0.0 { count / total } else { 0.0 };
            let fill = mixed(share);
            let corners = [
                (x0 + cell(column, size), y0 + cell(row, height)),
                (x0 + cell(column + 1, size), y0 + cell(row + 1, height)),
            ];
            root.draw(&Rectangle::new(corners, fill.filled()))?;
            if n <= MOST_NUMBERS {
                let ink = if share > 0.5 { PAPER } else { INK };
                let middle = ((corners[0].0 + corners[1].0) / 2, (corners[0].1 + corners[1].1) / 2);
                root.draw(&Text::new(tick(count), middle, anchored(11, &ink, HPos::Center, VPos::Center)))?;
            }
        }
        if row % every == 0 {
            let y = y0 + (cell(row, height) + cell(row + 1, height)) / 2;
            root.draw(&Text::new(short(name), (x0 - 6 * SCALE, y), anchored(11, &INK, HPos::Right, VPos::Center)))?;
            let x = x0 + (cell(row, size) + cell(row + 1, size)) / 2;
            let style = anchored(11, &INK, HPos::Left, VPos::Center).transform(FontTransform::Rotate90);
            root.draw(&Text::new(short(name), (x, y0 + (height + 6) * SCALE), style))?;
        }
    }
    root.draw(&Rectangle::new([(x0, y0), (x0 + size * SCALE, y0 + height * SCALE)], line(&GRID, 2)))?;
    let turned = anchored(12, &SOFT, HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
    root.draw(&Text::new("true class", (2 * SCALE, y0 + height * SCALE / 2), turned))?;
    let below = (x0 + size * SCALE / 2, (height + longest + 22) * SCALE);
    root.draw(&Text::new("answer", below, anchored(12, &SOFT, HPos::Center, VPos::Top)))?;
    root.present()?;
    Ok(true)
}

/// White to blue by a share.
fn mixed(share: f64) -> RGBColor {
    let (r, g, b) = COLOURS[0];
    let mix = |to: u8| (255.0 + (f64::from(to) - 255.0) * share.clamp(0.0, 1.0)).round() as u8;
    RGBColor(mix(r), mix(g), mix(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(label: &str, values: &[f64], x: &[f64]) -> Mark {
        Mark { label: label.into(), series: "nn.top1".into(), values: values.into(), x: x.into() }
    }

    fn figure(drawing: Drawing) -> Figure {
        Figure { name: "f".into(), title: "a <figure>".into(), y_label: "top1".into(), drawing, ..Figure::default() }
    }

    fn every_kind() -> Vec<Figure> {
        let line = |label: &str, seed: u32, y: &[f64]| Line {
            label: label.into(),
            replicate: Some(format!("seed={seed}")),
            x: (1..=y.len()).map(|x| x as f64).collect(),
            y: y.into(),
        };
        let interval = crate::model::Interval { mean: 0.1, low: -0.05, high: 0.25, n: 3 };
        let classes: Vec<String> = ["cat", "dog", "<script>"].map(String::from).into();
        let groups = vec![Group { label: "moco".into(), values: vec![vec![0.1, 0.2, 0.3], vec![0.2, 0.2, 0.4]] }];
        vec![
            figure(Drawing::Curves {
                lines: vec![
                    line("a", 1, &[1.0, 2.0, f64::NAN, 3.0]),
                    line("a", 2, &[2.0, 2.5, 2.0, 3.5]),
                    line("b", 1, &[0.5; 4]),
                ],
            }),
            figure(Drawing::Bars { marks: vec![mark("a<b", &[0.2, 0.3, 0.4], &[]), mark("one", &[-0.1], &[])] }),
            figure(Drawing::Points { x_percent: true, marks: vec![mark("a", &[1.0, 2.0], &[3.0, 4.0])] }),
            figure(Drawing::Differences {
                rows: vec![Difference {
                    label: "a − b".into(),
                    series: "holds".into(),
                    interval: Some(interval),
                    values: vec![0.0, 0.1, 0.2],
                }],
            }),
            figure(Drawing::Classes { classes: classes.clone(), groups }),
            figure(Drawing::Histogram { classes: classes.clone(), counts: vec![9.0, 3.0, 1.0] }),
            figure(Drawing::Confusion {
                classes,
                counts: vec![vec![5.0, 1.0, 0.0], vec![0.0, 2.0, 2.0], vec![0.0; 3]],
            }),
        ]
    }

    #[test]
    fn every_kind_is_an_svg_and_a_pdf() {
        for figure in every_kind() {
            let svg = svg(&figure).unwrap().unwrap();
            assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"), "{svg}");
            assert!(svg.contains("<title>a &lt;figure&gt;</title>") && !svg.contains("<script>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("style="), "{svg}");
            let pdf = pdf(&figure).unwrap().unwrap();
            assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 1000);
            // The font is in it, so that it looks the same everywhere.
            assert!(pdf.windows(15).any(|part| part == b"LiberationSans\n" || part.starts_with(b"LiberationSans")));
        }
    }

    #[test]
    fn bars_show_every_single_value_and_points_need_both_numbers() {
        let kinds = every_kind();
        let dots = |figure: &Figure| svg(figure).unwrap().unwrap().matches("<circle").count();
        // Three values, each a disc and its rim; the single one is its bar.
        assert_eq!(dots(&kinds[1]), 6);
        let lone = figure(Drawing::Points { x_percent: false, marks: vec![mark("b", &[1.0], &[])] });
        assert_eq!(svg(&lone).unwrap(), None);
        let same = figure(Drawing::Points { x_percent: false, marks: vec![mark("a", &[1.0], &[1.0])] });
        assert!(!svg(&same).unwrap().unwrap().contains("NaN"));
        assert_eq!(svg(&figure(Drawing::Bars { marks: vec![mark("a", &[f64::NAN], &[])] })).unwrap(), None);
        assert_eq!(svg(&figure(Drawing::Curves { lines: vec![] })).unwrap(), None);
    }

    #[test]
    fn many_classes_are_drawn_over_their_rank() {
        let classes: Vec<String> = (0..1000).map(|class| format!("class {class}")).collect();
        let counts = (0..1000).map(|class| 1280.0 / f64::from(class + 1)).collect();
        let svg = svg(&figure(Drawing::Histogram { classes, counts })).unwrap().unwrap();
        assert!(svg.matches("<rect").count() >= 1000 && svg.len() < 200_000, "{}", svg.len());
    }

    #[test]
    fn broken_lines_have_gaps() {
        let line = [(0.0, 0.0), (400.0, 0.0)];
        assert_eq!(dashes(&line, 0).len(), 1);
        for index in 1..4 {
            let parts = dashes(&line, index);
            let drawn: f64 = parts.iter().flat_map(|part| part.windows(2)).map(|pair| pair[1].0 - pair[0].0).sum();
            assert!(parts.len() > 3 && drawn > 100.0 && drawn < 350.0, "{drawn}");
        }
    }
}
