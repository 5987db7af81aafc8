//! Values and fields: what is written and what stands in the program.

use crate::catalog::{check_with, codes, program, step};
use serde_json::{Value, json};

/// The params of one `command` whose `extra` is the expression.
fn value(expression: &str) -> Value {
    let program = program(&format!("command c {{ run = [\"x\"], extra = {expression} }}"));
    step(&program, "c").params["extra"].clone()
}

#[test]
fn literals() {
    assert_eq!(value("65_536"), json!(65_536));
    assert_eq!(value("1e-4"), json!(0.0001));
    assert_eq!(value("0.25"), json!(0.25));
    assert_eq!(value("10%"), json!(0.1));
    assert_eq!(value("12.5%"), json!(0.125));
    assert_eq!(value("90s"), json!(90.0));
    assert_eq!(value("30min"), json!(1800.0));
    assert_eq!(value("12h"), json!(43_200.0));
    assert_eq!(value("2GB"), json!(2_000_000_000u64));
    assert_eq!(value("2GiB"), json!(2_147_483_648u64));
    assert_eq!(value("0.2..1.0"), json!([0.2, 1.0]));
    assert_eq!(value(r#""a\"\\\n\u{e9}""#), json!("a\"\\\n\u{e9}"));
    assert_eq!(value("@coco/train2017"), json!({"root": "coco", "path": "train2017"}));
    assert_eq!(value("@\"coco/train 2017\""), json!({"root": "coco", "path": "train 2017"}));
    assert_eq!(value("[@coco/a, @coco/b]")[0]["path"], json!("a"));
    assert_eq!(value("\"# no comment\""), json!("# no comment"));
    assert_eq!(value("{ a = 1, b = { c = true } }"), json!({"a": 1, "b": {"c": true}}));
}

#[test]
fn arithmetic_keeps_integers_whole_and_sorts_apart() {
    assert_eq!(value("2 + 3 * 4"), json!(14));
    assert_eq!(value("(2 + 3) * 4"), json!(20));
    assert_eq!(value("10 - 4 - 3"), json!(3));
    assert_eq!(value("200 / 2"), json!(100));
    assert_eq!(value("5 / 2"), json!(2.5));
    assert_eq!(value("-3 + 1"), json!(-2));
    assert_eq!(value("0.3 * 256 / 256"), json!(0.3));
    assert_eq!(value("1h + 30min"), json!(5400.0));
    assert_eq!(value("2 * 1h"), json!(7200.0));
    assert_eq!(value("2 * 1GiB"), json!(2_147_483_648u64));
    assert_eq!(value("1 < 2 and not (2 == 3)"), json!(true));
    assert_eq!(value("90s < 2min or false"), json!(true));
    assert_eq!(value("if 1 > 2 then \"a\" else \"b\""), json!("b"));
    assert_eq!(value("mean([1, 2, 6])"), json!(3.0));
    assert_eq!(value("max(1, 7, 3)"), json!(7));
    assert_eq!(value("min([4, 2])"), json!(2));
    assert_eq!(value("sum([1, 2, 3])"), json!(6));
    assert_eq!(value("len([1, 2, 3])"), json!(3));
    assert_eq!(value("range(3)"), json!([0, 1, 2]));
    assert_eq!(value("zip([1, 2], [\"a\", \"b\"])"), json!([[1, "a"], [2, "b"]]));
    assert_eq!(value("round(2.6)"), json!(3));
    for wrong in ["1 / 0", "9223372036854775807 + 1", "1e300 * 1e300", "1s + 1", "1GB < 1s", "\"a\" * 2", "len(3)"] {
        assert_eq!(codes(&format!("command c {{ run = [], extra = {wrong} }}")), ["E0118"], "{wrong}");
    }
}

#[test]
fn newlines_separate_fields_and_items_and_mean_nothing_in_brackets() {
    let all = program(
        "command c {\n  run = [\n    \"a\"\n    \"b\",\n    \"c\",\n  ]\n  extra = 1 +\n    2\n  metrics = [\"m\"],\n}",
    );
    let params = &step(&all, "c").params;
    assert_eq!(params["run"], json!(["a", "b", "c"]));
    assert_eq!(params["extra"], json!(3));
    assert_eq!(value("(1\n + 2)"), json!(3));
}

#[test]
fn a_field_is_fitted_to_its_type() {
    let text = "scenes world { objects = 1..4 }
        pretrain moco {
            data = world, schedule = cosine, limit = none, memory = 2GiB
            optimizer = sgd { lr = 1 }
            views = two_crops { scale = 20%..1 }
            contrast = moco
        }";
    let program = program(text);
    assert_eq!(step(&program, "world").params["objects"], json!([1, 4]));
    let params = &step(&program, "moco").params;
    assert_eq!(params["data"], json!({"$ref": {"step": 0, "output": "train"}}));
    assert_eq!(params["schedule"], json!("cosine"));
    assert_eq!(params["limit"], json!(null));
    assert_eq!(params["optimizer"], json!({"sgd": {"lr": 1.0}}));
    assert_eq!(params["views"], json!({"two_crops": {"scale": [0.2, 1.0]}}));
    // The step is called `moco` too; where a tag is wanted, it is the tag.
    assert_eq!(params["contrast"], json!({"moco": {}}));
    let written = step(&program, "moco").field_spans["views.two_crops.scale"];
    assert_eq!(&text[written.start..written.end], "20%..1");
}

#[test]
fn a_copy_merges_records_and_reaches_inside() {
    let program = program(
        "scenes world {}
        pretrain a {
            data = world
            optimizer = sgd { lr = 0.3, momentum = 0.9 }
            contrast = moco { dim = 128, momentum = 0.99 }
            views = two_crops { size = 32 }
        }
        pretrain c from b { optimizer = sgd { lr = 0.1 }, views = multi_crop { large = { count = 2, size = 16 }, small = { count = 4, size = 8 } } }
        pretrain b from a { contrast.momentum = 0.995 }
        pretrain d from c { views.small.count = 6, contrast = moco }",
    );
    assert_eq!(step(&program, "b").params["contrast"], json!({"moco": {"dim": 128, "momentum": 0.995}}));
    let c = &step(&program, "c").params;
    assert_eq!(c["optimizer"], json!({"sgd": {"lr": 0.1, "momentum": 0.9}}));
    assert!(c["views"].get("two_crops").is_none());
    let d = &step(&program, "d").params;
    assert_eq!(d["views"]["multi_crop"]["small"], json!({"count": 6, "size": 8}));
    assert_eq!(d["contrast"], json!({"moco": {"dim": 128, "momentum": 0.995}}));
}

#[test]
fn params_take_values_from_outside() {
    let text = "param epochs = base * 2
        param lr = 0.5
        param data = \"coco\"
        param seeds = [1, 2]
        let base = 5
        param half = epochs / 2
        command c { run = [data], extra = [epochs, lr, half, len(seeds)] }";
    let with = |overrides: &[(&str, &str)]| {
        let checked = check_with(text, &[], overrides);
        assert_eq!(checked.diagnostics, []);
        let program = checked.program.unwrap();
        (program.params, program.steps[0].params.clone())
    };
    let (params, step) = with(&[]);
    assert_eq!(params[0], ("epochs".into(), json!(10)));
    assert_eq!(params[4], ("half".into(), json!(5)));
    assert_eq!(step["extra"], json!([10, 0.5, 5, 2]));
    let (_, step) = with(&[("epochs", "7 + 1"), ("lr", "1"), ("data", "image net"), ("seeds", "[4, 5, 6]")]);
    assert_eq!(step["extra"], json!([8, 1.0, 4, 3]));
    assert_eq!(step["run"], json!(["image net"]));
    // A word is a text where a text is wanted, also one that the file gives another meaning.
    for (said, meant) in [("base", "base"), ("\"base\"", "base"), ("5", "5")] {
        let (_, step) = with(&[("data", said)]);
        assert_eq!(step["run"], json!([meant]));
    }

    for (name, value) in [("epochs", "ten"), ("epochs", "0.5"), ("epoch", "5"), ("lr", "[1]")] {
        let checked = check_with(text, &[], &[(name, value)]);
        let codes: Vec<_> = checked.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
        assert_eq!(codes, ["E0117"], "{name}={value}");
        assert_eq!(checked.diagnostics[0].location.as_ref().unwrap().file, format!("-p {name}"));
    }
}

#[test]
fn imports_are_read_once_and_circles_are_refused() {
    let files = [
        ("left.exp", "import \"base.exp\"\nlet l = size"),
        ("right.exp", "import \"./base.exp\"\nlet r = size"),
        ("base.exp", "param size = 4"),
        ("a.exp", "import \"b.exp\""),
        ("b.exp", "import \"a.exp\""),
    ];
    let text = "import \"left.exp\"\nimport \"right.exp\"\ncommand c { run = [], extra = [l, r] }";
    let checked = check_with(text, &files, &[("size", "6")]);
    assert_eq!(checked.diagnostics, []);
    assert_eq!(checked.program.unwrap().steps[0].params["extra"], json!([6, 6]));
    for (text, file) in [("import \"a.exp\"", "b.exp"), ("import \"c.exp\"", "test.exp")] {
        let checked = check_with(text, &files, &[]);
        assert_eq!(checked.diagnostics.len(), 1);
        assert_eq!(checked.diagnostics[0].code, "E0116");
        assert_eq!(checked.diagnostics[0].location.as_ref().unwrap().file, file);
    }
}
