//! The official layouts: what is read from them, on trees made here and on samples of the real data.

use std::fs;
use std::path::{Path, PathBuf};

use harness_datasets::{Built, Error, ParallelHasher, builder, locate};
use harness_protocol::manifest::ImageManifest;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes files below a fresh folder.
fn tree(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, bytes) in files {
        let target = dir.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
    dir
}

/// Builds `kind` from what lies at `path`.
fn build(kind: &str, path: &Path, params: Value) -> Result<Built, Error> {
    let mut all = json!({"path": {"path": "."}});
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    builder(kind).unwrap()(&all, &locate(path).unwrap(), &ParallelHasher)
}

fn images(built: &Built, output: &str) -> ImageManifest {
    serde_json::from_slice(built.output(output).unwrap_or_else(|| panic!("no output {output}"))).unwrap()
}

fn outputs(built: &Built) -> Vec<&str> {
    built.outputs.iter().map(|(name, _)| name.as_str()).collect()
}

fn stems(manifest: &ImageManifest) -> Vec<&str> {
    let stem = |path: &'_ str| path.rfind('/').map_or(0, |at| at + 1);
    manifest.entries.iter().map(|e| &e.file.path[stem(&e.file.path)..]).collect()
}

#[track_caller]
fn says(result: Result<Built, Error>, words: &[&str]) {
    let error = result.expect_err("it must not be accepted").to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// Where the samples lie, if they are there.
fn samples() -> Option<PathBuf> {
    let path = std::env::var_os("HARNESS_SHARED_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no sample data at {}", path.display());
    None
}

/// Unpacks sample archives over one another.
fn unpacked(samples: &Path, archives: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for archive in archives {
        tar::Archive::new(fs::File::open(samples.join(archive)).unwrap()).unpack(dir.path()).unwrap();
    }
    dir
}

fn voc() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("VOCdevkit/VOC2007/JPEGImages/000002.jpg", b"two"),
        ("VOCdevkit/VOC2007/JPEGImages/000001.jpg", b"one"),
        ("VOCdevkit/VOC2007/JPEGImages/000003.jpg", b"three"),
        ("VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", b"000002\r\n000001\r\n"),
        ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", b"000003\n"),
        ("VOCdevkit/VOC2007/ImageSets/Main/train_trainval.txt", b"000002  1\r\n000001 -1\r\n"),
        ("VOCdevkit/VOC2007/ImageSets/Main/train_test.txt", b"000003  0\n"),
        ("VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt", b"000001  1\r\n000002  1\r\n"),
        ("VOCdevkit/VOC2007/ImageSets/Main/dog_test.txt", b"000003 -1\n"),
    ]
}

#[test]
fn voc_classification_reads_every_answer() {
    let dir = tree(&voc());
    let built = build("voc_classification", dir.path(), json!({})).unwrap();
    assert_eq!(outputs(&built), ["trainval", "test"]);
    let trainval = images(&built, "trainval");
    // The class `train` is no image set.
    assert_eq!(trainval.classes, ["dog", "train"]);
    assert_eq!(stems(&trainval), ["000001.jpg", "000002.jpg"]);
    assert_eq!(trainval.entries[0].labels, [1, -1]);
    assert_eq!(trainval.entries[1].labels, [1, 1]);
    assert_eq!(images(&built, "test").entries[0].labels, [-1, 0]);
    assert_eq!(built.metrics["pictures"], 3.0);
    assert_eq!(built.series["class_counts"].y, [2.0, 1.0]);
    assert_eq!(built.metrics["max_min_ratio"], 2.0);
    // Difficult is not shown: no class has a picture in test.
    assert!(built.warnings[0].contains("2 classes are without a picture in `test`"), "{:?}", built.warnings);
    // The folder itself and the year's folder are the same dataset.
    let inner = build("voc_classification", &dir.path().join("VOCdevkit/VOC2007"), json!({})).unwrap();
    assert_eq!(inner.outputs, built.outputs);
    let only = build("voc_classification", dir.path(), json!({"splits": ["test"]})).unwrap();
    assert_eq!(outputs(&only), ["test"]);
}

