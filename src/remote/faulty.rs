//! A host on which one operation goes wrong, by a script: for tests of all that stands above.
//!
//! Every operation of one client is counted over all its connections and channels, so a
//! test can let the client die, or its link, at call k for every k there is.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

pub use page_cache::{PageCache, Unsynced};

use super::files::{
    Attributes, DirectoryEntry, Features, Files, Handle, OpenMode, PendingWrite, SetAttributes, Space,
};
use super::process::{ExecRequest, Process, ProcessEvent};
use super::{Connection, Connector, RemoteError, RemoteErrorKind};
use crate::model::remote_path::RemotePath;

use page_cache::Ranges;

mod page_cache;

/// Events of a command that wait for their reader.
const EVENT_QUEUE: usize = 16;

/// What goes wrong at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client is killed before the call: it is not made, and nothing comes after it.
    Crash,
    /// The client is killed when the call has been carried out.
    CrashAfter,
    /// The client is killed with the call on its way: it is carried out when
    /// [`FaultScript::take_late`] gives it, however late that is.
    CrashLate,
    /// The connection dies before the call; a new one can be made.
    LinkLost,
    /// The call is carried out, and its reply is lost with the connection.
    LinkLostAfter,
    /// The server refuses the call, this once.
    Refuse(RemoteErrorKind),
    /// A `copy-data` that copies half and says OK. Other calls are not touched.
    ShortCopy,
    /// A write that writes nothing and says OK. Other calls are not touched.
    DropWrite,
    /// A write that stores one wrong byte and says OK. Other calls are not touched.
    CorruptWrite,
    /// Nothing: only the hook is called.
    Nothing,
}

/// A call of a dead client that the server has still to carry out.
pub type LateCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Never,
    /// At this call of all, from 1.
    Call(usize),
    /// At this call of one operation, from 1; those on lock files are not counted.
    Nth(&'static str, usize),
}

/// One call as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub operation: &'static str,
    /// The path, also where a handle was given.
    pub object: String,
    pub offset: u64,
    pub length: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.object)?;
        if self.length > 0 {
            write!(f, " {}+{}", self.offset, self.length)?;
        }
        Ok(())
    }
}

/// What is to happen to one client, and what it did.
pub struct FaultScript {
    moment: Moment,
    fault: Fault,
    /// Chooses the byte that is corrupted.
    seed: u64,
    state: Mutex<State>,
    /// Called once, at the fault, before it takes effect.
    at_fault: Box<dyn Fn() + Send + Sync>,
    late: Mutex<Option<LateCall>>,
    cache: Arc<PageCache>,
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    of_operation: usize,
    fired_at: Option<usize>,
}

impl FaultScript {
    /// Nothing goes wrong; the calls are noted.
    pub fn faultless() -> FaultScript {
        FaultScript::new(Moment::Never, Fault::Crash, 0)
    }

    pub fn new(moment: Moment, fault: Fault, seed: u64) -> FaultScript {
        FaultScript {
            moment,
            fault,
            seed,
            state: Mutex::default(),
            at_fault: Box::new(|| {}),
            late: Mutex::default(),
            cache: Arc::default(),
            dead: watch::Sender::new(false),
        }
    }

    /// Calls `hook` at the fault, before it takes effect.
    #[must_use]
    pub fn at_fault(mut self, hook: impl Fn() + Send + Sync + 'static) -> FaultScript {
        self.at_fault = Box::new(hook);
        self
    }

    /// What is written and not synced is noted in `cache`, which outlives this client.
    #[must_use]
    pub fn on(mut self, cache: Arc<PageCache>) -> FaultScript {
        self.cache = cache;
        self
    }

