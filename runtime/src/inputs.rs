//! Inputs are looked at again when a step ends: one that changed meanwhile makes the result void, because nobody can
//! tell which of its contents the step read.

use crate::action::Action;
use crate::command;
use harness_cache::{Cache, Digest};
use harness_protocol::LocationForm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an action's inputs must still contain when it ends.
pub struct Inputs {
    files: Vec<(PathBuf, String)>,
}

impl Inputs {
    /// The files of an action with the digests that its key was made from. Archives of the user's have no digest of
    /// their own in the key: theirs is taken now.
    ///
    /// # Errors
    /// In words, when a manifest or an archive cannot be read.
    pub fn of(action: &Action, cache: &Cache, folder: &Path) -> Result<Inputs, String> {
        let mut files = Vec::new();
        for (digest, input) in &action.inputs {
            files.push((input.file.clone(), digest.clone()));
            let Some(data) = &input.data else { continue };
            if data.form == LocationForm::Folder {
                let unreadable =
                    |error: String| format!("the manifest {} cannot be read: {error}", input.file.display());
                let bytes = std::fs::read(&input.file).map_err(|error| unreadable(error.to_string()))?;
                let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
                let top = data.path.join(&data.prefix);
                let mut listed = BTreeMap::new();
                list(&manifest, &mut listed);
                files.extend(listed.into_iter().map(|(path, digest)| (top.join(path), digest)));
            } else {
                let found = cache.file_digest(&data.path).map_err(|error| error.to_string())?;
                files.push((data.path.clone(), found.to_string()));
            }
        }
        if let Some(digest) = action.params.get("program_digest").and_then(Value::as_str)
            && let Some(name) = action.params.pointer("/run/0").and_then(Value::as_str)
            && let Some(program) = command::program(name, folder)
        {
            files.push((program, digest.to_string()));
        }
        Ok(Inputs { files })
    }

    /// Whether everything is as it was: a `stat` for each file that has been left alone, a reading for the others.
    ///
    /// # Errors
    /// In words, naming the first input that changed or is gone, and what to do.
    pub fn unchanged(&self, cache: &Cache) -> Result<(), String> {
        let void = |path: &Path, how: &str| {
            format!(
                "the input {} {how} while the step ran, so its result is void and was not kept; run it again once the file is left alone",
                path.display()
            )
        };
        let paths: Vec<PathBuf> = self.files.iter().map(|(path, _)| path.clone()).collect();
        if let Ok(found) = cache.file_digests(&paths, 0)
            && found.iter().map(Digest::to_string).eq(self.files.iter().map(|(_, digest)| digest.clone()))
        {
            return Ok(());
        }
        for (path, expected) in &self.files {
            match cache.file_digest(path) {
                Ok(found) if found.to_string() == *expected => {}
                Ok(_) => return Err(void(path, "changed")),
                Err(error) => {
                    return Err(void(path, &format!("could not be read again ({error}): it changed or went")));
                }
            }
        }
        Ok(())
    }
}

/// Collects the file entries anywhere in a manifest: objects with a path, a size and a digest.
pub fn list(value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let (Some(Value::String(path)), Some(Value::Number(_)), Some(Value::String(digest))) =
                (fields.get("path"), fields.get("size"), fields.get("digest"))
            {
                into.insert(path.clone(), digest.clone());
            }
            fields.values().for_each(|value| list(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| list(value, into)),
        _ => {}
    }
}
