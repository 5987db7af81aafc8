//! Two people with caches of their own and one shared cache: what one has computed the other does not.

use harness_tests::{Ran, Test, binary};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "not-a-secret";

const TEXT: &str = r#"
image_folder photos { path = "photos" }
filter cats { data = photos, classes = ["cat"] }
scenes world { train = 12, test = 6, size = 32, classes = 2, videos = 1, frames = 3, video_size = 32 }
command first { run = ["sh", "-c", "cat inputs/data > out; printf '{\"n\": 3}' > metrics.json"], files = { data = "data.txt" }, outputs = { text = { kind = file, path = "out" } }, metrics = ["n"] }
replicate seed in [1, 2, 3] {
    command second { run = ["sh", "-c", "cat {inputs.text} > both; echo {seed} >> both; echo '{\"v\": {seed}.5}' > metrics.json"], inputs = { text = first.text, cats = cats, world = world.train }, outputs = { text = { kind = file, path = "both" } }, metrics = ["v"] }
}
"#;

fn person() -> Test {
    let test = Test::new().file("a.exp", TEXT).file("data.txt", "A");
    let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8 * 20, y as u8 * 20, 7]));
    for (name, level) in [("cat/1.png", 1), ("cat/2.png", 2), ("dog/1.png", 3)] {
        let mut one = picture.clone();
        one.put_pixel(0, 0, image::Rgb([level, 0, 0]));
        let path = test.path().join("photos").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        one.save(path).unwrap();
    }
    test
}

