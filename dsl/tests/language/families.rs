//! Axes: families, references that line up, tables and claims over them.

use crate::catalog::{codes, program, step};
use harness_dsl::{Expression, Pick, Program};
use serde_json::{Value, json};

const STUDY: &str = include_str!("study.exp");

/// Which step a field refers to, by label.
fn refers(program: &Program, label: &str, field: &str) -> String {
    let id = step(program, label).params[field]["$ref"]["step"].as_u64().unwrap();
    program.steps[id as usize].label.clone()
}

#[test]
fn references_line_up_inside_shared_axes() {
    let program = program(STUDY);
    assert_eq!(refers(&program, "nn[seed=2, method=moco]", "encoder"), "moco[seed=2]");
    assert_eq!(refers(&program, "nn[seed=3, method=untrained]", "encoder"), "untrained[seed=3]");
    assert_eq!(refers(&program, "nn[seed=1, method=crops]", "train"), "world");
    // In another block of the same axis.
    assert_eq!(refers(&program, "video[seed=3, method=moco]", "encoder"), "moco[seed=3]");
    assert_eq!(step(&program, "moco[seed=2]").params["seed"], json!(2));
    assert_eq!(step(&program, "crops[seed=3]").params["seed"], json!(3));
    assert_eq!(step(&program, "nn[seed=1, method=moco]").params.get("seed"), None);
    assert!(program.steps.iter().enumerate().all(|(index, step)| step.id == index));
    assert!(program.steps.iter().all(|step| step.inputs.iter().all(|&input| input < step.id)));
}

#[test]
fn tables_have_a_row_for_each_value_and_a_cell_for_each_replicate() {
    let program = program(STUDY);
    let table = &program.tables[0];
    assert_eq!((table.name.as_str(), table.title.as_str()), ("transfer", "Frozen transfer"));
    let rows: Vec<&str> = table.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(rows, ["moco", "crops", "untrained"]);
    let columns: Vec<&str> = table.columns.iter().map(|column| column.label.as_str()).collect();
    assert_eq!(columns, ["nn.top1", "video.jf"]);
    let nn = &table.rows[1].cells[0];
    let places: Vec<_> = nn.values.iter().map(|cell| cell.replicate.as_deref().unwrap()).collect();
    assert_eq!(places, ["seed=1", "seed=2", "seed=3"]);
    assert!(nn.values.iter().all(|cell| program.steps[cell.step].label.contains("method=crops")));
    assert_eq!(nn.floor.len(), 3);
    assert!(nn.floor.iter().all(|cell| cell.metric == "majority"));
    // No `video` for this one.
    assert_eq!(table.rows[2].cells[1].values, []);
}

#[test]
fn claims_name_their_numbers() {
    let program = program(STUDY);
    let condition = &program.claims[0].condition;
    assert_eq!(program.claims[0].source, "nn[crops].top1 - nn[moco].top1 > 5");
    let Expression::Binary { left, .. } = &condition.comparisons[0].left else { panic!("no difference") };
    let Expression::Measured { cells, pick, source } = left.as_ref() else { panic!("no number") };
    assert_eq!((cells.len(), *pick, source.as_str()), (3, Pick::Last, "nn[crops].top1"));
    assert_eq!(program.claims[1].condition.comparisons.len(), 2);
    let Expression::Measured { pick, .. } = &program.claims[1].condition.comparisons[0].left else { panic!() };
    assert_eq!(*pick, Pick::At(100.0));
}

/// The steps by label, with references by label too, so that their numbers do not matter.
fn by_label(program: &Program) -> Vec<(String, Value)> {
    fn named(value: &Value, program: &Program) -> Value {
        match value {
            Value::Object(map) => match map.get("$ref") {
                Some(reference) => {
                    let id = reference["step"].as_u64().unwrap() as usize;
                    json!([program.steps[id].label, reference["output"]])
                }
                None => map.iter().map(|(name, value)| (name.clone(), named(value, program))).collect(),
            },
            Value::Array(items) => items.iter().map(|item| named(item, program)).collect(),
            other => other.clone(),
        }
    }
    let mut steps: Vec<(String, Value)> = program
        .steps
        .iter()
        .map(|step| (step.label.clone(), named(&Value::Object(step.params.clone()), program)))
        .collect();
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    steps
}

