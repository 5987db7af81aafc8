//! A bounded, order-preserving parallel map: pictures are prepared ahead while the device computes.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// What the threads and the consumer share.
struct Board<R> {
    /// Results that are not yet taken, by position.
    done: BTreeMap<usize, Result<R, String>>,
    /// Items drawn.
    begun: usize,
    /// Results taken: the position the consumer waits for.
    taken: usize,
    /// Number of items, once the last is drawn.
    total: Option<usize>,
    /// The consumer is gone.
    stopped: bool,
}

struct Shared<R> {
    board: Mutex<Board<R>>,
    /// Any change of the board.
    changed: Condvar,
}

impl<R> Shared<R> {
    /// A panic never leaves the board half changed, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, Board<R>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, board: MutexGuard<'a, Board<R>>) -> MutexGuard<'a, Board<R>> {
        self.changed.wait(board).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Results in the order of their items. Dropping it stops its threads and waits until they are gone: at most until each
/// has done the item that it is at.
pub struct Ordered<R> {
    shared: Arc<Shared<R>>,
    threads: Vec<JoinHandle<()>>,
}

/// Maps `items` on `threads` threads, at most `ahead` items begun beyond those that the consumer has taken.
///
/// A result is `Err` with the panic's message where `f` panicked; the others are not touched by it.
pub fn ordered<T, R, F>(threads: usize, ahead: usize, items: Vec<T>, f: F) -> Ordered<R>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(T) -> R + Send + Sync + 'static,
{
    ordered_from(threads, ahead, items, f)
}

/// [`ordered`] for anything that gives items, which are drawn one at a time, on the threads, as there is room. If
/// drawing panics, its message is the last result.
pub fn ordered_from<I, R, F>(threads: usize, ahead: usize, items: I, f: F) -> Ordered<R>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
    I::Item: Send + 'static,
    R: Send + 'static,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
{
    let board = Board { done: BTreeMap::new(), begun: 0, taken: 0, total: None, stopped: false };
    let shared = Arc::new(Shared { board: Mutex::new(board), changed: Condvar::new() });
    let items = Arc::new(Mutex::new(items.into_iter().enumerate()));
    let f = Arc::new(f);
    let mut running = Vec::new();
    for _ in 0..threads.max(1) {
        let (theirs, items, f) = (shared.clone(), items.clone(), f.clone());
        let work = move || {
            while let Some((position, item)) = draw(&theirs, &items, ahead.max(1)) {
                let result = catch_unwind(AssertUnwindSafe(|| f(item))).map_err(message);
                theirs.lock().done.insert(position, result);
                theirs.changed.notify_all();
            }
        };
        match Builder::new().name("views".into()).spawn(work) {
            Ok(thread) => running.push(thread),
            // Fewer threads do as well.
            Err(_) if !running.is_empty() => break,
            Err(error) => {
                let mut board = shared.lock();
                board.done.insert(0, Err(format!("no loading thread can be started: {error}")));
                board.total = Some(1);
                break;
            }
        }
    }
    Ordered { shared, threads: running }
}

/// Waits for room and draws the next item; none when there are no more or nobody wants them.
fn draw<T, R>(shared: &Shared<R>, items: &Mutex<impl Iterator<Item = (usize, T)>>, ahead: usize) -> Option<(usize, T)> {
    // Held while waiting: whoever comes next would wait for the same room.
    let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
    let mut board = shared.lock();
    loop {
        if board.stopped || board.total.is_some() {
            return None;
        }
        if board.begun - board.taken < ahead {
            break;
        }
        board = shared.wait(board);
    }
    drop(board);
    let drawn = catch_unwind(AssertUnwindSafe(|| items.next())).map_err(message);
    let mut board = shared.lock();
    match drawn {
        Ok(Some(next)) => {
            board.begun += 1;
            return Some(next);
        }
        Ok(None) => board.total = Some(board.begun),
        Err(text) => {
            let position = board.begun;
            board.done.insert(position, Err(text));
            board.total = Some(position + 1);
        }
    }
    shared.changed.notify_all();
    None
}

/// What a panic said.
pub fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or(panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or("a panic without words".into())
}

impl<R> Iterator for Ordered<R> {
    type Item = Result<R, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut board = self.shared.lock();
        loop {
            let position = board.taken;
            if let Some(result) = board.done.remove(&position) {
                board.taken += 1;
                self.shared.changed.notify_all();
                return Some(result);
            }
            if board.total.is_some_and(|total| position >= total) {
                return None;
            }
            board = self.shared.wait(board);
        }
    }
}

impl<R> Drop for Ordered<R> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of `f` are caught, so there is nothing to learn from the thread's end.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn keeps_the_order_and_reports_panics() {
        let results: Vec<_> = ordered(3, 4, (0..50u64).collect(), |x| {
            assert!(x != 20, "twenty");
            // Uneven work, so that results come out of order.
            (0..x * 37 % 11 * 2000).fold(x, |a, b| std::hint::black_box(a ^ b));
            2 * x
        })
        .collect();
        assert_eq!(results.len(), 50);
        for (x, result) in results.into_iter().enumerate() {
            if x == 20 { assert_eq!(result, Err("twenty".into())) } else { assert_eq!(result, Ok(2 * x as u64)) }
        }
    }

    #[test]
    fn never_runs_further_ahead_than_asked() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let mut results = ordered_from(4, 3, 0.., move |x: usize| {
            counter.fetch_add(1, SeqCst);
            x
        });
        for taken in 0..200 {
            assert_eq!(results.next(), Some(Ok(taken)));
            assert!(begun.load(SeqCst) <= taken + 1 + 3);
        }
    }

    #[test]
    fn dropping_stops_an_endless_supply() {
        let alive = Arc::new(());
        let held = alive.clone();
        let mut results = ordered_from(3, 8, 0u64.., move |x| (x, Arc::strong_count(&held)));
        assert_eq!(results.next().map(|r| r.map(|(x, _)| x)), Some(Ok(0)));
        drop(results);
        // The threads are gone, and with them what `f` held.
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn an_iterator_that_panics_ends_the_results_with_its_message() {
        let items = (0..10).inspect(|&x| assert!(x < 4, "no fifth"));
        let results: Vec<_> = ordered_from(2, 5, items, |x| x).collect();
        assert_eq!(results, [Ok(0), Ok(1), Ok(2), Ok(3), Err("no fifth".into())]);
        assert_eq!(ordered(2, 5, Vec::<u8>::new(), |x| x).count(), 0);
    }
}
