//! Feature tables as `.npy` files: [pictures, features], which NumPy reads and writes.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Start of every file of the format.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read; theirs have about 120 bytes.
const MOST_HEADER: usize = 1 << 16;

/// Writes a table row by row: fp32, so that no more than a batch is held.
pub struct Writer {
    out: BufWriter<File>,
    left: usize,
    path: std::path::PathBuf,
}

impl Writer {
    /// Starts a table of `rows` × `columns`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: &Path, rows: usize, columns: usize) -> Result<Self> {
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
        // The numbers begin at a multiple of 64.
        let whole = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
        header.push_str(&" ".repeat(whole - MAGIC.len() - 4 - header.len() - 1));
        header.push('\n');
        let mut out = BufWriter::new(File::create(path).map_err(Error::io("write", path))?);
        let length = (header.len() as u16).to_le_bytes();
        let parts: [&[u8]; 4] = [MAGIC, &[1, 0], &length, header.as_bytes()];
        out.write_all(&parts.concat()).map_err(Error::io("write", path))?;
        Ok(Self { out, left: rows * columns, path: path.into() })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// The file cannot be written, or there are more numbers than were announced.
    pub fn rows(&mut self, values: &[f32]) -> Result<()> {
        self.left = self.left.checked_sub(values.len()).ok_or("more rows than a table was announced to have")?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.out.write_all(&bytes).map_err(Error::io("write", &self.path))
    }

    /// Ends the table.
    ///
    /// # Errors
    /// The file cannot be written, or rows are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.left > 0 {
            return Err(format!("a table of features lacks {} numbers", self.left).into());
        }
        self.out.flush().map_err(Error::io("write", &self.path))
    }
}

/// Value of a key in the header, up to the comma or brace behind it.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

/// A table in a file, of which rows are read when they are wanted.
pub struct Table {
    file: File,
    path: std::path::PathBuf,
    /// Where the numbers begin, bytes.
    start: u64,
    rows: usize,
    columns: usize,
    kind: Kind,
    /// Bytes of a number.
    size: usize,
}

impl Table {
    /// Opens a table of numbers stored as fp16, fp32 or fp64.
    ///
    /// # Errors
    /// It is no such file, no table, of another kind of numbers, or cut short.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::from(format!("`{}`: {what}", path.display()));
        let short = || bad("the table was cut short".into());
        let cut = |_: std::io::Error| short();
        let file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut source = BufReader::new(file);
        let mut start = [0; 8];
        source.read_exact(&mut start).map_err(|_| bad("this is no .npy file".into()))?;
        if &start[..6] != MAGIC {
            return Err(bad("this is no .npy file; write it with numpy.save".into()));
        }
        let (size, before) = if start[6] == 1 {
            let mut two = [0; 2];
            source.read_exact(&mut two).map_err(cut)?;
            (usize::from(u16::from_le_bytes(two)), 10)
        } else {
            let mut four = [0; 4];
            source.read_exact(&mut four).map_err(cut)?;
            (u32::from_le_bytes(four) as usize, 12)
        };
        if size > MOST_HEADER {
            return Err(bad("its header is longer than any".into()));
        }
        let mut header = vec![0; size];
        source.read_exact(&mut header).map_err(cut)?;
        let header = String::from_utf8_lossy(&header).into_owned();
        let (kind, bytes) = match field(&header, "descr") {
            Some("'<f4'") => (Kind::Float, 4u64),
            Some("'<f8'") => (Kind::Double, 8),
            Some("'<f2'") => (Kind::Half, 2),
            other => {
                let found = other.unwrap_or("nothing");
                return Err(bad(format!(
                    "its numbers are of kind {found}; float32 is needed (features.astype(\"float32\"))"
                )));
            }
        };
        if field(&header, "fortran_order") != Some("False") {
            return Err(bad("it is stored column by column; save numpy.ascontiguousarray(features)".into()));
        }
        let shape = field(&header, "shape").unwrap_or_default().trim_matches(['(', ')']);
        let sides: Option<Vec<u64>> =
            shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect();
        let Some([rows, columns]) = sides.as_deref() else {
            return Err(bad(format!("its shape is ({shape}); a table of (pictures, features) is needed")));
        };
        let start = before + size as u64;
        let whole = rows.checked_mul(*columns).and_then(|count| count.checked_mul(bytes));
        whole.and_then(|whole| whole.checked_add(start)).filter(|whole| *whole <= length).ok_or_else(short)?;
        Ok(Self {
            file: source.into_inner(),
            path: path.into(),
            start,
            rows: *rows as usize,
            columns: *columns as usize,
            kind,
            size: bytes as usize,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows `first` to `first + count`: [count, columns], fp32, on the CPU.
    ///
    /// # Errors
    /// The file cannot be read, or has no such rows.
    pub fn read(&self, first: usize, count: usize) -> Result<Tensor> {
        if first.checked_add(count).is_none_or(|end| end > self.rows) {
            let path = self.path.display();
            return Err(format!("`{path}` has {} rows, and {count} from {first} on were asked for", self.rows).into());
        }
        let row = self.columns * self.size;
        let mut bytes = vec![0; count * row];
        let at = self.start + (first * row) as u64;
        self.file.read_exact_at(&mut bytes, at).map_err(Error::io("read", &self.path))?;
        Ok(Tensor::f_from_data_size(&bytes, &[count as i64, self.columns as i64], self.kind)?.to_kind(Kind::Float))
    }
}

/// Reads a whole table: [rows, columns], fp32, on the CPU; see [`Table::open`].
///
/// # Errors
/// See [`Table::open`].
pub fn read(path: &Path) -> Result<Tensor> {
    let table = Table::open(path)?;
    table.read(0, table.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mut writer = Writer::new(&path, 2, 3).unwrap();
        writer.rows(&[1.0, 2.0, 3.0]).unwrap();
        writer.rows(&[4.0, 5.0, 6.5]).unwrap();
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 24);
        let table = read(&path).unwrap();
        assert_eq!(table.size(), [2, 3]);
        assert_eq!(table.double_value(&[1, 2]), 6.5);
        // libtorch's own reader of the format agrees.
        assert!(Tensor::read_npy(&path).unwrap().equal(&table));
        let part = Table::open(&path).unwrap();
        assert_eq!((part.rows(), part.columns()), (2, 3));
        assert!(part.read(1, 1).unwrap().equal(&table.narrow(0, 1, 1)));
        assert!(part.read(1, 2).unwrap_err().to_string().contains("has 2 rows"));

        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(of(b"torn").contains("no .npy"));
        assert!(of(&bytes[..140]).contains("cut short"));
        let text = |from: &str, to: &str| {
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            let mut other = bytes.clone();
            other[at..at + from.len()].copy_from_slice(to.as_bytes());
            other
        };
        assert!(of(&text("<f4", "<i4")).contains("'<i4'"));
        assert!(of(&text("(2, 3)", "(6,)  ")).contains("(pictures, features)"));
        assert!(of(&text("(2, 3)", "(9, 9)")).contains("cut short"));
        assert!(of(&text("False", "True ")).contains("ascontiguousarray"));
        let mut short = Writer::new(&path, 2, 3).unwrap();
        short.rows(&[1.0; 3]).unwrap();
        assert!(short.finish().is_err());
    }
}
