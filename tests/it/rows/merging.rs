//! Rows A4, A5 and A9 to A12: both merges, what they record, and that they go on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{CHUNK, Client, LIMIT, Running, content, signal, wait_idle};
use super::place::{beside, names, number_in, published, record, temp_of};
use crate::harness::sshd::Sshd;
use crate::harness::wait_until;

const SLOW: &str = "--bwlimit=512KiB";
/// DESIGN.md's bound of what stored chunks take beside the file itself.
const BESIDE_BYTES: u64 = 64 << 20;
/// No upload has more chunks open at once.
const OPEN_CHUNKS: u64 = 8;

/// The merged file as it grows, and its size.
fn merged_file(target: &Path) -> Option<(PathBuf, u64)> {
    for run in std::fs::read_dir(temp_of(target)).ok()?.flatten() {
        for file in std::fs::read_dir(run.path()).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with("merged.") {
                return Some((file.path(), file.metadata().ok()?.len()));
            }
        }
    }
    None
}

/// Bytes on the disk at and below `directory`, a file with two names counted once. What
/// vanishes meanwhile does not count.
fn disk_use(directory: &Path) -> u64 {
    let mut files = BTreeMap::new();
    gather(directory, &mut files);
    files.values().sum()
}

fn gather(directory: &Path, files: &mut BTreeMap<u64, u64>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        files.insert(metadata.ino(), metadata.blocks() * 512);
        if metadata.is_dir() {
            gather(&entry.path(), files);
        }
    }
}

/// The shells on this machine that run the merge script of `target`.
fn script_processes(target: &Path) -> Vec<u32> {
    let temp = temp_of(target);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let at = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("merge.sh")
            && (at.starts_with(&temp) || line.contains(temp.to_str().expect("UTF-8")))
        {
            found.push(pid);
        }
    }
    found
}

/// Stops the merge script once it runs; gives its processes.
fn freeze_script(run: &mut Running, target: &Path) -> Vec<u32> {
    let mut stopped = Vec::new();
    run.until("the merge script", || {
        for pid in script_processes(target) {
            if !stopped.contains(&pid) {
                signal("STOP", pid);
                stopped.push(pid);
            }
        }
        !stopped.is_empty()
    });
    stopped
}

