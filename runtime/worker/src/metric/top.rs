//! Top-1 and top-5 accuracy of scores.

/// Counts, for rows of `classes` scores, how often the label has the highest one and one of the five highest; a lower
/// class number wins a tie.
pub fn hits(scores: &[f32], classes: usize, labels: &[i64]) -> (usize, usize) {
    let (mut first, mut five) = (0, 0);
    for (row, &label) in scores.chunks_exact(classes.max(1)).zip(labels) {
        let label = label as usize;
        let own = row[label];
        let above = row.iter().enumerate().filter(|&(class, &score)| score > own || (score == own && class < label));
        let rank = above.count();
        first += usize::from(rank < 1);
        five += usize::from(rank < 5);
    }
    (first, five)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let row = [0.1, 0.9, 0.9, 0.3, 0.2, 0.15, 0.0];
        assert_eq!(hits(&row, 7, &[1]), (1, 1));
        assert_eq!(hits(&row, 7, &[2]), (0, 1));
        assert_eq!(hits(&row, 7, &[5]), (0, 1));
        assert_eq!(hits(&row, 7, &[0]), (0, 0));
        assert_eq!(hits(&[1.0, 2.0, 2.0, 1.0], 2, &[1, 0]), (2, 2));
    }
}
