//! Numbers for people.

/// Mean, standard deviation (n − 1) and n of the values; none without values. The deviation needs two.
pub fn statistics(values: &[f64]) -> Option<(f64, Option<f64>, usize)> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let sd = (n > 1).then(|| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt());
    Some((mean, sd, n))
}

/// Values of the same training averaged first, in the order in which trainings come: what is independent. And how many
/// values went into each at most.
pub fn independent<'a>(values: impl IntoIterator<Item = (&'a str, f64)>) -> (Vec<f64>, usize) {
    let mut trainings: Vec<(&str, Vec<f64>)> = Vec::new();
    for (training, value) in values {
        match trainings.iter_mut().find(|(known, _)| *known == training && !training.is_empty()) {
            Some((_, values)) => values.push(value),
            None => trainings.push((training, vec![value])),
        }
    }
    let most = trainings.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    (trainings.iter().map(|(_, values)| values.iter().sum::<f64>() / values.len() as f64).collect(), most)
}

/// A number with the digits that matter: shares as percentages with one decimal.
pub fn number(value: f64, percent: bool) -> String {
    let value = if percent { value * 100.0 } else { value };
    match value {
        v if !v.is_finite() => v.to_string(),
        v if percent => format!("{v:.1}"),
        v if v.fract() == 0.0 && v.abs() < 1e15 => format!("{v:.0}"),
        v if v.abs() >= 1e-3 && v.abs() < 1e4 => format!("{v:.3}"),
        v => format!("{v:.3e}"),
    }
}

/// `850 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1} s"),
        s if s < 5_970.0 => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

/// A large count: `57,600`, `66.4 million`, `1.28 billion`.
pub fn amount(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{} billion", short(v / 1e9)),
        v if v >= 1e6 => format!("{} million", short(v / 1e6)),
        v => {
            let digits = format!("{v:.0}");
            let mut out = String::new();
            for (at, c) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    out.push(',');
                }
                out.push(c);
            }
            out
        }
    }
}

/// Three digits.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Hours: `0.047`, `1.25`, `312`.
pub fn hours(hours: f64) -> String {
    if hours < 1.0 { format!("{hours:.3}") } else { short(hours) }
}

/// Text inside XML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_by_hand() {
        assert_eq!(statistics(&[]), None);
        assert_eq!(statistics(&[2.0]), Some((2.0, None, 1)));
        // Deviations −1, 0, 1: variance 2 / 2.
        assert_eq!(statistics(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0), 3)));
    }

    #[test]
    fn evaluations_of_one_training_are_one_value() {
        let values = [("a", 1.0), ("b", 4.0), ("a", 3.0), ("", 7.0), ("", 8.0)];
        assert_eq!(independent(values), (vec![2.0, 4.0, 7.0, 8.0], 2));
        assert_eq!(independent([]), (vec![], 0));
    }

    #[test]
    fn numbers_and_times() {
        assert_eq!(number(0.12345, true), "12.3");
        assert_eq!(number(5.0, false), "5");
        assert_eq!(number(0.12345, false), "0.123");
        assert_eq!(number(f64::NAN, true), "NaN");
        assert_eq!(seconds(0.05), "50 ms");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(7500.0), "2 h 5 min");
        assert_eq!(
            [999.0, 57_600.0, 66_355_200.0, 1.28e9, 2.5e11].map(amount),
            ["999", "57,600", "66.4 million", "1.28 billion", "250 billion"]
        );
        assert_eq!([0.0469, 1.25, 312.4].map(hours), ["0.047", "1.25", "312"]);
    }
}
