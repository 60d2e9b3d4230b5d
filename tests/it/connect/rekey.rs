//! Keys that are agreed upon anew in the middle of a transfer.

use std::time::Duration;

use haul::remote::Connection;
use haul::remote::ssh::{RekeyLimit, SshOptions};
use tokio::io::AsyncWriteExt;

use crate::harness::Sshd;

use super::{connect, exec, options_for, output, works};

const BYTES: usize = 50 * 1024 * 1024;

/// There and back at once.
async fn carries_both_ways(connection: &dyn Connection) {
    let mut process = exec(connection, "cat").await;
    let mut stdin = std::mem::replace(&mut process.stdin, Box::new(tokio::io::sink()));
    let write = async {
        let block = vec![7; 1024 * 1024];
        for _ in 0..BYTES / block.len() {
            stdin.write_all(&block).await.expect("write");
        }
        stdin.shutdown().await.expect("end of input");
    };
    let (output, ()) = tokio::join!(output(&mut process), write);
    assert_eq!(output.stdout.len(), BYTES);
    assert!(output.stdout.iter().all(|byte| *byte == 7));
}

/// How often keys were agreed upon, by the server's log.
fn exchanges(sshd: &Sshd) -> usize {
    sshd.log().matches("kex: algorithm:").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_s_limit_does_not_stall_a_transfer() {
    let sshd = Sshd::builder().config("RekeyLimit 1M").log_level("DEBUG1").start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    carries_both_ways(&*connection).await;
    works(&*connection).await;
    assert!(exchanges(&sshd) > 10, "{}", exchanges(&sshd));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_bytes_is_obeyed() {
    let sshd = Sshd::builder().log_level("DEBUG1").start();
    let rekey_limit = Some(RekeyLimit { bytes: Some(1024 * 1024), time: None });
    let connection = connect(SshOptions { rekey_limit, ..options_for(&sshd) }).await.expect("connects");
    carries_both_ways(&*connection).await;
    works(&*connection).await;
    assert!(exchanges(&sshd) > 10, "{}", exchanges(&sshd));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_time_is_obeyed() {
    let sshd = Sshd::builder().log_level("DEBUG1").start();
    let rekey_limit = Some(RekeyLimit { bytes: None, time: Some(Duration::from_secs(1)) });
    let connection = connect(SshOptions { rekey_limit, ..options_for(&sshd) }).await.expect("connects");
    let before = exchanges(&sshd);
    tokio::time::timeout(super::PATIENCE, async {
        while exchanges(&sshd) == before {
            works(&*connection).await;
        }
    })
    .await
    .expect("keys are agreed upon anew");
    works(&*connection).await;
}
