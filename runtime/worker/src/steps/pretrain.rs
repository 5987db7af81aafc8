//! `pretrain`: MoCo v2 with two crops or constrained multi-scale crops, or class labels on the same views.
//!
//! ```text
//! batches (views of a step) -> objective (one step) -> this loop (epochs, curves, checkpoints) -> encoder
//! ```

mod advice;
mod batches;
mod checkpoint;
mod monitor;
mod objective;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness_protocol::optimise::{Optimizer, Precision};
use harness_protocol::steps::pretrain::{Checkpoints, Pretrain as Params};
use harness_protocol::{Outcome, Series};
use serde_json::json;

use crate::context::Context;
use crate::data::Pictures;
use crate::device;
use crate::error::{Error, Result};
use crate::guard::finite;
use crate::model::Encoder;
use crate::optim::Sgd;
use crate::provenance::provenance;
use crate::shim;

use batches::Batches;
use checkpoint::Place;
use monitor::Watch;
use objective::Objective;

/// A loss above this many nats explodes: no objective here starts above 20, and MoCo's cannot pass 2/temperature + ln queue.
const EXPLODED: f64 = 1e4;

/// Runs the step.
///
/// # Errors
/// A batch larger than the dataset, pictures that cannot be used, labels that are missing, a loss that is not finite,
/// memory that ran out, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let images = context.images(params.data.digest())?;
    let steps = images.len() as u64 / params.batch;
    if steps == 0 {
        return Err(format!(
            "a batch of {} is larger than the dataset of {} pictures; lower `batch` or use more pictures",
            params.batch,
            images.len()
        )
        .into());
    }
    shareable(&params, context.team.size() as u64)?;
    let labels = objective::labels(&params, &images)?;
    let watch = if context.team.leads() { Watch::open(context, params.monitor.as_ref())? } else { None };
    let pictures = Pictures::check(context, &images)?;
    shim::arithmetic(params.precision == Precision::Tf32)?;
    shim::reset_memory(context.device);
    advice::on_memory(&params, || Run::start(context, &params, steps, labels, watch)?.run(&pictures))
}

/// Whether the batch can be dealt to so many ranks with the same result.
fn shareable(params: &Params, ranks: u64) -> Result<()> {
    let groups = params.batch_norm.groups;
    if groups.is_multiple_of(ranks) {
        // The batch is a multiple of the groups, which the parameters' own check saw to.
        return Ok(());
    }
    Err(format!(
        "{ranks} devices cannot share {groups} groups of batch norm, each of which lies on one device; ask for a number of \
         devices that divides `batch_norm.groups`, or make that a multiple of {ranks} (which is another training: its \
         statistics are those of smaller groups)"
    )
    .into())
}

/// A running pretraining.
struct Run<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    /// Steps of an epoch.
    steps: u64,
    watch: Option<Watch>,
    objective: Objective,
    sgd: Sgd,
    place: Place,
    /// Learning rate at the start.
    lr: f64,
    pace: Checkpoints,
    /// When the last checkpoint was written, or this process began.
    saved: Instant,
    /// Where the last checkpoint stands, for messages.
    last: Option<(u64, u64)>,
    /// Since when training time counts that is not in the place yet.
    since: Instant,
}

impl<'a> Run<'a> {
    /// From the checkpoint in the work folder, else from the beginning.
    fn start(
        context: &'a Context<'a>,
        params: &'a Params,
        steps: u64,
        labels: Option<objective::Labels>,
        watch: Option<Watch>,
    ) -> Result<Self> {
        let Optimizer::Sgd(optimizer) = params.optimizer;
        let mut run = Self {
            context,
            params,
            steps,
            watch,
            objective: Objective::new(params, labels, context.device, context.team.group().cloned())?,
            sgd: Sgd::new(Vec::new(), &optimizer),
            place: Place::new(&context.job.key),
            lr: optimizer.lr,
            pace: params.checkpoint.unwrap_or_default(),
            saved: Instant::now(),
            last: None,
            since: Instant::now(),
        };
        run.sgd = Sgd::new(run.objective.student().store.parameters(), &optimizer);
        if let Some(why) = run.resume() {
            context.warn(format!("{why}; starting from the beginning"));
            run.objective.restart(params, context.device)?;
            run.sgd = Sgd::new(run.objective.student().store.parameters(), &optimizer);
            run.place = Place::new(&context.job.key);
        }
        if !context.team.agrees(run.place.epoch * steps + run.place.step)? {
            return Err("the ranks read different checkpoints; does every device see the same cache folder?".into());
        }
        Ok(run)
    }

    fn run(mut self, pictures: &Pictures) -> Result<Outcome> {
        let (context, params, steps) = (self.context, self.params, self.steps);
        let team = &context.team;
        self.since = Instant::now();
        if self.place.step == steps {
            self.close_epoch(params.schedule.rate(self.lr, self.place.epoch, params.epochs))?;
        }
        let first = self.place.epoch * steps + self.place.step;
        let total = params.epochs * steps;
        let interval = Duration::try_from_secs_f64(self.pace.interval.0).unwrap_or(Duration::MAX);
        let mut batches = Batches::new(pictures, params, steps, first, context.threads(), (team.rank(), team.size()));

        for at in first..total {
            let (epoch, step) = (at / steps, at % steps);
            if team.any(context.cancelled())? {
                self.save_now()?;
                return Err(Error::Cancelled);
            }
            let batch = batches.next()?;
            let lr = params.schedule.rate(self.lr, epoch, params.epochs);
            let loss = self.objective.step(params, &batch, &mut self.sgd, epoch, step, lr)?;
            if !loss.is_finite() || loss > EXPLODED {
                return Err(self.diverged(&format!("the loss is {loss}"), epoch, step, lr));
            }
            self.place.sum += loss;
            self.place.step = step + 1;
            let stage = format!("epoch {}/{}", epoch + 1, params.epochs);
            context.progress(&stage, (at + 1) * params.batch, total * params.batch, "pictures");
            if step + 1 == steps {
                self.close_epoch(lr)?;
            } else if team.any(team.leads() && self.saved.elapsed() >= interval)? {
                self.save_or_warn(lr)?;
            }
        }
        self.outcome(total - first)
    }

