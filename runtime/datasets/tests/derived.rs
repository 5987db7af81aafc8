//! Datasets made from datasets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness_datasets::derived::Inputs;
use harness_datasets::hash::digest;
use harness_datasets::{Built, Error, ParallelHasher, Reader, builder, derived_location, deriver, locate};
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::ImageManifest;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Datasets in one folder, whose manifests lie beside them.
struct World {
    dir: TempDir,
    inputs: Inputs,
}

impl World {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), inputs: BTreeMap::new() }
    }

    /// Writes pictures, reads them with `image_folder`, and gives the input that stands for them.
    fn folder(&mut self, name: &str, files: &[(&str, &str)], params: Value) -> Value {
        for (path, text) in files {
            let target = self.dir.path().join(name).join(path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, text).unwrap();
        }
        let mut all = json!({"path": {"path": "."}});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let location = locate(&self.dir.path().join(name)).unwrap();
        let built = builder("image_folder").unwrap()(&all, &location, &ParallelHasher).unwrap();
        self.input(&built, "all")
    }

    /// Classes a, b, c of the sizes given.
    fn classes(&mut self, name: &str, sizes: &[usize]) -> Value {
        let mut files = Vec::new();
        for (class, size) in sizes.iter().enumerate() {
            let class = char::from(b'a' + u8::try_from(class).unwrap());
            files.extend((0..*size).map(|i| (format!("{class}/{i:03}.jpg"), format!("{name} {class} {i}"))));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        self.folder(name, &files, json!({}))
    }

    /// An output of what was built, as an input of another step.
    fn input(&mut self, built: &Built, output: &str) -> Value {
        let bytes = built.output(output).unwrap();
        let digest = digest(bytes);
        let file = self.dir.path().join(&digest);
        fs::write(&file, bytes).unwrap();
        self.inputs.insert(digest.clone(), InputFiles { file, data: Some(built.location.clone()) });
        json!({"$artifact": {"kind": "labelled_images", "digest": digest}})
    }

    fn file(&mut self, text: &str) -> Value {
        let digest = digest(text.as_bytes());
        let file = self.dir.path().join(&digest);
        fs::write(&file, text).unwrap();
        self.inputs.insert(digest.clone(), InputFiles { file, data: None });
        json!({"$artifact": {"kind": "file", "digest": digest}})
    }

    fn derive(&self, kind: &str, params: Value) -> Result<Built, Error> {
        let built = deriver(kind).unwrap()(&params, &self.inputs)?;
        // What a later run finds is what the first one found.
        assert_eq!(derived_location(&params, &self.inputs).unwrap(), built.location);
        Ok(built)
    }
}

fn images(built: &Built, output: &str) -> ImageManifest {
    serde_json::from_slice(built.output(output).unwrap()).unwrap()
}

fn paths(manifest: &ImageManifest) -> Vec<&str> {
    manifest.entries.iter().map(|e| e.file.path.as_str()).collect()
}

fn sizes(built: &Built) -> &[f64] {
    &built.series["class_counts"].y
}

