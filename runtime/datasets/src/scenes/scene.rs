//! One scene: its background, its objects and what else lies about; composing it and drawing it.
//!
//! Everything is in units of the picture's side, x to the right and y downwards from the top left corner, so a scene
//! can be drawn at any size.

use harness_protocol::steps::Domain;
use libm::{cos, sin};

use super::random::Stream;
use super::shape::{SHAPES, to_segment};
use super::texture::{Colour, Texture, fractal, hsv, lattice, mix, smooth};

/// Side of the coarse grid on which occlusion is judged before anything is drawn.
const GRID: usize = 48;
/// Share of the labelled object that must stay visible.
const MAIN_VISIBLE: f64 = 0.4;
/// Share of the other objects that must stay visible.
const OTHER_VISIBLE: f64 = 0.25;
/// How much larger than any other object the labelled one must be, in visible area.
const LEAD: f64 = 1.15;

/// Where and how an object stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pose {
    /// Centre.
    pub x: f64,
    /// Centre.
    pub y: f64,
    /// √area.
    pub size: f64,
    /// Radians.
    pub angle: f64,
    /// Width over height is the square of this; the area stays.
    pub aspect: f64,
    /// Whether it is mirrored.
    pub mirrored: bool,
}

/// Where an object of the specific domain touches the ground, below its centre in units of its extent.
const FOOT: f64 = 0.75;
/// Height of the camera above the ground of the specific domain, metres; its focal length is a picture's side.
const CAMERA: f64 = 1.2;
/// Distance beyond which nothing is measured, metres.
const FARTHEST: f64 = 40.0;
/// Keeps the ground's perspective finite at the horizon.
const HORIZON: f64 = 0.012;

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Index into the shape classes.
    pub class: usize,
    pub pose: Pose,
    fill: Texture,
    /// Width of its soft edge in pixels.
    softness: f64,
    /// Colour of its outline and its width in units of √area; none without.
    border: Option<(Colour, f64)>,
    /// Offset of its shadow and how dark it is.
    shadow: Option<([f64; 2], f64)>,
    /// Direction light comes from, and how much it changes the fill.
    light: [f64; 2],
}

/// A small thing of no class: a line or a speck.
#[derive(Clone, Copy, Debug)]
struct Distractor {
    from: [f64; 2],
    to: [f64; 2],
    half: f64,
    colour: Colour,
}

/// What lies behind the objects.
#[derive(Clone, Debug)]
enum Ground {
    Textured(Box<Texture>),
    /// Sky, skyline and banded ground below a horizon.
    Road(Box<Road>),
}

/// The one family of backgrounds of the specific domain.
#[derive(Clone, Debug)]
struct Road {
    seed: u32,
    horizon: f64,
    vanishing: f64,
    sky: [Colour; 2],
    hills: Colour,
    ground: [Colour; 2],
    mark: Colour,
    lanes: f64,
}

/// A scene that can be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    ground: Ground,
    /// How far the background is moved.
    pub pan: [f64; 2],
    behind: Vec<Distractor>,
    /// From back to front.
    pub objects: Vec<Object>,
    front: Vec<Distractor>,
    /// Seed of the grain; changes from frame to frame.
    pub grain_seed: u32,
    grain: f64,
    gain: f64,
    vignette: f64,
}

/// A drawn scene.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub side: usize,
    /// Red, green, blue, row by row.
    pub rgb: Vec<u8>,
    /// For each pixel 0, or the index of the visible object plus 1.
    pub owner: Vec<u8>,
}

/// What to compose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub domain: Domain,
    /// Class of the largest visible object.
    pub class: usize,
    /// Classes that the other objects are drawn from.
    pub classes: &'a [usize],
    /// Fewest and most objects.
    pub objects: (usize, usize),
}

impl Scene {
    /// Draws a scene at random in which the object of the wanted class is the largest visible one.
    pub fn compose(stream: &mut Stream, wanted: &Wanted<'_>) -> Self {
        let mut scene = Self::empty(stream, wanted.domain);
        let count = wanted.objects.0 + stream.below(wanted.objects.1 - wanted.objects.0 + 1);
        for _ in 0..30 {
            let main = scene.place(stream, wanted, count);
            if scene.clear(main) {
                return scene;
            }
        }
        // Nothing fitted: the labelled object comes to the front, larger than all others, with nothing over it.
        let main = scene.place(stream, wanted, count);
        scene.front.clear();
        let front = scene.objects.remove(main);
        for object in &mut scene.objects {
            object.pose.size = object.pose.size.min(0.6 * front.pose.size);
        }
        scene.objects.push(front);
        scene
    }

