//! The kinds of steps as the checker wants them, made from the schemas of their parameter structs.

use crate::overlap::ALLOWED;
use harness_dsl::{Catalog, Field, Kind, Metric, Output, Type, Variant};
use harness_protocol::steps;
use serde_json::{Map, Value, json};

/// The catalog of every kind.
pub fn catalog() -> Catalog {
    Catalog { kinds: steps::ALL.iter().map(kind).collect() }
}

fn kind(info: &harness_protocol::KindInfo) -> Kind {
    let schema = (info.schema)();
    let mut kind = Kind {
        name: info.name.into(),
        doc: text(&schema, "description"),
        fields: fields(&schema),
        outputs: info
            .outputs
            .iter()
            .map(|output| Output { name: output.name.into(), artifact: output.artifact.into(), doc: output.doc.into() })
            .collect(),
        dynamic_outputs: info.dynamic,
        dynamic_metrics: info.dynamic,
        metrics: info
            .metrics
            .iter()
            .map(|metric| Metric {
                name: metric.name.into(),
                doc: metric.doc.into(),
                series: metric.series,
                higher_is_better: metric.higher_is_better,
                on_test: metric.on_test,
                floor: metric.floor.map(|(name, _)| name.into()),
                floor_label: metric.floor.map(|(_, label)| label.into()),
                percent: metric.percent,
            })
            .collect(),
        random: info.random,
    };
    if !crate::datasets::is_dataset(info.name) {
        kind.fields.push(resources());
    }
    if let Some(test) = kind.judged_on() {
        kind.fields.push(Field {
            name: ALLOWED.into(),
            doc: format!("Files of `{test}` may also be among those learned from: a warning instead of an error."),
            ty: Type::Bool,
            default: Some(Value::Bool(false)),
            required: false,
            observes: true,
        });
    }
    kind
}

/// What every step that computes may say of the machine that it needs.
fn resources() -> Field {
    let field = |(name, ty, doc): &(&str, &str, &str)| Field {
        name: (*name).into(),
        doc: (*doc).into(),
        ty: match *ty {
            "count" => Type::Int { min: Some(0), max: Some(4096) },
            "size" => Type::Size,
            "duration" => Type::Duration,
            "where" => Type::Choice(vec!["local".into(), "slurm".into()]),
            _ => Type::Text,
        },
        default: None,
        required: false,
        observes: true,
    };
    Field {
        name: harness_executors::FIELD.into(),
        doc: "What it needs of a machine, and where it runs. Never part of the key.".into(),
        ty: Type::Record(harness_executors::Resources::FIELDS.iter().map(field).collect()),
        default: None,
        required: false,
        observes: true,
    }
}

fn text(schema: &Value, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn fields(schema: &Value) -> Vec<Field> {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    properties
        .iter()
        .filter(|(_, property)| !flag(property, "x-internal"))
        .map(|(name, property)| Field {
            name: name.clone(),
            doc: text(property, "description"),
            ty: match ty(property) {
                // Of inputs and paths the schema does not say that they may be left out; their default does.
                inner @ (Type::Input(_) | Type::Path) if property.get("default") == Some(&Value::Null) => {
                    Type::Optional(Box::new(inner))
                }
                ty => ty,
            },
            default: property.get("default").cloned(),
            required: required.contains(&name.as_str()),
            observes: flag(property, "x-observes"),
        })
        .collect()
}

/// The language's type of a schema. What the schemas here cannot hold becomes [`Type::Any`]; a test shows that none does.
fn ty(schema: &Value) -> Type {
    if let Some(accepted) = schema.get("x-input").and_then(Value::as_array) {
        let accepted: Vec<String> = accepted.iter().filter_map(Value::as_str).map(String::from).collect();
        let any = accepted.iter().any(|kind| kind == "any");
        let all = harness_protocol::artifact::KINDS.iter().map(|kind| kind.to_string()).collect();
        return Type::Input(if any { all } else { accepted });
    }
    if let Some(choices) = schema.get("x-choices").and_then(Value::as_array) {
        return Type::Choice(choices.iter().filter_map(Value::as_str).map(String::from).collect());
    }
    match schema.get("x-type").and_then(Value::as_str) {
        Some("path" | "file") => return Type::Path,
        Some("range") => {
            return Type::Range(Box::new(Type::Float { min: None, max: None, exclusive_min: false }));
        }
        Some("duration") => return Type::Duration,
        Some("size") => return Type::Size,
        _ => {}
    }
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array)
        && let [inner, null] = options.as_slice()
        && null.get("type").and_then(Value::as_str) == Some("null")
    {
        return Type::Optional(Box::new(ty(inner)));
    }
    if let Some(options) = schema.get("oneOf").and_then(Value::as_array) {
        if options.iter().all(|option| option.get("const").is_some()) {
            return Type::Choice(options.iter().map(|option| text(option, "const")).collect());
        }
        return Type::Tagged(options.iter().filter_map(variant).collect());
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Type::Choice(words.iter().filter_map(Value::as_str).map(String::from).collect());
    }
    if let Some(Value::Array(types)) = schema.get("type") {
        let mut inner = schema.clone();
        if let Some(first) = types.iter().find(|name| name.as_str() != Some("null")) {
            inner["type"] = first.clone();
            return Type::Optional(Box::new(ty(&inner)));
        }
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => Type::Bool,
        Some("string") => Type::Text,
        Some("integer") => {
            Type::Int { min: bound("minimum").map(|v| v as i64), max: bound("maximum").map(|v| v as i64) }
        }
        Some("number") => {
            let exclusive = bound("exclusiveMinimum");
            Type::Float {
                min: exclusive.or(bound("minimum")),
                max: bound("maximum"),
                exclusive_min: exclusive.is_some(),
            }
        }
        Some("array") => Type::List(Box::new(schema.get("items").map_or(Type::Any, ty))),
        Some("object") => match schema.get("additionalProperties") {
            Some(inner) if inner.is_object() => Type::Map(Box::new(ty(inner))),
            _ => Type::Record(fields(schema)),
        },
        _ => Type::Any,
    }
}

