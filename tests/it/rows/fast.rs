//! `--verify fast`: by which program, that damage is found, and resumes between it and
//! SHA-256.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::client::{CHUNK, Client, Outcome, content, wait_idle};
use super::place::{beside, published, temp_of};
use crate::harness::Sshd;

const CHUNKS: u64 = 40;
const SLOW: &str = "--bwlimit=512KiB";

/// A host, and what the result calls the way in which it verifies.
struct Target {
    sshd: Sshd,
    verified_by: &'static str,
    _programs: Option<tempfile::TempDir>,
}

impl Target {
    /// With all programs of this machine but those.
    fn without(programs: &[&str], verified_by: &'static str) -> Target {
        let directory = tempfile::Builder::new().prefix("haul-path-").tempdir().expect("a directory");
        for entry in fs::read_dir("/usr/bin").expect("/usr/bin").flatten() {
            if !programs.contains(&entry.file_name().to_string_lossy().as_ref()) {
                symlink(entry.path(), directory.path().join(entry.file_name())).expect("a link");
            }
        }
        let path = directory.path().to_str().expect("UTF-8");
        Target { sshd: Sshd::builder().env("PATH", path).start(), verified_by, _programs: Some(directory) }
    }

    fn all() -> Vec<Target> {
        vec![
            Target::without(&[], "mac-target"),
            Target::without(&["openssl"], "crc-target"),
            Target::without(&["openssl", "cksum"], "sha256-target"),
            Target {
                sshd: Sshd::builder().force_internal_sftp().start(),
                verified_by: "mac-readback",
                _programs: None,
            },
        ]
    }

    fn path(&self) -> PathBuf {
        self.sshd.scratch().join("disk.img")
    }

    #[track_caller]
    fn is_done(&self, outcome: &Outcome, verified_by: &str) {
        assert_eq!(outcome.status(), "uploaded");
        assert_eq!(outcome.last()["verified_by"], verified_by, "{outcome:?}");
        let by_sha256 = verified_by.starts_with("sha256");
        assert_eq!(outcome.last()["sha256"].is_string(), by_sha256, "{outcome:?}");
        assert!(fs::read(self.path()).expect("the target") == content(CHUNKS * CHUNK, 1), "{verified_by}");
        assert_eq!(beside(&self.sshd, &self.path()), Vec::<String>::new());
    }