    /// A background with its distractors and light, and no objects.
    fn empty(stream: &mut Stream, domain: Domain) -> Self {
        let ground = match domain {
            Domain::General => Ground::Textured(Box::new(Texture::background(stream))),
            Domain::Specific => Ground::Road(Box::new(Road::new(stream))),
        };
        let distractors = if stream.chance(0.6) { 1 + stream.below(5) } else { 0 };
        Self {
            ground,
            pan: [0.0; 2],
            behind: (0..distractors).map(|_| Distractor::new(stream, 0.022)).collect(),
            objects: Vec::new(),
            front: Vec::new(),
            grain_seed: stream.seed(),
            grain: stream.range(0.0, 0.05),
            gain: stream.range(0.85, 1.12),
            vignette: if stream.chance(0.4) { stream.range(0.05, 0.3) } else { 0.0 },
        }
    }

    /// Draws objects anew; gives the index of the labelled one.
    fn place(&mut self, stream: &mut Stream, wanted: &Wanted<'_>, count: usize) -> usize {
        let crowd = 1.0 / (count as f64).sqrt().sqrt();
        let biggest = stream.range(0.32, 0.52) * crowd;
        let mut objects = Vec::with_capacity(count);
        // Colours that a new object should differ from: the ground's and the main ones of the objects before it.
        let mut taken = self.ground.colours();
        for i in 0..count {
            let class = if i == 0 { wanted.class } else { wanted.classes[stream.below(wanted.classes.len())] };
            let size = if i == 0 { biggest } else { biggest * stream.range(0.45, 0.88) };
            let object = self.object(stream, class, size, i == 0, &taken);
            taken.push(object.fill.colours()[0]);
            objects.push((i == 0, object));
        }
        match wanted.domain {
            Domain::General => stream.shuffle(&mut objects),
            // What stands nearer is lower in the picture and hides what is behind it.
            Domain::Specific => objects.sort_by(|a, b| base(&a.1).total_cmp(&base(&b.1))),
        }
        let main = objects.iter().position(|(main, _)| *main).unwrap_or(0);
        self.objects = objects.into_iter().map(|(_, object)| object).collect();
        let over = if stream.chance(0.3) { 1 + stream.below(2) } else { 0 };
        self.front = (0..over).map(|_| Distractor::new(stream, 0.016)).collect();
        main
    }

    fn object(&self, stream: &mut Stream, class: usize, size: f64, main: bool, taken: &[Colour]) -> Object {
        let extent = SHAPES[class].extent;
        let aspect = stream.range(0.86, 1.16);
        let pose = match &self.ground {
            Ground::Road(road) => {
                // Standing on the ground: the nearer, the lower and the larger.
                let nearness = if main { stream.range(0.72, 1.0) } else { stream.range(0.2, 0.8) };
                let size = size * nearness;
                let foot = road.horizon + (0.99 - road.horizon) * nearness;
                Pose {
                    x: stream.range(0.12, 0.88),
                    y: foot - FOOT * extent * size,
                    size,
                    angle: stream.range(-0.12, 0.12),
                    aspect,
                    mirrored: stream.chance(0.5),
                }
            }
            Ground::Textured(_) => {
                let reach = extent * size;
                let margin = (if main { 0.9 } else { 0.55 } * reach).min(0.5);
                Pose {
                    x: stream.range(margin, 1.0 - margin),
                    y: stream.range(margin, 1.0 - margin),
                    size,
                    angle: stream.range(0.0, std::f64::consts::TAU),
                    aspect,
                    mirrored: stream.chance(0.5),
                }
            }
        };
        let fill = Texture::fill(stream, taken);
        let dark = stream.range(0.0, 0.35);
        let border = stream.chance(0.35).then(|| {
            let edge = mix([0.0; 3], fill.colours()[0], dark);
            (edge, stream.range(0.04, 0.08))
        });
        let from = stream.range(0.0, std::f64::consts::TAU);
        let light = stream.range(0.0, 0.22);
        let fall = stream.range(0.02, 0.06);
        Object {
            class,
            pose,
            fill,
            softness: stream.range(0.9, 1.5),
            border,
            shadow: stream.chance(0.5).then(|| ([fall * cos(from), fall * sin(from)], stream.range(0.2, 0.5))),
            light: [light * cos(from), light * sin(from)],
        }
    }

