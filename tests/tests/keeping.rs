//! Keeping the cache small, and giving runs away: `cache ls|gc|pin|unpin`, `export`, `import`, completions. No torch.

use harness_tests::{Ran, Test, wait_until};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A step whose output has its word, and one that takes it.
const TEXT: &str = r#"
param word = "a"
command first  { run = ["sh", "-c", "echo said; printf %s $WORD > out; printf '{\"n\": 3}' > metrics.json"], env = { WORD = word }, outputs = { text = { kind = file, path = "out" } }, metrics = ["n"] }
command second { run = ["sh", "-c", "cat {inputs.text} {inputs.text} > both"], inputs = { text = first.text }, outputs = { text = { kind = file, path = "both" } } }
"#;

fn project() -> Test {
    Test::new().file("a.exp", TEXT)
}

fn prints(ran: Ran, words: &[&str]) -> Ran {
    for word in words {
        assert!(ran.stdout.contains(word), "`{word}` is not in:\n{}{}", ran.stdout, ran.stderr);
    }
    ran
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

fn results(test: &Test) -> usize {
    json(&test.harness(&["cache", "ls", "--json"]).code(0)).as_array().unwrap().len()
}

#[test]
fn collection_keeps_the_newest_results_of_every_file_and_what_is_pinned() {
    let test = project();
    prints(test.harness(&["cache", "ls"]).code(0), &["holds no result; `harness run FILE`"]);
    for word in ["a", "b", "c"] {
        test.harness(&["run", "a.exp", "-p", &format!("word={word}")]).code(0);
    }
    assert_eq!(results(&test), 6);
    prints(test.harness(&["cache", "ls"]).code(0), &["a.exp: second", "stays: newest of a.exp", "6 results in"]);
    test.harness(&["cache", "pin", "20000101"]).code(2).says(&["there is no run `20000101`", "the nearest is"]);
    prints(test.harness(&["cache", "pin", "a.exp~1"]).code(0), &["and its results stay"]);
    prints(test.harness(&["cache", "gc", "--dry-run"]).code(0), &["a.exp: first", "would go: 2 results, 2 blobs"]);
    assert_eq!(results(&test), 6);
    // Only what is old goes, and nothing is.
    prints(test.harness(&["cache", "gc", "--older-than", "1h"]).code(0), &["removed: 0 results, 0 blobs"]);
    prints(test.harness(&["cache", "gc"]).code(0), &["removed: 2 results, 2 blobs"]);
    for (word, counts) in [("b", [0, 2, 0, 0]), ("c", [0, 2, 0, 0])] {
        let ran = test.harness(&["run", "a.exp", "-p", &format!("word={word}"), "--json"]).code(0);
        assert_eq!(ran.counts(), counts, "{word}");
    }
    prints(test.harness(&["cache", "unpin", "a.exp~3"]).code(0), &["no longer pinned"]);
    // What a file refers to as it is now stays, though its newest run had something else.
    test.write("b.exp", TEXT.replace("\"a\"", "\"b\""));
    prints(test.harness(&["cache", "gc", "--keep", "b.exp"]).code(0), &["removed: 0 results"]);
    prints(test.harness(&["cache", "gc"]).code(0), &["removed: 2 results"]);
    prints(test.harness(&["cache", "verify"]).code(0), &["intact"]);
    test.harness(&["cache", "gc", "--older-than", "30"]).code(2).says(&["`30d`"]);
}

#[test]
fn a_size_takes_the_oldest_first_and_never_what_is_in_use() {
    let test = project();
    for word in ["a", "b", "c"] {
        test.harness(&["run", "a.exp", "-p", &format!("word={word}")]).code(0);
        std::thread::sleep(Duration::from_millis(5));
    }
    let total = json(&test.harness(&["cache", "stat", "--json"]).code(0))["bytes"].as_u64().unwrap();
    // One byte less than there is: the oldest result alone.
    let most = format!("{}B", total - 1);
    let gone = json(&test.harness(&["cache", "gc", "--max-size", &most, "--json"]).code(0));
    assert_eq!(gone["results"][0]["label"], "a.exp: first");
    assert_eq!(gone["results"].as_array().unwrap().len(), 1);
    prints(test.harness(&["cache", "gc", "--max-size", "1B"]).code(0), &["removed: 3 results", "all of it is in use"]);
    assert_eq!(test.harness(&["run", "a.exp", "-p", "word=c", "--json"]).code(0).counts(), [0, 2, 0, 0]);
    // Old runs' folders go by age; the newest of the file stays.
    prints(test.harness(&["cache", "gc", "--older-than", "0s"]).code(0), &["3 run folders"]);
    assert_eq!(json(&test.harness(&["history", "a.exp", "--json"]).code(0)).as_array().unwrap().len(), 1);
}

#[test]
fn collection_beside_a_run_takes_nothing_from_it() {
    let test = Test::new();
    let (began, go) = (test.path().join("began"), test.path().join("go"));
    let wait = format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done", began.display(), go.display());
    let text = |middle: &str| {
        format!(
            "param word = \"a\"\ncommand first {{ run = [\"sh\", \"-c\", \"printf %s $WORD > out\"], env = {{ WORD = word }}, outputs = {{ x = {{ kind = file, path = \"out\" }} }} }}\n{middle}"
        )
    };
    let second = format!(
        "command second {{ run = [\"sh\", \"-c\", \"{wait}; cat {{inputs.x}} > y\"], inputs = {{ x = first.x }}, outputs = {{ y = {{ kind = file, path = \"y\" }} }} }}\ncommand third {{ run = [\"sh\", \"-c\", \"cat {{inputs.x}} {{inputs.y}}\"], inputs = {{ x = first.x, y = second.y }} }}\n"
    );
    test.write("a.exp", text(""));
    test.harness(&["run", "a.exp"]).code(0);
    test.harness(&["run", "a.exp", "-p", "word=b"]).code(0);
    // Another file takes the old result from the cache and goes on with it.
    test.write("b.exp", text(&second));
    let mut run = test.start(&["run", "b.exp", "--json"]);
    wait_until("the step", || began.exists());
    std::fs::remove_dir_all(test.path().join(".harness/runs")).unwrap();
    // Without any recorded run nothing is kept but by the process itself.
    let freed = json(&test.harness(&["cache", "gc", "--json"]).code(0))["freed"].clone();
    assert_eq!(
        (freed["keys"].as_u64(), freed["in_use"].as_u64(), freed["leased"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    test.write("go", "");
    let output = {
        use std::io::Read as _;
        let mut text = String::new();
        run.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(run.wait().unwrap().code(), Some(0), "{output}");
    assert!(output.lines().last().unwrap().contains("\"executed\":2,\"cached\":1,\"failed\":0"), "{output}");
    assert_eq!(std::fs::read_dir(test.path().join(".harness/using")).unwrap().count(), 0);
}

/// Puts the members of an archive through `change`, which gives each one's new bytes.
fn rewrite(from: &Path, to: &Path, mut change: impl FnMut(&str, Vec<u8>) -> Option<Vec<u8>>) {
    use std::io::Read as _;
    let mut out = tar::Builder::new(std::fs::File::create(to).unwrap());
    for entry in tar::Archive::new(std::fs::File::open(from).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let Some(bytes) = change(&name, bytes) else { continue };
        let mut header = entry.header().clone();
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    out.finish().unwrap();
}

#[test]
fn a_run_is_given_away_and_gone_on_with() {
    let test = project();
    test.harness(&["export", "a.exp", "run.tar"]).code(2).says(&["has not been run"]);
    test.harness(&["run", "a.exp"]).code(0);
    prints(test.harness(&["export", "a.exp", "run.tar"]).code(0), &["2 results, 4 blobs"]);
    let other = Test::new().file("a.exp", TEXT);
    std::fs::copy(test.path().join("run.tar"), other.path().join("run.tar")).unwrap();
    prints(other.harness(&["import", "run.tar"]).code(0), &["2 of 2 results new here"]);
    assert_eq!(other.harness(&["run", "a.exp", "--json"]).code(0).counts(), [0, 2, 0, 0]);
    prints(other.harness(&["log", "a.exp", "first"]).code(0), &["said"]);
    prints(other.harness(&["verify", "a.exp", "second"]).code(0), &["verified: the same"]);
    assert_eq!(json(&other.harness(&["history", "a.exp", "--json"]).code(0)).as_array().unwrap().len(), 2);
    // Once more changes nothing.
    prints(other.harness(&["import", "run.tar"]).code(0), &["0 of 2 results new here"]);
}

#[test]
fn an_archive_is_a_crate_that_describes_every_file_in_it() {
    let test = project();
    test.harness(&["run", "a.exp"]).code(0);
    test.harness(&["export", "latest", "run.tar"]).code(0);
    let mut names = Vec::new();
    let mut metadata = Value::Null;
    rewrite(&test.path().join("run.tar"), &test.path().join("copy.tar"), |name, bytes| {
        if name == "ro-crate-metadata.json" {
            metadata = serde_json::from_slice(&bytes).unwrap();
        } else {
            names.push(name.to_string());
        }
        Some(bytes)
    });
    let graph = metadata["@graph"].as_array().unwrap();
    let entity = |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap_or_else(|| panic!("no {id}"));
    assert_eq!(entity("ro-crate-metadata.json")["conformsTo"][0]["@id"], "https://w3id.org/ro/crate/1.1");
    let root = entity("./");
    let mut parts: Vec<&str> =
        root["hasPart"].as_array().unwrap().iter().map(|part| part["@id"].as_str().unwrap()).collect();
    parts.sort_unstable();
    names.sort_unstable();
    assert_eq!(parts, names);
    // Nothing points at what is not described.
    fn references<'a>(value: &'a Value, top: bool, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) if !top && map.len() == 1 && map.contains_key("@id") => into.extend(map["@id"].as_str()),
            Value::Object(map) => map.values().for_each(|inner| references(inner, false, into)),
            Value::Array(items) => items.iter().for_each(|inner| references(inner, false, into)),
            _ => {}
        }
    }
    let mut named = Vec::new();
    graph.iter().for_each(|entity| references(entity, true, &mut named));
    for name in named.into_iter().filter(|name| *name != "https://w3id.org/ro/crate/1.1") {
        entity(name);
    }
    assert_eq!(entity("#run")["actionStatus"], "http://schema.org/CompletedActionStatus");
    assert_eq!(entity("run/source.exp")["@type"][2], "ComputationalWorkflow");
}

#[test]
fn a_changed_archive_is_refused_and_nothing_of_it_counts() {
    let test = project();
    test.harness(&["run", "a.exp"]).code(0);
    test.harness(&["export", "a.exp", "run.tar"]).code(0);
    let other = Test::new().file("a.exp", TEXT);
    let archive = test.path().join("run.tar");
    let broken = other.path().join("broken.tar");
    rewrite(&archive, &broken, |name, bytes| {
        Some(if name.starts_with("blobs/") { [&bytes[..], b"x"].concat() } else { bytes })
    });
    other.harness(&["import", "broken.tar"]).code(1).says(&["was changed", "nothing of broken.tar"]);
    let key = std::cell::Cell::new(false);
    rewrite(&archive, &broken, |name, bytes| {
        let text = String::from_utf8_lossy(&bytes).replace("printf %s $WORD", "printf %s evil");
        if name.starts_with("records/") && text.as_bytes() != bytes {
            key.set(true);
            return Some(text.into_bytes());
        }
        Some(bytes)
    });
    assert!(key.get());
    other.harness(&["import", "broken.tar"]).code(1).says(&["is not the record of the key it names"]);
    rewrite(&archive, &broken, |name, bytes| (!name.starts_with("blobs/")).then_some(bytes));
    other.harness(&["import", "broken.tar"]).code(1).says(&["which is not in the archive"]);
    let records = |from: &str, to: &str| {
        rewrite(&archive, &broken, |name, bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Some(if name.starts_with("records/") { text.replacen(from, to, 1).into_bytes() } else { bytes })
        });
        other.harness(&["import", "broken.tar"]).code(1)
    };
    records("\"format\": 1", "\"format\": 99").says(&["has the format 99"]);
    records("\"size\": ", "\"size\": 1").says(&["which it has not"]);
    other.write("no.tar", "no archive at all");
    assert_ne!(other.harness(&["import", "no.tar"]).code, 0);
    assert_eq!(results(&other), 0);
    assert_eq!(other.harness(&["run", "a.exp", "--json"]).code(0).counts(), [2, 0, 0, 0]);
}

#[test]
fn numbers_are_a_tidy_table() {
    let test = Test::new().file(
        "a.exp",
        "replicate seed in [1, 2] {\n    command c { run = [\"sh\", \"-c\", \"echo '{\\\"v\\\": {seed}.5}' > metrics.json\"], metrics = [\"v\"] }\n}\n",
    );
    test.harness(&["export", "metrics", "a.exp"]).code(0).says(&["2 steps have no result"]);
    test.harness(&["run", "a.exp"]).code(0);
    let table = test.harness(&["export", "metrics", "a.exp", "--format", "csv"]).code(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("label,step,kind,metric,value,") && lines[0].ends_with(",axis.seed"), "{}", lines[0]);
    assert!(lines[1].starts_with("c[seed=1],c,command,v,1.5,") && lines[1].ends_with(",1"), "{}", lines[1]);
    let rows = json(&test.harness(&["export", "metrics", "a.exp", "--format", "json"]).code(0));
    assert_eq!((&rows[1]["value"], &rows[1]["axes"]["seed"]), (&Value::from(2.5), &Value::from("2")));
}

#[test]
fn shells_complete_steps_of_the_file_that_is_named() {
    let test = project();
    for (shell, word) in [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")] {
        prints(test.harness(&["completions", shell]).code(0), &[word, "COMPLETE"]);
    }
    let mut command = test.command(&["--", "harness", "why", "a.exp", "se"]);
    let output = command.env("COMPLETE", "fish").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().any(|line| line.starts_with("second")) && !said.contains("first"), "{said}");
    prints(test.harness(&["man", "pages"]).code(0), &["pages"]);
    assert!(
        std::fs::read_to_string(test.path().join("pages/harness-plan.1")).unwrap().contains("what a run would compute")
    );
}
