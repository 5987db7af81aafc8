//! From a file to a checked program, with everything that can be said against it before anything runs.

use crate::catalog::expand_fields;
use crate::implied;
use anyhow::{Context as _, Result};
use harness_cache::Digest;
use harness_dsl::{Catalog, Checked, Diagnostic, Expression, Loaded, Loader, Overrides, Program, Severity, Step};
use harness_protocol::steps::Pretrain;
use harness_protocol::{StepKind, steps};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Reads imports from the file system, relative to the importing file.
pub struct Files;

impl Loader for Files {
    fn load(&self, from: Option<&str>, path: &str) -> Result<Loaded, String> {
        let base = from.map(Path::new).and_then(Path::parent).unwrap_or(Path::new(""));
        let full = base.join(path);
        let name = full.canonicalize().map_err(|error| format!("{} cannot be opened: {error}", full.display()))?;
        let text =
            std::fs::read_to_string(&name).map_err(|error| format!("{} cannot be read: {error}", full.display()))?;
        Ok(Loaded { name: shown(&name), text })
    }
}

/// [`Files`], with what was read taken down.
#[derive(Default)]
struct Recorded(RefCell<Vec<(PathBuf, Digest)>>);

impl Loader for Recorded {
    fn load(&self, from: Option<&str>, path: &str) -> Result<Loaded, String> {
        let loaded = Files.load(from, path)?;
        let base = from.map(Path::new).and_then(Path::parent).unwrap_or(Path::new(""));
        self.0.borrow_mut().push((base.join(path), Digest::of_bytes(loaded.text.as_bytes())));
        Ok(loaded)
    }
}

/// A path as people want to see it: below the current folder relative to it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|dir| dir.canonicalize()).unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_string_lossy().into_owned()
}

/// A text that was read and checked.
pub struct Text {
    /// Its file, as it was named.
    pub file: PathBuf,
    /// What it says.
    pub text: String,
    /// The files it was read from, imports included, with the digests of what they said.
    pub read: Vec<(PathBuf, Digest)>,
    /// What the checker found, with what the kinds themselves have to say.
    pub checked: Checked,
}

/// Reads and checks `file`.
///
/// # Errors
/// Only when the file cannot be read; what is wrong with the text is in the diagnostics.
pub fn read(file: &Path, catalog: &Catalog, overrides: &Overrides) -> Result<Text> {
    let mut text = read_as_written(file, catalog, overrides)?;
    text.checked.program = text.checked.program.map(implied::imply);
    Ok(text)
}

/// [`read`], without the steps that others imply.
///
/// # Errors
/// As for [`read`].
pub fn read_as_written(file: &Path, catalog: &Catalog, overrides: &Overrides) -> Result<Text> {
    if file.is_dir() {
        anyhow::bail!("{} is a folder; name the .exp file in it", file.display());
    }
    let bytes = std::fs::read(file).with_context(|| {
        let with = file.with_extension("exp");
        let meant = file.extension().is_none() && with.is_file();
        let hint = if meant { format!("; did you mean `{}`?", with.display()) } else { String::new() };
        format!("{} cannot be read{hint}", file.display())
    })?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Ok(no_text(file, &error.into_bytes())),
    };
    let name = file.canonicalize().map(|path| shown(&path)).unwrap_or_else(|_| file.display().to_string());
    let loader = Recorded::default();
    let checked = check(&name, &text, &loader, catalog, overrides);
    let mut read = loader.0.into_inner();
    read.push((file.to_path_buf(), Digest::of_bytes(text.as_bytes())));
    Ok(Text { file: file.to_path_buf(), text, read, checked })
}

