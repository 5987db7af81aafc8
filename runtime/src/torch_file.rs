//! Files that `torch.load` reads, with `weights_only=True` too: an uncompressed zip of a pickle, which says how the tensors
//! are built, and their numbers. Equal content gives equal bytes.
//!
//! ```text
//! archive/data.pkl    {name: torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, …)}
//! archive/byteorder   little
//! archive/data/0      numbers of the first tensor, row by row, at a multiple of 64 bytes of the file
//! archive/version     3
//! ```

use anyhow::{Context as _, Result, bail};
use std::io::{Seek, Write};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// Bytes that the numbers of a tensor begin at a multiple of, as PyTorch writes them, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// A dense tensor.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its storage class in `torch`: `FloatStorage`.
    pub storage: &'static str,
    /// Bytes of a number.
    pub width: usize,
    /// Sides.
    pub shape: &'a [usize],
    /// Numbers row by row, little-endian.
    pub data: &'a [u8],
}

/// What the pickle holds.
#[derive(Debug)]
pub enum Value<'a> {
    /// A `dict` with its entries in this order.
    Dict(Vec<(String, Value<'a>)>),
    /// A `str`.
    Text(String),
    /// An `int`.
    Int(i64),
    /// A `torch.Tensor`.
    Tensor(Tensor<'a>),
}

/// The storage class of safetensors' type of numbers, and their width in bytes.
///
/// # Errors
/// PyTorch has no such class.
pub fn storage(dtype: safetensors::Dtype) -> Result<(&'static str, usize)> {
    use safetensors::Dtype;
    Ok(match dtype {
        Dtype::F64 => ("DoubleStorage", 8),
        Dtype::F32 => ("FloatStorage", 4),
        Dtype::F16 => ("HalfStorage", 2),
        Dtype::BF16 => ("BFloat16Storage", 2),
        Dtype::I64 => ("LongStorage", 8),
        Dtype::I32 => ("IntStorage", 4),
        Dtype::U8 => ("ByteStorage", 1),
        Dtype::BOOL => ("BoolStorage", 1),
        other => bail!("PyTorch has no storage for numbers of type {other:?}"),
    })
}

/// Writes `value`.
///
/// # Errors
/// It cannot be written; a tensor whose bytes are not as many as its shape says.
pub fn write(out: impl Write + Seek, value: &Value<'_>) -> Result<()> {
    let mut pickle = Pickle { code: vec![0x80, 2], tensors: Vec::new() };
    pickle.value(value)?;
    pickle.code.push(b'.');
    let mut zip = ZipWriter::new(out);
    // Without a date, which would be another one each time.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644)
        .with_alignment(ALIGNMENT);
    let mut put = |name: &str, bytes: &[u8]| -> Result<()> {
        zip.start_file(format!("archive/{name}"), options).with_context(|| format!("`{name}`"))?;
        Ok(zip.write_all(bytes)?)
    };
    put("data.pkl", &pickle.code)?;
    put("byteorder", b"little")?;
    for (index, tensor) in pickle.tensors.iter().enumerate() {
        put(&format!("data/{index}"), tensor.data)?;
    }
    put("version", b"3\n")?;
    zip.finish()?.flush()?;
    Ok(())
}

/// Pickle's second protocol, as far as it is needed.
struct Pickle<'a> {
    code: Vec<u8>,
    /// In the order of their storages' numbers.
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Pickle<'a> {
    fn value(&mut self, value: &Value<'a>) -> Result<()> {
        match value {
            Value::Dict(entries) => {
                self.code.extend(b"}(");
                for (name, value) in entries {
                    self.text(name);
                    self.value(value)?;
                }
                self.code.push(b'u');
            }
            Value::Text(text) => self.text(text),
            Value::Int(number) => self.int(*number),
            Value::Tensor(tensor) => self.tensor(*tensor)?,
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.code.push(b'X');
        self.code.extend((text.len() as u32).to_le_bytes());
        self.code.extend(text.as_bytes());
    }

    fn int(&mut self, number: i64) {
        match number {
            0..=255 => self.code.extend([b'K', number as u8]),
            _ if i32::try_from(number).is_ok() => {
                self.code.push(b'J');
                self.code.extend((number as i32).to_le_bytes());
            }
            _ => {
                self.code.extend([0x8a, 8]);
                self.code.extend(number.to_le_bytes());
            }
        }
    }

    fn ints(&mut self, numbers: &[usize]) {
        self.code.push(b'(');
        numbers.iter().for_each(|&number| self.int(number as i64));
        self.code.push(b't');
    }

    fn global(&mut self, module: &str, name: &str) {
        self.code.extend(format!("c{module}\n{name}\n").bytes());
    }

    /// `_rebuild_tensor_v2(persistent ("storage", class, number, "cpu", count), 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, tensor: Tensor<'a>) -> Result<()> {
        let count: usize = tensor.shape.iter().product();
        if count * tensor.width != tensor.data.len() {
            bail!("a tensor of shape {:?} has {} bytes", tensor.shape, tensor.data.len());
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.code.extend(b"((");
        self.text("storage");
        self.global("torch", tensor.storage);
        self.text(&self.tensors.len().to_string());
        self.text("cpu");
        self.int(count as i64);
        self.code.extend(b"tQ");
        self.int(0);
        self.ints(tensor.shape);
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..tensor.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis].max(1);
        }
        self.ints(&strides);
        self.code.push(0x89);
        self.global("collections", "OrderedDict");
        self.code.extend(b")RtR");
        self.tensors.push(tensor);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Read as _};

    fn file() -> Vec<u8> {
        let data: Vec<u8> = [1f32, -2.0, 3.5, 0.25, 7.0, 9.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let count = 300i64.to_le_bytes();
        let weight = Tensor { storage: "FloatStorage", width: 4, shape: &[2, 3], data: &data };
        let tracked = Tensor { storage: "LongStorage", width: 8, shape: &[], data: &count };
        let value = Value::Dict(vec![
            ("epoch".into(), Value::Int(70_000)),
            ("arch".into(), Value::Text("resnet18".into())),
            (
                "state_dict".into(),
                Value::Dict(vec![
                    ("w".into(), Value::Tensor(weight)),
                    ("num_batches_tracked".into(), Value::Tensor(tracked)),
                ]),
            ),
        ]);
        let mut out = Cursor::new(Vec::new());
        write(&mut out, &value).unwrap();
        out.into_inner()
    }

    #[test]
    fn the_same_content_is_the_same_file() {
        assert_eq!(file(), file());
        let mut archive = zip::ZipArchive::new(Cursor::new(file())).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        let expected = ["data.pkl", "byteorder", "data/0", "data/1", "version"].map(|name| format!("archive/{name}"));
        assert_eq!(names, expected);
        for name in names {
            let mut entry = archive.by_name(&name).unwrap();
            assert_eq!(entry.compression(), CompressionMethod::Stored);
            assert_eq!(entry.data_start().unwrap_or_default() % u64::from(ALIGNMENT), 0, "{name}");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if name.ends_with("data/1") {
                assert_eq!(bytes, 300i64.to_le_bytes());
            }
        }
    }

    /// `pickletools.dis` of Python 3.11 shows these instructions; `torch.load(weights_only=True)` of 2.11 reads the file.
    #[test]
    fn the_pickle_is_the_one_that_was_read_by_torch() {
        let mut archive = zip::ZipArchive::new(Cursor::new(file())).unwrap();
        let mut pickle = Vec::new();
        archive.by_name("archive/data.pkl").unwrap().read_to_end(&mut pickle).unwrap();
        let mut expected = b"\x80\x02}(X\x05\0\0\0epochJ\x70\x11\x01\0X\x04\0\0\0archX\x08\0\0\0resnet18".to_vec();
        expected.extend(b"X\x0a\0\0\0state_dict}(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage");
        expected.extend(b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\0(K\x02K\x03t(K\x03K\x01t\x89");
        expected.extend(b"ccollections\nOrderedDict\n)RtRX\x13\0\0\0num_batches_trackedctorch._utils\n");
        expected.extend(
            b"_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nLongStorage\nX\x01\0\0\x001X\x03\0\0\0cpuK\x01tQ",
        );
        expected.extend(b"K\0(t(t\x89ccollections\nOrderedDict\n)RtRuu.");
        assert_eq!(String::from_utf8_lossy(&pickle), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn a_tensor_of_too_few_bytes_is_refused() {
        let value = Value::Tensor(Tensor { storage: "FloatStorage", width: 4, shape: &[2], data: &[0; 4] });
        let said = write(Cursor::new(Vec::new()), &value).unwrap_err().to_string();
        assert_eq!(said, "a tensor of shape [2] has 4 bytes");
    }
}
