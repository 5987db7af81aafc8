//! Where a run stands, on disk: everything that the rest of it depends on, and the encoders that stay.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use harness_protocol::{Produced, Series};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Run;
use crate::error::{Error, Result};
use crate::model::store;

/// The checkpoint's name in the work folder.
pub const FILE: &str = "checkpoint.safetensors";

/// Where a run stands, beside its tensors. Epochs and steps count from 0 and name the next one to do; the step after an
/// epoch's last one means that the epoch is not closed yet. Random streams are known by these numbers, so they need no state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Key of the action, so that no other run goes on from here.
    pub key: String,
    /// Epoch.
    pub epoch: u64,
    /// Step in it.
    pub step: u64,
    /// Row of the queue that comes next.
    pub pointer: i64,
    /// Sum of the losses of the epoch's steps so far.
    pub sum: f64,
    /// Seconds of training so far, of all processes that had a part in it and of all their devices.
    pub seconds: f64,
    /// Of these, seconds of this process.
    #[serde(skip)]
    pub now: f64,
    /// Curves so far.
    pub curves: BTreeMap<String, Series>,
    /// Digest of the tensors beside this.
    pub digest: String,
}

impl Place {
    /// The beginning.
    pub fn new(key: &str) -> Self {
        Self { key: key.into(), ..Self::default() }
    }
}

impl Run<'_> {
    fn checkpoint(&self) -> PathBuf {
        self.context.job.work_dir.join(FILE)
    }

    fn kept_file(&self, epoch: u64) -> PathBuf {
        self.context.job.work_dir.join(format!("kept-{epoch}.safetensors"))
    }

    /// All tensors: the objective's, and the optimiser's momenta.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.objective.tensors();
        let momenta = self.sgd.state().iter();
        tensors.extend(momenta.map(|(name, tensor)| (format!("momentum/{name}"), tensor.shallow_clone())));
        tensors
    }

    /// Writes the checkpoint. The one before stays whole until this one is.
    pub(super) fn save_now(&mut self) -> Result<()> {
        self.count_time();
        self.objective.settle()?;
        if !self.context.team.leads() {
            return Ok(());
        }
        self.place.pointer = self.objective.pointer();
        let tensors = self.tensors();
        self.place.digest = store::digest(&tensors);
        let header = serde_json::to_string(&self.place).map_err(|error| error.to_string())?;
        store::write_atomic(&self.checkpoint(), &store::encode(&tensors, Some(&header))?)?;
        self.last = Some((self.place.epoch, self.place.step));
        Ok(())
    }

    /// Writes the checkpoint unless the weights are broken; a disk that does not take it stops nothing: the last one stays
    /// good, and the next is tried in time.
    pub(super) fn save_or_warn(&mut self, lr: f64) -> Result<()> {
        self.healthy(lr)?;
        match self.save_now() {
            Err(error @ Error::Io { .. }) => {
                self.context.warn(format!("no checkpoint this time, the run goes on: {error}"));
            }
            other => other?,
        }
        self.saved = Instant::now();
        Ok(())
    }

    /// Goes on from a checkpoint if there is one that fits; else why it cannot, if that is worth a word.
    pub(super) fn resume(&mut self) -> Option<String> {
        if !self.checkpoint().is_file() {
            return None;
        }
        match self.restore() {
            Ok(()) => {
                let lost = self
                    .params
                    .keep
                    .iter()
                    .flatten()
                    .find(|&&epoch| epoch <= self.place.epoch && !self.kept_file(epoch).is_file());
                if let Some(epoch) = lost {
                    return Some(format!(
                        "the checkpoint is past epoch {epoch}, whose encoder is to be kept and was not"
                    ));
                }
                let (epoch, step) = (self.place.epoch + 1, self.place.step + 1);
                self.context.info(format!("going on from epoch {epoch}, step {step}"));
                self.last = Some((self.place.epoch, self.place.step));
                None
            }
            Err(error) => Some(format!("the checkpoint cannot be used: {error}")),
        }
    }

    fn restore(&mut self) -> Result<()> {
        let (tensors, header) = store::read(&self.checkpoint())?;
        let header = header.ok_or("it does not say where it stands")?;
        let place: Place = serde_json::from_str(&header).map_err(|error| error.to_string())?;
        if place.key != self.place.key {
            return Err("it belongs to another run".into());
        }
        let here = self.objective.tensors();
        let (momenta, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tensors.iter().partition(|(name, _)| name.starts_with("momentum/"));
        if let Some(misfits) = store::misfits(&here, others.iter().map(|(name, tensor)| (name.as_str(), *tensor))) {
            return Err(format!("its tensors are not those of this network: {misfits}").into());
        }
        if place.digest != store::digest(&tensors) {
            return Err("its content is damaged: the tensors do not have the digest that was written with them".into());
        }
        let momenta = momenta
            .into_iter()
            .map(|(name, tensor)| (name.trim_start_matches("momentum/").to_string(), tensor.shallow_clone()));
        self.sgd.restore(momenta.collect())?;
        for (name, tensor) in &here {
            tch::no_grad(|| tensor.shallow_clone().f_copy_(others[name]))?;
        }
        self.objective.point_to(place.pointer);
        self.place = place;
        Ok(())
    }

    /// Writes the encoder of an epoch that just ended into the work folder, if it is one to stay; whether it is.
    pub(super) fn keep(&mut self, epoch: u64, lr: f64) -> Result<bool> {
        if !self.params.keep.iter().flatten().any(|&kept| kept == epoch) {
            return Ok(false);
        }
        self.healthy(lr)?;
        if !self.context.team.leads() {
            return Ok(true);
        }
        store::write_atomic(&self.kept_file(epoch), &self.encoder()?.encode()?)?;
        Ok(true)
    }

    /// The encoders that stayed, as outputs `encoder@EPOCH`.
    pub(super) fn kept(&self) -> Result<BTreeMap<String, Produced>> {
        let mut outputs = BTreeMap::new();
        for epoch in self.params.keep.iter().flatten() {
            let path = self.kept_file(*epoch);
            let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
            let produced = self.context.write(&format!("encoder@{epoch}.safetensors"), "encoder", &bytes)?;
            outputs.insert(format!("encoder@{epoch}"), produced);
        }
        Ok(outputs)
    }
}
