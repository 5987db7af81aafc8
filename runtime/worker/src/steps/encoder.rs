//! `encoder`: random, read or trivial encoders, and batch norm statistics measured anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use harness_protocol::Outcome;
use harness_protocol::model::EncoderConfig;
use harness_protocol::steps::encoder::{Encoder as Params, Recalibrate, Source};
use harness_protocol::transform::Normalisation;
use harness_views::loader::ordered;
use serde_json::Value;
use tch::{Tensor, no_grad};

use crate::context::Context;
use crate::data::Pictures;
use crate::error::{Error, Result};
use crate::model::encoder::centred;
use crate::model::layers::Mode;
use crate::model::{Encoder, Network, Torchscript, foreign};
use crate::provenance::provenance;

/// Runs the step.
///
/// # Errors
/// Weights that do not fit, pictures that cannot be used, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let start = Instant::now();
    let mut said = BTreeMap::new();
    let written = params.file.as_ref().map(|file| &file.artifact.digest);
    let written = written.or(params.checkpoint.as_ref().map(|file| &file.artifact.digest));
    let encoder = match (written, &params.torchscript, &params.source) {
        (Some(digest), ..) => from_file(context, &params, context.input_file(digest)?, &mut said)?,
        (_, Some(file), _) => from_module(&params, context.input_file(&file.artifact.digest)?, &mut said)?,
        (_, _, Some(Source::Random(random))) => {
            let (mean, std) = (random.normalise.mean, random.normalise.std);
            Encoder::random(random.architecture, mean, std, params.seed)?
        }
        (_, _, Some(Source::Copy(copy))) => Encoder::load(context.input_file(copy.of.digest())?, tch::Device::Cpu)?,
        (_, _, Some(Source::Pixels(pixels))) => Encoder::Pixels(pixels.size as usize),
        (_, _, Some(Source::Histogram(histogram))) => Encoder::Histogram(histogram.bins as usize),
        (None, None, None) => return Err("an encoder comes from a `file`, a `torchscript` module or a `source`".into()),
    };
    let (encoder, pictures) = match &params.recalibrate {
        Some(settings) => recalibrated(context, encoder, settings)?,
        None => (encoder, 0),
    };
    let parameters = match &encoder {
        Encoder::Network(network) => network.store.parameter_count(),
        Encoder::Torchscript(module) => module.parameter_count()?,
        Encoder::Pixels(_) | Encoder::Histogram(_) => 0,
    };
    let produced = context.write("encoder.safetensors", "encoder", &encoder.encode()?)?;
    Ok(Outcome {
        outputs: BTreeMap::from([("encoder".into(), produced)]),
        metrics: BTreeMap::from([("parameters".into(), parameters as f64)]),
        series: BTreeMap::new(),
        provenance: provenance(context, pictures, start.elapsed().as_secs_f64()).into_iter().chain(said).collect(),
    })
}

/// Reads foreign weights and says what of them was used.
fn from_file(context: &Context, params: &Params, file: &Path, said: &mut BTreeMap<String, Value>) -> Result<Encoder> {
    let checkpoint = foreign::checkpoint::read(file)?;
    let place = format!("`{}`", file.display());
    let fit = foreign::fit::select(&checkpoint, params.architecture, params.prefix.as_deref(), &place)?;
    context.info(format!("{}, {}", checkpoint.format.name(), fit.account()));
    said.insert("weights".into(), fit.account().into());
    said.insert("weights_format".into(), checkpoint.format.name().into());
    said.insert("architecture".into(), foreign::fit::shown(&fit.architecture).into());
    // An encoder of harness's own knows how its input is normalised.
    let own = checkpoint.header.as_deref().and_then(|header| serde_json::from_str(header).ok());
    let Normalisation { mean, std } = match (params.normalise, own) {
        (None, Some(EncoderConfig::Network { mean, std, .. })) => Normalisation { mean, std },
        (given, _) => given.unwrap_or_default(),
    };
    Encoder::network(fit.architecture, mean, std, fit.store)
}

/// Reads an exported module.
fn from_module(params: &Params, file: &Path, said: &mut BTreeMap<String, Value>) -> Result<Encoder> {
    let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
    let Normalisation { mean, std } = params.normalise.unwrap_or_default();
    let place = format!("`{}`", file.display());
    let module = Torchscript::load(bytes, mean, std, tch::Device::Cpu, &place)?;
    said.insert("weights_format".into(), "TorchScript".into());
    Ok(Encoder::Torchscript(Box::new(module)))
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