    fn outcome(mut self, steps_now: u64) -> Result<Outcome> {
        self.count_time();
        if !self.context.team.leads() {
            return Ok(Outcome::default());
        }
        let (context, params) = (self.context, self.params);
        let seen = params.epochs * self.steps * params.batch;
        let (pixels, flops) = objective::cost(params, self.objective.classes());
        let mut outputs = self.kept()?;
        let encoder = self.encoder()?.encode()?;
        outputs.insert("encoder".into(), context.write("encoder.safetensors", "encoder", &encoder)?);
        let final_loss = self.place.curves.get("loss").and_then(|curve| curve.y.last().copied()).unwrap_or(f64::NAN);
        let mut provenance = provenance(context, steps_now * params.batch, self.place.now);
        let achieved = device::achieved(params.precision, context.device)?;
        provenance.insert("precision".into(), json!({ "requested": params.precision, "achieved": achieved }));
        if let Some(bytes) = shim::peak_memory(context.device) {
            provenance.insert("peak_gpu_memory_bytes".into(), json!(bytes));
        }
        Ok(Outcome {
            outputs,
            metrics: BTreeMap::from([
                ("final_loss".into(), final_loss),
                ("steps".into(), (params.epochs * self.steps) as f64),
                ("pictures".into(), seen as f64),
                ("pixels".into(), seen as f64 * pixels as f64),
                ("flops".into(), flops * (self.steps * params.batch) as f64),
                ("device_hours".into(), self.place.seconds / 3600.0),
            ]),
            series: self.place.curves,
            provenance,
        })
    }

    /// After an epoch's last step: what is watched, the curves, the encoder if it is to stay, the checkpoint.
    fn close_epoch(&mut self, lr: f64) -> Result<()> {
        let epoch = self.place.epoch;
        self.count_time();
        self.objective.settle()?;
        let team = &self.context.team;
        let mut stopped = false;
        match team.wait_for_leader(&format!("look-{epoch}"), || self.look(epoch)) {
            Err(Error::Cancelled) => stopped = true,
            other => other?,
        }
        if team.any(stopped)? {
            // The epoch stays open, so that the next run looks at it.
            self.save_now()?;
            return Err(Error::Cancelled);
        }
        // Watching is not training.
        self.since = Instant::now();
        self.point("loss", epoch, self.place.sum / self.steps as f64);
        self.point("lr", epoch, lr);
        self.place = Place { epoch: epoch + 1, step: 0, sum: 0.0, ..std::mem::take(&mut self.place) };
        let kept = self.keep(epoch + 1, lr)?;
        // A kept encoder belongs to a checkpoint that is past it.
        if kept || (epoch + 1).is_multiple_of(self.pace.epochs) || epoch + 1 == self.params.epochs {
            self.save_or_warn(lr)?;
        }
        Ok(())
    }

    /// Adds the training time since the last call to the place.
    fn count_time(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.place.seconds += seconds * self.context.team.size() as f64;
        self.place.now += seconds;
        self.since = Instant::now();
    }

    /// What to say when training went wrong.
    fn diverged(&self, what: &str, epoch: u64, step: u64, lr: f64) -> Error {
        let good = match self.last {
            Some((epoch, step)) => {
                let path = self.context.job.work_dir.join(checkpoint::FILE);
                format!("the last good checkpoint (epoch {}, step {}) is `{}`", epoch + 1, step + 1, path.display())
            }
            None => "there is no checkpoint yet".into(),
        };
        let temperature = if self.objective.classes() == 0 { " or raise `contrast.moco.temperature`" } else { "" };
        let kind = if what.contains("NaN") || what.contains("inf") { "not finite" } else { "exploding" };
        format!(
            "the training is {kind} in epoch {} at step {} (learning rate {lr}): {what}; {good}; lower `optimizer.lr`{temperature}",
            epoch + 1,
            step + 1
        )
        .into()
    }

    fn point(&mut self, name: &str, epoch: u64, value: f64) {
        let curve = self
            .place
            .curves
            .entry(name.into())
            .or_insert_with(|| Series { x_label: "epoch".into(), ..Series::default() });
        curve.x.push((epoch + 1) as f64);
        curve.y.push(value);
        self.context.metric(name, (epoch + 1) as f64, value);
    }

    /// The encoder as it is now, with storage of its own.
    fn encoder(&self) -> Result<Encoder> {
        let normalise = self.params.normalise;
        let store = self.objective.student().store.deep_copy();
        Encoder::network(self.params.encoder, normalise.mean, normalise.std, store)
    }

    /// Makes sure that every weight is a number before anything is kept of them.
    fn healthy(&self, lr: f64) -> Result<()> {
        let parameters = self.objective.student().store.parameters();
        match parameters.iter().find(|(_, tensor)| !finite(tensor)) {
            None => Ok(()),
            Some((name, _)) => {
                let step = self.place.step.checked_sub(1).unwrap_or(self.steps - 1);
                let epoch = if self.place.step == 0 { self.place.epoch.saturating_sub(1) } else { self.place.epoch };
                Err(self.diverged(&format!("`{name}` holds NaN or infinity"), epoch, step, lr))
            }
        }
    }
}
