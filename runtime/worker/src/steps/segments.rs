//! Segments of pictures with one feature each: what retrieval and clustering work on.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness_protocol::steps::Profile;
use harness_views::loader::ordered;
use harness_views::{IndexMask, Picture};
use tch::{Device, Kind, Tensor, no_grad};

use crate::cluster::{Settings, cluster};
use crate::context::Context;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::features::normalised;
use crate::guard::{Guard, finite};
use crate::model::dense::keeping;
use crate::model::{Mode, Network};
use crate::steps::finetune::Input;
use crate::steps::segment::augment::{mask_at, picture_at};
use crate::steps::segment::pairs::{Pair, Pairs};

/// Pictures in a forward pass.
const BATCH: usize = 8;
/// Value of a pixel that is in no segment.
pub const NONE: u8 = 255;

/// Saliency masks, found by the bytes of their pictures.
#[derive(Clone, Debug)]
pub struct Masks {
    images: Images,
    by_digest: Arc<BTreeMap<String, usize>>,
    /// Share of a picture below which its mask counts as empty.
    least: f64,
}

impl Masks {
    /// The masks of a dataset.
    pub fn new(images: Images, least: f64) -> Self {
        let digests = images.manifest.entries.iter().enumerate();
        let by_digest = digests.map(|(index, entry)| (entry.file.digest.clone(), index)).collect();
        Self { images, by_digest: Arc::new(by_digest), least }
    }

    /// Makes sure that every picture of a split has a mask.
    ///
    /// # Errors
    /// Names the first that has none.
    fn check(&self, pairs: &Pairs, split: &str) -> Result<()> {
        let missing: Vec<usize> =
            (0..pairs.len()).filter(|&index| !self.by_digest.contains_key(pairs.digest(index))).collect();
        match missing.first() {
            None => Ok(()),
            Some(&first) => Err(format!(
                "{} of {} pictures of {split} have no saliency mask, first `{}`; a mask belongs to a picture with the same \
                 bytes, so the saliency dataset must list these very files",
                missing.len(),
                pairs.len(),
                pairs.path(first)
            )
            .into()),
        }
    }

    /// The salient pixels of a picture as segment 0, everything else [`NONE`], at the mask's own size.
    fn salient(&self, digest: &str, picture: &Picture) -> Result<IndexMask> {
        let index = self.by_digest.get(digest).ok_or("a picture has no saliency mask; this is a defect of harness")?;
        let mut mask = self.images.mask(*index)?;
        if (mask.width, mask.height) != (picture.width, picture.height) {
            let path = self.images.path(*index);
            return Err(format!(
                "the saliency mask of `{path}` is {}x{} and the picture {}x{}; they must have one size",
                mask.width, mask.height, picture.width, picture.height
            )
            .into());
        }
        let salient = mask.data.iter().filter(|&&value| value != 0).count();
        let enough = salient > 0 && salient as f64 >= self.least * mask.data.len() as f64;
        mask.data.iter_mut().for_each(|value| *value = if enough && *value != 0 { 0 } else { NONE });
        Ok(mask)
    }
}

/// How a picture is cut into segments.
#[derive(Clone, Debug)]
pub enum Cut {
    /// K-means over its positions.
    Kmeans(Settings),
    /// Its saliency mask.
    Saliency(Masks),
}

/// How the segments of a split are found.
pub struct Task<'a> {
    /// The pictures.
    pub pairs: &'a Pairs,
    /// What they are called in messages.
    pub split: &'a str,
    /// How they are cut.
    pub cut: &'a Cut,
    /// Last stages of the network that keep their size.
    pub dilated: u64,
    /// Side of the squares that the network sees.
    pub size: usize,
    /// How sizes change.
    pub profile: Profile,
    /// Seed of K-means.
    pub seed: u64,
    /// Kind of the step that it is for, which its random numbers are known by.
    pub kind: &'static str,
}

/// The segments of a split.
pub struct Segments {
    /// [segments, channels], fp32 on the CPU, rows of length 1.
    pub features: Tensor,
    /// Picture and number within it of each segment.
    pub places: Vec<(usize, u8)>,
    /// Which segment each pixel of a picture is in: the map's grid for K-means, the mask's own size for saliency.
    maps: Vec<IndexMask>,
}

