//! The harness itself: what the other tests stand on.

use crate::harness::Sshd;

#[test]
fn the_harness_serves_ssh_and_sftp() {
    let sshd = Sshd::builder().sftp_wrapper("INFO").start();
    let output = sshd.ssh().args(["127.0.0.1", "echo $SHLVL"]).output().expect("ssh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let source = sshd.directory().join("source");
    std::fs::write(&source, b"four").expect("write");
    let status = std::process::Command::new("scp")
        .args(["-q", "-F", "none", "-o", "BatchMode=yes", "-P", &sshd.port().to_string(), "-i"])
        .arg(sshd.key_path())
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", sshd.known_hosts_path().display()))
        .arg(&source)
        .arg(format!("{}@127.0.0.1:{}/", sshd.user(), sshd.scratch().display()))
        .status()
        .expect("scp runs");
    assert!(status.success());
    assert_eq!(std::fs::read(sshd.scratch().join("source")).expect("read"), b"four");
    let log = sshd.sftp_log();
    assert!(log.contains("written 4"), "{log}");
}

#[test]
fn the_harness_stops_and_starts_again() {
    let mut sshd = Sshd::builder().force_internal_sftp().start();
    let port = sshd.port();
    sshd.stop();
    assert!(std::net::TcpStream::connect(sshd.address()).is_err());
    sshd.restart();
    assert_eq!(sshd.port(), port);
    std::net::TcpStream::connect(sshd.address()).expect("listens again");
}
