//! Named tensors of a checkpoint file: PyTorch's zip (1.6 and later), its older stream, and safetensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use tch::{Kind, Tensor};

use super::pickle::{self, Id, Node, Pickle};
use crate::error::{Error, Result};
use crate::model::store;

/// Dictionaries inside dictionaries that are looked into: `classy_state_dict.base_model.model.trunk` has four.
const DEPTH: usize = 6;
/// Most tensors of a file.
const MOST_TENSORS: usize = 1 << 20;
/// First number of PyTorch's older format.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// How a checkpoint is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PyTorch's zip.
    Zip,
    /// PyTorch's older stream of pickles and storages.
    Legacy,
    /// safetensors.
    Safetensors,
}

impl Format {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zip => "PyTorch (zip)",
            Self::Legacy => "PyTorch (older format)",
            Self::Safetensors => "safetensors",
        }
    }
}

/// What a file holds.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its format.
    pub format: Format,
    /// Every tensor under a name: the keys that lead to it, joined by points.
    pub tensors: BTreeMap<String, Tensor>,
    /// Names of what is there and no tensor (`epoch`, `arch`), the outermost only.
    pub other: Vec<String>,
    /// What harness wrote in the header of a safetensors file.
    pub header: Option<String>,
}

/// A tensor in the file that is yet to be read.
#[derive(Clone)]
struct Wanted {
    name: String,
    tensor: pickle::Tensor,
}

/// Reads every tensor of a file.
///
/// # Errors
/// It is none of the formats, damaged, cut short, or holds what a checkpoint has no need of; says which.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start).map_err(Error::io("read", path))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
    let named = |problem: String| Error::Step(format!("`{}`: {problem}", path.display()));
    if start.starts_with(b"PK\x03\x04") {
        return zip(file, length).map_err(named);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(named(
            "this is a tar, which PyTorch wrote before version 0.4; load and save it again with a newer one, or unpack it"
                .into(),
        ));
    }
    if start.first() == Some(&0x80) && start.windows(MAGIC.len()).take(8).any(|window| window == MAGIC) {
        return legacy(file, length).map_err(named);
    }
    if start.get(8) == Some(&b'{') {
        let (tensors, header) = store::read(path)?;
        return Ok(Checkpoint { format: Format::Safetensors, tensors, other: Vec::new(), header });
    }
    let what = if start.first() == Some(&0x80) { ": a pickle that torch.save did not write" } else { "" };
    Err(named(format!("this is neither a PyTorch checkpoint (.pth, .pth.tar, .pt) nor a safetensors file{what}")))
}

/// Kind and bytes of an element of a storage.
fn element(kind: &str) -> Option<(Kind, u64)> {
    Some(match kind {
        "FloatStorage" => (Kind::Float, 4),
        "DoubleStorage" => (Kind::Double, 8),
        "HalfStorage" => (Kind::Half, 2),
        "BFloat16Storage" => (Kind::BFloat16, 2),
        "LongStorage" => (Kind::Int64, 8),
        "IntStorage" => (Kind::Int, 4),
        "ShortStorage" => (Kind::Int16, 2),
        "CharStorage" => (Kind::Int8, 1),
        "ByteStorage" => (Kind::Uint8, 1),
        "BoolStorage" => (Kind::Bool, 1),
        _ => return None,
    })
}

/// The tensors of a pickle by name, and the outermost names of what is none.
fn named(pickle: &Pickle) -> Result<(Vec<Wanted>, Vec<String>), String> {
    let mut found = Vec::new();
    let mut other = Vec::new();
    let mut seen = BTreeSet::from([pickle.root]);
    let mut open: Vec<(String, Id, usize)> = vec![(String::new(), pickle.root, 0)];
    let mut at = 0;
    while at < open.len() {
        let (prefix, id, depth) = open[at].clone();
        at += 1;
        let Node::Dict(items) = pickle.node(id) else {
            return Err("it holds no dictionary of tensors; save `model.state_dict()`".into());
        };
        for &(key, value) in items {
            let Some(key) = pickle.text(key) else { continue };
            match pickle.node(value) {
                Node::Tensor(tensor) => {
                    found.push(Wanted { name: format!("{prefix}{key}"), tensor: tensor.clone() });
                    if found.len() > MOST_TENSORS {
                        return Err("it holds more tensors than any checkpoint".into());
                    }
                }
                // A dictionary that is reachable twice is looked at once.
                Node::Dict(_) if depth < DEPTH && seen.insert(value) => {
                    open.push((format!("{prefix}{key}."), value, depth + 1));
                }
                _ if depth == 0 => other.push(key.to_string()),
                _ => {}
            }
        }
    }
    if found.is_empty() {
        return Err("it holds no tensors under names".into());
    }
    Ok((found, other))
}

