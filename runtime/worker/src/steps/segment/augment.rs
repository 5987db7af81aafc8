//! What training does to a picture and its mask.

use harness_protocol::steps::{Profile, SegmentAugment};
use harness_views::warp::{rotate_scale, rotate_scale_index};
use harness_views::{Filter, IndexMask, Stream, resize, resize_index_nearest};

use crate::metric::iou::VOID;
use crate::steps::segment::pairs::Pair;

/// Flips, then rotates and scales in one warp about the centre (picture cubic with a black border, mask nearest), then
/// resizes to `size` × `size` whatever the aspect. What the warp brings in from outside is class 0 as published, void
/// when repaired.
pub fn augmented(pair: &Pair, augment: &SegmentAugment, profile: Profile, size: usize, mut stream: Stream) -> Pair {
    // Every number is drawn whatever the others are, so that one setting does not shift what another draws.
    let flip = stream.unit() < augment.flip;
    let degrees = stream.uniform(augment.rotate.0, augment.rotate.1);
    let scale = stream.uniform(augment.scale.0, augment.scale.1);
    let flipped = flip.then(|| Pair { picture: pair.picture.flipped(), mask: pair.mask.flipped() });
    let pair = flipped.as_ref().unwrap_or(pair);
    if degrees == 0.0 && scale == 1.0 {
        return resized(pair, size);
    }
    let border = match profile {
        Profile::Official => 0,
        Profile::Fixed => VOID,
    };
    let warped = Pair {
        picture: rotate_scale(&pair.picture, degrees, scale, Filter::Bicubic, [0; 3]),
        mask: rotate_scale_index(&pair.mask, degrees, scale, border),
    };
    resized(&warped, size)
}

/// Resizes to `size` × `size` whatever the aspect: picture cubic, mask nearest.
pub fn resized(pair: &Pair, size: usize) -> Pair {
    Pair {
        picture: resize(&pair.picture, size, size, Filter::Bicubic),
        mask: resize_index_nearest(&pair.mask, size, size),
    }
}

/// The class of every pixel at `size`² brought to another size, nearest.
pub fn at_size(classes: Vec<u8>, size: usize, width: usize, height: usize) -> IndexMask {
    resize_index_nearest(&IndexMask { width: size, height: size, data: classes }, width, height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::value::Span;
    use harness_views::Picture;

    /// A wide picture whose left half is class 1 and red, the right half class 2 and blue.
    fn halves() -> Pair {
        let (width, height) = (40, 20);
        let left = |i: usize| i % width < width / 2;
        let data = (0..width * height).flat_map(|i| if left(i) { [250, 0, 0] } else { [0, 0, 250] }).collect();
        let mask = (0..width * height).map(|i| if left(i) { 1 } else { 2 }).collect();
        Pair { picture: Picture { width, height, data }, mask: IndexMask { width, height, data: mask } }
    }

    fn fixed(flip: f64, degrees: f64, scale: f64) -> SegmentAugment {
        SegmentAugment { flip, rotate: Span(degrees, degrees), scale: Span(scale, scale) }
    }

    fn stream() -> Stream {
        Stream::new(1, "test", 0, 0, 0)
    }

    #[test]
    fn the_border_of_the_label_follows_the_profile() {
        for (profile, border) in [(Profile::Official, 0), (Profile::Fixed, VOID)] {
            let pair = augmented(&halves(), &fixed(0.0, 5.0, 0.75), profile, 32, stream());
            assert_eq!(pair.mask.data[0], border);
            assert_eq!(pair.picture.at(0, 0), [0; 3]);
            let mut values = pair.mask.data.clone();
            values.sort_unstable();
            values.dedup();
            let mut expected = vec![1, 2, border];
            expected.sort_unstable();
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn picture_and_mask_move_together() {
        for augment in [fixed(0.0, 4.0, 1.1), fixed(1.0, -5.0, 1.25), fixed(1.0, 0.0, 1.0)] {
            let pair = augmented(&halves(), &augment, Profile::Fixed, 24, stream());
            let agrees = |i: usize| {
                let [red, _, blue] = pair.picture.at(i % 24, i / 24);
                match pair.mask.data[i] {
                    1 => red > blue,
                    2 => blue > red,
                    _ => true,
                }
            };
            let wrong = (0..24 * 24).filter(|&i| !agrees(i)).count();
            assert!(wrong <= 24, "{wrong} pixels disagree under {augment:?}");
            let left = pair.mask.data[12 * 24 + 4];
            assert_eq!(left, if augment.flip == 1.0 { 2 } else { 1 });
        }
    }

    #[test]
    fn nothing_to_do_is_a_resize() {
        let pair = augmented(&halves(), &fixed(0.0, 0.0, 1.0), Profile::Fixed, 16, stream());
        let plain = resized(&halves(), 16);
        assert_eq!((pair.picture, pair.mask), (plain.picture, plain.mask));
    }
}
