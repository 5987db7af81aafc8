//! The two encoders of MoCo (He et al. 2020) and the queue of keys.

use std::sync::Arc;

use harness_protocol::StepKind;
use harness_protocol::model::Architecture;
use harness_protocol::optimise::Precision;
use harness_protocol::steps::pretrain::{Enqueue, Moco as Settings, Pretrain};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::Result;
use crate::features::normalised;
use crate::group::{Gradients, Group};
use crate::loss::{info_nce, nearest, neighbours};
use crate::model::head::Head;
use crate::model::resnet::{MOMENTUM, Resnet, group_momenta};
use crate::model::store::Store;
use crate::optim::Sgd;
use crate::seed;
use crate::shim::{self, Autocast};

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
    /// Arithmetic of its passes; what comes out is in the weights' kind again.
    pub precision: Precision,
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
        Ok(Self { store, precision: Precision::Fp32, resnet, head })
    }

    /// The averaged map and the head's output, [n, features] and [n, outputs], neither of length 1. Batch norm is in training
    /// mode and has as many groups as there are `momenta`, each moving the running statistics by its own. x: [n, 3, h, w].
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor, momenta: &[f64]) -> Result<(Tensor, Tensor)> {
        if self.precision != Precision::Bf16 {
            let features = self.resnet.forward_groups(x, momenta);
            let output = self.head.forward(&features);
            return Ok((features, output));
        }
        let _on = Autocast::bf16(x.device())?;
        let features = self.resnet.forward_groups(x, momenta);
        let output = self.head.forward(&features);
        Ok((features.to_kind(Kind::Float), output.to_kind(Kind::Float)))
    }

    /// Features and embeddings of a training pass, rows of length 1. x: [n, 3, h, w].
    ///
    /// # Errors
    /// libtorch's.
    pub fn embed(&self, x: &Tensor, momenta: &[f64]) -> Result<Embedded> {
        let (features, output) = self.forward(x, momenta)?;
        Ok(Embedded { features: normalised(&features.detach()), embedding: normalised(&output) })
    }

    /// Counts one more training batch of batch norm.
    pub fn count_batch(&self) {
        self.resnet.count_batch();
    }
}

/// Momenta of batch norm's running statistics in a step: [part of the batch][pass][group of that part]. However the batch is
/// cut, the passes count as if each had gone through whole, one after the other.
pub fn schedule(passes: usize, groups: usize, parts: usize) -> Vec<Vec<Vec<f64>>> {
    let each = groups / parts;
    let weight = |pass: usize| MOMENTUM / groups as f64 * (1.0 - MOMENTUM).powi((passes - 1 - pass) as i32);
    let weights: Vec<f64> = (0..parts).flat_map(|_| (0..passes).flat_map(|pass| vec![weight(pass); each])).collect();
    let momenta = group_momenta(&weights);
    momenta.chunks(passes * each).map(|part| part.chunks(each).map(<[f64]>::to_vec).collect()).collect()
}

