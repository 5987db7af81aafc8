//! The generated world: the same everywhere, balanced, and no easier than it should be.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use harness_datasets::{Built, IndexMask, Reader, check_mask, decode_mask, hash::digest, scenes, scenes::files};
use harness_protocol::Gallery;
use harness_protocol::manifest::{FileEntry, ImageManifest, VideoManifest};
use harness_protocol::steps::Scenes;
use rayon::prelude::*;
use serde_json::json;
use tempfile::TempDir;

/// A world and the folder it lies in, which lives as long.
struct World {
    built: Built,
    reader: Reader,
    _dir: TempDir,
}

fn params(given: serde_json::Value) -> Scenes {
    serde_json::from_value(given).unwrap()
}

fn world(given: serde_json::Value) -> World {
    let dir = TempDir::new().unwrap();
    let built = scenes(&params(given), &dir.path().join("scenes.tar")).unwrap();
    World { reader: Reader::open(&built.location).unwrap(), built, _dir: dir }
}

impl World {
    fn images(&self, split: &str) -> ImageManifest {
        serde_json::from_slice(self.built.output(split).unwrap()).unwrap()
    }

    fn videos(&self) -> VideoManifest {
        serde_json::from_slice(self.built.output("videos").unwrap()).unwrap()
    }

    fn mask(&self, entry: &FileEntry) -> IndexMask {
        decode_mask(&self.reader.read_verified(entry).unwrap()).unwrap()
    }

    /// Red, green, blue, row by row.
    fn pixels(&self, entry: &FileEntry) -> Vec<u8> {
        let bytes = self.reader.read_verified(entry).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    }
}

fn sizes(manifest: &ImageManifest) -> Vec<usize> {
    let mut sizes = vec![0; manifest.classes.len()];
    for entry in &manifest.entries {
        sizes[entry.label.unwrap() as usize] += 1;
    }
    sizes
}

#[test]
fn a_small_world_never_changes() {
    let small = |domain: &str| {
        let world = world(json!({"world": 5, "train": 24, "holdout": 12, "test": 12, "size": 32, "classes": 12,
            "objects": [1, 3], "imbalance": 4, "domain": domain, "videos": 2, "frames": 4, "video_size": 48}));
        let mut all = Vec::new();
        for (name, bytes) in &world.built.outputs {
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(bytes);
        }
        let tar = std::fs::read(&world.built.location.path).unwrap();
        assert_eq!(world.images("test").archive, Some(digest(&tar)));
        digest(&all)
    };
    // A change of these is a change of everybody's pictures: raise the version of the step with it.
    assert_eq!(small("general"), "8ff53480c0761a614ff5e6d9f35f30fb6790781ea6dbce1a2795710ea6732b7f");
    assert_eq!(small("specific"), "b9bf3fd4f4c13f59686f9640c94857abb4d782542c4dc900a5ba2bf700c7152e");
}

#[test]
fn threads_do_not_matter() {
    let given = json!({"train": 40, "holdout": 4, "test": 4, "size": 24, "videos": 1, "frames": 5, "video_size": 32});
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| world(given.clone())).built.outputs
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn splits_are_disjoint_and_balanced() {
    let world = world(json!({"train": 203, "holdout": 80, "test": 83, "size": 32, "videos": 3, "video_size": 32}));
    let mut seen = HashSet::new();
    for (split, pictures) in [("train", 203), ("holdout", 80), ("test", 83)] {
        let manifest = world.images(split);
        assert_eq!(manifest.entries.len(), pictures);
        assert!(manifest.entries.is_sorted_by_key(|e| &e.file.path));
        for entry in &manifest.entries {
            assert!(seen.insert(entry.file.digest.clone()), "{} is there twice", entry.file.path);
        }
        let sizes = sizes(&manifest);
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{split}: {sizes:?}");
        assert_eq!(files(&manifest).count(), 2 * pictures);
    }
    for frame in world.videos().sequences.iter().flat_map(|s| &s.frames) {
        assert!(seen.insert(frame.digest.clone()), "{} is there twice", frame.path);
    }
}

