//! One upload in a directory of its own, run again and again with faults, and what can be
//! seen of it from outside.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haul::engine::options::{IfExists, PutOptions};
use haul::model::chunk::{ChunkSize, Geometry};
use haul::model::lock_file::{self, LockContent};
use haul::model::names::{Entry, Names, UserId};
use haul::model::record::Record;
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use haul::remote::faulty::{Call, FaultScript, PageCache};

use super::client::{Errand, Ran, Way};
use crate::engine::{content, options};

pub const CHUNK: u64 = 16 << 10;
/// Six chunks, the last one short.
pub const SIZE: u64 = 5 * CHUNK + 1234;
pub const CHUNKS: u64 = 6;
const OLD_MODE: u32 = 0o640;
const SOURCE_MODE: u32 = 0o644;

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

    /// The chunks that count as sent by what stands in the temp directory.
    pub fn published(&self) -> BTreeSet<u64> {
        if self.damaged.get() {
            return BTreeSet::new();
        }
        published(&self.temp(), &self.names())
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
