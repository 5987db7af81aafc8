//! Predicted masks from a folder, from a program and from `propagate`, all scored by `score_video`.

use harness_tests::Test;
use std::path::Path;

const SIDE: u32 = 24;
const FRAMES: u32 = 5;

/// A grey PNG whose square, `shift` to the right, has the value 1.
fn square(path: &Path, shift: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let inside = |at: u32| u8::from((6..16).contains(&(at / SIDE)) && (3 + shift..13 + shift).contains(&(at % SIDE)));
    let pixels: Vec<u8> = (0..SIDE * SIDE).map(inside).collect();
    image::save_buffer(path, &pixels, SIDE, SIDE, image::ExtendedColorType::L8).unwrap();
}

/// One video of a square that moves by a pixel a frame, and its masks as somebody's result.
fn clips(test: &Test) {
    let at = |path: String| test.path().join(path);
    for frame in 0..FRAMES {
        square(&at(format!("davis/Annotations/480p/clip/{frame:05}.png")), frame);
        square(&at(format!("result/clip/{frame:05}.png")), frame);
        let picture = at(format!("davis/JPEGImages/480p/clip/{frame:05}.png"));
        std::fs::create_dir_all(picture.parent().unwrap()).unwrap();
        let pixel = |i: u32| {
            if (6..16).contains(&(i / SIDE)) && (3 + frame..13 + frame).contains(&(i % SIDE)) { 220 } else { 30 }
        };
        let pixels: Vec<u8> = (0..SIDE * SIDE).flat_map(|i| [pixel(i), 90, 60]).collect();
        image::save_buffer(picture, &pixels, SIDE, SIDE, image::ExtendedColorType::Rgb8).unwrap();
    }
    test.write("davis/ImageSets/2017/val.txt", "clip\n");
    square(&at("still.png".into()), 0);
}

const SCORED: &str = r#"
davis clips { path = "davis", year = "2017" }
mask_folder perfect { path = "result" }
command still {
    run = ["sh", "-c", "mkdir -p masks/clip; for frame in 1 2 3; do cp {inputs.mask} masks/clip/0000$frame.png; done"]
    files = { mask = "still.png" }
    outputs = { masks = { kind = folder, path = "masks" } }
}
encoder random { source = random { architecture = resnet18 { stem = small, width = 0.0625 } } }
propagate walk { encoder = random, data = clips, layer = layer2, context = 2, top_k = 3 }
score_video of_files   { predictions = perfect, data = clips }
score_video of_program { predictions = still.masks, data = clips }
score_video of_walk    { predictions = walk, data = clips }
"#;

#[test]
fn masks_from_anywhere_are_scored() {
    let test = Test::new().file("a.exp", SCORED);
    clips(&test);
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    let events = ran.events();
    let metric = |label: &str, name: &str| {
        let found = events.iter().find(|e| e["event"] == "step_finished" && e["label"] == label);
        found.and_then(|e| e["metrics"][name].as_f64()).unwrap_or_else(|| panic!("{label}.{name} in {}", ran.stdout))
    };
    assert_eq!(metric("perfect", "files"), f64::from(FRAMES));
    assert_eq!((metric("of_files", "jf"), metric("of_files", "j_recall")), (1.0, 1.0));
    // The program's masks stand still, which is what the trivial predictor gives.
    assert_eq!(metric("of_program", "jf"), metric("of_files", "copy_jf"));
    assert_eq!(metric("of_walk", "jf"), metric("walk", "jf"));
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts()[0], 0);

    // A mask that changes is scored again, and nothing else is.
    square(&test.path().join("result/clip/00002.png"), 0);
    let again = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!(again.status("of_files"), "executed");
    assert_eq!(again.status("of_walk"), "cached");
}

#[test]
fn a_frame_without_a_mask_is_named() {
    let test = Test::new().file(
        "a.exp",
        "davis clips { path = \"davis\", year = \"2017\" }\nmask_folder some { path = \"result\" }\nscore_video s { predictions = some, data = clips }\n",
    );
    clips(&test);
    std::fs::remove_file(test.path().join("result/clip/00002.png")).unwrap();
    let _ =
        test.harness(&["run", "a.exp", "s"]).code(1).says(&["clip: 1 of 3 scored frames have no prediction: 00002"]);
    std::fs::remove_file(test.path().join("davis/Annotations/480p/clip/00003.png")).unwrap();
    let _ = test.harness(&["run", "a.exp", "s"]).code(1).says(&["clip", "frame `00003` has no mask"]);
}