/// Runs with these settings beside those of every test.
fn with(test: &Test, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let output = test.command(arguments).envs(settings.iter().copied()).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

/// Steps that were computed, of those that are not looked at in files of the user's.
fn computed(ran: &Ran) -> Vec<String> {
    let events = ran.events();
    let finished = events.iter().filter(|event| event["event"] == "step_finished" && event["status"] == "executed");
    let label = |event: &Value| event["label"].as_str().unwrap().to_string();
    finished.map(label).filter(|label| label != "photos").collect()
}

fn shared(ran: &Ran) -> Value {
    let events = ran.events();
    events.into_iter().rfind(|event| event["event"] == "shared").expect("something of the shared cache")
}

fn objects(folder: &Path, kind: &str) -> Vec<PathBuf> {
    objects_of(&folder.join("harness-1").join(kind))
}

fn objects_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        found.extend(std::fs::read_dir(entry.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    found
}

fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The server of the `harness-remote` crate's tests.
struct Server {
    process: Child,
    settings: Vec<(&'static str, String)>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lab")).unwrap();
        let program = binary("harness").parent().unwrap().join("examples/s3_server");
        let mut process = Command::new(program)
            .arg(folder.path())
            .args([KEY, SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server, which `cargo test --workspace` builds");
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let settings = vec![
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", port.trim())),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("HARNESS_REMOTE", "s3://lab/moco".into()),
        ];
        Self { process, settings, _folder: folder }
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first computes and sends, the second fetches and computes nothing.
fn two_people(settings: &[(&str, &str)]) {
    let (one, two) = (person(), person());
    let first = with(&one, settings, &["run", "a.exp", "--json"]).code(0);
    assert_eq!(computed(&first).len(), 6, "{}", first.stdout);
    let told = shared(&first);
    assert_eq!((&told["fetched"], &told["sent"], &told["kept"]), (&0.into(), &6.into(), &0.into()), "{told}");
    let second = with(&two, settings, &["run", "a.exp", "--json"]).code(0);
    assert_eq!(computed(&second), [""; 0], "{}", second.stdout);
    let told = shared(&second);
    assert_eq!((&told["fetched"], &told["sent"]), (&6.into(), &0.into()), "{told}");
    for label in ["first", "second[seed=1]", "second[seed=3]", "world", "cats"] {
        assert_eq!(second.status(label), "cached");
    }
    // And then as if it had computed them: nothing is asked of anybody.
    let again = with(&two, settings, &["run", "a.exp", "--json"]).code(0);
    assert_eq!(again.counts()[0], 0);
    assert!(again.events().iter().all(|event| event["event"] != "shared"));
    two.harness(&["cache", "verify"]).code(0);
}

#[test]
fn the_second_computes_nothing_that_the_first_has_through_a_folder() {
    let place = tempfile::tempdir().unwrap();
    two_people(&[("HARNESS_REMOTE", place.path().to_str().unwrap())]);
}

#[test]
fn the_second_computes_nothing_that_the_first_has_through_an_s3_server() {
    let server = Server::start();
    two_people(&server.settings());
}

#[test]
fn what_is_damaged_there_is_computed_here_said_and_mended() {
    let place = tempfile::tempdir().unwrap();
    let settings = [("HARNESS_REMOTE", place.path().to_str().unwrap())];
    let (one, two, three) = (person(), person(), person());
    with(&one, &settings, &["run", "a.exp"]).code(0);
    // A file cut off, and another in its place; a record of something else.
    let text: Vec<PathBuf> = objects(place.path(), "blobs")
        .into_iter()
        .filter(|path| matches!(std::fs::read(path).unwrap().as_slice(), b"A1\n" | b"A2\n"))
        .collect();
    assert_eq!(text.len(), 2);
    replace(&text[0], b"A");
    replace(&text[1], b"B0\n");
    let second = with(&two, &settings, &["run", "a.exp", "--json"]).code(0);
    let mut again = computed(&second);
    again.sort();
    assert_eq!(again, ["second[seed=1]", "second[seed=2]"]);
    let problems: Vec<String> = second
        .events()
        .iter()
        .filter(|event| event["event"] == "shared")
        .flat_map(|event| event["problems"].as_array().unwrap().clone())
        .map(|problem| problem.as_str().unwrap().to_string())
        .collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("1 bytes, not 3")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("does not have the digest")), "{problems:?}");
    let third = with(&three, &settings, &["run", "a.exp", "--json"]).code(0);
    assert_eq!(computed(&third), [""; 0]);
}

#[test]
fn without_it_a_run_says_so_once_and_goes_on_and_push_and_pull_make_up_for_it() {
    let mut server = Server::start();
    let endpoint = server.settings[3].1.clone();
    let (one, two) = (person(), person());
    // Wrong credentials: everything is computed, nothing is lost, and what to do is said.
    let mut wrong = server.settings();
    wrong[1].1 = "another";
    let ran = with(&one, &wrong, &["run", "a.exp"]).code(0);
    assert_eq!(ran.stderr.matches("going on without it").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("AWS_SECRET_ACCESS_KEY") && !ran.stderr.contains("another"), "{}", ran.stderr);
    with(&one, &wrong, &["cache", "push"]).code(2).says(&["AWS_SECRET_ACCESS_KEY"]);
    // Asked to leave it alone, it is.
    let ran = with(&person(), &wrong, &["run", "a.exp", "--offline"]).code(0);
    assert!(!ran.stderr.contains("shared cache"), "{}", ran.stderr);

    let counted = |ran: &Ran| serde_json::from_str::<Value>(&ran.stdout).unwrap();
    let dry = counted(&with(&one, &server.settings(), &["cache", "push", "--dry-run", "--json"]).code(0));
    let pushed = counted(&with(&one, &server.settings(), &["cache", "push", "--json"]).code(0));
    assert_eq!((&dry["lacking"], &dry["done"]), (&pushed["done"], &0.into()), "{dry} {pushed}");
    let nothing = counted(&with(&one, &server.settings(), &["cache", "push", "--json"]).code(0));
    assert_eq!((&nothing["lacking"], &nothing["there"]), (&0.into(), &pushed["done"]));
    let pulled = counted(&with(&two, &server.settings(), &["cache", "pull", "a.exp", "--json"]).code(0));
    assert_eq!((&pulled["fetched"], &pulled["known"], &pulled["steps"]), (&6.into(), &7.into(), &7.into()), "{pulled}");
    let all = counted(&with(&two, &server.settings(), &["cache", "pull", "--json"]).code(0));
    assert_eq!(all["done"].as_u64().unwrap() + all["there"].as_u64().unwrap(), pushed["done"].as_u64().unwrap());

    // Now there is no server at all.
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let offline = with(&two, &server.settings(), &["run", "a.exp", "--json"]).code(0);
    assert_eq!(computed(&offline), [""; 0]);
    two.write("data.txt", "B");
    let offline = with(&two, &server.settings(), &["run", "a.exp"]).code(0);
    assert_eq!(offline.stderr.matches("cannot be reached").count(), 1, "{}", offline.stderr);
    assert!(offline.stderr.contains("s3://lab/moco"), "{}", offline.stderr);
    with(&two, &server.settings(), &["cache", "pull"]).code(2).says(&["cannot be reached"]);
    assert!(endpoint.starts_with("http://127.0.0.1:"));
}

#[test]
fn a_push_mends_what_was_lost_there_and_a_lost_log_stops_nothing() {
    let place = tempfile::tempdir().unwrap();
    let settings = [("HARNESS_REMOTE", place.path().to_str().unwrap())];
    let (one, two) = (person(), person());
    with(&one, &settings, &["run", "a.exp"]).code(0);
    let push = |more: &[&str]| -> Value {
        let ran = with(&one, &settings, &[&["cache", "push", "--json"], more].concat()).code(0);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    // Descriptions of one's own data are not sent by a run, but by a push.
    push(&[]);
    let found = |text: &[u8]| {
        let path = objects(place.path(), "blobs").into_iter().find(|path| std::fs::read(path).unwrap() == text);
        path.unwrap_or_else(|| panic!("{} is not there", String::from_utf8_lossy(text)))
    };
    // One is gone, one cut off, and one has other bytes of the same number.
    std::fs::remove_file(found(b"A1\n")).unwrap();
    replace(&found(b"A2\n"), b"A");
    replace(&found(b"A3\n"), b"B3\n");
    let first = push(&[]);
    assert_eq!((&first["lacking"], &first["done"], &first["damaged"]), (&2.into(), &2.into(), &2.into()), "{first}");
    let second = push(&["--verify"]);
    assert_eq!(
        (&second["lacking"], &second["done"], &second["damaged"]),
        (&1.into(), &1.into(), &1.into()),
        "{second}"
    );
    let nothing = push(&["--verify"]);
    assert_eq!((&nothing["lacking"], &nothing["failed"]), (&0.into(), &serde_json::json!({})), "{nothing}");
    for text in [&b"A1\n"[..], b"A2\n", b"A3\n"] {
        found(text);
    }

    // What steps printed is lost here, and then there.
    let home = one.path().join(".harness");
    let logs: std::collections::BTreeSet<PathBuf> = objects_of(&home.join("records"))
        .iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let digest = line["record"]["log"].as_str()?.to_string();
            Some(Path::new("blobs").join(&digest[..2]).join(digest))
        })
        .collect();
    assert!(!logs.is_empty());
    logs.iter().for_each(|log| std::fs::remove_file(home.join(log)).unwrap());
    assert_eq!(push(&[])["failed"], serde_json::json!({}));
    let other = tempfile::tempdir().unwrap();
    let to = ["cache", "push", "--remote", other.path().to_str().unwrap(), "--json"];
    let sent: Value = serde_json::from_str(&with(&one, &[], &to).code(0).stdout).unwrap();
    assert_eq!((&sent["failed"], &sent["done"]), (&serde_json::json!({}), &sent["lacking"]), "{sent}");
    one.harness(&["export", "a.exp", "run.tar"]).code(0);
    logs.iter().for_each(|log| std::fs::remove_file(place.path().join("harness-1").join(log)).unwrap());
    assert_eq!(computed(&with(&two, &settings, &["run", "a.exp", "--json"]).code(0)), [""; 0]);
}

#[test]
fn the_place_is_settled_and_wrong_ones_are_refused_before_anything_runs() {
    let test = person();
    test.write("harness.toml", "remote = { place = \"there\", send = false }\n");
    test.harness(&["run", "a.exp"]).code(2).says(&["there", "is not there", "mounted"]);
    std::fs::create_dir(test.path().join("there")).unwrap();
    test.harness(&["run", "a.exp"]).code(0);
    assert!(!test.path().join("there/harness-1").exists(), "nothing was to be sent");
    test.write("harness.toml", "remote = 5\n");
    test.harness(&["run", "a.exp"]).code(2).says(&["`remote` is a place", "s3://bucket/prefix"]);
    test.write("harness.toml", "");
    test.harness(&["cache", "push"]).code(2).says(&["no shared cache is named", "HARNESS_REMOTE"]);
    let secret = [("HARNESS_REMOTE", "s3://me:topsecret@lab/moco")];
    let ran = with(&test, &secret, &["cache", "push"]).code(2).says(&["environment"]);
    assert!(!ran.stderr.contains("topsecret"));
    with(&test, &[("HARNESS_REMOTE", "off")], &["run", "a.exp"]).code(0);
}
