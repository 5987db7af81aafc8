//! The two encoders of MoCo (He et al. 2020) and the queue of keys.

use harness_protocol::model::Architecture;
use harness_protocol::steps::pretrain::{Enqueue, Moco as Settings};
use tch::{Device, Tensor, no_grad};

use crate::error::Result;
use crate::features::normalised;
use crate::loss::{info_nce, nearest, neighbours};
use crate::model::head::Head;
use crate::model::resnet::Resnet;
use crate::model::store::Store;
use crate::optim::Sgd;
use crate::seed;

/// What a tower makes of pictures; rows of length 1.
#[derive(Debug)]
pub struct Embedded {
    /// The backbone's averaged map, g: [n, features].
    pub features: Tensor,
    /// The head's output, h: [n, dim].
    pub embedding: Tensor,
}

impl Embedded {
    fn cat(parts: &[&Self]) -> Self {
        let join = |of: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(|part| of(part)).collect::<Vec<_>>(), 0);
        Self { features: join(|part| &part.features), embedding: join(|part| &part.embedding) }
    }
}

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

    /// Features and embeddings, with batch norm in training mode and split in `groups`. x: [n, 3, h, w].
    pub fn embed(&self, x: &Tensor, groups: i64) -> Embedded {
        let features = self.resnet.forward_split(x, groups);
        let embedding = normalised(&self.head.forward(&features));
        Embedded { features: normalised(&features.detach()), embedding }
    }
}

/// Views of a step's n pictures, normalised: squares as [rows, 3, side, side].
#[derive(Debug)]
pub struct Sample {
    /// One large crop of each picture.
    pub query: Tensor,
    /// The other one.
    pub key: Tensor,
    /// Small crops: all of the first picture, then all of the second…; a multiple of n rows.
    pub small: Option<Tensor>,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Learning rate.
    pub lr: f64,
    /// Orders that keys are spread over the groups of batch norm in: that of the key crops and, for a symmetric loss,
    /// that of the query crops.
    pub shuffles: [&'a [i64]; 2],
    /// Whether the neighbours' loss counts: its warm-up is over.
    pub neighbours: bool,
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
    /// The same keys as the backbone sees them, row by row, [keys, features]; only where neighbours are looked for.
    pub features: Option<Tensor>,
    /// Row that the next key goes to.
    pub pointer: i64,
    settings: Settings,
    groups: i64,
}

impl Moco {
    /// Untrained encoders, the key's weights a copy of the query's, and queues of random directions. Batch norm has
    /// statistics of its own in each of `groups` parts of a batch.
    ///
    /// # Errors
    /// None that settings of the protocol's ranges give.
    pub fn new(
        architecture: &Architecture,
        settings: &Settings,
        groups: u64,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let mut store = Store::default();
        Resnet::init(&mut store, seed, architecture);
        let dim = settings.dim as i64;
        Head::init(&mut store, seed, architecture.features(), dim, settings.mlp);
        let rows = settings.queue as i64;
        let random = |name: &str, width| normalised(&seed::normal(seed, name, &[rows, width], 1.0)).to_device(device);
        let features = settings.neighbours.map(|_| random("queue of features", architecture.features()));
        Self::with(architecture, settings, groups, store.to_device(device), random("queue", dim), features)
    }

    /// From given tensors: the network's with its head, and the queues; both encoders start from the same.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn with(
        architecture: &Architecture,
        settings: &Settings,
        groups: u64,
        store: Store,
        queue: Tensor,
        features: Option<Tensor>,
    ) -> Result<Self> {
        let key = Tower::bind(store.deep_copy(), architecture)?;
        store.train(true);
        let query = Tower::bind(store, architecture)?;
        Ok(Self { query, key, queue, features, pointer: 0, settings: *settings, groups: groups as i64 })
    }

    /// One step in MoCo's order: queries, the key encoder's move, keys, the loss against the old queue; then gradients,
    /// the queue's turn and the weights' step along `sgd`. The loss, nats; if it is not finite, nothing was learned.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn learn(&mut self, sample: &Sample, sgd: &mut Sgd, turn: Turn) -> Result<f64> {
        let large = self.query.embed(&sample.query, self.groups);
        // Small crops go through on their own, so that their batch norm statistics are their own.
        let small = sample.small.as_ref().map(|small| self.query.embed(small, self.groups));
        let back = self.settings.symmetric.then(|| self.query.embed(&sample.key, self.groups));
        self.follow(self.settings.momentum);
        let keys = self.keys(&sample.key, turn.shuffles[0]);
        let back_keys = self.settings.symmetric.then(|| self.keys(&sample.query, turn.shuffles[1]));