    /// Changes one byte of a chunk that counts as sent.
    fn damage(&self, chunk: u64) {
        let temp = temp_of(&self.path());
        let stored = temp.join(format!("alice-disk:{chunk}"));
        let (file, at) = match fs::metadata(&stored) {
            Ok(_) => (stored, 100),
            Err(_) => (merged_file(&temp), (chunk - 1) * CHUNK + 100),
        };
        let file = OpenOptions::new().read(true).write(true).open(&file).expect("the merged file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], at).expect("a byte");
    }
}

fn merged_file(temp: &Path) -> PathBuf {
    let private = fs::read_dir(temp).expect("the temp directory").flatten();
    let files = private.filter_map(|entry| fs::read_dir(entry.path()).ok()).flat_map(Iterator::flatten);
    let mut merged = files.filter(|file| file.file_name().to_string_lossy().starts_with("merged."));
    merged.next().expect("a merged file").path()
}

#[test]
fn fast_is_what_the_target_can_do() {
    for target in Target::all() {
        let client = Client::of(&target.sshd);
        let source = client.source("source", CHUNKS * CHUNK, 1);
        let outcome = client.put(&source, target.path(), &["--verify", "fast"]).expect(0);
        target.is_done(&outcome, target.verified_by);
        // What is there already is compared in the same way.
        let outcome = client.put(&source, target.path(), &["--verify", "fast"]).expect(0);
        assert_eq!(outcome.status(), "unchanged");
        assert_eq!(outcome.last()["verified_by"], target.verified_by);
        let empty = client.source("empty", 0, 1);
        let path = target.sshd.scratch().join("empty");
        let outcome = client.put(&empty, &path, &["--verify", "fast"]).expect(0);
        assert_eq!(outcome.last()["verified_by"], target.verified_by);
        assert_eq!(fs::read(&path).expect("the target"), b"");
    }
}

/// Killed while it is verified by `first`; then run to the end by `then`. A chunk that is
/// damaged in between is found, and is the one that is sent again.
fn resumed(target: &Target, first: &str, then: &str, verified_by: &str, merge: &str, damaged: bool) {
    let client = Client::of(&target.sshd);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let merge = ["--merge", merge];
    let mut run =
        client.start_put(&source, target.path(), &[&merge[..], &["--verify", first, SLOW]].concat());
    run.until("chunks", || published(&target.sshd, &target.path()).contains(&8));
    run.kill();
    wait_idle(&target.sshd);
    let there = published(&target.sshd, &target.path()).len() as u64;
    if damaged {
        target.damage(5);
    }
    let outcome = client.put(&source, target.path(), &[&merge[..], &["--verify", then]].concat()).expect(0);
    assert_eq!(outcome.number("chunks_skipped"), there, "{first}, {then}");
    assert_eq!(outcome.number("chunks_sent"), CHUNKS - there + u64::from(damaged), "{first}, {then}");
    target.is_done(&outcome, verified_by);
    fs::remove_file(target.path()).expect("the target");
}

#[test]
fn a_resume_goes_on_by_another_method() {
    for target in Target::all() {
        let strong =
            if target.verified_by.ends_with("readback") { "sha256-readback" } else { "sha256-target" };
        for damaged in [false, true] {
            resumed(&target, "fast", "fast", target.verified_by, "auto", damaged);
            resumed(&target, "fast", "sha256", strong, "auto", damaged);
            // What was begun with SHA-256 stays with it.
            resumed(&target, "sha256", "fast", strong, "sftp", damaged);
        }
    }
}

/// Of a source that is another file since, only the chunks that agree are kept.
#[test]
fn a_changed_source_is_compared_by_what_the_manifest_has() {
    let target = Target::without(&[], "mac-target");
    let client = Client::of(&target.sshd);
    for (first, then, verified_by) in [
        ("fast", "fast", "mac-target"),
        ("fast", "sha256", "sha256-target"),
        ("sha256", "fast", "sha256-target"),
    ] {
        let mut old = content(CHUNKS * CHUNK, 1);
        old[100] ^= 1;
        old[6 * CHUNK as usize] ^= 1;
        let source = client.home().join("source");
        fs::write(&source, &old).expect("a source");
        let mut run = client.start_put(&source, target.path(), &["--verify", first, SLOW]);
        run.until("chunks", || published(&target.sshd, &target.path()).contains(&10));
        run.kill();
        wait_idle(&target.sshd);
        let there = published(&target.sshd, &target.path()).len() as u64;
        client.source("source", CHUNKS * CHUNK, 1);
        let outcome = client.put(&source, target.path(), &["--verify", then]).expect(0);
        assert_eq!(outcome.number("chunks_sent"), CHUNKS - there + 2, "{first}, {then}: {}", outcome.stderr);
        target.is_done(&outcome, verified_by);
        fs::remove_file(target.path()).expect("the target");
    }
}

/// The chunks are all there, and nobody knows the source: what it was begun with counts.
#[test]
fn a_merge_without_the_source_verifies_by_what_there_is() {
    let target = Target::without(&[], "mac-target");
    let client = Client::of(&target.sshd);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let mut run = client.start_put(&source, target.path(), &["--verify", "fast", SLOW]);
    run.until("a chunk", || !published(&target.sshd, &target.path()).is_empty());
    run.signal("STOP");
    fs::write(target.path(), "other").expect("another file");
    run.signal("CONT");
    run.wait().expect(4).says("appeared at the target during the upload");
    fs::remove_file(target.path()).expect("the other file");
    let outcome = client.on("merge", target.path(), &[]).expect(0);
    target.is_done(&outcome, "mac-target");
}
