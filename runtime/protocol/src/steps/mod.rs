//! One file per kind of step: what it takes and gives.

pub mod cifar;
pub mod cityscapes;
pub mod cluster_segment;
pub mod command;
pub mod concat;
pub mod davis;
pub mod depth;
pub mod embed;
pub mod encoder;
pub mod filter;
pub mod holdout;
pub mod image_folder;
pub mod knn;
pub mod linear_probe;
pub mod linear_svm;
pub mod long_tail;
pub mod mask_folder;
pub mod mask_labels;
pub mod nyud;
pub mod pretrain;
pub mod propagate;
pub mod retrieve;
pub mod scenes;
pub mod score_video;
pub mod segment;
pub mod segmentation_pairs;
pub mod subset;
pub mod voc_classification;
pub mod voc_segmentation;

pub use cifar::Cifar;
pub use cityscapes::Cityscapes;
pub use cluster_segment::{ClusterRegions, ClusterSegment, SaliencyMasks};
pub use command::{Command, Declared};
pub use concat::Concat;
pub use davis::{Davis, Year};
pub use depth::Depth;
pub use embed::{Embed, Layer, Vectors};
pub use encoder::{Copy, Encoder, Histogram, Pixels, Random, Recalibrate, Source};
pub use filter::Filter;
pub use holdout::Holdout;
pub use image_folder::{ImageFolder, Labels, Rule};
pub use knn::Knn;
pub use linear_probe::{AugmentedFeatures, CachedFeatures, LinearProbe, ProbeFeatures, ProbeProfile};
pub use linear_svm::{Absent, LinearSvm, LowShot, SvmProfile};
pub use long_tail::LongTail;
pub use mask_folder::MaskFolder;
pub use mask_labels::MaskLabels;
pub use nyud::Nyud;
pub use pretrain::{BatchNorm, Checkpoints, Contrast, KnnMonitor, Moco, Monitor, Pretrain, Supervised};
pub use propagate::{Propagate, PropagateLayer, PropagateProfile};
pub use retrieve::{KmeansRegions, Regions, Retrieve, SaliencyRegions};
pub use scenes::{Domain, Scenes};
pub use score_video::{ReadMasks, ScoreVideo};
pub use segment::{
    Deeplab, Fcn, Preset, Profile, ScaledCrop, Segment, SegmentAugment, SegmentHead, Select, Warp, Zoom,
};
pub use segmentation_pairs::SegmentationPairs;
pub use subset::{Draw, Subset};
pub use voc_classification::{Missing, VocClassification, VocSplit};
pub use voc_segmentation::VocSegmentation;

use crate::kind::KindInfo;

/// Every kind of step, sorted by name.
pub const ALL: &[KindInfo] = &[
    KindInfo::of::<Cifar>(),
    KindInfo::of::<Cityscapes>(),
    KindInfo::of::<ClusterSegment>(),
    KindInfo::of::<Command>(),
    KindInfo::of::<Concat>(),
    KindInfo::of::<Davis>(),
    KindInfo::of::<Depth>(),
    KindInfo::of::<Embed>(),
    KindInfo::of::<Encoder>(),
    KindInfo::of::<Filter>(),
    KindInfo::of::<Holdout>(),
    KindInfo::of::<ImageFolder>(),
    KindInfo::of::<Knn>(),
    KindInfo::of::<LinearProbe>(),
    KindInfo::of::<LinearSvm>(),
    KindInfo::of::<LongTail>(),
    KindInfo::of::<MaskFolder>(),
    KindInfo::of::<MaskLabels>(),
    KindInfo::of::<Nyud>(),
    KindInfo::of::<Pretrain>(),
    KindInfo::of::<Propagate>(),
    KindInfo::of::<Retrieve>(),
    KindInfo::of::<Scenes>(),
    KindInfo::of::<ScoreVideo>(),
    KindInfo::of::<Segment>(),
    KindInfo::of::<SegmentationPairs>(),
    KindInfo::of::<Subset>(),
    KindInfo::of::<VocClassification>(),
    KindInfo::of::<VocSegmentation>(),
];

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static KindInfo> {
    ALL.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_sorted_and_every_file_is_listed() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steps");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let stem = name.trim_end_matches(".rs");
            assert!(stem == "mod" || kind(stem).is_some(), "{name} is not in the list of kinds");
        }
    }

    #[test]
    fn every_field_of_every_kind_is_documented() {
        fn walk(schema: &serde_json::Value, place: &str) {
            if let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) {
                for (name, property) in properties {
                    let place = format!("{place}.{name}");
                    let variant = schema.get("additionalProperties") == Some(&false.into()) && properties.len() == 1;
                    assert!(variant || property.get("description").is_some(), "{place} has no description");
                    walk(property, &place);
                }
            }
            for key in ["oneOf", "anyOf"] {
                for inner in schema.get(key).and_then(|v| v.as_array()).into_iter().flatten() {
                    walk(inner, place);
                }
            }
        }
        for kind in ALL {
            let schema = (kind.schema)();
            assert!(schema.get("description").is_some(), "{} has no description", kind.name);
            walk(&schema, kind.name);
        }
    }

    #[test]
    fn metrics_name_floors_that_exist() {
        for kind in ALL {
            for metric in kind.metrics {
                if let Some((floor, _)) = metric.floor {
                    assert!(
                        kind.metrics.iter().any(|m| m.name == floor),
                        "{}.{}: no metric {floor}",
                        kind.name,
                        metric.name
                    );
                }
            }
        }
    }
}
