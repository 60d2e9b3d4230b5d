//! The pieces that wait for a lane: few, in order, and taken back from a lane that dies.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::{Part, Piece};

/// Filled by the reader, emptied by the lanes.
pub struct Queue {
    state: Mutex<State>,
    room: Semaphore,
    changed: Notify,
}

#[derive(Default)]
struct State {
    fresh: VecDeque<Piece>,
    /// Taken before by a lane that has died; they come first.
    returned: VecDeque<Piece>,
    /// Taken, and not acknowledged yet.
    out: usize,
    /// No fresh ones will come.
    complete: bool,
}

impl Queue {
    /// At most `limit` fresh pieces wait.
    pub fn new(limit: usize) -> Queue {
        Queue { state: Mutex::default(), room: Semaphore::new(limit), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room.
    pub async fn push(&self, piece: Piece) {
        // The semaphore is never closed.
        if let Ok(room) = self.room.acquire().await {
            room.forget();
        }
        self.lock().fresh.push_back(piece);
        self.changed.notify_one();
    }

    /// Says that the last piece was pushed.
    pub fn complete(&self) {
        self.lock().complete = true;
        self.changed.notify_waiters();
    }

    /// The next piece; `None` when all there were are acknowledged. May be dropped while
    /// it waits.
    pub async fn take(&self) -> Option<Piece> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                let returned = state.returned.pop_front();
                if returned.is_none() && !state.fresh.is_empty() {
                    self.room.add_permits(1);
                }
                if let Some(piece) = returned.or_else(|| state.fresh.pop_front()) {
                    state.out += 1;
                    return Some(piece);
                }
                if state.complete && state.out == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A piece that was taken is on the target.
    pub fn acknowledge(&self) {
        let mut state = self.lock();
        state.out -= 1;
        let all = state.complete && state.out == 0;
        drop(state);
        if all {
            self.changed.notify_waiters();
        }
    }

    /// Parts that were taken and may not be on the target.
    pub fn give_back(&self, parts: impl IntoIterator<Item = Part>) {
        let mut state = self.lock();
        for part in parts {
            state.out -= 1;
            state.returned.push_back(Piece { part, data: None });
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn piece(chunk: u64) -> Piece {
        Piece { part: Part { chunk, offset: 0, bytes: 1 }, data: Some(Bytes::from_static(b"x")) }
    }

    #[tokio::test]
    async fn what_a_dead_lane_held_goes_to_another() {
        let queue = Arc::new(Queue::new(4));
        queue.push(piece(1)).await;
        queue.push(piece(2)).await;
        queue.complete();
        let first = queue.take().await.expect("a piece");
        let second = queue.take().await.expect("a piece");
        // Nothing waits, but what is out may come back.
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take().await.map(|piece| piece.part.chunk) }
        });
        queue.acknowledge();
        queue.give_back([second.part]);
        assert_eq!(waiting.await.expect("no panic"), Some(2));
        assert_eq!(first.part.chunk, 1);
        queue.acknowledge();
        assert!(queue.take().await.is_none());
    }

    #[tokio::test]
    async fn the_reader_waits_for_room() {
        let queue = Queue::new(1);
        queue.push(piece(1)).await;
        {
            let push = queue.push(piece(2));
            tokio::pin!(push);
            assert!(futures_util::poll!(push.as_mut()).is_pending());
            assert!(queue.take().await.is_some());
            push.await;
        }
        assert_eq!(queue.take().await.map(|piece| piece.part.chunk), Some(2));
    }
}
