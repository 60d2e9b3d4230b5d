//! `--sudo`: everything on the host is done as another user, and what is put in place is
//! put there as atomically as ever.

use std::fs::{metadata, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::harness::account::Account;
use crate::harness::sshd::{Sshd, write_script};
use crate::harness::sudoers::Sudoers;
use crate::rows::client::{CHUNK, Client, content};
use crate::rows::place::{beside, names};
use crate::scripts::shells::{LOGIN_SHELLS, find};

const EVERYTHING: &str = "USER ALL=(ALL) NOPASSWD: ALL\n";

/// A directory of the target that belongs to `uid`, and that nobody else may enter.
fn private(sshd: &Sshd, name: &str, uid: u32, gid: u32) -> PathBuf {
    let directory = sshd.scratch().join(name);
    std::fs::create_dir(&directory).expect("a directory");
    chown(&directory, Some(uid), Some(gid)).expect("chown");
    set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    directory
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = metadata(path).expect("metadata");
    (metadata.uid(), metadata.gid())
}

#[test]
fn a_file_is_put_in_place_as_root() {
    let Some(account) = Account::create() else { return };
    let _sudoers = Sudoers::write(&account, EVERYTHING);
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let source = client.source("disk.img", 20 * CHUNK + 1, 1);
    let directory = private(&sshd, "roots", 0, 0);
    let target = directory.join("disk.img");

    client.put(&source, &target, &[]).expect(13).says("ermission");
    for merge in ["auto", "script", "sftp"] {
        let outcome = client.put(&source, &target, &["--sudo", "--merge", merge]).expect(0);
        assert_eq!(outcome.last()["verified_by"], "sha256-target", "{merge}");
        assert!(std::fs::read(&target).expect("the target") == content(20 * CHUNK + 1, 1), "{merge}");
        assert_eq!(owner(&target), (0, 0), "{merge}");
        assert_eq!(names(&sshd, &directory), ["disk.img"], "{merge}");
        assert_eq!(client.put(&source, &target, &["--sudo=root"]).expect(0).status(), "unchanged");
        std::fs::remove_file(&target).expect("remove");
    }

    // Cut off, the upload goes on, and lock and temp directory are root's too.
    let mut run = client.start_put(&source, &target, &["--sudo", "--bwlimit=256KiB"]);
    run.until("the temp directory", || beside(&sshd, &target).len() == 2);
    for name in beside(&sshd, &target) {
        assert_eq!(owner(&directory.join(&name)), (0, 0), "{name}");
    }
    run.until("a chunk", || run_has_chunks(&directory));
    run.kill();
    crate::rows::client::wait_idle(&sshd);
    let outcome = client.put(&source, &target, &["--sudo", "--wait"]).expect(0);
    assert!(outcome.number("chunks_skipped") > 0, "{outcome:?}");
    assert_eq!(names(&sshd, &directory), ["disk.img"]);
    for (command, expected) in [("status", "complete"), ("clean", "unchanged")] {
        let last = client.on(command, &target, &["--sudo"]).expect(0).last();
        assert!(last["state"] == expected || last["status"] == expected, "{last}");
    }
}

fn run_has_chunks(directory: &Path) -> bool {
    std::fs::read_dir(directory.join("disk.img:alice")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("-disk:"))
    })
}

#[test]
fn another_user_than_root_and_the_home_of_that_user() {
    let (Some(account), Some(other)) = (Account::create(), Account::create()) else { return };
    let _sudoers = Sudoers::write(&account, &format!("USER ALL=({}) NOPASSWD: ALL\n", other.name()));
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let source = client.source("disk.img", 3 * CHUNK, 1);
    let (uid, gid) = owner(other.home());
    let sudo = format!("--sudo={}", other.name());

    let directory = private(&sshd, "theirs", uid, gid);
    client.put(&source, directory.join("x"), &[&sudo]).expect(0);
    assert_eq!(owner(&directory.join("x")), (uid, gid));
    // A relative destination starts at the home of the user who writes.
    client.put(&source, "below.img", &[&sudo]).expect(0);
    assert_eq!(owner(&other.home().join("below.img")), (uid, gid));

    // Only as those that sudoers names.
    let outcome = client.put(&source, directory.join("y"), &["--sudo"]).expect(13).says("NOPASSWD");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    // That user has no right there, and says so as any user does.
    client.put(&source, private(&sshd, "roots", 0, 0).join("x"), &[&sudo]).expect(13);
}

