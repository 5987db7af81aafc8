// Tokenizes a text with the grammar as VS Code does (`npm install && npm test`), and compares what is what.
"use strict";

const fs = require("fs");
const path = require("path");
const oniguruma = require("vscode-oniguruma");
const { Registry, INITIAL, parseRawGrammar } = require("vscode-textmate");

const here = path.join(__dirname, "..");

// Each line with words and the scope that they must have.
const LINES = [
  ["import \"datasets.exp\" # once", { import: "keyword.control.import", "\"datasets.exp": "string.quoted", "# once": "comment" }],
  ["param epochs = 200", { param: "storage.type", epochs: "variable.other.constant", 200: "constant.numeric" }],
  ["replicate seed in seeds when seed > 1 {", { replicate: "keyword.control.loop", seed: "variable.parameter", when: "keyword.control.conditional" }],
  ["    pretrain crops from moco {", { pretrain: "entity.name.type.kind", crops: "entity.name.function.step", from: "keyword.control", moco: "variable.other.step" }],
  ["        contrast.momentum = 0.995", { "contrast.momentum": "variable.other.property", "0.995": "constant.numeric" }],
  ["        optimizer = sgd { lr = 1e-4, nesterov = true }", { sgd: "entity.name.tag", "1e-4": "constant.numeric", true: "constant.language" }],
  ["        limit = 30min, memory = 2GiB, share = 10%", { "30min": "constant.numeric", "2GiB": "constant.numeric", "10%": "constant.numeric" }],
  ["        path = @coco/train2017, other = @\"my photos/x\"", { "@coco/train2017": "string.unquoted.path", "@\"my photos/x\"": "string.quoted.other.path" }],
  ["        encoder = best(moco, by = val.top1)", { best: "support.function", by: "variable.other.property" }],
  ["        encoder = moco@50", { 50: "constant.numeric" }],
  ["table transfer \"Transfer \\n 100%\" {", { table: "storage.type", transfer: "entity.name.section", "\\n": "constant.character.escape" }],
  ["claim \"a # b\" { svm[crops].map >= 5 and not_a_word < 3 }", { claim: "storage.type", "a # b": "string.quoted", ">=": "keyword.operator", and: "keyword.operator.word" }],
];

async function main() {
  const wasm = fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")).buffer;
  await oniguruma.loadWASM(wasm);
  const file = path.join(here, "syntaxes/exp.tmLanguage.json");
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => parseRawGrammar(fs.readFileSync(file, "utf8"), file),
  });
  const grammar = await registry.loadGrammar("source.exp");
  let stack = INITIAL;
  let wrong = 0;
  for (const [line, wanted] of LINES) {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
    stack = ruleStack;
    for (const [word, scope] of Object.entries(wanted)) {
      const at = line.indexOf(word);
      const token = tokens.find((token) => token.startIndex <= at && at < token.endIndex);
      if (!token || !token.scopes.some((found) => found.startsWith(scope))) {
        wrong += 1;
        console.error(`${line}\n  ${word}: wanted ${scope}, found ${token?.scopes.join(" ")}`);
      }
    }
  }
  // Every experiment of the project: no escape that is none, and no text left open at a line's end.
  const experiments = path.join(here, "../../experiments");
  let lines = 0;
  for (const name of fs.readdirSync(experiments).filter((name) => name.endsWith(".exp"))) {
    stack = INITIAL;
    for (const line of fs.readFileSync(path.join(experiments, name), "utf8").split("\n")) {
      const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
      stack = ruleStack;
      lines += 1;
      if (tokens.some((token) => token.scopes.some((scope) => scope.startsWith("invalid"))) || stack.depth > 1) {
        wrong += 1;
        console.error(`${name}: ${line}`);
      }
    }
  }
  console.log(`${LINES.length} lines and ${lines} lines of experiments, ${wrong} wrong`);
  process.exitCode = wrong ? 1 : 0;
}

main();
