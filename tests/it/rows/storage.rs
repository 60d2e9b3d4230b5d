//! Disks of every size near the need, and directories that are taken away meanwhile: the
//! cause is named, nothing is tried again in vain, the old file stays, and once what was
//! missing is there again the same command finishes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::client::{CHUNK, Client, Outcome, content, wait_idle};
use super::errors::Mount;
use super::place::{names, published, temp_of};
use crate::harness::account::Account;
use crate::harness::sshd::Sshd;

const CHUNKS: u64 = 12;
const REPLACE: [&str; 2] = ["--if-exists", "replace"];

/// Fails with one line that names the cause, and without another try.
#[track_caller]
fn assert_told(outcome: Outcome, code: i32, words: &[&str], context: &str) {
    assert_eq!(outcome.code, Some(code), "{context}: {outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{context}: {}", outcome.stderr);
    assert!(words.iter().any(|word| outcome.stderr.contains(word)), "{context}: {}", outcome.stderr);
    assert!(!outcome.stdout.contains("\"retry\""), "{context}: {}", outcome.stdout);
}

/// On a disk with `options`, then on one with room.
fn fits_or_says_so(sshd: &Sshd, options: &[String], merge: &str) -> (usize, usize) {
    let client = Client::of(sshd);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let (mut fitted, mut refused) = (0, 0);
    for options in options {
        let context = format!("{options}, {merge}");
        let Some(mount) = Mount::tmpfs(sshd.scratch().join("small"), options) else { return (1, 1) };
        let directory = sshd.scratch().join("small");
        let target = directory.join("disk.img");
        std::fs::write(&target, content(CHUNK, 7)).expect("an old file");
        let more = [&REPLACE[..], &["--merge", merge]].concat();
        let outcome = client.put(&source, &target, &more);
        if outcome.code == Some(0) {
            fitted += 1;
        } else {
            refused += 1;
            assert_told(outcome, 13, &["space", "no room", "inodes", "full disk"], &context);
            assert!(std::fs::read(&target).expect("the old file") == content(CHUNK, 7), "{context}");
            let mut room = Command::new("mount");
            room.args(["-o", "remount,size=40m,nr_inodes=1000"]).arg(&directory);
            assert!(room.status().expect("mount runs").success());
            client.put(&source, &target, &more).expect(0);
        }
        assert!(std::fs::read(&target).expect("the target") == content(CHUNKS * CHUNK, 1), "{context}");
        assert_eq!(names(sshd, &directory), ["disk.img"], "{context}");
        wait_idle(sshd);
        drop(mount);
        std::fs::remove_dir(&directory).expect("unmounted");
    }
    (fitted, refused)
}

/// From a little less than the old and the new file need, to what surely is enough.
fn sizes(step: usize) -> Vec<String> {
    let need = (CHUNKS + 1) * CHUNK / 1024;
    (need - 64..need + 4 * CHUNK / 1024).step_by(step).map(|kib| format!("size={kib}k")).collect()
}

#[test]
fn disks_of_every_size_near_the_need() {
    let (fitted, refused) = fits_or_says_so(&Sshd::start(), &sizes(64), "auto");
    assert!(fitted > 0 && refused > 0, "{fitted} fitted, {refused} refused");
}

/// Nothing tells beforehand how much room there is.
#[test]
fn disks_of_unknown_size_near_the_need() {
    let sshd = Sshd::builder().sftp_arguments(&["-P", "statvfs,fstatvfs"]).start();
    for merge in ["auto", "sftp"] {
        let (fitted, refused) = fits_or_says_so(&sshd, &sizes(96), merge);
        assert!(fitted > 0 && refused > 0, "{merge}: {fitted} fitted, {refused} refused");
    }
}

#[test]
fn disks_with_hardly_any_inodes() {
    let options: Vec<String> =
        (4..34).step_by(6).map(|count| format!("size=40m,nr_inodes={count}")).collect();
    let (fitted, refused) = fits_or_says_so(&Sshd::start(), &options, "auto");
    assert!(fitted > 0 && refused > 0, "{fitted} fitted, {refused} refused");
}

/// Runs an upload, does `harm` in its middle, and gives what came out.
fn harmed(client: &Client, sshd: &Sshd, target: &Path, harm: impl FnOnce()) -> Outcome {
    let source = client.source("source", 40 * CHUNK, 1);
    let mut run = client.start_put(&source, target, &["--bwlimit=512KiB", "--retries=2"]);
    run.until("chunks", || published(sshd, target).len() >= 3);
    harm();
    run.wait()
}

#[test]
fn a_permission_that_is_lost_midway_is_named() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let directory = account.home().join("place");
    let chown = |path: &Path, owner: &str| {
        assert!(Command::new("chown").arg(owner).arg(path).status().expect("chown runs").success());
    };
    std::fs::create_dir(&directory).expect("a directory");
    chown(&directory, account.name());
    let target = directory.join("disk.img");
    let temp = temp_of(&target);
    let outcome = harmed(&client, &sshd, &target, || {
        chown(&temp, "root");
        std::fs::set_permissions(&temp, PermissionsExt::from_mode(0o700)).expect("a mode");
    });
    assert_told(outcome, 13, &["ermission"], "the temp directory");
    assert!(!target.exists());
    chown(&temp, account.name());
    let outcome = client.put(&client.home().join("source"), &target, &[]).expect(0);
    assert!(outcome.number("chunks_skipped") > 0, "{outcome:?}");
    assert!(std::fs::read(&target).expect("the target") == content(40 * CHUNK, 1));
    assert_eq!(names(&sshd, &directory), ["disk.img"]);
}

#[test]
fn a_parent_that_is_removed_or_replaced_ends_the_run() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let directory = sshd.scratch().join("place");
    let target = directory.join("disk.img");
    let away = sshd.scratch().join("away");
    for replaced in [false, true] {
        std::fs::create_dir(&directory).expect("a directory");
        let outcome = harmed(&client, &sshd, &target, || {
            std::fs::rename(&directory, &away).expect("renamed");
            if replaced {
                std::fs::create_dir(&directory).expect("a directory");
            } else {
                std::fs::remove_dir_all(&away).expect("removed");
            }
        });
        assert!(outcome.code.is_some_and(|code| (1..=13).contains(&code)), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(!outcome.stdout.contains("\"retry\""), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("removed or moved the target's directory"), "{}", outcome.stderr);
        if replaced {
            assert_eq!(
                names(&sshd, &directory),
                Vec::<String>::new(),
                "what was not begun there is not there"
            );
            // Back again, the upload goes on.
            wait_idle(&sshd);
            std::fs::remove_dir(&directory).expect("removed");
            std::fs::rename(&away, &directory).expect("renamed");
            let outcome = client.put(&client.home().join("source"), &target, &[]).expect(0);
            assert!(outcome.number("chunks_skipped") > 0, "{outcome:?}");
            assert_eq!(names(&sshd, &directory), ["disk.img"]);
        }
    }
}