#[test]
fn owner_and_mode_are_set_where_root_may() {
    let (Some(account), Some(other)) = (Account::create(), Account::create()) else { return };
    let _sudoers = Sudoers::write(&account, EVERYTHING);
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let source = client.source("disk.img", 3 * CHUNK, 1);
    let target = private(&sshd, "roots", 0, 0).join("disk.img");
    let (uid, gid) = owner(other.home());
    let to_other = format!("--chown={}:{}", other.name(), other.name());

    let outcome = client.put(&source, &target, &["--sudo", "--chmod=640", &to_other]).expect(0);
    assert_eq!(owner(&target), (uid, gid));
    let last = outcome.last();
    assert_eq!((&last["mode"], &last["uid"], &last["gid"]), (&"0640".into(), &uid.into(), &gid.into()));
    assert_eq!(last["before"], serde_json::Value::Null);

    // The content is the same, and that is no reason to leave the rest as it is.
    let inode = metadata(&target).expect("metadata").ino();
    for (more, expected, mode) in [
        (&["--chmod=640", &to_other][..], (uid, gid), 0o640),
        (&["--chown=:0"], (uid, 0), 0o640),
        (&["--chown=0", "--chmod=u=rw,go="], (0, 0), 0o600),
        (&["--chmod=4755"], (0, 0), 0o4755),
    ] {
        let changes =
            owner(&target) != expected || metadata(&target).expect("metadata").mode() & 0o7777 != mode;
        let before = metadata(&target).expect("metadata");
        let dry = client.put(&source, &target, &[&["--sudo", "--dry-run"], more].concat()).expect(0);
        assert_eq!(metadata(&target).expect("metadata").ctime_nsec(), before.ctime_nsec(), "{more:?}");
        let done = client.put(&source, &target, &[&["--sudo"], more].concat()).expect(0);
        for outcome in [&dry, &done] {
            let last = outcome.last();
            assert_eq!(last["status"], "unchanged", "{more:?}");
            assert_eq!(last["attributes_changed"], changes, "{more:?}");
            assert_eq!(last["mode"], format!("{mode:04o}"), "{more:?}");
            assert_eq!((&last["uid"], &last["gid"]), (&expected.0.into(), &expected.1.into()), "{more:?}");
            assert_eq!(last["before"]["uid"], before.uid(), "{more:?}");
        }
        assert_eq!(owner(&target), expected, "{more:?}");
        let after = metadata(&target).expect("metadata");
        assert_eq!((after.mode() & 0o7777, after.ino()), (mode, inode), "{more:?}");
    }
    assert_eq!(names(&sshd, target.parent().expect("a directory")), ["disk.img"]);

    // From a pipe, here one that is empty.
    let piped = target.with_file_name("piped");
    let outcome = client.put(Path::new("-"), &piped, &["--sudo", "--chmod=640", &to_other]).expect(0);
    let last = outcome.last();
    assert_eq!((owner(&piped), &last["uid"]), ((uid, gid), &uid.into()));
    let mode = metadata(&piped).expect("metadata").mode() & 0o7777;
    assert_eq!((mode, &last["mode"]), (0o640, &"0640".into()));

    client
        .put(&source, &target, &["--sudo", "--chown=nobody-of-that-name"])
        .expect(2)
        .says("there is no user");
    client.put(&source, &target, &["--sudo", "--chown=:no-such-group"]).expect(2).says("there is no group");
}

