//! Every interval and limit of the lock, in one place.

use std::time::Duration;

/// The lock's clockwork. Tests run with shorter intervals; all clients of one target are
/// to use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockTimes {
    /// From one heartbeat to the next.
    pub beat: Duration,
    /// How often an observer looks at another's lock.
    pub look: Duration,
    /// A holder without a new beat, or any progress in its temp directory, for this long
    /// by the observer's own clock is dead.
    pub dead_after: Duration,
    /// After a lock was moved that was not the one to take: its owner links it again at
    /// its next beat, so this is longer than `beat`.
    pub step_back: Duration,
    /// A holder whose last acknowledged beat was sent longer ago than this looks at the
    /// lock before it does what counts.
    pub stale_after: Duration,
    /// Before fencing a directory again that the server would not rename.
    pub fence_pause: Duration,
    /// Before looking again at one's own lock that the server would not show.
    pub denied_pause: Duration,
}

impl Default for LockTimes {
    fn default() -> LockTimes {
        LockTimes {
            beat: Duration::from_secs(2),
            look: Duration::from_secs(1),
            dead_after: Duration::from_secs(10),
            step_back: Duration::from_secs(3),
            stale_after: Duration::from_secs(6),
            fence_pause: Duration::from_secs(1),
            denied_pause: Duration::from_millis(500),
        }
    }
}

/// How often an acquisition begins anew before it gives up. Each time some other client
/// got further, so this is reached only where the target does not behave.
pub const ACQUIRE_TRIES: u32 = 64;
/// How often a link that failed without a lock in its way is tried.
pub const UNEXPLAINED_TRIES: u32 = 4;
/// How often making the directories is tried while others remove them, being empty.
pub const MAKE_TRIES: u32 = 8;
/// How often a lock that vanished after it was linked is linked again at once.
pub const RELINK_TRIES: u32 = 4;
/// How often fencing goes through the temp directory.
pub const FENCE_TRIES: u32 = 6;
/// Most directories that one older run may bring along; each crash while fencing nests one.
pub const FENCED_AT_ONCE_MAX: usize = 1000;
/// Most names in a temp directory; past that it is no temp directory of haul's.
pub const TEMP_ENTRIES_MAX: usize = 1_000_000;
/// Most names in a run's private directory that this module reads.
pub const RUN_ENTRIES_MAX: usize = 100_000;
