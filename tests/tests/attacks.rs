//! What steps, files and disks do to an engine that trusts them.

use harness_tests::{Test, wait_until};
use std::path::Path;

const OUT: &str = "outputs = { out = { kind = file, path = \"out\" } }";

/// The content of the only output of a step.
fn output(test: &Test, step: &str) -> String {
    let shown = test.harness(&["show", "a.exp", step, "--json"]).code(0);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    std::fs::read_to_string(shown[0]["files"]["out"].as_str().expect("an output")).expect("the blob")
}

fn commands(steps: &[(&str, &str, &str)]) -> String {
    let step = |(name, run, rest): &(&str, &str, &str)| {
        format!("command {name} {{ run = [\"sh\", \"-c\", {}], {rest} }}\n", serde_json::json!(run))
    };
    steps.iter().map(step).collect()
}

#[test]
fn what_escapes_a_step_does_not_write_into_the_next_ones_outputs() {
    let one = "setsid sh -c 'sleep 0.5; echo EVIL >> $PWD/out' > /dev/null 2>&1 & echo one > out; sleep 0.1";
    let text = commands(&[
        ("one", one, OUT),
        ("two", "echo two > out; sleep 0.8", &format!("inputs = {{ x = one.out }}, {OUT}")),
    ]);
    let test = Test::new().file("a.exp", &text);
    test.harness(&["run", "a.exp", "-j", "1"]).code(0);
    assert_eq!(output(&test, "two"), "two\n");
}

#[test]
fn a_large_file_that_changes_while_it_is_read_makes_the_result_void() {
    let test = Test::new();
    let [began, go] = ["began", "go"].map(|name| test.path().join(name));
    let run = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.02; done; head -c 4 big.bin > out",
        began.display(),
        go.display()
    );
    test.write("a.exp", commands(&[("read", &run, &format!("code = [\"big.bin\"], {OUT}"))]));
    // Too large for a copy.
    let big = test.path().join("big.bin");
    let zeros = vec![0; 17 << 20];
    std::fs::write(&big, &zeros).unwrap();
    let mut child = test.start(&["run", "a.exp"]);
    wait_until("the step", || began.exists());
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(&big).unwrap().write_all_at(b"BAAD", 0).unwrap();
    test.write("go", "");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    std::fs::write(&big, &zeros).unwrap();
    test.harness(&["run", "a.exp"]).code(0);
    assert_eq!(output(&test, "read"), "\0\0\0\0");
}

