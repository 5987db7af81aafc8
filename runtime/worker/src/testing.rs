//! Tiny datasets and jobs for the tests of steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use harness_datasets::hash::digest;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::{Artifact, FromWorker, Job, Location, LocationForm, Outcome};
use harness_views::{Picture, Stream, encode_png_rgb};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Result;
use crate::team::Team;

/// A temporary folder with datasets, encoders and jobs in it.
pub struct Bench {
    folder: tempfile::TempDir,
    inputs: BTreeMap<String, InputFiles>,
}

/// How a job ended, and what it said before.
pub struct Ended {
    pub last: FromWorker,
    pub said: Vec<FromWorker>,
}

impl Ended {
    pub fn outcome(self) -> Outcome {
        match self.last {
            FromWorker::Finished { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub fn message(self) -> String {
        match self.last {
            FromWorker::Failed { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }
}

/// A noisy picture of some colour whose class shows in its pattern: stripes across, stripes down, or squares.
pub fn picture(class: u32, item: u64, side: usize) -> Picture {
    let mut stream = Stream::new(9, "test", "picture", u64::from(class), item, 0);
    let shift = stream.below(4) as usize;
    let pixel = |x: usize, y: usize| match class {
        0 => (x + shift) / 2 % 2,
        1 => (y + shift) / 2 % 2,
        _ => (x / 4 + y / 4 + shift) % 2,
    };
    let tint: [u64; 3] = [0; 3].map(|_| stream.below(120));
    let data = (0..side * side)
        .flat_map(|at| {
            let base = 70 * pixel(at % side, at / side) as u64;
            tint.map(|tint| (base + tint + stream.below(60)) as u8)
        })
        .collect();
    Picture { width: side, height: side, data }
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), inputs: BTreeMap::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a dataset of `count` labelled pictures; `edit` may break their bytes. The artifact as JSON.
    pub fn dataset(
        &mut self,
        name: &str,
        count: usize,
        classes: &[&str],
        edit: impl Fn(usize, Vec<u8>) -> Vec<u8>,
    ) -> Value {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        let seed = name.len() as u64 * 1000;
        let entries = (0..count)
            .map(|index| {
                let class = (index % classes.len()) as u32;
                let bytes = edit(index, encode_png_rgb(&picture(class, seed + index as u64, 16)).unwrap());
                let path = format!("{index:03}.png");
                std::fs::write(folder.join(&path), &bytes).unwrap();
                let file = FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) };
                ImageEntry { file, label: Some(class), ..ImageEntry::default() }
            })
            .collect();
        let classes = classes.iter().map(|class| class.to_string()).collect();
        let manifest = ImageManifest { format: MANIFEST_FORMAT, classes, entries, ..ImageManifest::default() };
        let data = Location { path: folder, form: LocationForm::Folder, ..Location::default() };
        self.input("labelled_images", &serde_json::to_vec(&manifest).unwrap(), Some(data))
    }

    /// Adds a dataset whose pictures have one answer for each class.
    pub fn multilabel(
        &mut self,
        name: &str,
        count: usize,
        classes: &[&str],
        answers: impl Fn(usize) -> Vec<i8>,
    ) -> Value {
        let plain = self.dataset(name, count, classes, |_, bytes| bytes);
        let digest = plain["$artifact"]["digest"].as_str().unwrap();
        let InputFiles { file, data } = self.inputs[digest].clone();
        let mut manifest: ImageManifest = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for (index, entry) in manifest.entries.iter_mut().enumerate() {
            (entry.label, entry.labels) = (None, answers(index));
        }
        self.input("multilabel_images", &serde_json::to_vec(&manifest).unwrap(), data)
    }

    /// Adds some of the pictures of a labelled dataset as one.
    pub fn some(&mut self, data: &Value, wanted: impl Fn(usize) -> bool) -> Value {
        let digest = data["$artifact"]["digest"].as_str().unwrap();
        let InputFiles { file, data } = self.inputs[digest].clone();
        let mut manifest: ImageManifest = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let entries = std::mem::take(&mut manifest.entries).into_iter().enumerate();
        manifest.entries = entries.filter(|(index, _)| wanted(*index)).map(|(_, entry)| entry).collect();
        self.input("labelled_images", &serde_json::to_vec(&manifest).unwrap(), data)
    }

    /// The manifest of a dataset of pictures.
    pub fn manifest(&self, data: &Value) -> ImageManifest {
        let file = &self.inputs[data["$artifact"]["digest"].as_str().unwrap()].file;
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// Adds a table of features.
    pub fn vectors(&mut self, values: &[f32], columns: usize) -> Value {
        let path = self.path("vectors.npy");
        let mut writer = crate::npy::Writer::new(&path, values.len() / columns, columns).unwrap();
        writer.rows(values).unwrap();
        writer.finish().unwrap();
        self.input("features", &std::fs::read(&path).unwrap(), None)
    }

    /// Adds any content. The artifact as JSON.
    pub fn input(&mut self, kind: &str, bytes: &[u8], data: Option<Location>) -> Value {
        let digest = digest(bytes);
        let file = self.path(&digest);
        std::fs::write(&file, bytes).unwrap();
        self.inputs.insert(digest.clone(), InputFiles { file, data });
        json!({ "$artifact": Artifact { kind: kind.into(), digest } })
    }

    /// Adds an encoder.
    pub fn encoder(&mut self, encoder: &crate::model::Encoder) -> Value {
        self.input("encoder", &encoder.encode().unwrap(), None)
    }

    /// A job that writes into the folder `name`.
    pub fn job(&self, name: &str, kind: &str, params: Value) -> Job {
        let info = harness_protocol::steps::kind(kind).unwrap();
        self.job_of(name, kind, (info.resolve)(params).unwrap())
    }

    /// A job with these parameters, whatever they are.
    pub fn job_of(&self, name: &str, kind: &str, params: Value) -> Job {
        let info = harness_protocol::steps::kind(kind).unwrap();
        Job {
            id: 1,
            kind: kind.into(),
            version: info.version,
            key: "k".into(),
            label: name.into(),
            params,
            inputs: self.inputs.clone(),
            out_dir: self.path(&format!("{name}.out")),
            work_dir: self.path(&format!("{name}.work")),
            device: "cpu".into(),
            peers: Vec::new(),
            threads: 1,
        }
    }

    /// Runs a job; it is cancelled when `stop` says so of a message.
    pub fn run_until(&self, job: &Job, stop: impl Fn(&FromWorker) -> bool + Sync) -> Ended {
        let (said, cancelled) = (Mutex::new(Vec::new()), AtomicU64::new(u64::MAX));
        let last = crate::steps::run(
            job,
            &|message| {
                if stop(&message) {
                    cancelled.store(job.id, Ordering::Relaxed);
                }
                said.lock().unwrap().push(message);
            },
            &cancelled,
        );
        Ended { last, said: said.into_inner().unwrap() }
    }

    /// Runs a job to its end.
    pub fn run(&self, job: &Job) -> Ended {
        self.run_until(job, |_| false)
    }

    /// Runs a job on as many ranks, threads of this process, whose libtorch draws for all of them: nothing may drop out.
    /// Rank 0 is asked to stop when `stop` says so of a message.
    pub fn ranks(&self, job: &Job, size: usize, stop: impl Fn(&FromWorker) -> bool + Sync) -> Vec<Result<Outcome>> {
        let job = Job { peers: vec!["cpu".into(); size - 1], ..job.clone() };
        let ranks = job.work_dir.join("ranks");
        let _ = std::fs::remove_dir_all(&ranks);
        [&job.out_dir, &ranks].into_iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        let run = crate::steps::ALL.iter().find(|run| run.kind == job.kind).unwrap();
        let cancelled = AtomicU64::new(u64::MAX);
        crate::group::tests::together(size, |group| {
            let never = AtomicU64::new(u64::MAX);
            let asked = if group.rank() == 0 { &cancelled } else { &never };
            let sink = |message: FromWorker| {
                if stop(&message) {
                    cancelled.store(job.id, Ordering::Relaxed);
                }
            };
            let context = Context::new(&job, &sink, asked)?.with_team(Team::of(group, &ranks))?;
            (run.run)(&context)
        })
    }

    /// How far the networks of two jobs' checkpoints are apart at most, as a share of the largest value of a tensor, and
    /// in which.
    pub fn apart(&self, a: &Job, b: &Job) -> (f64, String) {
        let read = |job: &Job| crate::model::store::read(&job.work_dir.join("checkpoint.safetensors")).unwrap().0;
        let (a, b) = (read(a), read(b));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        let far = |(name, one): (&String, &tch::Tensor)| {
            let (one, other) = (one.to_kind(tch::Kind::Double), b[name].to_kind(tch::Kind::Double));
            let far = (&one - &other).abs().max() / other.abs().max().clamp_min(1e-3);
            (far.double_value(&[]), name.clone())
        };
        let networks = a.iter().filter(|(name, _)| name.starts_with("network/"));
        networks.map(far).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    }

    /// Bytes of a job's output.
    pub fn output(&self, job: &Job, outcome: &Outcome, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(&job.out_dir).join(&outcome.outputs[name].file)).unwrap()
    }
}

/// Fills a picture with noise of its own.
pub fn noise(item: u64, bytes: &mut [u8]) {
    let mut stream = harness_views::Stream::new(item, "test", "noise", 0, 0, 0);
    bytes.iter_mut().for_each(|byte| *byte = (stream.next_u64() >> 56) as u8);
}

/// The smallest network.
pub fn tiny() -> Value {
    json!({ "resnet18": { "stem": "small", "width": 0.0625 } })
}

/// Pictures as they are.
pub fn plain() -> Value {
    json!({ "resize": 16, "crop": 16 })
}

/// Values of `tests/golden/classify.py`, and the features it made them from.
pub mod golden {
    use serde_json::Value;

    /// `classify.json`.
    pub fn file() -> Value {
        serde_json::from_str(include_str!("../tests/golden/classify.json")).unwrap()
    }

    /// Features, row by row, and classes: row i is of class i mod `classes`.
    pub fn table(rows: usize, columns: usize, classes: usize, noise: f64, start: usize) -> (Vec<f32>, Vec<i64>) {
        let value = |at: usize| {
            let (row, column, index) = (at / columns, at % columns, (start + at) as f64);
            let centre = (1.3 * ((row % classes) * columns + column) as f64 + 1.0).sin();
            (centre + noise * (0.37 * index + 0.11 * index.powf(1.5)).sin()) as f32
        };
        ((0..rows * columns).map(value).collect(), (0..rows).map(|row| (row % classes) as i64).collect())
    }
}
