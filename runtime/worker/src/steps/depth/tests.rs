use std::collections::BTreeSet;

use harness_datasets::hash::digest;
use harness_datasets::npy::{Grid, write_grid};
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::model::{Architecture, Resnet, Stem};
use harness_protocol::{FromWorker, Gallery, Location, LocationForm};
use harness_views::{Picture, Stream, encode_png_rgb};
use serde_json::{Value, json};

use crate::model::Encoder;
use crate::testing::Bench;

/// A picture whose left part is near and red, the right part far and blue; where they meet is drawn. The last row is
/// unknown, and its last pixel makes no two pictures the same.
fn scene(item: u64) -> (Picture, Grid) {
    let (width, height) = (24, 16);
    let border = 6 + Stream::new(3, "test", "scene", 0, item, 0).below(12) as usize;
    let left = |i: usize| i % width < border;
    let mut data: Vec<u8> =
        (0..width * height).flat_map(|i| if left(i) { [200, 40, 40] } else { [40, 40, 200] }).collect();
    data[3 * width * height - 3..].copy_from_slice(&[(item / 256) as u8, item as u8, 200]);
    let known = |i: usize| if left(i) { 1.5 } else { 4.0 };
    let values = (0..width * height).map(|i| if i / width + 1 == height { 0.0 } else { known(i) }).collect();
    (Picture { width, height, data }, Grid { width, height, values })
}

/// Adds a dataset of `count` pictures with maps; `edit` may change the files' bytes.
fn dataset(
    bench: &mut Bench,
    name: &str,
    count: u64,
    edit: impl Fn(u64, &mut Picture, &mut Grid),
    finish: impl Fn(u64, Vec<u8>) -> Option<Vec<u8>>,
) -> Value {
    let folder = bench.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |path: String, bytes: Vec<u8>| {
        std::fs::write(folder.join(&path), &bytes).unwrap();
        FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) }
    };
    let first = name.len() as u64 * 100;
    let entries = (0..count)
        .map(|item| {
            let (mut picture, mut grid) = scene(first + item);
            edit(item, &mut picture, &mut grid);
            let file = write(format!("{item:02}.png"), encode_png_rgb(&picture).unwrap());
            let depth = finish(item, write_grid(&grid)).map(|bytes| Box::new(write(format!("{item:02}.npy"), bytes)));
            ImageEntry { file, depth, ..ImageEntry::default() }
        })
        .collect();
    let manifest = ImageManifest { format: MANIFEST_FORMAT, entries, ..ImageManifest::default() };
    let data = Location { path: folder, form: LocationForm::Folder, ..Location::default() };
    bench.input("depth_images", &serde_json::to_vec(&manifest).unwrap(), Some(data))
}

fn plain(bench: &mut Bench, name: &str, count: u64) -> Value {
    dataset(bench, name, count, |_, _, _| (), |_, bytes| Some(bytes))
}

fn params(encoder: &Value, train: &Value, test: &Value, change: Value) -> Value {
    let mut params = json!({
        "encoder": encoder, "train": train, "test": test, "epochs": 2, "batch": 4, "dilated": 1,
        "head": { "fcn": { "channels": 8, "dilation": 1 } },
        "optimizer": { "adam": { "lr": 0.02 } }, "schedule": { "constant": {} }, "augment": { "scales": [1.0] },
    });
    for (name, value) in change.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

fn encoder(bench: &mut Bench) -> Value {
    let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.0625 });
    bench.encoder(&Encoder::random(architecture, [0.5; 3], [0.25; 3], 1).unwrap())
}

