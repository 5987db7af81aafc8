//! The best one-to-one assignment of rows to columns (Kuhn 1955; shortest augmenting paths, Jonker and Volgenant 1987).

/// For a square matrix of gains (row by row), the column of each row such that the sum of the gains is largest.
///
/// # Panics
/// If the matrix is not square, or a gain is not finite.
pub fn assign(gains: &[f64], size: usize) -> Vec<usize> {
    assert_eq!(gains.len(), size * size, "the matrix is square");
    assert!(gains.iter().all(|gain| gain.is_finite()), "gains are finite");
    let cost = |row: usize, column: usize| -gains[row * size + column];
    // Prices of rows and columns; column `size` is the place where a new row starts.
    let (mut row_price, mut column_price) = (vec![0.0; size], vec![0.0; size + 1]);
    let mut row_of: Vec<Option<usize>> = vec![None; size + 1];
    for new in 0..size {
        row_of[size] = Some(new);
        let (mut slack, mut from, mut seen) = (vec![f64::INFINITY; size], vec![size; size], vec![false; size + 1]);
        let mut column = size;
        // Grows a tree of tight edges until it reaches a column without a row.
        while let Some(row) = row_of[column] {
            seen[column] = true;
            let (mut step, mut next) = (f64::INFINITY, size);
            for other in (0..size).filter(|&other| !seen[other]) {
                let reduced = cost(row, other) - row_price[row] - column_price[other];
                if reduced < slack[other] {
                    (slack[other], from[other]) = (reduced, column);
                }
                if slack[other] < step {
                    (step, next) = (slack[other], other);
                }
            }
            for other in 0..=size {
                match row_of[other] {
                    Some(row) if seen[other] => {
                        row_price[row] += step;
                        column_price[other] -= step;
                    }
                    _ if other < size => slack[other] -= step,
                    _ => {}
                }
            }
            column = next;
        }
        // Turns the path around.
        while column != size {
            let before = from[column];
            row_of[column] = row_of[before];
            column = before;
        }
    }
    let mut column_of = vec![0; size];
    for (column, row) in row_of.iter().take(size).enumerate() {
        if let Some(row) = row {
            column_of[*row] = column;
        }
    }
    column_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        size: usize,
        columns: Vec<usize>,
        total: f64,
    }

    /// The matrices of `golden/clustering.py`: (sin(0.7 n² + size) + 1) / 2, n from 1.
    fn gains(size: usize) -> Vec<f64> {
        let value = |n: usize| ((0.7 * (n as f64).powi(2) + size as f64) % std::f64::consts::TAU).sin();
        (1..=size * size).map(|n| (value(n) + 1.0) / 2.0).collect()
    }

    #[test]
    fn assignments_equal_scipys() {
        let golden: Vec<Golden> = serde_json::from_str(include_str!("golden/assign.json")).unwrap();
        for Golden { size, columns, total } in &golden {
            let gains = gains(*size);
            let ours = assign(&gains, *size);
            let sum: f64 = ours.iter().enumerate().map(|(row, column)| gains[row * size + column]).sum();
            assert_eq!(&ours, columns, "{size}: {sum} and {total}");
            assert!((sum - total).abs() < 1e-12);
        }
        assert_eq!(golden.len(), 4);
    }

    #[test]
    fn it_is_the_best_of_all() {
        fn best(gains: &[f64], size: usize, row: usize, taken: u32) -> f64 {
            if row == size {
                return 0.0;
            }
            let free = (0..size).filter(|column| taken >> column & 1 == 0);
            free.map(|column| gains[row * size + column] + best(gains, size, row + 1, taken | 1 << column))
                .fold(f64::NEG_INFINITY, f64::max)
        }
        for size in 0..7 {
            let gains = gains(size);
            let sum: f64 =
                assign(&gains, size).iter().enumerate().map(|(row, column)| gains[row * size + column]).sum();
            assert!((sum - best(&gains, size, 0, 0)).abs() < 1e-12);
        }
        assert_eq!(assign(&[1.0; 9], 3).iter().sum::<usize>(), 3);
    }
}
