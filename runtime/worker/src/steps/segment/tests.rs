//! The step from job to outcome, on the smallest networks and pictures.

use std::collections::BTreeSet;

use harness_datasets::hash::digest;
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::model::{Architecture, Resnet, Stem};
use harness_protocol::{FromWorker, Gallery, Location, LocationForm};
use harness_views::{IndexMask, Picture, Stream, encode_png_index, encode_png_rgb};
use serde_json::{Value, json};

use crate::model::Encoder;
use crate::testing::{Bench, noise};

const CLASSES: [&str; 3] = ["ground", "red", "blue"];

/// A grey picture with a red and a blue rectangle, and its mask.
fn scene(item: u64) -> (Picture, IndexMask) {
    let (width, height) = (28, 20);
    let mut stream = Stream::new(7, "test", "scene", 0, item, 0);
    let mut picture = Picture::filled(width, height, [90, 100, 95]);
    let mut mask = IndexMask { width, height, data: vec![0; width * height] };
    for (class, colour) in [(1, [220, 30, 30]), (2, [30, 30, 220])] {
        let (left, top) = (stream.below(18) as usize, stream.below(10) as usize);
        for y in top..top + 9 {
            for x in left..left + 9 {
                mask.data[y * width + x] = class;
                picture.data[3 * (y * width + x)..][..3].copy_from_slice(&colour);
            }
        }
    }
    (picture, mask)
}

/// Adds a dataset of `count` scenes; `edit` may change pairs and the manifest.
pub(crate) fn dataset(
    bench: &mut Bench,
    name: &str,
    count: u64,
    edit: impl Fn(u64, &mut Picture, &mut IndexMask),
    finish: impl Fn(&mut ImageManifest),
) -> Value {
    let first = name.len() as u64 * 100;
    let pair = |item: u64| {
        let (mut picture, mut mask) = scene(first + item);
        edit(item, &mut picture, &mut mask);
        (picture, mask)
    };
    written(bench, name, count, pair, finish)
}

/// Adds a dataset of `count` pictures with masks.
pub(crate) fn written(
    bench: &mut Bench,
    name: &str,
    count: u64,
    pair: impl Fn(u64) -> (Picture, IndexMask),
    finish: impl Fn(&mut ImageManifest),
) -> Value {
    let folder = bench.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |path: String, bytes: Vec<u8>| {
        std::fs::write(folder.join(&path), &bytes).unwrap();
        FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) }
    };
    let entries = (0..count)
        .map(|item| {
            let (picture, mask) = pair(item);
            let file = write(format!("{item:02}.png"), encode_png_rgb(&picture).unwrap());
            let mask = write(format!("{item:02}.mask.png"), encode_png_index(&mask, None).unwrap());
            ImageEntry { file, mask: Some(Box::new(mask)), ..ImageEntry::default() }
        })
        .collect();
    let mask_classes = CLASSES.iter().map(|class| class.to_string()).collect();
    let mut manifest = ImageManifest { format: MANIFEST_FORMAT, mask_classes, entries, ..ImageManifest::default() };
    finish(&mut manifest);
    let data = Location { path: folder, form: LocationForm::Folder, ..Location::default() };
    bench.input("masked_images", &serde_json::to_vec(&manifest).unwrap(), Some(data))
}

pub(crate) fn plain(bench: &mut Bench, name: &str, count: u64) -> Value {
    dataset(bench, name, count, |_, _, _| (), |_| ())
}

pub(crate) fn network() -> Encoder {
    let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.125 });
    Encoder::random(architecture, [0.5; 3], [0.25; 3], 1).unwrap()
}

