//! `best(family, by = metric)`: what stands for the member that turns out best.

use crate::catalog::{check_with, codes, program, shown, step};
use harness_dsl::{Pick, Program, Severity, Step};
use serde_json::json;

/// A sweep with a number to choose by.
const SWEEP: &str = "scenes world {}
    for lr in [0.1, 1.0] {
        pretrain moco { data = world.train, optimizer = sgd { lr = lr } }
        knn val { encoder = moco, train = world.train, test = world.holdout }
    }\n";

fn with(more: &str) -> String {
    format!("{SWEEP}{more}")
}

/// The labels that a list of references names.
fn labels<'a>(program: &'a Program, list: &serde_json::Value) -> Vec<&'a str> {
    let ids = list.as_array().unwrap().iter().map(|item| item["$ref"]["step"].as_u64().unwrap() as usize);
    ids.map(|id| program.steps[id].label.as_str()).collect()
}

fn by<'a>(program: &'a Program, step: &Step) -> Vec<Vec<&'a str>> {
    step.params["by"].as_array().unwrap().iter().map(|list| labels(program, list)).collect()
}

#[test]
fn a_step_of_its_own_stands_for_the_best() {
    let program =
        program(&with("knn final { encoder = best(moco, by = val.top1), train = world.train, test = world.test }"));
    let best = step(&program, "best(moco, by = val.top1)");
    assert!(best.implied && best.kind == "pretrain");
    assert_eq!(labels(&program, &best.params["of"]), ["moco[lr=0.1]", "moco[lr=1]"]);
    assert_eq!(by(&program, best), [["val[lr=0.1]"], ["val[lr=1]"]]);
    let choice = best.choice.as_ref().unwrap();
    assert_eq!((choice.metric.as_str(), choice.pick, choice.higher_is_better), ("top1", Pick::Last, true));
    assert_eq!(choice.places, ["lr=0.1", "lr=1"]);
    let last = step(&program, "final");
    assert_eq!(last.params["encoder"], json!({ "$ref": { "step": best.id, "output": "encoder" } }));
    // It comes behind what it needs, and before what needs it.
    assert!(best.inputs.iter().all(|&input| input < best.id) && last.inputs.contains(&best.id));
    assert!(program.steps.iter().enumerate().all(|(at, step)| step.id == at));
}

#[test]
fn its_own_numbers_choose_too() {
    for (written, pick) in [("loss.last", Pick::Last), ("moco.loss.last", Pick::Last), ("loss.at(20)", Pick::At(20.0))]
    {
        let text = with(&format!("knn f {{ encoder = best(moco, by = {written}), train = world, test = world.test }}"));
        let program = program(&text);
        let best = program.steps.iter().find(|step| step.choice.is_some()).unwrap();
        assert_eq!(by(&program, best), [["moco[lr=0.1]"], ["moco[lr=1]"]], "{written}");
        assert_eq!(best.choice.as_ref().unwrap().pick, pick);
    }
    // Of what a program reports nobody knows whether more is better, but for the sign.
    let tool = "for k in [1, 2] { command tool { run = [\"x\" + k], metrics = [\"error\"], outputs = { e = { kind = encoder } } } }
        scenes world {}\n";
    for (sign, up) in [("", true), ("-", false)] {
        let text = format!(
            "{tool}knn f {{ encoder = best(tool, by = {sign}error).e, train = world.train, test = world.test }}"
        );
        let program = program(&text);
        let best = program.steps.iter().find_map(|step| step.choice.as_ref()).unwrap();
        assert_eq!(best.higher_is_better, up);
    }
}

