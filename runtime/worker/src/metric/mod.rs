//! Numbers that judge predictions. One metric, one file; no torch in here.

pub mod bitmap;
pub mod davis;
pub mod iou;
