//! The step from job to outcome, on the smallest network and videos.

use std::collections::BTreeSet;

use harness_datasets::hash::digest;
use harness_protocol::manifest::{Annotation, FileEntry, MANIFEST_FORMAT, Sequence, VideoManifest};
use harness_protocol::model::{Architecture, Resnet, Stem};
use harness_protocol::{FromWorker, Gallery, Location, LocationForm};
use harness_views::{IndexMask, Picture, decode_index, encode_png_index, encode_png_rgb};
use serde_json::{Value, json};

use crate::model::Encoder;
use crate::testing::Bench;

const WIDTH: usize = 40;
const HEIGHT: usize = 32;

/// Two coloured squares that move apart over a grey ground, and their ids.
pub(crate) fn frame(at: usize) -> (Picture, IndexMask) {
    let mut picture = Picture::filled(WIDTH, HEIGHT, [120, 120, 120]);
    let mut mask = IndexMask { width: WIDTH, height: HEIGHT, data: vec![0; WIDTH * HEIGHT] };
    for (id, left, top, colour) in [(1, 4 + 2 * at, 4, [230, 20, 20]), (2, 24 - 2 * at, 18, [20, 20, 230])] {
        for y in top..top + 10 {
            for x in left..left + 10 {
                mask.data[y * WIDTH + x] = id;
                picture.data[3 * (y * WIDTH + x)..][..3].copy_from_slice(&colour);
            }
        }
    }
    (picture, mask)
}

/// Adds a dataset with one video of `count` frames; `edit` may change them.
pub(crate) fn video(
    bench: &mut Bench,
    name: &str,
    count: usize,
    annotation: Annotation,
    edit: impl Fn(usize, &mut Picture, &mut IndexMask),
) -> Value {
    let folder = bench.path(name);
    for inside in ["frames", "masks"] {
        std::fs::create_dir_all(folder.join(inside)).unwrap();
    }
    let write = |path: String, bytes: Vec<u8>| {
        std::fs::write(folder.join(&path), &bytes).unwrap();
        FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) }
    };
    let (mut frames, mut masks) = (Vec::new(), Vec::new());
    for at in 0..count {
        let (mut picture, mut mask) = frame(at);
        edit(at, &mut picture, &mut mask);
        frames.push(write(format!("frames/{at:05}.png"), encode_png_rgb(&picture).unwrap()));
        masks.push(write(format!("masks/{at:05}.png"), encode_png_index(&mask, None).unwrap()));
    }
    let sequences = vec![Sequence { name: "squares".into(), frames, masks }];
    let manifest = VideoManifest { format: MANIFEST_FORMAT, annotation, sequences, archive: None };
    let data = Location { path: folder, form: LocationForm::Folder, ..Location::default() };
    bench.input("videos", &serde_json::to_vec(&manifest).unwrap(), Some(data))
}

pub(crate) fn network() -> Encoder {
    let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.125 });
    Encoder::random(architecture, [0.5; 3], [0.25; 3], 1).unwrap()
}

pub(crate) fn params(encoder: &Value, data: &Value) -> Value {
    json!({ "encoder": encoder, "data": data, "layer": "layer2", "context": 3, "radius": 6.0, "top_k": 5 })
}

