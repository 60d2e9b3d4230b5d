//! Check mode, diff, mode and owner: what is changed, and what is said of it.

use std::fs::{self, Permissions, metadata, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::stage::{SIZE, Stage, snapshot, tasks};
use crate::harness::account::Account;
use crate::harness::sshd::Sshd;
use crate::rows::client::sha256;
use crate::rows::place::names;

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
    set_permissions(stage.path().join("files/disk.img"), Permissions::from_mode(0o751)).expect("chmod");
    let (name, number) = (format!("owner: {}", account.name()), format!("owner: {uid}"));
    let rows = [
        (&["mode: '0644'"][..], true, "0644", 0),
        (&["mode: 0644"], false, "0644", 0),
        (&["mode: u=rw,g=,o="], true, "0600", 0),
        (&["mode: preserve"], true, "0751", 0),
        (&[], false, "0751", 0),
        (&[name.as_str(), "mode: '4750'"], true, "4750", uid),
        (&[number.as_str()], false, "4750", uid),
        (&["owner: root", "group: 0", "mode: '4750'"], true, "4750", 0),
    ];
    let lines: Vec<(String, Vec<&str>)> = rows
        .iter()
        .enumerate()
        .map(|(number, (more, ..))| (number.to_string(), [&PUT[..2], more].concat()))
        .collect();
    let play: Vec<_> = lines.iter().map(|(name, lines)| (name.as_str(), &lines[..], &[][..])).collect();
    let played = stage.playbook(&tasks(&play)).run().expect(0);
    for (number, (parameters, changed, mode, uid)) in rows.into_iter().enumerate() {
        let told = played.task(&number.to_string());
        assert_eq!(told["changed"], changed, "{parameters:?}: {told}");
        assert_eq!((&told["mode"], &told["uid"]), (&mode.into(), &uid.into()), "{parameters:?}: {told}");
        assert_eq!(told["bytes_sent"] == 0, number > 0, "{parameters:?}: {told}");
    }
    let after = metadata(&target).expect("metadata");
    assert_eq!((mode(&target), after.uid(), after.gid()), (0o4750, 0, 0));
    assert_eq!(names(&sshd, &sshd.scratch()), ["disk.img"]);
}

#[test]
fn what_is_there_is_replaced_left_or_an_error() {
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    let target = sshd.scratch().join("disk.img");
    fs::write(&target, "old").expect("an old file");
    set_permissions(&target, Permissions::from_mode(0o604)).expect("chmod");
    let before = snapshot(&sshd.scratch());
    let put = |more: &'static str| [&PUT[..], &[more]].concat();
    let go_on = &["ignore_errors: true"][..];
    let wrong = put("checksum: '0000000000000000000000000000000000000000000000000000000000000000'");
    let play = tasks(&[
        ("force", &put("force: false"), &[]),
        ("skip", &put("if_exists: skip"), &[]),
        ("fail", &put("if_exists: fail"), go_on),
        ("wrong", &wrong, go_on),
    ]);
    for check in [true, false] {
        let play = stage.playbook(&play);
        let played = if check { play.arg("--check") } else { play }.run().expect(0);
        for name in ["force", "skip"] {
            let told = played.task(name);
            assert_eq!((&told["changed"], &told["status"]), (&false.into(), &"skipped".into()), "{told}");
            assert_eq!(told["checksum"], serde_json::Value::Null);
        }
        let told = played.task("fail");
        assert_eq!((&told["exit_code"], &told["outcome"]), (&4.into(), &"failed".into()), "{told}");
        assert!(told["msg"].as_str().expect("msg").contains("exists with different content"), "{told}");
        let message = played.task("wrong")["msg"].as_str().expect("msg");
        assert!(message.contains("does not have the SHA-256"), "{message}");
        assert_eq!(snapshot(&sshd.scratch()), before);
    }
    let bytes = stage.source(5);
    let right = format!("checksum: SHA256:{}", sha256(&bytes));
    let told = stage.task(&[&PUT[..2], &["force: true", &right]].concat(), &[]).run().expect(0).one().clone();
    assert_eq!((&told["changed"], &told["sha256"]), (&true.into(), &sha256(&bytes).into()));
    assert!(fs::read(&target).expect("the target") == bytes);
    assert_eq!(mode(&target), 0o604, "a replaced file keeps its mode");
}
