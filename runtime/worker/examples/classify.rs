//! What `tests/bench/classify.py` measures of this side, one thing at a time, on tables and pictures that it made:
//!
//! ```text
//! classify knn TRAIN.npy TEST.npy K         seconds of the search, and of the bare matrix product of the same size
//! classify svm FEATURES.npy LABELS.npy OUT  seconds of all classes; planes into OUT
//! classify features FOLDER                  seconds of `embed` with a ResNet-50, and of the bare forward passes
//! ```
//!
//! Threads: those of OMP_NUM_THREADS, one by default.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use harness_datasets::hash::digest;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::{FileEntry, ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::model::Architecture;
use harness_protocol::{FromWorker, Job, Location, LocationForm};
use harness_worker::features::normalised;
use harness_worker::metric::knn::nearest;
use harness_worker::model::Encoder;
use harness_worker::npy;
use harness_worker::optim::svm::{Rows, Settings, solve, solve_all};
use serde_json::json;
use tch::{Device, Tensor};

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let threads = std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    tch::set_num_threads(threads);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match words[..] {
        ["knn", train, test, k] => knn(Path::new(train), Path::new(test), k.parse()?)?,
        ["svm", features, labels, out] => {
            svm(Path::new(features), Path::new(labels), Path::new(out), threads as usize)?
        }
        ["features", folder] => features(Path::new(folder), threads as u32)?,
        // `cargo test` builds and may start every example.
        _ => return Ok(()),
    };
    println!("{measured}");
    Ok(())
}

fn knn(train: &Path, test: &Path, k: usize) -> Result<serde_json::Value, Failed> {
    let (train, test) = (normalised(&npy::read(train)?), normalised(&npy::read(test)?));
    let start = Instant::now();
    let found = nearest(&train, &test, k, |_| Ok(()))?;
    let search = start.elapsed().as_secs_f64();
    let first: Vec<usize> = found.iter().take(100).flat_map(|near| near.iter().map(|(index, _)| *index)).collect();
    let start = Instant::now();
    // In as large pieces as memory allows: nothing but the product.
    let mut sum = 0.0;
    for part in test.f_split(2500, 0)? {
        sum += part.f_matmul(&train.f_transpose(0, 1)?)?.f_get(0)?.f_get(0)?.double_value(&[]);
    }
    Ok(json!({ "search_s": search, "product_s": start.elapsed().as_secs_f64(), "sum": sum, "first": first }))
}

fn svm(features: &Path, labels: &Path, out: &Path, threads: usize) -> Result<serde_json::Value, Failed> {
    let (x, y) = (npy::read(features)?, npy::read(labels)?);
    let (count, columns, classes) = (x.size()[0] as usize, x.size()[1] as usize, y.size()[1] as usize);
    let (x, y) = (Vec::<f32>::try_from(x.reshape([-1]))?, Vec::<f32>::try_from(y.reshape([-1]))?);
    let start = Instant::now();
    let rows = Rows { values: &x, columns };
    let all: Vec<usize> = (0..count).collect();
    let problems: Vec<usize> = (0..classes).collect();
    let planes = solve_all(&problems, threads, |&class| {
        let positive: Vec<bool> = (0..count).map(|row| y[row * classes + class] > 0.0).collect();
        solve(rows, &all, &positive, &Settings::default())
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut writer = npy::Writer::new(out, classes, columns + 1)?;
    for plane in &planes {
        let mut row: Vec<f32> = plane.weight.iter().map(|&value| value as f32).collect();
        row.push(plane.bias as f32);
        writer.rows(&row)?;
    }
    writer.finish()?;
    Ok(json!({ "svm_s": seconds, "converged": planes.iter().all(|plane| plane.converged) }))
}

fn features(folder: &Path, threads: u32) -> Result<serde_json::Value, Failed> {
    let temporary = std::env::temp_dir().join(format!("harness-bench-{}", std::process::id()));
    std::fs::create_dir_all(&temporary)?;
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, std::io::Error>>()?;
    names.sort();
    let mut entries = Vec::new();
    for path in names {
        let bytes = std::fs::read(folder.join(&path))?;
        let file = FileEntry { path, size: bytes.len() as u64, digest: digest(&bytes) };
        entries.push(ImageEntry { file, ..ImageEntry::default() });
    }
    let count = entries.len() as i64;
    let manifest = ImageManifest { format: MANIFEST_FORMAT, entries, ..ImageManifest::default() };
    let encoder = Encoder::random(Architecture::default(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0)?;
    let input = |name: &str, bytes: &[u8], data| -> Result<(String, InputFiles), Failed> {
        let file = temporary.join(name);
        std::fs::write(&file, bytes)?;
        Ok((digest(bytes), InputFiles { file, data }))
    };
    let location =
        Location { path: folder.into(), form: LocationForm::Folder, prefix: String::new(), parts: Vec::new() };
    let (data, data_files) = input("data", &serde_json::to_vec(&manifest)?, Some(location))?;
    let (weights, weight_files) = input("encoder", &encoder.encode()?, None)?;
    let artifact = |kind: &str, digest: &str| json!({ "$artifact": { "kind": kind, "digest": digest } });
    let info = harness_protocol::steps::kind("embed").ok_or("no kind `embed`")?;
    let params = json!({ "encoder": artifact("encoder", &weights), "data": artifact("images", &data) });
    let job = Job {
        id: 1,
        kind: "embed".into(),
        version: info.version,
        key: "bench".into(),
        label: "bench".into(),
        params: (info.resolve)(params).map_err(|problems| format!("{problems:?}"))?,
        inputs: [(data, data_files), (weights, weight_files)].into(),
        out_dir: temporary.join("out"),
        work_dir: temporary.join("work"),
        device: "cpu".into(),
        peers: Vec::new(),
        threads,
    };
    // One batch beforehand: libtorch sets itself up in the first.
    let batch: Vec<f32> = (0..64 * 3 * 224 * 224).map(|at| (at % 255) as f32 / 255.0).collect();
    let _ = encoder.forward(&batch, 64, 224, Device::Cpu)?;
    let start = Instant::now();
    let last = harness_worker::steps::run(&job, &|_| (), &AtomicU64::new(u64::MAX));
    let embed = start.elapsed().as_secs_f64();
    let FromWorker::Finished { .. } = last else { return Err(format!("{last:?}").into()) };
    let start = Instant::now();
    let mut done = 0;
    let mut sum = Tensor::from(0.0f32);
    while done < count {
        let size = 64.min(count - done);
        sum += encoder.forward(&batch[..size as usize * 3 * 224 * 224], size, 224, Device::Cpu)?.get(0).get(0);
        done += size;
    }
    let bare = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&temporary)?;
    Ok(json!({ "embed_s": embed, "bare_s": bare, "pictures": count, "sum": sum.double_value(&[]) }))
}
