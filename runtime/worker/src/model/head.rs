//! The projection head, `fc.*`.

use tch::Tensor;

use crate::error::Result;
use crate::model::layers::{Linear, init_linear};
use crate::model::store::Store;

/// One linear layer, or two with a ReLU between (MoCo v2); no batch norm.
#[derive(Debug)]
pub struct Head {
    layers: Vec<Linear>,
}

impl Head {
    /// Adds a head from `features` to `dim` numbers: `fc.0`, `fc.2` with `mlp`, else `fc`.
    pub fn init(store: &mut Store, seed: u64, features: i64, dim: i64, mlp: bool) {
        if mlp {
            init_linear(store, seed, "fc.0", features, features);
            init_linear(store, seed, "fc.2", dim, features);
        } else {
            init_linear(store, seed, "fc", dim, features);
        }
    }

    /// Binds the head of a store.
    ///
    /// # Errors
    /// It has none.
    pub fn bind(store: &Store) -> Result<Self> {
        let layers = if store.tensors().contains_key("fc.0.weight") {
            vec![Linear::bind(store, "fc.0")?, Linear::bind(store, "fc.2")?]
        } else {
            vec![Linear::bind(store, "fc")?]
        };
        Ok(Self { layers })
    }

    /// x: [n, features] to [n, dim].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.layers[0].forward(x);
        for layer in &self.layers[1..] {
            x = layer.forward(&x.relu());
        }
        x
    }
}