#[test]
fn moving_squares_are_followed() {
    let mut bench = Bench::new();
    let (encoder, data) = (bench.encoder(&network()), video(&mut bench, "a", 6, Annotation::Indexed, |_, _, _| ()));
    let job = bench.job("a", "propagate", params(&encoder, &data));
    let ended = bench.run(&job);
    assert!(ended.said.iter().any(|m| matches!(m, FromWorker::Progress { done: 6, total: 6, .. })));
    let outcome = ended.outcome();
    let metrics = &outcome.metrics;
    assert!(metrics["j"] > 0.85 && metrics["j"] > metrics["copy_j"] + 0.2, "{metrics:?}");
    assert!((metrics["jf"] - (metrics["j"] + metrics["f"]) / 2.0).abs() < 1e-12);
    let kind = harness_protocol::steps::kind("propagate").unwrap();
    let declared: BTreeSet<&str> = kind.metrics.iter().map(|metric| metric.name).collect();
    assert_eq!(declared, metrics.keys().map(String::as_str).collect());
    // Soft maps only when asked for.
    let outputs: BTreeSet<&str> =
        kind.outputs.iter().map(|output| output.name).filter(|&name| name != "soft").collect();
    assert_eq!(outputs, outcome.outputs.keys().map(String::as_str).collect());

    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "objects")).unwrap();
    let ids: Vec<u64> = report["objects"].as_array().unwrap().iter().map(|o| o["object"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(report["mean"]["jf"].as_f64(), Some(metrics["jf"]));
    let gallery: Gallery = serde_json::from_slice(&bench.output(&job, &outcome, "frames")).unwrap();
    assert_eq!(gallery.items.len(), 1);
    assert!(gallery.items[0].caption.starts_with("squares, frames 0, 1, 2, 3, 5; J 0."), "{:?}", gallery.items[0]);

    let masks = bench.output(&job, &outcome, "masks");
    let mut archive = tar::Archive::new(masks.as_slice());
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut png = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut png).unwrap();
        let mask = decode_index(&png).unwrap();
        if paths.is_empty() {
            assert_eq!(mask, frame(0).1);
            let palette = png.windows(4).position(|bytes| bytes == b"PLTE").expect("a palette");
            // Black, red, green, yellow: the palette of the data set's own annotations.
            assert_eq!(png[palette + 4..palette + 16], [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]);
        }
        assert!(mask.data.iter().all(|&id| id <= 2));
        paths.push(entry.path().unwrap().to_str().unwrap().to_string());
    }
    assert_eq!(paths, (0..6).map(|at| format!("squares/{at:05}.png")).collect::<Vec<_>>());

    let again = bench.job("again", "propagate", params(&encoder, &data));
    let repeated = bench.run(&again).outcome();
    for name in outputs {
        assert_eq!(bench.output(&job, &outcome, name), bench.output(&again, &repeated, name), "{name}");
    }
}

#[test]
fn frames_may_be_shrunk_for_the_encoder_alone() {
    let mut bench = Bench::new();
    let (encoder, data) = (bench.encoder(&network()), video(&mut bench, "a", 5, Annotation::Indexed, |_, _, _| ()));
    let run = |bench: &Bench, name: &str, size: Option<u64>| {
        let mut params = params(&encoder, &data);
        params["size"] = json!(size);
        let job = bench.job(name, "propagate", params);
        let outcome = bench.run(&job).outcome();
        let masks = bench.output(&job, &outcome, "masks");
        (outcome, masks)
    };
    let (native, masks) = run(&bench, "native", None);
    let (same, same_masks) = run(&bench, "same", Some(HEIGHT as u64));
    assert!(native.metrics == same.metrics && masks == same_masks);
    let (half, half_masks) = run(&bench, "half", Some(HEIGHT as u64 / 2));
    assert_ne!(masks, half_masks);
    assert_eq!(half.metrics["copy_jf"], native.metrics["copy_jf"], "masks are scored at their own size");
    assert!(half.metrics["j"] > half.metrics["copy_j"], "{:?}", half.metrics);
}

#[test]
fn grey_masks_are_one_object_and_void_is_background() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let binary = |_: usize, _: &mut Picture, mask: &mut IndexMask| {
        mask.data.iter_mut().for_each(|value| *value = [0, 255, 100][usize::from(*value)]);
    };
    let grey = video(&mut bench, "grey", 5, Annotation::Binary, binary);
    let job = bench.job("grey", "propagate", params(&encoder, &grey));
    let outcome = bench.run(&job).outcome();
    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "objects")).unwrap();
    assert_eq!(report["objects"].as_array().unwrap().len(), 1);

    let void = |_: usize, _: &mut Picture, mask: &mut IndexMask| {
        mask.data.iter_mut().filter(|value| **value == 2).for_each(|value| *value = 255);
    };
    let void = video(&mut bench, "void", 5, Annotation::Indexed, void);
    let job = bench.job("void", "propagate", params(&encoder, &void));
    let ours = bench.run(&job).outcome();
    assert_eq!(ours.metrics, outcome.metrics);
}

