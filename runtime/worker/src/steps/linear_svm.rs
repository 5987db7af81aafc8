//! `linear_svm`: one-against-the-rest linear support vector machines on frozen features, and their average precision.

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::steps::linear_svm::{Absent, LinearSvm as Params, LowShot, SvmProfile};
use harness_protocol::{Outcome, Series, StepKind};
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::context::Context;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::features::{check_columns, computed, extract};
use crate::guard::eval_guard;
use crate::metric::precision::{by_chance, envelope, stepwise};
use crate::model::{Encoder, store};
use crate::optim::svm::{Plane, Rows, Settings, folds, solve, solve_all};
use crate::provenance::provenance;
use crate::seed;

/// Added to the length that features are divided by.
const EPSILON: f64 = 1e-5;

/// One class: its answers in train and test (1 present, -1 absent, 0 difficult).
struct Class {
    name: String,
    train: Vec<i8>,
    test: Vec<i8>,
    /// Why it does not count.
    absent: Option<&'static str>,
}

impl Class {
    /// Difficult pictures are negatives.
    fn positive(&self) -> Vec<bool> {
        self.train.iter().map(|&answer| answer > 0).collect()
    }
}

/// Average precision of a class with difficult pictures as negatives, and without them.
#[derive(Clone, Copy, Debug)]
struct Precision {
    negative: f64,
    without: f64,
}

/// Runs the step.
///
/// # Errors
/// Classes that do not match, pictures or vectors that cannot be used, no class that counts, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let classes = classes(&train, &test)?;
    let start = Instant::now();
    let (x, y) = features(context, &params, &train, &test)?;
    let named = |class: &&Class| class.absent.map(|why| format!("`{}` ({why})", class.name));
    let absent: Vec<String> = classes.iter().filter_map(|class| named(&class)).collect();
    if !absent.is_empty() {
        let list = absent.join(", ");
        if params.absent == Absent::Error {
            return Err(format!(
                "classes without a positive: {list}; `absent = leave_out` leaves them out of the mean"
            )
            .into());
        }
        context.warn(format!("left out of the mean: {list}"));
    }
    let counted: Vec<usize> = (0..classes.len()).filter(|&at| classes[at].absent.is_none()).collect();
    if counted.is_empty() {
        return Err("no class has a positive in train and in test, so there is nothing to measure".into());
    }
    let columns = x.size()[1] as usize;
    let (x, y) = (numbers(&x)?, numbers(&y)?);
    let task = Task {
        context,
        params: &params,
        classes: &classes,
        counted: &counted,
        train: Rows { values: &x, columns },
        test: Rows { values: &y, columns },
    };
    task.run(start)
}

/// Answers of both splits, classes matched by name in the order of train.
fn classes(train: &Images, test: &Images) -> Result<Vec<Class>> {
    let (learned, asked) = (train.multilabels()?, test.multilabels()?);
    let names = &test.manifest.classes;
    if let Some(unknown) = names.iter().find(|name| !train.manifest.classes.contains(name)) {
        return Err(format!("test has the class `{unknown}`, which train does not have").into());
    }
    let column =
        |answers: &[Vec<i8>], at: Option<usize>| answers.iter().map(|row| at.map_or(-1, |at| row[at])).collect();
    let class = |(at, name): (usize, &String)| {
        let (train, test): (Vec<i8>, Vec<i8>) =
            (column(&learned, Some(at)), column(&asked, names.iter().position(|other| other == name)));
        let none = |answers: &[i8]| !answers.contains(&1);
        let absent = match (none(&train), none(&test)) {
            (false, false) => None,
            (true, false) => Some("no positive in train"),
            (false, true) => Some("no positive in test"),
            (true, true) => Some("no positive in train or test"),
        };
        Class { name: name.clone(), train, test, absent }
    };
    Ok(train.manifest.classes.iter().enumerate().map(class).collect())
}

