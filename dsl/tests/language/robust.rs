//! Nothing panics, whatever the text.

use crate::catalog::codes;
use crate::promises::kept;
use proptest::prelude::*;

const STUDY: &str = include_str!("study.exp");

/// All promises hold of a text.
fn survives(text: &str) {
    kept(text);
}

/// Pieces of programs, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "param",
        "let",
        "import",
        "for",
        "replicate",
        "table",
        "claim",
        "figure",
        "best(",
        "by",
        "if",
        "then",
        "else",
        "and",
        "or",
        "not",
        "in",
        "from",
        "none",
        "true",
        "scenes",
        "pretrain",
        "knn",
        "command",
        "moco",
        "seed",
        "method",
        "nn",
        "world",
        "train",
        "data",
        "encoder",
        "rows",
        "columns",
        "top1",
        "loss",
        "sgd",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ",",
        "=",
        ".",
        "..",
        "+",
        "-",
        "*",
        "/",
        "<",
        ">=",
        "==",
        "\n",
        "\"text\"",
        "\"",
        "@a/b",
        "@",
        "10%",
        "90s",
        "2GiB",
        "1e999",
        "65_536",
        "9999999999999999999",
        "0.5",
        "3.",
        "#",
        "é",
        "\u{0}",
        "\r\n",
        "x@100",
        "range(1000000000)",
        ".at(3)",
        ".last",
        "world.train",
        "base.exp",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_pieces(pieces in proptest::collection::vec(piece(), 0..60)) {
        survives(&pieces.join(" "));
    }

    #[test]
    fn a_right_program_with_pieces_cut_out_and_put_in(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece()), 1..5)
    ) {
        let mut text = STUDY.to_owned();
        for (at, cut, piece) in edits {
            let start = at.index(text.len());
            // The study is ASCII, pieces need not be.
            let boundary = |mut at: usize| { while !text.is_char_boundary(at) { at += 1 } at };
            let (start, end) = (boundary(start), boundary((start + cut).min(text.len())));
            text.replace_range(start..end.max(start), &piece);
        }
        survives(&text);
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in
        [("[", "]"), ("(", ")"), ("- ", ""), ("not ", ""), ("if true then 1 else ", ""), ("{ a = ", "}")]
    {
        let deep = |n: usize| format!("let x = {}1{}\n", open.repeat(n), close.repeat(n));
        assert!(codes(&deep(100_000)).contains(&"E0012"), "{open}");
        survives(&deep(100));
    }
    assert!(codes(&"for a in [1] {".repeat(10_000)).contains(&"E0012"));
    let path = vec!["a"; 100_000].join(".");
    assert!(codes(&format!("command c {{ run = [], extra = {{ {path} = 1 }} }}")).contains(&"E0012"));
    // Deep through names: each one is shallow.
    let mut lets = String::from("let a0 = 1\n");
    let mut params = String::from("param b0 = 1\n");
    for n in 1..3000 {
        lets = format!("let a{n} = {}a{}{}\n{lets}", "[".repeat(100), n - 1, "]".repeat(100));
        params.push_str(&format!("param b{n} = {}b{}{}\n", "[".repeat(100), n - 1, "]".repeat(100)));
    }
    survives(&lets);
    survives(&params);
    assert!(codes(&params).contains(&"E0012"));
}

#[test]
fn what_multiplies_is_refused() {
    let mut lets = String::from("let a0 = 1\nparam b0 = 1\n");
    for n in 1..60 {
        lets.push_str(&format!("let a{n} = [a{0}, a{0}]\nparam b{n} = [b{0}, b{0}]\n", n - 1));
    }
    assert!(codes(&lets).contains(&"E0121"));
    let blocks: String = (0..8).map(|n| format!("for x{n} in range(100) {{ ")).collect();
    assert!(codes(&format!("{blocks} scenes s {{}} {}", "}".repeat(8))).contains(&"E0121"));
}

#[test]
fn long_texts_are_fine() {
    let sum = vec!["1"; 50_000].join(" + ");
    let list = vec!["1"; 50_000].join(", ");
    let program = crate::catalog::program(&format!("command c {{ run = [], extra = [{sum}, len([{list}])] }}"));
    assert_eq!(program.steps[0].params["extra"], serde_json::json!([50_000, 50_000]));
    let many: String = (0..5000).map(|n| format!("scenes s{n} {{ train = {} }}\n", n + 1)).collect();
    assert_eq!(crate::catalog::program(&many).steps.len(), 5000);
    // Many mistakes end, too.
    survives(&"$ ".repeat(100_000));
    survives(&"scenes x { trian = 1 }\n".repeat(3000));
}

/// What the fuzz target found once, and texts to begin with.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test reads its corpus")]
fn the_corpus_breaks_no_promise() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "exp") {
            survives(&std::fs::read_to_string(path).unwrap());
            seen += 1;
        }
    }
    assert!(seen > 0, "the corpus was not found");
}

#[test]
fn long_names_and_large_numbers_of_imports_are_refused() {
    let name = "a".repeat(100_000);
    assert_eq!(codes(&format!("param {name} = 1")), ["E0016"]);
    survives(&format!("let x = {name}\nscenes w {{ {name} = 3 }}"));
    // Each file imports the next one.
    #[derive(Default)]
    struct Bomb(std::cell::Cell<usize>);
    impl harness_dsl::Loader for Bomb {
        fn load(&self, from: Option<&str>, _: &str) -> Result<harness_dsl::Loaded, String> {
            let depth: usize = from.and_then(|from| from.split('-').next()?.parse().ok()).unwrap_or(0);
            let text = (0..50).map(|n| format!("import \"{n}\"\n")).collect();
            self.0.set(self.0.get() + 1);
            Ok(harness_dsl::Loaded { name: format!("{}-{}", depth + 1, self.0.get()), text })
        }
    }
    let bomb = harness_dsl::check("a.exp", "import \"0\"", &Bomb::default(), &crate::catalog::catalog(), &Vec::new());
    assert!(bomb.program.is_none() && bomb.diagnostics.iter().all(|found| found.code == "E0116"));
}
