//! `command`: any program as a step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::kind::{Executor, MetricInfo, OutputInfo, Problem, StepKind};
use crate::value::{AnyInput, FileInput, Seconds};

/// An output that the program promises to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Artifact kind: `encoder`, `file`, `folder`, `pictures`, `metrics`…
    #[schemars(extend("x-choices" = ["encoder", "features", "pictures", "archive", "folder", "file", "metrics", "labelled_images", "masked_images", "annotated_images", "images", "videos", "predictions"]))]
    pub kind: String,
    /// Where the program writes it, relative to its directory.
    pub path: String,
}

/// Runs a program in a fresh directory: inputs staged read-only, environment cleared, only declared outputs kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments. `{inputs.NAME}`, `{outputs.NAME}` and `{seed}` stand for paths and the seed; the
    /// program itself is found on PATH or, if its name has a slash, beside the `.exp` file. Its digest is in the key, and
    /// so is that of every argument (or `--option=argument`) that names a file; one beside the `.exp` file is staged
    /// under the same path.
    pub run: Vec<String>,
    /// Other steps' outputs, staged as `inputs/NAME`.
    #[serde(default)]
    pub inputs: BTreeMap<String, AnyInput>,
    /// Files of the user's (scripts, tables) that the program reads, staged as `inputs/NAME`; their digests are in the key.
    #[serde(default)]
    pub files: BTreeMap<String, FileInput>,
    /// Further code beside the `.exp` file that the program reads, such as modules that it imports: files, or folders
    /// with all they hold, staged under the same paths; their digests are in the key.
    #[serde(default)]
    pub code: Vec<String>,
    /// What it writes. Everything else is dropped.
    #[serde(default)]
    pub outputs: BTreeMap<String, Declared>,
    /// Numbers it reports, by name: it writes them as a JSON object to `metrics.json`.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Environment variables; nothing else of the environment reaches it, except PATH, HOME (its directory) and LANG=C.UTF-8.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// It is stopped after this time.
    #[serde(default)]
    #[schemars(extend("x-observes" = true))]
    pub timeout: Option<Seconds>,
    /// Seed, for programs that take one.
    #[serde(default)]
    pub seed: u64,
    /// Digest of the program, filled in by `harness`.
    #[serde(default)]
    #[schemars(extend("x-internal" = true))]
    pub program_digest: String,
    /// Digests of the files that `run` and `code` name, by their paths as written, and of the interpreter that a
    /// script's first line names; filled in by `harness`.
    #[serde(default)]
    #[schemars(extend("x-internal" = true))]
    pub code_digests: BTreeMap<String, String>,
}

impl StepKind for Command {
    const KIND: &'static str = "command";
    const VERSION: u32 = 2;
    const EXECUTOR: Executor = Executor::Harness;
    const RANDOM: bool = true;
    const OUTPUTS: &'static [OutputInfo] = &[];
    const METRICS: &'static [MetricInfo] = &[];
    const DYNAMIC: bool = true;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.run.is_empty() || self.run[0].is_empty() {
            problems
                .push(Problem::new("run", "the program's name is missing: `run = [\"python3\", \"{inputs.script}\"]`"));
        }
        for (name, output) in &self.outputs {
            let path = Path::new(&output.path);
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            if output.path.is_empty() || !inside {
                problems.push(Problem::new(
                    &format!("outputs.{name}.path"),
                    format!("`{}` must lie inside the program's directory", output.path),
                ));
            }
            if !crate::artifact::KINDS.contains(&output.kind.as_str()) {
                problems.push(Problem::new(
                    &format!("outputs.{name}.kind"),
                    format!(
                        "`{}` is no kind of artifact; there are {}",
                        output.kind,
                        crate::artifact::KINDS.join(", ")
                    ),
                ));
            }
        }
        for path in &self.code {
            if path.is_empty() || !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
                problems.push(Problem::new("code", format!("`{path}` must lie beside or below the `.exp` file")));
            }
        }
        for name in self.inputs.keys().chain(self.files.keys()).chain(self.outputs.keys()) {
            if name.is_empty() || name.starts_with('.') || name.contains('/') {
                problems.push(Problem::new("inputs", format!("`{name}` cannot be a file name")));
            }
        }
        for name in self.files.keys().filter(|name| self.inputs.contains_key(*name)) {
            problems.push(Problem::new(&format!("files.{name}"), "an input has the same name"));
        }
        problems
    }
}
