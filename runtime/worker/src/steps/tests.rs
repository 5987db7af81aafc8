//! Steps from job to outcome, on the smallest networks and pictures.

use serde_json::{Value, json};

use harness_protocol::FromWorker;
use harness_protocol::model::{Architecture, Resnet, Stem};

use crate::model::Encoder;
use crate::testing::{Bench, plain, tiny};

const CLASSES: [&str; 3] = ["across", "down", "squares"];

fn same(_: usize, bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn untrained(seed: u64) -> Encoder {
    let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.0625 });
    Encoder::random(architecture, [0.5; 3], [0.25; 3], seed).unwrap()
}

fn pretrain(data: &Value, change: Value) -> Value {
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

#[test]
fn a_resumed_pretraining_ends_in_the_same_bytes() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 28, &CLASSES, same);
    let (train, test) = (bench.dataset("train", 9, &CLASSES, same), bench.dataset("tests", 6, &CLASSES, same));
    let monitor = json!({ "knn": { "train": train, "test": test, "k": 3, "transform": plain() } });
    let multi = json!({ "multi_crop": { "large": { "size": 12 }, "small": { "size": 8, "count": 2 } } });
    let params = pretrain(&data, json!({ "monitor": monitor, "views": multi }));

    let whole = bench.job("whole", "pretrain", params.clone());
    let uninterrupted = bench.run(&whole).outcome();
    let again = bench.job("again", "pretrain", params.clone());
    let repeated = bench.run(&again).outcome();
    assert_eq!(bench.output(&whole, &uninterrupted, "encoder"), bench.output(&again, &repeated, "encoder"));

    // Stopped in the middle of an epoch, and again right after one.
    let cut = bench.job("cut", "pretrain", params);
    let stops: [fn(&FromWorker) -> bool; 2] = [
        |message| matches!(message, FromWorker::Progress { stage, .. } if stage == "epoch 1/3"),
        |message| matches!(message, FromWorker::Metric { name, x, .. } if name == "loss" && *x == 2.0),
    ];
    for stop in stops {
        let ended = bench.run_until(&cut, stop);
        assert!(matches!(ended.last, FromWorker::Cancelled { id: 1 }), "{:?}", ended.last);
        assert!(bench.path("cut.work").join("checkpoint.safetensors").is_file());
    }
    let ended = bench.run(&cut);
    assert!(
        ended.said.iter().any(|m| matches!(m, FromWorker::Log { text, .. } if text == "going on from epoch 3, step 1"))
    );
    let resumed = ended.outcome();
    assert_eq!(bench.output(&whole, &uninterrupted, "encoder"), bench.output(&cut, &resumed, "encoder"));
    let but_time = |outcome: &harness_protocol::Outcome| {
        let mut metrics = outcome.metrics.clone();
        assert!(metrics.remove("device_hours").is_some_and(|hours| hours > 0.0));
        metrics
    };
    assert_eq!(but_time(&uninterrupted), but_time(&resumed));
    assert_eq!(uninterrupted.series, resumed.series);
    assert_eq!(resumed.series["knn_top1"].x, [1.0, 2.0, 3.0]);
    assert_eq!(resumed.metrics["steps"], 9.0);
    assert_eq!(resumed.metrics["pixels"], 72.0 * (2.0 * 144.0 + 2.0 * 64.0));
}

#[test]
fn resuming_keeps_both_queues() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 24, &CLASSES, same);
    let near = json!({ "k": 3, "weight": 0.4, "warmup": 1 });
    let objectives =
        [json!({ "dim": 8, "queue": 16, "neighbours": near }), json!({ "dim": 8, "queue": 16, "symmetric": true })];
    let plain =
        bench.job("p", "pretrain", pretrain(&data, json!({ "contrast": { "moco": { "dim": 8, "queue": 16 } } })));
    let plain_outcome = bench.run(&plain).outcome();
    for (index, moco) in objectives.into_iter().enumerate() {
        let params = pretrain(&data, json!({ "contrast": { "moco": moco } }));
        let whole = bench.job(&format!("whole{index}"), "pretrain", params.clone());
        let expected = bench.run(&whole).outcome();
        let cut = bench.job(&format!("cut{index}"), "pretrain", params);
        let stop =
            |message: &FromWorker| matches!(message, FromWorker::Metric { name, x, .. } if name == "loss" && *x == 2.0);
        assert!(matches!(bench.run_until(&cut, stop).last, FromWorker::Cancelled { .. }));
        let resumed = bench.run(&cut).outcome();
        let bytes = bench.output(&whole, &expected, "encoder");
        assert_eq!(bytes, bench.output(&cut, &resumed, "encoder"));
        assert_ne!(bytes, bench.output(&plain, &plain_outcome, "encoder"), "the objective makes no difference");
    }
}

