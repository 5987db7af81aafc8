//! The graph as a picture: layers from left to right, each box behind everything that it takes something from.
//!
//! Sugiyama's method in its simplest form: layers by the longest way, a place for a line in every layer that it passes,
//! boxes ordered by the mean place of their neighbours in a few sweeps, lines as smooth curves.

use std::fmt::Write as _;

/// One box.
pub struct Box<'a> {
    /// What a pointer over it shows.
    pub name: &'a str,
    /// What stands in it, the name first.
    pub lines: String,
    /// The boxes that it takes something from; all before it.
    pub inputs: &'a [usize],
}

/// Width of a letter, height of a line, room inside and between, in the picture's units.
const LETTER: f64 = 7.2;
const LINE: f64 = 17.0;
const INSIDE: f64 = 12.0;
const BETWEEN: f64 = 18.0;
const LAYERS: f64 = 56.0;
/// Times that the order of the layers is improved.
const SWEEPS: usize = 12;
/// Beyond this many boxes the order stays as it comes.
const MOST_SWEPT: usize = 2000;

/// A box, or a place where a line passes through a layer.
struct Place {
    own: Option<usize>,
    width: f64,
    height: f64,
    before: Vec<usize>,
    behind: Vec<usize>,
    x: f64,
    y: f64,
}

/// Draws the boxes with the lines between them.
pub fn draw(boxes: &[Box<'_>]) -> String {
    let mut layer = vec![0usize; boxes.len()];
    for (at, one) in boxes.iter().enumerate() {
        layer[at] = one.inputs.iter().map(|&input| layer[input] + 1).max().unwrap_or(0);
    }
    // What nothing depends on the depth of stands right before what takes it.
    for at in 0..boxes.len() {
        if boxes[at].inputs.is_empty() {
            let users = (0..boxes.len()).filter(|&user| boxes[user].inputs.contains(&at)).map(|user| layer[user]);
            layer[at] = users.min().map_or(0, |first| first.saturating_sub(1));
        }
    }
    let mut places: Vec<Place> = boxes
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let letters = one.lines.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            Place {
                own: Some(at),
                width: letters as f64 * LETTER + 2.0 * INSIDE,
                height: one.lines.lines().count() as f64 * LINE + INSIDE,
                before: Vec::new(),
                behind: Vec::new(),
                x: 0.0,
                y: 0.0,
            }
        })
        .collect();
    let depth = layer.iter().max().map_or(0, |deepest| deepest + 1);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); depth];
    (0..boxes.len()).for_each(|at| layers[layer[at]].push(at));
    // Each line with the places it passes.
    let mut lines: Vec<Vec<usize>> = Vec::new();
    for (at, one) in boxes.iter().enumerate() {
        for &input in one.inputs {
            let mut way = vec![input];
            for passed in layers.iter_mut().take(layer[at]).skip(layer[input] + 1) {
                let height = BETWEEN / 2.0;
                let place = Place { own: None, width: 0.0, height, before: vec![], behind: vec![], x: 0.0, y: 0.0 };
                passed.push(places.len());
                way.push(places.len());
                places.push(place);
            }
            way.push(at);
            for pair in way.windows(2) {
                places[pair[0]].behind.push(pair[1]);
                places[pair[1]].before.push(pair[0]);
            }
            lines.push(way);
        }
    }
    if places.len() <= MOST_SWEPT {
        order(&mut layers, &places);
    }
    set(&layers, &mut places);
    picture(boxes, &places, &lines)
}

