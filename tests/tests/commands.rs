//! The subcommands that look, explain and compare, over `command` steps. No torch.

use harness_tests::{Ran, Test, wait_until};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Two steps in a row, the second one over two seeds, reading a file and a dataset of the user's.
const TEXT: &str = r#"
param word = "a"
image_folder photos { path = "photos" }
command first { run = ["sh", "-c", "echo said $WORD; cat inputs/data > out; printf '{\"n\": 3}' > metrics.json"], env = { WORD = word }, files = { data = "data.txt" }, outputs = { text = { kind = file, path = "out" } }, metrics = ["n"] }
replicate seed in [1, 2] {
    command second { run = ["sh", "-c", "cat {inputs.text} > both; echo '{\"v\": {seed}.5}' > metrics.json"], inputs = { text = first.text, photos = photos }, outputs = { text = { kind = file, path = "both" } }, metrics = ["v"] }
}
"#;

fn project() -> Test {
    let test = Test::new().file("a.exp", TEXT).file("data.txt", "A");
    for name in ["cat/1.png", "cat/2.png", "dog/1.png"] {
        test.write(&format!("photos/{name}"), name);
    }
    test
}

/// Runs with these words on standard output.
fn prints(ran: Ran, words: &[&str]) -> Ran {
    for word in words {
        assert!(ran.stdout.contains(word), "`{word}` is not in:\n{}{}", ran.stdout, ran.stderr);
    }
    ran
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// Every file below a folder with its content, in order: what must not change.
fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(content(&entry.path()));
        } else {
            found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_plan_names_the_field_the_file_and_the_step_that_make_each_step_run() {
    let test = project();
    prints(
        test.harness(&["plan", "a.exp"]).code(0),
        &["no run of this file is recorded", "second (2 steps)", "3 to compute"],
    );
    test.harness(&["run", "a.exp"]).code(0);
    prints(test.harness(&["plan", "a.exp"]).code(0), &["0 to compute, 4 known", "nothing would be computed"]);
    let ran = prints(test.harness(&["plan", "a.exp", "-p", "word=b"]).code(0), &["env.WORD: \"a\" -> \"b\""]);
    prints(
        ran,
        &["depends  second (2 steps)", "takes the result of `first`", "1 to compute, 2 depend on them, 1 known"],
    );
    test.write("data.txt", "B");
    prints(test.harness(&["plan", "a.exp"]).code(0), &["files.data: the file data.txt changed, "]);
    test.write("data.txt", "A");
    test.write("photos/cat/2.png", "another cat");
    test.write("photos/cat/3.png", "a new cat");
    std::fs::remove_file(test.path().join("photos/dog/1.png")).unwrap();
    test.write("photos/dog/4.png", "a dog");
    let words = ["runs  second (2 steps)", "`photos.all` has another content: cat/2.png changed", "cat/3.png is new"];
    let ran = prints(test.harness(&["plan", "a.exp"]).code(0), &words);
    prints(ran, &["dog/1.png is gone", "2 to compute"]);
    let plan = json(&test.harness(&["plan", "a.exp", "--json"]).code(0));
    assert_eq!((plan["runs"].as_u64(), plan["known"].as_u64()), (Some(2), Some(2)));
    let second = plan["steps"].as_array().unwrap().iter().find(|step| step["label"] == "second[seed=1]").unwrap();
    let cause = &second["causes"][0];
    assert_eq!((cause["cause"].as_str(), cause["step"].as_str()), (Some("input"), Some("photos")));
    assert_eq!(cause["files"].as_array().unwrap().len(), 4);
    assert!(second["estimate_s"].as_f64().unwrap() > 0.0);
    // Looking changes nothing: no run was recorded.
    assert_eq!(std::fs::read_dir(test.path().join(".harness/runs")).unwrap().count(), 1);
    test.harness(&["plan", "a.exp", "secnd"]).code(2).says(&["no step is called `secnd`"]);
}

#[test]
fn a_lost_result_and_a_missing_dataset_are_reasons_too() {
    let test = project();
    test.harness(&["run", "a.exp"]).code(0);
    for (path, bytes) in content(&test.path().join(".harness/blobs")) {
        if bytes == b"A" {
            std::fs::remove_file(path).unwrap();
        }
    }
    prints(test.harness(&["plan", "a.exp"]).code(0), &["gone or damaged in the store: text"]);
    std::fs::remove_dir_all(test.path().join("photos")).unwrap();
    prints(test.harness(&["plan", "a.exp"]).code(1), &["fails  photos", "cannot be computed"]);
}

#[test]
fn a_result_is_verified_in_a_scratch_place() {
    let test = project();
    test.harness(&["verify", "a.exp", "first"]).code(2).says(&["has no result to verify", "harness run a.exp 'first'"]);
    test.harness(&["run", "a.exp"]).code(0);
    let places = ["records", "blobs"].map(|name| test.path().join(".harness").join(name));
    let before = places.each_ref().map(|place| content(place));
    prints(
        test.harness(&["verify", "a.exp", "second"]).code(0),
        &["second[seed=2]: verified: the same, to the last bit"],
    );
    prints(test.harness(&["verify", "a.exp", "photos"]).code(0), &["photos: verified", "the same"]);
    assert!(before == places.each_ref().map(|place| content(place)), "the store was touched");
}

#[test]
fn a_result_that_comes_out_otherwise_is_told_and_stays() {
    let test = Test::new();
    let count = test.path().join("count").display().to_string();
    let step = |line: &str| {
        format!(
            "command c {{ run = [\"sh\", \"-c\", \"echo x >> {count}; n=$(wc -l < {count}); {line}\"], outputs = {{ out = {{ kind = file, path = \"out\" }} }}, metrics = [\"v\"] }}\n"
        )
    };
    test.write("a.exp", step("echo $n > out; echo '{\\\"v\\\": 10.0'$n'}' > metrics.json"));
    test.harness(&["run", "a.exp"]).code(0);
    let records = test.path().join(".harness/records");
    let before = content(&records);
    let ran = prints(test.harness(&["verify", "a.exp", "c"]).code(1), &["c: differs", "outputs: 0 of 1 the same"]);
    prints(ran, &["v: 10.01 -> 10.02", "a `command` gives equal bytes as far as its program does"]);
    prints(
        test.harness(&["verify", "a.exp", "c", "--tolerance", "0.01"]).code(0),
        &["every number within 0.01; not the same bytes"],
    );
    test.harness(&["verify", "a.exp", "c", "--tolerance", "1e-6"]).code(1);
    let found = json(&test.harness(&["verify", "a.exp", "c", "--json"]).code(1));
    assert_eq!((found[0]["passes"].as_bool(), found[0]["same"].as_bool()), (Some(false), Some(false)));
    assert_eq!(content(&records), before);
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 1, 0, 0]);
    test.harness(&["verify", "a.exp", "c", "--tolerance=-1"]).code(2).says(&["no tolerance"]);
}

