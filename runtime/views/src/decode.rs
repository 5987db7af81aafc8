//! From the bytes of a file to a picture, as Pillow's `open().convert("RGB")` gives it: EXIF orientation is left alone.

use crate::picture::{IndexMask, Picture};

/// Pictures with more pixels are refused: a header is cheap to forge.
const MOST_PIXELS: usize = 1 << 28;

/// Why bytes are no picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A JPEG that libjpeg-turbo cannot read to its end.
    #[error("the JPEG is damaged or cut off: {0}")]
    Jpeg(String),
    /// Any other format.
    #[error("the picture cannot be decoded: {0}")]
    Other(String),
    /// A mask that is no index PNG.
    #[error("the mask cannot be read as indices: {0}")]
    Mask(String),
    /// Too large, or empty.
    #[error("a picture of {0} × {1} pixels is not accepted")]
    Size(usize, usize),
}

fn check(width: usize, height: usize) -> Result<(), DecodeError> {
    match width.checked_mul(height) {
        Some(pixels) if pixels > 0 && pixels <= MOST_PIXELS => Ok(()),
        _ => Err(DecodeError::Size(width, height)),
    }
}

/// Decodes JPEG (libjpeg-turbo, as Pillow), PNG, BMP, TIFF, WebP, PNM or GIF to RGB. Grey becomes three equal
/// channels, alpha is dropped.
///
/// # Errors
/// Damaged, cut off, of another format, or of a size that cannot be.
pub fn decode_rgb(bytes: &[u8]) -> Result<Picture, DecodeError> {
    if bytes.starts_with(&[0xff, 0xd8]) { jpeg(bytes) } else { other(bytes) }
}

fn jpeg(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let wrong = |error: turbojpeg::Error| DecodeError::Jpeg(error.to_string());
    let mut decompressor = turbojpeg::Decompressor::new().map_err(wrong)?;
    let header = decompressor.read_header(bytes).map_err(wrong)?;
    let (width, height) = (header.width, header.height);
    check(width, height)?;
    let inks = matches!(header.colorspace, turbojpeg::Colorspace::CMYK | turbojpeg::Colorspace::YCCK);
    let (format, channels) = if inks { (turbojpeg::PixelFormat::CMYK, 4) } else { (turbojpeg::PixelFormat::RGB, 3) };
    let mut data = vec![0; channels * width * height];
    let image = turbojpeg::Image { pixels: data.as_mut_slice(), width, pitch: channels * width, height, format };
    decompressor.decompress(bytes, image).map_err(wrong)?;
    if inks {
        // Adobe writes inks inverted, so that 255 is no ink; Pillow's conversion is (255 − K) less its share of C, M, Y.
        data = data
            .chunks_exact(4)
            .flat_map(|ink| {
                let paper = u32::from(ink[3]);
                [0, 1, 2].map(|c| {
                    let covered = (255 - u32::from(ink[c])) * paper + 128;
                    (paper - ((covered + (covered >> 8)) >> 8)) as u8
                })
            })
            .collect();
    }
    Ok(Picture { width, height, data })
}

fn other(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let wrong = |error: &dyn std::fmt::Display| DecodeError::Other(error.to_string());
    let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().map_err(|e| wrong(&e))?;
    let image = reader.decode().map_err(|e| wrong(&e))?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    check(width, height)?;
    Ok(Picture { width, height, data: image.into_rgb8().into_raw() })
}

/// Reads a grey or palette PNG of at most 8 bits as indices; the palette's colours do not matter.
///
/// # Errors
/// Damaged, or a picture with colours instead of indices.
pub fn decode_index(bytes: &[u8]) -> Result<IndexMask, DecodeError> {
    let wrong = |error: &dyn std::fmt::Display| DecodeError::Mask(error.to_string());
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| wrong(&e))?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let (colour, depth) = (info.color_type, info.bit_depth);
    check(width, height)?;
    if !matches!(colour, png::ColorType::Grayscale | png::ColorType::Indexed) || depth == png::BitDepth::Sixteen {
        return Err(DecodeError::Mask(format!(
            "it has {colour:?} pixels of {} bits; masks are grey or palette PNGs of at most 8 bits whose values are the indices",
            depth as u8
        )));
    }
    let size = reader.output_buffer_size().ok_or(DecodeError::Size(width, height))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(|e| wrong(&e))?;
    let bits = depth as usize;
    let mut data = Vec::with_capacity(width * height);
    for row in raw.chunks_exact(frame.line_size).take(height) {
        if bits == 8 {
            data.extend_from_slice(&row[..width]);
        } else {
            let mask = (1u16 << bits) as u8 - 1;
            data.extend((0..width).map(|x| row[x * bits / 8] >> (8 - bits - x * bits % 8) & mask));
        }
    }
    Ok(IndexMask { width, height, data })
}
