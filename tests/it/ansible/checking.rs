//! Check mode, diff, mode and owner: what is changed, and what is said of it.

use std::fs::{self, Permissions, metadata, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::stage::{SIZE, Stage, snapshot};
use crate::harness::account::Account;
use crate::harness::sshd::Sshd;
use crate::rows::client::sha256;

const PUT: [&str; 3] = ["src: disk.img", "dest: \"{{ images }}/disk.img\"", "mode: '0640'"];

fn mode(path: &Path) -> u32 {
    metadata(path).expect("metadata").permissions().mode() & 0o7777
}

#[test]
fn check_mode_changes_nothing_and_says_what_would_change() {
    let hosts = ["absent", "different", "mode", "same", "under-way"].map(|name| (name, Sshd::start()));
    let mut stage = Stage::new();
    for (name, sshd) in &hosts {
        stage = stage.own_host(name, sshd);
    }
    let bytes = stage.source(1);
    for (name, sshd) in &hosts {
        let target = sshd.scratch().join("disk.img");
        match *name {
            "absent" => continue,
            "different" => fs::write(&target, "old").expect("an old file"),
            "under-way" => {
                fs::write(&target, "old").expect("an old file");
                fs::create_dir(sshd.scratch().join("disk.img:somebody")).expect("a directory");
                fs::write(sshd.scratch().join("disk.img:lock"), "not haul's").expect("a lock");
            }
            _ => fs::write(&target, &bytes).expect("the same content"),
        }
        set_permissions(&target, Permissions::from_mode(if *name == "mode" { 0o604 } else { 0o640 }))
            .expect("chmod");
    }
    let before: Vec<_> =
        hosts.iter().map(|(_, sshd)| (snapshot(&sshd.scratch()), snapshot(&sshd.home()))).collect();
    let checked = stage.task(&PUT, &[]).arg("--check").arg("--diff").run().expect(0);
    let after: Vec<_> =
        hosts.iter().map(|(_, sshd)| (snapshot(&sshd.scratch()), snapshot(&sshd.home()))).collect();
    assert_eq!(before, after);

    let digest = sha256(&bytes);
    for (host, changed, status) in [
        ("absent", true, "would-upload"),
        ("different", true, "would-upload"),
        ("mode", true, "unchanged"),
        ("same", false, "unchanged"),
        ("under-way", true, "would-upload"),
    ] {
        let told = checked.of(host);
        assert_eq!((&told["changed"], &told["status"]), (&changed.into(), &status.into()), "{host}: {told}");
        assert_eq!((&told["checksum"], &told["size"]), (&digest.as_str().into(), &SIZE.into()), "{host}");
        assert_eq!(told["mode"], "0640", "{host}");
        assert_eq!(told["diff"].is_object(), changed, "{host}: {told}");
    }
    let diff = |host: &str, side: &str| checked.of(host)["diff"][side].as_str().expect("a text").to_owned();
    assert_eq!(diff("absent", "before"), "");
    assert!(diff("absent", "after").starts_with(&format!("size: {SIZE}\nsha256: {digest}\nmode: 0640\n")));
    assert!(
        diff("different", "before")
            .starts_with(&format!("size: 3\nsha256: {}\nmode: 0640\n", sha256(b"old")))
    );
    assert!(
        diff("mode", "before").contains("mode: 0604\n") && diff("mode", "after").contains("mode: 0640\n")
    );
    assert!(checked.text().contains(&format!("+sha256: {digest}")), "{}", checked.text());

    // What was foretold comes true.
    fs::remove_file(hosts[4].1.scratch().join("disk.img:lock")).expect("remove");
    let done = stage.task(&PUT, &[]).arg("--diff").run().expect(0);
    for (host, sshd) in &hosts {
        assert_eq!(done.of(host)["changed"], checked.of(host)["changed"], "{host}");
        let target = sshd.scratch().join("disk.img");
        assert!(fs::read(&target).expect("the target") == bytes, "{host}");
        assert_eq!(mode(&target), 0o640, "{host}");
        if *host != "absent" {
            assert_eq!(done.of(host)["diff"]["before"], checked.of(host)["diff"]["before"], "{host}");
        }
    }
    let again = stage.task(&PUT, &[]).arg("--diff").arg("--check").run().expect(0);
    assert!(
        again.results.iter().all(|told| told["changed"] == false && told["diff"].is_null()),
        "{}",
        again.text()
    );
}

#[test]
fn changed_is_true_also_when_only_mode_or_owner_changed() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    let target = sshd.scratch().join("disk.img");
    let uid = metadata(account.home()).expect("metadata").uid();
    fs::write(stage.path().join("executable"), "#!").expect("a source");
    set_permissions(stage.path().join("files/disk.img"), Permissions::from_mode(0o751)).expect("chmod");
    let owner = format!("owner: {}", account.name());
    let number = format!("owner: {uid}");
    for (parameters, changed, expected_mode, expected_uid) in [
        (&["mode: '0644'"][..], true, 0o644, 0),
        (&["mode: 0644"], false, 0o644, 0),
        (&["mode: u=rw,g=,o="], true, 0o600, 0),
        (&["mode: preserve"], true, 0o751, 0),
        (&[], false, 0o751, 0),
        (&[owner.as_str(), "mode: '4750'"], true, 0o4750, uid),
        (&[number.as_str()], false, 0o4750, uid),
        (&["owner: root", "group: 0"], true, 0o4750, 0),
    ] {
        let put = [&PUT[..2], parameters].concat();
        let inode = metadata(&target).ok().map(|metadata| metadata.ino());
        let played = stage.task(&put, &[]).run().expect(0);
        let told = played.one();
        assert_eq!(told["changed"], changed, "{parameters:?}: {told}");
        let after = metadata(&target).expect("metadata");
        assert_eq!(after.uid(), expected_uid, "{parameters:?}");
        assert_eq!(
            (&told["uid"], &told["mode"]),
            (&after.uid().into(), &format!("{:04o}", mode(&target)).into())
        );
        // A change of owner takes the set-user-id bit only where nobody asked for it.
        let kept = parameters.iter().any(|line| line.starts_with("mode")) || !changed;
        assert!(!kept || mode(&target) == expected_mode, "{parameters:?}: {:o}", mode(&target));
        assert!(inode.is_none_or(|inode| inode == after.ino()), "the content was not sent again");
    }
}