/// Features of both splits, each row divided by its length.
fn features(context: &Context, params: &Params, train: &Images, test: &Images) -> Result<(Tensor, Tensor)> {
    let (x, y) = match (&params.vectors, &params.encoder) {
        (Some(vectors), _) => (
            computed(context, vectors.train.digest(), train, "train")?,
            computed(context, vectors.test.digest(), test, "test")?,
        ),
        (None, Some(encoder)) => {
            let encoder = Encoder::load(context.input_file(encoder.digest())?, context.device)?;
            let transform = params.transform.unwrap_or_default();
            let (first, total) = (train.len() as u64, (train.len() + test.len()) as u64);
            let say = |done| context.progress("features", done, total, "pictures");
            eval_guard(&encoder, || {
                let x = extract(context, &encoder, train, &transform, say)?;
                Ok((x, extract(context, &encoder, test, &transform, |done| say(first + done))?))
            })?
        }
        (None, None) => return Err("there is neither an `encoder` nor `vectors`".into()),
    };
    check_columns(&x, &y)?;
    let scaled = |x: Tensor| &x / (x.norm_scalaropt_dim(2, [-1i64].as_slice(), true) + EPSILON);
    Ok((scaled(x), scaled(y)))
}

fn numbers(x: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::<f32>::try_from(x.f_to_device(Device::Cpu)?.f_reshape([-1])?)?)
}

/// The problems of one run.
struct Task<'a> {
    context: &'a Context<'a>,
    params: &'a Params,
    classes: &'a [Class],
    counted: &'a [usize],
    train: Rows<'a>,
    test: Rows<'a>,
}

/// Mean and standard deviation (n − 1) of numbers.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

