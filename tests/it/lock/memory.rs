//! A disk in memory behind any number of sessions, for interleavings and faults at chosen
//! calls: what an operation does happens at one moment, between a random delay before and
//! another after it. With tokio's paused clock a run is a function of its seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use haul::model::remote_path::RemotePath;
use haul::remote::files::{
    Attributes, DirectoryEntry, Features, FileKind, Handle, OpenMode, Owner, PendingWrite, SetAttributes,
    Space, Times,
};
use haul::remote::{Files, RemoteError, RemoteErrorKind};

/// What this server does otherwise than OpenSSH.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quirks {
    pub no_hard_link: bool,
    pub link_replaces: bool,
    pub link_copies: bool,
    pub exclusive_ignored: bool,
    pub no_posix_rename: bool,
    /// Says 0777 of every directory.
    pub no_modes: bool,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client is gone before the request went out, or after it was carried out.
    Crash { done: bool },
    /// The link dies, with the request carried out or not.
    Cut { done: bool },
    /// The link dies, and the server carries the request out whenever the test says so.
    CutLate,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Vec<u8>, Node>,
    handles: HashMap<u64, Open>,
    late: Vec<Op>,
    next: u64,
    clock: u32,
}

#[derive(Clone)]
enum Node {
    Directory { mode: u32, uid: u32 },
    File(Arc<Inode>),
    Symlink,
}

struct Inode {
    uid: u32,
    content: Mutex<(Vec<u8>, u32)>,
}

struct Open {
    inode: Arc<Inode>,
}

pub struct Disk {
    state: Mutex<State>,
    pub quirks: Quirks,
}

#[derive(Clone, Debug)]
enum Op {
    Lstat(RemotePath),
    List(RemotePath),
    Open(RemotePath, OpenMode, u32),
    Read(u64, u64, usize),
    Write(u64, u64, Bytes),
    Close(u64),
    SetMode(RemotePath, u32),
    MakeDirectory(RemotePath, u32, u32),
    RemoveDirectory(RemotePath),
    Remove(RemotePath),
    Rename(RemotePath, RemotePath, bool),
    Link(RemotePath, RemotePath),
}

enum Reply {
    Done,
    Attributes(Attributes),
    Entries(Vec<DirectoryEntry>),
    Handle(u64),
    Bytes(Bytes),
}

fn error(kind: RemoteErrorKind, op: &Op) -> RemoteError {
    RemoteError::new(kind, format!("{kind:?} at {op:?}"))
}

