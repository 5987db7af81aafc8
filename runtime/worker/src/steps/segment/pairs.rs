//! Pictures with masks, each pair looked at once before anything is learned from them.

use std::sync::Arc;

use harness_datasets::check_mask;
use harness_protocol::steps::Profile;
use harness_views::loader::ordered;
use harness_views::{IndexMask, Picture};

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;
use crate::metric::iou::VOID;
use crate::steps::segment::augment::mask_at;

/// Decoded pairs stay in memory when all together are no larger than this, bytes.
const KEEP: usize = 1 << 30;

/// A picture and the class of each of its pixels, [`VOID`] for none.
#[derive(Debug)]
pub struct Pair {
    /// The picture.
    pub picture: Picture,
    /// Its mask, of the same size.
    pub mask: IndexMask,
}

/// Pictures with masks that are all known to fit. Cheap to clone; shared by threads.
#[derive(Clone, Debug)]
pub struct Pairs {
    images: Images,
    profile: Profile,
    kept: Option<Arc<Vec<Arc<Pair>>>>,
    /// Pixels of each class in all masks together.
    pub pixels: Vec<u64>,
    /// Those of each pair alone, pair after pair.
    shares: Arc<Vec<Vec<u64>>>,
    /// Numbers of the pairs among all those of the dataset; none for all of them.
    chosen: Option<Arc<Vec<usize>>>,
}

/// One pair, its mask checked against the manifest's classes, void values brought to [`VOID`]. A mask of another size than
/// its picture is resized to it as published, and an error when repaired.
fn load(images: &Images, index: usize, profile: Profile) -> Result<Pair> {
    let (picture, mut mask) = (images.picture(index)?, images.mask(index)?);
    let manifest = &images.manifest;
    let path = manifest.entries[index].mask.as_ref().map_or("", |file| file.path.as_str());
    let differ = (picture.width, picture.height) != (mask.width, mask.height);
    if differ && profile == Profile::Fixed {
        return Err(format!(
            "the mask `{path}` is {}x{} and its picture `{}` is {}x{}; they must have one size (`profile = official` \
             resizes such masks)",
            mask.width,
            mask.height,
            images.path(index),
            picture.width,
            picture.height
        )
        .into());
    }
    check_mask(&mask.data, mask.width, manifest.mask_classes.len(), &manifest.ignore)
        .map_err(|problem| format!("`{path}`: {problem}"))?;
    let mut class_of = [VOID; 256];
    for (class, slot) in (0..VOID).zip(&mut class_of).take(manifest.mask_classes.len()) {
        *slot = class;
    }
    manifest.ignore.iter().for_each(|&value| class_of[usize::from(value)] = VOID);
    mask.data.iter_mut().for_each(|value| *value = class_of[usize::from(*value)]);
    if differ {
        mask = mask_at(&mask, picture.width, picture.height, profile);
    }
    Ok(Pair { picture, mask })
}

fn summed(shares: &[Vec<u64>], classes: usize) -> Vec<u64> {
    let mut pixels = vec![0; classes];
    shares.iter().for_each(|own| pixels.iter_mut().zip(own).for_each(|(sum, own)| *sum += own));
    pixels
}

impl Pairs {
    /// Decodes every pair once; keeps them when they are small enough together.
    ///
    /// # Errors
    /// No mask classes or too many of them; pairs that changed, are damaged, differ in size or have values outside the
    /// classes, all of them in one message; or cancelled.
    pub fn check(context: &Context, images: &Images, split: &str, profile: Profile) -> Result<Self> {
        let classes = images.manifest.mask_classes.len();
        if classes == 0 {
            return Err(format!("the masks of {split} have no classes; name them where the dataset is made").into());
        }
        if classes > usize::from(VOID) {
            return Err(
                format!("{split} has {classes} classes in its masks; 255 is the most, since 255 is void").into()
            );
        }
        let source = images.clone();
        let total = images.len();
        let (mut kept, mut bytes, mut shares) = (Some(Vec::with_capacity(total)), 0, Vec::with_capacity(total));
        let mut bad = Bad::default();
        let threads = context.threads();
        let pairs = ordered(threads, 4 * threads, (0..total).collect(), move |index| load(&source, index, profile));
        for (index, pair) in pairs.enumerate() {
            context.check_cancelled()?;
            match pair {
                Ok(Ok(pair)) => {
                    let mut own = vec![0; classes];
                    for &class in pair.mask.data.iter().filter(|&&class| class != VOID) {
                        own[usize::from(class)] += 1;
                    }
                    shares.push(own);
                    bytes += pair.picture.data.len() + pair.mask.data.len();
                    if bytes > KEEP {
                        kept = None;
                    }
                    if let Some(kept) = &mut kept {
                        kept.push(Arc::new(pair));
                    }
                }
                Ok(Err(error)) => bad.push(error.to_string()),
                Err(panic) => bad.push(format!("`{}`: {panic}", images.path(index))),
            }
            context.progress(&format!("checking {split}"), index as u64 + 1, total as u64, "pictures");
        }
        bad.check(total)?;
        let pixels = summed(&shares, classes);
        let (kept, shares) = (kept.map(Arc::new), Arc::new(shares));
        Ok(Self { images: images.clone(), profile, kept, pixels, shares, chosen: None })
    }

    /// Only the pairs with these numbers, in this order.
    pub fn only(&self, chosen: Vec<usize>) -> Self {
        let within: Vec<usize> = chosen.into_iter().map(|index| self.at(index)).collect();
        let shares: Vec<Vec<u64>> = within.iter().map(|&index| self.shares[index].clone()).collect();
        Self { pixels: summed(&shares, self.pixels.len()), chosen: Some(Arc::new(within)), ..self.clone() }
    }

    /// Tells people what the masks lack: classes without a pixel, pictures without a class.
    pub fn warn(&self, context: &Context, split: &str) {
        let names = &self.images.manifest.mask_classes;
        let absent: Vec<String> = names
            .iter()
            .zip(&self.pixels)
            .filter(|(_, pixels)| **pixels == 0)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if !absent.is_empty() && absent.len() < names.len() {
            context.warn(format!("{split} has no pixel of {}", absent.join(", ")));
        }
        let void: Vec<&str> = (0..self.len())
            .filter(|&index| self.shares[self.at(index)].iter().all(|&pixels| pixels == 0))
            .map(|index| self.path(index))
            .collect();
        if let Some(first) = void.first()
            && void.len() < self.len()
        {
            context.warn(format!("every pixel of {} pictures of {split} is void, first `{first}`", void.len()));
        }
    }

    fn at(&self, index: usize) -> usize {
        self.chosen.as_ref().map_or(index, |chosen| chosen[index])
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.images.len(), |chosen| chosen.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One pair.
    ///
    /// # Errors
    /// It is not the one any more that was looked at.
    pub fn get(&self, index: usize) -> Result<Arc<Pair>> {
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

    /// Digest of a picture's file.
    pub fn digest(&self, index: usize) -> &str {
        &self.images.manifest.entries[self.at(index)].file.digest
    }

    /// The class with most pixels, the lowest of several; none when every pixel is void.
    pub fn most_frequent(&self) -> Option<usize> {
        let most = self.pixels.iter().max().copied().filter(|&count| count > 0)?;
        self.pixels.iter().position(|&count| count == most)
    }
}
