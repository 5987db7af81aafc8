//! A recorded exchange with the language server, `lsp.jsonl`, replayed against the real one.
//!
//! Each line is a JSON object. `client` is what an editor sends, with what it is for; the `server` line behind it is what
//! is answered: the response, or the diagnostics after an edit. `folder` holds files, `run` is a command beside the editor.
//! With `HARNESS_BLESS=1` the server's lines are written anew; `git diff` shows what became of them.

use harness_tests::Test;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// Of longer lists, and of longer texts, this much is recorded: manuals and the list of kinds grow.
const ITEMS: usize = 12;
const LETTERS: usize = 600;

#[test]
fn the_recorded_exchange_is_replayed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lsp.jsonl");
    let recorded = std::fs::read_to_string(&file).unwrap();
    let bless = std::env::var_os("HARNESS_BLESS").is_some();
    let lines: Vec<Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let test = Test::new();
    let folder = test.path().canonicalize().unwrap().display().to_string();
    let mut server = test.command(&["lsp"]).stdin(std::process::Stdio::piped()).spawn().expect("the server starts");
    let (mut to, mut from) = (server.stdin.take().unwrap(), BufReader::new(server.stdout.take().unwrap()));
    let mut anew = String::new();
    let mut exchanged = 0;
    let mut methods = std::collections::BTreeSet::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.get("server").is_none()) {
        anew.push_str(recorded.lines().nth(at).unwrap());
        anew.push('\n');
        if let Some(files) = line["folder"].as_object() {
            files.iter().for_each(|(name, text)| test.write(name, text.as_str().unwrap()));
            continue;
        }
        if let Some(words) = line["run"].as_array() {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            test.harness(&words).code(0);
            continue;
        }
        let mut message: Value = serde_json::from_str(&line["client"].to_string().replace("$FOLDER", &folder)).unwrap();
        message["jsonrpc"] = "2.0".into();
        let method = message["method"].as_str().unwrap().to_owned();
        send(&mut to, &message);
        methods.insert(method.clone());
        // An edit is answered by what is wrong now; readiness by nothing.
        let answered = |heard: &Value| match message.get("id") {
            Some(id) => heard.get("id") == Some(id),
            None => heard["method"] == "textDocument/publishDiagnostics",
        };
        if method == "initialized" {
            continue;
        }
        let heard = loop {
            let heard = receive(&mut from);
            if answered(&heard) {
                break heard;
            }
        };
        let heard = tidy(&heard, &folder, "");
        exchanged += 1;
        anew.push_str(&format!("{}\n", json!({ "server": heard })));
        if !bless {
            let wanted = lines.get(at + 1).and_then(|line| line.get("server")).unwrap_or(&Value::Null);
            assert_eq!(
                &heard,
                wanted,
                "{} (line {}): the server answers otherwise; HARNESS_BLESS=1 records it",
                line["what"],
                at + 1
            );
        }
    }
    send(&mut to, &json!({ "jsonrpc": "2.0", "method": "exit" }));
    assert!(server.wait().unwrap().success());
    assert!(exchanged > 40 && methods.len() > 14, "{exchanged} exchanges, {methods:?}");
    if bless {
        std::fs::write(file, anew).unwrap();
    }
}

fn send(to: &mut impl Write, message: &Value) {
    let text = message.to_string();
    write!(to, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
    to.flush().unwrap();
}

fn receive(from: &mut impl BufRead) -> Value {
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(from.read_line(&mut line).unwrap() > 0, "the server went away");
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("Content-Length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A message without what is another one each time, and without the ends of what is long.
fn tidy(value: &Value, folder: &str, name: &str) -> Value {
    match value {
        Value::Object(fields) => {
            // Said of every kind in its manual, which has tests of its own; the same in every message.
            let kept = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "documentation" | "jsonrpc"));
            kept.map(|(name, value)| (name.replace(folder, "$FOLDER"), tidy(value, folder, name))).collect()
        }
        Value::Array(items) => {
            let all = if name == "items" { ITEMS } else { items.len() };
            let more = (items.len() > all).then(|| "and more".into());
            items.iter().take(all).map(|item| tidy(item, folder, "")).chain(more).collect()
        }
        Value::String(text) => {
            let text = timeless(&text.replace(folder, "$FOLDER"));
            let cut = text.chars().count() > LETTERS;
            if cut { text.chars().take(LETTERS).chain(['…']).collect::<String>().into() } else { text.into() }
        }
        other => other.clone(),
    }
}

/// `(2026-11-25 00:31, took 0.1 s)` without the numbers.
fn timeless(text: &str) -> String {
    let mut parts = text.split(" (20");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([')', ';']).unwrap_or(part.len());
        out.push_str(" (DATE, took TIME");
        out.push_str(&part[end..]);
    }
    out
}
