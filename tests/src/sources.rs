//! Which source files the results of a step kind depend on, and what they say.
//!
//! Followed is what a file names: modules that it declares, and paths that lead into this workspace's crates, through
//! re-exports to the file where the thing is written. That is more than what decides a result, and never less as long
//! as nothing is reached by a list of kinds; those lists ([`HUBS`]) are not followed, their kinds are begun with.
//! Comments, formatting and tests say nothing about results, so what is compared is the text without them.

use harness_digest::Digest;
use quote::ToTokens as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};

/// The crates whose code decides results, by the name that paths use.
const CRATES: &[(&str, &str)] = &[
    ("harness_digest", "cache/digest/src"),
    ("harness_protocol", "runtime/protocol/src"),
    ("harness_datasets", "runtime/datasets/src"),
    ("harness_views", "runtime/views/src"),
    ("harness_worker", "runtime/worker/src"),
    ("harness", "runtime/src"),
];

/// Files that list all kinds or begin a crate: they say which code runs, not what it does.
const HUBS: &[&str] = &[
    "runtime/protocol/src/lib.rs",
    "runtime/protocol/src/kind.rs",
    "runtime/protocol/src/job.rs",
    "runtime/protocol/src/steps/mod.rs",
    "runtime/datasets/src/lib.rs",
    "runtime/views/src/lib.rs",
    "runtime/worker/src/lib.rs",
    "runtime/worker/src/steps/mod.rs",
    "cache/digest/src/lib.rs",
];

/// A module: its crate and the path in it.
type Module = Vec<String>;

/// The parsed sources of the workspace.
pub struct Sources {
    modules: BTreeMap<Module, Parsed>,
}

struct Parsed {
    /// Relative to the repository.
    file: String,
    /// Digest of what the file says.
    digest: Digest,
    /// Modules that it declares.
    children: BTreeSet<String>,
    /// Every path that it names, as written, with `self`, `super` and `crate` spelt out.
    paths: BTreeSet<Module>,
    /// What it brings in, by the name it has here; `*` for everything.
    uses: Vec<(String, Module)>,
}

/// Takes comments, documentation and tests out.
struct Plain;

impl VisitMut for Plain {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<syn::Attribute>) {
        attributes.retain(|attribute| !attribute.path().is_ident("doc"));
    }

    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !is_test(item));
        visit_mut::visit_file_mut(self, file);
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(item: &syn::Item) -> bool {
    attributes(item).iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)"
    })
}

/// Collects the paths of a file.
#[derive(Default)]
struct Paths {
    children: BTreeSet<String>,
    found: Vec<Module>,
    uses: Vec<(String, Module)>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_none() {
            self.children.insert(item.ident.to_string());
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // Inside of a macro there are only tokens; paths are names with `::` between.
        let text = call.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        self.found
            .extend(words.filter(|word| word.contains("::")).map(|word| word.split("::").map(String::from).collect()));
        visit::visit_macro(self, call);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        fn walk(tree: &syn::UseTree, before: &Module, uses: &mut Vec<(String, Module)>) {
            let with = |name: String| before.iter().cloned().chain([name]).collect::<Module>();
            match tree {
                syn::UseTree::Path(path) => walk(&path.tree, &with(path.ident.to_string()), uses),
                syn::UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, before, uses)),
                syn::UseTree::Name(name) if name.ident == "self" => {
                    uses.push((before.last().cloned().unwrap_or_default(), before.clone()));
                }
                syn::UseTree::Name(name) => uses.push((name.ident.to_string(), with(name.ident.to_string()))),
                syn::UseTree::Rename(name) => uses.push((name.rename.to_string(), with(name.ident.to_string()))),
                syn::UseTree::Glob(_) => uses.push(("*".into(), before.clone())),
            }
        }
        walk(&item.tree, &Vec::new(), &mut self.uses);
    }
}

