//! Networks: short functions from path to module, with the parameter names of torchvision.

pub mod contrastive;
pub mod cost;
pub mod dense;
pub mod encoder;
pub mod fcn;
pub mod foreign;
pub mod head;
pub mod layers;
pub mod resnet;
pub mod segmenter;
pub mod store;
pub mod supervised;
pub mod torchscript;

pub use encoder::{Encoder, Network};
pub use head::Head;
pub use layers::{BatchNorm, Conv, Linear, Mode};
pub use resnet::{Block, Resnet};
pub use segmenter::Segmenter;
pub use store::Store;
pub use torchscript::Torchscript;
