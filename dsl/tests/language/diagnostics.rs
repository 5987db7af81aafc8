//! What people see of their mistakes, to the letter: each text beside what is shown of it.

use crate::catalog::{check_with, codes, shown};
use harness_dsl::{EXPLANATIONS, explain};

/// Holds a text to what a file says; `HARNESS_BLESS=1` writes the file instead.
#[allow(clippy::disallowed_methods, reason = "the test reads and, asked to, writes its own snapshots")]
fn snapshot(place: &std::path::Path, shown: &str) {
    if std::env::var_os("HARNESS_BLESS").is_some() {
        std::fs::write(place, shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(place).unwrap_or_default(), "`HARNESS_BLESS=1` writes what is shown");
}

macro_rules! shows {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let text = include_str!(concat!("mistakes/", stringify!($name), ".exp"));
            let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/language/mistakes/", stringify!($name), ".txt");
            snapshot(std::path::Path::new(place), &shown(text));
        }
    )*};
}

shows! { artifacts, borrowed, brackets, fields, headers, lexical, measured, names, near, python, unclosed, yaml }

/// Every code: a text that has it, beside what is shown of it and what `harness explain` says.
///
/// A text may begin with lines `#! NAME.exp TEXT`, files that it imports, and `#! -p name=value`.
/// `HARNESS_BLESS=1 cargo test -p harness-dsl every_code` writes what is shown; the difference is then for reading.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test reads and, asked to, writes its own snapshots")]
fn every_code_has_an_example_and_a_page() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language/codes");
    let bless = std::env::var_os("HARNESS_BLESS").is_some();
    let mut wrong = Vec::new();
    for (code, page) in EXPLANATIONS.iter().filter(|(code, _)| *code != "E0401") {
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{code}.exp"))) else {
            wrong.push(format!("{code} has no example: write tests/language/codes/{code}.exp"));
            continue;
        };
        let (mut files, mut overrides) = (Vec::new(), Vec::new());
        for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
            let (name, rest) = line.split_once(' ').unwrap();
            match name {
                "-p" => overrides.push(rest.split_once('=').unwrap()),
                name => {
                    let (name, rest): (String, String) = (name.into(), rest.replace("\\n", "\n"));
                    files.push((&*name.leak(), &*rest.leak()));
                }
            }
        }
        let checked = check_with(&text, &files, &overrides);
        let found: Vec<&str> = checked.diagnostics.iter().map(|found| found.code).collect();
        if !found.contains(code) {
            wrong.push(format!("{code} is not found in its example: {found:?}"));
        }
        let shown = harness_dsl::render(&checked.diagnostics, &checked.sources, false);
        let shown = format!("{shown}--- harness explain {code}\n\n{page}\n");
        let place = folder.join(format!("{code}.txt"));
        if bless {
            std::fs::write(&place, &shown).unwrap();
        } else if std::fs::read_to_string(&place).unwrap_or_default() != shown {
            wrong.push(format!("{code} is shown otherwise:\n{shown}"));
        }
    }
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    wrong.extend(entries.filter(|name| explain(&name[..5]).is_none()).map(|name| format!("{name} is of no code")));
    assert!(wrong.is_empty(), "{}\n\n`HARNESS_BLESS=1` writes what is shown", wrong.join("\n"));
}

#[test]
fn five_mistakes_give_five_diagnostics() {
    let text = "param epochs = = 3
        scenes world { train = , classes = 3 }
        pretrain moco { data = world, epochs = ] }
        for x on [1] { scenes s {} }
        table t { rows method }
        scenes right { classes = 3 }";
    assert_eq!(codes(text)[..5], ["E0010"; 5]);
}

#[test]
fn what_is_needed_is_named() {
    assert_eq!(codes("scenes w {}\nknn nn { test = w }"), ["E0105", "E0105"]);
    assert_eq!(codes("pretrain p from q {}"), ["E0103"]);
    assert_eq!(codes("scenes w {}\nencoder e from w {}"), ["E0106"]);
    assert_eq!(codes("scenes w { train = 1, train = 2 }"), ["E0122"]);
    assert_eq!(codes("let a = b + 1\nlet b = a"), ["E0115"]);
    assert_eq!(codes("param a = a"), ["E0115"]);
    assert_eq!(codes("scenes a from b {}\nscenes b from a {}"), ["E0115"]);
    assert_eq!(codes("let w = 1\nscenes w {}"), ["E0102"]);
    assert_eq!(codes("scenes w {}\nlet w = 1"), ["E0102"]);
    assert_eq!(codes("scenes w {}\ntable t { rows = method, columns = [w.x] }"), ["E0119"]);
    assert_eq!(codes("claim \"c\" { 1 }"), ["E0120"]);
    assert_eq!(codes("let x = lenght([1])"), ["E0118"]);
}

#[test]
fn diagnostics_are_data_with_places() {
    let checked = check_with("scenes world {\n    trian = 5\n}", &[], &[]);
    let json = serde_json::to_value(&checked.diagnostics).unwrap();
    assert_eq!(json[0]["code"], "E0104");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!((&json[0]["file"], &json[0]["line"], &json[0]["column"]), (&"test.exp".into(), &2.into(), &5.into()));
    assert_eq!(json[0]["help"][0], "did you mean `train`?");
}

#[test]
fn codes_are_explained() {
    assert_eq!(explain("e0104"), explain("E0104"));
    assert!(explain("E0104").is_some_and(|text| text.contains("field")));
    assert_eq!(explain("E9999"), None);
    assert!(EXPLANATIONS.iter().all(|(_, text)| text.len() > 40));
}