    /// Whether enough of every object can be seen and the labelled one clearly shows the largest area.
    fn clear(&self, main: usize) -> bool {
        let (visible, whole) = self.areas(GRID);
        let lead = LEAD * visible.iter().enumerate().filter(|(i, _)| *i != main).map(|(_, v)| *v).fold(0.0, f64::max);
        visible.iter().zip(&whole).enumerate().all(|(i, (visible, whole))| {
            let least = if i == main { MAIN_VISIBLE } else { OTHER_VISIBLE };
            *visible > 0.0 && *visible >= least * whole
        }) && visible[main] > lead
    }

    /// Of each object, the visible share of the picture, and the share it would have alone, even beyond the border.
    pub fn areas(&self, grid: usize) -> (Vec<f64>, Vec<f64>) {
        let point = 1.0 / (grid * grid) as f64;
        let mut visible = vec![0.0; self.objects.len()];
        for row in 0..grid {
            for column in 0..grid {
                let (x, y) = ((column as f64 + 0.5) / grid as f64, (row as f64 + 0.5) / grid as f64);
                if self.front.iter().any(|d| d.distance(x, y) < 0.0) {
                    continue;
                }
                if let Some(i) = self.objects.iter().rposition(|o| o.near(x, y) && o.distance(x, y) < 0.0) {
                    visible[i] += point;
                }
            }
        }
        (visible, self.objects.iter().map(|o| o.pose.size * o.pose.size).collect())
    }

    /// Draws the scene with `side` pixels a side.
    pub fn draw(&self, side: usize) -> Drawn {
        let pixel = 1.0 / side as f64;
        let mut light: Vec<Colour> = Vec::with_capacity(side * side);
        for row in 0..side {
            for column in 0..side {
                let (x, y) = ((column as f64 + 0.5) * pixel - self.pan[0], (row as f64 + 0.5) * pixel - self.pan[1]);
                light.push(self.ground.at(x, y));
            }
        }
        let mut owner = vec![0_u8; side * side];
        let mut canvas = Canvas { side, light: &mut light, owner: &mut owner };
        for distractor in &self.behind {
            distractor.draw(&mut canvas, self.pan);
        }
        for (i, object) in self.objects.iter().enumerate() {
            object.draw(&mut canvas, i as u8 + 1);
        }
        for distractor in &self.front {
            distractor.draw(&mut canvas, [0.0; 2]);
        }
        let mut rgb = Vec::with_capacity(3 * side * side);
        for (i, colour) in light.iter().enumerate() {
            let (column, row) = (i % side, i / side);
            let (dx, dy) = ((column as f64 + 0.5) * pixel - 0.5, (row as f64 + 0.5) * pixel - 0.5);
            let gain = self.gain * (1.0 - self.vignette * 2.0 * (dx * dx + dy * dy));
            let grain = self.grain * (lattice(self.grain_seed, column as i32, row as i32) - 0.5);
            rgb.extend(colour.map(|c| ((c * gain + grain).clamp(0.0, 1.0) * 255.0 + 0.5) as u8));
        }
        Drawn { side, rgb, owner }
    }

    /// Distance in metres of what each pixel of the drawn scene shows: the ground in perspective, objects where they stand
    /// on it (flat, facing the camera). 0 where there is none: above the horizon, farther than 40 m, and where a thing of
    /// no class lies over the picture. None where the domain has no geometry.
    pub fn depth(&self, drawn: &Drawn) -> Option<Vec<f32>> {
        let Ground::Road(road) = &self.ground else { return None };
        // Seen from the camera's height, what stands this far below the horizon is this far away.
        let at = |below: f64| match CAMERA / (below + HORIZON) {
            metres if below >= 0.0 && metres <= FARTHEST => metres as f32,
            _ => 0.0,
        };
        let stand: Vec<f32> = self.objects.iter().map(|object| at(object.foot() - road.horizon)).collect();
        let pixel = 1.0 / drawn.side as f64;
        let depth = drawn.owner.iter().enumerate().map(|(i, &owner)| {
            let (x, y) = (((i % drawn.side) as f64 + 0.5) * pixel, ((i / drawn.side) as f64 + 0.5) * pixel);
            if self.front.iter().any(|thing| thing.distance(x, y) < 0.0) {
                return 0.0;
            }
            match usize::from(owner).checked_sub(1) {
                Some(object) => stand[object],
                None => at(y - self.pan[1] - road.horizon),
            }
        });
        Some(depth.collect())
    }
}