impl Task<'_> {
    fn run(&self, start: Instant) -> Result<Outcome> {
        let all: Vec<usize> = (0..self.train.count()).collect();
        let outcome = match &self.params.low_shot {
            None => {
                let jobs: Vec<usize> = self.counted.to_vec();
                let solved = self.solve(&jobs, "classes", |&class| {
                    let positive = self.classes[class].positive();
                    let cost = self.cost(&all, &positive);
                    (cost, self.plane(&all, &positive, cost))
                })?;
                let planes: Vec<(f64, Plane)> = solved;
                let precisions: Vec<Precision> =
                    self.counted.iter().zip(&planes).map(|(&class, (_, plane))| self.precision(class, plane)).collect();
                self.told(&planes);
                self.outcome(&planes, &precisions, BTreeMap::new(), Vec::new(), start)?
            }
            Some(low) => self.low_shot(low, start)?,
        };
        Ok(outcome)
    }

    /// Problems on all threads, in order; stops between them when asked to.
    fn solve<T: Sync, R: Send>(&self, jobs: &[T], unit: &str, solve: impl Fn(&T) -> R + Sync) -> Result<Vec<R>> {
        let threads = self.context.threads();
        let mut results = Vec::with_capacity(jobs.len());
        // A round for all threads at a time: short enough to stop in, long enough to keep them busy.
        for round in jobs.chunks(4 * threads) {
            self.context.check_cancelled()?;
            results.extend(solve_all(round, threads, &solve));
            self.context.progress("support vector machines", results.len() as u64, jobs.len() as u64, unit);
        }
        Ok(results)
    }

    fn settings(&self, cost: f64) -> Settings {
        Settings { cost, ..Settings::default() }
    }

    fn plane(&self, chosen: &[usize], positive: &[bool], cost: f64) -> Plane {
        solve(self.train, chosen, positive, &self.settings(cost))
    }

    /// The cost for a class: the one that is set, or of `costs` the first with the best cross-validated average precision.
    fn cost(&self, chosen: &[usize], positive: &[bool]) -> f64 {
        let (costs, count) = (&self.params.costs, self.params.folds as usize);
        let labels: Vec<bool> = chosen.iter().map(|&at| positive[at]).collect();
        let rarer = labels.iter().filter(|&&label| label).count();
        if costs.is_empty() || rarer.min(labels.len() - rarer) < count {
            return self.params.cost;
        }
        let fold = folds(&labels, count);
        let judged = |&cost: &f64| {
            let of_fold = |held: usize| {
                let (kept, out): (Vec<usize>, Vec<usize>) = (0..chosen.len()).partition(|&at| fold[at] != held);
                let kept: Vec<usize> = kept.into_iter().map(|at| chosen[at]).collect();
                let plane = self.plane(&kept, positive, cost);
                let scores: Vec<f64> = out.iter().map(|&at| plane.score(self.train.row(chosen[at]))).collect();
                let truth: Vec<bool> = out.iter().map(|&at| labels[at]).collect();
                stepwise(&scores, &truth).unwrap_or(0.0)
            };
            (cost, (0..count).map(of_fold).sum::<f64>() / count as f64)
        };
        let mut best = (self.params.cost, f64::NEG_INFINITY);
        for (cost, score) in costs.iter().map(judged) {
            if score > best.1 {
                best = (cost, score);
            }
        }
        best.0
    }

    fn precision(&self, class: usize, plane: &Plane) -> Precision {
        let scores: Vec<f64> = (0..self.test.count()).map(|at| plane.score(self.test.row(at))).collect();
        let answers = &self.classes[class].test;
        let truth: Vec<bool> = answers.iter().map(|&answer| answer > 0).collect();
        let clear: Vec<usize> = (0..answers.len()).filter(|&at| answers[at] != 0).collect();
        let part = |at: &usize| (scores[*at], truth[*at]);
        let (clear_scores, clear_truth): (Vec<f64>, Vec<bool>) = clear.iter().map(part).unzip();
        Precision {
            negative: envelope(&scores, &truth).unwrap_or(0.0),
            without: envelope(&clear_scores, &clear_truth).unwrap_or(0.0),
        }
    }

    /// Says which problems stopped before their tolerance.
    fn told(&self, planes: &[(f64, Plane)]) {
        let open: Vec<&str> = self
            .counted
            .iter()
            .zip(planes)
            .filter(|(_, (_, plane))| !plane.converged)
            .map(|(&class, _)| self.classes[class].name.as_str())
            .collect();
        if !open.is_empty() {
            self.context.warn(format!("the solver did not come to the optimum for {}", open.join(", ")));
        }
    }

    /// What a random order of test reaches, and the share of positives in it.
    fn chance(&self) -> (f64, f64) {
        let mut known = BTreeMap::new();
        let (mut chances, mut shares) = (Vec::new(), Vec::new());
        for &class in self.counted {
            let answers = &self.classes[class].test;
            let positives = answers.iter().filter(|&&answer| answer > 0).count();
            chances.push(*known.entry(positives).or_insert_with(|| by_chance(answers.len(), positives)));
            shares.push(positives as f64 / answers.len().max(1) as f64);
        }
        (moments(&chances).0, moments(&shares).0)
    }

    /// Tells of scores that do not tell pictures apart: then their order in the dataset ranks them.
    fn warn_ties(&self, planes: &[(f64, Plane)]) {
        let tied = |(_, (_, plane)): &(&usize, &(f64, Plane))| {
            let mut scores: Vec<u64> =
                (0..self.test.count()).map(|at| plane.score(self.test.row(at)).to_bits()).collect();
            scores.sort_unstable();
            scores.dedup();
            2 * scores.len() < self.test.count()
        };
        let names: Vec<&str> =
            self.counted.iter().zip(planes).filter(tied).map(|(&class, _)| self.classes[class].name.as_str()).collect();
        if !names.is_empty() {
            self.context.warn(format!(
                "most pictures of test have a score that others have too, and are ranked by their order in the dataset: \
                 features may have collapsed; {}",
                names.join(", ")
            ));
        }
    }

    fn outcome(
        &self,
        planes: &[(f64, Plane)],
        precisions: &[Precision],
        series: BTreeMap<String, Series>,
        more: Vec<(String, Value)>,
        start: Instant,
    ) -> Result<Outcome> {
        self.warn_ties(planes);
        let (chance, share) = self.chance();
        let mean = |of: &dyn Fn(&Precision) -> f64| moments(&precisions.iter().map(of).collect::<Vec<_>>()).0;
        let mut classes = serde_json::Map::new();
        for (at, class) in self.classes.iter().enumerate() {
            let count = |answers: &[i8], wanted: i8| answers.iter().filter(|&&answer| answer == wanted).count();
            let mut entry = json!({
                "train_positives": count(&class.train, 1), "train_difficult": count(&class.train, 0),
                "test_positives": count(&class.test, 1), "test_difficult": count(&class.test, 0),
            });
            if let Some(place) = self.counted.iter().position(|&other| other == at) {
                entry["ap"] = precisions[place].negative.into();
                entry["ap_without_difficult"] = precisions[place].without.into();
                if let Some((cost, _)) = planes.get(place) {
                    entry["cost"] = (*cost).into();
                }
            } else if let Some(why) = class.absent {
                entry["left_out"] = why.into();
            }
            classes.insert(class.name.clone(), entry);
        }
        let mut file = json!({ "classes": classes });
        more.into_iter().for_each(|(name, value)| file[name] = value);
        let text = serde_json::to_vec_pretty(&file).map_err(|error| Error::Step(error.to_string()))?;
        let mut outputs = BTreeMap::from([("classes".into(), self.context.write("classes.json", "metrics", &text)?)]);
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (_, plane) in planes {
            weight.extend(plane.weight.iter().map(|&value| value as f32));
            bias.push(plane.bias as f32);
        }
        let shape = [planes.len() as i64, self.train.columns as i64];
        let tensors = BTreeMap::from([
            ("weight".to_string(), Tensor::f_from_slice(&weight)?.f_view(shape)?),
            ("bias".to_string(), Tensor::f_from_slice(&bias)?),
        ]);
        outputs.insert(
            "planes".into(),
            self.context.write("planes.safetensors", "file", &store::encode(&tensors, None)?)?,
        );
        Ok(Outcome {
            outputs,
            metrics: BTreeMap::from([
                ("map".into(), mean(&|precision| precision.negative)),
                ("map_without_difficult".into(), mean(&|precision| precision.without)),
                ("chance_map".into(), chance),
                ("positives".into(), share),
                ("classes_counted".into(), self.counted.len() as f64),
            ]),
            series,
            provenance: provenance(self.context, 0, start.elapsed().as_secs_f64()),
        })
    }

    /// Few positives of each class, in several samples. The numbers of the outcome are those of the most positives.
    fn low_shot(&self, low: &LowShot, start: Instant) -> Result<Outcome> {
        let costs = match (self.params.profile, &self.params.costs[..]) {
            (SvmProfile::Official, costs @ [_, ..]) => costs.to_vec(),
            _ => Vec::new(),
        };
        // One problem for each number of positives, sample, class, and cost to compare on test.
        let mut jobs = Vec::new();
        for (place, &shots) in low.shots.iter().enumerate() {
            for sample in 0..low.samples {
                for &class in self.counted {
                    let each: Vec<Option<f64>> =
                        if costs.is_empty() { vec![None] } else { costs.iter().map(|&cost| Some(cost)).collect() };
                    jobs.extend(each.into_iter().map(|cost| (place, shots, sample, class, cost)));
                }
            }
        }
        let solved = self.solve(&jobs, "problems", |&(_, shots, sample, class, cost)| {
            let positive = self.classes[class].positive();
            let chosen = self.sample(low.seed, class, shots as usize, sample);
            let cost = cost.unwrap_or_else(|| self.cost(&chosen, &positive));
            let plane = self.plane(&chosen, &positive, cost);
            (cost, self.precision(class, &plane), plane)
        })?;
        let candidates = costs.len().max(1);
        let of = |place: usize, sample: u64, class: usize, candidate: usize| {
            let at = (place as u64 * low.samples + sample) as usize * self.counted.len() + class;
            &solved[at * candidates + candidate]
        };
        let map = |place: usize, sample: u64, candidate: usize, of_one: fn(&Precision) -> f64| {
            let all: Vec<f64> =
                (0..self.counted.len()).map(|class| of_one(&of(place, sample, class, candidate).1)).collect();
            moments(&all).0
        };
        let (mut means, mut stds, mut clear, mut table, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
        for (place, shots) in low.shots.iter().enumerate() {
            let of_candidate = |candidate: usize, of_one: fn(&Precision) -> f64| -> Vec<f64> {
                (0..low.samples).map(|sample| map(place, sample, candidate, of_one)).collect()
            };
            // The published choice looks at what the published number is: without difficult pictures.
            let judged = |candidate: usize| moments(&of_candidate(candidate, |one| one.without)).0;
            let mut best = 0;
            for candidate in 1..candidates {
                if judged(candidate) > judged(best) {
                    best = candidate;
                }
            }
            let (values, without) = (of_candidate(best, |one| one.negative), of_candidate(best, |one| one.without));
            let (mean, std) = moments(&values);
            means.push(mean);
            stds.push(std);
            clear.push(moments(&without).0);
            table.push(json!({
                "shots": shots, "map": values, "map_without_difficult": without, "cost": costs.get(best),
            }));
            last = best;
        }
        if !costs.is_empty() {
            self.context.warn(
                "profile `official` chose each cost by its mean on test, as published, so these numbers flatter; `fixed` \
                 chooses it by cross-validation",
            );
        }
        let few: Vec<u64> = low.shots.iter().copied().filter(|&shots| shots < self.params.folds).collect();
        if costs.is_empty() && !self.params.costs.is_empty() && !few.is_empty() {
            self.context
                .info(format!("fewer positives than folds ({few:?}): `cost` = {} counts there", self.params.cost));
        }
        let place = low.shots.len() - 1;
        let planes: Vec<(f64, Plane)> = (0..self.counted.len())
            .map(|class| {
                let (cost, _, plane) = of(place, 0, class, last);
                (*cost, plane.clone())
            })
            .collect();
        let precisions: Vec<Precision> = (0..self.counted.len())
            .map(|class| {
                let all: Vec<Precision> = (0..low.samples).map(|sample| of(place, sample, class, last).1).collect();
                let mean = |of: &dyn Fn(&Precision) -> f64| moments(&all.iter().map(of).collect::<Vec<_>>()).0;
                Precision { negative: mean(&|p| p.negative), without: mean(&|p| p.without) }
            })
            .collect();
        let x: Vec<f64> = low.shots.iter().map(|&shots| shots as f64).collect();
        let curve = |y: Vec<f64>| Series { x: x.clone(), y, x_label: "positives".into() };
        let series = BTreeMap::from([
            ("map_by_shots".into(), curve(means)),
            ("map_by_shots_std".into(), curve(stds)),
            ("map_by_shots_without_difficult".into(), curve(clear)),
        ]);
        self.outcome(&planes, &precisions, series, vec![("low_shot".into(), table.into())], start)
    }

    /// `shots` positives of a class and (classes − 1) times as many negatives, all of them where there are fewer; indices
    /// rising. Pictures that are difficult for the class are neither, as where the protocol is from (VISSL).
    fn sample(&self, draw: u64, class: usize, shots: usize, sample: u64) -> Vec<usize> {
        let Class { name, train, .. } = &self.classes[class];
        let purpose = format!("low shot {name}");
        let order = seed::permutation(draw, Params::KIND, &purpose, shots as u64, sample, train.len());
        let negatives = shots * (self.classes.len() - 1).max(1);
        let of = |wanted: i8, most: usize| order.iter().copied().filter(move |&at| train[at] == wanted).take(most);
        let mut chosen: Vec<usize> = of(1, shots).chain(of(-1, negatives)).collect();
        chosen.sort_unstable();
        chosen
    }
}
