//! `harness views`: the sheet of a picture's crops. No torch.

use harness_tests::Test;

const FILE: &str = r#"
scenes world { train = 4, holdout = 1, test = 1, size = 64, classes = 2, videos = 0 }
param seeds = [1, 2]
replicate seed in seeds {
    pretrain ours {
        data     = world.train, epochs = 3, batch = 4
        contrast = moco { queue = 4 }
        views    = multi_crop { large = { size = 48 }, small = { size = 24 } }
        augment  = auto_augment { views = [0, 2, 3, 4, 5] }
    }
}
"#;

#[test]
fn a_picture_is_shown_with_its_crops() {
    let test = Test::new().file("a.exp", FILE);
    let member = "ours[seed=2]";
    // Nothing is generated for a look; what is missing is said.
    test.harness(&["views", "a.exp", member, "--picture", "0"]).code(2).says(&["run a.exp first"]);
    test.harness(&["run", "a.exp", "world"]).code(0);

    let ran = test.harness(&["views", "a.exp", member, "--picture", "1", "--epochs", "2..3"]).code(0);
    assert!(ran.stdout.contains("seed 2") && ran.stdout.contains("epoch 3"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches(" small ").count(), 8, "{}", ran.stdout);
    let sheet = std::fs::read(test.path().join("ours-views.png")).unwrap();
    let shown = image::load_from_memory(&sheet).unwrap();
    assert!(shown.width() > 4 * 96 && shown.height() > 2 * (192 + 96), "{}×{}", shown.width(), shown.height());
    // The same again, to the byte, and another for another epoch.
    let again = |epochs: &str| {
        test.harness(&["views", "a.exp", member, "--picture", "1", "--epochs", epochs, "-o", "b.png"]).code(0);
        std::fs::read(test.path().join("b.png")).unwrap()
    };
    assert_eq!(again("2..3"), sheet);
    assert_ne!(again("1..2"), sheet);

    test.harness(&["views", "a.exp", "ours", "--picture", "0"]).code(2).says(&["names 2 steps", "'ours[seed=1]'"]);
    test.harness(&["views", "a.exp", "world", "--picture", "0"]).code(2).says(&["made by `pretrain`"]);
    test.harness(&["views", "a.exp", member, "--picture", "4"]).code(2).says(&["there is no picture 4"]);
    test.harness(&["views", "a.exp", member, "--picture", "no.png"]).code(2).says(&["no picture is called"]);
    test.harness(&["views", "a.exp", member, "--picture", "0", "--epochs", "4"]).code(2).says(&["has 3 epochs"]);
}
