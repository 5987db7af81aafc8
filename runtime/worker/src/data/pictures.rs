//! Decoded pictures of a dataset, each looked at once before anything is learned from them.

use std::sync::Arc;

use harness_views::Picture;
use harness_views::loader::ordered;

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;

/// Decoded pictures stay in memory when all together are no larger than this.
const KEEP: usize = 2 << 30;

/// As many pictures tell whether the others are worth keeping too.
const SAMPLE: usize = 256;

/// Whether pictures are kept on: they are few enough so far, and would be together (give or take a quarter) if those to come
/// were like those seen. Without the second, a large dataset would fill the memory for nothing.
fn worth_keeping(bytes: usize, seen: usize, total: usize) -> bool {
    bytes <= KEEP && (seen < SAMPLE || bytes as f64 / seen as f64 * total as f64 <= 1.25 * KEEP as f64)
}

/// Pictures of a dataset that are all known to be whole. Cheap to clone; shared by threads.
#[derive(Clone, Debug)]
pub struct Pictures {
    images: Images,
    kept: Option<Arc<Vec<Arc<Picture>>>>,
}

impl Pictures {
    /// Decodes every picture once; keeps them when they are small enough together.
    ///
    /// # Errors
    /// Pictures that changed or are damaged, all of them in one message; or cancelled.
    pub fn check(context: &Context, images: &Images) -> Result<Self> {
        let source = images.clone();
        let total = images.len();
        let (mut kept, mut bytes) = (Some(Vec::new()), 0);
        let mut bad = Bad::default();
        let threads = context.threads();
        let decoded = ordered(threads, 4 * threads, (0..total).collect(), move |index| source.picture(index));
        for (index, picture) in decoded.enumerate() {
            context.check_cancelled()?;
            match picture {
                Ok(Ok(picture)) => {
                    bytes += picture.data.len();
                    if !worth_keeping(bytes, index + 1, total) {
                        kept = None;
                    }
                    if let Some(kept) = &mut kept {
                        kept.push(Arc::new(picture));
                    }
                }
                Ok(Err(error)) => bad.push(error.to_string()),
                Err(panic) => bad.push(format!("`{}`: {panic}", images.path(index))),
            }
            context.progress("checking pictures", index as u64 + 1, total as u64, "pictures");
        }
        bad.check(total)?;
        Ok(Self { images: images.clone(), kept: kept.map(Arc::new) })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Never: a dataset has pictures.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Path of a picture, for messages.
    pub fn path(&self, index: usize) -> &str {
        self.images.path(index)
    }

    /// One picture.
    ///
    /// # Errors
    /// It is not the one any more that was looked at.
    pub fn get(&self, index: usize) -> Result<Arc<Picture>> {
        match &self.kept {
            Some(kept) => Ok(kept[index].clone()),
            None => Ok(Arc::new(self.images.picture(index)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_dataset_is_given_up_early_and_a_small_one_never() {
        let picture = 3 * 32 * 32;
        assert!((1..=50_000).all(|seen| worth_keeping(seen * picture, seen, 50_000)));
        assert!(worth_keeping(SAMPLE * picture / 2, SAMPLE / 2, 10_000_000));
        assert!(!worth_keeping(SAMPLE * picture, SAMPLE, 10_000_000));
        assert!(!worth_keeping(KEEP + 1, 10, 10));
    }
}
