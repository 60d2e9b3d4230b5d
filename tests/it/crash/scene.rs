//! One upload in a directory of its own, run again and again with faults, and what can be
//! seen of it from outside.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haul::engine::failure::Failure;
use haul::engine::options::{IfExists, MergeMethod, PutOptions, RetryOptions};
use haul::engine::put::{PutJob, put};
use haul::engine::report::PutReport;
use haul::engine::stop::stop_pair;
use haul::model::chunk::{ChunkSize, Geometry};
use haul::model::names::{Entry, Names, UserId};
use haul::model::record::Record;
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use haul::remote::faulty::{Call, FaultScript, FaultyConnector};
use haul::remote::files::Features;
use haul::remote::local::LocalConnector;

use crate::engine::{Recorder, content, options};

pub const CHUNK: u64 = 16 << 10;
/// Six chunks, the last one short.
pub const SIZE: u64 = 5 * CHUNK + 1234;
pub const CHUNKS: u64 = 6;
/// Of a run without a shell in the runtime's own time, of which none passes while anything
/// is at work; of others in real time.
const HUNG: Duration = Duration::from_secs(900);

/// How the upload goes about it.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub merge: MergeMethod,
    pub shell: bool,
    pub features: fn(&mut Features),
}

impl Way {
    pub fn placed(&self) -> bool {
        self.merge == MergeMethod::Auto
    }
}

pub const PLACED: Way = Way { name: "placed", merge: MergeMethod::Auto, shell: false, features: |_| {} };
pub const STORED: Way = Way { name: "stored", merge: MergeMethod::Sftp, shell: false, features: |_| {} };
/// Stored chunks on a server that has nothing but SFTP version 3.
pub const POOR: Way = Way {
    name: "poor server",
    merge: MergeMethod::Sftp,
    shell: false,
    features: |features| {
        *features = Features { write_limit: 8 << 10, read_limit: 8 << 10, ..Features::default() };
    },
};
pub const PLACED_SHELL: Way =
    Way { name: "placed, shell", merge: MergeMethod::Auto, shell: true, features: |_| {} };
pub const SCRIPT: Way = Way { name: "script", merge: MergeMethod::Script, shell: true, features: |_| {} };

pub struct Scene {
    directory: tempfile::TempDir,
    pub way: Way,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

/// What stands at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Old,
    New,
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
        // In memory where that can be had: nothing here is about the disk.
        let directory =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let (old, new) = (replaces.then(|| content(SIZE, 1)), content(SIZE, 2));
        fs::write(directory.path().join("source"), &new).expect("a source");
        let scene = Scene { directory, way, old, new };
        if let Some(old) = &scene.old {
            fs::write(scene.target(), old).expect("an old file");
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let file = OpenOptions::new().write(true).open(scene.target()).expect("the old file");
            file.set_modified(long_ago).expect("a time");
        }
        scene
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
            non_atomic_replace: self.way.name == POOR.name,
            ..options()
        }
    }

    /// Runs one client to its end. `retries` as on the command line.
    pub fn run(&self, script: FaultScript, retries: u32) -> Ran {
        let options = PutOptions {
            retry: RetryOptions { retries, stall_timeout: Duration::from_secs(30) },
            ..self.options()
        };
        let script = Arc::new(script);
        let shell = self.way.shell.then(|| PathBuf::from("/bin/sh"));
        let local = Arc::new(LocalConnector::whole_machine(shell));
        let connector = FaultyConnector::new(local, script.clone()).with_features(self.way.features);
        let job = PutJob {
            source: self.source(),
            destination: self.target().as_os_str().as_encoded_bytes().to_vec(),
            into_directory: false,
        };
        let recorder = Arc::new(Recorder::default());
        let (_switch, stop) = stop_pair();
        // Dropped at the end with all that the client still had under way, as when it dies.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(!self.way.shell)
            .build()
            .expect("a runtime");
        let (outcome, took) = runtime.block_on(async {
            let began = tokio::time::Instant::now();
            let put = put(Arc::new(connector), job, options, recorder.clone(), stop);
            let outcome = tokio::time::timeout(HUNG, put).await;
            (outcome.ok(), began.elapsed())
        });
        drop(runtime);
        Ran {
            outcome,
            notices: recorder.text(),
            calls: script.calls(),
            fired_at: script.fired_at(),
            took,
            placed: self.way.placed(),
        }
    }

    pub fn stands(&self) -> Stands {
        match (fs::read(self.target()), &self.old) {
            (Ok(content), _) if content == self.new => Stands::New,
            (Ok(content), Some(old)) if content == *old => Stands::Old,
            (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => Stands::Old,
            // Between the two steps of a replacement that was allowed not to be atomic.
            (Err(_), Some(_)) if self.options().non_atomic_replace => Stands::Old,
            _ => Stands::Torn,
        }
    }

    /// Names beside the target that haul made.
    pub fn litter(&self) -> Vec<String> {
        names_in(self.directory.path()).into_iter().filter(|name| name.starts_with("target.bin:")).collect()
    }

    /// As if the process that holds the lock were gone: it is named with a start time that
    /// no process of this pid has. False when there is no such lock.
    pub fn holder_dies(&self) -> bool {
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

    /// The chunks that count as sent by what stands in the temp directory.
    pub fn published(&self) -> BTreeSet<u64> {
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

impl Ran {
    /// The chunks of which bytes were sent after the first `skipped` calls.
    pub fn sent_after(&self, skipped: usize) -> BTreeSet<u64> {
        self.calls.iter().skip(skipped).filter_map(|call| self.chunk_of(call)).collect()
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
