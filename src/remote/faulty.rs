//! A host on which one operation goes wrong, by a script: for tests of all that stands above.
//!
//! Every operation of one client is counted over all its connections and channels, so a
//! test can let the client die, or its link, at call k for every k there is.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::files::{
    Attributes, DirectoryEntry, Features, Files, Handle, OpenMode, PendingWrite, SetAttributes, Space,
};
use super::process::{ExecRequest, Process, ProcessEvent};
use super::{Connection, Connector, RemoteError, RemoteErrorKind};
use crate::model::remote_path::RemotePath;

/// Events of a command that wait for their reader.
const EVENT_QUEUE: usize = 16;

/// What goes wrong at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client is killed before the call: it is not made, and nothing comes after it.
    Crash,
    /// The client is killed when the call has been carried out.
    CrashAfter,
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
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Never,
    /// At this call of all, from 1.
    Call(usize),
    /// At this call of one operation, from 1.
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
            dead: watch::Sender::new(false),
        }
    }

    /// Calls `hook` at the fault, before it takes effect.
    #[must_use]
    pub fn at_fault(mut self, hook: impl Fn() + Send + Sync + 'static) -> FaultScript {
        self.at_fault = Box::new(hook);
        self
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
                    state.of_operation += usize::from(call.operation == operation);
                    call.operation == operation && state.of_operation == n
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
        let inner = link.call("connect", String::new(), self.inner.connect()).await?;
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
            Fault::Crash | Fault::CrashAfter => self.script.dead.send_replace(true),
            _ => self.lost.send_replace(true),
        };
        RemoteError::new(RemoteErrorKind::LinkLost, "the connection was cut by the test")
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        object: String,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let fault = self.begin(Call { operation, object, offset: 0, length: 0 })?;
        self.carry_out(fault, work).await
    }

    async fn carry_out<T>(
        &self,
        fault: Option<Fault>,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        match fault {
            Some(fault @ (Fault::Crash | Fault::LinkLost)) => Err(self.cut(fault)),
            Some(fault @ (Fault::CrashAfter | Fault::LinkLostAfter)) => {
                // Whatever it answered, nobody hears it.
                let _ = work.await;
                Err(self.cut(fault))
            }
            Some(Fault::Refuse(kind)) => Err(refusal(kind)),
            Some(Fault::ShortCopy | Fault::DropWrite | Fault::CorruptWrite) | None => {
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
        let inner = self.link.call("files", String::new(), self.inner.files()).await?;
        let mut features = inner.features().clone();
        (self.features)(&mut features);
        Ok(Arc::new(FaultyFiles { inner, link: self.link.clone(), features, paths: Mutex::default() }))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        let inner = self.link.call("exec", String::new(), self.inner.exec(request)).await?;
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

struct FaultyFiles {
    inner: Arc<dyn Files>,
    link: Link,
    features: Features,
    /// What the open handles are of.
    paths: Mutex<HashMap<Handle, String>>,
}

impl FaultyFiles {
    fn path_of(&self, handle: &Handle) -> String {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.get(handle).cloned().unwrap_or_default()
    }

    async fn at<T>(
        &self,
        operation: &'static str,
        path: &RemotePath,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        self.link.call(operation, path.to_string(), work).await
    }

    async fn on<T>(
        &self,
        operation: &'static str,
        handle: &Handle,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        self.link.call(operation, self.path_of(handle), work).await
    }

    async fn between<T>(
        &self,
        operation: &'static str,
        paths: (&RemotePath, &RemotePath),
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        self.link.call(operation, format!("{} -> {}", paths.0, paths.1), work).await
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
        self.at("realpath", path, self.inner.real_path(path)).await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.at("stat", path, self.inner.stat(path)).await
    }

    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.at("lstat", path, self.inner.lstat(path)).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        self.at("readlink", path, self.inner.read_link(path)).await
    }

    async fn list(&self, path: &RemotePath, limit: usize) -> Result<Vec<DirectoryEntry>, RemoteError> {
        self.at("list", path, self.inner.list(path, limit)).await
    }

    async fn open(&self, path: &RemotePath, how: OpenMode, mode: Option<u32>) -> Result<Handle, RemoteError> {
        let operation = if how.create { "create" } else { "open" };
        let handle = self.at(operation, path, self.inner.open(path, how, mode)).await?;
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.insert(handle.clone(), path.to_string());
        Ok(handle)
    }

    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError> {
        self.on("read", handle, self.inner.read_at(handle, offset, length)).await
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
        if let Some(fault @ (Fault::CrashAfter | Fault::LinkLostAfter)) = fault {
            if let Ok(pending) = self.inner.submit_write(handle, offset, data).await {
                // Whatever it answered, nobody hears it.
                let _ = pending.await;
            }
            return Err(self.link.cut(fault));
        }
        let pending = self.link.carry_out(fault, self.inner.submit_write(handle, offset, data)).await?;
        let link = self.link.clone();
        Ok(Box::pin(async move {
            let reply = pending.await;
            link.check()?;
            reply
        }))
    }

    async fn stat_handle(&self, handle: &Handle) -> Result<Attributes, RemoteError> {
        self.on("fstat", handle, self.inner.stat_handle(handle)).await
    }

    async fn set_handle_attributes(
        &self,
        handle: &Handle,
        attributes: SetAttributes,
    ) -> Result<(), RemoteError> {
        self.on("fsetstat", handle, self.inner.set_handle_attributes(handle, attributes)).await
    }

    async fn sync(&self, handle: &Handle) -> Result<(), RemoteError> {
        announced(self.features.fsync, "fsync")?;
        self.on("fsync", handle, self.inner.sync(handle)).await
    }

    async fn close(&self, handle: Handle) -> Result<(), RemoteError> {
        let path = self.path_of(&handle);
        self.link.call("close", path, self.inner.close(handle)).await
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError> {
        self.at("setstat", path, self.inner.set_attributes(path, attributes)).await
    }

    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        self.at("mkdir", path, self.inner.make_directory(path, mode)).await
    }

    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.at("rmdir", path, self.inner.remove_directory(path)).await
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.at("remove", path, self.inner.remove(path)).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.between("rename", (from, to), self.inner.rename(from, to)).await
    }

    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        announced(self.features.posix_rename, "posix-rename")?;
        self.between("posix-rename", (from, to), self.inner.rename_over(from, to)).await
    }

    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        announced(self.features.hard_link, "hardlink")?;
        self.between("hardlink", (from, to), self.inner.hard_link(from, to)).await
    }

    async fn space(&self, path: &RemotePath) -> Result<Space, RemoteError> {
        announced(self.features.statvfs, "statvfs")?;
        self.at("statvfs", path, self.inner.space(path)).await
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
        self.link.carry_out(fault, self.inner.copy_data(from, from_offset, length, to, to_offset)).await
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