        let (queries, positives) = match &small {
            Some(small) => {
                let times = small.embedding.size()[0] / keys.embedding.size()[0];
                let repeated = keys.embedding.repeat_interleave_self_int(times, Some(0), None);
                (Embedded::cat(&[&large, small]), Tensor::cat(&[&keys.embedding, &repeated], 0))
            }
            None => (large, keys.embedding.shallow_clone()),
        };
        let temperature = self.settings.temperature;
        let mut loss = info_nce(&queries.embedding, &positives, &self.queue, temperature);
        let mut fresh = keys;
        if let (Some(back), Some(back_keys)) = (back, back_keys) {
            loss += info_nce(&back.embedding, &back_keys.embedding, &self.queue, temperature);
            fresh = Embedded::cat(&[&back_keys, &fresh]);
        }
        let early = matches!(self.settings.neighbours, Some(n) if n.enqueue == Enqueue::First);
        if let (Some(settings), Some(features)) = (&self.settings.neighbours, &self.features)
            && turn.neighbours
        {
            let found = if early {
                // As first published: the features' queue has the new keys already, the logits' queue has not.
                let features = features.copy();
                overwrite(&features, self.pointer, &fresh.features);
                nearest(&queries.features, &features, settings.k)
            } else {
                nearest(&queries.features, features, settings.k)
            };
            loss += neighbours(&queries.embedding, &self.queue, &found, temperature) * settings.weight;
        }

        let value = loss.f_double_value(&[])?;
        if value.is_finite() {
            let weights: Vec<&Tensor> = sgd.tensors().collect();
            let gradients = Tensor::f_run_backward(&[&loss], &weights, false, false)?;
            self.enqueue(&fresh);
            sgd.step_along(gradients, turn.lr);
        }
        Ok(value)
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
    fn keys(&self, x: &Tensor, order: &[i64]) -> Embedded {
        no_grad(|| {
            if self.groups == 1 {
                return self.key.embed(x, 1);
            }
            let order = Tensor::from_slice(order).to_device(x.device());
            // Selecting where channels come last keeps them there in memory, which convolutions are faster with.
            let rows = x.permute([0, 2, 3, 1]).index_select(0, &order).permute([0, 3, 1, 2]);
            let Embedded { features, embedding } = self.key.embed(&rows, self.groups);
            Embedded { features: unshuffled(&features, &order), embedding: unshuffled(&embedding, &order) }
        })
    }

    /// Writes keys over the oldest ones. The queue's length is a multiple of their number.
    fn enqueue(&mut self, keys: &Embedded) {
        overwrite(&self.queue, self.pointer, &keys.embedding);
        if let Some(features) = &self.features {
            overwrite(features, self.pointer, &keys.features);
        }
        self.pointer = (self.pointer + keys.embedding.size()[0]) % self.queue.size()[0];
    }
}

fn overwrite(queue: &Tensor, pointer: i64, rows: &Tensor) {
    no_grad(|| queue.narrow(0, pointer, rows.size()[0]).copy_(rows));
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
        Moco::new(&architecture, &settings, 1, 1, Device::Cpu).unwrap()
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
        let rows = |value: f64| {
            let rows = Tensor::full([2, 4], value, (tch::Kind::Float, Device::Cpu));
            Embedded { features: rows.shallow_clone(), embedding: rows }
        };
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
        let mut sgd = Sgd::new(moco.query.store.parameters(), &settings);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = info_nce(&moco.query.embed(&x, 1).embedding, &keys, &keys, 0.2);
            losses.push(loss.double_value(&[]));
            let weights: Vec<&Tensor> = sgd.tensors().collect();
            let gradients = Tensor::run_backward(&[&loss], &weights, false, false);
            sgd.step_along(gradients, 0.1);
        }
        // The positive is also in the queue, so no loss is below ln 2.
        assert!(losses[0] > 1.2 && losses[59] < 0.8 && losses[59] > 2f64.ln(), "{losses:?}");
    }
}