/// Orders each layer by where its neighbours are, forwards and backwards in turn.
fn order(layers: &mut [Vec<usize>], places: &[Place]) {
    let mut at = vec![0.0; places.len()];
    let number = |layer: &[usize], at: &mut Vec<f64>| {
        layer.iter().enumerate().for_each(|(place, &id)| at[id] = (place as f64 + 0.5) / layer.len() as f64);
    };
    layers.iter().for_each(|layer| number(layer, &mut at));
    for sweep in 0..SWEEPS {
        let forwards = sweep % 2 == 0;
        let turn: Vec<usize> = if forwards { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for layer in turn {
            let mean = |id: &usize| {
                let near = if forwards { &places[*id].before } else { &places[*id].behind };
                let sum: f64 = near.iter().map(|&other| at[other]).sum();
                if near.is_empty() { at[*id] } else { sum / near.len() as f64 }
            };
            let mut keyed: Vec<(f64, usize)> = layers[layer].iter().map(|id| (mean(id), *id)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[layer] = keyed.into_iter().map(|(_, id)| id).collect();
            number(&layers[layer], &mut at);
        }
    }
}

/// Gives every place its corner.
fn set(layers: &[Vec<usize>], places: &mut [Place]) {
    let heights: Vec<f64> =
        layers.iter().map(|layer| layer.iter().map(|&id| places[id].height + BETWEEN).sum()).collect();
    let tallest = heights.iter().copied().fold(0.0, f64::max);
    let mut x = BETWEEN;
    for (layer, height) in layers.iter().zip(heights) {
        let widest = layer.iter().map(|&id| places[id].width).fold(0.0, f64::max);
        let mut y = BETWEEN + (tallest - height) / 2.0;
        for &id in layer {
            // A line that passes is as wide as the layer, so that it meets no box.
            if places[id].own.is_none() {
                places[id].width = widest;
            }
            (places[id].x, places[id].y) = (x + (widest - places[id].width) / 2.0, y);
            y += places[id].height + BETWEEN;
        }
        x += widest + LAYERS;
    }
}

fn picture(boxes: &[Box<'_>], places: &[Place], lines: &[Vec<usize>]) -> String {
    let width = places.iter().map(|place| place.x + place.width).fold(0.0, f64::max) + BETWEEN;
    let height = places.iter().map(|place| place.y + place.height).fold(0.0, f64::max) + BETWEEN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for way in lines {
        let middle = |id: usize| places[id].y + places[id].height / 2.0;
        let (first, last) = (way[0], way[way.len() - 1]);
        let (mut x, mut y) = (places[first].x + places[first].width, middle(first));
        let mut path = format!("M{x:.1} {y:.1}");
        for &id in &way[1..] {
            let (to_x, to_y) = (places[id].x, middle(id));
            let half = (x + to_x) / 2.0;
            let _ = write!(path, "C{half:.1} {y:.1} {half:.1} {to_y:.1} {to_x:.1} {to_y:.1}");
            (x, y) = (to_x, to_y);
            if id != last {
                x += places[id].width;
                let _ = write!(path, "H{x:.1}");
            }
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"#667\" marker-end=\"url(#tip)\"/>");
    }
    for place in places {
        let Some(own) = place.own else { continue };
        let Place { x, y, width, height, .. } = place;
        let _ = write!(
            out,
            "<g><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\" \
             fill=\"#f4f6fb\" stroke=\"#446\"/>",
            escaped(boxes[own].name)
        );
        for (number, line) in boxes[own].lines.lines().enumerate() {
            let base = y + INSIDE / 2.0 + LINE * (number as f64 + 0.75);
            let style = if number == 0 { "font-weight=\"bold\" fill=\"#112\"" } else { "fill=\"#445\"" };
            let middle = x + width / 2.0;
            let _ = write!(
                out,
                "<text x=\"{middle:.1}\" y=\"{base:.1}\" text-anchor=\"middle\" {style}>{}</text>",
                escaped(line)
            );
        }
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_do_not_overlap_and_lines_run_from_left_to_right() {
        // A diamond with a long line past it, and a box of its own.
        let inputs: [&[usize]; 6] = [&[], &[0], &[0], &[1, 2], &[0, 3], &[]];
        let names: Vec<String> = (0..6).map(|at| format!("step<{at}>")).collect();
        let boxes: Vec<Box<'_>> = names
            .iter()
            .zip(inputs)
            .map(|(name, inputs)| Box { name, lines: format!("{name}\nkind"), inputs })
            .collect();
        let svg = draw(&boxes);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<title>step&lt;").count(), 6);
        assert_eq!(svg.matches("marker-end").count(), 6);
        let number = |text: &str, name: &str| -> f64 {
            text.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let corners: Vec<[f64; 4]> = svg
            .split("<g>")
            .skip(1)
            .map(|text| ["x", "y", "width", "height"].map(|name| number(text.split("<rect ").nth(1).unwrap(), name)))
            .collect();
        for (at, a) in corners.iter().enumerate() {
            for b in &corners[at + 1..] {
                let apart = a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1];
                assert!(apart, "{a:?} {b:?}");
            }
        }
        for (at, inputs) in inputs.iter().enumerate() {
            assert!(inputs.iter().all(|&input| corners[input][0] + corners[input][2] < corners[at][0]));
        }
    }
}
