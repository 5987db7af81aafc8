//! The shape classes. A class is its outline and nothing else: colour, texture, size, place and pose are drawn without
//! looking at it, and all shapes are scaled to the same area.

use std::sync::LazyLock;

use libm::{cos, sin};

/// Names of the classes, in the order of their labels; a world with n classes has the first n.
pub const NAMES: [&str; 12] = [
    "disc",
    "ring",
    "square",
    "triangle",
    "star",
    "cross",
    "crescent",
    "arrow",
    "heart",
    "hourglass",
    "bars",
    "spiral",
];

/// An outline around the origin.
#[derive(Debug)]
enum Outline {
    Disc,
    /// Between this radius and 1.
    Ring(f64),
    /// Closed, its corners in order.
    Polygon(Vec<[f64; 2]>),
    /// The unit disc without a disc of this radius shifted right by this much.
    Crescent {
        shift: f64,
        radius: f64,
    },
    /// A line through these points, as thick as twice this.
    Stroke(Vec<[f64; 2]>, f64),
}

/// A shape class, ready to be drawn.
#[derive(Debug)]
pub(crate) struct Shape {
    outline: Outline,
    /// Local units for one unit of √area: dividing by it makes all shapes equally large.
    scale: f64,
    /// Greatest distance of the outline from the origin, in units of √area.
    pub extent: f64,
}

/// The classes, in the order of [`NAMES`].
pub(crate) static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let turn = |angle: f64, radius: f64| [radius * sin(angle), -radius * cos(angle)];
    let regular = |n: usize, radius: &dyn Fn(usize) -> f64| {
        (0..n).map(|i| turn(std::f64::consts::TAU * i as f64 / n as f64, radius(i))).collect::<Vec<_>>()
    };
    let (arm, far) = (0.33, 1.0);
    let cross = vec![
        [-arm, -far],
        [arm, -far],
        [arm, -arm],
        [far, -arm],
        [far, arm],
        [arm, arm],
        [arm, far],
        [-arm, far],
        [-arm, arm],
        [-far, arm],
        [-far, -arm],
        [-arm, -arm],
    ];
    let arrow = vec![[1.0, 0.0], [0.15, -0.8], [0.15, -0.27], [-1.0, -0.27], [-1.0, 0.27], [0.15, 0.27], [0.15, 0.8]];
    // The usual heart curve, x = 16 sin³t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t, over 16.
    let heart = (0..30)
        .map(|i| {
            let t = std::f64::consts::TAU * f64::from(i) / 30.0;
            let s = sin(t);
            [s * s * s, -(13.0 * cos(t) - 5.0 * cos(2.0 * t) - 2.0 * cos(3.0 * t) - cos(4.0 * t)) / 16.0 - 0.1]
        })
        .collect();
    let hourglass = vec![[-0.85, -1.0], [0.85, -1.0], [0.13, 0.0], [0.85, 1.0], [-0.85, 1.0], [-0.13, 0.0]];
    let bars = vec![
        [-0.85, -1.0],
        [-0.38, -1.0],
        [-0.38, -0.2],
        [0.38, -0.2],
        [0.38, -1.0],
        [0.85, -1.0],
        [0.85, 1.0],
        [0.38, 1.0],
        [0.38, 0.2],
        [-0.38, 0.2],
        [-0.38, 1.0],
        [-0.85, 1.0],
    ];
    let spiral = (0..27)
        .map(|i| {
            let t = f64::from(i) / 26.0;
            turn(t * 1.7 * std::f64::consts::TAU, 0.06 + 0.8 * t)
        })
        .collect();
    [
        Outline::Disc,
        Outline::Ring(0.55),
        Outline::Polygon(vec![[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]),
        Outline::Polygon(regular(3, &|_| 1.0)),
        Outline::Polygon(regular(10, &|i| if i % 2 == 0 { 1.0 } else { 0.42 })),
        Outline::Polygon(cross),
        Outline::Crescent { shift: 0.48, radius: 0.8 },
        Outline::Polygon(arrow),
        Outline::Polygon(heart),
        Outline::Polygon(hourglass),
        Outline::Polygon(bars),
        Outline::Stroke(spiral, 0.14),
    ]
    .into_iter()
    .map(Shape::new)
    .collect()
});

