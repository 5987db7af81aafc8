//! `docs/tutorial.md` and `docs/mistakes.md` are what happens: their files are written, their commands run, and what
//! these say is what the pages say.

use harness_tests::{Test, binary};
use std::process::Command;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
const MISTAKES: &str = include_str!("../../docs/mistakes.md");

/// Blocks of code: the words behind the fence, and the lines.
fn blocks(page: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(words), None) => open = Some((words, Vec::new())),
            (None, Some((words, mut lines))) => {
                lines.push(line);
                open = Some((words, lines));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// Whether a line is as expected, where `…` stands for any letters.
fn same(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// Whether lines are as expected, where a line `…` stands for any number of lines.
fn fits(expected: &[&str], lines: &[&str]) -> bool {
    match expected {
        [] => lines.is_empty(),
        ["…", rest @ ..] => (0..=lines.len()).any(|skipped| fits(rest, &lines[skipped..])),
        [first, rest @ ..] => lines.split_first().is_some_and(|(line, more)| same(first, line) && fits(rest, more)),
    }
}

#[test]
fn what_stands_in_the_place_of_anything_is_found_and_nothing_else() {
    assert!(same("a … c", "a b c") && same("…", "") && same("a…", "ab") && !same("a", "ab") && !same("a…b", "ac"));
    assert!(fits(&["a", "…", "c"], &["a", "b", "b", "c"]) && fits(&["…"], &[]));
    assert!(!fits(&["a", "…", "c"], &["a", "b"]) && !fits(&[], &["a"]));
}

#[test]
fn the_tutorial_is_what_happens() {
    let ran = follow(TUTORIAL);
    assert!(ran >= 12, "only {ran} commands were found");
}

#[test]
fn the_mistakes_are_said_as_the_page_says() {
    let ran = follow(MISTAKES);
    assert!(ran >= 20, "only {ran} commands were found");
}

/// Does what a page says, and counts the commands.
fn follow(page: &'static str) -> usize {
    let test = Test::new();
    let harness = binary("harness");
    let path = format!("{}:{}", harness.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut ran = 0;
    for (words, lines) in blocks(page) {
        if let Some(name) = words.strip_prefix("exp ") {
            test.write(name, lines.join("\n") + "\n");
            continue;
        }
        assert_eq!(words, "console", "a block of another sort");
        let begins: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].starts_with("$ ")).collect();
        assert_eq!(begins.first(), Some(&0), "a command comes first");
        let ends = begins.iter().skip(1).copied().chain([lines.len()]);
        for (begin, end) in begins.iter().copied().zip(ends) {
            let command = &lines[begin..end];
            let typed = command[0].trim_start_matches("$ ");
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{{ {typed}; }} 2>&1")]).current_dir(test.path()).env("PATH", &path);
            shell.env("HOME", test.path());
            let output = shell.output().expect("a shell");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<&str> = said.lines().collect();
            assert!(fits(&command[1..], &lines), "`{typed}` says\n{said}\nand the page\n{}", command[1..].join("\n"));
            ran += 1;
        }
    }
    ran
}
