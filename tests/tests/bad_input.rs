//! What people get wrong, end to end: each message names the thing, the place and the way out, and nothing is lost.

use harness_tests::{Ran, Test};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use std::os::unix::fs::PermissionsExt;

/// A small picture of one of two classes.
fn picture(class: u32, at: u32) -> RgbImage {
    let stripe = |x: u32, y: u32| if class == 0 { x / 2 } else { y / 2 };
    RgbImage::from_fn(16, 16, |x, y| {
        let light = if (stripe(x, y) + at).is_multiple_of(2) { 220 } else { 40 };
        Rgb([light, (light / 2).wrapping_add((at * 5) as u8), 90])
    })
}

fn bytes(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    picture.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A folder of two classes with `each` pictures, and an experiment.
fn photos(each: u32, text: &str) -> Test {
    let test = Test::new().file("a.exp", text);
    for (class, name) in ["cat", "dog"].into_iter().enumerate() {
        for at in 0..each {
            let png = bytes(picture(class as u32, at), ImageFormat::Png);
            test.write(&format!("photos/{name}/{at:02}.png"), png);
        }
    }
    test
}

const KNN: &str = r#"
image_folder photos { path = "photos" }
encoder random { source = random { architecture = resnet18 { stem = small, width = 0.0625 } } }
knn nearest {
    encoder = random, train = photos, test = photos, allow_overlap = true, k = 3, transform = { resize = 8, crop = 8 }
}
"#;

const PRETRAIN: &str = r#"
image_folder photos { path = "photos" }
pretrain moco {
    data = photos, encoder = resnet18 { stem = small, width = 0.0625 }, epochs = 1, batch = 4
    contrast = moco { dim = 4, queue = 8 }, views = two_crops { size = 12 }
}
"#;

fn failed(test: &Test) -> Ran {
    test.harness(&["run", "a.exp", "--keep-going"]).code(1)
}

#[test]
fn a_dataset_that_is_not_there_or_has_no_pictures() {
    let test = Test::new().file("a.exp", KNN);
    let _ = failed(&test).says(&["photos`: it does not exist", "look at the step's `path`"]);
    std::fs::create_dir_all(test.path().join("photos/cat")).unwrap();
    test.write("photos/cat/notes.txt", "none");
    let _ = failed(&test).says(&["photos", "no picture"]);
}

#[test]
fn a_truncated_picture_is_named_and_counted_before_training() {
    let test = photos(6, PRETRAIN);
    let mut jpeg = bytes(picture(0, 99), ImageFormat::Jpeg);
    jpeg.truncate(jpeg.len() * 2 / 3);
    test.write("photos/cat/broken.jpg", jpeg);
    let ran = failed(&test).says(&["cat/broken.jpg", "1 of 13"]);
    assert!(!ran.stderr.contains("epoch 1/1"), "training had begun:\n{}", ran.stderr);
    // Without it, everything that can be used is used.
    std::fs::remove_file(test.path().join("photos/cat/broken.jpg")).unwrap();
    let _ = test.harness(&["run", "a.exp"]).code(0);
}

#[test]
fn grey_pictures_are_pictures() {
    let test = photos(4, KNN);
    for at in 0..3u32 {
        let grey = GrayImage::from_fn(16, 16, |x, y| Luma([((x + y + at) * 7) as u8]));
        test.write(&format!("photos/cat/grey{at}.png"), bytes(grey.clone(), ImageFormat::Png));
        test.write(
            &format!("photos/dog/grey{at}.jpg"),
            bytes(GrayImage::from_fn(16, 16, |x, y| Luma([(x * 9 + y * 5 + at) as u8])), ImageFormat::Jpeg),
        );
    }
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    // With the features that the evaluation implies.
    assert_eq!(ran.counts(), [4, 0, 0, 0]);
}

#[test]
fn test_pictures_that_were_learned_from_are_refused_or_said_every_time() {
    let text = r#"
image_folder train { path = "photos" }
image_folder clean { path = "clean" }
image_folder dirty { path = "dirty" }
let look = { resize = 8, crop = 8 }
pretrain moco {
    data = train, encoder = resnet18 { stem = small, width = 0.0625 }, epochs = 1, batch = 4
    contrast = moco { dim = 4, queue = 8 }, views = two_crops { size = 12 }
    monitor = knn { train = clean, test = dirty, k = 1, transform = look }
}
knn honest    { encoder = moco, train = train, test = clean, k = 3, transform = look }
knn flattered { encoder = moco, train = clean, test = dirty, k = 3, transform = look }
"#;
    let refused = photos(4, text);
    let test = photos(4, &text.replace("test = dirty, k = 3", "test = dirty, allow_overlap = true, k = 3"));
    for (at, class) in ["cat", "dog"].into_iter().enumerate() {
        let png = |shift: u32| bytes(picture(at as u32, 20 + shift), ImageFormat::Png);
        for test in [&refused, &test] {
            test.write(&format!("clean/{class}/0.png"), png(0));
            test.write(&format!("dirty/{class}/0.png"), png(5));
        }
    }
    for test in [&refused, &test] {
        std::fs::copy(test.path().join("photos/dog/02.png"), test.path().join("dirty/dog/same.png")).unwrap();
    }
    let found =
        "`flattered` is judged on what was learned from: 1 of the 3 files of `dirty.all` is also in `train.all`";
    let ran = refused.harness(&["run", "a.exp", "--keep-going", "--json"]).code(1).says(&[found, "`dog/same.png`"]);
    assert_eq!((ran.status("honest"), ran.status("flattered")), ("executed".into(), "failed".into()));
    for _ in 0..2 {
        let ran = test.harness(&["run", "a.exp"]).code(0).says(&[found, "`dog/same.png`", "its numbers flatter"]);
        assert!(!ran.stderr.contains("`honest` is judged"), "{}", ran.stderr);
        let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.md")).unwrap();
        assert!(page.contains("1 of the 3 files of") && page.contains("its numbers flatter"), "{page}");
    }
}

#[test]
fn why_names_the_field_and_the_file() {
    let test = photos(4, KNN);
    let none = test.harness(&["why", "a.exp", "nearest"]).code(0);
    assert!(none.stdout.contains("nearest: ") && none.stdout.contains("random: would be computed"), "{}", none.stdout);
    let _ = test.harness(&["run", "a.exp"]).code(0);
    let known = test.harness(&["why", "a.exp", "nearest"]).code(0);
    assert!(
        known.stdout.starts_with("nearest: known, computed 20") && known.stdout.lines().count() == 1,
        "{}",
        known.stdout
    );

    test.write("a.exp", KNN.replace("k = 3", "k = 4"));
    let field = test.harness(&["why", "a.exp", "nearest"]).code(0);
    assert!(
        field.stdout.contains("nearest: would be computed") && field.stdout.contains("    k: 3 -> 4"),
        "{}",
        field.stdout
    );

    test.write("a.exp", KNN);
    test.write("photos/cat/00.png", bytes(picture(0, 40), ImageFormat::Png));
    let file = test.harness(&["why", "a.exp", "photos"]).code(0);
    assert!(file.stdout.contains("cat/00.png changed"), "{}", file.stdout);
    let input = test.harness(&["why", "a.exp", "nearest"]).code(0);
    assert!(input.stdout.contains("    data: `photos.all` has another content, "), "{}", input.stdout);
    let _ = test.harness(&["why", "a.exp", "nothing"]).code(2).says(&["nothing"]);
}

#[test]
fn a_batch_larger_than_the_dataset_and_a_queue_that_does_not_fit() {
    let test = photos(1, PRETRAIN);
    let _ = failed(&test).says(&["a batch of 4 is larger than the dataset of 2 pictures", "lower `batch`"]);
    test.write("a.exp", PRETRAIN.replace("queue = 8", "queue = 10"));
    let _ = test
        .harness(&["run", "a.exp"])
        .code(2)
        .says(&["a queue of 10 is not a multiple of the batch of 4; 8 is", "a.exp:5"]);
}

/// Pairs of pictures and masks with classes 0 to 2 in `pairs/`.
fn pairs(edit: impl Fn(u32, &mut GrayImage)) -> Test {
    let test = Test::new().file(
        "a.exp",
        r#"
segmentation_pairs roads { path = "pairs", list = "list.txt", classes = ["sky", "road", "car"], ignore = [255] }
encoder random { source = random { architecture = resnet18 { stem = small, width = 0.0625 } } }
segment parts {
    encoder = random, train = roads, test = roads, allow_overlap = true, size = 16, epochs = 1, batch = 2
    head = fcn { channels = 4 }
}
"#,
    );
    let mut list = String::new();
    for at in 0..4u32 {
        let mut mask = GrayImage::from_fn(16, 16, |x, _| Luma([(x / 6) as u8]));
        edit(at, &mut mask);
        test.write(&format!("pairs/{at}.png"), bytes(picture(0, at), ImageFormat::Png));
        test.write(&format!("pairs/{at}.mask.png"), bytes(mask, ImageFormat::Png));
        list += &format!("{at}.png {at}.mask.png\n");
    }
    test.write("pairs/list.txt", list);
    test
}

#[test]
fn masks_that_do_not_fit_their_pictures_or_classes() {
    let small = pairs(|at, mask| {
        if at == 2 {
            *mask = GrayImage::new(8, 12);
        }
    });
    let _ = failed(&small).says(&["2.mask.png", "8x12", "16x16"]);
    let outside = pairs(|at, mask| {
        if at == 1 {
            mask.put_pixel(3, 4, Luma([7]));
        }
    });
    let _ = failed(&outside).says(&["1.mask.png", "7", "3 classes"]);
    let good = pairs(|_, _| ());
    let _ = good.harness(&["run", "a.exp"]).code(0);
}

#[test]
fn a_cache_that_cannot_be_written_is_said_at_once() {
    let test = Test::new().file("a.exp", "command c { run = [\"true\"] }\n");
    let cache = test.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Nobody, because root may write everywhere.
    // SAFETY: asks for this process's user.
    if unsafe { libc::geteuid() } == 0 {
        std::fs::set_permissions(test.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = test.command(&["run", "a.exp", "--cache", "cache"]);
        let output = std::os::unix::process::CommandExt::uid(&mut command, 65534).output();
        match output {
            Ok(output) => {
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{stderr}");
                assert!(stderr.contains("cache") && stderr.contains("--cache"), "{stderr}");
            }
            // The program lies where nobody may not go.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: another user cannot start the program here ({error})");
            }
            Err(error) => panic!("{error}"),
        }
    } else {
        let _ = test.harness(&["run", "a.exp", "--cache", "cache"]).code(2).says(&["cache", "--cache"]);
    }
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_damaged_encoder_is_noticed_and_made_again() {
    let test = photos(4, KNN);
    let _ = test.harness(&["run", "a.exp"]).code(0);
    let mut damaged = 0;
    for folder in std::fs::read_dir(test.path().join(".harness/blobs")).unwrap() {
        for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            let mut content = std::fs::read(&path).unwrap();
            if String::from_utf8_lossy(&content[..content.len().min(4096)]).contains("layer1.0") {
                let last = content.len() - 1;
                content[last] ^= 1;
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, content).unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    // Asked anew, so that the encoder is read: it is made again and the answer stands.
    test.write("a.exp", KNN.replace("k = 3", "k = 4"));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!((ran.status("random").as_str(), ran.status("nearest").as_str()), ("executed", "executed"));
}

/// An `.npy` table of `rows` × 2 whose rows follow the class of the picture, as a program of one's own would write it.
fn table(rows: u32) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}");
    header.push_str(&" ".repeat(118 - header.len() - 1));
    header.push('\n');
    let mut bytes = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), header.as_bytes()].concat();
    for row in 0..rows {
        let class = if row < rows / 2 { [1.0f32, 0.1] } else { [0.1, 1.0] };
        class.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes
}

