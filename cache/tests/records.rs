//! Record logs, the index over them, verification and collection.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use harness_cache::{ActionKey, Cache, Digest, Error, Output, Record, Series};
use serde_json::json;
use tempfile::{TempDir, tempdir};

fn cache() -> (TempDir, Cache) {
    let folder = tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache")).unwrap();
    (folder, cache)
}

/// A record with something in every field.
fn record(k: u32, accuracy: f64) -> Record {
    let mut record = Record::new(ActionKey::new("knn", 1, json!({"k": k, "t": 0.07})));
    record.metrics.insert("accuracy".into(), accuracy);
    let curve = Series { x: vec![1.0, 2.0], y: vec![0.1, f64::INFINITY], x_label: "epoch".into() };
    record.series.insert("loss".into(), curve);
    record.observed.insert("every".into(), json!(10));
    record.provenance = json!({"device": "cpu", "threads": 2});
    record.finished_unix_ms = 1_700_000_000_000;
    record.duration_s = 1.5;
    record
}

fn with_output(cache: &Cache, mut record: Record, bytes: &[u8]) -> Record {
    let (digest, size) = cache.put_bytes(bytes).unwrap();
    let output = Output { kind: "features".into(), digest, size, name: "features.safetensors".into() };
    record.outputs.insert("features".into(), output);
    record
}

fn log_of(cache: &Cache, key: &Digest) -> PathBuf {
    let name = key.to_string();
    cache.dir().join("records").join(&name[..2]).join(format!("{name}.jsonl"))
}

#[test]
fn the_newest_wins_and_history_has_all() {
    let (_folder, cache) = cache();
    let (first, second) = (record(20, 0.1 + 0.2), record(20, 0.4));
    assert_eq!(cache.record(&first.digest).unwrap(), None);
    assert_eq!(cache.history(&first.digest).unwrap(), []);
    cache.append(&first).unwrap();
    assert_eq!(cache.record(&first.digest).unwrap().as_ref(), Some(&first));
    cache.append(&second).unwrap();
    assert_eq!(cache.record(&first.digest).unwrap().as_ref(), Some(&second));
    assert_eq!(cache.history(&first.digest).unwrap(), [first.clone(), second]);
    assert_eq!(cache.record(&record(21, 0.0).digest).unwrap(), None);
    let mut foreign = first;
    foreign.digest = Digest::of_bytes(b"other");
    assert!(matches!(cache.append(&foreign), Err(Error::ForeignDigest { .. })));
    assert_eq!(cache.notices(), [""; 0]);
}

#[test]
fn damaged_lines_are_passed_over() {
    let (_folder, cache) = cache();
    let (first, second) = (record(20, 0.25), record(20, 0.75));
    cache.append(&first).unwrap();
    cache.append(&second).unwrap();
    let path = log_of(&cache, &first.digest);
    let text = fs::read_to_string(&path).unwrap();
    let other = {
        let (_folder, cache) = self::cache();
        cache.append(&record(5, 0.9)).unwrap();
        fs::read_to_string(log_of(&cache, &record(5, 0.0).digest)).unwrap()
    };
    // A changed number, a cut line, noise, and the record of another key.
    for damage in
        [text.replace("0.75", "0.85"), text[..text.len() - 9].into(), format!("{text}\u{0}x\n"), text.clone() + &other]
    {
        fs::write(&path, &damage).unwrap();
        let expected = if damage.starts_with(&text) { &second } else { &first };
        assert_eq!(cache.record(&first.digest).unwrap().as_ref(), Some(expected), "{damage}");
        let notices = cache.notices();
        assert!(notices.len() == 1 && notices[0].contains("line"), "{notices:?}");
    }
    fs::write(&path, text.replace("0.75", "0.85").replace("0.25", "0.35")).unwrap();
    assert_eq!(cache.record(&first.digest).unwrap(), None);
    assert_eq!(cache.notices().len(), 2);
}