impl Segments {
    /// The segment of each pixel of picture `index` (its number within the picture, or [`NONE`]) at a size, nearest.
    pub fn map(&self, index: usize, width: usize, height: usize, profile: Profile) -> IndexMask {
        mask_at(&self.maps[index], width, height, profile)
    }

    /// Numbers of the segments of each picture.
    pub fn of_pictures(&self) -> Vec<Vec<usize>> {
        let mut of = vec![Vec::new(); self.maps.len()];
        self.places.iter().enumerate().for_each(|(segment, (picture, _))| of[*picture].push(segment));
        of
    }

    /// Pictures without a segment.
    pub fn empty(&self) -> Vec<usize> {
        self.of_pictures().iter().enumerate().filter(|(_, of)| of.is_empty()).map(|(index, _)| index).collect()
    }
}

/// What a loading thread prepares: the pixels that the network sees, and the salient ones.
struct Prepared {
    bytes: Vec<u8>,
    salient: Option<IndexMask>,
}

fn prepare(pair: &Pair, digest: &str, cut: &Cut, size: usize, profile: Profile) -> Result<Prepared> {
    let salient = match cut {
        Cut::Kmeans(_) => None,
        Cut::Saliency(masks) => Some(masks.salient(digest, &pair.picture)?),
    };
    Ok(Prepared { bytes: picture_at(&pair.picture, size, size, profile).data, salient })
}

/// Finds the segments of a split with a network, which stays as it is.
///
/// # Errors
/// A picture without a saliency mask, features that are not finite, no segment at all, cancelled, libtorch's.
pub fn segments(context: &Context, network: &Network, task: &Task) -> Result<Segments> {
    let Task { pairs, split, cut, size, profile, seed, kind, .. } = *task;
    if let Cut::Saliency(masks) = cut {
        masks.check(pairs, split)?;
    }
    let resnet = keeping(&network.store, &network.architecture, task.dilated)?;
    let input = Input { mean: network.mean, std: network.std, device: context.device };
    let (total, threads) = (pairs.len(), context.threads());
    let (source, owned) = (pairs.clone(), cut.clone());
    let mut prepared = ordered(threads, 2 * BATCH, (0..total).collect(), move |index: usize| {
        let pair = source.get(index)?;
        prepare(&pair, source.digest(index), &owned, size, profile)
    });
    let guard = Guard::new(&network.store);
    let (mut features, mut places, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    for start in (0..total).step_by(BATCH) {
        context.check_cancelled()?;
        let count = BATCH.min(total - start);
        let (mut bytes, mut salient) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let next: Prepared = prepared.next().ok_or("the loading threads ended early")???;
            bytes.extend_from_slice(&next.bytes);
            salient.extend(next.salient);
        }
        let map = no_grad(|| Ok::<_, Error>(resnet.map(&input.tensor(&bytes, size, size)?, Mode::Eval, 4)))?;
        if !finite(&map) {
            let bad = |at: &usize| !finite(&map.get(*at as i64));
            let first = start + (0..count).find(bad).unwrap_or_default();
            let path = pairs.path(first);
            return Err(format!(
                "the encoder's features of `{path}` of {split} are not finite; its weights are damaged or its training \
                 diverged"
            )
            .into());
        }
        let shape = map.size();
        let (channels, height, width) = (shape[1], shape[2], shape[3]);
        // Positions as rows of length 1.
        let rows = normalised(&map.permute([0, 2, 3, 1]).reshape([count as i64, height * width, channels]));
        match cut {
            Cut::Kmeans(settings) => {
                let rows = rows.f_to_device(Device::Cpu)?.f_contiguous()?;
                let labels = clustered(&rows, *settings, seed, [kind, split], start, threads)?;
                for (at, labels) in labels.into_iter().enumerate() {
                    let rows = rows.get(at as i64);
                    let segments = labels.iter().copied().max().map_or(0, |last| last + 1);
                    let index = Tensor::from_slice(&labels.iter().map(|&label| label as i64).collect::<Vec<_>>());
                    let sums = Tensor::zeros([segments as i64, channels], (Kind::Float, Device::Cpu));
                    let sums = sums.f_index_add(0, &index, &rows)?;
                    for segment in 0..segments {
                        // A cluster may have lost its last point to an earlier equal one.
                        if labels.contains(&segment) {
                            features.push(sums.narrow(0, segment as i64, 1));
                            places.push((start + at, segment as u8));
                        }
                    }
                    let data = labels.iter().map(|&label| label as u8).collect();
                    maps.push(IndexMask { width: width as usize, height: height as usize, data });
                }
            }
            Cut::Saliency(_) => {
                for (at, mask) in salient.into_iter().enumerate() {
                    // So few pixels may be left between those that the square keeps: then there is no segment either.
                    let square = mask_at(&mask, size, size, profile);
                    if square.data.iter().any(|&value| value != NONE) {
                        let weights: Vec<f32> =
                            square.data.iter().map(|&value| f32::from(u8::from(value != NONE))).collect();
                        let sum = weighted(&rows.get(at as i64), &weights, size, (height, width))?;
                        features.push(sum.f_to_device(Device::Cpu)?);
                        places.push((start + at, 0));
                    }
                    maps.push(mask);
                }
            }
        }
        context.progress(&format!("segments of {split}"), (start + count) as u64, total as u64, "pictures");
    }
    guard.check()?;
    if features.is_empty() {
        return Err(format!("no picture of {split} has a salient pixel, so there are no segments").into());
    }
    Ok(Segments { features: normalised(&Tensor::f_cat(&features, 0)?), places, maps })
}

