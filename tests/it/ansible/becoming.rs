//! `become`, and logging in by a password.

use std::fs::{self, Permissions, metadata, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::stage::{Stage, as_account, snapshot};
use crate::harness::account::Account;
use crate::harness::sshd::Sshd;
use crate::harness::sudoers::Sudoers;
use crate::rows::place::names;

const PUT: [&str; 2] = ["src: disk.img", "dest: \"{{ images }}/disk.img\""];

#[test]
fn with_sudo_the_file_is_put_in_place_as_that_user() {
    let (Some(account), Some(other)) = (Account::create(), Account::create()) else { return };
    let sudoers = Sudoers::write(&account, "USER ALL=(ALL) NOPASSWD: ALL\n");
    let sshd = Sshd::start();
    let stage = Stage::new().host("web1", &sshd, &as_account(&account, &sshd));
    let target = sshd.scratch().join("disk.img");
    set_permissions(sshd.scratch(), Permissions::from_mode(0o700)).expect("chmod");

    let told = stage.task(&PUT, &[]).run().expect(2).one().clone();
    assert_eq!(told["exit_code"], 13, "{told}");
    let before = snapshot(&sshd.scratch());
    let told = stage.task(&PUT, &["become: true"]).arg("--check").run().expect(0).one().clone();
    assert_eq!((&told["changed"], before), (&true.into(), snapshot(&sshd.scratch())));
    for changed in [true, false] {
        let told = stage.task(&PUT, &["become: true"]).run().expect(0).one().clone();
        assert_eq!((&told["changed"], &told["uid"]), (&changed.into(), &0.into()), "{told}");
    }
    assert!(fs::read(&target).expect("the target") == stage.source(1));
    assert_eq!(metadata(&target).expect("metadata").uid(), 0);
    assert_eq!(names(&sshd, &sshd.scratch()), ["disk.img"]);

    // Another user than root: the directory and the home are that user's.
    let uid = metadata(other.home()).expect("metadata").uid();
    let become_other = ["become: true", &format!("become_user: {}", other.name())];
    fs::remove_file(&target).expect("remove");
    chown(sshd.scratch(), Some(uid), None).expect("chown");
    for (dest, path) in [
        ("dest: \"{{ images }}/disk.img\"", target.clone()),
        ("dest: below.img", other.home().join("below.img")),
        ("dest: ~/tilde.img", other.home().join("tilde.img")),
    ] {
        let told = stage.task(&["src: disk.img", dest], &become_other).run().expect(0).one().clone();
        assert_eq!((&told["changed"], &told["dest"]), (&true.into(), &path.to_str().into()), "{told}");
        assert_eq!(metadata(&path).expect("metadata").uid(), uid, "{dest}");
    }

    drop(sudoers);
    let told = stage.task(&PUT, &["become: true"]).run().expect(2).one().clone();
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"failed".into(), &13.into()), "{told}");
    assert!(told["msg"].as_str().expect("msg").contains("NOPASSWD"), "{told}");
}

#[test]
fn who_is_that_user_already_needs_no_sudo() {
    let sshd = Sshd::builder().env("PATH", "/nowhere").start();
    let stage = Stage::new().own_host("web1", &sshd);
    let become_self = ["become: true", &format!("become_user: {}", sshd.user())];
    stage.task(&PUT, &become_self).run().expect(0);
    assert!(sshd.scratch().join("disk.img").exists());
    let mut play = stage.task(&PUT, &become_self);
    play.command.env("ANSIBLE_BECOME_ALLOW_SAME_USER", "1");
    let told = play.run().expect(2).one().clone();
    assert!(told["msg"].as_str().expect("msg").contains("there is no sudo"), "{told}");
}

#[test]
fn a_password_logs_in_and_is_seen_nowhere() {
    let Some(account) = Account::create() else { return };
    let sshd =
        Sshd::builder().config("PubkeyAuthentication no").config("KbdInteractiveAuthentication no").start();
    let login = |password: &str| {
        let more = format!("ansible_user={} \"ansible_password='{password}'\"", account.name());
        Stage::new().host("web1", &sshd, &more)
    };
    let stage = login(account.password());
    let put = ["src: disk.img", "dest: disk.img", "chunk_size: 16KiB", "bwlimit: 100KiB"];
    let mut play = stage.task(&put, &[]).arg("-vvvvv");
    play.command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = play.command.spawn().expect("ansible-playbook runs");
    // While haul runs, nobody sees the password by looking at processes.
    let binary = stage.path().join("bin/haul");
    let mut seen = 0;
    crate::harness::wait_until("haul at work", std::time::Duration::from_secs(120), || {
        for process in fs::read_dir("/proc").expect("/proc").flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if arguments.starts_with(binary.as_os_str().as_encoded_bytes()) {
                for file in ["cmdline", "environ"] {
                    let text = fs::read(process.path().join(file)).unwrap_or_default();
                    assert!(!contains(&text, account.password().as_bytes()), "{file}");
                }
                seen += 1;
            }
        }
        seen > 0 && account.home().join("disk.img:lock").exists()
    });
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
    assert!(!contains(&text, account.password().as_bytes()));
    assert!(contains(&text, b" put --json "), "the command is shown");
    let target = account.home().join("disk.img");
    assert!(fs::read(target).expect("the target") == stage.source(1));

    let played = login("not it").task(&put, &[]).run().expect(4);
    let told = played.one();
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"unreachable".into(), &10.into()), "{told}");
    assert!(told["msg"].as_str().expect("msg").contains("password"), "{told}");
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
