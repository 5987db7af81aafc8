//! A bounded, order-preserving parallel map: pictures are prepared ahead while the device computes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

/// Results of `f` in the order of the items. Dropping it stops its threads.
pub struct Ordered<R> {
    results: Receiver<(usize, Result<R, String>)>,
    early: HashMap<usize, Result<R, String>>,
    next: usize,
    total: usize,
}

/// Maps `items` on `threads` threads, at most `ahead` results waiting.
///
/// The results are `Err` with the panic's message where `f` panicked.
pub fn ordered<T, R, F>(threads: usize, ahead: usize, items: Vec<T>, f: F) -> Ordered<R>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(T) -> R + Send + Sync + 'static,
{
    let total = items.len();
    let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
    let f = Arc::new(f);
    let (send, results) = sync_channel(ahead.max(1));
    for _ in 0..threads.max(1) {
        let (queue, f, send) = (queue.clone(), f.clone(), send.clone());
        std::thread::spawn(move || {
            loop {
                let Some((index, item)) = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next() else {
                    break;
                };
                let result = catch_unwind(AssertUnwindSafe(|| f(item))).map_err(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    text.or(panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or("a panic".into())
                });
                // The receiver is gone: nobody wants the rest.
                if send.send((index, result)).is_err() {
                    break;
                }
            }
        });
    }
    Ordered { results, early: HashMap::new(), next: 0, total }
}

impl<R> Iterator for Ordered<R> {
    type Item = Result<R, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.total {
            return None;
        }
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(result);
            }
            match self.results.recv() {
                Ok((index, result)) => self.early.insert(index, result),
                Err(_) => {
                    self.next = self.total;
                    return Some(Err("the loading threads ended early".into()));
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_reports_panics() {
        let results: Vec<_> = ordered(3, 4, (0..50u64).collect(), |x| {
            assert!(x != 20, "twenty");
            std::thread::sleep(std::time::Duration::from_micros(x * 37 % 11 * 50));
            2 * x
        })
        .collect();
        assert_eq!(results.len(), 50);
        for (x, result) in results.into_iter().enumerate() {
            if x == 20 { assert_eq!(result, Err("twenty".into())) } else { assert_eq!(result, Ok(2 * x as u64)) }
        }
    }
}
