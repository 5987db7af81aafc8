//! From the bytes of a file to a picture, as Pillow's `open().convert("RGB")` gives it: EXIF orientation is left alone,
//! alpha is dropped, not blended.
//!
//! JPEG goes through libjpeg-turbo, which Pillow uses too, so the bytes are equal. One departure is meant: a
//! 16-bit grey picture gives its high bytes, where Pillow cuts every value above 255 down to white.

use std::io::Cursor;

use crate::picture::{IndexMask, Picture};

/// Pictures with more pixels are refused, because a header is cheap to forge. It is the number at which Pillow speaks
/// of a decompression bomb.
pub const MOST_PIXELS: usize = 178_956_970;

/// Why bytes are no picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A JPEG that libjpeg-turbo cannot read to its end.
    #[error("the JPEG is damaged or cut off: {0}")]
    Jpeg(String),
    /// Any other format.
    #[error("the picture cannot be decoded: {0}; JPEG, PNG, BMP, GIF, PNM, TIFF and WebP are read")]
    Other(String),
    /// A mask that is no index PNG.
    #[error("the mask cannot be read as indices: {0}")]
    Mask(String),
    /// Too large, or empty.
    #[error("a picture of {0} × {1} pixels is not accepted; it must have between 1 and {MOST_PIXELS} pixels")]
    Size(usize, usize),
}

fn other(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Other(error.to_string())
}

fn check(width: usize, height: usize) -> Result<(), DecodeError> {
    match width.checked_mul(height) {
        Some(pixels) if pixels > 0 && pixels <= MOST_PIXELS => Ok(()),
        _ => Err(DecodeError::Size(width, height)),
    }
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Decodes one file after another, with the memory of the one before.
#[derive(Default)]
pub struct Decoder {
    jpeg: Option<turbojpeg::Decompressor>,
}

impl Decoder {
    /// [`decode_rgb`] into a picture whose memory is used again. After an error there is nothing of use in it.
    ///
    /// # Errors
    /// Damaged, cut off, of another format, or of a size that cannot be.
    pub fn decode_rgb(&mut self, bytes: &[u8], picture: &mut Picture) -> Result<(), DecodeError> {
        if is_jpeg(bytes) {
            let decompressor = match &mut self.jpeg {
                Some(decompressor) => decompressor,
                none => none.insert(turbojpeg::Decompressor::new().map_err(damaged)?),
            };
            return decode_jpeg(decompressor, bytes, picture);
        }
        *picture = if is_png(bytes) { decode_png(bytes)? } else { decode_other(bytes)? };
        Ok(())
    }
}

/// Decodes JPEG, PNG, BMP, GIF (first frame), PNM, TIFF or WebP to RGB. Grey becomes three equal channels, of 16 bits
/// the high 8 are kept.
///
/// # Errors
/// Damaged, cut off, of another format, or of a size that cannot be.
pub fn decode_rgb(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let mut picture = Picture { width: 0, height: 0, data: Vec::new() };
    Decoder::default().decode_rgb(bytes, &mut picture)?;
    Ok(picture)
}

/// Width and height, from the header alone: the rest may still be damaged.
///
/// # Errors
/// An unreadable header, another format, or a size that cannot be.
pub fn probe_size(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let (width, height) = if is_jpeg(bytes) {
        let mut decompressor = turbojpeg::Decompressor::new().map_err(damaged)?;
        let (header, _) = jpeg_header(&mut decompressor, bytes)?;
        (header.width, header.height)
    } else if is_png(bytes) {
        let reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(other)?;
        (reader.info().width as usize, reader.info().height as usize)
    } else {
        let reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(other)?;
        let (width, height) = reader.into_dimensions().map_err(other)?;
        (width as usize, height as usize)
    };
    check(width, height)?;
    Ok((width, height))
}

fn damaged(error: turbojpeg::Error) -> DecodeError {
    match error {
        turbojpeg::Error::TurboJpegError(text) => DecodeError::Jpeg(text),
        error => DecodeError::Jpeg(error.to_string()),
    }
}

/// Warnings of libjpeg-turbo that say nothing about the pixels; cameras and editors cause them in sound pictures.
const HARMLESS: [&str; 2] = ["extraneous bytes before marker", "unknown JFIF revision"];

fn harmless(error: &turbojpeg::Error) -> bool {
    matches!(error, turbojpeg::Error::TurboJpegError(text) if HARMLESS.iter().any(|word| text.contains(word)))
}

/// The same JPEG without what causes harmless warnings in front of its pixels: the crate's call for the header fails
/// on any warning, so the file is read a second time, tidied. Segments are copied one by one up to the first scan.
fn tidied(bytes: &[u8]) -> Vec<u8> {
    let mut tidy = vec![0xff, 0xd8];
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)) {
        rest = &rest[at..];
        // Markers from start of scan on are followed by pixels; the rest is kept as it is.
        let [_, marker, high, low, ..] = *rest else { break };
        let length = 2 + usize::from(u16::from_be_bytes([high, low]));
        if matches!(marker, 0xd0..=0xda) || length > rest.len() {
            break;
        }
        let start = tidy.len();
        tidy.extend_from_slice(&rest[..length]);
        if marker == 0xe0 && tidy[start + 4..].starts_with(b"JFIF\0") && length > 9 {
            // The revision that libjpeg knows; newer ones differ in thumbnails only.
            tidy[start + 9] = 1;
        }
        rest = &rest[length..];
    }
    tidy.extend_from_slice(rest);
    tidy
}

