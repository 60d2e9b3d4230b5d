//! SFTP sessions on SSH channels.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use haul::model::remote_path::RemotePath;
use haul::remote::Files;
use haul::remote::RemoteError;
use haul::remote::RemoteErrorKind;
use haul::remote::files::OpenMode;
use haul::remote::ssh::SshOptions;

use crate::harness::Sshd;

use super::{PATIENCE, assert_mentions, connect, eventually_runs, options_for, works};

fn remote(path: &Path) -> RemotePath {
    RemotePath::new(path.as_os_str().as_encoded_bytes()).expect("a path")
}

/// Writes `data` with several writes under way at once, and closes.
async fn upload(files: &dyn Files, path: &Path, data: &Bytes) -> Result<(), RemoteError> {
    let handle = files.open(&remote(path), OpenMode::CREATE, Some(0o600)).await?;
    let step = files.features().write_limit.min(128 * 1024);
    let mut pending = std::collections::VecDeque::new();
    let mut offset = 0;
    while offset < data.len() {
        let end = data.len().min(offset + step);
        pending.push_back(files.submit_write(&handle, offset as u64, data.slice(offset..end)).await?);
        if pending.len() >= 8
            && let Some(first) = pending.pop_front()
        {
            first.await?;
        }
        offset = end;
    }
    for write in pending {
        write.await?;
    }
    files.close(handle).await
}

fn pattern(bytes: u32) -> Bytes {
    (0..bytes).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn files_arrive_with_and_without_a_shell_and_through_new_keys() {
    let data = pattern(8 * 1024 * 1024 + 17);
    for sshd in [
        Sshd::start(),
        Sshd::builder().force_internal_sftp().start(),
        Sshd::builder().internal_sftp().config("RekeyLimit 256K").start(),
    ] {
        let connection = connect(options_for(&sshd)).await.expect("connects");
        let files = connection.files().await.expect("files");
        assert!(files.features().posix_rename);
        // The files keep the connection.
        drop(connection);
        let path = sshd.scratch().join("file");
        let sent = tokio::time::timeout(PATIENCE, upload(&*files, &path, &data)).await.expect("no stall");
        sent.expect("sent");
        assert!(std::fs::read(&path).expect("read") == data);
        let handle = files.open(&remote(&path), OpenMode::READ, None).await.expect("open");
        let read = files.read_at(&handle, 8 * 1024 * 1024, 32 * 1024).await.expect("read");
        assert_eq!(read, data.slice(8 * 1024 * 1024..));
        files.close(handle).await.expect("close");
    }
}

#[tokio::test]
async fn a_server_without_sftp_says_so() {
    let sshd = Sshd::builder().no_sftp().start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let Err(error) = connection.files().await else { panic!("opened") };
    assert_mentions(&error, RemoteErrorKind::Unsupported, &["target", "SFTP"]);
    works(&*connection).await;
}

#[tokio::test]
async fn a_file_channel_too_many_is_refused() {
    let sshd = Sshd::builder().config("MaxSessions 1").start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let files = connection.files().await.expect("files");
    let Err(error) = connection.files().await else { panic!("opened") };
    assert_eq!(error.kind, RemoteErrorKind::ChannelRefused, "{error}");
    let here = files.real_path(&remote(Path::new("."))).await.expect("the first goes on");
    assert!(!here.as_bytes().is_empty());
    drop(files);
    eventually_runs(&*connection).await;
}

#[tokio::test]
async fn files_of_a_killed_server_are_lost_at_once() {
    let sshd = Sshd::start();
    let connection = connect(options_for(&sshd)).await.expect("connects");
    let files = connection.files().await.expect("files");
    sshd.kill_all_sessions();
    let begin = Instant::now();
    let error = files.stat(&remote(Path::new("/"))).await.expect_err("no answer");
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
    let Err(error) = connection.files().await else { panic!("opened") };
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_upload_to_a_server_that_freezes_ends() {
    let sshd = Sshd::start();
    let options = SshOptions {
        keepalive_interval: Duration::from_secs(1),
        keepalive_count: 2,
        stall_timeout: Duration::from_secs(4),
        ..options_for(&sshd)
    };
    let connection = connect(options).await.expect("connects");
    let files = connection.files().await.expect("files");
    let path = sshd.scratch().join("file");
    upload(&*files, &path, &pattern(1024)).await.expect("sent");
    sshd.freeze();
    let begin = Instant::now();
    let sent = upload(&*files, &path, &pattern(64 * 1024 * 1024)).await;
    assert_eq!(sent.expect_err("no answer").kind, RemoteErrorKind::LinkLost);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    sshd.thaw();
}
