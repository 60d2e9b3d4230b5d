//! What goes wrong is one line, has its exit code, and changes nothing on the target.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{CHUNK, Client, Outcome, content};
use super::place::{names, published};
use crate::harness::sshd::{Sshd, free_port, is_root};

/// One line on standard error that has all of `parts`.
#[track_caller]
fn one_line(outcome: Outcome, code: i32, parts: &[&str]) {
    let outcome = outcome.expect(code);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("haul: "), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("backtrace"));
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part} is not in: {}", outcome.stderr);
    }
}

#[test]
fn a_bad_request_is_told_before_anything_is_changed() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let good = client.source("source", CHUNK, 1);
    let target = sshd.scratch().join("disk.img");
    let directory = client.home().join("directory");
    std::fs::create_dir(&directory).expect("a directory");
    let put = |source: &Path, target: &Path, more: &[&str]| client.put(source, target, more);

    one_line(put(&client.home().join("absent"), &target, &[]), 2, &["absent", "No such file"]);
    one_line(put(&directory, &target, &[]), 2, &["is a directory", "tar"]);
    one_line(put(Path::new("/dev/null"), &target, &[]), 2, &["no regular file"]);
    for id in ["a/b", "lock"] {
        let outcome = put(&good, &target, &["--user-id", id]).expect(2);
        assert!(outcome.stderr.contains("user id"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"));
    }
    let hosts = client.home().join("bad.toml");
    for (text, parts) in [
        ("[hosts.a]\naddress = \"x\"\nprot = 22\n", &["bad.toml:3", "prot"][..]),
        ("[hosts.a\n", &["bad.toml:1"]),
        ("[hosts.a]\nport = 99999\n", &["bad.toml:2", "port"]),
    ] {
        std::fs::write(&hosts, text).expect("a hosts file");
        let file = hosts.to_str().expect("UTF-8");
        one_line(put(&good, &target, &["--hosts-file", file]), 2, parts);
    }
    one_line(put(&good, &target, &["--hosts-file", "absent.toml"]), 2, &["absent.toml"]);
    let existing = sshd.scratch().join("full");
    std::fs::create_dir_all(existing.join("source")).expect("a directory");
    one_line(put(&good, &existing, &[]), 2, &["127.0.0.1:", "full/source", "is a directory"]);
    one_line(put(&good, &sshd.scratch().join("no/such"), &[]), 2, &["/no", "no such directory"]);
    std::fs::remove_dir_all(&existing).expect("removed");
    std::fs::write(sshd.scratch().join("file"), "x").expect("a file");
    let below = put(&good, &sshd.scratch().join("file/below"), &[]);
    assert!(below.code.is_some_and(|code| code != 0), "{below:?}");
    assert_eq!(below.stderr.lines().count(), 1, "{}", below.stderr);
    assert_eq!(names(&sshd, &sshd.scratch()), ["file"]);

    for (arguments, said) in [
        (&["put", "source"][..], "required arguments"),
        (&["put", "source", "no-colon"], "no-colon"),
        (&["put", "--merge", "rsync", "source", "h:x"], "rsync"),
        (&["put", "--chunk-size", "7", "source", "h:x"], "chunk"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let mut haul = crate::harness::haul(client.home());
        haul.args(arguments);
        let outcome = client.run(haul).expect(2);
        assert!(outcome.stderr.contains(said), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn several_sources_need_a_directory_and_all_arrive() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let sources: Vec<PathBuf> = (1..=3).map(|n| client.source(format!("{n}.img"), n * CHUNK, n)).collect();
    let put = |target: &Path| {
        let mut haul = client.haul("put");
        haul.args(["--json", "--user-id", "alice"]).args(&sources).arg(client.destination(target));
        client.run(haul)
    };
    let target = sshd.scratch().join("into");
    put(&target).expect(2).says("no such directory");
    assert!(names(&sshd, &sshd.scratch()).is_empty());
    std::fs::create_dir(&target).expect("a directory");
    let outcome = put(&target).expect(0);
    let results: Vec<_> = outcome.events().into_iter().filter(|event| event["event"] == "result").collect();
    assert_eq!(results.len(), 3);
    for n in 1..=3 {
        let path = target.join(format!("{n}.img"));
        assert!(std::fs::read(&path).expect("the target") == content(n * CHUNK, n));
    }
    assert_eq!(names(&sshd, &target), ["1.img", "2.img", "3.img"]);
    // One that exists stops only itself, and the code is not forgotten.
    std::fs::write(target.join("2.img"), "other").expect("another file");
    std::fs::remove_file(target.join("3.img")).expect("removed");
    put(&target).expect(4);
    assert!(std::fs::read(target.join("3.img")).expect("the target") == content(3 * CHUNK, 3));
    assert_eq!(std::fs::read(target.join("2.img")).expect("the target"), b"other");
    // Two of one name would fight over one target.
    std::fs::create_dir(client.home().join("d")).expect("a directory");
    let same = client.source("d/1.img", CHUNK, 9);
    let mut haul = client.haul("put");
    haul.arg(&sources[0]).arg(same).arg(client.destination(&target));
    one_line(client.run(haul), 2, &["two sources are called '1.img'"]);
}

#[test]
fn who_cannot_be_reached_is_ten() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let port = free_port().to_string();
    let more = ["-P", &port, "--retries", "0"];
    one_line(client.put(&source, "/tmp/x", &more), 10, &["127.0.0.1", "refused"]);
    let unknown = client.home().join("no-known-hosts");
    let mut haul = crate::harness::haul(client.home());
    haul.args(["put", "-P", &sshd.port().to_string(), "-i"]).arg(sshd.key_path());
    haul.arg("-o").arg(format!("UserKnownHostsFile={}", unknown.display()));
    haul.arg(&source).arg(client.destination("/tmp/x"));
    let outcome = client.run(haul).expect(10);
    assert!(outcome.stderr.contains("host key"), "{}", outcome.stderr);
    let mut haul = crate::harness::haul(client.home());
    haul.args(["status", "-P", &sshd.port().to_string(), "-o"]);
    haul.arg(format!("UserKnownHostsFile={}", sshd.known_hosts_path().display()));
    haul.arg(client.destination("/tmp/x"));
    let outcome = client.run(haul).expect(10);
    assert!(outcome.stderr.contains("127.0.0.1"), "{}", outcome.stderr);
}

/// A small file system of its own; unmounted when dropped.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: PathBuf, options: &str) -> Option<Mount> {
        if !is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root to mount a tmpfs");
            eprintln!("NOT TESTED: a full disk needs root to mount a tmpfs");
            return None;
        }
        std::fs::create_dir(&at).expect("a directory");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).status();
        assert!(status.expect("mount runs").success());
        Some(Mount(at))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.expect("mount runs").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn no_space_is_thirteen_and_the_old_file_stays() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let Some(mount) = Mount::tmpfs(sshd.scratch().join("small"), "size=4m") else { return };
    let target = mount.0.join("disk.img");
    std::fs::write(&target, content(CHUNK, 7)).expect("an old file");
    let source = client.source("source", 8 << 20, 1);
    for merge in ["auto", "sftp", "script"] {
        let more = ["--if-exists", "replace", "--merge", merge];
        one_line(client.put(&source, &target, &more), 13, &["not enough space", "needs 8388608", "has "]);
        assert_eq!(names(&sshd, &mount.0), ["disk.img"], "{merge}");
        assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 7));
    }
    // With room made, the same command goes through.
    mount.remount("size=40m");
    client.put(&source, &target, &["--if-exists", "replace"]).expect(0);
    assert!(std::fs::read(&target).expect("the target") == content(8 << 20, 1));

    // A disk that fills up on the way: chunks stay, and with room a rerun finishes.
    let other = client.source("other", 8 << 20, 2);
    let mut run = client.start_put(&other, &target, &["--if-exists", "replace", "--bwlimit=2MiB"]);
    run.until("chunks", || published(&sshd, &target).len() >= 4);
    let free = 40 * 1024 - 8 * 1024 - 4 * 1024;
    let filler = mount.0.join("filler");
    let mut dd = Command::new("fallocate");
    assert!(dd.args(["-l", &format!("{free}KiB")]).arg(&filler).status().expect("fallocate").success());
    let outcome = run.wait().expect(13);
    assert!(outcome.stderr.contains("space"), "{}", outcome.stderr);
    assert!(std::fs::read(&target).expect("the target") == content(8 << 20, 1), "the old file is whole");
    std::fs::remove_file(&filler).expect("room");
    let outcome = client.put(&other, &target, &["--if-exists", "replace"]).expect(0);
    assert!(outcome.number("chunks_skipped") >= 4, "{outcome:?}");
    assert!(std::fs::read(&target).expect("the target") == content(8 << 20, 2));
    assert_eq!(names(&sshd, &mount.0), ["disk.img"]);

    mount.remount("ro");
    one_line(client.put(&source, &target, &["--if-exists", "replace"]), 13, &["read-only"]);
}
