//! Pretraining over the two real binaries: killed at any moment it goes on and ends in the same bytes; epochs that stay;
//! data that changes under a run; mistakes found before anything runs; encoders for other tools.

use harness_tests::trial::Dice;
use harness_tests::{Ran, Test};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Every objective on the smallest network, with a checkpoint after every step.
const THREE: &str = r#"
scenes world { train = 40, holdout = 12, test = 12, size = 16, classes = 3, videos = 0 }
let network = resnet18 { stem = small, width = 0.0625 }
pretrain neighbours {
    data = world.train, encoder = network, epochs = 4, batch = 8, seed = 3
    contrast = moco { dim = 8, queue = 16, neighbours = { k = 2, warmup = 1 } }
    views = multi_crop { large = { size = 12 }, small = { count = 2, size = 8 } }
    augment = auto_augment { views = [0, 2, 3] }
    checkpoint = { interval = 0s }
    keep = [2]
}
pretrain symmetric {
    data = world.train, encoder = network, epochs = 4, batch = 8, seed = 4
    contrast = moco { dim = 8, queue = 16, symmetric = true }
    views = two_crops { size = 12 }
    checkpoint = { interval = 0s }
}
pretrain labels {
    data = world.train, encoder = network, epochs = 4, batch = 8, seed = 5
    contrast = supervised
    views = two_crops { size = 12 }
    checkpoint = { interval = 0s }
}
"#;

const STEPS: [&str; 3] = ["neighbours", "symmetric", "labels"];

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// What a step's result is but for times: digests of its outputs, its numbers, its curves.
fn result(test: &Test, step: &str) -> Value {
    let shown = json(&test.harness(&["show", "a.exp", step, "--json"]).code(0));
    let mut record = shown[0]["record"].clone();
    record["metrics"].as_object_mut().unwrap().remove("device_hours");
    let digests: Vec<Value> = record["outputs"].as_object().unwrap().values().map(|o| o["digest"].clone()).collect();
    assert!(!digests.is_empty());
    serde_json::json!([digests, record["metrics"], record["series"]])
}

/// The checkpoints that lie in the work folders, by inode: each new one is another.
fn checkpoints(cache: &Path) -> BTreeSet<u64> {
    let folders = std::fs::read_dir(cache.join("work")).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| Some(std::fs::metadata(folder.path().join("checkpoint.safetensors")).ok()?.ino()))
        .collect()
}