#[test]
fn the_record_tells_how_far_the_merge_is_and_is_never_ahead_of_the_data() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let chunks = 24;
    for merge in ["auto", "sftp", "script"] {
        let source = client.source("source", (chunks - 1) * CHUNK + 100, 1);
        let target = sshd.scratch().join("disk.img");
        let mut run = client.start_put(&source, &target, &["--merge", merge, SLOW]);
        let mut seen = Vec::new();
        while run.is_running() {
            let Some(text) = record(&sshd, &target) else { continue };
            // The merged file only grows, and is read after the record that speaks of it.
            let Some((_, length)) = merged_file(&target) else { continue };
            let keys: Vec<&str> = text.lines().filter_map(|line| line.split(": ").next()).collect();
            for key in ["name", "size", "chunk"] {
                assert!(keys.contains(&key), "{merge}: {text}");
            }
            assert!(text.contains("\nname: disk.img\n"), "{text}");
            let (size, chunk) = (number_in(&text, "size"), number_in(&text, "chunk"));
            assert_eq!(size, (chunk * CHUNK).min((chunks - 1) * CHUNK + 100), "{text}");
            assert!(length >= size, "{merge}: the record says {size}, the file has {length}");
            if seen.last() != Some(&chunk) {
                seen.push(chunk);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        run.wait().expect(0);
        assert!(seen.is_sorted(), "{merge}: {seen:?}");
        // Placed chunks need no merge; the others are recorded as they are merged.
        assert!(merge == "auto" || seen.len() >= 6, "{merge}: {seen:?}");
        assert_eq!(beside(&sshd, &target), Vec::<String>::new());
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn the_script_goes_on_when_its_client_is_killed_and_a_merge_commits() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let chunks = 24;
    let (source, target) = (client.source("source", chunks * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &["--merge", "script", "--bwlimit=2MiB"]);
    let script = freeze_script(&mut run, &target);
    run.until("all chunks", || published(&sshd, &target).len() as u64 == chunks);
    let merged = || number_in(&record(&sshd, &target).expect("a record"), "chunk");
    let before = merged();
    assert!(before < chunks);
    run.kill();
    sshd.kill_all_sessions();
    for pid in &script {
        signal("CONT", *pid);
    }
    // Nobody is connected: it merges what is there, and does not commit.
    wait_until("the script to merge what is there", LIMIT, || merged() == chunks);
    wait_until("the script's end", LIMIT, || script_processes(&target).is_empty());
    assert!(!target.exists());
    let status = client.on("status", &target, &[]).expect(0);
    assert_eq!((status.number("chunks_merged"), status.number("chunks_present")), (chunks, chunks));
    assert_eq!(status.last()["state"], "merging");
    let outcome = client.on("merge", &target, &[]).expect(0);
    assert_eq!((outcome.number("bytes_sent"), outcome.number("chunks_skipped")), (0, chunks));
    assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1));
    assert_eq!(beside(&sshd, &target), Vec::<String>::new());
}

#[test]
fn a_merge_over_sftp_goes_on_from_the_record() {
    for poor in [false, true] {
        // Without copy-data the bytes go through the client.
        let builder =
            if poor { Sshd::builder().sftp_arguments(&["-P", "copy-data"]) } else { Sshd::builder() };
        let sshd = builder.start();
        let client = Client::of(&sshd);
        let chunks = 160;
        let (source, target) = (client.source("source", chunks * CHUNK, 1), sshd.scratch().join("disk.img"));
        // All chunks are sent, none is merged: the client cannot merge what its script holds.
        let mut run = client.start_put(&source, &target, &["--merge", "script"]);
        let script = freeze_script(&mut run, &target);
        run.until("all chunks", || published(&sshd, &target).len() as u64 == chunks);
        run.kill();
        for pid in script {
            signal("KILL", pid);
        }
        wait_idle(&sshd);
        let merged = || number_in(&record(&sshd, &target).expect("a record"), "chunk");
        assert!(merged() < chunks / 2);

        let mut haul = client.haul("merge");
        haul.args(["--json", "--user-id", "alice", "--merge", "sftp"]).arg(client.destination(&target));
        let from = merged();
        let mut run = client.start(haul);
        run.until("some merged", || merged() >= from + 4);
        run.kill();
        wait_idle(&sshd);
        let there = merged();
        assert!(there >= from + 4 && there < chunks, "{there}");
        assert_eq!(published(&sshd, &target).len() as u64, chunks, "nothing is lost");
        let (_, length) = merged_file(&target).expect("the merged file");
        assert!(length >= there * CHUNK);

        let outcome = client.on("merge", &target, &["--merge", "sftp"]).expect(0);
        assert_eq!((outcome.last()["merge"].as_str(), outcome.number("bytes_sent")), (Some("sftp"), 0));
        assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1), "poor: {poor}");
        assert_eq!(beside(&sshd, &target), Vec::<String>::new());
    }
}

#[test]
fn servers_without_this_and_that_take_the_file_all_the_same() {
    for (denied, more) in [
        ("copy-data", &["--merge", "sftp"][..]),
        ("copy-data,hardlink", &["--merge", "sftp"]),
        ("fsync,statvfs,limits,copy-data", &[]),
        ("posix-rename", &[]),
    ] {
        let sshd = Sshd::builder().sftp_arguments(&["-P", denied]).internal_sftp().start();
        let client = Client::of(&sshd);
        let (source, target) = (client.source("source", 9 * CHUNK + 1, 1), sshd.scratch().join("disk.img"));
        let outcome = client.put(&source, &target, more).expect(0);
        assert_eq!(outcome.status(), "uploaded", "{denied}");
        assert!(std::fs::read(&target).expect("the target") == content(9 * CHUNK + 1, 1), "{denied}");
        assert_eq!(beside(&sshd, &target), Vec::<String>::new(), "{denied}");
    }
}

