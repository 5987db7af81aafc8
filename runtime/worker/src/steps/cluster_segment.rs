//! `cluster_segment`: segments clustered without labels, clusters matched to classes.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use harness_protocol::steps::{ClusterRegions, ClusterSegment as Params, Profile};
use harness_protocol::{Gallery, Outcome, Series, StepKind};
use harness_views::IndexMask;
use tch::Kind;

use crate::cluster::{Settings, assign, cluster, pca};
use crate::context::Context;
use crate::error::Result;
use crate::metric::iou::{Confusion, VOID};
use crate::model::Encoder;
use crate::provenance::provenance;
use crate::seed::permutation;
use crate::steps::overlay::{beside, fit, item, legend, matrix, overlay, spread};
use crate::steps::retrieve::warn_empty;
use crate::steps::segment::pairs::Pairs;
use crate::steps::segment::report;
use crate::steps::segments::{Cut, Masks, NONE, Segments, Task, segments};

/// Test pictures in the gallery.
const SHOWN: usize = 8;
/// Times that the clusters of each seed are dealt out to the segments by chance.
const DRAWS: u64 = 10;
/// Longest side of a picture in the gallery, pixels.
const LONGEST: usize = 180;

/// How often pixels of each segment have each class: what every clustering is scored from.
struct Overlaps {
    /// `of[segment][class]`.
    of: Vec<Vec<u64>>,
    /// Pixels outside all segments.
    outside: Vec<u64>,
}

impl Overlaps {
    /// Counts at the masks' own resolution, void left out.
    fn count(test: &Pairs, found: &Segments, classes: usize, profile: Profile) -> Result<Self> {
        let (mut of, mut outside) = (vec![vec![0; classes]; found.places.len()], vec![0; classes]);
        for (picture, segments) in found.of_pictures().into_iter().enumerate() {
            let pair = test.get(picture)?;
            let map = found.map(picture, pair.mask.width, pair.mask.height, profile);
            let mut number = [usize::MAX; 256];
            segments.iter().for_each(|&segment| number[usize::from(found.places[segment].1)] = segment);
            for (&place, &class) in map.data.iter().zip(&pair.mask.data).filter(|(_, class)| **class != VOID) {
                match of.get_mut(number[usize::from(place)]) {
                    Some(counts) => counts[usize::from(class)] += 1,
                    None => outside[usize::from(class)] += 1,
                }
            }
        }
        Ok(Self { of, outside })
    }

