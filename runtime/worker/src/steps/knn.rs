//! `knn`: the weighted nearest-neighbour classifier.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine as _;
use harness_datasets::hold_out;
use harness_protocol::select::PartOfTrain;
use harness_protocol::steps::knn::{Knn as Params, KnnFeatures, Neighbours};
use harness_protocol::transform::Centre;
use harness_protocol::{Gallery, GalleryItem, Outcome, Series};
use harness_views::{Filter, Picture, centre_crop, encode_png_rgb, resize_shorter};
use tch::Tensor;

use crate::context::Context;
use crate::data::Images;
use crate::data::labels::{majority, matched};
use crate::error::Result;
use crate::features::{Stored, check_columns, computed, extract, head, normalised};
use crate::guard::eval_guard;
use crate::metric::knn::{Part, Table, Vote, accuracy, classify, nearest, vote};
use crate::model::Encoder;
use crate::provenance::provenance;

/// Queries in the gallery.
const QUERIES: usize = 8;
/// Side of a tile in the gallery, pixels.
const TILE: usize = 96;
/// Width of the frame around a tile, pixels.
const FRAME: usize = 3;
/// Frame of a picture that is asked.
const ASKED: [u8; 3] = [128, 128, 128];
/// Frame of what is right.
pub const RIGHT: [u8; 3] = [34, 160, 60];
/// Frame of what is wrong.
pub const WRONG: [u8; 3] = [205, 45, 45];

/// The two splits of a nearest-neighbour classification and how it votes.
pub struct Task<'a> {
    /// Pictures that vote.
    pub train: &'a Images,
    /// Pictures that are asked.
    pub test: &'a Images,
    /// Neighbours that vote.
    pub k: usize,
    /// Temperature of the votes.
    pub temperature: f64,
    /// Which features are compared.
    pub features: KnnFeatures,
    /// Transform of the pictures.
    pub transform: Centre,
}

/// Votes of all test pictures, and the labels of both splits in the numbering of train.
pub struct Answer {
    /// What the classifier says of each test picture.
    pub votes: Vec<Vote>,
    /// Labels of train.
    pub labels: Vec<i64>,
    /// Labels of test.
    pub truth: Vec<i64>,
}

/// Classifies with an encoder, which stays as it is. `done` hears how many pictures of both splits are done.
///
/// # Errors
/// Classes that do not match, pictures that cannot be used, cancelled.
pub fn answer(context: &Context, encoder: &Encoder, task: &Task, done: impl Fn(u64)) -> Result<Answer> {
    let (labels, truth) = (task.train.labels()?, matched(task.train, task.test)?);
    let (train, test) = vectors(context, encoder, task, done)?;
    let classes = task.train.manifest.classes.len();
    let votes = classify(&train, &labels, classes, &test, task.k, task.temperature, 5)?;
    Ok(Answer { votes, labels, truth })
}

/// Features of both splits, rows of length 1.
fn vectors(context: &Context, encoder: &Encoder, task: &Task, done: impl Fn(u64)) -> Result<(Tensor, Tensor)> {
    let before = task.train.len() as u64;
    let head = head(encoder, task.features)?;
    let rows = |features: Tensor| match &head {
        Some(head) => tch::no_grad(|| normalised(&head.forward(&features))),
        None => normalised(&features),
    };
    eval_guard(encoder, || {
        let train = extract(context, encoder, task.train, &task.transform, &done)?;
        let test = extract(context, encoder, task.test, &task.transform, |count| done(before + count))?;
        Ok((rows(train), rows(test)))
    })
}