/// Bytes of a storage that a tensor's elements need, if the tensor lies in it.
fn needed(tensor: &pickle::Tensor, name: &str) -> Result<(Kind, u64), String> {
    let outside = || format!("the tensor `{name}` lies outside its storage; the file is damaged");
    let (kind, size) = element(&tensor.kind)
        .ok_or_else(|| format!("the tensor `{name}` has elements of an unknown kind ({})", tensor.kind))?;
    if tensor.shape.len() != tensor.strides.len() {
        return Err(outside());
    }
    let count = tensor.shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side)).ok_or_else(outside)?;
    // A view with stride 0 could claim any number of elements.
    if count > tensor.elements {
        return Err(outside());
    }
    if count > 0 {
        let reach = |end: u64, (side, stride): (&u64, &u64)| end.checked_add((side - 1).checked_mul(*stride)?);
        let last = tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, reach).ok_or_else(outside)?;
        if last >= tensor.elements {
            return Err(outside());
        }
    }
    Ok((kind, tensor.elements.checked_mul(size).ok_or_else(outside)?))
}

/// Views of one storage as tensors of their own. `room` is how many bytes the tensors of the file may still take: names
/// of one storage can be many, and each is a copy.
fn cut_out(
    wanted: &[&Wanted],
    bytes: &[u8],
    room: &mut u64,
    into: &mut BTreeMap<String, Tensor>,
) -> Result<(), String> {
    for Wanted { name, tensor } in wanted {
        let (kind, size) = needed(tensor, name)?;
        *room = room.checked_sub(size).ok_or("it names the same numbers many times over, as no checkpoint does")?;
        if size > bytes.len() as u64 {
            return Err(format!(
                "the storage of `{name}` has {} bytes instead of {size}; the file was cut short",
                bytes.len()
            ));
        }
        let torch = |error: tch::TchError| format!("the tensor `{name}`: {error}");
        let numbers = |values: &[u64]| values.iter().map(|&value| value as i64).collect::<Vec<_>>();
        let flat = Tensor::f_from_data_size(&bytes[..size as usize], &[tensor.elements as i64], kind).map_err(torch)?;
        let view = flat.f_as_strided(numbers(&tensor.shape), numbers(&tensor.strides), tensor.offset as i64);
        into.insert(name.clone(), view.map_err(torch)?.copy());
    }
    Ok(())
}

/// How many bytes tensors may take in memory: a few times the file, for tensors that share storage.
fn room(length: u64) -> u64 {
    length.saturating_mul(4)
}

fn by_storage(wanted: &[Wanted]) -> BTreeMap<&str, Vec<&Wanted>> {
    let mut groups: BTreeMap<&str, Vec<&Wanted>> = BTreeMap::new();
    wanted.iter().for_each(|one| groups.entry(one.tensor.storage.as_str()).or_default().push(one));
    groups
}