/// Waits for `count` new checkpoints; whether the run ended first.
fn ended_before(test: &Test, child: &mut Child, mut count: u64) -> bool {
    let (start, mut last) = (Instant::now(), checkpoints(&test.path().join(".harness")));
    while count > 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint came");
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        let now = checkpoints(&test.path().join(".harness"));
        if !now.is_subset(&last) {
            count -= 1;
            last = now;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    false
}

#[test]
fn kills_at_any_moment_change_no_byte_and_so_does_computing_again() {
    let whole = Test::new().file("a.exp", THREE);
    let _ = whole.harness(&["run", "a.exp", "-j", "1"]).code(0);

    let (killed, mut dice) = (Test::new().file("a.exp", THREE), Dice::new(7));
    let (mut kills, mut resumed) = (0, BTreeSet::new());
    // Twenty steps each: in the middle of training, of a checkpoint, of an epoch's end, between two pretrainings.
    for _ in 0..14 {
        let mut child = killed.start(&["run", "a.exp", "-j", "1", "--json"]);
        let ended = ended_before(&killed, &mut child, 1 + dice.below(5));
        std::thread::sleep(Duration::from_micros(dice.below(15_000)));
        // SAFETY: a signal to the run just started; its worker dies with it.
        unsafe { libc::kill(child.id() as i32, libc::SIGKILL) };
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        resumed.extend(said.lines().filter(|line| line.contains("going on from epoch")).map(String::from));
        assert!(!said.contains("starting from the beginning"), "{said}");
        if ended {
            break;
        }
        kills += 1;
    }
    let _ = killed.harness(&["run", "a.exp", "-j", "1"]).code(0);
    assert!(kills >= 6 && resumed.len() >= 4, "{kills} kills, gone on with: {resumed:?}");
    for step in STEPS {
        assert_eq!(result(&whole, step), result(&killed, step), "{step} after {kills} kills");
        let verified = whole.harness(&["verify", "a.exp", step]).code(0);
        assert!(verified.stdout.contains("verified: the same"), "{}", verified.stdout);
    }
}

/// One pretraining; `rest` goes on after its fields.
fn one(fields: &str, rest: &str) -> String {
    format!(
        r#"
scenes world {{ train = 32, holdout = 12, test = 12, size = 16, classes = 3, videos = 0 }}
let network = resnet18 {{ stem = small, width = 0.0625 }}
pretrain moco {{
    data = world.train, encoder = network, epochs = 3, batch = 8
    contrast = moco {{ dim = 8, queue = 16 }}
    views = two_crops {{ size = 12 }}
    {fields}
}}
{rest}
"#
    )
}

fn nearest(name: &str, encoder: &str) -> String {
    format!(
        "knn {name} {{ encoder = {encoder}, train = world.train, test = world.test, k = 5, transform = {{ resize = 16, \
         crop = 16 }} }}\n"
    )
}

#[test]
fn an_epoch_that_was_not_kept_is_made_when_it_is_taken() {
    let run = |test: &Test| test.harness(&["run", "a.exp", "--json"]).code(0);
    let test = Test::new().file("a.exp", &one("", ""));
    assert_eq!(run(&test).status("moco"), "executed");
    let first = result(&test, "moco");
    // What only observes runs nothing.
    test.write("a.exp", one("keep = [1], checkpoint = { epochs = 2 }", ""));
    assert_eq!(run(&test).status("moco"), "cached");
    // Taken, it is made; the plan says so.
    test.write("a.exp", one("keep = [1]", &nearest("at_one", "moco@1")));
    let plan = test.harness(&["plan", "a.exp"]).code(0).stdout;
    assert!(plan.contains("encoder@1 is taken and was not kept when it ran"), "{plan}");
    let ran = run(&test);
    assert_eq!((ran.status("moco"), ran.status("at_one")), ("executed".into(), "executed".into()));
    assert!(ran.stdout.contains("encoder@1 was not kept when it ran: it is computed again"), "{}", ran.stdout);
    // The last epoch is the same, so nothing else would run for it.
    let second = result(&test, "moco");
    assert!(second[0].as_array().unwrap().contains(&first[0][0]));
    assert_eq!((&first[1], &first[2]), (&second[1], &second[2]));
    // Another epoch is made without the loss of the first.
    test.write("a.exp", one("keep = [2]", &nearest("at_two", "moco@2")));
    assert_eq!(run(&test).status("moco"), "executed");
    test.write("a.exp", one("keep = [1, 2]", &(nearest("at_one", "moco@1") + &nearest("at_two", "moco@2"))));
    assert_eq!(run(&test).counts()[0], 0);
    let verified = test.harness(&["verify", "a.exp", "moco"]).code(0);
    assert!(verified.stdout.contains("verified: the same"), "{}", verified.stdout);
}

#[test]
fn equal_pretrainings_that_keep_other_epochs_are_computed_once() {
    let rest = "pretrain other from moco { keep = [2] }\n".to_string();
    let rest = rest + &nearest("one", "moco@1") + &nearest("two", "other@2");
    let test = Test::new().file("a.exp", &one("keep = [1]", &rest));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    let mut both = [ran.status("moco"), ran.status("other")];
    both.sort();
    assert_eq!(both, ["cached", "executed"]);
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts()[0], 0);
}

