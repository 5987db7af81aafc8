//! Our half of `tests/bench/train_step.py`: does what each line of its input says and answers with seconds.
//!
//! `step N` takes N optimiser steps of MoCo on a ResNet-18 with 64 pictures of 96 × 96 and answers `WALL CPU`; `loop FOLDER
//! EPOCHS` pretrains on the JPEGs of a folder, from the check of every file to the encoder, and answers `WALL CPU`; `ranks N
//! FOLDER EPOCHS` does so on N ranks with two groups of batch norm.
//! The first argument is the number of threads.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use harness_datasets::hash::digest;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::model::{Architecture, Resnet};
use harness_protocol::optimise;
use harness_protocol::steps::pretrain::Moco as Settings;
use harness_protocol::{FromWorker, Job, Location, LocationForm};
use harness_worker::model::contrastive::{Moco, Sample, Turn};
use harness_worker::optim::Sgd;
use harness_worker::seed;
use serde_json::json;
use tch::Device;

const BATCH: i64 = 64;
const SIDE: i64 = 96;

/// Seconds of all threads of this process so far.
fn cpu() -> f64 {
    // SAFETY: an all-zero rusage is a valid one, and getrusage writes one to where it is told.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut used);
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

struct Step {
    moco: Moco,
    sgd: Sgd,
    sample: Sample,
}

impl Step {
    fn new() -> Self {
        let settings = Settings { queue: 4096, ..Settings::default() };
        let moco =
            Moco::new(&Architecture::Resnet18(Resnet::default()), &settings, 1, 0, Device::Cpu).expect("a network");
        let sgd =
            Sgd::new(moco.query.store.parameters(), &optimise::Sgd { lr: 0.03, momentum: 0.9, weight_decay: 1e-4 });
        // Channels last in memory, as batches are made of bytes.
        let draw = |name| seed::normal(0, "test", name, &[BATCH, SIDE, SIDE, 3], 1.0).permute([0, 3, 1, 2]);
        Self { moco, sgd, sample: Sample { query: draw("query"), key: draw("key"), small: None } }
    }

    fn run(&mut self, times: u64) {
        let order: Vec<i64> = (0..BATCH).collect();
        for _ in 0..times {
            let turn = Turn { lr: 0.03, shuffles: [&order, &order], neighbours: false };
            self.moco.learn(&self.sample, &mut self.sgd, turn).expect("a step");
        }
    }
}

/// Pretrains on all JPEGs of a folder.
fn pretrain(folder: &Path, epochs: u64, threads: u32, ranks: usize, groups: u64) {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let entries = names
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(folder.join(&path)).expect("a picture");
            let file = FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) };
            ImageEntry { file, label: None, mask: None, ..ImageEntry::default() }
        })
        .collect();
    let manifest = ImageManifest { format: MANIFEST_FORMAT, entries, ..ImageManifest::default() };
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    let work = tempfile::tempdir().expect("a folder");
    let (file, key) = (work.path().join("manifest.json"), digest(&bytes));
    std::fs::write(&file, &bytes).expect("the manifest");
    let data = Location { path: folder.to_path_buf(), form: LocationForm::Folder, ..Location::default() };
    let info = harness_protocol::steps::kind("pretrain").expect("the kind");
    let params = json!({
        "data": { "$artifact": { "kind": "images", "digest": key } }, "encoder": { "resnet18": {} },
        "epochs": epochs, "batch": BATCH, "batch_norm": { "groups": groups },
        "contrast": { "moco": { "queue": 4096 } }, "views": { "two_crops": { "size": SIDE } },
        "optimizer": { "sgd": { "lr": 0.03, "weight_decay": 1e-4 } },
    });
    let job = Job {
        id: 1,
        kind: "pretrain".into(),
        version: info.version,
        key: "bench".into(),
        label: "bench".into(),
        params: (info.resolve)(params).expect("parameters"),
        inputs: BTreeMap::from([(key, InputFiles { file, data: Some(data) })]),
        out_dir: work.path().join("out"),
        work_dir: work.path().join("work"),
        device: "cpu".into(),
        peers: vec!["cpu".into(); ranks - 1],
        threads,
    };
    let last = harness_worker::steps::run(&job, &|_| (), &AtomicU64::new(u64::MAX));
    assert!(matches!(last, FromWorker::Finished { .. }), "{last:?}");
}

fn main() {
    // A further rank of a job of ours: started as the worker starts its own.
    let words: Vec<String> = std::env::args().collect();
    if let [_, flag, rank, _, job] = words.as_slice()
        && flag == "--rank"
    {
        let rank = rank.parse().expect("a number");
        assert!(harness_worker::team::run_rank(rank, Path::new(job)).expect("a job"), "rank {rank} failed");
        return;
    }
    let threads: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    tch::set_num_interop_threads(1);
    tch::set_num_threads(threads as i32);
    let mut step = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, before) = (Instant::now(), cpu());
        match words.as_slice() {
            ["step", times] => step.get_or_insert_with(Step::new).run(times.parse().expect("a number")),
            ["loop", folder, epochs] => {
                pretrain(Path::new(folder), epochs.parse().expect("a number"), threads, 1, 1);
            }
            ["ranks", ranks, folder, epochs] => {
                let number = |text: &str| text.parse::<u64>().expect("a number");
                pretrain(Path::new(folder), number(epochs), threads, number(ranks) as usize, 2);
            }
            _ => panic!("`{line}` is no task"),
        }
        println!("{} {}", start.elapsed().as_secs_f64(), cpu() - before);
        std::io::stdout().flush().expect("an open pipe");
    }
}