impl Disk {
    /// With `/srv` in it.
    pub fn new(quirks: Quirks) -> Arc<Disk> {
        let mut state = State::default();
        state.entries.insert(b"/srv".to_vec(), Node::Directory { mode: 0o755, uid: 0 });
        Arc::new(Disk { state: Mutex::new(state), quirks })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    /// All paths but `/srv` itself.
    pub fn paths(&self) -> Vec<String> {
        let state = self.state();
        let paths = state.entries.keys().map(|path| String::from_utf8_lossy(path).into_owned());
        paths.filter(|path| path != "/srv").collect()
    }

    pub fn put_file(&self, path: &RemotePath, content: &[u8], uid: u32) {
        let inode = Arc::new(Inode { uid, content: Mutex::new((content.to_vec(), 0)) });
        self.state().entries.insert(path.as_bytes().to_vec(), Node::File(inode));
    }

    pub fn put_directory(&self, path: &RemotePath, mode: u32, uid: u32) {
        self.state().entries.insert(path.as_bytes().to_vec(), Node::Directory { mode, uid });
    }

    pub fn put_symlink(&self, path: &RemotePath) {
        self.state().entries.insert(path.as_bytes().to_vec(), Node::Symlink);
    }

    pub fn read_file(&self, path: &RemotePath) -> Option<Vec<u8>> {
        match self.state().entries.get(path.as_bytes()) {
            Some(Node::File(inode)) => Some(inode.content.lock().expect("no panic").0.clone()),
            _ => None,
        }
    }

    /// Removes a path and all below it, as an administrator would.
    pub fn remove_all(&self, path: &RemotePath) {
        let prefix = [path.as_bytes(), b"/"].concat();
        self.state().entries.retain(|name, _| name != path.as_bytes() && !name.starts_with(&prefix));
    }

    /// Carries out what was on its way when links died.
    pub fn run_late(&self) -> usize {
        let late = std::mem::take(&mut self.state().late);
        late.iter().for_each(|op| drop(self.apply(op)));
        late.len()
    }

    fn apply(&self, op: &Op) -> Result<Reply, RemoteError> {
        let mut state = self.state();
        state.clock += 1;
        let fail = |kind| Err(error(kind, op));
        let parent_stands = |state: &State, path: &RemotePath| {
            matches!(state.entries.get(path.parent().as_bytes()), Some(Node::Directory { .. }))
        };
        use RemoteErrorKind::{Failure, NotFound};
        match op {
            Op::Lstat(path) => match state.entries.get(path.as_bytes()) {
                Some(node) => Ok(Reply::Attributes(self.attributes(node))),
                None => fail(NotFound),
            },
            Op::List(path) => {
                if !matches!(state.entries.get(path.as_bytes()), Some(Node::Directory { .. })) {
                    return fail(NotFound);
                }
                let prefix = [path.as_bytes(), b"/"].concat();
                let children = state.entries.iter().filter_map(|(name, node)| {
                    let name = name.strip_prefix(&prefix[..])?;
                    let direct = !name.contains(&b'/');
                    direct.then(|| DirectoryEntry { name: name.to_vec(), attributes: self.attributes(node) })
                });
                Ok(Reply::Entries(children.collect()))
            }
            Op::Open(path, how, uid) => {
                let existing = state.entries.get(path.as_bytes()).cloned();
                let inode = match existing {
                    Some(Node::File(_)) if how.exclusive && !self.quirks.exclusive_ignored => {
                        return fail(Failure);
                    }
                    Some(Node::File(inode)) => {
                        if how.truncate {
                            inode.content.lock().expect("no panic").0.clear();
                        }
                        inode
                    }
                    Some(_) => return fail(Failure),
                    None if how.create && parent_stands(&state, path) => {
                        let inode = Arc::new(Inode { uid: *uid, content: Mutex::default() });
                        state.entries.insert(path.as_bytes().to_vec(), Node::File(inode.clone()));
                        inode
                    }
                    None => return fail(NotFound),
                };
                state.next += 1;
                let number = state.next;
                state.handles.insert(number, Open { inode });
                Ok(Reply::Handle(number))
            }
            Op::Read(handle, offset, length) => {
                let Some(open) = state.handles.get(handle) else {
                    return fail(Failure);
                };
                let content = open.inode.content.lock().expect("no panic");
                let begin = usize::try_from(*offset).expect("small").min(content.0.len());
                let end = (begin + length).min(content.0.len());
                Ok(Reply::Bytes(Bytes::copy_from_slice(&content.0[begin..end])))
            }
            Op::Write(handle, offset, data) => {
                let clock = state.clock;
                let Some(open) = state.handles.get(handle) else {
                    return fail(Failure);
                };
                let mut content = open.inode.content.lock().expect("no panic");
                let begin = usize::try_from(*offset).expect("small");
                let end = begin + data.len();
                if content.0.len() < end {
                    content.0.resize(end, 0);
                }
                content.0[begin..end].copy_from_slice(data);
                content.1 = clock;
                Ok(Reply::Done)
            }
            Op::Close(handle) => match state.handles.remove(handle) {
                Some(_) => Ok(Reply::Done),
                None => fail(Failure),
            },
            Op::SetMode(path, new) => match state.entries.get_mut(path.as_bytes()) {
                Some(Node::Directory { mode, .. }) => {
                    *mode = *new;
                    Ok(Reply::Done)
                }
                Some(_) => fail(Failure),
                None => fail(NotFound),
            },
            Op::MakeDirectory(path, mode, uid) => {
                if !parent_stands(&state, path) {
                    return fail(NotFound);
                }
                if state.entries.contains_key(path.as_bytes()) {
                    return fail(Failure);
                }
                let node = Node::Directory { mode: *mode, uid: *uid };
                state.entries.insert(path.as_bytes().to_vec(), node);
                Ok(Reply::Done)
            }
            Op::RemoveDirectory(path) => {
                let prefix = [path.as_bytes(), b"/"].concat();
                match state.entries.get(path.as_bytes()) {
                    None => fail(NotFound),
                    Some(Node::Directory { .. })
                        if !state.entries.keys().any(|name| name.starts_with(&prefix)) =>
                    {
                        state.entries.remove(path.as_bytes());
                        Ok(Reply::Done)
                    }
                    Some(_) => fail(Failure),
                }
            }
            Op::Remove(path) => match state.entries.get(path.as_bytes()) {
                None => fail(NotFound),
                Some(Node::Directory { .. }) => fail(Failure),
                Some(_) => {
                    state.entries.remove(path.as_bytes());
                    Ok(Reply::Done)
                }
            },
            Op::Rename(from, to, over) => {
                let Some(node) = state.entries.get(from.as_bytes()).cloned() else {
                    return fail(NotFound);
                };
                if !parent_stands(&state, to) {
                    return fail(NotFound);
                }
                match (state.entries.get(to.as_bytes()), &node) {
                    (None, _) => {}
                    (Some(Node::File(there)), Node::File(moved)) if *over => {
                        if Arc::ptr_eq(there, moved) {
                            return Ok(Reply::Done);
                        }
                    }
                    (Some(_), _) => return fail(Failure),
                }
                state.entries.remove(from.as_bytes());
                state.entries.insert(to.as_bytes().to_vec(), node);
                let prefix = [from.as_bytes(), b"/"].concat();
                let below: Vec<Vec<u8>> =
                    state.entries.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
                for name in below {
                    let moved = [to.as_bytes(), b"/", &name[prefix.len()..]].concat();
                    if let Some(node) = state.entries.remove(&name) {
                        state.entries.insert(moved, node);
                    }
                }
                Ok(Reply::Done)
            }
            Op::Link(from, to) => {
                let Some(Node::File(inode)) = state.entries.get(from.as_bytes()).cloned() else {
                    return fail(NotFound);
                };
                if !parent_stands(&state, to) {
                    return fail(NotFound);
                }
                if state.entries.contains_key(to.as_bytes()) && !self.quirks.link_replaces {
                    return fail(Failure);
                }
                let inode = if self.quirks.link_copies {
                    let content = inode.content.lock().expect("no panic").clone();
                    Arc::new(Inode { uid: inode.uid, content: Mutex::new(content) })
                } else {
                    inode
                };
                state.entries.insert(to.as_bytes().to_vec(), Node::File(inode));
                Ok(Reply::Done)
            }
        }
    }

    fn attributes(&self, node: &Node) -> Attributes {
        let (kind, size, mode, uid, modified) = match node {
            Node::Directory { mode, uid } => {
                let mode = if self.quirks.no_modes { 0o777 } else { *mode };
                (FileKind::Directory, 0, mode, *uid, 0)
            }
            Node::File(inode) => {
                let content = inode.content.lock().expect("no panic");
                (FileKind::File, content.0.len() as u64, 0o644, inode.uid, content.1)
            }
            Node::Symlink => (FileKind::Symlink, 0, 0o777, 0, 0),
        };
        Attributes {
            kind,
            size: Some(size),
            mode: Some(mode),
            owner: Some(Owner { uid, gid: uid }),
            times: Some(Times { accessed: modified, modified }),
        }
    }
}

type Plan = Box<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

/// One session on a [`Disk`].
pub struct Memory {
    disk: Arc<Disk>,
    features: Features,
    uid: u32,
    random: Mutex<u64>,
    /// Most milliseconds before and after an operation.
    delay_ms: u64,
    calls: AtomicU64,
    plan: Plan,
    dead: AtomicBool,
    /// Set when a crash was due: the client does nothing more.
    pub crashed: tokio::sync::watch::Sender<bool>,
}

impl Memory {
    pub fn new(disk: &Arc<Disk>, seed: u64) -> Memory {
        let quirks = disk.quirks;
        let features = Features {
            posix_rename: !quirks.no_posix_rename,
            hard_link: !quirks.no_hard_link,
            write_limit: 32 * 1024,
            read_limit: 32 * 1024,
            ..Features::default()
        };
        Memory {
            disk: disk.clone(),
            features,
            uid: 1000,
            random: Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            delay_ms: 5,
            calls: AtomicU64::new(0),
            plan: Box::new(|_| None),
            dead: AtomicBool::new(false),
            crashed: tokio::sync::watch::channel(false).0,
        }
    }