/// A PNG of one colour.
fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(16, 16, image::Rgb(colour)).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn pictures_that_change_under_a_pretraining_void_it_and_are_named() {
    let test = Test::new().file(
        "a.exp",
        r#"
image_folder photos { path = "photos", labels = none }
pretrain moco {
    data = photos, encoder = resnet18 { stem = small, width = 0.0625 }, epochs = 40, batch = 8
    contrast = moco { dim = 8, queue = 16 }
    views = two_crops { size = 12 }
    checkpoint = { interval = 0s }
}
"#,
    );
    for at in 0..16u8 {
        test.write(&format!("photos/{at:02}.png"), png([at * 15, 255 - at * 15, at]));
    }
    // Files that were written a moment ago could have been again in the same tick.
    std::thread::sleep(Duration::from_millis(2100));
    let mut child = test.start(&["run", "a.exp"]);
    assert!(!ended_before(&test, &mut child, 3), "it ended before anything could change");
    test.write("photos/07.png", png([1, 2, 3]));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("07.png"), "{said}");
    let shown = json(&test.harness(&["show", "a.exp", "moco", "--json"]).code(0));
    assert!(shown[0]["record"].is_null(), "{shown}");
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let supervised = |data: &str| {
        format!(
            "image_folder plain {{ path = \"photos\", labels = none }}\nsubset some {{ data = plain, count = 8, draw = random }}\n\
             pretrain x {{ data = {data}, contrast = supervised, batch = 4 }}\n"
        )
    };
    for (text, words) in [
        (supervised("plain"), vec!["these pictures have no class labels", "contrast = supervised"]),
        (supervised("some"), vec!["these pictures have no class labels"]),
        (
            one("contrast.neighbours = { k = 20 }", ""),
            vec!["20 neighbours cannot be found in a queue of 16", "neighbours"],
        ),
        (one("views = two_crops { scale = 0.5..1.5 }", ""), vec!["0 < low <= high <= 1, not 0.5..1.5"]),
        (
            one("views = multi_crop { small = { scale = 0.0..0.14 } }", ""),
            vec!["0 < low <= high <= 1, not 0..0.14", "small"],
        ),
    ] {
        let text = text.replacen(
            "contrast = moco { dim = 8, queue = 16 }\n    views = two_crops { size = 12 }\n    views",
            "contrast = moco { dim = 8, queue = 16 }\n    views",
            1,
        );
        let test = Test::new().file("a.exp", &text);
        let _ = test.harness(&["check", "a.exp"]).code(2).says(&words);
    }
}

#[test]
fn an_exported_encoder_comes_back_the_same() {
    let test = Test::new().file("a.exp", &one("keep = [1]", &nearest("before", "moco@1")));
    test.harness(&["export", "encoder", "a.exp", "moco", "out.pth"]).code(2).says(&["has no result yet"]);
    let _ = test.harness(&["run", "a.exp"]).code(0);
    let export = |arguments: &[&str]| {
        let all: Vec<&str> = ["export", "encoder", "a.exp", "moco@1"].iter().chain(arguments).copied().collect();
        test.harness(&all).code(0)
    };
    export(&["one.pth"]).says(&["one.pth: ", "torchvision has no resnet18 of width 0.0625"]);
    export(&["again.pth"]);
    let read = |name: &str| std::fs::read(test.path().join(name)).unwrap();
    assert_eq!(read("one.pth"), read("again.pth"));
    export(&["moco.pth.tar", "--layout", "moco"]);
    export(&["one.safetensors"]);
    let more = [("pth", "one.pth"), ("tar", "moco.pth.tar"), ("safe", "one.safetensors")]
        .map(|(name, file)| format!("encoder {name} {{ file = \"{file}\" }}\n") + &nearest(&format!("of_{name}"), name))
        .concat();
    test.write("a.exp", one("keep = [1]", &(nearest("before", "moco@1") + &more)));
    let _ = test.harness(&["run", "a.exp"]).code(0);
    let wanted = result(&test, "before");
    for name in ["of_pth", "of_tar", "of_safe"] {
        assert_eq!(result(&test, name), wanted, "{name}");
    }
    test.harness(&["export", "encoder", "a.exp", "before", "x.pth"]).code(2).says(&["has no output `encoder`"]);
    test.harness(&["export", "encoder", "a.exp", "moco@3", "x.pth"]).code(2).says(&["`encoder@3`", "encoder@1"]);
}
