//! Values that the language has and JSON lacks: inputs, paths, ranges.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::artifact::Artifact;

/// An input that is another step's output, once that output's content is known.
///
/// In the language it is a name; the checked program holds a reference; keys and jobs hold this: the kind and digest of
/// the content. The accepted kinds are in the schema (`x-input`), so the checker can refuse the others at their place.
macro_rules! input {
    ($(#[$doc:meta])* $name:ident, [$($kind:literal),+ $(,)?]) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The content this input stands for.
            #[serde(rename = "$artifact")]
            pub artifact: Artifact,
        }

        impl $name {
            /// Artifact kinds that fit here.
            pub const ACCEPTS: &'static [&'static str] = &[$($kind),+];

            /// Hexadecimal SHA-256 of the content.
            pub fn digest(&self) -> &str {
                &self.artifact.digest
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "x-input": [$($kind),+] })
            }
        }
    };
}

input!(
    /// Pictures; labels and masks do not matter.
    ImagesInput,
    ["images", "labelled_images", "masked_images", "annotated_images", "multilabel_images", "depth_images"]
);
input!(
    /// Pictures with one class label each.
    LabelledInput,
    ["labelled_images", "annotated_images"]
);
input!(
    /// Pictures with one index mask each.
    MaskedInput,
    ["masked_images", "annotated_images", "depth_images"]
);
input!(
    /// Pictures with one answer for each class: present, absent or difficult.
    MultilabelInput,
    ["multilabel_images"]
);
input!(
    /// Pictures with one depth map each.
    DepthInput,
    ["depth_images"]
);
input!(
    /// Videos with masks of the objects in them.
    VideosInput,
    ["videos"]
);
input!(
    /// Predicted masks of videos, `<sequence>/<frame>.png`.
    PredictionsInput,
    ["predictions", "mask_files", "folder", "archive"]
);
input!(
    /// An encoder: weights and what is needed to rebuild it.
    EncoderInput,
    ["encoder"]
);
input!(
    /// Feature vectors, one row for each picture of a dataset.
    FeaturesInput,
    ["features"]
);
input!(
    /// A file that a program wrote.
    WrittenInput,
    ["file"]
);
input!(
    /// Any output of any step.
    AnyInput,
    ["any"]
);

/// A file of the user's that is an input by its content: the language has a path, keys and jobs its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInput {
    /// The content (kind `file`).
    #[serde(rename = "$artifact")]
    pub artifact: Artifact,
}

impl JsonSchema for FileInput {
    fn schema_name() -> Cow<'static, str> {
        "FileInput".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-type": "file" })
    }
}

/// Where a dataset lies: `@root/path` with a root that each machine maps, or a plain path beside the `.exp` file.
///
/// Never part of a key: a dataset is known by the digest of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRef {
    /// Name of the root in `harness.toml`; none for a plain path.
    #[serde(default)]
    pub root: Option<String>,
    /// Path below the root.
    pub path: String,
}

impl std::fmt::Display for PathRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.root {
            Some(root) if self.path.is_empty() => write!(f, "@{root}"),
            Some(root) => write!(f, "@{root}/{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

impl JsonSchema for PathRef {
    fn schema_name() -> Cow<'static, str> {
        "PathRef".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-type": "path" })
    }
}

/// An inclusive range of numbers, `0.2..1.0` in the language, `[0.2, 1.0]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span(pub f64, pub f64);

impl Span {
    /// Both ends.
    pub fn ends(self) -> (f64, f64) {
        (self.0, self.1)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-type": "range", "items": { "type": "number" } })
    }
}

/// A duration in seconds, `90s` or `30min` in the language.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seconds(pub f64);

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-type": "duration" })
    }
}

/// Default for integer fields: `#[serde(default = "int::<20>")]`.
pub(crate) fn int<const N: u64>() -> u64 {
    N
}

/// Default for flags that start true.
pub(crate) fn yes() -> bool {
    true
}
