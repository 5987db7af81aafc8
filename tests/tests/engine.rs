//! The engine, driven by `command` steps: caching, early cut-off, failures, parallel steps. No torch.

use harness_tests::Test;

/// Two steps in a row and one beside them.
const CHAIN: &str = r#"
param word = "a"
command first  { run = ["sh", "-c", "echo run >> $COUNT; printf x > out; printf '{\"length\": 1}' > metrics.json"], env = { COUNT = "COUNTFILE", WORD = word }, outputs = { text = { kind = file, path = "out" } }, metrics = ["length"] }
command second { run = ["sh", "-c", "cat {inputs.text} > both; cat {inputs.text} >> both"], inputs = { text = first.text }, outputs = { text = { kind = file, path = "both" } } }
command beside { run = ["sh", "-c", "printf '{\"n\": 3}' > metrics.json"], metrics = ["n"] }
claim "one" { first.length < beside.n }
"#;

fn chain() -> Test {
    let test = Test::new();
    let count = test.path().join("count");
    test.write("a.exp", CHAIN.replace("COUNTFILE", &count.to_string_lossy()));
    test
}

fn runs(test: &Test) -> usize {
    std::fs::read_to_string(test.path().join("count")).unwrap_or_default().lines().count()
}

#[test]
fn a_second_run_executes_nothing() {
    let test = chain();
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [3, 0, 0, 0]);
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 3, 0, 0]);
    assert_eq!(runs(&test), 1);
}

#[test]
fn comments_and_order_change_nothing() {
    let test = chain();
    test.harness(&["run", "a.exp"]).code(0);
    let text = std::fs::read_to_string(test.path().join("a.exp")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.reverse();
    test.write("a.exp", format!("# new\n{}", lines.join("   # words\n")));
    assert_eq!(test.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 3, 0, 0]);
}

#[test]
fn equal_outputs_cut_the_rest_off() {
    let test = chain();
    test.harness(&["run", "a.exp"]).code(0);
    // Another key for `first`, the same bytes out of it: `second` is known.
    let ran = test.harness(&["run", "a.exp", "-p", "word=b", "--json"]).code(0);
    assert_eq!(ran.counts(), [1, 2, 0, 0]);
    assert_eq!(ran.status("second"), "cached");
}

#[test]
fn force_computes_again_and_a_dry_run_nothing() {
    let test = chain();
    assert_eq!(test.harness(&["run", "a.exp", "--dry-run", "--json"]).code(0).counts(), [0, 0, 0, 3]);
    assert_eq!(runs(&test), 0);
    test.harness(&["run", "a.exp"]).code(0);
    assert_eq!(test.harness(&["run", "a.exp", "--force", "first", "--json"]).code(0).counts(), [1, 2, 0, 0]);
    assert_eq!(runs(&test), 2);
}

#[test]
fn targets_need_only_their_inputs() {
    let test = chain();
    assert_eq!(test.harness(&["run", "a.exp", "second", "--json"]).code(0).counts(), [2, 0, 0, 0]);
    test.harness(&["run", "a.exp", "thrid"]).code(2).says(&["no step is called `thrid`"]);
}

#[test]
fn a_failure_names_the_program_and_keep_going_goes_on() {
    let test = Test::new().file(
        "a.exp",
        r#"
command bad   { run = ["sh", "-c", "echo seen before the end; exit 7"] , outputs = { x = { kind = file, path = "x" } } }
command after { run = ["true"], inputs = { x = bad.x } }
command other { run = ["sh", "-c", "sleep 0.3"] }
command last  { run = ["sh", "-c", "sleep 0.1; printf y > y"], outputs = { y = { kind = file, path = "y" } } }
"#,
    );
    let ran = test.harness(&["run", "a.exp", "--keep-going", "--json", "-j", "1"]).code(1);
    let ran = ran.says(&["status 7", "seen before the end", "`bad` failed"]);
    assert_eq!(ran.counts(), [2, 0, 1, 1]);
    // What succeeded is kept; without --keep-going nothing new is started behind the failure.
    let again = test.harness(&["run", "a.exp", "--json", "-j", "1"]).code(1);
    assert_eq!(again.counts(), [0, 2, 1, 1]);
}

#[test]
fn independent_steps_run_side_by_side() {
    // Each waits for the other's file: alone, neither would end.
    let test = Test::new();
    let (a, b) = (test.path().join("a"), test.path().join("b"));
    let wait = |mine: &std::path::Path, other: &std::path::Path| {
        format!(
            "touch {}; i=0; while [ ! -e {} ]; do i=$((i+1)); [ $i -gt 1500 ] && exit 1; sleep 0.02; done",
            mine.display(),
            other.display()
        )
    };
    test.write(
        "a.exp",
        format!(
            "command one {{ run = [\"sh\", \"-c\", \"{}\"] }}\ncommand two {{ run = [\"sh\", \"-c\", \"{}\"] }}\n",
            wait(&a, &b),
            wait(&b, &a)
        ),
    );
    assert_eq!(test.harness(&["run", "a.exp", "-j", "2", "--json"]).code(0).counts(), [2, 0, 0, 0]);
}

