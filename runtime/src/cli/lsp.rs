//! `harness lsp`: the language server, over standard input and output.
//!
//! Everything it says comes from the checker and from `harness_dsl::ide`; here is only the protocol. What a keystroke
//! needs (hover, completion) is answered from the lexemes of the text at once; checking goes on beside it, on a thread of
//! its own, and publishes when it is done.

mod paths;
mod results;

use crate::{catalog, text};
use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use harness_dsl::ide::{CompletionKind, DeclarationKind, Names, Page, TokenKind};
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
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::INCREMENTAL)),
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
            trigger_characters: Some([".", "=", " ", "\"", "/", "@"].map(String::from).into()),
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
    let catalog = Arc::new(catalog::catalog());
    let (ask, asked) = unbounded::<Ask>();
    let (tell, told) = unbounded::<Told>();
    let of_checker = catalog.clone();
    std::thread::spawn(move || check(&asked, &tell, &of_checker));
    let mut server = Server { catalog, documents: HashMap::new(), edits: 0, ask, told };
    loop {
        let notes = select! {
            recv(connection.receiver) -> message => match message {
                Ok(Message::Request(request)) => {
                    if connection.handle_shutdown(&request)? {
                        break;
                    }
                    let (response, notes) = server.answer(request);
                    connection.sender.send(Message::Response(response))?;
                    notes
                }
                Ok(Message::Notification(notification)) => server.note(notification),
                Ok(Message::Response(_)) => Vec::new(),
                Err(_) => break,
            },
            recv(server.told) -> told => told.ok().and_then(|told| server.take(told)).into_iter().collect(),
        };
        for note in notes {
            connection.sender.send(Message::Notification(note))?;
        }
    }
    drop(connection);
    threads.join()?;
    Ok(ExitCode::SUCCESS)
}

/// A text to check.
struct Ask {
    uri: String,
    edit: u64,
    path: PathBuf,
    text: String,
    /// The other texts that are open.
    others: Vec<(PathBuf, Arc<Page>)>,
}

/// A text checked.
struct Told {
    uri: String,
    edit: u64,
    checked: Checked,
    names: Names,
}

/// Bytes of a text whose check is noticed by what else is done meanwhile, and how long it is then put off.
const LARGE: usize = 200_000;
const PAUSE: Duration = Duration::from_millis(25);

/// Checks what it is asked to; of several edits of one text the last.
fn check(asked: &Receiver<Ask>, tell: &Sender<Told>, catalog: &Catalog) {
    while let Ok(first) = asked.recv() {
        // What is asked right after a keystroke comes first, and the next keystroke may make this one's check needless.
        if first.text.len() > LARGE {
            std::thread::sleep(PAUSE);
        }
        let mut waiting = vec![first];
        for ask in asked.try_iter() {
            waiting.retain(|other| other.uri != ask.uri);
            waiting.push(ask);
        }
        for Ask { uri, edit, path, text, others } in waiting {
            let name = path.canonicalize().unwrap_or(path).display().to_string();
            let checked = text::check(&name, &text, &Open(others), catalog, &Vec::new());
            let names = Names::of(&checked.sources);
            if tell.send(Told { uri, edit, checked, names }).is_err() {
                return;
            }
        }
    }
}

/// An open text and what is known of it.
struct Document {
    uri: Uri,
    path: PathBuf,
    page: Arc<Page>,
    names: Names,
    /// Which edit the page is.
    edit: u64,
    /// What the checker found of which edit; none before the first answer.
    checked: Option<(u64, Checked)>,
}

impl Document {
    fn text(&self) -> &str {
        self.page.text()
    }

    fn range(&self, start: usize, end: usize) -> Range {
        let place = |offset| {
            let (line, character) = self.page.position(offset);
            Position { line, character }
        };
        Range { start: place(start), end: place(end) }
    }

    /// What the checker found of the text as it stands now.
    fn checked(&self) -> Option<&Checked> {
        self.checked.as_ref().filter(|(edit, _)| *edit == self.edit).map(|(_, checked)| checked)
    }
}

struct Server {
    catalog: Arc<Catalog>,
    documents: HashMap<String, Document>,
    edits: u64,
    ask: Sender<Ask>,
    told: Receiver<Told>,
}

/// Imports: what the editor has open counts before what is on disk.
struct Open(Vec<(PathBuf, Arc<Page>)>);

