//! The step from job to outcome, on predictions of every form.

use std::collections::BTreeSet;

use harness_datasets::hash::digest;
use harness_protocol::manifest::{Annotation, FileEntry, MANIFEST_FORMAT, MaskManifest};
use harness_protocol::{FromWorker, Location, LocationForm};
use harness_views::{IndexMask, encode_png_index};
use serde_json::{Value, json};

use crate::steps::propagate::tests::{frame, network, params, video};
use crate::testing::{Bench, Ended};

fn png(mask: &IndexMask) -> Vec<u8> {
    encode_png_index(mask, None).unwrap()
}

/// Predictions of frames `frames` as a tar; `edit` may change or drop them.
fn packed(frames: std::ops::Range<usize>, edit: impl Fn(usize, IndexMask) -> Option<IndexMask>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for at in frames {
        if let Some(mask) = edit(at, frame(at).1) {
            crate::steps::video::pack(&mut archive, &format!("result/squares/{at:05}.png"), &png(&mask)).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

fn scored(bench: &Bench, name: &str, predictions: &Value, data: &Value, read: &str) -> Ended {
    let params = json!({ "predictions": predictions, "data": data, "read": read });
    bench.run(&bench.job(name, "score_video", params))
}

fn warnings(ended: &Ended) -> Vec<String> {
    let warning = |message: &FromWorker| match message {
        FromWorker::Log { level, text, .. } if level == "warn" => Some(text.clone()),
        _ => None,
    };
    ended.said.iter().filter_map(warning).collect()
}

#[test]
fn what_was_propagated_scores_as_propagate_says() {
    let mut bench = Bench::new();
    let (encoder, data) = (bench.encoder(&network()), video(&mut bench, "a", 6, Annotation::Indexed, |_, _, _| ()));
    let job = bench.job("p", "propagate", params(&encoder, &data));
    let outcome = bench.run(&job).outcome();
    assert_eq!(outcome.outputs["masks"].kind, "predictions");
    let masks = bench.output(&job, &outcome, "masks");
    let predictions = bench.input("predictions", &masks, None);
    let mut threads = Vec::new();
    for count in [1, 3] {
        let mut job = bench.job("s", "score_video", json!({ "predictions": predictions, "data": data }));
        job.threads = count;
        let again = bench.run(&job).outcome();
        assert_eq!(again.metrics, outcome.metrics);
        threads
            .push(["objects", "sequences", "overall", "report", "frames"].map(|name| bench.output(&job, &again, name)));
        let kind = harness_protocol::steps::kind("score_video").unwrap();
        let outputs: BTreeSet<&str> = kind.outputs.iter().map(|output| output.name).collect();
        assert_eq!(outputs, again.outputs.keys().map(String::as_str).collect());
    }
    assert_eq!(threads[0], threads[1]);
    let text = |at: usize| String::from_utf8(threads[0][at].clone()).unwrap();
    let objects = text(0);
    let lines: Vec<&str> = objects.lines().collect();
    assert_eq!(lines[0], "Sequence,J-Mean,F-Mean,J-Recall,J-Decay,F-Recall,F-Decay");
    assert!(
        lines.len() == 3 && lines[1].starts_with("squares_1,0.") && lines[2].starts_with("squares_2,0."),
        "{objects}"
    );
    assert!(text(1).lines().nth(1).unwrap().starts_with("squares,0."));
    assert!(text(2).starts_with("J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay\n0."));
    let report: Value = serde_json::from_slice(&threads[0][3]).unwrap();
    let mean: f64 = report["frames"].as_array().unwrap().iter().map(|row| row["j"].as_f64().unwrap()).sum();
    assert!((mean / 8.0 - outcome.metrics["j"]).abs() < 1e-12, "two objects in four scored frames");
}

#[test]
fn folders_of_files_and_archives_score_alike() {
    let mut bench = Bench::new();
    let data = video(&mut bench, "a", 5, Annotation::Indexed, |_, _, _| ());
    // Only scored frames are needed.
    let predictions = bench.input("folder", &packed(1..4, |_, mask| Some(mask)), None);
    let outcome = scored(&bench, "t", &predictions, &data, "ids").outcome();
    assert_eq!((outcome.metrics["jf"], outcome.metrics["j_recall"], outcome.metrics["j_decay"]), (1.0, 1.0, 0.0));
    assert!(outcome.metrics["copy_j"] < 0.9);

    let folder = bench.path("files");
    std::fs::create_dir_all(folder.join("squares")).unwrap();
    let files = (1..4).map(|at| {
        let (path, bytes) = (format!("squares/{at:05}.png"), png(&frame(at).1));
        std::fs::write(folder.join(&path), &bytes).unwrap();
        FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) }
    });
    let manifest = MaskManifest { format: MANIFEST_FORMAT, files: files.collect() };
    let location = Location { path: folder.clone(), form: LocationForm::Folder, ..Location::default() };
    let listed = bench.input("mask_files", &serde_json::to_vec(&manifest).unwrap(), Some(location));
    assert_eq!(scored(&bench, "f", &listed, &data, "ids").outcome().metrics, outcome.metrics);
    std::fs::write(folder.join("squares/00002.png"), png(&frame(0).1)).unwrap();
    assert!(scored(&bench, "c", &listed, &data, "ids").message().contains("changed since it was hashed"));
}

#[test]
fn one_object_is_whatever_is_not_background() {
    let mut bench = Bench::new();
    let data = video(&mut bench, "a", 5, Annotation::Indexed, |_, _, _| ());
    let grey = packed(0..5, |_, mut mask| {
        mask.data.iter_mut().filter(|id| **id != 0).for_each(|id| *id = 255);
        Some(mask)
    });
    let grey = bench.input("archive", &grey, None);
    let outcome = scored(&bench, "t", &grey, &data, "one_object").outcome();
    assert_eq!(outcome.metrics["jf"], 1.0);
    let message = scored(&bench, "x", &grey, &data, "ids").message();
    assert!(message.contains("squares, frame 00001: object 255") && message.contains("read = one_object"), "{message}");
}

#[test]
fn bad_predictions_are_named() {
    let mut bench = Bench::new();
    let data = video(&mut bench, "a", 6, Annotation::Indexed, |_, _, _| ());
    let failed = |bench: &mut Bench, bytes: Vec<u8>| {
        let predictions = bench.input("archive", &bytes, None);
        scored(bench, "x", &predictions, &data, "ids").message()
    };
    let message = failed(&mut bench, packed(0..6, |at, mask| (at != 2 && at != 4).then_some(mask)));
    assert!(message.contains("squares: 2 of 4 scored frames have no prediction: 00002, 00004"), "{message}");
    assert!(message.contains("sequences found: squares"), "{message}");
    let message = failed(&mut bench, packed(0..0, |_, mask| Some(mask)));
    assert!(message.contains("sequences found: none"), "{message}");

    let small = |at: usize, mask: IndexMask| {
        Some(if at == 3 { IndexMask { width: 4, height: 2, data: vec![0; 8] } } else { mask })
    };
    let message = failed(&mut bench, packed(0..6, small));
    assert!(message.starts_with("squares, frame 00003: `result/squares/00003.png` is 4x2"), "{message}");
    assert!(message.contains("40x32"), "{message}");

    let unknown = |at: usize, mut mask: IndexMask| {
        if at == 4 {
            mask.data[7] = 3;
        }
        Some(mask)
    };
    let message = failed(&mut bench, packed(0..6, unknown));
    assert!(message.starts_with("squares, frame 00004: object 3 is predicted"), "{message}");

    let mut archive = tar::Builder::new(Vec::new());
    for path in ["a/squares/00001.png", "b/squares/00001.png"] {
        crate::steps::video::pack(&mut archive, path, &png(&frame(1).1)).unwrap();
    }
    let message = failed(&mut bench, archive.into_inner().unwrap());
    assert!(message.contains("`a/squares/00001.png` and `b/squares/00001.png`"), "{message}");

    let mut archive = tar::Builder::new(Vec::new());
    for at in 0..6 {
        let bytes = if at == 2 { png(&frame(2).1)[..40].to_vec() } else { png(&frame(at).1) };
        crate::steps::video::pack(&mut archive, &format!("squares/{at:05}.png"), &bytes).unwrap();
    }
    let message = failed(&mut bench, archive.into_inner().unwrap());
    assert!(message.starts_with("squares, frame 00002: `squares/00002.png`"), "{message}");
    assert!(failed(&mut bench, b"no archive".to_vec()).len() > 10);
}

#[test]
fn odd_annotations_are_named() {
    let mut bench = Bench::new();
    let predictions = bench.input("archive", &packed(0..5, |_, mask| Some(mask)), None);
    let late = video(&mut bench, "late", 5, Annotation::Indexed, |at, _, mask| {
        if at == 3 {
            mask.data[0] = 7;
        }
    });
    let ended = scored(&bench, "l", &predictions, &late, "ids");
    let said = warnings(&ended);
    assert!(said.len() == 1 && said[0].starts_with("squares, frame 00003: the annotation has object 7"), "{said:?}");
    assert_eq!(ended.outcome().metrics["j"], 1.0, "it is not scored");

    // The first mask has objects 2 only: 1 counts as an object all the same, as in the evaluation.
    let gap = video(&mut bench, "gap", 5, Annotation::Indexed, |at, _, mask| {
        if at == 0 {
            mask.data.iter_mut().filter(|id| **id == 1).for_each(|id| *id = 0);
        }
    });
    let ended = scored(&bench, "g", &predictions, &gap, "ids");
    let said = warnings(&ended);
    assert!(said.len() == 1 && said[0].contains("squares, frame 00000") && said[0].contains("lacks 1"), "{said:?}");
    assert_eq!(ended.outcome().metrics["jf"], 1.0);

    let void = video(&mut bench, "void", 5, Annotation::Indexed, |_, _, mask| mask.data.fill(255));
    let message = scored(&bench, "v", &predictions, &void, "ids").message();
    assert!(
        message.contains("squares: the first mask `masks/00000.png` has nothing but background and void"),
        "{message}"
    );
    let empty = video(&mut bench, "empty", 5, Annotation::Indexed, |_, _, mask| mask.data.fill(0));
    assert!(scored(&bench, "e", &predictions, &empty, "ids").message().contains("has no object"));
    let thin = video(&mut bench, "thin", 5, Annotation::Indexed, |at, _, mask| {
        if at == 2 {
            *mask = IndexMask { width: 4, height: 2, data: vec![0; 8] };
        }
    });
    let message = scored(&bench, "n", &predictions, &thin, "ids").message();
    assert!(message.starts_with("squares, frame 00002: `masks/00002.png` is 4x2"), "{message}");
}
