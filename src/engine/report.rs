//! What came out of a job.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pace::Measured;
use crate::model::digest::Digest;
use crate::remote::files::{Attributes, Owner};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutStatus {
    Uploaded,
    Unchanged,
    Skipped,
    /// `--dry-run`: it would have been uploaded.
    WouldUpload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifiedBy {
    Sha256Target,
    Sha256Readback,
    MacTarget,
    MacReadback,
    CrcTarget,
    CrcReadback,
    Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergedBy {
    Placed,
    Script,
    Sftp,
}

/// Of `haul put` and `haul merge`, one file on one host.
#[derive(Debug, Clone)]
pub struct PutReport {
    pub status: PutStatus,
    /// The path on the target as it was resolved, escaped.
    pub target: String,
    pub size: u64,
    pub sha256: Option<Digest>,
    pub verified_by: Option<VerifiedBy>,
    pub merge: Option<MergedBy>,
    pub chunks_total: u64,
    pub chunks_sent: u64,
    /// There from an earlier run, merged or not.
    pub chunks_skipped: u64,
    /// Payload handed to the connection, repeats included.
    pub bytes_sent: u64,
    pub resumed: bool,
    /// By phase name.
    pub seconds: BTreeMap<&'static str, Duration>,
    /// How it was sent, where anything was.
    pub pace: Option<Measured>,
    pub attributes: AttributesReport,
}

/// Of the file at the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttributesReport {
    /// As they are now, or in a dry run would be; `None` where that is not known.
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
    /// The content was the same, and mode, owner or times were, or would be, set.
    pub changed: bool,
    /// What stood there when the job began.
    pub before: Option<BeforeReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeforeReport {
    pub attributes: Attributes,
    /// Where it was computed.
    pub sha256: Option<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    Absent,
    /// Chunks are there, more are missing.
    Partial,
    /// All chunks are there or merged already; the merge is not finished.
    Merging,
    /// The target is there and no upload is under way.
    Complete,
}

/// Of `haul status`.
#[derive(Debug, Clone)]
pub struct StatusReport {
    pub target: String,
    pub state: TargetState,
    /// Of the file that stands at the target.
    pub size: Option<u64>,
    pub modified: Option<u32>,
    /// Of the upload under way, from its manifest.
    pub upload: Option<UploadStatus>,
    pub lock: Option<LockStatus>,
}

#[derive(Debug, Clone)]
pub struct UploadStatus {
    pub chunks_total: u64,
    /// Published as files of their own or merged already.
    pub chunks_present: u64,
    pub chunks_merged: u64,
    pub chunk_size: u64,
    /// Escaped.
    pub source_name: String,
    pub source_size: u64,
    pub source_identity: String,
}

#[derive(Debug, Clone)]
pub struct LockStatus {
    /// Escaped, as is the holder.
    pub user: String,
    /// Local user@host of the holder.
    pub holder: String,
    pub run: String,
    /// Seconds since the epoch, by the holder's clock.
    pub since: u64,
    /// `None`: it could not be told.
    pub alive: Option<bool>,
}

/// Of `haul clean`.
#[derive(Debug, Clone)]
pub struct CleanReport {
    pub target: String,
    pub removed_chunks: u64,
    pub removed_anything: bool,
    /// The owner of what was removed by force.
    pub forced_owner: Option<String>,
}
