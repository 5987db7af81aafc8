//! Decoded pictures of a dataset, each looked at once before anything is learned from them.

use std::sync::Arc;

use harness_views::Picture;
use harness_views::loader::ordered;

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;

/// Decoded pictures stay in memory when all together are no larger than this.
const KEEP: usize = 2 << 30;

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
        let (mut kept, mut bytes) = (Some(Vec::with_capacity(total)), 0);
        let mut bad = Bad::default();
        let threads = context.threads();
        let decoded = ordered(threads, 4 * threads, (0..total).collect(), move |index| source.picture(index));
        for (index, picture) in decoded.enumerate() {
            context.check_cancelled()?;
            match picture {
                Ok(Ok(picture)) => {
                    bytes += picture.data.len();
                    if bytes > KEEP {
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
