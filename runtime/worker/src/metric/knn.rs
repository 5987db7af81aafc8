//! The weighted nearest-neighbour classifier (Wu et al. 2018, InstDisc; the evaluation of DINO).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::metric::product::{self, Panels, Tile, products};

/// Queries that are compared at a time. Blocks are fixed, so that numbers do not depend on memory or threads.
const QUERIES: usize = 1024;
/// Rows of train that they are compared with at a time; with [`QUERIES`], 32 MiB of similarities.
pub const ROWS: usize = 8192;
/// On a GPU, how many more candidates than neighbours come back from each block, to see ties at the last place.
const SPARE: usize = 32;

/// A row of train and its cosine.
pub type Neighbour = (usize, f32);

/// Rows of length 1 that are given a block at a time, so that train need not be in memory.
pub trait Table {
    /// Number of rows.
    fn count(&self) -> usize;

    /// Numbers in a row.
    fn columns(&self) -> usize;

    /// Rows `start` to `start + size`: [size, columns], fp32, where the queries are.
    ///
    /// # Errors
    /// They cannot be read.
    fn block(&self, start: usize, size: usize) -> Result<Tensor>;
}

impl Table for Tensor {
    fn count(&self) -> usize {
        self.size()[0] as usize
    }

    fn columns(&self) -> usize {
        self.size()[1] as usize
    }

    fn block(&self, start: usize, size: usize) -> Result<Tensor> {
        Ok(self.f_narrow(0, start as i64, size as i64)?)
    }
}

/// Some rows of a table, in its order.
pub struct Part<'a> {
    /// The table.
    pub table: &'a dyn Table,
    /// Which of its rows, rising.
    pub rows: Vec<usize>,
}