#[test]
fn a_cache_around_the_project_does_not_make_its_files_the_caches() {
    let test = Test::new();
    let [began, go, input] = ["began", "go", "input.txt"].map(|name| test.path().join(name));
    let run = format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done; cat $0 > out", began.display(), go.display());
    let step = commands(&[("read", &run, OUT)]).replace("], outputs", &format!(", \"{}\"], outputs", input.display()));
    test.write("a.exp", step);
    test.write("harness.toml", "cache = \".\"\n");
    test.write("input.txt", "A");
    let mut child = test.start(&["run", "a.exp"]);
    wait_until("the step", || began.exists());
    test.write("input.txt", "B");
    test.write("go", "");
    // Back before the step's end, most likely; whichever it is, something was written meanwhile.
    test.write("input.txt", "A");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn an_interpreter_is_looked_for_where_the_step_looks() {
    let test = Test::new();
    let program = |place: &str, says: &str| {
        test.write(place, format!("#!/bin/sh\necho {says} > out\n"));
        let path = test.path().join(place);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("own/speaker", "one");
    // Not executable, so no program: the next place counts.
    test.write("first/speaker", "no program");
    test.write("a.sh", "#!/usr/bin/env speaker\n");
    let path = [test.path().join("first"), test.path().join("own")].map(|path| path.display().to_string()).join(":");
    test.write(
        "a.exp",
        format!("command say {{ run = [\"./a.sh\"], env = {{ PATH = \"{path}:/usr/bin:/bin\" }}, {OUT} }}\n"),
    );
    let script = test.path().join("a.sh");
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    test.harness(&["run", "a.exp"]).code(0);
    assert_eq!(output(&test, "say"), "one\n");
    program("own/speaker", "two");
    test.harness(&["run", "a.exp"]).code(0);
    assert_eq!(output(&test, "say"), "two\n");
}

#[test]
fn outputs_behind_a_link_stay_where_they_are() {
    let test = Test::new();
    test.write("precious/x", "mine");
    let run = format!("rmdir o; ln -s {} o", test.path().join("precious").display());
    test.write("a.exp", commands(&[("take", &run, "outputs = { out = { kind = file, path = \"o/x\" } }")]));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(1);
    assert!(ran.stdout.contains("behind a link"), "{}", ran.stdout);
    assert_eq!(std::fs::read_to_string(test.path().join("precious/x")).unwrap(), "mine");
}

#[test]
fn pipes_and_devices_are_no_outputs() {
    let test = Test::new();
    let folder = "outputs = { out = { kind = folder, path = \"d\" } }";
    test.write(
        "a.exp",
        commands(&[
            ("pipe", "mkdir d; mkfifo d/p", folder),
            ("device", "mkdir d; ln -s /dev/zero d/z", folder),
            ("dangling", "mkdir d; ln -s /nowhere d/w", folder),
            ("numbers", "mkfifo metrics.json", "metrics = [\"a\"]"),
        ]),
    );
    let ran = test.harness(&["run", "a.exp", "--json", "--keep-going"]).code(1);
    assert_eq!(ran.counts(), [0, 0, 4, 0], "{}", ran.stdout);
    for word in ["`p` in it is no plain file", "`z` in it is no plain file", "`w` in it", "did not write metrics.json"]
    {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
}

#[test]
fn a_time_limit_beyond_all_time_is_none() {
    let test = Test::new()
        .file("a.exp", &commands(&[("long", "echo x > out", &format!("resources = {{ time = 1e30h }}, {OUT}"))]));
    test.harness(&["run", "a.exp"]).code(0);
}

#[test]
fn one_broken_file_of_the_cache_stops_nothing_else() {
    let text = |word: &str| commands(&[("a", "echo a > out", OUT), ("b", &format!("echo {word} > out"), OUT)]);
    let test = Test::new().file("a.exp", &text("b"));
    test.harness(&["run", "a.exp"]).code(0);
    let blobs = test.path().join(".harness/blobs");
    let broken = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        // Reading it gives ELOOP.
        std::os::unix::fs::symlink(path, path).unwrap();
    };
    let mut count = 0;
    for folder in std::fs::read_dir(&blobs).unwrap() {
        for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            if std::fs::read(&path).unwrap() == b"a\n" {
                broken(&path);
                count += 1;
            }
        }
    }
    assert_eq!(count, 1);
    test.write("a.exp", text("c"));
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!((ran.status("a").as_str(), ran.status("b").as_str()), ("executed", "executed"), "{}", ran.stdout);
    assert_eq!(output(&test, "a"), "a\n");
    // Records, too.
    let records = test.path().join(".harness/records");
    for folder in std::fs::read_dir(&records).unwrap() {
        let log = std::fs::read_dir(folder.unwrap().path()).unwrap().next();
        broken(&log.unwrap().unwrap().path());
    }
    test.write("a.exp", text("d"));
    test.harness(&["run", "a.exp", "--json"]).code(0);
    test.harness(&["cache", "verify"]);
}

#[test]
fn folders_of_code_are_followed_through_links() {
    let step = "command c { run = [\"sh\", \"-c\", \"cat lib/linked/part > out\"], code = [\"lib\"], \
                outputs = { out = { kind = file, path = \"out\" } } }\n";
    let test = Test::new().file("a.exp", step);
    std::fs::create_dir_all(test.path().join("elsewhere")).unwrap();
    std::fs::create_dir_all(test.path().join("lib")).unwrap();
    test.write("elsewhere/part", "first");
    std::os::unix::fs::symlink("../elsewhere", test.path().join("lib/linked")).unwrap();
    // And one that leads back up.
    std::os::unix::fs::symlink("../elsewhere", test.path().join("elsewhere/up")).unwrap();
    std::os::unix::fs::symlink(".", test.path().join("lib/itself")).unwrap();
    test.harness(&["run", "a.exp"]).code(0);
    assert_eq!(output(&test, "c"), "first");
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 1, 0, 0]);
    test.write("elsewhere/part", "second");
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [1, 0, 0, 0]);
    assert_eq!(output(&test, "c"), "second");
}

#[test]
fn more_jobs_than_a_machine_can_have_are_refused() {
    let test = Test::new().file("a.exp", "command c { run = [\"true\"] }\n");
    test.harness(&["run", "a.exp", "-j", "5000000"]).code(2).says(&["jobs = 5000000", "at most", "--executor slurm"]);
    test.write("harness.toml", "[slurm]\njobs = 99999999999\n");
    test.harness(&["run", "a.exp"]).code(2).says(&["jobs = 99999999999", "the most"]);
}
