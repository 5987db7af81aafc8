//! A run that finds everything repeats the run before, until anything that decided it changes.

use harness_tests::Test;
use std::path::PathBuf;
use std::time::Duration;

const TEXT: &str = r#"
import "more.exp"
command a { run = ["sh", "-c", "cat {inputs.x} > out"], files = { x = "x.txt" }, outputs = { out = { kind = file, path = "out" } } }
command b { run = ["sh", "tool.sh", "{inputs.a}"], inputs = { a = a.out }, outputs = { out = { kind = file, path = "out" } } }
command c { run = ["cat", "{inputs.a}"], inputs = { a = a.out }, code = ["lib"] }
image_folder pictures { path = "pictures" }
"#;

fn world() -> Test {
    let test = Test::new().file("a.exp", TEXT).file("more.exp", "command m { run = [\"true\"] }\n");
    test.write("x.txt", "one");
    test.write("tool.sh", "cat \"$1\" > out; echo 1 >> out");
    test.write("lib/part.txt", "part");
    test.write("pictures/cat/0.png", "zero");
    test.write("pictures/cat/1.png", "one");
    test
}

/// Runs until a run has nothing left to find out, and gives what that one printed.
fn settle(test: &Test) -> String {
    std::thread::sleep(Duration::from_millis(2_200));
    let mark = test.path().join(".harness/summaries/a/unchanged");
    let mut said = String::new();
    for _ in 0..3 {
        said = test.harness(&["run", "a.exp", "--json"]).code(0).stdout;
        if mark.is_file() {
            return said;
        }
        std::thread::sleep(Duration::from_millis(1_200));
    }
    panic!("it is never known that nothing changed: {said}");
}

/// The lines of all steps.
fn steps(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains("step_finished")).collect()
}

fn files(test: &Test, below: &str) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(test.path().join(".harness").join(below)).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn the_same_words_as_long_as_nothing_changes() {
    let test = world();
    test.harness(&["run", "a.exp"]).code(0);
    let said = settle(&test);
    let runs = || std::fs::read_dir(test.path().join(".harness/runs")).unwrap().count();
    let before = runs();
    let again = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!(again.counts(), [0, 5, 0, 0]);
    assert_eq!(steps(&again.stdout), steps(&said));
    assert_eq!(runs(), before + 1, "it is a run as any other");
    // What looks at runs finds all it needs.
    test.harness(&["why", "a.exp", "b"]).code(0);
    test.harness(&["history", "a.exp"]).code(0);
    // Who listens makes no difference, what is asked for does.
    test.harness(&["run", "a.exp", "-j", "1"]).code(0).says(&["0 executed, 5 cached"]);
    test.harness(&["run", "a.exp", "b"]).code(0).says(&["0 executed, 2 cached"]);
    test.harness(&["run", "a.exp", "--force", "b"]).code(0).says(&["1 executed, 4 cached"]);
    test.harness(&["run", "a.exp"]).code(0).says(&["0 executed, 5 cached"]);
}

#[test]
fn every_change_is_seen() {
    let test = world();
    test.harness(&["run", "a.exp"]).code(0);
    let change = |what: &str, executed: u64, change: &dyn Fn(&Test)| {
        settle(&test);
        change(&test);
        let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
        assert_eq!(ran.counts()[0], executed, "{what}: {}\n{}", ran.stdout, ran.stderr);
    };
    change("an input", 3, &|test| test.write("x.txt", "two"));
    change("an argument that is a file", 1, &|test| test.write("tool.sh", "cat \"$1\" > out; echo 2 >> out"));
    change("a file in a folder of code", 1, &|test| test.write("lib/part.txt", "trap"));
    change("a new file there", 1, &|test| test.write("lib/new.txt", "new"));
    change("a picture", 1, &|test| test.write("pictures/cat/0.png", "nought"));
    change("a picture more", 1, &|test| test.write("pictures/cat/2.png", "two"));
    change("an import", 1, &|test| test.write("more.exp", "command m { run = [\"true\", \"x\"] }\n"));
    change("the text", 1, &|test| test.write("a.exp", TEXT.replace("\"cat\", ", "\"cat\", \"-u\", ")));
    change("a name that is looked for", 1, &|test| test.write("-u", "now it names a file"));
    change("a damaged blob", 1, &|test| {
        let blobs = files(test, "blobs");
        let with =
            |text: &[u8]| blobs.iter().find(|blob| std::fs::read(blob).is_ok_and(|bytes| bytes == text)).unwrap();
        let blob = with(b"two2\n");
        std::fs::remove_file(blob).unwrap();
        std::fs::write(blob, b"two3\n").unwrap();
    });
    change("records that are gone", 5, &|test| {
        files(test, "records").iter().for_each(|log| std::fs::remove_file(log).unwrap())
    });
    change("what was remembered, damaged", 0, &|test| {
        let mark = test.path().join(".harness/summaries/a/unchanged");
        let mut bytes = std::fs::read(&mark).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&mark, bytes).unwrap();
    });
    change("the summary", 0, &|test| {
        std::fs::remove_file(test.path().join(".harness/summaries/a/summary.html")).unwrap()
    });
    assert!(test.path().join(".harness/summaries/a/summary.html").is_file());
}
