//! Pretraining from job to outcome, on the smallest networks and pictures.

use std::collections::BTreeMap;

use harness_protocol::FromWorker;
use serde_json::{Value, json};
use tch::Tensor;

use crate::model::store;
use crate::testing::{Bench, plain, tiny};

const CLASSES: [&str; 3] = ["across", "down", "squares"];

fn same(_: usize, bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn params(data: &Value, change: Value) -> Value {
    let mut params = json!({
        "data": data, "encoder": tiny(), "epochs": 3, "batch": 8,
        "contrast": { "moco": { "dim": 8, "queue": 16, "momentum": 0.9 } },
        "views": { "two_crops": { "size": 12 } },
        "optimizer": { "sgd": { "lr": 0.05, "weight_decay": 0.0001 } },
    });
    for (name, value) in change.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

fn warnings(said: &[FromWorker]) -> Vec<&str> {
    let warning = |message: &'_ FromWorker| matches!(message, FromWorker::Log { level, .. } if level == "warn");
    said.iter()
        .filter(|message| warning(message))
        .map(|message| if let FromWorker::Log { text, .. } = message { text.as_str() } else { "" })
        .collect()
}

fn edit(path: &std::path::Path, change: impl Fn(&mut BTreeMap<String, Tensor>)) {
    let (mut tensors, header) = store::read(path).unwrap();
    change(&mut tensors);
    std::fs::write(path, store::encode(&tensors, header.as_deref()).unwrap()).unwrap();
}

#[test]
fn kept_encoders_are_those_of_shorter_runs_that_stop_there() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    // A constant rate, so that a run of two epochs is the beginning of one of three.
    let change = |keep: Value, epochs: u64| json!({ "keep": keep, "epochs": epochs, "schedule": { "constant": {} } });
    let long = bench.job("long", "pretrain", params(&data, change(json!([2, 3]), 3)));
    let outcome = bench.run(&long).outcome();
    let names: Vec<&str> = outcome.outputs.keys().map(String::as_str).collect();
    assert_eq!(names, ["encoder", "encoder@2", "encoder@3"]);
    let short = bench.job("short", "pretrain", params(&data, change(Value::Null, 2)));
    let stopped = bench.run(&short).outcome();
    assert_eq!(bench.output(&long, &outcome, "encoder@2"), bench.output(&short, &stopped, "encoder"));
    assert_eq!(bench.output(&long, &outcome, "encoder@3"), bench.output(&long, &outcome, "encoder"));
    assert_ne!(bench.output(&long, &outcome, "encoder@2"), bench.output(&long, &outcome, "encoder"));

    // Cut after the kept epoch: it is still there. Asked for one that went by: from the beginning, saying so.
    let second =
        |message: &FromWorker| matches!(message, FromWorker::Metric { name, x, .. } if name == "lr" && *x == 2.0);
    for (name, keep, from_start) in [("cut", json!([2, 3]), false), ("late", Value::Null, true)] {
        let mut job = bench.job(name, "pretrain", params(&data, change(keep, 3)));
        assert!(matches!(bench.run_until(&job, second).last, FromWorker::Cancelled { .. }));
        job.params["keep"] = json!([2, 3]);
        let ended = bench.run(&job);
        let said = warnings(&ended.said).join("\n");
        assert_eq!(said.contains("past epoch 2") && said.contains("from the beginning"), from_start, "{said}");
        let resumed = ended.outcome();
        for output in names.iter() {
            assert_eq!(bench.output(&job, &resumed, output), bench.output(&long, &outcome, output), "{output}");
        }
    }
}

#[test]
fn damaged_and_foreign_checkpoints_are_named_and_not_used() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let job = bench.job("job", "pretrain", params(&data, json!({ "epochs": 2 })));
    let outcome = bench.run(&job).outcome();
    let expected = bench.output(&job, &outcome, "encoder");
    let file = job.work_dir.join("checkpoint.safetensors");
    let good = std::fs::read(&file).unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage; 5] = [
        ("damaged one", Box::new(|| std::fs::write(&file, &good[..good.len() / 2]).unwrap())),
        (
            "do not have the digest",
            Box::new(|| {
                let mut bytes = good.clone();
                let last = bytes.len() - 5;
                bytes[last] ^= 1;
                std::fs::write(&file, bytes).unwrap();
            }),
        ),
        (
            "missing: query/layer3.0.conv1.weight",
            Box::new(|| edit(&file, |t| drop(t.remove("query/layer3.0.conv1.weight")))),
        ),
        (
            "of another shape: key/conv1.weight [8, 3, 3, 3] instead of [4, 3, 3, 3]",
            Box::new(|| {
                edit(&file, |t| {
                    drop(t.insert("key/conv1.weight".into(), Tensor::from_slice(&[0f32; 216]).view([8, 3, 3, 3])))
                })
            }),
        ),
        (
            "unexpected: query/layer5",
            Box::new(|| edit(&file, |t| drop(t.insert("query/layer5".into(), Tensor::from_slice(&[0f32]))))),
        ),
    ];
    for (word, damage) in damages {
        std::fs::write(&file, &good).unwrap();
        damage();
        let ended = bench.run(&job);
        let said = warnings(&ended.said).join("\n");
        assert!(said.contains(word) && said.contains("starting from the beginning"), "{word}: {said}");
        assert_eq!(bench.output(&job, &ended.outcome(), "encoder"), expected);
    }
    // Whole, it is: nothing is left to do.
    std::fs::write(&file, &good).unwrap();
    let ended = bench.run(&job);
    assert!(warnings(&ended.said).is_empty());
    assert_eq!(bench.output(&job, &ended.outcome(), "encoder"), expected);
}

