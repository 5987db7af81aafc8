//! Harm for minutes: kills, damage, a full disk, I/O errors, eight processes on one cache. `make soak` runs it and
//! prints what was done and what was lost (0) or wrong (0). Not part of `make test`, whose kills.rs is the short form.
//!
//! HARNESS_SOAK_KILLS (1000), HARNESS_SOAK_SECONDS (60, for each phase that takes time) and HARNESS_SOAK_SEED (1)
//! change its length and course.

use harness_tests::trial::{Dice, STEPS, Trial, damage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Says what a phase did, and fails if anything was lost or wrong.
fn report(phase: &str, faults: &BTreeMap<&str, u64>, trial: &Trial, start: Instant) {
    let done: Vec<String> = faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!(
        "soak: {phase}: {}; results lost: {}, wrong: {}, odd: {} ({:.0} s)",
        done.join(", "),
        trial.lost.len(),
        trial.wrong.len(),
        trial.odd.len(),
        start.elapsed().as_secs_f64()
    );
    trial.is_fine();
}

/// A run that must end in order although its disk does not: with a result, or with an error in words.
fn ends_in_order(trial: &mut Trial, round: u64, environment: &[(&str, String)]) {
    let child = trial.start(round, environment);
    let ran = trial.note(round, child, &BTreeSet::new());
    if !matches!(ran.code, 0..=2) || (ran.code != 0 && ran.stderr.trim().is_empty()) {
        trial.odd.push(format!("round {round}: status {}: {}", ran.code, ran.stderr));
    }
}

#[test]
#[ignore = "takes minutes; `make soak`"]
fn soak() {
    kills_and_damage();
    full_disk();
    io_errors();
    many_processes();
}

/// Kills, and between them damage to blobs, records and the index.
fn kills_and_damage() {
    let start = Instant::now();
    let (mut trial, mut dice) = (Trial::new(), Dice::new(setting("HARNESS_SOAK_SEED", 1)));
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let first = Instant::now();
    trial.finish(0, &BTreeSet::new());
    let whole = first.elapsed().as_micros() as u64;
    let mut round = 1;
    for kill in 0..setting("HARNESS_SOAK_KILLS", 1000) {
        trial.kill(round, Duration::from_micros(dice.below(whole * 5 / 4)), &[]);
        *faults.entry("kills").or_default() += 1;
        if kill % 3 != 2 {
            continue;
        }
        trial.finish(round, &BTreeSet::new());
        // Rounds that were finished and found whole; of these anything may be damaged, and they come out right again.
        let folder = *dice.pick(&["blobs", "records", "index.sled", "tmp"]);
        let files = trial.files(folder);
        if !files.is_empty() {
            let file = dice.pick(&files).clone();
            damage(&file, &mut dice);
            *faults
                .entry(match folder {
                    "blobs" => "damaged blobs",
                    "records" => "damaged records",
                    "index.sled" => "damaged index files",
                    _ => "damaged temporary files",
                })
                .or_default() += 1;
        }
        if dice.below(20) == 0 {
            std::fs::remove_dir_all(trial.test.path().join(".harness/index.sled")).ok();
            *faults.entry("deleted indexes").or_default() += 1;
        }
        let old = dice.below(round + 1);
        for round in [old, round] {
            trial.finish(round, &trial.labels());
        }
        round += 1;
    }
    // Damaged results are computed again where somebody asks; then everything is there, and verifies.
    for round in 0..=round {
        trial.finish(round, &trial.labels());
        let again = trial.finish(round, &BTreeSet::new());
        if again.counts() != [0, STEPS, 0, 0] {
            trial.odd.push(format!("round {round} is not whole: {:?}", again.counts()));
        }
    }
    trial.test.harness(&["cache", "rebuild"]).code(0);
    report("kills and damage", &faults, &trial, start);
}

/// A file system of 64 MiB that fills up: mounted where that is permitted, else a limit on each file's size.
fn full_disk() {
    let start = Instant::now();
    let mut trial = Trial::new();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let cache = trial.test.path().join(".harness");
    std::fs::create_dir(&cache).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(&cache)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("soak: full disk: skipped, no file system may be mounted here");
        return;
    }
    let end = Instant::now() + Duration::from_secs(setting("HARNESS_SOAK_SECONDS", 60) / 2);
    let mut round = 0;
    while Instant::now() < end {
        // Fill all but a little, run into the wall, make room, go on.
        let stuffing = cache.join("stuffing");
        let free = free_bytes(&cache).saturating_sub(round * 7919 % 200_000);
        std::fs::write(&stuffing, vec![0; free as usize]).ok();
        ends_in_order(&mut trial, round, &[]);
        *faults.entry("runs on a full disk").or_default() += 1;
        std::fs::remove_file(&stuffing).ok();
        trial.finish(round, &BTreeSet::new());
        round += 1;
        if free_bytes(&cache) < 24_000_000 {
            make_room(&cache);
        }
        if free_bytes(&cache) < 12_000_000 {
            break;
        }
    }
    for round in 0..round {
        make_room(&cache);
        trial.finish(round, &BTreeSet::new());
    }
    let unmounted = Command::new("umount").arg("-l").arg(&cache).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    report("full disk", &faults, &trial, start);
}

