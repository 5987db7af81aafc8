//! `harness export encoder`: an encoder as a file for other tools.

use crate::cli::{Place, completions, count};
use crate::project::Project;
use crate::{text, torch_file};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use harness_protocol::model::{Architecture, EncoderConfig, Stem};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use torch_file::Value;

/// Under this name the header of an encoder's file says what it is.
const HEADER: &str = "harness";

/// `harness export encoder`
#[derive(Args, Debug)]
pub struct Encoder {
    /// The .exp file
    pub file: PathBuf,
    /// The step that gives it, by its name or label, with a kept epoch if one is meant: `'moco[seed=1]@50'`
    #[arg(add = ArgValueCompleter::new(completions::steps))]
    pub step: String,
    /// The file to write
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// The form of the file; safetensors where it ends in `.safetensors`, else torch
    #[arg(long, value_enum)]
    pub format: Option<Form>,
    /// Names of the tensors
    #[arg(long, value_enum, default_value_t = Layout::Torchvision)]
    pub layout: Layout,
    /// With the projection head, as `fc.*`; always so in MoCo's layout
    #[arg(long)]
    pub head: bool,
    #[command(flatten)]
    pub place: Place,
}

/// Forms of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// What `torch.load(…, weights_only=True)` reads
    Torch,
    /// safetensors
    Safetensors,
}

/// How tensors are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// torchvision's state dict: `layer1.0.conv1.weight`
    Torchvision,
    /// MoCo's checkpoints: `state_dict` with `module.encoder_q.layer1.0.conv1.weight`, `epoch` and `arch`
    Moco,
}