impl Table for Part<'_> {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn columns(&self) -> usize {
        self.table.columns()
    }

    fn block(&self, start: usize, size: usize) -> Result<Tensor> {
        let mut parts = Vec::new();
        let mut left = &self.rows[start..start + size];
        while let Some(&first) = left.first() {
            // No more of the table at a time than of a whole one.
            let (here, later) = left.split_at(left.partition_point(|&row| row < first + ROWS));
            let rows: Vec<i64> = here.iter().map(|&row| (row - first) as i64).collect();
            let block = self.table.block(first, here[here.len() - 1] - first + 1)?;
            parts.push(block.f_index_select(0, &Tensor::from_slice(&rows).to_device(block.device()))?);
            left = later;
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// What the classifier says of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Classes by falling score, equal ones by number; as many as are asked for and make sense.
    pub classes: Vec<i64>,
    /// The nearest of train with their cosine similarities, nearest first, equal ones by index; five at most.
    pub nearest: Vec<Neighbour>,
}

/// A candidate; the greatest of a heap is the one to give up first: the least similar, of equal ones the last of train.
#[derive(Clone, Copy, Debug)]
struct Candidate(Neighbour);

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.1.total_cmp(&self.0.1).then(self.0.0.cmp(&other.0.0))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// The nearest of one query so far. Rows come in the order of train, so a later one of equal similarity never counts.
#[derive(Clone, Debug, Default)]
struct Nearest(BinaryHeap<Candidate>);

impl Nearest {
    fn add(&mut self, k: usize, index: usize, similarity: f32) {
        if self.0.len() < k {
            self.0.push(Candidate((index, similarity)));
        } else if let Some(mut worst) = self.0.peek_mut()
            && similarity > worst.0.1
        {
            *worst = Candidate((index, similarity));
        }
    }

    /// Looks through similarities with the rows from `base` on. Most are below all that are held: they are passed over
    /// in pieces, without a branch for each.
    fn scan(&mut self, k: usize, base: usize, row: &[f32]) {
        const PIECE: usize = 32;
        row.chunks(PIECE).enumerate().for_each(|(piece, values)| self.look(k, base + piece * PIECE, values));
    }

    /// Looks through a few similarities.
    fn look(&mut self, k: usize, base: usize, values: &[f32]) {
        if self.0.len() == k {
            let least = self.0.peek().map_or(f32::NEG_INFINITY, |worst| worst.0.1);
            let above = |any, &value: &f32| any | u32::from(value > least);
            // As many as a tile has, known beforehand, are compared at once.
            let any = match values.first_chunk::<{ product::KEYS }>() {
                Some(tile) if tile.len() == values.len() => tile.iter().fold(0, above),
                _ => values.iter().fold(0, above),
            };
            if any == 0 {
                return;
            }
        }
        values.iter().enumerate().for_each(|(offset, &value)| self.add(k, base + offset, value));
    }

    fn sorted(self) -> Vec<Neighbour> {
        self.0.into_sorted_vec().into_iter().map(|candidate| candidate.0).collect()
    }
}

/// The `k` rows of `train` with the largest cosine to every row of `test`, nearest first, equal ones in the order of
/// train; all of them where there are fewer. Rows have length 1, fp32, `train`: [n, d], `test`: [m, d]. Exact. Train is
/// asked for once, block by block, so that beside the queries some ten megabytes are needed. `between` hears how many
/// queries' worth of work is done and may stop the search.
///
/// # Errors
/// libtorch's, the table's, and what `between` says.
pub fn nearest(
    train: &dyn Table,
    test: &Tensor,
    k: usize,
    mut between: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Vec<Neighbour>>> {
    let (count, asked) = (train.count(), test.size()[0] as usize);
    let k = k.min(count);
    let threads = tch::get_num_threads().max(1) as usize;
    let mut best = vec![Nearest::default(); asked];
    // Products are written into the same memory every time: fresh pages cost as much as looking through them.
    let mut way = if test.device() == Device::Cpu && product::fits() {
        Way::Tiles(Box::default())
    } else {
        let most = (QUERIES.min(asked) * ROWS.min(count)) as i64;
        Way::Matrix(Tensor::f_zeros([most], (Kind::Float, test.device()))?)
    };
    for base in (0..count).step_by(ROWS) {
        let width = ROWS.min(count - base);
        let rows = train.block(base, width)?.f_contiguous()?;
        if let Way::Tiles(tiles) = &mut way {
            tiles.keys.fill(on_cpu(&rows), train.columns());
        }
        for start in (0..asked).step_by(QUERIES) {
            between(((base as u64) * asked as u64 + (start * width) as u64) / count.max(1) as u64)?;
            let size = QUERIES.min(asked - start);
            let queries = test.f_narrow(0, start as i64, size as i64)?.f_contiguous()?;
            let best = &mut best[start..start + size];
            match &mut way {
                Way::Tiles(tiles) => {
                    tiles.queries.fill(on_cpu(&queries), train.columns());
                    tiles.look(best, width, k, base, threads);
                }
                Way::Matrix(held) => {
                    let flat = held.f_narrow(0, 0, (size * width) as i64)?;
                    let into = flat.f_view([size as i64, width as i64])?;
                    let similar = queries.f_mm_out(&into, &rows.f_transpose(0, 1)?)?;
                    if similar.device() == Device::Cpu {
                        scan(best, on_cpu(&similar), width, k, base, threads);
                    } else {
                        from_device(best, &similar, k, base)?;
                    }
                }
            }
        }
    }
    between(asked as u64)?;
    Ok(best.into_iter().map(Nearest::sorted).collect())
}

/// How similarities are computed.
enum Way {
    /// On this processor, in tiles.
    Tiles(Box<Tiles>),
    /// By libtorch, into this memory.
    Matrix(Tensor),
}

/// What [`products`] works on.
#[derive(Default)]
struct Tiles {
    queries: Panels<{ product::QUERIES }>,
    keys: Panels<{ product::KEYS }>,
    tiles: Vec<Tile>,
}

impl Tiles {
    /// Compares all queries with `width` keys, the rows of train from `base` on, panels of queries shared among threads.
    fn look(&mut self, best: &mut [Nearest], width: usize, k: usize, base: usize, threads: usize) {
        let (queries, keys) = (&self.queries, &self.keys);
        let across = keys.count();
        self.tiles.resize(queries.count() * across, Tile::default());
        let share = queries.count().div_ceil(threads).max(1);
        let each = |first: usize, best: &mut [Nearest], tiles: &mut [Tile]| {
            products(queries, keys, first..first + tiles.len() / across, tiles);
            for (best, tiles) in best.chunks_mut(product::QUERIES).zip(tiles.chunks_exact(across)) {
                for (query, nearest) in best.iter_mut().enumerate() {
                    for (panel, tile) in tiles.iter().enumerate() {
                        let first = panel * product::KEYS;
                        // The last panel is filled up with rows that are none.
                        let values = &tile[query][..product::KEYS.min(width - first)];
                        nearest.look(k, base + first, values);
                    }
                }
            }
        };
        if threads == 1 {
            return each(0, best, &mut self.tiles);
        }
        std::thread::scope(|scope| {
            let parts = best.chunks_mut(share * product::QUERIES).zip(self.tiles.chunks_mut(share * across));
            for (part, (best, tiles)) in parts.enumerate() {
                let each = &each;
                scope.spawn(move || each(part * share, best, tiles));
            }
        });
    }
}

/// The numbers of a contiguous tensor of fp32 on the CPU.
fn on_cpu(tensor: &Tensor) -> &[f32] {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    // SAFETY: as many numbers of this kind lie there as long as the tensor does, and nobody writes to them: the one tensor
    // that is written to, the product of before, is written between two looks.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

/// Looks through a block of similarities, its rows shared among threads.
fn scan(best: &mut [Nearest], flat: &[f32], width: usize, k: usize, base: usize, threads: usize) {
    let share = best.len().div_ceil(threads).max(1);
    let each = |best: &mut [Nearest], flat: &[f32]| {
        best.iter_mut().zip(flat.chunks_exact(width)).for_each(|(nearest, row)| nearest.scan(k, base, row));
    };
    if threads == 1 {
        return each(best, flat);
    }
    std::thread::scope(|scope| {
        for (best, flat) in best.chunks_mut(share).zip(flat.chunks(share * width)) {
            scope.spawn(move || each(best, flat));
        }
    });
}

/// The best of a block that lies on a GPU: some more than `k` come back, so that ties at the last place are seen; where
/// even those are all equal, the whole row does.
fn from_device(best: &mut [Nearest], similar: &Tensor, k: usize, base: usize) -> Result<()> {
    let width = similar.size()[1] as usize;
    let taken = (k + SPARE).min(width);
    let (values, indices) = similar.f_topk(taken as i64, 1, true, true)?;
    let values = Vec::<f32>::try_from(values.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
    let indices = Vec::<i64>::try_from(indices.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
    for (query, nearest) in best.iter_mut().enumerate() {
        let at = query * taken..(query + 1) * taken;
        let (values, indices) = (&values[at.clone()], &indices[at]);
        let open = taken < width && k <= taken && values[k.max(1) - 1] == values[taken - 1];
        if open {
            let row = similar.f_get(query as i64)?.f_to_device(Device::Cpu)?;
            nearest.scan(k, base, &Vec::<f32>::try_from(row)?);
        } else {
            let mut ordered: Vec<Neighbour> =
                indices.iter().zip(values).map(|(&index, &value)| (base + index as usize, value)).collect();
            ordered.sort_by_key(|neighbour| neighbour.0);
            ordered.into_iter().for_each(|(index, value)| nearest.add(k, index, value));
        }
    }
    Ok(())
}

/// What the first `k` of a query's neighbours say: each votes exp(cosine / `temperature`) for its label. `top` classes are
/// given, fewer when there are fewer classes or neighbours.
pub fn vote(neighbours: &[Neighbour], labels: &[i64], classes: usize, k: usize, temperature: f64, top: usize) -> Vote {
    let chosen = &neighbours[..k.min(neighbours.len())];
    // Relative to the nearest, so that no temperature overflows; the order of the scores is the same.
    let nearest = chosen.first().map_or(0.0, |&(_, s)| f64::from(s));
    let mut scores = vec![0.0f64; classes];
    for &(index, similarity) in chosen {
        scores[labels[index] as usize] += ((f64::from(similarity) - nearest) / temperature).exp();
    }
    let top = top.min(classes).min(chosen.len());
    Vote { classes: ranked(&scores, top), nearest: chosen[..chosen.len().min(5)].to_vec() }
}

/// Classifies every row of `test` by its `k` nearest rows of `train`; see [`nearest`] and [`vote`].
///
/// # Errors
/// libtorch's.
pub fn classify(
    train: &Tensor,
    labels: &[i64],
    classes: usize,
    test: &Tensor,
    k: usize,
    temperature: f64,
    top: usize,
) -> Result<Vec<Vote>> {
    let found = nearest(train, test, k, |_| Ok(()))?;
    Ok(found.iter().map(|neighbours| vote(neighbours, labels, classes, k, temperature, top)).collect())
}

/// Numbers of the `top` highest scores, highest first, equal ones by number.
fn ranked(scores: &[f64], top: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.into_iter().take(top).map(|class| class as i64).collect()
}

/// Share of queries whose class is the first, and is among all given ones.
pub fn accuracy(votes: &[Vote], truth: &[i64]) -> (f64, f64) {
    let share = |hit: &dyn Fn(&Vote, i64) -> bool| {
        let hits = votes.iter().zip(truth).filter(|&(vote, &label)| hit(vote, label)).count();
        hits as f64 / truth.len().max(1) as f64
    };
    (share(&|vote, label| vote.classes.first() == Some(&label)), share(&|vote, label| vote.classes.contains(&label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(angles: &[f64]) -> Tensor {
        let values: Vec<f32> = angles.iter().flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        Tensor::from_slice(&values).view([angles.len() as i64, 2])
    }

    #[test]
    fn votes_are_weighted_by_similarity() {
        // One near neighbour of class 1, two farther ones of class 0: cosines 0.995, 0.878, 0.825.
        let (train, labels) = (rows(&[0.1, 0.5, 0.6, 3.0]), [1, 0, 0, 2]);
        let of = |k, t| classify(&train, &labels, 3, &rows(&[0.0]), k, t, 5).unwrap().remove(0);
        // exp(0.995/0.07) = 1.49e6 beats exp(0.878/0.07) + exp(0.825/0.07) = 4.1e5; at temperature 1 it does not.
        assert_eq!(of(3, 0.07).classes, [1, 0, 2]);
        assert_eq!(of(3, 1.0).classes, [0, 1, 2]);
        assert_eq!(of(1, 1.0).classes, [1]);
        let nearest: Vec<usize> = of(3, 0.07).nearest.iter().map(|n| n.0).collect();
        assert_eq!(nearest, [0, 1, 2]);
    }

    #[test]
    fn edges() {
        let (train, labels) = (rows(&[0.5, 0.5, 0.5, 0.5]), [2, 1, 1, 0]);
        let of = |k, classes| classify(&train, &labels, classes, &rows(&[0.0, 1.0]), k, 0.07, 5).unwrap();
        // More neighbours than there are: all.
        assert_eq!(of(100, 3)[1].classes, [1, 0, 2]);
        // Exact duplicates at the k-th place count in the order of train; a tie of scores goes to the lower class.
        assert_eq!(of(1, 3)[0].classes, [2]);
        assert_eq!(of(2, 3)[0].classes, [1, 2]);
        // A class without pictures in train is never first.
        assert_eq!(of(4, 4)[0].classes, [1, 0, 2, 3]);
        assert_eq!(accuracy(&of(4, 3), &[1, 0]), (0.5, 1.0));
    }

    #[test]
    fn tiny_temperatures_do_not_overflow() {
        let votes = classify(&rows(&[0.0, 0.2]), &[1, 0], 2, &rows(&[0.19]), 2, 1e-5, 5).unwrap();
        assert_eq!(votes[0].classes, [0, 1]);
    }

    /// More rows and queries than a block has, on one thread and several: as one plain comparison gives.
    #[test]
    fn blocks_do_not_show() {
        let (count, asked, columns) = (ROWS + 700, QUERIES + 30, 3);
        let table = |rows: usize, start: f64| {
            let x: Vec<f32> = (0..rows * columns).map(|i| (0.7 * (i as f64 + start)).sin() as f32).collect();
            crate::features::normalised(&Tensor::from_slice(&x).view([rows as i64, columns as i64]))
        };
        let (train, test) = (table(count, 0.0), table(asked, 0.3));
        // The last rows are copies of the first: of equal ones the first count.
        train.narrow(0, ROWS as i64 + 100, 600).copy_(&train.narrow(0, 0, 600));
        let found = nearest(&train, &test, 40, |_| Ok(())).unwrap();
        assert_eq!(found.len(), asked);
        for query in [0, 1, 500, QUERIES - 1, QUERIES, asked - 1] {
            let similar: Vec<f32> = (0..count)
                .map(|row| (train.get(row as i64) * test.get(query as i64)).sum(Kind::Float).double_value(&[]) as f32)
                .collect();
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|&a, &b| similar[b].total_cmp(&similar[a]).then(a.cmp(&b)));
            // Sums of three products differ in the last digit between the two ways, so neighbours are held to their
            // similarity, and copies to their order.
            for ((index, value), expected) in found[query].iter().zip(&order) {
                assert!((value - similar[*expected]).abs() < 1e-6);
                assert!((similar[*index] - value).abs() < 1e-6);
            }
            let mut seen = std::collections::BTreeSet::new();
            for (index, _) in &found[query] {
                if (ROWS + 100..ROWS + 700).contains(index) {
                    assert!(seen.contains(&(index - ROWS - 100)), "a copy came before its original");
                }
                seen.insert(*index);
            }
        }
    }

    #[test]
    fn a_part_of_a_table_is_a_table() {
        let count = 2 * ROWS + 5;
        let x: Vec<f32> = (0..2 * count).map(|i| i as f32).collect();
        let table = Tensor::from_slice(&x).view([count as i64, 2]);
        let rows: Vec<usize> = (0..count).filter(|row| row % 3 == 1 || *row > 2 * ROWS).collect();
        let part = Part { table: &table, rows: rows.clone() };
        assert_eq!((part.count(), part.columns()), (rows.len(), 2));
        let block = part.block(2, rows.len() - 2).unwrap();
        for (at, &row) in rows[2..].iter().enumerate() {
            assert_eq!(block.double_value(&[at as i64, 0]), 2.0 * row as f64);
        }
    }

    #[test]
    fn as_scikit_learn_and_faiss() {
        let golden = crate::testing::golden::file();
        let table = |rows: usize, start: usize| {
            let (x, labels) = crate::testing::golden::table(rows, 32, 7, 3.0, start);
            (crate::features::normalised(&Tensor::from_slice(&x).view([rows as i64, 32])), labels)
        };
        let ((train, labels), (test, _)) = (table(600, 0), table(200, 50_000));
        let found = nearest(&train, &test, 200, |_| Ok(())).unwrap();
        for (k, expected) in golden["knn"].as_object().unwrap() {
            let expected: Vec<i64> = serde_json::from_value(expected.clone()).unwrap();
            let said = found.iter().map(|near| vote(near, &labels, 7, k.parse().unwrap(), 0.07, 5).classes[0]);
            assert_eq!(said.collect::<Vec<_>>(), expected, "k = {k}");
            let five: Vec<Vec<i64>> = serde_json::from_value(golden["knn_five"][k].clone()).unwrap();
            let said = found.iter().map(|near| vote(near, &labels, 7, k.parse().unwrap(), 0.07, 5).classes);
            assert_eq!(said.collect::<Vec<_>>(), five, "k = {k}");
        }
        let faiss: Vec<Vec<usize>> = serde_json::from_value(golden["faiss"].clone()).unwrap();
        for (near, expected) in found.iter().zip(&faiss) {
            let near: std::collections::BTreeSet<usize> = near[..20].iter().map(|(index, _)| *index).collect();
            assert_eq!(near, expected.iter().copied().collect());
        }
    }
}
