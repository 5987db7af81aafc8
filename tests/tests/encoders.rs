//! Encoders and results from elsewhere, end to end: every form of file, and what a program writes, in the same evaluations.

use harness_tests::Test;
use std::path::Path;

/// Files that PyTorch wrote.
fn foreign(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/worker/tests/foreign").join(name)).unwrap()
}

/// Two classes that any features tell apart: stripes across and down.
fn photos(test: &Test) {
    for (class, name) in ["across", "down"].into_iter().enumerate() {
        for at in 0..6u32 {
            let light = |x: u32, y: u32| {
                let stripe = if class == 0 { y } else { x } / 4;
                if (stripe + at).is_multiple_of(2) { 200 + at as u8 } else { 30 }
            };
            let pixels: Vec<u8> = (0..32 * 32).flat_map(|i| [light(i % 32, i / 32), 80, 10 * at as u8]).collect();
            let path = test.path().join(format!("photos/{name}/{at}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::save_buffer(path, &pixels, 32, 32, image::ExtendedColorType::Rgb8).unwrap();
        }
    }
}

const TEXT: &str = r#"
image_folder photos { path = "photos", holdout = 0.34 }
command train {
    run = ["sh", "-c", "cat {inputs.weights} > {outputs.net}"]
    files = { weights = "torchvision.pth" }
    outputs = { net = { kind = file, path = "net.pth" } }
}
encoder released { file = "moco.pth.tar" }
encoder vision   { file = "torchvision.pth" }
encoder script   { torchscript = "module.pt" }
encoder own      { checkpoint = train.net }
encoder random   { source = random { architecture = resnet18 { width = 0.0625 } } }
encoder floor    { source = histogram { bins = 4 } }
let look = { resize = 32, crop = 32 }
for method in [released, vision, script, own, random, floor] {
    knn near           { encoder = method, train = photos.train, test = photos.holdout, k = 1, transform = look }
    linear_probe probe {
        encoder = method, train = photos.train, test = photos.holdout, features = cached, epochs = 5, batch = 4
        optimizer = sgd { lr = 0.1 }, transform = look
    }
}
table all "Every encoder" { rows = method, columns = [near.top1, probe.top1] }
"#;

#[test]
fn every_form_of_encoder_is_one_line() {
    let test = Test::new().file("a.exp", TEXT);
    photos(&test);
    for name in ["moco.pth.tar", "torchvision.pth", "module.pt"] {
        test.write(name, foreign(name));
    }
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    let events = ran.events();
    let metrics = |label: &str| {
        let found = events.iter().find(|e| e["event"] == "step_finished" && e["label"] == label);
        found.unwrap_or_else(|| panic!("no {label} in {}", ran.stdout))["metrics"].clone()
    };
    for method in ["released", "vision", "script", "own", "random", "floor"] {
        for step in ["near", "probe"] {
            let top1 = metrics(&format!("{step}[method={method}]"))["top1"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&top1), "{step}[{method}]: {top1}");
        }
    }
    // The same weights by another way are the same encoder: nothing is computed twice.
    assert_eq!(metrics("own"), metrics("vision"));
    assert_eq!(metrics("near[method=own]"), metrics("near[method=vision]"));
    assert!(metrics("released")["parameters"].as_f64() > Some(1000.0));

    // Cut short, each is named, and nothing else fails with it.
    test.write("moco.pth.tar", &foreign("moco.pth.tar")[..30_000]);
    test.write("module.pt", &foreign("module.pt")[..9000]);
    let ran = test.harness(&["run", "a.exp", "--json", "--keep-going"]).code(1).says(&["moco.pth.tar", "module.pt"]);
    assert_eq!((ran.status("near[method=vision]"), ran.status("released")), ("cached".into(), "failed".into()));
    test.write("a.exp", TEXT.replace("checkpoint = train.net", "checkpoint = train.net, file = \"torchvision.pth\""));
    let _ = test.harness(&["run", "a.exp"]).code(2).says(&["exactly one of `file`"]);
}

/// What is chosen on test says so in the summary, also when nothing is computed any more.
#[test]
fn a_choice_on_test_is_marked_in_every_summary() {
    let text = r#"
image_folder photos { path = "photos", holdout = 0.34 }
encoder floor { source = histogram { bins = 4 } }
let look = { resize = 32, crop = 32 }
knn near { encoder = floor, train = photos.train, test = photos.holdout, k = 1, also = [2, 3], transform = look, select = best_on_test }
linear_probe probe {
    encoder = floor, train = photos.train, test = photos.holdout, features = cached, epochs = 3, batch = 4, transform = look
    profile = official
}
knn honest { encoder = floor, train = photos.train, test = photos.holdout, k = 1, also = [2, 3], transform = look, select = holdout { share = 0.25 } }
"#;
    let test = Test::new().file("a.exp", text);
    photos(&test);
    for _ in 0..2 {
        let ran = test.harness(&["run", "a.exp"]).code(0);
        let said = ran.stdout + &ran.stderr;
        let runs = std::fs::read_dir(test.path().join(".harness/runs")).unwrap();
        let page =
            |run: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(run.unwrap().path().join("summary.md"));
        let pages: Vec<String> = runs.filter_map(|run| page(run).ok()).map(|page| page.replace("\\`", "`")).collect();
        assert!(!pages.is_empty(), "no summary");
        for place in pages.iter().chain([&said]) {
            assert!(place.contains("were chosen by their `top1` on test"), "{place}");
            assert!(place.contains("was chosen by its `top1` on test"), "{place}");
        }
        for page in &pages {
            assert!(
                page.contains("**Note:** near: ")
                    && page.contains("**Note:** probe: ")
                    && !page.contains("**Note:** honest: "),
                "{page}"
            );
        }
    }
}