#[test]
fn vectors_of_ones_own_program_take_the_place_of_an_encoder() {
    let text = r#"
image_folder photos { path = "photos" }
command mine {
    run = ["cp", "{inputs.table}", "{outputs.all}"]
    files = { table = "table.npy" }, outputs = { all = { kind = features, path = "all.npy" } }
}
knn nearest {
    train = photos, test = photos, allow_overlap = true, vectors = { train = mine.all, test = mine.all }, k = 1
}
linear_probe probe {
    train = photos, test = photos, allow_overlap = true, vectors = { train = mine.all, test = mine.all }, features = cached
    epochs = 20, optimizer = sgd { lr = 0.5 }
}
"#;
    let test = photos(4, text);
    test.write("table.npy", table(8));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!(ran.counts(), [4, 0, 0, 0]);
    let events = ran.events();
    for label in ["nearest", "probe"] {
        let end = events.iter().find(|e| e["event"] == "step_finished" && e["label"] == label).unwrap();
        assert_eq!(end["metrics"]["top1"], 1.0, "{end}");
    }
    test.write("table.npy", table(7));
    let _ = failed(&test).says(&["vectors of train have 7 rows", "the dataset has 8 pictures"]);
    let both = text.replace("k = 1\n", "k = 1, encoder = look\n");
    test.write("a.exp", both + "encoder look { source = pixels { size = 8 } }\n");
    let _ = test.harness(&["run", "a.exp"]).code(2).says(&["no encoder is needed"]);
    test.write("a.exp", text.replace(", features = cached", ""));
    let _ = test.harness(&["run", "a.exp"]).code(2).says(&["cannot be augmented", "features = cached"]);
}

