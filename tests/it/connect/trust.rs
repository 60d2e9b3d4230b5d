//! Host keys: unknown, changed, revoked, accepted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haul::remote::Connector;
use haul::remote::RemoteErrorKind;
use haul::remote::ssh::SshConnector;
use haul::remote::ssh::SshOptions;
use haul::remote::ssh::StrictHostKeyChecking;

use crate::harness::Sshd;
use crate::harness::script::Asked;
use crate::harness::script::ScriptedPrompter;
use crate::harness::sshd::generate_key;
use crate::harness::sshd::public_key;

use super::{assert_mentions, connect, connector, fingerprint, options_for, refused, works};

fn empty_known_hosts(sshd: &Sshd, checking: StrictHostKeyChecking) -> SshOptions {
    SshOptions {
        user_known_hosts: vec![sshd.home().join(".ssh/known_hosts")],
        strict_host_key_checking: checking,
        ..options_for(sshd)
    }
}

#[tokio::test]
async fn an_unknown_host_key_is_refused() {
    let sshd = Sshd::start();
    let error = refused(empty_known_hosts(&sshd, StrictHostKeyChecking::Yes)).await;
    assert_mentions(&error, RemoteErrorKind::HostKey, &[&fingerprint(&sshd.host_key_path()), "unknown"]);
    // Nothing but the key exchange took place.
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[tokio::test]
async fn accept_new_writes_what_ssh_trusts() {
    use std::os::unix::fs::PermissionsExt;
    let sshd = Sshd::start();
    for hashed in [false, true] {
        let options = SshOptions {
            hash_known_hosts: hashed,
            ..empty_known_hosts(&sshd, StrictHostKeyChecking::AcceptNew)
        };
        let file = options.user_known_hosts[0].clone();
        let _ = std::fs::remove_file(&file);
        works(&*connect(options.clone()).await.expect("connects")).await;
        let text = std::fs::read_to_string(&file).expect("known_hosts");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.starts_with("|1|"), hashed, "{text}");
        let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().expect("parent")), 0o700);
        // A second run finds it, and so does ssh.
        let strict = SshOptions { strict_host_key_checking: StrictHostKeyChecking::Yes, ..options };
        works(&*connect(strict).await.expect("connects again")).await;
        let judged = sshd
            .ssh_with_known_hosts(&file)
            .args(["-o", "StrictHostKeyChecking=yes", "127.0.0.1", "true"])
            .output();
        assert!(judged.expect("ssh runs").status.success());
        let found = std::process::Command::new("ssh-keygen")
            .args(["-F", &format!("[127.0.0.1]:{}", sshd.port()), "-f"])
            .arg(&file)
            .output()
            .expect("ssh-keygen runs");
        assert!(found.status.success(), "{text}");
    }
}

#[tokio::test]
async fn a_person_decides_on_an_unknown_key() {
    let sshd = Sshd::start();
    let options = empty_known_hosts(&sshd, StrictHostKeyChecking::Ask);

    let no = Arc::new(ScriptedPrompter::new().host_key(false));
    let Err(error) = SshConnector::new(options.clone(), no.clone()).connect().await else {
        panic!("connected")
    };
    assert_mentions(&error, RemoteErrorKind::HostKey, &["nobody accepted"]);
    assert_eq!(no.asked(), [Asked::HostKey(fingerprint(&sshd.host_key_path()))]);
    assert!(!options.user_known_hosts[0].exists());

    let batch = SshOptions { batch_mode: true, ..options.clone() };
    let yes = Arc::new(ScriptedPrompter::new().host_key(true));
    assert!(SshConnector::new(batch, yes.clone()).connect().await.is_err());
    assert_eq!(yes.asked(), []);

    let connector = SshConnector::new(options.clone(), yes.clone());
    works(&*connector.connect().await.expect("connects")).await;
    // The file is gone, but the first connection's key still holds for this run.
    std::fs::remove_file(&options.user_known_hosts[0]).expect("remove");
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(yes.asked().len(), 1);
}

#[tokio::test]
async fn a_person_may_take_longer_than_the_deadline() {
    let sshd = Sshd::start();
    let options = SshOptions {
        connect_timeout: Duration::from_secs(2),
        ..empty_known_hosts(&sshd, StrictHostKeyChecking::Ask)
    };
    let slow = Arc::new(ScriptedPrompter::new().host_key(true).thinks(Duration::from_secs(4)));
    works(&*SshConnector::new(options, slow).connect().await.expect("connects")).await;
}

#[tokio::test]
async fn a_changed_host_key_is_refused_always() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_host_key");
    generate_key(&other, "ed25519", "");
    let file = sshd.known_hosts_path();
    let line = format!("# comment\n[127.0.0.1]:{} {}\n", sshd.port(), public_key(&other));
    std::fs::write(&file, line).expect("write");
    for checking in [StrictHostKeyChecking::Yes, StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask]
    {
        let prompter = Arc::new(ScriptedPrompter::new().host_key(true));
        let options = SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) };
        let Err(error) = SshConnector::new(options, prompter.clone()).connect().await else {
            panic!("connected")
        };
        let place = format!("{}:2", file.display());
        assert_mentions(
            &error,
            RemoteErrorKind::HostKey,
            &["changed", &fingerprint(&other), &fingerprint(&sshd.host_key_path()), &place],
        );
        assert_eq!(prompter.asked(), []);
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_not_accepted_as_new() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_host_key");
    generate_key(&other, "ecdsa", "");
    let line = format!("[127.0.0.1]:{} {}\n", sshd.port(), public_key(&other));
    std::fs::write(sshd.known_hosts_path(), line).expect("write");
    for checking in [StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask] {
        let prompter = Arc::new(ScriptedPrompter::new().host_key(true));
        let options = SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) };
        let Err(error) = SshConnector::new(options, prompter.clone()).connect().await else {
            panic!("connected")
        };
        assert_mentions(&error, RemoteErrorKind::HostKey, &["ecdsa-sha2-nistp256", &fingerprint(&other)]);
        assert_eq!(prompter.asked(), []);
    }
}

#[tokio::test]
async fn a_revoked_host_key_is_refused_always() {
    let sshd = Sshd::start();
    let line = format!("@revoked * {}\n", sshd.host_key());
    let mut text = std::fs::read_to_string(sshd.known_hosts_path()).expect("read");
    text.push_str(&line);
    std::fs::write(sshd.known_hosts_path(), text).expect("write");
    for checking in [StrictHostKeyChecking::Yes, StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask]
    {
        let error = refused(SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) }).await;
        assert_mentions(&error, RemoteErrorKind::HostKey, &["revoked", "known_hosts:2"]);
    }
}

#[tokio::test]
async fn another_host_key_in_the_middle_of_a_run_is_refused() {
    let mut sshd = Sshd::start();
    let connector = connector(options_for(&sshd));
    connector.connect().await.expect("connects").disconnect().await;
    std::fs::remove_file(sshd.host_key_path()).expect("remove");
    generate_key(&sshd.host_key_path(), "ed25519", "");
    sshd.restart();
    let Err(error) = connector.connect().await else { panic!("connected") };
    assert_mentions(&error, RemoteErrorKind::HostKey, &["first", "now", &fingerprint(&sshd.host_key_path())]);
}
