//! Trees in folders, tars and zips; the builders on them; and what they say of bad input.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use harness_datasets::{
    Built, Error, ParallelHasher, Reader, Tree, davis, image_folder, locate, mask::colour, mask_folder,
    segmentation_pairs,
};
use harness_protocol::manifest::{Annotation, FileEntry, ImageManifest, MaskManifest, VideoManifest};
use harness_protocol::steps::{Davis, ImageFolder, MaskFolder, SegmentationPairs};
use harness_protocol::{Location, LocationForm};
use serde_json::json;
use tempfile::TempDir;

type Files = Vec<(String, Vec<u8>)>;

/// The same files as a folder, a tar, a stored zip and a deflated zip.
fn all_forms(dir: &Path, files: &Files) -> Vec<Location> {
    let folder = dir.join("folder");
    let mut tar = tar::Builder::new(fs::File::create(dir.join("tree.tar")).unwrap());
    // Archives in another order than the folder's.
    for (path, bytes) in files.iter().rev() {
        let target = folder.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("./{path}"), bytes.as_slice()).unwrap();
    }
    tar.finish().unwrap();
    for (name, method) in
        [("stored.zip", zip::CompressionMethod::Stored), ("deflated.zip", zip::CompressionMethod::Deflated)]
    {
        let mut zip = zip::ZipWriter::new(fs::File::create(dir.join(name)).unwrap());
        for (path, bytes) in files.iter().rev() {
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            zip.start_file(path.as_str(), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }
    ["folder", "tree.tar", "stored.zip", "deflated.zip"].map(|n| locate(&dir.join(n)).unwrap()).to_vec()
}

fn folder(dir: &Path, files: &Files) -> Location {
    all_forms(dir, files).remove(0)
}

fn file(path: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    (path.into(), bytes.to_vec())
}

/// Grey or palette PNG whose pixels all have one of `values` in turn.
fn png_of(values: &[u8], width: u32, height: u32, palette: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(if palette { png::ColorType::Indexed } else { png::ColorType::Grayscale });
    if palette {
        encoder.set_palette((0..=255).flat_map(colour).collect::<Vec<u8>>());
    }
    let pixels: Vec<u8> = (0..(width * height) as usize).map(|i| values[i % values.len()]).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

fn pictures() -> Files {
    let mut files = Vec::new();
    for class in ["cat", "ant", "bee"] {
        for i in 0..10 {
            files.push(file(
                &format!("train/{class}/{i}.JPG"),
                format!("{class} number {i} {}", "x".repeat(500)).as_bytes(),
            ));
        }
    }
    files.push(file("train/bee/deep/er.png", b"deeper"));
    files.push(file("train/cat/notes.txt", b"no picture"));
    files.push(file("train/cat/._0.jpg", b"left by a system"));
    files.push(file("__MACOSX/train/cat/0.jpg", b"left by a system"));
    files.push(file("train/.hidden/0.jpg", b"hidden"));
    files
}

fn images(params: serde_json::Value) -> ImageFolder {
    let mut all = json!({"path": {"path": "."}});
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn build(params: serde_json::Value, location: &Location) -> Result<Built, Error> {
    image_folder(&images(params), location, &ParallelHasher)
}

fn manifest(built: &Built, output: &str) -> ImageManifest {
    serde_json::from_slice(built.output(output).unwrap()).unwrap()
}

fn paths(manifest: &ImageManifest) -> Vec<&str> {
    manifest.entries.iter().map(|e| e.file.path.as_str()).collect()
}

#[test]
fn every_form_gives_the_same_manifest() {
    let dir = TempDir::new().unwrap();
    let locations = all_forms(dir.path(), &pictures());
    let params = json!({"inside": "train", "holdout": 0.2, "per_class": 9, "split_seed": 7});
    let built: Vec<Built> = locations.iter().map(|l| build(params.clone(), l).unwrap()).collect();
    for other in &built[1..] {
        assert_eq!(other.outputs, built[0].outputs, "{:?}", other.location);
        assert_eq!(other.metrics, built[0].metrics);
    }
    let all = manifest(&built[0], "all");
    assert_eq!(all.classes, ["ant", "bee", "cat"]);
    assert_eq!(all.entries.len(), 27);
    assert!(all.entries.is_sorted_by_key(|e| &e.file.path));
    // Every file can be read back from every form.
    for one in &built {
        let reader = Reader::open(&one.location).unwrap();
        for entry in &all.entries {
            reader.read_verified(&entry.file).unwrap();
        }
    }
}

#[test]
fn threads_read_one_archive_together() {
    let dir = TempDir::new().unwrap();
    for location in all_forms(dir.path(), &pictures()) {
        let tree = Tree::open(&location).unwrap();
        let expected: Vec<_> = tree.list().unwrap().iter().map(|f| tree.read(&f.path).unwrap()).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (file, bytes) in tree.list().unwrap().iter().zip(&expected) {
                        assert_eq!(&tree.read(&file.path).unwrap(), bytes);
                        assert_eq!(tree.read_start(&file.path, 3).unwrap(), bytes[..3]);
                    }
                });
            }
        });
    }
}