/// What is said of a file that is no UTF-8: where it stops being it.
fn no_text(file: &Path, bytes: &[u8]) -> Text {
    let good = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut checked = Checked { program: None, diagnostics: Vec::new(), sources: Default::default() };
    let source = checked.sources.add(file.display().to_string(), text.clone());
    let byte = bytes.get(good).copied().unwrap_or_default();
    let end = good + '\u{fffd}'.len_utf8();
    let span = harness_dsl::Span { source, start: good, end };
    let (what, from) = if wide { ("UTF-16", "utf-16") } else { ("Latin-1 or Windows-1252", "latin1") };
    let mut diagnostic =
        Diagnostic::error("E0001", span, format!("the file is no UTF-8: byte {} is 0x{byte:02X}", good + 1))
            .label(format!("it seems to be {what}"))
            .help(format!("save it as UTF-8, or `iconv -f {from} -t utf-8 old.exp > new.exp`"));
    diagnostic.locate(&checked.sources);
    checked.diagnostics.push(diagnostic);
    Text { file: file.to_path_buf(), text, read: Vec::new(), checked }
}

/// Steps that are worth a thread.
const SIDE_BY_SIDE: usize = 256;

/// Checks a text, and asks every kind what it has to say against its steps.
pub fn check(name: &str, text: &str, loader: &dyn Loader, catalog: &Catalog, overrides: &Overrides) -> Checked {
    let mut checked = harness_dsl::check(name, text, loader, catalog, overrides);
    if let Some(program) = &checked.program {
        // A kind looks at its step alone, so thousands are asked side by side.
        let asked = program.steps.par_iter().with_min_len(SIDE_BY_SIDE);
        let found: Vec<Diagnostic> = match program.steps.len() > 2 * SIDE_BY_SIDE {
            true => asked.flat_map_iter(|step| problems(step, program, catalog)).collect(),
            false => program.steps.iter().flat_map(|step| problems(step, program, catalog)).collect(),
        };
        // Members of a family share their text: one mistake is said once.
        for diagnostic in found {
            if !checked.diagnostics.iter().any(|d| d.span == diagnostic.span && d.message == diagnostic.message) {
                let mut diagnostic = diagnostic;
                diagnostic.locate(&checked.sources);
                checked.diagnostics.push(diagnostic);
            }
        }
    }
    if checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        checked.program = None;
    }
    checked
}

/// What a kind says against a step's fields beyond types and ranges.
fn problems(step: &Step, program: &Program, catalog: &Catalog) -> Vec<Diagnostic> {
    // A choice has no fields of its own.
    let Some(info) = steps::kind(&step.kind).filter(|_| step.choice.is_none()) else { return Vec::new() };
    let mut params = fields(step, catalog);
    // The places that a dataset step names stay places; elsewhere a path stands for a file's content.
    let places = crate::datasets::is_external(&step.kind);
    substitute(&mut params, &mut |reference| match reference {
        Reference::Path { .. } if places => None,
        // Whether there are labels to learn from is known from the text.
        Reference::Step { step: from, output } if step.kind == Pretrain::KIND => {
            Some(placeholder(artifact_kind(program, catalog, from, output)))
        }
        Reference::Step { .. } => Some(placeholder("file")),
        Reference::Path { .. } => Some(placeholder("file")),
    });
    let Err(problems) = (info.resolve)(Value::Object(params)) else { return Vec::new() };
    problems
        .into_iter()
        .map(|problem| {
            // The written field nearest to the one at fault: `contrast.moco.queue` may have been written as `contrast.queue`.
            let mut best = (0, step.span);
            for (path, span) in &step.field_spans {
                let mut rest = problem.field.split('.');
                let score = path.split('.').take_while(|part| rest.any(|other| other == *part)).count();
                if score == path.split('.').count() && score > best.0 {
                    best = (score, *span);
                }
            }
            let place = if problem.field.is_empty() {
                step.label.clone()
            } else {
                format!("`{}` of `{}`", problem.field, step.name)
            };
            let found = Diagnostic::error("E0401", best.1, format!("{place}: {}", problem.message));
            // Inherited, or written under another name: the step whose fields do not fit is elsewhere.
            if best.1 == step.span { found } else { found.related(step.span, format!("in `{}`", step.name)) }
        })
        .collect()
}