#[test]
fn neighbours_are_found_among_heads_outputs_too() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let job = bench.job("moco", "pretrain", pretrain(&data, json!({ "epochs": 1 })));
    let outcome = bench.run(&job).outcome();
    let encoder = bench.output(&job, &outcome, "encoder");
    let encoder = bench.input("encoder", &encoder, None);
    let test = bench.dataset("tests", 12, &CLASSES, same);
    let knn = |bench: &Bench, encoder: &Value, features: &str| {
        let params = json!({ "encoder": encoder, "train": data, "test": test, "k": 1, "features": features, "transform": plain() });
        let job = bench.job(features, "knn", params);
        let ended = bench.run(&job);
        (job, ended)
    };
    let seen = |features: &str| {
        let (job, ended) = knn(&bench, &encoder, features);
        bench.output(&job, &ended.outcome(), "neighbours")
    };
    assert_ne!(seen("backbone"), seen("head"));
    let random = bench.encoder(&untrained(1));
    assert!(knn(&bench, &random, "head").1.message().contains("no projection head"));
}

#[test]
fn a_broken_or_foreign_checkpoint_is_not_used() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 8, &CLASSES, same);
    let params = pretrain(&data, json!({ "epochs": 1, "contrast": { "moco": { "dim": 8, "queue": 8 } } }));
    let job = bench.job("a", "pretrain", params.clone());
    let first = bench.run(&job).outcome();
    let expected = bench.output(&job, &first, "encoder");

    let mut other = bench.job(
        "a",
        "pretrain",
        pretrain(&data, json!({ "epochs": 2 , "contrast": { "moco": { "dim": 8, "queue": 8 } } })),
    );
    other.key = "other".into();
    assert_eq!(bench.run(&other).outcome().series["loss"].x, [1.0, 2.0]);

    std::fs::write(job.work_dir.join("checkpoint.safetensors"), b"torn").unwrap();
    let ended = bench.run(&job);
    assert!(ended.said.iter().any(|m| matches!(m, FromWorker::Log { level, .. } if level == "warn")));
    let outcome = ended.outcome();
    assert_eq!(bench.output(&job, &outcome, "encoder"), expected);
}

#[test]
fn pretraining_with_a_monitor_gives_the_same_weights_as_without() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 16, &CLASSES, same);
    let monitor = json!({ "knn": { "train": data, "test": data, "k": 1, "transform": plain() } });
    let plain_job = bench.job("plain", "pretrain", pretrain(&data, json!({})));
    let watched_job = bench.job("watched", "pretrain", pretrain(&data, json!({ "monitor": monitor })));
    let (plain, watched) = (bench.run(&plain_job).outcome(), bench.run(&watched_job).outcome());
    assert_eq!(bench.output(&plain_job, &plain, "encoder"), bench.output(&watched_job, &watched, "encoder"));
    // Train and test are the same pictures, so every nearest neighbour is the picture itself.
    assert_eq!(watched.series["knn_top1"].y, [1.0; 3]);
    assert!(!plain.series.contains_key("knn_top1"));
}

#[test]
fn bad_pretraining_input_is_named() {
    let mut bench = Bench::new();
    let small = bench.dataset("small", 5, &CLASSES, same);
    let message = bench.run(&bench.job("a", "pretrain", pretrain(&small, json!({})))).message();
    assert_eq!(message, "a batch of 8 is larger than the dataset of 5 pictures; lower `batch` or use more pictures");

    let broken =
        bench.dataset("broken", 20, &CLASSES, |i, bytes| if i % 7 == 3 { bytes[..60].to_vec() } else { bytes });
    let message = bench.run(&bench.job("b", "pretrain", pretrain(&broken, json!({})))).message();
    assert!(message.starts_with("3 of 20 pictures cannot be used"), "{message}");
    assert!(["003.png", "010.png", "017.png"].iter().all(|name| message.contains(name)), "{message}");

    let changed = bench.dataset("changed", 8, &CLASSES, same);
    std::fs::write(bench.path("changed").join("002.png"), b"else").unwrap();
    let message = bench.run(&bench.job("c", "pretrain", pretrain(&changed, json!({})))).message();
    assert!(message.contains("`002.png`") && message.contains("changed since it was hashed"), "{message}");

    let wild = json!({ "optimizer": { "sgd": { "lr": 1e30 } }, "epochs": 5, "checkpoint": { "interval": 0.0 } });
    let eight = bench.dataset("eight", 16, &CLASSES, same);
    let message = bench.run(&bench.job("d", "pretrain", pretrain(&eight, wild))).message();
    assert!(message.starts_with("the training is not finite in epoch"), "{message}");
    for word in ["at step", "learning rate 10000", "last good checkpoint", "checkpoint.safetensors", "optimizer.lr"] {
        assert!(message.contains(word), "{word} is missing: {message}");
    }

    let mut job = bench.job("e", "pretrain", pretrain(&eight, json!({})));
    job.device = "cuda:77".into();
    assert!(bench.run(&job).message().contains("no device `cuda:77`"));
    job.device = "cpu".into();
    job.version += 1;
    assert!(bench.run(&job).message().contains("version"));
}

