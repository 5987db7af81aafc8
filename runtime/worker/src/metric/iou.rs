//! Confusion matrix of a segmentation and the mean intersection over union read from it.

use harness_protocol::steps::Profile;
use serde::{Deserialize, Serialize};

/// Value of mask pixels that never count.
pub const VOID: u8 = 255;

/// How often pixels of a class were given which class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Number of classes.
    classes: usize,
    /// Pixels, row by row: `counts[truth * classes + predicted]`.
    counts: Vec<u64>,
}

impl Confusion {
    /// No pixel seen yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts pixels. Those whose truth is outside the classes ([`VOID`]) are left out.
    ///
    /// # Panics
    /// If a predicted class is outside the classes.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            if usize::from(truth) < self.classes {
                self.counts[usize::from(truth) * self.classes + usize::from(predicted)] += 1;
            }
        }
    }

    /// Counts `pixels` of one class that were given one.
    ///
    /// # Panics
    /// If one of the two is outside the classes.
    pub fn count(&mut self, truth: usize, predicted: usize, pixels: u64) {
        assert!(
            truth < self.classes && predicted < self.classes,
            "classes {truth} and {predicted} of {}",
            self.classes
        );
        self.counts[truth * self.classes + predicted] += pixels;
    }

    /// Adds the pixels of another matrix of the same classes.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Rows of the matrix: one per true class, one number per predicted class.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks_exact(self.classes.max(1))
    }

    /// Pixels that count.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The matrix that predicting `class` at every pixel gives.
    ///
    /// # Panics
    /// If `class` is outside the classes.
    pub fn constant(&self, class: usize) -> Self {
        let mut constant = Self::new(self.classes);
        for (truth, row) in self.rows().enumerate() {
            constant.counts[truth * self.classes + class] = row.iter().sum();
        }
        constant
    }

    /// Intersection over union of each class, 0..1; none for a class that the truth does not have, unless it was
    /// predicted (then 0).
    pub fn per_class(&self) -> Vec<Option<f64>> {
        (0..self.classes)
            .map(|class| {
                let hits = self.counts[class * self.classes + class];
                let truth: u64 = self.rows().nth(class).into_iter().flatten().sum();
                let predicted: u64 = self.rows().map(|row| row[class]).sum();
                let union = truth + predicted - hits;
                (union > 0).then(|| hits as f64 / union as f64)
            })
            .collect()
    }

    /// Mean over classes of intersection over union, 0..1.
    ///
    /// As published, classes that the truth does not have count 0; repaired, they are left out. 0 without any pixel.
    pub fn miou(&self, profile: Profile) -> f64 {
        self.mean_of(&(0..self.classes).collect::<Vec<_>>(), profile)
    }

    /// The same over some of the classes.
    ///
    /// # Panics
    /// If one of them is outside the classes.
    pub fn mean_of(&self, classes: &[usize], profile: Profile) -> f64 {
        let present: Vec<bool> = self.rows().map(|row| row.iter().any(|&count| count > 0)).collect();
        let each = self.per_class();
        let counted = classes.iter().filter(|&&class| present[class] || profile == Profile::Official);
        let values: Vec<f64> = counted.map(|&class| each[class].unwrap_or(0.0)).collect();
        if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    }

    /// Share of pixels with the right class, 0..1; 0 without any pixel.
    pub fn pixel_accuracy(&self) -> f64 {
        let hits: u64 = (0..self.classes).map(|class| self.counts[class * self.classes + class]).sum();
        match self.total() {
            0 => 0.0,
            total => hits as f64 / total as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth 0 0 0 1 1 void, predicted 0 0 1 1 3 0: IoU 2/3, 1/3, absent, predicted only.
    fn sample() -> Confusion {
        let mut confusion = Confusion::new(4);
        confusion.add(&[0, 0, 0, 1, 1, VOID], &[0, 0, 1, 1, 3, 0]);
        confusion
    }

    /// Values of `tests/golden/iou.py`.
    #[test]
    fn matrix_and_scores_equal_scikit_learns() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/iou.json")).unwrap();
        let truth = |n: u64| if n.is_multiple_of(13) { VOID } else { (n * n % 17 % 4) as u8 };
        let predicted = |n: u64| match n % 3 {
            0 => (n * n % 23 % 5) as u8,
            _ => truth(n) % 5 % 4,
        };
        let mut confusion = Confusion::new(6);
        let (a, b): (Vec<u8>, Vec<u8>) = (1..=4000).map(|n| (truth(n), predicted(n))).unzip();
        confusion.add(&a, &b);
        assert_eq!(serde_json::json!(confusion.rows().collect::<Vec<_>>()), golden["confusion"]);
        let close = |ours: f64, theirs: &serde_json::Value| {
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-12, "{ours} and {theirs}");
        };
        for (ours, theirs) in confusion.per_class().into_iter().zip(golden["iou"].as_array().unwrap()) {
            match ours {
                Some(ours) => close(ours, theirs),
                None => assert!(theirs.is_null()),
            }
        }
        close(confusion.miou(Profile::Official), &golden["official"]);
        close(confusion.miou(Profile::Fixed), &golden["fixed"]);
        close(confusion.pixel_accuracy(), &golden["accuracy"]);
    }

    #[test]
    fn absent_classes_count_by_profile() {
        let confusion = sample();
        assert_eq!(confusion.total(), 5);
        assert_eq!(confusion.per_class(), [Some(2.0 / 3.0), Some(1.0 / 3.0), None, Some(0.0)]);
        assert!((confusion.miou(Profile::Official) - 0.25).abs() < 1e-12);
        assert!((confusion.miou(Profile::Fixed) - 0.5).abs() < 1e-12);
        assert!((confusion.pixel_accuracy() - 0.6).abs() < 1e-12);
    }

    #[test]
    fn some_classes_can_be_averaged_alone() {
        let mut confusion = sample();
        assert!((confusion.mean_of(&[1, 2], Profile::Fixed) - 1.0 / 3.0).abs() < 1e-12);
        assert!((confusion.mean_of(&[1, 2], Profile::Official) - 1.0 / 6.0).abs() < 1e-12);
        assert_eq!(confusion.mean_of(&[2], Profile::Fixed), 0.0);
        confusion.count(2, 2, 7);
        assert_eq!(confusion.mean_of(&[2], Profile::Fixed), 1.0);
    }

    #[test]
    fn a_constant_prediction_is_read_from_the_same_matrix() {
        let floor = sample().constant(0);
        // Class 0: 3 hits of 5 pixels; class 1: none of 2.
        assert!((floor.miou(Profile::Fixed) - 0.3).abs() < 1e-12);
        assert!((floor.miou(Profile::Official) - 0.15).abs() < 1e-12);
    }

    #[test]
    fn batches_add_up() {
        let mut parts = Confusion::new(4);
        parts.add(&[0, 0], &[0, 0]);
        parts.add(&[0, 1], &[1, 1]);
        let mut rest = Confusion::new(4);
        rest.add(&[1, VOID], &[3, 0]);
        parts.merge(&rest);
        assert_eq!(parts, sample());
    }

    #[test]
    fn perfect_and_empty_ends() {
        let mut perfect = Confusion::new(3);
        perfect.add(&[0, 1, 2, 1], &[0, 1, 2, 1]);
        assert_eq!((perfect.miou(Profile::Official), perfect.pixel_accuracy()), (1.0, 1.0));
        let empty = Confusion::new(3);
        assert_eq!(
            (empty.miou(Profile::Fixed), empty.miou(Profile::Official), empty.pixel_accuracy()),
            (0.0, 0.0, 0.0)
        );
    }
}
