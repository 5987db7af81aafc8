//! What training does to a picture and its mask.

use harness_protocol::steps::{Profile, ScaledCrop, SegmentAugment, Warp, Zoom};
use harness_views::opencv::{resize_cubic, resize_index_floor};
use harness_views::warp::{rotate_scale, rotate_scale_index};
use harness_views::{Filter, IndexMask, Picture, Stream, resize, resize_index_nearest};

use crate::metric::iou::VOID;
use crate::steps::segment::pairs::Pair;

/// A picture at another size, cubic: OpenCV's as published, Pillow's when repaired.
pub fn picture_at(picture: &Picture, width: usize, height: usize, profile: Profile) -> Picture {
    match profile {
        Profile::Official => resize_cubic(picture, width, height),
        Profile::Fixed => resize(picture, width, height, Filter::Bicubic),
    }
}

/// A mask at another size, nearest: OpenCV's (corners) as published, Pillow's (centres) when repaired.
pub fn mask_at(mask: &IndexMask, width: usize, height: usize, profile: Profile) -> IndexMask {
    match profile {
        Profile::Official => resize_index_floor(mask, width, height),
        Profile::Fixed => resize_index_nearest(mask, width, height),
    }
}

/// Both at another size.
pub fn pair_at(pair: &Pair, width: usize, height: usize, profile: Profile) -> Pair {
    Pair {
        picture: picture_at(&pair.picture, width, height, profile),
        mask: mask_at(&pair.mask, width, height, profile),
    }
}

/// A pair as training sees it. `size` is the side of the square of `warp` and `crop`.
pub fn augmented(pair: &Pair, augment: &SegmentAugment, profile: Profile, size: usize, stream: Stream) -> Pair {
    match augment {
        SegmentAugment::Warp(augment) => warped(pair, augment, profile, size, stream),
        SegmentAugment::Crop(augment) => cropped(pair, augment, profile, size, stream),
        SegmentAugment::Zoom(augment) => zoomed(pair, augment, profile, stream),
    }
}

fn flipped(pair: &Pair) -> Pair {
    Pair { picture: pair.picture.flipped(), mask: pair.mask.flipped() }
}

fn turned(pair: &Pair, degrees: f64, scale: f64, profile: Profile) -> Pair {
    let border = match profile {
        Profile::Official => 0,
        Profile::Fixed => VOID,
    };
    Pair {
        picture: rotate_scale(&pair.picture, degrees, scale, Filter::Bicubic, [0; 3]),
        mask: rotate_scale_index(&pair.mask, degrees, scale, border),
    }
}

/// Flips, then rotates and scales in one warp about the centre (picture cubic with a black border, mask nearest), then
/// resizes to `size` × `size` whatever the aspect. What the warp brings in from outside is class 0 as published, void
/// when repaired.
fn warped(pair: &Pair, augment: &Warp, profile: Profile, size: usize, mut stream: Stream) -> Pair {
    // Every number is drawn whatever the others are, so that one setting does not shift what another draws.
    let flip = stream.unit() < augment.flip;
    let degrees = stream.uniform(augment.rotate.0, augment.rotate.1);
    let scale = stream.uniform(augment.scale.0, augment.scale.1);
    let turned_over = flip.then(|| flipped(pair));
    let pair = turned_over.as_ref().unwrap_or(pair);
    if degrees == 0.0 && scale == 1.0 {
        return pair_at(pair, size, size, profile);
    }
    pair_at(&turned(pair, degrees, scale, profile), size, size, profile)
}

/// One of `scales`, drawn.
fn drawn(scales: &[f64], stream: &mut Stream) -> f64 {
    scales.get(stream.below(scales.len() as u64) as usize).copied().unwrap_or(1.0)
}

/// Sides that a sample is enlarged to before a crop of side `size`: none when both sides are long enough, else all of it
/// by size/(shorter side), new sides ⌊side · factor + 1⌋.
fn enlarged(width: usize, height: usize, size: usize) -> Option<(usize, usize)> {
    let shorter = width.min(height);
    (shorter < size).then(|| {
        let factor = size as f64 / shorter.max(1) as f64;
        let side = |side: usize| (side as f64 * factor + 1.0) as usize;
        (side(width), side(height))
    })
}

/// Scales, crops a square of side `size` (enlarging what is smaller), then flips.
fn cropped(pair: &Pair, augment: &ScaledCrop, profile: Profile, size: usize, mut stream: Stream) -> Pair {
    let scale = drawn(&augment.scales, &mut stream);
    let (across, down) = (stream.unit(), stream.unit());
    let flip = stream.unit() < augment.flip;
    let (width, height) = (pair.picture.width, pair.picture.height);
    // Cut off, as the published code does.
    let scaled = |side: usize| ((side as f64 * scale) as usize).max(1);
    let mut at_scale = (scale != 1.0).then(|| pair_at(pair, scaled(width), scaled(height), profile));
    if let Some((width, height)) = enlarged(scaled(width), scaled(height), size) {
        at_scale = Some(pair_at(at_scale.as_ref().unwrap_or(pair), width, height, profile));
    }
    let whole = at_scale.as_ref().unwrap_or(pair);
    let offset = |unit: f64, side: usize| (unit * side.saturating_sub(size) as f64) as usize;
    let (left, top) = (offset(across, whole.picture.width), offset(down, whole.picture.height));
    let part =
        Pair { picture: whole.picture.cropped(left, top, size, size), mask: whole.mask.cropped(left, top, size, size) };
    if flip { flipped(&part) } else { part }
}