fn params(encoder: &Value, train: &Value, test: &Value, change: Value) -> Value {
    let mut params = json!({
        "encoder": encoder, "train": train, "test": test, "size": 24, "epochs": 2, "batch": 4,
        "head": { "fcn": { "channels": 8, "dilation": 1 } },
        "optimizer": { "sgd": { "lr": 0.05 } }, "schedule": { "constant": {} },
        "select": { "last": {} },
    });
    for (name, value) in change.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

#[test]
fn colours_are_learned_and_everything_is_reported() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 24), plain(&mut bench, "test", 5));
    let job = bench.job("a", "segment", params(&encoder, &train, &test, json!({ "epochs": 12 })));
    let outcome = bench.run(&job).outcome();
    let metrics = &outcome.metrics;
    assert!(metrics["miou"] > metrics["floor_miou"] + 0.2, "{metrics:?}");
    assert!(metrics["pixel_accuracy"] > metrics["miou"], "{metrics:?}");
    let loss = &outcome.series["loss"];
    assert_eq!(loss.x, (1..=12).map(f64::from).collect::<Vec<_>>());
    assert!(loss.y[11] < 0.6 * loss.y[0], "{loss:?}");

    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
    assert_eq!(report["classes"], json!(CLASSES));
    let counts = report["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 5 * 28 * 20);
    let gallery: Gallery = serde_json::from_slice(&bench.output(&job, &outcome, "overlays")).unwrap();
    // Legend, matrix, five pictures.
    assert_eq!(gallery.items.len(), 7);
    assert_eq!((gallery.items[2].width, gallery.items[2].height), (3 * 28 + 4, 20));
    assert_eq!(outcome.series["class_iou"].y.len(), 3);
    assert_eq!((metrics["epoch"], metrics["last_miou"]), (12.0, metrics["miou"]));
    let best = outcome.series["test_miou"].y.iter().copied().fold(0.0, f64::max);
    assert_eq!(outcome.series["test_miou"].y[metrics["test_best_epoch"] as usize - 1], best);
    assert!(best >= metrics["online_miou"]);
    let kind = harness_protocol::steps::kind("segment").unwrap();
    let mut declared: BTreeSet<&str> = kind.metrics.iter().map(|metric| metric.name).collect();
    declared.remove("holdout_miou");
    let given: BTreeSet<&str> = metrics.keys().chain(outcome.series.keys()).map(String::as_str).collect();
    assert_eq!(declared, given);
}

#[test]
fn a_resumed_run_ends_in_the_same_bytes() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 13), plain(&mut bench, "test", 3));
    let change =
        json!({ "epochs": 3, "select": { "holdout": { "share": 0.2 } }, "optimizer": { "adam": { "lr": 0.01 } } });
    let params = params(&encoder, &train, &test, change);
    let whole = bench.job("whole", "segment", params.clone());
    let uninterrupted = bench.run(&whole).outcome();
    // Stopped in the middle of an epoch, and again right after one.
    let cut = bench.job("cut", "segment", params.clone());
    let stops: [fn(&FromWorker) -> bool; 2] = [
        |message| matches!(message, FromWorker::Progress { stage, .. } if stage == "epoch 1/3"),
        |message| matches!(message, FromWorker::Metric { name, x, .. } if name == "loss" && *x == 2.0),
    ];
    for stop in stops {
        let ended = bench.run_until(&cut, stop);
        assert!(matches!(ended.last, FromWorker::Cancelled { id: 1 }), "{:?}", ended.last);
    }
    let ended = bench.run(&cut);
    assert!(
        ended.said.iter().any(|m| matches!(m, FromWorker::Log { text, .. } if text == "going on from epoch 3, step 1")),
        "{:?}",
        ended.said
    );
    let resumed = ended.outcome();
    assert_eq!(uninterrupted.metrics, resumed.metrics);
    assert_eq!(uninterrupted.series, resumed.series);
    for name in ["confusion", "overlays"] {
        assert_eq!(bench.output(&whole, &uninterrupted, name), bench.output(&cut, &resumed, name));
    }
    let left = |name: &str| std::fs::read(bench.path(name).join("checkpoint.safetensors")).unwrap();
    assert_eq!(left("whole.work"), left("cut.work"));

    // A checkpoint that is no checkpoint is told and not used.
    let broken = bench.job("broken", "segment", params);
    std::fs::create_dir_all(&broken.work_dir).unwrap();
    std::fs::write(broken.work_dir.join("checkpoint.safetensors"), b"nothing").unwrap();
    let ended = bench.run(&broken);
    assert!(ended.said.iter().any(|m| matches!(m, FromWorker::Log { level, .. } if level == "warn")));
    assert_eq!(ended.outcome().metrics, uninterrupted.metrics);
}

