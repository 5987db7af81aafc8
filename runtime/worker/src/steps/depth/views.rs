//! Pictures with depth maps: how they are read, and what training sees of them.

use std::sync::Arc;

use harness_datasets::npy::read_grid;
use harness_protocol::steps::{Profile, Zoom};
use harness_views::loader::ordered;
use harness_views::warp::{rotate_scale, rotate_scale_values};
use harness_views::{Filter, Picture, Stream};

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;
use crate::metric::depth::{Totals, valid};

/// Decoded views stay in memory when all together are no larger than this, bytes.
const KEEP: usize = 1 << 30;

/// A picture and the depth of each of its pixels.
#[derive(Clone, Debug)]
pub struct View {
    /// The picture.
    pub picture: Picture,
    /// Metres, row by row from the top; 0 where it is unknown.
    pub depth: Vec<f32>,
}

/// Pictures with depth maps that are all known to fit. Cheap to clone; shared by threads.
#[derive(Clone, Debug)]
pub struct Views {
    images: Images,
    profile: Profile,
    kept: Option<Arc<Vec<Arc<View>>>>,
    /// Sums of each picture's depth.
    totals: Arc<Vec<Totals>>,
    /// Numbers of the pictures among all those of the dataset; none for all of them.
    chosen: Option<Arc<Vec<usize>>>,
}

/// A map of one size brought to another: the value of the nearest pixel by corners, as OpenCV does it.
fn nearest(depth: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let place = |at: usize, from: usize, to: usize| (at * from / to.max(1)).min(from.saturating_sub(1));
    let rows = (0..to.1).map(|y| place(y, from.1, to.1));
    rows.flat_map(|y| (0..to.0).map(move |x| depth[y * from.0 + place(x, from.0, to.0)])).collect()
}

/// One picture and its map; unknown depth becomes 0. A map of another size than its picture is resized to it as published,
/// and an error when repaired.
fn load(images: &Images, index: usize, profile: Profile) -> Result<View> {
    let picture = images.picture(index)?;
    let path = images.manifest.entries[index].depth.as_ref().map_or("", |file| file.path.as_str());
    let grid = read_grid(&images.depth(index)?).map_err(|why| format!("the depth map `{path}` is {why}"))?;
    let mut depth = grid.values;
    if (grid.width, grid.height) != (picture.width, picture.height) {
        if profile == Profile::Fixed {
            return Err(format!(
                "the depth map `{path}` is {}x{} and its picture `{}` is {}x{}; they must have one size (`profile = \
                 official` resizes such maps)",
                grid.width,
                grid.height,
                images.path(index),
                picture.width,
                picture.height
            )
            .into());
        }
        depth = nearest(&depth, (grid.width, grid.height), (picture.width, picture.height));
    }
    depth.iter_mut().filter(|depth| !valid(**depth)).for_each(|depth| *depth = 0.0);
    Ok(View { picture, depth })
}

impl Views {
    /// Decodes every picture and map once; keeps them when they are small enough together.
    ///
    /// # Errors
    /// Files that changed, are damaged or differ in size, all of them in one message; no known depth at all; or cancelled.
    pub fn check(context: &Context, images: &Images, split: &str, profile: Profile) -> Result<Self> {
        let total = images.len();
        let (mut kept, mut bytes, mut totals) = (Some(Vec::with_capacity(total)), 0, Vec::with_capacity(total));
        let mut bad = Bad::default();
        let (source, threads) = (images.clone(), context.threads());
        let views = ordered(threads, 4 * threads, (0..total).collect(), move |index| load(&source, index, profile));
        for (index, view) in views.enumerate() {
            context.check_cancelled()?;
            match view {
                Ok(Ok(view)) => {
                    let mut own = Totals::default();
                    own.add(&view.depth);
                    totals.push(own);
                    bytes += view.picture.data.len() + 4 * view.depth.len();
                    if bytes > KEEP {
                        kept = None;
                    }
                    if let Some(kept) = &mut kept {
                        kept.push(Arc::new(view));
                    }
                }
                Ok(Err(error)) => bad.push(error.to_string()),
                Err(panic) => bad.push(format!("`{}`: {panic}", images.path(index))),
            }
            context.progress(&format!("checking {split}"), index as u64 + 1, total as u64, "pictures");
        }
        bad.check(total)?;
        let views =
            Self { images: images.clone(), profile, kept: kept.map(Arc::new), totals: Arc::new(totals), chosen: None };
        let unknown: Vec<usize> = (0..total).filter(|&index| views.totals[index].valid == 0).collect();
        match unknown.first() {
            Some(_) if unknown.len() == total => {
                return Err(format!("no pixel of {split} has a known depth (finite, above 0 and not 255)").into());
            }
            Some(&first) => context.warn(format!(
                "no pixel of {} pictures of {split} has a known depth, first `{}`",
                unknown.len(),
                images.path(first)
            )),
            None => (),
        }
        Ok(views)
    }

