//! Class sizes of a long tail: quantiles of a Lomax law, scaled between the largest and the smallest class.

/// Powers between which one is looked for: from all but the first class smallest to almost a straight line in log rank.
const POWERS: (f64, f64) = (0.02, 1e4);

/// The sizes of `classes` classes, largest first: q(r) = ((r + 1/2) / C)^(-1/alpha) - 1, scaled so that rank 0 has
/// `largest` and the last rank `smallest`.
pub fn sizes(classes: usize, largest: u64, smallest: u64, alpha: f64) -> Vec<u64> {
    let quantile = |rank: usize| libm::pow((rank as f64 + 0.5) / classes as f64, -1.0 / alpha) - 1.0;
    let (first, last) = (quantile(0), quantile(classes.saturating_sub(1)));
    let (low, range) = (smallest as f64, (largest - smallest) as f64);
    (0..classes)
        .map(|rank| {
            // One class alone is the largest.
            let share = if rank == 0 { 1.0 } else { (quantile(rank) - last) / (first - last) };
            libm::round(low + range * share) as u64
        })
        .collect()
}

/// The power whose sizes add up to `wanted` as nearly as rounding allows, and the sizes.
///
/// # Errors
/// In words, when no power comes near: the total lies outside what the largest and smallest class allow.
pub fn nearest(classes: usize, largest: u64, smallest: u64, wanted: u64) -> Result<(f64, Vec<u64>), String> {
    let total = |alpha: f64| sizes(classes, largest, smallest, alpha).iter().sum::<u64>();
    // A larger power is less steep and so has more pictures.
    let (mut low, mut high) = POWERS;
    let (least, most) = (total(low), total(high));
    if wanted < least || wanted > most {
        return Err(format!(
            "{wanted} pictures cannot be had: {classes} classes between {smallest} and {largest} give {least} to {most}"
        ));
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if total(middle) < wanted { low = middle } else { high = middle }
    }
    let alpha = if wanted - total(low) < total(high) - wanted { low } else { high };
    Ok((alpha, sizes(classes, largest, smallest, alpha)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_imagenet_lt() {
        let six = sizes(1000, 1280, 5, 6.0);
        assert_eq!((six[0], six[999]), (1280, 5));
        assert_eq!(six.iter().sum::<u64>(), 104_850);
        let (alpha, found) = nearest(1000, 1280, 5, 115_846).unwrap();
        assert!((alpha - 7.3856).abs() < 1e-4, "{alpha}");
        assert_eq!(found.iter().sum::<u64>(), 115_846);
        let of = |range: std::ops::RangeInclusive<u64>| found.iter().filter(|size| range.contains(size)).count();
        assert_eq!((of(101..=1280), of(20..=100), of(5..=19)), (393, 468, 139));
        assert!(found.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        assert!(nearest(10, 100, 5, 2000).unwrap_err().contains("2000 pictures cannot be had"));
        assert!(nearest(10, 100, 5, 10).is_err());
        assert_eq!(sizes(1, 100, 5, 6.0), [100]);
        assert_eq!(sizes(3, 7, 7, 6.0), [7, 7, 7]);
    }
}
