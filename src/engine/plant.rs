//! Faults in haul itself, for the soak to find: it has to turn red with each of them, or it
//! shows nothing. Each stands at the one place where haul does it right.
//!
//! A program that is built for use has none of this: it is compiled with debug assertions
//! only, and nothing but a test plants anything. A cargo feature would do the same, and have
//! the tests build everything twice.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU8, Ordering};

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// The merged file is put in place before its digest is known.
    CommitBeforeVerify = 1,
    /// A chunk is removed before the record says that it is merged.
    RemoveBeforeRecord = 2,
    /// A commit whose reply was lost is taken for done.
    TrustLostReply = 3,
    /// Nothing is synced to the target's disk.
    NoSync = 4,
}

#[cfg(debug_assertions)]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// From now on, in all of this process.
#[cfg(debug_assertions)]
pub fn plant(plant: Plant) {
    PLANTED.store(plant as u8, Ordering::Relaxed);
}

#[cfg(debug_assertions)]
pub(super) fn is_planted(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

#[cfg(not(debug_assertions))]
pub(super) fn is_planted(_: Plant) -> bool {
    false
}
