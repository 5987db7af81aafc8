//! The field `resources` of a step: what it needs of a machine. Said to `harness`, never part of a key.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the field.
pub const FIELD: &str = "resources";

/// Where a step is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// On this machine.
    Local,
    /// As a job of Slurm's.
    Slurm,
}

/// What a step needs. Nothing written means: one slot of this machine, or what the configuration says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Devices.
    pub gpus: Option<u32>,
    /// Memory of the device in bytes; a step that says so shares its device with others that do, while they fit.
    pub gpu_memory: Option<u64>,
    /// Cores.
    pub cpus: Option<u32>,
    /// Memory of the machine in bytes.
    pub memory: Option<u64>,
    /// Longest time in seconds.
    pub time: Option<f64>,
    /// Partition of the cluster.
    pub partition: Option<String>,
    /// Where it is to run.
    pub executor: Option<Where>,
}

impl Resources {
    /// The names of the fields with what they mean, for the language: name, type, one sentence.
    pub const FIELDS: &'static [(&'static str, &'static str, &'static str)] = &[
        ("gpus", "count", "Devices that it gets. Without it one; 0 for none on a cluster."),
        (
            "gpu_memory",
            "size",
            "Memory of the device that it needs. A step that says so shares its device with others that do, while they fit.",
        ),
        ("cpus", "count", "Cores that a cluster gives it."),
        ("memory", "size", "Memory of the machine that it reserves."),
        ("time", "duration", "Longest time of one attempt; a cluster's job then goes on from its checkpoint."),
        ("partition", "text", "Partition of the cluster; a step that names one runs there."),
        ("executor", "where", "Where it runs, `local` or `slurm`, unless the command line says it for all."),
    ];

    /// Of a step's written fields, which the language has checked.
    ///
    /// # Errors
    /// In words, when they are not what the language admits: a program of another version.
    pub fn of(params: &serde_json::Map<String, Value>) -> Result<Self, String> {
        match params.get(FIELD) {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(value) => serde_json::from_value(value.clone()).map_err(|error| format!("`{FIELD}`: {error}")),
        }
    }

    /// Where the step runs: as everything does, if that is said; else as it says; else where its partition is.
    pub fn executor(&self, all: Option<Where>) -> Where {
        let own = self.executor.or(self.partition.as_ref().map(|_| Where::Slurm));
        all.or(own).unwrap_or(Where::Local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_means_the_cluster_unless_the_command_line_knows_better() {
        let of = |value: Value| Resources::of(value.as_object().unwrap()).unwrap();
        let one = of(serde_json::json!({ "resources": { "gpus": 2, "time": 43_200.0, "partition": "a100" } }));
        assert_eq!((one.gpus, one.executor(None)), (Some(2), Where::Slurm));
        assert_eq!(one.executor(Some(Where::Local)), Where::Local);
        assert_eq!(of(serde_json::json!({})).executor(None), Where::Local);
        let local = of(serde_json::json!({ "resources": { "partition": "a", "executor": "local" } }));
        assert_eq!(local.executor(None), Where::Local);
        assert!(Resources::of(serde_json::json!({ "resources": { "gpu": 1 } }).as_object().unwrap()).is_err());
    }
}