#[test]
fn a_hostile_checkpoint_is_refused_and_runs_nothing() {
    let text = "encoder evil { file = \"evil.pth\" }\n";
    let test = Test::new().file("a.exp", text);
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/worker/tests/foreign/hostile.pth");
    test.write("evil.pth", std::fs::read(file).unwrap());
    let _ = failed(&test).says(&["evil.pth", "`posix.system`", "nothing of it was run"]);
    test.write("a.exp", "encoder two { file = \"evil.pth\", source = random }\n");
    let _ = test.harness(&["run", "a.exp"]).code(2).says(&["exactly one of `file`, `torchscript` and `source`"]);
}

#[test]
fn an_svm_on_a_small_set_in_the_layout_of_voc() {
    let Some(shared) = harness_tests::shared_data() else { return };
    let test = Test::new().file(
        "a.exp",
        r#"
voc_classification rooms { path = @rooms/indoor.tar }
encoder look { source = histogram { bins = 4 } }
linear_svm svm { encoder = look, train = rooms.trainval, test = rooms.test }
"#,
    );
    test.write("harness.toml", format!("[roots]\nrooms = {:?}\n", shared.join("indoor-voc-layout")));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    for class in ["book", "bookcase", "doll", "vase"] {
        assert!(ran.stderr.contains(&format!("`{class}` (no positive in test)")), "{}", ran.stderr);
    }
    let events = ran.events();
    let end = events.iter().find(|e| e["event"] == "step_finished" && e["label"] == "svm").unwrap();
    let metric = |name: &str| end["metrics"][name].as_f64().unwrap();
    assert!(metric("map") > metric("chance_map") && metric("map") <= 1.0, "{end}");
    assert_eq!(metric("map"), metric("map_without_difficult"));
}
