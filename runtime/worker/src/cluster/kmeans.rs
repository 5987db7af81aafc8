//! K-means: Lloyd's iterations from k-means++ seeds, deterministic on one thread whatever else runs.

use harness_views::Stream;

/// How points are clustered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Clusters; more than there are points means one each.
    pub clusters: usize,
    /// Iterations of one start, at most.
    pub iterations: usize,
    /// Starts; the one with the least inertia counts, the first of several.
    pub restarts: usize,
}

/// Points in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// Number of the cluster of each point.
    pub labels: Vec<usize>,
    /// The centres, one after the other.
    pub centres: Vec<f32>,
    /// Sum of squared distances of points to their centres.
    pub inertia: f64,
}

/// Partial sums that are added up side by side: the compiler makes vector instructions of them, and the order of
/// additions is the same on every machine.
const LANES: usize = 16;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Points of `dim` numbers each, one after the other.
#[derive(Clone, Copy)]
struct Points<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Points<'a> {
    fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    fn at(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.dim.max(1))
    }
}

/// k-means++ (Arthur and Vassilvitskii 2007), greedy: of 2 + ⌊ln k⌋ candidates for a centre, drawn by their squared distance
/// to the nearest centre so far, the one that leaves the least inertia is taken.
fn seeds(points: Points, clusters: usize, stream: &mut Stream) -> Vec<f32> {
    let count = points.len();
    let candidates = 2 + (clusters as f64).ln() as usize;
    let first = stream.below(count as u64) as usize;
    let mut centres = points.at(first).to_vec();
    let mut nearest: Vec<f64> = points.iter().map(|point| squared_distance(point, points.at(first))).collect();
    for _ in 1..clusters {
        let total: f64 = nearest.iter().sum();
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for _ in 0..candidates {
            let mut left = stream.unit() * total;
            let drawn = nearest.iter().position(|distance| {
                left -= distance;
                left < 0.0
            });
            // Rounding may leave a little behind the last one; and where all points are centres, any will do.
            let drawn = drawn.unwrap_or(count - 1);
            let now: Vec<f64> = points
                .iter()
                .zip(&nearest)
                .map(|(point, &distance)| squared_distance(point, points.at(drawn)).min(distance))
                .collect();
            let inertia: f64 = now.iter().sum();
            if best.as_ref().is_none_or(|(least, ..)| inertia < *least) {
                best = Some((inertia, drawn, now));
            }
        }
        if let Some((_, drawn, now)) = best {
            centres.extend_from_slice(points.at(drawn));
            nearest = now;
        }
    }
    centres
}

/// The nearest centre of each point, the lowest of several: largest x·c − ½|c|².
fn nearest(points: Points, centres: &[f32]) -> Vec<usize> {
    let halves: Vec<f32> = centres.chunks_exact(points.dim).map(|centre| dot(centre, centre) / 2.0).collect();
    let closest = |point: &[f32]| {
        let scores = centres.chunks_exact(points.dim).zip(&halves).map(|(centre, half)| dot(point, centre) - half);
        let best = scores.enumerate().fold(
            (0, f32::NEG_INFINITY),
            |best, (index, score)| {
                if score > best.1 { (index, score) } else { best }
            },
        );
        best.0
    };
    points.iter().map(closest).collect()
}

