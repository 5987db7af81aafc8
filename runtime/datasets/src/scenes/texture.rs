//! Colours and textures: what fills backgrounds and objects.

use libm::{cos, sin};

use super::random::Stream;

/// Red, green, blue in 0..1.
pub(crate) type Colour = [f64; 3];

/// Hue, saturation and value, each in 0..1, as red, green, blue.
pub(crate) fn hsv(hue: f64, saturation: f64, value: f64) -> Colour {
    let channel = |shift: f64| {
        let k = (shift + hue * 6.0) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// From `a` (t = 0) to `b` (t = 1).
pub(crate) fn mix(a: Colour, b: Colour, t: f64) -> Colour {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// How different two colours look: distance with lightness counted double.
pub(crate) fn contrast(a: Colour, b: Colour) -> f64 {
    let d = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    let light = 0.3 * d[0] + 0.59 * d[1] + 0.11 * d[2];
    ((d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / 3.0 + light * light).sqrt()
}

/// From 0 below `low` to 1 above `high`, smoothly.
pub(crate) fn smooth(low: f64, high: f64, x: f64) -> f64 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A hash of a lattice point (the finaliser of MurmurHash3), uniform in 0..1.
pub(crate) fn lattice(seed: u32, x: i32, y: i32) -> f64 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77).rotate_left(13);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    f64::from(h) / 4_294_967_296.0
}

/// Value noise with one lattice point a unit, 0..1.
pub(crate) fn noise(seed: u32, x: f64, y: f64) -> f64 {
    let (fx, fy) = (x.floor(), y.floor());
    let (ix, iy) = (fx as i32, fy as i32);
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - fx), ease(y - fy));
    let (a, b) = (lattice(seed, ix, iy), lattice(seed, ix + 1, iy));
    let (c, d) = (lattice(seed, ix, iy + 1), lattice(seed, ix + 1, iy + 1));
    let (top, bottom) = (a + (b - a) * u, c + (d - c) * u);
    top + (bottom - top) * v
}

/// Three octaves of value noise, 0..1.
pub(crate) fn fractal(seed: u32, x: f64, y: f64) -> f64 {
    let second = noise(seed ^ 0x5bd1_e995, x * 2.03 + 7.1, y * 2.03 + 3.7);
    let third = noise(seed ^ 0x1b87_3593, x * 4.11 + 1.3, y * 4.11 + 9.2);
    (noise(seed, x, y) + 0.5 * second + 0.25 * third) / 1.75
}

/// Distances to the nearest and second nearest scattered point, and a number of the nearest one in 0..1 (Worley 1996).
fn cells(seed: u32, x: f64, y: f64) -> (f64, f64, f64) {
    let (ix, iy) = (x.floor() as i32, y.floor() as i32);
    let (mut first, mut second, mut which) = (f64::MAX, f64::MAX, 0.0);
    for cx in ix - 1..=ix + 1 {
        for cy in iy - 1..=iy + 1 {
            let px = f64::from(cx) + lattice(seed, cx, cy) - x;
            let py = f64::from(cy) + lattice(seed ^ 0xa5a5_1234, cx, cy) - y;
            let d = px * px + py * py;
            if d < first {
                second = first;
                (first, which) = (d, lattice(seed ^ 0x7f4a_7c15, cx, cy));
            } else if d < second {
                second = d;
            }
        }
    }
    (first.sqrt(), second.sqrt(), which)
}

/// A soft square wave of period 1: 0 or 1 with edges `edge` wide.
fn wave(x: f64, share: f64, edge: f64) -> f64 {
    let t = x - x.floor();
    let from_middle = (t - 0.5).abs();
    smooth(share / 2.0 + edge, share / 2.0 - edge, from_middle)
}

/// Families of textures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Gradient,
    Radial,
    Fractal,
    Marble,
    Stripes,
    Checks,
    Dots,
    Patches,
    Cells,
    Blobs,
}

/// A texture over the plane, in three colours.
#[derive(Clone, Debug)]
pub(crate) struct Texture {
    family: Family,
    colours: [Colour; 3],
    seed: u32,
    /// Repeats over one unit.
    frequency: f64,
    /// Direction of stripes and gradients.
    axis: [f64; 2],
    /// Share of the first colour in stripes, and of dots.
    share: f64,
    /// How far noise bends it, in periods.
    warp: f64,
    /// Lightness of fine noise on top.
    grain: f64,
}

impl Texture {
    /// A background over the unit square. Muted more often than not, so that objects can stand out by colour or by
    /// texture, though neither is certain.
    pub fn background(stream: &mut Stream) -> Self {
        const FAMILIES: [Family; 10] = [
            Family::Gradient,
            Family::Radial,
            Family::Fractal,
            Family::Marble,
            Family::Stripes,
            Family::Checks,
            Family::Dots,
            Family::Patches,
            Family::Cells,
            Family::Blobs,
        ];
        let family = FAMILIES[stream.below(FAMILIES.len())];
        let hue = stream.unit();
        let spread = if stream.chance(0.5) { 0.08 } else { 0.35 };
        let value = stream.range(0.25, 0.85);
        let vivid = stream.range(0.1, 0.65);
        let mut colour = || {
            let turn = stream.range(-spread, spread);
            let value = (value + stream.range(-0.22, 0.22)).clamp(0.05, 0.97);
            hsv((hue + turn + 1.0) % 1.0, (vivid + stream.range(-0.2, 0.2)).clamp(0.0, 0.9), value)
        };
        let colours = [colour(), colour(), colour()];
        let frequency = match family {
            Family::Gradient | Family::Radial => 1.0,
            Family::Fractal | Family::Marble | Family::Blobs => stream.range(2.0, 6.0),
            _ => stream.range(3.0, 8.0),
        };
        Self::with(stream, family, colours, frequency)
    }

