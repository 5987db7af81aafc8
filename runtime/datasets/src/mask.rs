//! Index masks: PNGs whose pixels are class or object numbers, read as they are stored.
//!
//! A palette PNG is read by index, never through its colours.

use std::io::Cursor;

use png::{BitDepth, ColorType, Transformations};

/// A mask as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexMask {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// One value a pixel, row by row from the top.
    pub values: Vec<u8>,
    /// Whether the PNG has a palette; grey otherwise.
    pub palette: bool,
}

/// Largest number of pixels that is decoded.
const MAX_PIXELS: u64 = 1 << 28;

/// Decodes a grey or palette PNG of at most 8 bits without going through its palette.
///
/// # Errors
/// In words: not a PNG, damaged, colours or 16 bits where numbers should be, or absurdly large.
pub fn decode_mask(bytes: &[u8]) -> Result<IndexMask, String> {
    let (reader, header) = open(bytes)?;
    let mut reader = reader;
    let size = reader.output_buffer_size().ok_or("too large a mask")?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(|e| format!("damaged PNG: {e}"))?;
    let (width, height) = (header.width, header.height);
    let bits = header.depth as usize;
    let mut values = Vec::with_capacity(width * height);
    for row in packed.chunks_exact(frame.line_size.max(1)).take(height) {
        if bits == 8 {
            values.extend_from_slice(&row[..width]);
        } else {
            // Several pixels a byte, the leftmost in the high bits.
            let per_byte = 8 / bits;
            let low = (1_u8 << bits) - 1;
            values.extend((0..width).map(|x| (row[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & low));
        }
    }
    Ok(IndexMask { width, height, values, palette: header.palette })
}

/// What a mask's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskHeader {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Bits a pixel: 1, 2, 4 or 8.
    pub depth: u8,
    /// Whether the PNG has a palette; grey otherwise.
    pub palette: bool,
}

/// Reads a mask's header from the first bytes of its file (some kilobytes are enough).
///
/// # Errors
/// As [`decode_mask`].
pub fn probe_mask(start: &[u8]) -> Result<MaskHeader, String> {
    // The header chunk has a fixed place, right after the signature: reading it needs no decoder, which would want
    // everything before the pixels.
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let chunk = start
        .strip_prefix(SIGNATURE)
        .and_then(|rest| rest.get(4..17))
        .and_then(|chunk| chunk.strip_prefix(b"IHDR"))
        .ok_or("not a PNG")?;
    let number = |at: usize| {
        let bytes = [chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]];
        u32::from_be_bytes(bytes)
    };
    let colours = start.get(25).copied().ok_or("not a PNG")?;
    let palette = match ColorType::from_u8(colours) {
        Some(ColorType::Grayscale) => false,
        Some(ColorType::Indexed) => true,
        other => {
            return Err(format!(
                "a PNG with {} instead of an index mask: pixels must be class or object numbers (8-bit grey or palette)",
                match other {
                    Some(ColorType::Rgb) => "RGB colours",
                    Some(ColorType::Rgba) => "RGB colours and transparency",
                    Some(ColorType::GrayscaleAlpha) => "transparency",
                    _ => "an unknown kind of pixels",
                }
            ));
        }
    };
    let depth = chunk[8];
    if !matches!(depth, 1 | 2 | 4 | 8) {
        return Err(format!("a PNG with {depth} bits a pixel instead of an index mask of at most 8"));
    }
    let (width, height) = (number(0), number(4));
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("a PNG of {width}x{height} pixels, which is no usable size"));
    }
    Ok(MaskHeader { width: width as usize, height: height as usize, depth, palette })
}

type PngReader<'a> = png::Reader<Cursor<&'a [u8]>>;

fn open(bytes: &[u8]) -> Result<(PngReader<'_>, MaskHeader), String> {
    let header = probe_mask(bytes)?;
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    let reader = decoder.read_info().map_err(|e| format!("damaged PNG: {e}"))?;
    Ok((reader, header))
}

