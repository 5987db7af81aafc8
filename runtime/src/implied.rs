//! Steps that evaluations imply: the features of a dataset under an encoder are an action of their own (`embed`), which
//! every evaluation of the same pictures shares.
//!
//! A checked program that says `knn near { encoder = moco, train = a, test = b }` becomes one with two more steps, which
//! give `near` its `vectors`. So keys, the early cut-off, sharing, the cache and the summary need to know nothing of it.

use harness_dsl::{Program, Step};
use harness_protocol::StepKind;
use harness_protocol::steps::{Embed, Knn, LinearProbe, LinearSvm};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

/// Adds the steps that the program's evaluations imply.
pub fn imply(program: Program) -> Program {
    let mut steps: Vec<Step> = Vec::with_capacity(program.steps.len());
    let mut place = Vec::with_capacity(program.steps.len());
    let mut known = HashMap::new();
    let mut labels: HashMap<String, usize> = HashMap::new();
    let mut program = program;
    for mut step in std::mem::take(&mut program.steps) {
        step.params.values_mut().for_each(|value| moved(value, &place));
        if let Some(layer) = embedded(&step)
            && let Some(encoder) = step.params.remove("encoder")
        {
            let transform = step.params.remove("transform");
            if step.kind == Knn::KIND {
                step.params.remove("features");
            }
            let mut vectors = Map::new();
            for split in ["train", "test"] {
                let Some(data) = step.params.get(split) else { continue };
                let mut params = Map::from_iter([("encoder".into(), encoder.clone()), ("data".into(), data.clone())]);
                params.extend(transform.clone().map(|transform| ("transform".into(), transform)));
                params.extend(layer.clone().map(|layer| ("layer".into(), layer)));
                let known = known.entry(params.clone());
                // The work of the evaluation is done there, so what it needs of a machine is needed there.
                let resources = step.params.get(harness_executors::FIELD);
                params.extend(resources.map(|resources| (harness_executors::FIELD.into(), resources.clone())));
                let id = *known.or_insert_with(|| {
                    let id = steps.len();
                    let embedding = embed(id, params, &step, split, &steps, &mut labels);
                    steps.push(embedding);
                    id
                });
                vectors.insert(split.into(), json!({ "$ref": { "step": id, "output": "features" } }));
            }
            step.params.insert("vectors".into(), Value::Object(vectors));
        }
        step.id = steps.len();
        let mut inputs = BTreeSet::new();
        step.params.values().for_each(|value| referred(value, &mut inputs));
        step.inputs = inputs.into_iter().collect();
        place.push(step.id);
        steps.push(step);
    }
    program.with_steps(steps, &place)
}

/// Whether a step looks at the features of whole datasets under an encoder, and at which layer if it says so.
fn embedded(step: &Step) -> Option<Option<Value>> {
    let features = step.params.get("features");
    match step.kind.as_str() {
        Knn::KIND => Some(features.cloned()),
        LinearSvm::KIND => Some(None),
        // Augmented pictures are other ones in every epoch.
        LinearProbe::KIND => match features? {
            Value::String(tag) if tag == "cached" => Some(None),
            Value::Object(tag) if tag.contains_key("cached") => Some(None),
            _ => None,
        },
        _ => None,
    }
}

/// The step that embeds a split for `user`. `labels` counts how often each label was wanted.
fn embed(
    id: usize,
    params: Map<String, Value>,
    user: &Step,
    split: &str,
    steps: &[Step],
    labels: &mut HashMap<String, usize>,
) -> Step {
    let name = |value: Option<&Value>| {
        let reference = value.and_then(|value| value.get("$ref"));
        let step = reference.and_then(|reference| reference["step"].as_u64()).and_then(|at| steps.get(at as usize));
        let output = reference.and_then(|reference| reference["output"].as_str()).unwrap_or_default();
        let label = step.map_or("?", |step| step.label.as_str());
        // The first output of a kind is what its bare name stands for.
        let outputs = step.and_then(|step| harness_protocol::steps::kind(&step.kind)).map(|kind| kind.outputs);
        let bare = outputs.and_then(|outputs| outputs.first()).is_some_and(|first| first.name == output);
        if bare || output.is_empty() { label.to_string() } else { format!("{label}.{output}") }
    };
    let layer = params.get("layer").and_then(Value::as_str).map(|layer| format!(", {layer}")).unwrap_or_default();
    let mut label = format!("features({}, {}{layer})", name(params.get("encoder")), name(params.get("data")));
    // The same pictures under another transform.
    let same = labels.entry(label.clone()).or_default();
    *same += 1;
    if *same > 1 {
        label = format!("{}, {same})", label.trim_end_matches(')'));
    }
    let spans = ["encoder", split, "transform"].into_iter().filter_map(|field| {
        let name = if field == split { "data" } else { field };
        Some((name.to_string(), *user.field_spans.get(field)?))
    });
    Step {
        id,
        name: label.clone(),
        label,
        kind: Embed::KIND.into(),
        axes: Vec::new(),
        inputs: {
            let mut inputs = BTreeSet::new();
            params.values().for_each(|value| referred(value, &mut inputs));
            inputs.into_iter().collect()
        },
        params,
        span: user.span,
        field_spans: spans.collect(),
        implied: true,
        choice: None,
    }
}

