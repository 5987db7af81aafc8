//! `retrieve`: segments of test pictures named after their nearest ones of train.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::steps::{Profile, Regions, Retrieve as Params};
use harness_protocol::{Gallery, Outcome, StepKind};
use harness_views::{IndexMask, Picture};
use tch::Tensor;

use crate::cluster::Settings;
use crate::context::Context;
use crate::error::Result;
use crate::metric::iou::{Confusion, VOID};
use crate::model::Encoder;
use crate::provenance::provenance;
use crate::steps::overlay::{beside, fit, item, legend, matrix, overlay, spread};
use crate::steps::segment::augment::mask_at;
use crate::steps::segment::pairs::Pairs;
use crate::steps::segment::{report, same_classes};
use crate::steps::segments::{Cut, Masks, NONE, Segments, Task, segments};

/// Test pictures in the gallery.
const SHOWN: usize = 6;
/// Retrieved segments beside each of them.
const RETRIEVED: usize = 4;
/// Longest side of a picture in the gallery, pixels.
const LONGEST: usize = 180;
/// Queries compared with the whole bank at a time.
const QUERIES: i64 = 1024;

/// What a mask value means for a score: its class, or void.
struct Meaning {
    class_of: [u8; 256],
    /// Classes whose mean is reported.
    scored: Vec<usize>,
}

impl Meaning {
    fn all(classes: usize) -> Self {
        let mut class_of = [VOID; 256];
        (0..VOID).zip(&mut class_of).take(classes).for_each(|(class, slot)| *slot = class);
        Self { class_of, scored: (0..classes).collect() }
    }

    /// Only background and the classes with these names count; only the latter are scored.
    fn only(names: &[String], subset: &[String]) -> Result<Self> {
        let mut meaning = Self { class_of: [VOID; 256], scored: Vec::new() };
        meaning.class_of[0] = 0;
        for wanted in subset {
            let class = names
                .iter()
                .position(|name| name == wanted)
                .ok_or_else(|| format!("`subset` names a class `{wanted}`, and the masks have {}", names.join(", ")))?;
            meaning.class_of[class] = class as u8;
            meaning.scored.push(class);
        }
        Ok(meaning)
    }

    fn of(&self, mask: &IndexMask) -> Vec<u8> {
        mask.data.iter().map(|&value| self.class_of[usize::from(value)]).collect()
    }
}

/// The splits, their segments, and how they are named.
struct Bank<'a> {
    train: &'a Pairs,
    test: &'a Pairs,
    known: Segments,
    asked: Segments,
    size: usize,
    profile: Profile,
    /// Whether a segment of train may be background.
    background: bool,
    classes: usize,
}

/// The names of test's segments, and where they come from.
struct Named {
    /// Class of each segment of test.
    classes: Vec<u8>,
    /// The nearest named segments of train of each, nearest first, with cosines.
    nearest: Vec<Vec<(usize, f64)>>,
    /// Segments of train that have a name.
    bank: usize,
}