#[test]
fn undeclared_environment_and_missing_outputs_are_noticed() {
    let test = Test::new().file(
        "a.exp",
        r#"
command env  { run = ["sh", "-c", "env | cut -d= -f1 | sort | tr '\n' ' ' >&2; exit 1"], env = { MINE = "1" } }
command gone { run = ["true"], outputs = { x = { kind = file, path = "x" } } }
"#,
    );
    let ran = test.harness(&["run", "a.exp", "--keep-going"]).code(1);
    let ran = ran.says(&["did not write its output `x`", "HOME LANG MINE PATH PWD"]);
    assert!(!ran.stderr.contains("XDG"));
}

#[test]
fn a_damaged_result_is_computed_again_and_never_served() {
    let test = chain();
    test.harness(&["run", "a.exp"]).code(0);
    let blobs = test.path().join(".harness/blobs");
    let mut damaged = 0;
    for folder in std::fs::read_dir(&blobs).unwrap() {
        for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            if std::fs::read(&path).unwrap() == b"x" {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, "y").unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    let ran = test.harness(&["run", "a.exp", "--json"]).code(0);
    assert_eq!((ran.status("first").as_str(), ran.status("second").as_str()), ("executed", "cached"));
}

#[test]
fn an_interrupt_stops_in_order() {
    let test = Test::new().file("a.exp", "command long { run = [\"sh\", \"-c\", \"touch started; sleep 600\"] }\n");
    let started = std::time::Instant::now();
    let mut child = test.start(&["run", "a.exp", "--json"]);
    while !test
        .path()
        .join(".harness/tmp")
        .read_dir()
        .is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.path().join("run-1/started").exists())))
    {
        assert!(started.elapsed().as_secs() < 60, "it never started");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // SAFETY: a signal to the child just started.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = child.wait().unwrap();
    assert_eq!(output.code(), Some(130));
}

#[test]
fn bad_command_lines_and_texts_end_with_2() {
    let test = Test::new().file("a.exp", "command c { run = [\"true\"] }\n").file("bad.exp", "knn nn { encodr = x }\n");
    test.harness(&["run", "missing.exp"]).code(2).says(&["missing.exp cannot be read"]);
    test.harness(&["run", "bad.exp"]).code(2).says(&["E0104", "did you mean `encoder`?", "bad.exp:1:10"]);
    test.harness(&["run", "a.exp", "--device", "tpu"]).code(2).says(&["unknown device `tpu`", "cuda:0,1"]);
    test.harness(&["run", "a.exp", "-p", "nothing=1"]).code(2).says(&["there is no param `nothing`"]);
    test.write("file", "");
    test.harness(&["run", "a.exp", "--cache", "file"]).code(2).says(&["file"]);
    test.harness(&["explain", "E0104"]).code(0);
}

#[test]
fn claims_decide_the_exit_status_when_strict() {
    let test = Test::new().file(
        "a.exp",
        "command c { run = [\"sh\", \"-c\", \"printf '{\\\"v\\\": 1}' > metrics.json\"], metrics = [\"v\"] }\nclaim \"more\" { c.v > 2 }\n",
    );
    test.harness(&["run", "a.exp"]).code(0).says(&["fails  more"]);
    test.harness(&["run", "a.exp", "--strict"]).code(1);
}

/// A project whose step runs a script that imports a module.
fn scripted(step: &str) -> Test {
    let test = Test::new().file("train.sh", "#!/bin/sh\n. ./lib/words.sh\nprintf $WORD > out\n").file("other.txt", "x");
    test.write("lib/words.sh", "WORD=one\n");
    test.write("a.exp", format!("command c {{ {step}, outputs = {{ out = {{ kind = file, path = \"out\" }} }} }}\n"));
    test
}

fn counts(test: &Test) -> [u64; 4] {
    test.harness(&["run", "a.exp", "--json"]).code(0).counts()
}

#[test]
fn code_that_a_step_runs_is_in_its_key() {
    for step in [
        "run = [\"sh\", \"train.sh\"], code = [\"lib\"]",
        "run = [\"sh\", \"train.sh\"], code = [\"lib/words.sh\"]",
        "run = [\"sh\", \"./train.sh\", \"--words=lib/words.sh\"]",
    ] {
        let test = scripted(step);
        assert_eq!(counts(&test), [1, 0, 0, 0], "{step}");
        // A file beside it that nothing names does not matter.
        test.write("other.txt", "y");
        assert_eq!(counts(&test), [0, 1, 0, 0], "{step}");
        test.write("lib/words.sh", "WORD=two\n");
        assert_eq!(counts(&test), [1, 0, 0, 0], "{step}");
        test.write("train.sh", "#!/bin/sh\n. ./lib/words.sh\nprintf $WORD$WORD > out\n");
        assert_eq!(counts(&test), [1, 0, 0, 0], "{step}");
        test.write("lib/words.sh", "WORD=one\n");
        test.write("train.sh", "#!/bin/sh\n. ./lib/words.sh\nprintf $WORD > out\n");
        assert_eq!(counts(&test), [0, 1, 0, 0], "{step}");
    }
}

