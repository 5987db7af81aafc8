//! The whole path with the real worker, on pictures a few pixels wide.

use harness_tests::Test;
use std::time::{Duration, Instant};

/// A tiny experiment: one pretraining, one encoder with random weights, kNN of both.
const TINY: &str = r#"
param epochs = 2
param k = 5
scenes world { train = 32, holdout = 12, test = 12, size = 16, classes = 3, videos = 1, frames = 4, video_size = 32 }
let network = resnet18 { stem = small, width = 0.0625 }
let look = { resize = 16, crop = 16 }
replicate seed in [1, 2] {
    pretrain moco {
        data = world.train, encoder = network, epochs = epochs, batch = 8
        contrast = moco { dim = 8, queue = 16 }
        optimizer = sgd { lr = 0.03 }
        views = multi_crop { large = { size = 12 }, small = { count = 2, size = 8 } }
        monitor = knn { train = world.train, test = world.holdout, transform = look }
    }
    encoder random { source = random { architecture = network } }
    for method in [moco, random] {
        knn nearest { encoder = method, train = world.train, test = world.test, k = k, transform = look }
    }
}
propagate video { encoder = random[seed = 1], data = world.videos, context = 2, top_k = 3 }
table t "Tiny" { rows = method, columns = [nearest.top1] }
claim "tiny" { nearest[moco].top1 >= nearest[random].top1 }
claim "percent" { nearest[random].majority_top1 > 2 and nearest[random].majority_top1 <= 100% }
"#;

#[test]
fn the_whole_path_and_what_changes_what() {
    let test = Test::new().file("a.exp", TINY);
    let first = test.harness(&["run", "a.exp", "--json"]).code(0);
    // Ten that are written, and the features of both splits under four encoders.
    assert_eq!(first.counts(), [18, 0, 0, 0]);
    assert!(first.stdout.contains("\"knn_top1\""));
    // Shares are claimed in percent: the majority class has about a third.
    assert_eq!(first.end()["claims"]["percent"], "holds", "{}", first.end());
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 18, 0, 0]);
    // One evaluation's parameter: that evaluation alone.
    let changed = test.harness(&["run", "a.exp", "-p", "k=3", "--json"]).code(0);
    assert_eq!(changed.counts(), [4, 14, 0, 0]);
    let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.html")).unwrap();
    for word in ["Tiny", "majority class", "data:image/png", "<svg", "libtorch"] {
        assert!(page.contains(word), "the page lacks {word}");
    }
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let digests = || {
        let test = Test::new().file("a.exp", TINY);
        let _ = test.harness(&["run", "a.exp", "moco"]).code(0);
        let mut found = Vec::new();
        for folder in std::fs::read_dir(test.path().join(".harness/blobs")).unwrap() {
            for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let blob = blob.unwrap();
                let head = std::fs::read(blob.path()).unwrap();
                // Encoders are safetensors with their configuration in the header.
                if String::from_utf8_lossy(&head[..head.len().min(4096)]).contains("layer1.0") {
                    found.push(blob.file_name());
                }
            }
        }
        found.sort();
        found
    };
    let first = digests();
    assert_eq!(first.len(), 2);
    assert_eq!(first, digests());
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent =
            status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|p| p.trim().parse::<u32>().ok());
        if parent == Some(pid) {
            found.push(child);
        }
    }
    found
}

#[test]
fn a_killed_worker_fails_its_step_and_the_rest_goes_on() {
    let test = Test::new().file("a.exp", TINY);
    let child = test.start(&["run", "a.exp", "-p", "epochs=120", "-p", "k=4", "--json", "-j", "2"]);
    let start = Instant::now();
    let mut killed = false;
    while !killed {
        assert!(start.elapsed() < Duration::from_secs(100), "no worker was seen at work");
        std::thread::sleep(Duration::from_millis(50));
        let work = test.path().join(".harness/work");
        let at_work = std::fs::read_dir(&work).is_ok_and(|mut dir| {
            dir.any(|e| e.is_ok_and(|e| e.path().read_dir().is_ok_and(|mut d| d.next().is_some())))
        });
        if at_work && let Some(&worker) = children(child.id()).first() {
            // SAFETY: a signal to a worker of the run just started.
            unsafe { libc::kill(worker, libc::SIGKILL) };
            killed = true;
        }
    }
    let output = child.wait_with_output().unwrap();
    let ran = harness_tests::Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let ran = ran.code(1).says(&["the worker died", "signal 9"]);
    let [executed, _, failed, skipped] = ran.counts();
    assert_eq!((executed, failed, skipped), (14, 1, 3), "{}", ran.stderr);
    // The next run goes on where it stopped and computes only what is missing.
    let again = test.harness(&["run", "a.exp", "-p", "epochs=120", "-p", "k=4", "--json"]).code(0);
    assert_eq!(again.counts(), [4, 14, 0, 0]);
}

#[test]
fn bad_data_is_named_before_training() {
    let test = Test::new().file(
        "a.exp",
        r#"
image_folder photos { path = "photos" }
encoder random { source = random { architecture = resnet18 { stem = small, width = 0.0625 } } }
knn nearest { encoder = random, train = photos, test = photos, allow_overlap = true, transform = { resize = 8, crop = 8 } }
pretrain big { data = photos, encoder = resnet18 { width = 0.0625 }, batch = 256 }
"#,
    );
    let ran = test.harness(&["run", "a.exp"]).code(1);
    let _ = ran.says(&["photos"]);
    test.write("photos/cat/a.jpg", [0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F', 0]);
    test.write("photos/dog/b.jpg", "no picture");
    let ran = test.harness(&["run", "a.exp", "--keep-going"]).code(1);
    let _ = ran.says(&["cat/a.jpg", "dog/b.jpg", "256"]);
}

#[test]
fn harness_links_no_libtorch() {
    let output = std::process::Command::new("ldd").arg(harness_tests::binary("harness")).output().unwrap();
    let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(libraries.contains("libc.so") && !libraries.contains("torch"), "{libraries}");
}