#[test]
fn voc_classification_says_what_is_wrong() {
    let with = |path: &str, bytes: &'static [u8]| {
        let mut files = voc();
        let path = format!("VOCdevkit/VOC2007/{path}");
        files.retain(|(known, _)| *known != path);
        if !bytes.is_empty() {
            files.push((path.leak(), bytes));
        }
        tree(&files)
    };
    let read = |dir: &TempDir, params: Value| build("voc_classification", dir.path(), params);
    let dir = with("JPEGImages/000002.jpg", b"");
    says(
        read(&dir, json!({})),
        &["1 of the 2 pictures of the image set `trainval` is not in `JPEGImages`", "`000002`", "missing = skip"],
    );
    let skipped = read(&dir, json!({"missing": "skip"})).unwrap();
    assert_eq!(stems(&images(&skipped, "trainval")), ["000001.jpg"]);
    assert!(skipped.warnings[0].contains("they are left out"), "{:?}", skipped.warnings);
    let dir = with("JPEGImages/000003.jpg", b"");
    let skipped = read(&dir, json!({"missing": "skip"})).unwrap();
    assert_eq!(outputs(&skipped), ["trainval"]);
    assert!(skipped.warnings[0].contains("the image set is left out"), "{:?}", skipped.warnings);

    let dir = with("ImageSets/Main/dog_test.txt", b"");
    says(read(&dir, json!({})), &["the image set `test` has no file for `dog`"]);
    let dir = with("ImageSets/Main/dog_trainval.txt", b"000001 1\n");
    says(read(&dir, json!({})), &["dog_trainval.txt", "no line for `000002`"]);
    let dir = with("ImageSets/Main/dog_trainval.txt", b"000001 1\n000002 2\n");
    says(read(&dir, json!({})), &["line 2", "1, 0 or -1, not `2`"]);
    let dir = with("ImageSets/Main/dog_trainval.txt", b"000001 1\n000002 1\n000009 1\n");
    says(read(&dir, json!({})), &["line 3", "`000009` is not in"]);
    let dir = with("ImageSets/Main/dog_trainval.txt", b"000001 1\n000001 1\n");
    says(read(&dir, json!({})), &["line 2", "listed again"]);
    says(read(&dir, json!({"splits": ["val"]})), &["no `<class>_val.txt`", "`trainval`, `test`"]);
    let dir = tree(&[("pictures/1.jpg", b"x")]);
    says(read(&dir, json!({})), &["looked for `ImageSets/Main`", "found `pictures`"]);
    let twice = tree(&[("VOC2007/ImageSets/Main/a_test.txt", b"1 1"), ("VOC2012/ImageSets/Main/a_test.txt", b"1 1")]);
    says(read(&twice, json!({})), &["several folders", "`VOC2007`, `VOC2012`", "`inside`"]);
}

#[test]
fn the_official_image_sets_of_voc2007() {
    let Some(samples) = samples() else { return };
    let dir = unpacked(&samples, &["voc/voc2007-imagesets.tar", "voc/voc2007-images.tar"]);
    says(
        build("voc_classification", dir.path(), json!({"splits": ["test"]})),
        &["4942 of the 4952 pictures of the image set `test` are not in `JPEGImages`", "first is `000011`"],
    );
    let built = build("voc_classification", dir.path(), json!({"missing": "skip"})).unwrap();
    assert_eq!(outputs(&built), ["test"]);
    let test = images(&built, "test");
    let order = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person \
                 pottedplant sheep sofa train tvmonitor";
    assert_eq!(test.classes.join(" "), order);
    assert_eq!(test.entries.len(), 10);
    let shown = |entry: usize| {
        let answers = test.entries[entry].labels.iter().zip(&test.classes);
        answers.filter(|(answer, _)| **answer == 1).map(|(_, class)| class.as_str()).collect::<Vec<_>>()
    };
    // 000001 shows a dog and a person, 000002 a train (Main/dog_test.txt and the others).
    assert_eq!(shown(0), ["dog", "person"]);
    assert_eq!(shown(1), ["train"]);
    assert!(built.warnings.iter().any(|w| w.contains("5011 of the 5011 pictures")), "{:?}", built.warnings);
}

#[test]
fn indoor_pictures_in_the_layout_of_voc() {
    let Some(samples) = samples() else { return };
    let archive = samples.join("indoor-voc-layout/indoor.tar");
    let built = build("voc_classification", &archive, json!({})).unwrap();
    assert_eq!(outputs(&built), ["trainval", "test"]);
    let (trainval, test) = (images(&built, "trainval"), images(&built, "test"));
    assert_eq!((trainval.entries.len(), test.entries.len(), trainval.classes.len()), (40, 20, 30));
    // Four classes have no positive in test (the sample's own description).
    let warning = built.warnings.iter().find(|w| w.contains("`test`")).unwrap();
    assert!(warning.contains("4 classes") && warning.contains("`book`, `bookcase`, `doll`, `vase`"), "{warning}");
}