impl Shape {
    fn new(outline: Outline) -> Self {
        // Area and extent by counting the points of a fine grid.
        let (cells, reach) = (240_i32, 1.5);
        let (mut inside, mut extent) = (0_u32, 0.0_f64);
        for i in 0..cells {
            for j in 0..cells {
                let at = |k: i32| (f64::from(k) + 0.5) / f64::from(cells) * 2.0 * reach - reach;
                if outline.distance(at(i), at(j)) < 0.0 {
                    inside += 1;
                    extent = extent.max((at(i) * at(i) + at(j) * at(j)).sqrt());
                }
            }
        }
        let cell = 2.0 * reach / f64::from(cells);
        let scale = (f64::from(inside) * cell * cell).sqrt();
        Self { outline, scale, extent: extent / scale }
    }

    /// Signed distance to the outline, negative inside, in units of √area; `x` and `y` likewise.
    ///
    /// Exact outside of corners cut by set operations, which is all that soft edges need.
    pub fn distance(&self, x: f64, y: f64) -> f64 {
        self.outline.distance(x * self.scale, y * self.scale) / self.scale
    }
}

impl Outline {
    fn distance(&self, x: f64, y: f64) -> f64 {
        let length = |x: f64, y: f64| (x * x + y * y).sqrt();
        match self {
            Self::Disc => length(x, y) - 1.0,
            Self::Ring(inner) => (length(x, y) - (1.0 + inner) / 2.0).abs() - (1.0 - inner) / 2.0,
            Self::Crescent { shift, radius } => (length(x, y) - 1.0).max(radius - length(x - shift, y)),
            Self::Stroke(points, half) => {
                let nearest = points.windows(2).map(|p| to_segment(x, y, p[0], p[1])).fold(f64::MAX, f64::min);
                nearest.sqrt() - half
            }
            Self::Polygon(points) => {
                let (mut nearest, mut inside) = (f64::MAX, false);
                let mut from = points[points.len() - 1];
                for &to in points {
                    nearest = nearest.min(to_segment(x, y, from, to));
                    // Even-odd rule: a ray to the right crosses this edge.
                    if (from[1] > y) != (to[1] > y)
                        && x < (to[0] - from[0]) * (y - from[1]) / (to[1] - from[1]) + from[0]
                    {
                        inside = !inside;
                    }
                    from = to;
                }
                if inside { -nearest.sqrt() } else { nearest.sqrt() }
            }
        }
    }
}

/// Squared distance from a point to a segment.
pub(crate) fn to_segment(x: f64, y: f64, from: [f64; 2], to: [f64; 2]) -> f64 {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let (px, py) = (x - from[0], y - from[1]);
    let along = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-12)).clamp(0.0, 1.0);
    let (rx, ry) = (px - along * dx, py - along * dy);
    rx * rx + ry * ry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_equally_large() {
        for (name, shape) in NAMES.iter().zip(SHAPES.iter()) {
            let cells = 500;
            let at = |k: i32| (f64::from(k) + 0.5) / f64::from(cells) * 3.0 - 1.5;
            let inside = (0..cells * cells).filter(|i| shape.distance(at(i % cells), at(i / cells)) < 0.0).count();
            let area = inside as f64 * 9.0 / f64::from(cells * cells);
            assert!((area - 1.0).abs() < 0.03, "{name} has the area {area}");
            assert!(shape.extent < 1.2, "{name} reaches {}", shape.extent);
        }
        assert_eq!(NAMES.len(), SHAPES.len());
    }
}