/// Runs the step.
///
/// # Errors
/// See [`answer`].
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let (labels, truth) = (train.labels()?, matched(&train, &test)?);
    let k = usize::try_from(params.k).unwrap_or(usize::MAX);
    let start = Instant::now();
    let (x, y): (Box<dyn Table>, Tensor) = match (&params.vectors, &params.encoder) {
        // Train stays in its file: of 1.3 million pictures it has some ten gigabytes.
        (Some(vectors), _) => (
            Box::new(Stored::open(context, vectors.train.digest(), &train, "train")?),
            normalised(&computed(context, vectors.test.digest(), &test, "test")?),
        ),
        (None, Some(encoder)) => {
            let encoder = Encoder::load(context.input_file(encoder.digest())?, context.device)?;
            let task = Task {
                train: &train,
                test: &test,
                k,
                temperature: params.temperature,
                features: params.features,
                transform: params.transform.unwrap_or_default(),
            };
            let total = (train.len() + test.len()) as u64;
            let say = |done| context.progress("features", done, total, "pictures");
            let (x, y) = vectors(context, &encoder, &task, say)?;
            (Box::new(x), y)
        }
        (None, None) => return Err("there is neither an `encoder` nor `vectors`".into()),
    };
    check_columns(x.as_ref(), &y)?;
    let classes = train.manifest.classes.len();
    let all: Vec<usize> = params.also.iter().map(|&k| usize::try_from(k).unwrap_or(usize::MAX)).chain([k]).collect();
    let most = all.iter().copied().max().unwrap_or(k);
    let asked = test.len() as u64;
    let found = nearest(x.as_ref(), &y, most, |done| {
        context.check_cancelled()?;
        context.progress("neighbours", done, asked, "pictures");
        Ok(())
    })?;
    let votes = |k: usize| -> Vec<Vote> {
        found.iter().map(|near| vote(near, &labels, classes, k, params.temperature, 5)).collect()
    };
    let by_k: BTreeMap<usize, f64> = all.iter().map(|&k| (k, accuracy(&votes(k), &truth).0)).collect();
    let curve = |by_k: &BTreeMap<usize, f64>| Series {
        x: by_k.keys().map(|&k| k as f64).collect(),
        y: by_k.values().copied().collect(),
        x_label: "neighbours".into(),
    };
    let mut series = BTreeMap::from([("top1_by_k".to_string(), curve(&by_k))]);
    let k = match &params.select {
        Neighbours::Given(_) => k,
        Neighbours::Holdout(part) => {
            let held =
                Held { context, train: &train, labels: &labels, rows: x.as_ref(), temperature: params.temperature };
            let by_k = held.accuracies(part, &all)?;
            series.insert("holdout_top1_by_k".into(), curve(&by_k));
            best(&by_k)
        }
        Neighbours::BestOnTest(_) => {
            let k = best(&by_k);
            context.warn(format!(
                "{k} neighbours were chosen by their `top1` on test, so it flatters; `select = holdout` chooses by a part of \
                 train"
            ));
            k
        }
    };
    let answer = Answer { votes: votes(k), labels, truth };
    let seconds = start.elapsed().as_secs_f64();
    let (top1, top5) = accuracy(&answer.votes, &answer.truth);
    let floor = majority(&answer.labels, classes, &answer.truth);
    let gallery = gallery(&train, &test, &answer)?;
    Ok(Outcome {
        outputs: BTreeMap::from([("neighbours".into(), context.write_gallery("neighbours", &gallery)?)]),
        metrics: BTreeMap::from([
            ("top1".into(), top1),
            ("top5".into(), top5),
            ("majority_top1".into(), floor),
            ("chosen_k".into(), k as f64),
        ]),
        series,
        provenance: provenance(context, asked, seconds),
    })
}

/// The number of neighbours with the best accuracy, the smallest of several.
fn best(by_k: &BTreeMap<usize, f64>) -> usize {
    let mut best = (1, f64::NEG_INFINITY);
    for (&k, &reached) in by_k {
        if reached > best.1 {
            best = (k, reached);
        }
    }
    best.0
}

/// Train alone, to choose by.
struct Held<'a> {
    context: &'a Context<'a>,
    train: &'a Images,
    labels: &'a [i64],
    rows: &'a dyn Table,
    temperature: f64,
}

impl Held<'_> {
    /// Accuracy of every number of neighbours on a part of train that the rest classifies.
    fn accuracies(&self, part: &PartOfTrain, all: &[usize]) -> Result<BTreeMap<usize, f64>> {
        let (kept, held) = parted(self.context, self.train, part)?;
        let of = |rows: &[usize]| -> Vec<i64> { rows.iter().map(|&row| self.labels[row]).collect() };
        let (labels, truth) = (of(&kept), of(&held));
        let (kept, held) = (Part { table: self.rows, rows: kept }, Part { table: self.rows, rows: held });
        let asked = held.count() as u64;
        let most = all.iter().copied().max().unwrap_or(1);
        let found = nearest(&kept, &held.block(0, held.count())?, most, |done| {
            self.context.check_cancelled()?;
            self.context.progress("neighbours of what is held out", done, asked, "pictures");
            Ok(())
        })?;
        let classes = self.train.manifest.classes.len();
        let votes = |k| -> Vec<Vote> {
            found.iter().map(|near| vote(near, &labels, classes, k, self.temperature, 1)).collect()
        };
        Ok(all.iter().map(|&k| (k, accuracy(&votes(k), &truth).0)).collect())
    }
}

/// Rows of train that are learned from, and those that something is chosen by.
///
/// # Errors
/// There would be none of either.
pub fn parted(context: &Context, train: &Images, part: &PartOfTrain) -> Result<(Vec<usize>, Vec<usize>)> {
    let (out, said) = hold_out(&train.manifest.entries, part.share, part.split_seed);
    said.into_iter().for_each(|text| context.info(text));
    let (held, kept): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|&row| out[row]);
    if held.is_empty() || kept.is_empty() {
        return Err(format!(
            "nothing can be chosen by a part of train: a share of {} of each class holds out {} of {} pictures",
            part.share,
            held.len(),
            train.len()
        )
        .into());
    }
    Ok((kept, held))
}

