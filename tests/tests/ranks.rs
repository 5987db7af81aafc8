//! A pretraining that several devices share, over the real binaries.

use harness_tests::Test;

/// Two groups of batch norm; `resources` says how many devices share them.
fn experiment(resources: &str) -> String {
    format!(
        r#"
scenes world {{ train = 48, holdout = 12, test = 12, size = 16, classes = 3, videos = 0 }}
pretrain moco {{
    data = world.train, epochs = 2, batch = 16, seed = 3
    encoder = resnet18 {{ stem = small, width = 0.0625 }}
    contrast = moco {{ dim = 8, queue = 32 }}
    views = two_crops {{ size = 12 }}
    batch_norm = {{ groups = 2 }}
    {resources}
}}
"#
    )
}

#[test]
fn the_number_of_devices_is_not_part_of_the_key() {
    let test = Test::new().file("a.exp", &experiment("resources = { gpus = 2 }"));
    let ran = test.harness(&["run", "a.exp", "--device", "cpu", "--json"]).code(0);
    assert_eq!(ran.counts(), [2, 0, 0, 0]);
    let shown = test.harness(&["show", "a.exp", "moco", "--json"]).code(0);
    assert!(shown.stdout.contains("\"ranks\": 2"), "{}", shown.stdout);
    test.write("a.exp", experiment(""));
    let ran = test.harness(&["run", "a.exp", "--device", "cpu", "--json"]).code(0);
    assert_eq!(ran.counts(), [0, 2, 0, 0]);
}

#[test]
fn devices_that_cannot_share_are_refused_with_the_way_out() {
    let test = Test::new().file("a.exp", &experiment("resources = { gpus = 3 }"));
    let ran = test.harness(&["run", "a.exp", "--device", "cpu"]);
    assert_ne!(ran.code, 0);
    ran.says(&["3 devices cannot share 2 groups of batch norm", "divides `batch_norm.groups`"]);
}
