//! The dense evaluations from text to summary, over the two real binaries.

use harness_tests::Test;
use serde_json::Value;

const STREET: &str = r#"
scenes street {
    train = 16, holdout = 4, test = 4, size = 32, classes = 3, videos = 0
    domain = specific, depth = true
}
encoder random { source = random { architecture = resnet18 { stem = small, width = 0.0625 } } }
let decoder = fcn { channels = 8, dilation = 1 }

depth distance   { encoder = random, train = street.train_depth, test = street.test_depth, head = decoder, dilated = 1, epochs = 2, batch = 4, optimizer = adam { lr = 0.01 } }
# Pictures with depth maps have masks too.
segment parts    { encoder = random, train = street.train_depth, test = street.test, head = decoder, size = 32, epochs = 2, batch = 4 }
retrieve objects { encoder = random, train = street.train, test = street.test, size = 32, dilated = 1, regions = saliency { train = street.train, test = street.test } }
retrieve grid    { encoder = random, train = street.train, test = street.test, size = 32, dilated = 1, regions = kmeans { k = 2, restarts = 1 } }
cluster_segment clusters { encoder = random, test = street.test, size = 32, dilated = 1, components = 2, regions = kmeans { k = 3, restarts = 1 } }

claim "depth beats its floor" { distance.rmse < distance.floor_rmse }
"#;

/// The number `metric` of the step called `step`.
fn number(exported: &Value, step: &str, metric: &str) -> f64 {
    let all = exported.as_array().unwrap();
    let found = all.iter().find(|row| row["label"] == step && row["metric"] == metric);
    found.unwrap_or_else(|| panic!("{step}.{metric} is not in {exported}"))["value"].as_f64().unwrap()
}

#[test]
fn depth_and_its_neighbours_run_once_and_leave_pictures() {
    let test = Test::new().file("a.exp", STREET);
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!(ran.counts()[1..], [0, 0, 0], "{}", ran.stderr);
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts()[0], 0);

    let exported = test.harness(&["export", "metrics", "a.exp", "--format", "json"]).code(0);
    let exported: Value = serde_json::from_str(&exported.stdout).unwrap();
    let (rmse, floor) = (number(&exported, "distance", "rmse"), number(&exported, "distance", "floor_rmse"));
    assert!(rmse > 0.0 && rmse < 40.0 && floor > 0.0 && floor < 40.0, "{rmse} {floor}");
    // About as much as lies above the horizon is unknown.
    assert!((0.3..0.9).contains(&number(&exported, "distance", "valid")), "{exported}");
    assert!(number(&exported, "objects", "miou") >= number(&exported, "objects", "background_miou"));
    let shown = test.harness(&["show", "a.exp", "distance"]).code(0);
    assert!(shown.stdout.contains("floor_rmse") && shown.stdout.contains("maps"), "{}", shown.stdout);
    let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.html")).unwrap();
    assert!(page.contains("Test pictures after epoch"), "no depth maps on the page");

    // Depth asked of a world without a geometry, and of data without depth.
    test.write("flat.exp", "scenes flat { depth = true }\n");
    let _ = test.harness(&["check", "flat.exp"]).code(2).says(&["domain = specific"]);
    test.write(
        "b.exp",
        STREET.replace("street.train_depth, test = street.test_depth", "street.train, test = street.test"),
    );
    let _ = test.harness(&["check", "b.exp"]).code(2).says(&["depth_images"]);
    // The test pictures were learned from.
    let same = STREET.replace("test = street.test_depth", "test = street.train_depth");
    test.write("c.exp", same.as_str());
    let _ = test.harness(&["run", "c.exp"]).code(2).says(&["E0126", "`distance` is judged on `street.train_depth`"]);
}
