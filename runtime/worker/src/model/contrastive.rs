//! The two encoders of MoCo (He et al. 2020) and the queue of keys.

use harness_protocol::model::Architecture;
use harness_protocol::steps::pretrain::Moco as Settings;
use tch::{Device, Tensor, no_grad};

use crate::error::Result;
use crate::features::normalised;
use crate::model::head::Head;
use crate::model::resnet::Resnet;
use crate::model::store::Store;
use crate::seed;

/// A ResNet with its head.
#[derive(Debug)]
pub struct Tower {
    /// All tensors.
    pub store: Store,
    resnet: Resnet,
    head: Head,
}

impl Tower {
    /// Binds the network of a store.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn bind(store: Store, architecture: &Architecture) -> Result<Self> {
        let (resnet, head) = (Resnet::bind(&store, architecture)?, Head::bind(&store)?);
        Ok(Self { store, resnet, head })
    }

    /// Embeddings of length 1, with batch norm in training mode and split in `groups`. x: [n, 3, h, w].
    pub fn embed(&self, x: &Tensor, groups: i64) -> Tensor {
        normalised(&self.head.forward(&self.resnet.forward_split(x, groups)))
    }
}

/// Query encoder, key encoder, queue.
#[derive(Debug)]
pub struct Moco {
    /// Learns by gradients.
    pub query: Tower,
    /// Follows the query encoder's weights; its batch norm statistics are its own.
    pub key: Tower,
    /// Keys of earlier batches, [keys, dim], rows of length 1.
    pub queue: Tensor,
    /// Row that the next key goes to.
    pub pointer: i64,
}

impl Moco {
    /// Untrained encoders, the key's weights a copy of the query's, and a queue of random directions.
    ///
    /// # Errors
    /// None that settings of the protocol's ranges give.
    pub fn new(architecture: &Architecture, settings: &Settings, seed: u64, device: Device) -> Result<Self> {
        let mut store = Store::default();
        Resnet::init(&mut store, seed, architecture);
        let dim = settings.dim as i64;
        Head::init(&mut store, seed, architecture.features(), dim, settings.mlp);
        let store = store.to_device(device);
        let key = Tower::bind(store.deep_copy(), architecture)?;
        store.train(true);
        let query = Tower::bind(store, architecture)?;
        let queue = normalised(&seed::normal(seed, "queue", &[settings.queue as i64, dim], 1.0)).to_device(device);
        Ok(Self { query, key, queue, pointer: 0 })
    }

    /// key ← m·key + (1 − m)·query, weights only.
    pub fn follow(&self, momentum: f64) {
        no_grad(|| {
            for ((_, mut key), (_, query)) in self.key.store.parameters().into_iter().zip(self.query.store.parameters())
            {
                let _ = key.g_mul_scalar_(momentum);
                let _ = key.g_add_(&(query * (1.0 - momentum)));
            }
        });
    }

    /// Embeddings of key crops, without gradients. With several groups of batch norm the pictures are shuffled among
    /// them by `order` and the embeddings put back, so that statistics do not tell which key belongs to which query.
    pub fn keys(&self, x: &Tensor, groups: i64, order: &[i64]) -> Tensor {
        no_grad(|| {
            if groups == 1 {
                return self.key.embed(x, 1);
            }
            let order = Tensor::from_slice(order).to_device(x.device());
            // Selecting where channels come last keeps them there in memory, which convolutions are faster with.
            let rows = x.permute([0, 2, 3, 1]).index_select(0, &order).permute([0, 3, 1, 2]);
            unshuffled(&self.key.embed(&rows, groups), &order)
        })
    }

    /// Writes the rows of `keys` over the oldest ones. The queue's length is a multiple of their number.
    pub fn enqueue(&mut self, keys: &Tensor) {
        let count = keys.size()[0];
        no_grad(|| self.queue.narrow(0, self.pointer, count).copy_(keys));
        self.pointer = (self.pointer + count) % self.queue.size()[0];
    }
}

