//! Rotation and scaling about the centre in one warp, as segmentation training uses it (OpenCV's `warpAffine`).

use crate::picture::{IndexMask, Picture};

/// Output pixel → input place, for a rotation by `degrees` (counter-clockwise) and a scaling about (w/2, h/2).
fn inverse(width: usize, height: usize, degrees: f64, scale: f64) -> impl Fn(usize, usize) -> (f64, f64) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (cx, cy) = (width as f64 / 2.0, height as f64 / 2.0);
    move |x, y| {
        let (dx, dy) = ((x as f64 - cx) / scale, (y as f64 - cy) / scale);
        (cos * dx - sin * dy + cx, sin * dx + cos * dy + cy)
    }
}

/// Weights of the four taps around a place with fraction `t`: cubic convolution with a = −0.75 (OpenCV's).
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let (a, b, c) = (far(t + 1.0), near(t), near(1.0 - t));
    [a, b, c, 1.0 - a - b - c]
}

/// Warps a picture with cubic interpolation; what comes from outside is black.
pub fn rotate_scale(picture: &Picture, degrees: f64, scale: f64) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let place = inverse(w, h, degrees, scale);
    let mut data = vec![0; picture.data.len()];
    for y in 0..h {
        for x in 0..w {
            let (sx, sy) = place(x, y);
            let (fx, fy) = (sx.floor(), sy.floor());
            let (wx, wy) = (cubic(sx - fx), cubic(sy - fy));
            let mut sums = [0.0; 3];
            for (j, wy) in wy.iter().enumerate() {
                for (i, wx) in wx.iter().enumerate() {
                    let (px, py) = (fx as i64 + i as i64 - 1, fy as i64 + j as i64 - 1);
                    if px >= 0 && py >= 0 && (px as usize) < w && (py as usize) < h {
                        let pixel = picture.at(px as usize, py as usize);
                        (0..3).for_each(|c| sums[c] += wx * wy * f64::from(pixel[c]));
                    }
                }
            }
            let at = 3 * (y * w + x);
            (0..3).for_each(|c| data[at + c] = sums[c].round() as u8);
        }
    }
    Picture { width: w, height: h, data }
}

/// The same warp for a mask, nearest neighbour; what comes from outside is `border`.
pub fn rotate_scale_index(mask: &IndexMask, degrees: f64, scale: f64, border: u8) -> IndexMask {
    let (w, h) = (mask.width, mask.height);
    let place = inverse(w, h, degrees, scale);
    let mut data = Vec::with_capacity(mask.data.len());
    for y in 0..h {
        for x in 0..w {
            let (sx, sy) = place(x, y);
            let (px, py) = (sx.round(), sy.round());
            let inside = px >= 0.0 && py >= 0.0 && px < w as f64 && py < h as f64;
            data.push(if inside { mask.data[py as usize * w + px as usize] } else { border });
        }
    }
    IndexMask { width: w, height: h, data }
}
