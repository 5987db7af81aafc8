//! Datasets over the real binary: derived ones, and test pictures that were learned from.

use harness_tests::Test;

const CLASSES: [&str; 2] = ["cat", "dog"];

fn world() -> Test {
    let test = Test::new();
    for class in CLASSES {
        for i in 0..6 {
            test.write(&format!("train/{class}/{i}.png"), format!("{class} {i}"));
            test.write(&format!("test/{class}/{i}.png"), format!("another {class} {i}"));
        }
    }
    test
}

const STEPS: &str = r#"
image_folder train { path = "train" }
image_folder test  { path = "test" }
"#;

#[test]
fn learning_from_test_pictures_is_refused_before_anything_runs() {
    let exp = r#"
subset some { data = train, count = 8 }
concat both { data = [some, test.all] }
pretrain moco { data = both, encoder = resnet18 { stem = small, width = 0.125 }, epochs = 1, batch = 8 }
knn nearest { encoder = moco, train = train, test = test.all }
"#;
    let test = world().file("x.exp", &format!("{STEPS}{exp}"));
    let ran = test.harness(&["run", "x.exp", "--json"]).code(1).says(&[
        "`nearest` is judged on what was learned from: 12 of the 12 files of `test.all` are also in `both.images`",
        "`cat/0.png` (there `1/cat/0.png`)",
        "allow_overlap = true",
    ]);
    // Nothing was computed on them: not even the pretraining began.
    assert_eq!(ran.status("moco"), "skipped");
    assert_eq!(ran.status("nearest"), "failed");
    assert!(!ran.stdout.contains("step_started"), "{}", ran.stdout);
    // It is found again, from the record, also where nothing is to be computed.
    test.harness(&["run", "x.exp", "--dry-run"]).code(1).says(&["12 of the 12 files"]);

    let known = exp.replace("test = test.all }", "test = test.all, allow_overlap = true }");
    test.write("x.exp", format!("{STEPS}{known}"));
    test.harness(&["run", "x.exp", "--dry-run"]).code(0).says(&["12 of the 12 files", "its numbers flatter"]);
}

#[test]
fn parts_of_one_dataset_share_nothing() {
    let exp = r#"
holdout parts { data = train, share = 50% }
encoder pixels { source = pixels { size = 4 } }
knn nearest { encoder = pixels, train = parts.train, test = parts.holdout }
knn same    { encoder = pixels, train = parts.train, test = again.images }
subset again { data = parts.train, count = 6 }
"#;
    let test = world().file("x.exp", &format!("{STEPS}{exp}"));
    let ran = test.harness(&["run", "x.exp", "--dry-run", "--keep-going"]).code(1);
    assert!(ran.stderr.contains("`same` is judged on what was learned from: 6 of the 6"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("`nearest` is judged"), "{}", ran.stderr);
}

#[test]
fn derived_datasets_are_made_once_and_follow_their_source() {
    let exp = r#"
subset    few  { data = train.all, count = 5 }
filter    cats { data = few, classes = ["cat"] }
long_tail tail { data = train, largest = 6, smallest = 2, alpha = 2.0 }
table sizes "Sizes" { rows = part, columns = [parts.pictures] }
for part in [few, cats] { concat parts { data = [part, part] } }
"#;
    let test = world().file("x.exp", &format!("{STEPS}{exp}"));
    test.harness(&["run", "x.exp", "--json"]).code(0);
    let second = test.harness(&["run", "x.exp", "--json"]).code(0);
    assert_eq!(second.counts()[0], 0, "{}", second.stdout);
    let shown = second.events();
    let metric = |label: &str, name: &str| {
        let step = shown.iter().find(|e| e["event"] == "step_finished" && e["label"] == label).unwrap();
        step["metrics"][name].as_f64().unwrap()
    };
    assert_eq!((metric("few", "pictures"), metric("cats", "pictures")), (5.0, 3.0));
    assert_eq!((metric("tail", "pictures"), metric("tail", "max_min_ratio")), (8.0, 3.0));
    test.harness(&["verify", "x.exp", "few"]).code(0);
    // A file less in the source is another dataset, and everything made from it is made anew.
    std::fs::remove_file(test.path().join("train/cat/0.png")).unwrap();
    let third = test.harness(&["run", "x.exp", "--json"]).code(0);
    assert_eq!(third.status("few"), "executed");
}

#[test]
fn what_a_derived_dataset_gives_is_what_its_source_gives() {
    let exp = r#"
subset some { data = train, count = 4 }
filter of_some { data = some, glob = "cat/*" }
segment parts { encoder = none_such, train = of_some, test = of_some.list }
"#;
    let test = world().file("x.exp", &format!("{STEPS}{exp}"));
    test.harness(&["check", "x.exp"]).code(2).says(&["`train` takes", "`of_some` gives labelled_images"]);
}

#[test]
fn imported_datasets_that_nothing_uses_are_left_alone() {
    let lists = r#"
image_folder train     { path = "train" }
image_folder elsewhere { path = @not_mapped/here }
subset       part      { data = elsewhere, count = 3 }
"#;
    let test =
        world().file("sets.exp", lists).file("x.exp", "import \"sets.exp\"\nsubset few { data = train, count = 2 }\n");
    let ran = test.harness(&["run", "x.exp", "--json"]).code(0);
    assert_eq!(ran.counts(), [2, 0, 0, 0], "{}", ran.stdout);
    // Where they are declared they are wanted.
    test.harness(&["run", "sets.exp"]).code(1).says(&["`@not_mapped` is not mapped"]);
}