#[test]
fn the_upload_waits_for_a_merge_that_stands_still() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (chunk, chunks) = (1 << 20, 120);
    let (source, target) = (client.source("source", chunk * chunks, 1), sshd.scratch().join("disk.img"));
    let more = ["--merge", "script", "--chunk-size", "1MiB"];
    let mut run = client.start_put(&source, &target, &more);
    let script = freeze_script(&mut run, &target);
    let bound = BESIDE_BYTES + OPEN_CHUNKS * chunk;
    let mut last = (0, Instant::now());
    // It fills what it may, and then it stands.
    while last.1.elapsed() < Duration::from_secs(3) {
        let used = disk_use(&temp_of(&target));
        assert!(used <= bound + merged_file(&target).map_or(0, |(_, length)| length), "{used} bytes");
        if used != last.0 {
            last = (used, Instant::now());
        }
        assert!(run.is_running());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(last.0 >= BESIDE_BYTES / 2, "it stops early: {}", last.0);
    for pid in script {
        signal("CONT", pid);
    }
    run.wait().expect(0);
    assert!(std::fs::read(&target).expect("the target") == content(chunk * chunks, 1));
}

#[test]
fn the_disk_holds_the_file_and_little_more_while_it_comes() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (chunk, size) = (4 << 20, 256 << 20);
    let source = client.source("source", size, 1);
    for merge in ["sftp", "script"] {
        let target = sshd.scratch().join("disk.img");
        let mut run = client.start_put(&source, &target, &["--merge", merge, "--chunk-size", "4MiB"]);
        let mut most = 0;
        while run.is_running() {
            most = most.max(disk_use(&sshd.scratch()));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(run.wait().expect(0).last()["merge"], merge);
        assert!(most >= size / 2, "{merge}: looked at {most} bytes only");
        assert!(most <= size + BESIDE_BYTES + OPEN_CHUNKS * chunk, "{merge}: {most} bytes");
        assert!(names(&sshd, &sshd.scratch()) == ["disk.img"], "{merge}");
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn a_chunk_that_vanishes_or_rots_before_its_merge_is_sent_again() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let chunks = 24;
    let (source, target) = (client.source("source", chunks * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &["--merge", "script", SLOW]);
    let script = freeze_script(&mut run, &target);
    let stored = |n: u64| temp_of(&target).join(format!("alice-disk:{n}"));
    run.until("chunks", || stored(12).exists());
    std::fs::remove_file(stored(10)).expect("removed");
    std::fs::write(stored(11), content(CHUNK, 99)).expect("damaged, of the same size");
    for pid in script {
        signal("CONT", pid);
    }
    let outcome = run.wait().expect(0);
    assert_eq!(outcome.number("chunks_sent"), chunks + 2, "{}", outcome.stdout);
    assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1));
    assert_eq!(beside(&sshd, &target), Vec::<String>::new());
}

#[test]
fn without_a_rename_that_replaces_haul_asks_before_it_sends() {
    let sshd = Sshd::builder().force_internal_sftp().sftp_arguments(&["-P", "posix-rename"]).start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 9 * CHUNK, 1), sshd.scratch().join("disk.img"));
    std::fs::write(&target, "old").expect("an old file");
    let outcome = client.put(&source, &target, &["--if-exists", "replace"]).expect(4);
    assert!(outcome.stderr.contains("--non-atomic-replace"), "{}", outcome.stderr);
    assert!(!outcome.stdout.contains("\"upload\""), "nothing was sent: {}", outcome.stdout);
    assert_eq!(std::fs::read(&target).expect("the target"), b"old");
    let more = ["--if-exists", "replace", "--non-atomic-replace"];
    client.put(&source, &target, &more).expect(0);
    assert!(std::fs::read(&target).expect("the target") == content(9 * CHUNK, 1));
    assert_eq!(beside(&sshd, &target), Vec::<String>::new());
}

#[test]
fn what_was_verified_is_said() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 3 * CHUNK, 1);
    for (how, said) in [("sha256", "sha256-target"), ("size", "size")] {
        let outcome = client.put(&source, sshd.scratch().join(how), &["--verify", how]).expect(0);
        assert_eq!(outcome.last()["verified_by"], said);
    }
    let mut haul = client.haul("put");
    haul.arg(&source).arg(client.destination(sshd.scratch().join("for people")));
    let said = client.run(haul).expect(0).stdout;
    assert!(said.contains("verified on the target"), "{said}");
}
