//! Scores, loss and gradients of the segmentation network beside torchvision's, from the same weights and pictures:
//! `golden/segmentation.py` made the values.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use harness_protocol::model::{Architecture, Resnet as Config};
use harness_protocol::steps::{Deeplab, Fcn, SegmentHead};
use harness_worker::model::resnet::Resnet;
use harness_worker::model::segmenter::Layout;
use harness_worker::model::{Mode, Segmenter, Store};
use serde::Deserialize;
use tch::{Device, Kind, Reduction, Tensor};

#[derive(Deserialize)]
struct Marks {
    sum: f64,
    cosine: f64,
    largest: f64,
    every: Vec<f64>,
}

#[derive(Deserialize)]
struct Golden {
    train: Marks,
    loss: f64,
    /// Sum and norm.
    gradients: BTreeMap<String, [f64; 2]>,
    eval: Marks,
}

const CLASSES: i64 = 21;

/// scale · sin(step · n² + phase), n from 1.
fn wave(shape: &[i64], step: f64, phase: f64, scale: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    let values: Vec<f64> = (1..=count).map(|n| n as f64).map(|n| scale * (step * n * n % TAU + phase).sin()).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// The network with the script's weights, in `kind`.
fn network(head: SegmentHead, dilated: u64, kind: Kind) -> Segmenter {
    let architecture = Architecture::Resnet50(Config::default());
    let layout = Layout { architecture, head, dilated, classes: CLASSES };
    let mut encoder = Store::default();
    Resnet::init(&mut encoder, 0, &architecture);
    let made = Segmenter::new(&encoder, &layout, 0, Device::Cpu).unwrap().store;
    let mut store = Store::default();
    for (name, tensor) in made.buffers() {
        let counts = tensor.kind() == Kind::Int64;
        store.insert(name, if counts { tensor } else { tensor.to_kind(kind) });
    }
    for (index, (name, tensor)) in made.parameters().into_iter().enumerate() {
        let (shape, phase) = (tensor.size(), index as f64);
        let values = match shape[..] {
            [_, input, height, width] => wave(&shape, 0.7, phase, 2.0 / ((input * height * width) as f64).sqrt()),
            _ => wave(&shape, 0.7, phase, 0.1) + f64::from(u8::from(name.ends_with("weight"))),
        };
        store.insert(name, values.to_kind(kind));
    }
    store.train(true);
    Segmenter::bind(store, &layout).unwrap()
}

/// Every mark within `tolerance` of the largest score.
fn close(what: &str, scores: &Tensor, golden: &Marks, tolerance: f64) {
    let flat = scores.detach().to_kind(Kind::Double).flatten(0, -1);
    let count = flat.numel() as i64;
    let n = Tensor::arange_start(1, count + 1, (Kind::Double, Device::Cpu));
    let step = count / 40;
    let bound = tolerance * golden.largest;
    let ours: Vec<f64> = Vec::try_from(flat.slice(0, None, None, step)).unwrap();
    assert_eq!(ours.len(), golden.every.len());
    for (at, (ours, theirs)) in ours.iter().zip(&golden.every).enumerate() {
        assert!((ours - theirs).abs() < bound, "{what}, score {}: {ours} and {theirs}", at as i64 * step);
    }
    for (name, ours, theirs) in [
        ("sum", flat.sum(Kind::Double), golden.sum),
        ("cosine", (&flat * n.cos()).sum(Kind::Double), golden.cosine),
        ("largest", flat.abs().max(), golden.largest),
    ] {
        // At most as far off as all scores together may be.
        let (ours, room) = (ours.double_value(&[]), bound * count as f64);
        assert!((ours - theirs).abs() < room, "{what}, {name}: {ours} and {theirs}");
    }
}

fn check(name: &str, head: &SegmentHead, dilated: u64, kind: Kind, tolerance: f64) {
    let golden: BTreeMap<String, Golden> = serde_json::from_str(include_str!("golden/segmentation.json")).unwrap();
    let golden = &golden[name];
    let network = network(head.clone(), dilated, kind);
    let x = wave(&[2, 3, 65, 80], 0.9, 0.3, 1.5).to_kind(kind);
    let classes: Vec<i64> =
        (0..2 * 65 * 80).map(|n| n % 23).map(|class| if class > 20 { 255 } else { class }).collect();
    let scores = tch::no_grad(|| network.forward(&x, Mode::Eval));
    close(&format!("{name}, evaluation"), &scores, &golden.eval, tolerance);
    // In single precision batch norm over two small pictures amplifies rounding (PyTorch against itself: 2e-4).
    if kind == Kind::Double {
        let scores = network.forward(&x, Mode::TRAIN);
        let y = Tensor::from_slice(&classes).reshape([2, 65, 80]);
        let loss = scores.cross_entropy_loss(&y, None::<&Tensor>, Reduction::Mean, 255, 0.0);
        close(&format!("{name}, training"), &scores, &golden.train, tolerance);
        let value = loss.double_value(&[]);
        assert!((value / golden.loss - 1.0).abs() < tolerance, "{name}: loss {value} and {}", golden.loss);
        loss.backward();
        for (weight, [sum, norm]) in &golden.gradients {
            let gradient = network.store.get(weight).unwrap().grad();
            let ours = [gradient.sum(kind).double_value(&[]), gradient.norm().double_value(&[])];
            assert!((ours[1] / norm - 1.0).abs() < tolerance, "{name}, {weight}: {ours:?} and {norm}");
            assert!((ours[0] - sum).abs() < tolerance * norm * 100.0, "{name}, {weight}: {ours:?} and {sum}");
        }
    }
}

#[test]
fn scores_equal_torchvisions() {
    let fcn = SegmentHead::Fcn(Fcn { channels: 256, dilation: 6 });
    let deeplab = SegmentHead::Deeplab(Deeplab { dropout: 0.0, ..Deeplab::default() });
    for (name, head, dilated) in [("fcn", fcn, 1), ("deeplab", deeplab, 2)] {
        check(name, &head, dilated, Kind::Double, 1e-9);
        check(name, &head, dilated, Kind::Float, 1e-5);
    }
}
