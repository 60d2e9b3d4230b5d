//! [`Files`] over an SFTP session: which request asks what, and what its reply means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::codec::{self, MAX_HANDLE_BYTES, MAX_PATH_BYTES, Reply, Status};
use super::listing::{Listing, OpenDirectory};
use super::request::Request;
use super::session::{Answer, Requests, Session};
use super::status;
use crate::model::remote_path::RemotePath;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::files::{
    Attributes, DirectoryEntry, Features, Files, Handle, OpenMode, PendingWrite, SetAttributes, Space,
};

/// Most names of a directory that are looked through for one that may be missing.
const MISSING_ENTRIES_MAX: usize = 100_000;
/// A server that takes as many handles as this is never short of them.
const FEW_HANDLES: u64 = 16;
/// How long a file waits for another one to be closed, on a server with few handles.
const HANDLE_LIMIT: Duration = Duration::from_secs(3);
/// ST_RDONLY in what statvfs answers.
const READ_ONLY: u64 = 1;

/// An SFTP session. Dropping it ends the session once what was asked is answered.
///
/// Dropping the future of a request gives up its answer only: the request may still be
/// carried out. A handle that comes back to a dropped `open` is closed.
pub struct SftpClient {
    session: Session,
    features: Features,
    paths: Arc<OpenPaths>,
    /// As many places as handles may be open, where that is few.
    gate: Option<Arc<Semaphore>>,
}

/// One of the handles that may be open; `None` where there are enough.
type Place = Option<OwnedSemaphorePermit>;

/// The paths of open handles, for messages and to notice one that is given twice.
#[derive(Default)]
struct OpenPaths(Mutex<HashMap<Bytes, (RemotePath, Place)>>);

/// What a request is about, for messages.
enum Object<'a> {
    Path(&'a RemotePath),
    Paths(&'a RemotePath, &'a RemotePath),
    Handle(&'a OpenPaths, &'a Handle),
}

impl OpenPaths {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Bytes, (RemotePath, Place)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Path(path) => write!(f, "{path:?}"),
            Object::Paths(from, to) => write!(f, "{from:?} to {to:?}"),
            Object::Handle(paths, handle) => match paths.lock().get(&handle.0) {
                Some((path, _)) => write!(f, "{path:?}"),
                None => f.write_str("a closed file"),
            },
        }
    }
}

impl SftpClient {
    pub(super) fn new(session: Session, features: Features) -> SftpClient {
        let few = features.open_handles.filter(|handles| *handles < FEW_HANDLES);
        let gate = few.and_then(|handles| usize::try_from(handles).ok()).map(|n| Arc::new(Semaphore::new(n)));
        SftpClient { session, features, paths: Arc::default(), gate }
    }

    fn requests(&self) -> &Requests {
        self.session.requests()
    }

    async fn ask(
        &self,
        operation: &str,
        object: Object<'_>,
        request: Request<'_>,
    ) -> Result<Reply, RemoteError> {
        let requests = self.requests();
        match &object {
            Object::Path(path) => check_path(operation, path)?,
            Object::Paths(from, to) => {
                check_path(operation, from)?;
                check_path(operation, to)?;
            }
            Object::Handle(_, handle) => check_handle(operation, handle)?,
        }
        let answer = match requests.submit(request, Bytes::new()).await {
            Ok(answer) => reply_of(answer, requests).await,
            Err(reason) => Err(reason),
        };
        answer.map_err(|reason| about(operation, &object, &reason))
    }

    /// Asks for something that is answered by a status alone.
    async fn order(
        &self,
        operation: &str,
        object: Object<'_>,
        request: Request<'_>,
    ) -> Result<(), RemoteError> {
        let what = format!("{operation} {object}");
        match self.ask(operation, object, request).await? {
            Reply::Status(Status { code: status::OK, .. }) => Ok(()),
            other => Err(self.refused(&what, other)),
        }
    }

