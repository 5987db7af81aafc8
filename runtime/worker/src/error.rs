//! Why a job ended without an outcome.

use std::path::{Path, PathBuf};
use tch::TchError;

/// Why a step stopped. Its text goes to the user as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was asked to stop, and what has to survive is written.
    #[error("cancelled")]
    Cancelled,
    /// Said in full by the step.
    #[error("{0}")]
    Step(String),
    /// Another rank of the same job ended or hangs; what happened there is the cause.
    #[error("{0}")]
    Ranks(String),
    /// A dataset's files.
    #[error(transparent)]
    Dataset(#[from] harness_datasets::Error),
    /// libtorch.
    #[error("{}", readable(&.0.to_string()))]
    Torch(#[from] TchError),
    /// The file system.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`…
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps what the system said about a file.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Step(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Step(message.into())
    }
}

/// Result of a step's parts.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The part of a libtorch message (or of a panic that carries one) that is for people: its first line, without the
/// wrapping of Rust and C++; running out of device memory is named as such.
pub fn readable(message: &str) -> String {
    let inner = match message.split_once("Err` value: ") {
        Some((_, rest)) => {
            let rest = rest.strip_prefix("Torch(\"").unwrap_or(rest);
            rest.replace("\\n", "\n").replace("\\\"", "\"")
        }
        None => message.into(),
    };
    let inner = inner.strip_prefix("Internal torch error: ").unwrap_or(&inner);
    let first = inner.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("libtorch said nothing");
    let first = first.strip_suffix("\")").unwrap_or(first);
    if is_out_of_memory(first) {
        let place = if first.contains("CUDA") || first.contains("GPU") { "the GPU" } else { "the machine" };
        let asked = match asked_for(first) {
            Some(amount) => format!("{place} ran out of memory when {amount} more were asked for"),
            None => format!("{place} ran out of memory"),
        };
        return format!("{asked}; make `batch`, the crops or the network smaller ({first})");
    }
    first.into()
}

/// Whether a message of libtorch, or one made from it, says that memory ran out.
pub fn is_out_of_memory(message: &str) -> bool {
    ["out of memory", "can't allocate memory", "OutOfMemoryError"].iter().any(|words| message.contains(words))
}

/// The amount in `Tried to allocate 20.00 MiB.` (CUDA) or `you tried to allocate 123 bytes.` (CPU).
fn asked_for(message: &str) -> Option<&str> {
    let rest = message.split("ried to allocate ").nth(1)?;
    let unit =
        ["GiB", "MiB", "KiB", "bytes"].into_iter().filter_map(|unit| Some(rest.find(unit)? + unit.len())).min()?;
    Some(rest[..unit].trim())
}

/// What a panic said.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(payload.downcast_ref::<&str>().copied())
        .unwrap_or("an unknown panic");
    if text.contains("Torch(") || text.contains("torch error") {
        readable(text)
    } else {
        format!("the worker failed inside, which is a defect of harness: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_to_what_matters() {
        let cpp = "Internal torch error: The size of tensor a (3) must match\nException raised from infer_size (most)\nframe #0";
        assert_eq!(readable(cpp), "The size of tensor a (3) must match");
        let panic = "called `Result::unwrap()` on an `Err` value: Torch(\"mat1 and mat2 cannot be multiplied\\nException raised\")";
        assert_eq!(readable(panic), "mat1 and mat2 cannot be multiplied");
        let memory = "Internal torch error: CUDA out of memory. Tried to allocate 20.00 MiB.\nException";
        let said = readable(memory);
        assert!(said.starts_with("the GPU ran out of memory when 20.00 MiB more were asked for; make"), "{said}");
        let cpu = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4398046511104 bytes. Error code 12";
        assert!(readable(cpu).starts_with("the machine ran out of memory when 4398046511104 bytes more"));
    }
}
