//! The tools of the language over the real binary: layout, graph, mending, and the language server as an editor
//! drives it.

use harness_tests::Test;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};

const PROGRAM: &str = "param count=40
scenes world { train = count, test = 20 }
encoder net { source = random { architecture = resnet18 } }
knn nn { encoder = net, train = world.train, test = world.test, k = 1 }
claim \"c\" { nn.top1 > 3 }
";

#[test]
fn files_are_laid_out_checked_and_piped() {
    let test = Test::new().file("a.exp", PROGRAM).file("bad.exp", "param x 1\n");
    let ran = test.harness(&["fmt", "--check", "a.exp"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("a.exp:1: not laid out"), "{}", ran.stderr);
    assert_eq!(test.harness(&["fmt", "a.exp"]).code, 0);
    assert!(std::fs::read_to_string(test.path().join("a.exp")).unwrap().starts_with("param count = 40\n"));
    assert_eq!(test.harness(&["fmt", "--check", "a.exp"]).code, 0);
    let ran = test.harness(&["fmt", "bad.exp"]);
    assert!(ran.code == 2 && ran.stderr.contains("E0010"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(test.path().join("bad.exp")).unwrap(), "param x 1\n");
}

#[test]
fn misspelt_names_are_mended_on_request() {
    let test = Test::new().file("a.exp", "scenes world { trian = 5, tset = .5 }\n");
    let ran = test.harness(&["check", "a.exp"]);
    assert_eq!(ran.code, 2);
    let ran = test.harness(&["check", "--fix", "a.exp"]);
    let text = std::fs::read_to_string(test.path().join("a.exp")).unwrap();
    assert_eq!(text, "scenes world { train = 5, test = 0.5 }\n", "{}", ran.stderr);
    // Half a picture is still wrong, and said.
    assert!(ran.code == 2 && ran.stderr.contains("E0106"), "{}", ran.stderr);
}

#[test]
fn what_is_no_program_is_said_with_its_place_and_the_way_out() {
    let test = Test::new().file("a.exp", PROGRAM);
    let says = |arguments: &[&str], words: &str| {
        let ran = test.harness(arguments);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        ran
    };
    std::fs::write(test.path().join("latin.exp"), b"# caf\xe9\nscenes w {}\n").unwrap();
    let ran = says(&["check", "--json", "latin.exp"], "error[E0001]: the file is no UTF-8: byte 6 is 0xE9");
    let found: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&found["code"], &found["line"]), (&json!("E0001"), &json!(1)));
    std::fs::write(test.path().join("wide.exp"), b"\xff\xfes\0c\0").unwrap();
    says(&["check", "wide.exp"], "it seems to be UTF-16");
    says(&["check", "."], "is a folder");
    says(&["check", "a"], "did you mean `a.exp`?");
    says(&["describe", "pretrian"], "did you mean `pretrain`?");
    says(&["show", "a.exp", "nm"], "did you mean `nn`?");
    says(&["explain", "E9999"], "`harness explain` lists them");
    let ran = test.harness(&["explain"]);
    assert!(ran.code == 0 && ran.stdout.contains("W0206  Replicates that differ in a setting."), "{}", ran.stdout);
}

#[test]
fn graphs_are_text_for_others() {
    let test = Test::new().file("a.exp", PROGRAM);
    let ran = test.harness(&["graph", "a.exp"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("digraph experiment {"), "{}", ran.stderr);
    let ran = test.harness(&["graph", "a.exp", "--format", "mermaid"]);
    assert!(ran.stdout.starts_with("graph LR\n") && ran.stdout.contains("-->"), "{}", ran.stdout);
    // Three families, and nothing that nobody wrote.
    assert_eq!(ran.stdout.matches("[\"").count(), 3, "{}", ran.stdout);
    let ran = test.harness(&["graph", "a.exp", "--format", "svg"]);
    assert!(ran.stdout.starts_with("<svg ") && ran.stdout.contains("<title>nn</title>"), "{}", ran.stdout);
}

#[test]
fn the_experiments_are_right_and_laid_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let test = Test::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "exp") {
            let path = path.to_str().unwrap();
            for command in [["check", path].as_slice(), &["fmt", "--check", path]] {
                let ran = test.harness(command);
                assert_eq!(ran.code, 0, "{path}: {}{}", ran.stdout, ran.stderr);
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "the experiments were not found");
}

