//! Pictures to PNG bytes, for galleries and predicted masks.

use crate::picture::{IndexMask, Picture};

/// A PNG of an RGB picture. Writing to memory cannot fail; an empty picture gives no bytes.
pub fn encode_png_rgb(picture: &Picture) -> Vec<u8> {
    write(picture.width, picture.height, png::ColorType::Rgb, None, &picture.data)
}

/// A palette PNG whose pixels are the mask's indices, in the VOC colours.
pub fn encode_png_index(mask: &IndexMask) -> Vec<u8> {
    write(mask.width, mask.height, png::ColorType::Indexed, Some(voc_palette().concat()), &mask.data)
}

fn write(width: usize, height: usize, colour: png::ColorType, palette: Option<Vec<u8>>, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(data)?;
        writer.finish()
    });
    if written.is_err() {
        bytes.clear();
    }
    bytes
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
