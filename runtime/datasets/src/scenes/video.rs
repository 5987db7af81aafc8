//! Videos: objects that move along smooth paths, turn, change their aspect and hide one another.

use harness_protocol::steps::Domain;
use libm::sin;

use super::random::Stream;
use super::scene::{Pose, Scene, Wanted};

/// Least share of the first frame that each object shows.
pub(crate) const FIRST_FRAME: f64 = 0.02;

/// A sine of time (0 at the first frame, 1 at the last) that is 0 at the first frame.
#[derive(Clone, Copy, Debug)]
struct Swing {
    reach: f64,
    turns: f64,
    phase: f64,
}

impl Swing {
    fn new(stream: &mut Stream, reach: f64) -> Self {
        Self { reach, turns: stream.range(0.35, 0.9), phase: stream.range(0.0, std::f64::consts::TAU) }
    }

    fn at(self, time: f64) -> f64 {
        self.reach * (sin(std::f64::consts::TAU * self.turns * time + self.phase) - sin(self.phase))
    }
}

/// How one object moves.
#[derive(Clone, Copy, Debug)]
struct Path {
    start: Pose,
    x: Swing,
    y: Swing,
    turn: f64,
    wobble: Swing,
    aspect: Swing,
    growth: Swing,
}

/// A video that can be drawn frame by frame.
#[derive(Clone, Debug)]
pub(crate) struct Video {
    scene: Scene,
    paths: Vec<Path>,
    pan: [Swing; 2],
    /// Number of frames.
    pub frames: usize,
}

impl Video {
    /// Draws a video of one to three objects at random, each of which shows at least [`FIRST_FRAME`] of the first frame.
    pub fn compose(stream: &mut Stream, domain: Domain, classes: usize, frames: usize) -> Self {
        let all: Vec<usize> = (0..classes).collect();
        let wanted = 1 + stream.below(3);
        // Where the objects do not fit, one fewer is tried; a single one shows enough nearly always.
        let mut scene;
        let mut tries = 0;
        loop {
            let objects = wanted.saturating_sub(tries / 40).max(1);
            let class = stream.below(classes);
            scene = Scene::compose(stream, &Wanted { domain, class, classes: &all, objects: (objects, objects) });
            let (visible, _) = scene.areas(64);
            // With room for the difference between this grid and the frame's own pixels.
            if visible.iter().all(|v| *v >= 1.25 * FIRST_FRAME) || tries >= 160 {
                break;
            }
            tries += 1;
        }
        let upright = domain == Domain::Specific;
        let paths = scene
            .objects
            .iter()
            .map(|object| Path {
                start: object.pose,
                x: Swing::new(stream, 0.24),
                y: Swing::new(stream, if upright { 0.02 } else { 0.2 }),
                turn: if upright { 0.0 } else { stream.range(-1.6, 1.6) },
                wobble: Swing::new(stream, if upright { 0.1 } else { 0.25 }),
                aspect: Swing::new(stream, 0.14),
                growth: Swing::new(stream, 0.1),
            })
            .collect();
        let pan = [Swing::new(stream, 0.12), Swing::new(stream, if upright { 0.0 } else { 0.08 })];
        Self { scene, paths, pan, frames }
    }

    /// The scene at a frame.
    pub fn at(&self, frame: usize) -> Scene {
        let mut scene = self.scene.clone();
        let time = frame as f64 / (self.frames.max(2) - 1) as f64;
        scene.pan = self.pan.map(|swing| swing.at(time));
        scene.grain_seed = scene.grain_seed.wrapping_add(frame as u32);
        for (object, path) in scene.objects.iter_mut().zip(&self.paths) {
            let start = path.start;
            object.pose = Pose {
                x: bounce(start.x, path.x.at(time)),
                y: bounce(start.y, path.y.at(time)),
                size: start.size * (1.0 + path.growth.at(time)).max(0.5),
                angle: start.angle + path.turn * time + path.wobble.at(time),
                aspect: (start.aspect + path.aspect.at(time)).clamp(0.65, 1.5),
                mirrored: start.mirrored,
            };
        }
        scene
    }
}

/// Moves from `start`, inside the picture, by at most what leaves the centre inside it: near a border the way back is
/// taken instead.
fn bounce(start: f64, way: f64) -> f64 {
    let there = start + way;
    let (low, high) = (0.1, 0.9);
    if start <= low || start >= high {
        return there.clamp(start.min(low), start.max(high));
    }
    // A smooth squeeze of the way into the room that there is on its side.
    let room = if way > 0.0 { high - start } else { start - low };
    start + way * room / (room + way.abs())
}
