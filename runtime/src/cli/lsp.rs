//! `harness lsp`: the language server, over standard input and output.
//!
//! Everything it says comes from the checker and from `harness_dsl::ide`; here is only the protocol.

use crate::{catalog, text};
use anyhow::{Context as _, Result};
use harness_dsl::ide::{self, CompletionKind, DeclarationKind, Names, TokenKind};
use harness_dsl::{Catalog, Checked, Diagnostic, Loaded, Loader, Severity};
use lsp_server::{Connection, ErrorCode, ExtractError, Message, Notification, Request, RequestId, Response};
use lsp_types::notification::{
    DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Notification as _,
    PublishDiagnostics,
};
use lsp_types::request::{
    CodeActionRequest, Completion, DocumentSymbolRequest, Formatting, GotoDefinition, HoverRequest,
    PrepareRenameRequest, References, Rename, Request as _, SemanticTokensFullRequest,
};
use lsp_types::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The order in which kinds of tokens are numbered.
const TOKENS: [SemanticTokenType; 8] = [
    SemanticTokenType::KEYWORD,
    SemanticTokenType::TYPE,
    SemanticTokenType::PROPERTY,
    SemanticTokenType::VARIABLE,
    SemanticTokenType::NUMBER,
    SemanticTokenType::STRING,
    SemanticTokenType::OPERATOR,
    SemanticTokenType::COMMENT,
];

/// Serves one editor until it says goodbye.
///
/// # Errors
/// The other side does not speak the protocol, or went away in the middle of a message.
pub fn lsp() -> Result<ExitCode> {
    let (connection, threads) = Connection::stdio();
    let capabilities = ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        definition_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        rename_provider: Some(OneOf::Right(RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: WorkDoneProgressOptions::default(),
        })),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        code_action_provider: Some(CodeActionProviderCapability::Simple(true)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(vec![".".into(), "=".into(), " ".into()]),
            ..CompletionOptions::default()
        }),
        semantic_tokens_provider: Some(SemanticTokensServerCapabilities::SemanticTokensOptions(
            SemanticTokensOptions {
                legend: SemanticTokensLegend { token_types: TOKENS.to_vec(), token_modifiers: Vec::new() },
                full: Some(SemanticTokensFullOptions::Bool(true)),
                ..SemanticTokensOptions::default()
            },
        )),
        ..ServerCapabilities::default()
    };
    connection.initialize(serde_json::to_value(capabilities)?).context("the editor does not speak the protocol")?;
    let mut server = Server { catalog: catalog::catalog(), documents: HashMap::new() };
    for message in &connection.receiver {
        match message {
            Message::Request(request) => {
                if connection.handle_shutdown(&request)? {
                    break;
                }
                connection.sender.send(Message::Response(server.answer(request)))?;
            }
            Message::Notification(notification) => {
                for note in server.note(notification) {
                    connection.sender.send(Message::Notification(note))?;
                }
            }
            Message::Response(_) => {}
        }
    }
    drop(connection);
    threads.join()?;
    Ok(ExitCode::SUCCESS)
}

/// An open text and what is known of it.
struct Document {
    uri: Uri,
    path: PathBuf,
    text: String,
    checked: Checked,
    names: Names,
}

struct Server {
    catalog: Catalog,
    documents: HashMap<String, Document>,
}

/// Imports: what the editor has open counts before what is on disk.
struct Open<'a>(&'a HashMap<String, Document>);

impl Loader for Open<'_> {
    fn load(&self, from: Option<&str>, path: &str) -> Result<Loaded, String> {
        let loaded = text::Files.load(from, path)?;
        let open = self.0.values().find(|document| {
            document.path.canonicalize().ok() == Path::new(&loaded.name).canonicalize().ok() && document.path.exists()
        });
        Ok(Loaded { text: open.map_or(loaded.text, |document| document.text.clone()), ..loaded })
    }
}