/// The header, and the file if it had to be tidied.
fn jpeg_header(
    decompressor: &mut turbojpeg::Decompressor,
    bytes: &[u8],
) -> Result<(turbojpeg::DecompressHeader, Option<Vec<u8>>), DecodeError> {
    match decompressor.read_header(bytes) {
        Ok(header) => Ok((header, None)),
        Err(error) if harmless(&error) => {
            let tidy = tidied(bytes);
            Ok((decompressor.read_header(&tidy).map_err(damaged)?, Some(tidy)))
        }
        Err(error) => Err(damaged(error)),
    }
}

/// Where a marker is met last; compressed pixels never contain one.
fn last(bytes: &[u8], marker: u8) -> Option<usize> {
    bytes.windows(2).rposition(|pair| pair == [0xff, marker])
}

fn decode_jpeg(
    decompressor: &mut turbojpeg::Decompressor,
    bytes: &[u8],
    picture: &mut Picture,
) -> Result<(), DecodeError> {
    let (header, tidy) = jpeg_header(decompressor, bytes)?;
    let bytes = tidy.as_deref().unwrap_or(bytes);
    let (width, height) = (header.width, header.height);
    check(width, height)?;
    let inks = matches!(header.colorspace, turbojpeg::Colorspace::CMYK | turbojpeg::Colorspace::YCCK);
    let (format, channels) = if inks { (turbojpeg::PixelFormat::CMYK, 4) } else { (turbojpeg::PixelFormat::RGB, 3) };
    (picture.width, picture.height) = (width, height);
    picture.data.resize(channels * width * height, 0);
    let pixels = picture.data.as_mut_slice();
    let image = turbojpeg::Image { pixels, width, pitch: channels * width, height, format };
    match decompressor.decompress(bytes, image) {
        Ok(()) => {}
        // The call fails on warnings too, after it has filled the picture. Only the first warning is told, so a later
        // one, that the file is cut off, is looked for by hand: the end marker must follow the last scan.
        Err(error) if harmless(&error) && last(bytes, 0xd9) > last(bytes, 0xda) => {}
        Err(error) => return Err(damaged(error)),
    }
    if inks {
        // Adobe writes inks inverted, so that 255 is no ink; Pillow takes every CMYK JPEG so. Its conversion is
        // (255 − K) less its share of C, M, Y.
        picture.data = picture
            .data
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
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    // Palettes and 1, 2, 4 bits become 8-bit channels, 16 bits lose their low byte.
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(other)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check(width, height)?;
    let size = reader.output_buffer_size().ok_or(DecodeError::Size(width, height))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(other)?;
    // Reads on to the end marker, so that a file cut off behind its last pixel is noticed too.
    reader.finish().map_err(other)?;
    raw.truncate(frame.buffer_size());
    let data = match frame.color_type {
        png::ColorType::Rgb => raw,
        png::ColorType::Rgba => raw.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        png::ColorType::Grayscale => raw.iter().flat_map(|&grey| [grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => raw.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return Err(other("the palette is missing")),
    };
    Ok(Picture { width, height, data })
}

fn decode_other(bytes: &[u8]) -> Result<Picture, DecodeError> {
    use image::ImageDecoder;
    let reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(other)?;
    let decoder = reader.into_decoder().map_err(other)?;
    let (width, height) = decoder.dimensions();
    check(width as usize, height as usize)?;
    let image = image::DynamicImage::from_decoder(decoder).map_err(other)?;
    // Of 16 bits the high 8 are kept; the crate's conversion would round.
    let high = |values: Vec<u16>| values.into_iter().map(|value| (value >> 8) as u8).collect();
    let data = match image {
        image::DynamicImage::ImageRgb16(deep) => high(deep.into_raw()),
        image::DynamicImage::ImageRgba16(_) => high(image.into_rgb16().into_raw()),
        image::DynamicImage::ImageLuma16(_) | image::DynamicImage::ImageLumaA16(_) => {
            high(image.into_luma16().into_raw().into_iter().flat_map(|grey| [grey; 3]).collect())
        }
        image => image.into_rgb8().into_raw(),
    };
    Ok(Picture { width: width as usize, height: height as usize, data })
}

/// Reads a grey or palette PNG of at most 8 bits as indices; the palette's colours do not matter.
///
/// # Errors
/// Damaged, of a size that cannot be, or a picture with colours instead of indices.
pub fn decode_index(bytes: &[u8]) -> Result<IndexMask, DecodeError> {
    let wrong = |error: &dyn std::fmt::Display| DecodeError::Mask(error.to_string());
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| wrong(&e))?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let (colour, depth) = (info.color_type, info.bit_depth);
    check(width, height)?;
    if !matches!(colour, png::ColorType::Grayscale | png::ColorType::Indexed) || depth == png::BitDepth::Sixteen {
        return Err(DecodeError::Mask(format!(
            "it is an {colour:?} PNG of {} bits a channel; a mask is a grey or palette PNG of at most 8 bits whose \
             values are the indices, so write it as such, without its colours",
            depth as u8
        )));
    }
    let size = reader.output_buffer_size().ok_or(DecodeError::Size(width, height))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(|e| wrong(&e))?;
    reader.finish().map_err(|e| wrong(&e))?;
    let bits = depth as usize;
    if bits == 8 {
        // A byte a pixel and no gaps: what was decoded is the mask.
        raw.truncate(width * height);
        return Ok(IndexMask { width, height, data: raw });
    }
    let low = ((1u16 << bits) - 1) as u8;
    let mut data = Vec::with_capacity(width * height);
    for row in raw.chunks_exact(frame.line_size).take(height) {
        // Several pixels a byte, the leftmost in the high bits.
        data.extend((0..width).map(|x| row[x * bits / 8] >> (8 - bits - x * bits % 8) & low));
    }
    Ok(IndexMask { width, height, data })
}
