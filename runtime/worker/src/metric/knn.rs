//! The weighted nearest-neighbour classifier (Wu et al. 2018, InstDisc; the evaluation of DINO).

use tch::{Kind, Tensor};

use crate::error::Result;

/// Similarities that are held at a time.
const CHUNK: usize = 1 << 24;

/// What the classifier says of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Classes by falling score, equal ones by number; as many as are asked for and make sense.
    pub classes: Vec<i64>,
    /// The nearest of train with their cosine similarities, nearest first, equal ones by index; five at most.
    pub nearest: Vec<(usize, f32)>,
}

/// Classifies every row of `test` by the `k` rows of `train` with the largest cosine, each voting exp(cosine /
/// `temperature`) for its label. Rows have length 1, fp32, `train`: [n, d], `test`: [m, d]. More neighbours than there
/// are means all. `top` classes are given, fewer when there are fewer classes or neighbours.
///
/// # Errors
/// libtorch's.
pub fn classify(
    train: &Tensor,
    labels: &[i64],
    classes: usize,
    test: &Tensor,
    k: usize,
    temperature: f64,
    top: usize,
) -> Result<Vec<Vote>> {
    let count = labels.len();
    let k = k.min(count);
    let top = top.min(classes).min(k);
    let columns = train.f_transpose(0, 1)?;
    let mut votes = Vec::new();
    for part in test.f_split((CHUNK / count.max(1)).max(1) as i64, 0)? {
        let similar = part.f_matmul(&columns)?;
        // The k-th largest of each row; ties at it are settled by index below, which `topk` leaves open.
        let (values, _) = similar.f_topk(k as i64, 1, true, true)?;
        let last = Vec::<f32>::try_from(values.f_select(1, k as i64 - 1)?.to_kind(Kind::Float).contiguous())?;
        let mut flat = vec![0.0f32; last.len() * count];
        let size = flat.len();
        similar.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data(&mut flat, size)?;
        votes.extend(
            flat.chunks_exact(count).zip(last).map(|(row, last)| vote(row, last, labels, classes, k, temperature, top)),
        );
    }
    Ok(votes)
}

fn vote(row: &[f32], last: f32, labels: &[i64], classes: usize, k: usize, temperature: f64, top: usize) -> Vote {
    let mut chosen: Vec<(usize, f32)> = row.iter().copied().enumerate().filter(|&(_, s)| s > last).collect();
    let ties = row.iter().copied().enumerate().filter(|&(_, s)| s == last);
    let room = k.saturating_sub(chosen.len());
    chosen.extend(ties.take(room));
    chosen.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    // Relative to the nearest, so that no temperature overflows; the order of the scores is the same.
    let nearest = chosen.first().map_or(0.0, |&(_, s)| f64::from(s));
    let mut scores = vec![0.0f64; classes];
    for &(index, similarity) in &chosen {
        scores[labels[index] as usize] += ((f64::from(similarity) - nearest) / temperature).exp();
    }
    chosen.truncate(5);
    Vote { classes: ranked(&scores, top), nearest: chosen }
}

/// Numbers of the `top` highest scores, highest first, equal ones by number.
fn ranked(scores: &[f64], top: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.into_iter().take(top).map(|class| class as i64).collect()
}

/// Share of queries whose class is the first, and is among all given ones.
pub fn accuracy(votes: &[Vote], truth: &[i64]) -> (f64, f64) {
    let share = |hit: &dyn Fn(&Vote, i64) -> bool| {
        let hits = votes.iter().zip(truth).filter(|&(vote, &label)| hit(vote, label)).count();
        hits as f64 / truth.len().max(1) as f64
    };
    (share(&|vote, label| vote.classes.first() == Some(&label)), share(&|vote, label| vote.classes.contains(&label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(angles: &[f64]) -> Tensor {
        let values: Vec<f32> = angles.iter().flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        Tensor::from_slice(&values).view([angles.len() as i64, 2])
    }

    #[test]
    fn votes_are_weighted_by_similarity() {
        // One near neighbour of class 1, two farther ones of class 0: cosines 0.995, 0.878, 0.825.
        let (train, labels) = (rows(&[0.1, 0.5, 0.6, 3.0]), [1, 0, 0, 2]);
        let of = |k, t| classify(&train, &labels, 3, &rows(&[0.0]), k, t, 5).unwrap().remove(0);
        // exp(0.995/0.07) = 1.49e6 beats exp(0.878/0.07) + exp(0.825/0.07) = 4.1e5; at temperature 1 it does not.
        assert_eq!(of(3, 0.07).classes, [1, 0, 2]);
        assert_eq!(of(3, 1.0).classes, [0, 1, 2]);
        assert_eq!(of(1, 1.0).classes, [1]);
        let nearest: Vec<usize> = of(3, 0.07).nearest.iter().map(|n| n.0).collect();
        assert_eq!(nearest, [0, 1, 2]);
    }

    #[test]
    fn edges() {
        let (train, labels) = (rows(&[0.5, 0.5, 0.5, 0.5]), [2, 1, 1, 0]);
        let of = |k, classes| classify(&train, &labels, classes, &rows(&[0.0, 1.0]), k, 0.07, 5).unwrap();
        // More neighbours than there are: all.
        assert_eq!(of(100, 3)[1].classes, [1, 0, 2]);
        // Exact duplicates at the k-th place count in the order of train; a tie of scores goes to the lower class.
        assert_eq!(of(1, 3)[0].classes, [2]);
        assert_eq!(of(2, 3)[0].classes, [1, 2]);
        // A class without pictures in train is never first.
        assert_eq!(of(4, 4)[0].classes, [1, 0, 2, 3]);
        assert_eq!(accuracy(&of(4, 3), &[1, 0]), (0.5, 1.0));
    }

    #[test]
    fn tiny_temperatures_do_not_overflow() {
        let votes = classify(&rows(&[0.0, 0.2]), &[1, 0], 2, &rows(&[0.19]), 2, 1e-5, 5).unwrap();
        assert_eq!(votes[0].classes, [0, 1]);
    }
}