/// The written fields with bare tags spelt out.
pub fn fields(step: &Step, catalog: &Catalog) -> Map<String, Value> {
    let mut params = step.params.clone();
    // Said to `harness`, not to the step.
    params.remove(crate::overlap::ALLOWED);
    params.remove(harness_executors::FIELD);
    if let Some(kind) = catalog.kind(&step.kind) {
        expand_fields(&mut params, &kind.fields);
    }
    params
}

fn placeholder(kind: &str) -> Value {
    json!({ "$artifact": { "kind": kind, "digest": "0".repeat(64) } })
}

/// What the output of a step will be, as far as the text says.
fn artifact_kind<'a>(program: &Program, catalog: &'a Catalog, step: usize, output: &str) -> &'a str {
    let Some(step) = program.steps.get(step) else { return "file" };
    if step.kind == "image_folder" && step.params.get("labels").and_then(Value::as_str) == Some("none") {
        return "images";
    }
    let outputs = catalog.kind(&step.kind).map(|kind| kind.outputs.as_slice()).unwrap_or_default();
    match outputs.iter().find(|known| known.name == output).map(|known| known.artifact.as_str()) {
        // Datasets from datasets: of the first that they take, which stands before them.
        Some("same as data") => {
            let data = step.params.get("data").map(|data| data.get(0).unwrap_or(data));
            let reference = data.and_then(|data| data.get("$ref"));
            let place = reference.and_then(|reference| reference["step"].as_u64()).map(|at| at as usize);
            match place.filter(|&at| at < step.id) {
                Some(at) => {
                    let output = reference.and_then(|reference| reference["output"].as_str()).unwrap_or_default();
                    artifact_kind(program, catalog, at, output)
                }
                None => "file",
            }
        }
        Some(kind) => kind,
        None => "file",
    }
}

/// Something outside the parameters that a value refers to.
pub enum Reference<'a> {
    /// Another step's output.
    Step {
        /// Index of the step.
        step: usize,
        /// Name of its output.
        output: &'a str,
    },
    /// A file of the user's, where the kind wants its content.
    Path {
        /// Name of the root.
        root: Option<&'a str>,
        /// Path below it.
        path: &'a str,
    },
}