#[test]
fn each_replicate_chooses_for_itself_and_a_table_by_the_mean() {
    let text = "scenes world {}
        replicate seed in [1, 2] {
            for lr in [0.1, 1.0] {
                pretrain moco { data = world.train, optimizer = sgd { lr = lr } }
                knn val { encoder = moco, train = world.train, test = world.holdout }
            }
            knn final { encoder = best(moco, by = val.top1), train = world.train, test = world.test }
        }
        for method in [moco] { propagate video { encoder = method[lr = 1.0, seed = 1], data = world.videos } }
        claim \"c\" { final.top1 > 2 and best(moco, by = val.top1).loss.last < 1 }
        figure f { y = best(moco, by = val.top1).loss }\n";
    let program = program(text);
    let one = step(&program, "best(moco, by = val.top1)[seed=2]");
    assert_eq!(labels(&program, &one.params["of"]), ["moco[seed=2, lr=0.1]", "moco[seed=2, lr=1]"]);
    assert_eq!(by(&program, one), [["val[seed=2, lr=0.1]"], ["val[seed=2, lr=1]"]]);
    // In a claim one member stands for all replicates, chosen by their mean.
    let all = step(&program, "best(moco, by = mean of val.top1)[seed=2]");
    assert_eq!(labels(&program, &all.params["of"]), ["moco[seed=2, lr=0.1]", "moco[seed=2, lr=1]"]);
    assert_eq!(
        by(&program, all),
        [["val[seed=1, lr=0.1]", "val[seed=2, lr=0.1]"], ["val[seed=1, lr=1]", "val[seed=2, lr=1]"]]
    );
    // The figure shows what the claim chose: one choice, made once.
    let cells = &program.figures[0].drawings[0].cells;
    assert_eq!(cells.len(), 2);
    assert_eq!(program.steps[cells[1].step].label, all.label);
    assert_eq!(program.steps.iter().filter(|step| step.choice.is_some()).count(), 4);
}

#[test]
fn rows_of_a_table_choose_each_for_itself() {
    let text = "scenes world {}
        encoder untrained { source = random }
        pretrain moco { data = world.train }
        for method in [moco, untrained] { for k in [1, 5, 20] {
            knn val { encoder = method, train = world.train, test = world.holdout, k = k }
            knn nn  { encoder = method, train = world.train, test = world.test, k = k }
        } }
        table t { rows = method, columns = [best(nn, by = val.top1).top1] }";
    let program = program(text);
    let rows: Vec<Vec<&str>> = program.tables[0]
        .rows
        .iter()
        .map(|row| labels(&program, &program.steps[row.cells[0].values[0].step].params["of"]))
        .collect();
    assert_eq!(rows[0], ["nn[method=moco, k=1]", "nn[method=moco, k=5]", "nn[method=moco, k=20]"]);
    assert!(rows[1].iter().all(|label| label.contains("untrained")));
    assert_eq!(program.tables[0].columns[0].label, "best(nn, by = val.top1).top1");
}

#[test]
fn the_best_is_a_place_on_an_axis() {
    let program = program(&with(
        "encoder untrained { source = random }
        let tuned = best(moco, by = val.top1)
        for method in [tuned, untrained] { knn nn { encoder = method, train = world.train, test = world.test } }
        claim \"c\" { nn[tuned].top1 > nn[untrained].top1 }",
    ));
    assert!(step(&program, "nn[method=best(moco)]").inputs.contains(&step(&program, "best(moco, by = val.top1)").id));
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let used =
        |best: &str| codes(&with(&format!("knn f {{ encoder = {best}, train = world.train, test = world.test }}")));
    assert_eq!(used("best(moco, by = val.top1)"), [""; 0]);
    assert_eq!(used("best(moco, by = val.top2)"), ["E0111"]);
    assert_eq!(used("best(moco, by = tpo1)"), ["E0111"]);
    assert_eq!(used("best(moco, by = loss)"), ["E0111"], "a curve is no number");
    assert_eq!(used("best(moco, by = -loss.last)"), ["E0125"], "that less is better is known");
    assert_eq!(used("best(moco[lr = 0.1], by = val.top1)"), ["E0125"], "one member");
    assert_eq!(used("best(moco.encoder, by = val.top1)"), ["E0125"]);
    assert_eq!(used("best(mocoo, by = val.top1)"), ["E0103"]);
    assert_eq!(used("best(3, by = val.top1)"), ["E0125"]);
    assert_eq!(used("best(best(moco, by = val.top1), by = val.top1)"), ["E0125"]);
    assert_eq!(used("best(val, by = val.top1)"), ["E0109"], "a `knn` gives no encoder");
    assert_eq!(used("best(moco, val.top1)"), ["E0010"]);
    assert_eq!(used("best(moco)"), ["E0010"]);
    // Numbers that are the same for all.
    let other = "knn other { encoder = moco[1.0], train = world.train, test = world.holdout }
        knn f { encoder = best(moco, by = other.top1), train = world.train, test = world.test }";
    assert_eq!(codes(&with(other)), ["E0125"]);
    let said = shown(
        "scenes world {}
        replicate seed in [1, 2] { for lr in [0.1, 1.0] { pretrain moco { data = world.train } } }
        knn f { encoder = best(moco, by = loss.last), train = world.train, test = world.test }",
    );
    assert!(
        said.contains("a replicate is not chosen") && said.contains("put this inside `replicate seed in …`"),
        "{said}"
    );
    // A choice that needs its own result.
    let circle = "scenes world {}
        for lr in [0.1, 1.0] {
            pretrain moco { data = world.train }
            knn val { encoder = best(moco, by = val.top1), train = world.train, test = world.holdout }
        }";
    assert_eq!(codes(circle), ["E0125"], "inside the block there is one `moco`");
}

