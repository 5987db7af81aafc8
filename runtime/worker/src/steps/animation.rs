//! Pictures in turn as one animated GIF.

use gif::{Encoder, Frame, Repeat};
use harness_views::Picture;

use crate::error::Result;

/// How coarsely colours are chosen, 1 (slow) to 30.
const SPEED: i32 = 20;

/// Pictures of one size as a GIF that repeats for ever, each shown for `delay` hundredths of a second.
///
/// # Errors
/// There is none, or one has another size or sides beyond 65,535.
pub fn gif(pictures: &[Picture], delay: u16) -> Result<Vec<u8>> {
    let first = pictures.first().ok_or("an animation needs a picture")?;
    let (width, height) = (first.width, first.height);
    let wrong = |error: &dyn std::fmt::Display| format!("the animation of {width} x {height} pixels: {error}");
    let side = |side: usize| u16::try_from(side).map_err(|error| wrong(&error));
    let mut encoder = Encoder::new(Vec::new(), side(width)?, side(height)?, &[]).map_err(|error| wrong(&error))?;
    encoder.set_repeat(Repeat::Infinite).map_err(|error| wrong(&error))?;
    for picture in pictures {
        if (picture.width, picture.height) != (width, height) {
            return Err(wrong(&format!("a picture of {} x {}", picture.width, picture.height)).into());
        }
        let mut frame = Frame::from_rgb_speed(side(width)?, side(height)?, &picture.data, SPEED);
        frame.delay = delay;
        encoder.write_frame(&frame).map_err(|error| wrong(&error))?;
    }
    Ok(encoder.into_inner().map_err(|error| wrong(&error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_a_frame() {
        let pictures = [[200, 10, 10], [10, 200, 10], [10, 10, 200]].map(|colour| Picture::filled(9, 5, colour));
        let bytes = gif(&pictures, 10).unwrap();
        assert_eq!(bytes, gif(&pictures, 10).unwrap());
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(bytes.as_slice()).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (9, 5));
        for picture in &pictures {
            let frame = decoder.read_next_frame().unwrap().unwrap();
            assert_eq!(frame.delay, 10);
            let near = |a: &u8, b: &u8| a.abs_diff(*b) <= 4;
            assert!(
                frame
                    .buffer
                    .iter()
                    .zip([picture.at(0, 0)[0], picture.at(0, 0)[1], picture.at(0, 0)[2], 255].iter())
                    .all(|(a, b)| near(a, b))
            );
        }
        assert!(decoder.read_next_frame().unwrap().is_none());
        assert!(gif(&[], 10).is_err());
        assert!(gif(&[Picture::filled(2, 2, [0; 3]), Picture::filled(3, 2, [0; 3])], 10).is_err());
    }
}