impl Sources {
    /// Reads the crates of the workspace at `root`.
    ///
    /// # Panics
    /// A source file cannot be read or parsed.
    pub fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for (name, folder) in CRATES {
            let start = ["lib.rs", "main.rs"].map(|file| root.join(folder).join(file));
            let start = start.into_iter().find(|file| file.is_file()).expect("a crate has a root");
            read(root, &start, &root.join(folder), vec![(*name).to_string()], &mut modules);
        }
        Self { modules }
    }

    /// Files that decide the results of a kind, with the digest of what they say.
    ///
    /// # Panics
    /// The kind has no file where kinds have theirs.
    pub fn of(&self, kind: &str) -> BTreeMap<&str, Digest> {
        let module = |text: &str| text.split("::").map(String::from).collect::<Module>();
        let mut open = vec![module(&format!("harness_protocol::steps::{kind}"))];
        let worker = module(&format!("harness_worker::steps::{kind}"));
        if kind == "command" {
            open.push(module("harness::command"));
        } else if self.modules.contains_key(&worker) {
            open.push(worker);
        } else {
            // Their builders have the kind's name and are re-exported, or derived ones, which share a file.
            let builder = self.home(&module("harness_datasets"), &[kind.into()]);
            let derived = module("harness_datasets::derived");
            open.push(builder.filter(|at| at.len() > 1).unwrap_or(derived));
        }
        let mut seen: BTreeSet<Module> = BTreeSet::new();
        while let Some(at) = open.pop() {
            let parsed = self.modules.get(&at).unwrap_or_else(|| panic!("no source file for {}", at.join("::")));
            if HUBS.contains(&parsed.file.as_str()) || !seen.insert(at.clone()) {
                continue;
            }
            open.extend(parsed.children.iter().map(|child| [at.clone(), vec![child.clone()]].concat()));
            let named = parsed.paths.iter().chain(parsed.uses.iter().map(|(_, path)| path));
            open.extend(named.filter_map(|path| self.follow(&at, path)));
        }
        seen.iter().map(|at| &self.modules[at]).map(|parsed| (parsed.file.as_str(), parsed.digest)).collect()
    }

    /// The module where what `path`, written in the module `at`, names is defined; none outside of the workspace.
    fn follow(&self, at: &Module, path: &Module) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.home(&vec![at[0].clone()], rest),
            "self" => self.home(at, rest),
            "super" => self.home(&at[..at.len() - 1].to_vec(), rest),
            name if self.modules.contains_key(&vec![name.to_string()]) => self.home(&vec![name.into()], rest),
            name => {
                // A name that was brought in, or a child.
                let parsed = self.modules.get(at)?;
                let used = parsed.uses.iter().find(|(here, from)| here == name && from[0] != name);
                match used {
                    Some((_, from)) => self.follow(at, &[from.clone(), rest.to_vec()].concat()),
                    None => parsed.children.contains(name).then(|| self.home(at, path)).flatten(),
                }
            }
        }
    }

    /// Goes from a module along a path as far as there are modules, through re-exports.
    fn home(&self, from: &Module, path: &[String]) -> Option<Module> {
        let parsed = self.modules.get(from)?;
        let Some((name, rest)) = path.split_first() else { return Some(from.clone()) };
        if parsed.children.contains(name) {
            return self.home(&[from.clone(), vec![name.clone()]].concat(), rest);
        }
        if let Some((_, to)) = parsed.uses.iter().find(|(here, _)| here == name) {
            return self.follow(from, &[to.clone(), rest.to_vec()].concat()).or_else(|| Some(from.clone()));
        }
        Some(from.clone())
    }
}

fn read(root: &Path, file: &Path, folder: &Path, module: Module, into: &mut BTreeMap<Module, Parsed>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Plain.visit_file_mut(&mut parsed);
    let mut paths = Paths::default();
    paths.visit_file(&parsed);
    for child in &paths.children {
        let places: [PathBuf; 2] = [folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs")];
        let place = places.iter().find(|place| place.is_file());
        let place = place.unwrap_or_else(|| panic!("{} has no module {child}", file.display()));
        read(root, place, &folder.join(child), [module.clone(), vec![child.clone()]].concat(), into);
    }
    let shown = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
    let digest = Digest::of_bytes(parsed.into_token_stream().to_string().as_bytes());
    let found = paths.found.into_iter().filter(|path| !path.is_empty()).collect();
    into.insert(module, Parsed { file: shown, digest, children: paths.children, paths: found, uses: paths.uses });
}