impl Bank<'_> {
    /// The majority class of each segment of train over its pixels, void left out (and background, where it may not be),
    /// the lowest of several; none where nothing is left.
    fn labels(&self, meaning: &Meaning) -> Result<Vec<Option<u8>>> {
        let mut labels = Vec::with_capacity(self.known.places.len());
        for (picture, of) in self.known.of_pictures().into_iter().enumerate().filter(|(_, of)| !of.is_empty()) {
            let truth = meaning.of(&mask_at(&self.train.get(picture)?.mask, self.size, self.size, self.profile));
            let map = self.known.map(picture, self.size, self.size, self.profile);
            let mut counts = vec![[0u64; 256]; 256];
            map.data.iter().zip(&truth).for_each(|(&segment, &class)| {
                counts[usize::from(segment)][usize::from(class)] += 1;
            });
            for segment in of {
                let counts = &counts[usize::from(self.known.places[segment].1)];
                let first = if self.background { 0 } else { 1 };
                let most = (first..self.classes).max_by_key(|&class| (counts[class], std::cmp::Reverse(class)));
                labels.push(most.filter(|&class| counts[class] > 0).map(|class| class as u8));
            }
        }
        Ok(labels)
    }

    /// Names each segment of test after the nearest named one of train.
    fn name(&self, meaning: &Meaning, device: tch::Device) -> Result<Named> {
        let labels = self.labels(meaning)?;
        let (rows, known): (Vec<i64>, Vec<u8>) =
            labels.iter().enumerate().filter_map(|(row, label)| label.map(|label| (row as i64, label))).unzip();
        if rows.is_empty() {
            return Err(
                "no segment of train has a class, so nothing can be retrieved: its masks are void (or background) \
                        wherever there are segments"
                    .into(),
            );
        }
        let bank = self.known.features.index_select(0, &Tensor::from_slice(&rows)).to_device(device);
        let (mut classes, mut nearest) = (Vec::new(), Vec::new());
        let asked = self.asked.features.to_device(device);
        for queries in asked.split(QUERIES, 0) {
            let cosines = queries.f_matmul(&bank.transpose(0, 1))?;
            let kept = (RETRIEVED as i64).min(rows.len() as i64);
            let (_, first) = cosines.f_max_dim(1, false)?;
            let (values, near) = cosines.f_topk(kept, 1, true, true)?;
            let first = Vec::<i64>::try_from(first.to_device(tch::Device::Cpu))?;
            let values = Vec::<f32>::try_from(values.f_reshape([-1])?.to_device(tch::Device::Cpu))?;
            let near = Vec::<i64>::try_from(near.f_reshape([-1])?.to_device(tch::Device::Cpu))?;
            classes.extend(first.iter().map(|&at| known[at as usize]));
            let each = values.chunks(kept as usize).zip(near.chunks(kept as usize));
            nearest.extend(each.map(|(values, near)| {
                near.iter().zip(values).map(|(&at, &cosine)| (rows[at as usize] as usize, f64::from(cosine))).collect()
            }));
        }
        Ok(Named { classes, nearest, bank: rows.len() })
    }

    /// The class of each pixel of a test picture at `size`²; pixels outside all segments are background.
    fn predicted(&self, picture: usize, of: &[usize], class: impl Fn(usize) -> u8) -> IndexMask {
        let mut class_of = [0; 256];
        for &segment in of {
            class_of[usize::from(self.asked.places[segment].1)] = class(segment);
        }
        let mut map = self.asked.map(picture, self.size, self.size, self.profile);
        map.data
            .iter_mut()
            .for_each(|segment| *segment = if *segment == NONE { 0 } else { class_of[usize::from(*segment)] });
        map
    }

    /// The class of `meaning` that has most pixels of train, the lowest of several, of those that a segment can have.
    fn most_frequent(&self, meaning: &Meaning) -> u8 {
        let able = meaning.scored.iter().filter(|&&class| class > 0 || self.background);
        able.max_by_key(|&&class| (self.train.pixels[class], std::cmp::Reverse(class))).map_or(0, |&class| class as u8)
    }

    /// Confusion matrices at `size`² and at the masks' own resolution, and at `size`² with every segment named alike, after the
    /// most frequent class of train.
    fn score(&self, meaning: &Meaning, named: &Named) -> Result<Scores> {
        let new = || Confusion::new(self.classes);
        let mut scores = Scores { online: new(), full: new(), floor: new() };
        let alike = self.most_frequent(meaning);
        for (picture, of) in self.asked.of_pictures().into_iter().enumerate() {
            let pair = self.test.get(picture)?;
            let predicted = self.predicted(picture, &of, |segment| named.classes[segment]);
            let truth = meaning.of(&mask_at(&pair.mask, self.size, self.size, self.profile));
            scores.online.add(&truth, &predicted.data);
            scores.floor.add(&truth, &self.predicted(picture, &of, |_| alike).data);
            let predicted = mask_at(&predicted, pair.mask.width, pair.mask.height, self.profile);
            scores.full.add(&meaning.of(&pair.mask), &predicted.data);
        }
        Ok(scores)
    }
}

