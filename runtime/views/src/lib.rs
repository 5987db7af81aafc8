//! Pictures to views: decoding, Pillow-exact operations, crops, counter-based random numbers. No torch.
//!
//! Everything that a picture goes through before it is a tensor is here, in integers wherever Pillow computes in
//! integers, so that numbers can be compared with those of the Python tools to the level.

pub mod affine;
pub mod auto_augment;
pub mod blur;
pub mod colour;
pub mod crop;
pub mod decode;
pub mod encode;
pub mod loader;
pub mod opencv;
mod params;
pub mod picture;
pub mod recipe;
pub mod resize;
pub mod rng;
pub mod sheet;
mod simd;
pub mod tone;
pub mod warp;

pub use crop::{CropBox, constrained_crop, random_resized_crop};
pub use decode::{DecodeError, Decoder, decode_index, decode_rgb, probe_size};
pub use encode::{EncodeError, encode_jpeg, encode_png_index, encode_png_rgb, voc_palette};
pub use picture::{IndexMask, Normaliser, Picture};
pub use recipe::{Augment, AutoAugment, Blur, Constraint, Crop, Jitter, Recipe, RecipeError, ViewKey, views};
pub use resize::{Filter, centre_crop, resize, resize_box, resize_crop, resize_index_nearest, resize_shorter};
pub use rng::Stream;