    /// The fill of an object, over local units of √area, whose main colour differs from those of what lies behind.
    pub fn fill(stream: &mut Stream, behind: &[Colour]) -> Self {
        const FAMILIES: [Family; 8] = [
            Family::Gradient,
            Family::Gradient,
            Family::Stripes,
            Family::Stripes,
            Family::Checks,
            Family::Dots,
            Family::Fractal,
            Family::Patches,
        ];
        let family = FAMILIES[stream.below(FAMILIES.len())];
        let mut distinct = |wanted: f64| {
            let mut best = ([0.0; 3], -1.0);
            for _ in 0..10 {
                let colour = hsv(stream.unit(), stream.range(0.15, 1.0), stream.range(0.15, 1.0));
                let least = behind.iter().map(|b| contrast(*b, colour)).fold(f64::MAX, f64::min);
                if least > best.1 {
                    best = (colour, least);
                }
                if least > wanted {
                    break;
                }
            }
            best.0
        };
        let main = distinct(0.4);
        let other = distinct(0.28);
        // Shades of one colour half of the time.
        let other = if stream.chance(0.5) { mix(main, other, 0.35) } else { other };
        let frequency = stream.range(2.5, 5.0);
        Self::with(stream, family, [main, other, mix(main, other, 0.5)], frequency)
    }

    fn with(stream: &mut Stream, family: Family, colours: [Colour; 3], frequency: f64) -> Self {
        let angle = stream.range(0.0, std::f64::consts::TAU);
        Self {
            family,
            colours,
            seed: stream.seed(),
            frequency,
            axis: [cos(angle), sin(angle)],
            share: stream.range(0.35, 0.65),
            warp: if stream.chance(0.5) { stream.range(0.1, 0.7) } else { 0.0 },
            grain: stream.range(0.0, 0.14),
        }
    }

    /// Its colours.
    pub fn colours(&self) -> &[Colour] {
        &self.colours
    }

    /// The colour at a point.
    pub fn at(&self, x: f64, y: f64) -> Colour {
        let [first, second, third] = self.colours;
        let f = self.frequency;
        let (mut u, mut v) = ((x * self.axis[0] + y * self.axis[1]) * f, (y * self.axis[0] - x * self.axis[1]) * f);
        if self.warp > 0.0 {
            let bend = noise(self.seed ^ 0x51ed_270b, x * f * 0.6, y * f * 0.6) - 0.5;
            u += self.warp * bend * 2.0;
            v -= self.warp * bend * 2.0;
        }
        // Edges a little softer than a pixel at common sizes, so that fine patterns do not flicker.
        let edge = 0.012 * f;
        let colour = match self.family {
            Family::Gradient => {
                let t = smooth(-0.75, 0.75, u / f + if f > 1.0 { 0.0 } else { -0.5 * (self.axis[0] + self.axis[1]) });
                if t < 0.5 { mix(first, second, 2.0 * t) } else { mix(second, third, 2.0 * t - 1.0) }
            }
            Family::Radial => {
                let (dx, dy) = (x - self.share, y - (1.0 - self.share));
                mix(first, second, smooth(0.0, 0.8, (dx * dx + dy * dy).sqrt() + self.warp * 0.1 * (u - v)))
            }
            Family::Fractal => {
                let t = smooth(0.25, 0.75, fractal(self.seed, u, v));
                if t < 0.5 { mix(first, second, 2.0 * t) } else { mix(second, third, 2.0 * t - 1.0) }
            }
            Family::Marble => {
                let t = u + 2.2 * fractal(self.seed, u * 0.7, v * 0.7);
                mix(first, second, 0.5 + 0.5 * cos(std::f64::consts::TAU * t * 0.5))
            }
            Family::Stripes => mix(first, second, wave(u, self.share, edge)),
            Family::Checks => {
                let (a, b) = (wave(u * 0.7, 0.5, edge), wave(v * 0.7, 0.5, edge));
                mix(first, second, a + b - 2.0 * a * b)
            }
            Family::Dots => {
                let (dx, dy) = (u - u.floor() - 0.5, v - v.floor() - 0.5);
                mix(second, first, smooth(0.5 * self.share - edge, 0.5 * self.share + edge, (dx * dx + dy * dy).sqrt()))
            }
            Family::Patches => {
                let (_, _, which) = cells(self.seed, u * 0.8, v * 0.8);
                if which < 0.5 { mix(first, second, 2.0 * which) } else { mix(second, third, 2.0 * which - 1.0) }
            }
            Family::Cells => {
                let (near, next, which) = cells(self.seed, u * 0.8, v * 0.8);
                mix(third, mix(first, second, which), smooth(0.02, 0.02 + 2.0 * edge, next - near))
            }
            Family::Blobs => mix(first, second, smooth(self.share - 0.04, self.share + 0.04, fractal(self.seed, u, v))),
        };
        if self.grain <= 0.0 {
            return colour;
        }
        let light = self.grain * (noise(self.seed ^ 0x3c6e_f372, u * 9.0 + 0.37 * v, v * 9.0 - 0.37 * u) - 0.5) * 2.0;
        [colour[0] + light, colour[1] + light, colour[2] + light]
    }
}
