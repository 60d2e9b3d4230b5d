//! What the demo hears of its upload, on the way to the person's monitor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::failure::{Failure, Phase};
use crate::engine::monitor::{Monitor, Notice};

pub struct Ledger {
    inner: Arc<dyn Monitor>,
    retries: AtomicU32,
    /// The link was lost, and the upload has not gone on yet.
    is_cut: AtomicBool,
    /// Bytes that were done already when the upload went on.
    kept: AtomicU64,
}

impl Ledger {
    pub fn new(inner: Arc<dyn Monitor>) -> Ledger {
        Ledger { inner, retries: AtomicU32::new(0), is_cut: AtomicBool::new(false), kept: AtomicU64::new(0) }
    }

    /// The run ended with its link; the next one goes on.
    pub fn next_run(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub fn retries(&self) -> u32 {
        self.retries.load(Ordering::SeqCst)
    }

    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::SeqCst)
    }
}

impl Monitor for Ledger {
    fn phase(&self, phase: Phase, done: u64, total: u64) {
        if phase == Phase::Upload && self.is_cut.swap(false, Ordering::SeqCst) {
            self.kept.store(done, Ordering::SeqCst);
        }
        self.inner.phase(phase, done, total);
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        self.inner.advance(phase, bytes);
    }

    fn notice(&self, notice: Notice) {
        self.inner.notice(notice);
    }

    fn retry(&self, failure: &Failure, attempt: u32, limit: u32, pause: Duration) {
        self.retries.fetch_add(1, Ordering::SeqCst);
        self.is_cut.store(true, Ordering::SeqCst);
        self.inner.retry(failure, attempt, limit, pause);
    }
}
