//! Names, ports, greetings and algorithms that do not fit.

use std::time::Duration;
use std::time::Instant;

use haul::remote::RemoteErrorKind;
use haul::remote::ssh::SshOptions;
use tokio::io::AsyncWriteExt;

use crate::harness::Sshd;

use super::{assert_mentions, connect, exec, options_for, output, refused, works};

#[tokio::test]
async fn an_unknown_name_and_a_closed_port_are_told_apart() {
    let sshd = Sshd::start();
    let options = SshOptions { address: "no-such-host.invalid".to_string(), ..options_for(&sshd) };
    let error = refused(options).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["no-such-host.invalid", "not found"]);

    let options = SshOptions { port: crate::harness::sshd::free_port(), ..options_for(&sshd) };
    let error = refused(options.clone()).await;
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["refused", &options.port.to_string()]);
}

#[tokio::test]
async fn a_silent_listener_ends_by_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let options = SshOptions {
        host: "mute".to_string(),
        address: "127.0.0.1".to_string(),
        port: listener.local_addr().expect("address").port(),
        user: "nobody".to_string(),
        connect_timeout: Duration::from_millis(700),
        ..SshOptions::default()
    };
    let begin = Instant::now();
    let accept = async {
        let (mut peer, _) = listener.accept().await.expect("accept");
        // The client must hang up by itself.
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut bytes).await.expect("read");
    };
    let (error, ()) = tokio::join!(refused(options), accept);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_mentions(&error, RemoteErrorKind::Unreachable, &["mute", "greeting", "0.7 s"]);
}

#[tokio::test]
async fn something_that_is_no_ssh_server_is_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let options = SshOptions {
        host: "web".to_string(),
        address: "127.0.0.1".to_string(),
        port: listener.local_addr().expect("address").port(),
        user: "nobody".to_string(),
        connect_timeout: Duration::from_secs(5),
        ..SshOptions::default()
    };
    let serve = async {
        let (mut peer, _) = listener.accept().await.expect("accept");
        peer.write_all(&b"HTTP/1.1 400 Bad Request\r\n".repeat(30)).await.expect("write");
        peer.shutdown().await.expect("shutdown");
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut bytes).await;
    };
    let (error, ()) = tokio::join!(refused(options), serve);
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn no_common_algorithm_names_both_offers() {
    let sshd = Sshd::builder().config("Ciphers aes256-ctr").start();
    let options =
        SshOptions { ciphers: Some(vec!["aes128-gcm@openssh.com".to_string()]), ..options_for(&sshd) };
    let error = refused(options).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Unreachable,
        &["no common cipher", "aes128-gcm@openssh.com", "aes256-ctr"],
    );
}

#[tokio::test]
async fn an_old_server_is_reached_by_asking_for_it() {
    let sshd = Sshd::builder()
        .host_key_type("rsa")
        .config("HostKeyAlgorithms ssh-rsa")
        .config("KexAlgorithms diffie-hellman-group14-sha1")
        .config("Ciphers aes128-cbc")
        .config("MACs hmac-sha1")
        .start();
    assert_eq!(refused(options_for(&sshd)).await.kind, RemoteErrorKind::Unreachable);
    let list = |name: &str| Some(vec![name.to_string()]);
    let options = SshOptions {
        host_key_algorithms: list("ssh-rsa"),
        kex_algorithms: list("diffie-hellman-group14-sha1"),
        ciphers: list("aes128-cbc"),
        macs: list("hmac-sha1"),
        ..options_for(&sshd)
    };
    works(&*connect(options).await.expect("connects")).await;
}

#[tokio::test]
async fn compression_works() {
    let sshd = Sshd::start();
    let connection = connect(SshOptions { compression: true, ..options_for(&sshd) }).await.expect("connects");
    works(&*connection).await;
    let mut process = exec(&*connection, "head -c 1000000 /dev/zero").await;
    assert_eq!(output(&mut process).await.stdout.len(), 1_000_000);
}