    /// Only the pictures with these numbers, in this order.
    pub fn only(&self, chosen: Vec<usize>) -> Self {
        let within = chosen.into_iter().map(|index| self.at(index)).collect();
        Self { chosen: Some(Arc::new(within)), ..self.clone() }
    }

    fn at(&self, index: usize) -> usize {
        self.chosen.as_ref().map_or(index, |chosen| chosen[index])
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.images.len(), |chosen| chosen.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One picture with its map.
    ///
    /// # Errors
    /// It is not the one any more that was looked at.
    pub fn get(&self, index: usize) -> Result<Arc<View>> {
        let index = self.at(index);
        match &self.kept {
            Some(kept) => Ok(kept[index].clone()),
            None => Ok(Arc::new(load(&self.images, index, self.profile)?)),
        }
    }

    /// Path of a picture, for captions.
    pub fn path(&self, index: usize) -> &str {
        self.images.path(self.at(index))
    }

    /// Sums of the known depth of all pictures together.
    pub fn totals(&self) -> Totals {
        let mut sums = Totals::default();
        (0..self.len()).for_each(|index| sums.merge(&self.totals[self.at(index)]));
        sums
    }
}

/// A view as training sees it: flipped, then scaled about the centre on the same canvas (picture cubic, depth nearest); what
/// looks `scale` times as large is `scale` times as near. What comes from outside is black and unknown.
pub fn augmented(view: &View, augment: &Zoom, mut stream: Stream) -> View {
    let flip = stream.unit() < augment.flip;
    let scale = augment.scales.get(stream.below(augment.scales.len() as u64) as usize).copied().unwrap_or(1.0);
    let (width, height) = (view.picture.width, view.picture.height);
    let mut seen = view.clone();
    if flip {
        seen.picture = seen.picture.flipped();
        seen.depth.chunks_exact_mut(width.max(1)).for_each(<[f32]>::reverse);
    }
    if scale != 1.0 {
        seen.picture = rotate_scale(&seen.picture, 0.0, scale, Filter::Bicubic, [0; 3]);
        let scaled = rotate_scale_values(&seen.depth, (width, height), 0.0, scale, 0.0);
        seen.depth = scaled.into_iter().map(|depth| (f64::from(depth) / scale) as f32).collect();
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns of 1, 2, 3 … metres, red by the same number.
    fn stairs(width: usize, height: usize) -> View {
        let depth = (0..width * height).map(|i| (i % width + 1) as f32).collect();
        let data = (0..width * height).flat_map(|i| [10 * (i % width + 1) as u8, 0, 0]).collect();
        View { picture: Picture { width, height, data }, depth }
    }

    fn with(flip: f64, scales: &[f64]) -> Zoom {
        Zoom { flip, scales: scales.to_vec() }
    }

    #[test]
    fn picture_and_depth_move_together_and_come_nearer() {
        let stream = || Stream::new(1, "test", "test", 0, 0, 0);
        let view = stairs(8, 4);
        let flipped = augmented(&view, &with(1.0, &[1.0]), stream());
        assert_eq!(flipped.depth[..8], [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(flipped.picture.at(0, 0), [80, 0, 0]);
        let twice = augmented(&view, &with(0.0, &[2.0]), stream());
        // About the middle (w/2, as OpenCV is asked to), at half the distance.
        assert_eq!(twice.depth[..8], [1.5, 2.0, 2.0, 2.5, 2.5, 3.0, 3.0, 3.5]);
        let far = augmented(&view, &with(0.0, &[0.5]), stream());
        assert_eq!(far.depth[..8], [0.0; 8]);
        assert_eq!(far.depth[8..16], [0.0, 0.0, 2.0, 6.0, 10.0, 14.0, 0.0, 0.0]);
        assert_eq!(far.picture.at(0, 1), [0, 0, 0]);
        let mut drawn: Vec<u32> = (0..60)
            .map(|item| augmented(&view, &with(0.5, &[1.0, 2.0]), Stream::new(1, "test", "test", 0, item, 0)).depth[0])
            .map(|depth| (2.0 * depth) as u32)
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [2, 3, 6, 16]);
    }

    #[test]
    fn other_sizes_take_the_nearest_value() {
        assert_eq!(nearest(&[1.0, 2.0, 3.0, 4.0], (2, 2), (4, 2)), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        assert_eq!(nearest(&[1.0, 2.0, 3.0, 4.0], (4, 1), (2, 1)), [1.0, 3.0]);
    }
}