#[test]
fn the_order_of_declarations_changes_no_step() {
    let parts: Vec<&str> = STUDY.split("\n\n").collect();
    let backwards = parts.iter().rev().copied().collect::<Vec<_>>().join("\n\n");
    assert_ne!(backwards, STUDY);
    assert_eq!(by_label(&program(&backwards)), by_label(&program(STUDY)));
}

#[test]
fn plain_values_make_axes_too() {
    let program = program(
        "scenes world {}
        for width in [1, 2] { for schedule in [\"cosine\", \"step\"] {
            pretrain p { data = world, schedule = schedule, epochs = 10 * width }
        } }
        command c { run = [], inputs = { a = p[2, cosine], b = p[width = 1, schedule = \"step\"] } }",
    );
    let p = step(&program, "p[width=2, schedule=cosine]");
    assert_eq!((&p.params["epochs"], &p.params["schedule"]), (&json!(20), &json!("cosine")));
    let inputs = &step(&program, "c").params["inputs"];
    let target = |name: &str| program.steps[inputs[name]["$ref"]["step"].as_u64().unwrap() as usize].label.clone();
    assert_eq!(target("a"), "p[width=2, schedule=cosine]");
    assert_eq!(target("b"), "p[width=1, schedule=step]");
}

#[test]
fn what_a_command_declares_can_be_used() {
    let program = program(
        "scenes world {}
        command c { run = [\"x\"], outputs = { e = { kind = encoder } }, metrics = [\"loss\"] }
        knn nn { encoder = c.e, train = world.train, test = world.test }
        claim \"small\" { c.loss < 1 }",
    );
    assert_eq!(refers(&program, "nn", "encoder"), "c");
}

#[test]
fn what_cannot_line_up_is_refused() {
    let start = "scenes world {}
        replicate seed in [1, 2] { pretrain p { data = world } }
        for m in [p] { replicate seed in [1, 2] { knn nn { encoder = m, train = world, test = world.test } } }\n";
    let with = |more: &str| codes(&format!("{start}{more}"));
    assert_eq!(with(""), [""; 0]);
    assert_eq!(with("knn x { encoder = p, train = world, test = world.test }"), ["E0112"]);
    assert_eq!(with("knn x { encoder = p[seed = 2], train = world, test = world.test }"), [""; 0]);
    assert_eq!(with("knn x { encoder = p[3], train = world, test = world.test }"), ["E0113"]);
    assert_eq!(with("replicate seed in [3] { knn x { encoder = p, train = world, test = world.test } }"), ["E0113"]);
    assert_eq!(with("for seed in [1] { scenes x {} }"), ["E0114"]);
    assert_eq!(with("replicate seed in [1, 1] { scenes x {} }"), ["E0114"]);
    assert_eq!(with("replicate seed in [0.5] { scenes x {} }"), ["E0114"]);
    assert_eq!(with("for k in [] { scenes x {} }"), ["E0114"]);
    assert_eq!(with("for k in 3 { scenes x {} }"), ["E0114"]);
    assert_eq!(with("for k in [1] { for k in [2] { scenes x {} } }"), ["E0114"]);
    assert_eq!(with("claim \"c\" { nn.top1 > 1 }"), [""; 0]);
    assert_eq!(with("for l in [p, world] { scenes x {} }\nclaim \"c\" { nn[world].top1 > 1 }"), ["E0113"]);
    assert_eq!(
        with("replicate fold in [1, 2] { pretrain q { data = world } }\nclaim \"c\" { q.loss.last > p.loss.last }"),
        ["E0120"]
    );
    assert_eq!(with("pretrain a { data = world, monitor = knn { train = b, test = a } }\nscenes b {}"), ["E0109"]);
    assert_eq!(
        with(
            "command a { run = [], inputs = { x = b } , outputs = { o = { kind = folder } } }
            command b { run = [], inputs = { x = a } , outputs = { o = { kind = folder } } }"
        ),
        ["E0115"]
    );
}
