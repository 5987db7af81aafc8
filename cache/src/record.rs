//! Records: what is known of one finished action.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ActionKey, Digest};

/// The version of [`Record`]'s stored form.
pub const RECORD_FORMAT: u32 = 1;

/// One artifact of an action: a blob and what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The artifact's kind, such as `checkpoint`. The cache does not interpret it.
    pub kind: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// A file name for people, such as `encoder.safetensors`.
    pub name: String,
}

/// A curve: one `y` per `x`. Non-finite values survive storing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The horizontal positions.
    #[serde(with = "floats")]
    pub x: Vec<f64>,
    /// The values.
    #[serde(with = "floats")]
    pub y: Vec<f64>,
    /// What `x` counts, such as `epoch`.
    pub x_label: String,
}

/// What one finished action left: its key, its artifacts, its numbers, and where they came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The stored form's version, [`RECORD_FORMAT`] when new.
    pub format: u32,
    /// The key, in full, so that a record explains itself.
    pub key: ActionKey,
    /// The key's digest.
    pub digest: Digest,
    /// Artifacts by the name the step gives them.
    pub outputs: BTreeMap<String, Output>,
    /// Numbers by name. Non-finite values survive storing.
    #[serde(with = "float_map")]
    pub metrics: BTreeMap<String, f64>,
    /// Curves by name.
    pub series: BTreeMap<String, Series>,
    /// The observing fields it ran with, which are no part of the key.
    pub observed: BTreeMap<String, Value>,
    /// What it ran on: device, versions, host, code revision.
    pub provenance: Value,
    /// The blob with what the step printed.
    pub log: Option<Digest>,
    /// When it finished, in milliseconds since 1970 (UTC).
    pub finished_unix_ms: u64,
    /// How long it took, in seconds.
    pub duration_s: f64,
}

impl Record {
    /// A record of `key` with its digest and nothing else yet.
    pub fn new(key: ActionKey) -> Record {
        Record {
            format: RECORD_FORMAT,
            digest: key.digest(),
            key,
            outputs: BTreeMap::new(),
            metrics: BTreeMap::new(),
            series: BTreeMap::new(),
            observed: BTreeMap::new(),
            provenance: Value::Null,
            log: None,
            finished_unix_ms: 0,
            duration_s: 0.0,
        }
    }

    /// Every blob that the record names: its outputs and its log.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.outputs.values().map(|output| output.digest).chain(self.log)
    }
}

/// A double as JSON: a number, or one of three words for what JSON's numbers lack.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Float {
    Finite(f64),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
enum Word {
    #[serde(rename = "NaN")]
    NotANumber,
    #[serde(rename = "inf")]
    Infinity,
    #[serde(rename = "-inf")]
    MinusInfinity,
}

impl From<f64> for Float {
    fn from(value: f64) -> Float {
        match value {
            _ if value.is_nan() => Float::Word(Word::NotANumber),
            f64::INFINITY => Float::Word(Word::Infinity),
            f64::NEG_INFINITY => Float::Word(Word::MinusInfinity),
            finite => Float::Finite(finite),
        }
    }
}

impl From<Float> for f64 {
    fn from(value: Float) -> f64 {
        match value {
            Float::Finite(finite) => finite,
            Float::Word(Word::NotANumber) => f64::NAN,
            Float::Word(Word::Infinity) => f64::INFINITY,
            Float::Word(Word::MinusInfinity) => f64::NEG_INFINITY,
        }
    }
}

mod floats {
    use super::Float;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Float::from(*value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Float>::deserialize(deserializer)?.into_iter().map(f64::from).collect())
    }
}

mod float_map {
    use super::Float;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(values: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(values.iter().map(|(name, value)| (name, Float::from(*value))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Float>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(name, value)| (name, f64::from(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_numbers_survive() {
        let mut record = Record::new(ActionKey::new("k", 1, serde_json::json!({})));
        record.metrics = [("a", f64::INFINITY), ("b", 0.1), ("c", f64::NEG_INFINITY), ("d", 3.0)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let back: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(back, record);
        record.metrics.insert("e".into(), f64::NAN);
        let back: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert!(back.metrics["e"].is_nan());
    }
}