/// The loss of MoCo first rises while the queue fills with keys that resemble each other, and falls once the encoder
/// tells pictures apart; a broken gradient leaves it at ln(1 + queue).
#[test]
fn pretraining_learns() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 128, &CLASSES, same);
    let change = json!({
        "epochs": 16, "batch": 16, "contrast": { "moco": { "dim": 16, "queue": 32, "momentum": 0.9, "temperature": 0.1 } },
        "views": { "two_crops": { "size": 16, "scale": [0.6, 1.0] } },
        "augment": { "moco_v2": {
            "jitter": { "probability": 0.0 }, "grayscale": 0.0, "blur": { "probability": 0.0 }, "flip": 0.0,
        } },
        "optimizer": { "sgd": { "lr": 0.1 } }, "batch_norm": { "groups": 1 },
    });
    let outcome = bench.run(&bench.job("a", "pretrain", pretrain(&data, change))).outcome();
    let loss = &outcome.series["loss"].y;
    let uniform = 33f64.ln();
    let highest = loss.iter().copied().fold(0.0, f64::max);
    assert!(loss[15] < uniform - 0.3 && loss[15] < highest - 0.2, "{loss:?}");
}

#[test]
fn encoders_are_made_and_read() {
    let mut bench = Bench::new();
    let random = |seed: u64| json!({ "source": { "random": { "architecture": tiny() } }, "seed": seed });
    let job = bench.job("random", "encoder", random(1));
    let outcome = bench.run(&job).outcome();
    let bytes = bench.output(&job, &outcome, "encoder");
    assert!(outcome.metrics["parameters"] > 1000.0);
    let other = bench.job("other", "encoder", random(2));
    let outcome = bench.run(&other).outcome();
    assert_ne!(bench.output(&other, &outcome, "encoder"), bytes);

    // As a file, with a prefix and a tensor too many.
    let untrained = untrained(1);
    let network = untrained.need_network("test").unwrap();
    let mut tensors: std::collections::BTreeMap<String, tch::Tensor> = network
        .store
        .tensors()
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (format!("module.{name}"), tensor.shallow_clone()))
        .collect();
    let write = |bench: &mut Bench, tensors: &std::collections::BTreeMap<String, tch::Tensor>| {
        bench.input("file", &crate::model::store::encode(tensors, None).unwrap(), None)
    };
    let from = |file: &Value, prefix: &str| json!({ "file": file, "architecture": tiny(), "prefix": prefix });
    let file = write(&mut bench, &tensors);
    let job = bench.job("file", "encoder", from(&file, "module."));
    let outcome = bench.run(&job).outcome();
    assert_eq!(outcome.metrics["parameters"], network.store.parameter_count() as f64);
    assert!(outcome.provenance["weights"].as_str().unwrap().contains("missing: 20 × `num_batches_tracked`"));
    // Nothing needs to be said of what the file itself tells.
    let inferred = bench.job("inferred", "encoder", json!({ "file": file }));
    let again = bench.run(&inferred).outcome();
    assert_eq!(bench.output(&inferred, &again, "encoder"), bench.output(&job, &outcome, "encoder"));
    let message = bench.run(&bench.job("none", "encoder", from(&file, "teacher."))).message();
    assert!(message.contains("starts with `teacher.`"), "{message}");
    tensors.insert("module.extra".into(), tch::Tensor::from_slice(&[1.0f32]));
    tensors.remove("module.conv1.weight");
    let file = write(&mut bench, &tensors);
    let message = bench.run(&bench.job("misfit", "encoder", from(&file, "module."))).message();
    assert!(message.contains("missing: conv1.weight"), "{message}");
    let torn = bench.input("file", b"torn", None);
    let message = bench.run(&bench.job("torn", "encoder", from(&torn, "module."))).message();
    assert!(message.contains("neither a PyTorch checkpoint"), "{message}");
}

