//! Jobs and what comes back: JSON lines on the control channel, apart from the worker's stdout and stderr.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How the bytes of an input lie on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocationForm {
    /// One file.
    File,
    /// A folder tree.
    #[default]
    Folder,
    /// The same tree inside an uncompressed tar.
    Tar,
    /// The same tree inside a zip.
    Zip,
    /// One of CIFAR's binary batches, a picture at a fixed place for each `00042.ppm`.
    Batch,
    /// Several trees side by side: `0/…` lies in the first of [`Location::parts`], `1/…` in the second.
    Union,
}

/// Where the bytes of an input lie on this machine. Never part of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file, folder or archive.
    pub path: PathBuf,
    /// How it lies there.
    pub form: LocationForm,
    /// Folder inside the tree or archive that the manifest's paths are relative to; empty for the top.
    #[serde(default)]
    pub prefix: String,
    /// The trees of a [`LocationForm::Union`], which has no path of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Location>,
}

/// Where the content with a digest can be read: the artifact's own file, and for manifests the files they list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFiles {
    /// The artifact's own bytes (the manifest, the safetensors file).
    pub file: PathBuf,
    /// For manifests: the pictures.
    #[serde(default)]
    pub data: Option<Location>,
}

/// One action to compute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Number within this worker's life.
    pub id: u64,
    /// Kind of step.
    pub kind: String,
    /// Version of the kind; a worker with another one refuses the job.
    pub version: u32,
    /// Hexadecimal digest of the action key, for messages and checkpoints.
    pub key: String,
    /// Label of the step in the experiment, for messages.
    pub label: String,
    /// Parameters with all defaults resolved and inputs as artifacts; observing fields included.
    pub params: Value,
    /// Files of every input, by digest.
    pub inputs: BTreeMap<String, InputFiles>,
    /// Fresh folder for outputs.
    pub out_dir: PathBuf,
    /// Folder that outlives a killed run: resumable checkpoints.
    pub work_dir: PathBuf,
    /// `cpu`, `cuda:0`, …
    pub device: String,
    /// Devices of further ranks, a process each, that share the work; kinds that cannot share refuse the job. Never part of
    /// a key: results do not depend on it but for rounding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Threads of torch and of the data pipeline; results depend on it on the CPU, so it never comes from `-j`.
    pub threads: u32,
}

/// A curve: y over x, both the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Positions.
    pub x: Vec<f64>,
    /// Values.
    pub y: Vec<f64>,
    /// What x counts: `epoch`, `step`.
    pub x_label: String,
}

/// One file that a step produced, relative to the job's `out_dir`. `harness` hashes and stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    /// Artifact kind.
    pub kind: String,
    /// File name inside `out_dir`.
    pub file: String,
}

/// What a finished step gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Outputs by name.
    pub outputs: BTreeMap<String, Produced>,
    /// Numbers by name.
    pub metrics: BTreeMap<String, f64>,
    /// Curves by name.
    pub series: BTreeMap<String, Series>,
    /// How it was computed: libtorch, device name, threads, throughput, peak memory…
    pub provenance: BTreeMap<String, Value>,
}

/// From `harness` to the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// First message.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of `harness`.
        protocol: u32,
    },
    /// Compute this. One job at a time.
    Job(Box<Job>),
    /// Write a checkpoint and stop the job.
    Cancel {
        /// The job's number.
        id: u64,
    },
    /// End the process.
    Shutdown,
}

/// From the worker to `harness`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// Answer to `Hello`.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the worker.
        protocol: u32,
        /// Version and build of the worker.
        build: String,
        /// Version of libtorch.
        libtorch: String,
        /// CUDA devices that can be used.
        cuda_devices: u32,
        /// Version of each kind it runs.
        kinds: BTreeMap<String, u32>,
    },
    /// How far a job is.
    Progress {
        /// The job's number.
        id: u64,
        /// What is counted now: `epoch 3/20`, `features`…
        stage: String,
        /// Units done in the whole job.
        done: u64,
        /// Units in the whole job.
        total: u64,
        /// Name of a unit: `pictures`, `frames`.
        unit: String,
    },
    /// One point of a curve, while it grows.
    Metric {
        /// The job's number.
        id: u64,
        /// Name of the series.
        name: String,
        /// Position.
        x: f64,
        /// Value.
        y: f64,
    },
    /// A line for people.
    Log {
        /// The job's number.
        id: u64,
        /// `info` or `warn`.
        level: String,
        /// The line.
        text: String,
    },
    /// The job is done; its files lie in `out_dir`.
    Finished {
        /// The job's number.
        id: u64,
        /// What it gave.
        outcome: Outcome,
    },
    /// The job could not be done.
    Failed {
        /// The job's number.
        id: u64,
        /// What went wrong, naming the thing, and the way out.
        message: String,
    },
    /// The job stopped because it was asked to.
    Cancelled {
        /// The job's number.
        id: u64,
    },
}
