//! The engine over a local directory and over a real sftp-server, without SSH between:
//! every kind of upload, resume and refusal, fast enough to be many.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::engine::failure::{Failure, FailureKind, Phase};
use haul::engine::monitor::{Monitor, Notice};
use haul::engine::options::{
    Connections, IfExists, LockOptions, MergeMethod, PutOptions, RetryOptions, VerifyMethod, Wait,
};
use haul::engine::put::{PutJob, put};
use haul::engine::report::{PutReport, PutStatus};
use haul::engine::stop::stop_pair;
use haul::model::chunk::ChunkSize;
use haul::model::names::UserId;
use haul::remote::Connector;
use haul::remote::local::{LocalConnector, PipedConnector};

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
const CHUNK: u64 = 64 << 10;

/// Remembers what it is told.
#[derive(Default)]
pub struct Recorder {
    notices: Mutex<Vec<String>>,
}

impl Recorder {
    pub fn text(&self) -> String {
        self.notices.lock().expect("not poisoned").join("\n")
    }
}

impl Monitor for Recorder {
    fn phase(&self, _: Phase, _: u64, _: u64) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn notice(&self, notice: Notice) {
        self.notices.lock().expect("not poisoned").push(notice.text);
    }
    fn retry(&self, failure: &Failure, attempt: u32, limit: u32, _: Duration) {
        self.notices.lock().expect("not poisoned").push(format!("retry {attempt}/{limit}: {failure}"));
    }
}

/// The ways to a host that need no SSH.
fn connectors() -> Vec<(&'static str, Arc<dyn Connector>)> {
    let sh = || Some(PathBuf::from("/bin/sh"));
    let piped = |args: &[&str], shell| {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        Arc::new(PipedConnector::new(PathBuf::from(SFTP_SERVER), args, shell))
    };
    vec![
        ("local", Arc::new(LocalConnector::whole_machine(sh()))),
        ("local, no shell", Arc::new(LocalConnector::whole_machine(None))),
        ("sftp-server", piped(&[], sh())),
        ("sftp-server, no shell", piped(&[], None)),
        ("poor sftp-server", piped(&["-P", "copy-data,hardlink,fsync,statvfs,posix-rename"], None)),
    ]
}

struct Bench {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Bench { directory: tempfile::tempdir().expect("a directory"), runtime: runtime.expect("a runtime") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Bytes that differ from chunk to chunk and from seed to seed.
    fn source(&self, name: &str, size: u64, seed: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content(size, seed)).expect("a source");
        path
    }

    fn put(
        &self,
        connector: &Arc<dyn Connector>,
        source: &Path,
        target: &Path,
        options: PutOptions,
    ) -> (Result<PutReport, Failure>, String) {
        let recorder = Arc::new(Recorder::default());
        let (_switch, stop) = stop_pair();
        let job = PutJob {
            source: source.to_owned(),
            destination: target.as_os_str().as_encoded_bytes().to_vec(),
            into_directory: false,
        };
        let outcome = self.runtime.block_on(put(connector.clone(), job, options, recorder.clone(), stop));
        (outcome, recorder.text())
    }

