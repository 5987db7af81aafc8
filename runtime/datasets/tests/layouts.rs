//! The official layouts: what is read from them, on trees made here and on samples of the real data.

use std::fs;
use std::path::{Path, PathBuf};

use harness_datasets::npy::{Grid, write_grid};
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

/// A grey or palette PNG of one value.
fn png_of(value: u8, width: u32, height: u32, colours: png::ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colours);
    if colours == png::ColorType::Indexed {
        encoder.set_palette(vec![0; 3 * (usize::from(value) + 1)]);
    }
    let pixels = vec![value; (width * height) as usize * colours.samples()];
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

fn masked(kind: &str, files: &[(&str, &[u8])], params: Value) -> Result<Built, Error> {
    build(kind, tree(files).path(), params)
}

#[test]
fn voc_segmentation_official_and_repacked() {
    let picture = png_of(9, 4, 3, png::ColorType::Rgb);
    let mask = png_of(15, 4, 3, png::ColorType::Indexed);
    let aug = png_of(14, 4, 3, png::ColorType::Grayscale);
    let official: Vec<(&str, &[u8])> = vec![
        ("VOCdevkit/VOC2012/JPEGImages/b.png", &picture),
        ("VOCdevkit/VOC2012/JPEGImages/a.png", &picture),
        ("VOCdevkit/VOC2012/SegmentationClass/a.png", &mask),
        ("VOCdevkit/VOC2012/SegmentationClass/b.png", &mask),
        ("VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", b"b\r\na\r\n"),
        ("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", b"b\n"),
    ];
    let built = masked("voc_segmentation", &official, json!({})).unwrap();
    assert_eq!(outputs(&built), ["train", "val"]);
    let train = images(&built, "train");
    assert_eq!(stems(&train), ["a.png", "b.png"]);
    assert_eq!((train.mask_classes.len(), train.mask_classes[15].as_str()), (21, "person"));
    assert!(train.mask_values.is_empty());
    assert_eq!(built.metrics["pictures"], 2.0);

    let repack: Vec<(&str, &[u8])> = vec![
        ("VOCSegmentation/images/a.png", &picture),
        ("VOCSegmentation/SegmentationClass/a.png", &mask),
        ("VOCSegmentation/SegmentationClassAug/a.png", &aug),
        ("VOCSegmentation/sets/trainaug.txt", b"a\n"),
        ("VOCSegmentation/sets/val.txt", b"a\n"),
    ];
    let built = masked("voc_segmentation", &repack, json!({})).unwrap();
    assert_eq!(outputs(&built), ["val", "trainaug"]);
    let mask_of = |split: &str| images(&built, split).entries[0].mask.clone().unwrap().path;
    assert_eq!(mask_of("trainaug"), "SegmentationClassAug/a.png");
    assert_eq!(mask_of("val"), "SegmentationClass/a.png");

    let mut lacking = official.clone();
    lacking.retain(|(path, _)| !path.ends_with("SegmentationClass/b.png"));
    says(
        masked("voc_segmentation", &lacking, json!({})),
        &["1 of the 2 pictures of `train` is incomplete", "`b`, which has no mask", "missing = skip"],
    );
    let skipped = masked("voc_segmentation", &lacking, json!({"missing": "skip"})).unwrap();
    assert_eq!(outputs(&skipped), ["train"]);
    assert!(skipped.warnings[1].contains("`val`") && skipped.warnings[1].contains("the split is left out"));
    says(
        masked("voc_segmentation", &[("photos/a.jpg", b"x")], json!({})),
        &["looked for `ImageSets/Segmentation`, `JPEGImages`", "repack: looked for `sets`, `images`", "found `photos`"],
    );
    let other = [("V/JPEGImages/a.png", &*picture), ("V/ImageSets/Segmentation/minival.txt", b"a\n")];
    says(
        masked("voc_segmentation", &other, json!({})),
        &["train.txt, val.txt, trainval.txt or trainaug.txt", "found `minival`"],
    );
    let rgb = official.iter().map(|(path, bytes)| {
        (*path, if path.ends_with("SegmentationClass/a.png") { picture.as_slice() } else { *bytes })
    });
    says(masked("voc_segmentation", &rgb.collect::<Vec<_>>(), json!({})), &["SegmentationClass/a.png", "RGB colours"]);
}

