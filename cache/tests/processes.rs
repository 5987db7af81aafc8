//! Several processes over one cache: leases, appends, death.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use harness_cache::{ActionKey, Cache, Digest, Record};
use serde_json::json;
use tempfile::tempdir;

const RECORDS: u64 = 20;

fn key() -> ActionKey {
    ActionKey::new("knn", 1, json!({"k": 20}))
}

/// What the other process does; run by the tests below through this same binary.
#[test]
#[ignore = "the other process of the tests in this file"]
fn other_process() {
    let cache = Cache::open(env::var_os("CACHE_UNDER_TEST").unwrap().as_ref()).unwrap();
    let key = key();
    match env::var("ROLE").unwrap().as_str() {
        "hold" => {
            let _lease = cache.lease(&key.digest()).unwrap().unwrap();
            eprintln!("holding");
            loop {
                std::thread::park();
            }
        }
        "compute" => {
            let _lease = cache.wait_lease(&key.digest(), &mut || true).unwrap().unwrap();
            if cache.record(&key.digest()).unwrap().is_none() {
                let mut record = Record::new(key);
                record.log = Some(cache.put_bytes(format!("{}", std::process::id()).as_bytes()).unwrap().0);
                cache.append(&record).unwrap();
            }
        }
        "append" => {
            for number in 0..RECORDS {
                let mut record = Record::new(key.clone());
                record.finished_unix_ms = number;
                // Long enough that a write in several pieces would show.
                record.provenance = json!({"by": std::process::id(), "text": "x".repeat(20_000)});
                cache.append(&record).unwrap();
            }
        }
        other => panic!("no such role: {other}"),
    }
    assert_eq!(cache.notices(), [""; 0]);
}

fn start(role: &str, cache: &Cache) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "other_process", "--ignored", "--nocapture"])
        .env("ROLE", role)
        .env("CACHE_UNDER_TEST", cache.dir())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn an_action_is_computed_once() {
    let folder = tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let children: Vec<_> = (0..4).map(|_| start("compute", &cache)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(cache.history(&key().digest()).unwrap().len(), 1);
    assert_eq!(cache.stat().unwrap().blobs, 1);
}

#[test]
fn appends_of_several_processes_all_arrive() {
    let folder = tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let mut children: Vec<_> = (0..3).map(|_| start("append", &cache)).collect();
    // Read while they write: every answer is a whole record, and none goes away again.
    let mut seen = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        let now = cache.history(&key().digest()).unwrap().len();
        assert!(now >= seen);
        seen = now;
        cache.record(&key().digest()).unwrap();
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let history = cache.history(&key().digest()).unwrap();
    let by: BTreeSet<_> = history.iter().filter_map(|record| record.provenance["by"].as_u64()).collect();
    assert_eq!((history.len(), by.len()), (3 * RECORDS as usize, 3));
    for writer in by {
        // Each process's records are in its order.
        let own = history.iter().filter(|record| record.provenance["by"] == writer);
        assert!(own.map(|record| record.finished_unix_ms).eq(0..RECORDS));
    }
    assert_eq!(cache.record(&key().digest()).unwrap().as_ref(), history.last());
    assert_eq!(cache.notices(), [""; 0]);
}

#[test]
fn death_releases_a_lease() {
    let folder = tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let key = key().digest();
    let mut child = start("hold", &cache);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holding")));
    assert!(cache.lease(&key).unwrap().is_none());
    let holder = cache.holder(&key).unwrap().unwrap();
    assert!(holder.contains(&format!("process {} on", child.id())), "{holder}");
    let mut looks = 0;
    let waited = cache.wait_lease(&key, &mut || {
        looks += 1;
        looks < 3
    });
    assert!(waited.unwrap().is_none());
    assert_eq!(looks, 3);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(cache.holder(&key).unwrap(), None);
    let lease = cache.lease(&key).unwrap().unwrap();
    assert_eq!(lease.key(), &key);
    assert!(cache.lease(&key).unwrap().is_none());
    assert!(cache.lease(&Digest::of_bytes(b"other")).unwrap().is_some());
    drop(lease);
    assert!(cache.lease(&key).unwrap().is_some());
}
