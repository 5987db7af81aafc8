//! Average precision of scores: the VOC evaluation's area under the envelope, and the plain one.

/// Indices by falling score, equal ones in their order.
fn ranking(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

/// Area under the precision–recall curve made non-increasing from the right: Σ ΔR·P over the ranks at which recall
/// changes. Not the mean of 11 points that VOC2007 itself used. None without positives.
pub fn envelope(scores: &[f64], truth: &[bool]) -> Option<f64> {
    let positives = truth.iter().filter(|&&positive| positive).count();
    if positives == 0 {
        return None;
    }
    let (mut found, mut precisions) = (0, Vec::with_capacity(positives));
    for (rank, index) in ranking(scores).into_iter().enumerate() {
        if truth[index] {
            found += 1;
            precisions.push(f64::from(found) / (rank + 1) as f64);
        }
    }
    // Recall changes at the positives alone, by 1 / positives each; between them precision only falls.
    let (mut best, mut sum) = (0.0f64, 0.0);
    for precision in precisions.into_iter().rev() {
        best = best.max(precision);
        sum += best;
    }
    Some(sum / positives as f64)
}

/// Σ (Rₙ − Rₙ₋₁)·Pₙ over the different scores, equal ones taken together: scikit-learn's `average_precision_score`. None
/// without positives.
pub fn stepwise(scores: &[f64], truth: &[bool]) -> Option<f64> {
    let positives = truth.iter().filter(|&&positive| positive).count();
    if positives == 0 {
        return None;
    }
    let order = ranking(scores);
    let (mut found, mut before, mut sum) = (0, 0, 0.0);
    for (rank, &index) in order.iter().enumerate() {
        found += usize::from(truth[index]);
        let last = order.get(rank + 1).is_none_or(|&next| scores[next] != scores[index]);
        if last {
            sum += (found - before) as f64 * found as f64 / (rank + 1) as f64;
            before = found;
        }
    }
    Some(sum / positives as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn the_toy_case() {
        let truth = [true, false, true, false, false, true, false, true, false, false];
        let scores: Vec<f64> = (0..10).map(|rank| -f64::from(rank)).collect();
        assert!((envelope(&scores, &truth).unwrap() - 0.666667).abs() < 1e-6);
        assert!((stepwise(&scores, &truth).unwrap() - 0.666667).abs() < 1e-6);
        assert_eq!(envelope(&[1.0], &[false]), None);
        // All scores equal: in the order given, and all together.
        assert_eq!(envelope(&[0.0; 4], &[false, true, false, false]), Some(0.5));
        assert_eq!(stepwise(&[0.0; 4], &[false, true, false, false]), Some(0.25));
    }

    #[test]
    fn as_scikit_learn() {
        let golden = golden::file();
        for case in golden["precision"].as_array().unwrap().iter().chain([&golden["tied"]]) {
            let truth: Vec<bool> = serde_json::from_value(case["truth"].clone()).unwrap();
            let scores: Vec<f64> = serde_json::from_value(case["score"].clone()).unwrap();
            if let Some(expected) = case["envelope"].as_f64() {
                assert!((envelope(&scores, &truth).unwrap() - expected).abs() < 1e-9);
            }
            assert!((stepwise(&scores, &truth).unwrap() - case["stepwise"].as_f64().unwrap()).abs() < 1e-9);
        }
    }
}
