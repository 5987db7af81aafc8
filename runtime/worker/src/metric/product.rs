//! Inner products of many rows with many rows on one core, where libtorch's are slower than the processor allows: its
//! library takes a slow path on processors of other makers than its own.
//!
//! Rows are copied into panels in which the numbers that are needed together lie together; a tile of sums stays in
//! registers while a part of the columns goes by.

/// Queries in a tile.
pub const QUERIES: usize = 6;
/// Keys in a tile.
pub const KEYS: usize = 16;
/// Columns that go by at a time. A panel of keys of that many stays in the second cache; measured, that is better than
/// shorter panels in the first one, whose tiles are read and written more often.
const DEEP: usize = 2048;
/// Panels of queries that stay in the second cache.
const QUERY_PANELS: usize = 8;
/// Panels of keys whose sums stay in the third cache.
const KEY_PANELS: usize = 32;

/// Inner products of [`QUERIES`] queries with [`KEYS`] keys.
pub type Tile = [[f32; KEYS]; QUERIES];

/// Whether [`products`] is the fastest way here: it needs fused multiply-add, and libtorch makes better use of wider
/// registers than these.
pub fn fits() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && !std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Rows in panels of `W`: for every [`DEEP`] columns the panels one after another, in each the columns one after another,
/// in each the numbers of `W` rows. Rows of zeros fill the last panel.
#[derive(Debug, Default)]
pub struct Panels<const W: usize> {
    numbers: Vec<f32>,
    panels: usize,
    columns: usize,
}

impl<const W: usize> Panels<W> {
    /// Takes rows of `columns` numbers in place of those before.
    pub fn fill(&mut self, rows: &[f32], columns: usize) {
        let count = rows.len().checked_div(columns).unwrap_or(0);
        (self.panels, self.columns) = (count.div_ceil(W), columns);
        self.numbers.resize(self.panels * W * columns, 0.0);
        let mut rest = self.numbers.as_mut_slice();
        for start in (0..columns).step_by(DEEP) {
            let deep = DEEP.min(columns - start);
            let (part, later) = rest.split_at_mut(self.panels * W * deep);
            rest = later;
            for (panel, lines) in part.chunks_exact_mut(deep * W).enumerate() {
                // Beyond the last row the first one stands in, and is then wiped out: no branch for every number.
                let there = W.min(count - panel * W);
                let row = |at: usize| &rows[(panel * W + if at < there { at } else { 0 }) * columns + start..][..deep];
                let of: [&[f32]; W] = std::array::from_fn(row);
                for (column, line) in lines.as_chunks_mut::<W>().0.iter_mut().enumerate() {
                    *line = std::array::from_fn(|at| of[at][column]);
                    line[there..].fill(0.0);
                }
            }
        }
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.panels
    }

    /// Columns `start` to `start + deep` of some panels; `start` is a multiple of [`DEEP`].
    fn part(&self, start: usize, deep: usize, panels: std::ops::Range<usize>) -> &[f32] {
        let part = &self.numbers[start * self.panels * W..][..self.panels * W * deep];
        &part[panels.start * W * deep..panels.end * W * deep]
    }
}

/// Inner products of the queries in some panels with all keys: `into` is [panels of queries, panels of keys].
///
/// # Panics
/// If [`fits`] does not hold, or `into` has another size.
pub fn products(queries: &Panels<QUERIES>, keys: &Panels<KEYS>, panels: std::ops::Range<usize>, into: &mut [Tile]) {
    assert!(fits(), "this processor has no fused multiply-add");
    assert_eq!(into.len(), panels.len() * keys.panels, "a tile for each pair of panels");
    for first in (0..keys.panels).step_by(KEY_PANELS) {
        let group = first..(first + KEY_PANELS).min(keys.panels);
        for start in (0..queries.columns).step_by(DEEP) {
            let deep = DEEP.min(queries.columns - start);
            let asked = queries.part(start, deep, panels.clone());
            let group_keys = keys.part(start, deep, group.clone());
            for (many, asked) in asked.chunks(QUERY_PANELS * deep * QUERIES).enumerate() {
                for (key, keys_of) in group.clone().zip(group_keys.chunks_exact(deep * KEYS)) {
                    for (query, asked) in asked.chunks_exact(deep * QUERIES).enumerate() {
                        let tile = &mut into[(many * QUERY_PANELS + query) * keys.panels + key];
                        // SAFETY: the processor has both features, as was asserted.
                        #[cfg(target_arch = "x86_64")]
                        unsafe {
                            add(asked, keys_of, start == 0, tile);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of a panel of queries, [columns, QUERIES], and one of keys, [columns, KEYS], to a tile that is `fresh`
/// (whatever is in it) or not.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add(queries: &[f32], keys: &[f32], fresh: bool, tile: &mut Tile) {
    let mut sums: Tile = [[0.0; KEYS]; QUERIES];
    for (query, key) in queries.as_chunks::<QUERIES>().0.iter().zip(keys.as_chunks::<KEYS>().0) {
        for (sums, &query) in sums.iter_mut().zip(query) {
            for (sum, &key) in sums.iter_mut().zip(key) {
                *sum = query.mul_add(key, *sum);
            }
        }
    }
    if fresh {
        *tile = sums;
    } else {
        for (old, new) in tile.iter_mut().flatten().zip(sums.iter().flatten()) {
            *old += new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_rows() {
        if !fits() {
            println!("skipped: this processor has no AVX2, or has AVX-512");
            return;
        }
        for (asked, count, columns) in [(1, 1, 1), (7, 33, 5), (100, 1100, 3), (13, 17, DEEP + 9), (6, 16, 2 * DEEP)] {
            let table =
                |rows: usize, turn: f32| -> Vec<f32> { (0..rows * columns).map(|i| (turn * i as f32).sin()).collect() };
            let (x, y) = (table(asked, 0.7), table(count, 1.3));
            let (mut queries, mut keys) = (Panels::default(), Panels::default());
            // Filled twice: nothing of the first time is left.
            queries.fill(&table(asked + 9, 2.0), columns);
            queries.fill(&x, columns);
            keys.fill(&y, columns);
            let mut tiles = vec![[[7.0; KEYS]; QUERIES]; queries.count() * keys.count()];
            products(&queries, &keys, 0..queries.count(), &mut tiles);
            for query in 0..asked {
                for key in 0..keys.count() * KEYS {
                    let row = |x: &[f32], at: usize| -> Vec<f64> {
                        x.get(at * columns..(at + 1) * columns)
                            .map_or(vec![0.0; columns], |row| row.iter().map(|&value| f64::from(value)).collect())
                    };
                    let expected: f64 = row(&x, query).iter().zip(row(&y, key)).map(|(a, b)| a * b).sum();
                    let tile = &tiles[query / QUERIES * keys.count() + key / KEYS];
                    let found = tile[query % QUERIES][key % KEYS];
                    assert!((f64::from(found) - expected).abs() < 1e-3, "({query}, {key}): {found} {expected}");
                }
            }
            // A part of the panels gives its part of the tiles.
            let last = queries.count() - 1;
            let mut part = vec![[[0.0; KEYS]; QUERIES]; keys.count()];
            products(&queries, &keys, last..last + 1, &mut part);
            assert_eq!(part, tiles[last * keys.count()..]);
        }
    }
}