/// Scores, curves, and weights to the last digits of their precision; where one rank's rows are void and where all are. And
/// a checkpoint does not tell how many ranks made it.
#[test]
fn ranks_learn_what_one_process_learns() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    // Noise, and no margins: where pictures are flat, sums of another order move whole areas across the bend of a ReLU.
    let void = |item: u64, picture: &mut Picture, mask: &mut IndexMask| {
        noise(item, &mut picture.data);
        match item {
            0..6 => mask.data.fill(255),
            6 => mask.data[28..].fill(255),
            _ => (),
        }
    };
    let train = dataset(&mut bench, "train", 13, void, |_| ());
    let test = plain(&mut bench, "test", 3);
    let change = json!({
        "epochs": 1, "profile": "official", "optimizer": { "sgd": { "lr": 0.001 } },
        "augment": { "warp": { "scale": [1.0, 1.0], "rotate": [0.0, 0.0] } },
    });
    let params = params(&encoder, &train, &test, change);
    let whole = bench.job("whole", "segment", params.clone());
    let alone = bench.run(&whole).outcome();
    let shared = |name: &str, ranks| {
        let job = bench.job(name, "segment", params.clone());
        (bench.ranks(&job, ranks, |_| false), job)
    };
    for ranks in [2, 4] {
        let (made, job) = shared(&format!("{ranks} ranks"), ranks);
        let outcomes: Vec<_> = made.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes[0].provenance["ranks"], ranks);
        assert!(outcomes[1..].iter().all(|outcome| outcome.outputs.is_empty() && outcome.metrics.is_empty()));
        let (far, name) = bench.apart(&job, &whole);
        println!("{ranks} ranks are {far:.1e} apart from one process ({name})");
        assert!(far < 1e-5, "{name}: {far}");
        for (name, value) in &alone.metrics {
            assert!((outcomes[0].metrics[name] - value).abs() < 2e-3, "{name}: {} {value}", outcomes[0].metrics[name]);
        }
        for (ours, whole) in outcomes[0].series["loss"].y.iter().zip(&alone.series["loss"].y) {
            assert!((ours - whole).abs() < 1e-5 * whole, "{ours} {whole}");
        }
    }
    // Two ranks, stopped in the middle of an epoch; one process goes on.
    let cut = bench.job("cut", "segment", params.clone());
    let stop = |message: &FromWorker| matches!(message, FromWorker::Progress { stage, .. } if stage == "epoch 1/1");
    for ended in bench.ranks(&cut, 2, stop) {
        assert!(matches!(ended, Err(crate::error::Error::Cancelled)), "{ended:?}");
    }
    let ended = bench.run(&cut);
    let went_on =
        |m: &FromWorker| matches!(m, FromWorker::Log { text, .. } if text.starts_with("going on from epoch 1, step"));
    assert!(ended.said.iter().any(went_on), "{:?}", ended.said);
    ended.outcome();
    let (far, name) = bench.apart(&cut, &whole);
    assert!(far < 1e-5, "{name}: {far}");
}

