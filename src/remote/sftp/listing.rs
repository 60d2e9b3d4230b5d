//! A directory's names as they come in, and how much of them is taken.

use bytes::Bytes;

use super::codec::Name;
use super::session::Requests;
use crate::model::remote_path::RemotePath;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::files::DirectoryEntry;

/// The longest name that a listing may hold; file systems end at 255 characters.
const MAX_NAME_BYTES: usize = 1024;
/// All names of one listing together.
const MAX_LISTING_BYTES: usize = 32 * 1024 * 1024;
/// Replies to READDIR in a row that may bring nothing new.
const MAX_EMPTY_READS: usize = 16;

/// An open directory, closed when it drops.
pub struct OpenDirectory<'a> {
    pub handle: Bytes,
    pub requests: &'a Requests,
    /// Its close has been sent.
    pub closed: bool,
}

impl Drop for OpenDirectory<'_> {
    fn drop(&mut self) {
        if !self.closed {
            self.requests.close_later(self.handle.clone());
        }
    }
}

/// What a listing has gathered so far, and its bounds.
pub struct Listing<'a> {
    path: &'a RemotePath,
    limit: usize,
    entries: Vec<DirectoryEntry>,
    name_bytes: usize,
    empty_reads: usize,
}

impl Listing<'_> {
    pub fn new(path: &RemotePath, limit: usize) -> Listing<'_> {
        Listing { path, limit, entries: Vec::new(), name_bytes: 0, empty_reads: 0 }
    }

    pub fn into_entries(self) -> Vec<DirectoryEntry> {
        self.entries
    }

    /// Takes the names of one reply.
    pub fn add(&mut self, names: Vec<Name>) -> Result<(), RemoteError> {
        let before = self.entries.len();
        for Name { name, attributes } in names {
            if name == b"." || name == b".." {
                continue;
            }
            self.name_bytes += name.len();
            if name.len() > MAX_NAME_BYTES || self.name_bytes > MAX_LISTING_BYTES {
                return Err(self.too_much("its names are longer than any file system's"));
            }
            if self.entries.len() == self.limit {
                return Err(self.too_much(&format!("it holds more than {} names", self.limit)));
            }
            self.entries.push(DirectoryEntry { name, attributes });
        }
        self.empty_reads = if self.entries.len() > before { 0 } else { self.empty_reads + 1 };
        if self.empty_reads > MAX_EMPTY_READS {
            return Err(self.too_much("it does not end"));
        }
        Ok(())
    }

    fn too_much(&self, why: &str) -> RemoteError {
        RemoteError::new(RemoteErrorKind::Protocol, format!("list {:?}: {why}", self.path))
    }
}