#[test]
fn recalibration_gives_the_average_of_the_batches() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 12, &CLASSES, same);
    let encoder = untrained(3);
    let input = bench.encoder(&encoder);
    let params = json!({
        "source": { "copy": { "of": input } },
        "recalibrate": { "data": data, "batch": 4, "transform": plain() },
    });
    let job = bench.job("a", "encoder", params);
    let outcome = bench.run(&job).outcome();
    let path = job.out_dir.join(&outcome.outputs["encoder"].file);
    let measured = Encoder::load(&path, tch::Device::Cpu).unwrap();
    let (before, after) = (encoder.need_network("").unwrap(), measured.need_network("").unwrap());
    for (name, tensor) in before.store.parameters() {
        assert!(tensor.equal(&after.store.get(&name).unwrap()), "{name} is a weight and must stay");
    }
    assert_eq!(after.store.get("bn1.num_batches_tracked").unwrap().int64_value(&[]), 3);
    // By hand: the mean of the first convolution's output over each batch, averaged.
    let images: Vec<f32> = (0..12)
        .flat_map(|i| encoder.prepare().numbers(&crate::testing::picture(i % 3, 4000 + u64::from(i), 16)))
        .collect();
    let x = tch::Tensor::from_slice(&images).view([12, 3, 16, 16]);
    let mean = before.resnet.conv1.forward(&x).mean_dim([0i64, 2, 3].as_slice(), false, tch::Kind::Float);
    let difference = (mean - after.store.get("bn1.running_mean").unwrap()).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn nearest_neighbours_of_every_kind_of_encoder() {
    let mut bench = Bench::new();
    let (train, test) = (bench.dataset("train", 30, &CLASSES, same), bench.dataset("tests", 9, &CLASSES, same));
    for (name, encoder) in [("net", untrained(1)), ("pixels", Encoder::Pixels(8)), ("histogram", Encoder::Histogram(4))]
    {
        let encoder = bench.encoder(&encoder);
        let params = json!({ "encoder": encoder, "train": train, "test": test, "k": 200, "transform": plain() });
        let job = bench.job(name, "knn", params);
        let outcome = bench.run(&job).outcome();
        assert_eq!(outcome.metrics["majority_top1"], 1.0 / 3.0);
        assert_eq!(outcome.metrics["top5"], 1.0);
        let gallery: harness_protocol::Gallery =
            serde_json::from_slice(&bench.output(&job, &outcome, "neighbours")).unwrap();
        assert_eq!(gallery.items.len(), 8);
        assert!(gallery.items.iter().all(|item| item.width > 500 && !item.png_base64.is_empty()));
        assert!(outcome.provenance.contains_key("pictures_per_s"));
    }
}

#[test]
fn classes_are_matched_by_name() {
    let mut bench = Bench::new();
    let train = bench.dataset("train", 9, &CLASSES, same);
    // The same class numbers under other names: `across` is now 2.
    let renamed = bench.dataset("train", 9, &["down", "squares", "across"], same);
    let unknown = bench.dataset("tests", 6, &["across", "spots"], same);
    let encoder = bench.encoder(&Encoder::Pixels(16));
    let params =
        |test: &Value| json!({ "encoder": encoder, "train": train, "test": test, "k": 1, "transform": plain() });
    // Every picture's nearest is itself, whose name differs now.
    assert_eq!(bench.run(&bench.job("a", "knn", params(&train))).outcome().metrics["top1"], 1.0);
    assert_eq!(bench.run(&bench.job("b", "knn", params(&renamed))).outcome().metrics["top1"], 0.0);
    let message = bench.run(&bench.job("c", "knn", params(&unknown))).message();
    assert!(message.contains("class `spots`, which train does not have"), "{message}");
}

