//! Through jump hosts: chains, keys of their own, trust of their own, and which one failed.

use std::sync::Arc;
use std::time::Duration;

use haul::remote::ssh::{SshConnector, SshOptions, Via};
use haul::remote::{Connector, RemoteErrorKind};

use crate::harness::Sshd;
use crate::harness::account::Account;
use crate::harness::script::{Asked, ScriptedPrompter};
use crate::harness::sshd::{free_port, generate_key};
use crate::harness::wait::wait_until;

use super::{PATIENCE, assert_mentions, connect, connector, options_for, output, refused, works};

/// `target` reached by way of `hops`, the first of them the nearest.
fn through(target: &Sshd, hops: &[&Sshd]) -> SshOptions {
    let names = ["bastion", "second", "third"];
    let mut via = Via::Tcp;
    for (hop, name) in hops.iter().zip(names) {
        let options = SshOptions { host: name.to_string(), via, ..options_for(hop) };
        via = Via::Jump(Arc::new(options));
    }
    SshOptions { via, ..options_for(target) }
}

/// With other options for the last hop.
fn with_hop(options: SshOptions, change: impl FnOnce(SshOptions) -> SshOptions) -> SshOptions {
    let Via::Jump(hop) = &options.via else { panic!("no hop") };
    let hop = change(SshOptions::clone(hop));
    SshOptions { via: Via::Jump(Arc::new(hop)), ..options }
}

#[tokio::test]
async fn a_chain_of_three_hops_leads_to_the_target() {
    let (target, first, second, third) = (Sshd::start(), Sshd::start(), Sshd::start(), Sshd::start());
    let options = through(&target, &[&first, &second, &third]);
    let connector = connector(options);
    let connection = connector.connect().await.expect("connects");
    works(&*connection).await;
    let files = connection.files().await.expect("files");
    files.real_path(&haul::model::remote_path::RemotePath::new(".").expect("a path")).await.expect("a path");
    works(&*connector.connect().await.expect("connects again")).await;
    // Each server has seen its own client only.
    for hop in [&first, &second, &third, &target] {
        assert!(hop.log().contains("Accepted publickey"), "{}", hop.log());
    }
}

#[tokio::test]
async fn a_hop_carries_what_fills_its_windows() {
    let (target, hop) = (Sshd::start(), Sshd::start());
    let connection = connect(through(&target, &[&hop])).await.expect("connects");
    let mut process = super::exec(&*connection, "head -c 20000000 /dev/zero").await;
    assert_eq!(output(&mut process).await.stdout.len(), 20_000_000);
}

#[tokio::test]
async fn max_sessions_of_a_hop_do_not_matter() {
    let (target, hop) = (Sshd::start(), Sshd::builder().config("MaxSessions 0").start());
    works(&*connect(through(&target, &[&hop])).await.expect("connects")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_is_left_with_its_last_connection() {
    let (target, hop) = (Sshd::start(), Sshd::start());
    let connection = connect(through(&target, &[&hop])).await.expect("connects");
    works(&*connection).await;
    assert!(!hop.session_processes().is_empty());
    drop(connection);
    wait_until("the end of the hop's session", PATIENCE, || hop.session_processes().is_empty());
}

#[tokio::test]
async fn the_hop_that_failed_is_named() {
    let (target, first, second) = (Sshd::start(), Sshd::start(), Sshd::start());
    let options = || through(&target, &[&first, &second]);

    let error = refused(with_hop(options(), |hop| SshOptions { identity_files: vec![], ..hop })).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &["target: on the way there: second: no way in as", "would take: publickey"],
    );

    let error = refused(with_hop(options(), |hop| SshOptions { user_known_hosts: vec![], ..hop })).await;
    assert_mentions(&error, RemoteErrorKind::HostKey, &["target: on the way there: second: the host key"]);

    let nearest_fails =
        with_hop(options(), |hop| with_hop(hop, |nearest| SshOptions { port: free_port(), ..nearest }));
    let error = refused(nearest_fails).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Unreachable,
        &["target: on the way there: second: on the way there: bastion: cannot connect to port", "refused"],
    );
}

