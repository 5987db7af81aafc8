//! What to do when memory runs out: how much was asked for, and which parameters to lower.

use std::panic::{AssertUnwindSafe, catch_unwind};

use harness_protocol::steps::pretrain::{Contrast, Pretrain as Params};
use harness_protocol::transform::Views;

use crate::error::{Error, Result, is_out_of_memory, panic_message};

/// Runs a part of the step; if memory runs out in it, the message says which parameters decide how much it takes. libtorch's
/// errors come as values or as panics, by the function.
pub fn on_memory<T>(params: &Params, part: impl FnOnce() -> Result<T>) -> Result<T> {
    let said = match catch_unwind(AssertUnwindSafe(part)) {
        Ok(Err(error @ Error::Torch(_))) => error.to_string(),
        Ok(other) => return other,
        Err(panic) => panic_message(panic.as_ref()),
    };
    Err(if is_out_of_memory(&said) { format!("{said}; {}", ways_out(params)) } else { said }.into())
}

fn ways_out(params: &Params) -> String {
    let next = if params.batch_norm.groups > params.accumulate {
        format!(
            "raise `accumulate` (now {}, up to the {} of `batch_norm.groups`), which changes no result but for rounding",
            params.accumulate, params.batch_norm.groups
        )
    } else {
        format!("raise `accumulate` together with `batch_norm.groups` (both now {})", params.accumulate)
    };
    let views = match &params.views {
        Views::TwoCrops(two) => format!("`views.two_crops.size` (now {})", two.size),
        Views::MultiCrop(multi) => format!("`views.multi_crop.large.size` (now {})", multi.large.size),
    };
    let queue = match &params.contrast {
        Contrast::Moco(moco) if moco.neighbours.is_some() => format!(", `contrast.moco.queue` (now {})", moco.queue),
        _ => String::new(),
    };
    format!("{next}; or lower `batch` (now {}), {views}{queue} or the encoder's `width`", params.batch)
}
