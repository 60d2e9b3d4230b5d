//! `haul put -`: what a pipe yields, of a length that nobody knows.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::client::{CHUNK, Client, LIMIT, Outcome, content, sha256, wait_idle};
use super::place::{Place, temp_of};
use crate::harness::sshd::Sshd;
use crate::harness::wait_until;

/// A run whose standard input this test holds.
struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    stdout: std::path::PathBuf,
    stderr: std::path::PathBuf,
}

impl Piped {
    fn start(client: &Client, target: impl AsRef<OsStr>, more: &[&str]) -> Piped {
        static RUNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|name| client.home().join(format!(".pipe-{number}.{name}")));
        let mut command: Command = client.put_command(Path::new("-"), target, more);
        command.stdin(Stdio::piped());
        command.stdout(File::create(&stdout).expect("stdout"));
        command.stderr(File::create(&stderr).expect("stderr"));
        let mut child = command.spawn().expect("haul runs");
        let input = child.stdin.take();
        Piped { child, input, stdout, stderr }
    }

    fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("open");
        input.write_all(bytes).and_then(|()| input.flush()).expect("haul reads its input");
    }

    fn end(mut self) -> Outcome {
        self.input = None;
        wait_until("the end of haul", LIMIT, || self.child.try_wait().expect("wait").is_some());
        let read = |path| String::from_utf8_lossy(&fs::read(path).expect("output")).into_owned();
        Outcome {
            code: self.child.wait().expect("wait").code(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn all_that_a_pipe_yields_arrives() {
    for place in [Place::with_shell(), Place::internal_sftp()] {
        let client = Client::of(place.host());
        for size in [0, 1, CHUNK, 70 * CHUNK + 13] {
            let bytes = content(size, size + 3);
            let target = place.path("dump.tar");
            let mut piped = Piped::start(&client, &target, &["--if-exists", "replace"]);
            let (first, second) = bytes.split_at(bytes.len() / 3);
            piped.write(first);
            piped.write(second);
            let outcome = piped.end().expect(0);
            assert_eq!(outcome.status(), "uploaded");
            assert_eq!(outcome.last()["sha256"], sha256(&bytes));
            assert_eq!(outcome.last()["source"], "-");
            assert_eq!(outcome.number("size"), size);
            let by = if place.shell { "sha256-target" } else { "sha256-readback" };
            assert_eq!(outcome.last()["verified_by"], by);
            assert!(place.read(&target) == bytes, "{size} bytes");
            assert_eq!(place.beside(&target), Vec::<String>::new());
            assert!(outcome.stdout.contains("nothing can go on from what it sent"), "{outcome:?}");
        }
    }
}

#[test]
fn a_lost_link_is_made_again_and_loses_nothing() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let target = sshd.scratch().join("dump.tar");
    let bytes = content(60 * CHUNK, 5);
    let mut piped = Piped::start(&client, &target, &["--stall-timeout", "5s"]);
    for part in bytes.chunks(20 * CHUNK as usize) {
        piped.write(part);
        let size = || merged_size(&target);
        wait_until("bytes on the target", LIMIT, || size() > 0);
        sshd.kill_all_sessions();
    }
    let outcome = piped.end().expect(0);
    assert!(fs::read(&target).expect("the target") == bytes);
    assert!(outcome.stdout.contains("\"event\":\"retry\""), "{outcome:?}");
    assert!(!temp_of(&target).exists());
}

/// Of the file in the private directory that grows.
fn merged_size(target: &Path) -> u64 {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries(&temp_of(target)).flat_map(|run| entries(&run.path()).collect::<Vec<_>>());
    let merged = sizes.filter(|file| file.file_name().to_string_lossy().starts_with("merged."));
    merged.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
}

#[test]
fn a_killed_run_leaves_the_target_as_it_was_and_the_next_begins_anew() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let target = sshd.scratch().join("dump.tar");
    fs::write(&target, b"old").expect("an old file");
    let mut piped = Piped::start(&client, &target, &["--if-exists", "replace"]);
    piped.write(&content(9 * CHUNK, 1));
    wait_until("bytes on the target", LIMIT, || merged_size(&target) > 0);
    piped.child.kill().expect("kill");
    drop(piped);
    wait_idle(&sshd);
    assert_eq!(fs::read(&target).expect("the old file"), b"old");

    let bytes = content(3 * CHUNK + 5, 2);
    let mut again = Piped::start(&client, &target, &["--if-exists", "replace"]);
    again.write(&bytes);
    again.end().expect(0);
    assert!(fs::read(&target).expect("the new file") == bytes);
    assert!(!temp_of(&target).exists());
}

#[test]
fn the_lock_holds_for_pipes_too() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let target = sshd.scratch().join("dump.tar");
    let mut first = Piped::start(&client, &target, &[]);
    first.write(&content(CHUNK, 1));
    wait_until("the lock", LIMIT, || merged_size(&target) > 0);
    let source = client.source("other", CHUNK, 2);
    client.put(&source, &target, &[]).expect(11);
    first.write(b"the end");
    first.end().expect(0);
    let bytes = [&content(CHUNK, 1)[..], b"the end"].concat();
    assert!(fs::read(&target).expect("the target") == bytes);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_read() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let target = sshd.scratch().join("dump.tar");
    fs::write(&target, b"old").expect("an old file");
    Piped::start(&client, &target, &["--if-exists", "fail"]).end().expect(4).says("--if-exists replace");
    let skipped = Piped::start(&client, &target, &["--if-exists", "skip"]).end().expect(0);
    assert_eq!(skipped.status(), "skipped");
    Piped::start(&client, sshd.scratch(), &[]).end().expect(2).says("name the file in it");
    assert_eq!(fs::read(&target).expect("the old file"), b"old");
    assert!(!temp_of(&target).exists());
}