/// How low an object stands.
fn base(object: &Object) -> f64 {
    object.pose.y + object.pose.size * SHAPES[object.class].extent
}

/// What is being drawn on.
struct Canvas<'a> {
    side: usize,
    light: &'a mut [Colour],
    owner: &'a mut [u8],
}

impl Canvas<'_> {
    /// Calls `paint` with each pixel whose centre lies in a box: its index and its centre.
    fn within(&mut self, low: [f64; 2], high: [f64; 2], mut paint: impl FnMut(&mut Self, usize, f64, f64)) {
        let side = self.side as f64;
        let bound = |v: f64| ((v * side).floor().clamp(0.0, side)) as usize;
        for row in bound(low[1])..bound(high[1] + 1.0 / side).min(self.side) {
            for column in bound(low[0])..bound(high[0] + 1.0 / side).min(self.side) {
                let (x, y) = ((column as f64 + 0.5) / side, (row as f64 + 0.5) / side);
                paint(self, row * self.side + column, x, y);
            }
        }
    }
}

impl Object {
    /// Where it touches the ground of the specific domain.
    fn foot(&self) -> f64 {
        self.pose.y + FOOT * SHAPES[self.class].extent * self.pose.size
    }

    /// Radius of a circle around its centre that holds it.
    pub fn reach(&self) -> f64 {
        SHAPES[self.class].extent * self.pose.size * self.pose.aspect.max(1.0 / self.pose.aspect)
    }

    fn near(&self, x: f64, y: f64) -> bool {
        let (dx, dy, reach) = (x - self.pose.x, y - self.pose.y, self.reach());
        dx * dx + dy * dy <= reach * reach
    }

    /// Its own coordinates of a point, in units of √area.
    fn local(&self, x: f64, y: f64, (sine, cosine): (f64, f64)) -> (f64, f64) {
        let pose = &self.pose;
        let (dx, dy) = ((x - pose.x) / pose.size, (y - pose.y) / pose.size);
        let u = (dx * cosine + dy * sine) / pose.aspect;
        (if pose.mirrored { -u } else { u }, (dy * cosine - dx * sine) * pose.aspect)
    }

    /// Signed distance to its outline in units of its √area, negative inside.
    fn distance(&self, x: f64, y: f64) -> f64 {
        let (u, v) = self.local(x, y, (sin(self.pose.angle), cos(self.pose.angle)));
        SHAPES[self.class].distance(u, v)
    }

    fn draw(&self, canvas: &mut Canvas<'_>, number: u8) {
        let shape = &SHAPES[self.class];
        let rotation = (sin(self.pose.angle), cos(self.pose.angle));
        let reach = self.reach() + 2.0 / canvas.side as f64;
        let (low, high) = ([self.pose.x - reach, self.pose.y - reach], [self.pose.x + reach, self.pose.y + reach]);
        // Local units a pixel.
        let pixel = 1.0 / (self.pose.size * canvas.side as f64);
        if let Some((offset, dark)) = self.shadow {
            let blur = 0.12;
            let far = blur * self.pose.size;
            canvas.within(
                [low[0] + offset[0] - far, low[1] + offset[1] - far],
                [high[0] + offset[0] + far, high[1] + offset[1] + far],
                |canvas, i, x, y| {
                    let (u, v) = self.local(x - offset[0], y - offset[1], rotation);
                    let shade = dark * smooth(blur, -blur, shape.distance(u, v));
                    canvas.light[i] = canvas.light[i].map(|c| c * (1.0 - shade));
                },
            );
        }
        canvas.within(low, high, |canvas, i, x, y| {
            let (u, v) = self.local(x, y, rotation);
            let distance = shape.distance(u, v);
            let cover = (0.5 - distance / (pixel * self.softness)).clamp(0.0, 1.0);
            if cover <= 0.0 {
                return;
            }
            let mut colour = self.fill.at(u, v);
            let shade =
                self.light[0] * (x - self.pose.x) / self.pose.size + self.light[1] * (y - self.pose.y) / self.pose.size;
            colour = colour.map(|c| c - shade);
            if let Some((edge, width)) = self.border {
                colour = mix(edge, colour, (0.5 - (distance + width) / pixel).clamp(0.0, 1.0));
            }
            canvas.light[i] = mix(canvas.light[i], colour, cover);
            if distance < 0.0 {
                canvas.owner[i] = number;
            }
        });
    }
}

