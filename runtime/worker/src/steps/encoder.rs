//! `encoder`: random, read or trivial encoders, and batch norm statistics measured anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use harness_protocol::Outcome;
use harness_protocol::steps::encoder::{Encoder as Params, Recalibrate, Source, WeightFile};
use harness_views::loader::ordered;
use tch::{Kind, Tensor, no_grad};

use crate::context::Context;
use crate::data::Pictures;
use crate::error::Result;
use crate::model::encoder::{centred, check_fit};
use crate::model::layers::Mode;
use crate::model::store::{self, Store};
use crate::model::{Encoder, Network};
use crate::provenance::provenance;

/// Runs the step.
///
/// # Errors
/// Weights that do not fit, pictures that cannot be used, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let start = Instant::now();
    let encoder = match &params.source {
        Source::Random(random) => {
            let (mean, std) = (random.normalise.mean, random.normalise.std);
            Encoder::random(random.architecture, mean, std, params.seed)?
        }
        Source::File(file) => from_file(context.input_file(&file.path.artifact.digest)?, file)?,
        Source::Copy(copy) => Encoder::load(context.input_file(copy.of.digest())?, tch::Device::Cpu)?,
        Source::Pixels(pixels) => Encoder::Pixels(pixels.size as usize),
        Source::Histogram(histogram) => Encoder::Histogram(histogram.bins as usize),
    };
    let (encoder, pictures) = match &params.recalibrate {
        Some(settings) => recalibrated(context, encoder, settings)?,
        None => (encoder, 0),
    };
    let parameters = if let Encoder::Network(network) = &encoder { network.store.parameter_count() } else { 0 };
    let produced = context.write("encoder.safetensors", "encoder", &encoder.encode()?)?;
    Ok(Outcome {
        outputs: BTreeMap::from([("encoder".into(), produced)]),
        metrics: BTreeMap::from([("parameters".into(), parameters as f64)]),
        series: BTreeMap::new(),
        provenance: provenance(context, pictures, start.elapsed().as_secs_f64()),
    })
}

/// Reads foreign weights: only tensors whose names start with the prefix, if there is one, in fp32.
fn from_file(path: &Path, file: &WeightFile) -> Result<Encoder> {
    let (tensors, _) = store::read(path)?;
    let count = tensors.len();
    let mut store = Store::default();
    for (name, tensor) in tensors {
        if let Some(name) = name.strip_prefix(&file.prefix) {
            let tensor = if tensor.is_floating_point() { tensor.to_kind(Kind::Float) } else { tensor };
            store.insert(name, tensor);
        }
    }
    if store.tensors().is_empty() {
        return Err(format!(
            "none of the {count} tensors in `{}` has a name that starts with `{}`",
            path.display(),
            file.prefix
        )
        .into());
    }
    add_counters(&mut store);
    check_fit(&store, &file.architecture, &format!("`{}`", path.display()))?;
    Encoder::network(file.architecture, file.normalise.mean, file.normalise.std, store)
}

/// Some exporters leave the batch counters out, on which nothing depends; they start from 0.
fn add_counters(store: &mut Store) {
    let missing: Vec<String> = store
        .tensors()
        .keys()
        .filter_map(|name| Some(format!("{}.num_batches_tracked", name.strip_suffix(".running_mean")?)))
        .filter(|name| !store.tensors().contains_key(name))
        .collect();
    for name in missing {
        store.insert(name, Tensor::zeros([] as [i64; 0], (Kind::Int64, tch::Device::Cpu)));
    }
}

/// The same weights with batch norm statistics that are the plain average over the batches of a dataset (PyTorch's
/// `momentum=None`): with share 1/i in batch i. A last batch of a single picture is left out. Also the number of
/// pictures seen.
fn recalibrated(context: &Context, encoder: Encoder, settings: &Recalibrate) -> Result<(Encoder, u64)> {
    let Encoder::Network(network) = encoder else {
        return Err("this encoder is no network and has no batch norm; leave `recalibrate` out".into());
    };
    let Network { architecture, mean, std, store, .. } = *network;
    let encoder = Encoder::network(architecture, mean, std, store.to_device(context.device))?;
    let resnet = &encoder.need_network("recalibrate")?.resnet;
    let images = context.images(settings.data.digest())?;
    let pictures = Pictures::check(context, &images)?;
    let (count, batch) = (pictures.len(), settings.batch as usize);
    if count < 2 {
        return Err("`recalibrate` needs at least two pictures".into());
    }
    let (prepare, transform, source) = (encoder.prepare(), settings.transform, pictures);
    let mut numbers = ordered(context.threads(), 2 * context.threads() + 2, (0..count).collect(), move |index| {
        source.get(index).map(|picture| prepare.numbers(&centred(&picture, &transform)))
    });
    let side = settings.transform.crop as i64;
    no_grad(|| -> Result<()> {
        for norm in resnet.batch_norms() {
            let _ = norm.num_batches_tracked.shallow_clone().zero_();
        }
        for (index, start) in (0..count).step_by(batch).enumerate() {
            context.check_cancelled()?;
            let size = batch.min(count - start);
            let mut values = Vec::new();
            for _ in 0..size {
                values.extend(numbers.next().ok_or("the loading threads ended early")???);
            }
            if size > 1 {
                let x = Tensor::f_from_slice(&values)?.f_view([size as i64, 3, side, side])?.to_device(context.device);
                let _ = resnet.forward(&x, Mode::Train { momentum: 1.0 / (index + 1) as f64 });
                resnet.count_batch();
            }
            context.progress("batch norm statistics", (start + size) as u64, count as u64, "pictures");
        }
        Ok(())
    })?;
    Ok((encoder, count as u64))
}
