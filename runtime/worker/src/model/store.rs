//! Named tensors of a network, and their safetensors form.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Header key under which harness writes what it has to say of a file.
pub const HEADER: &str = "harness";

/// Named tensors. Modules that were bound to a store share its tensors.
#[derive(Debug, Default)]
pub struct Store {
    tensors: BTreeMap<String, Tensor>,
}

/// Whether a tensor is a buffer (batch norm statistics) rather than a weight, by torchvision's names.
pub fn is_buffer(name: &str) -> bool {
    ["running_mean", "running_var", "num_batches_tracked"].contains(&name.rsplit('.').next().unwrap_or(name))
}

impl Store {
    /// Adds a tensor; a weight of that name is replaced.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The tensor `name`, sharing its storage.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let found = self.tensors.get(name).map(Tensor::shallow_clone);
        found.ok_or_else(|| format!("the network has no tensor `{name}`").into())
    }

    /// Weights, sorted by name, sharing storage.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.filtered(false)
    }

    /// Buffers, sorted by name, sharing storage.
    pub fn buffers(&self) -> Vec<(String, Tensor)> {
        self.filtered(true)
    }

    fn filtered(&self, buffers: bool) -> Vec<(String, Tensor)> {
        let wanted = self.tensors.iter().filter(|(name, _)| is_buffer(name) == buffers);
        wanted.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Number of weights.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// Makes every weight collect gradients, or none.
    pub fn train(&self, on: bool) {
        for (_, tensor) in self.parameters() {
            let _ = tensor.set_requires_grad(on);
        }
    }

    /// Forgets the gradients, so that the next backward pass starts from none.
    pub fn zero_grad(&self) {
        for (_, mut tensor) in self.parameters() {
            tensor.zero_grad();
        }
    }

    /// A copy with storage of its own, laid out in memory as this is, without gradients.
    pub fn deep_copy(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tch::no_grad(|| tensor.detach().copy()));
        Self { tensors: self.tensors.iter().map(copy).collect() }
    }

    /// The same tensors on a device.
    pub fn to_device(&self, device: Device) -> Self {
        let there = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().to_device(device));
        Self { tensors: self.tensors.iter().map(there).collect() }
    }

    /// The same values with the weights of convolutions channels last in memory, as the pictures come: convolutions then
    /// need not lay them out anew in every pass.
    pub fn channels_last(&self) -> Self {
        let laid = |(name, tensor): (&String, &Tensor)| {
            let tensor = tensor.detach();
            let tensor = match tensor.dim() {
                4 => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
                _ => tensor,
            };
            (name.clone(), tensor)
        };
        Self { tensors: self.tensors.iter().map(laid).collect() }
    }

    /// Overwrites the values of every tensor with those of `other`, which has the same names and shapes.
    ///
    /// # Errors
    /// It has not.
    pub fn assign(&self, other: &Store) -> Result<()> {
        for (name, tensor) in &self.tensors {
            let from = other.get(name)?;
            tch::no_grad(|| tensor.shallow_clone().f_copy_(&from))?;
        }
        Ok(())
    }
}

fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Uint8, Kind::Bool]
        .into_iter()
        .find(|&kind| self::dtype(kind) == Some(dtype))
}

/// The bytes of a tensor, row by row, little-endian.
pub fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tch::no_grad(|| tensor.detach().to_device(Device::Cpu).contiguous());
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

/// A safetensors file in memory: equal tensors and headers give equal bytes.
///
/// # Errors
/// A tensor of a kind that the format lacks.
pub fn encode(tensors: &BTreeMap<String, Tensor>, header: Option<&str>) -> Result<Vec<u8>> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = dtype(tensor.kind()).ok_or_else(|| format!("`{name}`: {:?} cannot be stored", tensor.kind()))?;
        let shape: Vec<usize> = tensor.size().iter().map(|&side| side as usize).collect();
        parts.push((name, dtype, shape, bytes(tensor)));
    }
    let views = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let header = header.map(|text| HashMap::from([(HEADER.to_string(), text.to_string())]));
    let written = views.and_then(|views| safetensors::serialize(views, header));
    written.map_err(|error| format!("the tensors cannot be written as safetensors: {error}").into())
}

