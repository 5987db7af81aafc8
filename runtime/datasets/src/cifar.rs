//! `cifar`: CIFAR-10 and CIFAR-100 in their official binary form, read where they lie.

use std::collections::HashMap;

use harness_protocol::manifest::{ImageEntry, ImageManifest, MANIFEST_FORMAT};
use harness_protocol::steps::Cifar;
use harness_protocol::{Location, LocationForm};

use crate::built::{Built, describe, json};
use crate::derived::report;
use crate::error::Error;
use crate::hash::FileHasher;
use crate::layout::Layout;
use crate::tree::{Tree, batch_shape};

/// Describes the training and test pictures, `<batch>/<number>.ppm`.
///
/// # Errors
/// `location` is no folder or of another layout, a batch is missing or cut short, or a label is no class.
pub fn cifar(_: &Cifar, location: &Location, hasher: &dyn FileHasher) -> Result<Built, Error> {
    if location.form != LocationForm::Folder {
        return Err(Error::tree(&location.path, "CIFAR's batches are read from a folder; unpack it"));
    }
    let ten = Layout::open(location, "", &["data_batch_1.bin"]);
    let (layout, names, train, test) = match ten {
        Ok(layout) => {
            let train: Vec<String> = (1..=5).map(|number| format!("data_batch_{number}.bin")).collect();
            (layout, "batches.meta.txt", train, "test_batch.bin")
        }
        Err(error) => match Layout::open(location, "", &["train.bin"]) {
            Ok(layout) => (layout, "fine_label_names.txt", vec!["train.bin".to_owned()], "test.bin"),
            Err(Error::Layout { place, reason }) => {
                return Err(Error::layout(place, format!("{reason}; nor is it CIFAR-10's binary version: {error}")));
            }
            Err(error) => return Err(error),
        },
    };
    let classes: Vec<String> = layout.lines(names)?.into_iter().map(|(_, name)| name).collect();
    let mut parts = Vec::new();
    let mut labels = Vec::new();
    for file in train.iter().map(String::as_str).chain([test]) {
        let path = layout.tree.absolute(file).filter(|_| layout.has(file));
        let missing = || Error::Missing { file: file.into(), place: layout.place(), hint: String::new() };
        let path = path.ok_or_else(missing)?;
        let bytes = layout.tree.read(file)?;
        let Some((records, width)) = batch_shape(bytes.len() as u64) else {
            let why = format!("its {} bytes are no whole number of pictures of 32 x 32; fetch it again", bytes.len());
            return Err(Error::layout(layout.at(file), why));
        };
        let record = bytes.len() / usize::try_from(records).unwrap_or(1);
        // The last label byte is the class; CIFAR-100 has its coarse one before it.
        let found: Vec<u32> = bytes.chunks_exact(record).map(|r| u32::from(r[width as usize - 1])).collect();
        if let Some(at) = found.iter().position(|label| *label as usize >= classes.len()) {
            let why = format!("picture {at} has label {}, and there are {} classes", found[at], classes.len());
            return Err(Error::layout(layout.at(file), why));
        }
        labels.push(found);
        parts.push(Location { path, form: LocationForm::Batch, ..Location::default() });
    }
    let location = Location { form: LocationForm::Union, parts, ..Location::default() };
    let tree = Tree::open(&location)?;
    let files = tree.list()?;
    let sizes: HashMap<&str, u64> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let mut described = describe(&tree, &sizes, &paths, hasher)?.into_iter();
    // Files come sorted by batch and number, as labels do.
    let mut side = |labels: &[Vec<u32>]| {
        let count = labels.iter().map(Vec::len).sum();
        let files: Vec<_> = described.by_ref().take(count).collect();
        let entries = files.into_iter().zip(labels.iter().flatten());
        let entries = entries.map(|(file, label)| ImageEntry { file, label: Some(*label), ..ImageEntry::default() });
        let (format, classes) = (MANIFEST_FORMAT, classes.clone());
        ImageManifest { format, classes, entries: entries.collect(), ..ImageManifest::default() }
    };
    let (train, test) = labels.split_at(labels.len() - 1);
    let (train, test) = (side(train), side(test));
    let mut built = Built::new(vec![("train".into(), json(&train)), ("test".into(), json(&test))], location);
    report(&mut built, &train);
    Ok(built)
}
