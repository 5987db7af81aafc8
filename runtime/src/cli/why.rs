//! `harness why`: what makes a step's key differ from that of the newest earlier result of the same name.

use crate::cli::{Place, completions, print_json, when};
use crate::listen::seconds;
use crate::project::Project;
use crate::text;
use crate::why::{Explained, Standing, explain, short, told};
use anyhow::Result;
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::path::PathBuf;
use std::process::ExitCode;

/// `harness why`
#[derive(Args, Debug)]
pub struct Why {
    /// The .exp file
    pub file: PathBuf,
    /// A family or the label of a step: `'nearest[seed=1, method=moco]'`
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub step: String,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// No such file or step, a cache that cannot be read.
pub fn why(arguments: &Why) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let target = std::slice::from_ref(&arguments.step);
    let asked = text::matching(&project.program, target)?;
    let wanted = text::select(&project.program, target)?;
    let states = project.look(&wanted)?;
    let explained = explain(&project, &states, &wanted, true)?;
    // Of what comes before, only what is not as it was says anything.
    let shown: Vec<&Explained> = explained
        .iter()
        .enumerate()
        .filter_map(|(step, explained)| explained.as_ref().map(|explained| (step, explained)))
        .filter(|(step, explained)| asked.contains(step) || explained.standing != Standing::Known)
        .map(|(_, explained)| explained)
        .collect();
    if arguments.json {
        print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    for explained in shown {
        println!("{}: {}", explained.label, standing(explained, &states, &project));
        if let (Some(against), false) = (&explained.against, explained.causes.is_empty()) {
            let at = when(against.finished_unix_ms);
            println!("  against the result of {at} UTC (key {}):", short(&against.key.to_string()));
        }
        let indent = if explained.against.is_some() { "    " } else { "  " };
        explained.causes.iter().for_each(|cause| println!("{indent}{}", told(cause, false)));
    }
    Ok(ExitCode::SUCCESS)
}

/// How a step stands, in words.
fn standing(explained: &Explained, states: &[crate::run::State], project: &Project) -> String {
    let key = explained.key.map(|key| short(&key.to_string()));
    match explained.standing {
        Standing::Known => {
            let state = project.program.steps.iter().zip(states).find(|(step, _)| step.label == explained.label);
            let record = state.and_then(|(_, state)| state.finished.as_ref()).map(|finished| &finished.record);
            let (at, took) =
                record.map_or_else(Default::default, |r| (when(r.finished_unix_ms), seconds(r.duration_s)));
            format!("known, computed {at} UTC in {took} (key {})", key.unwrap_or_default())
        }
        Standing::Runs => match key {
            Some(key) => format!("would be computed (key {key})"),
            None => "would be computed".into(),
        },
        Standing::Depends => "known if what it takes comes out as before, else computed".into(),
        Standing::Fails => "cannot be computed".into(),
    }
}
