//! Features of a whole dataset, in order.

use harness_protocol::transform::Centre;
use harness_views::loader::ordered;
use tch::{Kind, Tensor};

use crate::context::Context;
use crate::data::{Bad, Images};
use crate::error::Result;
use crate::guard::finite;
use crate::model::Encoder;
use crate::model::encoder::centred;

/// Pictures in one forward pass. Fixed, so that numbers do not depend on what else happens to be in memory.
pub const BATCH: usize = 64;

/// Features of every picture under the fixed transform: [pictures, features], fp32, on the job's device.
///
/// `done` hears how many pictures are done.
///
/// # Errors
/// Pictures that changed or are damaged, all of them in one message; features that are not finite; cancelled;
/// libtorch's.
pub fn extract(
    context: &Context,
    encoder: &Encoder,
    images: &Images,
    transform: &Centre,
    done: impl Fn(u64),
) -> Result<Tensor> {
    let (source, prepare, at) = (images.clone(), encoder.prepare(), *transform);
    let threads = context.threads();
    let count = images.len();
    let mut numbers = ordered(threads, 2 * BATCH, (0..count).collect(), move |index| {
        source.picture(index).map(|picture| prepare.numbers(&centred(&picture, &at)))
    });
    let mut bad = Bad::default();
    let mut parts = Vec::new();
    for start in (0..count).step_by(BATCH) {
        context.check_cancelled()?;
        let size = BATCH.min(count - start);
        let mut batch = Vec::new();
        let mut whole = 0;
        for index in start..start + size {
            match numbers.next() {
                Some(Ok(Ok(picture))) => {
                    whole += 1;
                    batch.reserve(size * picture.len());
                    batch.extend_from_slice(&picture);
                }
                Some(Ok(Err(error))) => bad.push(error.to_string()),
                Some(Err(panic)) => bad.push(format!("`{}`: {panic}", images.path(index))),
                None => bad.push(format!("`{}` was not loaded", images.path(index))),
            }
        }
        if whole == size {
            parts.push(encoder.forward(&batch, size as i64, transform.crop as i64, context.device)?);
        }
        done((start + size) as u64);
    }
    bad.check(count)?;
    let features = Tensor::f_cat(&parts, 0)?.to_kind(Kind::Float);
    if !finite(&features) {
        return Err("the encoder gives features that are not finite, so its weights are not usable".into());
    }
    Ok(features)
}

/// Rows scaled to length 1; a row of zeros stays one.
pub fn normalised(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1i64].as_slice(), true).clamp_min(1e-12)
}
