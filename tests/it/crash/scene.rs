//! One upload in a directory of its own, run again and again with faults, and what can be
//! seen of it from outside.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haul::engine::failure::Failure;
use haul::engine::options::{IfExists, MergeMethod, PutOptions, RetryOptions};
use haul::engine::put::{PutJob, put};
use haul::engine::report::PutReport;
use haul::engine::stop::stop_pair;
use haul::model::chunk::{ChunkSize, Geometry};
use haul::model::lock_file::{self, LockContent};
use haul::model::names::{Entry, Names, UserId};
use haul::model::record::Record;
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use haul::remote::Connector;
use haul::remote::faulty::{Call, FaultScript, FaultyConnector, PageCache};
use haul::remote::files::Features;
use haul::remote::local::LocalConnector;

use super::server::PipedServers;
use crate::engine::{Recorder, content, options};

pub const CHUNK: u64 = 16 << 10;
/// Six chunks, the last one short.
pub const SIZE: u64 = 5 * CHUNK + 1234;
pub const CHUNKS: u64 = 6;
/// In the runtime's own time, of which none passes while anything is at work.
const HUNG: Duration = Duration::from_secs(900);
/// Where time passes as everywhere.
const HUNG_REAL: Duration = Duration::from_secs(120);
const OLD_MODE: u32 = 0o640;
const SOURCE_MODE: u32 = 0o644;

/// How the upload goes about it.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub merge: MergeMethod,
    pub shell: bool,
    pub features: fn(&mut Features),
    pub server: Server,
    /// Without a rename that replaces, the old file may be removed first.
    pub remove_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A directory of this machine, by plain file calls.
    Local,
    /// The same, one call after the other.
    LocalInOrder,
    /// OpenSSH's sftp-server, with these arguments.
    OpenSsh(&'static [&'static str]),
}

impl Way {
    pub const fn new(name: &'static str, merge: MergeMethod) -> Way {
        let server = Server::Local;
        Way { name, merge, shell: false, features: |_| {}, server, remove_first: false }
    }

    pub const fn with_shell(self) -> Way {
        Way { shell: true, ..self }
    }

    pub const fn lacking(self, features: fn(&mut Features)) -> Way {
        Way { features, ..self }
    }

    pub const fn removing_first(self) -> Way {
        Way { remove_first: true, ..self }
    }

    pub const fn in_order(self) -> Way {
        Way { server: Server::LocalInOrder, ..self }
    }

    pub const fn through_openssh(self, arguments: &'static [&'static str]) -> Way {
        Way { server: Server::OpenSsh(arguments), ..self }
    }

    pub fn is_local(&self) -> bool {
        matches!(self.server, Server::Local | Server::LocalInOrder)
    }

    pub fn placed(&self) -> bool {
        self.merge == MergeMethod::Auto
    }

    /// Time stands still while anything is at work, so that watching takes none.
    pub fn paused(&self) -> bool {
        !self.shell && self.is_local()
    }
}

pub const PLACED: Way = Way::new("placed", MergeMethod::Auto);
pub const STORED: Way = Way::new("stored", MergeMethod::Sftp);
/// Stored chunks on a server that has nothing but SFTP version 3.
pub const POOR: Way = Way::new("poor server", MergeMethod::Sftp).removing_first().lacking(|features| {
    *features = Features { write_limit: 8 << 10, read_limit: 8 << 10, ..Features::default() };
});
pub const PLACED_SHELL: Way = Way::new("placed, shell", MergeMethod::Auto).with_shell();
pub const SCRIPT: Way = Way::new("script", MergeMethod::Script).with_shell();

pub struct Scene {
    directory: tempfile::TempDir,
    pub way: Way,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    /// What is not synced, over all runs.
    pub cache: Arc<PageCache>,
    /// What stands in the temp directory says nothing about what was published.
    pub damaged: Cell<bool>,
    /// Nothing tells that a killed holder of the lock is dead: it has to be watched.
    pub watched: Cell<bool>,
    pub noted: RefCell<Noted>,
}

/// What was done in a scene.
#[derive(Debug, Clone, Default)]
pub struct Noted {
    pub runs: usize,
    pub faults: usize,
    /// Where the first fault struck: the operation, by names without what is random in
    /// them, and which of its kind it was.
    pub operation: Option<String>,
}

/// What stands at the target before the first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Before {
    Absent,
    /// Another file of the same size.
    Old,
    Longer,
    Same,
}

/// What stands at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Old,
    New,
    /// The file of [`Scene::other_content`].
    Other,
    /// Anything else: what must never be.
    Torn,
}

