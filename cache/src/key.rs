//! Action keys: everything that decides a result, in one struct that prints and explains itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::{Digest, Error};

/// The version of the canonical form. Raising it makes every earlier result a miss.
pub const KEY_FORMAT: u32 = 1;

/// Everything that decides the result of a step. Two equal keys give equal bytes (on the same device kind).
///
/// What belongs in `params`: the parameters with defaults resolved, the content digests of the inputs, the seed.
/// What does not: device, number of jobs, places, names, fields that only observe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionKey {
    /// The canonical form's version, [`KEY_FORMAT`] when new.
    pub format: u32,
    /// The step's kind, such as `knn`.
    pub kind: String,
    /// The version of the kind's implementation; raised when the same parameters give other bytes.
    pub version: u32,
    /// An object: parameters, input digests and seed.
    pub params: Value,
}

/// One place where two keys differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where: `kind`, `version`, `format`, or a path such as `params.views[0].size`.
    pub path: String,
    /// The value in the earlier key; `None` where it had none.
    pub before: Option<Value>,
    /// The value in the later key; `None` where it has none.
    pub after: Option<Value>,
}

impl ActionKey {
    /// A key of the present format.
    pub fn new(kind: impl Into<String>, version: u32, params: Value) -> ActionKey {
        ActionKey { format: KEY_FORMAT, kind: kind.into(), version, params }
    }

    /// A key whose parameters are any serialisable struct.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a NaN or an infinity, which `serde_json::to_value` would silently turn into `null`
    /// and so into the key of another computation; [`Error::Params`] for what JSON cannot hold.
    pub fn of_params(kind: impl Into<String>, version: u32, params: &impl Serialize) -> Result<ActionKey, Error> {
        let kind = kind.into();
        let refused = |reason: String| Error::Params { kind: kind.clone(), reason };
        // CBOR's data model keeps NaN apart from null, so the check happens there.
        let strict = ciborium::Value::serialized(params).map_err(|error| refused(error.to_string()))?;
        refuse_non_finite(&strict, String::new())?;
        let params = serde_json::to_value(params).map_err(|error| refused(error.to_string()))?;
        Ok(ActionKey::new(kind, version, params))
    }

    /// The canonical text: JSON with object keys sorted by their UTF-8 bytes, no spaces, minimal escapes; a number
    /// that is an integer is written as one (`1.0` and `1` are the same key, `-0.0` is `0`), any other in the
    /// shortest form that reads back as the same double. Strings are kept as they are, without normalisation.
    ///
    /// NaN and infinities cannot appear: a JSON value has none, and [`ActionKey::of_params`] refuses them.
    pub fn canonical(&self) -> String {
        let mut whole = Map::new();
        whole.insert("format".into(), self.format.into());
        whole.insert("kind".into(), self.kind.clone().into());
        whole.insert("params".into(), self.params.clone());
        whole.insert("version".into(), self.version.into());
        canonical_json(&Value::Object(whole))
    }

    /// SHA-256 of [`ActionKey::canonical`]: the name of the result.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(self.canonical().as_bytes())
    }

    /// Where `other` (the later key) differs from this one (the earlier), in the order of the paths.
    /// Empty exactly when the digests are equal.
    pub fn diff(&self, other: &ActionKey) -> Vec<Difference> {
        let mut found = Vec::new();
        let pairs: [(&str, Value, Value); 3] = [
            ("kind", self.kind.clone().into(), other.kind.clone().into()),
            ("version", self.version.into(), other.version.into()),
            ("format", self.format.into(), other.format.into()),
        ];
        for (path, before, after) in &pairs {
            compare(path.to_string(), Some(before), Some(after), &mut found);
        }
        compare("params".into(), Some(&self.params), Some(&other.params), &mut found);
        found
    }
}

/// The canonical text of any JSON value, by the rules of [`ActionKey::canonical`].
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => out.push_str(&normal_number(number).to_string()),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here and not left to the map: a feature of serde_json anywhere in the build can turn it into
            // one that keeps the order of insertion.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(right.0));
            out.push('{');
            for (index, (name, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_value(item, out);
            }
            out.push('}');
        }
    }
}

/// An integer where the number is one and fits 64 bits, else the double it is.
fn normal_number(number: &Number) -> Number {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.clone() };
    if float.fract() == 0.0 {
        // Every double strictly inside these bounds is exactly the integer that the cast gives.
        if float >= 0.0 && float < u64::MAX as f64 {
            return Number::from(float as u64);
        }
        if float <= 0.0 && float >= i64::MIN as f64 {
            return Number::from(float as i64);
        }
    }
    number.clone()
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names {
                compare(format!("{path}.{name}"), left.get(name), right.get(name), found);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                compare(format!("{path}[{index}]"), left.get(index), right.get(index), found);
            }
        }
        _ => {
            if before.map(canonical_json) != after.map(canonical_json) {
                found.push(Difference { path, before: before.cloned(), after: after.cloned() });
            }
        }
    }
}

fn refuse_non_finite(value: &ciborium::Value, path: String) -> Result<(), Error> {
    match value {
        ciborium::Value::Float(number) if !number.is_finite() => Err(Error::NotFinite { path }),
        ciborium::Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| refuse_non_finite(item, format!("{path}[{index}]")))
        }
        ciborium::Value::Map(entries) => entries.iter().try_for_each(|(name, item)| {
            let name = name.as_text().unwrap_or("?");
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            refuse_non_finite(item, path)
        }),
        ciborium::Value::Tag(_, item) => refuse_non_finite(item, path),
        _ => Ok(()),
    }
}