#[test]
fn what_is_known_of_a_step_is_shown() {
    let test = project();
    prints(test.harness(&["show", "a.exp", "first"]).code(0), &["has no result yet; `harness run a.exp 'first'`"]);
    test.harness(&["log", "a.exp", "first"]).code(2).says(&["has not been computed yet"]);
    test.harness(&["run", "a.exp"]).code(0);
    let ran =
        prints(test.harness(&["show", "a.exp", "second"]).code(0), &["second[seed=1]  command", "known, computed"]);
    prints(ran, &["inputs.text        first.text  file  ", ".harness/blobs/", "v  1.500", "threads  1"]);
    assert_eq!(prints(test.harness(&["log", "a.exp", "first"]).code(0), &[]).stdout, "said a\n");
    let shown = json(&test.harness(&["show", "a.exp", "first", "--json"]).code(0));
    assert_eq!(shown[0]["record"]["metrics"]["n"], 3.0);
    assert!(Path::new(shown[0]["files"]["text"].as_str().unwrap()).is_file());
    // With other parameters there is no result, and the newest one is shown as what it is.
    prints(
        test.harness(&["show", "a.exp", "first", "-p", "word=b"]).code(0),
        &["would be computed; below is its newest earlier result", "env.WORD"],
    );
    let program = json(&test.harness(&["show", "program", "a.exp"]).code(0));
    assert_eq!(program["steps"].as_array().unwrap().len(), 4);
    let actions = json(&test.harness(&["show", "actions", "a.exp"]).code(0));
    assert_eq!(actions[1]["key"]["kind"], "command");
}

#[test]
fn what_a_failed_step_said_is_its_log() {
    let test = Test::new().file("a.exp", "command bad { run = [\"sh\", \"-c\", \"echo the reason; exit 3\"] }\n");
    test.harness(&["run", "a.exp"]).code(1);
    prints(test.harness(&["log", "a.exp", "bad"]).code(0), &["status 3", "the reason"]);
    prints(test.harness(&["history", "a.exp"]).code(0), &["failed"]);
}

