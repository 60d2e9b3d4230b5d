//! Through a command: it is the way, it is heard when it fails, and it is ended.

use std::sync::Arc;

use haul::remote::ssh::{SshConnector, SshOptions, Via};
use haul::remote::{Connector, RemoteErrorKind};

use crate::harness::Sshd;
use crate::harness::script::ScriptedPrompter;
use crate::harness::wait::wait_until;

use super::{PATIENCE, assert_mentions, connect, options_for, refused, works};

fn by_command(sshd: &Sshd, command: String) -> SshOptions {
    SshOptions { via: Via::Command(command), ..options_for(sshd) }
}

/// Leads to the server by way of `ssh -W`, as most people have it.
fn forwarding(target: &Sshd, bastion: &Sshd) -> String {
    format!(
        "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile={} -i {} -p {} -W 127.0.0.1:{} {}@127.0.0.1",
        bastion.known_hosts_path().display(),
        bastion.key_path().display(),
        bastion.port(),
        target.port(),
        bastion.user(),
    )
}

/// Processes of this test that still run, or that nobody has waited for, by a word of their
/// command line.
fn processes_with(word: &str) -> Vec<String> {
    let output = std::process::Command::new("ps").args(["-eo", "stat,args"]).output().expect("ps runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains(word)).map(str::to_string).collect()
}

/// Children of this process that have ended and were not waited for, by name.
fn zombies(name: &str) -> usize {
    let parent = std::process::id().to_string();
    let output = std::process::Command::new("ps")
        .args(["--ppid", &parent, "-o", "stat=,comm="])
        .output()
        .expect("ps runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.starts_with('Z') && line.contains(name)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_the_way() {
    let (target, bastion) = (Sshd::start(), Sshd::start());
    let options = by_command(&target, forwarding(&target, &bastion));
    let connector = SshConnector::new(options, Arc::new(ScriptedPrompter::new()));
    let first = connector.connect().await.expect("connects");
    works(&*first).await;
    works(&*connector.connect().await.expect("connects again")).await;
    assert!(bastion.log().contains("Accepted publickey"));

    // It ends with its connection, and nothing is left of it.
    first.disconnect().await;
    drop(first);
    let word = format!("-W 127.0.0.1:{}", target.port());
    wait_until("the end of the command", PATIENCE, || processes_with(&word).is_empty());
}

#[tokio::test]
async fn a_command_that_fails_is_heard() {
    let sshd = Sshd::start();
    let prompter = Arc::new(ScriptedPrompter::new());
    let options = by_command(&sshd, "sh -c 'echo no route to \u{1b}[31mhost >&2; exit 3'".to_string());
    let Err(error) = SshConnector::new(options, prompter.clone()).connect().await else {
        panic!("connected")
    };
    assert_mentions(
        &error,
        RemoteErrorKind::Unreachable,
        &[
            "target: before the server's greeting: the proxy command ended with status 3, and said: no route to \\x1b[31mhost",
        ],
    );
    assert_eq!(prompter.told(), ["target: proxy command: no route to \\x1b[31mhost"]);

    let error = refused(by_command(&sshd, "/no/such/command".to_string())).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["the proxy command", "/no/such/command"]);

    let error = refused(by_command(&sshd, "sh -c 'kill -9 $$'".to_string())).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["ended by signal 9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_says_nothing_ends_by_the_deadline_and_is_ended() {
    let sshd = Sshd::start();
    let word = format!("600.{}", sshd.port());
    let options = SshOptions {
        connect_timeout: std::time::Duration::from_millis(500),
        // It reads nothing and holds its pipes: only a signal ends it.
        ..by_command(&sshd, format!("sleep {word}"))
    };
    let error = refused(options).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["target: ", "greeting", "0.5 s"]);
    wait_until("the end of the command", PATIENCE, || processes_with(&format!("sleep {word}")).is_empty());
    // Another test may have one for a moment.
    wait_until("no zombie", PATIENCE, || zombies("sleep") == 0);
}

#[tokio::test]
async fn the_server_s_goodbye_is_heard_through_a_command() {
    let (target, bastion) = (Sshd::builder().config("MaxAuthTries 1").start(), Sshd::start());
    let stranger = target.directory().join("stranger");
    crate::harness::sshd::generate_key(&stranger, "ed25519", "");
    let options = SshOptions {
        identity_files: vec![stranger.clone(), stranger],
        ..by_command(&target, forwarding(&target, &bastion))
    };
    let error = refused(options).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &["target: login as", "Too many authentication"],
    );
}

#[tokio::test]
async fn a_command_that_dies_later_is_the_reason() {
    let (target, bastion) = (Sshd::start(), Sshd::start());
    let connection = connect(by_command(&target, forwarding(&target, &bastion))).await.expect("connects");
    works(&*connection).await;
    bastion.kill_all_sessions();
    let error = loop {
        let request = haul::remote::process::ExecRequest { command: "true", terminal: None };
        match tokio::time::timeout(PATIENCE, connection.exec(request)).await.expect("an answer") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_mentions(
        &error,
        RemoteErrorKind::LinkLost,
        &["target: ", "the proxy command ended with status 255"],
    );
}
