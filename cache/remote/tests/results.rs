//! Results sent from one cache and fetched into another, through a folder and through a real S3 server on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harness_cache::{ActionKey, Cache, Digest, Output, Record};
use harness_remote::{Error, Fetched, Remote, Sent};
use serde_json::json;

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "not-a-secret";

fn cache(folder: &Path, name: &str) -> Cache {
    Cache::open(&folder.join(name)).unwrap()
}

/// A result of two outputs and a log; gives its key.
fn compute(cache: &Cache, number: u64, content: &[u8]) -> Digest {
    let mut record = Record::new(ActionKey::new("knn", 1, json!({ "number": number })));
    for (name, bytes) in [("first", content), ("second", &b"small"[..])] {
        let (digest, size) = cache.put_bytes(bytes).unwrap();
        let name = name.to_string();
        record.outputs.insert(name.clone(), Output { kind: "file".into(), digest, size, name });
    }
    record.metrics.insert("top1".into(), f64::NAN);
    record.log = Some(cache.put_bytes(format!("log {number}").as_bytes()).unwrap().0);
    cache.append(&record).unwrap();
    cache.commit().unwrap();
    record.digest
}

fn send(remote: &Remote, cache: &Cache, keys: &[Digest]) -> BTreeMap<Digest, Result<Sent, Error>> {
    let mut told = BTreeMap::new();
    remote.send(cache, keys, &|| false, &mut |key, result| drop(told.insert(key, result)));
    told
}

fn fetch(remote: &Remote, cache: &Cache, keys: &[Digest]) -> BTreeMap<Digest, Result<Fetched, Error>> {
    let _using = cache.using().unwrap();
    let mut told = BTreeMap::new();
    remote.fetch(cache, keys, &|| false, &mut |key, result| drop(told.insert(key, result)));
    told
}

fn fetch_one(remote: &Remote, cache: &Cache, key: Digest) -> Result<Fetched, Error> {
    fetch(remote, cache, &[key]).remove(&key).expect("an answer")
}

/// Every file below a folder, by its name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn object(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    files(folder).into_iter().find(|path| path.ends_with(&name)).expect("the object")
}

