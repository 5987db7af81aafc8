//! `linear_probe`: a linear classifier on the frozen encoder.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine as _;
use harness_protocol::optimise::Optimizer;
use harness_protocol::steps::linear_probe::{AugmentedFeatures, LinearProbe as Params, ProbeFeatures, ProbeProfile};
use harness_protocol::transform::Centre;
use harness_protocol::{Gallery, GalleryItem, Outcome, Produced, Series};
use harness_views::loader::{Ordered, ordered};
use harness_views::{Augment, Crop, Picture, Recipe, ViewKey, encode_png_rgb, views};
use tch::{Kind, Reduction, Tensor, no_grad};

use crate::context::Context;
use crate::data::labels::{majority, matched};
use crate::data::{Images, Pictures};
use crate::error::Result;
use crate::features::{BATCH, check_columns, computed, extract};
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
    let encoder = match &params.encoder {
        Some(encoder) => Some(Encoder::load(context.input_file(encoder.digest())?, context.device)?),
        None => None,
    };
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let transform = params.transform.unwrap_or_default();
    let probe = Probe { context, params: &params, encoder: encoder.as_ref(), train: &train, test: &test, transform };
    match &encoder {
        Some(encoder) => eval_guard(encoder, || probe.run()),
        None => probe.run(),
    }
}

/// Longest side of the confusion matrix, pixels.
const CONFUSION: usize = 480;

/// The test split: features as the classifier takes them, and classes.
struct Asked<'a> {
    features: &'a Tensor,
    truth: &'a [i64],
}

/// What training gave beside the classifier.
struct Trained {
    /// Mean loss of each epoch.
    losses: Vec<f64>,
    /// Accuracy on test after each epoch.
    test_top1: Vec<f64>,
    /// Accuracy on train while it learned in the last epoch.
    train_top1: f64,
    /// The epoch whose classifier counts.
    epoch: u64,
}