impl Server {
    fn note(&mut self, note: Notification) -> Vec<Notification> {
        let changed = match note.method.as_str() {
            DidOpenTextDocument::METHOD => serde_json::from_value::<DidOpenTextDocumentParams>(note.params)
                .ok()
                .map(|params| (params.text_document.uri, Some(params.text_document.text))),
            DidChangeTextDocument::METHOD => {
                serde_json::from_value::<DidChangeTextDocumentParams>(note.params).ok().map(|params| {
                    let text = params.content_changes.into_iter().next_back().map(|change| change.text);
                    (params.text_document.uri, text)
                })
            }
            DidSaveTextDocument::METHOD => serde_json::from_value::<DidSaveTextDocumentParams>(note.params)
                .ok()
                .map(|params| (params.text_document.uri, params.text)),
            DidCloseTextDocument::METHOD => {
                if let Ok(params) = serde_json::from_value::<DidCloseTextDocumentParams>(note.params) {
                    self.documents.remove(params.text_document.uri.as_str());
                    return vec![published(params.text_document.uri, Vec::new())];
                }
                None
            }
            _ => None,
        };
        let Some((uri, text)) = changed else { return Vec::new() };
        let text = text.or_else(|| self.documents.get(uri.as_str()).map(|document| document.text.clone()));
        let Some(text) = text else { return Vec::new() };
        let path = path_of(&uri);
        let name = path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string();
        let checked = text::check(&name, &text, &Open(&self.documents), &self.catalog, &Vec::new());
        let names = Names::of(&checked.sources);
        let here: Vec<lsp_types::Diagnostic> = checked
            .diagnostics
            .iter()
            .filter(|found| found.span.source == 0)
            .map(|found| diagnostic(found, &text, &uri))
            .collect();
        self.documents.insert(uri.as_str().to_owned(), Document { uri: uri.clone(), path, text, checked, names });
        vec![published(uri, here)]
    }

    fn answer(&mut self, request: Request) -> Response {
        let id = request.id.clone();
        let result = match request.method.as_str() {
            HoverRequest::METHOD => self.on::<HoverRequest>(request, Self::hover),
            Completion::METHOD => self.on::<Completion>(request, Self::complete),
            GotoDefinition::METHOD => self.on::<GotoDefinition>(request, Self::definition),
            References::METHOD => self.on::<References>(request, Self::references),
            PrepareRenameRequest::METHOD => self.on::<PrepareRenameRequest>(request, Self::prepare),
            Rename::METHOD => self.on::<Rename>(request, Self::rename),
            DocumentSymbolRequest::METHOD => self.on::<DocumentSymbolRequest>(request, Self::symbols),
            Formatting::METHOD => self.on::<Formatting>(request, Self::format),
            SemanticTokensFullRequest::METHOD => self.on::<SemanticTokensFullRequest>(request, Self::tokens),
            CodeActionRequest::METHOD => self.on::<CodeActionRequest>(request, Self::actions),
            other => Err((ErrorCode::MethodNotFound, format!("{other} is not served"))),
        };
        match result {
            Ok(value) => Response::new_ok(id, value),
            Err((code, message)) => Response::new_err(id, code as i32, message),
        }
    }

    fn on<R: lsp_types::request::Request>(
        &self,
        request: Request,
        answer: impl Fn(&Self, R::Params) -> Result<R::Result, String>,
    ) -> Result<serde_json::Value, (ErrorCode, String)>
    where
        R::Params: serde::de::DeserializeOwned,
        R::Result: serde::Serialize,
    {
        let read: Result<(RequestId, R::Params), ExtractError<Request>> = request.extract(R::METHOD);
        let (_, params) = read.map_err(|error| (ErrorCode::InvalidParams, error.to_string()))?;
        let result = answer(self, params).map_err(|message| (ErrorCode::RequestFailed, message))?;
        serde_json::to_value(result).map_err(|error| (ErrorCode::InternalError, error.to_string()))
    }

    fn document(&self, uri: &Uri) -> Result<&Document, String> {
        self.documents.get(uri.as_str()).ok_or_else(|| format!("{} is not open", uri.as_str()))
    }

    fn at(&self, place: &TextDocumentPositionParams) -> Result<(&Document, usize), String> {
        let document = self.document(&place.text_document.uri)?;
        Ok((document, offset(&document.text, place.position)))
    }

