//! Retrieval on pictures whose classes are colours.

use harness_protocol::manifest::ImageManifest;
use harness_protocol::model::{Architecture, Resnet as Narrow, Stem};
use harness_protocol::{FromWorker, Gallery};
use harness_views::{IndexMask, Picture};
use serde_json::{Value, json};
use tch::Tensor;

use crate::model::{Encoder, Resnet, Store};
use crate::steps::segment::tests::{dataset, network, plain, written};
use crate::testing::Bench;

fn params(encoder: &Value, train: &Value, test: &Value, change: Value) -> Value {
    let mut params = json!({ "encoder": encoder, "train": train, "test": test, "size": 32, "dilated": 2 });
    params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    params
}

/// Only the red rectangle is salient, the blue one is ground.
fn red(_: u64, _: &mut Picture, mask: &mut IndexMask) {
    mask.data.iter_mut().for_each(|value| *value = u8::from(*value == 1));
}

#[test]
fn segments_of_positions_are_named_and_everything_is_reported() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    // Names of one length have the same pictures: what is asked about is known, and weights are random.
    let (train, test) = (plain(&mut bench, "train", 12), plain(&mut bench, "asked", 5));
    let change = json!({ "regions": { "kmeans": { "k": 4, "restarts": 3 } }, "subset": ["red"], "seed": 3 });
    let job = bench.job("a", "retrieve", params(&encoder, &train, &test, change));
    let outcome = bench.run(&job).outcome();
    let metrics = &outcome.metrics;
    assert!(metrics["miou"] > metrics["floor_miou"], "{metrics:?}");
    assert_eq!(metrics["floor_miou"], metrics["background_miou"]);
    assert_eq!(metrics["bank"], 48.0);
    // Every pixel red, which is right where it is, blue being void.
    assert!((0.02..0.5).contains(&metrics["subset_floor_miou"]), "{metrics:?}");
    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
    let counts = report["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 5 * 32 * 32);
    let gallery: Gallery = serde_json::from_slice(&bench.output(&job, &outcome, "segments")).unwrap();
    assert_eq!(gallery.items.len(), 2 + 2 * 5);
    assert!(gallery.items[3].caption.contains("nearest: "), "{}", gallery.items[3].caption);
    let again = bench.run(&bench.job("b", "retrieve", job.params.clone())).outcome();
    assert_eq!(again.metrics, outcome.metrics);
    let declared = harness_protocol::steps::kind("retrieve").unwrap().metrics;
    assert!(metrics.keys().chain(outcome.series.keys()).all(|name| declared.iter().any(|metric| metric.name == name)));
}

/// What is salient is the red rectangle alone, so perfect names give it whole and nothing of the blue one.
#[test]
fn salient_segments_take_one_name_and_the_rest_is_background() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (dataset(&mut bench, "train", 6, red, |_| ()), dataset(&mut bench, "test", 4, red, |_| ()));
    let regions = json!({ "saliency": { "train": train, "test": test } });
    let job = bench.job("a", "retrieve", params(&encoder, &train, &test, json!({ "regions": regions, "size": 28 })));
    let outcome = bench.run(&job).outcome();
    // Every salient segment is red, so each is named right, whatever the features.
    assert_eq!((outcome.metrics["full_miou"], outcome.metrics["bank"]), (1.0, 6.0));
    // So the masks alone reach that, and the floor says so.
    assert_eq!(outcome.metrics["floor_miou"], outcome.metrics["miou"]);
    assert_eq!(outcome.series["class_iou"].y, [1.0, 1.0, 0.0]);
    // As published the class that is nowhere counts 0.
    let change = json!({ "regions": regions, "profile": "official" });
    let official = bench.run(&bench.job("b", "retrieve", params(&encoder, &train, &test, change))).outcome();
    assert_eq!(official.metrics["miou"], 2.0 / 3.0);
}

