//! `best(family, by = metric)` over the real binary: what is chosen is known from results, and what depends on it
//! depends on the content that was chosen. No torch.

use harness_tests::Test;

const SWEEP: &str = r#"
param scores = ["2", "9", "5"]
for name, score in zip(["a", "b", "c"], scores) {
    command tool {
        run     = ["sh", "-c", "test $SCORE != bad || exit 1; printf $NAME > out; printf '{\"score\": %s}' $SCORE > metrics.json"]
        env     = { NAME = name, SCORE = score }
        outputs = { text = { kind = file, path = "out" } }
        metrics = ["score"]
    }
}
command last {
    run     = ["sh", "-c", "cat {inputs.x} >> TARGET; printf '{\"n\": 1}' > metrics.json"]
    inputs  = { x = best(tool, by = score).text }
    metrics = ["n"]
}
claim "good" { best(tool, by = score).score > 1 }
figure f { y = [best(tool, by = score).score, best(tool, by = -score).score] }
"#;

fn sweep() -> Test {
    let test = Test::new();
    let target = test.path().join("seen");
    test.write("a.exp", SWEEP.replace("TARGET", &target.to_string_lossy()));
    test
}

fn seen(test: &Test) -> String {
    std::fs::read_to_string(test.path().join("seen")).unwrap_or_default()
}

#[test]
fn the_best_is_taken_and_followed_by_content() {
    let test = sweep();
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    // Three tools, the best and the worst of them, and what takes the best.
    assert_eq!(ran.counts(), [6, 0, 0, 0]);
    assert_eq!(seen(&test), "b");
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 6, 0, 0]);
    // Other numbers, the same choice: nothing that takes its content runs again.
    let ran = test.harness(&["run", "a.exp", "--json", "-p", "scores=[\"3\", \"8\", \"5\"]"]).code(0);
    assert_eq!(ran.status("last"), "cached");
    assert_eq!(seen(&test), "b");
    // Another choice.
    let other = ["-p", "scores=[\"7\", \"2\", \"5\"]"];
    let ran = test.harness(&[&["run", "a.exp", "--json"], &other[..]].concat()).code(0);
    assert_eq!(ran.status("last"), "executed");
    assert_eq!(seen(&test), "ba");
    let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.md")).unwrap();
    assert!(page.contains("good"), "{page}");
}

#[test]
fn a_plan_knows_what_it_can_know() {
    let test = sweep();
    let ran = test.harness(&["plan", "a.exp"]).code(0);
    assert!(ran.stdout.contains("to compute"), "{}", ran.stdout);
    test.harness(&["run", "a.exp"]).code(0);
    let ran = test.harness(&["plan", "a.exp"]).code(0);
    assert!(ran.stdout.contains("nothing would be computed"), "{}", ran.stdout);
    // Numbers are computed first; whether another member is chosen then is not known.
    let ran = test.harness(&["plan", "a.exp", "-p", "scores=[\"3\", \"9\", \"5\"]"]).code(0);
    let line = ran.stdout.lines().find(|line| line.contains(" last ")).unwrap_or_default().trim();
    assert!(line.starts_with("depends"), "{}", ran.stdout);
}

#[test]
fn no_choice_is_made_among_those_that_happen_to_be_there() {
    let test = sweep();
    let ran = test.harness(&["run", "a.exp", "--json", "--keep-going", "-p", "scores=[\"7\", \"bad\", \"5\"]"]).code(1);
    assert_eq!(ran.status("last"), "skipped");
    assert_eq!(seen(&test), "");
}

#[test]
fn a_choice_by_test_data_is_said_in_the_summary() {
    let text = "scenes world { train = 20, test = 20 }\nencoder net { source = pixels }
for k in [1, 5] { knn nn { encoder = net, train = world.train, test = world.test, k = k } }
claim \"c\" { best(nn, by = top1).top1 > 1 }\n";
    let test = Test::new().file("a.exp", text);
    let ran = test.harness(&["check", "a.exp"]).code(0);
    assert!(ran.stderr.contains("warning[W0204]"), "{}", ran.stderr);
    let checked = test.harness(&["check", "--json", "a.exp"]).code(0);
    assert!(checked.stdout.contains("\"code\":\"W0204\""), "{}", checked.stdout);
    test.harness(&["run", "a.exp"]).code(0);
    let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.md")).unwrap();
    assert!(page.contains("a choice by test data") && page.contains("W0204"), "{page}");
}
