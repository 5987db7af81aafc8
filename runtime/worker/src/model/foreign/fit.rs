//! Which tensors of a foreign checkpoint are the encoder: under which prefix they lie, which architecture they have, and
//! what matched, was missing, was left over.

use std::collections::BTreeMap;

use harness_protocol::model::{Architecture, Resnet as Varied, Stem};
use tch::{Device, Kind, Tensor};

use super::checkpoint::Checkpoint;
use crate::error::Result;
use crate::model::encoder::check_fit;
use crate::model::store::Store;

/// Tensors that every ResNet has, by which a prefix is recognised.
const MARKS: [&str; 3] = ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"];
/// Of two networks in one file the first of a pair is the one that is meant, as their authors evaluate it.
const PREFERRED: [(&str, &str); 3] = [("encoder_q.", "encoder_k."), ("teacher.", "student."), ("online", "target")];
/// Names that are listed.
const NAMED: usize = 8;

/// The encoder's tensors and the account of them.
#[derive(Debug)]
pub struct Fit {
    /// Its tensors, fp32, named as torchvision does; a head as `fc.*` where there is one.
    pub store: Store,
    /// Its architecture.
    pub architecture: Architecture,
    /// Prefix of its tensors in the file.
    pub prefix: String,
    /// Number of tensors that matched.
    pub matched: usize,
    /// What the file lacked and does not matter.
    pub missing: Vec<String>,
    /// What it holds beside the encoder, grouped by the beginnings of names.
    pub left_over: Vec<String>,
}

/// Finds the encoder in a checkpoint. `prefix` and `architecture` are inferred where they are not given.
///
/// # Errors
/// No network, or several and none preferred; tensors that do not fit, all of them listed.
pub fn select(
    checkpoint: &Checkpoint,
    architecture: Option<Architecture>,
    prefix: Option<&str>,
    place: &str,
) -> Result<Fit> {
    let prefix = match prefix {
        Some(wanted) => given(checkpoint, wanted, place)?,
        None => inferred(checkpoint, place)?,
    };
    let (mut store, mut left_over) = (Store::default(), Vec::new());
    for (name, tensor) in &checkpoint.tensors {
        match name.strip_prefix(&prefix) {
            Some(inner) if belongs(inner) => {
                let tensor =
                    if tensor.is_floating_point() { tensor.to_kind(Kind::Float) } else { tensor.shallow_clone() };
                store.insert(inner, tensor);
            }
            _ => left_over.push(name.clone()),
        }
    }
    let architecture = match architecture {
        Some(declared) => declared,
        None => architecture_of(&store, place)?,
    };
    let matched = store.tensors().len();
    let missing = add_counters(&mut store);
    check_fit(&store, &architecture, place)?;
    let left_over =
        grouped(&left_over).into_iter().chain(checkpoint.other.iter().map(|name| format!("`{name}`"))).collect();
    Ok(Fit { store, architecture, prefix, matched, missing, left_over })
}

impl Fit {
    /// What matched, was missing and was left over, in one line.
    pub fn account(&self) -> String {
        let list = |names: &[String]| match names.len() {
            0 => "nothing".to_string(),
            count if count > NAMED => format!("{} and {} more", names[..NAMED].join(", "), count - NAMED),
            _ => names.join(", "),
        };
        let under = if self.prefix.is_empty() { String::new() } else { format!(" under `{}`", self.prefix) };
        format!(
            "{}: {} tensors matched{under}; missing: {}; left over: {}",
            shown(&self.architecture),
            self.matched,
            list(&self.missing),
            list(&self.left_over)
        )
    }
}

/// An architecture as the language writes it.
pub fn shown(architecture: &Architecture) -> String {
    let name = match architecture {
        Architecture::Resnet18(_) => "resnet18",
        Architecture::Resnet34(_) => "resnet34",
        Architecture::Resnet50(_) => "resnet50",
    };
    let Varied { stem, width } = architecture.resnet();
    let mut fields = Vec::new();
    if stem == Stem::Small {
        fields.push("stem = small".to_string());
    }
    if width != 1.0 {
        fields.push(format!("width = {width}"));
    }
    if fields.is_empty() { name.into() } else { format!("{name} {{ {} }}", fields.join(", ")) }
}

/// Whether a name is in the part of a ResNet that must fit, or in its head.
fn belongs(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    ["conv1", "bn1", "fc"].contains(&first)
        || first.strip_prefix("layer").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}

/// Prefixes under which there is a ResNet.
fn prefixes(checkpoint: &Checkpoint) -> Vec<String> {
    let ends = checkpoint.tensors.keys().filter_map(|name| name.strip_suffix(MARKS[2]));
    let whole = |prefix: &&str| {
        MARKS.iter().all(|mark| checkpoint.tensors.contains_key(&format!("{prefix}{mark}")))
            && (prefix.is_empty() || prefix.ends_with('.'))
    };
    ends.filter(whole).map(String::from).collect()
}