    async fn ask_attributes(
        &self,
        operation: &str,
        object: Object<'_>,
        request: Request<'_>,
    ) -> Result<Attributes, RemoteError> {
        let what = format!("{operation} {object}");
        match self.ask(operation, object, request).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => Err(self.refused(&what, other)),
        }
    }

    async fn ask_handle(
        &self,
        operation: &str,
        path: &RemotePath,
        request: Request<'_>,
    ) -> Result<Bytes, RemoteError> {
        match self.ask(operation, Object::Path(path), request).await? {
            Reply::Handle(handle) => Ok(handle),
            other => Err(self.refused(&format!("{operation} {path:?}"), other)),
        }
    }

    async fn ask_path(
        &self,
        operation: &str,
        path: &RemotePath,
        request: Request<'_>,
    ) -> Result<RemotePath, RemoteError> {
        let what = format!("{operation} {path:?}");
        match self.ask(operation, Object::Path(path), request).await? {
            Reply::Names(names) => {
                let name = names.into_iter().next().map(|name| name.name).unwrap_or_default();
                RemotePath::new(name).map_err(|error| {
                    RemoteError::new(
                        RemoteErrorKind::Protocol,
                        format!("{what}: the answer is no path: {error}"),
                    )
                })
            }
            other => Err(self.refused(&what, other)),
        }
    }

    /// The error of a reply that is not the one hoped for.
    fn refused(&self, what: &str, reply: Reply) -> RemoteError {
        match reply {
            Reply::Status(status) if status.code != status::OK => status::error_of(what, &status),
            _ => {
                // Replies are out of step with requests: no further one can be believed.
                let error = RemoteError::new(
                    RemoteErrorKind::Protocol,
                    format!("{what}: the server answered something else than was asked"),
                );
                self.requests().end(error.clone());
                error
            }
        }
    }

    /// Some servers have a bare "Failure" for what is not there, too (Twisted's under
    /// Python 3): then the listing of the directory that it would be in tells.
    async fn or_missing<T>(
        &self,
        path: &RemotePath,
        outcome: Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        match outcome {
            Err(error) if error.kind == RemoteErrorKind::Failure && !path.file_name().is_empty() => {
                let missing = match self.list(&path.parent(), MISSING_ENTRIES_MAX).await {
                    Ok(entries) => entries.iter().all(|entry| entry.name != path.file_name()),
                    Err(above) => above.is_not_found(),
                };
                let kind = if missing { RemoteErrorKind::NotFound } else { error.kind };
                Err(RemoteError { kind, ..error })
            }
            outcome => outcome,
        }
    }

    /// Waits until one more handle may be open, where the server keeps few apart.
    async fn place_for_a_handle(&self, operation: &str, path: &RemotePath) -> Result<Place, RemoteError> {
        let Some(gate) = &self.gate else { return Ok(None) };
        match tokio::time::timeout(HANDLE_LIMIT, gate.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(RemoteError::new(
                RemoteErrorKind::Failure,
                format!("{operation} {path:?}: the server keeps no more open files apart in one session"),
            )),
        }
    }

    /// A handle that another open file has would mix up the two.
    async fn keep_handle(
        &self,
        operation: &str,
        path: &RemotePath,
        handle: Bytes,
        place: Place,
    ) -> Result<Bytes, RemoteError> {
        let other = match self.paths.lock().entry(handle.clone()) {
            Entry::Vacant(free) => {
                free.insert((path.clone(), place));
                return Ok(handle);
            }
            Entry::Occupied(other) => other.get().0.clone(),
        };
        self.order("close", Object::Path(path), Request::Close { handle: &handle }).await?;
        Err(RemoteError::new(
            RemoteErrorKind::Failure,
            format!("{operation} {path:?}: the server gave it the handle of {other:?}, which is still open"),
        ))
    }

    fn require(&self, announced: bool, extension: &str, what: impl fmt::Display) -> Result<(), RemoteError> {
        if announced {
            return Ok(());
        }
        Err(RemoteError::new(
            RemoteErrorKind::Unsupported,
            format!("{what}: the server does not announce {extension}"),
        ))
    }
}