/// The three ways of choosing an epoch, read from one run's curves.
#[test]
fn the_epoch_that_counts_is_chosen_as_said() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 20), plain(&mut bench, "test", 4));
    let first_best = |points: &[f64]| {
        let best = points.iter().copied().fold(0.0, f64::max);
        points.iter().position(|&value| value == best).unwrap() + 1
    };
    let base = json!({ "epochs": 5, "optimizer": { "sgd": { "lr": 0.2 } } });
    let with = |change: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    };
    let job =
        bench.job("held", "segment", params(&encoder, &train, &test, with(json!({ "select": { "holdout": {} } }))));
    let held = bench.run(&job).outcome();
    assert_eq!(held.metrics["epoch"], first_best(&held.series["holdout_miou"].y) as f64);
    assert_eq!(held.series["holdout_miou"].x.len(), 5);

    let job = bench.job(
        "official",
        "segment",
        params(&encoder, &train, &test, with(json!({ "profile": "official", "select": { "best_on_test": {} } }))),
    );
    let ended = bench.run(&job);
    let warned = |m: &FromWorker| matches!(m, FromWorker::Log { level, text, .. } if level == "warn" && text.contains("best on test"));
    assert!(ended.said.iter().any(warned));
    let official = ended.outcome();
    assert_eq!(official.metrics["epoch"], first_best(&official.series["test_miou"].y) as f64);
    assert_eq!(official.metrics["miou"], official.metrics["test_best_miou"]);

    let job = bench.job("rare", "segment", params(&encoder, &train, &test, with(json!({ "every": 3 }))));
    assert_eq!(bench.run(&job).outcome().series["test_miou"].x, [3.0, 5.0]);
}

#[test]
fn crops_and_whole_pictures_are_learned_from_too() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let (train, test) = (plain(&mut bench, "train", 8), plain(&mut bench, "test", 3));
    let deeplab = json!({ "deeplab": { "channels": 8, "rates": [1, 2] } });
    for (change, square) in [
        (json!({ "preset": "cityscapes", "augment": { "crop": {} }, "size": 24 }), true),
        (
            json!({ "preset": "nyud_mtl", "augment": { "zoom": {} }, "size": null, "head": deeplab, "dilated": 2 }),
            false,
        ),
    ] {
        let job = bench.job(&format!("a{square}"), "segment", params(&encoder, &train, &test, change));
        let outcome = bench.run(&job).outcome();
        // The network sees test pictures as they are.
        assert_eq!(outcome.metrics["miou"], outcome.metrics["online_miou"]);
    }
    let odd = |item: u64, picture: &mut Picture, mask: &mut IndexMask| {
        if item == 1 {
            (*picture, *mask) = (picture.cropped(0, 0, 20, 20), mask.cropped(0, 0, 20, 20));
        }
    };
    let train = dataset(&mut bench, "odd", 4, odd, |_| ());
    let change = json!({ "augment": { "zoom": {} }, "size": null });
    let message = bench.run(&bench.job("odd", "segment", params(&encoder, &train, &test, change))).message();
    assert!(message.contains("`zoom` takes pictures as they are") && message.contains("20x20"), "{message}");
}

#[test]
fn what_the_masks_lack_is_told() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let without = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
        let void = item == 3;
        mask.data.iter_mut().for_each(|value| *value = if void { 255 } else { u8::from(*value == 1) });
    };
    let train = dataset(&mut bench, "train", 5, without, |_| ());
    let test = plain(&mut bench, "test", 2);
    let ended = bench.run(&bench.job("a", "segment", params(&encoder, &train, &test, json!({ "epochs": 1 }))));
    let said = format!("{:?}", ended.said);
    assert!(said.contains("train has no pixel of `blue`"), "{said}");
    assert!(said.contains("every pixel of 1 pictures of train is void, first `03.png`"), "{said}");
}

#[test]
fn void_pixels_do_not_count() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let train = plain(&mut bench, "train", 4);
    let hidden = |_: u64, _: &mut Picture, mask: &mut IndexMask| {
        mask.data.iter_mut().take(28 * 10).for_each(|value| *value = 9);
        mask.data.iter_mut().skip(28 * 19).for_each(|value| *value = 255);
    };
    let test = dataset(&mut bench, "test", 2, hidden, |manifest| manifest.ignore = vec![9]);
    let job = bench.job("a", "segment", params(&encoder, &train, &test, json!({ "epochs": 1 })));
    let outcome = bench.run(&job).outcome();
    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
    let counts = report["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 2 * 28 * 9);
}

