//! Datasets as steps see them: verified files, decoded pictures, labels.

pub mod bad;
pub mod images;
pub mod labels;
pub mod pictures;
pub mod videos;

pub use bad::Bad;
pub use images::Images;
pub use pictures::Pictures;
pub use videos::Videos;
