//! `embed`: the features of a dataset under an encoder, as a table.

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::steps::Embed as Params;
use harness_protocol::{Outcome, Produced};
use tch::{Device, Tensor};

use crate::context::Context;
use crate::error::Result;
use crate::features::{head, walk};
use crate::guard::eval_guard;
use crate::model::Encoder;
use crate::npy;
use crate::provenance::provenance;

/// Runs the step.
///
/// # Errors
/// Pictures that cannot be used, features that are not finite, an encoder without a head where that is asked for, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let images = context.images(params.data.digest())?;
    let total = images.len() as u64;
    let start = Instant::now();
    let head = head(&encoder, params.layer)?;
    let mut writer: Option<npy::Writer> = None;
    let mut dimensions = 0;
    eval_guard(&encoder, || {
        walk(
            context,
            &encoder,
            &images,
            &params.transform,
            |done| context.progress("features", done, total, "pictures"),
            |part| {
                let part = match &head {
                    Some(head) => tch::no_grad(|| head.forward(&part)),
                    None => part,
                };
                dimensions = part.size()[1];
                if writer.is_none() {
                    writer = Some(npy::Writer::new(&context.out("features.npy"), images.len(), dimensions as usize)?);
                }
                match &mut writer {
                    Some(writer) => writer.rows(&flat(&part)?),
                    None => Ok(()),
                }
            },
        )
    })?;
    writer.ok_or("the dataset has no pictures")?.finish()?;
    let produced = Produced { kind: "features".into(), file: "features.npy".into() };
    Ok(Outcome {
        outputs: BTreeMap::from([("features".into(), produced)]),
        metrics: BTreeMap::from([("pictures".into(), total as f64), ("dimensions".into(), dimensions as f64)]),
        series: BTreeMap::new(),
        provenance: provenance(context, total, start.elapsed().as_secs_f64()),
    })
}

fn flat(part: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::<f32>::try_from(part.f_to_device(Device::Cpu)?.f_reshape([-1])?)?)
}