/// Flips, then scales about the centre on the same canvas.
fn zoomed(pair: &Pair, augment: &Zoom, profile: Profile, mut stream: Stream) -> Pair {
    let flip = stream.unit() < augment.flip;
    let scale = drawn(&augment.scales, &mut stream);
    let (picture, mask) =
        if flip { (pair.picture.flipped(), pair.mask.flipped()) } else { (pair.picture.clone(), pair.mask.clone()) };
    let pair = Pair { picture, mask };
    if scale == 1.0 { pair } else { turned(&pair, 0.0, scale, profile) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::value::Span;

    /// A wide picture whose left half is class 1 and red, the right half class 2 and blue.
    fn halves(width: usize, height: usize) -> Pair {
        let left = |i: usize| i % width < width / 2;
        let data = (0..width * height).flat_map(|i| if left(i) { [250, 0, 0] } else { [0, 0, 250] }).collect();
        let mask = (0..width * height).map(|i| if left(i) { 1 } else { 2 }).collect();
        Pair { picture: Picture { width, height, data }, mask: IndexMask { width, height, data: mask } }
    }

    fn fixed(flip: f64, degrees: f64, scale: f64) -> SegmentAugment {
        SegmentAugment::Warp(Warp { flip, rotate: Span(degrees, degrees), scale: Span(scale, scale) })
    }

    fn stream(item: u64) -> Stream {
        Stream::new(1, "test", "test", 0, item, 0)
    }

    fn wrong(pair: &Pair) -> usize {
        let width = pair.picture.width;
        let agrees = |i: usize| {
            let [red, _, blue] = pair.picture.at(i % width, i / width);
            match pair.mask.data[i] {
                1 => red > blue,
                2 => blue > red,
                _ => true,
            }
        };
        assert_eq!((pair.mask.width, pair.mask.height), (width, pair.picture.height));
        (0..pair.mask.data.len()).filter(|&i| !agrees(i)).count()
    }

    #[test]
    fn the_border_of_the_label_follows_the_profile() {
        for (profile, border) in [(Profile::Official, 0), (Profile::Fixed, VOID)] {
            let pair = augmented(&halves(40, 20), &fixed(0.0, 5.0, 0.75), profile, 32, stream(0));
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
        for profile in [Profile::Official, Profile::Fixed] {
            for augment in [fixed(0.0, 4.0, 1.1), fixed(1.0, -5.0, 1.25), fixed(1.0, 0.0, 1.0)] {
                let pair = augmented(&halves(40, 20), &augment, profile, 24, stream(0));
                assert!(wrong(&pair) <= 24, "{} pixels disagree under {augment:?}", wrong(&pair));
                let SegmentAugment::Warp(Warp { flip, .. }) = augment else { unreachable!() };
                assert_eq!(pair.mask.data[12 * 24 + 4], if flip == 1.0 { 2 } else { 1 });
            }
            for item in 0..40 {
                let crop = SegmentAugment::Crop(ScaledCrop::default());
                let pair = augmented(&halves(40, 30), &crop, profile, 24, stream(item));
                assert_eq!((pair.picture.width, pair.picture.height), (24, 24));
                assert!(wrong(&pair) <= 24, "{} pixels disagree", wrong(&pair));
                let pair = augmented(&halves(40, 30), &SegmentAugment::Zoom(Zoom::default()), profile, 0, stream(item));
                assert_eq!((pair.picture.width, pair.picture.height), (40, 30));
                assert!(wrong(&pair) <= 30, "{} pixels disagree", wrong(&pair));
                assert!(!pair.mask.data.contains(&VOID) && !pair.mask.data.contains(&0));
            }
        }
    }

    /// Half of a Cityscapes picture is enlarged to nearly three quarters of one; three quarters stay.
    #[test]
    fn samples_smaller_than_the_crop_are_enlarged() {
        assert_eq!(enlarged(1024, 512, 768), Some((1537, 769)));
        assert_eq!(enlarged(1536, 768, 768), None);
        assert_eq!(enlarged(700, 2000, 768), Some((769, 2195)));
    }

    #[test]
    fn crops_reach_every_place_and_every_scale() {
        let crop = ScaledCrop { flip: 0.0, scales: vec![1.0] };
        // Columns tell where a crop begins.
        let (width, height) = (40, 30);
        let mask = IndexMask { width, height, data: (0..width * height).map(|i| (i % width) as u8).collect() };
        let pair = Pair { picture: Picture::filled(width, height, [0; 3]), mask };
        let mut seen: Vec<u8> =
            (0..400).map(|item| cropped(&pair, &crop, Profile::Fixed, 24, stream(item)).mask.data[0]).collect();
        seen.sort_unstable();
        seen.dedup();
        // ⌊U·16⌋ never gives 16, as published.
        assert_eq!(seen, (0..16).collect::<Vec<u8>>());
        let mut scales: Vec<u64> =
            (0..200).map(|item| (drawn(&[0.5, 1.0, 2.0], &mut stream(item)) * 2.0) as u64).collect();
        scales.sort_unstable();
        scales.dedup();
        assert_eq!(scales, [1, 2, 4]);
    }

    #[test]
    fn nothing_to_do_is_a_resize() {
        let pair = augmented(&halves(40, 20), &fixed(0.0, 0.0, 1.0), Profile::Fixed, 16, stream(0));
        let plain = pair_at(&halves(40, 20), 16, 16, Profile::Fixed);
        assert_eq!((pair.picture, pair.mask), (plain.picture, plain.mask));
    }
}