/// Rows of the `part`-th of `parts` equal parts.
pub fn rows_of(x: &Tensor, part: usize, parts: usize) -> Tensor {
    let rows = x.size()[0] / parts as i64;
    x.narrow(0, part as i64 * rows, rows)
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
    groups: usize,
    parts: usize,
    gradients: Gradients,
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
        let random = |name: &str, width| {
            normalised(&seed::normal(seed, Pretrain::KIND, name, &[rows, width], 1.0)).to_device(device)
        };
        let features = settings.neighbours.map(|_| random("queue of features", architecture.features()));
        let store = store.to_device(device).channels_last();
        Self::with(architecture, settings, groups, store, random("queue", dim), features)
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
        let groups = groups as usize;
        let gradients = Gradients::default();
        Ok(Self { query, key, queue, features, pointer: 0, settings: *settings, groups, parts: 1, gradients })
    }

    /// As one of several ranks, each of which is given its rows of every batch and has its share of the groups of batch norm,
    /// whose number is a multiple of that of the ranks.
    #[must_use]
    pub fn among(mut self, group: Option<Arc<Group>>) -> Self {
        self.groups /= group.as_ref().map_or(1, |group| group.size());
        self.gradients = Gradients::new(group);
        self
    }

    /// Arithmetic of both encoders' passes, fp32 unless told otherwise.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        (self.query.precision, self.key.precision) = (precision, precision);
        self
    }

    /// Works through a batch in this many parts, a divisor of the groups of batch norm.
    #[must_use]
    pub fn parts(mut self, parts: u64) -> Self {
        self.parts = parts as usize;
        self
    }

    /// One step. The key encoder follows the query encoder's weights of this step, keys are made of all pictures at once, and
    /// the loss is taken against the old queue; then gradients, part by part of the batch, the queue's turn and the weights'
    /// step along `sgd`. (MoCo's own order, queries first, gives the same: neither encoder's pass depends on the other's.)
    ///
    /// Of several ranks each is given its own rows; keys are shuffled among all, and the queues are the same on all.
    ///
    /// The loss, nats; if it is not finite, nothing was learned.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub fn learn(&mut self, sample: &Sample, sgd: &mut Sgd, turn: Turn) -> Result<f64> {
        let symmetric = self.settings.symmetric;
        self.follow(self.settings.momentum)?;
        let all_keys = self.keys(&sample.key, turn.shuffles[0])?;
        let all_back_keys = if symmetric { Some(self.keys(&sample.query, turn.shuffles[1])?) } else { None };
        let fresh = match &all_back_keys {
            Some(back) => Embedded::cat(&[back, &all_keys]),
            None => Embedded::cat(&[&all_keys]),
        };
        let keys = self.mine(&all_keys);
        let back_keys = all_back_keys.as_ref().map(|keys| self.mine(keys));
        let pool = match (&self.settings.neighbours, &self.features) {
            (Some(settings), Some(features)) if turn.neighbours => Some(match settings.enqueue {
                Enqueue::Last => features.shallow_clone(),
                // As first published: the features' queue has the new keys already, the logits' queue has not.
                Enqueue::First => {
                    let features = features.copy();
                    overwrite(&features, self.pointer, &fresh.features);
                    features
                }
            }),
            _ => None,
        };

        let parts = self.parts;
        let passes = 1 + usize::from(sample.small.is_some()) + usize::from(symmetric);
        let momenta = schedule(passes, self.groups, parts);
        let mut gradients = std::mem::take(&mut self.gradients);
        let weights: Vec<&Tensor> = sgd.tensors().collect();
        let made = gradients.of(&weights, parts, |part| {
            self.loss(sample, &keys, back_keys.as_ref(), pool.as_ref(), part, &momenta[part])
        });
        self.gradients = gradients;
        let (gradients, value) = made?;
        (0..passes).for_each(|_| self.query.count_batch());
        if value.is_finite() {
            self.enqueue(&fresh);
            sgd.step_fused(gradients, turn.lr)?;
        }
        Ok(value)
    }

    /// The loss of one part of the batch. `momenta`: for each pass.
    fn loss(
        &self,
        sample: &Sample,
        keys: &Embedded,
        back_keys: Option<&Embedded>,
        pool: Option<&Tensor>,
        part: usize,
        momenta: &[Vec<f64>],
    ) -> Result<Tensor> {
        let rows = |x: &Tensor| rows_of(x, part, self.parts);
        let temperature = self.settings.temperature;
        let large = self.query.embed(&rows(&sample.query), &momenta[0])?;
        let positive = rows(&keys.embedding);
        let (queries, positives) = match &sample.small {
            Some(small) => {
                // Small crops go through on their own, so that their batch norm statistics are their own.
                let small = self.query.embed(&rows(small), &momenta[1])?;
                let times = small.embedding.size()[0] / positive.size()[0];
                let repeated = positive.repeat_interleave_self_int(times, Some(0), None);
                (Embedded::cat(&[&large, &small]), Tensor::cat(&[&positive, &repeated], 0))
            }
            None => (large, positive),
        };
        let mut loss = info_nce(&queries.embedding, &positives, &self.queue, temperature);
        if let Some(back_keys) = back_keys {
            let back = self.query.embed(&rows(&sample.key), &momenta[1])?;
            loss += info_nce(&back.embedding, &rows(&back_keys.embedding), &self.queue, temperature);
        }
        if let (Some(pool), Some(settings)) = (pool, &self.settings.neighbours) {
            let found = nearest(&queries.features, pool, settings.k);
            loss += neighbours(&queries.embedding, &self.queue, &found, temperature) * settings.weight;
        }
        Ok(loss)
    }

    /// key ← m·key + (1 − m)·query, weights only.
    ///
    /// # Errors
    /// libtorch's.
    pub fn follow(&self, momentum: f64) -> Result<()> {
        let tensors = |tower: &Tower| -> Vec<Tensor> {
            tower.store.parameters().into_iter().map(|(_, tensor)| tensor.detach()).collect()
        };
        shim::follow(&tensors(&self.key), &tensors(&self.query), momentum)
    }

    /// This rank's rows of what all have.
    fn mine(&self, all: &Embedded) -> Embedded {
        let (rank, ranks) = self.gradients.group().map_or((0, 1), |group| (group.rank(), group.size()));
        Embedded { features: rows_of(&all.features, rank, ranks), embedding: rows_of(&all.embedding, rank, ranks) }
    }

    /// Embeddings of the key crops of all ranks, without gradients. With several groups of batch norm the pictures are
    /// shuffled among them by `order` and the embeddings put back, so that statistics do not tell which key belongs to which
    /// query. x: this rank's crops.
    fn keys(&self, x: &Tensor, order: &[i64]) -> Result<Embedded> {
        let momenta = &schedule(1, self.groups, 1)[0][0];
        no_grad(|| {
            let ranks = self.gradients.ranks();
            let made = if self.groups * ranks == 1 {
                self.key.embed(x, momenta)?
            } else {
                let order = Tensor::from_slice(order).to_device(x.device());
                // Selecting where channels come last keeps them there in memory, which convolutions are faster with.
                let mut rows = x.permute([0, 2, 3, 1]);
                let mut taken = order.shallow_clone();
                if let Some(group) = self.gradients.group() {
                    rows = group.gather(&rows)?;
                    taken = rows_of(&order, group.rank(), ranks);
                }
                let rows = rows.index_select(0, &taken).permute([0, 3, 1, 2]);
                let Embedded { mut features, mut embedding } = self.key.embed(&rows, momenta)?;
                if let Some(group) = self.gradients.group() {
                    (features, embedding) = (group.gather(&features)?, group.gather(&embedding)?);
                }
                Embedded { features: unshuffled(&features, &order), embedding: unshuffled(&embedding, &order) }
            };
            self.key.count_batch();
            Ok(made)
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
    use crate::group::tests::together;
    use harness_protocol::model::{Resnet as Config, Stem};

    fn tiny(queue: u64) -> Moco {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let settings = Settings { dim: 4, queue, mlp: true, ..Settings::default() };
        Moco::new(&architecture, &settings, 1, 1, Device::Cpu).unwrap()
    }

    #[test]
    fn unshuffling_undoes_shuffling() {
        let x = seed::normal(0, "test", "x", &[10, 3], 1.0);
        let order: Vec<i64> = seed::permutation(4, "test", "p", 0, 0, 10).into_iter().map(|i| i as i64).collect();
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
        moco.follow(1.0).unwrap();
        for (name, tensor) in before.tensors() {
            assert!(tensor.equal(&moco.key.store.get(name).unwrap()), "{name}");
        }
        moco.follow(0.75).unwrap();
        let name = "conv1.weight";
        let expected = before.get(name).unwrap() * 0.75 + moco.query.store.get(name).unwrap() * 0.25;
        assert!((expected - moco.key.store.get(name).unwrap()).abs().max().double_value(&[]) < 1e-7);
        moco.follow(0.0).unwrap();
        for (name, tensor) in moco.query.store.parameters() {
            assert!(tensor.equal(&moco.key.store.get(&name).unwrap()), "{name}");
        }
        for (name, tensor) in before.buffers() {
            assert!(tensor.equal(&moco.key.store.get(&name).unwrap()), "{name}");
        }
    }

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_kind(tch::Kind::Double), b.to_kind(tch::Kind::Double));
        ((&a - &b).abs().max() / b.abs().max().clamp_min(1e-3)).double_value(&[])
    }

    /// Three steps in float64 with four groups of batch norm on batches of 8, worked through in parts and, in a group, by
    /// several ranks; with the running statistics as they are looked at.
    fn learned(settings: &Settings, small: bool, parts: u64, group: Option<Arc<Group>>) -> (Moco, Vec<f64>) {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
        let kind = tch::Kind::Double;
        let made = Moco::new(&architecture, settings, 4, 1, Device::Cpu).unwrap();
        let (queue, features) = (made.queue.to_kind(kind), made.features.map(|f| f.to_kind(kind)));
        let mut store = Store::default();
        for (name, tensor) in made.query.store.tensors() {
            let kind = if tensor.is_floating_point() { kind } else { tensor.kind() };
            store.insert(name, tensor.detach().to_kind(kind));
        }
        let moco = Moco::with(&architecture, settings, 4, store, queue, features).unwrap();
        let mut moco = moco.parts(parts).among(group.clone());
        let descent = harness_protocol::optimise::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-3 };
        let mut sgd = Sgd::new(moco.query.store.parameters(), &descent);
        let order: Vec<i64> = (0..8).map(|i| (3 * i + 1) % 8).collect();
        let (rank, ranks) = group.as_ref().map_or((0, 1), |group| (group.rank(), group.size()));
        let mut losses = Vec::new();
        for step in 0..3 {
            let draw = |name, rows, side| {
                rows_of(&seed::normal(step, "test", name, &[rows, 3, side, side], 1.0).to_kind(kind), rank, ranks)
            };
            let small = small.then(|| draw("s", 16, 8));
            let sample = Sample { query: draw("q", 8, 12), key: draw("k", 8, 12), small };
            let turn = Turn { lr: 0.05, shuffles: [&order, &order], neighbours: true };
            losses.push(moco.learn(&sample, &mut sgd, turn).unwrap());
        }
        if let Some(group) = group {
            for tower in [&moco.query, &moco.key] {
                let running = tower.store.buffers().into_iter().filter(|(name, _)| name.contains(".running_"));
                group.average(&running.map(|(_, tensor)| tensor.detach()).collect::<Vec<_>>()).unwrap();
            }
        }
        (moco, losses)
    }

    fn assert_same(what: &str, (moco, losses): &(Moco, Vec<f64>), (whole, expected): &(Moco, Vec<f64>)) {
        assert!(losses.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{what}: {losses:?} {expected:?}");
        for (tower, other) in [(&moco.query, &whole.query), (&moco.key, &whole.key)] {
            for (name, tensor) in other.store.tensors() {
                let off = far(&tower.store.get(name).unwrap(), tensor);
                assert!(off < 1e-7, "{what}: {name}: {off}");
            }
        }
        assert!(far(&moco.queue, &whole.queue) < 1e-7, "{what}");
        assert_eq!(moco.pointer, whole.pointer);
        if let (Some(features), Some(others)) = (&moco.features, &whole.features) {
            assert!(far(features, others) < 1e-7, "{what}");
        }
    }

    /// Every pass that there is: small crops and neighbours, and the symmetric loss.
    fn cases() -> [(Settings, bool); 2] {
        let near = harness_protocol::steps::pretrain::Neighbours { k: 2, ..Default::default() };
        let base = Settings { dim: 4, queue: 32, momentum: 0.9, ..Settings::default() };
        [(Settings { neighbours: Some(near), ..base }, true), (Settings { symmetric: true, ..base }, false)]
    }

    #[test]
    fn parts_of_a_batch_are_the_batch() {
        for (settings, small) in cases() {
            assert_same("parts", &learned(&settings, small, 4, None), &learned(&settings, small, 1, None));
        }
    }

    /// N ranks with 1/N of the rows each are one process with as many groups of batch norm as all of them together.
    #[test]
    fn ranks_learn_what_one_process_learns() {
        for (settings, small) in cases() {
            let whole = learned(&settings, small, 1, None);
            for (ranks, parts) in [(2, 1), (2, 2), (4, 1)] {
                for made in together(ranks, |group| learned(&settings, small, parts, Some(group))) {
                    assert_same(&format!("{ranks} ranks, {parts} parts"), &made, &whole);
                }
            }
        }
    }

    #[test]
    fn bf16_is_near_fp32_and_keeps_fp32_weights() {
        let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.25 });
        let settings = Settings { dim: 16, queue: 16, ..Settings::default() };
        let run = |precision| {
            let mut moco = Moco::new(&architecture, &settings, 2, 1, Device::Cpu).unwrap().precision(precision);
            let settings = harness_protocol::optimise::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 1e-4 };
            let mut sgd = Sgd::new(moco.query.store.parameters(), &settings);
            let draw = |name| seed::normal(3, "test", name, &[8, 3, 16, 16], 1.0);
            let order: Vec<i64> = (0..8).rev().collect();
            let sample = Sample { query: draw("q"), key: draw("q") + draw("k") * 0.1, small: None };
            let turn = Turn { lr: 0.01, shuffles: [&order, &order], neighbours: false };
            let loss = moco.learn(&sample, &mut sgd, turn).unwrap();
            for (name, tensor) in moco.query.store.parameters() {
                assert_eq!(tensor.kind(), tch::Kind::Float, "{name}");
            }
            assert_eq!(moco.queue.kind(), tch::Kind::Float);
            loss
        };
        let (exact, rough) = (run(Precision::Fp32), run(Precision::Bf16));
        assert!(exact != rough && (exact - rough).abs() < 0.05 * exact.abs().max(1.0), "{exact} {rough}");
        assert_eq!(exact, run(Precision::Tf32), "the CPU has no TF32");
    }

    /// Keys that the queries have to find among others: a few steps of descent bring the loss near 0.
    #[test]
    fn gradients_lead_queries_to_their_keys() {
        let moco = tiny(4);
        let x = seed::normal(2, "test", "x", &[4, 3, 8, 8], 1.0);
        let keys = normalised(&seed::normal(3, "test", "keys", &[4, 4], 1.0));
        let settings = harness_protocol::optimise::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let mut sgd = Sgd::new(moco.query.store.parameters(), &settings);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = info_nce(&moco.query.embed(&x, &[0.1]).unwrap().embedding, &keys, &keys, 0.2);
            losses.push(loss.double_value(&[]));
            let weights: Vec<&Tensor> = sgd.tensors().collect();
            let gradients = Tensor::run_backward(&[&loss], &weights, false, false);
            sgd.step_along(gradients, 0.1);
        }
        // The positive is also in the queue, so no loss is below ln 2.
        assert!(losses[0] > 1.2 && losses[59] < 0.8 && losses[59] > 2f64.ln(), "{losses:?}");
    }
}
