//! NumPy's files (`.npy`) as grids of numbers: what depth maps are stored as.

/// Start of every file of the format.
const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes from a file's start in which a header that NumPy wrote ends.
pub const HEADER: u64 = 4096;
/// Largest number of values that is read.
const MAX_VALUES: u64 = 1 << 28;

/// Numbers in rows and columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One number a place, row by row from the top.
    pub values: Vec<f32>,
}

/// What a file's header says of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridHeader {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of a number: 4 or 8, floating point, the lowest first.
    bytes: usize,
    /// Where the numbers begin.
    start: usize,
}

/// The value of a key in the header's text, up to the comma or brace behind it.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

/// Reads the header from the first [`HEADER`] bytes of a file: a grid of rows and columns (an axis of one number behind
/// them does no harm).
///
/// # Errors
/// In words: no such file, cut short, other numbers than float32 and float64, not row by row, or no grid.
pub fn grid_header(start: &[u8]) -> Result<GridHeader, String> {
    let rest = start.strip_prefix(MAGIC).ok_or("no NumPy file (.npy)")?;
    let cut = "a NumPy file that was cut short";
    let (size, at) = match *rest {
        [1, _, low, high, ..] => (usize::from(u16::from_le_bytes([low, high])), MAGIC.len() + 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, MAGIC.len() + 6),
        _ => return Err(cut.into()),
    };
    let text = at.checked_add(size).and_then(|end| start.get(at..end)).ok_or(cut)?;
    let text = String::from_utf8_lossy(text);
    let bytes = match field(&text, "descr") {
        Some("'<f4'") => 4,
        Some("'<f8'") => 8,
        other => {
            let found = other.unwrap_or("no kind");
            return Err(format!("a NumPy file of numbers of kind {found}; save depth.astype(\"float32\")"));
        }
    };
    if field(&text, "fortran_order") != Some("False") {
        return Err("a NumPy file that is stored column by column; save numpy.ascontiguousarray(depth)".into());
    }
    let shape = field(&text, "shape").unwrap_or_default().trim_matches(['(', ')']);
    let sides: Option<Vec<u64>> =
        shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect();
    let (height, width) = match sides.as_deref() {
        Some(&[height, width] | &[height, width, 1]) => (height, width),
        _ => return Err(format!("a NumPy file of shape ({shape}) instead of (rows, columns)")),
    };
    if !height.checked_mul(width).is_some_and(|count| (1..=MAX_VALUES).contains(&count)) {
        return Err(format!("a NumPy file of {width}x{height} numbers, which is no usable size"));
    }
    Ok(GridHeader { width: width as usize, height: height as usize, bytes, start: at + size })
}

/// Reads a whole file; nothing in it is executed.
///
/// # Errors
/// As [`grid_header`], or it was cut short.
pub fn read_grid(bytes: &[u8]) -> Result<Grid, String> {
    let header = grid_header(bytes)?;
    let end = header.start + header.width * header.height * header.bytes;
    let numbers = bytes.get(header.start..end).ok_or("a NumPy file that was cut short")?;
    let values = match header.bytes {
        4 => numbers.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
        _ => numbers.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight) as f32).collect(),
    };
    Ok(Grid { width: header.width, height: header.height, values })
}

/// The file that holds a grid, in float32.
pub fn write_grid(grid: &Grid) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", grid.height, grid.width);
    // The numbers begin at a multiple of 64.
    let before = MAGIC.len() + 4;
    let whole = (before + text.len() + 1).next_multiple_of(64);
    text.push_str(&" ".repeat(whole - before - text.len() - 1));
    text.push('\n');
    let length = (text.len() as u16).to_le_bytes();
    let mut bytes = [MAGIC, &[1, 0], &length, text.as_bytes()].concat();
    bytes.extend(grid.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid { width: 3, height: 2, values: vec![0.5, 1.0, -2.0, f32::INFINITY, 1e-9, 7.25] }
    }

    /// `numpy.save` of the same numbers, as NumPy writes float64 with an axis behind.
    fn double() -> Vec<u8> {
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3, 1), }";
        let mut bytes = [MAGIC, &[1, 0, text.len() as u8 + 1, 0], text.as_bytes(), b"\n"].concat();
        bytes.extend(grid().values.iter().flat_map(|&value| f64::from(value).to_le_bytes()));
        bytes
    }

    #[test]
    fn grids_come_back() {
        let bytes = write_grid(&grid());
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(read_grid(&bytes), Ok(grid()));
        assert_eq!(read_grid(&double()), Ok(grid()));
    }

    #[test]
    fn what_is_no_grid_is_said() {
        let bytes = write_grid(&grid());
        let of = |bytes: &[u8]| read_grid(bytes).unwrap_err();
        assert!(of(b"torn").contains("no NumPy file"));
        for end in 6..bytes.len() {
            assert!(of(&bytes[..end]).contains("cut short"), "cut after {end} bytes");
        }
        let text = |from: &str, to: &str| {
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            let mut other = bytes.clone();
            other[at..at + from.len()].copy_from_slice(to.as_bytes());
            of(&other)
        };
        assert!(text("<f4", "<u2").contains("'<u2'"));
        assert!(text("False", "True ").contains("ascontiguousarray"));
        assert!(text("(2, 3)", "(6,)  ").contains("(6,) instead of (rows, columns)"));
        assert!(text("(2, 3)", "(0, 3)").contains("no usable size"));
        let huge = "(99999999999, 99999999999), }";
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {huge}");
        let bytes = [MAGIC, &[2, 0], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        assert!(of(&bytes).contains("no usable size"));
        assert!(of(&[MAGIC, &[2, 0, 255, 255, 255, 255]].concat()).contains("cut short"));
    }
}