/// What `--fix` makes of a text.
fn mended(text: &str) -> String {
    let mut fixes: Vec<harness_dsl::Fix> =
        check_with(text, &[], &[]).diagnostics.iter().filter_map(harness_dsl::Diagnostic::fix).collect();
    fixes.sort_by_key(|fix| std::cmp::Reverse(fix.span.start));
    let mut mended = text.to_owned();
    fixes.iter().for_each(|fix| mended.replace_range(fix.span.start..fix.span.end, &fix.text));
    mended
}

#[test]
fn what_has_one_remedy_is_mended_and_becomes_right() {
    for (wrong, right) in [
        ("let c = if !true then 1 else 2", "let c = if not true then 1 else 2"),
        ("let c = if ! true && false then 1 else 2", "let c = if not true and false then 1 else 2"),
        ("scenes w { train: 3, classes:4 }", "scenes w { train = 3, classes = 4 }"),
        ("scenes w { train : 3 }", "scenes w { train = 3 }"),
        ("scenes w { train = 3 } // few", "scenes w { train = 3 } # few"),
        ("scenes w { train = 3; classes = 4; }", "scenes w { train = 3, classes = 4 }"),
        ("let a = True\nlet b = None", "let a = true\nlet b = none"),
        ("let a = “x” + ‘y’", "let a = \"x\" + \"y\""),
        ("let a = 3 – 2 × 4", "let a = 3 - 2 * 4"),
        ("let a = 12 h\nlet b = 12hours\nlet c = 2gb", "let a = 12h\nlet b = 12h\nlet c = 2GB"),
        ("let a = 1.e-3", "let a = 1.0e-3"),
        (
            "scenes w {}\npretrain p { data = w, encoder = \"resnet50\" }",
            "scenes w {}\npretrain p { data = w, encoder = \"resnet50\" }",
        ),
        (
            "scenes w {}\npretrain p { data = w, views = \"two_crops\" }",
            "scenes w {}\npretrain p { data = w, views = two_crops }",
        ),
        ("scenes w { train = 200.0, classes = 1e3 }", "scenes w { train = 200, classes = 1000 }"),
        ("image_folder p { path = /data/x }", "image_folder p { path = \"/data/x\" }"),
        ("image_folder p { path = pictures/train }", "image_folder p { path = \"pictures/train\" }"),
        (
            "for k in [1, 2] if k > 1 { scenes w { train = k } }",
            "for k in [1, 2] when k > 1 { scenes w { train = k } }",
        ),
        (
            "for k in [1, 2] when k = 1 { scenes w { train = k } }",
            "for k in [1, 2] when k == 1 { scenes w { train = k } }",
        ),
        ("let a =\u{200b} 3", "let a = 3"),
        ("For k in [1, 2] { scenes w { train = k } }", "for k in [1, 2] { scenes w { train = k } }"),
    ] {
        assert_eq!(mended(wrong), right);
        assert_eq!(codes(right), [""; 0], "{right}");
    }
}

#[test]
fn nothing_is_mended_that_changes_what_an_experiment_means() {
    let family = "scenes w {}\npretrain seed1 { data = w }\npretrain seed3 { data = w }\n";
    for same in [
        &format!("{family}knn n {{ encoder = seed2, train = w, test = w.test }}"),
        "scenes w {}\npretrain p { data = w, encoder = resnet101 }",
        "scenes w {}\npretrain p { data = w, epohcs = 3, epochs = 4 }",
        "scenes w {}\npretrain p { data = w, epohcs = 3, eopchs = 4, epochs = 4 }",
        "scenes w { train = 10k }",
        "scenes w { train = 7 // 2 }",
        "scenes w {}\nencoder e { source = random }\nknn n { encoder = e, train = w, test = w.test }\nclaim \"c\" { median(n.top1) > 3 }",
        "for s in [\"cosine\", \"step\"] when s != \"stpe\" { scenes w { train = if s == \"step\" then 1 else 2 } }",
    ] {
        assert_ne!(codes(same), [""; 0], "{same}");
        assert_eq!(mended(same), *same);
    }
    // Two misspellings of one field: the first is mended, the second is for the writer.
    let twice = "scenes w {}\npretrain p { data = w, epohcs = 3, eopchs = 4 }";
    assert_eq!(mended(twice), "scenes w {}\npretrain p { data = w, epochs = 3, eopchs = 4 }");
}

#[test]
fn one_mistake_in_a_header_is_one_mistake() {
    for header in [
        "for x in [1, 2] if x > 1 {",
        "for x in [1, 2] when x = 2 {",
        "for x in [1, 2] when x > 1 && true {",
        "for (x in [1, 2]) {",
        "for x in [2, 3], y in [10, 20] {",
        "for x in range(10, 100, 10) {",
        "for x in 0..200 {",
        "for x [1, 2] {",
        "for x in [1, , 2] {",
        "for x in {",
        "for x in [1, 2 {",
    ] {
        let text = format!(
            "{header}\n    scenes w {{ train = x }}\n}}\nscenes v {{ train = 3 }}\nknn n {{ encoder = w, train = v, test = v.test }}"
        );
        let found = codes(&text);
        assert!(found.len() <= 1 + usize::from(found.contains(&"E0109")), "{header} {found:?}");
    }
    assert_eq!(
        codes("for x in [1, 2]:\n    scenes w { train = x }\n    scenes u { classes = 2 + x }\nscenes v {}"),
        ["E0010"]
    );
    assert_eq!(codes("scenes w {}\nreplicate 3 {\n    pretrain p { data = w, seed = seed }\n}"), ["E0010"]);
    assert_eq!(codes("scenes w {}\npretrain p { Data = w }"), ["E0104"]);
    assert_eq!(codes("scenes w { train = 10 % }"), ["E0001"]);
    assert_eq!(codes("for n in range(3) when n { scenes w { train = n } }"), ["E0114"]);
}