/// The mean of each cluster's points. A cluster that lost all of its points takes the point that is farthest from its own
/// centre, which is taken from its cluster (scikit-learn's rule).
fn means(points: Points, labels: &mut [usize], centres: &mut [f32]) {
    let (dim, clusters) = (points.dim, centres.len() / points.dim);
    let mut counts = vec![0usize; clusters];
    labels.iter().for_each(|&label| counts[label] += 1);
    let empty: Vec<usize> = (0..clusters).filter(|&cluster| counts[cluster] == 0).collect();
    if !empty.is_empty() {
        let mut far: Vec<(f64, usize)> = points
            .iter()
            .enumerate()
            .map(|(index, point)| (squared_distance(point, &centres[labels[index] * dim..][..dim]), index))
            .collect();
        far.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (cluster, (_, index)) in empty.into_iter().zip(far) {
            counts[labels[index]] -= 1;
            counts[cluster] = 1;
            labels[index] = cluster;
        }
    }
    let mut sums = vec![0.0f64; centres.len()];
    for (point, &label) in points.iter().zip(labels.iter()) {
        sums[label * dim..(label + 1) * dim].iter_mut().zip(point).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    for (cluster, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let range = cluster * dim..(cluster + 1) * dim;
        centres[range.clone()].iter_mut().zip(&sums[range]).for_each(|(c, sum)| *c = (sum / count as f64) as f32);
    }
}

/// Lloyd's iterations from given centres until no point changes its cluster, at most `iterations`. `points` are rows of `dim`
/// numbers, `centres` too.
pub fn lloyd(points: &[f32], dim: usize, mut centres: Vec<f32>, iterations: usize) -> Clustering {
    let points = Points { values: points, dim };
    let mut labels = nearest(points, &centres);
    for _ in 0..iterations {
        means(points, &mut labels, &mut centres);
        let next = nearest(points, &centres);
        let settled = next == labels;
        labels = next;
        if settled {
            break;
        }
    }
    let inertia =
        points.iter().zip(&labels).map(|(point, &label)| squared_distance(point, &centres[label * dim..][..dim]));
    let inertia = inertia.sum();
    Clustering { labels, centres, inertia }
}

/// Clusters rows of `dim` numbers. Random numbers come from the stream (seed, kind, purpose, `item`, restart).
///
/// # Panics
/// If there is no point, or `dim` is 0.
pub fn cluster(
    points: &[f32],
    dim: usize,
    settings: Settings,
    seed: u64,
    [kind, purpose]: [&str; 2],
    item: u64,
) -> Clustering {
    let rows = Points { values: points, dim };
    assert!(dim > 0 && rows.len() > 0, "there are points to cluster");
    let clusters = settings.clusters.clamp(1, rows.len());
    let mut best: Option<Clustering> = None;
    for restart in 0..settings.restarts.max(1) {
        let mut stream = Stream::new(seed, kind, purpose, item, restart as u64, 0);
        let centres = seeds(rows, clusters, &mut stream);
        let found = lloyd(points, dim, centres, settings.iterations);
        if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
            best = Some(found);
        }
    }
    best.unwrap_or_else(|| unreachable!("there is at least one start"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        points: usize,
        dim: usize,
        clusters: usize,
        iterations: usize,
        labels: Vec<usize>,
        inertia: f64,
    }

    /// The points of `golden/clustering.py`: sin(1.3 n²) and a shift by group, n from 1.
    fn points(count: usize, dim: usize) -> Vec<f32> {
        let value = |n: usize| {
            let (row, column) = (n / dim, n % dim);
            let noise = (1.3 * ((n + 1) as f64).powi(2) % std::f64::consts::TAU).sin();
            let group = if (row * 7 % 5) == column % 5 { 2.0 } else { 0.0 };
            (noise + group) as f32
        };
        (0..count * dim).map(value).collect()
    }

    /// Adjusted Rand index 1: the same groups, whatever they are called.
    fn same_groups(a: &[usize], b: &[usize]) -> bool {
        let pairs: std::collections::BTreeSet<(usize, usize)> = a.iter().copied().zip(b.iter().copied()).collect();
        let (left, right): (std::collections::BTreeSet<usize>, std::collections::BTreeSet<usize>) =
            pairs.iter().copied().unzip();
        pairs.len() == left.len() && pairs.len() == right.len()
    }

    #[test]
    fn iterations_equal_scikit_learns_from_the_same_centres() {
        let golden: Vec<Golden> = serde_json::from_str(include_str!("golden/kmeans.json")).unwrap();
        for case in &golden {
            let points = points(case.points, case.dim);
            // The first points are the first centres.
            let centres = points[..case.clusters * case.dim].to_vec();
            let ours = lloyd(&points, case.dim, centres, case.iterations);
            let relative = (ours.inertia / case.inertia - 1.0).abs();
            assert!(relative < 1e-5, "{} points: inertia {} and {}", case.points, ours.inertia, case.inertia);
            assert!(same_groups(&ours.labels, &case.labels), "{} points", case.points);
        }
        assert_eq!(golden.len(), 3);
    }

    #[test]
    fn groups_far_apart_are_found_from_any_seed() {
        let truth: Vec<usize> = (0..60).map(|n| n % 4).collect();
        let points: Vec<f32> =
            truth.iter().enumerate().flat_map(|(n, &group)| [10.0 * group as f32, (n % 3) as f32]).collect();
        let settings = Settings { clusters: 4, iterations: 100, restarts: 3 };
        for seed in 0..10 {
            let found = cluster(&points, 2, settings, seed, ["test", "points"], 0);
            assert!(same_groups(&found.labels, &truth), "seed {seed}");
            assert_eq!(found, cluster(&points, 2, settings, seed, ["test", "points"], 0));
        }
        let one = cluster(&points, 2, Settings { restarts: 1, iterations: 2, ..settings }, 0, ["test", "points"], 1);
        let many = cluster(&points, 2, Settings { restarts: 20, iterations: 2, ..settings }, 0, ["test", "points"], 1);
        assert!(many.inertia <= one.inertia);
    }

    #[test]
    fn more_clusters_than_points_and_equal_points_are_no_trouble() {
        let settings = Settings { clusters: 5, iterations: 10, restarts: 2 };
        let three = cluster(&[0.0, 1.0, 2.0], 1, settings, 0, ["test", "points"], 0);
        assert_eq!((three.inertia, three.centres.len()), (0.0, 3));
        let equal = cluster(&[1.0; 8], 1, settings, 0, ["test", "points"], 0);
        assert_eq!((equal.inertia, equal.labels.len()), (0.0, 8));
    }

    /// Both centres at the same place: one is left without points and takes the farthest.
    #[test]
    fn an_empty_cluster_takes_the_farthest_point() {
        let found = lloyd(&[0.0, 1.0, 9.0], 1, vec![0.0, 0.0], 10);
        assert_eq!(found.labels, [0, 0, 1]);
        assert_eq!(found.centres, [0.5, 9.0]);
    }
}
