//! What a segmentation leaves to look at: overlays with a legend, the confusion matrix, IoU of each class.

use harness_protocol::steps::Profile;
use harness_protocol::{Gallery, GalleryItem, Series};
use harness_views::{IndexMask, Picture};
use serde_json::json;

use crate::error::Result;
use crate::metric::iou::{Confusion, VOID};
use crate::steps::finetune::{Scored, Shown};
use crate::steps::overlay::{beside, fit, item, legend, matrix, overlay};
use crate::steps::segment::pairs::{Pair, Pairs};
use crate::steps::segment::score::{Score, mask_of};

/// Longest side of a picture in the gallery, pixels.
const LONGEST: usize = 240;

/// IoU of each class over its index; 0 for classes that neither truth nor prediction has.
pub fn class_curve(confusion: &Confusion) -> Series {
    let values: Vec<f64> = confusion.per_class().into_iter().map(|iou| iou.unwrap_or(0.0)).collect();
    Series { x: (0..values.len()).map(|class| class as f64).collect(), y: values, x_label: "class".into() }
}

/// The matrix and what is read from it, as JSON text.
///
/// # Errors
/// None that a caller can cause.
pub fn json(confusion: &Confusion, names: &[String], profile: Profile) -> Result<Vec<u8>> {
    let rows: Vec<&[u64]> = confusion.rows().collect();
    let (iou, miou) = (confusion.per_class(), confusion.miou(profile));
    let report = json!({ "classes": names, "confusion": rows, "iou": iou, "miou": miou });
    Ok(serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?)
}

/// `0 sky, 1 road, …` with the IoU of each.
fn listed(confusion: &Confusion, names: &[String]) -> String {
    let each = confusion.per_class().into_iter().zip(names).enumerate();
    let each = each.map(|(class, (iou, name))| match iou {
        Some(iou) => format!("{class} {name} {:.1}", 100.0 * iou),
        None => format!("{class} {name} absent"),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What a picture of a confusion matrix shows.
pub fn matrix_caption(confusion: &Confusion, names: &[String]) -> String {
    format!(
        "Confusion matrix: rows are the truth, columns (in the same order) the prediction; the darker, the larger the share \
         of the row. IoU in percent: {}.",
        listed(confusion, names)
    )
}

/// The legend, the confusion matrix, and predictions beside the truth.
///
/// # Errors
/// Pairs that changed since they were looked at.
pub fn gallery(test: &Pairs, shown: &Shown, chosen: &Scored<Score>, names: &[String]) -> Result<Gallery> {
    let full = &chosen.score.full;
    let mut items = vec![
        item(&legend(names), "Colours of the classes; void is left as it is.".into())?,
        item(&matrix(full.rows(), names), matrix_caption(full, names))?,
    ];
    items.extend(overlays(test, shown, names.len())?);
    Ok(Gallery {
        title: "Segmentation".into(),
        caption: format!(
            "Test pictures after epoch {}; left: the picture, middle: predicted, right: ground truth.",
            chosen.epoch
        ),
        items,
    })
}

/// Predictions beside the truth, one item each.
///
/// # Errors
/// Pairs that changed since they were looked at.
pub fn overlays(test: &Pairs, shown: &Shown, classes: usize) -> Result<Vec<GalleryItem>> {
    let mut items = Vec::new();
    for (&index, predicted) in shown {
        let (pair, predicted) = (test.get(index)?, mask_of(predicted)?);
        let mut own = Confusion::new(classes);
        own.add(&pair.mask.data, &predicted.data);
        let caption = format!("{}: {:.1} % of pixels right", test.path(index), 100.0 * own.pixel_accuracy());
        items.push(item(&beside(&panels(&pair, &predicted)), caption)?);
    }
    Ok(items)
}

/// The picture, the prediction over it, the ground truth over it.
fn panels(pair: &Pair, predicted: &IndexMask) -> [Picture; 3] {
    let size = fit(pair.picture.width, pair.picture.height, LONGEST);
    let over = |mask: &IndexMask, shown: fn(u8) -> bool| overlay(&pair.picture, mask, size, shown);
    [over(&pair.mask, |_| false), over(predicted, |_| true), over(&pair.mask, |class| class != VOID)]
}
