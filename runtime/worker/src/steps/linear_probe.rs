//! `linear_probe`: a linear classifier on the frozen encoder.

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::optimise::Optimizer;
use harness_protocol::steps::linear_probe::{AugmentedFeatures, LinearProbe as Params, ProbeFeatures};
use harness_protocol::{Outcome, Produced, Series};
use harness_views::loader::{Ordered, ordered};
use harness_views::{Augment, Crop, Recipe, ViewKey, views};
use tch::{Kind, Reduction, Tensor, no_grad};

use crate::context::Context;
use crate::data::labels::{majority, matched};
use crate::data::{Images, Pictures};
use crate::error::Result;
use crate::features::{BATCH, extract};
use crate::guard::{Guard, eval_guard};
use crate::metric::top::hits;
use crate::model::encoder::Prepare;
use crate::model::{Encoder, store};
use crate::optim::Sgd;
use crate::provenance::provenance;
use crate::seed;

/// Where the features of a training batch come from.
enum Source {
    /// Rows of a table: [pictures, features].
    Table(Tensor),
    /// Fresh views of the pictures in every epoch.
    Fresh(Pictures, AugmentedFeatures),
}

/// The classifier: scores = x·Wᵀ + b.
struct Classifier {
    weight: Tensor,
    bias: Tensor,
}

impl Classifier {
    fn scores(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Runs the step.
///
/// # Errors
/// Classes that do not match, pictures that cannot be used, a loss that is not finite, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let probe = Probe { context, params: &params, encoder: &encoder, train: &train, test: &test };
    eval_guard(&encoder, || probe.run())
}

/// A running probe.
struct Probe<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    encoder: &'a Encoder,
    train: &'a Images,
    test: &'a Images,
}