#[test]
fn depth_is_learned_and_everything_is_reported() {
    let mut bench = Bench::new();
    let encoder = encoder(&mut bench);
    let (train, test) = (plain(&mut bench, "train", 24), plain(&mut bench, "test", 5));
    let job = bench.job("a", "depth", params(&encoder, &train, &test, json!({ "epochs": 12 })));
    let outcome = bench.run(&job).outcome();
    let metrics = &outcome.metrics;
    assert!(metrics["rmse"] < 0.7 * metrics["floor_rmse"], "{metrics:?}");
    assert!(metrics["log_rmse"] < metrics["floor_log_rmse"], "{metrics:?}");
    assert!((metrics["valid"] - 15.0 / 16.0).abs() < 1e-12, "{metrics:?}");
    assert!((1.5..4.0).contains(&metrics["train_mean"]), "{metrics:?}");
    // Two tenths of 24 are held out: the epoch is the first with the least error on them.
    let held = &outcome.series["holdout_rmse"].y;
    let least = held.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(metrics["epoch"] as usize, held.iter().position(|&value| value == least).unwrap() + 1);
    let test_curve = &outcome.series["test_rmse"].y;
    assert_eq!(metrics["rmse"], test_curve[metrics["epoch"] as usize - 1]);
    assert_eq!(metrics["last_rmse"], test_curve[11]);
    assert_eq!(metrics["test_best_rmse"], test_curve.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(metrics["test_best_rmse"], test_curve[metrics["test_best_epoch"] as usize - 1]);
    assert_eq!(outcome.series["loss"].y.len(), 12);
    let gallery: Gallery = serde_json::from_slice(&bench.output(&job, &outcome, "maps")).unwrap();
    assert_eq!(gallery.items.len(), 6);
    assert_eq!((gallery.items[1].width, gallery.items[1].height), (3 * 24 + 4, 16));
    let kind = harness_protocol::steps::kind("depth").unwrap();
    let declared: BTreeSet<&str> = kind.metrics.iter().map(|metric| metric.name).collect();
    let given: BTreeSet<&str> = metrics.keys().chain(outcome.series.keys()).map(String::as_str).collect();
    assert_eq!(declared, given);
}

/// Most of what is known lies in some of the pictures, so that the ranks have unequal parts of it.
#[test]
fn ranks_learn_what_one_process_learns() {
    let mut bench = Bench::new();
    let encoder = encoder(&mut bench);
    // Noise: where pictures are flat, sums of another order move whole areas across the bend of a ReLU.
    let unknown = |item: u64, picture: &mut Picture, grid: &mut Grid| {
        crate::testing::noise(item, &mut picture.data);
        match item {
            0..6 => grid.values.fill(0.0),
            6 => grid.values[20..].fill(0.0),
            _ => (),
        }
    };
    let train = dataset(&mut bench, "train", 13, unknown, |_, bytes| Some(bytes));
    let test = plain(&mut bench, "test", 3);
    let change = json!({ "epochs": 1, "select": { "last": {} }, "optimizer": { "sgd": { "lr": 0.001 } }, "augment": { "scales": [1.0, 1.5] } });
    let params = params(&encoder, &train, &test, change);
    let whole = bench.job("whole", "depth", params.clone());
    let alone = bench.run(&whole).outcome();
    let job = bench.job("two", "depth", params);
    let made = bench.ranks(&job, 2, |_| false).remove(0).unwrap();
    let (far, name) = bench.apart(&job, &whole);
    println!("2 ranks are {far:.1e} apart from one process ({name})");
    assert!(far < 1e-5, "{name}: {far}");
    for (name, value) in &alone.metrics {
        assert!((made.metrics[name] - value).abs() < 1e-4, "{name}: {} {value}", made.metrics[name]);
    }
}

#[test]
fn a_resumed_run_ends_in_the_same_bytes() {
    // Without dropout: libtorch's generator is one a process, and the tests of a process share it.
    let mut bench = Bench::new();
    let encoder = encoder(&mut bench);
    let (train, test) = (plain(&mut bench, "train", 13), plain(&mut bench, "test", 3));
    let augment = json!({ "epochs": 3, "augment": { "scales": [1.0, 1.2, 1.5] }, "head": { "deeplab": { "channels": 8, "rates": [1, 2], "dropout": 0.0 } } });
    let params = params(&encoder, &train, &test, augment);
    let whole = bench.job("whole", "depth", params.clone());
    let uninterrupted = bench.run(&whole).outcome();
    let cut = bench.job("cut", "depth", params);
    let stop = |message: &FromWorker| matches!(message, FromWorker::Progress { stage, .. } if stage == "epoch 2/3");
    assert!(matches!(bench.run_until(&cut, stop).last, FromWorker::Cancelled { id: 1 }));
    let resumed = bench.run(&cut).outcome();
    assert_eq!((&uninterrupted.metrics, &uninterrupted.series), (&resumed.metrics, &resumed.series));
    assert_eq!(bench.output(&whole, &uninterrupted, "maps"), bench.output(&cut, &resumed, "maps"));
}

/// What a map says where its depth is unknown changes nothing: 0, 255, NaN and negative numbers are one.
#[test]
fn unknown_depth_does_not_count() {
    let mut bench = Bench::new();
    let encoder = encoder(&mut bench);
    let test = plain(&mut bench, "test", 3);
    let mut outcomes = Vec::new();
    for unknown in [0.0, 255.0, f32::NAN, f32::INFINITY, -3.0] {
        let edit = |_: u64, _: &mut Picture, grid: &mut Grid| grid.values[15 * 24..].fill(unknown);
        let train = dataset(&mut bench, "train", 8, edit, |_, bytes| Some(bytes));
        let change = json!({ "select": { "last": {} } });
        outcomes.push(bench.run(&bench.job("a", "depth", params(&encoder, &train, &test, change))).outcome().metrics);
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let mut bench = Bench::new();
    let encoder = encoder(&mut bench);
    let good = plain(&mut bench, "good", 8);
    let failed = |bench: &Bench, train: &Value, test: &Value, change: Value| {
        bench.run(&bench.job("x", "depth", params(&encoder, train, test, change))).message()
    };
    let message = failed(&bench, &good, &good, json!({ "batch": 8 }));
    assert!(message.contains("8 pictures of which 1 are held out") && message.contains("`select = last`"), "{message}");

    let smaller = |item: u64, _: &mut Picture, grid: &mut Grid| {
        if item == 2 {
            *grid = Grid { width: 12, height: 8, values: vec![2.0; 96] };
        }
    };
    let other = dataset(&mut bench, "smaller", 8, smaller, |_, bytes| Some(bytes));
    let message = failed(&bench, &other, &good, json!({}));
    assert!(message.contains("`02.npy` is 12x8") && message.contains("`02.png` is 24x16"), "{message}");
    // As published such a map is resized.
    let change = json!({ "profile": "official", "epochs": 1 });
    let ended = bench.run(&bench.job("y", "depth", params(&encoder, &other, &good, change)));
    let warned = |m: &FromWorker| matches!(m, FromWorker::Log { level, text, .. } if level == "warn" && text.contains("best on test"));
    assert!(ended.said.iter().any(warned), "{:?}", ended.said);
    let metrics = ended.outcome().metrics;
    assert_eq!(metrics["rmse"], metrics["test_best_rmse"]);

    let torn = dataset(
        &mut bench,
        "torn",
        8,
        |_, _, _| (),
        |item, bytes| Some(if item == 5 { bytes[..200].to_vec() } else { bytes }),
    );
    let message = failed(&bench, &torn, &good, json!({}));
    assert!(
        message.contains("1 of 8 pictures") && message.contains("`05.npy` is a NumPy file that was cut short"),
        "{message}"
    );

    let missing = dataset(&mut bench, "missing", 8, |_, _, _| (), |item, bytes| (item != 1).then_some(bytes));
    let message = failed(&bench, &missing, &good, json!({}));
    assert!(message.contains("`01.png` has no depth map"), "{message}");

    let void = dataset(&mut bench, "void", 8, |_, _, grid| grid.values.fill(0.0), |_, bytes| Some(bytes));
    let message = failed(&bench, &good, &void, json!({}));
    assert!(message.contains("no pixel of test has a known depth"), "{message}");
    let some = |item: u64, _: &mut Picture, grid: &mut Grid| {
        if item == 3 {
            grid.values.fill(f32::NAN);
        }
    };
    let some = dataset(&mut bench, "some", 8, some, |_, bytes| Some(bytes));
    let ended = bench.run(&bench.job("z", "depth", params(&encoder, &good, &some, json!({ "epochs": 1 }))));
    let said = format!("{:?}", ended.said);
    assert!(said.contains("no pixel of 1 pictures of test has a known depth, first `03.png`"), "{said}");

    let odd = |item: u64, picture: &mut Picture, grid: &mut Grid| {
        if item == 4 {
            *picture = picture.cropped(0, 0, 12, 8);
            *grid = Grid { width: 12, height: 8, values: vec![2.0; 96] };
        }
    };
    let odd = dataset(&mut bench, "odd", 8, odd, |_, bytes| Some(bytes));
    let message = failed(&bench, &odd, &good, json!({ "select": { "last": {} } }));
    assert!(message.contains("must have one size") && message.contains("12x8"), "{message}");
}
