//! Action keys: everything that decides a result, in one struct that prints and explains itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

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
    /// An object: parameters, input digests and seed. Shared, since a key is held by all that is known of its result.
    pub params: Arc<Value>,
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
        ActionKey { format: KEY_FORMAT, kind: kind.into(), version, params: Arc::new(params) }
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
        // The fields in the order of their names, as everywhere below.
        let mut out = format!("{{\"format\":{},\"kind\":", self.format);
        write_text(&self.kind, &mut out);
        out.push_str(",\"params\":");
        write_value(&self.params, &mut out);
        out.push_str(&format!(",\"version\":{}}}", self.version));
        out
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
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::String(text) => write_text(text, out),
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
                write_text(name, out);
                out.push(':');
                write_value(item, out);
            }
            out.push('}');
        }
    }
}

/// A string with JSON's minimal escapes.
fn write_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn key(params: Value) -> ActionKey {
        ActionKey::new("knn", 3, params)
    }

    #[test]
    fn golden_canonical_text_and_digest() {
        let key = key(json!({
            "temperature": 0.07, "k": 20, "seed": -1, "lr": 1e-7, "big": 1e300, "name": "Käse \"x\"\n\u{1F600}",
            "views": [{"size": 32.0, "b": null, "a": true}, []],
        }));
        let text = concat!(
            r#"{"format":1,"kind":"knn","params":{"big":1e+300,"k":20,"lr":1e-7,"name":"Käse \"x\"\n😀","#,
            r#""seed":-1,"temperature":0.07,"views":[{"a":true,"b":null,"size":32},[]]},"version":3}"#
        );
        assert_eq!(key.canonical(), text);
        // From coreutils' sha256sum over the text above.
        assert_eq!(key.digest().to_string(), "65f55e0165920a3312c5c92ad9b5b6e930f8882068fa3f9309afad59956e68cd");
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (left, right) in [
            ("1", "1.0"),
            ("0", "-0.0"),
            ("-3", "-3.0"),
            ("100", "1e2"),
            ("0.1", "0.10"),
            ("9007199254740992", "9007199254740992.0"),
            ("-9223372036854775808", "-9223372036854775808.0"),
        ] {
            let of = |text: &str| key(json!({"x": serde_json::from_str::<Value>(text).unwrap()})).canonical();
            assert_eq!(of(left), of(right), "{left} {right}");
        }
        assert_ne!(key(json!({"x": 1})).digest(), key(json!({"x": 1.0000000000000002})).digest());
        assert_ne!(key(json!({"x": u64::MAX})).digest(), key(json!({"x": u64::MAX - 1})).digest());
        assert_ne!(key(json!({"x": 1})).digest(), key(json!({"x": "1"})).digest());
        assert_ne!(key(json!({"x": null})).digest(), key(json!({})).digest());
    }

    #[test]
    fn order_of_declaration_does_not_matter() {
        let left: Value = serde_json::from_str(r#"{"b":{"y":1,"x":2},"a":[1,2],"é":0,"z":0}"#).unwrap();
        let right: Value = serde_json::from_str(r#"{"z":0,"é":0,"a":[1,2],"b":{"x":2,"y":1}}"#).unwrap();
        assert_eq!(key(left).digest(), key(right).digest());
        assert_ne!(key(json!([1, 2])).digest(), key(json!([2, 1])).digest());
    }

    #[test]
    fn every_field_counts() {
        let base = key(json!({"k": 1}));
        let others = [
            ActionKey { format: 2, ..base.clone() },
            ActionKey { kind: "probe".into(), ..base.clone() },
            ActionKey { version: 4, ..base.clone() },
            ActionKey { params: Arc::new(json!({"k": 2})), ..base.clone() },
        ];
        for other in others {
            assert_ne!(base.digest(), other.digest(), "{other:?}");
            assert_eq!(base.diff(&other).len(), 1, "{other:?}");
        }
    }

    #[test]
    fn differences_name_their_place() {
        let before = key(json!({"lr": 0.1, "same": 1, "views": [{"size": 96}, {"size": 48}], "gone": "x"}));
        let mut after = key(json!({"lr": 0.2, "same": 1.0, "views": [{"size": 96}, {"size": 64}, 1], "new": null}));
        after.version = 4;
        let found: Vec<_> =
            before.diff(&after).into_iter().map(|found| (found.path, found.before, found.after)).collect();
        let of = |path: &str, before: Option<Value>, after: Option<Value>| (path.to_owned(), before, after);
        assert_eq!(
            found,
            [
                of("version", Some(json!(3)), Some(json!(4))),
                of("params.gone", Some(json!("x")), None),
                of("params.lr", Some(json!(0.1)), Some(json!(0.2))),
                of("params.new", None, Some(json!(null))),
                of("params.views[1].size", Some(json!(48)), Some(json!(64))),
                of("params.views[2]", None, Some(json!(1))),
            ]
        );
        assert_eq!(before.diff(&before), []);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        #[derive(Serialize)]
        struct View {
            scale: f32,
        }
        #[derive(Serialize)]
        struct Params {
            lr: f64,
            views: Vec<View>,
        }
        let params = |lr, scale| Params { lr, views: vec![View { scale: 1.0 }, View { scale }] };
        let fine = ActionKey::of_params("pretrain", 1, &params(0.5, 2.0)).unwrap();
        assert_eq!(*fine.params, json!({"lr": 0.5, "views": [{"scale": 1.0}, {"scale": 2.0}]}));
        for (params, place) in [(params(f64::NAN, 1.0), "lr"), (params(0.1, f32::INFINITY), "views[1].scale")] {
            match ActionKey::of_params("pretrain", 1, &params) {
                Err(Error::NotFinite { path }) => assert_eq!(path, place),
                other => panic!("{other:?}"),
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (any::<f64>().prop_filter("JSON has no such numbers", |x| x.is_finite())).prop_map(Value::from),
            (-1000i32..1000).prop_map(|x| Value::from(f64::from(x))),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Equal as numbers, not as spellings.
    fn same(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128()) {
                (Some(a), Some(b)) => a == b,
                _ => a.as_f64() == b.as_f64(),
            },
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
            }
            _ => left == right,
        }
    }

    proptest! {
        #[test]
        fn canonical_text_means_the_same_and_is_a_fixed_point(value in values()) {
            let text = canonical_json(&value);
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(same(&back, &value), "{text}");
            prop_assert_eq!(canonical_json(&back), text);
        }

        #[test]
        fn different_exactly_when_something_differs(left in values(), right in values()) {
            let (left, right) = (key(left), key(right));
            prop_assert_eq!(left.diff(&right).is_empty(), left.digest() == right.digest());
        }
    }
}