    /// `fault` at call number `at`, counted from 0.
    pub fn fault(mut self, at: u64, fault: Fault) -> Memory {
        self.plan = Box::new(move |call| (call == at).then_some(fault));
        self
    }

    pub fn shared(self) -> Arc<dyn Files> {
        Arc::new(self)
    }

    /// From now on no answer comes any more.
    pub fn cut(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    async fn delay(&self) {
        let pause = {
            let mut random = self.random.lock().expect("no panic");
            // xorshift64
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *random % (self.delay_ms + 1)
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn call(&self, op: Op) -> Result<Reply, RemoteError> {
        self.delay().await;
        let lost = || Err(error(RemoteErrorKind::LinkLost, &op));
        if self.dead.load(Ordering::Relaxed) {
            return lost();
        }
        if *self.crashed.borrow() {
            return std::future::pending().await;
        }
        let outcome = match (self.plan)(self.calls.fetch_add(1, Ordering::Relaxed)) {
            None => self.disk.apply(&op),
            Some(Fault::Crash { done }) => {
                if done {
                    drop(self.disk.apply(&op));
                }
                self.crashed.send_replace(true);
                std::future::pending().await
            }
            Some(Fault::Cut { done }) => {
                if done {
                    drop(self.disk.apply(&op));
                }
                self.cut();
                lost()
            }
            Some(Fault::CutLate) => {
                self.disk.state().late.push(op.clone());
                self.cut();
                lost()
            }
        };
        self.delay().await;
        outcome
    }
}

fn number(handle: &Handle) -> u64 {
    u64::from_be_bytes(handle.0[..].try_into().expect("a handle of this disk"))
}

fn unused<T>() -> Result<T, RemoteError> {
    Err(RemoteError::new(RemoteErrorKind::Unsupported, "not in this disk"))
}

#[async_trait]
impl Files for Memory {
    fn features(&self) -> &Features {
        &self.features
    }

    async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, RemoteError> {
        Ok(path.clone())
    }

    async fn stat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        self.lstat(path).await
    }

    async fn lstat(&self, path: &RemotePath) -> Result<Attributes, RemoteError> {
        match self.call(Op::Lstat(path.clone())).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            _ => unreachable!(),
        }
    }

    async fn read_link(&self, _: &RemotePath) -> Result<RemotePath, RemoteError> {
        unused()
    }

    async fn list(&self, path: &RemotePath, _: usize) -> Result<Vec<DirectoryEntry>, RemoteError> {
        match self.call(Op::List(path.clone())).await? {
            Reply::Entries(entries) => Ok(entries),
            _ => unreachable!(),
        }
    }

    async fn open(&self, path: &RemotePath, how: OpenMode, _: Option<u32>) -> Result<Handle, RemoteError> {
        match self.call(Op::Open(path.clone(), how, self.uid)).await? {
            Reply::Handle(number) => Ok(Handle(Bytes::copy_from_slice(&number.to_be_bytes()))),
            _ => unreachable!(),
        }
    }

    async fn read_at(&self, handle: &Handle, offset: u64, length: usize) -> Result<Bytes, RemoteError> {
        match self.call(Op::Read(number(handle), offset, length)).await? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => unreachable!(),
        }
    }

