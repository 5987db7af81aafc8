//! Three optimiser steps beside PyTorch's, from the same weights and views: `golden/moco.py` made the values.

use std::collections::BTreeMap;

use harness_protocol::model::{Architecture, Resnet as Config, Stem};
use harness_protocol::optimise::{self, Cosine, Schedule};
use harness_protocol::steps::pretrain::{Enqueue, Moco as Settings, Neighbours};
use harness_worker::features::normalised;
use harness_worker::model::contrastive::{Moco, Sample, Turn};
use harness_worker::model::resnet::Resnet;
use harness_worker::model::{Head, Store};
use harness_worker::optim::Sgd;
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Sum, sum weighted by cosines, first value.
type Marks = BTreeMap<String, [f64; 3]>;

#[derive(Deserialize)]
struct Golden {
    losses: Vec<f64>,
    query: Marks,
    key: Marks,
    momentum: Marks,
    queues: Marks,
}

struct Case {
    name: &'static str,
    stem: Stem,
    groups: u64,
    small: i64,
    side: i64,
    settings: Settings,
}

const BATCH: i64 = 8;

fn cases() -> [Case; 5] {
    let settings =
        Settings { dim: 6, queue: 32, momentum: 0.9, temperature: 0.2, mlp: true, symmetric: false, neighbours: None };
    let near = |enqueue| Some(Neighbours { k: 3, weight: 0.4, warmup: 1, enqueue });
    [
        Case { name: "two crops", stem: Stem::Small, groups: 2, small: 0, side: 16, settings },
        Case {
            name: "symmetric, linear head",
            stem: Stem::Small,
            groups: 4,
            small: 0,
            side: 16,
            settings: Settings { symmetric: true, mlp: false, ..settings },
        },
        Case {
            name: "small crops and neighbours",
            stem: Stem::Small,
            groups: 2,
            small: 2,
            side: 16,
            settings: Settings { neighbours: near(Enqueue::Last), ..settings },
        },
        Case {
            name: "neighbours, published order",
            stem: Stem::Small,
            groups: 1,
            small: 0,
            side: 16,
            settings: Settings { neighbours: near(Enqueue::First), ..settings },
        },
        Case { name: "ImageNet stem", stem: Stem::Imagenet, groups: 2, small: 0, side: 64, settings },
    ]
}

/// scale · sin(step · n + phase), n from 1.
fn wave(shape: &[i64], step: f64, phase: f64, scale: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    let values: Vec<f64> = (1..=count).map(|n| scale * (step * n as f64 + phase).sin()).collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn weights(settings: &Settings, architecture: &Architecture) -> Store {
    let mut made = Store::default();
    Resnet::init(&mut made, 0, architecture);
    Head::init(&mut made, 0, architecture.features(), settings.dim as i64, settings.mlp);
    let mut store = Store::default();
    for (name, tensor) in made.buffers() {
        let counts = tensor.kind() == Kind::Int64;
        store.insert(name, if counts { tensor } else { tensor.to_kind(Kind::Double) });
    }
    for (index, (name, tensor)) in made.parameters().into_iter().enumerate() {
        let (shape, phase) = (tensor.size(), index as f64);
        let values = match shape[..] {
            [out, _, height, width] => wave(&shape, 0.7, phase, 2.0 / ((out * height * width) as f64).sqrt()),
            [_, input] => wave(&shape, 0.7, phase, 1.0 / (input as f64).sqrt()),
            _ => {
                let scale = (name.contains("bn") || name.contains("downsample")) && name.contains("weight");
                wave(&shape, 0.7, phase, 0.1) + f64::from(u8::from(scale))
            }
        };
        store.insert(name, values);
    }
    store
}

fn to_kind(store: &Store, kind: Kind) -> Store {
    let mut out = Store::default();
    for (name, tensor) in store.tensors() {
        let counts = tensor.kind() == Kind::Int64;
        out.insert(name, if counts { tensor.shallow_clone() } else { tensor.to_kind(kind) });
    }
    out
}

fn compare(what: &str, golden: &Marks, tensors: &BTreeMap<String, Tensor>, tolerance: f64) {
    let mut compared = 0;
    for (name, marks) in golden {
        // The queue of features is there only where neighbours are looked for.
        let Some(tensor) = tensors.get(name) else {
            assert_eq!(name, "features", "{what}: {name} is missing");
            continue;
        };
        let flat = tensor.detach().to_kind(Kind::Double).reshape([-1]);
        let weights: Vec<f64> = (1..=flat.size()[0]).map(|n| (0.11 * n as f64).cos()).collect();
        let weighted = (&flat * Tensor::from_slice(&weights)).sum(Kind::Double).double_value(&[]);
        let ours = [flat.sum(Kind::Double).double_value(&[]), weighted, flat.double_value(&[0])];
        // Sums of many numbers: what rounding may do grows with their size.
        let size = flat.abs().sum(Kind::Double).double_value(&[]).max(1.0);
        for (ours, theirs) in ours.iter().zip(marks) {
            assert!((ours - theirs).abs() <= tolerance * size, "{what}, {name}: {ours} instead of {theirs}");
        }
        compared += 1;
    }
    assert!(compared > 0, "{what}: nothing was compared");
}

fn check(case: &Case, golden: &Golden, kind: Kind, tolerance: f64) {
    let architecture = Architecture::Resnet18(Config { stem: case.stem, width: 0.125 });
    let settings = &case.settings;
    let rows = settings.queue as i64;
    let queue = normalised(&wave(&[rows, settings.dim as i64], 0.9, 0.5, 1.0)).to_kind(kind);
    let features =
        settings.neighbours.map(|_| normalised(&wave(&[rows, architecture.features()], 0.37, 0.25, 1.0)).to_kind(kind));
    let store = to_kind(&weights(settings, &architecture), kind);
    let mut moco = Moco::with(&architecture, settings, case.groups, store, queue, features).unwrap();
    let mut sgd =
        Sgd::new(moco.query.store.parameters(), &optimise::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 1e-2 });
    let shuffles: [Vec<i64>; 2] =
        [(3, 1), (5, 2)].map(|(times, plus)| (0..BATCH).map(|i| (times * i + plus) % BATCH).collect());

    for (step, lr) in [0.1, 0.08, 0.05].into_iter().enumerate() {
        let at = step as f64;
        let tint = wave(&[BATCH, 1, 1, 1], 2.0, at, 0.5);
        let sample = Sample {
            query: (wave(&[BATCH, 3, case.side, case.side], 0.13, at, 1.5) + &tint).to_kind(kind),
            key: (wave(&[BATCH, 3, case.side, case.side], 0.13, at + 0.3, 1.5) + &tint).to_kind(kind),
            small: (case.small > 0).then(|| wave(&[BATCH * case.small, 3, 8, 8], 0.29, at, 1.5).to_kind(kind)),
        };
        let turn = Turn { lr, shuffles: [&shuffles[0], &shuffles[1]], neighbours: step >= 1 };
        let loss = moco.learn(&sample, &mut sgd, turn).unwrap();
        let theirs = golden.losses[step];
        assert!((loss - theirs).abs() <= tolerance * 10.0, "{}, loss {step}: {loss} instead of {theirs}", case.name);
    }
    let place = |part: &str| format!("{} in {kind:?}, {part}", case.name);
    compare(&place("query"), &golden.query, moco.query.store.tensors(), tolerance);
    compare(&place("key"), &golden.key, moco.key.store.tensors(), tolerance);
    compare(&place("momentum"), &golden.momentum, sgd.state(), tolerance);
    let mut queues = BTreeMap::from([("queue".to_string(), moco.queue.shallow_clone())]);
    queues.extend(moco.features.as_ref().map(|features| ("features".to_string(), features.shallow_clone())));
    compare(&place("queues"), &golden.queues, &queues, tolerance);
}

