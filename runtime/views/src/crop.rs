//! Where crops are taken: random resized crops, and small ones bound to the key crop.
//!
//! Sources: `utils/constrained_cropping.py` of the study's repository; torchvision's `RandomResizedCrop.get_params`.

use crate::rng::Stream;

/// A crop's box in the source picture, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// No draw fitted: it is the central box, or a small crop that was taken unbound.
    pub fallback: bool,
}

impl CropBox {
    /// Pixels that two boxes share.
    pub fn intersection(&self, other: &CropBox) -> usize {
        let side = |a: usize, b: usize, c: usize, d: usize| (a + b).min(c + d).saturating_sub(a.max(c));
        side(self.top, self.height, other.top, other.height) * side(self.left, self.width, other.left, other.width)
    }
}

/// Tries before a crop falls back to the central box.
const TRIES: usize = 10;

/// One draw: target area and box, if the box fits.
fn draw(stream: &mut Stream, w: usize, h: usize, scale: (f64, f64), ratio: (f64, f64)) -> (f64, Option<CropBox>) {
    let area = stream.uniform(scale.0, scale.1) * (w * h) as f64;
    // Not the platform's functions: crops are the same on every machine.
    let aspect = libm::exp(stream.uniform(libm::log(ratio.0), libm::log(ratio.1)));
    let width = (area * aspect).sqrt().round_ties_even() as usize;
    let height = (area / aspect).sqrt().round_ties_even() as usize;
    if width == 0 || height == 0 || width > w || height > h {
        return (area, None);
    }
    let top = stream.below((h - height + 1) as u64) as usize;
    let left = stream.below((w - width + 1) as u64) as usize;
    (area, Some(CropBox { top, left, height, width, fallback: false }))
}

/// A random resized crop of a `w` × `h` picture: area from `scale` (shares), log-uniform aspect from `ratio`.
pub fn random_resized_crop(stream: &mut Stream, w: usize, h: usize, scale: (f64, f64), ratio: (f64, f64)) -> CropBox {
    for _ in 0..TRIES {
        if let (_, Some(found)) = draw(stream, w, h, scale, ratio) {
            return found;
        }
    }
    let aspect = w as f64 / h as f64;
    let (width, height) = if aspect < ratio.0 {
        (w, ((w as f64 / ratio.0).round_ties_even() as usize).min(h))
    } else if aspect > ratio.1 {
        (((h as f64 * ratio.1).round_ties_even() as usize).min(w), h)
    } else {
        (w, h)
    };
    CropBox { top: (h - height) / 2, left: (w - width) / 2, height, width, fallback: true }
}

/// A small crop of which at least `min_overlap` of the drawn target area lies inside `key`; after `max_tries` it is
/// taken unbound and marked as a fallback.
#[allow(clippy::too_many_arguments, reason = "the parameters of the published function")]
pub fn constrained_crop(
    stream: &mut Stream,
    w: usize,
    h: usize,
    scale: (f64, f64),
    ratio: (f64, f64),
    key: &CropBox,
    min_overlap: f64,
    max_tries: usize,
) -> CropBox {
    for _ in 0..max_tries {
        if let (area, Some(found)) = draw(stream, w, h, scale, ratio)
            && found.intersection(key) as f64 >= min_overlap * area
        {
            return found;
        }
    }
    CropBox { fallback: true, ..random_resized_crop(stream, w, h, scale, ratio) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

    /// Acceptance rates of an independent re-implementation, 40,000 draws for each size; ±0.7 points.
    #[test]
    fn acceptance_is_that_of_the_published_sampler() {
        for (w, h, at_ten, first) in [
            (640, 480, 87.3, 87.1),
            (480, 640, 87.2, 86.9),
            (640, 426, 82.4, 82.3),
            (500, 375, 86.9, 87.2),
            (224, 224, 91.7, 91.5),
        ] {
            let (mut free, mut bound, mut fell) = (0, 0, 0);
            let n = 40_000;
            for i in 0..n {
                let mut stream = Stream::new(1, "test", "crop", 0, i, 0);
                let key = random_resized_crop(&mut stream, w, h, (0.2, 1.0), RATIO);
                let small = random_resized_crop(&mut stream, w, h, (0.05, 0.14), RATIO);
                free += usize::from(small.intersection(&key) * 10 >= small.width * small.height);
                let mut once = Stream::new(1, "test", "once", 0, i, 0);
                bound += usize::from(!constrained_crop(&mut once, w, h, (0.05, 0.14), RATIO, &key, 0.1, 1).fallback);
                let mut ten = Stream::new(1, "test", "ten", 0, i, 0);
                fell += usize::from(constrained_crop(&mut ten, w, h, (0.05, 0.14), RATIO, &key, 0.1, 10).fallback);
            }
            let percent = |count: usize| 100.0 * count as f64 / n as f64;
            assert!((percent(free) - at_ten).abs() < 0.7, "{w}×{h}: {} of free crops overlap", percent(free));
            assert!((percent(bound) - first).abs() < 0.7, "{w}×{h}: {} accepted at the first try", percent(bound));
            assert!(fell < 15, "{w}×{h}: {fell} fallbacks");
        }
    }

    #[test]
    fn bound_crops_overlap_and_fit() {
        let mut bound = 0;
        for i in 0..5_000 {
            let mut stream = Stream::new(2, "test", "crop", 0, i, 0);
            let key = random_resized_crop(&mut stream, 97, 61, (0.2, 1.0), RATIO);
            let mut again = stream.clone();
            let small = constrained_crop(&mut stream, 97, 61, (0.05, 0.14), RATIO, &key, 0.1, 10);
            assert!(small.left + small.width <= 97 && small.top + small.height <= 61);
            if small.fallback {
                continue;
            }
            // The same draws once more, for the target area that the rule speaks of: it is the first that fits.
            let fits = |(area, found): &(f64, Option<CropBox>)| {
                found.is_some_and(|found| found.intersection(&key) as f64 >= 0.1 * area)
            };
            let mut draws = std::iter::repeat_with(|| draw(&mut again, 97, 61, (0.05, 0.14), RATIO)).take(10);
            let (area, found) = draws.find(fits).expect("not a fallback");
            assert_eq!(found, Some(small));
            assert!(small.intersection(&key) as f64 >= 0.1 * area);
            bound += 1;
        }
        assert!(bound > 4_900, "{bound}");
    }

    #[test]
    fn a_picture_too_narrow_for_any_draw_gives_its_centre() {
        let mut stream = Stream::new(0, "test", "crop", 0, 0, 0);
        let found = random_resized_crop(&mut stream, 400, 10, (0.9, 1.0), RATIO);
        assert_eq!(found, CropBox { top: 0, left: 193, height: 10, width: 13, fallback: true });
    }
}