/// An editor at the other end of the server.
struct Editor {
    server: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    uri: String,
    id: i64,
    /// Notifications that came while an answer was awaited.
    notes: Vec<Value>,
}

impl Editor {
    fn open(test: &Test, text: &str) -> Editor {
        test.write("a.exp", text);
        let mut server = test.command(&["lsp"]).stdin(std::process::Stdio::piped()).spawn().expect("the server starts");
        let (to, from) = (server.stdin.take().unwrap(), BufReader::new(server.stdout.take().unwrap()));
        let uri = format!("file://{}/a.exp", test.path().canonicalize().unwrap().display());
        let mut editor = Editor { server, to, from, uri, id: 0, notes: Vec::new() };
        let answer = editor.ask("initialize", json!({ "capabilities": {}, "processId": null, "rootUri": null }));
        assert!(answer["capabilities"]["hoverProvider"].as_bool().unwrap());
        editor.send(json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }));
        let document = json!({ "uri": editor.uri, "languageId": "exp", "version": 1, "text": text });
        editor.note("textDocument/didOpen", json!({ "textDocument": document }));
        editor
    }

    fn send(&mut self, message: Value) {
        let text = message.to_string();
        write!(self.to, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        self.to.flush().unwrap();
    }

    fn note(&mut self, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the server went away");
            if line.trim().is_empty() {
                break;
            }
            if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.from.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let id = self.id;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message["id"] == json!(id) {
                assert!(message.get("error").is_none(), "{message}");
                return message["result"].clone();
            }
            self.notes.push(message);
        }
    }

    fn diagnostics(&mut self) -> Vec<Value> {
        let message = match self.notes.pop() {
            Some(note) => note,
            None => self.receive(),
        };
        assert_eq!(message["method"], "textDocument/publishDiagnostics");
        message["params"]["diagnostics"].as_array().unwrap().clone()
    }

    fn at(&self, line: u32, character: u32) -> Value {
        json!({ "textDocument": { "uri": self.uri }, "position": { "line": line, "character": character } })
    }

    fn close(mut self) {
        self.ask("shutdown", Value::Null);
        self.note("exit", Value::Null);
        assert!(self.server.wait().unwrap().success());
    }
}

#[test]
fn an_editor_is_served() {
    let test = Test::new();
    let mut editor = Editor::open(&test, PROGRAM);
    assert_eq!(editor.diagnostics(), Vec::<Value>::new());

    // Hover over `count` where it is used: what it is worth.
    let place = editor.at(1, 24);
    let hover = editor.ask("textDocument/hover", place);
    assert!(hover["contents"]["value"].as_str().unwrap().contains("param count = 40"), "{hover}");

    // From a use to the declaration, and to all uses.
    let place = editor.at(3, 20);
    let found = editor.ask("textDocument/definition", place.clone());
    assert_eq!(found["range"]["start"], json!({ "line": 2, "character": 8 }), "{found}");
    let mut place = place;
    place["context"] = json!({ "includeDeclaration": true });
    assert_eq!(editor.ask("textDocument/references", place.clone()).as_array().unwrap().len(), 2);
    place["newName"] = "encoder_of_all".into();
    let renamed = editor.ask("textDocument/rename", place);
    assert_eq!(renamed["changes"][&editor.uri].as_array().unwrap().len(), 2, "{renamed}");

    let document = json!({ "textDocument": { "uri": editor.uri } });
    let symbols = editor.ask("textDocument/documentSymbol", document.clone());
    let names: Vec<&str> = symbols.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["count", "world", "net", "nn", "c"]);
    let tokens = editor.ask("textDocument/semanticTokens/full", document.clone());
    assert!(tokens["data"].as_array().unwrap().len() > 100);
    let mut format = document.clone();
    format["options"] = json!({ "tabSize": 4, "insertSpaces": true });
    let edits = editor.ask("textDocument/formatting", format);
    assert!(edits[0]["newText"].as_str().unwrap().starts_with("param count = 40\n"));

    // A mistake while typing: said at its place, with the edit that mends it; completion knows the field.
    let typed = PROGRAM.replace("train = count", "trian = count");
    let version = json!({ "uri": editor.uri, "version": 2 });
    editor.note("textDocument/didChange", json!({ "textDocument": version, "contentChanges": [{ "text": typed }] }));
    let found = editor.diagnostics();
    assert_eq!((found.len(), &found[0]["code"]), (1, &json!("E0104")), "{found:?}");
    assert_eq!(found[0]["range"]["start"]["line"], 1);
    let mut range = document.clone();
    range["range"] = found[0]["range"].clone();
    range["context"] = json!({ "diagnostics": found });
    let actions = editor.ask("textDocument/codeAction", range);
    assert_eq!(actions[0]["title"], "Write `train`", "{actions}");
    let column = typed.lines().nth(3).unwrap().find("k =").unwrap() as u32 + 1;
    let place = editor.at(3, column);
    let items = editor.ask("textDocument/completion", place);
    assert!(items["items"].as_array().unwrap().iter().any(|item| item["label"] == "temperature"), "{items}");
    editor.close();
}

