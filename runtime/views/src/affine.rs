//! Rotation, shearing and translation of a view on its own canvas as Pillow's `transform` does them: nearest neighbour,
//! black where nothing comes from.

use crate::picture::Picture;

/// Pillow's fixed point for places: 16 bits behind the point.
const BITS: u32 = 16;

/// Output (x, y) takes input (a·x + b·y + c, d·x + e·y + f).
type Matrix = [f64; 6];

/// Half up, as Pillow's `FIX`.
fn fixed(value: f64) -> i64 {
    (value * f64::from(1u32 << BITS) + 0.5).floor() as i64
}

/// Takes every pixel from the place that the matrix names. Places are summed along the rows in fixed point, as Pillow
/// does wherever all of them fit into 16 bits before the point: pictures of up to some 20,000 pixels a side.
fn transform(picture: &Picture, [a, b, c, d, e, f]: Matrix) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let mut out = Picture::filled(w, h, [0; 3]);
    let (along, down) = ((fixed(a), fixed(d)), (fixed(b), fixed(e)));
    let start = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    for (y, row) in (0i64..).zip(out.data.chunks_exact_mut(3 * w.max(1))) {
        let (mut x_in, mut y_in) = (start.0 + y * down.0, start.1 + y * down.1);
        for pixel in row.chunks_exact_mut(3) {
            // A negative place is a huge one when read without its sign.
            let (x, y) = ((x_in >> BITS) as usize, (y_in >> BITS) as usize);
            if x < w && y < h {
                let at = 3 * (y * w + x);
                pixel.copy_from_slice(&picture.data[at..at + 3]);
            }
            x_in += along.0;
            y_in += along.1;
        }
    }
    out
}

/// Rotates counter-clockwise about the centre (`Image.rotate`).
pub fn rotate(picture: &Picture, degrees: f64) -> Picture {
    let turn = degrees.rem_euclid(360.0);
    if turn == 0.0 || picture.data.is_empty() {
        return picture.clone();
    }
    // Not the platform's functions: places are the same on every machine. Pillow rounds to 15 digits.
    let (sin, cos) = libm::sincos(-turn.to_radians());
    let [sin, cos] = [sin, cos].map(|x| (x * 1e15).round() / 1e15);
    let (x, y) = (picture.width as f64 / 2.0, picture.height as f64 / 2.0);
    transform(picture, [cos, sin, -cos * x - sin * y + x, -sin, cos, sin * x - cos * y + y])
}

/// Shears along x about the centre: a row at distance d below it moves by −tan(`angle`)·d. Radians.
pub fn shear_x(picture: &Picture, angle: f64) -> Picture {
    let slope = libm::tan(angle);
    transform(picture, [1.0, slope, -slope * (picture.height as f64 * 0.5), 0.0, 1.0, 0.0])
}

/// Shears along y about the centre: a column at distance d right of it moves by −tan(`angle`)·d. Radians.
pub fn shear_y(picture: &Picture, angle: f64) -> Picture {
    let slope = libm::tan(angle);
    transform(picture, [1.0, 0.0, 0.0, slope, 1.0, -slope * (picture.width as f64 * 0.5)])
}

/// Moves by whole pixels, right and down.
pub fn translate(picture: &Picture, right: i64, down: i64) -> Picture {
    transform(picture, [1.0, 0.0, -right as f64, 0.0, 1.0, -down as f64])
}
