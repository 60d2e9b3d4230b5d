//! How the engine tells what it does. It never talks to a terminal itself.

use super::failure::{Failure, Phase};

/// The total of a phase whose end nobody knows.
pub const UNKNOWN_TOTAL: u64 = u64::MAX;

/// Receives what happens in one job on one host. Called from many tasks; must not block.
pub trait Monitor: Send + Sync {
    /// A phase begins, with `total` bytes (or [`UNKNOWN_TOTAL`]) to go through and `done` of them done already.
    /// Upload and merge run at the same time, each as a phase of its own.
    fn phase(&self, phase: Phase, done: u64, total: u64);

    /// `bytes` more of `phase` are done.
    fn advance(&self, phase: Phase, bytes: u64);

    /// Something a person should know, in one line, already escaped.
    fn notice(&self, notice: Notice);

    /// A retry begins after `failure`; `attempt` counts from 1, of at most `limit`.
    fn retry(&self, failure: &Failure, attempt: u32, limit: u32, pause: std::time::Duration);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub level: Level,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Shown with -v.
    Detail,
    /// Shown unless -q.
    Info,
    /// Always shown.
    Warning,
}

/// Hears everything and says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn phase(&self, _: Phase, _: u64, _: u64) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn notice(&self, _: Notice) {}
    fn retry(&self, _: &Failure, _: u32, _: u32, _: std::time::Duration) {}
}