#[test]
fn runs_are_listed_compared_and_shown_again() {
    let test = project();
    test.harness(&["history", "a.exp"]).code(2).says(&["has not been run", "harness run a.exp"]);
    test.harness(&["compare", "latest", "latest"]).code(2).says(&["nothing has been run", "harness run FILE"]);
    test.harness(&["run", "a.exp"]).code(0);
    test.write("data.txt", "B");
    test.write("a.exp", TEXT.replace(".5}", ".75}"));
    test.harness(&["run", "a.exp", "-p", "word=b"]).code(0);
    let ran = prints(test.harness(&["history", "a.exp"]).code(0), &["param word: \"a\" -> \"b\"", "finished"]);
    prints(ran, &["first: the file data.txt changed", "second[seed=1], second[seed=2]: run:"]);
    let ran = test.harness(&["compare", "a.exp~1", "a.exp"]).code(0);
    prints(ran, &["param word: \"a\" -> \"b\"", "2 ± 0.707 (n = 2)", "2.250 ± 0.707 (n = 2)", "+0.250"]);
    let compared = json(&test.harness(&["compare", "latest~1", "latest", "--json"]).code(0));
    let line = compared["metrics"].as_array().unwrap().iter().find(|line| line["metric"] == "v").unwrap();
    assert_eq!((line["before"]["n"].as_u64(), line["difference"].as_f64()), (Some(2), Some(0.25)));
    test.harness(&["replay", "latest"]).code(0).says(&["done  second[seed=2]", "finished in", "3 executed, 1 cached"]);
    let events = test.harness(&["replay", "a.exp", "--json"]).code(0);
    assert_eq!(events.counts(), [3, 1, 0, 0]);
    let runs = json(&test.harness(&["history", "a.exp", "--json"]).code(0));
    let id = runs[0]["run"].as_str().unwrap().to_string();
    let wrong = format!("{}x", &id[..id.len() - 1]);
    test.harness(&["replay", &wrong]).code(2).says(&["there is no run", "nearest"]);
    // Another file of the cache has a history of its own.
    test.write("sub/a.exp", "command c { run = [\"true\"] }\n");
    test.harness(&["run", "sub/a.exp", "--cache", ".harness"]).code(0);
    assert_eq!(json(&test.harness(&["history", "a.exp", "--json"]).code(0)).as_array().unwrap().len(), 2);
}

/// A step that says it began and waits to be let go.
fn held() -> Test {
    let test = Test::new();
    let (began, go) = (test.path().join("began"), test.path().join("go"));
    test.write(
        "a.exp",
        format!(
            "command quick {{ run = [\"true\"] }}\ncommand held {{ run = [\"sh\", \"-c\", \"touch {}; while [ ! -e {} ]; do sleep 0.02; done\"] }}\n",
            began.display(),
            go.display()
        ),
    );
    test
}

#[test]
fn a_run_that_goes_on_is_seen_and_followed() {
    let test = held();
    let mut run = test.start(&["run", "a.exp", "-j", "1"]);
    wait_until("the step", || test.path().join("began").exists());
    // The first step counts once it is on disk, which the second one does not wait for.
    let status = || test.harness(&["status"]).code(0).stdout;
    wait_until("the end of the first step", || status().contains("1 of 2 steps done"));
    let ran = prints(test.harness(&["status"]).code(0), &["a.exp", "running for", "1 of 2 steps done", "held"]);
    prints(ran, &[&format!("process {}", run.id())]);
    let status = json(&test.harness(&["status", "--json"]).code(0));
    assert_eq!(status[0]["running"][0]["label"], "held");
    prints(test.harness(&["show", "a.exp", "quick"]).code(0), &["known"]);
    let watch = test.start(&["watch"]);
    // A terminal that closes does not end the run.
    // SAFETY: a signal to the child just started.
    unsafe { libc::kill(run.id() as i32, libc::SIGHUP) };
    std::thread::sleep(Duration::from_millis(200));
    assert!(run.try_wait().unwrap().is_none(), "the run ended with its terminal");
    test.write("go", "");
    let watched = watch.wait_with_output().unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let said = String::from_utf8_lossy(&watched.stderr);
    assert_eq!(watched.status.code(), Some(0), "{said}");
    assert!(said.contains("done  quick") && said.contains("done  held") && said.contains("2 executed"), "{said}");
    prints(test.harness(&["status"]).code(0), &["no run goes on", "finished"]);
}

#[test]
fn a_killed_run_is_called_that_and_its_results_stay() {
    let test = held();
    let mut run = test.start(&["run", "a.exp", "-j", "1"]);
    wait_until("the step", || test.path().join("began").exists());
    run.kill().unwrap();
    run.wait().unwrap();
    prints(test.harness(&["status"]).code(0), &["no run goes on", "killed"]);
    prints(test.harness(&["history", "a.exp"]).code(0), &["killed"]);
    test.harness(&["replay", "latest"]).code(1).says(&["its process was killed", "`harness run a.exp` goes on"]);
    test.write("go", "");
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [1, 1, 0, 0]);
}

/// The seed is the inner axis' alone, so the outer one repeats what is known: two trainings and not four, in the table and
/// in the claim.
#[test]
fn claims_count_as_tables_do() {
    let text = r#"
replicate draw in [1, 2] {
    replicate seed in [1, 2] {
        command c { run = ["sh", "-c", "echo '{\"v\": {seed}.5}' > metrics.json"], metrics = ["v"] }
    }
}
claim "large" { c.v > 1 }
"#;
    let test = Test::new().file("a.exp", text);
    let ran = test.harness(&["run", "a.exp"]);
    assert!(ran.stderr.contains("warning[W0202]: nothing changes along `draw`"), "{}", ran.stderr);
    let page = std::fs::read_to_string(test.path().join(".harness/summaries/a/summary.html")).unwrap();
    assert!(page.contains("2 seeds, difference 1.0 ± 6.4"), "{page}");
    assert!(page.contains("evaluations along draw averaged first"), "{page}");
}
