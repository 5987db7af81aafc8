//! J and F of real predicted masks against the numbers of the official evaluation code.
//!
//! Needs the sample data (`HARNESS_SHARED_DATA`, else `../shared/data` beside the repository); without it the test says
//! so and passes.

use std::path::PathBuf;

use harness_datasets::{Tree, locate};
use harness_views::decode_index;
use harness_worker::metric::davis::score;

/// Sequence; J mean, recall, decay; F mean, recall, decay: (prediction > 0) against (annotation > 127).
const REFERENCE: [(&str, [f64; 6]); 6] = [
    ("blackswan", [0.943020, 1.000000, 0.001408, 0.974096, 1.000000, -0.000416]),
    ("car-shadow", [0.928402, 1.000000, 0.110280, 0.917407, 1.000000, 0.169749]),
    ("kite-surf", [0.598069, 0.854167, -0.020978, 0.660398, 1.000000, -0.022678]),
    ("libby", [0.623027, 0.617021, 0.498613, 0.751232, 0.914894, 0.349471]),
    ("motocross-jump", [0.815592, 1.000000, 0.004325, 0.620658, 0.815789, 0.052316]),
    ("scooter-black", [0.671126, 0.731707, 0.457653, 0.713015, 1.000000, 0.318274]),
];

fn shared() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    std::env::var_os("HARNESS_SHARED_DATA").map_or_else(beside, PathBuf::from).join("davis2016")
}

fn masks(tree: &Tree, folder: &str, inside: impl Fn(u8) -> bool) -> (usize, Vec<Vec<u8>>) {
    let files = tree.list().unwrap();
    let mut width = 0;
    let masks = files
        .iter()
        .filter(|file| file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
        .map(|file| {
            let mask = decode_index(&tree.read(&file.path).unwrap()).unwrap();
            width = mask.width;
            mask.data.into_iter().map(|value| u8::from(inside(value))).collect()
        })
        .collect();
    (width, masks)
}

#[test]
fn real_predictions_score_as_in_the_official_code() {
    let (truth, predicted) = (shared().join("davis-480p.tar"), shared().join("osvos-predictions.tar"));
    if !truth.is_file() || !predicted.is_file() {
        println!("skipped: no `{}`", truth.display());
        return;
    }
    let open = |path: PathBuf| Tree::open(&locate(&path).unwrap()).unwrap();
    let (truth, predicted) = (open(truth), open(predicted));
    for (sequence, expected) in REFERENCE {
        let (width, truth) = masks(&truth, &format!("DAVIS/Annotations/480p/{sequence}"), |value| value > 127);
        let (_, predicted) = masks(&predicted, &format!("osvos/{sequence}"), |value| value > 0);
        let scores = score(sequence, width, &predicted, &truth).unwrap();
        assert_eq!(scores.len(), 1);
        let (j, f) = (scores[0].j, scores[0].f);
        let found = [j.mean, j.recall, j.decay, f.mean, f.recall, f.decay];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{sequence}: {found} instead of {expected}");
        }
    }
}
