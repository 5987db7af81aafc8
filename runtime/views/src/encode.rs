//! Pictures and masks to the bytes of files, for galleries, predicted masks and generated datasets.

use crate::picture::{IndexMask, Picture};

/// Why a picture cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The PNG writer's word: an empty picture, or data of another length than its size asks.
    #[error("a picture of {width} × {height} pixels cannot be written as PNG: {reason}")]
    Png {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// The PNG writer's word.
        reason: String,
    },
    /// libjpeg-turbo's word.
    #[error("a picture of {width} × {height} pixels cannot be written as JPEG: {reason}")]
    Jpeg {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// libjpeg-turbo's word.
        reason: String,
    },
    /// An index without a colour; viewers and Pillow would call such a file damaged.
    #[error("index {index} of the mask has no colour: the palette has {colours}")]
    Palette {
        /// Largest index of the mask.
        index: u8,
        /// Colours in the palette.
        colours: usize,
    },
}

/// A PNG of an RGB picture.
///
/// # Errors
/// An empty picture, or data of another length than its size asks.
pub fn encode_png_rgb(picture: &Picture) -> Result<Vec<u8>, EncodeError> {
    write_png(picture.width, picture.height, png::ColorType::Rgb, None, &picture.data)
}

/// A PNG whose pixels are the mask's indices: with a palette in its colours (at most 256), without one in grey.
///
/// # Errors
/// An empty mask, data of another length than its size asks, or an index without a colour.
pub fn encode_png_index(mask: &IndexMask, palette: Option<&[[u8; 3]]>) -> Result<Vec<u8>, EncodeError> {
    let Some(palette) = palette else {
        return write_png(mask.width, mask.height, png::ColorType::Grayscale, None, &mask.data);
    };
    let palette = &palette[..palette.len().min(256)];
    match mask.data.iter().max() {
        Some(&index) if usize::from(index) >= palette.len() => {
            Err(EncodeError::Palette { index, colours: palette.len() })
        }
        _ => write_png(mask.width, mask.height, png::ColorType::Indexed, Some(palette.concat()), &mask.data),
    }
}

fn write_png(
    width: usize,
    height: usize,
    colour: png::ColorType,
    palette: Option<Vec<u8>>,
    data: &[u8],
) -> Result<Vec<u8>, EncodeError> {
    let wrong = |reason: &dyn std::fmt::Display| EncodeError::Png { width, height, reason: reason.to_string() };
    let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(wrong(&"too large"));
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, columns, rows);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header().map_err(|e| wrong(&e))?;
    writer.write_image_data(data).map_err(|e| wrong(&e))?;
    writer.finish().map_err(|e| wrong(&e))?;
    Ok(bytes)
}

/// A JPEG with colours at half resolution (4:2:0), as cameras and Pillow write it; `quality` from 1 to 100.
///
/// # Errors
/// An empty picture, a side above 65,535 pixels, data of another length than its size asks, or another quality.
pub fn encode_jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, EncodeError> {
    let (width, height) = (picture.width, picture.height);
    let wrong = |reason: String| EncodeError::Jpeg { width, height, reason };
    if width == 0 || height == 0 || picture.data.len() != 3 * width * height {
        return Err(wrong(format!("it has {} bytes", picture.data.len())));
    }
    if !(1..=100).contains(&quality) {
        return Err(wrong(format!("quality {quality} is not between 1 and 100")));
    }
    let image = turbojpeg::Image {
        pixels: picture.data.as_slice(),
        width,
        pitch: 3 * width,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, i32::from(quality), turbojpeg::Subsamp::Sub2x2)
        .map(|bytes| bytes.to_vec())
        .map_err(|error| wrong(error.to_string()))
}

/// The colours of PASCAL VOC's masks: the bits of the index spread over the channels, highest first.
pub fn voc_palette() -> [[u8; 3]; 256] {
    std::array::from_fn(|index| {
        let mut colour = [0u8; 3];
        for bit in 0..8 {
            for (channel, value) in colour.iter_mut().enumerate() {
                let from = 3 * bit + channel;
                if from < 8 && index >> from & 1 == 1 {
                    *value |= 128 >> bit;
                }
            }
        }
        colour
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{decode_index, decode_rgb};

    fn mask() -> IndexMask {
        IndexMask { width: 5, height: 3, data: (0..15).map(|i| if i == 7 { 255 } else { i }).collect() }
    }

    #[test]
    fn masks_keep_their_indices_with_any_palette() {
        for palette in [None, Some(&voc_palette()[..])] {
            let bytes = encode_png_index(&mask(), palette).unwrap();
            assert_eq!(decode_index(&bytes).unwrap(), mask());
        }
        let seen = decode_rgb(&encode_png_index(&mask(), Some(&voc_palette())).unwrap()).unwrap();
        assert_eq!([seen.at(1, 0), seen.at(0, 1), seen.at(2, 1)], [[128, 0, 0], [128, 0, 128], [224, 224, 192]]);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let few = encode_png_index(&mask(), Some(&voc_palette()[..21])).unwrap_err();
        assert_eq!(few.to_string(), "index 255 of the mask has no colour: the palette has 21");
        for (width, height, bytes) in [(0, 4, 0), (2, 2, 11), (2, 2, 13)] {
            let wrong = Picture { width, height, data: vec![0; bytes] };
            assert!(encode_png_rgb(&wrong).is_err() && encode_jpeg(&wrong, 90).is_err());
        }
        assert!(encode_jpeg(&Picture::filled(2, 2, [9; 3]), 0).is_err());
    }

    #[test]
    fn pictures_come_back() {
        let picture = Picture { width: 3, height: 2, data: (0..18).map(|i| i * 14).collect() };
        assert_eq!(decode_rgb(&encode_png_rgb(&picture).unwrap()).unwrap(), picture);
        let plain = Picture::filled(9, 7, [40, 90, 200]);
        let again = decode_rgb(&encode_jpeg(&plain, 95).unwrap()).unwrap();
        assert_eq!((again.width, again.height), (9, 7));
        assert!(again.data.iter().zip(&plain.data).all(|(a, b)| a.abs_diff(*b) <= 3));
    }
}
