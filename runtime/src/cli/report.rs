//! `harness report`: what is known of a file, as a page, as text, as tables and figures for a paper, as data.

use crate::cli::{Place, export};
use crate::project::Project;
use crate::{runs, summary};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use harness_report as page;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `harness report`
#[derive(Args, Debug)]
pub struct Report {
    /// The .exp file
    pub file: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Html)]
    pub format: Format,
    /// The file to write, in place of standard output; for `svg` and `pdf` the folder
    #[arg(short, long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Folder with templates in place of the built-in ones: summary.html, summary.md, style.css, page.js
    #[arg(long, value_name = "DIR")]
    pub template: Option<PathBuf>,
    /// For `svg` and `pdf`: only these figures, by name
    #[arg(long, value_name = "NAME")]
    pub figure: Vec<String>,
    /// For `latex`: the best mean of a column bold, the second underlined
    #[arg(long)]
    pub mark: bool,
    /// For `latex`: below each table the paired differences of the other rows to this one
    #[arg(long, value_name = "ROW")]
    pub against: Option<String>,
    /// For `json` and `parquet`: points of curves as well
    #[arg(long)]
    pub curves: bool,
    #[command(flatten)]
    pub place: Place,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One page with everything, which needs nothing else
    Html,
    /// The same as Markdown
    Md,
    /// The tables for a paper (booktabs)
    Latex,
    /// The tables, a line for each cell
    Csv,
    /// Every number of every step
    Json,
    /// The same as Apache Parquet
    Parquet,
    /// A file for each figure
    Svg,
    /// A file for each figure, with its font
    Pdf,
}

/// Runs it.
///
/// # Errors
/// A file with mistakes, a cache or a template that cannot be read, a place that cannot be written.
pub fn report(arguments: &Report) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let wanted = vec![true; project.program.steps.len()];
    let states = project.look(&wanted)?;
    let out = arguments.out.as_deref();
    let tidy = match arguments.format {
        Format::Json => Some(export::Format::Json),
        Format::Parquet => Some(export::Format::Parquet),
        _ => None,
    };
    if let Some(format) = tidy {
        let bytes = export::tidy(&project, &states, format, arguments.curves)?;
        export::put(&bytes, out, format == export::Format::Parquet)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = project.request(&wanted);
    let claims = summary::verdicts(&request, &states);
    let summary = summary::build(&request, &project.text, &states, &claims, newest(&project));
    if !states.iter().any(|state| state.finished.is_some()) {
        eprintln!("nothing of it is known yet; `{}` computes it", project.run_command());
    }
    let templates = arguments.template.as_deref().map(page::Templates::from_folder).transpose()?.unwrap_or_default();
    let style = page::tables::Style { mark: arguments.mark, against: arguments.against.clone() };
    let text = match arguments.format {
        Format::Html => page::render_html(&summary, &templates)?,
        Format::Md => page::render_markdown(&summary, &templates)?,
        Format::Latex => page::tables::latex(&summary, &style).map_err(anyhow::Error::msg)?,
        Format::Csv => page::tables::csv(&summary),
        _ => {
            let folder = out.map_or_else(|| PathBuf::from("figures"), Path::to_path_buf);
            figures(&summary, arguments, &folder)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    export::put(text.as_bytes(), out, false)?;
    Ok(ExitCode::SUCCESS)
}

/// The newest recorded run of the file; nothing of one where it was never run.
fn newest(project: &Project) -> page::RunInfo {
    let Some(run) = runs::of_file(project.cache.dir(), &project.file).into_iter().next() else {
        return page::RunInfo { machine: summary::machine(), ..page::RunInfo::default() };
    };
    let end = run.told().end;
    let count = |of: fn(&runs::End) -> u64| end.as_ref().map(of).unwrap_or_default();
    page::RunInfo {
        wall_s: end.as_ref().map(|end| end.wall_s).unwrap_or_default(),
        executed: count(|end| end.executed),
        cached: count(|end| end.cached),
        failed: count(|end| end.failed),
        skipped: count(|end| end.skipped),
        interrupted: end.as_ref().is_some_and(|end| end.interrupted),
        machine: summary::machine(),
        id: run.id,
    }
}

/// Writes the figures into a folder, each under its name.
fn figures(summary: &page::Summary, arguments: &Report, folder: &Path) -> Result<()> {
    let names: Vec<&str> = summary.figures.iter().map(|figure| figure.name.as_str()).collect();
    if let Some(unknown) = arguments.figure.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no figure `{unknown}`; there are {}", names.join(", "));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let wanted = |figure: &&page::Figure| arguments.figure.is_empty() || arguments.figure.contains(&figure.name);
    let mut written = 0;
    for figure in summary.figures.iter().filter(wanted) {
        let (bytes, ending) = match arguments.format {
            Format::Pdf => (page::still::pdf(figure)?, "pdf"),
            _ => (page::still::svg(figure)?.map(String::into_bytes), "svg"),
        };
        let Some(bytes) = bytes else {
            eprintln!("{}: no numbers yet", figure.name);
            continue;
        };
        let path = folder.join(format!("{}.{ending}", figure.name));
        std::fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
        println!("{}", path.display());
        written += 1;
    }
    if written == 0 {
        eprintln!("there is no figure to write");
    }
    Ok(())
}
