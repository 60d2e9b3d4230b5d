//! What hosts that go side by side share of a source.
//!
//! The last blocks that were read are kept, and one that somebody still sends is found
//! as long as it lives. Whoever comes while a block is being read waits for that one
//! read. A host that has fallen behind reads again, which the system's cache makes cheap;
//! but nobody hashes again: what hashing a block came to is remembered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::model::digest::{Chain, ChainState};

/// Bytes that are kept for those who come a little later.
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
    recent_bytes: usize,
}

/// A part of the source; empty until it was read.
#[derive(Debug)]
pub struct Block {
    pub content: OnceCell<Bytes>,
    length: usize,
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

impl Window {
    /// The block at this place, to be read by whoever comes first.
    pub fn block(&self, offset: u64, length: usize) -> Arc<Block> {
        let mut blocks = lock(&self.blocks);
        let place = (offset, length);
        if let Some(block) = blocks.living.get(&place).and_then(Weak::upgrade) {
            return block;
        }
        let block = Arc::new(Block { content: OnceCell::new(), length });
        blocks.recent_bytes += length;
        blocks.recent.push_back(block.clone());
        while blocks.recent_bytes > WINDOW_BYTES {
            let Some(oldest) = blocks.recent.pop_front() else { break };
            blocks.recent_bytes -= oldest.length;
        }
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

    const BLOCK: usize = 1 << 20;

    #[test]
    fn recent_blocks_are_kept_and_older_ones_while_somebody_has_them() {
        let window = Window::default();
        let held = window.block(0, BLOCK);
        let gone = Arc::downgrade(&window.block(BLOCK as u64, BLOCK));
        for n in 2..20 {
            window.block(n * BLOCK as u64, BLOCK);
        }
        assert!(gone.upgrade().is_none());
        assert!(Arc::ptr_eq(&held, &window.block(0, BLOCK)));
        let blocks = lock(&window.blocks);
        assert_eq!(blocks.recent_bytes, WINDOW_BYTES);
        assert!(blocks.living.len() <= WINDOW_BYTES / BLOCK + 2, "{}", blocks.living.len());
    }

    #[test]
    fn a_step_counts_only_from_where_it_began() {
        let window = Window::default();
        let (start, mut end) = (Chain::new(), Chain::new());
        end.update(&[7; 100]);
        assert!(window.after(0, 100, &start).is_none());
        window.remember(0, 100, &start, &end);
        let known = window.after(0, 100, &start).expect("remembered");
        assert_eq!(known.finish(), end.finish());
        let mut other = Chain::new();
        other.update(&[1; 64]);
        assert!(window.after(0, 100, &other).is_none());
        assert!(window.after(0, 64, &start).is_none());
    }
}
