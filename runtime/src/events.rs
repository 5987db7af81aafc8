//! What happens during a run, as one enum: listeners show it, `--json` prints it, `runs/<id>/events.jsonl` keeps it.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// JSON has no NaN: it is written as null, and read back.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// [`number`] for each of several.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let found = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(found.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was computed in this run.
    Executed,
    /// Its result was known.
    Cached,
    /// It could not be computed.
    Failed,
    /// It was not tried: an input failed, or the run was stopped.
    Skipped,
}

/// One event; in JSON its name stands in the field `event`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are their own names; docs/EVENTS.md describes the stable ones")]
pub enum Event {
    /// The program is checked and planned.
    RunStarted { run: String, file: String, steps: usize, cache: String },
    /// How a step's job stands in a cluster's queue, in the scheduler's words.
    StepQueued {
        step: usize,
        label: String,
        kind: String,
        key: String,
        job: String,
        state: String,
        reason: String,
        node: String,
    },
    /// A step is being computed.
    StepStarted { step: usize, label: String, kind: String, key: String, slot: String },
    /// How far a step is.
    Progress { step: usize, label: String, stage: String, done: u64, total: u64, unit: String, elapsed_s: f64 },
    /// A point of a curve, while it grows.
    Metric {
        step: usize,
        label: String,
        name: String,
        #[serde(deserialize_with = "number")]
        x: f64,
        #[serde(deserialize_with = "number")]
        y: f64,
    },
    /// A line for people about a step, or about the run.
    Log { step: Option<usize>, label: Option<String>, level: String, text: String },
    /// What came from the shared cache and went there, so far, and what is wrong with it.
    Shared {
        place: String,
        fetched: usize,
        fetched_bytes: u64,
        sent: usize,
        sent_bytes: u64,
        /// Results that could not be sent.
        kept: usize,
        /// Results that are still to go.
        waiting: usize,
        ended: bool,
        problems: Vec<String>,
    },
    /// A step has ended.
    StepFinished {
        step: usize,
        label: String,
        kind: String,
        key: Option<String>,
        status: Status,
        wall_s: f64,
        #[serde(deserialize_with = "numbers")]
        metrics: BTreeMap<String, f64>,
        error: Option<String>,
    },
    /// Everything has ended.
    RunFinished {
        run: String,
        executed: usize,
        cached: usize,
        failed: usize,
        skipped: usize,
        wall_s: f64,
        interrupted: bool,
        claims: BTreeMap<String, String>,
        summary: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_comes_back_as_none() {
        let event = Event::Metric { step: 0, label: "a".into(), name: "loss".into(), x: 1.0, y: f64::NAN };
        let line = serde_json::to_string(&event).unwrap();
        match serde_json::from_str(&line).unwrap() {
            Event::Metric { x, y, .. } => assert!(x == 1.0 && y.is_nan()),
            other => panic!("{other:?}"),
        }
    }
}