/// What a user does: pages of runs that were looked at can go, results stay.
fn make_room(cache: &Path) {
    for folder in ["runs", "summaries"] {
        std::fs::remove_dir_all(cache.join(folder)).ok();
    }
}

fn free_bytes(path: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string with an end, and the struct is plain numbers that the call fills in.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(path.as_ptr(), &mut stat), 0);
        stat.f_bavail * stat.f_frsize
    }
}

/// Calls that write fail now and then, by a library loaded in front of libc.
fn io_errors() {
    let start = Instant::now();
    let mut trial = Trial::new();
    let library = trial.test.path().join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("soak/faults.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(built.is_ok_and(|status| status.success()), "{} does not compile", source.display());
    let log = trial.test.path().join("faults.log");
    let place = |path: &Path| path.to_string_lossy().into_owned();
    let end = Instant::now() + Duration::from_secs(setting("HARNESS_SOAK_SECONDS", 60));
    let mut round = 0;
    while Instant::now() < end {
        for attempt in 0..3 {
            let environment = [
                ("LD_PRELOAD", place(&library)),
                ("FAULTS_DIR", place(&trial.test.path().join(".harness"))),
                ("FAULTS_EVERY", if round % 2 == 0 { "300" } else { "60" }.to_string()),
                ("FAULTS_SEED", (round * 3 + attempt + 1).to_string()),
                ("FAULTS_LOG", place(&log)),
            ];
            ends_in_order(&mut trial, round, &environment);
        }
        trial.finish(round, &BTreeSet::new());
        round += 1;
    }
    for round in 0..round {
        trial.finish(round, &BTreeSet::new());
    }
    trial.test.harness(&["cache", "verify"]).code(0);
    let injected = std::fs::metadata(&log).map(|metadata| metadata.len()).unwrap_or(0);
    assert!(injected > 0, "no fault was injected");
    report("I/O errors", &BTreeMap::from([("calls that failed", injected)]), &trial, start);
}

/// Eight processes on one cache: nothing is computed twice, and a killed one keeps nobody waiting.
fn many_processes() {
    let start = Instant::now();
    let (mut trial, mut dice) = (Trial::new(), Dice::new(setting("HARNESS_SOAK_SEED", 1) + 8));
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(setting("HARNESS_SOAK_SECONDS", 60));
    let mut round = 0;
    while Instant::now() < end {
        let mut children: Vec<_> = (0..8).map(|_| trial.start(round, &[])).collect();
        let killed = dice.below(3);
        for _ in 0..killed {
            std::thread::sleep(Duration::from_millis(dice.below(60)));
            let mut child = children.remove(dice.below(children.len() as u64) as usize);
            child.kill().unwrap();
            trial.note(round, child, &BTreeSet::new());
            *faults.entry("kills").or_default() += 1;
        }
        for child in children {
            let ran = trial.note(round, child, &BTreeSet::new());
            if ran.code != 0 {
                trial.odd.push(format!("round {round}: status {}: {}", ran.code, ran.stderr));
            }
            *faults.entry("runs side by side").or_default() += 1;
        }
        round += 1;
    }
    for round in 0..round {
        let again = trial.finish(round, &BTreeSet::new());
        if again.counts() != [0, STEPS, 0, 0] {
            trial.odd.push(format!("round {round} is not whole: {:?}", again.counts()));
        }
    }
    trial.test.harness(&["cache", "verify"]).code(0);
    report("eight processes", &faults, &trial, start);
}