impl Distractor {
    fn new(stream: &mut Stream, thickest: f64) -> Self {
        let from = [stream.unit(), stream.unit()];
        let colour = hsv(stream.unit(), stream.range(0.0, 0.9), stream.range(0.1, 1.0));
        // Specks are lines of hardly any length.
        let length = if stream.chance(0.5) { stream.range(0.1, 0.6) } else { stream.range(0.0, 0.03) };
        let angle = stream.range(0.0, std::f64::consts::TAU);
        let to = [from[0] + length * cos(angle), from[1] + length * sin(angle)];
        Self { from, to, half: stream.range(0.4, 1.0) * thickest, colour }
    }

    fn distance(&self, x: f64, y: f64) -> f64 {
        to_segment(x, y, self.from, self.to).sqrt() - self.half
    }

    fn draw(&self, canvas: &mut Canvas<'_>, pan: [f64; 2]) {
        let pixel = 1.0 / canvas.side as f64;
        let reach = self.half + pixel;
        let low = [0, 1].map(|k| self.from[k].min(self.to[k]) - reach + pan[k]);
        let high = [0, 1].map(|k| self.from[k].max(self.to[k]) + reach + pan[k]);
        canvas.within(low, high, |canvas, i, x, y| {
            let distance = self.distance(x - pan[0], y - pan[1]);
            let cover = (0.5 - distance / pixel).clamp(0.0, 1.0);
            canvas.light[i] = mix(canvas.light[i], self.colour, cover);
            if distance < 0.0 {
                canvas.owner[i] = 0;
            }
        });
    }
}

impl Ground {
    fn colours(&self) -> Vec<Colour> {
        match self {
            Self::Textured(texture) => texture.colours().to_vec(),
            Self::Road(road) => vec![road.ground[0], road.ground[1], road.hills],
        }
    }

    fn at(&self, x: f64, y: f64) -> Colour {
        match self {
            Self::Textured(texture) => texture.at(x, y),
            Self::Road(road) => road.at(x, y),
        }
    }
}

impl Road {
    fn new(stream: &mut Stream) -> Self {
        let blue = hsv(stream.range(0.52, 0.66), stream.range(0.15, 0.6), stream.range(0.55, 0.95));
        let haze = hsv(stream.range(0.02, 0.14), stream.range(0.05, 0.4), stream.range(0.7, 0.98));
        let grey = stream.range(0.25, 0.55);
        let tint = hsv(stream.range(0.05, 0.35), stream.range(0.0, 0.35), grey);
        Self {
            seed: stream.seed(),
            horizon: stream.range(0.28, 0.45),
            vanishing: stream.range(0.25, 0.75),
            sky: [blue, haze],
            hills: hsv(stream.range(0.2, 0.6), stream.range(0.1, 0.45), stream.range(0.25, 0.55)),
            ground: [tint, mix(tint, [0.0; 3], stream.range(0.12, 0.3))],
            mark: mix([1.0; 3], tint, stream.range(0.1, 0.4)),
            lanes: stream.range(0.5, 1.1),
        }
    }

