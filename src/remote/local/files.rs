//! [`Files`] on a directory of this machine.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use tokio::sync::Semaphore;

use super::errors::remote_error;
use crate::model::remote_path::RemotePath;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::files::{
    Attributes, DirectoryEntry, Features, FileKind, Files, Handle, OpenMode, Owner, PendingWrite,
    SetAttributes, Space, Times,
};

/// The most that one read or write carries.
const TRANSFER_BYTES: usize = 255 * 1024;
/// What `copy_data` moves at a time.
const COPY_BYTES: usize = 256 * 1024;
/// Calls that run at once; further ones wait, as behind a connection.
const MAX_CALLS: usize = 16;
/// Names in one reply of a listing, as OpenSSH has it; only for counting requests.
const NAMES_A_REQUEST: usize = 100;

/// A file session on a directory that is taken for `/`.
pub struct LocalFiles {
    root: PathBuf,
    features: Features,
    handles: Mutex<HashMap<Bytes, Opened>>,
    next_handle: AtomicU64,
    requests: AtomicU64,
    calls: Arc<Semaphore>,
}

#[derive(Clone)]
struct Opened {
    file: Arc<File>,
    path: RemotePath,
}

impl LocalFiles {
    pub fn new(root: &Path) -> LocalFiles {
        LocalFiles {
            root: root.to_owned(),
            features: Features {
                posix_rename: true,
                hard_link: true,
                fsync: true,
                statvfs: true,
                copy_data: true,
                write_limit: TRANSFER_BYTES,
                read_limit: TRANSFER_BYTES,
                open_handles: None,
                in_order: false,
            },
            handles: Mutex::default(),
            next_handle: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    /// Carries out one call after the other, in the order in which they were made.
    #[must_use]
    pub fn in_order(mut self) -> LocalFiles {
        self.features.in_order = true;
        self.calls = Arc::new(Semaphore::new(1));
        self
    }

    /// Where `path` lies on this machine. `..` is taken by the letter and does not lead
    /// out of the root.
    fn local(&self, what: &str, path: &RemotePath) -> Result<PathBuf, RemoteError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.as_bytes().split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if parts.pop().is_none() {
                        return Err(RemoteError::new(
                            RemoteErrorKind::PermissionDenied,
                            format!("{what}: the path leads out of the host's root"),
                        ));
                    }
                }
                part => parts.push(part),
            }
        }
        let mut local = self.root.clone().into_os_string().into_vec();
        for part in parts {
            if local.last() != Some(&b'/') {
                local.push(b'/');
            }
            local.extend_from_slice(part);
        }
        // "file/" is no file: the system says so when it sees the slash.
        if path.names_directory() && local.last() != Some(&b'/') {
            local.push(b'/');
        }
        Ok(PathBuf::from(std::ffi::OsString::from_vec(local)))
    }

    /// Counts a request and runs `call` on a thread that may block.
    async fn run<T, F>(&self, what: String, call: F) -> Result<T, RemoteError>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.count(1);
        let place = self.place().await?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            call()
        });
        settle(&what, done.await)
    }

    async fn run_at<T, F>(&self, operation: &str, path: &RemotePath, call: F) -> Result<T, RemoteError>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let what = format!("{operation} {path:?}");
        let local = self.local(&what, path)?;
        self.run(what, move || call(&local)).await
    }

    async fn run_on<T, F>(&self, operation: &str, handle: &Handle, call: F) -> Result<T, RemoteError>
    where
        T: Send + 'static,
        F: FnOnce(&File) -> io::Result<T> + Send + 'static,
    {
        let Opened { file, path } = self.opened(operation, handle)?;
        self.run(format!("{operation} {path:?}"), move || call(&file)).await
    }

    async fn run_between<F>(
        &self,
        operation: &str,
        from: &RemotePath,
        to: &RemotePath,
        call: F,
    ) -> Result<(), RemoteError>
    where
        F: FnOnce(&Path, &Path) -> io::Result<()> + Send + 'static,
    {
        let what = format!("{operation} {from:?} to {to:?}");
        let (from, to) = (self.local(&what, from)?, self.local(&what, to)?);
        self.run(what, move || call(&from, &to)).await
    }

    async fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, RemoteError> {
        let closed = |_| RemoteError::new(RemoteErrorKind::LinkLost, "the session is closed");
        Arc::clone(&self.calls).acquire_owned().await.map_err(closed)
    }

    fn count(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }

    /// No code panics while it holds the lock.
    fn handles(&self) -> MutexGuard<'_, HashMap<Bytes, Opened>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, operation: &str, handle: &Handle) -> Result<Opened, RemoteError> {
        self.handles().get(&handle.0).cloned().ok_or_else(|| unknown_handle(operation))
    }
}