#[test]
fn what_cannot_be_used_is_named() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let good = plain(&mut bench, "good", 4);
    let failed = |bench: &Bench, encoder: &Value, train: &Value, test: &Value, change: Value| {
        bench.run(&bench.job("x", "segment", params(encoder, train, test, change))).message()
    };

    let message = failed(&bench, &encoder, &good, &good, json!({ "batch": 5 }));
    assert!(message.contains("batch of 5") && message.contains("4 pictures"), "{message}");

    for (floor, word) in [(Encoder::Pixels(4), "raw pixels"), (Encoder::Histogram(2), "histogram")] {
        let floor = bench.encoder(&floor);
        let message = failed(&bench, &floor, &good, &good, json!({}));
        assert!(message.contains("`segment` needs a network") && message.contains(word), "{message}");
    }

    let outside = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
        if item == 2 {
            mask.data[30] = 7;
        }
    };
    let bad = dataset(&mut bench, "outside", 4, outside, |_| ());
    let message = failed(&bench, &encoder, &bad, &good, json!({}));
    assert!(message.contains("`02.mask.png`: value 7 at column 2, row 1"), "{message}");

    let unmasked = dataset(&mut bench, "unmasked", 4, |_, _, _| (), |manifest| manifest.entries[3].mask = None);
    let message = failed(&bench, &encoder, &good, &unmasked, json!({}));
    assert!(message.contains("1 of 4 pictures") && message.contains("`03.png` has no mask"), "{message}");

    let message = failed(&bench, &encoder, &good, &good, json!({ "select": { "holdout": {} } }));
    assert!(message.contains("4 pictures of which 1 are held out") && message.contains("`select = last`"), "{message}");

    let smaller = |item: u64, picture: &mut Picture, _: &mut IndexMask| {
        if item == 1 {
            *picture = picture.cropped(0, 0, 20, 20);
        }
    };
    let bad = dataset(&mut bench, "smaller", 4, smaller, |_| ());
    let message = failed(&bench, &encoder, &good, &bad, json!({}));
    assert!(message.contains("`01.mask.png` is 28x20") && message.contains("`01.png` is 20x20"), "{message}");

    // As published such a mask is resized.
    let change = json!({ "profile": "official", "epochs": 1 });
    let outcome = bench.run(&bench.job("y", "segment", params(&encoder, &good, &bad, change))).outcome();
    assert!(outcome.metrics["miou"] > 0.0);

    let other = dataset(&mut bench, "others", 4, |_, _, _| (), |manifest| manifest.mask_classes[1] = "green".into());
    let message = failed(&bench, &encoder, &good, &other, json!({}));
    assert!(message.contains("1 is `red` in train and `green` in test"), "{message}");

    let nothing = |_: u64, _: &mut Picture, mask: &mut IndexMask| mask.data.fill(255);
    let void = dataset(&mut bench, "nothing", 4, nothing, |_| ());
    let message = failed(&bench, &encoder, &void, &good, json!({}));
    assert!(message.contains("every pixel of train is void"), "{message}");
    let message = failed(&bench, &encoder, &good, &void, json!({}));
    assert!(message.contains("every pixel of test is void"), "{message}");
    // Only what is held out is void: pictures 0 to 7 but one.
    let mut found = false;
    for kept in 0..8 {
        let only = |item: u64, _: &mut Picture, mask: &mut IndexMask| {
            if item == kept {
                mask.data.fill(255);
            }
        };
        let one = dataset(&mut bench, "one", 8, only, |_| ());
        let change = json!({ "select": { "holdout": { "share": 0.1 } }, "epochs": 1 });
        let ended = bench.run(&bench.job("x", "segment", params(&encoder, &one, &good, change)));
        if let FromWorker::Failed { message, .. } = ended.last {
            assert!(message.contains("every pixel of what is held out is void"), "{message}");
            found = true;
            break;
        }
    }
    assert!(found);

    let diverged = network();
    let _ = diverged.need_network("test").unwrap().store.get("layer1.0.conv1.weight").unwrap().fill_(f64::NAN);
    let diverged = bench.encoder(&diverged);
    // Under a name of its own: one of the jobs before may have left a checkpoint.
    let job = bench.job("diverged", "segment", params(&diverged, &good, &good, json!({})));
    let message = bench.run(&job).message();
    assert!(message.contains("not finite in epoch 1 at step 1"), "{message}");
}
