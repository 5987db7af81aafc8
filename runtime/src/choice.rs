//! `best(family, by = metric)` once its numbers are there: which member it is, and that member's result under a record
//! of its own. What depends on it takes that member's outputs, so its keys follow the content that was chosen.

use crate::action::Finished;
use crate::start::measured;
use anyhow::{Result, bail};
use harness_cache::{ActionKey, Record};
use harness_dsl::{Choice, Program, Step};
use serde_json::{Value, json};

/// Chooses among the finished members of a step that is a choice.
///
/// Every member must have its number: a choice among those that happen to be there would be another one. A number that
/// is none (a diverged run) is never chosen. Of equal ones the first is.
///
/// # Errors
/// A number that a member did not measure; no member with a number.
pub fn choose(
    step: &Step,
    choice: &Choice,
    program: &Program,
    finished: &[Option<Finished>],
) -> Result<(Finished, Vec<String>)> {
    let ids = |value: &Value| -> Vec<usize> {
        let one = |item: &Value| item.pointer("/$ref/step").and_then(Value::as_u64).map(|id| id as usize);
        value.as_array().into_iter().flatten().filter_map(one).collect()
    };
    let of = step.params.get("of").map(ids).unwrap_or_default();
    let by: Vec<Vec<usize>> = step.params.get("by").and_then(Value::as_array).into_iter().flatten().map(ids).collect();
    let mut values: Vec<f64> = Vec::new();
    for by in &by {
        let mut sum = 0.0;
        for &id in by {
            let label = &program.steps[id].label;
            let Some(result) = &finished[id] else { bail!("`{label}` has no result to choose by") };
            let value = measured(&result.record, &choice.metric, choice.pick, choice.higher_is_better);
            let Some(value) = value else { bail!("`{label}` did not record `{}`, by which to choose", choice.by) };
            sum += value;
        }
        values.push(sum / by.len() as f64);
    }
    let better = |a: f64, b: f64| if choice.higher_is_better { a > b } else { a < b };
    let mut best: Option<usize> = None;
    for (at, &value) in values.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
        if best.is_none_or(|best| better(value, values[best])) {
            best = Some(at);
        }
    }
    let Some(best) = best else { bail!("no member has a number by which to choose ({} is NaN for all)", choice.by) };
    let mut warnings = Vec::new();
    let place = |at: usize| choice.places.get(at).cloned().unwrap_or_default();
    let ties: Vec<String> = (0..values.len()).filter(|&at| values[at] == values[best]).map(place).collect();
    if ties.len() > 1 {
        warnings.push(format!(
            "`{}`: {} are equally good ({} {}); the first is taken",
            step.name,
            ties.join(", "),
            choice.by,
            values[best]
        ));
    }
    if let Some(lost) = (0..values.len()).find(|&at| values[at].is_nan()) {
        warnings.push(format!(
            "`{}`: {} has no number ({} is NaN) and is never chosen",
            step.name,
            place(lost),
            choice.by
        ));
    }
    let member = of.get(best).copied().unwrap_or_default();
    let Some(chosen) = &finished[member] else { bail!("`{}` has no result", program.steps[member].label) };
    let outputs: serde_json::Map<String, Value> =
        chosen.record.outputs.iter().map(|(name, output)| (name.clone(), output.digest.to_string().into())).collect();
    let numbers: Vec<Value> =
        choice.places.iter().zip(&values).map(|(place, value)| json!({ "place": place, "value": value })).collect();
    let key = ActionKey::new(
        "best",
        1,
        json!({ "kind": step.kind, "by": choice.by, "chosen": place(best), "numbers": numbers, "outputs": outputs }),
    );
    let mut record = Record::new(key);
    record.outputs = chosen.record.outputs.clone();
    record.metrics = chosen.record.metrics.clone();
    record.series = chosen.record.series.clone();
    record.provenance = json!({ "chosen": program.steps[member].label });
    Ok((Finished { record, data: chosen.data.clone() }, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_dsl::Pick;
    use std::collections::BTreeMap;

    fn step(id: usize, choice: Option<Choice>) -> Step {
        let refer = |id: usize| json!({ "$ref": { "step": id, "output": "" } });
        let params = match &choice {
            Some(choice) => {
                let n = choice.places.len();
                let of: Vec<Value> = (0..n).map(refer).collect();
                let by: Vec<Vec<Value>> = (0..n).map(|at| vec![refer(at)]).collect();
                json!({ "of": of, "by": by })
            }
            None => json!({}),
        };
        let text = json!({
            "id": id, "name": "s", "label": format!("s{id}"), "kind": "knn", "axes": [], "params": params, "inputs": [],
            "span": { "source": 0, "start": 0, "end": 0 }, "field_spans": {}, "choice": choice,
        });
        serde_json::from_value(text).unwrap()
    }

    fn chosen(values: &[f64], up: bool) -> Result<(String, usize)> {
        let choice = Choice {
            places: (0..values.len()).map(|at| format!("lr={at}")).collect(),
            metric: "top1".into(),
            pick: Pick::Last,
            higher_is_better: up,
            by: "nn.top1".into(),
        };
        let mut steps: Vec<Step> = (0..values.len()).map(|id| step(id, None)).collect();
        steps.push(step(values.len(), Some(choice.clone())));
        let program = Program { steps, ..Program::default() };
        let finished: Vec<Option<Finished>> = values
            .iter()
            .map(|value| {
                let mut record = Record::new(ActionKey::new("knn", 1, json!({})));
                record.metrics.insert("top1".into(), *value);
                Some(Finished { record, data: BTreeMap::new() })
            })
            .chain([None])
            .collect();
        let (result, warnings) = choose(&program.steps[values.len()], &choice, &program, &finished)?;
        let place = result.record.key.params["chosen"].as_str().unwrap().to_owned();
        assert_eq!(result.record.provenance["chosen"], place.replace("lr=", "s"));
        Ok((place, warnings.len()))
    }

    #[test]
    fn the_best_number_chooses_and_nan_never_does() {
        assert_eq!(chosen(&[0.2, 0.5, 0.3], true).unwrap(), ("lr=1".into(), 0));
        assert_eq!(chosen(&[0.2, 0.5, 0.3], false).unwrap(), ("lr=0".into(), 0));
        assert_eq!(chosen(&[0.5, 0.2, 0.5], true).unwrap(), ("lr=0".into(), 1), "the first of equal ones, said");
        assert_eq!(chosen(&[f64::NAN, 0.2], false).unwrap(), ("lr=1".into(), 1));
        assert!(chosen(&[f64::NAN, f64::NAN], true).is_err());
    }
}
