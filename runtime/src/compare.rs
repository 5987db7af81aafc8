//! What differs between two programs: params, steps that came and went, fields of steps.

use crate::runs::Told;
use crate::why;
use harness_cache::Cache;
use harness_dsl::{Program, Step};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Members of a family that are named.
const NAMED: usize = 3;

/// One difference between two programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A param has another value.
    Param {
        /// Its name.
        name: String,
        /// The value in the first; none where it has no such param.
        before: Option<Value>,
        /// The value in the second.
        after: Option<Value>,
    },
    /// A field of steps of one family has another value.
    Field {
        /// The family.
        family: String,
        /// The steps, by label.
        steps: Vec<String>,
        /// Dotted path of the field.
        field: String,
        /// The value in the first.
        before: Option<Value>,
        /// The value in the second.
        after: Option<Value>,
    },
    /// What a step reads outside the text is another one: a file, a dataset, a program, or the version of its kind.
    Outside {
        /// The family.
        family: String,
        /// The steps, by label.
        steps: Vec<String>,
        /// What: `the file data.txt`, `train: a.png changed`.
        what: String,
    },
    /// Steps that only the second has.
    Added {
        /// The family.
        family: String,
        /// The steps, by label.
        steps: Vec<String>,
    },
    /// Steps that only the first has.
    Removed {
        /// The family.
        family: String,
        /// The steps, by label.
        steps: Vec<String>,
    },
}

impl Change {
    /// In words.
    pub fn told(&self) -> String {
        let named = |family: &str, steps: &[String]| match steps {
            [only] => only.clone(),
            few if few.len() <= NAMED => few.join(", "),
            many => format!("{family} ({} steps)", many.len()),
        };
        match self {
            Change::Param { name, before, after } => format!("param {name}: {}", why::moved(before, after)),
            Change::Field { family, steps, field, before, after } => {
                format!("{}: {field}: {}", named(family, steps), why::moved(before, after))
            }
            Change::Outside { family, steps, what } => format!("{}: {what}", named(family, steps)),
            Change::Added { family, steps } => format!("new: {}", named(family, steps)),
            Change::Removed { family, steps } => format!("gone: {}", named(family, steps)),
        }
    }
}

/// Everything that differs, params first; what a param changes in steps is told with the steps too, where they say
/// something else than the param.
pub fn changes(before: &Program, after: &Program) -> Vec<Change> {
    let mut found = Vec::new();
    let params = |program: &Program| program.params.iter().cloned().collect::<BTreeMap<String, Value>>();
    let (old, new) = (params(before), params(after));
    for (name, now) in &after.params {
        if old.get(name) != Some(now) {
            found.push(Change::Param { name: name.clone(), before: old.get(name).cloned(), after: Some(now.clone()) });
        }
    }
    for (name, was) in before.params.iter().filter(|(name, _)| !new.contains_key(name)) {
        found.push(Change::Param { name: name.clone(), before: Some(was.clone()), after: None });
    }
    let steps = |program: &Program| -> BTreeMap<String, Step> {
        program.steps.iter().map(|step| (step.label.clone(), step.clone())).collect()
    };
    let (old, new) = (steps(before), steps(after));
    let mut sets: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
    for step in after.steps.iter().filter(|step| !old.contains_key(&step.label)) {
        sets.entry((true, step.name.clone())).or_default().push(step.label.clone());
    }
    for step in before.steps.iter().filter(|step| !new.contains_key(&step.label)) {
        sets.entry((false, step.name.clone())).or_default().push(step.label.clone());
    }
    let mut fields: Vec<Change> = Vec::new();
    for step in &after.steps {
        let Some(was) = old.get(&step.label) else { continue };
        let flat = |program: &Program, step: &Step| {
            let mut rows = BTreeMap::new();
            flatten(program, &Value::Object(step.params.clone()), String::new(), &mut rows);
            rows.insert("kind".to_string(), Value::from(step.kind.clone()));
            rows
        };
        let (was, now) = (flat(before, was), flat(after, step));
        let names: std::collections::BTreeSet<&String> = was.keys().chain(now.keys()).collect();
        for name in names {
            let (was, now) = (was.get(name).cloned(), now.get(name).cloned());
            if was == now {
                continue;
            }
            let same = fields.iter_mut().find(|change| {
                matches!(change, Change::Field { family, field, before, after, .. }
                    if *family == step.name && field == name && *before == was && *after == now)
            });
            match same {
                Some(Change::Field { steps, .. }) => steps.push(step.label.clone()),
                _ => fields.push(Change::Field {
                    family: step.name.clone(),
                    steps: vec![step.label.clone()],
                    field: name.clone(),
                    before: was,
                    after: now,
                }),
            }
        }
    }
    found.extend(fields);
    for ((added, family), steps) in sets {
        found.push(if added { Change::Added { family, steps } } else { Change::Removed { family, steps } });
    }
    found
}