/// At most [`QUERIES`] pictures spread over the classes: the first of each class, then the second of each…
pub fn queries(among: impl Iterator<Item = usize>, truth: &[i64], classes: usize) -> Vec<usize> {
    let mut of_class = vec![Vec::new(); classes];
    among.for_each(|index| of_class[truth[index] as usize].push(index));
    let most = of_class.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..most).flat_map(|round| of_class.iter().filter_map(move |indices| indices.get(round).copied()));
    rounds.take(QUERIES).collect()
}

fn gallery(train: &Images, test: &Images, answer: &Answer) -> Result<Gallery> {
    let names = &train.manifest.classes;
    let name = |label: i64| names[label as usize].as_str();
    let mut items = Vec::new();
    for query in queries(0..answer.truth.len(), &answer.truth, names.len()) {
        let (vote, truth) = (&answer.votes[query], answer.truth[query]);
        let mut tiles = vec![framed(&test.picture(query)?, ASKED)];
        for &(index, _) in &vote.nearest {
            let colour = if answer.labels[index] == truth { RIGHT } else { WRONG };
            tiles.push(framed(&train.picture(index)?, colour));
        }
        let row = beside(&tiles, true);
        let png = encode_png_rgb(&row).map_err(|error| error.to_string())?;
        let near: Vec<String> = vote
            .nearest
            .iter()
            .map(|&(index, similar)| format!("{} {similar:.2}", name(answer.labels[index])))
            .collect();
        let said = vote.classes.first().map_or("nothing", |&class| name(class));
        items.push(GalleryItem {
            caption: format!("{}, classified as {said}; nearest: {}", name(truth), near.join(", ")),
            width: row.width,
            height: row.height,
            png_base64: base64::engine::general_purpose::STANDARD.encode(png),
        });
    }
    Ok(Gallery {
        title: "Nearest neighbours".into(),
        caption: "Left, framed grey: a test picture. Then its nearest training pictures, nearest first; green: the \
                  same class, red: another one. The numbers are cosine similarities."
            .into(),
        items,
    })
}

/// A picture as a square tile with a coloured frame.
pub fn framed(picture: &Picture, colour: [u8; 3]) -> Picture {
    let inner = centre_crop(&resize_shorter(picture, TILE, Filter::Bilinear), TILE);
    let mut tile = Picture::filled(TILE + 2 * FRAME, TILE + 2 * FRAME, colour);
    paste(&mut tile, &inner, FRAME, FRAME);
    tile
}

/// Tiles of one height in a row, the first one set apart if it is to be.
pub fn beside(tiles: &[Picture], apart: bool) -> Picture {
    let (side, gap) = (TILE + 2 * FRAME, if apart { 2 * FRAME } else { 0 });
    let mut row = Picture::filled(tiles.len() * (side + FRAME) + gap - FRAME, side, [255, 255, 255]);
    for (index, tile) in tiles.iter().enumerate() {
        let left = index * (side + FRAME) + if index > 0 { gap } else { 0 };
        paste(&mut row, tile, left, 0);
    }
    row
}

fn paste(onto: &mut Picture, from: &Picture, left: usize, top: usize) {
    for y in 0..from.height.min(onto.height.saturating_sub(top)) {
        let width = from.width.min(onto.width.saturating_sub(left));
        let (to, source) = (3 * ((y + top) * onto.width + left), 3 * y * from.width);
        onto.data[to..to + 3 * width].copy_from_slice(&from.data[source..source + 3 * width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_spread_over_classes() {
        assert_eq!(queries(0..6, &[0, 0, 0, 1, 1, 2], 4), [0, 3, 5, 1, 4, 2]);
        assert_eq!(queries([1, 2, 4].into_iter(), &[0, 0, 0, 1, 1, 2], 4), [1, 4, 2]);
        assert_eq!(queries(0..20, &[1; 20], 2).len(), QUERIES);
    }

    #[test]
    fn tiles_do_not_overlap() {
        let tiles: Vec<Picture> = (0..3).map(|_| framed(&Picture::filled(10, 20, [0, 0, 0]), [255, 0, 0])).collect();
        let row = beside(&tiles, true);
        let red = row.data.chunks_exact(3).filter(|pixel| *pixel == [255, 0, 0]).count();
        assert_eq!(red, 3 * ((TILE + 2 * FRAME).pow(2) - TILE * TILE));
    }
}
