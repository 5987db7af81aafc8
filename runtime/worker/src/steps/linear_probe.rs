//! `linear_probe`: a linear classifier on the frozen encoder.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine as _;
use harness_protocol::optimise::Optimizer;
use harness_protocol::steps::linear_probe::{AugmentedFeatures, LinearProbe as Params, ProbeFeatures, ProbeSelect};
use harness_protocol::steps::segment::LastEpoch;
use harness_protocol::transform::Centre;
use harness_protocol::{Gallery, GalleryItem, Outcome, Produced, Series, StepKind};
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
use crate::steps::knn::{RIGHT, WRONG, beside, framed, parted, queries};
use crate::steps::overlay::item;

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

    /// As it is now, whatever is learned later.
    fn copied(&self) -> Self {
        let copy = |tensor: &Tensor| no_grad(|| tensor.detach().copy());
        Self { weight: copy(&self.weight), bias: copy(&self.bias) }
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

/// Pictures that are asked: features as the classifier takes them, and classes.
struct Asked {
    features: Tensor,
    truth: Vec<i64>,
}

impl Asked {
    /// Scores of every picture, class by class.
    fn scores(&self, classifier: &Classifier) -> Result<Vec<f32>> {
        no_grad(|| numbers(&classifier.scores(&self.features)))
    }

    /// Share that is classified right.
    fn top1(&self, classifier: &Classifier) -> Result<f64> {
        let classes = classifier.bias.size()[0] as usize;
        Ok(hits(&self.scores(classifier)?, classes, &self.truth).0 as f64 / self.truth.len().max(1) as f64)
    }
}

/// What is learned from.
struct Learned<'a> {
    source: &'a Source,
    /// Which pictures of train.
    rows: &'a [usize],
    /// Class of every picture of train.
    labels: &'a [i64],
}

/// What training at one learning rate gave.
struct Trained {
    /// The learning rate.
    rate: f64,
    /// The classifier that counts.
    classifier: Classifier,
    /// Mean loss of each epoch.
    losses: Vec<f64>,
    /// Accuracy on test after each epoch.
    test_top1: Vec<f64>,
    /// Accuracy on what is held out of train after each epoch, where something is.
    held_top1: Vec<f64>,
    /// Accuracy on train while it learned in the last epoch.
    train_top1: f64,
    /// The epoch whose classifier counts.
    epoch: u64,
    /// Its accuracy on what it was chosen by; none where the last epoch counts.
    reached: Option<f64>,
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
        let select = params.select.unwrap_or(ProbeSelect::Last(LastEpoch {}));
        let (rows, held) = match &select {
            ProbeSelect::Holdout(part) => parted(context, self.train, part)?,
            ProbeSelect::Last(_) | ProbeSelect::BestOnTest(_) => ((0..labels.len()).collect(), Vec::new()),
        };
        let Optimizer::Sgd(settings) = params.optimizer;
        let rates = if params.rates.is_empty() { vec![settings.lr] } else { params.rates.clone() };
        let (count, epochs) = (rows.len() as u64, params.epochs);
        let start = Instant::now();

        // Test first: features are needed once, and what is wrong with its pictures shows before anything is trained.
        let before = (self.test.len() + labels.len()) as u64;
        let total = before + rates.len() as u64 * epochs * count;
        let say = |stage: &str, done| context.progress(stage, done, total, "pictures");
        let asked_features = match &params.vectors {
            Some(vectors) => computed(context, vectors.test.digest(), self.test, "test")?,
            None => extract(context, self.encoder()?, self.test, &self.transform, |done| say("test features", done))?,
        };
        let first = self.test.len() as u64;
        let of_train = |images: &Images| match &params.vectors {
            Some(vectors) => computed(context, vectors.train.digest(), images, "train"),
            None => extract(context, self.encoder()?, images, &self.transform, |done| {
                say("train features", first + done);
            }),
        };
        let numbered = |rows: &[usize]| {
            let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            Tensor::from_slice(&rows).to_device(context.device)
        };
        let (source, held_features, asked_features, scale) = match params.features {
            ProbeFeatures::Augmented(augment) => {
                let held = if held.is_empty() { None } else { Some(of_train(&self.train.only(&held))?) };
                (Source::Fresh(Pictures::check(context, self.train)?, augment), held, asked_features, None)
            }
            ProbeFeatures::Cached(cached) => {
                let mut table = of_train(self.train)?;
                check_columns(&table, &asked_features)?;
                let mut asked_features = asked_features;
                let mut scale = None;
                if cached.standardise {
                    // By what is learned from alone.
                    let (mean, std) = moments(&if held.is_empty() {
                        table.shallow_clone()
                    } else {
                        table.f_index_select(0, &numbered(&rows))?
                    });
                    let apply = |x: &Tensor| (x - &mean) / &std;
                    (table, asked_features) = (apply(&table), apply(&asked_features));
                    scale = Some((mean, std));
                }
                let held = if held.is_empty() { None } else { Some(table.f_index_select(0, &numbered(&held))?) };
                (Source::Table(table), held, asked_features, scale)
            }
        };
        let asked = Asked { features: asked_features, truth };
        let held =
            held_features.map(|features| Asked { features, truth: held.iter().map(|&row| labels[row]).collect() });
        let by = match &select {
            ProbeSelect::Last(_) => None,
            ProbeSelect::Holdout(_) => held.as_ref(),
            ProbeSelect::BestOnTest(_) => Some(&asked),
        };