fn warnings(text: &str) -> Vec<&'static str> {
    let checked = check_with(text, &[], &[]);
    assert!(checked.diagnostics.iter().all(|found| found.severity == Severity::Warning), "{:?}", checked.diagnostics);
    checked.diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn choosing_by_test_data_is_a_warning() {
    let program = |by: &str, judged: &str| {
        format!(
            "scenes world {{}}\nencoder e {{ source = random }}\nfor k in [1, 5] {{
                knn val {{ encoder = e, train = world.train, test = {by}, k = k }}
                knn nn {{ encoder = e, train = world.train, test = {judged}, k = k }}
            }}\nclaim \"c\" {{ best(nn, by = val.top1).top1 > 3 }}"
        )
    };
    assert_eq!(warnings(&program("world.holdout", "world.test")), [""; 0]);
    // The very data that the result is judged on.
    assert_eq!(warnings(&program("world.holdout", "world.holdout")), ["W0204"]);
    // Called `test`, though nothing that rests on the choice is judged on it.
    assert_eq!(warnings(&program("world.test", "world.holdout")), ["W0204"]);
    // Through a step that takes the chosen one.
    let later = "knn f { encoder = best(moco, by = val.top1), train = world.train, test = world.holdout }\n";
    assert_eq!(warnings(&with(later)), ["W0204"], "in no table and no claim, and measured all the same");
    assert_eq!(warnings(&with(&format!("{later}claim \"c\" {{ f.top1 > 3 }}"))), ["W0204"]);
}

#[test]
fn what_nothing_uses_or_nothing_changes_is_a_warning() {
    assert_eq!(warnings("param a = 1\nparam b = a\nscenes w { train = b }"), [""; 0]);
    assert_eq!(warnings("param a = 1\nscenes w {}"), ["W0201"]);
    let checked = check_with("import \"base.exp\"\nscenes w {}", &[("base.exp", "param size = 4")], &[]);
    assert_eq!(checked.diagnostics, [], "a file that others import as well");
    let nearest = |what: &str| {
        format!(
            "scenes w {{}}\nencoder e {{ source = random, seed = 3 }}\nreplicate seed in [1, 2] {{
                pretrain p {{ data = w }}\n knn nn {{ encoder = {what}, train = w.train, test = w.test }}\n}}"
        )
    };
    assert_eq!(warnings(&nearest("p")), [""; 0]);
    assert_eq!(warnings(&nearest("e")), ["W0202"]);
    // Random only through what it takes.
    let fixed = "scenes w {}\nreplicate seed in [1, 2] { encoder e { source = random, seed = 3 }
        knn nn { encoder = e, train = w.train, test = w.test } }";
    assert_eq!(warnings(fixed), ["W0202"], "said of the encoder, and not again of what takes it");
}

#[test]
fn what_was_learned_from_judges_nothing() {
    let judged = |train: &str, test: &str| {
        codes(&format!(
            "scenes w {{}}\npretrain p {{ data = w.holdout }}\nknn nn {{ encoder = p, train = {train}, test = {test} }}"
        ))
    };
    assert_eq!(judged("w.train", "w.test"), [""; 0]);
    assert_eq!(judged("w.train", "w.train"), ["E0126"]);
    assert_eq!(judged("w", "w.train"), ["E0126"], "`w` is `w.train`");
    assert_eq!(judged("w.train", "w.holdout"), ["E0126"], "the encoder learned from it");
    // What is only watched is not learned from.
    let watched = "scenes w {}\npretrain p { data = w, monitor = knn { train = w.holdout, test = w.test } }
        knn nn { encoder = p, train = w.train, test = w.test }";
    assert_eq!(codes(watched), [""; 0]);
}

