//! The auxiliary loss of the study: queries are also pulled to the nearest neighbours that the queue holds.

use tch::{Kind, Tensor, no_grad};

/// Rows of the `k` largest products with each of `features`, [n, width], among `queue`, [keys, width]: [n, k], largest
/// first. Both have rows of length 1. No gradient flows.
pub fn nearest(features: &Tensor, queue: &Tensor, k: u64) -> Tensor {
    no_grad(|| features.matmul(&queue.transpose(0, 1)).topk(k as i64, 1, true, true).1)
}

/// Mean over the queries and their `found` rows, [n, k], of −log softmax of the found among *all* rows of `queue`,
/// [keys, dim], divided by `temperature`; nats. A query's own key counts only where the queue holds it
/// (`queries`: [n, dim]; the study's section on nearest neighbours and its released `builder_ours`).
pub fn neighbours(queries: &Tensor, queue: &Tensor, found: &Tensor, temperature: f64) -> Tensor {
    let logits = queries.matmul(&queue.transpose(0, 1)) / temperature;
    -logits.log_softmax(1, None::<Kind>).gather(1, found, false).mean(None::<Kind>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::normalised;

    fn wave(f: impl Fn(f64) -> f64, rows: i64, width: i64) -> Tensor {
        let values: Vec<f32> = (1..=rows * width).map(|n| f(n as f64) as f32).collect();
        normalised(&Tensor::from_slice(&values).view([rows, width]))
    }

    /// Golden values of two independent implementations of the formula: the sets are {1, 2} and {0, 5}.
    #[test]
    fn golden_value() {
        let (h, g) = (wave(f64::sin, 2, 3), wave(f64::cos, 2, 4));
        let (queue, features) = (wave(|n| (0.7 * n).sin(), 6, 3), wave(|n| (0.3 * n).cos(), 6, 4));
        let found = nearest(&g, &features, 2);
        let mut sets = Vec::<Vec<i64>>::try_from(&found).unwrap();
        sets.iter_mut().for_each(|set| set.sort_unstable());
        assert_eq!(sets, [[1, 2], [0, 5]]);
        let loss = neighbours(&h, &queue, &found, 0.2).double_value(&[]);
        assert!((loss - 6.517997).abs() < 1e-5, "{loss}");
    }
}