/// Undoes `index_select(0, order)`.
fn unshuffled(x: &Tensor, order: &Tensor) -> Tensor {
    x.index_select(0, &order.argsort(0, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_protocol::model::{Resnet as Config, Stem};

    fn tiny(queue: u64) -> Moco {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let settings = Settings { dim: 4, queue, mlp: true, ..Settings::default() };
        Moco::new(&architecture, &settings, 1, Device::Cpu).unwrap()
    }

    #[test]
    fn unshuffling_undoes_shuffling() {
        let x = seed::normal(0, "x", &[10, 3], 1.0);
        let order: Vec<i64> = seed::permutation(4, "p", 0, 0, 10).into_iter().map(|i| i as i64).collect();
        let order = Tensor::from_slice(&order);
        let shuffled = x.index_select(0, &order);
        assert!(!shuffled.equal(&x));
        assert!(unshuffled(&shuffled, &order).equal(&x));
    }

    #[test]
    fn the_queue_is_overwritten_in_order_and_wraps() {
        let mut moco = tiny(6);
        let rows = |value: f64| Tensor::full([2, 4], value, (tch::Kind::Float, Device::Cpu));
        let old = moco.queue.copy();
        assert!((old.norm_scalaropt_dim(2, [1i64].as_slice(), false) - 1.0).abs().max().double_value(&[]) < 1e-6);
        for value in 1..=4 {
            moco.enqueue(&rows(f64::from(value)));
        }
        let first: Vec<f64> = (0..6).map(|row| moco.queue.double_value(&[row, 0])).collect();
        assert_eq!(first, [4.0, 4.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(moco.pointer, 2);
    }

    #[test]
    fn the_key_encoder_follows_weights_alone() {
        let moco = tiny(2);
        no_grad(|| {
            for (_, mut tensor) in moco.query.store.parameters() {
                let _ = tensor.g_add_scalar_(1.0);
            }
            for (name, mut tensor) in moco.query.store.buffers() {
                if name.ends_with("running_mean") {
                    let _ = tensor.fill_(5.0);
                }
            }
        });
        let before = moco.key.store.deep_copy();
        moco.follow(1.0);
        for (name, tensor) in before.tensors() {
            assert!(tensor.equal(&moco.key.store.get(name).unwrap()), "{name}");
        }
        moco.follow(0.75);
        let name = "conv1.weight";
        let expected = before.get(name).unwrap() * 0.75 + moco.query.store.get(name).unwrap() * 0.25;
        assert!((expected - moco.key.store.get(name).unwrap()).abs().max().double_value(&[]) < 1e-7);
        moco.follow(0.0);
        for (name, tensor) in moco.query.store.parameters() {
            assert!(tensor.equal(&moco.key.store.get(&name).unwrap()), "{name}");
        }
        for (name, tensor) in before.buffers() {
            assert!(tensor.equal(&moco.key.store.get(&name).unwrap()), "{name}");
        }
    }

    /// Keys that the queries have to find among others: a few steps of descent bring the loss near 0.
    #[test]
    fn gradients_lead_queries_to_their_keys() {
        let moco = tiny(4);
        let x = seed::normal(2, "x", &[4, 3, 8, 8], 1.0);
        let keys = normalised(&seed::normal(3, "keys", &[4, 4], 1.0));
        let settings = harness_protocol::optimise::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let mut sgd = crate::optim::Sgd::new(moco.query.store.parameters(), &settings);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = crate::loss::info_nce(&moco.query.embed(&x, 1), &keys, &keys, 0.2);
            losses.push(loss.double_value(&[]));
            let weights: Vec<&Tensor> = sgd.tensors().collect();
            let gradients = Tensor::run_backward(&[&loss], &weights, false, false);
            sgd.step_along(gradients, 0.1);
        }
        // The positive is also in the queue, so no loss is below ln 2.
        assert!(losses[0] > 1.2 && losses[59] < 0.8 && losses[59] > 2f64.ln(), "{losses:?}");
    }
}