    /// Names beside the target that are not the target.
    fn left_beside(&self, target: &Path) -> Vec<String> {
        let name = format!("{}:", target.file_name().expect("a name").to_string_lossy());
        std::fs::read_dir(target.parent().expect("a parent"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|entry| entry.starts_with(&name))
            .collect()
    }
}

pub fn content(size: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn options() -> PutOptions {
    PutOptions {
        user: UserId::new("alice").expect("a user id"),
        chunk_size: ChunkSize::new(CHUNK).expect("a size"),
        if_exists: IfExists::Fail,
        lock: LockOptions {
            wait: Wait::No,
            break_lock: false,
            no_lock: false,
            holder: "tester@here".to_owned(),
        },
        merge: MergeMethod::Auto,
        verify: VerifyMethod::Sha256,
        quick: false,
        rehash: false,
        preserve: false,
        chmod: None,
        chown: Default::default(),
        hash_existing: false,
        bwlimit: None,
        connections: Connections::Auto,
        retry: RetryOptions { retries: 1, stall_timeout: Duration::from_secs(30) },
        dry_run: false,
        non_atomic_replace: false,
    }
}

#[test]
fn files_of_every_size_arrive_whole_by_every_way() {
    let bench = Bench::new();
    for (way, connector) in connectors() {
        for merge in [MergeMethod::Auto, MergeMethod::Sftp, MergeMethod::Script] {
            let has_shell = !way.contains("no shell") && !way.contains("poor");
            if merge == MergeMethod::Script && !has_shell {
                continue;
            }
            for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK + 12345] {
                let source = bench.source("source", size, size);
                let target = bench.path("target.bin");
                let (outcome, notices) =
                    bench.put(&connector, &source, &target, PutOptions { merge, ..options() });
                let report =
                    outcome.unwrap_or_else(|failure| panic!("{way} {merge:?} {size}: {failure}\n{notices}"));
                assert_eq!(report.status, PutStatus::Uploaded, "{way} {merge:?} {size}");
                assert_eq!(report.chunks_sent, size.div_ceil(CHUNK), "{way} {merge:?} {size}");
                assert_eq!(report.bytes_sent, size, "{way} {merge:?} {size}");
                assert!(std::fs::read(&target).expect("the target") == content(size, size), "{way} {size}");
                assert_eq!(bench.left_beside(&target), Vec::<String>::new(), "{way} {merge:?} {size}");
                std::fs::remove_file(&target).expect("the target");
            }
        }
    }
}

#[test]
fn identical_content_is_unchanged_and_nothing_is_sent() {
    let bench = Bench::new();
    for (way, connector) in connectors() {
        let source = bench.source("source", 3 * CHUNK, 1);
        let target = bench.source("target.bin", 3 * CHUNK, 1);
        let before = std::fs::metadata(&target).expect("the target");
        let (outcome, notices) = bench.put(&connector, &source, &target, options());
        let report = outcome.unwrap_or_else(|failure| panic!("{way}: {failure}\n{notices}"));
        assert_eq!((report.status, report.bytes_sent), (PutStatus::Unchanged, 0), "{way}");
        let after = std::fs::metadata(&target).expect("the target");
        assert_eq!(before.modified().expect("a time"), after.modified().expect("a time"));
        assert_eq!(bench.left_beside(&target), Vec::<String>::new());
    }
}

#[test]
fn different_content_is_replaced_only_when_asked() {
    let bench = Bench::new();
    for (way, connector) in connectors() {
        let source = bench.source("source", 3 * CHUNK, 1);
        let target = bench.source("target.bin", 3 * CHUNK, 2);
        let (outcome, _) = bench.put(&connector, &source, &target, options());
        let failure = outcome.expect_err("it exists");
        assert_eq!(failure.kind, FailureKind::Exists, "{way}: {failure}");
        let (outcome, _) =
            bench.put(&connector, &source, &target, PutOptions { if_exists: IfExists::Skip, ..options() });
        assert_eq!(outcome.expect("skipped").status, PutStatus::Skipped, "{way}");
        assert!(std::fs::read(&target).expect("the target") == content(3 * CHUNK, 2));
        let replace = PutOptions {
            if_exists: IfExists::Replace,
            non_atomic_replace: way.contains("poor"),
            ..options()
        };
        let (outcome, notices) = bench.put(&connector, &source, &target, replace);
        let report = outcome.unwrap_or_else(|failure| panic!("{way}: {failure}\n{notices}"));
        assert_eq!(report.status, PutStatus::Uploaded, "{way}");
        assert!(std::fs::read(&target).expect("the target") == content(3 * CHUNK, 1));
        assert_eq!(bench.left_beside(&target), Vec::<String>::new());
    }
}