/// Checks that every value is a class below `classes`, 255, or one of `ignore`.
///
/// `width` is the mask's width, for the place in the message.
///
/// # Errors
/// In words, with the first value that is neither and where it stands.
pub fn check_mask(values: &[u8], width: usize, classes: usize, ignore: &[u8]) -> Result<(), String> {
    let mut allowed = [false; 256];
    allowed[..classes.min(256)].fill(true);
    allowed[255] = true;
    for &value in ignore {
        allowed[usize::from(value)] = true;
    }
    match values.iter().position(|&v| !allowed[usize::from(v)]) {
        None => Ok(()),
        Some(at) => Err(format!(
            "value {} at column {}, row {}: the {classes} classes are 0 to {}; \
             name it in `ignore` if it means no class",
            values[at],
            at % width.max(1),
            at / width.max(1),
            classes.saturating_sub(1)
        )),
    }
}

/// Writes an 8-bit palette PNG whose pixels are `values`, with the colours of [`colour`].
///
/// # Errors
/// In words, when the sizes do not fit.
pub(crate) fn encode_mask(values: &[u8], width: usize, height: usize) -> Result<Vec<u8>, String> {
    let top = usize::from(values.iter().copied().max().unwrap_or(0));
    let palette: Vec<u8> = (0..=top).flat_map(|i| colour(i as u8)).collect();
    encode_png(values, width, height, ColorType::Indexed, Some(palette))
}

/// Writes an 8-bit PNG.
///
/// # Errors
/// In words, when the sizes do not fit.
pub(crate) fn encode_png(
    bytes: &[u8],
    width: usize,
    height: usize,
    colours: ColorType,
    palette: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + 256);
    let side = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    let mut encoder = png::Encoder::new(&mut out, side(width)?, side(height)?);
    encoder.set_color(colours);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(bytes).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(out)
}

/// The colour people know for an index: PASCAL VOC's colour map, whose bits are spread over the three channels.
pub fn colour(index: u8) -> [u8; 3] {
    let mut rgb = [0; 3];
    for bit in 0..8 {
        rgb[bit % 3] |= ((index >> bit) & 1) << (7 - bit / 3);
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_palette() {
        let values = [0, 1, 2, 7, 7, 0];
        let png = encode_mask(&values, 3, 2).expect("fits");
        let mask = decode_mask(&png).expect("just written");
        assert_eq!((mask.width, mask.height, mask.palette), (3, 2, true));
        assert_eq!(mask.values, values);
    }

    #[test]
    fn packed_bits_are_unpacked() {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 3, 2);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Two);
        let mut writer = encoder.write_header().expect("header");
        writer.write_image_data(&[0b00_01_10_00, 0b11_00_01_00]).expect("pixels");
        writer.finish().expect("end");
        assert_eq!(decode_mask(&png).expect("valid").values, [0, 1, 2, 3, 0, 1]);
    }

    #[test]
    fn colours_are_refused() {
        let png = encode_png(&[0; 12], 2, 2, ColorType::Rgb, None).expect("fits");
        let error = decode_mask(&png).expect_err("colours are no indices");
        assert!(error.contains("RGB"), "{error}");
        assert!(decode_mask(b"\xff\xd8 a jpeg").is_err());
        assert!(decode_mask(&[]).is_err());
    }

    #[test]
    fn cut_masks_are_errors() {
        let png = encode_mask(&[3; 400], 20, 20).expect("fits");
        for end in 0..png.len() - 13 {
            assert!(decode_mask(&png[..end]).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn unknown_values_are_named() {
        assert_eq!(check_mask(&[0, 1, 255, 11], 2, 2, &[11]), Ok(()));
        let error = check_mask(&[0, 1, 0, 5], 2, 2, &[]).expect_err("5 is no class");
        assert!(error.contains("value 5 at column 1, row 1"), "{error}");
    }

    #[test]
    fn colour_map_of_voc() {
        assert_eq!(colour(0), [0, 0, 0]);
        assert_eq!(colour(1), [128, 0, 0]);
        assert_eq!(colour(15), [192, 128, 128]);
    }
}