#[test]
fn worlds_differ_and_repeat() {
    let digests =
        |given| -> Vec<String> { world(given).images("train").entries.into_iter().map(|e| e.file.digest).collect() };
    let small = |seed: u64| json!({"world": seed, "train": 20, "holdout": 1, "test": 1, "size": 16, "videos": 0});
    let (first, second) = (digests(small(0)), digests(small(1)));
    assert!(first.iter().all(|d| !second.contains(d)));
    assert_eq!(first, digests(small(0)));
}

#[test]
fn imbalance_is_in_train_only() {
    let world = world(json!({"train": 400, "holdout": 40, "test": 40, "size": 16, "imbalance": 20, "videos": 0}));
    let mut train = sizes(&world.images("train"));
    assert_eq!(train.iter().sum::<usize>(), 400);
    train.sort_unstable();
    let ratio = train[7] as f64 / train[0] as f64;
    assert!((15.0..=25.0).contains(&ratio), "{train:?}");
    assert_eq!(world.built.metrics["max_min_ratio"], ratio);
    assert!(world.built.metrics["gini"] > 0.3);
    assert_eq!(sizes(&world.images("test")), [5; 8]);
    // Too few pictures for the ratio: every class still has one, and it is told.
    let few = world_of_few();
    assert!(sizes(&few.images("train")).iter().all(|n| *n >= 1));
    assert_eq!(few.built.warnings.len(), 1);
}

fn world_of_few() -> World {
    world(json!({"train": 16, "holdout": 8, "test": 8, "size": 16, "imbalance": 1000, "videos": 0}))
}

#[test]
fn masks_are_valid_and_show_the_labelled_object() {
    for (objects, domain) in [([1, 1], "general"), ([3, 6], "general"), ([1, 4], "specific"), ([12, 12], "general")] {
        let world = world(json!({"train": 150, "holdout": 1, "test": 1, "objects": objects, "domain": domain,
            "classes": 12, "videos": 0}));
        let manifest = world.images("train");
        assert_eq!(manifest.mask_classes.len(), 13);
        let mut kinds = BTreeSet::new();
        for entry in &manifest.entries {
            let mask = world.mask(entry.mask.as_ref().unwrap());
            assert_eq!((mask.width, mask.height, mask.palette), (64, 64, true));
            check_mask(&mask.values, 64, manifest.mask_classes.len(), &[]).unwrap();
            let mut areas = BTreeMap::new();
            for value in mask.values.iter().filter(|v| **v > 0) {
                *areas.entry(*value).or_insert(0) += 1;
            }
            let own = areas.get(&(entry.label.unwrap() as u8 + 1)).copied().unwrap_or(0);
            assert!(own >= 40, "{}: the labelled object shows {own} of 4096 pixels", entry.file.path);
            if objects[1] == 1 {
                assert_eq!(areas.len(), 1, "{}", entry.file.path);
            }
            kinds.insert(areas.len());
        }
        assert_eq!(kinds.len() > 1, objects[1] > 1, "{objects:?}: {kinds:?}");
    }
}

#[test]
fn mean_colour_and_area_do_not_tell_the_class() {
    let classes = 12;
    let world = world(json!({"train": 1800, "holdout": 1, "test": 900, "size": 32, "classes": classes, "videos": 0}));
    // Mean colour of the picture, mean colour of the object, and area of the object.
    let describe = |manifest: &ImageManifest| -> Vec<(usize, [f64; 7])> {
        let one = |entry: &harness_protocol::manifest::ImageEntry| {
            let (pixels, mask) = (world.pixels(&entry.file), world.mask(entry.mask.as_ref().unwrap()));
            let mut sums = [0.0; 7];
            for (pixel, value) in pixels.chunks_exact(3).zip(&mask.values) {
                for c in 0..3 {
                    sums[c] += f64::from(pixel[c]);
                    sums[3 + c] += if *value > 0 { f64::from(pixel[c]) } else { 0.0 };
                }
                sums[6] += f64::from(u8::from(*value > 0));
            }
            let area = sums[6].max(1.0);
            for c in 0..3 {
                sums[c] /= 1024.0;
                sums[3 + c] /= area;
            }
            (entry.label.unwrap() as usize, sums)
        };
        manifest.entries.par_iter().map(one).collect()
    };
    let (train, test) = (describe(&world.images("train")), describe(&world.images("test")));
    for (name, range) in [("colour of the picture", 0..3), ("colour of the object", 3..6), ("area", 6..7)] {
        let mut means = vec![[0.0; 7]; classes];
        for (label, values) in &train {
            for k in range.clone() {
                means[*label][k] += values[k] / (train.len() / classes) as f64;
            }
        }
        let right = test
            .iter()
            .filter(|(label, values)| {
                let far = |c: usize| {
                    range.clone().map(|k| (values[k] - means[c][k]) * (values[k] - means[c][k])).sum::<f64>()
                };
                (0..classes).min_by(|a, b| far(*a).total_cmp(&far(*b))) == Some(*label)
            })
            .count() as f64;
        let (n, chance) = (test.len() as f64, 1.0 / classes as f64);
        let sigma = (n * chance * (1.0 - chance)).sqrt();
        println!("{name}: {right} of {n} right, chance {}, sigma {sigma:.1}", n * chance);
        assert!((right - n * chance).abs() <= 3.0 * sigma, "{name}: {right} of {n} right");
    }
}