/// Follows the steps that a value refers to to their new places.
fn moved(value: &mut Value, place: &[usize]) {
    match value {
        Value::Object(map) => {
            if let Some(step) = map.get_mut("$ref").and_then(|reference| reference.get_mut("step"))
                && let Some(at) = step.as_u64().and_then(|at| place.get(at as usize))
            {
                *step = json!(at);
                return;
            }
            map.values_mut().for_each(|inner| moved(inner, place));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| moved(inner, place)),
        _ => {}
    }
}

/// The steps that a value refers to.
fn referred(value: &Value, into: &mut BTreeSet<usize>) {
    match value {
        Value::Object(map) => match map.get("$ref") {
            Some(reference) => into.extend(reference["step"].as_u64().map(|step| step as usize)),
            None => map.values().for_each(|inner| referred(inner, into)),
        },
        Value::Array(items) => items.iter().for_each(|inner| referred(inner, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_dsl::{Expression, Loaded, Loader};

    struct None;

    impl Loader for None {
        fn load(&self, _: Option<&str>, path: &str) -> Result<Loaded, String> {
            Err(format!("{path} is not there"))
        }
    }

    fn program(text: &str) -> Program {
        let catalog = crate::catalog::catalog();
        let checked = harness_dsl::check("a.exp", text, &None, &catalog, &Default::default());
        imply(checked.program.unwrap_or_else(|| panic!("{:?}", checked.diagnostics)))
    }

    const TEXT: &str = r#"
image_folder a { path = "a" }
image_folder b { path = "b" }
let look = { resize = 32, crop = 32 }
for method in [zero, one] {
    knn near { encoder = method, train = a, test = b, transform = look }
    linear_probe cached { encoder = method, train = a, test = b, transform = look, features = cached }
    linear_probe fresh { encoder = method, train = a, test = b, transform = look }
}
knn far { encoder = zero, train = a, test = b }
encoder zero { source = random }
encoder one { source = pixels }
table t { rows = method, columns = [near.top1, cached.top1] }
claim "c" { near[zero].top1 > far.top1 }
"#;

    #[test]
    fn evaluations_of_the_same_pictures_share_their_features() {
        let program = program(TEXT);
        let implied: Vec<&Step> = program.steps.iter().filter(|step| step.implied).collect();
        let labels: Vec<&str> = implied.iter().map(|step| step.label.as_str()).collect();
        for wanted in ["features(zero, a)", "features(zero, b)", "features(one, a)", "features(zero, a, 2)"] {
            assert!(labels.contains(&wanted), "{wanted}: {labels:?}");
        }
        assert_eq!(implied.len(), 6);
        // Every step after those it refers to, and the places in tables and claims are those of their steps.
        for (at, step) in program.steps.iter().enumerate() {
            assert_eq!(step.id, at);
            assert!(step.inputs.iter().all(|&input| input < at), "{}", step.label);
        }
        let step = |label: &str| program.steps.iter().find(|step| step.label == label).unwrap();
        let near = step("near[method=zero]");
        assert!(near.params.contains_key("vectors") && !near.params.contains_key("encoder"));
        assert_eq!(near.params["vectors"], step("cached[method=zero]").params["vectors"]);
        assert!(step("fresh[method=zero]").params.contains_key("encoder"));
        let cell = &program.tables[0].rows[1].cells[0].values[0];
        assert_eq!(program.steps[cell.step].label, "near[method=one]");
        let Expression::Measured { cells, .. } = &program.claims[0].condition.comparisons[0].right else { panic!() };
        assert_eq!(program.steps[cells[0].step].label, "far");
    }

    #[test]
    fn a_program_without_evaluations_stays_as_it_is() {
        let text =
            "image_folder a { path = \"a\" }\nencoder e { source = random }\nembed f { encoder = e, data = a }\n";
        let program = program(text);
        assert_eq!(program.steps.len(), 3);
        assert!(program.steps.iter().all(|step| !step.implied));
    }
}