/// What changed outside the text, by the keys that the steps of both runs had.
pub fn outside(cache: &Cache, before: &Told, program: &Program, after: &Told) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    for step in &program.steps {
        let key = |told: &Told| told.steps.get(&step.label).and_then(|step| step.key);
        let (Some(old), Some(new)) = (key(before), key(after)) else { continue };
        if old == new {
            continue;
        }
        let (Ok(Some(old)), Ok(Some(new))) = (cache.record(&old), cache.record(&new)) else { continue };
        for difference in old.key.diff(&new.key) {
            let path = difference.path.strip_prefix("params.").unwrap_or(&difference.path);
            let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_string();
            let what = if path == "version" {
                format!("`{}`: version {}", step.kind, why::moved(&difference.before, &difference.after))
            } else if path == "program_digest" {
                "its program is another one".into()
            } else if let Some(output) = path.strip_prefix("content.") {
                let files = why::changed(cache, &text(&difference.before), &text(&difference.after));
                format!("{output} has another content: {}", why::files(&files, false))
            } else if let Some(field) = path.strip_suffix(".$artifact.digest") {
                let place = why::at(&step.params, field);
                // What other steps gave is told with those steps.
                match place.filter(|place| place.get("$ref").is_none()).and_then(|place| place.get("path")) {
                    Some(path) => format!("the file {} changed", path.as_str().unwrap_or(field)),
                    None => match place.and_then(Value::as_str) {
                        Some(path) => format!("the file {path} changed"),
                        None => continue,
                    },
                }
            } else {
                continue;
            };
            let same = found.iter_mut().find(|change| {
                matches!(change, Change::Outside { family, what: known, .. } if *family == step.name && *known == what)
            });
            match same {
                Some(Change::Outside { steps, .. }) => steps.push(step.label.clone()),
                _ => found.push(Change::Outside { family: step.name.clone(), steps: vec![step.label.clone()], what }),
            }
        }
    }
    found
}

/// Fields by dotted path; references by label, since numbers of steps shift when one is put in.
fn flatten(program: &Program, value: &Value, path: String, rows: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref") {
                let step = reference["step"].as_u64().and_then(|id| program.steps.get(id as usize));
                let output = reference["output"].as_str().unwrap_or_default();
                let label = step.map_or("", |step| step.label.as_str());
                rows.insert(path, Value::from(format!("{label}.{output}")));
            } else if map.is_empty() {
                rows.insert(path, value.clone());
            } else {
                for (name, inner) in map {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    flatten(program, inner, path, rows);
                }
            }
        }
        other => {
            rows.insert(path, other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn program(params: Value, steps: &[(&str, &str, Value)]) -> Program {
        let steps = steps.iter().enumerate().map(|(id, (name, label, params))| {
            serde_json::from_value(json!({
                "id": id, "name": name, "label": label, "kind": "command", "axes": [], "params": params,
                "inputs": [], "span": { "source": 0, "start": 0, "end": 0 }, "field_spans": {},
            }))
            .unwrap()
        });
        let steps = steps.collect();
        let params = params.as_object().unwrap().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        Program { params, steps, ..Program::default() }
    }

    #[test]
    fn a_family_that_changes_alike_is_one_line() {
        let of = |k: u64| json!({ "k": k, "from": { "$ref": { "step": 0, "output": "x" } } });
        let before =
            program(json!({ "k": 1, "gone": 0 }), &[("a", "a", json!({})), ("f", "f[1]", of(1)), ("f", "f[2]", of(1))]);
        let mut after = program(
            json!({ "k": 2 }),
            &[("a", "a", json!({})), ("f", "f[1]", of(2)), ("f", "f[2]", of(2)), ("b", "b", json!({}))],
        );
        let told: Vec<String> = changes(&before, &after).iter().map(Change::told).collect();
        assert_eq!(told, ["param k: 1 -> 2", "param gone: 0 -> nothing", "f[1], f[2]: k: 1 -> 2", "new: b"]);
        assert_eq!(changes(&before, &before), []);
        // A step put in before shifts the numbers and changes nothing.
        after = program(json!({ "k": 1, "gone": 0 }), &[("z", "z", json!({})), ("a", "a", json!({}))]);
        let shifted = json!({ "k": 1, "from": { "$ref": { "step": 1, "output": "x" } } });
        for label in ["f[1]", "f[2]"] {
            let mut step = before.steps[1].clone();
            step.label = label.into();
            step.params = shifted.as_object().unwrap().clone();
            after.steps.push(step);
        }
        let told: Vec<String> = changes(&before, &after).iter().map(Change::told).collect();
        assert_eq!(told, ["new: z"]);
    }
}