fn variant(option: &Value) -> Option<Variant> {
    let (name, body) = option.get("properties")?.as_object()?.iter().next()?;
    Some(Variant { name: name.clone(), doc: text(option, "description"), fields: fields(body) })
}

/// Writes every bare tag (`"cosine"`) as serde has it (`{"cosine":{}}`), and choices stay as they are.
pub fn expand_tags(value: &mut Value, ty: &Type) {
    match ty {
        Type::Tagged(variants) => {
            if let Value::String(tag) = value {
                *value = json!({ tag.as_str(): {} });
            }
            if let Value::Object(map) = value
                && let Some((tag, body)) = map.iter_mut().next()
                && let Some(variant) = variants.iter().find(|variant| &variant.name == tag)
                && let Value::Object(body) = body
            {
                expand_fields(body, &variant.fields);
            }
        }
        Type::Optional(inner) if !value.is_null() => expand_tags(value, inner),
        Type::Record(fields) => {
            if let Value::Object(map) = value {
                expand_fields(map, fields);
            }
        }
        Type::List(inner) => value.as_array_mut().into_iter().flatten().for_each(|item| expand_tags(item, inner)),
        Type::Map(inner) => {
            if let Value::Object(map) = value {
                map.values_mut().for_each(|item| expand_tags(item, inner));
            }
        }
        _ => {}
    }
}

/// [`expand_tags`] for every field of a record.
pub fn expand_fields(map: &mut Map<String, Value>, fields: &[Field]) {
    for field in fields {
        if let Some(value) = map.get_mut(&field.name) {
            expand_tags(value, &field.ty);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_left_without_a_type() {
        fn walk(ty: &Type, place: &str) {
            match ty {
                Type::Any => panic!("{place} has no type"),
                Type::Range(inner) | Type::List(inner) | Type::Map(inner) | Type::Optional(inner) => walk(inner, place),
                Type::Record(fields) => {
                    fields.iter().for_each(|field| walk(&field.ty, &format!("{place}.{}", field.name)))
                }
                Type::Tagged(variants) => {
                    assert!(!variants.is_empty(), "{place} has no tags");
                    for variant in variants {
                        for field in &variant.fields {
                            walk(&field.ty, &format!("{place}.{}.{}", variant.name, field.name));
                        }
                    }
                }
                _ => {}
            }
        }
        for kind in catalog().kinds {
            for field in &kind.fields {
                walk(&field.ty, &format!("{}.{}", kind.name, field.name));
                assert!(!field.doc.is_empty(), "{}.{} has no description", kind.name, field.name);
            }
            assert_eq!(kind.random, kind.field("seed").is_some(), "{}: a seed and only then", kind.name);
        }
    }

    #[test]
    fn bare_tags_become_records_at_any_depth() {
        let catalog = catalog();
        let kind = catalog.kind("encoder").unwrap();
        let mut params = json!({ "source": { "random": { "architecture": "resnet18" } } });
        expand_fields(params.as_object_mut().unwrap(), &kind.fields);
        assert_eq!(params, json!({ "source": { "random": { "architecture": { "resnet18": {} } } } }));
    }
}