#[test]
fn code_that_is_not_declared_is_not_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = scripted("run = [\"./train.sh\"]");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(test.path().join("train.sh"), executable).unwrap();
    test.harness(&["run", "a.exp"]).code(1).says(&["lib/words.sh"]);
    let text = std::fs::read_to_string(test.path().join("a.exp")).unwrap();
    test.write("a.exp", text.replace("run =", "code = [\"lib\"], run ="));
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("a.exp", text.replace("run =", "code = [\"libs\"], run ="));
    test.harness(&["run", "a.exp"]).code(1).says(&["`libs`, named in `code`, is not beside the file"]);
}

#[test]
fn a_script_edited_while_it_runs_is_the_one_that_was_planned() {
    let test = Test::new()
        .file("a.exp", "command c { run = [\"sh\", \"s.sh\"], outputs = { o = { kind = file, path = \"o\" } } }\n");
    let place = test.path().display().to_string();
    let script = |word: &str| {
        format!("touch {place}/started; while [ ! -e {place}/go ]; do sleep 0.02; done; printf {word} > o\n")
    };
    test.write("s.sh", script("old"));
    let child = test.start(&["run", "a.exp", "--json"]);
    let start = std::time::Instant::now();
    while !test.path().join("started").exists() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    test.write("s.sh", script("new"));
    test.write("go", "");
    assert!(child.wait_with_output().unwrap().status.success());
    // The new text is another step; the old one's result stands under the old text.
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("s.sh", script("old"));
    assert_eq!(counts(&test), [0, 1, 0, 0]);
}

#[test]
fn limits_come_from_the_configuration_and_change_no_key() {
    let test = Test::new().file(
        "a.exp",
        "command c { run = [\"sh\", \"-c\", \"echo run >> $COUNT; [ $(wc -l < $COUNT) -gt 2 ] || exit 3\"], env = { COUNT = \"COUNTFILE\" } }\n",
    );
    let text = std::fs::read_to_string(test.path().join("a.exp")).unwrap();
    test.write("a.exp", text.replace("COUNTFILE", &test.path().join("count").to_string_lossy()));
    test.write("harness.toml", "[limits]\nretries = 1\n");
    test.harness(&["run", "a.exp"]).code(1).says(&["attempt 1 of 2 failed", "status 3"]);
    assert_eq!(runs(&test), 2);
    assert_eq!(counts(&test), [1, 0, 0, 0]);
    test.write("harness.toml", "memory = \"2GiB\"\n[limits.command]\ntime = \"1s\"\nmemory = \"3GiB\"\n");
    assert_eq!(counts(&test), [0, 1, 0, 0]);
    test.write("a.exp", "command c { run = [\"sleep\", \"100\"] }\n");
    test.harness(&["run", "a.exp"]).code(1).says(&["stopped after its timeout of 1 s"]);
}

#[test]
fn memory_that_is_reserved_is_not_given_twice() {
    // Each step fails when it meets another one.
    let test = Test::new();
    let place = test.path().display().to_string();
    let steps: String = (0..4)
        .map(|n| format!("command c{n} {{ run = [\"sh\", \"-c\", \"mkdir {place}/alone || exit 1; sleep 0.1; rmdir {place}/alone; echo {n}\"] }}\n"))
        .collect();
    test.write("a.exp", steps);
    test.write("harness.toml", "memory = \"8GiB\"\n[limits.command]\nmemory = \"5GiB\"\n");
    assert_eq!(test.harness(&["run", "a.exp", "-j", "4", "--json"]).code(0).counts(), [4, 0, 0, 0]);
}

#[test]
fn a_run_that_loses_its_terminal_goes_on() {
    let test = Test::new();
    let place = test.path().display().to_string();
    test.write(
        "a.exp",
        format!("command c {{ run = [\"sh\", \"-c\", \"touch {place}/started; while [ ! -e {place}/go ]; do sleep 0.02; done\"] }}\n"),
    );
    let mut child = test.start(&["run", "a.exp"]);
    let start = std::time::Instant::now();
    while !test.path().join("started").exists() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // Nobody reads what it says any more, and the terminal hangs up.
    drop((child.stdout.take(), child.stderr.take()));
    // SAFETY: a signal to the child just started.
    unsafe { libc::kill(child.id() as i32, libc::SIGHUP) };
    test.write("go", "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(counts(&test), [0, 1, 0, 0]);
}
