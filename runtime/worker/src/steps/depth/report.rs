//! What a depth transfer leaves to look at: predicted and true depth side by side in one scale of colours.

use harness_protocol::Gallery;
use harness_views::{Filter, Picture, resize};
use tch::Tensor;

use crate::error::Result;
use crate::metric::depth::{Errors, valid};
use crate::steps::depth::views::{View, Views};
use crate::steps::finetune::{Scored, Shown};
use crate::steps::overlay::{beside, fit, item, write};

/// Longest side of a picture in the gallery, pixels.
const LONGEST: usize = 240;
/// From near to far, evenly spaced in the logarithm of depth: light where near, dark where far.
const COLOURS: [[f64; 3]; 5] =
    [[254.0, 240.0, 190.0], [250.0, 166.0, 90.0], [200.0, 70.0, 95.0], [105.0, 30.0, 110.0], [18.0, 12.0, 60.0]];
/// Where the truth is not known.
const UNKNOWN: [u8; 3] = [128; 3];

/// The depths that the first and the last colour stand for, metres.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    near: f64,
    far: f64,
}

impl Range {
    /// From the least to the largest known depth; one to ten metres where none is known.
    fn of<'a>(maps: impl Iterator<Item = &'a [f32]>) -> Self {
        let ends = maps.flatten().copied().filter(|&depth| valid(depth)).map(f64::from);
        let (near, far) = ends.fold((f64::INFINITY, 0.0_f64), |(near, far), d| (near.min(d), far.max(d)));
        match near <= far {
            true => Self { near, far: far.max(near * 1.001) },
            false => Self { near: 1.0, far: 10.0 },
        }
    }

    /// The colour of a depth; what lies outside has the colour of the end.
    fn colour(self, depth: f64) -> [u8; 3] {
        let share = (depth.max(1e-9) / self.near).ln() / (self.far / self.near).ln();
        let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
        let below = (place as usize).min(COLOURS.len() - 2);
        let part = place - below as f64;
        std::array::from_fn(|c| (COLOURS[below][c] * (1.0 - part) + COLOURS[below + 1][c] * part).round() as u8)
    }

    /// A map as a picture; unknown depth is grey in the truth.
    fn painted(self, depth: &[f32], (width, height): (usize, usize), truth: bool) -> Picture {
        let colour = |&depth: &f32| if truth && !valid(depth) { UNKNOWN } else { self.colour(f64::from(depth)) };
        Picture { width, height, data: depth.iter().flat_map(colour).collect() }
    }

    /// All colours from near to far with the depth that some of them stand for.
    fn legend(self) -> Picture {
        let (width, bar) = (320, 14);
        let mut picture = Picture::filled(width, bar + 12, [255; 3]);
        let at = |x: usize| self.near * (self.far / self.near).powf(x as f64 / (width - 1) as f64);
        for x in 0..width {
            let colour = self.colour(at(x));
            for y in 0..bar {
                picture.data[3 * (y * width + x)..][..3].copy_from_slice(&colour);
            }
        }
        for (x, left) in [(0, 0), (width / 2, width / 2 - 24), (width - 1, width - 56)] {
            write(&mut picture, left, bar + 3, &format!("{:.2} m", at(x)), [30, 30, 30]);
        }
        picture
    }
}

/// The colours and test pictures with prediction and truth.
///
/// # Errors
/// Pictures that changed since they were looked at.
pub fn gallery(test: &Views, shown: &Shown, chosen: &Scored<Errors>) -> Result<Gallery> {
    let views: Vec<_> = shown.keys().map(|&index| test.get(index)).collect::<Result<_>>()?;
    let range = Range::of(views.iter().map(|view| view.depth.as_slice()));
    let mut items =
        vec![item(&range.legend(), "What the colours stand for, near to far; unknown depth is grey.".into())?];
    for ((&index, predicted), view) in shown.iter().zip(&views) {
        let predicted = Vec::<f32>::try_from(Tensor::f_reshape(predicted, [-1])?)?;
        let mut own = Errors::default();
        own.add(&view.depth, &predicted);
        let caption = match own.valid {
            0 => format!("{}: no known depth", test.path(index)),
            _ => format!("{}: RMSE {:.3} m", test.path(index), own.rmse()),
        };
        items.push(item(&beside(&panels(range, view, &predicted)), caption)?);
    }
    Ok(Gallery {
        title: "Depth".into(),
        caption: format!(
            "Test pictures after epoch {}; left: the picture, middle: predicted, right: the truth.",
            chosen.epoch
        ),
        items,
    })
}

/// The picture, the prediction, the truth.
fn panels(range: Range, view: &View, predicted: &[f32]) -> [Picture; 3] {
    let (width, height) = (view.picture.width, view.picture.height);
    let (across, down) = fit(width, height, LONGEST);
    let small = |picture: &Picture| resize(picture, across, down, Filter::Bilinear);
    let map = |depth: &[f32], truth| small(&range.painted(depth, (width, height), truth));
    [small(&view.picture), map(predicted, false), map(&view.depth, true)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_run_from_near_to_far() {
        let range = Range::of([[0.0, 2.0, 8.0].as_slice(), &[4.0, 255.0]].into_iter());
        assert_eq!(range, Range { near: 2.0, far: 8.0 });
        assert_eq!(range.colour(2.0), [254, 240, 190]);
        assert_eq!(range.colour(4.0), [200, 70, 95]);
        assert_eq!([range.colour(8.0), range.colour(80.0)], [[18, 12, 60]; 2]);
        assert_eq!(range.colour(-1.0), [254, 240, 190]);
        let map = range.painted(&[2.0, 0.0], (2, 1), true);
        assert_eq!([map.at(0, 0), map.at(1, 0)], [[254, 240, 190], UNKNOWN]);
        assert_eq!(range.painted(&[0.0], (1, 1), false).at(0, 0), [254, 240, 190]);
        let legend = range.legend();
        assert_eq!([legend.at(0, 0), legend.at(319, 13)], [[254, 240, 190], [18, 12, 60]]);
        assert_eq!(Range::of(std::iter::empty()), Range { near: 1.0, far: 10.0 });
        // One depth alone is no range, and no division by zero.
        assert_eq!(Range::of([[3.0].as_slice()].into_iter()).colour(3.0), [254, 240, 190]);
    }
}
