//! Modes, times, owners and symbolic links of what is put in place.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use super::client::{CHUNK, Client, content};
use super::place::{beside, names};
use crate::harness::account::Account;
use crate::harness::sshd::{Sshd, is_root};

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_new_file_gets_the_sources_mode_under_the_targets_umask() {
    let sshd = Sshd::builder().sftp_arguments(&["-u", "027"]).start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK + 1, 1);
    for (mode, expected) in [(0o644, 0o640), (0o755, 0o750), (0o600, 0o600), (0o4755, 0o750)] {
        set_mode(&source, mode);
        for merge in ["auto", "script"] {
            let target = sshd.scratch().join(format!("{merge}-{mode:o}"));
            client.put(&source, &target, &["--merge", merge]).expect(0);
            assert_eq!(mode_of(&target), expected, "{merge}: {mode:o}");
        }
    }
}

#[test]
fn mode_and_times_are_set_when_asked() {
    let sshd = Sshd::builder().sftp_arguments(&["-u", "077"]).start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK + 1, 1);
    set_mode(&source, 0o654);
    assert!(
        Command::new("touch")
            .args(["-d", "2001-02-03 04:05:06 UTC"])
            .arg(&source)
            .status()
            .expect("touch")
            .success()
    );
    let target = |name: &str| sshd.scratch().join(name);
    client.put(&source, target("plain"), &[]).expect(0);
    assert_ne!(std::fs::metadata(target("plain")).expect("metadata").mtime(), 981_173_106);
    client.put(&source, target("preserved"), &["-p"]).expect(0);
    assert_eq!(mode_of(&target("preserved")), 0o654);
    assert_eq!(std::fs::metadata(target("preserved")).expect("metadata").mtime(), 981_173_106);
    for (text, expected) in [("604", 0o604), ("u=rw,go=r", 0o644)] {
        client.put(&source, target(text), &["--chmod", text]).expect(0);
        assert_eq!(mode_of(&target(text)), expected, "{text}");
    }
    client.put(&source, target("both"), &["-p", "--chmod", "600"]).expect(0);
    assert_eq!(mode_of(&target("both")), 0o600);
    assert_eq!(std::fs::metadata(target("both")).expect("metadata").mtime(), 981_173_106);
    // By size and time, as rsync judges: the content is not looked at.
    std::fs::write(target("both"), content(CHUNK + 1, 9)).expect("other content");
    assert!(
        Command::new("touch").arg("-r").arg(&source).arg(target("both")).status().expect("touch").success()
    );
    assert_eq!(client.put(&source, target("both"), &["--quick"]).expect(0).status(), "unchanged");
    client.put(&source, target("both"), &[]).expect(4);
}

#[test]
fn a_replaced_file_keeps_mode_and_owner() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", CHUNK + 1, 1), sshd.scratch().join("disk.img"));
    for merge in ["auto", "script"] {
        std::fs::write(&target, "old").expect("an old file");
        if is_root() {
            chown(&target, Some(12_345), Some(23_456)).expect("chown");
        }
        set_mode(&target, 0o640);
        let before = std::fs::metadata(&target).expect("metadata");
        client.put(&source, &target, &["--if-exists", "replace", "--merge", merge]).expect(0);
        let after = std::fs::metadata(&target).expect("metadata");
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()), "{merge}");
        assert_eq!(mode_of(&target), 0o640, "{merge}");
        assert_ne!(after.ino(), before.ino(), "it was renamed into place");
    }
    assert!(!is_root() || std::fs::metadata(&target).expect("metadata").uid() == 12_345);
}

#[test]
fn an_owner_that_cannot_be_kept_is_said() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let directory = sshd.scratch().join("open");
    std::fs::create_dir(&directory).expect("a directory");
    set_mode(&directory, 0o777);
    let (source, target) = (client.source("source", CHUNK + 1, 1), directory.join("disk.img"));
    std::fs::write(&target, "old").expect("an old file");
    set_mode(&target, 0o644);
    let outcome = client.put(&source, &target, &["--if-exists", "replace"]).expect(0);
    assert!(outcome.stdout.contains("could not be kept"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("\"warning\""), "{}", outcome.stdout);
    assert!(std::fs::read(&target).expect("the target") == content(CHUNK + 1, 1));
    assert_eq!(mode_of(&target), 0o644);
    // A directory of another's, where this account may not write.
    let outcome = client.put(&source, sshd.scratch().join("theirs.img"), &[]).expect(13);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.to_lowercase().contains("permission"), "{}", outcome.stderr);
    assert_eq!(names(&sshd, &sshd.scratch()), ["open"]);
}

#[test]
fn the_file_behind_a_link_is_replaced_and_everything_stands_beside_that() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let scratch = sshd.scratch();
    let source = client.source("source", 40 * CHUNK, 1);
    for directory in ["links", "real"] {
        std::fs::create_dir(scratch.join(directory)).expect("a directory");
    }
    symlink("../real/disk.img", scratch.join("links/second")).expect("a link");
    symlink("second", scratch.join("links/first")).expect("a link");
    // First to where nothing is yet, then to a file.
    for seed in [1, 2] {
        std::fs::write(&source, content(40 * CHUNK, seed)).expect("content");
        let more = ["--if-exists", "replace", "--bwlimit=1MiB"];
        let mut run = client.start_put(&source, scratch.join("links/first"), &more);
        let real = scratch.join("real/disk.img");
        run.until("the temp directory", || beside(&sshd, &real).len() == 2);
        assert_eq!(names(&sshd, &scratch.join("links")), ["first", "second"]);
        run.wait().expect(0);
        assert!(std::fs::read(&real).expect("the target") == content(40 * CHUNK, seed));
        assert!(std::fs::symlink_metadata(&real).expect("metadata").is_file());
        assert!(std::fs::symlink_metadata(scratch.join("links/first")).expect("metadata").is_symlink());
        assert_eq!(names(&sshd, &scratch.join("real")), ["disk.img"]);
    }
    // A link to a directory is entered.
    symlink("real", scratch.join("way")).expect("a link");
    client.put(&source, scratch.join("way"), &[]).expect(0);
    assert!(scratch.join("real/source").is_file());

    symlink("b", scratch.join("a")).expect("a link");
    symlink("a", scratch.join("b")).expect("a link");
    let before = names(&sshd, &scratch);
    for command in ["status", "clean", "merge"] {
        let outcome = client.on(command, scratch.join("a"), &[]);
        assert_ne!(outcome.code, Some(0), "{command}");
        outcome.says("circle");
    }
    let outcome = client.put(&source, scratch.join("a"), &[]).expect(1).says("circle");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert_eq!(names(&sshd, &scratch), before);
}

#[test]
fn an_ordinary_file_is_all_that_is_replaced() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let pipe = sshd.scratch().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let outcome = client.put(&source, &pipe, &["--if-exists", "replace"]).expect(2);
    outcome.says("not a regular file");
    assert_eq!(names(&sshd, &sshd.scratch()), ["pipe"]);
}