#[test]
fn a_full_disk_stops_no_training_and_spoils_no_checkpoint() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let job = bench.job("job", "pretrain", params(&data, json!({ "checkpoint": { "interval": 0.0 } })));
    std::fs::create_dir_all(&job.work_dir).unwrap();
    std::os::unix::fs::symlink("/dev/full", crate::model::store::part(&job.work_dir.join("checkpoint.safetensors")))
        .unwrap();
    let ended = bench.run(&job);
    let said = warnings(&ended.said).join("\n");
    assert!(said.contains("the run goes on") && said.contains("No space left on device"), "{said}");
    // The room came back after the first try.
    assert!(job.work_dir.join("checkpoint.safetensors").is_file());
    assert_eq!(ended.outcome().metrics["steps"], 6.0);
}

#[test]
fn how_often_checkpoints_are_written_changes_nothing() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let mut outputs = Vec::new();
    for (name, pace) in [("never", json!({ "interval": 1e6, "epochs": 100 })), ("always", json!({ "interval": 0.0 }))] {
        let job = bench.job(name, "pretrain", params(&data, json!({ "checkpoint": pace })));
        let outcome = bench.run(&job).outcome();
        outputs.push(bench.output(&job, &outcome, "encoder"));
    }
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn labels_teach_and_resume_as_contrast_does() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 60, &CLASSES, same);
    let change = json!({
        "contrast": { "supervised": {} }, "epochs": 12, "batch": 12, "batch_norm": { "groups": 1 },
        "views": { "two_crops": { "size": 16, "scale": [0.6, 1.0] } }, "optimizer": { "sgd": { "lr": 0.1 } },
        "augment": { "moco_v2": { "jitter": { "probability": 0.0 }, "blur": { "probability": 0.0 }, "flip": 0.0 } },
    });
    let whole = bench.job("whole", "pretrain", params(&data, change.clone()));
    let outcome = bench.run(&whole).outcome();
    let loss = &outcome.series["loss"].y;
    assert!((loss[0] - 3f64.ln()).abs() < 0.6 && loss[11] < 0.5 * loss[0], "{loss:?}");
    assert_eq!(outcome.metrics["pixels"], 12.0 * 60.0 * 256.0);
    let per_picture = outcome.metrics["flops"] / (12.0 * 60.0);
    let forward = crate::model::cost::forward(&serde_json::from_value(tiny()).unwrap(), 16) as f64;
    assert!(per_picture > 5.0 * forward && per_picture < 6.1 * forward);

    let cut = bench.job("cut", "pretrain", params(&data, change.clone()));
    let stop = |message: &FromWorker| matches!(message, FromWorker::Progress { stage, .. } if stage == "epoch 4/12");
    assert!(matches!(bench.run_until(&cut, stop).last, FromWorker::Cancelled { .. }));
    let resumed = bench.run(&cut).outcome();
    assert_eq!(bench.output(&whole, &outcome, "encoder"), bench.output(&cut, &resumed, "encoder"));

    // In parts, with as many groups: the same but for rounding.
    let mut parted = change.clone();
    parted["batch_norm"] = json!({ "groups": 3 });
    let three = bench.run(&bench.job("three", "pretrain", params(&data, parted.clone()))).outcome();
    parted["accumulate"] = json!(3);
    let parts = bench.run(&bench.job("parts", "pretrain", params(&data, parted))).outcome();
    assert!((three.series["loss"].y[0] - parts.series["loss"].y[0]).abs() < 1e-3);

    // Tells the classes apart where untrained weights do not.
    let encoder = bench.output(&whole, &outcome, "encoder");
    let encoder = bench.input("encoder", &encoder, None);
    let test = bench.dataset("tests", 30, &CLASSES, same);
    let knn = json!({ "encoder": encoder, "train": data, "test": test, "k": 5, "transform": plain() });
    let top1 = bench.run(&bench.job("knn", "knn", knn)).outcome().metrics["top1"];
    assert!(top1 > 0.6, "{top1}");
}