fn given(checkpoint: &Checkpoint, wanted: &str, place: &str) -> Result<String> {
    let start = |name: &String| {
        name.starts_with(wanted).then(|| wanted.to_string()).or_else(|| {
            let at = name.find(&format!(".{wanted}")).filter(|_| !wanted.is_empty())?;
            Some(name[..at + 1 + wanted.len()].to_string())
        })
    };
    checkpoint.tensors.keys().find_map(start).ok_or_else(|| {
        format!(
            "none of the {} tensors in {place} has a name that starts with `{wanted}`; they start with {}",
            checkpoint.tensors.len(),
            grouped(&checkpoint.tensors.keys().cloned().collect::<Vec<_>>()).join(", ")
        )
        .into()
    })
}

fn inferred(checkpoint: &Checkpoint, place: &str) -> Result<String> {
    let mut found = prefixes(checkpoint);
    if found.len() > 1 {
        for (better, worse) in PREFERRED {
            if found.iter().any(|prefix| prefix.contains(better)) {
                found.retain(|prefix| !prefix.contains(worse) || prefix.contains(better));
            }
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "there is no ResNet in {place}: no names like torchvision's `conv1.weight`, `layer1.0.conv1.weight`; its tensors: {}. \
             Another network can be exported with torch.jit.script or torch.jit.trace and given as `torchscript`",
            grouped(&checkpoint.tensors.keys().cloned().collect::<Vec<_>>()).join(", ")
        )
        .into()),
        several => Err(format!(
            "there are {} networks in {place}; say which with `prefix`: {}",
            several.len(),
            several.iter().map(|prefix| format!("\"{prefix}\"")).collect::<Vec<_>>().join(", ")
        )
        .into()),
    }
}

/// The architecture that tensors have, as far as their names and shapes tell.
fn architecture_of(store: &Store, place: &str) -> Result<Architecture> {
    let unknown = |why: String| format!("{why} in {place}; give its `architecture`, or the network as `torchscript`");
    let shape = store.get("conv1.weight").map(|tensor| tensor.size()).unwrap_or_default();
    let [channels, 3, height, width] = shape[..] else {
        return Err(unknown(format!("the first convolution has the shape {shape:?}, which no ResNet's has,")).into());
    };
    let stem = match (height, width) {
        (7, 7) => Stem::Imagenet,
        (3, 3) => Stem::Small,
        _ => return Err(unknown(format!("the first convolution is {height} × {width}, which is not known,")).into()),
    };
    let depth = |stage: usize| {
        (0..).take_while(|block| store.tensors().contains_key(&format!("layer{stage}.{block}.conv1.weight"))).count()
    };
    let depths = [1, 2, 3, 4].map(depth);
    let bottleneck = store.tensors().contains_key("layer1.0.conv3.weight");
    let varied = Varied { stem, width: channels as f64 / 64.0 };
    match (depths, bottleneck) {
        ([2, 2, 2, 2], false) => Ok(Architecture::Resnet18(varied)),
        ([3, 4, 6, 3], false) => Ok(Architecture::Resnet34(varied)),
        ([3, 4, 6, 3], true) => Ok(Architecture::Resnet50(varied)),
        _ => {
            let kind = if bottleneck { "bottlenecks" } else { "basic blocks" };
            Err(unknown(format!("the {kind} {depths:?} are not those of resnet18, resnet34 or resnet50")).into())
        }
    }
}

/// Some exporters leave the batch counters out, on which nothing depends; they start from 0. What was added, in words.
fn add_counters(store: &mut Store) -> Vec<String> {
    let missing: Vec<String> = store
        .tensors()
        .keys()
        .filter_map(|name| Some(format!("{}.num_batches_tracked", name.strip_suffix(".running_mean")?)))
        .filter(|name| !store.tensors().contains_key(name))
        .collect();
    for name in &missing {
        store.insert(name, Tensor::zeros([] as [i64; 0], (Kind::Int64, Device::Cpu)));
    }
    match missing.len() {
        0 => Vec::new(),
        count => vec![format!("{count} × `num_batches_tracked` (set to 0; nothing depends on it)")],
    }
}

/// Names as groups by what they begin with, up to the network's own names: "`module.encoder_k.` (161)"; a group of few is
/// listed name by name.
fn grouped(names: &[String]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let own = parts.iter().position(|part| belongs(part)).unwrap_or(parts.len().min(3) - 1);
        groups.entry(parts[..own.clamp(1, 4).min(parts.len())].join(".")).or_default().push(name);
    }
    let told = |(start, names): (String, Vec<&String>)| match names.len() {
        1 | 2 => names.iter().map(|name| format!("`{name}`")).collect(),
        count => vec![format!("`{start}.` ({count})")],
    };
    groups.into_iter().flat_map(told).collect()
}
