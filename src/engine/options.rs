//! What a job is asked to do, resolved: no strings that might be wrong are left.

use std::sync::Arc;
use std::time::Duration;

use crate::model::chunk::ChunkSize;
use crate::model::names::UserId;

/// How `haul put` goes about one file on one host.
#[derive(Clone)]
pub struct PutOptions {
    pub user: UserId,
    /// Of a new upload; a resume keeps the manifest's.
    pub chunk_size: ChunkSize,
    pub if_exists: IfExists,
    pub lock: LockOptions,
    pub merge: MergeMethod,
    pub verify: VerifyMethod,
    /// "Unchanged" by size and modification time instead of by SHA-256.
    pub quick: bool,
    /// Reads and hashes the whole source again on a resume.
    pub rehash: bool,
    /// `-p`: the source's times and mode.
    pub preserve: bool,
    pub chmod: Option<u32>,
    pub chown: Chown,
    /// Also tells the SHA-256 of what is replaced.
    pub hash_existing: bool,
    /// Bytes a second, all connections together.
    pub bwlimit: Option<u64>,
    pub connections: Connections,
    pub retry: RetryOptions,
    pub dry_run: bool,
    /// Replaces by remove and rename where no rename replaces; a torn moment is accepted.
    pub non_atomic_replace: bool,
}

/// Who the target is to belong to; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chown {
    pub user: Option<Principal>,
    pub group: Option<Principal>,
}

/// A user or a group of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Id(u32),
    Name(String),
}

#[derive(Clone)]
pub enum IfExists {
    Ask(Arc<dyn AskReplace>),
    Replace,
    Skip,
    Fail,
}

/// Asks a person whether different content at the target may be replaced. Blocking.
pub trait AskReplace: Send + Sync {
    fn replace(&self, existing: &Existing) -> bool;
}

/// What stands at the target, for the question.
#[derive(Debug, Clone)]
pub struct Existing {
    /// `host:path`, escaped.
    pub target: String,
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: Option<u32>,
    pub source_size: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOptions {
    pub wait: Wait,
    /// Takes another's lock, living or not.
    pub break_lock: bool,
    pub no_lock: bool,
    /// Local `user@host`, to be named to others.
    pub holder: String,
}

/// How long to wait for a living holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    No,
    Forever,
    AtMost(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeMethod {
    Auto,
    Script,
    Sftp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMethod {
    Sha256,
    Fast,
    Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    Auto,
    Exactly(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOptions {
    /// Reconnects in a row without any progress between them.
    pub retries: u32,
    /// A link that is silent for this long, while something is awaited, is dead.
    pub stall_timeout: Duration,
}