/// The network of `tests/golden/retrieve.py`: scale · sin(0.7 · n² + index), n from 1.
fn waves() -> Encoder {
    let architecture = Architecture::Resnet18(Narrow { stem: Stem::Small, width: 0.0625 });
    let (mut made, mut store) = (Store::default(), Store::default());
    Resnet::init(&mut made, 0, &architecture);
    let is_weight = |name: &str| !name.contains("running_") && !name.contains("num_batches");
    for (name, tensor) in made.tensors().iter().filter(|(name, _)| !is_weight(name)) {
        store.insert(name.clone(), tensor.shallow_clone());
    }
    for (index, (name, tensor)) in made.tensors().iter().filter(|(name, _)| is_weight(name)).enumerate() {
        let shape = tensor.size();
        let (scale, shift) = match shape[..] {
            [_, input, height, width] => (2.0 / ((input * height * width) as f64).sqrt(), 0.0),
            _ => (0.1, f64::from(u8::from(name.ends_with("weight")))),
        };
        let count = shape.iter().product::<i64>();
        let wave = |n: f64| scale * (0.7 * n * n % std::f64::consts::TAU + index as f64).sin() + shift;
        let values: Vec<f32> = (1..=count).map(|n| wave(n as f64) as f32).collect();
        store.insert(name.clone(), Tensor::from_slice(&values).reshape(shape));
    }
    Encoder::network(architecture, [0.5; 3], [0.25; 3], store).unwrap()
}

/// A picture of `tests/golden/retrieve.py` with its classes, or with its salient pixels.
fn formula(item: u64, salient: bool) -> (Picture, IndexMask) {
    let (width, height) = (40usize, 30usize);
    let mut picture = Picture::filled(width, height, [0; 3]);
    let mut mask = IndexMask { width, height, data: vec![0; width * height] };
    for at in 0..width * height {
        let (x, y) = ((at % width) as u64, (at / width) as u64);
        let kind = ((x + 5 * item) / 17 + item * item) % 4;
        for c in 0..3u64 {
            let value = 90 * u64::from(kind == c) + 2 * x + y + 3 * item + x * y % 17;
            picture.data[3 * at + c as usize] = (value % 256) as u8;
        }
        let (across, down) = (x.abs_diff(6 + 13 * item % 30), y.abs_diff(8 + 7 * item % 16));
        mask.data[at] = match salient {
            true => u8::from(across.pow(2) + down.pow(2) < 60 + 9 * item),
            false if kind == 3 => 255,
            false => kind as u8,
        };
    }
    (picture, mask)
}

