//! Class labels of two splits that have to speak of the same classes.

use crate::data::Images;
use crate::error::Result;

/// Labels of `test` in the numbering of `train`, matched by the classes' names.
///
/// # Errors
/// `test` has pictures of a class that `train` does not know, or pictures without a label.
pub fn matched(train: &Images, test: &Images) -> Result<Vec<i64>> {
    let known = &train.manifest.classes;
    let names = &test.manifest.classes;
    let numbers: Vec<Option<i64>> =
        names.iter().map(|name| known.iter().position(|other| other == name).map(|at| at as i64)).collect();
    let labels = test.labels()?;
    let number = |&label: &i64| {
        numbers[label as usize].ok_or_else(|| {
            format!(
                "test has pictures of class `{}`, which train does not have (its classes: {})",
                names[label as usize],
                listed(known)
            )
            .into()
        })
    };
    labels.iter().map(number).collect()
}

fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// The most frequent label (the lowest of several), and the share of `asked` that has it.
pub fn majority(labels: &[i64], classes: usize, asked: &[i64]) -> f64 {
    let mut counts = vec![0usize; classes.max(1)];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let most = counts.iter().max().copied().unwrap_or(0);
    let class = counts.iter().position(|&count| count == most).unwrap_or(0) as i64;
    asked.iter().filter(|&&label| label == class).count() as f64 / asked.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_is_that_of_train() {
        assert_eq!(majority(&[0, 1, 1, 2], 3, &[0, 0, 1, 2]), 0.25);
        assert_eq!(majority(&[2, 1, 1, 2], 3, &[2, 2, 1]), 1.0 / 3.0);
    }
}