#[test]
fn linear_probes_learn_and_repeat() {
    let mut bench = Bench::new();
    let (train, test) = (bench.dataset("train", 30, &CLASSES, same), bench.dataset("tests", 9, &CLASSES, same));
    let encoder = bench.encoder(&untrained(1));
    let params = |features: Value| {
        json!({
            "encoder": encoder, "train": train, "test": test, "features": features, "epochs": 20, "batch": 8,
            "optimizer": { "sgd": { "lr": 0.1 } }, "schedule": { "cosine": {} }, "transform": plain(),
        })
    };
    for (name, features) in [("cached", json!({ "cached": {} })), ("augmented", json!({ "augmented": {} }))] {
        let job = bench.job(name, "linear_probe", params(features.clone()));
        let outcome = bench.run(&job).outcome();
        let loss = &outcome.series["loss"].y;
        assert!(loss.len() == 20 && loss[19] < loss[0], "{name}: {loss:?}");
        assert!((loss[0] - 3f64.ln()).abs() < 0.5, "{name}: {loss:?}");
        let again = bench.job("again", "linear_probe", params(features));
        let repeated = bench.run(&again).outcome();
        assert_eq!(outcome.metrics, repeated.metrics);
        assert_eq!(bench.output(&job, &outcome, "classifier"), bench.output(&again, &repeated, "classifier"));
    }
    // The classifier is for raw features although it was trained on standardised ones.
    let job = bench.job("pixels", "linear_probe", params(json!({ "cached": {} })));
    let outcome = bench.run(&job).outcome();
    let (tensors, _) = crate::model::store::read(&job.out_dir.join(&outcome.outputs["classifier"].file)).unwrap();
    let encoder = untrained(1);
    let numbers: Vec<f32> = (0..9u32)
        .flat_map(|i| encoder.prepare().numbers(&crate::testing::picture(i % 3, 5000 + u64::from(i), 16)))
        .collect();
    let x = encoder.forward(&numbers, 9, 16, tch::Device::Cpu).unwrap();
    let said = x.linear(&tensors["weight"], Some(&tensors["bias"])).argmax(1, false);
    let right = (0..9).filter(|&i| said.int64_value(&[i]) == i % 3).count();
    assert_eq!(right as f64 / 9.0, outcome.metrics["top1"]);
}

#[test]
fn embedded_features_give_what_the_encoder_gives() {
    let mut bench = Bench::new();
    let (train, test) = (bench.dataset("train", 70, &CLASSES, same), bench.dataset("tests", 9, &CLASSES, same));
    let encoder = bench.encoder(&untrained(1));
    let mut embed = |name: &str, data: &Value| {
        let params = json!({ "encoder": encoder, "data": data, "transform": plain() });
        let job = bench.job(name, "embed", params);
        let outcome = bench.run(&job).outcome();
        assert_eq!(outcome.metrics["dimensions"], 32.0);
        let bytes = bench.output(&job, &outcome, "features");
        bench.input("features", &bytes, None)
    };
    let vectors = json!({ "train": embed("a", &train), "test": embed("b", &test) });
    let knn = |more: Value| {
        let mut params = json!({ "train": train, "test": test, "k": 3, "also": [1, 500] });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bench.run(&bench.job("knn", "knn", params))
    };
    let (given, direct) = (
        knn(json!({ "vectors": vectors })).outcome(),
        knn(json!({ "encoder": encoder, "transform": plain() })).outcome(),
    );
    assert_eq!(given.metrics, direct.metrics);
    assert_eq!(given.series, direct.series);
    assert_eq!(given.series["top1_by_k"].x, [1.0, 3.0, 500.0]);
    assert_eq!(given.series["top1_by_k"].y[1], given.metrics["top1"]);

    // Two splits mixed up, and numbers that are none.
    let swapped = json!({ "vectors": { "train": vectors["test"], "test": vectors["train"] } });
    let message = knn(swapped).message();
    assert!(message.contains("vectors of train have 9 rows") && message.contains("70 pictures"), "{message}");
    let mut values = vec![0.5; 9 * 32];
    values[4 * 32 + 1] = f32::NAN;
    let bad = bench.vectors(&values, 32);
    let params = json!({ "train": train, "test": test, "vectors": { "train": vectors["train"], "test": bad } });
    let message = bench.run(&bench.job("nan", "knn", params)).message();
    assert!(message.contains("`004.png` are not finite"), "{message}");
    let narrow = bench.vectors(&[0.5; 9 * 3], 3);
    let params = json!({ "train": train, "test": test, "vectors": { "train": vectors["train"], "test": narrow } });
    let message = bench.run(&bench.job("narrow", "knn", params)).message();
    assert!(message.contains("32 numbers") && message.contains("of different encoders"), "{message}");
}

#[test]
fn an_encoder_that_gives_no_numbers_names_the_picture() {
    let mut bench = Bench::new();
    let data = bench.dataset("data", 5, &CLASSES, same);
    let encoder = untrained(1);
    let network = encoder.need_network("test").unwrap();
    let _ = network.store.get("bn1.running_var").unwrap().fill_(f64::NAN);
    let encoder = bench.encoder(&encoder);
    let params = json!({ "encoder": encoder, "data": data, "transform": plain() });
    let message = bench.run(&bench.job("a", "embed", params)).message();
    assert!(message.contains("`000.png` are not finite (and those of 4 more"), "{message}");
}