fn zip(file: File, length: u64) -> Result<Checkpoint, String> {
    let broken = |error: zip::result::ZipError| format!("the zip is damaged or was cut short: {error}");
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let Some(root) = names.iter().filter_map(|name| name.strip_suffix("data.pkl")).min_by_key(|root| root.len()) else {
        return Err("this zip is no PyTorch checkpoint: it has no `data.pkl`".into());
    };
    if names.iter().any(|name| name.starts_with(&format!("{root}code/"))) {
        return Err("this is an exported TorchScript module, not weights; give it as `torchscript`".into());
    }
    let mut member = |name: &str, most: u64| -> Result<Vec<u8>, String> {
        let entry = archive.by_name(&format!("{root}{name}")).map_err(|_| format!("the zip lacks `{name}`"))?;
        if entry.compression() != zip::CompressionMethod::Stored || entry.size() > length.min(most) {
            return Err(format!("the zip holds `{name}` in a way that PyTorch does not write"));
        }
        let size = entry.size();
        let mut bytes = Vec::new();
        entry.take(size).read_to_end(&mut bytes).map_err(|error| format!("`{name}` in the zip is damaged: {error}"))?;
        Ok(bytes)
    };
    if let Ok(order) = member("byteorder", 64)
        && order != b"little"
    {
        return Err("it was written on a big-endian machine; save it again on a little-endian one".into());
    }
    let pickled = member("data.pkl", u64::MAX)?;
    let pickle = pickle::read(&mut pickled.as_slice()).map_err(|problem| format!("its pickle: {problem}"))?;
    let (wanted, other) = named(&pickle)?;
    let (mut tensors, mut room) = (BTreeMap::new(), room(length));
    for (key, group) in by_storage(&wanted) {
        let bytes = member(&format!("data/{key}"), u64::MAX)?;
        cut_out(&group, &bytes, &mut room, &mut tensors)?;
    }
    Ok(Checkpoint { format: Format::Zip, tensors, other, header: None })
}

/// Five pickles (a magic number, a version, the machine, the content, the keys of the storages), then each storage with its
/// length before it.
fn legacy(file: File, length: u64) -> Result<Checkpoint, String> {
    let mut source = BufReader::new(file);
    let mut pickles = Vec::new();
    for what in ["magic number", "version", "description of the machine", "content", "list of storages"] {
        pickles.push(pickle::read(&mut source).map_err(|problem| format!("its {what}: {problem}"))?);
    }
    let [magic, version, machine, content, keys] = &pickles[..] else { return Err("it ends early".into()) };
    if !matches!(magic.node(magic.root), Node::Bytes(bytes) if bytes[..] == MAGIC)
        || !matches!(version.node(version.root), Node::Int(1001))
    {
        return Err("it is of a version that is not known".into());
    }
    if let Node::Dict(items) = machine.node(machine.root)
        && items.iter().any(|&(key, value)| {
            machine.text(key) == Some("little_endian") && *machine.node(value) == Node::Bool(false)
        })
    {
        return Err("it was written on a big-endian machine; save it again on a little-endian one".into());
    }
    let (wanted, other) = named(content)?;
    let groups = by_storage(&wanted);
    // Storages of tensors that have no name are stepped over, so their element's size must be known too.
    let mut sizes = BTreeMap::new();
    for node in &content.nodes {
        if let Node::Storage(kind, key, _) = node {
            sizes.insert(key.as_str(), element(kind).map(|(_, size)| size));
        }
    }
    let Node::List(keys_list) = keys.node(keys.root) else { return Err("its list of storages is none".into()) };
    let (mut tensors, mut room) = (BTreeMap::new(), room(length));
    for &key in keys_list {
        let key = keys.text(key).ok_or("its list of storages is none")?;
        let size =
            sizes.get(key).copied().flatten().ok_or_else(|| format!("the storage `{key}` is of an unknown kind"))?;
        let cut = |_| format!("it ends in the middle of the storage `{key}`; the file was cut short");
        let mut count = [0; 8];
        source.read_exact(&mut count).map_err(cut)?;
        let bytes = u64::from_le_bytes(count).checked_mul(size).filter(|bytes| *bytes <= length);
        let bytes =
            bytes.ok_or_else(|| format!("the storage `{key}` claims to be larger than the file; it is damaged"))?;
        match groups.get(key) {
            Some(group) => {
                let mut held = Vec::new();
                source.by_ref().take(bytes).read_to_end(&mut held).map_err(cut)?;
                cut_out(group, &held, &mut room, &mut tensors)?;
            }
            None => source.seek_relative(bytes as i64).map_err(cut)?,
        }
    }
    if let Some(one) = wanted.iter().find(|one| !tensors.contains_key(&one.name)) {
        return Err(format!("the storage of `{}` is not there; the file is damaged", one.name));
    }
    Ok(Checkpoint { format: Format::Legacy, tensors, other, header: None })
}
