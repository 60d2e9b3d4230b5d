//! The table of failures: each says which it is, in these very words.

use std::time::Duration;

use haul::remote::RemoteErrorKind;
use haul::remote::RemoteErrorKind::{Authentication, HostKey, Unreachable};
use haul::remote::ssh::{AddressFamily, SshOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::Sshd;
use crate::harness::sshd::{free_port, generate_key, public_key};

use super::{connect, fingerprint, options_for, refused};

const SHORT: Duration = Duration::from_millis(700);

fn options(port: u16) -> SshOptions {
    SshOptions {
        host: "web1".to_string(),
        address: "127.0.0.1".to_string(),
        port,
        user: "carol".to_string(),
        connect_timeout: SHORT,
        login_timeout: SHORT,
        ..SshOptions::default()
    }
}

async fn fails(options: SshOptions, kind: RemoteErrorKind, text: &str) {
    let error = refused(options).await;
    assert_eq!((error.kind, error.message.as_str()), (kind, text));
}

/// A server that says `bytes` to whoever comes, and hangs up only if told to.
async fn says(bytes: &'static [u8], hangs_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                peer.write_all(bytes).await.expect("write");
                if hangs_up {
                    peer.shutdown().await.expect("shutdown");
                }
                let mut rest = Vec::new();
                let _ = peer.read_to_end(&mut rest).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn names_and_addresses() {
    let error = refused(SshOptions { address: "no-such-host.invalid".into(), ..options(22) }).await;
    assert!(error.message.starts_with("web1: the name no-such-host.invalid was not found: "), "{error}");
    fails(
        SshOptions { address: "::1".into(), address_family: AddressFamily::V4, ..options(22) },
        Unreachable,
        "web1: the name ::1 has no IPv4 address",
    )
    .await;
    let port = free_port();
    fails(
        options(port),
        Unreachable,
        &format!(
            "web1: cannot connect to port {port}: 127.0.0.1:{port}: connection refused; is the address \
             right and an SSH server running there?"
        ),
    )
    .await;
    fails(
        SshOptions { bind_address: Some("192.0.2.1".into()), ..options(port) },
        Unreachable,
        &format!(
            "web1: cannot connect to port {port}: 127.0.0.1:{port}: cannot bind to 192.0.2.1: Cannot assign \
             requested address (os error 99); is the address right and an SSH server running there?"
        ),
    )
    .await;
    fails(
        SshOptions { bind_address: Some("::1".into()), ..options(port) },
        Unreachable,
        &format!(
            "web1: cannot connect to port {port}: 127.0.0.1:{port}: the address to bind to, ::1, is not \
             IPv4; is the address right and an SSH server running there?"
        ),
    )
    .await;
}

#[tokio::test]
async fn the_address_to_connect_from_is_used() {
    let sshd = Sshd::start();
    let options = SshOptions { bind_address: Some("127.0.0.5".into()), ..options_for(&sshd) };
    connect(options).await.expect("connects");
    assert!(sshd.log().contains("from 127.0.0.5"), "{}", sshd.log());
}

#[tokio::test]
async fn each_stage_has_its_deadline() {
    // A queue that is full: the system answers nobody any more.
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bind");
    let full = socket.listen(1).expect("listen");
    let address = full.local_addr().expect("address");
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let port = address.port();
    fails(
        options(port),
        Unreachable,
        &format!(
            "web1: cannot connect to port {port}: 127.0.0.1:{port}: no answer within 0.7 s; is the address \
             right and an SSH server running there?"
        ),
    )
    .await;

    let port = says(b"", false).await;
    fails(
        options(port),
        Unreachable,
        &format!("web1: connected, but no SSH greeting (banner) came within 0.7 s (127.0.0.1, port {port})"),
    )
    .await;

    let port = says(b"SSH-2.0-Mute\r\n", false).await;
    fails(
        options(port),
        Unreachable,
        &format!("web1: the key exchange was not done within 0.7 s (127.0.0.1, port {port})"),
    )
    .await;
}

#[tokio::test]
async fn what_is_no_ssh_server_is_quoted() {
    for (bytes, said) in [
        (&b"Exceeded MaxStartups\r\n"[..], "Exceeded MaxStartups"),
        (b"Not allowed at this time\r\n", "Not allowed at this time"),
        (b"\r\n220 mail \x1b[31m ready\r\n", "220 mail \\x1b[31m ready"),
    ] {
        let port = says(bytes, true).await;
        fails(
            options(port),
            Unreachable,
            &format!(
                "web1: before the server's greeting: the server closed the connection; in place of one it \
                 said: {said} (127.0.0.1, port {port})"
            ),
        )
        .await;
    }
    let port = says(b"", true).await;
    fails(
        options(port),
        Unreachable,
        &format!(
            "web1: before the server's greeting: the server closed the connection (127.0.0.1, port {port})"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_server_that_has_no_place_says_so() {
    let sshd = Sshd::builder().config("MaxStartups 1").start();
    // Somebody who does not log in takes the only place, as soon as sshd has noticed.
    let mut idle = TcpStream::connect(sshd.address()).await.expect("connect");
    let mut greeting = [0; 4];
    idle.read_exact(&mut greeting).await.expect("a greeting");
    let port = sshd.port();
    fails(
        SshOptions { host: "web1".to_string(), ..options_for(&sshd) },
        Unreachable,
        &format!(
            "web1: before the server's greeting: the server closed the connection; in place of one it said: \
             Exceeded MaxStartups (127.0.0.1, port {port})"
        ),
    )
    .await;
    drop(idle);
}

#[tokio::test]
async fn host_keys() {
    let sshd = Sshd::start();
    let (port, file) = (sshd.port(), sshd.known_hosts_path());
    let shown = fingerprint(&sshd.host_key_path());
    let options = SshOptions { host: "web1".to_string(), ..options_for(&sshd) };

    std::fs::write(&file, "").expect("write");
    fails(
        options.clone(),
        HostKey,
        &format!(
            "web1: the host key ssh-ed25519 {shown} is unknown (only known keys are trusted); \
             '[127.0.0.1]:{port}' is not in {}. Check the fingerprint, then add the key, or connect with -o \
             StrictHostKeyChecking=ask or accept-new",
            file.display()
        ),
    )
    .await;

    let other = sshd.directory().join("other");
    generate_key(&other, "ed25519", "");
    let text = format!("# a comment\n[127.0.0.1]:{port} {}\n", public_key(&other));
    std::fs::write(&file, text).expect("write");
    fails(
        options.clone(),
        HostKey,
        &format!(
            "web1: the host key has changed: the server shows ssh-ed25519 {shown}, known is ssh-ed25519 {} \
             ({}:2); somebody may be between you and the host. If the change is genuine, remove the old key \
             with: ssh-keygen -R '[127.0.0.1]:{port}' -f {}",
            fingerprint(&other),
            file.display(),
            file.display()
        ),
    )
    .await;

    let text = format!("[127.0.0.1]:{port} {0}\n@revoked * {0}\n", sshd.host_key());
    std::fs::write(&file, text).expect("write");
    fails(
        options,
        HostKey,
        &format!(
            "web1: the host key ssh-ed25519 {shown} is revoked by {}:2; do not connect until the host has \
             another key",
            file.display()
        ),
    )
    .await;
}

#[tokio::test]
async fn authentication() {
    let sshd = Sshd::builder().config("KbdInteractiveAuthentication no").start();
    let stranger = sshd.directory().join("stranger");
    generate_key(&stranger, "ed25519", "");
    let options = SshOptions {
        host: "web1".to_string(),
        identity_files: vec![stranger.clone()],
        batch_mode: true,
        ..options_for(&sshd)
    };
    let (user, print) = (sshd.user(), fingerprint(&stranger));
    fails(
        options.clone(),
        Authentication,
        &format!(
            "web1: no way in as {user}: tried key {print}; the server would take: publickey, password \
             (nobody may be asked)"
        ),
    )
    .await;

    let strict = Sshd::builder().config("MaxAuthTries 2").config("KbdInteractiveAuthentication no").start();
    let second = strict.directory().join("second");
    generate_key(&second, "ed25519", "");
    let options = SshOptions {
        port: strict.port(),
        user_known_hosts: vec![strict.known_hosts_path()],
        identity_files: vec![stranger, second.clone(), strict.key_path()],
        ..options
    };
    fails(
        options,
        Authentication,
        &format!(
            "web1: login as {user} failed: the server closed the connection: Too many authentication \
             failures (tried: key {print}, key {})",
            fingerprint(&second)
        ),
    )
    .await;
}

#[tokio::test]
async fn algorithms() {
    let sshd = Sshd::builder()
        .config("Ciphers aes256-cbc")
        .config("KexAlgorithms diffie-hellman-group14-sha1")
        .config("MACs hmac-sha1")
        .start();
    let options = SshOptions { host: "web1".to_string(), ..options_for(&sshd) };
    let list = |text: &str| Some(text.split(',').map(str::to_string).collect::<Vec<String>>());
    let port = sshd.port();
    fails(
        SshOptions {
            kex_algorithms: list("curve25519-sha256,sntrup761x25519-sha512@openssh.com"),
            ..options.clone()
        },
        Unreachable,
        &format!(
            "web1: in the key exchange: no common key exchange algorithm: haul offers curve25519-sha256, the \
             server diffie-hellman-group14-sha1, and does not have what was asked for: key exchange \
             sntrup761x25519-sha512@openssh.com; to use one of the server's all the same: -o \
             KexAlgorithms=+NAME (127.0.0.1, port {port})"
        ),
    )
    .await;
    let options = SshOptions { kex_algorithms: list("+diffie-hellman-group14-sha1"), ..options };
    let error = refused(options.clone()).await;
    assert!(
        error.message.contains("no common cipher algorithm: haul offers aes128-gcm@openssh.com,aes256-gcm"),
        "{error}"
    );
    assert!(error.message.contains("the server aes256-cbc; to use"), "{error}");
    let options = SshOptions { ciphers: list("+aes*-cbc"), ..options };
    let error = refused(options.clone()).await;
    assert!(error.message.contains("no common MAC algorithm"), "{error}");
    assert!(error.message.contains("-o MACs=+NAME"), "{error}");
    super::works(&*connect(SshOptions { macs: list("^hmac-sha1"), ..options }).await.expect("connects"))
        .await;
}