#[test]
fn hover_tells_what_was_measured() {
    let text = "param word = \"a\"\nreplicate seed in [1, 2] {\n    command counted { run = [\"sh\", \"-c\", \"echo '{\\\"n\\\": {seed}.25}' > metrics.json\"], env = { WORD = word }, metrics = [\"n\"] }\n}\n";
    let test = Test::new();
    let mut editor = Editor::open(&test, text);
    assert_eq!(editor.diagnostics(), Vec::<Value>::new());
    let name = editor.at(2, 13);
    let said = |hover: &Value| hover["contents"]["value"].as_str().unwrap_or_default().to_owned();
    // Looking makes no cache, and there is nothing to tell.
    let before = said(&editor.ask("textDocument/hover", name.clone()));
    assert!(before.contains("command") && !before.contains("recorded"), "{before}");
    assert!(!test.path().join(".harness").exists());
    // What a run measures is seen at once, member by member.
    test.harness(&["run", "a.exp"]).code(0);
    let after = said(&editor.ask("textDocument/hover", name.clone()));
    assert!(after.contains("`counted[seed=1]`: n 1.2500") && after.contains("`counted[seed=2]`: n 2.2500"), "{after}");
    assert!(!after.contains("changed"), "{after}");
    // The text is another one than what was run: the numbers are those of before, and it is said what changed.
    let typed = text.replace("param word = \"a\"", "param word = \"b\"");
    let version = json!({ "uri": editor.uri, "version": 2 });
    editor.note("textDocument/didChange", json!({ "textDocument": version, "contentChanges": [{ "text": typed }] }));
    assert_eq!(editor.diagnostics(), Vec::<Value>::new());
    let after = said(&editor.ask("textDocument/hover", name));
    assert!(after.contains("n 1.2500") && after.contains("before `env.WORD` changed"), "{after}");
    // A field's value is what it is worth here.
    let place = editor.at(2, typed.lines().nth(2).unwrap().find("word }").unwrap() as u32 + 1);
    let worth = said(&editor.ask("textDocument/hover", place));
    assert!(worth.contains("\"b\""), "{worth}");
    editor.close();
}

#[test]
fn an_editor_that_sends_nonsense_is_answered() {
    let test = Test::new();
    let mut editor = Editor::open(&test, "scenes \u{0} { ) ] @");
    assert!(!editor.diagnostics().is_empty());
    editor.id += 1;
    let id = editor.id;
    editor.send(json!({ "jsonrpc": "2.0", "id": id, "method": "no/such", "params": {} }));
    assert_eq!(editor.receive()["error"]["code"], -32601);
    editor.id += 1;
    let id = editor.id;
    let place =
        json!({ "textDocument": { "uri": "file:///nowhere.exp" }, "position": { "line": 99, "character": 99 } });
    editor.send(json!({ "jsonrpc": "2.0", "id": id, "method": "textDocument/hover", "params": place }));
    assert!(editor.receive()["error"]["message"].as_str().unwrap().contains("is not open"));
    let far = editor.at(1000, 1000);
    assert_eq!(editor.ask("textDocument/hover", far), Value::Null);
    editor.close();
}
