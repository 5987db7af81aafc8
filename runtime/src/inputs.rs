//! Inputs are looked at again when a step ends: one that was written to meanwhile makes the result void, because nobody
//! can tell which of its contents the step read.

use crate::action::Action;
use crate::command;
use harness_cache::{Cache, Digest, Look};
use harness_protocol::{Location, LocationForm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an action's inputs must still be when it ends.
pub struct Inputs {
    /// The user's files: nobody may have written to them, be it to write the same bytes at the end.
    theirs: Vec<(PathBuf, Look)>,
    /// Files of the cache, which nobody changes in place: their content counts.
    ours: Vec<(PathBuf, Look)>,
}

impl Inputs {
    /// Looks at the files of an action, which must have the digests that its key was made from. Archives of the user's
    /// have no digest of their own in the key: theirs is taken now.
    ///
    /// # Errors
    /// In words, when a file cannot be read or is not any more what the key was made from.
    pub fn of(action: &Action, cache: &Cache, folder: &Path) -> Result<Inputs, String> {
        let mut files: Vec<(PathBuf, Option<String>)> = Vec::new();
        for (digest, input) in &action.inputs {
            files.push((input.file.clone(), Some(digest.clone())));
            let Some(data) = &input.data else { continue };
            let mut listed = BTreeMap::new();
            if has_folder(data) {
                let unreadable =
                    |error: String| format!("the manifest {} cannot be read: {error}", input.file.display());
                let bytes = std::fs::read(&input.file).map_err(|error| unreadable(error.to_string()))?;
                let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
                list(&manifest, &mut listed);
            }
            watch(data, listed, &mut files);
        }
        if action.info.name == "command" {
            files.extend(command::watched(&action.params, folder).into_iter().map(|(path, it)| (path, Some(it))));
        }
        let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        let looks = cache.looks(&paths).map_err(|error| error.to_string())?;
        let mut inputs = Inputs { theirs: Vec::new(), ours: Vec::new() };
        let blobs = cache.dir().join("blobs");
        for ((path, expected), look) in files.into_iter().zip(looks) {
            if expected.is_some_and(|expected| expected != look.digest.to_string()) {
                return Err(format!(
                    "the input {} changed between planning and the start of the step; run it again",
                    path.display()
                ));
            }
            // A cache may lie in the project, or around it.
            let ours = path.starts_with(&blobs);
            if ours { &mut inputs.ours } else { &mut inputs.theirs }.push((path, look));
        }
        Ok(inputs)
    }

    /// What the inputs are and in what state, for somebody who looks again later.
    pub fn state(&self) -> Digest {
        let mut bytes = Vec::new();
        for (path, look) in &self.theirs {
            bytes.extend(path.as_os_str().as_encoded_bytes());
            bytes.push(0);
            bytes.extend(look.to_bytes());
        }
        Digest::of_bytes(&bytes)
    }

    /// Whether nobody wrote to anything: a `stat` for each file that has been left alone, a reading for the others.
    ///
    /// # Errors
    /// In words, naming the first input that was written to or is gone, and what to do.
    pub fn unchanged(&self, cache: &Cache) -> Result<(), String> {
        let same = |(path, look): &(PathBuf, Look)| cache.file_digest(path).is_ok_and(|digest| digest == look.digest);
        let (path, look) = match cache.first_changed(&self.theirs) {
            Some(index) => &self.theirs[index],
            None => match self.ours.iter().find(|file| !same(file)) {
                Some(file) => file,
                None => return Ok(()),
            },
        };
        let how = match cache.file_digest(path) {
            Err(error) => format!("could not be read again ({error}): it changed or went"),
            Ok(digest) if digest != look.digest => "changed".into(),
            Ok(_) => "was written to (it is as before now, but need not have been all the time)".into(),
        };
        Err(format!(
            "the input {} {how} while the step ran, so its result is void and was not kept; run it again once the file is left alone",
            path.display()
        ))
    }
}

/// Whether files of a location lie in a folder, each to be watched by itself.
fn has_folder(data: &Location) -> bool {
    data.form == LocationForm::Folder || data.parts.iter().any(has_folder)
}

/// Adds what must not change of a location: the listed files of a folder, the whole of an archive.
fn watch(data: &Location, listed: BTreeMap<String, String>, files: &mut Vec<(PathBuf, Option<String>)>) {
    match data.form {
        LocationForm::Folder => {
            let top = data.path.join(&data.prefix);
            files.extend(listed.into_iter().map(|(path, digest)| (top.join(path), Some(digest))));
        }
        LocationForm::Union => {
            let mut parts = vec![BTreeMap::new(); data.parts.len()];
            for (path, digest) in listed {
                if let Some((number, rest)) = path.split_once('/')
                    && let Some(part) = number.parse().ok().and_then(|number: usize| parts.get_mut(number))
                {
                    part.insert(rest.to_owned(), digest);
                }
            }
            for (part, listed) in data.parts.iter().zip(parts) {
                watch(part, listed, files);
            }
        }
        // Its digest is taken when it is looked at first.
        LocationForm::File | LocationForm::Tar | LocationForm::Zip | LocationForm::Batch => {
            files.push((data.path.clone(), None));
        }
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
