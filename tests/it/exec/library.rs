//! The library's face: what a reader of `std::process` expects.

use std::time::Duration;

use haul::engine::exec::{Command, ExecErrorKind, ExitStatus, Host, Signal, Stdio};
use haul::remote::Connector;
use haul::remote::local::LocalConnector;
use haul::remote::ssh::{NoPrompter, SshConnector, SshOptions};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{PATIENCE, Stage, processes_with};
use crate::harness::Sshd;
use crate::harness::account::Account;
use crate::scripts::shells::find;

fn options(sshd: &Sshd) -> SshOptions {
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

pub fn connector(sshd: &Sshd) -> Arc<dyn Connector> {
    Arc::new(SshConnector::new(options(sshd), Arc::new(NoPrompter)))
}

async fn host(stage: &Stage) -> Host {
    Host::connect(connector(&stage.sshd)).await.expect("connects")
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

#[tokio::test]
async fn output_and_status() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let output = Command::shell("echo out; echo err >&2; exit 3").output(&host).await.expect("runs");
    assert_eq!(output.status, ExitStatus::Exited(3));
    assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    let status = Command::new("sh").args(["-c", "kill -TERM $$"]).status(&host).await.expect("runs");
    assert_eq!((status.signal(), status.code(), status.shell_code()), (Some("TERM"), None, 143));
    let output =
        Command::new("head").args(["-c", "100000", "/dev/zero"]).output_limit(10).output(&host).await;
    let output = output.expect("runs");
    assert_eq!((output.stdout.len(), output.truncated), (10, true));
}

#[tokio::test]
async fn the_same_on_this_machine() {
    let connector = LocalConnector::whole_machine(Some(find("dash")));
    let host = Host::connect(Arc::new(connector)).await.expect("connects");
    let output = Command::shell("echo here; exit 4").output(&host).await.expect("runs");
    assert_eq!((output.status, output.stdout), (ExitStatus::Exited(4), b"here\n".to_vec()));
}

#[tokio::test]
async fn errors_say_what_never_started() {
    let stage = Stage::new();
    let host = host(&stage).await;
    for (command, kind) in [
        (Command::new("no-such-program"), ExecErrorKind::ProgramNotFound),
        (Command::new("/etc/passwd"), ExecErrorKind::ProgramNotExecutable),
        (Command::new("true").current_dir("/no/such").clone(), ExecErrorKind::Directory),
        (Command::new("a\0b"), ExecErrorKind::InvalidInput),
        (Command::new(""), ExecErrorKind::InvalidInput),
        (Command::new("true").env("A=B", "c").clone(), ExecErrorKind::InvalidInput),
    ] {
        let error = command.status(&host).await.expect_err("no status");
        assert_eq!((error.kind, error.started), (kind, false), "{error}");
    }
}

#[tokio::test]
async fn a_talk_by_pipes() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let mut child =
        Command::new("cat").stdin(Stdio::Piped).stdout(Stdio::Piped).spawn(&host).await.expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    assert!(child.stderr.is_none());
    for word in [&b"one"[..], b"t\0o", b"three"] {
        stdin.write_all(word).await.expect("write");
        let mut answer = vec![0; word.len()];
        stdout.read_exact(&mut answer).await.expect("read");
        assert_eq!(answer, word);
    }
    assert_eq!(child.try_wait().expect("no error"), None);
    // Dropped, the program reads its end.
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.expect("read");
    assert!(rest.is_empty());
    assert!(child.wait().await.expect("ends").success());
    assert_eq!(child.try_wait().expect("no error"), Some(ExitStatus::Exited(0)));
}

#[tokio::test]
async fn signals_and_kill() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let mut child = Command::new("sleep").arg(stage.unique()).spawn(&host).await.expect("starts");
    assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists());
    assert!(child.signal(Signal::USR1).await);
    assert_eq!(child.wait().await.expect("ends").signal(), Some("USR1"));
    assert!(!child.signal(Signal::TERM).await, "nobody is left");
    let mut child = Command::new("sleep").arg(stage.unique()).spawn(&host).await.expect("starts");
    assert!(child.kill().await);
    assert_eq!(child.wait().await.expect("ends").signal(), Some("KILL"));
}

#[tokio::test]
async fn a_timeout_has_the_output_up_to_then() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let word = stage.unique();
    let mut command = Command::shell(format!("echo begun; sleep {word} & sleep {word}"));
    command.timeout(Duration::from_secs(2)).grace(Duration::from_millis(500));
    let error = command.output(&host).await.expect_err("it takes longer");
    assert_eq!((error.kind, error.started), (ExecErrorKind::TimedOut, true));
    assert_eq!(error.output.expect("output").stdout, b"begun\n");
    assert_eq!(processes_with(&word), Vec::<u32>::new());
}

#[tokio::test]
async fn dropping_a_child_ends_its_group() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let word = stage.unique();
    let mut command = Command::shell(format!("trap '' TERM; sleep {word} & sleep {word}"));
    let child = command.grace(Duration::from_millis(300)).spawn(&host).await.expect("starts");
    let two = || processes_with(&word).len() == 2;
    eventually("two to sleep", two).await;
    drop(child);
    eventually("their end", || processes_with(&word).is_empty()).await;
    // The connection is as good as before.
    assert!(Command::new("true").status(&host).await.expect("runs").success());
}

#[tokio::test]
async fn a_dropped_reader_is_a_broken_pipe_to_the_program() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let mut child = Command::new("yes").stdout(Stdio::Piped).spawn(&host).await.expect("starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().await.expect("ends").signal(), Some("PIPE"));
}

#[tokio::test]
async fn one_unread_child_holds_up_no_signal() {
    let stage = Stage::new();
    let host = host(&stage).await;
    let mut child = Command::new("yes").stdout(Stdio::Piped).spawn(&host).await.expect("starts");
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::timeout(PATIENCE, child.end(Duration::from_secs(1))).await.expect("ends");
    drop(child.stdout.take());
    assert_eq!(child.wait().await.expect("ends").signal(), Some("TERM"));
}

#[tokio::test]
async fn without_a_guard_signals_go_by_request() {
    // sshd passes them on only where it has dropped root's rights.
    let Some(account) = Account::create() else { return };
    let stage = Stage::with(Sshd::builder().config("MaxSessions 1"));
    let options = SshOptions { user: account.name().to_string(), ..options(&stage.sshd) };
    let connector = Arc::new(SshConnector::new(options, Arc::new(NoPrompter)));
    let host = Host::connect(connector).await.expect("connects");
    // No second connection either: the one that there is goes on.
    stage.sshd.stop_listening();
    let mut child = Command::new("sleep").arg(stage.unique()).spawn(&host).await.expect("starts");
    let reason = child.unguarded().expect("no guard").to_string();
    assert!(reason.contains("refused"), "{reason}");
    tokio::time::timeout(PATIENCE, child.end(PATIENCE)).await.expect("ends");
    assert_eq!(child.wait().await.expect("ends").signal(), Some("TERM"));
}
