//! The file operations of a target, as SFTP version 3 with OpenSSH's extensions has them
//! (draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, section 4).
//!
//! Every method is one request and one reply unless it says otherwise. When the link
//! dies before the reply, the operation may or may not have happened.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::RemoteError;
use crate::model::remote_path::RemotePath;

/// What a server announces at the start of a session. Announced is not proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    pub posix_rename: bool,
    pub hard_link: bool,
    pub fsync: bool,
    pub statvfs: bool,
    pub copy_data: bool,
    /// Most bytes one WRITE may carry: 32 KiB unless limits@openssh.com says more.
    pub write_limit: usize,
    /// Most bytes one READ may ask for.
    pub read_limit: usize,
    /// How many handles may be open at once, where the server says so.
    pub open_handles: Option<u64>,
    /// Requests are carried out one after the other in the order in which their futures were
    /// first polled. Not announced, but what OpenSSH's server does; whoever relies on it has to
    /// see a failure if it does not.
    pub in_order: bool,
}

/// A server's file handle: opaque bytes, good for the session that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handle(pub Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
    /// The server did not send the type bits.
    Unknown,
}

/// Attributes as SFTP v3 has them: times in whole seconds, absent where not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub kind: FileKind,
    pub size: Option<u64>,
    /// Permission bits only (07777).
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
    pub times: Option<Times>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub accessed: u32,
    pub modified: u32,
}

/// What to set; `None` leaves as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttributes {
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
    pub times: Option<Times>,
}

/// One name of a directory, without `.` and `..`. Not checked: may hold `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    pub name: Vec<u8>,
    pub attributes: Attributes,
}

/// Free space where the server can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this account may still write.
    pub available_bytes: u64,
    pub total_bytes: u64,
    /// Free inodes; 0 in both where the file system does not count them.
    pub available_inodes: u64,
    pub total_inodes: u64,
    pub read_only: bool,
    /// Longest name, 0 when not told.
    pub name_max: u64,
}

/// How a file is opened; the flags of SSH_FXP_OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    pub create: bool,
    pub truncate: bool,
    /// Fails when the name exists. Some servers ignore this: prove it first.
    pub exclusive: bool,
}

impl OpenMode {
    pub const READ: OpenMode =
        OpenMode { read: true, write: false, create: false, truncate: false, exclusive: false };
    /// An existing file, for writing.
    pub const WRITE: OpenMode =
        OpenMode { read: false, write: true, create: false, truncate: false, exclusive: false };
    pub const READ_WRITE: OpenMode =
        OpenMode { read: true, write: true, create: false, truncate: false, exclusive: false };
    pub const CREATE: OpenMode =
        OpenMode { read: false, write: true, create: true, truncate: true, exclusive: false };
    pub const CREATE_NEW: OpenMode =
        OpenMode { read: false, write: true, create: true, truncate: false, exclusive: true };
}

/// A write that is on its way. Awaiting it gives the server's answer; dropping it does
/// not take the write back.
pub type PendingWrite = std::pin::Pin<Box<dyn Future<Output = Result<(), RemoteError>> + Send>>;

/// One file session. Requests may be made from many tasks at once; the server may
/// carry them out in any order unless one is awaited before the next is made.
#[async_trait]
pub trait Files: Send + Sync {
    fn features(&self) -> &Features;

    async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError>;
    /// Follows symbolic links.
    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError>;
    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError>;
    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, RemoteError>;
    /// Several requests. Fails with `Protocol` past `limit` entries.
    async fn list(&self, path: &RemotePath, limit: usize) -> Result<Vec<DirectoryEntry>, RemoteError>;

    /// `mode` is what a created file gets, under the server's umask.
    async fn open(&self, path: &RemotePath, how: OpenMode, mode: Option<u32>) -> Result<Handle, RemoteError>;
    /// At most `features().read_limit` bytes; fewer may come; empty at the end of the file.
    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError>;
    /// Queues one write of at most `features().write_limit` bytes and returns when it
    /// has been handed to the connection (which is where back-pressure is felt); the
    /// returned future is the server's answer.
    async fn submit_write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> Result<PendingWrite, RemoteError>;
    async fn stat_handle(&self, handle: &Handle) -> Result<Attributes, RemoteError>;
    async fn set_handle_attributes(
        &self,
        handle: &Handle,
        attributes: SetAttributes,
    ) -> Result<(), RemoteError>;
    /// `fsync@openssh.com`; `Unsupported` where it is not announced.
    async fn sync(&self, handle: &Handle) -> Result<(), RemoteError>;
    /// Reports what the close reports: some servers tell of a failed write only here.
    /// The handle is gone afterwards, also on an error.
    async fn close(&self, handle: Handle) -> Result<(), RemoteError>;
    /// Closes what was only read from, and does not wait for an answer that says nothing.
    async fn close_unheard(&self, handle: Handle) -> Result<(), RemoteError> {
        self.close(handle).await
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError>;
    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError>;
    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError>;
    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError>;
    /// SSH_FXP_RENAME. On OpenSSH this is link and unlink and fails when `to` exists;
    /// other servers replace.
    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError>;
    /// `posix-rename@openssh.com`: replaces `to` atomically. Between two names of one
    /// inode it says OK and does nothing.
    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError>;
    /// `hardlink@openssh.com`: fails when `to` exists, atomically.
    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError>;
    /// `statvfs@openssh.com`.
    async fn space(&self, path: &RemotePath) -> Result<Space, RemoteError>;
    /// `copy-data`. OpenSSH says OK also when the disk filled up on the way: ask for
    /// the size afterwards.
    async fn copy_data(
        &self,
        from: &Handle,
        from_offset: u64,
        length: u64,
        to: &Handle,
        to_offset: u64,
    ) -> Result<(), RemoteError>;

    /// Requests made so far in this session, for tests that count round trips.
    fn requests(&self) -> u64;

    /// The shortest time that an answer took so far; `None` where no link is in between,
    /// or nothing was asked yet.
    fn round_trip(&self) -> Option<Duration> {
        None
    }
}
