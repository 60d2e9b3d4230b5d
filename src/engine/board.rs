//! How far one upload has come: shared by those who send, merge and watch.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::plan::Found;

/// How a chunk was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Stored,
    Placed,
}

/// The chunks as they stand. Changes wake everyone who waits.
pub struct Board {
    found: Mutex<Found>,
    /// How many chunks the merged file holds from the first on, receipts or not.
    filled: watch::Sender<u64>,
    /// Placed chunks beyond those, whose receipts may still be on their way.
    ahead: Mutex<BTreeSet<u64>>,
    changes: watch::Sender<u64>,
}

impl Board {
    pub fn new(found: Found) -> Board {
        let filled = watch::Sender::new(found.contiguous());
        let ahead = Mutex::new(found.placed.clone());
        Board { found: Mutex::new(found), filled, ahead, changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        // The state is whole after every statement, so a panic elsewhere leaves it usable.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn publish(&self, n: u64, how: Published) {
        match how {
            Published::Stored => self.lock().stored.insert(n),
            Published::Placed => self.lock().placed.insert(n),
        };
        self.wake();
    }

    /// Every byte of a chunk is in its place in the merged file, and acknowledged.
    pub fn fill(&self, n: u64) {
        self.ahead().insert(n);
        self.fill_up_to(0);
    }

    fn ahead(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least so many chunks are there from the first on, and those ahead that follow.
    fn fill_up_to(&self, n: u64) {
        let mut ahead = self.ahead();
        self.filled.send_if_modified(|filled| {
            let before = *filled;
            *filled = before.max(n);
            while ahead.remove(&(*filled + 1)) {
                *filled += 1;
            }
            *filled > before
        });
    }

    /// Returns, when the merged file holds more chunks than `n` from the first on, how many.
    pub async fn filled_beyond(&self, n: u64) -> u64 {
        match self.filled.subscribe().wait_for(|filled| *filled > n).await {
            Ok(filled) => *filled,
            // The sender lives in `self`.
            Err(_) => n,
        }
    }

    /// The merged file holds the chunks 1 to `n`, and the record says so.
    pub fn merge(&self, n: u64) {
        {
            let mut found = self.lock();
            found.merged = found.merged.max(n);
            found.stored = found.stored.split_off(&(n + 1));
            found.placed = found.placed.split_off(&(n + 1));
        }
        self.fill_up_to(n);
        self.wake();
    }

    pub fn merged(&self) -> u64 {
        self.lock().merged
    }

    /// Stored and placed chunks that directly follow what is merged, at most `limit`.
    pub fn next(&self, limit: usize) -> Vec<(u64, Published)> {
        let found = self.lock();
        (found.merged + 1..)
            .map_while(|n| {
                if found.placed.contains(&n) {
                    Some((n, Published::Placed))
                } else if found.stored.contains(&n) {
                    Some((n, Published::Stored))
                } else {
                    None
                }
            })
            .take(limit)
            .collect()
    }

    fn wake(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Returns as soon as `condition` holds; looks again at every change.
    pub async fn wait_until(&self, condition: impl Fn(&Found) -> bool) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if condition(&self.lock()) {
                return;
            }
            if changes.changed().await.is_err() {
                // The sender lives in `self`.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_merged_part() {
        let board = Board::new(Found { merged: 2, stored: [3, 6].into(), placed: [4].into() });
        assert_eq!(board.next(9), [(3, Published::Stored), (4, Published::Placed)]);
        board.publish(5, Published::Stored);
        assert_eq!(board.next(9).len(), 4);
        board.merge(4);
        assert_eq!(board.next(1), [(5, Published::Stored)]);
    }

    #[tokio::test]
    async fn what_is_filled_runs_ahead_of_what_is_published() {
        let board = Board::new(Found { merged: 1, stored: [2].into(), placed: [3].into() });
        board.fill(5);
        assert_eq!(board.filled_beyond(0).await, 1);
        board.merge(2);
        assert_eq!(board.filled_beyond(1).await, 3);
        board.fill(4);
        assert_eq!(board.filled_beyond(3).await, 5);
        assert_eq!(board.merged(), 2);
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits() {
        let board = std::sync::Arc::new(Board::new(Found::default()));
        let waiter = tokio::spawn({
            let board = board.clone();
            async move { board.wait_until(|found| found.merged == 3).await }
        });
        board.merge(1);
        board.merge(3);
        waiter.await.expect("woken");
    }
}