    /// The call that [`Fault::CrashLate`] held back.
    pub fn take_late(&self) -> Option<LateCall> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hold_back(&self, call: LateCall) {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    /// All calls so far that reached the server or were to fail.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many calls had been made when the fault happened, it included.
    pub fn fired_at(&self) -> Option<usize> {
        self.lock().fired_at
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call and says what goes wrong with it.
    fn note(&self, call: Call) -> Option<Fault> {
        let fires = {
            let mut state = self.lock();
            let fires = match self.moment {
                Moment::Never => false,
                Moment::Call(k) => state.calls.len() + 1 == k,
                Moment::Nth(operation, n) => {
                    let counts = call.operation == operation && !call.object.ends_with("lock");
                    state.of_operation += usize::from(counts);
                    counts && state.of_operation == n
                }
            };
            state.calls.push(call);
            if fires {
                state.fired_at = Some(state.calls.len());
            }
            fires
        };
        if fires {
            (self.at_fault)();
        }
        fires.then_some(self.fault)
    }
}

/// A connector whose connections follow a script.
pub struct FaultyConnector {
    inner: Arc<dyn Connector>,
    script: Arc<FaultScript>,
    features: fn(&mut Features),
}

impl FaultyConnector {
    pub fn new(inner: Arc<dyn Connector>, script: Arc<FaultScript>) -> FaultyConnector {
        FaultyConnector { inner, script, features: |_| {} }
    }

    /// Changes what the server announces; what is not announced is refused.
    #[must_use]
    pub fn with_features(mut self, change: fn(&mut Features)) -> FaultyConnector {
        self.features = change;
        self
    }
}

#[async_trait]
impl Connector for FaultyConnector {
    fn host(&self) -> &str {
        self.inner.host()
    }

    fn needs_person(&self) -> Option<String> {
        self.inner.needs_person()
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError> {
        let link = Link { script: self.script.clone(), lost: Arc::new(watch::Sender::new(false)) };
        let inner = self.inner.clone();
        let inner = link.call("connect", String::new(), async move { inner.connect().await }).await?;
        Ok(Arc::new(FaultyConnection { inner, link, features: self.features }))
    }
}

/// One connection's fate, shared by its channels.
#[derive(Clone)]
struct Link {
    script: Arc<FaultScript>,
    lost: Arc<watch::Sender<bool>>,
}

impl Link {
    fn check(&self) -> Result<(), RemoteError> {
        if *self.lost.borrow() || *self.script.dead.borrow() {
            return Err(RemoteError::new(RemoteErrorKind::LinkLost, "the connection was cut by the test"));
        }
        Ok(())
    }

    fn begin(&self, call: Call) -> Result<Option<Fault>, RemoteError> {
        self.check()?;
        Ok(self.script.note(call))
    }

    /// Cuts what `fault` cuts; gives the error that the caller sees.
    fn cut(&self, fault: Fault) -> RemoteError {
        match fault {
            Fault::Crash | Fault::CrashAfter | Fault::CrashLate => self.script.dead.send_replace(true),
            _ => self.lost.send_replace(true),
        };
        RemoteError::new(RemoteErrorKind::LinkLost, "the connection was cut by the test")
    }

    async fn call<T: 'static>(
        &self,
        operation: &'static str,
        object: String,
        work: impl Future<Output = Result<T, RemoteError>> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let fault = self.begin(Call { operation, object, offset: 0, length: 0 })?;
        self.carry_out(fault, work).await
    }

    async fn carry_out<T: 'static>(
        &self,
        fault: Option<Fault>,
        work: impl Future<Output = Result<T, RemoteError>> + Send + 'static,
    ) -> Result<T, RemoteError> {
        match fault {
            Some(fault @ (Fault::Crash | Fault::LinkLost)) => Err(self.cut(fault)),
            Some(fault @ (Fault::CrashAfter | Fault::LinkLostAfter)) => {
                // Whatever it answered, nobody hears it.
                let _ = work.await;
                Err(self.cut(fault))
            }
            Some(fault @ Fault::CrashLate) => {
                self.script.hold_back(Box::pin(async move { drop(work.await) }));
                Err(self.cut(fault))
            }
            Some(Fault::Refuse(kind)) => Err(refusal(kind)),
            Some(Fault::ShortCopy | Fault::DropWrite | Fault::CorruptWrite | Fault::Nothing) | None => {
                let reply = work.await;
                self.check()?;
                reply
            }
        }
    }

    /// Returns when the connection is cut.
    async fn until_cut(&self) {
        let (mut lost, mut dead) = (self.lost.subscribe(), self.script.dead.subscribe());
        // The senders live in `self`, so waiting cannot fail.
        tokio::select! {
            _ = lost.wait_for(|lost| *lost) => {}
            _ = dead.wait_for(|dead| *dead) => {}
        }
    }
}

fn refusal(kind: RemoteErrorKind) -> RemoteError {
    RemoteError::new(kind, format!("refused by the test: {kind:?}"))
}

struct FaultyConnection {
    inner: Arc<dyn Connection>,
    link: Link,
    features: fn(&mut Features),
}

#[async_trait]
impl Connection for FaultyConnection {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        let inner = self.inner.clone();
        let inner = self.link.call("files", String::new(), async move { inner.files().await }).await?;
        let mut features = inner.features().clone();
        (self.features)(&mut features);
        Ok(Arc::new(FaultyFiles { inner, link: self.link.clone(), features, opened: Mutex::default() }))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        let inner = self.inner.clone();
        let inner = self.link.call("exec", String::new(), async move { inner.exec(request).await }).await?;
        let Process { stdin, events, control } = inner;
        let (sender, outer_events) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(relay(self.link.clone(), events, sender));
        Ok(Process { stdin, events: outer_events, control })
    }