/// One run of the client.
pub struct Ran {
    /// `None`: it did not end.
    pub outcome: Option<Result<PutReport, Failure>>,
    pub notices: String,
    pub calls: Vec<Call>,
    pub fired_at: Option<usize>,
    /// In the runtime's time.
    pub took: Duration,
    placed: bool,
}

impl Scene {
    /// `replaces`: another file of the same size stands there already.
    pub fn new(way: Way, replaces: bool) -> Scene {
        Scene::with(way, if replaces { Before::Old } else { Before::Absent })
    }

    pub fn with(way: Way, before: Before) -> Scene {
        // In memory where that can be had: nothing here is about the disk.
        let directory =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let new = content(SIZE, 2);
        let old = match before {
            Before::Absent => None,
            Before::Old => Some(content(SIZE, 1)),
            Before::Longer => Some(content(SIZE + CHUNK, 1)),
            Before::Same => Some(new.clone()),
        };
        let scene = Scene {
            directory,
            way,
            old,
            new,
            cache: Arc::default(),
            damaged: Cell::new(false),
            watched: Cell::new(false),
            noted: RefCell::default(),
        };
        fs::write(scene.source(), &scene.new).expect("a source");
        fs::set_permissions(scene.source(), Permissions::from_mode(SOURCE_MODE)).expect("a mode");
        if let Some(old) = &scene.old {
            fs::write(scene.target(), old).expect("an old file");
            fs::set_permissions(scene.target(), Permissions::from_mode(OLD_MODE)).expect("a mode");
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let file = OpenOptions::new().write(true).open(scene.target()).expect("the old file");
            file.set_modified(long_ago).expect("a time");
        }
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.directory.path().join("target.bin")
    }

    pub fn names(&self) -> Names {
        let target = RemotePath::new(self.target().as_os_str().as_encoded_bytes()).expect("a path");
        Names::new(&target, &UserId::new("alice").expect("a user id"))
    }

    pub fn temp(&self) -> PathBuf {
        self.directory.path().join("target.bin:alice")
    }

    pub fn lock(&self) -> PathBuf {
        self.directory.path().join("target.bin:lock")
    }

    pub fn options(&self) -> PutOptions {
        PutOptions {
            chunk_size: ChunkSize::new(CHUNK).expect("a size"),
            merge: self.way.merge,
            if_exists: IfExists::Replace,
            non_atomic_replace: self.way.remove_first,
            ..options()
        }
    }

    /// What the target is for, and the way to it, free to move to another thread.
    pub fn errand(&self) -> Errand {
        Errand { way: self.way, source: self.source(), target: self.target(), options: self.options() }
    }

    /// Runs one client to its end. `retries` as on the command line.
    pub fn run(&self, script: FaultScript, retries: u32) -> Ran {
        let ran = self.errand().run(Arc::new(script.on(self.cache.clone())), retries);
        self.note(&ran);
        ran
    }

    /// As [`Scene::run`], with a script that is looked at afterwards.
    pub fn run_shared(&self, script: &Arc<FaultScript>, retries: u32) -> Ran {
        let ran = self.errand().run(script.clone(), retries);
        self.note(&ran);
        ran
    }

    pub fn note(&self, ran: &Ran) {
        let mut noted = self.noted.borrow_mut();
        noted.runs += 1;
        let Some(at) = ran.fired_at else { return };
        noted.faults += 1;
        if noted.operation.is_none() {
            let calls: Vec<String> = ran.calls.iter().take(at).map(|call| self.general(call)).collect();
            let operation = calls.last().expect("it was noted");
            let which = calls.iter().filter(|call| *call == operation).count();
            noted.operation = Some(format!("{operation} #{which}"));
        }
    }

    /// A call without what differs from run to run.
    fn general(&self, call: &Call) -> String {
        let text = call.to_string().replace(&self.directory.path().display().to_string(), "");
        let mut general = String::new();
        let mut hex = String::new();
        for c in text.chars().chain([' ']) {
            if c.is_ascii_digit() || ('a'..='f').contains(&c) {
                hex.push(c);
                continue;
            }
            general.push_str(if hex.len() >= 16 { "*" } else { &hex });
            hex.clear();
            general.push(c);
        }
        general
    }

