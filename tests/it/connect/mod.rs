//! Connecting to real SSH servers: trust, authentication, deadlines, channels.

mod asking;
mod codes;
mod commands;
mod failures;
mod files;
mod harness;
mod jump;
mod login;
mod loss;
mod none;
mod proxy;
mod reach;
mod rekey;
mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haul::remote::Connection;
use haul::remote::Connector;
use haul::remote::Process;
use haul::remote::RemoteError;
use haul::remote::RemoteErrorKind;
use haul::remote::process::ExecRequest;
use haul::remote::process::ProcessEvent;
use haul::remote::ssh::NoPrompter;
use haul::remote::ssh::SshConnector;
use haul::remote::ssh::SshOptions;

use crate::harness::Sshd;

/// For what should take no time; machines are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn options_for(sshd: &Sshd) -> SshOptions {
    SshOptions {
        host: "target".to_string(),
        address: "127.0.0.1".to_string(),
        port: sshd.port(),
        user: sshd.user().to_string(),
        identity_files: vec![sshd.key_path()],
        user_known_hosts: vec![sshd.known_hosts_path()],
        ..SshOptions::default()
    }
}

pub fn connector(options: SshOptions) -> SshConnector {
    SshConnector::new(options, Arc::new(NoPrompter))
}

pub async fn connect(options: SshOptions) -> Result<Arc<dyn Connection>, RemoteError> {
    connector(options).connect().await
}

/// The error of a connection that must not come about.
pub async fn refused(options: SshOptions) -> RemoteError {
    match tokio::time::timeout(PATIENCE, connect(options)).await.expect("an answer") {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

pub async fn exec(connection: &dyn Connection, command: &'static str) -> Process {
    connection.exec(ExecRequest { command, terminal: None }).await.expect("exec")
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exited: Option<u32>,
    pub signaled: Option<String>,
}

pub async fn output(process: &mut Process) -> Output {
    let mut output = Output::default();
    let collect = async {
        while let Some(event) = process.events.recv().await {
            match event {
                ProcessEvent::Stdout(data) => output.stdout.extend_from_slice(&data),
                ProcessEvent::Stderr(data) => output.stderr.extend_from_slice(&data),
                ProcessEvent::Eof => {}
                ProcessEvent::Exited(status) => output.exited = Some(status),
                ProcessEvent::Signaled { signal, .. } => output.signaled = Some(signal),
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.expect("the command ends");
    output
}

pub async fn works(connection: &dyn Connection) {
    let mut process = exec(connection, "echo works").await;
    assert_eq!(output(&mut process).await.stdout, b"works\n");
}

/// sshd counts a channel for a moment longer than it is open.
pub async fn eventually_runs(connection: &dyn Connection) {
    tokio::time::timeout(PATIENCE, async {
        while connection.exec(ExecRequest { command: "true", terminal: None }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the channel is free again");
}

pub fn assert_mentions(error: &RemoteError, kind: RemoteErrorKind, words: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(error.message.contains(word), "no \"{word}\" in: {error}");
    }
    assert!(!error.message.contains('\n'), "{error}");
}

pub fn fingerprint(key: &Path) -> String {
    let output =
        std::process::Command::new("ssh-keygen").arg("-lf").arg(key).output().expect("ssh-keygen runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().nth(1).expect("a fingerprint").to_string()
}