/// Runs it.
///
/// # Errors
/// No such step, several of them, one without a result or an encoder, an encoder that is no network, a file that cannot
/// be written.
pub fn encoder(arguments: &Encoder) -> Result<ExitCode> {
    let place = &arguments.place;
    let Some(project) = Project::open(&arguments.file, &place.params, place.cache.as_deref())? else {
        return Ok(ExitCode::from(2));
    };
    let (name, epoch) = match arguments.step.rsplit_once('@') {
        Some((name, epoch)) => {
            let epoch: u64 = epoch.parse().with_context(|| format!("`{epoch}` is no epoch"))?;
            (name.to_string(), Some(epoch))
        }
        None => (arguments.step.clone(), None),
    };
    let target = std::slice::from_ref(&name);
    let found = text::matching(&project.program, target)?;
    let &[asked] = found.as_slice() else {
        let labels: Vec<String> =
            found.iter().map(|&step| format!("'{}'", project.program.steps[step].label)).collect();
        bail!("`{name}` names {} steps; choose one of {}", labels.len(), labels.join(", "));
    };
    let step = &project.program.steps[asked];
    let states = project.look(&text::select(&project.program, target)?)?;
    let Some(finished) = &states[asked].finished else {
        bail!("`{0}` has no result yet; `{1} '{0}'` computes it", step.label, project.run_command());
    };
    let record = &finished.record;
    let output = epoch.map_or("encoder".to_string(), |epoch| format!("encoder@{epoch}"));
    let Some(artifact) = record.outputs.get(&output).filter(|output| output.kind == "encoder") else {
        let names: Vec<&str> = record.outputs.keys().map(String::as_str).collect();
        bail!("`{}` (a `{}`) has no output `{output}`; it has {}", step.label, step.kind, names.join(", "));
    };
    let path = project
        .cache
        .verified(&artifact.digest)?
        .with_context(|| format!("the output `{output}` of `{}` is gone from the cache", step.label))?;
    let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let header = metadata.metadata().as_ref().and_then(|map| map.get(HEADER).cloned()).unwrap_or_default();
    let config: EncoderConfig = serde_json::from_str(&header).context("what the encoder says of itself")?;
    let EncoderConfig::Network { architecture, mean, std } = config else {
        bail!("`{}` is no network with weights that could be written: {header}", step.label);
    };
    let moco = arguments.layout == Layout::Moco;
    let mut tensors = SafeTensors::deserialize(&bytes)?.tensors();
    tensors.retain(|(name, _)| moco || arguments.head || !name.starts_with("fc."));
    // As they are read, so that equal encoders give equal files.
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let rename = |name: &str| if moco { format!("module.encoder_q.{name}") } else { name.to_string() };
    let form = arguments.format.unwrap_or(match arguments.out.extension() {
        Some(extension) if extension == "safetensors" => Form::Safetensors,
        _ => Form::Torch,
    });
    let mut written = Vec::new();
    match form {
        Form::Safetensors => {
            let named = tensors.iter().map(|(name, view)| (rename(name), view));
            // One entry, so that the order of a map's entries cannot make another file of it; `format` is what tools ask for.
            let header = HashMap::from([("format".to_string(), "pt".to_string())]);
            written = safetensors::serialize(named, Some(header))?;
        }
        Form::Torch => {
            let mut entries = Vec::new();
            for (name, view) in &tensors {
                let (storage, width) = torch_file::storage(view.dtype())?;
                let tensor = torch_file::Tensor { storage, width, shape: view.shape(), data: view.data() };
                entries.push((rename(name), Value::Tensor(tensor)));
            }
            let value = if moco {
                let epoch = epoch.or_else(|| record.key.params.get("epochs").and_then(serde_json::Value::as_u64));
                Value::Dict(vec![
                    ("epoch".into(), Value::Int(epoch.unwrap_or_default() as i64)),
                    ("arch".into(), Value::Text(name_of(&architecture).into())),
                    ("state_dict".into(), Value::Dict(entries)),
                ])
            } else {
                Value::Dict(entries)
            };
            torch_file::write(std::io::Cursor::new(&mut written), &value)?;
        }
    }
    save(&arguments.out, &written)?;
    eprintln!("{}: {} of `{}`", arguments.out.display(), count(tensors.len(), "tensor"), arguments.step);
    eprintln!("pictures in 0..1, less {mean:?}, by {std:?}");
    if !moco && form == Form::Torch {
        eprintln!("{}", python(&architecture, tensors.iter().any(|(name, _)| name == "fc.0.weight"), arguments));
    }
    Ok(ExitCode::SUCCESS)
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    // Beside it first: a disk that fills leaves the file that was there.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> Result<()> {
        let mut file = tempfile::Builder::new().permissions(readable()).tempfile_in(folder)?;
        BufWriter::new(file.as_file_mut()).write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Of an ordinary file; the umask takes from it.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// torchvision's name.
fn name_of(architecture: &Architecture) -> &'static str {
    match architecture {
        Architecture::Resnet18(_) => "resnet18",
        Architecture::Resnet34(_) => "resnet34",
        Architecture::Resnet50(_) => "resnet50",
    }
}

/// What reads it.
fn python(architecture: &Architecture, mlp: bool, arguments: &Encoder) -> String {
    let resnet = architecture.resnet();
    if (resnet.width - 1.0).abs() > 1e-12 {
        return format!("torchvision has no {} of width {}", name_of(architecture), resnet.width);
    }
    let mut lines = vec![format!("model = torchvision.models.{}()", name_of(architecture))];
    if resnet.stem == Stem::Small {
        lines.push("model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)".into());
        lines.push("model.maxpool = torch.nn.Identity()".into());
    }
    lines.push(match (arguments.head, mlp) {
        (false, _) => "model.fc = torch.nn.Identity()".into(),
        (true, false) => "model.fc = torch.nn.Linear(model.fc.in_features, DIM)".into(),
        (true, true) => {
            "n = model.fc.in_features; model.fc = torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.ReLU(), \
                         torch.nn.Linear(n, DIM))"
                .to_string()
        }
    });
    lines.push(format!(
        "model.load_state_dict(torch.load({:?}, weights_only=True))",
        arguments.out.display().to_string()
    ));
    lines.join("\n")
}