/// Replaces every reference to a step, and every path, by what `by` gives; what it gives nothing for stays.
pub fn substitute(params: &mut Map<String, Value>, by: &mut dyn FnMut(Reference<'_>) -> Option<Value>) {
    for (name, value) in params.iter_mut() {
        // The place of a dataset is a place, not a content; only these kinds have a field of this name at the top.
        if name != "path" {
            visit(value, by);
        }
    }
}

fn visit(value: &mut Value, by: &mut dyn FnMut(Reference<'_>) -> Option<Value>) {
    if let Some(replaced) = reference(value).and_then(&mut *by) {
        *value = replaced;
        return;
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(|inner| visit(inner, by)),
        Value::Array(items) => items.iter_mut().for_each(|inner| visit(inner, by)),
        _ => {}
    }
}

/// What a value as a whole refers to.
fn reference(value: &Value) -> Option<Reference<'_>> {
    let map = value.as_object()?;
    if let Some(reference) = map.get("$ref") {
        let step = reference.get("step").and_then(Value::as_u64).unwrap_or_default() as usize;
        let output = reference.get("output").and_then(Value::as_str).unwrap_or_default();
        return Some(Reference::Step { step, output });
    }
    let path = map.get("path").filter(|_| map.len() == 2).and_then(Value::as_str)?;
    Some(Reference::Path { root: map.get("root")?.as_str(), path })
}

/// Every reference that [`substitute`] would replace.
pub fn references(params: &Map<String, Value>, seen: &mut dyn FnMut(Reference<'_>)) {
    fn look(value: &Value, seen: &mut dyn FnMut(Reference<'_>)) {
        if let Some(reference) = reference(value) {
            seen(reference);
        } else {
            match value {
                Value::Object(map) => map.values().for_each(|inner| look(inner, seen)),
                Value::Array(items) => items.iter().for_each(|inner| look(inner, seen)),
                _ => {}
            }
        }
    }
    params.iter().filter(|(name, _)| *name != "path").for_each(|(_, value)| look(value, seen));
}

/// The steps that `targets` (families, labels) need, themselves included. When none is named all are, but for imported
/// datasets that nothing uses: a file of dataset declarations can be shared by experiments that each need a few of them.
///
/// # Errors
/// A target that no step has, with the nearest name.
pub fn select(program: &Program, targets: &[String]) -> Result<Vec<bool>> {
    let mut wanted = vec![false; program.steps.len()];
    if targets.is_empty() {
        for step in &program.steps {
            wanted[step.id] = step.span.source == 0 || !crate::datasets::is_dataset(&step.kind);
        }
        measured(program).for_each(|step| wanted[step] = true);
    } else {
        for index in matching(program, targets)? {
            wanted[index] = true;
        }
    }
    for step in program.steps.iter().rev() {
        if wanted[step.id] {
            step.inputs.iter().for_each(|&input| wanted[input] = true);
        }
    }
    Ok(wanted)
}

/// The steps whose numbers tables, figures and claims show.
fn measured(program: &Program) -> impl Iterator<Item = usize> {
    fn steps(expression: &Expression, into: &mut Vec<usize>) {
        match expression {
            Expression::Number(_) => {}
            Expression::Measured { cells, .. } => into.extend(cells.iter().map(|cell| cell.step)),
            Expression::Negated(inner) => steps(inner, into),
            Expression::Binary { left, right, .. } => {
                steps(left, into);
                steps(right, into);
            }
            Expression::Call { arguments, .. } => arguments.iter().for_each(|argument| steps(argument, into)),
        }
    }
    let mut found = Vec::new();
    for row in program.tables.iter().flat_map(|table| &table.rows) {
        found.extend(row.cells.iter().flat_map(|cell| cell.values.iter().chain(&cell.floor)).map(|cell| cell.step));
    }
    for drawing in program.figures.iter().flat_map(|figure| &figure.drawings) {
        found.extend(drawing.cells.iter().chain(&drawing.x).map(|cell| cell.step));
    }
    for comparison in program.claims.iter().flat_map(|claim| &claim.condition.comparisons) {
        steps(&comparison.left, &mut found);
        steps(&comparison.right, &mut found);
    }
    found.into_iter()
}

/// The steps whose family or label is one of `targets`.
///
/// # Errors
/// A target that no step has.
pub fn matching(program: &Program, targets: &[String]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for target in targets {
        // What is implied has no name to be asked by.
        let written = || program.steps.iter().filter(|step| !step.implied);
        let before = found.len();
        let plain = |text: &str| text.replace(' ', "");
        found.extend(written().filter(|s| s.name == *target || plain(&s.label) == plain(target)).map(|s| s.id));
        if found.len() == before {
            let mut names: Vec<&str> = written().map(|step| step.name.as_str()).collect();
            names.dedup();
            names.sort_unstable();
            names.dedup();
            // Of a family the members, where one of them was meant.
            let family = target.split('[').next().unwrap_or(target);
            let members: Vec<&str> =
                written().filter(|step| step.name == family).map(|step| step.label.as_str()).take(12).collect();
            if target.contains('[') && !members.is_empty() {
                anyhow::bail!("`{family}` has no member `{target}`; there are {}", members.join(", "));
            }
            if let Some(help) = harness_dsl::did_you_mean(target, names.iter().copied()) {
                anyhow::bail!("no step is called `{target}`; {help}");
            }
            anyhow::bail!("no step is called `{target}`; there are {}", names.join(", "));
        }
    }
    Ok(found)
}