    pub fn stands(&self) -> Stands {
        match (fs::read(self.target()), &self.old) {
            (Ok(content), _) if content == self.new => Stands::New,
            (Ok(content), Some(old)) if content == *old => Stands::Old,
            (Ok(content), _) if content == Scene::other_content() => Stands::Other,
            (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => Stands::Old,
            // Between the two steps of a replacement that was allowed not to be atomic.
            (Err(_), Some(_)) if self.options().non_atomic_replace => Stands::Old,
            _ => Stands::Torn,
        }
    }

    /// Neither the old file nor the new one.
    pub fn other_content() -> Vec<u8> {
        content(SIZE + 77, 3)
    }

    pub fn new_content(&self) -> &[u8] {
        &self.new
    }

    /// The mode that the new file has to have: of the file that it replaced, else of the
    /// source under this process's mask, which no test changes.
    pub fn mode_is_right(&self) -> bool {
        let mode = |path| fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777);
        let probe = self.path("probe");
        fs::write(&probe, "").expect("a file");
        let mask = mode(probe.clone()).expect("a mode");
        fs::remove_file(probe).expect("the file");
        let of_new = SOURCE_MODE & (mask | 0o111);
        let expected = if self.old.is_some() { OLD_MODE } else { of_new };
        let is = mode(self.target()).ok();
        // Removed first, the old file's mode may be forgotten with it.
        is == Some(expected) || self.way.remove_first && is == Some(of_new)
    }

    /// Names beside the target that haul made.
    pub fn litter(&self) -> Vec<String> {
        names_in(self.directory.path()).into_iter().filter(|name| name.starts_with("target.bin:")).collect()
    }

    /// As if the process that holds the lock were gone: it is named with a start time that
    /// no process of this pid has. False when there is no such lock.
    pub fn holder_dies(&self) -> bool {
        if self.watched.get() {
            return false;
        }
        let Ok(text) = fs::read(self.lock()) else { return false };
        let key = b"\nstart: ";
        let Some(at) = text.windows(key.len()).position(|window| window == key) else { return false };
        let digit = at + key.len();
        // From this process's own start and not from what stands there, which may be
        // changed already: a second change must not bring the first digit back.
        let own = haul::engine::lock::holder::process(std::process::id()).expect("/proc is there");
        let first = own.start.to_string().as_bytes()[0];
        let other = if first == b'9' { b'8' } else { first + 1 };
        let file = OpenOptions::new().write(true).open(self.lock()).expect("the lock");
        file.write_all_at(&[other], digit as u64).expect("a write");
        true
    }

    /// The run that the lock names.
    pub fn lock_holder(&self) -> Option<String> {
        let text = fs::read_to_string(self.lock()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("run: ")).map(str::to_owned)
    }

    pub fn lock_is_torn(&self) -> bool {
        fs::read(self.lock()).is_ok_and(|text| lock_file::parse(&text) == LockContent::Torn)
    }

    /// Whether a run's own name of its lock file is there.
    pub fn has_private_lock(&self) -> bool {
        let temp = self.temp();
        names_in(&temp).iter().any(|name| name.starts_with("run.") && temp.join(name).join("lock").exists())
    }

    /// The chunks that count as sent by what stands in the temp directory.
    pub fn published(&self) -> BTreeSet<u64> {
        if self.damaged.get() {
            return BTreeSet::new();
        }
        published(&self.temp(), &self.names())
    }
}

/// One upload to one target, by any client.
#[derive(Clone)]
pub struct Errand {
    pub way: Way,
    pub source: PathBuf,
    pub target: PathBuf,
    pub options: PutOptions,
}

impl Errand {
    pub fn run(self, script: Arc<FaultScript>, retries: u32) -> Ran {
        let Errand { way, source, target, options } = self;
        let hung = if way.paused() { HUNG } else { HUNG_REAL };
        let options =
            PutOptions { retry: RetryOptions { retries, stall_timeout: Duration::from_secs(30) }, ..options };
        let shell = way.shell.then(|| PathBuf::from("/bin/sh"));
        let servers = PipedServers::default();
        let host: Arc<dyn Connector> = match way.server {
            Server::Local => Arc::new(LocalConnector::whole_machine(shell)),
            Server::LocalInOrder => Arc::new(LocalConnector::whole_machine(shell).in_order()),
            Server::OpenSsh(arguments) => Arc::new(servers.connector(arguments, shell)),
        };
        let connector = FaultyConnector::new(host, script.clone()).with_features(way.features);
        let destination = target.as_os_str().as_encoded_bytes().to_vec();
        let job = PutJob { source, destination, into_directory: false };
        let recorder = Arc::new(Recorder::default());
        let (_switch, stop) = stop_pair();
        // Dropped at the end with all that the client still had under way, as when it dies.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(way.paused())
            .build()
            .expect("a runtime");
        let (outcome, took) = runtime.block_on(async {
            let began = tokio::time::Instant::now();
            let put = put(Arc::new(connector), job, options, recorder.clone(), stop);
            let outcome = tokio::time::timeout(hung, put).await;
            (outcome.ok(), began.elapsed())
        });
        let running = servers.processes();
        drop(runtime);
        running.wait();
        Ran {
            outcome,
            notices: recorder.text(),
            calls: script.calls(),
            fired_at: script.fired_at(),
            took,
            placed: way.placed(),
        }
    }
}

