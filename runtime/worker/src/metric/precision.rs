//! Average precision of scores: the VOC evaluation's area under the envelope, and the plain one.

use harness_views::Stream;

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
    Some(below(&precisions))
}

/// What a random order of `count` items reaches in [`envelope`] on average, `positives` of them positive: the mean over orders
/// drawn by a fixed seed. More than their share, since making precision non-increasing only raises it, and the more the fewer
/// there are. 0 without positives.
pub fn by_chance(count: usize, positives: usize) -> f64 {
    // Enough for a mean within a few thousandths, and no more than a moment for large sets.
    let orders = (2_000_000 / count.max(1)).clamp(50, 400);
    let mut sum = 0.0;
    for order in 0..orders {
        let mut ranks = Stream::new(0, "average precision", "chance", order as u64, 0, 0).permutation(count);
        ranks.truncate(positives);
        ranks.sort_unstable();
        let precisions: Vec<f64> =
            ranks.iter().enumerate().map(|(found, &rank)| (found + 1) as f64 / (rank + 1) as f64).collect();
        sum += below(&precisions);
    }
    sum / orders as f64
}

/// Mean over positives of the best precision at them or later.
fn below(precisions: &[f64]) -> f64 {
    let (mut best, mut sum) = (0.0f64, 0.0);
    for &precision in precisions.iter().rev() {
        best = best.max(precision);
        sum += best;
    }
    sum / precisions.len().max(1) as f64
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
    fn chance_is_more_than_the_share_of_positives() {
        assert_eq!(by_chance(7, 7), 1.0);
        assert_eq!(by_chance(7, 0), 0.0);
        // One positive of n: the mean of 1 / rank.
        let one = by_chance(5, 1);
        assert!((one - (1.0 + 0.5 + 1.0 / 3.0 + 0.25 + 0.2) / 5.0).abs() < 0.04, "{one}");
        // All orders of two positives of four, by hand.
        let pairs = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];
        let each = pairs.map(|(a, b): (u32, u32)| below(&[1.0 / f64::from(a), 2.0 / f64::from(b)]));
        assert!((by_chance(4, 2) - each.iter().sum::<f64>() / 6.0).abs() < 0.03);
        assert!((by_chance(60, 6) - 0.172).abs() < 0.01, "{}", by_chance(60, 6));
        // And far less than that of many.
        assert!((by_chance(5000, 100) - 0.023).abs() < 0.003, "{}", by_chance(5000, 100));
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