        let learned = Learned { source: &source, rows: &rows, labels: &labels };
        let mut best: Option<Trained> = None;
        let mut by_rate = Vec::new();
        for (at, &rate) in rates.iter().enumerate() {
            let before = before + at as u64 * epochs * count;
            let trained =
                self.train(rate, &learned, &asked, held.as_ref(), by, |stage, done| say(stage, before + done))?;
            by_rate.push(trained.reached.unwrap_or(0.0));
            if best.as_ref().is_none_or(|best| trained.reached > best.reached) {
                best = Some(trained);
            }
        }
        let trained = best.ok_or("there is no learning rate")?;

        let pictures = match source {
            Source::Table(_) => before,
            Source::Fresh(..) => first + rates.len() as u64 * epochs * count,
        };
        let scores = asked.scores(&trained.classifier)?;
        let (first, five) = hits(&scores, classes, &asked.truth);
        let share = |hits: usize| hits as f64 / asked.truth.len().max(1) as f64;
        let (mut metrics, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        metrics.insert("top1".to_string(), share(first));
        metrics.insert("top5".into(), share(five));
        metrics.insert("majority_top1".into(), majority(&labels, classes, &asked.truth));
        metrics.insert("train_top1".into(), trained.train_top1);
        metrics.insert("chosen_epoch".into(), trained.epoch as f64);
        metrics.insert("chosen_rate".into(), trained.rate);
        match select {
            ProbeSelect::Last(_) => {}
            ProbeSelect::Holdout(_) => {
                metrics.insert("holdout_top1".into(), trained.reached.unwrap_or(0.0));
            }
            ProbeSelect::BestOnTest(_) => {
                let rate =
                    if rates.len() > 1 { format!(" at the learning rate {}", trained.rate) } else { String::new() };
                context.warn(format!(
                    "epoch {}{rate} was chosen by its `top1` on test, as published, so it flatters; `select = holdout` \
                     chooses by a part of train, and `last` takes the last epoch",
                    trained.epoch
                ));
            }
        }
        let names = &self.train.manifest.classes;
        let (gallery, counts) = confusion(names, &scores, &asked.truth)?;
        outputs.insert("confusion".to_string(), context.write_gallery("confusion", &gallery)?);
        let table = serde_json::json!({ "classes": names, "counts": counts, "rows": "truth", "columns": "answer" });
        let table = serde_json::to_vec(&table).map_err(|error| error.to_string())?;
        outputs.insert("confusion_counts".into(), context.write("confusion_counts.json", "metrics", &table)?);
        let answers = answers(self.test, names, &scores, &asked.truth)?;
        outputs.insert("answers".into(), context.write_gallery("answers", &answers)?);
        outputs.insert("classifier".into(), self.write(trained.classifier, scale)?);
        let x: Vec<f64> = (1..=epochs).map(|epoch| epoch as f64).collect();
        let curve = |y: Vec<f64>| Series { x: x.clone(), y, x_label: "epoch".into() };
        let mut series = BTreeMap::from([
            ("loss".to_string(), curve(trained.losses)),
            ("test_top1".into(), curve(trained.test_top1)),
        ]);
        if held.is_some() {
            series.insert("holdout_top1_by_epoch".into(), curve(trained.held_top1));
        }
        if rates.len() > 1 {
            let by_rate = Series { x: rates, y: by_rate, x_label: "learning rate".into() };
            series.insert("best_by_rate".into(), by_rate);
        }
        Ok(Outcome {
            outputs,
            metrics,
            series,
            provenance: provenance(context, pictures, start.elapsed().as_secs_f64()),
        })
    }

    /// The encoder of a probe whose features were not computed before.
    fn encoder(&self) -> Result<&Encoder> {
        self.encoder.ok_or_else(|| "there is neither an `encoder` nor `vectors`".into())
    }