#[test]
fn what_cannot_be_scored_is_named() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let failed = |bench: &Bench, encoder: &Value, data: &Value| {
        bench.run(&bench.job("x", "propagate", params(encoder, data))).message()
    };
    let good = video(&mut bench, "good", 3, Annotation::Indexed, |_, _, _| ());
    let pixels = bench.encoder(&Encoder::Pixels(4));
    assert!(failed(&bench, &pixels, &good).contains("`propagate` needs a network"));

    let short = video(&mut bench, "short", 2, Annotation::Indexed, |_, _, _| ());
    assert!(failed(&bench, &encoder, &short).contains("squares: 2 frames"));

    let empty = video(&mut bench, "empty", 3, Annotation::Indexed, |_, _, mask| mask.data.fill(0));
    let message = failed(&bench, &encoder, &empty);
    assert!(message.contains("`masks/00000.png` has no object"), "{message}");

    let cut = |at: usize, picture: &mut Picture, _: &mut IndexMask| {
        if at == 2 {
            *picture = picture.cropped(0, 0, 30, 30);
        }
    };
    let cut = video(&mut bench, "cut", 4, Annotation::Indexed, cut);
    let message = failed(&bench, &encoder, &cut);
    assert!(message.contains("`frames/00002.png` is 30x30") && message.contains("40x32"), "{message}");

    let thin = |at: usize, _: &mut Picture, mask: &mut IndexMask| {
        if at == 1 {
            *mask = IndexMask { width: 4, height: 2, data: vec![0; 8] };
        }
    };
    let thin = video(&mut bench, "thin", 4, Annotation::Indexed, thin);
    let message = failed(&bench, &encoder, &thin);
    assert!(message.contains("`masks/00001.png` is 4x2") && message.contains("40x32"), "{message}");

    let wild = network();
    let _ = wild.need_network("test").unwrap().store.get("bn1.running_var").unwrap().fill_(f64::NAN);
    let wild = bench.encoder(&wild);
    let message = failed(&bench, &wild, &good);
    assert!(message.contains("squares, frame 00000: the encoder gives features that are not finite"), "{message}");
}

#[test]
fn soft_maps_and_animations_are_kept() {
    let mut bench = Bench::new();
    let (encoder, data) = (bench.encoder(&network()), video(&mut bench, "a", 4, Annotation::Indexed, |_, _, _| ()));
    let mut params = params(&encoder, &data);
    params["soft"] = json!(true);
    let job = bench.job("a", "propagate", params);
    let outcome = bench.run(&job).outcome();
    let (tensors, _) = crate::model::store::read(&job.out_dir.join(&outcome.outputs["soft"].file)).unwrap();
    let maps = &tensors["squares"];
    assert_eq!(maps.size()[..2], [4, 3]);
    let sums = maps.sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Float);
    assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
    assert_eq!(Vec::<u8>::try_from(&tensors["squares.ids"]).unwrap(), [0, 1, 2]);
    let animations = bench.output(&job, &outcome, "animations");
    let mut archive = tar::Archive::new(animations.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("squares.gif"));
    let mut start = [0; 6];
    std::io::Read::read_exact(&mut entry, &mut start).unwrap();
    assert_eq!(&start, b"GIF89a");
}

#[test]
fn the_dino_profile_follows_the_squares_too() {
    let mut bench = Bench::new();
    let (encoder, data) = (bench.encoder(&network()), video(&mut bench, "a", 5, Annotation::Indexed, |_, _, _| ()));
    let params =
        json!({ "encoder": encoder, "data": data, "layer": "layer2", "profile": "dino", "size": 64, "radius": 12.0 });
    let job = bench.job("a", "propagate", params);
    let metrics = bench.run(&job).outcome().metrics;
    assert!(metrics["j"] > metrics["copy_j"] + 0.1, "{metrics:?}");
}
