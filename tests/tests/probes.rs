//! Eight things a user does to a workflow that break other tools, each as a test. No torch.

use harness_tests::Test;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One step that notes each of its runs in `count`, does `before`, copies `data.txt`, and does `after`.
fn text(test: &Test, before: &str, after: &str) -> String {
    let count = test.path().join("count");
    format!(
        "command copy {{ run = [\"sh\", \"-c\", \"echo run >> {}; {before} cat inputs/data > out; {after} true\"], files = {{ data = \"data.txt\" }}, outputs = {{ out = {{ kind = file, path = \"out\" }} }} }}\n",
        count.display()
    )
}

fn project(before: &str, after: &str) -> Test {
    let test = Test::new().file("data.txt", "A");
    test.write("a.exp", text(&test, before, after));
    test
}

fn runs(test: &Test) -> usize {
    std::fs::read_to_string(test.path().join("count")).unwrap_or_default().lines().count()
}

/// Every stored file with this content.
fn blobs(test: &Test, content: &str) -> Vec<PathBuf> {
    let Ok(folders) = std::fs::read_dir(test.path().join(".harness/blobs")) else { return Vec::new() };
    folders
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|blob| blob.unwrap().path())
        .filter(|path| std::fs::read(path).unwrap() == content.as_bytes())
        .collect()
}

fn counts(test: &Test) -> [u64; 4] {
    test.harness(&["run", "a.exp", "--json"]).code(0).counts()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed().as_secs() < 60, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn output_deleted() {
    let test = project("", "");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    for blob in blobs(&test, "A") {
        std::fs::remove_file(blob).unwrap();
    }
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!(blobs(&test, "A").len(), 1);
    assert_eq!(counts(&test), [0, 1, 0, 0]);
}

#[test]
fn input_a_b_a() {
    let test = project("", "");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("data.txt", "B");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("data.txt", "A");
    assert_eq!(counts(&test), [0, 1, 0, 0]);
    assert_eq!(runs(&test), 2);
}

#[test]
fn command_edited() {
    let test = project("", "");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("a.exp", text(&test, "", "printf more >> out;"));
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!(blobs(&test, "Amore").len(), 1);
}

/// The input is edited while the step runs: nothing of that run is kept, and the next runs are right for both contents.
fn changed_under_the_step(before: impl Fn(&str) -> String, after: impl Fn(&str) -> String) {
    let test = Test::new().file("data.txt", "A");
    // Waits for the test's edit in the first run only.
    let place = test.path().display().to_string();
    let wait = format!(
        "if [ ! -e {place}/go ]; then touch {place}/started; i=0; while [ ! -e {place}/go ]; do i=$((i+1)); [ $i -gt 3000 ] && exit 1; sleep 0.02; done; fi;"
    );
    test.write("a.exp", text(&test, &before(&wait), &after(&wait)));
    let child = test.start(&["run", "a.exp", "--json"]);
    wait_for(&test.path().join("started"));
    test.write("data.txt", "B");
    test.write("go", "");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("data.txt changed while the step ran") && said.contains("void"), "{said}");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!((blobs(&test, "A").len(), blobs(&test, "B").len()), (0, 1));
    // Nor does the void result stand under the old content.
    test.write("data.txt", "A");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!(blobs(&test, "A").len(), 1);
}

#[test]
fn input_changes_after_the_output_was_written() {
    changed_under_the_step(|_| String::new(), str::to_string);
}

#[test]
fn input_changes_before_the_output_is_written() {
    changed_under_the_step(str::to_string, |_| String::new());
}

/// The input is edited and edited back while the step runs: its content at the end says nothing.
#[test]
fn input_a_b_a_under_the_step() {
    let test = Test::new().file("data.txt", "A");
    let place = test.path().display().to_string();
    let wait = format!(
        "if [ ! -e {place}/go ]; then touch {place}/started; i=0; while [ ! -e {place}/go ]; do i=$((i+1)); [ $i -gt 3000 ] && exit 1; sleep 0.02; done; fi;"
    );
    test.write("a.exp", text(&test, &wait, ""));
    let child = test.start(&["run", "a.exp", "--json"]);
    wait_for(&test.path().join("started"));
    test.write("data.txt", "B");
    test.write("data.txt", "A");
    test.write("go", "");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("data.txt was written to") && said.contains("void"), "{said}");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
}

#[test]
fn stored_result_edited_by_hand() {
    let test = project("", "");
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    let blob = blobs(&test, "A").remove(0);
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, "Z").unwrap();
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!((blobs(&test, "Z").len(), blobs(&test, "A").len()), (0, 1));
    assert!(std::fs::read_dir(test.path().join(".harness/quarantine")).unwrap().next().is_some());
}

#[test]
fn two_runs_at_once() {
    let test = Test::new().file("data.txt", "A");
    let place = test.path().display().to_string();
    let wait = format!(
        "touch {place}/started; i=0; while [ ! -e {place}/go ]; do i=$((i+1)); [ $i -gt 3000 ] && exit 1; sleep 0.02; done;"
    );
    test.write("a.exp", text(&test, "", &wait));
    let first = test.start(&["run", "a.exp", "--json"]);
    wait_for(&test.path().join("started"));
    let mut second = test.start(&["run", "a.exp", "--json"]);
    // The second says whom it waits for before the first may end.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(second.stdout.take().unwrap()));
    let said = lines.by_ref().map(Result::unwrap).find(|line| line.contains("waits: ")).expect("it waits");
    assert!(said.contains(&format!("process {} on ", first.id())) && said.contains(" UTC computes it"), "{said}");
    // A third one was told not to wait.
    let third = test.command(&["run", "a.exp"]).env("HARNESS_WAIT", "0s").output().unwrap();
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(third.status.code() == Some(1) && said.contains("not to wait longer than"), "{said}");
    test.write("go", "");
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.contains("\"executed\":0") && last.contains("\"cached\":1"), "{last}");
    assert!(second.wait().unwrap().success());
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(runs(&test), 1);
}

#[test]
fn killed_in_mid_run() {
    let test = Test::new().file("data.txt", "A");
    let place = test.path().display().to_string();
    let wait = format!("if [ ! -e {place}/go ]; then printf half > out; touch {place}/started; sleep 60; fi;");
    test.write("a.exp", text(&test, &wait, ""));
    let mut child = test.start(&["run", "a.exp"]);
    wait_for(&test.path().join("started"));
    child.kill().unwrap();
    child.wait().unwrap();
    test.write("go", "");
    // The same command again, with no flag.
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    assert_eq!((blobs(&test, "half").len(), blobs(&test, "A").len()), (0, 1));
    test.harness(&["cache", "verify"]).code(0);
}