#[test]
fn an_owner_that_cannot_be_set_is_an_error_and_the_target_is_left() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let target = account.home().join("disk.img");
    let source = client.source("disk.img", 3 * CHUNK, 1);
    client.put(&source, &target, &["--chown=0:0"]).expect(13).says("may not give a file to 0:0");
    assert!(!target.exists());
    client.put(&source, &target, &[]).expect(0);
    client.put(&source, &target, &["--chown=0"]).expect(13).says("only root may");
    assert_eq!(owner(&target), owner(account.home()));
    // What the account owns already can be asked for.
    let (uid, gid) = owner(account.home());
    let outcome = client.put(&source, &target, &[&format!("--chown={uid}:{gid}")]).expect(0);
    assert_eq!(outcome.last()["attributes_changed"], false);
}

#[test]
fn what_is_replaced_is_told() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("disk.img", 3 * CHUNK, 1);
    let target = sshd.scratch().join("disk.img");
    std::fs::write(&target, "old").expect("an old file");
    set_permissions(&target, std::fs::Permissions::from_mode(0o604)).expect("chmod");
    let digest = crate::rows::client::sha256(b"old");
    let replace = ["--if-exists=replace", "--hash-existing"];
    for more in [&["--dry-run"][..], &[]] {
        let last = client.put(&source, &target, &[&replace[..], more].concat()).expect(0).last();
        assert_eq!(last["before"]["size"], 3);
        assert_eq!(last["before"]["sha256"], digest.as_str());
        assert_eq!(last["before"]["mode"], "0604");
        assert_eq!(last["mode"], "0604");
    }
    std::fs::write(&target, "older").expect("an old file");
    let last = client.put(&source, &target, &replace[..1]).expect(0).last();
    assert_eq!(last["before"]["sha256"], serde_json::Value::Null, "not asked for");
}

#[test]
fn every_login_shell_starts_it() {
    let Some(account) = Account::create() else { return };
    let _sudoers = Sudoers::write(&account, EVERYTHING);
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let source = client.source("disk.img", 3 * CHUNK, 1);
    let directory = private(&sshd, "roots", 0, 0);
    let wrapper = sshd.directory().join("busybox-shell");
    write_script(&wrapper, &format!("#!/bin/sh\nexec {} sh \"$@\"\n", find("busybox").display()));
    for shell in LOGIN_SHELLS {
        let program = if shell == "busybox" { wrapper.clone() } else { find(shell) };
        account.set_shell(&program);
        let target = directory.join(shell);
        let outcome = client.put(&source, &target, &["--sudo"]).expect(0);
        assert_eq!(outcome.last()["verified_by"], "sha256-target", "{shell}");
        assert_eq!(owner(&target), (0, 0), "{shell}");
        let mut exec = client.haul("exec");
        exec.args(["--sudo", &format!("{}@127.0.0.1", account.name()), "--", "id", "-un"]);
        let outcome = client.run(exec).expect(0);
        assert_eq!(outcome.stdout, "root\n", "{shell}");
    }
}

#[test]
fn why_sudo_does_not_work_is_said_in_one_line() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let client = Client::of(&sshd).log_in_as(account.name());
    let source = client.source("disk.img", CHUNK, 1);
    let target = account.home().join("disk.img");
    let refused = |client: &Client, reason: &str| {
        let outcome = client.put(&source, &target, &["--sudo"]).expect(13).says(reason);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_eq!(outcome.last()["phase"], "connect");
        assert_eq!(names(&sshd, account.home()).iter().filter(|name| name.starts_with("disk")).count(), 0);
    };
    refused(&client, "asks for a password");
    let sudoers = Sudoers::write(&account, "USER ALL=(ALL) ALL\n");
    refused(&client, "asks for a password");
    drop(sudoers);
    let sudoers = Sudoers::write(&account, &format!("{EVERYTHING}Defaults:USER requiretty\n"));
    refused(&client, "requiretty");
    drop(sudoers);

    let without = Sshd::builder().env("PATH", "/nowhere").start();
    refused(&Client::of(&without).log_in_as(account.name()), "there is no sudo");

    client.put(&source, &target, &["--sudo=a;b"]).expect(2).says("a user name begins with");
    let unknown = client.put(&source, &target, &["--sudo=no-such-user"]).expect(13);
    assert_eq!(unknown.stderr.lines().count(), 1, "{}", unknown.stderr);
}
