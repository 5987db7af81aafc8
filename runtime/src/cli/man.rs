//! `harness man`: a manual page for every subcommand, made from the command line itself.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, Args, Command, CommandFactory as _};
use clap_mangen::Man as Page;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `harness man`
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the pages
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Writes a page for every subcommand.
///
/// # Errors
/// The folder cannot be written.
pub fn man(arguments: &Man) -> Result<ExitCode> {
    let dir = &arguments.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let mut command = super::Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, dir).with_context(|| format!("{} cannot be written", dir.display()))?;
    println!("the manual pages are in {}; `man -l {0}/harness.1` shows the first", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn pages(command: &Command, dir: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, dir)?;
    }
    let version = format!("harness {}", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).source(version).manual("harness");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    synopsis(command, &mut text)?;
    page.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        page.render_subcommands_section(&mut text)?;
    }
    if command.get_after_long_help().or_else(|| command.get_after_help()).is_some() {
        page.render_extra_section(&mut text)?;
    }
    std::fs::write(dir.join(page.get_filename()), plain(&String::from_utf8_lossy(&text)))
}

/// The command with everything that may follow it: values by their names, which clap_mangen leaves out.
fn synopsis(command: &Command, out: &mut Vec<u8>) -> std::io::Result<()> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    writeln!(out, ".SH SYNOPSIS\n\\fB{}\\fR", dashes(name))?;
    let shown = |argument: &&Arg| !argument.is_hide_set();
    let (places, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(shown).partition(|a| a.is_positional());
    for argument in options.into_iter().chain(places) {
        let mut text = match (argument.get_short(), argument.get_long()) {
            (Some(short), Some(long)) => format!("\\fB\\-{short}\\fR|\\fB\\-\\-{}\\fR", dashes(long)),
            (Some(short), None) => format!("\\fB\\-{short}\\fR"),
            (None, Some(long)) => format!("\\fB\\-\\-{}\\fR", dashes(long)),
            (None, None) => String::new(),
        };
        if argument.get_action().takes_values() {
            let named = argument.get_value_names().map(|names| names.join(" "));
            let value = named.unwrap_or_else(|| argument.get_id().as_str().to_uppercase());
            let blank = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{blank}\\fI{}\\fR", dashes(&value)));
        }
        let range = argument.get_num_args().unwrap_or_default();
        let many = matches!(argument.get_action(), ArgAction::Append) || range.max_values() > 1;
        let dots = if many { "\\|.\\|.\\|." } else { "" };
        let text = if argument.is_required_set() { text } else { format!("[{text}]") };
        writeln!(out, "{text}{dots}")?;
    }
    if command.has_subcommands() {
        let word = if command.is_subcommand_required_set() { "\\fICOMMAND\\fR" } else { "[\\fICOMMAND\\fR]" };
        writeln!(out, "{word}")?;
    }
    Ok(())
}

fn dashes(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A page in the letters that every troff reads: the others by their numbers.
fn plain(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    for character in page.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            out.push_str(&format!("\\[u{:04X}]", u32::from(character)));
        }
    }
    out
}
