//! The TextMate grammar of the editor extension knows the words that the parser knows.

use harness_dsl::ide::{declarations, functions, reserved};
use serde_json::Value;
use std::collections::BTreeSet;

const GRAMMAR: &str = include_str!("../../../editors/vscode/syntaxes/exp.tmLanguage.json");

/// The words of every alternation `(a|b|c)` in the patterns of a rule.
fn words(rule: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match rule {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(pattern) if name == "match" => {
                        let split = pattern.split(|c: char| !c.is_ascii_alphabetic() && c != '_');
                        found.extend(split.filter(|word| word.len() > 1).map(str::to_owned));
                    }
                    _ => found.extend(words(value)),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| found.extend(words(item))),
        _ => {}
    }
    found
}

fn set(words: impl IntoIterator<Item = &'static str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_grammar_knows_the_parsers_words() {
    let grammar: Value = serde_json::from_str(GRAMMAR).unwrap();
    let rule = |name: &str| words(&grammar["repository"][name]);
    let mut known = rule("word");
    known.extend(rule("constant"));
    let mut wanted = set(reserved().iter().copied());
    wanted.insert("when".into());
    assert_eq!(known, wanted);
    // What begins a declaration, and `in`, which stands in one.
    let mut known = BTreeSet::new();
    for name in ["import", "definition", "block", "shown"] {
        known.extend(rule(name));
    }
    for noise in ["za", "in", "Za", "z_"] {
        known.remove(noise);
    }
    assert_eq!(known, set(declarations().iter().copied()));
    // What can be no kind of step.
    let step = rule("step");
    for word in reserved().iter().chain(declarations()) {
        assert!(step.contains(*word), "`{word}` would be taken for a kind");
    }
    assert_eq!(rule("call"), set(functions().iter().copied()));
}

#[test]
fn the_extension_starts_the_server_for_the_files_that_it_knows() {
    let package: Value = serde_json::from_str(include_str!("../../../editors/vscode/package.json")).unwrap();
    assert_eq!(package["contributes"]["languages"][0]["extensions"][0], ".exp");
    assert_eq!(package["contributes"]["grammars"][0]["scopeName"], "source.exp");
    let client = include_str!("../../../editors/vscode/client.js");
    assert!(client.contains("args: [\"lsp\"]"));
}
