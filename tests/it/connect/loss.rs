//! Links that die, freeze, or take no more.

use std::time::Duration;
use std::time::Instant;

use haul::remote::Connector;
use haul::remote::Process;
use haul::remote::RemoteErrorKind;
use haul::remote::process::ExecRequest;
use haul::remote::process::ProcessEvent;
use haul::remote::ssh::SshOptions;
use tokio::io::AsyncWriteExt;

use crate::harness::Sshd;

use super::{PATIENCE, assert_mentions, connect, connector, exec, options_for, output, refused};

#[tokio::test]
async fn a_killed_server_is_noticed_at_once() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let mut process = exec(&*connection, "echo up; exec sleep 1000").await;
    assert_eq!(process.events.recv().await, Some(ProcessEvent::Stdout("up\n".into())));
    sshd.kill_all_sessions();
    let begin = Instant::now();
    let output = output(&mut process).await;
    assert_eq!((output.exited, output.signaled), (None, None));
    let Err(error) = connection.exec(ExecRequest { command: "true", terminal: None }).await else {
        panic!("runs")
    };
    assert_mentions(&error, RemoteErrorKind::LinkLost, &["target", "connection lost"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_silent_server_is_noticed_by_its_missing_signs_of_life() {
    let sshd = Sshd::start();
    let options =
        SshOptions { keepalive_interval: Duration::from_secs(1), keepalive_count: 2, ..options_for(&sshd) };
    let connection = connect(options).await.expect("connects");
    let mut process = exec(&*connection, "echo up; exec sleep 1000").await;
    assert_eq!(process.events.recv().await, Some(ProcessEvent::Stdout("up\n".into())));
    sshd.freeze();
    let begin = Instant::now();
    assert_eq!(output(&mut process).await.exited, None);
    let Err(error) = connection.exec(ExecRequest { command: "true", terminal: None }).await else {
        panic!("runs")
    };
    assert_mentions(&error, RemoteErrorKind::LinkLost, &["no sign of life"]);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    sshd.thaw();
}

#[tokio::test]
async fn a_server_that_takes_no_more_bytes_is_noticed() {
    let sshd = Sshd::start();
    let options = SshOptions {
        // Keepalives cannot tell: they would have to pass the full pipe.
        keepalive_interval: Duration::from_secs(1000),
        stall_timeout: Duration::from_secs(2),
        ..options_for(&sshd)
    };
    let connection = connect(options).await.expect("connects");
    let mut processes = Vec::new();
    for _ in 0..8 {
        processes.push(exec(&*connection, "cat > /dev/null").await);
    }
    sshd.freeze();
    let begin = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for mut process in processes {
        writers.spawn(async move {
            let data = vec![0; 1024 * 1024];
            while process.stdin.write_all(&data).await.is_ok() {}
        });
    }
    tokio::time::timeout(PATIENCE, writers.join_all()).await.expect("the writers end");
    let Err(error) = connection.exec(ExecRequest { command: "true", terminal: None }).await else {
        panic!("runs")
    };
    assert_mentions(&error, RemoteErrorKind::LinkLost, &["target"]);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    sshd.thaw();
}

#[tokio::test]
async fn a_frozen_server_does_not_hold_up_a_login_for_ever() {
    let sshd = Sshd::start();
    sshd.freeze();
    let options = SshOptions { connect_timeout: Duration::from_secs(1), ..options_for(&sshd) };
    let error = refused(options).await;
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");
    sshd.thaw();
}

#[tokio::test]
async fn keys_are_renewed_without_a_stall() {
    let sshd = Sshd::builder().config("RekeyLimit 256K").log_level("DEBUG1").start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let process = exec(&*connection, "cat").await;
    let data: Vec<u8> =
        (0..8 * 1024 * 1024_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let Process { mut stdin, mut events, control } = process;
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.expect("write");
        stdin.shutdown().await.expect("shutdown");
    });
    let mut received = Vec::new();
    let read = async {
        while let Some(event) = events.recv().await {
            if let ProcessEvent::Stdout(data) = event {
                received.extend_from_slice(&data);
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no stall");
    writer.await.expect("the writer ends");
    drop(control);
    assert!(received == data, "{} of {} bytes, or others", received.len(), data.len());
    let renewals = sshd.log().matches("rekeying").count();
    assert!(renewals > 4, "{renewals} renewals: {}", sshd.log());
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_dropped_connection() {
    let sshd = Sshd::start();
    let connector = connector(options_for(&sshd));
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..3 {
        let connection = connector.connect().await.expect("connects");
        let process = exec(&*connection, "exec cat").await;
        assert!(tasks() > before);
        drop(connection);
        drop(process);
    }
    // A handshake that is given up half way, and a server that is frozen while used.
    let connection = connector.connect().await.expect("connects");
    let process = exec(&*connection, "exec cat").await;
    sshd.freeze();
    let attempt = tokio::time::timeout(Duration::from_millis(300), connector.connect()).await;
    assert!(attempt.is_err());
    drop((connection, process));
    tokio::time::timeout(PATIENCE, async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} tasks are left, {before} at the start", tasks()));
    sshd.thaw();
}