#[tokio::test]
async fn what_a_hop_cannot_reach_is_said() {
    let (target, hop) = (Sshd::start(), Sshd::start());
    let closed = free_port();
    let error = refused(SshOptions { port: closed, ..through(&target, &[&hop]) }).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Unreachable,
        &[&format!("target: the jump host bastion cannot reach 127.0.0.1 port {closed}: Connection refused")],
    );
    let unknown = SshOptions { address: "no-such-host.invalid".to_string(), ..through(&target, &[&hop]) };
    let error = refused(unknown).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["bastion", "no-such-host.invalid"]);
}

#[tokio::test]
async fn a_hop_that_does_not_forward_is_said() {
    let target = Sshd::start();
    let hop = Sshd::builder().config("AllowTcpForwarding no").start();
    let error = refused(through(&target, &[&hop])).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Unreachable,
        &["target: the jump host bastion does not forward to 127.0.0.1", "AllowTcpForwarding no"],
    );
}

#[tokio::test]
async fn a_silent_target_behind_a_hop_ends_by_the_deadline() {
    let (target, hop) = (Sshd::start(), Sshd::start());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let options = SshOptions {
        port: listener.local_addr().expect("address").port(),
        connect_timeout: Duration::from_millis(700),
        ..through(&target, &[&hop])
    };
    // The hop itself has all the time it wants.
    let options = with_hop(options, |hop| SshOptions { connect_timeout: PATIENCE, ..hop });
    let error = refused(options).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["target: ", "greeting", "0.7 s"]);
}

#[tokio::test]
async fn a_hop_that_dies_is_the_reason() {
    let (target, mut hop) = (Sshd::start(), Sshd::start());
    let connection = connect(through(&target, &[&hop])).await.expect("connects");
    let mut process = super::exec(&*connection, "echo started; exec sleep 600").await;
    process.events.recv().await.expect("the command runs");
    hop.stop();
    let begin = std::time::Instant::now();
    let error = loop {
        let request = haul::remote::process::ExecRequest { command: "true", terminal: None };
        match tokio::time::timeout(PATIENCE, connection.exec(request)).await.expect("an answer") {
            Ok(_) => assert!(begin.elapsed() < PATIENCE, "still works"),
            Err(error) => break error,
        }
    };
    assert_mentions(
        &error,
        RemoteErrorKind::LinkLost,
        &["target: ", "the connection to the jump host bastion is lost"],
    );
}

#[tokio::test]
async fn a_password_for_a_hop_is_asked_once() {
    let Some(account) = Account::create() else { return };
    let target = Sshd::start();
    let hop = Sshd::builder().config("KbdInteractiveAuthentication no").start();
    let options = with_hop(through(&target, &[&hop]), |hop| SshOptions {
        user: account.name().to_string(),
        identity_files: vec![],
        ..hop
    });
    let prompter = Arc::new(ScriptedPrompter::new().passwords(&[account.password()]));
    let connector = SshConnector::new(options, prompter.clone());
    let (one, two) = tokio::join!(connector.connect(), connector.connect());
    works(&*one.expect("connects")).await;
    works(&*two.expect("connects again")).await;
    // A connection of the hop that is lost is made again as well.
    hop.kill_all_sessions();
    works(&*connector.connect().await.expect("connects after a loss")).await;
    assert_eq!(prompter.asked(), [Asked::Password]);
}

#[tokio::test]
async fn a_hop_that_takes_no_second_login_is_shared() {
    let target = Sshd::start();
    let hop = Sshd::start();
    let connector = connector(through(&target, &[&hop]));
    let first = connector.connect().await.expect("connects");
    hop.stop_listening();
    let second = connector.connect().await.expect("connects through the standing connection");
    works(&*first).await;
    drop(first);
    works(&*second).await;
}

#[tokio::test]
async fn a_hop_has_keys_and_an_account_of_its_own() {
    let (target, hop) = (Sshd::start(), Sshd::start());
    let key = hop.directory().join("only-here");
    generate_key(&key, "ed25519", "");
    // The hop does not take the target's key, nor the target the hop's.
    assert!(
        refused(with_hop(through(&target, &[&hop]), |hop| SshOptions {
            identity_files: vec![key.clone()],
            ..hop
        }))
        .await
        .message
        .contains("bastion: no way in")
    );
    let options = SshOptions { identity_files: vec![hop.key_path()], ..through(&target, &[&hop]) };
    let error = refused(options).await;
    assert!(error.message.starts_with("target: no way in"), "{error}");
}