    async fn submit_write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> Result<PendingWrite, RemoteError> {
        let outcome = self.call(Op::Write(number(handle), offset, data)).await.map(drop);
        Ok(Box::pin(std::future::ready(outcome)))
    }

    async fn stat_handle(&self, _: &Handle) -> Result<Attributes, RemoteError> {
        unused()
    }

    async fn set_handle_attributes(&self, _: &Handle, _: SetAttributes) -> Result<(), RemoteError> {
        unused()
    }

    async fn sync(&self, _: &Handle) -> Result<(), RemoteError> {
        unused()
    }

    async fn close(&self, handle: Handle) -> Result<(), RemoteError> {
        self.call(Op::Close(number(&handle))).await.map(drop)
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: SetAttributes) -> Result<(), RemoteError> {
        let mode = attributes.mode.expect("only modes are set here");
        self.call(Op::SetMode(path.clone(), mode)).await.map(drop)
    }

    async fn make_directory(&self, path: &RemotePath, mode: u32) -> Result<(), RemoteError> {
        self.call(Op::MakeDirectory(path.clone(), mode, self.uid)).await.map(drop)
    }

    async fn remove_directory(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.call(Op::RemoveDirectory(path.clone())).await.map(drop)
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), RemoteError> {
        self.call(Op::Remove(path.clone())).await.map(drop)
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.call(Op::Rename(from.clone(), to.clone(), false)).await.map(drop)
    }

    async fn rename_over(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.call(Op::Rename(from.clone(), to.clone(), true)).await.map(drop)
    }

    async fn hard_link(&self, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
        self.call(Op::Link(from.clone(), to.clone())).await.map(drop)
    }

    async fn space(&self, _: &RemotePath) -> Result<Space, RemoteError> {
        unused()
    }

    async fn copy_data(&self, _: &Handle, _: u64, _: u64, _: &Handle, _: u64) -> Result<(), RemoteError> {
        unused()
    }

    fn requests(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}