/// What every place must do.
fn serves(remote: &Remote) {
    let folder = tempfile::tempdir().unwrap();
    let (mine, yours) = (cache(folder.path(), "mine"), cache(folder.path(), "yours"));
    remote.greet().unwrap();
    // One that goes in several parts, of which the last is not full, and some that do not.
    let large: Vec<u8> = (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut keys = vec![compute(&mine, 0, &large)];
    keys.extend((1..60).map(|number| compute(&mine, number, format!("content {number}").as_bytes())));
    assert_eq!(fetch_one(remote, &yours, keys[0]).unwrap(), Fetched::Unknown);

    let sent = send(remote, &mine, &keys);
    assert_eq!(sent.len(), keys.len());
    for (key, result) in &sent {
        assert!(matches!(result, Ok(Sent::There(bytes)) if *bytes > 0), "{key}: {result:?}");
    }
    assert_eq!(remote.keys().unwrap().into_iter().collect::<Vec<_>>(), sent.into_keys().collect::<Vec<_>>());
    // Again: the files are there, only the record goes.
    assert!(matches!(send(remote, &mine, &keys[..1])[&keys[0]], Ok(Sent::There(bytes)) if bytes < 10_000));

    for (key, result) in fetch(remote, &yours, &keys) {
        assert!(matches!(result, Ok(Fetched::Here(bytes)) if bytes > 0), "{key}: {result:?}");
    }
    yours.commit().unwrap();
    for key in &keys {
        let (ours, theirs) = (mine.record(key).unwrap().unwrap(), yours.record(key).unwrap().unwrap());
        assert_eq!(ours.to_line().unwrap(), theirs.to_line().unwrap());
        for blob in ours.blobs() {
            assert_eq!(mine.read(&blob).unwrap(), yours.read(&blob).unwrap());
        }
    }
    assert!(yours.verify_all().unwrap().is_clean());
    // Nothing is fetched that is there.
    assert!(matches!(fetch_one(remote, &yours, keys[0]), Ok(Fetched::Here(bytes)) if bytes < 10_000));
}

#[test]
fn a_folder_serves_as_a_shared_cache() {
    let folder = tempfile::tempdir().unwrap();
    serves(&Remote::open(folder.path().to_str().unwrap()).unwrap());
    // And by its other name, with what is there.
    let remote = Remote::open(&format!("file://{}", folder.path().display())).unwrap();
    assert_eq!(remote.keys().unwrap().len(), 60);
}

/// A server process, and the environment that reaches it.
struct Server {
    process: Child,
    _folder: tempfile::TempDir,
    _environment: MutexGuard<'static, ()>,
}

/// Settings come from the environment, which tests of one process share.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

fn environment(port: &str, secret: &str) {
    let pairs = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    for (name, value) in pairs {
        // SAFETY: whoever reads or writes these here holds ENVIRONMENT, and nothing else of this process reads any.
        unsafe { std::env::set_var(name, value) };
    }
}

impl Server {
    fn start() -> Server {
        let guard = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lab")).unwrap();
        let here = std::env::current_exe().unwrap();
        let program = here.parent().unwrap().parent().unwrap().join("examples/s3_server");
        let mut process = Command::new(program)
            .arg(folder.path())
            .args([KEY, SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server, which `cargo test` builds");
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        environment(port.trim(), SECRET);
        Server { process, _folder: folder, _environment: guard }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_s3_server_serves_as_a_shared_cache() {
    let _server = Server::start();
    serves(&Remote::open("s3://lab/moco/study").unwrap());
}

#[test]
fn wrong_credentials_a_missing_bucket_and_no_server_each_say_what_to_do() {
    let mut server = Server::start();
    let said = |place: &str| Remote::open(place).unwrap().greet().unwrap_err();
    let missing = said("s3://elsewhere/moco");
    assert!(matches!(missing, Error::NoBucket { .. }), "{missing}");
    let endpoint = std::env::var("AWS_ENDPOINT").unwrap();
    let port = endpoint.rsplit(':').next().unwrap().to_string();
    environment(&port, "another");
    let denied = said("s3://lab/moco");
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    let text = denied.to_string();
    assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("another") && !text.contains('\n'), "{text}");
    environment(&port, SECRET);
    Remote::open("s3://lab/moco").unwrap().greet().unwrap();
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let gone = said("s3://lab/moco");
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
    assert!(gone.to_string().contains("s3://lab/moco"), "{gone}");
}

#[test]
fn what_is_not_what_it_should_be_never_enters_and_is_mended_by_the_next_who_sends() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("shared");
    std::fs::create_dir(&place).unwrap();
    let remote = Remote::open(place.to_str().unwrap()).unwrap();
    let mine = cache(folder.path(), "mine");
    let (one, two) = (compute(&mine, 1, b"the content of one"), compute(&mine, 2, b"the content of two"));
    send(&remote, &mine, &[one, two]);
    let blob = mine.record(&one).unwrap().unwrap().outputs["first"].digest;
    let other = mine.record(&two).unwrap().unwrap().outputs["first"].digest;
    let whole = std::fs::read(object(&place, &blob)).unwrap();

    let mut round = 0;
    let mut refused = |what: &str, damage: &dyn Fn()| {
        damage();
        round += 1;
        let yours = cache(folder.path(), &format!("yours-{round}"));
        let found = fetch_one(&remote, &yours, one).unwrap();
        assert!(matches!(&found, Fetched::Damaged(text) if text.contains(what)), "{what}: {found:?}");
        assert_eq!(yours.record(&one).unwrap(), None);
        assert_eq!(yours.blob(&blob).unwrap(), None);
        // Who has it whole sends it again, although there is one of that name and perhaps of that size.
        assert!(matches!(send(&remote, &mine, &[one])[&one], Ok(Sent::There(_))));
        assert_eq!(std::fs::read(object(&place, &blob)).unwrap(), whole);
        assert!(matches!(fetch_one(&remote, &yours, one), Ok(Fetched::Here(_))));
        assert!(yours.record(&one).unwrap().is_some());
    };
    let replace = |digest: &Digest, bytes: &[u8]| {
        let path = object(&place, digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    refused("17 bytes, not 18", &|| replace(&blob, &whole[1..]));
    refused("does not have the digest", &|| replace(&blob, b"THE content of one"));
    refused("does not have the digest", &|| replace(&blob, &std::fs::read(object(&place, &other)).unwrap()));
    refused("missing", &|| std::fs::remove_file(object(&place, &blob)).unwrap());
    let line = std::fs::read(object(&place, &one)).unwrap();
    refused("not a record", &|| replace(&one, &line[..line.len() / 2]));
    refused("not a record", &|| replace(&one, b""));
    refused("another key", &|| replace(&one, &std::fs::read(object(&place, &two)).unwrap()));
    let altered = String::from_utf8(line.clone()).unwrap().replace("\"size\":18", "\"size\":19");
    refused("checksum", &|| replace(&one, altered.as_bytes()));
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("shared");
    std::fs::create_dir(&place).unwrap();
    let remote = Remote::open(place.to_str().unwrap()).unwrap();
    let mine = cache(folder.path(), "mine");
    let key = compute(&mine, 1, b"the content");
    let blob = mine.record(&key).unwrap().unwrap().outputs["first"].digest;
    let path = mine.blob(&blob).unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"THE content").unwrap();
    let result = send(&remote, &mine, &[key]).remove(&key).unwrap();
    assert!(matches!(result, Err(Error::NotWhole { .. })), "{result:?}");
    assert!(remote.keys().unwrap().is_empty());
    let unknown = Digest::of_bytes(b"no key");
    assert!(matches!(send(&remote, &mine, &[unknown])[&unknown], Ok(Sent::Gone)));
}

#[test]
fn a_stop_keeps_what_came_and_going_on_fetches_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("shared");
    std::fs::create_dir(&place).unwrap();
    let remote = Remote::open(place.to_str().unwrap()).unwrap();
    let (mine, yours) = (cache(folder.path(), "mine"), cache(folder.path(), "yours"));
    let keys: Vec<Digest> = (0..200).map(|number| compute(&mine, number, &[number as u8; 100])).collect();
    send(&remote, &mine, &keys);
    let stop = AtomicBool::new(false);
    let mut came = 0;
    {
        let _using = yours.using().unwrap();
        remote.fetch(&yours, &keys, &|| stop.load(Ordering::Relaxed), &mut |_, result| {
            came += usize::from(matches!(result, Ok(Fetched::Here(_))));
            stop.store(came >= 20, Ordering::Relaxed);
        });
    }
    assert_eq!(came, 20);
    let had = keys.iter().filter(|key| yours.record(key).unwrap().is_some()).count();
    assert!((20..200).contains(&had), "{had}");
    assert!(fetch(&remote, &yours, &keys).into_values().all(|result| matches!(result, Ok(Fetched::Here(_)))));
    assert!(yours.verify_all().unwrap().is_clean());
}