impl Loader for Open {
    fn load(&self, from: Option<&str>, path: &str) -> Result<Loaded, String> {
        let loaded = text::Files.load(from, path)?;
        let open = self
            .0
            .iter()
            .find(|(path, _)| path.canonicalize().ok() == Path::new(&loaded.name).canonicalize().ok() && path.exists());
        Ok(Loaded { text: open.map_or(loaded.text, |(_, page)| page.text().to_owned()), ..loaded })
    }
}

/// Before what needs the checker's findings gives up waiting for them.
const PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    fn note(&mut self, note: Notification) -> Vec<Notification> {
        let changed = match note.method.as_str() {
            DidOpenTextDocument::METHOD => {
                serde_json::from_value::<DidOpenTextDocumentParams>(note.params).ok().map(|params| {
                    let text = params.text_document.text;
                    let whole = TextDocumentContentChangeEvent { range: None, range_length: None, text };
                    (params.text_document.uri, vec![whole])
                })
            }
            DidChangeTextDocument::METHOD => serde_json::from_value::<DidChangeTextDocumentParams>(note.params)
                .ok()
                .map(|params| (params.text_document.uri, params.content_changes)),
            DidSaveTextDocument::METHOD => serde_json::from_value::<DidSaveTextDocumentParams>(note.params)
                .ok()
                .map(|params| (params.text_document.uri, Vec::new())),
            DidCloseTextDocument::METHOD => {
                if let Ok(params) = serde_json::from_value::<DidCloseTextDocumentParams>(note.params) {
                    self.documents.remove(params.text_document.uri.as_str());
                    return vec![published(params.text_document.uri, Vec::new())];
                }
                None
            }
            _ => None,
        };
        let Some((uri, changes)) = changed else { return Vec::new() };
        let (page, names, checked) = match self.documents.remove(uri.as_str()) {
            Some(before) => (before.page, before.names, before.checked),
            None if changes.is_empty() => return Vec::new(),
            None => <_>::default(),
        };
        // The checker of another document may still look at it.
        let page = Arc::try_unwrap(page).unwrap_or_else(|shared| Page::clone(&shared));
        let page = Arc::new(changes.into_iter().fold(page, |page, change| match change.range {
            Some(Range { start, end }) => {
                let [start, end] = [start, end].map(|place| page.offset(place.line, place.character));
                page.edited(start, end.max(start), &change.text)
            }
            None => page.replaced(&change.text),
        }));
        self.edits += 1;
        let path = path_of(&uri);
        let others = self.documents.values().map(|other| (other.path.clone(), other.page.clone())).collect();
        let (edit, text) = (self.edits, page.text().to_owned());
        // The checker lives as long as this does.
        let _ = self.ask.send(Ask { uri: uri.as_str().to_owned(), edit, path: path.clone(), text, others });
        let names = names.with_page(&page);
        self.documents.insert(uri.as_str().to_owned(), Document { uri, path, page, names, edit, checked });
        Vec::new()
    }

    /// Takes what the checker found; what it found of an older text is of no use any more.
    fn take(&mut self, told: Told) -> Option<Notification> {
        let document = self.documents.get_mut(&told.uri).filter(|document| document.edit == told.edit)?;
        document.names = told.names;
        let here = told.checked.diagnostics.iter().filter(|found| found.span.source == 0);
        let here = here.map(|found| diagnostic(found, document, &told.checked)).collect();
        document.checked = Some((told.edit, told.checked));
        Some(published(document.uri.clone(), here))
    }

    /// Waits until the checker has come to the present text of every document.
    fn settle(&mut self) -> Vec<Notification> {
        let mut notes = Vec::new();
        let begin = Instant::now();
        while self.documents.values().any(|document| document.checked().is_none()) && begin.elapsed() < PATIENCE {
            if let Ok(told) = self.told.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                notes.extend(self.take(told));
            }
        }
        notes
    }

    /// The answer to a request, and what there is to say beside it.
    fn answer(&mut self, request: Request) -> (Response, Vec<Notification>) {
        // What an edit mends and where a name is used must be known of this text, not of the one before.
        let exact = [CodeActionRequest::METHOD, Rename::METHOD, References::METHOD, GotoDefinition::METHOD];
        let notes = if exact.contains(&request.method.as_str()) { self.settle() } else { Vec::new() };
        (self.respond(request), notes)
    }

    fn respond(&self, request: Request) -> Response {
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
        Ok((document, document.page.offset(place.position.line, place.position.character)))
    }

    fn hover(&self, params: HoverParams) -> Result<Option<Hover>, String> {
        let (document, at) = self.at(&params.text_document_position_params)?;
        let found = document.page.hover(at, &document.names, 0, &self.catalog);
        Ok(found.map(|(mut value, start, end)| {
            if let Some(program) = document.checked().and_then(|checked| checked.program.as_ref()) {
                let word = &document.text()[start..end];
                let declared = document.names.at(&document.page, start).map(|declared| &declared.kind);
                let known = match declared {
                    Some(DeclarationKind::Step { .. }) => results::of(word, program, &document.path, &self.catalog),
                    // A param's value in this program, where it is more than what is written.
                    Some(DeclarationKind::Param) => {
                        let param = program.params.iter().find(|(name, _)| name == word);
                        param.map(|(_, value)| format!("now `{value}`"))
                    }
                    _ => None,
                };
                let known = known.or_else(|| results::value(program, document.text(), start, end));
                value.extend(known.map(|known| format!("\n\n{known}")));
            }
            Hover {
                contents: HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value }),
                range: Some(document.range(start, end)),
            }
        }))
    }

    fn complete(&self, params: CompletionParams) -> Result<Option<CompletionResponse>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        if let Some(place) = document.page.path(at, &self.catalog) {
            return Ok(Some(CompletionResponse::List(paths::complete(&place, document))));
        }
        let (mut found, start, end) = document.page.complete(at, &document.names, 0, &self.catalog);
        let place = document.range(start, end);
        // In a file of ten thousand steps those that fit what is typed are enough; the editor asks again as more is.
        let is_incomplete = found.len() > paths::OFFERED;
        if is_incomplete {
            let typed = &document.text()[start..at];
            found.retain(|item| fits(&item.label, typed));
            found.sort_by_key(|item| (!item.label.starts_with(typed), !item.first));
            found.truncate(paths::OFFERED);
        }
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
        Ok(Some(CompletionResponse::List(CompletionList { is_incomplete, items: items.collect() })))
    }

    /// A place in any of a document's texts.
    fn location(&self, document: &Document, span: harness_dsl::Span) -> Option<Location> {
        if span.source == 0 {
            return Some(Location { uri: document.uri.clone(), range: document.range(span.start, span.end) });
        }
        let source = document.checked.as_ref()?.1.sources.get(span.source)?;
        let path = std::path::absolute(&source.name).ok()?;
        Some(Location { uri: uri_of(&path)?, range: range(&source.text, span.start, span.end) })
    }

    fn definition(&self, params: GotoDefinitionParams) -> Result<Option<GotoDefinitionResponse>, String> {
        let (document, at) = self.at(&params.text_document_position_params)?;
        let declared = document.names.at(&document.page, at);
        let place = declared.and_then(|declared| self.location(document, declared.span));
        Ok(place.map(GotoDefinitionResponse::Scalar))
    }

    fn references(&self, params: ReferenceParams) -> Result<Option<Vec<Location>>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        let Some(declared) = document.names.at(&document.page, at) else { return Ok(None) };
        let skip = usize::from(!params.context.include_declaration);
        let places = document.names.places(&document.page, declared).into_iter().skip(skip);
        Ok(Some(places.filter_map(|span| self.location(document, span)).collect()))
    }

    fn prepare(&self, params: TextDocumentPositionParams) -> Result<Option<PrepareRenameResponse>, String> {
        let (document, at) = self.at(&params)?;
        let Some(declared) = document.names.at(&document.page, at) else { return Ok(None) };
        let places = document.names.places(&document.page, declared);
        let here = places.iter().find(|span| span.source == 0 && span.start <= at && at <= span.end);
        let renamed = here.filter(|_| declared.kind != DeclarationKind::Claim);
        Ok(renamed.map(|span| PrepareRenameResponse::Range(document.range(span.start, span.end))))
    }

    fn rename(&self, params: RenameParams) -> Result<Option<WorkspaceEdit>, String> {
        let (document, at) = self.at(&params.text_document_position)?;
        let Some(declared) = document.names.at(&document.page, at) else { return Ok(None) };
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
        for span in document.names.places(&document.page, declared) {
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
                range: document.range(declared.whole.start, declared.whole.end),
                selection_range: document.range(declared.span.start, declared.span.end),
                children: None,
            }
        });
        Ok(Some(DocumentSymbolResponse::Nested(symbols.collect())))
    }

    fn format(&self, params: DocumentFormattingParams) -> Result<Option<Vec<TextEdit>>, String> {
        let document = self.document(&params.text_document.uri)?;
        // A text that cannot be read has its diagnostics already.
        let Ok(formatted) = harness_dsl::format(&document.path.display().to_string(), document.text()) else {
            return Ok(None);
        };
        let whole = document.range(0, document.text().len());
        let edits = if formatted == document.text() {
            Vec::new()
        } else {
            vec![TextEdit { range: whole, new_text: formatted }]
        };
        Ok(Some(edits))
    }

    fn tokens(&self, params: SemanticTokensParams) -> Result<Option<SemanticTokensResult>, String> {
        let document = self.document(&params.text_document.uri)?;
        let (mut line, mut column) = (0, 0);
        let mut data = Vec::new();
        for token in document.page.semantic_tokens() {
            let place = document.range(token.start, token.end);
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
        let at = |place: Position| document.page.offset(place.line, place.character);
        let (from, to) = (at(params.range.start), at(params.range.end));
        let mut actions = Vec::new();
        let Some(checked) = document.checked() else { return Ok(None) };
        for found in checked.diagnostics.iter().filter(|found| found.span.source == 0) {
            let touches = found.span.start <= to && from <= found.span.end;
            let Some(fix) = found.fix().filter(|_| touches) else { continue };
            let edit = TextEdit { range: document.range(fix.span.start, fix.span.end), new_text: fix.text.clone() };
            #[allow(clippy::mutable_key_type, reason = "the type that the protocol's crate asks for")]
            let changes = HashMap::from([(document.uri.clone(), vec![edit])]);
            actions.push(CodeActionOrCommand::CodeAction(CodeAction {
                title: format!("Write `{}`", fix.text),
                kind: Some(CodeActionKind::QUICKFIX),
                diagnostics: Some(vec![diagnostic(found, document, checked)]),
                edit: Some(WorkspaceEdit { changes: Some(changes), ..WorkspaceEdit::default() }),
                is_preferred: Some(true),
                ..CodeAction::default()
            }));
        }
        Ok(Some(actions))
    }
}