#[test]
fn holdout_is_stratified_and_seeded() {
    let dir = TempDir::new().unwrap();
    let location = folder(dir.path(), &pictures());
    let side = |seed: u64| {
        let built = build(json!({"inside": "train", "holdout": 0.3, "split_seed": seed}), &location).unwrap();
        (manifest(&built, "train"), manifest(&built, "holdout"))
    };
    let (train, holdout) = side(0);
    for class in 0..3 {
        assert_eq!(holdout.entries.iter().filter(|e| e.label == Some(class)).count(), 3);
    }
    assert_eq!(train.entries.len() + holdout.entries.len(), 31);
    assert!(paths(&train).iter().all(|p| !paths(&holdout).contains(p)));
    assert_eq!(side(0).1, holdout);
    assert_ne!(side(1).1, holdout);
}

#[test]
fn copies_stay_together_and_two_labels_are_told() {
    let dir = TempDir::new().unwrap();
    let mut files: Files = (0..20).map(|i| file(&format!("a/{i:02}.png"), &[i / 2])).collect();
    files.push(file("b/0.png", &[0]));
    files.push(file("b/1.png", b"other"));
    let built = build(json!({"holdout": 0.5}), &folder(dir.path(), &files)).unwrap();
    let digests = |m: &ImageManifest| m.entries.iter().map(|e| e.file.digest.clone()).collect::<Vec<_>>();
    let (train, holdout) = (digests(&manifest(&built, "train")), digests(&manifest(&built, "holdout")));
    assert!(holdout.iter().all(|d| !train.contains(d)));
    assert!(built.warnings.iter().any(|w| w.contains("moved to train")), "{:?}", built.warnings);
    assert!(
        built.warnings.iter().any(|w| w.contains("more than one label") && w.contains("`a`, `b`")),
        "{:?}",
        built.warnings
    );
}

#[test]
fn metrics_tell_the_balance() {
    let dir = TempDir::new().unwrap();
    let files: Files = ["a/1.png", "a/2.png", "a/3.png", "b/4.png"].iter().map(|p| file(p, p.as_bytes())).collect();
    let built = build(json!({}), &folder(dir.path(), &files)).unwrap();
    assert_eq!(built.metrics["gini"], 0.25);
    assert_eq!(built.metrics["max_min_ratio"], 3.0);
    let unlabelled = build(json!({"labels": "none"}), &locate(&dir.path().join("tree.tar")).unwrap()).unwrap();
    assert_eq!(manifest(&unlabelled, "all").entries.iter().filter(|e| e.label.is_none()).count(), 4);
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("this must be refused").to_string()
}