pub fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Chunks first, then what the record says: a chunk is removed only when it is recorded.
pub fn published(temp: &Path, names: &Names) -> BTreeSet<u64> {
    let geometry = Geometry::new(SIZE, ChunkSize::new(CHUNK).expect("a size"));
    let mut merged = HashMap::new();
    merged_files(temp, &mut merged);
    let mut chunks = BTreeSet::new();
    for name in names_in(temp) {
        match names.entry(name.as_bytes()) {
            Entry::Chunk(n) => {
                let size = fs::metadata(temp.join(&name)).map(|metadata| metadata.len());
                if size.is_ok_and(|size| size == geometry.length(n)) {
                    chunks.insert(n);
                }
            }
            Entry::Receipt(n, generation)
                if merged.get(&generation).is_some_and(|(_, size)| *size >= geometry.end(n)) =>
            {
                chunks.insert(n);
            }
            _ => {}
        }
    }
    let record = fs::read(temp.join(String::from_utf8_lossy(names.record_name()).as_ref()));
    if let Some(record) = record.ok().and_then(|text| Record::parse(&text).ok())
        && merged.get(&record.generation()).is_some_and(|(_, size)| *size >= record.merged_bytes())
    {
        chunks.extend(1..=record.merged_chunks());
    }
    chunks
}

/// Every merged file below `directory`, by generation.
pub fn merged_files(directory: &Path, found: &mut HashMap<RunId, (PathBuf, u64)>) {
    for name in names_in(directory) {
        let path = directory.join(&name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            merged_files(&path, found);
        } else if let Some(generation) = name.strip_prefix("merged.").and_then(|g| RunId::parse(g.as_bytes()))
        {
            found.insert(generation, (path, metadata.len()));
        }
    }
}

impl Ran {
    /// The chunks of which bytes were sent after the first `skipped` calls.
    pub fn sent_after(&self, skipped: usize) -> BTreeSet<u64> {
        self.calls.iter().skip(skipped).filter_map(|call| self.chunk_of(call)).collect()
    }

    /// The stored chunks that the run itself had seen to be published, as it did something
    /// with them: they are not to be sent again, whatever stands in the temp directory.
    pub fn seen_published(&self) -> BTreeSet<u64> {
        self.seen_published_before(self.calls.len())
    }

    pub fn seen_published_before(&self, calls: usize) -> BTreeSet<u64> {
        let seen =
            self.calls.iter().take(calls).filter(|call| {
                matches!(call.operation, "open" | "read" | "rename" | "posix-rename" | "remove")
            });
        seen.filter_map(|call| {
            call.object.split(" -> ").next()?.rsplit_once("/alice-target:")?.1.parse().ok()
        })
        .collect()
    }

    fn chunk_of(&self, call: &Call) -> Option<u64> {
        if call.operation != "write" {
            return None;
        }
        let name = call.object.rsplit('/').next()?;
        if let Some(rest) = name.strip_prefix("part.") {
            return rest.split('.').next()?.parse().ok();
        }
        (self.placed && name.starts_with("merged.")).then_some(call.offset / CHUNK + 1)
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err())
    }

    pub fn report(&self) -> Option<&PutReport> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok())
    }

    /// Everything that helps to understand a failed case.
    pub fn story(&self) -> String {
        let outcome = match &self.outcome {
            None => "hung".to_owned(),
            Some(Ok(report)) => format!("{:?}, {} chunks sent", report.status, report.chunks_sent),
            Some(Err(failure)) => format!("{:?}: {failure}", failure.kind),
        };
        let mut text = format!("  took {:?}, {outcome}\n", self.took);
        for notice in self.notices.lines() {
            text.push_str(&format!("  # {notice}\n"));
        }
        for (i, call) in self.calls.iter().enumerate() {
            let mark = if Some(i + 1) == self.fired_at { "!!" } else { "  " };
            text.push_str(&format!("  {mark}{:4} {call}\n", i + 1));
        }
        text
    }
}