/// On cached features the probe ends where logistic regression does.
#[test]
fn a_probe_reaches_logistic_regression() {
    use crate::testing::golden;
    let expected = &golden::file()["logistic"];
    let mut bench = Bench::new();
    let names: Vec<String> = (0..10).map(|class| format!("class{class}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (train, test) = (bench.dataset("train", 700, &names, same), bench.dataset("tests", 1000, &names, same));
    let x = bench.vectors(&golden::table(700, 16, 10, 2.2, 0).0, 16);
    let y = bench.vectors(&golden::table(1000, 16, 10, 2.2, 200_000).0, 16);
    let params = json!({
        "train": train, "test": test, "vectors": { "train": x, "test": y }, "features": { "cached": {} },
        "epochs": 400, "batch": 700, "optimizer": { "sgd": { "lr": 1.0 } }, "schedule": { "cosine": {} },
    });
    let job = bench.job("probe", "linear_probe", params.clone());
    let outcome = bench.run(&job).outcome();
    let near = |name: &str, tool: &str, most: f64| {
        let (ours, theirs) = (outcome.metrics[name], expected[tool].as_f64().unwrap());
        assert!((ours - theirs).abs() <= most, "{name}: {ours} against {theirs}");
    };
    near("top1", "test", 0.005);
    near("train_top1", "train", 0.005);
    let loss = outcome.series["loss"].y.last().copied().unwrap();
    assert!((loss - expected["loss"].as_f64().unwrap()).abs() < 1e-3, "{loss}");
    assert_eq!(outcome.series["test_top1"].y.last(), outcome.metrics.get("top1"));
    let gallery: harness_protocol::Gallery =
        serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
    assert_eq!((gallery.items.len(), gallery.items[0].width), (1, 320));
    let table: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion_counts")).unwrap();
    let right: u64 = (0..10).map(|class| table["counts"][class][class].as_u64().unwrap()).sum();
    assert_eq!(right as f64 / 1000.0, outcome.metrics["top1"]);

    // As published: the best epoch on test, and that it is said.
    let mut official = params;
    official["profile"] = "official".into();
    official["epochs"] = 30.into();
    let ended = bench.run(&bench.job("official", "linear_probe", official));
    assert!(
        ended
            .said
            .iter()
            .any(|m| matches!(m, FromWorker::Log { level, text, .. } if level == "warn" && text.contains("flatters")))
    );
    let first = outcome;
    let outcome = ended.outcome();
    let curve = &outcome.series["test_top1"].y;
    let best = curve.iter().copied().fold(0.0, f64::max);
    assert_eq!(outcome.metrics["top1"], best);
    assert_eq!(curve[outcome.metrics["chosen_epoch"] as usize - 1], best);
    let kept = outcome.provenance["warnings"][0].as_str().unwrap();
    assert!(kept.contains("was chosen by its `top1` on test"), "{kept}");
    let answers: harness_protocol::Gallery = serde_json::from_slice(&bench.output(&job, &first, "answers")).unwrap();
    assert_eq!(answers.items.len(), 2);
    assert!(answers.items[0].caption.starts_with("right (") && answers.items[1].caption.contains("taken for"));
}

/// What is chosen by a part of train is chosen without test, and the part is not learned from.
#[test]
fn a_part_of_train_chooses() {
    use crate::testing::golden;
    let mut bench = Bench::new();
    let names = ["a", "b", "c", "d", "e"];
    let train = bench.dataset("train", 200, &names, same);
    let tests = [bench.dataset("tests", 60, &names, same), bench.dataset("other", 90, &names, same)];
    // Classes that overlap, so that it matters how many neighbours and how many epochs there are.
    let values = golden::table(200, 12, 5, 1.2, 0).0;
    let x = bench.vectors(&values, 12);
    let asked = [60, 90].map(|rows| bench.vectors(&golden::table(rows, 12, 5, 1.2, 70_000).0, 12));
    let entries = bench.manifest(&train).entries;
    let (out, _) = harness_datasets::hold_out(&entries, 0.2, 0);
    assert_eq!(out.iter().filter(|out| **out).count(), 40);
    let rows = |wanted: bool| -> Vec<f32> {
        values.chunks(12).zip(&out).filter(|(_, out)| **out == wanted).flat_map(|(row, _)| row.to_vec()).collect()
    };
    let (kept, held) = (bench.some(&train, |at| !out[at]), bench.some(&train, |at| out[at]));
    let (kept_x, held_x) = (bench.vectors(&rows(false), 12), bench.vectors(&rows(true), 12));
    let run = |name: &str, kind: &str, params: Value| {
        let job = bench.job(name, kind, params);
        let ended = bench.run(&job);
        (job, ended)
    };
    let by_part = json!({ "holdout": { "share": 0.2 } });

    let knn = |test: &Value, y: &Value, select: &Value| {
        let vectors = json!({ "train": x, "test": y });
        let params =
            json!({ "train": train, "test": test, "vectors": vectors, "k": 1, "also": [5, 40, 90], "select": select });
        run("knn", "knn", params).1.outcome()
    };
    let [first, second] = [0, 1].map(|at| knn(&tests[at], &asked[at], &by_part));
    let curve = &first.series["holdout_top1_by_k"];
    assert_eq!((&curve.x, curve), (&vec![1.0, 5.0, 40.0, 90.0], &second.series["holdout_top1_by_k"]));
    let highest = curve.y.iter().copied().fold(0.0, f64::max);
    let place = curve.y.iter().position(|y| *y == highest).unwrap();
    assert_eq!(first.metrics["chosen_k"], curve.x[place]);
    assert_eq!(first.metrics["top1"], first.series["top1_by_k"].y[place]);
    // The same by two steps: what is kept classifies what is held out.
    let vectors = json!({ "train": kept_x, "test": held_x });
    let by_hand = json!({ "train": kept, "test": held, "vectors": vectors, "k": 1, "also": [5, 40, 90] });
    let by_hand = run("hand", "knn", by_hand).1.outcome();
    assert_eq!(by_hand.series["top1_by_k"].y, curve.y);
    assert_eq!(by_hand.metrics["chosen_k"], 1.0);
    let flattering = knn(&tests[0], &asked[0], &json!({ "best_on_test": {} }));
    assert_eq!(flattering.metrics["top1"], first.series["top1_by_k"].y.iter().copied().fold(0.0, f64::max));
    assert!(flattering.provenance["warnings"][0].as_str().unwrap().contains("on test"));
    assert!(!first.provenance.contains_key("warnings"));

    let probe = |train: &Value, test: &Value, x: &Value, y: &Value, more: Value| {
        let mut params = json!({
            "train": train, "test": test, "vectors": { "train": x, "test": y }, "features": { "cached": {} },
            "batch": 20, "schedule": { "steps": { "at": [], "factor": 0.1 } },
        });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (job, ended) = run("probe", "linear_probe", params);
        let outcome = ended.outcome();
        let classifier = bench.output(&job, &outcome, "classifier");
        (outcome, classifier)
    };
    let chosen = json!({ "select": by_part, "rates": [1e-5, 0.3, 3.0], "epochs": 12 });
    let (first, classifier) = probe(&train, &tests[0], &x, &asked[0], chosen.clone());
    assert_eq!(probe(&train, &tests[1], &x, &asked[1], chosen).1, classifier, "test makes a difference");
    let held = &first.series["holdout_top1_by_epoch"].y;
    let highest = held.iter().copied().fold(0.0, f64::max);
    let epoch = held.iter().position(|y| *y == highest).unwrap() + 1;
    assert_eq!((first.metrics["holdout_top1"], first.metrics["chosen_epoch"]), (highest, epoch as f64));
    assert!(first.metrics["chosen_rate"] > 1e-5);
    let by_rate = &first.series["best_by_rate"];
    let at = by_rate.x.iter().position(|rate| *rate == first.metrics["chosen_rate"]).unwrap();
    assert_eq!(by_rate.y[at], by_rate.y.iter().copied().fold(0.0, f64::max));
    // The same by hand: as many epochs on what is kept alone.
    let rate = json!({ "sgd": { "lr": first.metrics["chosen_rate"] } });
    let (by_hand, same) = probe(&kept, &tests[0], &kept_x, &asked[0], json!({ "epochs": epoch, "optimizer": rate }));
    assert_eq!(same, classifier);
    assert_eq!(by_hand.metrics["top1"], first.metrics["top1"]);

    let tiny = bench.some(&train, |at| at < 5);
    let params = json!({ "train": tiny, "test": tests[0], "encoder": bench.encoder(&untrained(1)), "k": 1, "also": [2],
        "select": by_part, "transform": plain() });
    let message = bench.run(&bench.job("tiny", "knn", params)).message();
    assert!(message.contains("holds out 0 of 5 pictures"), "{message}");
}

#[test]
fn support_vector_machines_of_a_multi_label_set() {
    use crate::testing::golden;
    let mut bench = Bench::new();
    // Two classes as in the golden problems, one never shown in train, one never in test.
    let names = ["zero", "pair", "untrained", "untested"];
    let answers = |test: bool| {
        move |index: usize| {
            let class = index % 9;
            let is = |yes: bool| if yes { 1 } else { -1 };
            let difficult = test && index % 10 == 3;
            let pair = if difficult { 0 } else { is(class == 1 || class == 2) };
            vec![is(class == 0), pair, is(test && class == 3), is(!test && class == 3)]
        }
    };
    let train = bench.multilabel("train", 240, &names, answers(false));
    let test = bench.multilabel("tests", 180, &names, answers(true));
    let x = bench.vectors(&golden::table(240, 24, 9, 6.0, 0).0, 24);
    let y = bench.vectors(&golden::table(180, 24, 9, 6.0, 90_000).0, 24);
    let base = json!({ "train": train, "test": test, "vectors": { "train": x, "test": y } });
    let run = |name: &str, more: Value| {
        let mut params = base.clone();
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let job = bench.job(name, "linear_svm", params);
        let ended = bench.run(&job);
        (job, ended)
    };
    let (job, ended) = run("svm", json!({}));
    let warned = |said: &[FromWorker], word: &str| {
        said.iter().any(|m| matches!(m, FromWorker::Log { level, text, .. } if level == "warn" && text.contains(word)))
    };
    assert!(warned(&ended.said, "`untrained` (no positive in train), `untested` (no positive in test)"));
    let outcome = ended.outcome();
    assert_eq!(outcome.metrics["classes_counted"], 2.0);
    let file: Value = serde_json::from_slice(&bench.output(&job, &outcome, "classes")).unwrap();
    let golden = golden::file();
    let expected = golden["svm"][0]["0.5"]["envelope"].as_f64().unwrap();
    let zero = file["classes"]["zero"]["ap"].as_f64().unwrap();
    assert!((zero - expected).abs() < 5e-4, "{zero} {expected}");
    let pair = &file["classes"]["pair"];
    assert_eq!(pair["test_difficult"], 18);
    assert!(pair["ap_without_difficult"].as_f64() > pair["ap"].as_f64());
    let mean = (zero + pair["ap"].as_f64().unwrap()) / 2.0;
    assert!((outcome.metrics["map"] - mean).abs() < 1e-12);
    assert!(outcome.metrics["positives"] > 0.1 && outcome.metrics["positives"] < 0.25);
    let above = outcome.metrics["chance_map"] - outcome.metrics["positives"];
    assert!((0.001..0.1).contains(&above), "{:?}", outcome.metrics);
    assert_eq!(file["classes"]["untested"]["left_out"], "no positive in test");
    let message = run("strict", json!({ "absent": "error" })).1.message();
    assert!(message.contains("`untrained`") && message.contains("leave_out"), "{message}");

    // The best of cross-validation, class by class: 0.01 for class 0 by the golden values.
    let (job, ended) = run("crossed", json!({ "costs": [0.01, 0.1, 1.0, 10.0] }));
    let crossed = ended.outcome();
    let file: Value = serde_json::from_slice(&bench.output(&job, &crossed, "classes")).unwrap();
    assert_eq!(file["classes"]["zero"]["cost"], 0.01);

    let shots = json!({ "shots": [1, 4, 16], "samples": 3 });
    let costs = json!([0.1, 1.0]);
    let fixed = run("fixed", json!({ "low_shot": shots, "costs": costs })).1.outcome();
    assert_eq!(fixed.series["map_by_shots"].x, [1.0, 4.0, 16.0]);
    assert!((fixed.series["map_by_shots"].y[2] - fixed.metrics["map"]).abs() < 1e-12);
    let (_, ended) = run("official", json!({ "low_shot": shots, "costs": costs, "profile": "official" }));
    assert!(warned(&ended.said, "flatter"));
    let official = ended.outcome();
    for (official, fixed) in official.series["map_by_shots"].y.iter().zip(&fixed.series["map_by_shots"].y) {
        assert!(official > &(fixed - 0.1));
    }
    assert_ne!(official.metrics["map"], outcome.metrics["map"]);
    let without = official.series["map_by_shots_without_difficult"].y[2];
    assert!((without - official.metrics["map_without_difficult"]).abs() < 1e-12);
}
