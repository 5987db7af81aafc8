//! Several ranks as real processes: what they learn, and what happens when one dies or hangs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness_datasets::hash::digest;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::model::{Architecture, Resnet, Stem};
use harness_protocol::{Artifact, FromWorker, Job, Location, LocationForm, Outcome};
use harness_views::{IndexMask, Picture, Stream, encode_png_index, encode_png_rgb};
use harness_worker::model::{Encoder, fcn, store};
use serde_json::{Value, json};

/// A folder with pictures, and jobs in it.
struct Bench {
    folder: tempfile::TempDir,
    data: Artifact,
    encoder: Artifact,
    inputs: BTreeMap<String, InputFiles>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        std::fs::create_dir(&pictures).unwrap();
        let entries = (0..48)
            .map(|index| {
                let mut stream = Stream::new(1, "test", "picture", 0, index, 0);
                let data = (0..20 * 20 * 3).map(|_| stream.below(256) as u8).collect();
                let bytes = encode_png_rgb(&Picture { width: 20, height: 20, data }).unwrap();
                // Classes in stripes; void below, in every third picture everywhere.
                let void = if index % 3 == 0 { 0 } else { 20 * index as usize / 2 };
                let class = |at: usize| if at < void { (at % 20 / 7) as u8 } else { 255 };
                let mask = IndexMask { width: 20, height: 20, data: (0..20 * 20).map(class).collect() };
                let write = |path: String, bytes: &[u8]| {
                    std::fs::write(pictures.join(&path), bytes).unwrap();
                    FileEntry { path, size: bytes.len() as u64, digest: digest(bytes) }
                };
                let file = write(format!("{index:02}.png"), &bytes);
                let mask = write(format!("{index:02}.mask.png"), &encode_png_index(&mask, None).unwrap());
                ImageEntry { file, mask: Some(Box::new(mask)), ..ImageEntry::default() }
            })
            .collect();
        let mask_classes = ["a", "b", "c"].map(String::from).to_vec();
        let manifest = ImageManifest { format: MANIFEST_FORMAT, mask_classes, entries, ..ImageManifest::default() };
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let file = folder.path().join("manifest.json");
        std::fs::write(&file, &bytes).unwrap();
        let location = Location { path: pictures, form: LocationForm::Folder, ..Location::default() };
        let data = Artifact { kind: "images".into(), digest: digest(&bytes) };
        let mut inputs = BTreeMap::from([(data.digest.clone(), InputFiles { file, data: Some(location) })]);
        let architecture = Architecture::Resnet18(Resnet { stem: Stem::Small, width: 0.125 });
        let bytes = Encoder::random(architecture, [0.5; 3], [0.25; 3], 1).unwrap().encode().unwrap();
        let file = folder.path().join("encoder.safetensors");
        std::fs::write(&file, &bytes).unwrap();
        let encoder = Artifact { kind: "encoder".into(), digest: digest(&bytes) };
        inputs.insert(encoder.digest.clone(), InputFiles { file, data: None });
        Self { folder, data, encoder, inputs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tiny pretraining on as many CPU ranks, written to a file.
    fn job(&self, name: &str, ranks: usize, kind: &str, epochs: u64) -> PathBuf {
        let params = json!({
            "data": { "$artifact": self.data },
            "encoder": { "resnet18": { "stem": "small", "width": 0.0625 } },
            "contrast": { "moco": { "queue": 64, "dim": 8 } },
            "views": { "two_crops": { "size": 16 } },
            "optimizer": { "sgd": { "lr": 0.03 } },
            "batch_norm": { "groups": 4 },
            "batch": 16,
            "epochs": epochs,
            "checkpoint": { "epochs": 1 },
            "seed": 3,
        });
        self.written(name, ranks, kind, params)
    }

    /// A finetuning with dropout.
    fn segment(&self, name: &str, ranks: usize, epochs: u64) -> PathBuf {
        let data = json!({ "$artifact": self.data });
        let params = json!({
            "encoder": { "$artifact": self.encoder }, "train": data, "test": data,
            "size": 20, "epochs": epochs, "batch": 16, "seed": 3,
            "head": { "deeplab": { "channels": 8, "rates": [1, 2], "dropout": 0.5 } },
            "optimizer": { "sgd": { "lr": 0.001 } }, "schedule": { "constant": {} }, "select": { "last": {} },
            "profile": "official", "every": 1,
        });
        self.written(
            name,
            ranks,
            "segment",
            (harness_protocol::steps::kind("segment").unwrap().resolve)(params).unwrap(),
        )
    }

    /// A job on as many CPU ranks, written to a file.
    fn written(&self, name: &str, ranks: usize, kind: &str, params: Value) -> PathBuf {
        let job = Job {
            id: 1,
            kind: kind.into(),
            version: harness_protocol::steps::kind(kind).unwrap().version,
            key: "k".repeat(64),
            label: name.into(),
            params,
            inputs: self.inputs.clone(),
            out_dir: self.path(name),
            work_dir: self.path("work"),
            device: "cpu".into(),
            peers: vec!["cpu".into(); ranks - 1],
            threads: 2,
        };
        let file = self.path(&format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(&job).unwrap()).unwrap();
        file
    }

    fn start(&self, job: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_harness-worker"))
            .arg("--job")
            .arg(job)
            .arg("--events")
            .arg(job.with_extension("events"))
            .env("HARNESS_RANK_TIMEOUT", "20")
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// What the worker said, the last message apart.
    fn end(&self, job: &Path, mut worker: Child) -> (Vec<Value>, FromWorker) {
        worker.wait().unwrap();
        let text = std::fs::read_to_string(job.with_extension("events")).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let last = serde_json::from_str(lines.pop().expect("a last message")).unwrap();
        (lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect(), last)
    }

    fn run(&self, job: &Path) -> (Vec<Value>, Outcome) {
        match self.end(job, self.start(job)) {
            (said, FromWorker::Finished { outcome, .. }) => (said, outcome),
            (_, other) => panic!("{other:?}"),
        }
    }

    fn failure(&self, job: &Path, worker: Child) -> String {
        match self.end(job, worker) {
            (_, FromWorker::Failed { message, .. }) => message,
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// Process number of a rank that a worker started, once it has learned an epoch.
fn rank_of(bench: &Bench, worker: &Child, job: &Path) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(120);
    let checkpoint = bench.path("work").join("checkpoint.safetensors");
    while !checkpoint.is_file() {
        assert!(
            Instant::now() < deadline,
            "no checkpoint: {:?}",
            std::fs::read_to_string(job.with_extension("events"))
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let children = format!("/proc/{0}/task/{0}/children", worker.id());
    let text = std::fs::read_to_string(children).unwrap();
    text.split_whitespace().next().expect("a rank").parse().unwrap()
}

fn signal(process: i32, signal: i32) {
    // SAFETY: plain numbers; the process is our grandchild.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

fn points(outcome: &Outcome) -> &[f64] {
    &outcome.series["loss"].y
}

#[test]
fn ranks_learn_as_one_process_and_a_checkpoint_serves_any_number_of_them() {
    let bench = Bench::new();
    let (_, one) = bench.run(&bench.job("one", 1, "pretrain", 3));
    std::fs::remove_dir_all(bench.path("work")).unwrap();
    let (said, two) = bench.run(&bench.job("two", 2, "pretrain", 3));
    assert_eq!((two.provenance.get("ranks"), one.provenance.get("ranks")), (Some(&json!(2)), None));
    assert!(two.metrics["device_hours"] > 0.0);
    for (a, b) in points(&one).iter().zip(points(&two)) {
        assert!((a - b).abs() < 1e-3 * a.abs(), "{:?} {:?}", points(&one), points(&two));
    }
    // One voice.
    let epochs = said.iter().filter(|message| message["type"] == "metric" && message["name"] == "loss").count();
    assert_eq!(epochs, 3);
    assert!(!bench.path("work").join("ranks").exists());
    // The same checkpoint, all epochs done, is read by four.
    let (said, four) = bench.run(&bench.job("four", 4, "pretrain", 3));
    assert!(said.iter().any(|message| message["text"].as_str().is_some_and(|text| text.starts_with("going on"))));
    assert_eq!(points(&two), points(&four));
}

#[test]
fn a_rank_that_dies_ends_the_step_and_the_next_run_goes_on() {
    let bench = Bench::new();
    let job = bench.job("two", 2, "pretrain", 400);
    let worker = bench.start(&job);
    signal(rank_of(&bench, &worker, &job), libc::SIGKILL);
    let message = bench.failure(&job, worker);
    assert!(message.starts_with("rank 1 of 2 (`cpu`) was ended by signal 9"), "{message}");
    assert!(message.contains("goes on from its checkpoint"), "{message}");
    let again = bench.job("again", 4, "pretrain", 400);
    let mut worker = bench.start(&again);
    std::thread::sleep(Duration::from_secs(3));
    signal(worker.id() as i32, libc::SIGKILL);
    worker.wait().unwrap();
    let said = std::fs::read_to_string(again.with_extension("events")).unwrap();
    assert!(said.contains("going on from epoch"), "{said}");
}

#[test]
fn a_rank_that_hangs_ends_the_step() {
    let bench = Bench::new();
    let job = bench.job("two", 2, "pretrain", 4000);
    let worker = bench.start(&job);
    let rank = rank_of(&bench, &worker, &job);
    signal(rank, libc::SIGSTOP);
    let message = bench.failure(&job, worker);
    assert!(message.contains("one hangs"), "{message}");
    // It was ended as well.
    let stat = std::fs::read_to_string(format!("/proc/{rank}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let bench = Bench::new();
    let job = bench.job("three", 3, "pretrain", 1);
    let message = bench.failure(&job, bench.start(&job));
    assert!(message.contains("3 devices cannot share 4 groups of batch norm"), "{message}");
    let job = bench.job("knn", 2, "knn", 1);
    let message = bench.failure(&job, bench.start(&job));
    assert!(
        message.contains("`knn` runs on one device, and the job has 2; several are for depth, pretrain, segment"),
        "{message}"
    );
}

/// Each rank is a process with a generator of its own, as it is outside of tests: what drops out is that of the whole batch.
#[test]
fn finetuning_ranks_learn_as_one_process_with_dropout() {
    let bench = Bench::new();
    let network = || {
        let (tensors, _) = store::read(&bench.path("work").join("checkpoint.safetensors")).unwrap();
        std::fs::remove_dir_all(bench.path("work")).unwrap();
        tensors
    };
    let (_, one) = bench.run(&bench.segment("one", 1, 1));
    let whole = network();
    for ranks in [2, 4] {
        let (said, made) = bench.run(&bench.segment("several", ranks, 1));
        assert_eq!(made.provenance["ranks"], ranks);
        assert_eq!(said.iter().filter(|message| message["name"] == "test_miou").count(), 1);
        let (ours, theirs) = (points(&made)[0], points(&one)[0]);
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{ours} {theirs}");
        // Three steps.
        for (name, tensor) in network().iter().filter(|(name, _)| name.starts_with("network/")) {
            let far = ((tensor - &whole[name]).abs().max() / whole[name].abs().max().clamp_min(1e-3)).double_value(&[]);
            assert!(far < 1e-5, "{name} of {ranks} ranks: {far}");
        }
    }
}

/// In both orders of memory.
#[test]
fn rows_drop_out_as_in_the_whole_batch() {
    let x = tch::Tensor::arange(6 * 4 * 5 * 5, (tch::Kind::Float, tch::Device::Cpu)).view([6, 4, 5, 5]) + 1.0;
    for x in [x.shallow_clone(), x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])] {
        tch::manual_seed(11);
        let whole = x.dropout(0.4, true);
        for rank in 0..3 {
            tch::manual_seed(11);
            assert!(fcn::dropped(&x.narrow(0, 2 * rank, 2), 0.4, rank as usize, 3).equal(&whole.narrow(
                0,
                2 * rank,
                2
            )));
        }
    }
}

/// Ranks wait for each other in every batch norm, and there they notice.
#[test]
fn a_rank_that_dies_ends_a_finetuning() {
    let bench = Bench::new();
    let job = bench.segment("two", 2, 400);
    let worker = bench.start(&job);
    signal(rank_of(&bench, &worker, &job), libc::SIGKILL);
    let message = bench.failure(&job, worker);
    assert!(message.starts_with("rank 1 of 2 (`cpu`) was ended by signal 9"), "{message}");
}