#[test]
fn appending_after_a_torn_line_loses_nothing() {
    let (_folder, cache) = cache();
    let (first, second) = (record(20, 0.25), record(20, 0.75));
    cache.append(&first).unwrap();
    let path = log_of(&cache, &first.digest);
    File::options().append(true).open(&path).unwrap().write_all(br#"{"sha256":"ab"#).unwrap();
    cache.append(&second).unwrap();
    assert_eq!(cache.history(&first.digest).unwrap(), [first, second]);
}

#[test]
fn a_log_changed_by_others_is_read_again() {
    let (_folder, cache) = cache();
    let (first, second) = (record(20, 0.25), record(20, 0.75));
    cache.append(&first).unwrap();
    assert!(cache.stat().unwrap().has_index);
    let other = Cache::open(cache.dir()).unwrap();
    other.append(&second).unwrap();
    assert!(!other.stat().unwrap().has_index);
    assert_eq!(cache.record(&first.digest).unwrap(), Some(second));
    fs::remove_file(log_of(&cache, &first.digest)).unwrap();
    assert_eq!(cache.record(&first.digest).unwrap(), None);
}

#[test]
fn a_rebuilt_index_gives_equal_answers() {
    let (_folder, cache) = cache();
    let records: Vec<_> = (0..20).map(|k| with_output(&cache, record(k, f64::from(k)), &[k as u8])).collect();
    for record in &records {
        cache.append(record).unwrap();
    }
    let dir = cache.dir().to_owned();
    let answers =
        |cache: &Cache| -> Vec<_> { records.iter().map(|record| cache.record(&record.digest).unwrap()).collect() };
    let before = answers(&cache);
    assert_eq!(before, records.iter().cloned().map(Some).collect::<Vec<_>>());
    let stat = cache.rebuild_index().unwrap();
    assert_eq!((stat.blobs, stat.bytes, stat.keys, stat.records, stat.damaged), (20, 20, 20, 20, 0));
    assert_eq!(answers(&cache), before);
    drop(cache);
    fs::remove_dir_all(dir.join("index.sled")).unwrap();
    assert_eq!(answers(&Cache::open(&dir).unwrap()), before);
}

#[test]
fn verification_finds_what_is_wrong() {
    let (_folder, cache) = cache();
    let records: Vec<_> = (0..3).map(|k| with_output(&cache, record(k, 0.5), &[k as u8; 10])).collect();
    for record in &records {
        cache.append(record).unwrap();
    }
    let report = cache.verify_all().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.blobs, report.bytes, report.records), (3, 30, 3));

    let blob = |index: usize| cache.blob(&records[index].outputs["features"].digest).unwrap().unwrap();
    fs::set_permissions(blob(0), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(blob(0), b"corrupted!").unwrap();
    fs::remove_file(blob(1)).unwrap();
    File::options().append(true).open(log_of(&cache, &records[2].digest)).unwrap().write_all(b"noise\n").unwrap();
    let report = cache.verify_all().unwrap();
    assert_eq!(report.corrupt, [records[0].outputs["features"].digest]);
    let mut missing: Vec<_> = report.missing.iter().map(|missing| missing.key).collect();
    missing.sort();
    let mut expected = vec![records[0].digest, records[1].digest];
    expected.sort();
    assert_eq!(missing, expected);
    assert_eq!((report.damaged, report.blobs, report.records), (1, 1, 3));
    assert_eq!(cache.notices().len(), 4);
}

#[test]
fn collection_keeps_what_is_kept() {
    let (_folder, cache) = cache();
    let picture = cache.put_bytes(b"picture").unwrap().0;
    let list = serde_json::to_vec(&json!({"files": [{"sha256": picture}]})).unwrap();
    let kept = with_output(&cache, record(1, 0.5), &list);
    let mut going = with_output(&cache, record(2, 0.5), b"going");
    going.log = Some(cache.put_bytes(b"what it printed").unwrap().0);
    cache.append(&kept).unwrap();
    cache.append(&going).unwrap();
    cache.put_bytes(b"named by nobody").unwrap();
    fs::write(cache.work_dir(&kept.digest).unwrap().join("half"), b"1234").unwrap();
    fs::write(cache.work_dir(&going.digest).unwrap().join("half"), b"1234").unwrap();
    let keep = BTreeSet::from([kept.digest]);

    let foreseen = cache.gc(&keep, true).unwrap();
    assert!(cache.record(&going.digest).unwrap().is_some());
    assert_eq!(cache.stat().unwrap().blobs, 5);
    let freed = cache.gc(&keep, false).unwrap();
    assert_eq!(freed, foreseen);
    assert_eq!((freed.blobs, freed.keys, freed.work, freed.leased), (3, 1, 1, 0));
    assert_eq!(cache.record(&going.digest).unwrap(), None);
    assert_eq!(cache.record(&kept.digest).unwrap().as_ref(), Some(&kept));
    assert_eq!(cache.read(&picture).unwrap().unwrap(), b"picture");
    assert_eq!(cache.read(&kept.outputs["features"].digest).unwrap().unwrap(), list);
    assert!(cache.dir().join("work").join(kept.digest.to_string()).exists());
    assert!(!cache.dir().join("work").join(going.digest.to_string()).exists());
    assert!(cache.verify_all().unwrap().is_clean());
}

