//! What hosts that go side by side share of a source.
//!
//! A block that somebody still sends is found as long as it lives, and the last ones that
//! were read are kept as far as memory for blocks goes. Whoever comes while a block is being read waits for that one
//! read. A host that has fallen behind reads again, which the system's cache makes cheap;
//! but nobody hashes again: what hashing a block came to is remembered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::model::checksum::{Chain, ChainState};

/// All blocks together, those in the hands of hosts included: what is not in use is kept
/// for who comes a little later.
pub const WINDOW_BYTES: usize = 8 << 20;
/// Steps of hashing that are remembered: at 256 KiB each those of 32 GiB, in some 12 MiB.
/// Of a larger file the first ones are forgotten, and hashed again if somebody asks.
const MAX_STEPS: usize = 1 << 17;

/// Where a block begins and how long it is.
type Place = (u64, usize);

#[derive(Debug, Default)]
pub struct Window {
    blocks: Mutex<Blocks>,
    steps: Mutex<BTreeMap<Place, Step>>,
}

#[derive(Debug, Default)]
struct Blocks {
    /// All that somebody still has.
    living: HashMap<Place, Weak<Block>>,
    /// The oldest in front.
    recent: VecDeque<Arc<Block>>,
    /// Of all that live.
    bytes: Arc<AtomicUsize>,
}

/// A part of the source; empty until it was read.
#[derive(Debug)]
pub struct Block {
    pub content: OnceCell<Bytes>,
    length: usize,
    bytes: Arc<AtomicUsize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// From which state hashing a block led to which.
#[derive(Debug)]
struct Step {
    before: ChainState,
    after: After,
}

#[derive(Debug)]
enum After {
    State(ChainState),
    /// At the end of a file that does not end with a whole block of SHA-256.
    Inside(Box<Chain>),
}

impl Blocks {
    /// The oldest that nobody uses, until there is no more than there may be.
    fn forget_some(&mut self) {
        let mut index = 0;
        while self.bytes.load(Ordering::Relaxed) > WINDOW_BYTES && index < self.recent.len() {
            if Arc::strong_count(&self.recent[index]) > 1 {
                index += 1;
            } else {
                self.recent.remove(index);
            }
        }
    }
}

impl Window {
    /// The block at this place, to be read by whoever comes first.
    pub fn block(&self, offset: u64, length: usize) -> Arc<Block> {
        let mut blocks = lock(&self.blocks);
        let place = (offset, length);
        if let Some(block) = blocks.living.get(&place).and_then(Weak::upgrade) {
            return block;
        }
        blocks.bytes.fetch_add(length, Ordering::Relaxed);
        let block = Arc::new(Block { content: OnceCell::new(), length, bytes: blocks.bytes.clone() });
        blocks.recent.push_back(block.clone());
        blocks.forget_some();
        blocks.living.retain(|_, block| block.strong_count() > 0);
        blocks.living.insert(place, Arc::downgrade(&block));
        block
    }

    /// What taking this block through `chain` comes to, where somebody has done it.
    pub fn after(&self, offset: u64, length: usize, chain: &Chain) -> Option<Chain> {
        let before = start(offset, chain)?;
        let steps = lock(&self.steps);
        let step = steps.get(&(offset, length)).filter(|step| step.before == before)?;
        match &step.after {
            After::State(state) => Chain::resume(*state, offset + length as u64),
            After::Inside(chain) => Some(chain.as_ref().clone()),
        }
    }

    /// To be remembered. A chain that does not begin at this block is not.
    pub fn remember(&self, offset: u64, length: usize, before: &Chain, after: &Chain) {
        let Some(before) = start(offset, before) else { return };
        let after = match after.state() {
            Some(state) => After::State(state),
            None => After::Inside(Box::new(after.clone())),
        };
        let mut steps = lock(&self.steps);
        steps.insert((offset, length), Step { before, after });
        if steps.len() > MAX_STEPS {
            steps.pop_first();
        }
    }
}

fn start(offset: u64, chain: &Chain) -> Option<ChainState> {
    chain.state().filter(|_| chain.hashed() == offset)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between two statements leaves either map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checksum::Method;

    const BLOCK: usize = 1 << 20;

    #[test]
    fn what_nobody_uses_is_kept_as_far_as_memory_goes() {
        let window = Window::default();
        let bytes = || lock(&window.blocks).bytes.load(Ordering::Relaxed);
        let place = |n: usize| ((n * BLOCK) as u64, BLOCK);
        let block = |n: usize| window.block(place(n).0, place(n).1);
        let held = block(0);
        let forgotten = Arc::downgrade(&block(1));
        for n in 2..WINDOW_BYTES / BLOCK + 1 {
            block(n);
        }
        assert_eq!(bytes(), WINDOW_BYTES);
        assert!(forgotten.upgrade().is_none());
        assert!(Arc::ptr_eq(&held, &block(0)), "who is slow keeps what is in use");
        let all: Vec<_> = (100..100 + 2 * WINDOW_BYTES / BLOCK).map(block).collect();
        assert_eq!(bytes(), 2 * WINDOW_BYTES + BLOCK, "nothing is kept beside it");
        drop((all, held));
        block(1000);
        assert_eq!(bytes(), WINDOW_BYTES);
        assert_eq!(lock(&window.blocks).living.len(), WINDOW_BYTES / BLOCK);
    }

    #[test]
    fn a_step_counts_only_from_where_it_began() {
        let window = Window::default();
        let (start, mut end) = (Chain::new(Method::Sha256), Chain::new(Method::Sha256));
        end.update(&[7; 100]);
        assert!(window.after(0, 100, &start).is_none());
        window.remember(0, 100, &start, &end);
        let known = window.after(0, 100, &start).expect("remembered");
        assert_eq!(known.finish(), end.finish());
        let mut other = Chain::new(Method::Sha256);
        other.update(&[1; 64]);
        assert!(window.after(0, 100, &other).is_none());
        assert!(window.after(0, 64, &start).is_none());
    }
}
