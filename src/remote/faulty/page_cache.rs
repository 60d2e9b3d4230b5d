//! What a power cut would take: bytes that were written and not synced, by the names that
//! their files have now.
//!
//! Names are taken to be safe: the worst for a program is that its renames outlive a power
//! cut and the bytes under them do not. What commands change is not seen here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::remote_path::RemotePath;
use crate::remote::files::OpenMode;

/// What is not on the disk of one file, in the order of the writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(Arc<Mutex<Vec<Range<u64>>>>);

/// A file of which not all is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsynced {
    pub path: Vec<u8>,
    pub ranges: Vec<Range<u64>>,
}

/// One disk, over all clients that use it.
#[derive(Default)]
pub struct PageCache(Mutex<HashMap<Vec<u8>, Ranges>>);

impl PageCache {
    /// All that a power cut would take now.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let files = self.lock();
        let all =
            files.iter().map(|(path, ranges)| Unsynced { path: path.clone(), ranges: ranges.lock().clone() });
        let mut lost: Vec<Unsynced> = all.filter(|unsynced| !unsynced.ranges.is_empty()).collect();
        lost.sort_by(|a, b| a.path.cmp(&b.path));
        lost
    }

    pub(super) fn opened(&self, path: &RemotePath, how: OpenMode) -> Ranges {
        let ranges = self.lock().entry(path.as_bytes().to_vec()).or_default().clone();
        if how.truncate {
            ranges.lock().clear();
        }
        ranges
    }

    pub(super) fn removed(&self, path: &RemotePath) {
        self.lock().remove(path.as_bytes());
    }

    /// With all that lies below it, where it is a directory.
    pub(super) fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        let mut files = self.lock();
        let from = from.as_bytes();
        let moved: Vec<Vec<u8>> = files.keys().filter(|path| is_at(path, from)).cloned().collect();
        for path in moved {
            if let Some(ranges) = files.remove(&path) {
                let rest = path.get(from.len()..).unwrap_or_default();
                files.insert([to.as_bytes(), rest].concat(), ranges);
            }
        }
    }

    pub(super) fn linked(&self, from: &RemotePath, to: &RemotePath) {
        let mut files = self.lock();
        let ranges = files.entry(from.as_bytes().to_vec()).or_default().clone();
        files.insert(to.as_bytes().to_vec(), ranges);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Ranges>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranges {
    pub(super) fn written(&self, offset: u64, length: u64) {
        self.lock().push(offset..offset.saturating_add(length));
    }

    /// How many writes a sync that begins now covers.
    pub(super) fn written_so_far(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn synced(&self, writes: usize) {
        let mut ranges = self.lock();
        let covered = writes.min(ranges.len());
        ranges.drain(..covered);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `path` is `directory` or lies below it.
fn is_at(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
