//! Numbers that judge predictions. One metric, one file.

pub mod bitmap;
pub mod davis;
pub mod depth;
pub mod iou;
pub mod knn;
pub mod precision;
pub mod product;
pub mod top;
