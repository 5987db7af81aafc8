//! `mask_folder`: predicted masks of videos, wherever they lie.

use std::collections::{BTreeMap, HashMap};

use harness_protocol::Location;
use harness_protocol::manifest::{MANIFEST_FORMAT, MaskManifest};
use harness_protocol::steps::MaskFolder;

use crate::built::{Built, describe, json, some};
use crate::error::Error;
use crate::hash::FileHasher;
use crate::tree::Tree;

/// Describes every PNG that lies in some folder of `location`.
///
/// # Errors
/// `location` cannot be opened, or holds no PNG in a folder.
pub fn mask_folder(_: &MaskFolder, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    let tree = Tree::open(location)?;
    let files = tree.list()?;
    let sizes: HashMap<&str, u64> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let paths: Vec<String> = files
        .iter()
        .filter(|file| file.path.contains('/') && file.path.to_ascii_lowercase().ends_with(".png"))
        .map(|file| file.path.clone())
        .collect();
    if paths.is_empty() {
        let found = match files.len() {
            0 => "nothing".to_owned(),
            _ => some(files.iter().map(|file| file.path.as_str()), 6),
        };
        return Err(Error::layout(
            tree.place(),
            format!("there are no masks: looked for `<sequence>/<frame>.png`, found {found}"),
        ));
    }
    let files = describe(&tree, &sizes, &paths, hasher)?;
    let manifest = MaskManifest { format: MANIFEST_FORMAT, files };
    let metrics = BTreeMap::from([("files".to_owned(), manifest.files.len() as f64)]);
    Ok(Built { metrics, ..Built::new(vec![("masks".into(), json(&manifest))], tree.location().clone()) })
}
