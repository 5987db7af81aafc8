// Starts `harness lsp` for .exp files and leaves everything else to it.
"use strict";

const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function start() {
  const command = vscode.workspace.getConfiguration("harness").get("command") || "harness";
  client = new LanguageClient(
    "harness",
    "harness",
    { command, args: ["lsp"] },
    { documentSelector: [{ language: "exp" }] },
  );
  return client.start().catch((error) => {
    vscode.window.showErrorMessage(
      `harness: the language server did not start (${error.message}). Is "${command}" on the PATH? The setting harness.command names it.`,
    );
  });
}

async function restart() {
  await client?.stop().catch(() => {});
  await start();
}

exports.activate = (context) => {
  context.subscriptions.push(
    vscode.commands.registerCommand("harness.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("harness.command")) restart();
    }),
  );
  return start();
};

exports.deactivate = () => client?.stop();