async fn reply_of(answer: oneshot::Receiver<Answer>, requests: &Requests) -> Result<Reply, RemoteError> {
    answer.await.ok().and_then(Answer::take).ok_or_else(|| requests.reason())
}

/// The same reason, told of this request.
fn about(operation: &str, object: &Object<'_>, reason: &RemoteError) -> RemoteError {
    RemoteError::new(reason.kind, format!("{operation} {object}: {}", reason.message))
}

fn check_path(operation: &str, path: &RemotePath) -> Result<(), RemoteError> {
    if path.as_bytes().len() <= MAX_PATH_BYTES {
        return Ok(());
    }
    Err(RemoteError::new(
        RemoteErrorKind::BadRequest,
        format!("{operation}: the path is longer than {MAX_PATH_BYTES} bytes"),
    ))
}

fn check_handle(operation: &str, handle: &Handle) -> Result<(), RemoteError> {
    if handle.0.len() <= MAX_HANDLE_BYTES {
        return Ok(());
    }
    Err(RemoteError::new(RemoteErrorKind::BadRequest, format!("{operation}: no handle of this session")))
}

/// The handle of a directory that is being read, known as open until it drops.
struct ListedHandle<'a> {
    handle: Bytes,
    paths: &'a OpenPaths,
}

impl Drop for ListedHandle<'_> {
    fn drop(&mut self) {
        self.paths.lock().remove(&self.handle);
    }
}

#[async_trait]
impl Files for SftpClient {
    fn features(&self) -> &Features {
        &self.features
    }

