//! A small catalog, texts as files, and short ways to check a text.

use harness_dsl::{
    Catalog, Checked, Field, Kind, Loaded, Loader, Metric, Output, Program, Step, Type, Variant, check, render,
};
use std::collections::BTreeMap;

fn field(name: &str, ty: Type) -> Field {
    Field { name: name.into(), doc: String::new(), ty, default: None, required: false, observes: false }
}

fn required(name: &str, ty: Type) -> Field {
    Field { required: true, ..field(name, ty) }
}

fn int(min: i64) -> Type {
    Type::Int { min: Some(min), max: None }
}

fn unit() -> Type {
    Type::Float { min: Some(0.0), max: Some(1.0), exclusive_min: false }
}

fn positive() -> Type {
    Type::Float { min: Some(0.0), max: None, exclusive_min: true }
}

fn input(artifacts: &[&str]) -> Type {
    Type::Input(artifacts.iter().map(|artifact| artifact.to_string()).collect())
}

fn variant(name: &str, fields: Vec<Field>) -> Variant {
    Variant { name: name.into(), doc: String::new(), fields }
}

fn output(name: &str, artifact: &str) -> Output {
    Output { name: name.into(), artifact: artifact.into(), doc: String::new() }
}

fn metric(name: &str, series: bool, floor: Option<&str>) -> Metric {
    Metric {
        name: name.into(),
        doc: String::new(),
        series,
        higher_is_better: true,
        on_test: !series,
        floor: floor.map(str::to_owned),
        floor_label: floor.map(|_| "majority class".into()),
        percent: name != "loss",
    }
}

fn crops() -> Type {
    Type::Record(vec![
        required("count", int(1)),
        required("size", int(8)),
        field("scale", Type::Range(Box::new(unit()))),
    ])
}

/// The kinds that the tests use.
pub fn catalog() -> Catalog {
    let scenes = Kind {
        name: "scenes".into(),
        fields: vec![
            field("train", int(1)),
            field("classes", int(2)),
            field("objects", Type::Range(Box::new(Type::Int { min: Some(0), max: Some(9) }))),
        ],
        outputs: vec![
            output("train", "images"),
            output("holdout", "images"),
            output("test", "images"),
            output("videos", "videos"),
        ],
        ..Kind::default()
    };
    let folder = Kind {
        name: "image_folder".into(),
        fields: vec![required("path", Type::Path)],
        outputs: vec![output("train", "images"), output("test", "images"), output("all", "images")],
        ..Kind::default()
    };
    let encoder = Kind {
        name: "encoder".into(),
        fields: vec![field("source", Type::Choice(vec!["random".into(), "pixels".into()])), field("seed", int(0))],
        outputs: vec![output("encoder", "encoder")],
        random: true,
        ..Kind::default()
    };
    let pretrain = Kind {
        name: "pretrain".into(),
        fields: vec![
            required("data", input(&["images"])),
            field("encoder", Type::Choice(vec!["resnet18".into(), "resnet50".into()])),
            field("epochs", int(1)),
            field("batch", int(1)),
            field(
                "optimizer",
                Type::Tagged(vec![variant(
                    "sgd",
                    vec![required("lr", positive()), field("momentum", unit()), field("weight_decay", unit())],
                )]),
            ),
            field("schedule", Type::Choice(vec!["cosine".into(), "step".into()])),
            field(
                "contrast",
                Type::Tagged(vec![
                    variant("none", vec![]),
                    variant(
                        "moco",
                        vec![
                            field("dim", int(1)),
                            field("queue", int(1)),
                            field("momentum", unit()),
                            field("temperature", positive()),
                        ],
                    ),
                ]),
            ),
            field(
                "views",
                Type::Tagged(vec![
                    variant("two_crops", vec![field("size", int(8)), field("scale", Type::Range(Box::new(unit())))]),
                    variant(
                        "multi_crop",
                        vec![required("large", crops()), required("small", crops()), field("overlap", unit())],
                    ),
                ]),
            ),
            field(
                "monitor",
                Type::Tagged(vec![variant(
                    "knn",
                    vec![
                        required("train", input(&["images"])),
                        required("test", input(&["images"])),
                        field("every", int(1)),
                    ],
                )]),
            ),
            field("keep", Type::List(Box::new(int(1)))),
            field("limit", Type::Optional(Box::new(Type::Duration))),
            field("memory", Type::Size),
            field("seed", int(0)),
        ],
        outputs: vec![output("encoder", "encoder")],
        metrics: vec![metric("loss", true, None), metric("knn_top1", true, None)],
        random: true,
        ..Kind::default()
    };
    let knn = Kind {
        name: "knn".into(),
        fields: vec![
            required("encoder", input(&["encoder"])),
            required("train", input(&["images"])),
            required("test", input(&["images"])),
            field("k", int(1)),
        ],
        metrics: vec![metric("top1", false, Some("majority")), metric("majority", false, None)],
        ..Kind::default()
    };
    let propagate = Kind {
        name: "propagate".into(),
        fields: vec![required("encoder", input(&["encoder"])), required("data", input(&["videos"]))],
        metrics: vec![metric("jf", false, None)],
        ..Kind::default()
    };
    let command = Kind {
        name: "command".into(),
        fields: vec![
            required("run", Type::List(Box::new(Type::Text))),
            field("inputs", Type::Map(Box::new(input(&["any"])))),
            field(
                "outputs",
                Type::Map(Box::new(Type::Record(vec![required(
                    "kind",
                    Type::Choice(vec!["encoder".into(), "images".into(), "folder".into()]),
                )]))),
            ),
            field("metrics", Type::List(Box::new(Type::Text))),
            field("extra", Type::Any),
        ],
        dynamic_outputs: true,
        dynamic_metrics: true,
        ..Kind::default()
    };
    Catalog { kinds: vec![scenes, folder, encoder, pretrain, knn, propagate, command] }
}

