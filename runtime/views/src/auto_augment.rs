//! AutoAugment's policy for ImageNet (Cubuk et al., "AutoAugment: learning augmentation strategies from data", CVPR 2019)
//! as the study applies it.
//!
//! Two operations differ from torchvision's of the same name: `Solarize` counts its threshold down from 256, and the
//! shears take the tangent of their value, about the centre.

use crate::picture::Picture;
use crate::rng::Stream;
use crate::{affine, colour, tone};

/// An operation before its magnitude is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are those of the publication")]
pub enum Name {
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

/// An operation with its magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Along x, radians.
    ShearX(f64),
    /// Along y, radians.
    ShearY(f64),
    /// To the right, pixels.
    TranslateX(i64),
    /// Down, pixels.
    TranslateY(i64),
    /// Counter-clockwise, degrees.
    Rotate(f64),
    /// Factor; 0 is black.
    Brightness(f64),
    /// Factor; 0 is grey.
    Color(f64),
    /// Factor; 0 is the mean grey.
    Contrast(f64),
    /// Factor; 0 is smoothed.
    Sharpness(f64),
    /// Bits that stay.
    Posterize(u32),
    /// Level from which on is inverted.
    Solarize(f64),
    /// See [`tone::auto_contrast`].
    AutoContrast,
    /// See [`tone::equalize`].
    Equalize,
    /// See [`tone::invert`].
    Invert,
}

/// One operation of a row of the policy: name, probability, magnitude from 0 to 9 (0 where it takes none).
type Entry = (Name, f64, u32);