    async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        self.ask_path("resolve", path, Request::RealPath { path: path.as_bytes() }).await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        let request = Request::Stat { path: path.as_bytes() };
        let found = self.ask_attributes("stat", Object::Path(path), request).await;
        self.or_missing(path, found).await
    }

    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        let request = Request::LinkStat { path: path.as_bytes() };
        let found = self.ask_attributes("lstat", Object::Path(path), request).await;
        self.or_missing(path, found).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        self.ask_path("read link", path, Request::ReadLink { path: path.as_bytes() }).await
    }

    async fn list(&self, path: &RemotePath, limit: usize) -> Result<Vec<DirectoryEntry>, RemoteError> {
        let place = self.place_for_a_handle("list", path).await?;
        let request = Request::OpenDirectory { path: path.as_bytes() };
        let opened = self.ask_handle("list", path, request).await;
        let handle = self.or_missing(path, opened).await?;
        let handle = self.keep_handle("list", path, handle, place).await?;
        let mut directory = OpenDirectory { handle, requests: self.requests(), closed: false };
        // Dropped before the directory is: then its close may be on its way.
        let listed = ListedHandle { handle: directory.handle.clone(), paths: &self.paths };
        let mut listing = Listing::new(path, limit);
        let read = || {
            let request = Request::ReadDirectory { handle: &directory.handle };
            self.ask("list", Object::Path(path), request)
        };
        loop {
            // Most directories end with the second answer.
            let answers = match self.features.in_order {
                true => <[_; 2]>::from(tokio::try_join!(read(), read())?).into(),
                false => vec![read().await?],
            };
            let mut at_end = false;
            for answer in answers {
                match answer {
                    Reply::Names(names) => listing.add(names)?,
                    Reply::Status(Status { code: status::END_OF_FILE, .. }) => at_end = true,
                    other => return Err(self.refused(&format!("list {path:?}"), other)),
                }
            }
            if at_end {
                break;
            }
        }
        // Nothing hangs on how a directory closes, so nobody waits for it.
        let _place = self.paths.lock().remove(&directory.handle);
        drop(listed);
        let close = Request::Close { handle: &directory.handle };
        let sent = self.requests().submit(close, Bytes::new()).await;
        directory.closed = true;
        sent.map_err(|reason| about("list", &Object::Path(path), &reason))?;
        Ok(listing.into_entries())
    }

    async fn open(&self, path: &RemotePath, how: OpenMode, mode: Option<u32>) -> Result<Handle, RemoteError> {
        let place = self.place_for_a_handle("open", path).await?;
        let request = Request::Open { path: path.as_bytes(), how, mode };
        let opened = self.ask_handle("open", path, request).await;
        let handle = if how.create { opened? } else { self.or_missing(path, opened).await? };
        self.keep_handle("open", path, handle, place).await.map(Handle)
    }

    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError> {
        let length = length.min(self.features.read_limit);
        let object = || Object::Handle(&self.paths, handle);
        let request = Request::Read { handle: &handle.0, offset, length: length as u32 };
        match self.ask("read", object(), request).await? {
            Reply::Data(data) if data.len() <= length => Ok(data),
            Reply::Status(Status { code: status::END_OF_FILE, .. }) => Ok(Bytes::new()),
            other => Err(self.refused(&format!("read {}", object()), other)),
        }
    }

    async fn submit_write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> Result<PendingWrite, RemoteError> {
        check_handle("write", handle)?;
        if data.len() > self.features.write_limit {
            let limit = self.features.write_limit;
            return Err(RemoteError::new(
                RemoteErrorKind::BadRequest,
                format!("write {}: more than {limit} bytes at once", Object::Handle(&self.paths, handle)),
            ));
        }
        let request = Request::Write { handle: &handle.0, offset, length: data.len() as u32 };
        let answer = self.requests().submit(request, data).await;
        let answer =
            answer.map_err(|reason| about("write", &Object::Handle(&self.paths, handle), &reason))?;
        let (requests, paths, handle) = (self.requests().clone(), Arc::clone(&self.paths), handle.clone());
        Ok(Box::pin(async move {
            let object = Object::Handle(&paths, &handle);
            match reply_of(answer, &requests).await {
                Ok(Reply::Status(Status { code: status::OK, .. })) => Ok(()),
                Ok(Reply::Status(status)) => Err(status::error_of(&format!("write {object}"), &status)),
                Ok(_) => {
                    let error = RemoteError::new(
                        RemoteErrorKind::Protocol,
                        format!("write {object}: the server answered something else than was asked"),
                    );
                    requests.end(error.clone());
                    Err(error)
                }
                Err(reason) => Err(about("write", &object, &reason)),
            }
        }))
    }

    async fn stat_handle(&self, handle: &Handle) -> Result<Attributes, RemoteError> {
        let request = Request::HandleStat { handle: &handle.0 };
        self.ask_attributes("stat", Object::Handle(&self.paths, handle), request).await
    }

    async fn set_handle_attributes(
        &self,
        handle: &Handle,
        attributes: SetAttributes,
    ) -> Result<(), RemoteError> {
        let request = Request::SetHandleStat { handle: &handle.0, attributes };
        self.order("set attributes of", Object::Handle(&self.paths, handle), request).await
    }

    async fn sync(&self, handle: &Handle) -> Result<(), RemoteError> {
        let object = Object::Handle(&self.paths, handle);
        self.require(self.features.fsync, "fsync@openssh.com", format_args!("sync {object}"))?;
        self.order("sync", object, Request::Sync { handle: &handle.0 }).await
    }

    async fn close(&self, handle: Handle) -> Result<(), RemoteError> {
        let closing = ClosingHandle { handle: Some(handle.0), client: self };
        let Some(bytes) = &closing.handle else { return Ok(()) };
        let handle = Handle(bytes.clone());
        check_handle("close", &handle)?;
        let what = format!("close {}", Object::Handle(&self.paths, &handle));
        let told = |reason: RemoteError| RemoteError::new(reason.kind, format!("{what}: {}", reason.message));
        // Once the close is on its way the server may give the handle to the next file.
        let _place = self.paths.lock().remove(&handle.0);
        let answer = self.requests().submit(Request::Close { handle: &handle.0 }, Bytes::new()).await;
        closing.sent();
        let reply = reply_of(answer.map_err(told)?, self.requests()).await.map_err(told)?;
        match reply {
            Reply::Status(Status { code: status::OK, .. }) => Ok(()),
            other => Err(self.refused(&what, other)),
        }
    }

    async fn close_unheard(&self, handle: Handle) -> Result<(), RemoteError> {
        if self.gate.is_some() {
            return self.close(handle).await;
        }
        self.paths.lock().remove(&handle.0);
        self.requests().close_later(handle.0);
        Ok(())
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError> {
        let request = Request::SetStat { path: path.as_bytes(), attributes };
        self.order("set attributes of", Object::Path(path), request).await
    }

    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        let request = Request::MakeDirectory { path: path.as_bytes(), mode };
        self.order("make directory", Object::Path(path), request).await
    }

    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let request = Request::RemoveDirectory { path: path.as_bytes() };
        self.order("remove directory", Object::Path(path), request).await
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.order("remove", Object::Path(path), Request::Remove { path: path.as_bytes() }).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let request = Request::Rename { from: from.as_bytes(), to: to.as_bytes() };
        self.order("rename", Object::Paths(from, to), request).await
    }

    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let object = Object::Paths(from, to);
        let announced = self.features.posix_rename;
        self.require(announced, "posix-rename@openssh.com", format_args!("rename {object}"))?;
        let request = Request::PosixRename { from: from.as_bytes(), to: to.as_bytes() };
        self.order("rename", object, request).await
    }

    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        let object = Object::Paths(from, to);
        self.require(self.features.hard_link, "hardlink@openssh.com", format_args!("link {object}"))?;
        let request = Request::HardLink { from: from.as_bytes(), to: to.as_bytes() };
        self.order("link", object, request).await
    }

    async fn space(&self, path: &RemotePath) -> Result<Space, RemoteError> {
        let what = format!("free space of {path:?}");
        self.require(self.features.statvfs, "statvfs@openssh.com", &what)?;
        let request = Request::FileSystem { path: path.as_bytes() };
        let reply = self.ask("free space of", Object::Path(path), request).await?;
        let Reply::Extended(body) = reply else {
            return Err(self.refused(&what, reply));
        };
        let system = codec::decode_file_system(body).map_err(|error| {
            RemoteError::new(RemoteErrorKind::Protocol, format!("{what}: the answer is {error}"))
        })?;
        Ok(Space {
            available_bytes: system.available_blocks.saturating_mul(system.fragment_bytes),
            total_bytes: system.blocks.saturating_mul(system.fragment_bytes),
            available_inodes: system.available_inodes,
            total_inodes: system.inodes,
            read_only: system.flags & READ_ONLY != 0,
            name_max: system.name_max,
        })
    }

    async fn copy_data(
        &self,
        from: &Handle,
        from_offset: u64,
        length: u64,
        to: &Handle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        let object = Object::Handle(&self.paths, to);
        self.require(self.features.copy_data, "copy-data", format_args!("copy to {object}"))?;
        check_handle("copy from", from)?;
        let request = Request::CopyData { from: &from.0, from_offset, length, to: &to.0, to_offset };
        self.order("copy to", object, request).await
    }

    fn requests(&self) -> u64 {
        self.session.requests().count()
    }

    fn round_trip(&self) -> Option<Duration> {
        self.session.requests().round_trip()
    }
}

/// A handle on its way to be closed: it is, also when the future of `close` is dropped.
struct ClosingHandle<'a> {
    handle: Option<Bytes>,
    client: &'a SftpClient,
}

impl ClosingHandle<'_> {
    fn sent(mut self) {
        self.handle = None;
    }
}

impl Drop for ClosingHandle<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.client.requests().close_later(handle);
        }
    }
}
