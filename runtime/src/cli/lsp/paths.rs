//! What lies at a path that is being written: roots, folders, files. Only names are read.

use super::Document;
use crate::config::{Config, Flags};
use crate::project;
use harness_dsl::ide::PathPlace;
use lsp_types::{CompletionItem, CompletionItemKind, CompletionList, CompletionTextEdit, TextEdit};
use std::path::PathBuf;

/// Entries of a folder that are looked at; a folder of a million pictures is nothing to choose from.
const READ: usize = 20_000;

/// Entries that are offered. More come as more is typed.
pub const OFFERED: usize = 200;

/// What could stand at a path: folders first, hidden ones only where a point was typed.
pub fn complete(place: &PathPlace, document: &Document) -> CompletionList {
    let (mut found, complete) = entries(place, document);
    found.retain(|(name, _)| name.starts_with(&place.typed));
    found.sort_by(|a, b| (!a.1, &a.0).cmp(&(!b.1, &b.0)));
    let is_incomplete = !complete || found.len() > OFFERED;
    found.truncate(OFFERED);
    let items = found.into_iter().map(|(name, folder)| {
        let (new_text, start) = place.write(&name, folder, &document.page);
        let range = document.range(start, place.end);
        // An editor compares what stands in the range with this.
        let filter_text = format!("{}{name}", &document.text()[start..place.start]);
        CompletionItem {
            kind: Some(if folder { CompletionItemKind::FOLDER } else { CompletionItemKind::FILE }),
            detail: place.names_root.then(|| "root".into()),
            sort_text: Some(format!("{}{name}", u8::from(!folder))),
            filter_text: Some(filter_text),
            text_edit: Some(CompletionTextEdit::Edit(TextEdit { range, new_text })),
            label: if folder { format!("{name}/") } else { name },
            ..CompletionItem::default()
        }
    });
    CompletionList { is_incomplete, items: items.collect() }
}

/// Names with whether they are folders, and whether those are all.
fn entries(place: &PathPlace, document: &Document) -> (Vec<(String, bool)>, bool) {
    let file = &document.path;
    let beside = project::folder(file);
    let config = || Config::find(beside, &Flags::default()).ok();
    let folder: PathBuf = match &place.root {
        Some(_) if place.names_root => {
            let roots = config().map(|config| config.roots).unwrap_or_default();
            return (roots.into_keys().map(|root| (root, true)).collect(), true);
        }
        Some(root) => match config().and_then(|config| config.place(Some(root), &place.folder).ok()) {
            Some(folder) => folder,
            None => return (Vec::new(), true),
        },
        None => beside.join(&place.folder),
    };
    let hidden = place.typed.starts_with('.');
    let mut read = 0;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().take(READ) {
        read += 1;
        // A name that is no text cannot be written.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') && !hidden {
            continue;
        }
        // Links count as what they lead to.
        let kind = entry.file_type().ok().filter(|kind| !kind.is_symlink());
        let folder = kind.map_or_else(|| entry.path().is_dir(), |kind| kind.is_dir());
        let itself = || entry.path().canonicalize().ok() == file.canonicalize().ok();
        if folder || !place.import || (name.ends_with(".exp") && !itself()) {
            found.push((name, folder));
        }
    }
    (found, read < READ)
}