#[test]
fn every_object_of_a_video_is_in_its_first_frame_and_moves() {
    for domain in ["general", "specific"] {
        let world = world(json!({"train": 8, "holdout": 1, "test": 1, "size": 16, "videos": 24, "frames": 8,
            "video_size": 64, "domain": domain}));
        let manifest = world.videos();
        let mut counts = BTreeSet::new();
        for (i, sequence) in manifest.sequences.iter().enumerate() {
            assert_eq!(sequence.name, format!("video_{i:03}"));
            assert_eq!((sequence.frames.len(), sequence.masks.len()), (8, 8));
            let masks: Vec<IndexMask> = sequence.masks.iter().map(|m| world.mask(m)).collect();
            let area = |mask: &IndexMask, id: u8| mask.values.iter().filter(|v| **v == id).count();
            let objects = *masks[0].values.iter().max().unwrap();
            assert!((1..=3).contains(&objects), "{}", sequence.name);
            counts.insert(objects);
            for id in 1..=objects {
                let first = area(&masks[0], id);
                assert!(first as f64 >= 0.02 * 4096.0, "{}: object {id} shows {first} pixels", sequence.name);
                let shown = masks.iter().filter(|m| area(m, id) > 0).count();
                assert!(shown >= 4, "{}: object {id} is in {shown} of 8 frames", sequence.name);
            }
            assert!(masks.iter().flat_map(|m| &m.values).all(|v| *v <= objects));
            assert!(masks.windows(2).any(|pair| pair[0].values != pair[1].values), "{} stands still", sequence.name);
        }
        assert_eq!(counts.len(), 3, "{domain}: {counts:?}");
    }
}

#[test]
fn the_preview_shows_pictures_and_videos() {
    let world = world(json!({"train": 20, "holdout": 1, "test": 1, "videos": 3, "frames": 3, "video_size": 32}));
    let gallery: Gallery = serde_json::from_slice(world.built.output("preview").unwrap()).unwrap();
    assert_eq!(gallery.items.len(), 16 + 2 * 2);
    assert_eq!((gallery.items[0].width, gallery.items[0].height), (128, 64));
    let names: Vec<&str> = world.built.outputs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["train", "holdout", "test", "videos", "preview"]);
}

#[test]
fn impossible_worlds_are_refused() {
    let dir = TempDir::new().unwrap();
    for (given, words) in [
        (json!({"classes": 13}), "`classes`: 13"),
        (json!({"objects": [0, 2]}), "objects"),
        (json!({"train": 3}), "3 pictures cannot hold 8 classes"),
        (json!({"size": 4}), "`size`: 4"),
        (json!({"imbalance": 0.5}), "`imbalance`: 0.5"),
        (json!({"frames": 1}), "frames"),
    ] {
        let error = scenes(&params(given), &dir.path().join("x.tar")).expect_err("impossible").to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = scenes(&params(json!({})), &dir.path().join("no/such/folder.tar")).expect_err("no folder").to_string();
    assert!(error.contains("folder.tar"), "{error}");
}
