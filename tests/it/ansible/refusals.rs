//! What is not supported is refused in one line, before anything is done.

use std::fs;

use super::stage::{Stage, snapshot};
use crate::harness::sshd::Sshd;

/// Tasks of one play, which goes on after each failure.
fn tasks(cases: &[(&str, &str, &str)]) -> String {
    let mut text =
        "- hosts: web\n  gather_facts: false\n  ignore_errors: true\n  ignore_unreachable: true\n  tasks:\n"
            .to_owned();
    for (number, (parameters, keywords, _)) in cases.iter().enumerate() {
        text.push_str(&format!("    - name: '{number}'\n      haul.haul.haul_put: {{{parameters}}}\n"));
        for keyword in keywords.split(';').filter(|keyword| !keyword.is_empty()) {
            text.push_str(&format!("      {}\n", keyword.trim()));
        }
    }
    text
}

#[test]
fn what_is_not_supported_is_refused_in_one_line() {
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    fs::create_dir(stage.path().join("files/tree")).expect("a directory");
    fs::write(stage.path().join("files/vaulted"), "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
        .expect("a vaulted file");
    let put = "src: disk.img, dest: '{{ images }}/x'";
    let with = |more: &str| format!("{put}, {more}");
    let parameters = [
        ("backup: true", "does not support backup: true"),
        ("remote_src: true", "does not support remote_src: true"),
        ("follow: false", "does not support follow: false"),
        ("local_follow: false", "does not support local_follow: false"),
        ("unsafe_writes: true", "does not support unsafe_writes: true"),
        ("content: a", "does not support content"),
        ("validate: 'cat %s'", "does not support validate"),
        ("directory_mode: '0755'", "does not support directory_mode"),
        ("attributes: '+i'", "does not support attributes"),
        ("attr: '+i'", "does not support attributes"),
        ("setype: x", "does not support setype"),
        ("mode: u+x", "mode 'u+x' is not supported"),
        ("mode: u=rw", "mode 'u=rw' is not supported"),
        ("mode: '0999'", "mode '0999' is not supported"),
        ("mode: 70000", "mode '70000' is not supported"),
        ("checksum: da39a3ee5e6b4b0d3255bfef95601890afd80709", "is no SHA-256"),
        ("force: true, if_exists: skip", "mutually exclusive"),
        ("if_exists: ask", "must be one of: replace, skip, fail"),
        ("no_such_parameter: 1", "Unsupported parameters"),
        ("owner: ''", "owner '' is no name"),
        ("owner: no-such-user", "there is no user 'no-such-user'"),
        ("chunk_size: 7", "--chunk-size"),
        ("connections: many", "has to be auto or a number"),
        ("bwlimit: fast", "--bwlimit"),
        ("wait: soon", "--wait"),
        ("user_id: a/b", "--user-id"),
        ("no_lock: true, break_lock: true", "exclude each other"),
        ("haul_binary: /nowhere/haul", "'/nowhere/haul': there is none"),
        ("haul_binary: no-such-haul", "it is not in PATH"),
    ];
    let owned: Vec<(String, &str)> = parameters.iter().map(|(more, said)| (with(more), *said)).collect();
    let mut cases: Vec<(&str, &str, &str)> =
        owned.iter().map(|(text, said)| (text.as_str(), "", *said)).collect();
    cases.extend([
        ("src: tree, dest: /x", "", "is a directory, and haul_put sends one file"),
        ("src: nowhere, dest: /x", "", "Could not find or access 'nowhere'"),
        ("src: vaulted, dest: /x", "", "is encrypted with Ansible Vault"),
        ("src: disk.img, dest: ~bob/x", "", "of ~ only the home"),
        ("src: disk.img, dest: /nowhere/at/all/x", "", "there is no such directory"),
        ("dest: /x", "", "missing required arguments: src"),
        (put, "become: true; become_user: nobody; become_method: su", "become_method 'su' is not supported"),
        (
            put,
            "become: true; become_user: nobody; vars: {ansible_become_password: secret}",
            "sudo without a password",
        ),
        (put, "become: true; become_user: nobody; become_flags: -E", "become_flags '-E' is not supported"),
        (put, "become: true; become_user: nobody; become_exe: doas", "become_exe 'doas' is not supported"),
        (put, "become: true; become_user: '#0'", "a user name begins with"),
        (put, "async: 5", "does not support async"),
        (put, "vars: {ansible_connection: local}", "not 'local'; for this machine use ansible.builtin.copy"),
        (
            put,
            "vars: {ansible_ssh_extra_args: '-W a:1'}",
            "ansible_ssh_extra_args: haul_put does not support -W",
        ),
        (put, "vars: {ansible_ssh_extra_args: '-o Tunnel=yes'}", "-o Tunnel"),
        (
            put,
            "vars: {ansible_ssh_extra_args: '-o StrictHostKeyChecking=no'}",
            "host keys are always checked",
        ),
        (put, "vars: {ansible_ssh_extra_args: '-o'}", "-o needs a value"),
        (put, "vars: {ansible_ssh_executable: /opt/wrapper}", "cannot use ansible_ssh_executable"),
        (put, "vars: {ansible_ssh_pkcs11_provider: /lib/x.so}", "'pkcs11_provider'"),
        (put, "vars: {ansible_ssh_private_key_file: /nowhere/key}", "identity file /nowhere/key"),
    ]);
    let before = snapshot(&sshd.scratch());
    let played = stage.playbook(&tasks(&cases)).run().expect(0);
    assert_eq!(snapshot(&sshd.scratch()), before);
    assert_eq!(played.results.len(), cases.len(), "{}", played.text());
    for (number, (parameters, keywords, said)) in cases.iter().enumerate() {
        let told = played.task(&number.to_string());
        let message = told["msg"].as_str().unwrap_or_default();
        assert_eq!(told["outcome"], "failed", "{parameters} {keywords}: {told}");
        assert!(message.contains(said), "{parameters} {keywords}: {message}");
        assert_eq!(message.lines().count(), 1, "{parameters} {keywords}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn host_keys_are_checked_whatever_ansible_is_told() {
    let sshd = Sshd::start();
    let stage = Stage::new().own_host("web1", &sshd);
    let known = fs::read_to_string(sshd.known_hosts_path()).expect("known_hosts");
    let put = ["src: disk.img", "dest: \"{{ images }}/x\""];
    let unchecked = ["vars: {ansible_host_key_checking: false}"];
    // Unknown: refused, and taken and written down where Ansible would not check.
    fs::write(sshd.known_hosts_path(), "").expect("known_hosts");
    let told = stage.task(&put, &[]).run().expect(4).one().clone();
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"unreachable".into(), &10.into()), "{told}");
    stage.task(&put, &unchecked).run().expect(0);
    let written = fs::read_to_string(sshd.known_hosts_path()).expect("known_hosts");
    // The system's ssh_config may ask for the name to be hashed.
    assert!(written.trim().ends_with(&sshd.host_key()), "{written}");
    // Another key than the known one is refused all the same.
    let other = Sshd::start();
    fs::write(sshd.known_hosts_path(), known.replace(&sshd.host_key(), &other.host_key()))
        .expect("known_hosts");
    let told = stage.task(&put, &unchecked).run().expect(4).one().clone();
    assert_eq!(told["exit_code"], 10, "{told}");
}