#[test]
fn missing_things_are_named() {
    let dir = TempDir::new().unwrap();
    let locations = all_forms(dir.path(), &vec![file("train/a/notes.txt", b"no"), file("train/a/b.gif", b"no")]);
    for location in locations {
        let error = message(build(json!({"inside": "train/x/y"}), &location));
        assert!(error.contains("`train/x/y`") && error.contains("nearest, `train`, holds `a`"), "{error}");
        let error = message(build(json!({"inside": "valid"}), &location));
        assert!(error.contains("its top holds `train`"), "{error}");
        let error = message(build(json!({"inside": "train"}), &location));
        assert!(error.contains("webp") && error.contains("1 with .gif") && error.contains("1 with .txt"), "{error}");
        let error = message(build(json!({"inside": "../elsewhere"}), &location));
        assert!(error.contains("`..` is refused"), "{error}");
    }
    let error = message(locate(&dir.path().join("nowhere")));
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn pictures_without_folders_are_refused() {
    let dir = TempDir::new().unwrap();
    let error = message(build(json!({}), &folder(dir.path(), &vec![file("a.png", b"1")])));
    assert!(error.contains("labels: none"), "{error}");
}

#[test]
fn bad_archives_are_refused() {
    let dir = TempDir::new().unwrap();
    let open = |name: &str, form: LocationForm| {
        message(Tree::open(&Location { path: dir.path().join(name), form, ..Location::default() }))
    };
    let mut tar = tar::Builder::new(fs::File::create(dir.path().join("evil.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    // The crate's own setter refuses such names.
    header.as_mut_bytes()[..9].copy_from_slice(b"../x.jpg\0");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    tar.finish().unwrap();
    let error = open("evil.tar", LocationForm::Tar);
    assert!(error.contains("../x.jpg") && error.contains("`..` is refused"), "{error}");

    let mut zip = zip::ZipWriter::new(fs::File::create(dir.path().join("evil.zip")).unwrap());
    zip.start_file("../x.jpg", zip::write::SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap();
    assert!(open("evil.zip", LocationForm::Zip).contains("`..` is refused"));

    fs::write(dir.path().join("gz.tar"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]).unwrap();
    assert!(open("gz.tar", LocationForm::Tar).contains("gzip"));
    fs::write(dir.path().join("junk.zip"), b"not a zip at all").unwrap();
    assert!(open("junk.zip", LocationForm::Zip).contains("damaged"));

    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    all_forms(&sub, &vec![file("a/1.png", &[7; 3000])]);
    let whole = fs::read(sub.join("tree.tar")).unwrap();
    fs::write(dir.path().join("cut.tar"), &whole[..1500]).unwrap();
    assert!(open("cut.tar", LocationForm::Tar).contains("cut short"));
    assert!(open("cut.tar", LocationForm::File).contains("single file"));
}

#[test]
fn changed_files_are_noticed() {
    let dir = TempDir::new().unwrap();
    let location = folder(dir.path(), &vec![file("a/1.png", b"first")]);
    let entry = manifest(&build(json!({}), &location).unwrap(), "all").entries[0].file.clone();
    let reader = Reader::open(&location).unwrap();
    assert_eq!(reader.read_verified(&entry).unwrap(), b"first");
    fs::write(dir.path().join("folder/a/1.png"), b"tsrif").unwrap();
    let error = message(reader.read_verified(&entry));
    assert!(error.contains("changed since it was hashed") && error.contains(&entry.digest), "{error}");
    fs::write(dir.path().join("folder/a/1.png"), b"longer").unwrap();
    assert!(message(reader.read_verified(&entry)).contains("expected 5 bytes, found 6 bytes"));
    let outside = FileEntry { path: "../../secret".into(), ..entry };
    assert!(message(reader.read_verified(&outside)).contains("`..` is refused"));
}

#[test]
fn links_in_folders_and_tars_lead_to_files() {
    use std::os::unix::fs::symlink;
    let dir = TempDir::new().unwrap();
    let location = folder(dir.path(), &vec![file("a/1.png", b"one")]);
    let top = dir.path().join("folder");
    symlink(&top, top.join("a/loop")).unwrap();
    symlink(top.join("a/1.png"), top.join("a/2.png")).unwrap();
    let built = build(json!({}), &location).unwrap();
    assert_eq!(paths(&manifest(&built, "all")), ["a/1.png", "a/2.png"]);

    let mut tar = tar::Builder::new(fs::File::create(dir.path().join("links.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    tar.append_data(&mut header, "a/1.png", &b"one"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "a/2.png", "../a/1.png").unwrap();
    tar.finish().unwrap();
    let linked = build(json!({}), &locate(&dir.path().join("links.tar")).unwrap()).unwrap();
    assert_eq!(linked.outputs, built.outputs);

    symlink(top.join("gone"), top.join("a/3.png")).unwrap();
    assert!(message(build(json!({}), &location)).contains("leads nowhere"));
}

fn pairs(params: serde_json::Value) -> SegmentationPairs {
    let mut all = json!({"path": {"path": "."}, "list": "set/list.txt", "classes": ["sky", "road"]});
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

#[test]
fn pairs_are_found_by_their_list() {
    let dir = TempDir::new().unwrap();
    let picture = png_of(&[9, 200], 6, 4, false);
    let mask = png_of(&[0, 1, 255], 6, 4, true);
    let list = b"/set/img/b.png /set/lab/b.png\r\n\nimg/a.png\tlab/a.png\n./set/img/b.png set/lab/b.png\n";
    let mut files = vec![file("set/list.txt", list)];
    for name in ["a", "b"] {
        let mut picture = picture.clone();
        picture.extend(name.bytes());
        files.push(file(&format!("set/img/{name}.png"), &picture));
        files.push(file(&format!("set/lab/{name}.png"), &mask));
    }
    let built: Vec<Built> = all_forms(dir.path(), &files)
        .iter()
        .map(|l| segmentation_pairs(&pairs(json!({"holdout": 0.5})), l, &ParallelHasher).unwrap())
        .collect();
    assert!(built.iter().all(|b| b.outputs == built[0].outputs));
    let all = manifest(&built[0], "all");
    assert_eq!(paths(&all), ["set/img/a.png", "set/img/b.png"]);
    assert_eq!(all.entries[1].mask.as_ref().unwrap().path, "set/lab/b.png");
    assert_eq!(all.mask_classes, ["sky", "road"]);
    assert_eq!(manifest(&built[0], "holdout").entries.len(), 1);
    assert!(built[0].warnings[0].contains("repeat"), "{:?}", built[0].warnings);
}

#[test]
fn bad_pairs_name_their_line() {
    let refuse = |list: &str, mask: &[u8]| {
        let dir = TempDir::new().unwrap();
        let files = vec![
            file("set/list.txt", list.as_bytes()),
            file("set/a.png", &png_of(&[1], 6, 4, false)),
            file("set/m.png", mask),
        ];
        message(segmentation_pairs(&pairs(json!({})), &folder(dir.path(), &files), &ParallelHasher))
    };
    let good = png_of(&[1], 6, 4, false);
    let error = refuse("set/a.png set/m.png\nset/a.png set/gone.png\n", &good);
    assert!(error.contains("line 2") && error.contains("`set/gone.png`"), "{error}");
    let error = refuse("set/a.png\n", &good);
    assert!(error.contains("line 1") && error.contains("1 field"), "{error}");
    let error = refuse("set/a.png ../m.png\n", &good);
    assert!(error.contains("`..` is refused"), "{error}");
    let error = refuse("set/a.png set/m.png", &png_of(&[1], 4, 6, false));
    assert!(error.contains("6x4") && error.contains("4x6"), "{error}");
    let error = refuse("set/a.png set/m.png", b"\xff\xd8\xff");
    assert!(error.contains("not a PNG"), "{error}");
    let error = refuse("set/a.png set/m.png\nset/a.png set/a.png", &good);
    assert!(error.contains("line 2") && error.contains("in line 1"), "{error}");
    assert!(refuse("\n", &good).contains("empty"));
    let dir = TempDir::new().unwrap();
    let files = folder(dir.path(), &vec![file("other.txt", b"")]);
    let error = message(segmentation_pairs(&pairs(json!({})), &files, &ParallelHasher));
    assert!(error.contains("`set/list.txt`") && error.contains("`other.txt`"), "{error}");
}

fn videos(top: &str, masks: &[u8], palette: bool, list: (&str, &str)) -> Files {
    let mut files = vec![file(&format!("{top}{}", list.0), list.1.as_bytes())];
    for name in ["cow", "bus"] {
        for i in 0..4 {
            let mut frame = png_of(&[i], 8, 6, false);
            frame.extend(name.bytes());
            files.push(file(&format!("{top}JPEGImages/480p/{name}/{i:05}.png"), &frame));
            files.push(file(&format!("{top}Annotations/480p/{name}/{i:05}.png"), &png_of(masks, 8, 6, palette)));
        }
    }
    files
}

fn read_videos(year: &str, more: serde_json::Value, files: &Files) -> Result<Built, Error> {
    let dir = TempDir::new().unwrap();
    let mut params = json!({"path": {"path": "."}, "year": year});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let params: Davis = serde_json::from_value(params).unwrap();
    let mut built = all_forms(dir.path(), files).into_iter().map(|l| davis(&params, &l, &ParallelHasher));
    let first = built.next().unwrap()?;
    for other in built {
        assert_eq!(other?.outputs, first.outputs);
    }
    Ok(first)
}

#[test]
fn both_years_are_read() {
    let list = ("ImageSets/2017/val.txt", "cow\nbus\n");
    for top in ["", "DAVIS/"] {
        let built = read_videos("2017", json!({}), &videos(top, &[0, 1, 2, 255], true, list)).unwrap();
        let manifest: VideoManifest = serde_json::from_slice(built.output("videos").unwrap()).unwrap();
        assert_eq!(manifest.annotation, Annotation::Indexed);
        assert_eq!(manifest.sequences.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["bus", "cow"]);
        for sequence in &manifest.sequences {
            assert_eq!((sequence.frames.len(), sequence.masks.len()), (4, 4));
            for (i, (frame, mask)) in sequence.frames.iter().zip(&sequence.masks).enumerate() {
                assert_eq!(frame.path, format!("JPEGImages/480p/{}/{i:05}.png", sequence.name));
                assert_eq!(mask.path, format!("Annotations/480p/{}/{i:05}.png", sequence.name));
            }
        }
        assert_eq!(built.metrics["frames"], 8.0);
    }
    let list = ("ImageSets/480p/val.txt", "/JPEGImages/480p/bus/00000.jpg /Annotations/480p/bus/00000.png\n");
    let built = read_videos("2016", json!({"max_frames": 3}), &videos("", &[0, 255], false, list)).unwrap();
    let manifest: VideoManifest = serde_json::from_slice(built.output("videos").unwrap()).unwrap();
    assert_eq!(manifest.annotation, Annotation::Binary);
    assert_eq!((manifest.sequences.len(), manifest.sequences[0].frames.len()), (1, 3));
}

#[test]
fn the_wrong_year_is_noticed() {
    let list = ("ImageSets/2017/val.txt", "cow\nbus\n");
    let error = message(read_videos("2017", json!({}), &videos("", &[0, 255], false, list)));
    assert!(error.contains("annotation of DAVIS 2016") && error.contains("year: \"2016\""), "{error}");
    let error = message(read_videos("2016", json!({}), &videos("", &[0, 1, 2], true, list)));
    assert!(error.contains("annotation of DAVIS 2017") && error.contains("year: \"2017\""), "{error}");
}

#[test]
fn broken_video_trees_are_refused() {
    let list = ("ImageSets/2017/val.txt", "cow\nbus\n");
    let files = || videos("", &[0, 1], true, list);
    let error = message(read_videos("2017", json!({"split": "test"}), &files()));
    assert!(error.contains("ImageSets/2017/test.txt") && error.contains("`ImageSets/2017/val.txt`"), "{error}");
    let error = message(read_videos("2017", json!({"resolution": "1080p"}), &files()));
    assert!(error.contains("`480p`"), "{error}");
    let error = message(read_videos("2017", json!({"sequences": ["dog"]}), &files()));
    assert!(error.contains("`dog`") && error.contains("`cow`"), "{error}");
    let mut cut = files();
    cut.retain(|(path, _)| path != "Annotations/480p/bus/00002.png");
    let error = message(read_videos("2017", json!({}), &cut));
    assert!(error.contains("4 frames and 3 masks") && error.contains("`00002`"), "{error}");
    let mut odd = files();
    for (path, bytes) in &mut odd {
        if path == "Annotations/480p/bus/00002.png" {
            *bytes = png_of(&[0, 1], 6, 8, true);
        }
    }
    let error = message(read_videos("2017", json!({}), &odd));
    assert!(error.contains("sequence `bus`") && error.contains("00002.png` is 6x8"), "{error}");
    let error = message(read_videos("2017", json!({}), &vec![file("a/b.jpg", b"")]));
    assert!(error.contains("JPEGImages") && error.contains("`a`"), "{error}");
    let built = read_videos("2017", json!({}), &videos("", &[0], true, list)).unwrap();
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
}

/// A file of the shared real data; none, with a word, where it is not at hand.
fn shared(path: &str) -> Option<Location> {
    let top = std::env::var_os("HARNESS_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let found = locate(&top.join(path)).ok();
    if found.is_none() {
        eprintln!("skipped: no {} (set HARNESS_SHARED_DATA)", top.join(path).display());
    }
    found
}

#[test]
fn real_cifar_pictures() {
    let Some(location) = shared("cifar10-jpg/full-test.zip") else { return };
    let built = build(json!({"inside": "test", "per_class": 50, "holdout": 0.2}), &location).unwrap();
    assert_eq!((built.metrics["pictures"], built.metrics["classes"]), (500.0, 10.0));
    assert_eq!(manifest(&built, "holdout").entries.len(), 100);
}

#[test]
fn real_camvid_pairs() {
    let Some(location) = shared("camvid/val.tar") else { return };
    let params = pairs(json!({"list": "CamVid/val.txt", "ignore": [11], "classes": ["sky", "building", "pole", "road",
        "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]}));
    let built = segmentation_pairs(&params, &location, &ParallelHasher).unwrap();
    assert_eq!(built.metrics["pictures"], 25.0);
    let reader = Reader::open(&built.location).unwrap();
    let mask = manifest(&built, "all").entries[0].mask.clone().unwrap();
    let mask = harness_datasets::decode_mask(&reader.read_verified(&mask).unwrap()).unwrap();
    assert_eq!((mask.width, mask.height), (480, 360));
    assert_eq!(harness_datasets::check_mask(&mask.values, mask.width, 11, &[11]), Ok(()));
}

#[test]
fn real_davis_videos() {
    if let Some(location) = shared("davis2016/davis-480p.tar") {
        let read = |year: &str| {
            let params: Davis = serde_json::from_value(json!({"path": {"path": "."}, "year": year})).unwrap();
            davis(&params, &location, &ParallelHasher)
        };
        assert_eq!(read("2016").unwrap().metrics["frames"], 272.0);
        assert!(message(read("2017")).contains("annotation of DAVIS 2016"));
    }
    if let Some(location) = shared("davis2017-mini/davis2017-mini.tar") {
        let read = |year: &str| {
            let params = json!({"path": {"path": "."}, "year": year, "split": "train"});
            davis(&serde_json::from_value(params).unwrap(), &location, &ParallelHasher)
        };
        assert_eq!(read("2017").unwrap().metrics["sequences"], 2.0);
        assert!(message(read("2016")).contains("annotation of DAVIS 2017"));
    }
}

#[test]
fn predicted_masks_are_listed_wherever_they_lie() {
    let params: MaskFolder = serde_json::from_value(json!({ "path": { "path": "x" } })).unwrap();
    let mask = png_of(&[0, 1], 4, 2, true);
    let files = vec![
        file("result/bear/00001.png", &mask),
        file("result/bear/00000.PNG", &mask),
        file("result/tennis/00000.png", &mask),
        file("result/global_results.csv", b"J,F"),
        file("overview.png", &mask),
    ];
    let dir = TempDir::new().unwrap();
    let built: Vec<Built> = all_forms(dir.path(), &files)
        .iter()
        .map(|location| mask_folder(&params, location, &ParallelHasher).unwrap())
        .collect();
    assert!(built.iter().all(|b| b.outputs == built[0].outputs));
    assert_eq!(built[0].metrics["files"], 3.0);
    let manifest: MaskManifest = serde_json::from_slice(built[0].output("masks").unwrap()).unwrap();
    let paths: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["result/bear/00000.PNG", "result/bear/00001.png", "result/tennis/00000.png"]);

    let dir = TempDir::new().unwrap();
    let location = folder(dir.path(), &vec![file("00000.png", &mask), file("notes/a.txt", b"x")]);
    let text = message(mask_folder(&params, &location, &ParallelHasher));
    assert!(text.contains("`<sequence>/<frame>.png`") && text.contains("00000.png"), "{text}");
}
