//! `harness fmt`: one layout for every `.exp` file.

use anyhow::{Context as _, Result};
use clap::Args;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `harness fmt`
#[derive(Args, Debug)]
pub struct Fmt {
    /// The .exp files; `-` reads standard input and prints to standard output
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Change nothing; exit status 1 if a file is not laid out
    #[arg(long)]
    pub check: bool,
}

/// Lays out the files in place; with `--check` only says which would change (exit 1). `-` stands for standard input.
///
/// # Errors
/// A file cannot be read or written. Texts that cannot be read as programs are shown with what is wrong, left as they
/// are, and make the exit status 2.
pub fn fmt(arguments: &Fmt) -> Result<ExitCode> {
    let (mut unreadable, mut changed) = (false, 0);
    for path in &arguments.files {
        let piped = path == Path::new("-");
        let text = if piped {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            text
        } else {
            std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?
        };
        match harness_dsl::format(&path.display().to_string(), &text) {
            Err((found, sources)) => {
                eprint!("{}", harness_dsl::render(&found, &sources, crate::start::colour()));
                unreadable = true;
            }
            Ok(formatted) => {
                let differs = formatted != text;
                changed += usize::from(differs);
                if arguments.check {
                    if differs {
                        let line = text.lines().zip(formatted.lines()).take_while(|(old, new)| old == new).count() + 1;
                        eprintln!("{}:{line}: not laid out; `harness fmt {0}` does it", path.display());
                    }
                } else if piped {
                    std::io::stdout().write_all(formatted.as_bytes())?;
                } else if differs {
                    replace(path, &formatted)?;
                    eprintln!("{}: laid out", path.display());
                }
            }
        }
    }
    Ok(ExitCode::from(match () {
        () if unreadable => 2,
        () if arguments.check && changed > 0 => 1,
        () => 0,
    }))
}

/// Writes beside the file and renames, so that a full disk leaves the old text.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let said = || format!("{} cannot be written", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(said)?;
    file.write_all(text.as_bytes()).with_context(said)?;
    file.as_file().set_permissions(std::fs::metadata(path).with_context(said)?.permissions()).with_context(said)?;
    file.persist(path).with_context(said)?;
    Ok(())
}
