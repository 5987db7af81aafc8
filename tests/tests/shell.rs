//! What shells, manuals and VS Code get: completions as a real bash asks for them, pages as a real troff reads them, the
//! grammar of colours as its engine reads it.

use harness_tests::Test;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = "param epochs = 3
param word = \"a\"
for size in [4, 8, 16] { scenes world { train = size * 10, test = 20 } }
command other { run = [\"true\"], env = { A = word, B = \"${epochs}\" } }
";

/// Does what bash does at a TAB at the end of each line, and gives the words that it is answered. None where there is
/// no bash.
fn tab(test: &Test, lines: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut script = String::from("source <(harness completions bash) || exit 9\n");
    for line in lines {
        let quoted = line.replace('\'', "'\\''");
        script.push_str(&format!("COMP_LINE='{quoted}'; COMP_POINT=${{#COMP_LINE}}\n_harness_complete\n"));
        // What bash would do by itself with the words: it takes them as they are.
        script.push_str("printf '%s\\n' \"${COMPREPLY[@]}\"; echo --\n");
    }
    let binary = harness_tests::binary("harness");
    let folder = binary.parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["--norc", "--noprofile", "-c", &script]).current_dir(test.path());
    command.env("PATH", path).env("HOME", test.path()).env_remove("COMPLETE").stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: bash cannot be started ({error})");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let answers = said.split_terminator("--\n");
    Some(answers.map(|words| words.lines().filter(|word| !word.is_empty()).map(String::from).collect()).collect())
}

#[test]
fn bash_completes_words_as_it_cuts_them() {
    let test = Test::new().file("a.exp", PROGRAM).file("my dir/b c.exp", PROGRAM).file("notes.txt", "no experiment");
    test.write("data/x", "");
    let cases: &[(&str, &[&str])] = &[
        // bash replaces only what stands behind `=`.
        ("harness why a.exp world[size=", &["4\\]", "8\\]", "16\\]"]),
        ("harness why a.exp world[size=1", &["16\\]"]),
        ("harness why a.exp world\\[size=4", &["4\\]"]),
        ("harness why a.exp oth", &["other"]),
        // Within quotes nothing ends a word.
        ("harness why a.exp 'world[size=1", &["world[size=16]"]),
        ("harness why a.exp \"world[size=8", &["world[size=8]"]),
        // Names with blanks.
        ("harness check my", &["my\\ dir/"]),
        ("harness check my\\ dir/", &["my\\ dir/b\\ c.exp"]),
        ("harness check 'my dir/b", &["my dir/b c.exp"]),
        ("harness why my\\ dir/b\\ c.exp oth", &["other"]),
        ("harness why 'my dir/b c.exp' oth", &["other"]),
        // Only experiments, and folders on the way.
        ("harness fmt ", &["a.exp", "data/", "my\\ dir/", "--check", "--help", "--version"]),
        ("harness run a.exp --cache ", &["data/", "my\\ dir/"]),
        // Values of options.
        ("harness run a.exp --device c", &["cpu", "cuda"]),
        ("harness run a.exp --device=cu", &["cuda"]),
        ("harness run a.exp --executor ", &["local", "slurm"]),
        ("harness run a.exp -p ", &["epochs=", "word="]),
        ("harness run a.exp -p w", &["word="]),
        ("harness plan -p epochs= a.exp", &["a.exp"]),
        ("harness run a.exp -p epochs=", &["3"]),
        ("harness run a.exp -p word=", &["\\\"a\\\""]),
        // Other words of the line are none of it.
        ("cd data; harness expl", &["explain"]),
        ("X=1 harness expl", &["explain"]),
        ("harness explain E99", &[]),
    ];
    let Some(answers) = tab(&test, &cases.iter().map(|(line, _)| *line).collect::<Vec<_>>()) else { return };
    assert_eq!(answers.len(), cases.len());
    for ((line, wanted), found) in cases.iter().zip(&answers) {
        let graphics = |word: &&String| !word.starts_with("cuda:");
        let found: Vec<&String> = found.iter().filter(graphics).collect();
        assert_eq!(found, wanted.to_vec(), "{line}");
    }
}

#[test]
fn a_broken_file_does_a_shell_no_harm() {
    let test = Test::new().file("a.exp", "scenes world { train = \n\"");
    let Some(answers) = tab(&test, &["harness why a.exp w", "harness run a.exp -p x", "harness 'a"]) else { return };
    assert!(answers.iter().all(Vec::is_empty), "{answers:?}");
}

#[test]
fn zsh_and_fish_take_their_scripts() {
    let test = Test::new().file("a.exp", PROGRAM);
    for shell in ["zsh", "fish"] {
        let script = test.harness(&["completions", shell]).code(0).stdout;
        test.write(shell, &script);
        match Command::new(shell).arg("-n").arg(test.path().join(shell)).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => println!("skipped: {shell} cannot be started ({error})"),
        }
    }
}

#[test]
fn manual_pages_say_what_values_there_are_and_are_sound() {
    let test = Test::new();
    test.harness(&["man", "pages"]).code(0);
    let pages = test.path().join("pages");
    let synopsis = |page: &str| {
        let text = std::fs::read_to_string(pages.join(page)).unwrap().replace("\\-", "-");
        let from = text.find(".SH SYNOPSIS\n").unwrap() + 13;
        let to = from + text[from..].find(".SH").unwrap();
        text[from..to].replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\|", "")
    };
    let run = synopsis("harness-run.1");
    for part in ["[-p NAME=VALUE]...\n", "[-j|--jobs N]\n", "[--device DEVICE]\n", "FILE\n", "[TARGETS]...\n"] {
        assert!(run.contains(part), "{part} is not in {run}");
    }
    assert!(test.harness(&["--help"]).code(0).stdout.contains("\n  man "));
    sound(&pages);
}

#[test]
fn the_grammar_of_colours_is_read_by_the_engine_of_vs_code() {
    let extension = Path::new(env!("CARGO_MANIFEST_DIR")).join("../editors/vscode");
    if !extension.join("node_modules").is_dir() {
        return println!("skipped: `npm install` was not run in editors/vscode");
    }
    match Command::new("npm").arg("test").current_dir(&extension).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => println!("skipped: npm cannot be started ({error})"),
    }
}

/// Every page through troff, with all of its warnings.
fn sound(pages: &Path) {
    let mut seen = 0;
    for entry in std::fs::read_dir(pages).unwrap() {
        let page = entry.unwrap().path();
        let output = match Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(&page).output() {
            Ok(output) => output,
            Err(error) => return println!("skipped: groff cannot be started ({error})"),
        };
        let warned = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && warned.is_empty(), "{}: {warned}", page.display());
        assert!(output.stdout.len() > 100, "{}", page.display());
        seen += 1;
    }
    assert!(seen > 25, "{seen} pages");
}