/// Reads a safetensors file: its tensors on the CPU, and what harness wrote in its header.
///
/// # Errors
/// It cannot be read or is no safetensors file.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, Option<String>)> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let broken = |error: safetensors::SafeTensorError| {
        Error::Step(format!("`{}` is not a safetensors file, or a damaged one: {error}", path.display()))
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let header = metadata.metadata().as_ref().and_then(|map| map.get(HEADER).cloned());
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let kind = kind(view.dtype())
            .ok_or_else(|| format!("`{}`: tensor `{name}` is of kind {:?}", path.display(), view.dtype()))?;
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        tensors.insert(name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok((tensors, header))
}

/// How named tensors differ from those that are expected, by name and shape: none if they do not. Ten at most of each sort.
pub fn misfits<'a>(
    expected: &BTreeMap<String, Tensor>,
    found: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Option<String> {
    let found: BTreeMap<&str, &Tensor> = found.collect();
    let missing = expected.keys().filter(|name| !found.contains_key(name.as_str())).cloned().collect();
    let unexpected = found.keys().filter(|name| !expected.contains_key(**name)).map(|name| name.to_string()).collect();
    let other = |(name, tensor): (&String, &Tensor)| {
        let there = found.get(name.as_str())?;
        (there.size() != tensor.size()).then(|| format!("{name} {:?} instead of {:?}", there.size(), tensor.size()))
    };
    let different: Vec<String> = expected.iter().filter_map(other).collect();
    let parts: Vec<String> = [("missing", missing), ("unexpected", unexpected), ("of another shape", different)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names): (&str, Vec<String>)| {
            let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
            format!("{what}: {}{more}", names[..names.len().min(10)].join(", "))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// SHA-256 over names, shapes and bytes of tensors, hexadecimal. safetensors files carry no checksum of their own.
pub fn digest(tensors: &BTreeMap<String, Tensor>) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for (name, tensor) in tensors {
        hash.update(format!("{name} {:?} {:?}\n", tensor.size(), tensor.kind()));
        hash.update(bytes(tensor));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a file is written before it gets its name. Each process has its own: one that lost its `harness` may still be ending
/// when the next one begins.
pub(crate) fn part(path: &Path) -> std::path::PathBuf {
    path.with_extension(format!("{}.part", std::process::id()))
}

/// Writes a file so that it is whole or not there: beside it first, then renamed. What was there stays if that fails, for
/// instance because the disk is full.
///
/// # Errors
/// It cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let part = part(path);
    let write = || {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        // The new name is on the disk too when the folder is.
        path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    };
    write().map_err(|error| {
        // What was written of it would only take room.
        let _ = std::fs::remove_file(&part);
        Error::io("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        write_atomic(&path, b"old").unwrap();
        // Everything that is written there meets a full disk.
        std::os::unix::fs::symlink("/dev/full", part(&path)).unwrap();
        let message = write_atomic(&path, &[1; 100_000]).unwrap_err().to_string();
        assert!(message.contains("No space left on device"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert!(!part(&path).exists());
        write_atomic(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn layouts_do_not_change_bytes() {
        let mut store = Store::default();
        store.insert("w", crate::seed::normal(1, "test", "w", &[4, 3, 2, 2], 1.0));
        store.insert("b", crate::seed::normal(1, "test", "b", &[4], 1.0));
        let last = store.channels_last();
        assert_eq!(last.get("w").unwrap().stride(), [12, 1, 6, 3]);
        assert_eq!(last.deep_copy().get("w").unwrap().stride(), [12, 1, 6, 3]);
        assert_eq!(encode(last.tensors(), None).unwrap(), encode(store.tensors(), None).unwrap());
        assert_eq!(digest(last.tensors()), digest(store.tensors()));
        assert!(misfits(store.tensors(), last.tensors().iter().map(|(n, t)| (n.as_str(), t))).is_none());
    }
}