/// What names come to.
struct Scores {
    online: Confusion,
    full: Confusion,
    floor: Confusion,
}

/// Runs the step.
///
/// # Errors
/// An encoder without a network, classes that do not match, pairs or saliency masks that cannot be used, no segment with a
/// class, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let (train, test) = (context.images(params.train.digest())?, context.images(params.test.digest())?);
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("retrieve")?;
    same_classes(&train, &test)?;
    let names = train.manifest.mask_classes.clone();
    let meaning = Meaning::all(names.len());
    let subset = match params.subset.is_empty() {
        true => None,
        false => Some(Meaning::only(&names, &params.subset)?),
    };
    let (cut_train, cut_test) = match &params.regions {
        Regions::Kmeans(regions) => {
            let settings = Settings {
                clusters: regions.k as usize,
                iterations: regions.iterations as usize,
                restarts: regions.restarts as usize,
            };
            (Cut::Kmeans(settings), Cut::Kmeans(settings))
        }
        Regions::Saliency(regions) => {
            let masks = |digest: &str| Ok::<_, crate::Error>(Masks::new(context.images(digest)?, regions.least));
            (Cut::Saliency(masks(regions.train.digest())?), Cut::Saliency(masks(regions.test.digest())?))
        }
    };
    let train = Pairs::check(context, &train, "train", params.profile)?;
    let test = Pairs::check(context, &test, "test", params.profile)?;
    train.warn(context, "train");
    test.warn(context, "test");
    if train.most_frequent().is_none() {
        return Err("every pixel of train is void, so no segment can be named".into());
    }
    if test.most_frequent().is_none() {
        return Err("every pixel of test is void, so there is nothing to score".into());
    }
    let start = Instant::now();
    let size = params.size as usize;
    let find = |pairs: &Pairs, split: &str, cut: &Cut| {
        let (dilated, profile, seed, kind) = (params.dilated, params.profile, params.seed, Params::KIND);
        let found = segments(context, network, &Task { pairs, split, cut, dilated, size, profile, seed, kind })?;
        warn_empty(context, pairs, &found, split);
        Ok::<_, crate::Error>(found)
    };
    let (known, asked) = (find(&train, "train", &cut_train)?, find(&test, "test", &cut_test)?);
    let background = params.background && matches!(params.regions, Regions::Kmeans(_));
    let (profile, classes) = (params.profile, names.len());
    let bank = Bank { train: &train, test: &test, known, asked, size, profile, background, classes };
    let named = bank.name(&meaning, context.device)?;
    let Scores { online, full, floor } = bank.score(&meaning, &named)?;
    let seconds = start.elapsed().as_secs_f64();

    let mut metrics = BTreeMap::from([
        ("miou".to_string(), online.miou(profile)),
        ("full_miou".to_string(), full.miou(profile)),
        ("floor_miou".to_string(), floor.miou(profile)),
        ("background_miou".to_string(), online.constant(0).miou(profile)),
        ("pixel_accuracy".to_string(), online.pixel_accuracy()),
        ("bank".to_string(), named.bank as f64),
    ]);
    if let Some(subset) = subset {
        let named = bank.name(&subset, context.device)?;
        let Scores { online, floor, .. } = bank.score(&subset, &named)?;
        metrics.insert("subset_miou".into(), online.mean_of(&subset.scored, profile));
        metrics.insert("subset_floor_miou".into(), floor.mean_of(&subset.scored, profile));
    }
    let gallery = gallery(&bank, &named, &online, &names)?;
    Ok(Outcome {
        outputs: BTreeMap::from([
            ("segments".into(), context.write_gallery("segments", &gallery)?),
            ("confusion".into(), context.write("confusion.json", "file", &report::json(&online, &names, profile)?)?),
        ]),
        metrics,
        series: BTreeMap::from([("class_iou".into(), report::class_curve(&online))]),
        provenance: provenance(context, (train.len() + test.len()) as u64, seconds),
    })
}