/// Whether the letters of what was typed stand in a name in their order, as editors ask for it.
fn fits(name: &str, typed: &str) -> bool {
    let mut letters = name.chars();
    typed.chars().all(|wanted| letters.any(|letter| letter.eq_ignore_ascii_case(&wanted)))
}

fn published(uri: Uri, diagnostics: Vec<lsp_types::Diagnostic>) -> Notification {
    let params = PublishDiagnosticsParams { uri, diagnostics, version: None };
    Notification::new(PublishDiagnostics::METHOD.into(), params)
}

fn diagnostic(found: &Diagnostic, document: &Document, checked: &Checked) -> lsp_types::Diagnostic {
    let mut message = found.message.clone();
    for line in found.notes.iter().chain(&found.help) {
        message.push('\n');
        message.push_str(line);
    }
    // Other places, in other files too.
    let related = found.related.iter().filter_map(|related| {
        let span = related.span;
        let location = if span.source == 0 {
            Location { uri: document.uri.clone(), range: document.range(span.start, span.end) }
        } else {
            let source = checked.sources.get(span.source)?;
            let uri = uri_of(&std::path::absolute(&source.name).ok()?)?;
            Location { uri, range: range(&source.text, span.start, span.end) }
        };
        Some(DiagnosticRelatedInformation { location, message: related.label.clone() })
    });
    lsp_types::Diagnostic {
        range: document.range(found.span.start, found.span.end),
        severity: Some(match found.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(found.code.into())),
        tags: (found.code == "W0201").then(|| vec![DiagnosticTag::UNNECESSARY]),
        source: Some("harness".into()),
        message,
        related_information: Some(related.collect()),
        ..lsp_types::Diagnostic::default()
    }
}

/// A place in a text that is not open.
fn range(text: &str, start: usize, end: usize) -> Range {
    let page = Page::new(text);
    let place = |offset| {
        let (line, character) = page.position(offset);
        Position { line, character }
    };
    Range { start: place(start), end: place(end) }
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
    fn addresses_come_back() {
        let path = Path::new("/a b/ü/x.exp");
        assert_eq!(path_of(&uri_of(path).unwrap()), path);
    }
}
