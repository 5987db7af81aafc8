//! What passes cost, counted from shapes: multiply-adds of convolutions and linear layers. Batch norm, activations, pooling
//! and the optimiser are left out, as counters for other frameworks do.

use harness_protocol::model::Architecture;
use harness_protocol::steps::pretrain::Moco;

use crate::model::resnet::spatial;

/// Multiply-adds of a forward pass of one picture of `side` × `side` through the backbone.
pub fn forward(architecture: &Architecture, side: i64) -> u64 {
    spatial(architecture, side).iter().map(multiply_adds).sum()
}

/// A convolution's multiply-adds, from its output, input and kernel and the side of what it gives.
fn multiply_adds(&(output, input, kernel, side): &(i64, i64, i64, i64)) -> u64 {
    (output * input * kernel * kernel * side * side) as u64
}

/// Multiply-adds of a forward and backward pass: as many again for the gradients of the inputs, which the picture needs
/// none of, and of the weights.
pub fn training(architecture: &Architecture, side: i64) -> u64 {
    let first = spatial(architecture, side).first().map_or(0, multiply_adds);
    3 * forward(architecture, side) - first
}

/// The views of a picture: sides of the large and of the small ones, and how many of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Side of a large view.
    pub large: i64,
    /// Side of a small view.
    pub small: i64,
    /// Small views.
    pub count: i64,
}

/// Floating-point operations (two for each multiply-add) of MoCo for one picture: query and key passes with their heads, and
/// the products with the queues; `neighbours` once their warm-up is over.
pub fn moco(architecture: &Architecture, settings: &Moco, sides: Sides, neighbours: bool) -> u64 {
    let (features, dim, rows) = (architecture.features() as u64, settings.dim, settings.queue);
    let head = features * dim + if settings.mlp { features * features } else { 0 };
    let turns = if settings.symmetric { 2 } else { 1 };
    let queries = turns + sides.count as u64;
    let large = training(architecture, sides.large) + 3 * head;
    let small = if sides.count > 0 { training(architecture, sides.small) + 3 * head } else { 0 };
    let keys = turns * (forward(architecture, sides.large) + head);
    // Forward, and the gradient of the queries; the queue has none.
    let mut products = 2 * queries * dim * rows;
    if neighbours {
        products += queries * features * rows + 2 * queries * dim * rows;
    }
    2 * (turns * large + sides.count as u64 * small + keys + products)
}

/// Floating-point operations of learning from labels for one picture.
pub fn supervised(architecture: &Architecture, classes: u64, side: i64) -> u64 {
    2 * (training(architecture, side) + 3 * architecture.features() as u64 * classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::model::{Resnet, Stem};

    /// Counts of torchvision's networks at 224 × 224 with their 1,000 classes, from hooks on every convolution and linear layer.
    #[test]
    fn forward_passes_are_torchvisions() {
        for (architecture, expected) in [
            (Architecture::Resnet18(Resnet::default()), 1_814_073_344),
            (Architecture::Resnet34(Resnet::default()), 3_663_761_408),
            (Architecture::Resnet50(Resnet::default()), 4_089_184_256),
        ] {
            assert_eq!(forward(&architecture, 224) + architecture.features() as u64 * 1000, expected);
        }
    }

    /// A ResNet-18 of 4 channels with the small stem on 8 × 8, layer by layer.
    #[test]
    fn small_networks_by_hand() {
        let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.0625 });
        let stem = 4 * 3 * 9 * 64;
        let one = 4 * (4 * 4 * 9 * 64);
        let two = (8 * 4 * 9 + 3 * 8 * 8 * 9 + 8 * 4) * 16;
        let three = (16 * 8 * 9 + 3 * 16 * 16 * 9 + 16 * 8) * 4;
        let four = 32 * 16 * 9 + 3 * 32 * 32 * 9 + 32 * 16;
        let all = (stem + one + two + three + four) as u64;
        assert_eq!(forward(&architecture, 8), all);
        assert_eq!(training(&architecture, 8), 3 * all - stem as u64);

        let settings = Moco { dim: 8, queue: 16, mlp: false, ..Moco::default() };
        let sides = Sides { large: 8, small: 0, count: 0 };
        let head = 32 * 8;
        let query = 3 * all - stem as u64 + 3 * head;
        assert_eq!(moco(&architecture, &settings, sides, false), 2 * (query + all + head + 2 * 8 * 16));
        let symmetric = Moco { symmetric: true, ..settings };
        assert_eq!(moco(&architecture, &symmetric, sides, false), 2 * moco(&architecture, &settings, sides, false));
        // Four queries, a product with the features for each, and one more with the embeddings.
        let more = Sides { count: 3, small: 8, ..sides };
        let near = moco(&architecture, &settings, more, true) - moco(&architecture, &settings, more, false);
        assert_eq!(near, 2 * (4 * 32 * 16 + 2 * 4 * 8 * 16));
        assert_eq!(supervised(&architecture, 5, 8), 2 * (3 * all - stem as u64 + 3 * 32 * 5));
    }
}
