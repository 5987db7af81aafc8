//! Clustering on pictures whose classes are colours, and the matching by hand.

use std::collections::BTreeSet;

use harness_protocol::{FromWorker, Gallery};
use harness_views::{IndexMask, Picture};
use serde_json::{Value, json};

use super::{matched, overlap};
use crate::steps::segment::tests::{dataset, network, plain};
use crate::testing::Bench;

fn params(encoder: &Value, test: &Value, change: Value) -> Value {
    let mut params = json!({ "encoder": encoder, "test": test, "size": 32, "dilated": 2, "components": 3 });
    params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    params
}

/// One rectangle: red in even pictures, blue in odd ones.
fn one(item: u64, picture: &mut Picture, mask: &mut IndexMask) {
    let (class, colour) = if item.is_multiple_of(2) { (1, [220, 30, 30]) } else { (2, [30, 30, 220]) };
    mask.data.iter_mut().zip(picture.data.chunks_exact_mut(3)).for_each(|(value, pixel)| {
        let inside = *value == 1;
        *value = if inside { class } else { 0 };
        pixel.copy_from_slice(&if inside { colour } else { [90, 100, 95] });
    });
}

#[test]
fn clusters_match_as_well_as_can_be() {
    let joint = vec![vec![8, 0], vec![2, 5]];
    assert_eq!(overlap(&joint, 2), [8.0 / 10.0, 0.0, 2.0 / 15.0, 5.0 / 7.0]);
    assert_eq!(matched(&joint, 2), [0, 1]);
    // 4/9 + 5/10 is more than 5/14 + 0.
    let joint = vec![vec![5, 4], vec![5, 0]];
    assert_eq!(matched(&joint, 2), [1, 0]);
    // More clusters than classes: each takes its own best.
    assert_eq!(matched(&[vec![5, 1], vec![4, 0], vec![0, 3]], 2), [0, 0, 1]);
}

#[test]
fn salient_segments_are_clustered_and_matched() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let test = dataset(&mut bench, "test", 12, one, |_| ());
    // One axis: an untrained network's features tell colours apart only in part.
    let change = json!({ "regions": { "saliency": { "masks": test } }, "components": 1 });
    let job = bench.job("a", "cluster_segment", params(&encoder, &test, change));
    let outcome = bench.run(&job).outcome();
    let metrics = &outcome.metrics;
    assert!(metrics["miou"] > metrics["floor_miou"] + 0.2, "{metrics:?}");
    assert_eq!(metrics["segments"], 12.0);
    assert_eq!(outcome.series["seed_miou"].y.len(), 5);
    let gallery: Gallery = serde_json::from_slice(&bench.output(&job, &outcome, "maps")).unwrap();
    assert_eq!(gallery.items.len(), 2 + 8);
    let report: Value = serde_json::from_slice(&bench.output(&job, &outcome, "confusion")).unwrap();
    let counts = report["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 12 * 28 * 20);
    let kind = harness_protocol::steps::kind("cluster_segment").unwrap();
    let declared: BTreeSet<&str> = kind.metrics.iter().map(|metric| metric.name).collect();
    let given: BTreeSet<&str> = metrics.keys().chain(outcome.series.keys()).map(String::as_str).collect();
    assert_eq!(declared, given);
}

#[test]
fn positions_are_clustered_too_and_seeds_are_averaged() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let test = plain(&mut bench, "test", 8);
    let change = json!({ "regions": { "kmeans": { "k": 3, "restarts": 2 } }, "seeds": [1, 2, 3], "restarts": 1 });
    let outcome = bench.run(&bench.job("a", "cluster_segment", params(&encoder, &test, change.clone()))).outcome();
    let scores = &outcome.series["seed_miou"].y;
    let mean = scores.iter().sum::<f64>() / 3.0;
    assert!((outcome.metrics["miou"] - mean).abs() < 1e-12 && outcome.metrics["miou_std"] >= 0.0);
    assert_eq!(outcome.metrics["segments"], 24.0);
    let again = bench.run(&bench.job("b", "cluster_segment", params(&encoder, &test, change))).outcome();
    assert_eq!(again.metrics, outcome.metrics);
    // As many clusters as there are segments: each takes its best class, and nothing is matched one to one.
    let change = json!({ "clusters": 9, "components": 0, "seeds": [1] });
    let many = bench.run(&bench.job("c", "cluster_segment", params(&encoder, &test, change))).outcome();
    assert_eq!((many.metrics["miou_std"], many.series["seed_miou"].x.len()), (0.0, 1));
}

/// With a cluster for each segment the match reads every name off the truth: so does the floor, and people are told.
#[test]
fn the_floor_is_matched_as_well_as_the_clusters() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let test = dataset(&mut bench, "test", 12, one, |_| ());
    let change = json!({ "regions": { "saliency": { "masks": test } }, "components": 1, "clusters": 12 });
    let ended = bench.run(&bench.job("a", "cluster_segment", params(&encoder, &test, change)));
    let flatters = |said: &FromWorker| matches!(said, FromWorker::Log { level, text, .. } if level == "warn" && text.contains("flatters"));
    assert!(ended.said.iter().any(flatters));
    let metrics = ended.outcome().metrics;
    assert!(metrics["miou"] > 0.99 && metrics["random_miou"] == metrics["miou"], "{metrics:?}");
    // As many as classes: by chance far less than by colour.
    let change = json!({ "regions": { "saliency": { "masks": test } }, "components": 1 });
    let metrics = bench.run(&bench.job("b", "cluster_segment", params(&encoder, &test, change))).outcome().metrics;
    let floors = metrics["floor_miou"] < metrics["random_miou"] && metrics["random_miou"] < metrics["miou"] - 0.05;
    assert!(floors, "{metrics:?}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(&network());
    let test = dataset(&mut bench, "test", 4, one, |_| ());
    let saliency = json!({ "saliency": { "masks": test } });
    let failed = |bench: &Bench, test: &Value, change: Value| {
        bench.run(&bench.job("x", "cluster_segment", params(&encoder, test, change))).message()
    };
    let message = failed(&bench, &test, json!({ "regions": saliency, "clusters": 5 }));
    assert!(message.contains("4 segments cannot make 5 clusters"), "{message}");
    let message = failed(&bench, &test, json!({ "regions": saliency, "components": 4 }));
    assert!(message.contains("lower `components` to 3"), "{message}");
    let other = dataset(&mut bench, "other", 4, one, |_| ());
    let message = failed(&bench, &other, json!({ "regions": saliency }));
    assert!(message.contains("4 of 4 pictures of test have no saliency mask"), "{message}");
    let diverged = network();
    let _ = diverged.need_network("test").unwrap().store.get("bn1.running_var").unwrap().fill_(f64::NAN);
    let diverged = bench.encoder(&diverged);
    let message = bench.run(&bench.job("x", "cluster_segment", params(&diverged, &test, json!({})))).message();
    assert!(message.contains("features of `00.png` of test are not finite"), "{message}");
    let void = |_: u64, _: &mut Picture, mask: &mut IndexMask| mask.data.fill(255);
    let void = dataset(&mut bench, "void", 4, void, |_| ());
    assert!(failed(&bench, &void, json!({})).contains("every pixel of test is void"));
}