#[test]
fn a_copy_of_a_family_is_a_family() {
    let text = "scenes w {}
        for lr in [0.1, 1.0] { replicate seed in [1, 2] { pretrain moco { data = w, optimizer = sgd { lr = lr } } } }
        pretrain long from moco { epochs = 800, optimizer.momentum = 0.5 }
        pretrain one from moco[lr = 1.0] { epochs = 3 }
        pretrain last from one[seed = 2] { batch = 7 }
        for lr in [0.1] { knn nn { encoder = long[seed = 1], train = w.holdout, test = w.test } }";
    let program = program(text);
    let long = step(&program, "long[lr=1, seed=2]");
    assert_eq!(long.params["optimizer"], json!({ "sgd": { "lr": 1.0, "momentum": 0.5 } }));
    assert_eq!((&long.params["seed"], &long.params["epochs"]), (&json!(2), &json!(800)));
    assert_eq!(step(&program, "one[seed=1]").params["optimizer"], json!({ "sgd": { "lr": 1.0 } }));
    assert_eq!(step(&program, "last").params["batch"], json!(7));
    assert_eq!(step(&program, "last").params.get("seed"), None, "outside every `replicate`");
    assert_eq!(program.steps.iter().filter(|step| step.name == "long").count(), 4);
    assert_eq!(codes("scenes w {}\nfor k in [1] { pretrain m { data = w } }\npretrain n from m[k = 2] {}"), ["E0113"]);
}

#[test]
fn what_is_meant_is_not_warned_of() {
    let fine = |body: &str| warnings(&format!("scenes w {{}}\nencoder px {{ source = pixels, seed = 0 }}\n{body}"));
    // A step that does not depend on the axis stands beside others that do.
    let beside = "for lr in [0.1, 1.0] { pretrain p { data = w, optimizer = sgd { lr = lr } }
        encoder e { source = random } }";
    assert_eq!(fine(beside), [""; 0]);
    // An outer replicate that draws the data, an inner one that trains.
    let draws = "replicate draw in [1, 2] { scenes v { train = 10 * draw }\n replicate seed in [1, 2] {
        pretrain p { data = v }\n encoder e { source = random } } }";
    assert_eq!(fine(draws), ["W0206"], "`train` is no draw");
    let seeds =
        "for method in [\"a\", \"b\"] { pretrain p { data = w, schedule = if method == \"a\" then step else cosine,
        seed = if method == \"a\" then 1 else 2 } }";
    assert_eq!(fine(seeds), [""; 0], "not in their seed alone");
    // The strongest of the others is the fair one to beat.
    let fair = "for k in [1, 5] { knn nn { encoder = px, train = w.train, test = w.test, k = k } }
        knn ours { encoder = px, train = w.train, test = w.test, k = 3 }
        claim \"c\" { ours.top1 > max(nn[1].top1, nn[5].top1) and ours.top1 - nn[1].top1 > 0.5 }";
    assert_eq!(fine(fair), [""; 0]);
    // A choice between words that names stand for.
    assert_eq!(fine("let s = step\nlet t = step\npretrain p { data = w, epochs = if s == t then 1 else 2 }"), [""; 0]);
    assert_eq!(fine("let l = [1, 2]\nscenes v { train = if l == [1, 2] and l != [2] then 1 else 2 }"), [""; 0]);
    assert_eq!(fine("param only = none\nscenes v { train = if only == none then 1 else 2 }"), [""; 0]);
}

#[test]
fn lines_may_end_with_carriage_returns_alone() {
    let checked = check_with("scenes w {}\r# c\rpretrain m { data = nothing }\r", &[], &[]);
    assert_eq!(checked.diagnostics.iter().map(|found| found.code).collect::<Vec<_>>(), ["E0103"]);
}

#[test]
fn numbers_join_texts() {
    let text = "for n in [10, 0.5] { command c { run = [\"t\", \"--n=\" + n, n + \" of it\"] } }";
    let checked = check_with(text, &[], &[]);
    let program = checked.program.unwrap();
    assert_eq!(program.steps[0].params["run"], json!(["t", "--n=10", "10 of it"]));
    assert_eq!(program.steps[1].params["run"], json!(["t", "--n=0.5", "0.5 of it"]));
}
