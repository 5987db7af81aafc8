//! GRAMMAR.md shows what the language is: its examples are checked here.

use crate::catalog::check_with;
use harness_dsl::render;

#[test]
fn every_example_of_the_grammar_is_a_program() {
    let text = include_str!("../../GRAMMAR.md");
    let mut examples = 0;
    for block in text.split("```exp\n").skip(1) {
        let example = block.split("```").next().unwrap();
        let files = [("datasets.exp", "scenes world {}")];
        let checked = check_with(example, &files, &[]);
        assert!(checked.program.is_some(), "{example}\n{}", render(&checked.diagnostics, &checked.sources, false));
        examples += 1;
    }
    assert!(examples >= 7, "{examples}");
}

#[test]
fn every_word_of_the_grammar_is_in_it() {
    let text = include_str!("../../GRAMMAR.md");
    for word in ["import", "param", "let", "for", "replicate", "table", "claim", "from", "if", "then", "else", "none"] {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}