#[test]
fn cityscapes_ids_become_classes() {
    let picture = png_of(9, 4, 2, png::ColorType::Rgb);
    let mask = png_of(26, 4, 2, png::ColorType::Grayscale);
    let small = png_of(26, 2, 2, png::ColorType::Grayscale);
    let mut files: Vec<(&str, &[u8])> = vec![
        ("cs/leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", &picture),
        ("cs/leftImg8bit/train/aachen/aachen_2_leftImg8bit.png", &picture),
        ("cs/gtFine/train/ulm/ulm_1_gtFine_labelIds.png", &mask),
        ("cs/gtFine/train/aachen/aachen_2_gtFine_labelIds.png", &mask),
        ("cs/gtFine/train/aachen/aachen_2_gtFine_instanceIds.png", b"another file"),
    ];
    let built = masked("cityscapes", &files, json!({})).unwrap();
    assert_eq!(outputs(&built), ["train"]);
    let train = images(&built, "train");
    assert_eq!(stems(&train), ["aachen_2_leftImg8bit.png", "ulm_1_leftImg8bit.png"]);
    assert_eq!(train.mask_classes.len(), 19);
    // Label id 26 is a car, train id 13; 0 (unlabelled), 14 (guard rail) and 29 (caravan) are void.
    assert_eq!([7, 26, 33, 0, 14, 29].map(|id| train.mask_values[id]), [0, 13, 18, 255, 255, 255]);
    assert_eq!(train.mask_values.iter().filter(|v| **v != 255).count(), 19);
    assert_eq!(built.metrics["cities"], 2.0);
    files[3].1 = &small;
    says(masked("cityscapes", &files, json!({})), &["is 4x2 but its mask", "is 2x2"]);
    files.remove(3);
    says(masked("cityscapes", &files, json!({})), &["1 of the 2 pictures", "`aachen/aachen_2`", "labelIds"]);
    says(masked("cityscapes", &files[..2], json!({})), &["looked for `leftImg8bit`, `gtFine`", "lacks `gtFine`"]);
    // Only the test split, whose masks are not public.
    let test =
        [("cs/leftImg8bit/test/a/a_leftImg8bit.png", &*picture), ("cs/gtFine/test/a/a_gtFine_labelIds.png", &mask)];
    says(masked("cityscapes", &test, json!({})), &["leftImg8bit/train/<city>/*_leftImg8bit.png", "there is neither"]);
}

#[test]
fn nyud_shifts_labels_and_finds_depth() {
    let picture = png_of(9, 4, 2, png::ColorType::Rgb);
    let mask = png_of(40, 4, 2, png::ColorType::Grayscale);
    let depth = write_grid(&Grid { width: 4, height: 2, values: vec![1.5; 8] });
    let turned = write_grid(&Grid { width: 2, height: 4, values: vec![1.5; 8] });
    let mut files: Vec<(&str, &[u8])> = vec![
        ("NYUD_MT/images/0001.jpg", &picture),
        ("NYUD_MT/images/0002.jpg", &picture),
        ("NYUD_MT/segmentation/0001.png", &mask),
        ("NYUD_MT/segmentation/0002.png", &mask),
        ("NYUD_MT/depth/0001.npy", &depth),
        ("NYUD_MT/gt_sets/train.txt", b"0001\n"),
        ("NYUD_MT/gt_sets/val.txt", b"0002\n"),
    ];
    let built = masked("nyud", &files, json!({})).unwrap();
    assert_eq!(outputs(&built), ["train_depth", "train", "val"]);
    let (deep, train) = (images(&built, "train_depth"), images(&built, "train"));
    assert_eq!(deep.entries[0].depth.as_ref().unwrap().path, "depth/0001.npy");
    assert_eq!(train.entries[0].depth, None);
    assert_eq!(train.mask_classes.len(), 40);
    assert_eq!([0, 1, 40, 41, 255].map(|value| train.mask_values[value]), [255, 0, 39, 255, 255]);
    files[4].1 = b"no array";
    says(masked("nyud", &files, json!({})), &["depth/0001.npy", "no NumPy file"]);
    files[4].1 = &turned;
    says(masked("nyud", &files, json!({})), &["images/0001.jpg` is 4x2", "depth/0001.npy` is 2x4"]);
    files[4].1 = &depth[..20];
    says(masked("nyud", &files, json!({})), &["depth/0001.npy", "cut short"]);
    says(
        masked("nyud", &[("NYUD_MT/images/1.jpg", &picture), ("NYUD_MT/segmentation/1.png", &mask)], json!({})),
        &["looked for `gt_sets`, `images`, `segmentation`", "`NYUD_MT` lacks `gt_sets`"],
    );
    // Only one of two has a map: there is no such output, and it is said.
    files[4].1 = &depth;
    files[5].1 = b"0001\n0002\n";
    let built = masked("nyud", &files, json!({})).unwrap();
    assert_eq!(outputs(&built), ["train", "val"]);
    assert!(built.warnings.iter().any(|said| said.contains("only 1 of the 2 pictures of `train`")), "{built:?}");
}