#[track_caller]
fn says(result: Result<Built, Error>, words: &[&str]) {
    let error = result.expect_err("it must not be accepted").to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

fn readable(built: &Built, manifest: &ImageManifest) {
    let reader = Reader::open(&built.location).unwrap();
    for entry in &manifest.entries {
        reader.read_verified(&entry.file).unwrap();
    }
}

#[test]
fn a_uniform_subset_gives_the_remainder_to_the_first_classes() {
    let mut world = World::new();
    let data = world.classes("d", &[10, 10, 4]);
    let built = world.derive("subset", json!({"data": data, "count": 11})).unwrap();
    assert_eq!(sizes(&built), [4.0, 4.0, 3.0]);
    let chosen = images(&built, "images");
    readable(&built, &chosen);
    // The list is the sorted paths, and its digest is noted.
    let list = String::from_utf8(built.output("list").unwrap().to_vec()).unwrap();
    assert_eq!(list.lines().collect::<Vec<_>>(), paths(&chosen));
    assert_eq!(built.notes["paths_sha256"], digest(list.as_bytes()));
    assert_eq!(built.notes["class_counts"], json!({"a": 4, "b": 4, "c": 3}));
    // The same seed is the same draw; another seed another one; more pictures contain fewer.
    let again = |count: u64, seed: u64| {
        let built = world.derive("subset", json!({"data": data, "count": count, "split_seed": seed})).unwrap();
        paths(&images(&built, "images")).into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(again(11, 0), paths(&chosen));
    assert_ne!(again(11, 1), again(11, 0));
    assert!(again(5, 0).iter().all(|path| again(11, 0).contains(path)));
    says(
        world.derive("subset", json!({"data": data, "count": 18})),
        &["1 class is too small", "`c` has 4 pictures", "6"],
    );
    says(world.derive("subset", json!({"data": data, "count": 25})), &["25 pictures are wanted, and there are 24"]);
}

#[test]
fn unlabelled_pictures_are_drawn_at_random() {
    let mut world = World::new();
    let data = world.folder("d", &[("x.jpg", "1"), ("y/z.jpg", "2"), ("w.jpg", "3")], json!({"labels": "none"}));
    says(world.derive("subset", json!({"data": data, "count": 2})), &["no class to draw by", "draw = random"]);
    let built = world.derive("subset", json!({"data": data, "count": 2, "draw": "random"})).unwrap();
    assert_eq!(built.metrics["pictures"], 2.0);
    assert!(!built.series.contains_key("class_counts"));
}

#[test]
fn a_subset_by_a_published_list() {
    let mut world = World::new();
    let data = world.classes("d", &[3, 3]);
    let list = world.file("train/b/001.jpg 1\r\ntrain/a/002.jpg 0\n");
    let built = world.derive("subset", json!({"data": data, "list": list, "strip": "train"})).unwrap();
    assert_eq!(paths(&images(&built, "images")), ["a/002.jpg", "b/001.jpg"]);
    says(
        world.derive("subset", json!({"data": data, "list": list})),
        &["2 pictures are not in", "line 1", "`a/000.jpg`"],
    );
}

#[test]
fn a_long_tail_has_the_sizes_of_its_law() {
    let mut world = World::new();
    let data = world.classes("d", &[40, 12, 40, 40]);
    let built = world.derive("long_tail", json!({"data": data, "largest": 30, "smallest": 3, "alpha": 1.0})).unwrap();
    // q = 7, 1.667, 0.6, 0.143 for four ranks; 3 + 27 (q - q3) / (q0 - q3).
    let mut found = sizes(&built).to_vec();
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [3.0, 5.0, 9.0, 30.0]);
    assert_eq!(built.metrics["max_min_ratio"], 10.0);
    assert_eq!((built.metrics["few"], built.metrics["medium"], built.metrics["many"]), (3.0, 1.0, 0.0));
    // The class of 12 pictures can never have the first rank.
    for seed in 0..8 {
        let params = json!({"data": data, "largest": 30, "smallest": 3, "alpha": 1.0, "split_seed": seed});
        assert!(sizes(&world.derive("long_tail", params).unwrap())[1] <= 12.0);
    }
    let exact = json!({"data": data, "largest": 30, "smallest": 3, "count": 50});
    let built = world.derive("long_tail", exact).unwrap();
    assert!((built.metrics["pictures"] - 50.0).abs() <= 1.0, "{}", built.metrics["pictures"]);
    says(
        world.derive("long_tail", json!({"data": data, "largest": 50, "smallest": 3, "alpha": 1.0})),
        &["no class is left for rank 0", "50 pictures", "has 40", "lower `largest`"],
    );
    says(
        world.derive("long_tail", json!({"data": data, "largest": 30, "smallest": 3, "count": 500})),
        &["500 pictures cannot be had"],
    );
}

#[test]
fn concatenated_datasets_keep_their_files_and_join_their_classes() {
    let mut world = World::new();
    let first = world.folder("one", &[("b/1.jpg", "x"), ("c/2.jpg", "y")], json!({}));
    let second = world.folder("two", &[("a/1.jpg", "z"), ("b/1.jpg", "x")], json!({}));
    let built = world.derive("concat", json!({"data": [first, second]})).unwrap();
    let all = images(&built, "images");
    assert_eq!(paths(&all), ["0/b/1.jpg", "0/c/2.jpg", "1/a/1.jpg", "1/b/1.jpg"]);
    assert_eq!(all.classes, ["a", "b", "c"]);
    assert_eq!(all.entries.iter().map(|e| e.label.unwrap()).collect::<Vec<_>>(), [1, 2, 0, 1]);
    assert!(built.warnings[0].contains("1 picture is an exact copy") && built.warnings[0].contains("1/b/1.jpg"));
    readable(&built, &all);
    // A concatenation can be drawn from, and joined again.
    let joined = world.input(&built, "images");
    let third = world.folder("three", &[("a/9.jpg", "nine")], json!({}));
    let built = world.derive("concat", json!({"data": [joined, third]})).unwrap();
    let all = images(&built, "images");
    assert_eq!(paths(&all)[0], "0/0/b/1.jpg");
    readable(&built, &all);
}

#[test]
fn filters_hold_together() {
    let mut world = World::new();
    let data = world.folder("d", &[("a/1.jpg", "1"), ("a/2.png", "2"), ("b/3.jpg", "3"), ("c/4.jpg", "4")], json!({}));
    let built = world.derive("filter", json!({"data": data, "classes": ["c", "a"], "glob": "**/*.jpg"})).unwrap();
    let kept = images(&built, "images");
    assert_eq!(paths(&kept), ["a/1.jpg", "c/4.jpg"]);
    assert_eq!(kept.classes, ["a", "c"]);
    assert_eq!(kept.entries[1].label, Some(1));
    says(world.derive("filter", json!({"data": data, "classes": ["d"]})), &["no class `d`", "`a`, `b`, `c`"]);
    says(world.derive("filter", json!({"data": data, "glob": "*.jpg"})), &["no path fits `*.jpg`"]);
    says(world.derive("filter", json!({"data": data, "glob": "[a"})), &["`glob`"]);
    // These are no pictures, so their size cannot be told; the message names the first.
    says(world.derive("filter", json!({"data": data, "min_side": 5})), &["no picture that can be read"]);
}

#[test]
fn filters_by_size() {
    let mut world = World::new();
    let png = |side: u32| {
        let mut bytes = Vec::new();
        let encoder = png::Encoder::new(&mut bytes, side, side + 1);
        encoder.write_header().unwrap().write_image_data(&vec![0; (side * (side + 1)) as usize]).unwrap();
        bytes
    };
    for side in [3, 5, 8] {
        let at = world.dir.path().join(format!("d/a/{side}.png"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, png(side)).unwrap();
    }
    let data = world.folder("d", &[], json!({}));
    let built = world.derive("filter", json!({"data": data, "min_side": 5})).unwrap();
    assert_eq!(paths(&images(&built, "images")), ["a/5.png", "a/8.png"]);
}

#[test]
fn a_holdout_is_drawn_class_by_class_and_keeps_copies_together() {
    let mut world = World::new();
    let data = world.classes("d", &[10, 20]);
    let built = world.derive("holdout", json!({"data": data, "share": 0.2})).unwrap();
    let (train, holdout) = (images(&built, "train"), images(&built, "holdout"));
    assert_eq!((train.entries.len(), holdout.entries.len()), (24, 6));
    assert_eq!(holdout.entries.iter().filter(|e| e.label == Some(0)).count(), 2);
    assert!(train.entries.iter().all(|entry| !holdout.entries.contains(entry)));
    let copies: Vec<(String, String)> = (0..8).map(|i| (format!("a/{i}.jpg"), "same".to_owned())).collect();
    let copies: Vec<(&str, &str)> = copies.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let data = world.folder("copies", &copies, json!({}));
    says(world.derive("holdout", json!({"data": data, "share": 0.5})), &["nothing would be held out"]);
}

#[test]
fn the_studys_folder_rule_and_lists() {
    let mut world = World::new();
    let files = [("top.jpg", "1"), ("a/1.jpg", "2"), ("a/deep/2.jpg", "3"), ("b/x/y/3.jpg", "4")];
    let read = |world: &mut World, params: Value| {
        let mut all = json!({"path": {"path": "."}, "labels": "none"});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let location = locate(&world.dir.path().join("d")).unwrap();
        builder("image_folder").unwrap()(&all, &location, &ParallelHasher)
    };
    world.folder("d", &files, json!({"labels": "none"}));
    let official = read(&mut world, json!({"rule": "official"})).unwrap();
    assert_eq!(paths(&images(&official, "all")), ["a/1.jpg"]);
    assert!(official.warnings[0].contains("3 pictures passed over by the published rule"), "{:?}", official.warnings);
    assert_eq!(images(&read(&mut world, json!({})).unwrap(), "all").entries.len(), 4);
    let parent = read(&mut world, json!({"labels": "parent"})).unwrap();
    assert_eq!(images(&parent, "all").classes, ["a", "a/deep", "b/x/y"]);

    let list = world.dir.path().join("list.txt");
    fs::write(&list, "/b/x/y/3.jpg 7\n/a/1.jpg 3\n/a/1.jpg 3\n").unwrap();
    let named = json!({"path": list});
    let built = read(&mut world, json!({"list": named, "labels": "list"})).unwrap();
    let all = images(&built, "all");
    assert_eq!(paths(&all), ["a/1.jpg", "b/x/y/3.jpg"]);
    assert_eq!(all.classes, ["3", "7"]);
    assert!(built.warnings[0].contains("1 line of the list repeat"), "{:?}", built.warnings);
    fs::write(&list, "a/1.jpg\nelsewhere.jpg\n").unwrap();
    says(read(&mut world, json!({"list": named})), &["1 of the 2 pictures is not in", "`elsewhere.jpg` of line 2"]);
    fs::write(&list, "a/1.jpg\n").unwrap();
    says(read(&mut world, json!({"list": named, "labels": "list"})), &["no second field for 1 picture"]);
    fs::remove_file(&list).unwrap();
    says(read(&mut world, json!({"list": named})), &["list.txt", "does not exist"]);
    // A flat root is read whole by the published rule.
    let flat = World::new();
    fs::create_dir_all(flat.dir.path().join("d")).unwrap();
    fs::write(flat.dir.path().join("d/1.jpg"), "1").unwrap();
    let mut flat = flat;
    assert_eq!(images(&read(&mut flat, json!({"rule": "official"})).unwrap(), "all").entries.len(), 1);
    assert!(Path::new(flat.dir.path()).exists());
}

#[test]
fn answers_come_from_masks() {
    let mut world = World::new();
    let png = |pixels: &[u8; 8], colours: png::ColorType| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 4, 2);
        encoder.set_color(colours);
        let data: Vec<u8> = pixels.iter().flat_map(|p| vec![*p; colours.samples()]).collect();
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
        bytes
    };
    let at = world.dir.path().join("d");
    fs::create_dir_all(&at).unwrap();
    fs::write(at.join("1.png"), png(&[0; 8], png::ColorType::Rgb)).unwrap();
    fs::write(at.join("1m.png"), png(&[0, 0, 2, 2, 1, 255, 9, 0], png::ColorType::Grayscale)).unwrap();
    fs::write(at.join("pairs.txt"), "1.png 1m.png\n").unwrap();
    let params = json!({"path": {"path": "."}, "list": "pairs.txt", "classes": ["background", "cat", "dog", "eel"],
        "ignore": [9]});
    let built = builder("segmentation_pairs").unwrap()(&params, &locate(&at).unwrap(), &ParallelHasher).unwrap();
    let data = world.input(&built, "all");
    let built = world.derive("mask_labels", json!({"data": data, "pixels": 2})).unwrap();
    let all = images(&built, "images");
    assert_eq!(all.classes, ["cat", "dog", "eel"]);
    assert_eq!(all.entries[0].labels, [0, 1, -1]);
    assert_eq!(all.entries[0].mask, None);
    assert_eq!(sizes(&built), [0.0, 1.0, 0.0]);
}
