//! InfoNCE against a queue of negatives (van den Oord et al. 2018; He et al. 2020).

use tch::{Kind, Reduction, Tensor};

/// Mean over rows of −log softmax of the positive among positive and negatives, all divided by `temperature`; nats.
///
/// `queries`, `positives`: [n, dim], rows of length 1, row by row each other's match. `queue`: [keys, dim], rows of
/// length 1. The gradient flows through the queries alone when the others carry none.
pub fn info_nce(queries: &Tensor, positives: &Tensor, queue: &Tensor, temperature: f64) -> Tensor {
    let positive = (queries * positives).sum_dim_intlist([1i64].as_slice(), true, queries.kind());
    let negative = queries.matmul(&queue.transpose(0, 1));
    let logits = Tensor::cat(&[positive, negative], 1) / temperature;
    let target = Tensor::zeros([queries.size()[0]], (Kind::Int64, queries.device()));
    logits.cross_entropy_loss(&target, None::<&Tensor>, Reduction::Mean, -100, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::normalised;

    fn wave(f: impl Fn(f64) -> f64, rows: i64) -> Tensor {
        let values: Vec<f32> = (1..=rows * 3).map(|n| f(n as f64) as f32).collect();
        normalised(&Tensor::from_slice(&values).view([rows, 3]))
    }

    /// Golden value from two independent numpy implementations: H = sin n, queue = sin 0.7 n, positives = cos 0.5 n.
    #[test]
    fn golden_value() {
        let (h, queue, positive) = (wave(f64::sin, 2), wave(|n| (0.7 * n).sin(), 6), wave(|n| (0.5 * n).cos(), 2));
        let loss = info_nce(&h, &positive, &queue, 0.2).double_value(&[]);
        assert!((loss - 1.149913).abs() < 1e-5, "{loss}");
    }
}