    fn server_name(&self) -> String {
        self.inner.server_name()
    }

    async fn disconnect(&self) {
        self.inner.disconnect().await;
    }
}

/// Hands on what a command says until the connection is cut.
async fn relay(link: Link, mut from: mpsc::Receiver<ProcessEvent>, to: mpsc::Sender<ProcessEvent>) {
    let all = async {
        while let Some(event) = from.recv().await {
            if to.send(event).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = link.until_cut() => {}
    }
}

#[derive(Clone, Default)]
struct Opened {
    path: String,
    unsynced: Ranges,
}

struct FaultyFiles {
    inner: Arc<dyn Files>,
    link: Link,
    features: Features,
    /// What the open handles are of.
    opened: Mutex<HashMap<Handle, Opened>>,
}

impl FaultyFiles {
    fn path_of(&self, handle: &Handle) -> String {
        self.opened(handle).path
    }

    fn opened(&self, handle: &Handle) -> Opened {
        self.handles().get(handle).cloned().unwrap_or_default()
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<Handle, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn at<T: 'static, F>(
        &self,
        operation: &'static str,
        path: &RemotePath,
        work: impl FnOnce(Arc<dyn Files>, RemotePath) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>> + Send + 'static,
    {
        let work = work(self.inner.clone(), path.clone());
        self.link.call(operation, path.to_string(), work).await
    }

    async fn on<T: 'static, F>(
        &self,
        operation: &'static str,
        handle: &Handle,
        work: impl FnOnce(Arc<dyn Files>, Handle) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>> + Send + 'static,
    {
        let work = work(self.inner.clone(), handle.clone());
        self.link.call(operation, self.path_of(handle), work).await
    }

    async fn between<F>(
        &self,
        operation: &'static str,
        (from, to): (&RemotePath, &RemotePath),
        work: impl FnOnce(Arc<dyn Files>, RemotePath, RemotePath) -> F,
    ) -> Result<(), RemoteError>
    where
        F: Future<Output = Result<(), RemoteError>> + Send + 'static,
    {
        let work = work(self.inner.clone(), from.clone(), to.clone());
        self.link.call(operation, format!("{from} -> {to}"), work).await
    }

    fn cache(&self) -> &PageCache {
        &self.link.script.cache
    }
}

fn announced(is: bool, what: &str) -> Result<(), RemoteError> {
    if is { Ok(()) } else { Err(RemoteError::new(RemoteErrorKind::Unsupported, what)) }
}

#[async_trait]
impl Files for FaultyFiles {
    fn features(&self) -> &Features {
        &self.features
    }

    async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        self.at("realpath", path, |files, path| async move { files.real_path(&path).await }).await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.at("stat", path, |files, path| async move { files.stat(&path).await }).await
    }

    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.at("lstat", path, |files, path| async move { files.lstat(&path).await }).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        self.at("readlink", path, |files, path| async move { files.read_link(&path).await }).await
    }

    async fn list(&self, path: &RemotePath, limit: usize) -> Result<Vec<DirectoryEntry>, RemoteError> {
        self.at("list", path, move |files, path| async move { files.list(&path, limit).await }).await
    }

    async fn open(&self, path: &RemotePath, how: OpenMode, mode: Option<u32>) -> Result<Handle, RemoteError> {
        let operation = if how.create { "create" } else { "open" };
        let opening =
            self.at(operation, path, move |files, path| async move { files.open(&path, how, mode).await });
        let handle = opening.await?;
        let opened = Opened { path: path.to_string(), unsynced: self.cache().opened(path, how) };
        self.handles().insert(handle.clone(), opened);
        Ok(handle)
    }

    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError> {
        self.on(
            "read",
            handle,
            move |files, handle| async move { files.read_at(&handle, offset, length).await },
        )
        .await
    }

    async fn submit_write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> Result<PendingWrite, RemoteError> {
        let length = data.len() as u64;
        let fault =
            self.link.begin(Call { operation: "write", object: self.path_of(handle), offset, length })?;
        let data = match fault {
            Some(Fault::DropWrite) => return Ok(Box::pin(async { Ok(()) })),
            Some(Fault::Refuse(kind)) => return Ok(Box::pin(async move { Err(refusal(kind)) })),
            Some(Fault::CorruptWrite) => corrupted(&data, self.link.script.seed),
            _ => data,
        };
        self.opened(handle).unsynced.written(offset, length);
        let (inner, to) = (self.inner.clone(), handle.clone());
        let submitting = async move { inner.submit_write(&to, offset, data).await };
        match fault {
            Some(fault @ (Fault::CrashAfter | Fault::LinkLostAfter)) => {
                if let Ok(pending) = submitting.await {
                    // Whatever it answered, nobody hears it.
                    let _ = pending.await;
                }
                return Err(self.link.cut(fault));
            }
            Some(fault @ Fault::CrashLate) => {
                self.link.script.hold_back(Box::pin(async move {
                    if let Ok(pending) = submitting.await {
                        drop(pending.await);
                    }
                }));
                return Err(self.link.cut(fault));
            }
            _ => {}
        }
        let pending = self.link.carry_out(fault, submitting).await?;
        let link = self.link.clone();
        Ok(Box::pin(async move {
            let reply = pending.await;
            link.check()?;
            reply
        }))
    }

    async fn stat_handle(&self, handle: &Handle) -> Result<Attributes, RemoteError> {
        self.on("fstat", handle, |files, handle| async move { files.stat_handle(&handle).await }).await
    }

    async fn set_handle_attributes(
        &self,
        handle: &Handle,
        attributes: SetAttributes,
    ) -> Result<(), RemoteError> {
        self.on("fsetstat", handle, move |files, handle| async move {
            files.set_handle_attributes(&handle, attributes).await
        })
        .await
    }

    async fn sync(&self, handle: &Handle) -> Result<(), RemoteError> {
        announced(self.features.fsync, "fsync")?;
        let unsynced = self.opened(handle).unsynced;
        let until_now = unsynced.written_so_far();
        self.on("fsync", handle, |files, handle| async move { files.sync(&handle).await }).await?;
        unsynced.synced(until_now);
        Ok(())
    }

    async fn close(&self, handle: Handle) -> Result<(), RemoteError> {
        let path = self.path_of(&handle);
        let inner = self.inner.clone();
        self.link.call("close", path, async move { inner.close(handle).await }).await
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError> {
        self.at(
            "setstat",
            path,
            move |files, path| async move { files.set_attributes(&path, attributes).await },
        )
        .await
    }

    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        self.at("mkdir", path, move |files, path| async move { files.make_directory(&path, mode).await })
            .await
    }

    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.at("rmdir", path, |files, path| async move { files.remove_directory(&path).await }).await
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.at("remove", path, |files, path| async move { files.remove(&path).await }).await?;
        self.cache().removed(path);
        Ok(())
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.between("rename", (from, to), |files, from, to| async move { files.rename(&from, &to).await })
            .await?;
        self.cache().renamed(from, to);
        Ok(())
    }

    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        announced(self.features.posix_rename, "posix-rename")?;
        self.between("posix-rename", (from, to), |files, from, to| async move {
            files.rename_over(&from, &to).await
        })
        .await?;
        self.cache().renamed(from, to);
        Ok(())
    }

    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        announced(self.features.hard_link, "hardlink")?;
        self.between(
            "hardlink",
            (from, to),
            |files, from, to| async move { files.hard_link(&from, &to).await },
        )
        .await?;
        self.cache().linked(from, to);
        Ok(())
    }

    async fn space(&self, path: &RemotePath) -> Result<Space, RemoteError> {
        announced(self.features.statvfs, "statvfs")?;
        self.at("statvfs", path, |files, path| async move { files.space(&path).await }).await
    }

    async fn copy_data(
        &self,
        from: &Handle,
        from_offset: u64,
        length: u64,
        to: &Handle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        announced(self.features.copy_data, "copy-data")?;
        let object = format!("{} -> {}", self.path_of(from), self.path_of(to));
        let fault = self.link.begin(Call { operation: "copy-data", object, offset: to_offset, length })?;
        let length = if fault == Some(Fault::ShortCopy) { length / 2 } else { length };
        let (inner, source, target) = (self.inner.clone(), from.clone(), to.clone());
        let copying = async move { inner.copy_data(&source, from_offset, length, &target, to_offset).await };
        self.opened(to).unsynced.written(to_offset, length);
        self.link.carry_out(fault, copying).await
    }

    fn round_trip(&self) -> Option<Duration> {
        self.inner.round_trip()
    }

    fn requests(&self) -> u64 {
        self.inner.requests()
    }
}

/// `data` with one bit changed, at a place that `seed` chooses.
fn corrupted(data: &Bytes, seed: u64) -> Bytes {
    let mut data = data.to_vec();
    let length = data.len() as u64;
    if let Some(at) = seed.checked_rem(length)
        && let Some(byte) = usize::try_from(at).ok().and_then(|at| data.get_mut(at))
    {
        *byte ^= 0x40;
    }
    Bytes::from(data)
}