/// Texts by name.
#[derive(Default)]
pub struct Files(pub BTreeMap<&'static str, &'static str>);

impl Loader for Files {
    fn load(&self, _from: Option<&str>, path: &str) -> Result<Loaded, String> {
        // `./a.exp` and `a.exp` are the same file, as with real paths.
        let name = path.trim_start_matches("./");
        match self.0.get(name) {
            Some(text) => Ok(Loaded { name: name.into(), text: (*text).into() }),
            None => Err("there is no such file".into()),
        }
    }
}

/// Checks a text with imports and overrides.
pub fn check_with(text: &str, files: &[(&'static str, &'static str)], overrides: &[(&str, &str)]) -> Checked {
    let files = Files(files.iter().copied().collect());
    let overrides = overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    check("test.exp", text, &files, &catalog(), &overrides)
}

/// The program of a text that must be right.
pub fn program(text: &str) -> Program {
    let checked = check_with(text, &[], &[]);
    match checked.program {
        Some(program) if checked.diagnostics.is_empty() => program,
        _ => panic!("{}", render(&checked.diagnostics, &checked.sources, false)),
    }
}

/// The codes found in a text, in order of place.
pub fn codes(text: &str) -> Vec<&'static str> {
    check_with(text, &[], &[]).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// What is shown of a text that must be wrong.
pub fn shown(text: &str) -> String {
    let checked = check_with(text, &[], &[]);
    assert!(checked.program.is_none(), "this text is right:\n{text}");
    render(&checked.diagnostics, &checked.sources, false)
}

/// The step of that label.
pub fn step<'a>(program: &'a Program, label: &str) -> &'a Step {
    let labels: Vec<&str> = program.steps.iter().map(|step| step.label.as_str()).collect();
    program
        .steps
        .iter()
        .find(|step| step.label == label)
        .unwrap_or_else(|| panic!("no step {label}, there is {labels:?}"))
}