    fn hover(&self, params: HoverParams) -> Result<Option<Hover>, String> {
        let (document, at) = self.at(&params.text_document_position_params)?;
        let found = ide::hover(&document.text, at, &document.names, 0, &self.catalog);
        Ok(found.map(|(mut value, start, end)| {
            // A param's value in this program, where it is more than what is written.
            let params = document.checked.program.iter().flat_map(|program| &program.params);
            if let Some((_, resolved)) = params.clone().find(|(name, _)| *name == document.text[start..end])
                && value.contains("\nparam ")
            {
                value.push_str(&format!("\n\nnow `{resolved}`"));
            }
            Hover {
                contents: HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value }),
                range: Some(range(&document.text, start, end)),
            }
        }))
    }

    fn complete(&self, params: CompletionParams) -> Result<Option<CompletionResponse>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        let (found, start, end) = ide::complete(&document.text, at, &document.names, 0, &self.catalog);
        let place = range(&document.text, start, end);
        let items = found.into_iter().map(|item| CompletionItem {
            kind: Some(match item.kind {
                CompletionKind::Keyword => CompletionItemKind::KEYWORD,
                CompletionKind::Kind => CompletionItemKind::CLASS,
                CompletionKind::Field => CompletionItemKind::FIELD,
                CompletionKind::Word => CompletionItemKind::ENUM_MEMBER,
                CompletionKind::Step => CompletionItemKind::FUNCTION,
                CompletionKind::Value => CompletionItemKind::VARIABLE,
                CompletionKind::Metric | CompletionKind::Output => CompletionItemKind::PROPERTY,
            }),
            detail: (!item.detail.is_empty()).then(|| item.detail.clone()),
            documentation: (!item.doc.is_empty()).then(|| {
                Documentation::MarkupContent(MarkupContent { kind: MarkupKind::Markdown, value: item.doc.clone() })
            }),
            sort_text: Some(format!("{}{}", u8::from(!item.first), item.label)),
            text_edit: Some(CompletionTextEdit::Edit(TextEdit {
                range: place,
                new_text: item.insert.clone().unwrap_or_else(|| item.label.clone()),
            })),
            label: item.label,
            ..CompletionItem::default()
        });
        Ok(Some(CompletionResponse::Array(items.collect())))
    }

    /// A place in any of a document's texts.
    fn location(&self, document: &Document, span: harness_dsl::Span) -> Option<Location> {
        if span.source == 0 {
            return Some(Location { uri: document.uri.clone(), range: range(&document.text, span.start, span.end) });
        }
        let source = document.checked.sources.get(span.source)?;
        let path = std::path::absolute(&source.name).ok()?;
        Some(Location { uri: uri_of(&path)?, range: range(&source.text, span.start, span.end) })
    }

    fn definition(&self, params: GotoDefinitionParams) -> Result<Option<GotoDefinitionResponse>, String> {
        let (document, at) = self.at(&params.text_document_position_params)?;
        let declared = document.names.at(0, at);
        let place = declared.and_then(|declared| self.location(document, declared.span));
        Ok(place.map(GotoDefinitionResponse::Scalar))
    }

    fn references(&self, params: ReferenceParams) -> Result<Option<Vec<Location>>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        let Some(declared) = document.names.at(0, at) else { return Ok(None) };
        let skip = usize::from(!params.context.include_declaration);
        let places = document.names.places(declared).into_iter().skip(skip);
        Ok(Some(places.filter_map(|span| self.location(document, span)).collect()))
    }

    fn prepare(&self, params: TextDocumentPositionParams) -> Result<Option<PrepareRenameResponse>, String> {
        let (document, at) = self.at(&params)?;
        let Some(declared) = document.names.at(0, at) else { return Ok(None) };
        let places = document.names.places(declared);
        let here = places.iter().find(|span| span.source == 0 && span.start <= at && at <= span.end);
        let renamed = here.filter(|_| declared.kind != DeclarationKind::Claim);
        Ok(renamed.map(|span| PrepareRenameResponse::Range(range(&document.text, span.start, span.end))))
    }

    fn rename(&self, params: RenameParams) -> Result<Option<WorkspaceEdit>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        let Some(declared) = document.names.at(0, at) else { return Ok(None) };
        let name = &params.new_name;
        let fine = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|next| next.is_ascii_alphanumeric() || next == '_')
            && !harness_dsl::ide::is_reserved(name);
        if !fine {
            return Err(format!("`{name}` cannot be a name: letters, digits and `_`, and no word of the language"));
        }
        if let Some(other) = document.names.resolve(name, 0, declared.span.start)
            && other.span != declared.span
        {
            return Err(format!("`{name}` is taken"));
        }
        // A word in a string of `-p`, or a label in an index of another file, is none of ours to change.
        #[allow(clippy::mutable_key_type, reason = "the type that the protocol's crate asks for")]
        let mut changes: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
        for span in document.names.places(declared) {
            if let Some(place) = self.location(document, span) {
                let edit = TextEdit { range: place.range, new_text: name.clone() };
                changes.entry(place.uri).or_default().push(edit);
            }
        }
        Ok(Some(WorkspaceEdit { changes: Some(changes), ..WorkspaceEdit::default() }))
    }

    fn symbols(&self, params: DocumentSymbolParams) -> Result<Option<DocumentSymbolResponse>, String> {
        let document = self.document(&params.text_document.uri)?;
        let symbols = document.names.declarations(0).map(|declared| {
            let (kind, detail) = match &declared.kind {
                DeclarationKind::Step { kind, .. } => (SymbolKind::FUNCTION, Some(kind.clone())),
                DeclarationKind::Param => (SymbolKind::CONSTANT, Some(declared.value.clone())),
                DeclarationKind::Let => (SymbolKind::VARIABLE, Some(declared.value.clone())),
                DeclarationKind::Axis { .. } => (SymbolKind::ENUM, Some(declared.value.clone())),
                DeclarationKind::Table => (SymbolKind::ARRAY, Some("table".into())),
                DeclarationKind::Figure => (SymbolKind::ARRAY, Some("figure".into())),
                DeclarationKind::Claim => (SymbolKind::EVENT, Some("claim".into())),
            };
            #[allow(deprecated, reason = "the field has to be filled in")]
            DocumentSymbol {
                name: if declared.name.is_empty() { "claim".into() } else { declared.name.clone() },
                detail,
                kind,
                tags: None,
                deprecated: None,
                range: range(&document.text, declared.whole.start, declared.whole.end),
                selection_range: range(&document.text, declared.span.start, declared.span.end),
                children: None,
            }
        });
        Ok(Some(DocumentSymbolResponse::Nested(symbols.collect())))
    }

    fn format(&self, params: DocumentFormattingParams) -> Result<Option<Vec<TextEdit>>, String> {
        let document = self.document(&params.text_document.uri)?;
        // A text that cannot be read has its diagnostics already.
        let Ok(formatted) = harness_dsl::format(&document.path.display().to_string(), &document.text) else {
            return Ok(None);
        };
        let whole = range(&document.text, 0, document.text.len());
        let edits =
            if formatted == document.text { Vec::new() } else { vec![TextEdit { range: whole, new_text: formatted }] };
        Ok(Some(edits))
    }

    fn tokens(&self, params: SemanticTokensParams) -> Result<Option<SemanticTokensResult>, String> {
        let document = self.document(&params.text_document.uri)?;
        let (mut line, mut column) = (0, 0);
        let mut data = Vec::new();
        for token in ide::semantic_tokens(&document.text) {
            let place = range(&document.text, token.start, token.end);
            if place.start.line != place.end.line {
                continue;
            }
            let start = if place.start.line == line { place.start.character - column } else { place.start.character };
            data.push(lsp_types::SemanticToken {
                delta_line: place.start.line - line,
                delta_start: start,
                length: place.end.character - place.start.character,
                token_type: match token.kind {
                    TokenKind::Keyword => 0,
                    TokenKind::Kind => 1,
                    TokenKind::Field => 2,
                    TokenKind::Name => 3,
                    TokenKind::Number => 4,
                    TokenKind::Text => 5,
                    TokenKind::Operator => 6,
                    TokenKind::Comment => 7,
                },
                token_modifiers_bitset: 0,
            });
            (line, column) = (place.start.line, place.start.character);
        }
        Ok(Some(SemanticTokensResult::Tokens(SemanticTokens { result_id: None, data })))
    }

    /// `did you mean` as an edit.
    fn actions(&self, params: CodeActionParams) -> Result<Option<CodeActionResponse>, String> {
        let document = self.document(&params.text_document.uri)?;
        let (from, to) = (offset(&document.text, params.range.start), offset(&document.text, params.range.end));
        let mut actions = Vec::new();
        for found in document.checked.diagnostics.iter().filter(|found| found.span.source == 0) {
            let touches = found.span.start <= to && from <= found.span.end;
            let Some(fix) = found.fix().filter(|_| touches) else { continue };
            let edit =
                TextEdit { range: range(&document.text, fix.span.start, fix.span.end), new_text: fix.text.clone() };
            #[allow(clippy::mutable_key_type, reason = "the type that the protocol's crate asks for")]
            let changes = HashMap::from([(document.uri.clone(), vec![edit])]);
            actions.push(CodeActionOrCommand::CodeAction(CodeAction {
                title: format!("Write `{}`", fix.text),
                kind: Some(CodeActionKind::QUICKFIX),
                diagnostics: Some(vec![diagnostic(found, &document.text, &document.uri)]),
                edit: Some(WorkspaceEdit { changes: Some(changes), ..WorkspaceEdit::default() }),
                is_preferred: Some(true),
                ..CodeAction::default()
            }));
        }
        Ok(Some(actions))
    }
}