    /// `joint[cluster][class]`; with `outside` one cluster more in front, which has the pixels outside all segments.
    fn joint(&self, labels: &[usize], clusters: usize, outside: bool) -> Vec<Vec<u64>> {
        let mut joint = vec![vec![0; self.outside.len()]; clusters];
        for (counts, &label) in self.of.iter().zip(labels) {
            joint[label].iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        if outside {
            joint.insert(0, self.outside.clone());
        }
        joint
    }
}

/// Intersection over union of each cluster with each class, row by row.
fn overlap(joint: &[Vec<u64>], classes: usize) -> Vec<f64> {
    let class_total: Vec<u64> = (0..classes).map(|class| joint.iter().map(|row| row[class]).sum()).collect();
    let each = joint.iter().flat_map(|row| {
        let total: u64 = row.iter().sum();
        let class_total = &class_total;
        row.iter().enumerate().map(move |(class, &both)| {
            let union = total + class_total[class] - both;
            if union == 0 { 0.0 } else { both as f64 / union as f64 }
        })
    });
    each.collect()
}

/// The class of each cluster: one to one with the largest sum of IoU where there are as many clusters as classes, else the
/// one that each overlaps most, the lowest of several.
fn matched(joint: &[Vec<u64>], classes: usize) -> Vec<usize> {
    let ious = overlap(joint, classes);
    if joint.len() == classes {
        return assign(&ious, classes);
    }
    let best = |row: &[f64]| {
        row.iter()
            .enumerate()
            .fold((0, f64::NEG_INFINITY), |best, (class, &iou)| if iou > best.1 { (class, iou) } else { best })
            .0
    };
    ious.chunks(classes.max(1)).map(best).collect()
}

/// One clustering of all segments: cluster of each, class of each cluster, and its score.
struct Run {
    labels: Vec<usize>,
    classes: Vec<usize>,
    confusion: Confusion,
}

/// Runs the step.
///
/// # Errors
/// An encoder without a network, pairs or saliency masks that cannot be used, too few segments, cancelled.
pub fn run(context: &Context) -> Result<Outcome> {
    let params: Params = context.params()?;
    let test = context.images(params.test.digest())?;
    let encoder = Encoder::load(context.input_file(params.encoder.digest())?, context.device)?;
    let network = encoder.need_network("cluster_segment")?;
    let names = test.manifest.mask_classes.clone();
    let (classes, profile) = (names.len(), params.profile);
    let (cut, saliency) = match &params.regions {
        ClusterRegions::Kmeans(regions) => {
            let settings = Settings {
                clusters: regions.k as usize,
                iterations: regions.iterations as usize,
                restarts: regions.restarts as usize,
            };
            (Cut::Kmeans(settings), false)
        }
        ClusterRegions::Saliency(regions) => {
            (Cut::Saliency(Masks::new(context.images(regions.masks.digest())?, regions.least)), true)
        }
    };
    let test = Pairs::check(context, &test, "test", profile)?;
    test.warn(context, "test");
    let frequent = test.most_frequent().ok_or("every pixel of test is void, so there is nothing to score")?;
    let clusters = params.clusters.map_or(classes - usize::from(saliency), |clusters| clusters as usize);
    if clusters + usize::from(saliency) != classes {
        let text = format!(
            "{} clusters for {classes} classes cannot be matched one to one: each takes the class that it overlaps most",
            clusters + usize::from(saliency)
        );
        match clusters + usize::from(saliency) > classes {
            // Each cluster reads its name off the labels of test.
            true => context.warn(format!(
                "{text} on test, which flatters, the more the more clusters there are; `random_miou` does so as much"
            )),
            false => context.info(text),
        }
    }
    let start = Instant::now();
    let task = Task {
        pairs: &test,
        split: "test",
        cut: &cut,
        dilated: params.dilated,
        size: params.size as usize,
        profile,
        seed: params.seed,
        kind: Params::KIND,
    };
    let found = segments(context, network, &task)?;
    warn_empty(context, &test, &found, "test");
    let count = found.places.len();
    if count < clusters {
        return Err(
            format!("{count} segments cannot make {clusters} clusters; lower `clusters` or use more pictures").into()
        );
    }
    let rows = match params.components {
        0 => found.features.shallow_clone(),
        components => pca::whitened(&found.features, components as i64)?,
    };
    let dim = rows.size()[1] as usize;
    let rows = Vec::<f32>::try_from(rows.to_kind(Kind::Float).f_reshape([-1])?)?;
    let overlaps = Overlaps::count(&test, &found, classes, profile)?;
    let settings = Settings { clusters, iterations: params.iterations as usize, restarts: params.restarts as usize };
    let (mut runs, mut chance) = (Vec::new(), Vec::new());
    for (at, &seed) in params.seeds.iter().enumerate() {
        context.check_cancelled()?;
        let labels = cluster(&rows, dim, settings, seed, [Params::KIND, "segments"], 0).labels;
        let score = |labels: &[usize]| {
            let joint = overlaps.joint(labels, clusters, saliency);
            let matched = matched(&joint, classes);
            let mut confusion = Confusion::new(classes);
            for (row, &class) in joint.iter().zip(&matched) {
                row.iter().enumerate().for_each(|(truth, &pixels)| confusion.count(truth, class, pixels));
            }
            (matched, confusion)
        };
        for draw in 0..DRAWS {
            let order = permutation(seed, Params::KIND, "chance", 0, draw, labels.len());
            let drawn: Vec<usize> = order.into_iter().map(|at| labels[at]).collect();
            chance.push(score(&drawn).1.miou(profile));
        }
        let (matched, confusion) = score(&labels);
        runs.push(Run { labels, classes: matched, confusion });
        context.progress("clustering", at as u64 + 1, params.seeds.len() as u64, "seeds");
    }
    let seconds = start.elapsed().as_secs_f64();

    let scores: Vec<f64> = runs.iter().map(|run| run.confusion.miou(profile)).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let miou = mean(&scores);
    let squares: f64 = scores.iter().map(|score| (score - miou).powi(2)).sum();
    let accuracies: Vec<f64> = runs.iter().map(|run| run.confusion.pixel_accuracy()).collect();
    let first = runs.first().ok_or("`seeds` is empty")?;
    let positions = (1..=scores.len()).map(|at| at as f64).collect();
    let gallery = gallery(&test, &found, first, &names, profile, saliency)?;
    Ok(Outcome {
        outputs: BTreeMap::from([
            ("maps".into(), context.write_gallery("maps", &gallery)?),
            (
                "confusion".into(),
                context.write("confusion.json", "file", &report::json(&first.confusion, &names, profile)?)?,
            ),
        ]),
        metrics: BTreeMap::from([
            ("miou".into(), miou),
            ("miou_std".into(), if scores.len() > 1 { (squares / (scores.len() - 1) as f64).sqrt() } else { 0.0 }),
            ("random_miou".into(), mean(&chance)),
            ("floor_miou".into(), first.confusion.constant(frequent).miou(profile)),
            ("background_miou".into(), first.confusion.constant(0).miou(profile)),
            ("pixel_accuracy".into(), mean(&accuracies)),
            ("segments".into(), count as f64),
        ]),
        series: BTreeMap::from([
            ("seed_miou".into(), Series { x: positions, y: scores, x_label: "seed".into() }),
            ("class_iou".into(), report::class_curve(&first.confusion)),
        ]),
        provenance: provenance(context, test.len() as u64, seconds),
    })
}

fn gallery(
    test: &Pairs,
    found: &Segments,
    run: &Run,
    names: &[String],
    profile: Profile,
    saliency: bool,
) -> Result<Gallery> {
    let mut items = vec![
        item(&legend(names), "Colours of the classes; void is left as it is.".into())?,
        item(&matrix(run.confusion.rows(), names), report::matrix_caption(&run.confusion, names))?,
    ];
    let of_pictures = found.of_pictures();
    let ahead = usize::from(saliency);
    for index in spread(test.len(), SHOWN) {
        let pair = test.get(index)?;
        let map = found.map(index, pair.mask.width, pair.mask.height, profile);
        // With saliency the pixels outside are a cluster of their own; else there are none.
        let (mut cluster_of, mut class_of) = ([NONE; 256], [NONE; 256]);
        if saliency {
            (cluster_of[usize::from(NONE)], class_of[usize::from(NONE)]) = (0, run.classes[0] as u8);
        }
        for &segment in &of_pictures[index] {
            let (place, cluster) = (usize::from(found.places[segment].1), run.labels[segment] + ahead);
            (cluster_of[place], class_of[place]) = ((cluster % 255) as u8, run.classes[cluster] as u8);
        }
        let size = fit(map.width, map.height, LONGEST);
        let painted = |table: &[u8; 256]| {
            let data = map.data.iter().map(|&place| table[usize::from(place)]).collect();
            overlay(&pair.picture, &IndexMask { data, ..map.clone() }, size, |value| value != NONE)
        };
        let panels = [
            overlay(&pair.picture, &pair.mask, size, |_| false),
            painted(&cluster_of),
            painted(&class_of),
            overlay(&pair.picture, &pair.mask, size, |class| class != VOID),
        ];
        items.push(item(&beside(&panels), test.path(index).into())?);
    }
    Ok(Gallery {
        title: "Clusters".into(),
        caption: "Test pictures from left to right: the picture, its clusters (in any colours), the classes they were matched \
                  to, the truth."
            .into(),
        items,
    })
}