#[test]
fn three_steps_equal_pytorchs() {
    let golden: BTreeMap<String, Golden> = serde_json::from_str(include_str!("golden/moco.json")).unwrap();
    for case in cases() {
        check(&case, &golden[case.name], Kind::Double, 1e-9);
        // With sines for weights, max-pooling has near ties: PyTorch's own float32 strays from its float64 there.
        if case.stem == Stem::Small {
            check(&case, &golden[case.name], Kind::Float, 1e-4);
        }
    }
}

/// The first 100 steps of the recipe for CIFAR beside PyTorch's, made small: see `golden/cifar.py`.
#[test]
fn a_hundred_steps_of_the_cifar_recipe_are_pytorchs() {
    const ROWS: i64 = 32;
    let golden: Vec<f64> = serde_json::from_str(include_str!("golden/cifar.json")).unwrap();
    let architecture = Architecture::Resnet18(Config { stem: Stem::Small, width: 0.0625 });
    let settings =
        Settings { dim: 16, queue: 256, momentum: 0.99, temperature: 0.1, mlp: false, ..Settings::default() };
    let schedule = Schedule::Cosine(Cosine { first: 1 });
    let order: Vec<i64> = (0..ROWS).map(|i| (5 * i + 1) % ROWS).collect();
    let run = |kind: Kind, steps: usize| -> Vec<f64> {
        let queue = normalised(&wave(&[256, 16], 0.9, 0.5, 1.0)).to_kind(kind);
        let store = to_kind(&weights(&settings, &architecture), kind);
        let mut moco = Moco::with(&architecture, &settings, 8, store, queue, None).unwrap();
        let sgd = optimise::Sgd { lr: 0.06, momentum: 0.9, weight_decay: 5e-4 };
        let mut sgd = Sgd::new(moco.query.store.parameters(), &sgd);
        let step = |step: usize| {
            let (at, turn) = (step as f64, (step % 10) as f64);
            let view = |frequency, phase| {
                let shape = [ROWS, 3, 16, 16];
                let picture = wave(&shape, 0.13 + 0.001 * turn, turn, 1.0) + wave(&[ROWS, 3, 1, 1], 2.0, turn, 1.5);
                (picture + wave(&shape, frequency, at + phase, 0.1)).to_kind(kind)
            };
            let sample = Sample { query: view(2.1, 0.0), key: view(3.3, 0.5), small: None };
            let lr = schedule.rate(0.06, step as u64 / 10, 200);
            moco.learn(&sample, &mut sgd, Turn { lr, shuffles: [&order, &order], neighbours: false }).unwrap()
        };
        (0..steps).map(step).collect()
    };
    let far = |ours: &[f64]| ours.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let double = run(Kind::Double, 100);
    assert!(far(&double) < 1e-6, "{} from PyTorch's curve", far(&double));
    // Of these steps every one counts: the loss rises while the queue fills, and the curve is no constant.
    assert!(double[99] > double[0] + 1.0, "{double:?}");
    // Single precision strays from double, as it does within PyTorch; the beginning shows that it is the same curve.
    let single = run(Kind::Float, 10);
    assert!(far(&single) < 0.02, "{} from PyTorch's curve", far(&single));
}