#[test]
fn samples_of_the_segmentation_sets() {
    let Some(samples) = samples() else { return };
    let built = build("voc_segmentation", &samples.join("voc/voc2012-seg-mini.tar"), json!({})).unwrap();
    assert_eq!(outputs(&built), ["val"]);
    assert_eq!(stems(&images(&built, "val")), ["2011_000003.jpg", "2011_000006.jpg", "2011_000025.jpg"]);
    let built = build("cityscapes", &samples.join("cityscapes-mini/cityscapes-mini.tar"), json!({})).unwrap();
    let val = images(&built, "val");
    assert_eq!(val.entries.len(), 1);
    // The sample has its train ids too. Its two maps were shrunk apart from one another and differ along edges, so what
    // most pixels of a label id say counts.
    let dir = unpacked(&samples, &["cityscapes-mini/cityscapes-mini.tar"]);
    let at = dir.path().join("cityscapes/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine");
    let read = |ending: &str| {
        let path = format!("{}_{ending}.png", at.display());
        harness_datasets::decode_mask(&fs::read(path).unwrap()).unwrap().values
    };
    let (ids, trains) = (read("labelIds"), read("labelTrainIds"));
    for id in [1, 2, 3, 4, 7, 8, 11, 13, 17, 20, 21, 23, 24, 26] {
        let mut counts = [0_usize; 256];
        ids.iter()
            .zip(&trains)
            .filter(|(found, _)| **found == id)
            .for_each(|(_, train)| counts[usize::from(*train)] += 1);
        let most = (0..256).max_by_key(|train| counts[*train]).unwrap();
        assert!(counts[most] > 0, "label id {id} is not in the sample");
        assert_eq!(usize::from(val.mask_values[usize::from(id)]), most, "label id {id}");
    }
}

/// A record of a batch: label bytes, then planes of which each pixel differs.
fn record(labels: &[u8], shade: u8) -> Vec<u8> {
    let pixels = (0..3072_usize).map(|at| (at / 1024 * 80 + at % 32) as u8 ^ shade);
    labels.iter().copied().chain(pixels).collect()
}

#[test]
fn cifar_batches_are_read_where_they_lie() {
    let batch = |first: u8| [record(&[first], first), record(&[1], first + 100)].concat();
    let batches: Vec<Vec<u8>> = (0..6).map(batch).collect();
    let mut names: Vec<String> = (1..=5).map(|n| format!("cifar-10-batches-bin/data_batch_{n}.bin")).collect();
    names.push("cifar-10-batches-bin/test_batch.bin".into());
    let mut files: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(batches.iter().map(Vec::as_slice)).collect();
    files.push(("cifar-10-batches-bin/batches.meta.txt", b"airplane\nautomobile\nbird\ncat\ndeer\ndog\n\n"));
    let dir = tree(&files);
    let built = build("cifar", dir.path(), json!({})).unwrap();
    let (train, test) = (images(&built, "train"), images(&built, "test"));
    assert_eq!((train.entries.len(), test.entries.len()), (10, 2));
    assert_eq!(train.entries.iter().map(|e| e.label.unwrap()).collect::<Vec<_>>(), [0, 1, 1, 1, 2, 1, 3, 1, 4, 1]);
    assert_eq!((test.entries[0].file.path.as_str(), test.entries[0].label), ("5/00000.ppm", Some(5)));
    let reader = harness_datasets::Reader::open(&built.location).unwrap();
    let picture = reader.read_verified(&train.entries[2].file).unwrap();
    let (header, pixels) = picture.split_at(13);
    assert_eq!(header, b"P6\n32 32\n255\n");
    assert_eq!(pixels.len(), 3072);
    // Row 1, column 1 in red, green and blue, under the batch's shade 1.
    let at = 3 * 33;
    assert_eq!(pixels[at..at + 3], [1 ^ 1, 81 ^ 1, 161 ^ 1]);

    fs::write(dir.path().join("cifar-10-batches-bin/data_batch_3.bin"), [0; 100]).unwrap();
    says(build("cifar", dir.path(), json!({})), &["data_batch_3.bin", "100 bytes"]);
    fs::remove_file(dir.path().join("cifar-10-batches-bin/data_batch_3.bin")).unwrap();
    says(build("cifar", dir.path(), json!({})), &["no file `data_batch_3.bin`"]);

    let train = record(&[0, 1], 7);
    let test = record(&[3, 0], 9);
    let hundred = tree(&[("train.bin", &train), ("test.bin", &test), ("fine_label_names.txt", b"apple\nfish\n")]);
    let built = build("cifar", hundred.path(), json!({})).unwrap();
    assert_eq!(images(&built, "train").entries[0].label, Some(1));
    assert_eq!(images(&built, "test").classes, ["apple", "fish"]);
    says(build("cifar", tree(&[("a.txt", b"x")]).path(), json!({})), &["`train.bin`", "`data_batch_1.bin`", "`a.txt`"]);
}