    /// Trains a classifier at one learning rate. Its best epoch by `by` counts, the first of several; without, the last one.
    fn train(
        &self,
        rate: f64,
        learned: &Learned,
        asked: &Asked,
        held: Option<&Asked>,
        by: Option<&Asked>,
        say: impl Fn(&str, u64),
    ) -> Result<Trained> {
        let (context, params) = (self.context, self.params);
        let Learned { source, rows, labels } = learned;
        let classes = self.train.manifest.classes.len();
        let (features, device) = (asked.features.size()[1], context.device);
        let weight =
            seed::normal(params.seed, Params::KIND, "classifier", &[classes as i64, features], 0.01).to_device(device);
        let bias = Tensor::zeros([classes as i64], (Kind::Float, device));
        let classifier = Classifier { weight: weight.set_requires_grad(true), bias: bias.set_requires_grad(true) };
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
        let all_labels = Tensor::from_slice(labels).to_device(device);
        let (count, epochs, batch) = (rows.len(), params.epochs, params.batch as usize);
        let (mut losses, mut last_hits) = (Vec::new(), 0);
        let (mut test_top1, mut held_top1) = (Vec::new(), Vec::new());
        let mut best: Option<(f64, u64, Classifier)> = None;
        for epoch in 0..epochs {
            let lr = params.schedule.rate(rate, epoch, epochs);
            let order: Vec<usize> = seed::permutation(params.seed, Params::KIND, "order", epoch, 0, count)
                .into_iter()
                .map(|at| rows[at])
                .collect();
            let mut fresh = self.fresh(source, &order, epoch);
            let mut sum = 0.0;
            last_hits = 0;
            for (step, part) in order.chunks(batch).enumerate() {
                context.check_cancelled()?;
                let chosen: Vec<i64> = part.iter().map(|&index| index as i64).collect();
                let chosen = Tensor::from_slice(&chosen).to_device(device);
                let x = match source {
                    Source::Table(table) => table.index_select(0, &chosen),
                    Source::Fresh(..) => self.next_features(&mut fresh, part.len())?,
                };
                let target = all_labels.index_select(0, &chosen);
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
            test_top1.push(asked.top1(&classifier)?);
            if let Some(held) = held {
                held_top1.push(held.top1(&classifier)?);
            }
            if let Some(by) = by {
                let reached = by.top1(&classifier)?;
                if best.as_ref().is_none_or(|(before, ..)| reached > *before) {
                    best = Some((reached, epoch + 1, classifier.copied()));
                }
            }
            if epoch == 0
                && let Some(guard) = &guard
            {
                guard.check()?;
            }
        }
        let train_top1 = last_hits as f64 / count as f64;
        let (reached, epoch, classifier) = match best {
            Some((reached, epoch, classifier)) => (Some(reached), epoch, classifier),
            None => (None, epochs, classifier),
        };
        Ok(Trained { rate, classifier, losses, test_top1, held_top1, train_top1, epoch, reached })
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
            let key = ViewKey { seed, kind: Params::KIND, epoch, picture: index as u64 };
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

/// The answer of every row of scores: the class with the highest, the lowest number of several.
fn said(scores: &[f32], classes: usize) -> Vec<usize> {
    let highest = |row: &[f32]| (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
    scores.chunks_exact(classes.max(1)).map(highest).collect()
}

/// Some pictures that are classified right and some that are not, spread over the classes.
fn answers(test: &Images, names: &[String], scores: &[f32], truth: &[i64]) -> Result<Gallery> {
    let said = said(scores, names.len());
    let right = |index: usize| said[index] as i64 == truth[index];
    let mut items = Vec::new();
    for (wanted, colour, word) in [(true, RIGHT, "right"), (false, WRONG, "wrong")] {
        let all = (0..truth.len()).filter(|&index| right(index) == wanted);
        let count = all.clone().count();
        let shown = queries(all, truth, names.len());
        if shown.is_empty() {
            continue;
        }
        let tile = |&index: &usize| Ok(framed(&test.picture(index)?, colour));
        let tiles: Vec<Picture> = shown.iter().map(tile).collect::<Result<_>>()?;
        let named: Vec<String> = shown
            .iter()
            .map(|&index| match names[truth[index] as usize].as_str() {
                name if wanted => name.to_string(),
                name => format!("{name} taken for {}", names[said[index]]),
            })
            .collect();
        let caption = format!("{word} ({count} of {}): {}", truth.len(), named.join(", "));
        items.push(item(&beside(&tiles, false), caption)?);
    }
    Ok(Gallery {
        title: "Answers of the linear classifier".into(),
        caption:
            "Test pictures, the first of each class, then the second of each; green frames: classified right, red \
                  ones: wrong."
                .into(),
        items,
    })
}

/// The confusion matrix as a picture, and its counts: a row for each true class, a column for each answer.
fn confusion(names: &[String], scores: &[f32], truth: &[i64]) -> Result<(Gallery, Vec<Vec<usize>>)> {
    let classes = names.len();
    let mut counts = vec![vec![0usize; classes]; classes];
    // The lowest class number wins a tie, as in the accuracy.
    for (said, &label) in said(scores, classes).into_iter().zip(truth) {
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