#[test]
fn missing_labels_are_named() {
    let mut bench = Bench::new();
    let one = bench.dataset("one", 16, &["only"], same);
    let supervised = json!({ "contrast": { "supervised": {} } });
    let message = bench.run(&bench.job("a", "pretrain", params(&one, supervised.clone()))).message();
    assert!(message.contains("this dataset has 1 classes"), "{message}");
    let info = harness_protocol::steps::kind("pretrain").unwrap();
    let mut unlabelled = params(&one, supervised);
    unlabelled["data"]["$artifact"]["kind"] = json!("images");
    let problems = (info.resolve)(unlabelled).unwrap_err();
    assert_eq!(problems[0].field, "data");
    assert!(problems[0].message.contains("no class labels"), "{problems:?}");
}

#[test]
fn relations_between_fields_are_checked() {
    let info = harness_protocol::steps::kind("pretrain").unwrap();
    let data = json!({ "$artifact": { "kind": "labelled_images", "digest": "0".repeat(64) } });
    for (change, field, word) in [
        (json!({ "keep": [2, 9] }), "keep", "there is no epoch 9"),
        (json!({ "accumulate": 4 }), "accumulate", "make `batch_norm.groups` a multiple"),
        (
            json!({ "contrast": { "supervised": {} }, "views": { "multi_crop": {} } }),
            "views",
            "the first of `views = two_crops`",
        ),
    ] {
        let problems = (info.resolve)(params(&data, change)).unwrap_err();
        assert!(problems.iter().any(|p| p.field == field && p.message.contains(word)), "{problems:?}");
    }
}

#[test]
fn exhausted_memory_is_told_with_what_to_lower() {
    let data = json!({ "$artifact": { "kind": "images", "digest": "0".repeat(64) } });
    let mut raw = params(&data, json!({ "batch_norm": { "groups": 4 } }));
    raw["contrast"]["moco"]["neighbours"] = json!({ "k": 2 });
    let settings = serde_json::from_value(raw).unwrap();
    // Both ways in which libtorch says so: as a value and as a panic.
    let huge = [1i64 << 46];
    let options = (tch::Kind::Float, tch::Device::Cpu);
    let value = super::advice::on_memory(&settings, || Ok(Tensor::f_zeros(huge, options)?));
    let panic = super::advice::on_memory(&settings, || Ok(Tensor::zeros(huge, options)));
    for said in [value.unwrap_err().to_string(), panic.unwrap_err().to_string()] {
        for word in [
            "281474976710656 bytes more were asked for",
            "`accumulate` (now 1, up to the 4",
            "`batch` (now 8)",
            "`views.two_crops.size` (now 12)",
            "`contrast.moco.queue` (now 16)",
        ] {
            assert!(said.contains(word), "{word} is missing: {said}");
        }
    }
    let other = super::advice::on_memory(&settings, || -> crate::Result<()> { Err("else".into()) });
    assert_eq!(other.unwrap_err().to_string(), "else");
}

#[test]
fn precision_is_reported_as_asked_for_and_as_it_was() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let mut outputs = Vec::new();
    for (asked, achieved) in [("fp32", "fp32"), ("tf32", "fp32"), ("bf16", "bf16")] {
        let job = bench.job(asked, "pretrain", params(&data, json!({ "precision": asked, "epochs": 1 })));
        let outcome = bench.run(&job).outcome();
        assert_eq!(outcome.provenance["precision"], json!({ "requested": asked, "achieved": achieved }));
        outputs.push(bench.output(&job, &outcome, "encoder"));
    }
    assert!(outputs[0] == outputs[1] && outputs[0] != outputs[2]);
}

/// What makes MoCo work: keys that stay comparable while the queue turns over. Without momentum the same recipe does not
/// learn (He et al. 2020, table in 4.1: training fails).
#[test]
fn without_momentum_it_fails() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 96, &CLASSES, same);
    let run = |bench: &Bench, momentum: f64| {
        let change = json!({
            "epochs": 14, "batch": 12, "contrast": { "moco": { "dim": 16, "queue": 96, "momentum": momentum, "temperature": 0.1 } },
            "views": { "two_crops": { "size": 16, "scale": [0.6, 1.0] } },
            "augment": { "moco_v2": {
                "jitter": { "probability": 0.0 }, "grayscale": 0.0, "blur": { "probability": 0.0 }, "flip": 0.0,
            } },
            "optimizer": { "sgd": { "lr": 0.1 } }, "batch_norm": { "groups": 1 },
        });
        let job = bench.job(&momentum.to_string(), "pretrain", params(&data, change));
        bench.run(&job).outcome().series["loss"].y[13]
    };
    let (with, without) = (run(&bench, 0.95), run(&bench, 0.0));
    println!("{with} {without}");
    assert!(without > with + 0.5, "{without} without momentum, {with} with");
}