/// The policy's 25 rows; rows 20 to 24 repeat earlier ones.
#[rustfmt::skip]
const POLICY: [[Entry; 2]; 25] = {
    use Name::*;
    [
        [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
        [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
        [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
        [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
        [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
        [(Equalize, 0.4, 0), (Rotate, 0.8, 8)],
        [(Solarize, 0.6, 3), (Equalize, 0.6, 0)],
        [(Posterize, 0.8, 5), (Equalize, 1.0, 0)],
        [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
        [(Equalize, 0.6, 0), (Posterize, 0.4, 6)],
        [(Rotate, 0.8, 8), (Color, 0.4, 0)],
        [(Rotate, 0.4, 9), (Equalize, 0.6, 0)],
        [(Equalize, 0.0, 0), (Equalize, 0.8, 0)],
        [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
        [(Color, 0.6, 4), (Contrast, 1.0, 8)],
        [(Rotate, 0.8, 8), (Color, 1.0, 2)],
        [(Color, 0.8, 8), (Solarize, 0.8, 7)],
        [(Sharpness, 0.4, 7), (Invert, 0.6, 0)],
        [(ShearX, 0.6, 5), (Equalize, 1.0, 0)],
        [(Color, 0.4, 0), (Equalize, 0.6, 0)],
        [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
        [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
        [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
        [(Color, 0.6, 4), (Contrast, 1.0, 8)],
        [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
    ]
};

impl Name {
    /// The operation at a magnitude from 0 to 9 for a view of that size; `negative` turns those that have a direction.
    pub fn at(self, magnitude: u32, negative: bool, (width, height): (usize, usize)) -> Operation {
        let of = |most: f64| most * f64::from(magnitude) / 9.0;
        let signed = |value: f64| if negative { -value } else { value };
        // Cut off towards zero.
        let pixels = |side: usize| signed(of(150.0 / 331.0) * side as f64) as i64;
        match self {
            Self::ShearX => Operation::ShearX(signed(of(0.3))),
            Self::ShearY => Operation::ShearY(signed(of(0.3))),
            Self::TranslateX => Operation::TranslateX(pixels(width)),
            Self::TranslateY => Operation::TranslateY(pixels(height)),
            Self::Rotate => Operation::Rotate(signed(of(30.0))),
            Self::Brightness => Operation::Brightness(1.0 + signed(of(0.9))),
            Self::Color => Operation::Color(1.0 + signed(of(0.9))),
            Self::Contrast => Operation::Contrast(1.0 + signed(of(0.9))),
            Self::Sharpness => Operation::Sharpness(1.0 + signed(of(0.9))),
            Self::Posterize => Operation::Posterize(8 - magnitude.min(9) / 2),
            Self::Solarize => Operation::Solarize(256.0 - of(256.0)),
            Self::AutoContrast => Operation::AutoContrast,
            Self::Equalize => Operation::Equalize,
            Self::Invert => Operation::Invert,
        }
    }
}

impl Operation {
    /// Applies it.
    pub fn apply(self, view: &mut Picture) {
        match self {
            Self::ShearX(angle) => *view = affine::shear_x(view, angle),
            Self::ShearY(angle) => *view = affine::shear_y(view, angle),
            Self::TranslateX(right) => *view = affine::translate(view, right, 0),
            Self::TranslateY(down) => *view = affine::translate(view, 0, down),
            Self::Rotate(degrees) => *view = affine::rotate(view, degrees),
            Self::Brightness(factor) => colour::brightness(view, factor),
            Self::Color(factor) => colour::saturation(view, factor),
            Self::Contrast(factor) => colour::contrast(view, factor),
            Self::Sharpness(factor) => colour::sharpness(view, factor),
            Self::Posterize(bits) => tone::posterize(view, bits),
            Self::Solarize(threshold) => tone::solarize(view, threshold),
            Self::AutoContrast => tone::auto_contrast(view),
            Self::Equalize => tone::equalize(view),
            Self::Invert => tone::invert(view),
        }
    }
}

/// What is drawn for a view of that size: a row of the policy, and of its two operations those that are carried out.
///
/// The same count of numbers is drawn whatever comes out.
pub fn draw(stream: &mut Stream, size: (usize, usize)) -> [Option<Operation>; 2] {
    let row = POLICY[stream.below(POLICY.len() as u64) as usize];
    let chances = [stream.unit(), stream.unit()];
    let negative = [stream.bernoulli(0.5), stream.bernoulli(0.5)];
    std::array::from_fn(|n| {
        let (name, probability, magnitude) = row[n];
        (chances[n] <= probability).then(|| name.at(magnitude, negative[n], size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn word(operation: Operation) -> &'static str {
        match operation {
            Operation::ShearX(_) => "ShearX",
            Operation::Rotate(_) => "Rotate",
            Operation::Color(_) => "Color",
            Operation::Contrast(_) => "Contrast",
            Operation::Sharpness(_) => "Sharpness",
            Operation::Posterize(_) => "Posterize",
            Operation::Solarize(_) => "Solarize",
            Operation::AutoContrast => "AutoContrast",
            Operation::Equalize => "Equalize",
            Operation::Invert => "Invert",
            other => panic!("{other:?} is not in the policy"),
        }
    }

    /// Applied operations of a view, from an independent re-implementation, within four standard deviations.
    #[test]
    fn operations_are_as_frequent_as_published() {
        let expected = [
            ("Equalize", 0.448),
            ("Color", 0.152),
            ("Rotate", 0.144),
            ("Solarize", 0.144),
            ("Posterize", 0.112),
            ("Contrast", 0.080),
            ("Invert", 0.072),
            ("AutoContrast", 0.048),
            ("ShearX", 0.024),
            ("Sharpness", 0.016),
        ];
        let n = 200_000;
        let (mut counts, mut squares) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, f64>::new());
        let (mut none, mut negative, mut rotations) = (0.0, 0, 0);
        for picture in 0..n {
            let mut stream = Stream::new(11, "test", "auto_augment", 0, picture, 0);
            let drawn = draw(&mut stream, (160, 160));
            let mut here = BTreeMap::<&str, f64>::new();
            for operation in drawn.into_iter().flatten() {
                *here.entry(word(operation)).or_default() += 1.0;
                if let Operation::Rotate(degrees) = operation {
                    rotations += 1;
                    negative += usize::from(degrees < 0.0);
                }
            }
            none += if here.is_empty() { 1.0 } else { 0.0 };
            for (name, count) in here {
                *counts.entry(name).or_default() += count;
                *squares.entry(name).or_default() += count * count;
            }
        }
        let n = n as f64;
        assert_eq!(counts.len(), expected.len());
        for (name, wanted) in expected {
            let mean = counts[name] / n;
            let deviation = ((squares[name] / n - mean * mean) / n).sqrt();
            assert!((mean - wanted).abs() < 4.0 * deviation, "{name}: {mean}, not {wanted}");
        }
        assert!((none / n - 0.1504).abs() < 4.0 * (0.1504f64 * 0.8496 / n).sqrt(), "{none} of {n}");
        let (half, fair) = (rotations as f64 / 2.0, (rotations as f64).sqrt() / 2.0);
        assert!((negative as f64 - half).abs() < 4.0 * fair, "{negative} of {rotations}");
    }

    #[test]
    fn magnitudes_are_the_published_ones() {
        let near = |a: f64, b: f64| (a - b).abs() < 5e-4;
        let size = (160, 96);
        for (name, magnitude, value) in [
            (Name::Rotate, 3, 10.0),
            (Name::Rotate, 8, 26.667),
            (Name::Rotate, 9, 30.0),
            (Name::ShearX, 5, 0.16667),
            (Name::ShearY, 5, 0.16667),
            (Name::Color, 0, 1.0),
            (Name::Color, 2, 1.2),
            (Name::Color, 4, 1.4),
            (Name::Color, 8, 1.8),
            (Name::Contrast, 8, 1.8),
            (Name::Sharpness, 7, 1.7),
            (Name::Brightness, 3, 1.3),
            (Name::Solarize, 3, 170.667),
            (Name::Solarize, 4, 142.222),
            (Name::Solarize, 5, 113.778),
            (Name::Solarize, 7, 56.889),
            (Name::Solarize, 8, 28.444),
        ] {
            let (Operation::Rotate(found)
            | Operation::ShearX(found)
            | Operation::ShearY(found)
            | Operation::Color(found)
            | Operation::Contrast(found)
            | Operation::Sharpness(found)
            | Operation::Brightness(found)
            | Operation::Solarize(found)) = name.at(magnitude, false, size)
            else {
                panic!("{name:?}")
            };
            assert!(near(found, value), "{name:?} at {magnitude}: {found}");
        }
        let bits = (0..10).map(|m| Name::Posterize.at(m, true, size));
        assert!(bits.eq([8, 8, 7, 7, 6, 6, 5, 5, 4, 4].map(Operation::Posterize)));
        // 150/331·160 = 72.5 and 150/331·96·4/9 = 19.3, cut off on either side of zero.
        assert_eq!(Name::TranslateX.at(9, false, size), Operation::TranslateX(72));
        assert_eq!(Name::TranslateX.at(9, true, size), Operation::TranslateX(-72));
        assert_eq!(Name::TranslateY.at(4, true, size), Operation::TranslateY(-19));
        assert_eq!(Name::Color.at(8, true, size), Operation::Color(1.0 - 0.8));
        assert_eq!(Name::Solarize.at(8, true, size), Name::Solarize.at(8, false, size));
    }
}