#[test]
fn collection_leaves_what_is_in_use() {
    let (_folder, cache) = cache();
    let [running, relied] = [(1, b"running".as_slice()), (2, b"relied on")].map(|(seed, bytes)| {
        let record = with_output(&cache, record(seed, 0.5), bytes);
        cache.append(&record).unwrap();
        record
    });
    let work = cache.work_dir(&running.digest).unwrap();
    let lease = cache.lease(&running.digest).unwrap().unwrap();
    let other = Cache::open(cache.dir()).unwrap();
    other.using().unwrap().keep(&relied.digest);
    fs::write(cache.dir().join("tmp/of-the-other"), b"half").unwrap();
    let freed = cache.gc(&BTreeSet::new(), false).unwrap();
    assert_eq!((freed.blobs, freed.keys, freed.work, freed.leased, freed.in_use), (0, 0, 0, 1, 1));
    assert!(work.exists() && cache.dir().join("tmp/of-the-other").exists());
    assert!(cache.record(&relied.digest).unwrap().is_some() && cache.verify_all().unwrap().is_clean());
    // What is relied on stays as long as whoever relies on it has the cache open.
    drop((lease, other));
    let freed = cache.gc(&BTreeSet::new(), false).unwrap();
    assert_eq!((freed.blobs, freed.keys, freed.work, freed.in_use), (2, 2, 1, 0));
    assert_eq!(fs::read_dir(cache.dir().join("using")).unwrap().count(), 0);
}

#[test]
fn collection_waits_for_what_is_being_stored() {
    let (_folder, cache) = cache();
    let other = Cache::open(cache.dir()).unwrap();
    let using = other.using().unwrap();
    let stored = with_output(&other, record(1, 0.5), b"its record is still to come");
    let collector = {
        let cache = cache.clone();
        std::thread::spawn(move || cache.gc(&BTreeSet::new(), false).unwrap())
    };
    std::thread::sleep(Duration::from_millis(100));
    assert!(!collector.is_finished() && cache.stat().unwrap().blobs == 1);
    other.append(&stored).unwrap();
    using.keep(&stored.digest);
    using.write().unwrap();
    drop(using);
    let freed = collector.join().unwrap();
    assert_eq!((freed.blobs, freed.keys, freed.in_use), (0, 0, 1));
    assert_eq!(cache.record(&stored.digest).unwrap(), Some(stored));
}

#[test]
fn leftovers_of_a_killed_process_do_no_harm() {
    let (_folder, cache) = cache();
    let leftover = cache.dir().join("tmp/.tmpKILLED");
    fs::write(&leftover, b"half a bl").unwrap();
    let hour = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&leftover).unwrap().set_modified(hour).unwrap();
    let (digest, _) = cache.put_bytes(b"half a blob").unwrap();
    assert_eq!(cache.read(&digest).unwrap().unwrap(), b"half a blob");
    assert_eq!(cache.stat().unwrap().blobs, 1);
    assert!(cache.verify_all().unwrap().is_clean());
    let ours = cache.temp_dir().unwrap();
    let freed = cache.gc(&BTreeSet::new(), false).unwrap();
    assert_eq!(freed.leftovers, 1);
    assert!(!leftover.exists() && ours.path().exists());
}
