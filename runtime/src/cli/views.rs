//! `harness views`: the views of a picture as a pretraining's encoder sees them, on one sheet.

use crate::cli::Place;
use crate::project::Project;
use crate::run::State;
use crate::text;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use harness_cache::{Cache, Digest};
use harness_datasets::Reader;
use harness_protocol::StepKind;
use harness_protocol::job::InputFiles;
use harness_protocol::manifest::ImageManifest;
use harness_protocol::steps::pretrain::{Contrast, Pretrain};
use harness_views::{Recipe, ViewKey, decode_rgb, encode_png_rgb, recipe, sheet};
use std::path::PathBuf;
use std::process::ExitCode;

/// Epochs that fit on one sheet.
const MOST_BANDS: u64 = 20;

/// `harness views`
#[derive(Args, Debug)]
pub struct Views {
    /// The .exp file
    pub file: PathBuf,
    /// A pretraining, by its name or its label: `'moco[seed=1]'`
    pub step: String,
    /// The picture: its path in the dataset or the end of it, or its number from 0
    #[arg(long, value_name = "PICTURE")]
    pub picture: String,
    /// One epoch, counted from 1, or several: `1..4`; the first three unless told otherwise
    #[arg(long, value_name = "EPOCHS", value_parser = epochs)]
    pub epochs: Option<(u64, u64)>,
    /// Where the sheet is written, as PNG; `STEP-views.png` unless told otherwise
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

fn epochs(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first >= 1 && first <= last && last - first < MOST_BANDS => Ok((first, last)),
        _ => Err(format!("`{text}` is not an epoch from 1 on, or a range of at most {MOST_BANDS} such as 1..4")),
    }
}

/// Runs it.
///
/// # Errors
/// No such step or picture, a step that makes no views, a dataset that is not known yet, files that changed.
pub fn views(arguments: &Views) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let (program, cache) = (&project.program, &project.cache);
    let target = std::slice::from_ref(&arguments.step);
    let matching = text::matching(program, target)?;
    let &[asked] = matching.as_slice() else {
        let labels: Vec<String> = matching.iter().map(|&step| format!("'{}'", program.steps[step].label)).collect();
        bail!("`{}` names {} steps; choose one of {}", arguments.step, labels.len(), labels.join(", "));
    };
    let step = &program.steps[asked];
    if step.kind != "pretrain" {
        bail!("`{}` is a `{}`; views are made by `pretrain`", step.label, step.kind);
    }
    let states = project.look(&text::select(program, target)?)?;
    let Some(action) = &states[asked].action else {
        let why = states[asked].error.clone().unwrap_or("what it learns from is not computed yet".into());
        bail!("the views of `{}` cannot be made: {why}; run {} first", step.label, arguments.file.display());
    };
    let params: Pretrain =
        serde_json::from_value(serde_json::Value::clone(&action.params)).context("the parameters of the step")?;
    let mut recipe = Recipe::of(&params.views, &params.augment);
    if matches!(params.contrast, Contrast::Supervised(_)) {
        recipe.crops.truncate(1);
    }

    let input = input(cache, &states, params.data.digest())?;
    let manifest: ImageManifest =
        serde_json::from_slice(&std::fs::read(&input.file)?).context("the manifest of its data")?;
    let index = find(&manifest, &arguments.picture)?;
    let file = &manifest.entries[index].file;
    let bytes = Reader::new(&input)?.read_verified(file)?;
    let picture = decode_rgb(&bytes).with_context(|| file.path.clone())?;

    let (first, last) = arguments.epochs.unwrap_or((1, params.epochs.min(3)));
    if last > params.epochs {
        bail!("`{}` has {} epochs, so there is no epoch {last}", step.label, params.epochs);
    }
    let keys: Vec<ViewKey> = (first - 1..last)
        .map(|epoch| ViewKey { seed: params.seed, kind: Pretrain::KIND, epoch, picture: index as u64 })
        .collect();
    println!("{} ({} × {}), seed {}", file.path, picture.width, picture.height, params.seed);
    for key in &keys {
        println!("epoch {}", key.epoch + 1);
        for (crop, plan) in recipe::plans(picture.width, picture.height, &recipe, *key).iter().enumerate() {
            let role = ["query", "key"].get(crop).unwrap_or(&"small");
            let place = plan.place;
            println!(
                "  {crop} {role:<5} {:<9} {:>4} × {:<4} at {:>4}, {:<4}{} {}",
                sheet::colour(crop).1,
                place.width,
                place.height,
                place.left,
                place.top,
                if place.fallback { " (no try fitted)" } else { "" },
                sheet::story(plan, &recipe)
            );
        }
    }
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}-views.png", step.name)));
    let png = encode_png_rgb(&sheet::sheet(&picture, &recipe, &keys))?;
    std::fs::write(&out, png).with_context(|| format!("{} cannot be written", out.display()))?;
    eprintln!("the sheet is {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Where the content with this digest lies: its manifest in the cache, its files where the step that made it says.
fn input(cache: &Cache, states: &[State], digest: &str) -> Result<InputFiles> {
    let finished = states.iter().filter_map(|state| state.finished.as_ref());
    for finished in finished {
        if let Some(output) = finished.record.outputs.values().find(|output| output.digest.to_string() == digest) {
            let file = blob(cache, &output.digest)?;
            return Ok(InputFiles { file, data: finished.data.get(digest).cloned() });
        }
    }
    bail!("nothing in the file gives the data {digest}")
}

fn blob(cache: &Cache, digest: &Digest) -> Result<PathBuf> {
    cache.blob(digest)?.with_context(|| format!("{digest} is gone from the cache"))
}

/// The picture whose path is, or ends in, `wanted`; or its index.
fn find(manifest: &ImageManifest, wanted: &str) -> Result<usize> {
    let paths = || manifest.entries.iter().map(|entry| entry.file.path.as_str()).enumerate();
    if let Some((index, _)) = paths().find(|(_, path)| *path == wanted) {
        return Ok(index);
    }
    let ending: Vec<(usize, &str)> = paths().filter(|(_, path)| path.ends_with(&format!("/{wanted}"))).collect();
    match ending.as_slice() {
        [(index, _)] => return Ok(*index),
        [(_, first), (_, second), ..] => {
            bail!(
                "{} pictures end in `{wanted}`, among them {first} and {second}; write more of the path",
                ending.len()
            )
        }
        [] => {}
    }
    let count = manifest.entries.len();
    match wanted.parse::<usize>() {
        Ok(index) if index < count => Ok(index),
        Ok(index) => bail!("there is no picture {index}; they are 0 to {}", count - 1),
        Err(_) => bail!(
            "no picture is called `{wanted}`; a path such as {} is meant, or a number below {count}",
            paths().next().map_or("a/b.jpg", |(_, path)| path)
        ),
    }
}