    fn at(&self, x: f64, y: f64) -> Colour {
        let skyline = self.horizon - 0.16 * fractal(self.seed ^ 0x9d2c_5680, x * 4.0, 0.5);
        if y < skyline {
            let sky = mix(self.sky[0], self.sky[1], smooth(0.0, self.horizon, y));
            let cloud = smooth(0.55, 0.8, fractal(self.seed, x * 3.0, y * 7.0));
            return mix(sky, [1.0; 3], 0.6 * cloud);
        }
        if y < self.horizon {
            let light = 0.25 * (fractal(self.seed ^ 0x1234_5678, x * 9.0, y * 9.0) - 0.5);
            return self.hills.map(|c| c + light);
        }
        // The ground in perspective: depth is one over the height below the horizon.
        let below = y - self.horizon + HORIZON;
        let depth = 0.12 / below;
        let across = (x - self.vanishing) / below;
        let rough = fractal(self.seed ^ 0x2545_f491, across * 3.0, depth * 14.0);
        let band = smooth(0.35, 0.65, fractal(self.seed ^ 0x6c07_8965, 0.5, depth * 4.0));
        let mut colour = mix(self.ground[0], self.ground[1], 0.5 * band + 0.5 * rough);
        let offset = (across / self.lanes - (across / self.lanes).floor() - 0.5).abs();
        let dashes = lattice(self.seed, (depth * 5.0).floor() as i32, (across / self.lanes).floor() as i32);
        if offset < 0.04 && dashes > 0.4 {
            colour = mix(colour, self.mark, smooth(0.04, 0.025, offset) * smooth(0.0, 0.1, below));
        }
        colour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_the_ground_and_of_what_stands_on_it() {
        let classes: Vec<usize> = (0..12).collect();
        let wanted = Wanted { domain: Domain::Specific, class: 3, classes: &classes, objects: (2, 4) };
        let mut seen = 0;
        for index in 0..20 {
            let scene = Scene::compose(&mut Stream::new(1, "test of depth", index), &wanted);
            let drawn = scene.draw(64);
            let depth = scene.depth(&drawn).unwrap();
            let Ground::Road(road) = &scene.ground else { panic!("no road") };
            // Nothing above the horizon but objects; the ground comes nearer towards the lower border.
            let ground: Vec<(usize, f32)> =
                (0..64 * 64).filter(|&i| drawn.owner[i] == 0 && depth[i] > 0.0).map(|i| (i / 64, depth[i])).collect();
            assert!(ground.iter().all(|(row, _)| (*row as f64 + 0.5) / 64.0 >= road.horizon));
            assert!(ground.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            assert!(ground.iter().all(|(_, metres)| (1.6..=40.0).contains(metres)));
            for (number, object) in (1..).zip(&scene.objects) {
                let own: Vec<f32> =
                    (0..64 * 64).filter(|&i| drawn.owner[i] == number && depth[i] > 0.0).map(|i| depth[i]).collect();
                let foot = (CAMERA / (object.foot() - road.horizon + HORIZON)) as f32;
                assert!(own.iter().all(|&metres| metres == foot), "{own:?} {foot}");
                seen += own.len();
            }
        }
        assert!(seen > 2000, "{seen}");
        let general = Scene::compose(&mut Stream::new(1, "flat", 0), &Wanted { domain: Domain::General, ..wanted });
        assert_eq!(general.depth(&general.draw(16)), None);
    }

    #[test]
    fn the_label_is_the_largest_visible_object() {
        let classes: Vec<usize> = (0..12).collect();
        for domain in [Domain::General, Domain::Specific] {
            for objects in [(1, 1), (3, 6), (12, 12)] {
                for index in 0..60 {
                    let class = index as usize % 12;
                    let mut stream = Stream::new(1, "test of labels", index);
                    let scene = Scene::compose(&mut stream, &Wanted { domain, class, classes: &classes, objects });
                    assert!((objects.0..=objects.1).contains(&scene.objects.len()));
                    let drawn = scene.draw(64);
                    let mut areas = vec![0_u32; scene.objects.len()];
                    for &owner in drawn.owner.iter().filter(|owner| **owner > 0) {
                        areas[usize::from(owner) - 1] += 1;
                    }
                    let largest = areas.iter().max().copied().unwrap_or(0);
                    let named = areas.iter().zip(&scene.objects).any(|(area, o)| *area == largest && o.class == class);
                    assert!(named, "{domain:?} {objects:?} {index}: areas {areas:?} do not show class {class} most");
                    assert!(largest > 40, "{domain:?} {objects:?} {index}: areas {areas:?}");
                }
            }
        }
    }
}
