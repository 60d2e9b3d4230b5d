//! The containerized sshd itself: it is a host like the others.

use std::process::{Command, Stdio};

use crate::harness::container::{ContainerSshd, TestHost};

#[test]
fn the_container_serves_ssh_and_sftp_to_an_ordinary_user() {
    let host = ContainerSshd::start();
    let options = |command: &mut Command| {
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", host.known_hosts_path().display())])
            .args(["-o", &format!("Port={}", host.port()), "-o", &format!("User={}", host.user())])
            .arg("-i")
            .arg(host.key_path())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
    };
    let mut ssh = Command::new("ssh");
    options(&mut ssh);
    let output = ssh.args(["127.0.0.1", "id -un && pwd"]).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "haul\n/home/haul\n", "{}", host.log());

    let source = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(source.path(), b"\0\xff\n").expect("content");
    let mut scp = Command::new("scp");
    options(&mut scp);
    assert!(scp.arg("-q").arg(source.path()).arg("127.0.0.1:sent").status().expect("scp runs").success());
    assert_eq!(host.read_file(&host.scratch().join("sent")).expect("sent"), b"\0\xff\n");
    assert!(host.read_file(&host.scratch().join("absent")).is_err());
    assert!(host.exec("test -w . && test -O sent && ! test -w /etc").status.success());
}