/// A running probe.
struct Probe<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    /// None where the features were computed before.
    encoder: Option<&'a Encoder>,
    train: &'a Images,
    test: &'a Images,
    transform: Centre,
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
        let asked_features = match &params.vectors {
            Some(vectors) => computed(context, vectors.test.digest(), self.test, "test")?,
            None => extract(context, self.encoder()?, self.test, &self.transform, |done| say("test features", done))?,
        };
        let (source, asked_features, scale) = match params.features {
            ProbeFeatures::Augmented(augment) => {
                (Source::Fresh(Pictures::check(context, self.train)?, augment), asked_features, None)
            }
            ProbeFeatures::Cached(cached) => {
                let table = match &params.vectors {
                    Some(vectors) => computed(context, vectors.train.digest(), self.train, "train")?,
                    None => extract(context, self.encoder()?, self.train, &self.transform, |done| {
                        say("train features", asked + done);
                    })?,
                };
                check_columns(&table, &asked_features)?;
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
        let asked = Asked { features: &asked_features, truth: &truth };
        let trained = self.train(&classifier, &source, &labels, &asked, |stage, done| say(stage, before + done))?;

        let pictures = match source {
            Source::Table(_) => self.test.len() as u64 + count,
            Source::Fresh(..) => self.test.len() as u64 + epochs * count,
        };
        let scores = no_grad(|| numbers(&classifier.scores(&asked_features)))?;
        let (first, five) = hits(&scores, classes, &truth);
        let share = |hits: usize| hits as f64 / truth.len().max(1) as f64;
        let (mut metrics, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        metrics.insert("top1".to_string(), share(first));
        metrics.insert("top5".into(), share(five));
        metrics.insert("majority_top1".into(), majority(&labels, classes, &truth));
        metrics.insert("train_top1".into(), trained.train_top1);
        if params.profile == ProbeProfile::Official {
            context.warn(format!(
                "profile `official` reports epoch {}, the best on test, as published, so `top1` flatters; `fixed` reports the \
                 last epoch",
                trained.epoch
            ));
            metrics.insert("best_epoch".into(), trained.epoch as f64);
        }
        let names = &self.train.manifest.classes;
        let (gallery, counts) = confusion(names, &scores, &truth)?;
        outputs.insert("confusion".to_string(), context.write_gallery("confusion", &gallery)?);
        let table = serde_json::json!({ "classes": names, "counts": counts, "rows": "truth", "columns": "answer" });
        let table = serde_json::to_vec(&table).map_err(|error| error.to_string())?;
        outputs.insert("confusion_counts".into(), context.write("confusion_counts.json", "metrics", &table)?);
        outputs.insert("classifier".into(), self.write(classifier, scale)?);
        let x: Vec<f64> = (1..=epochs).map(|epoch| epoch as f64).collect();
        let curve = |y: Vec<f64>| Series { x: x.clone(), y, x_label: "epoch".into() };
        Ok(Outcome {
            outputs,
            metrics,
            series: BTreeMap::from([
                ("loss".into(), curve(trained.losses)),
                ("test_top1".into(), curve(trained.test_top1)),
            ]),
            provenance: provenance(context, pictures, start.elapsed().as_secs_f64()),
        })
    }

    /// The encoder of a probe whose features were not computed before.
    fn encoder(&self) -> Result<&Encoder> {
        self.encoder.ok_or_else(|| "there is neither an `encoder` nor `vectors`".into())
    }

    /// Trains the classifier. With profile `official` it ends as it was in the best epoch on test.
    fn train(
        &self,
        classifier: &Classifier,
        source: &Source,
        labels: &[i64],
        asked: &Asked,
        say: impl Fn(&str, u64),
    ) -> Result<Trained> {
        let (context, params) = (self.context, self.params);
        let Optimizer::Sgd(settings) = params.optimizer;
        let named = vec![
            ("weight".to_string(), classifier.weight.shallow_clone()),
            ("bias".to_string(), classifier.bias.shallow_clone()),
        ];
        let mut sgd = Sgd::new(named, &settings);
        let guard = match self.encoder {
            Some(Encoder::Network(network)) => Some(Guard::new(&network.store)),
            _ => None,
        };
        let all_labels = Tensor::from_slice(labels).to_device(context.device);
        let (count, epochs, batch) = (labels.len(), params.epochs, params.batch as usize);
        let classes = classifier.bias.size()[0] as usize;
        let (mut losses, mut last_hits) = (Vec::new(), 0);
        let mut test_top1 = Vec::new();
        let mut best: Option<(f64, u64, Tensor, Tensor)> = None;
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
            let scores = no_grad(|| numbers(&classifier.scores(asked.features)))?;
            let reached = hits(&scores, classes, asked.truth).0 as f64 / asked.truth.len().max(1) as f64;
            test_top1.push(reached);
            if params.profile == ProbeProfile::Official && best.as_ref().is_none_or(|(before, ..)| reached > *before) {
                let copy = |tensor: &Tensor| no_grad(|| tensor.detach().copy());
                best = Some((reached, epoch + 1, copy(&classifier.weight), copy(&classifier.bias)));
            }
            if epoch == 0
                && let Some(guard) = &guard
            {
                guard.check()?;
            }
        }
        let mut epoch = epochs;
        if let Some((_, at, weight, bias)) = best {
            epoch = at;
            no_grad(|| -> Result<()> {
                classifier.weight.shallow_clone().f_copy_(&weight)?;
                Ok(classifier.bias.shallow_clone().f_copy_(&bias)?)
            })?;
        }
        Ok(Trained { losses, test_top1, train_top1: last_hits as f64 / count as f64, epoch })
    }

    /// Augmented pictures of an epoch in its order, as numbers for the encoder; nothing for a table.
    fn fresh(&self, source: &Source, order: &[usize], epoch: u64) -> Option<Ordered<Result<Vec<f32>>>> {
        let (Source::Fresh(pictures, augment), Some(encoder)) = (source, self.encoder) else { return None };
        let crop = Crop {
            size: self.transform.crop as usize,
            scale: augment.scale.ends(),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            inside: None,
        };
        let augment = Augment { flip: augment.flip, ..Augment::default() };
        let recipe = Recipe { crops: vec![crop], augment, auto_augment: None };
        let (pictures, prepare, seed): (_, Prepare, _) = (pictures.clone(), encoder.prepare(), self.params.seed);
        let threads = self.context.threads();
        Some(ordered(threads, 2 * BATCH, order.to_vec(), move |index| {
            let key = ViewKey { seed, epoch, picture: index as u64 };
            let picture = pictures.get(index)?;
            Ok(views(&picture, &recipe, key).iter().flat_map(|view| prepare.numbers(view)).collect())
        }))
    }

    fn next_features(&self, fresh: &mut Option<Ordered<Result<Vec<f32>>>>, count: usize) -> Result<Tensor> {
        let fresh = fresh.as_mut().ok_or("no pictures are being loaded")?;
        let side = self.transform.crop as i64;
        let mut parts = Vec::new();
        let mut left = count;
        while left > 0 {
            let size = left.min(BATCH);
            let mut batch = Vec::new();
            for _ in 0..size {
                batch.extend(fresh.next().ok_or("the loading threads ended early")???);
            }
            parts.push(self.encoder()?.forward(&batch, size as i64, side, self.context.device)?);
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

/// The confusion matrix as a picture, and its counts: a row for each true class, a column for each answer.
fn confusion(names: &[String], scores: &[f32], truth: &[i64]) -> Result<(Gallery, Vec<Vec<usize>>)> {
    let classes = names.len();
    let mut counts = vec![vec![0usize; classes]; classes];
    for (row, &label) in scores.chunks_exact(classes.max(1)).zip(truth) {
        // The lowest class number wins a tie, as in the accuracy.
        let said = (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        counts[label as usize][said] += 1;
    }
    let side = (CONFUSION / classes.max(1)).clamp(1, 32);
    let mut picture = Picture::filled(side * classes, side * classes, [255, 255, 255]);
    for (truth, row) in counts.iter().enumerate() {
        let total = row.iter().sum::<usize>().max(1);
        for (said, &count) in row.iter().enumerate() {
            // White for none, dark for all of the row; green where it is right, red where it is not.
            let share = count as f64 / total as f64;
            let full = if said == truth { [16.0, 110.0, 48.0] } else { [170.0, 20.0, 20.0] };
            let colour = full.map(|full: f64| (255.0 + (full - 255.0) * share.sqrt()).round() as u8);
            for y in 0..side {
                for x in 0..side {
                    let at = 3 * ((truth * side + y) * side * classes + said * side + x);
                    picture.data[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }
    let mut wrong: Vec<(usize, usize, usize)> = (0..classes)
        .flat_map(|truth| (0..classes).map(move |said| (truth, said)))
        .filter(|(truth, said)| truth != said)
        .map(|(truth, said)| (counts[truth][said], truth, said))
        .filter(|(count, ..)| *count > 0)
        .collect();
    wrong.sort_by_key(|&(count, truth, said)| (std::cmp::Reverse(count), truth, said));
    let most: Vec<String> = wrong
        .iter()
        .take(3)
        .map(|&(count, truth, said)| format!("{} taken for {} ({count})", names[truth], names[said]))
        .collect();
    let most = if most.is_empty() { "none".into() } else { most.join(", ") };
    let png = encode_png_rgb(&picture).map_err(|error| error.to_string())?;
    let item = GalleryItem {
        caption: format!("most frequent confusions: {most}"),
        width: picture.width,
        height: picture.height,
        png_base64: base64::engine::general_purpose::STANDARD.encode(png),
    };
    let gallery = Gallery {
        title: "Confusion matrix".into(),
        caption: format!(
            "A row for each true class and a column for each answer, in the order {}. The darker, the larger the share of \
             the row; green: right, red: wrong.",
            names.join(", ")
        ),
        items: vec![item],
    };
    Ok((gallery, counts))
}
