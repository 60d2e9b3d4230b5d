//! Commands: output, input, signals, terminals, channels.

use std::time::Duration;

use haul::remote::RemoteErrorKind;
use haul::remote::process::ExecRequest;
use haul::remote::process::ProcessControl;
use haul::remote::process::ProcessEvent;
use haul::remote::process::Terminal;
use haul::remote::ssh::SshOptions;
use tokio::io::AsyncWriteExt;

use crate::harness::Sshd;
use crate::harness::account::Account;

use super::{PATIENCE, assert_mentions, connect, eventually_runs, exec, options_for, output};

#[tokio::test]
async fn a_command_reports_output_errors_and_status() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let mut process = exec(&*connection, "echo out; echo err >&2; exit 7").await;
    let output = output(&mut process).await;
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.exited, Some(7));
    assert_eq!(output.signaled, None);
}

#[tokio::test]
async fn standard_input_arrives_and_ends() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let mut process = exec(&*connection, "cat; echo end").await;
    process.stdin.write_all(b"in\0\xff\n").await.expect("write");
    process.stdin.shutdown().await.expect("shutdown");
    process.stdin.shutdown().await.expect("once more does no harm");
    let output = output(&mut process).await;
    assert_eq!(output.stdout, b"in\0\xff\nend\n");
    assert_eq!(output.exited, Some(0));
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    // sshd passes signals on only where it has dropped root's rights.
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::start();
    let options = SshOptions { user: account.name().to_string(), ..options_for(&sshd) };
    let connection = connect(options).await.expect("connects");
    let mut process = exec(&*connection, "echo there; exec sleep 1000").await;
    // Before its child has become the command, sshd's own handler would take the signal.
    let first = tokio::time::timeout(PATIENCE, process.events.recv()).await.expect("output");
    assert!(matches!(&first, Some(ProcessEvent::Stdout(data)) if &data[..] == b"there\n"), "{first:?}");
    process.control.send(ProcessControl::Signal("TERM".to_string())).await.expect("send");
    let output = output(&mut process).await;
    assert_eq!(output.signaled.as_deref(), Some("TERM"));
    assert_eq!(output.exited, None);
}

#[tokio::test]
async fn a_terminal_has_the_size_that_was_asked_for() {
    if !crate::harness::sshd::terminals_work() {
        return;
    }
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let terminal = Terminal { term: "vt100".to_string(), columns: 91, rows: 37 };
    let request =
        ExecRequest { command: "stty size; echo $TERM; read x; stty size", terminal: Some(terminal) };
    let mut process = connection.exec(request).await.expect("exec");
    let mut text = String::new();
    while !text.ends_with("vt100\r\n") {
        match tokio::time::timeout(PATIENCE, process.events.recv()).await.expect("output") {
            Some(ProcessEvent::Stdout(data)) => text.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{other:?} after {text:?}"),
        }
    }
    assert_eq!(text, "37 91\r\nvt100\r\n");
    process.control.send(ProcessControl::Resize { columns: 55, rows: 22 }).await.expect("send");
    process.stdin.write_all(b"\n").await.expect("write");
    let text = String::from_utf8(output(&mut process).await.stdout).expect("text");
    assert!(text.ends_with("22 55\r\n"), "{text:?}");
}

#[tokio::test]
async fn writing_to_a_command_that_does_not_read_fails_when_it_ends() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let mut process = exec(&*connection, "sleep 1; exit 3").await;
    let data = vec![0; 16 * 1024 * 1024];
    let written = tokio::time::timeout(PATIENCE, process.stdin.write_all(&data)).await.expect("not for ever");
    assert!(written.is_err());
    assert_eq!(output(&mut process).await.exited, Some(3));
}

#[tokio::test]
async fn a_slow_reader_slows_the_command_down() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let counter = sshd.scratch().join("count");
    let script = format!(
        "i=0; while [ $i -lt 64 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i > '{}'; done",
        counter.display()
    );
    let mut process = exec(&*connection, "exec sh -s").await;
    process.stdin.write_all(script.as_bytes()).await.expect("write");
    process.stdin.shutdown().await.expect("shutdown");
    // It comes to a stand by itself: two looks a second apart see the same.
    let count = || std::fs::read_to_string(&counter).unwrap_or_default().trim().parse::<u32>().unwrap_or(0);
    let mut before = 0;
    tokio::time::timeout(PATIENCE, async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = count();
            if now > 0 && now == before {
                return;
            }
            before = now;
        }
    })
    .await
    .expect("comes to a stand");
    assert!(before < 40, "{before} MiB went through to nobody");
    assert_eq!(output(&mut process).await.stdout.len(), 64 * 1024 * 1024);
}

#[tokio::test]
async fn a_server_without_a_shell_says_so_or_talks_sftp() {
    let sshd = Sshd::builder().force_internal_sftp().start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    // The trap: it "runs" the command, and what runs is the SFTP server.
    let mut process = exec(&*connection, "echo works").await;
    process.stdin.shutdown().await.expect("shutdown");
    assert_ne!(output(&mut process).await.stdout, b"works\n");
}

#[tokio::test]
async fn a_channel_too_many_is_refused_and_the_rest_goes_on() {
    let sshd = Sshd::builder().config("MaxSessions 1").start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let mut first = exec(&*connection, "cat").await;
    let request = ExecRequest { command: "true", terminal: None };
    let Err(error) = connection.exec(request).await else { panic!("opened") };
    assert_mentions(&error, RemoteErrorKind::ChannelRefused, &["target"]);
    first.stdin.write_all(b"still here").await.expect("write");
    first.stdin.shutdown().await.expect("shutdown");
    assert_eq!(output(&mut first).await.stdout, b"still here");
    eventually_runs(&*connection).await;
}

#[tokio::test]
async fn dropping_a_process_frees_its_channel() {
    let sshd = Sshd::builder().config("MaxSessions 1").start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    drop(exec(&*connection, "exec cat").await);
    eventually_runs(&*connection).await;
}