/// Tells of pictures without a segment.
pub(crate) fn warn_empty(context: &Context, pairs: &Pairs, found: &Segments, split: &str) {
    let empty = found.empty();
    if let Some(&first) = empty.first() {
        context.warn(format!(
            "{} of {} pictures of {split} have no salient pixel, first `{}`",
            empty.len(),
            pairs.len(),
            pairs.path(first)
        ));
    }
}

/// A picture with one of its segments in the colour of a class.
fn highlighted(picture: &Picture, map: &IndexMask, segment: u8, class: u8) -> Picture {
    let data = map.data.iter().map(|&value| if value == segment { class } else { NONE }).collect();
    let mask = IndexMask { width: map.width, height: map.height, data };
    overlay(picture, &mask, fit(picture.width, picture.height, LONGEST), |value| value != NONE)
}

fn gallery(bank: &Bank, named: &Named, confusion: &Confusion, names: &[String]) -> Result<Gallery> {
    let mut items = vec![
        item(&legend(names), "Colours of the classes; void is left as it is.".into())?,
        item(&matrix(confusion.rows(), names), report::matrix_caption(confusion, names))?,
    ];
    let of_pictures = bank.asked.of_pictures();
    for index in spread(bank.test.len(), SHOWN) {
        let (pair, of) = (bank.test.get(index)?, &of_pictures[index]);
        let (width, height) = (pair.mask.width, pair.mask.height);
        let predicted =
            mask_at(&bank.predicted(index, of, |segment| named.classes[segment]), width, height, bank.profile);
        let map = bank.asked.map(index, width, height, bank.profile);
        let size = fit(width, height, LONGEST);
        // Segments in colours of their own: class colours from 1 on.
        let shifted =
            IndexMask { data: map.data.iter().map(|&s| if s == NONE { s } else { s + 1 }).collect(), ..map.clone() };
        let panels = [
            overlay(&pair.picture, &pair.mask, size, |_| false),
            overlay(&pair.picture, &shifted, size, |value| value != NONE),
            overlay(&pair.picture, &predicted, size, |_| true),
            overlay(&pair.picture, &pair.mask, size, |class| class != VOID),
        ];
        items.push(item(&beside(&panels), format!("{}: segments, names, truth", bank.test.path(index)))?);
        // The largest segment and what it was named after.
        let pixels = |segment: usize| map.data.iter().filter(|&&s| s == bank.asked.places[segment].1).count();
        let Some(&query) = of.iter().max_by_key(|&&segment| (pixels(segment), std::cmp::Reverse(segment))) else {
            continue;
        };
        let class = named.classes[query];
        let mut row = vec![highlighted(&pair.picture, &map, bank.asked.places[query].1, class)];
        let mut words = Vec::new();
        for &(segment, cosine) in &named.nearest[query] {
            let (picture, number) = bank.known.places[segment];
            let known = bank.train.get(picture)?;
            let map = bank.known.map(picture, known.mask.width, known.mask.height, bank.profile);
            row.push(highlighted(&known.picture, &map, number, class));
            words.push(format!("{} {cosine:.2}", bank.train.path(picture)));
        }
        let caption =
            format!("Its largest segment, named {}; nearest: {}", names[usize::from(class)], words.join(", "));
        items.push(item(&beside(&row), caption)?);
    }
    Ok(Gallery {
        title: "Retrieved segments".into(),
        caption: "Test pictures from left to right: the picture, its segments (in any colours), the classes they were named, \
                  the truth. Below: a segment and the nearest ones of train; the numbers are cosines."
            .into(),
        items,
    })
}
