//! Pictures with masks, each pair looked at once before anything is learned from them.

use std::sync::Arc;

use harness_datasets::check_mask;
use harness_views::loader::ordered;
use harness_views::{IndexMask, Picture};

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;
use crate::metric::iou::VOID;

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
    kept: Option<Arc<Vec<Arc<Pair>>>>,
    /// Pixels of each class in all masks together.
    pub pixels: Vec<u64>,
}

/// One pair, its mask checked against the manifest's classes, void values brought to [`VOID`].
fn load(images: &Images, index: usize) -> Result<Pair> {
    let (picture, mut mask) = (images.picture(index)?, images.mask(index)?);
    let manifest = &images.manifest;
    let path = manifest.entries[index].mask.as_ref().map_or("", |file| file.path.as_str());
    if (picture.width, picture.height) != (mask.width, mask.height) {
        return Err(format!(
            "the mask `{path}` is {}x{} and its picture `{}` is {}x{}; they must have one size",
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
    Ok(Pair { picture, mask })
}

impl Pairs {
    /// Decodes every pair once; keeps them when they are small enough together.
    ///
    /// # Errors
    /// No mask classes or too many of them; pairs that changed, are damaged, differ in size or have values outside the
    /// classes, all of them in one message; or cancelled.
    pub fn check(context: &Context, images: &Images, split: &str) -> Result<Self> {
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
        let (mut kept, mut bytes, mut pixels) = (Some(Vec::with_capacity(total)), 0, vec![0; classes]);
        let mut bad = Bad::default();
        let threads = context.threads();
        let pairs = ordered(threads, 4 * threads, (0..total).collect(), move |index| load(&source, index));
        for (index, pair) in pairs.enumerate() {
            context.check_cancelled()?;
            match pair {
                Ok(Ok(pair)) => {
                    for &class in pair.mask.data.iter().filter(|&&class| class != VOID) {
                        pixels[usize::from(class)] += 1;
                    }
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
        Ok(Self { images: images.clone(), kept: kept.map(Arc::new), pixels })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Never: a dataset has pictures.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// One pair.
    ///
    /// # Errors
    /// It is not the one any more that was looked at.
    pub fn get(&self, index: usize) -> Result<Arc<Pair>> {
        match &self.kept {
            Some(kept) => Ok(kept[index].clone()),
            None => Ok(Arc::new(load(&self.images, index)?)),
        }
    }

    /// Path of a picture, for captions.
    pub fn path(&self, index: usize) -> &str {
        self.images.path(index)
    }

    /// The class with most pixels, the lowest of several; none when every pixel is void.
    pub fn most_frequent(&self) -> Option<usize> {
        let most = self.pixels.iter().max().copied().filter(|&count| count > 0)?;
        self.pixels.iter().position(|&count| count == most)
    }
}