/// Banks, names, matrices and scores as a second computation in PyTorch and Pillow has them.
#[test]
fn everything_equals_a_second_computation() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/retrieve.json")).unwrap();
    let mut bench = Bench::new();
    let encoder = bench.encoder(&waves());
    let [train, test] = [("train", 12, 0), ("test", 8, 12)]
        .map(|(name, count, first)| written(&mut bench, name, count, |item| formula(first + item, false), |_| ()));
    let [train_mask, test_mask] = [("train.salient", 12, 0), ("test.salient", 8, 12)]
        .map(|(name, count, first)| written(&mut bench, name, count, |item| formula(first + item, true), |_| ()));
    let saliency = json!({ "saliency": { "train": train_mask, "test": test_mask } });
    let whole = json!({ "kmeans": { "k": 1, "restarts": 1 } });
    for (name, regions) in [("saliency", saliency), ("whole", whole)] {
        let change = json!({ "size": 24, "dilated": 1, "regions": regions, "subset": ["blue"] });
        let job = bench.job(name, "retrieve", params(&encoder, &train, &test, change));
        let outcome = bench.run(&job).outcome();
        let (all, subset) = (&golden[name], &golden[format!("{name}_subset")]);
        let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
        assert_eq!(report["confusion"], all["confusion"], "{name}");
        let metrics = &outcome.metrics;
        for (ours, theirs) in [
            ("bank", &all["bank"]),
            ("miou", &all["miou"]),
            ("full_miou", &all["full_miou"]),
            ("subset_miou", &subset["miou"]),
        ] {
            assert!((metrics[ours] - theirs.as_f64().unwrap()).abs() < 1e-12, "{name}: {metrics:?}, {ours} {theirs}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 4), plain(&mut bench, "test", 2));
    let run = |bench: &Bench, encoder: &Value, train: &Value, change: Value| {
        bench.run(&bench.job("x", "retrieve", params(encoder, train, &test, change)))
    };

    let regions = json!({ "saliency": { "train": train, "test": train } });
    let message = run(&bench, &encoder, &train, json!({ "regions": regions })).message();
    assert!(message.contains("2 of 2 pictures of test have no saliency mask, first `00.png`"), "{message}");

    let none = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
        if item == 1 {
            mask.data.fill(0);
        }
    };
    // Names of five letters: the same pictures as train.
    let salient = dataset(&mut bench, "salie", 4, none, |_| ());
    let regions = json!({ "saliency": { "train": salient, "test": test } });
    let ended = run(&bench, &encoder, &train, json!({ "regions": regions }));
    let told = |m: &FromWorker| {
        matches!(m, FromWorker::Log { level, text, .. } if level == "warn"
            && text == "1 of 4 pictures of train have no salient pixel, first `01.png`")
    };
    assert!(ended.said.iter().any(told), "{:?}", ended.said);
    assert_eq!(ended.outcome().metrics["bank"], 3.0);

    // A mask for each picture, one of them of another size.
    let odd = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
        if item == 2 {
            *mask = mask.cropped(0, 0, 12, 10);
        }
    };
    let odd = dataset(&mut bench, "oddly", 4, odd, |_| ());
    let regions = json!({ "saliency": { "train": odd, "test": test } });
    let message = run(&bench, &encoder, &train, json!({ "regions": regions })).message();
    assert!(message.contains("the saliency mask of `02.png` is 12x10 and the picture 28x20"), "{message}");

    // A single salient pixel that the square does not keep is no segment.
    let dot = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
        mask.data.fill(u8::from(item > 0));
        mask.data[28 + 1] = 1;
    };
    let dot = dataset(&mut bench, "spots", 4, dot, |_| ());
    let regions = json!({ "saliency": { "train": dot, "test": test } });
    let ended = run(&bench, &encoder, &train, json!({ "regions": regions, "size": 16, "dilated": 0 }));
    assert_eq!(ended.outcome().metrics["bank"], 3.0);

    let nothing = |_: u64, _: &mut Picture, mask: &mut IndexMask| mask.data.fill(0);
    let empty = dataset(&mut bench, "empty", 4, nothing, |_| ());
    let regions = json!({ "saliency": { "train": empty, "test": test } });
    let message = run(&bench, &encoder, &train, json!({ "regions": regions })).message();
    assert!(message.contains("no picture of train has a salient pixel"), "{message}");
    // Nothing but background in the bank's masks.
    let message = run(&bench, &encoder, &empty, json!({ "background": false })).message();
    assert!(message.contains("no segment of train has a class"), "{message}");

    let void = |_: u64, _: &mut Picture, mask: &mut IndexMask| mask.data.fill(255);
    let void = dataset(&mut bench, "void", 4, void, |_| ());
    let message = run(&bench, &encoder, &void, json!({})).message();
    assert!(message.contains("every pixel of train is void"), "{message}");

    let message = run(&bench, &encoder, &train, json!({ "subset": ["green"] })).message();
    assert!(message.contains("`green`") && message.contains("ground, red, blue"), "{message}");
    let diverged = network();
    let _ = diverged.need_network("test").unwrap().store.get("bn1.running_var").unwrap().fill_(f64::NAN);
    let diverged = bench.encoder(&diverged);
    let message = run(&bench, &diverged, &train, json!({})).message();
    assert!(message.contains("features of `00.png` of train are not finite"), "{message}");
    let pixels = bench.encoder(&Encoder::Pixels(4));
    let message = run(&bench, &pixels, &train, json!({})).message();
    assert!(message.contains("`retrieve` needs a network"), "{message}");
    let other =
        dataset(&mut bench, "other", 4, |_, _, _| (), |m: &mut ImageManifest| m.mask_classes[1] = "green".into());
    let message = run(&bench, &encoder, &other, json!({})).message();
    assert!(message.contains("1 is `green` in train and `red` in test"), "{message}");
}