#[test]
fn what_is_there_is_replaced_left_or_an_error() {
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    let target = sshd.scratch().join("disk.img");
    let old = |mode: u32| {
        fs::write(&target, "old").expect("an old file");
        set_permissions(&target, Permissions::from_mode(mode)).expect("chmod");
    };
    let put = |more: &'static str| stage.task(&[&PUT[..2], &[more, "mode: '0640'"]].concat(), &[]);
    for more in ["force: false", "if_exists: skip"] {
        old(0o604);
        let told = put(more).run().expect(0).one().clone();
        assert_eq!((&told["changed"], &told["status"]), (&false.into(), &"skipped".into()), "{told}");
        assert_eq!((&told["checksum"], mode(&target)), (&serde_json::Value::Null, 0o604));
    }
    for check in [true, false] {
        let play = put("if_exists: fail");
        let told = if check { play.arg("--check") } else { play }.run().expect(2).one().clone();
        assert_eq!((&told["exit_code"], &told["outcome"]), (&4.into(), &"failed".into()), "{told}");
        assert!(told["msg"].as_str().expect("msg").contains("exists with different content"), "{told}");
        assert_eq!(fs::read(&target).expect("the target"), b"old");
    }
    for more in ["force: true", "if_exists: replace"] {
        old(0o604);
        assert_eq!(put(more).run().expect(0).one()["changed"], true);
        assert_ne!(fs::read(&target).expect("the target"), b"old");
    }
    // The source has to be the one that was meant.
    old(0o640);
    let digest = sha256(&stage.source(5));
    let wrong = format!("checksum: {}", "0".repeat(64));
    let told = stage.task(&[&PUT[..2], &[&wrong]].concat(), &[]).run().expect(2).one().clone();
    assert!(told["msg"].as_str().expect("msg").contains("does not have the SHA-256"), "{told}");
    assert_eq!(fs::read(&target).expect("the target"), b"old");
    let right = format!("checksum: sha256:{digest}");
    assert_eq!(
        stage.task(&[&PUT[..2], &[&right]].concat(), &[]).run().expect(0).one()["sha256"],
        digest.as_str()
    );
}