fn published(uri: Uri, diagnostics: Vec<lsp_types::Diagnostic>) -> Notification {
    let params = PublishDiagnosticsParams { uri, diagnostics, version: None };
    Notification::new(PublishDiagnostics::METHOD.into(), params)
}

fn diagnostic(found: &Diagnostic, text: &str, uri: &Uri) -> lsp_types::Diagnostic {
    let mut message = found.message.clone();
    for line in found.notes.iter().chain(&found.help) {
        message.push('\n');
        message.push_str(line);
    }
    let related =
        found.related.iter().filter(|related| related.span.source == 0).map(|related| DiagnosticRelatedInformation {
            location: Location { uri: uri.clone(), range: range(text, related.span.start, related.span.end) },
            message: related.label.clone(),
        });
    lsp_types::Diagnostic {
        range: range(text, found.span.start, found.span.end),
        severity: Some(match found.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(found.code.into())),
        source: Some("harness".into()),
        message,
        related_information: Some(related.collect()),
        ..lsp_types::Diagnostic::default()
    }
}

/// The byte of a position; positions count UTF-16 units, as the protocol has it.
fn offset(text: &str, position: Position) -> usize {
    let mut start = 0;
    for _ in 0..position.line {
        match text[start..].find('\n') {
            Some(at) => start += at + 1,
            None => return text.len(),
        }
    }
    let mut units = 0;
    for (at, character) in text[start..].char_indices() {
        if units >= position.character as usize || character == '\n' {
            return start + at;
        }
        units += character.len_utf16();
    }
    text.len()
}

fn position(text: &str, offset: usize) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    Position { line: line as u32, character: before[start..].encode_utf16().count() as u32 }
}

fn range(text: &str, start: usize, end: usize) -> Range {
    Range { start: position(text, start), end: position(text, end) }
}

/// The path of a `file:` address, its percent signs resolved.
fn path_of(uri: &Uri) -> PathBuf {
    let text = uri.as_str().strip_prefix("file://").unwrap_or(uri.as_str());
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

fn uri_of(path: &Path) -> Option<Uri> {
    let mut text = String::from("file://");
    for byte in path.to_str()?.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_utf16() {
        let text = "a\né😀b\n";
        for at in text.char_indices().map(|(at, _)| at).chain([text.len()]) {
            assert_eq!(offset(text, position(text, at)), at);
        }
        assert_eq!(position(text, text.find('b').unwrap()), Position { line: 1, character: 3 });
        assert_eq!(offset(text, Position { line: 9, character: 9 }), text.len());
        assert_eq!(offset(text, Position { line: 0, character: 99 }), 1);
    }

    #[test]
    fn addresses_come_back() {
        let path = Path::new("/a b/ü/x.exp");
        assert_eq!(path_of(&uri_of(path).unwrap()), path);
    }
}