impl Probe<'_> {
    fn run(&self) -> Result<Outcome> {
        let (context, params) = (self.context, self.params);
        let (labels, truth) = (self.train.labels()?, matched(self.train, self.test)?);
        let classes = self.train.manifest.classes.len();
        let (count, epochs) = (labels.len() as u64, params.epochs);
        let asked = self.test.len() as u64;
        let start = Instant::now();

        // Test first: features are needed once, and what is wrong with its pictures shows before anything is trained.
        let total = asked + count + epochs * count;
        let say = |stage: &str, done| context.progress(stage, done, total, "pictures");
        let asked_features =
            extract(context, self.encoder, self.test, &params.transform, |done| say("test features", done))?;
        let (source, asked_features, scale) = match params.features {
            ProbeFeatures::Augmented(augment) => {
                (Source::Fresh(Pictures::check(context, self.train)?, augment), asked_features, None)
            }
            ProbeFeatures::Cached(cached) => {
                let table = extract(context, self.encoder, self.train, &params.transform, |done| {
                    say("train features", asked + done);
                })?;
                if cached.standardise {
                    let (mean, std) = moments(&table);
                    let apply = |x: &Tensor| (x - &mean) / &std;
                    (Source::Table(apply(&table)), apply(&asked_features), Some((mean, std)))
                } else {
                    (Source::Table(table), asked_features, None)
                }
            }
        };
        let features = asked_features.size()[1];
        let device = context.device;
        let weight = seed::normal(params.seed, "classifier", &[classes as i64, features], 0.01).to_device(device);
        let bias = Tensor::zeros([classes as i64], (Kind::Float, device));
        let classifier = Classifier { weight: weight.set_requires_grad(true), bias: bias.set_requires_grad(true) };

        let before = asked + count;
        let (losses, train_top1) =
            self.train(&classifier, &source, &labels, |stage, done| say(stage, before + done))?;

        let (top1, top5) = no_grad(|| accuracy(&classifier, &asked_features, classes, &truth))?;
        let pictures = match source {
            Source::Table(_) => asked + count,
            Source::Fresh(..) => asked + epochs * count,
        };
        let x = (1..=epochs).map(|epoch| epoch as f64).collect();
        Ok(Outcome {
            outputs: BTreeMap::from([("classifier".into(), self.write(classifier, scale)?)]),
            metrics: BTreeMap::from([
                ("top1".into(), top1),
                ("top5".into(), top5),
                ("majority_top1".into(), majority(&labels, classes, &truth)),
                ("train_top1".into(), train_top1),
            ]),
            series: BTreeMap::from([("loss".into(), Series { x, y: losses, x_label: "epoch".into() })]),
            provenance: provenance(context, pictures, start.elapsed().as_secs_f64()),
        })
    }

    /// Trains the classifier; the mean loss of each epoch, and the accuracy on train while it learned in the last one.
    fn train(
        &self,
        classifier: &Classifier,
        source: &Source,
        labels: &[i64],
        say: impl Fn(&str, u64),
    ) -> Result<(Vec<f64>, f64)> {
        let (context, params) = (self.context, self.params);
        let Optimizer::Sgd(settings) = params.optimizer;
        let named = vec![
            ("weight".to_string(), classifier.weight.shallow_clone()),
            ("bias".to_string(), classifier.bias.shallow_clone()),
        ];
        let mut sgd = Sgd::new(named, &settings);
        let guard = match self.encoder {
            Encoder::Network(network) => Some(Guard::new(&network.store)),
            _ => None,
        };
        let all_labels = Tensor::from_slice(labels).to_device(context.device);
        let (count, epochs, batch) = (labels.len(), params.epochs, params.batch as usize);
        let classes = classifier.bias.size()[0] as usize;
        let (mut losses, mut last_hits) = (Vec::new(), 0);
        for epoch in 0..epochs {
            let lr = params.schedule.rate(settings.lr, epoch, epochs);
            let order = seed::permutation(params.seed, "order", epoch, 0, count);
            let mut fresh = self.fresh(source, &order, epoch);
            let mut sum = 0.0;
            last_hits = 0;
            for (step, part) in order.chunks(batch).enumerate() {
                context.check_cancelled()?;
                let rows: Vec<i64> = part.iter().map(|&index| index as i64).collect();
                let rows = Tensor::from_slice(&rows).to_device(context.device);
                let x = match source {
                    Source::Table(table) => table.index_select(0, &rows),
                    Source::Fresh(..) => self.next_features(&mut fresh, part.len())?,
                };
                let target = all_labels.index_select(0, &rows);
                let scores = classifier.scores(&x);
                let loss = scores.cross_entropy_loss(&target, None::<&Tensor>, Reduction::Mean, -100, 0.0);
                let value = loss.double_value(&[]);
                if !value.is_finite() {
                    return Err(format!(
                        "the loss is not finite in epoch {} at step {} (learning rate {lr}); lower `optimizer.lr`",
                        epoch + 1,
                        step + 1
                    )
                    .into());
                }
                sum += value * part.len() as f64;
                if epoch + 1 == epochs {
                    let truth: Vec<i64> = part.iter().map(|&index| labels[index]).collect();
                    last_hits += hits(&numbers(&scores.detach())?, classes, &truth).0;
                }
                sgd.zero_grad();
                loss.f_backward()?;
                sgd.step(lr);
                let done = epoch * count as u64 + (step * batch + part.len()) as u64;
                say(&format!("epoch {}/{epochs}", epoch + 1), done);
            }
            losses.push(sum / count as f64);
            context.metric("loss", (epoch + 1) as f64, sum / count as f64);
            if epoch == 0
                && let Some(guard) = &guard
            {
                guard.check()?;
            }
        }
        Ok((losses, last_hits as f64 / count as f64))
    }

    /// Augmented pictures of an epoch in its order, as numbers for the encoder; nothing for a table.
    fn fresh(&self, source: &Source, order: &[usize], epoch: u64) -> Option<Ordered<Result<Vec<f32>>>> {
        let Source::Fresh(pictures, augment) = source else { return None };
        let crop = Crop {
            size: self.params.transform.crop as usize,
            scale: augment.scale.ends(),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            inside: None,
        };
        let augment = Augment { flip: augment.flip, ..Augment::default() };
        let recipe = Recipe { crops: vec![crop], augment, auto_augment: None };
        let (pictures, prepare, seed): (_, Prepare, _) = (pictures.clone(), self.encoder.prepare(), self.params.seed);
        let threads = self.context.threads();
        Some(ordered(threads, 2 * BATCH, order.to_vec(), move |index| {
            let key = ViewKey { seed, epoch, picture: index as u64 };
            let picture = pictures.get(index)?;
            Ok(views(&picture, &recipe, key).iter().flat_map(|view| prepare.numbers(view)).collect())
        }))
    }

    fn next_features(&self, fresh: &mut Option<Ordered<Result<Vec<f32>>>>, count: usize) -> Result<Tensor> {
        let fresh = fresh.as_mut().ok_or("no pictures are being loaded")?;
        let side = self.params.transform.crop as i64;
        let mut parts = Vec::new();
        let mut left = count;
        while left > 0 {
            let size = left.min(BATCH);
            let mut batch = Vec::new();
            for _ in 0..size {
                batch.extend(fresh.next().ok_or("the loading threads ended early")???);
            }
            parts.push(self.encoder.forward(&batch, size as i64, side, self.context.device)?);
            left -= size;
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// Writes the classifier, for raw features also when it was trained on standardised ones.
    fn write(&self, classifier: Classifier, scale: Option<(Tensor, Tensor)>) -> Result<Produced> {
        let (weight, bias) = no_grad(|| match scale {
            Some((mean, std)) => {
                let weight = &classifier.weight / &std;
                let shift = weight.matmul(&mean.squeeze());
                (weight, &classifier.bias - shift)
            }
            None => (classifier.weight.detach(), classifier.bias.detach()),
        });
        let tensors = BTreeMap::from([("weight".to_string(), weight), ("bias".to_string(), bias)]);
        self.context.write("classifier.safetensors", "file", &store::encode(&tensors, None)?)
    }
}

/// Mean and standard deviation of every feature, [1, features]; 1 where a feature never varies.
fn moments(table: &Tensor) -> (Tensor, Tensor) {
    let mean = table.mean_dim([0i64].as_slice(), true, Kind::Float);
    let std = (table - &mean).square().mean_dim([0i64].as_slice(), true, Kind::Float).sqrt();
    let std = std.where_self(&std.gt(1e-6), &std.ones_like());
    (mean, std)
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::<f32>::try_from(tensor.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?)?)
}

/// Top-1 and top-5 shares on test; a fifth place that does not exist counts as reached.
fn accuracy(classifier: &Classifier, features: &Tensor, classes: usize, truth: &[i64]) -> Result<(f64, f64)> {
    let (first, five) = hits(&numbers(&classifier.scores(features))?, classes, truth);
    let share = |hits: usize| hits as f64 / truth.len().max(1) as f64;
    Ok((share(first), share(five)))
}
