//! The playbook of the README, and what it does on three hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::stage::{Stage, key, sources};
use crate::harness::sshd::Sshd;
use crate::rows::client::sha256;
use crate::rows::place::names;

/// The YAML in the README.
fn readme_playbook() -> String {
    let readme = fs::read_to_string(sources().join("README.md")).expect("the README");
    let (_, section) = readme.split_once("### From Ansible").expect("the section");
    let (_, block) = section.split_once("```yaml\n").expect("a playbook");
    let (playbook, _) = block.split_once("```").expect("its end");
    playbook.to_owned()
}

#[test]
fn the_readmes_playbook_on_three_hosts() {
    let mut hosts = [Sshd::start(), Sshd::start(), Sshd::start()];
    let mut stage = Stage::new();
    for (number, sshd) in hosts.iter().enumerate() {
        stage = stage.own_host(&format!("web{}", number + 1), sshd);
    }
    let names_of = |sshd: &Sshd| names(sshd, &sshd.scratch());
    let play = || stage.playbook(&readme_playbook()).run();

    let first = stage.source(1);
    let played = play().expect(0);
    for (number, sshd) in hosts.iter().enumerate() {
        let host = format!("web{}", number + 1);
        let target = sshd.scratch().join("disk.img");
        assert!(fs::read(&target).expect("the target") == first, "{host}");
        assert_eq!(fs::metadata(&target).expect("metadata").permissions().mode() & 0o7777, 0o640);
        assert_eq!(names_of(sshd), ["disk.img"]);
        let told = played.of(&host);
        assert_eq!((&told["changed"], &told["status"]), (&true.into(), &"uploaded".into()), "{told}");
        assert_eq!(told["checksum"], sha256(&first).as_str());
        assert_eq!(told["dest"], target.to_str().expect("UTF-8"));
        assert_eq!((&told["mode"], &told["verified_by"]), (&"0640".into(), &"sha256-target".into()));
        let line = format!("{}: uploaded, sha256 {}", target.display(), sha256(&first));
        assert!(played.text().contains(&line), "{}", played.text());
        // Nothing of Ansible was there: it would have left its directory in the home.
        assert!(!sshd.home().join(".ansible").exists());
    }

    let played = play().expect(0);
    for host in ["web1", "web2", "web3"] {
        let told = played.of(host);
        assert_eq!((&told["changed"], &told["status"]), (&false.into(), &"unchanged".into()), "{told}");
        assert_eq!(told["checksum"], sha256(&first).as_str());
        assert_eq!(told["bytes_sent"], 0);
    }

    // One host is down, one has the new content already, one has not.
    let second = stage.source(2);
    fs::write(hosts[1].scratch().join("disk.img"), &second).expect("the new content");
    hosts[2].stop();
    let played = play().expect(4);
    assert_eq!(played.of("web1")["changed"], true);
    assert_eq!(played.of("web2")["changed"], false);
    let told = played.of("web3");
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"unreachable".into(), &10.into()), "{told}");
    let message = told["msg"].as_str().expect("msg");
    assert!(message.contains("refused") && message.contains("(haul: exit code 10)"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(fs::read(hosts[0].scratch().join("disk.img")).expect("the target") == second);

    // Mended, the same command finishes it.
    hosts[2].restart();
    let played = play().expect(0);
    assert_eq!(["web1", "web2", "web3"].map(|host| played.of(host)["changed"] == true), [false, false, true]);

    // One host is broken in another way: what stands there cannot be replaced.
    stage.source(3);
    let broken = hosts[1].scratch().join("disk.img");
    fs::remove_file(&broken).expect("remove");
    fs::create_dir_all(broken.join("disk.img")).expect("a directory");
    let played = play().expect(2);
    assert_eq!(["web1", "web3"].map(|host| played.of(host)["changed"] == true), [true, true]);
    let told = played.of("web2");
    assert_eq!((&told["outcome"], &told["phase"]), (&"failed".into(), &"survey".into()), "{told}");
    assert!(told["msg"].as_str().expect("msg").contains("is a directory"), "{told}");
}

#[test]
fn installed_by_galaxy_from_a_role_delegated_and_in_verbose_mode() {
    let sshd = Sshd::start();
    let stage = Stage::bare().own_host("web1", &sshd);
    let mut install = stage.ansible("ansible-galaxy");
    install.args(["collection", "install", "--offline", "--collections-path"]);
    install.arg(stage.path().join("collections")).arg(sources().join("ansible"));
    let output = install.output().expect("ansible-galaxy runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let role = stage.path().join("roles/images");
    for name in ["tasks", "files"] {
        fs::create_dir_all(role.join(name)).expect("a directory");
    }
    let bytes = crate::rows::client::content(3 << 20, 7);
    fs::write(role.join("files/role.img"), &bytes).expect("a source");
    let tasks = "- name: put\n  haul.haul.haul_put:\n    src: role.img\n    dest: \"{{ hostvars.web1.images }}/\"\n    \
                 chunk_size: 256KiB\n    bwlimit: 2MiB\n  delegate_to: web1\n";
    fs::write(role.join("tasks/main.yml"), tasks).expect("tasks");
    let play = stage.playbook("- hosts: localhost\n  gather_facts: false\n  roles: [images]\n");
    let played = play.arg("-vvv").run().expect(0);
    let target = sshd.scratch().join("role.img");
    assert!(fs::read(&target).expect("the target") == bytes);
    assert_eq!(played.one()["chunks_total"], 12);
    let text = played.text();
    for said in [
        "haul: upload 0% (0 B of 3.0 MiB)",
        "haul: verify",
        "/s)",
        " put --json ",
        "connected to SSH-2.0-OpenSSH",
    ] {
        assert!(text.contains(said), "not said: {said}\n{text}");
    }
    let progress = text.lines().filter(|line| line.contains("haul: upload")).count();
    assert!(progress >= 2, "{text}");
}

#[test]
fn a_task_that_is_cut_short_leaves_no_run_behind_and_its_chunks_for_the_next() {
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    let target = sshd.scratch().join("disk.img");
    let parameters = ["src: disk.img", "dest: \"{{ images }}/\"", "chunk_size: 16KiB"];
    let slow = [&parameters[..], &["bwlimit: 64KiB"]].concat();
    let played = stage.task(&slow, &["timeout: 4"]).run().expect(2);
    assert!(played.one()["msg"].as_str().expect("msg").contains("Timed out"), "{}", played.one());
    // The lock was given back, and what was sent is there.
    assert!(!sshd.scratch().join("disk.img:lock").exists());
    assert!(!target.exists());
    let played = stage.task(&parameters, &[]).run().expect(0);
    assert_eq!(played.one()["resumed"], true, "{}", played.one());
    assert!(fs::read(&target).expect("the target") == stage.source(1));
}

#[test]
fn a_jump_host_of_the_inventory_is_gone_through() {
    let (bastion, sshd) = (Sshd::start(), Sshd::start());
    let configuration = bastion.directory().join("ssh_config");
    let text = format!(
        "Host bastion\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
        bastion.port(),
        bastion.user(),
        bastion.key_path().display(),
        bastion.known_hosts_path().display()
    );
    fs::write(&configuration, text).expect("a configuration");
    let more = format!(
        "ansible_user={} {} ansible_ssh_extra_args='-F {} -J bastion'",
        sshd.user(),
        key(&sshd),
        configuration.display()
    );
    let stage = Stage::new().host("web1", &sshd, &more);
    stage.task(&["src: disk.img", "dest: \"{{ images }}/\""], &[]).run().expect(0);
    assert!(fs::read(sshd.scratch().join("disk.img")).expect("the target") == stage.source(1));
    assert!(bastion.log().contains("Accepted publickey"), "{}", bastion.log());
}