/// Clusters the positions of each picture, pictures on several threads: labels by picture.
fn clustered(
    rows: &Tensor,
    settings: Settings,
    seed: u64,
    purpose: [&str; 2],
    start: usize,
    threads: usize,
) -> Result<Vec<Vec<usize>>> {
    let shape = rows.size();
    let (count, dim) = (shape[0] as usize, shape[2] as usize);
    let values = Vec::<f32>::try_from(rows.f_reshape([-1])?)?;
    let pictures: Vec<&[f32]> = values.chunks_exact(values.len() / count.max(1)).collect();
    let mut labels = vec![Vec::new(); count];
    let each = count.div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (part, (labels, pictures)) in labels.chunks_mut(each).zip(pictures.chunks(each)).enumerate() {
            scope.spawn(move || {
                for (at, (labels, points)) in labels.iter_mut().zip(pictures).enumerate() {
                    let item = (start + part * each + at) as u64;
                    *labels = cluster(points, dim, settings, seed, purpose, item).labels;
                }
            });
        }
    });
    Ok(labels)
}

/// Sum over pixels of weight times the map's features there, the map (rows of positions, [h · w, channels]) seen at
/// `size`² by bilinear interpolation: [1, channels]. Nothing of that size is made; the weights are brought to the grid by
/// the interpolation's adjoint, which gives the same sum.
fn weighted(rows: &Tensor, weights: &[f32], size: usize, (height, width): (i64, i64)) -> Result<Tensor> {
    let size = size as i64;
    let weights = Tensor::f_from_slice(weights)?.f_view([1, 1, size, size])?.f_to_device(rows.device())?;
    let grid =
        Tensor::f_upsample_bilinear2d_backward(&weights, [size, size], [1, 1, height, width], false, None, None)?;
    Ok(grid.f_reshape([1, -1])?.f_matmul(rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::normal;

    #[test]
    fn weighted_sums_equal_those_over_the_interpolated_map() {
        let (channels, height, width, size) = (5, 3, 4, 16);
        let rows = normal(1, "test", "rows", &[height * width, channels], 1.0);
        let weights: Vec<f32> = (0..size * size).map(|i| if i % 5 < 2 { 1.0 } else { 0.0 }).collect();
        let ours = weighted(&rows, &weights, size as usize, (height, width)).unwrap();
        let map = rows.reshape([1, height, width, channels]).permute([0, 3, 1, 2]);
        let whole = map.upsample_bilinear2d([size, size], false, None, None);
        let sums = (whole * Tensor::from_slice(&weights).reshape([1, 1, size, size])).sum_dim_intlist(
            [2i64, 3].as_slice(),
            false,
            None,
        );
        assert!((ours - sums).abs().max().double_value(&[]) < 1e-4);
    }
}