fn unknown_handle(operation: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::BadRequest, format!("{operation}: no handle of this session"))
}

fn settle<T>(what: &str, done: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, RemoteError> {
    match done {
        Ok(result) => result.map_err(|error| remote_error(what, &error)),
        Err(_) => Err(RemoteError::new(RemoteErrorKind::LinkLost, format!("{what}: the call was cut off"))),
    }
}

#[async_trait]
impl Files for LocalFiles {
    fn features(&self) -> &Features {
        &self.features
    }

    async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        let what = format!("resolve {path:?}");
        let root = self.root.clone();
        let real = self.run_at("resolve", path, move |local| {
            let root = root.canonicalize()?;
            let real = canonical(local)?;
            let below = real.strip_prefix(&root).map_err(|_| io::ErrorKind::PermissionDenied)?;
            Ok([b"/", below.as_os_str().as_bytes()].concat())
        });
        path_of(&what, real.await?)
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.run_at("stat", path, |local| fs::metadata(local).map(|metadata| attributes(&metadata))).await
    }

    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        let call = |local: &Path| fs::symlink_metadata(local).map(|metadata| attributes(&metadata));
        self.run_at("lstat", path, call).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        let target = self.run_at("read link", path, |local| fs::read_link(local)).await?;
        path_of(&format!("read link {path:?}"), target.into_os_string().into_vec())
    }

    async fn list(&self, path: &RemotePath, limit: usize) -> Result<Vec<DirectoryEntry>, RemoteError> {
        let entries = self.run_at("list", path, move |local| {
            let mut entries = Vec::new();
            // One more than the limit is enough to know that there are too many.
            for entry in fs::read_dir(local)?.take(limit.saturating_add(1)) {
                let entry = entry?;
                let attributes = match entry.metadata() {
                    Ok(metadata) => attributes(&metadata),
                    // Removed since its name was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                entries.push(DirectoryEntry { name: entry.file_name().into_vec(), attributes });
            }
            Ok(entries)
        });
        let entries = entries.await?;
        // OPENDIR is counted; the READDIRs, one more that tells the end, and CLOSE are not.
        self.count(entries.len().div_ceil(NAMES_A_REQUEST).max(1) as u64 + 2);
        if entries.len() > limit {
            return Err(RemoteError::new(
                RemoteErrorKind::Protocol,
                format!("list {path:?}: it holds more than {limit} names"),
            ));
        }
        Ok(entries)
    }

    async fn open(&self, path: &RemotePath, how: OpenMode, mode: Option<u32>) -> Result<Handle, RemoteError> {
        let OpenMode { read, write, create, truncate, exclusive } = how;
        let file = self.run_at("open", path, move |local| {
            let mut options = OpenOptions::new();
            options.read(read).write(write).truncate(truncate).create(create);
            options.create_new(create && exclusive).mode(mode.unwrap_or(0o666));
            options.open(local)
        });
        let opened = Opened { file: Arc::new(file.await?), path: path.clone() };
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let handle = Bytes::copy_from_slice(&number.to_be_bytes());
        self.handles().insert(handle.clone(), opened);
        Ok(Handle(handle))
    }

    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError> {
        let call = move |file: &File| {
            let mut data = vec![0; length.min(TRANSFER_BYTES)];
            let read = retry(|| file.read_at(&mut data, offset))?;
            data.truncate(read);
            Ok(Bytes::from(data))
        };
        self.run_on("read", handle, call).await
    }

    async fn submit_write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> Result<PendingWrite, RemoteError> {
        let Opened { file, path } = self.opened("write", handle)?;
        let what = format!("write {path:?}");
        if data.len() > TRANSFER_BYTES {
            return Err(RemoteError::new(
                RemoteErrorKind::BadRequest,
                format!("{what}: more than {TRANSFER_BYTES} bytes at once"),
            ));
        }
        self.count(1);
        let place = self.place().await?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            file.write_all_at(&data, offset)
        });
        Ok(Box::pin(async move { settle(&what, done.await) }))
    }

    async fn stat_handle(&self, handle: &Handle) -> Result<Attributes, RemoteError> {
        self.run_on("stat", handle, |file| file.metadata().map(|metadata| attributes(&metadata))).await
    }

    async fn set_handle_attributes(
        &self,
        handle: &Handle,
        attributes: SetAttributes,
    ) -> Result<(), RemoteError> {
        let call = move |file: &File| {
            if let Some(size) = attributes.size {
                file.set_len(size)?;
            }
            if let Some(Owner { uid, gid }) = attributes.owner {
                std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
            }
            // After the owner, since a change of that clears mode bits.
            if let Some(mode) = attributes.mode {
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            if let Some(times) = attributes.times {
                rustix::fs::futimens(file, &timestamps(times))?;
            }
            Ok(())
        };
        self.run_on("set attributes of", handle, call).await
    }

    async fn sync(&self, handle: &Handle) -> Result<(), RemoteError> {
        self.run_on("sync", handle, File::sync_all).await
    }

    /// The standard library's close has no result, so it is always said to be well.
    async fn close(&self, handle: Handle) -> Result<(), RemoteError> {
        self.count(1);
        match self.handles().remove(&handle.0) {
            Some(_) => Ok(()),
            None => Err(unknown_handle("close")),
        }
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError> {
        let call = move |local: &Path| {
            if let Some(size) = attributes.size {
                OpenOptions::new().write(true).open(local)?.set_len(size)?;
            }
            if let Some(Owner { uid, gid }) = attributes.owner {
                std::os::unix::fs::chown(local, Some(uid), Some(gid))?;
            }
            if let Some(mode) = attributes.mode {
                fs::set_permissions(local, Permissions::from_mode(mode))?;
            }
            if let Some(times) = attributes.times {
                rustix::fs::utimensat(CWD, local, &timestamps(times), AtFlags::empty())?;
            }
            Ok(())
        };
        self.run_at("set attributes of", path, call).await
    }

    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        let call = move |local: &Path| fs::DirBuilder::new().mode(mode).create(local);
        self.run_at("make directory", path, call).await
    }

    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.run_at("remove directory", path, |local| fs::remove_dir(local)).await
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.run_at("remove", path, |local| fs::remove_file(local)).await
    }

    /// Fails when `to` exists, as OpenSSH's does.
    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let call = |from: &Path, to: &Path| {
            Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
        };
        self.run_between("rename", from, to, call).await
    }

    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.run_between("rename", from, to, |from, to| fs::rename(from, to)).await
    }

    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.run_between("link", from, to, |from, to| fs::hard_link(from, to)).await
    }

    async fn space(&self, path: &RemotePath) -> Result<Space, RemoteError> {
        let call = |local: &Path| {
            let system = rustix::fs::statvfs(local)?;
            Ok(Space {
                available_bytes: system.f_bavail.saturating_mul(system.f_frsize),
                total_bytes: system.f_blocks.saturating_mul(system.f_frsize),
                available_inodes: system.f_favail,
                total_inodes: system.f_files,
                read_only: system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
                name_max: system.f_namemax,
            })
        };
        self.run_at("free space of", path, call).await
    }

    async fn copy_data(
        &self,
        from: &Handle,
        from_offset: u64,
        length: u64,
        to: &Handle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        let source = self.opened("copy from", from)?.file;
        let same = from == to;
        let call = move |target: &File| {
            if same {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            copy(&source, from_offset, length, target, to_offset)
        };
        self.run_on("copy to", to, call).await
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Copies `length` bytes, or all to the end of the file when it is 0.
fn copy(source: &File, from: u64, length: u64, target: &File, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while length == 0 || done < length {
        let wanted = if length == 0 { COPY_BYTES as u64 } else { (length - done).min(COPY_BYTES as u64) };
        let part = &mut buffer[..wanted as usize];
        let (Some(source_at), Some(target_at)) = (from.checked_add(done), to.checked_add(done)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let read = retry(|| source.read_at(part, source_at))?;
        if read == 0 {
            return if length == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        target.write_all_at(&part[..read], target_at)?;
        done += read as u64;
    }
    Ok(())
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// As servers have it: the last component need not exist.
fn canonical(local: &Path) -> io::Result<PathBuf> {
    match (local.canonicalize(), local.parent(), local.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(parent.canonicalize()?.join(OsStr::from_bytes(name.as_bytes())))
        }
        (result, _, _) => result,
    }
}

fn path_of(what: &str, bytes: Vec<u8>) -> Result<RemotePath, RemoteError> {
    RemotePath::new(bytes)
        .map_err(|error| RemoteError::new(RemoteErrorKind::Protocol, format!("{what}: {error}")))
}

fn attributes(metadata: &Metadata) -> Attributes {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    Attributes {
        kind,
        size: Some(metadata.size()),
        mode: Some(metadata.mode() & 0o7777),
        owner: Some(Owner { uid: metadata.uid(), gid: metadata.gid() }),
        times: Some(Times { accessed: seconds(metadata.atime()), modified: seconds(metadata.mtime()) }),
    }
}

/// What SFTP can say of a time: nothing before 1970 or after 2106.
fn seconds(time: i64) -> u32 {
    time.clamp(0, i64::from(u32::MAX)) as u32
}

fn timestamps(times: Times) -> Timestamps {
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: time(times.accessed), last_modification: time(times.modified) }
}
