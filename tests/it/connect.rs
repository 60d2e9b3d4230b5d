//! Connecting to real SSH servers: trust, authentication, deadlines, channels.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haul::model::remote_path::RemotePath;
use haul::remote::files::OpenMode;
use haul::remote::process::{ExecRequest, ProcessControl, ProcessEvent, Terminal};
use haul::remote::ssh::{NoPrompter, SshConnector, SshOptions, StrictHostKeyChecking};
use haul::remote::{Connection, Connector, Files, Process, RemoteError, RemoteErrorKind};
use tokio::io::AsyncWriteExt;

use crate::harness::Sshd;
use crate::harness::account::Account;
use crate::harness::agent::Agent;
use crate::harness::script::{Asked, ScriptedPrompter};
use crate::harness::sshd::{generate_key, public_key};

/// For what should take no time; machines are slow and busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn options_for(sshd: &Sshd) -> SshOptions {
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

fn connector(options: SshOptions) -> SshConnector {
    SshConnector::new(options, Arc::new(NoPrompter))
}

async fn connect(options: SshOptions) -> Result<Arc<dyn Connection>, RemoteError> {
    connector(options).connect().await
}

/// The error of a connection that must not come about.
async fn refused(options: SshOptions) -> RemoteError {
    match tokio::time::timeout(PATIENCE, connect(options)).await.expect("an answer") {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

async fn exec(connection: &dyn Connection, command: &'static str) -> Process {
    connection.exec(ExecRequest { command, terminal: None }).await.expect("exec")
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exited: Option<u32>,
    signaled: Option<String>,
}

async fn output(process: &mut Process) -> Output {
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

async fn works(connection: &dyn Connection) {
    let mut process = exec(connection, "echo works").await;
    assert_eq!(output(&mut process).await.stdout, b"works\n");
}

/// sshd counts a channel for a moment longer than it is open.
async fn eventually_runs(connection: &dyn Connection) {
    tokio::time::timeout(PATIENCE, async {
        while connection.exec(ExecRequest { command: "true", terminal: None }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the channel is free again");
}

fn assert_mentions(error: &RemoteError, kind: RemoteErrorKind, words: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(error.message.contains(word), "no \"{word}\" in: {error}");
    }
    assert!(!error.message.contains('\n'), "{error}");
}

fn fingerprint(key: &Path) -> String {
    let output =
        std::process::Command::new("ssh-keygen").arg("-lf").arg(key).output().expect("ssh-keygen runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().nth(1).expect("a fingerprint").to_string()
}

// The harness itself.

#[test]
fn the_harness_serves_ssh_and_sftp() {
    let sshd = Sshd::builder().sftp_wrapper("INFO").start();
    let output = sshd.ssh().args(["127.0.0.1", "echo $SHLVL"]).output().expect("ssh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let source = sshd.directory().join("source");
    std::fs::write(&source, b"four").expect("write");
    let status = std::process::Command::new("scp")
        .args(["-q", "-F", "none", "-o", "BatchMode=yes", "-P", &sshd.port().to_string(), "-i"])
        .arg(sshd.key_path())
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", sshd.known_hosts_path().display()))
        .arg(&source)
        .arg(format!("{}@127.0.0.1:{}/", sshd.user(), sshd.scratch().display()))
        .status()
        .expect("scp runs");
    assert!(status.success());
    assert_eq!(std::fs::read(sshd.scratch().join("source")).expect("read"), b"four");
    let log = sshd.sftp_log();
    assert!(log.contains("written 4"), "{log}");
}

#[test]
fn the_harness_stops_and_starts_again() {
    let mut sshd = Sshd::builder().force_internal_sftp().start();
    let port = sshd.port();
    sshd.stop();
    assert!(std::net::TcpStream::connect(sshd.address()).is_err());
    sshd.restart();
    assert_eq!(sshd.port(), port);
    std::net::TcpStream::connect(sshd.address()).expect("listens again");
}

// Logging in.

#[tokio::test]
async fn a_key_file_gets_in_again_and_again() {
    let sshd = Sshd::start();
    let connector = connector(options_for(&sshd));
    for _ in 0..3 {
        let connection = connector.connect().await.expect("connects");
        works(&*connection).await;
        assert!(connection.server_name().contains("OpenSSH"), "{}", connection.server_name());
        connection.disconnect().await;
    }
}

#[tokio::test]
async fn keys_of_all_kinds_get_in() {
    let sshd = Sshd::start();
    for (kind, extra) in [("rsa", "-b2048"), ("ecdsa", "-b256"), ("ecdsa", "-b384"), ("ecdsa", "-b521")] {
        let key = sshd.directory().join(format!("key{extra}"));
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", kind, extra, "-N", "", "-f"])
            .arg(&key)
            .status()
            .expect("ssh-keygen runs");
        assert!(made.success());
        std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
        let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
        let connection = connect(options).await.unwrap_or_else(|error| panic!("{kind} {extra}: {error}"));
        works(&*connection).await;
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_until_right_and_only_once() {
    let sshd = Sshd::start();
    let key = sshd.directory().join("locked");
    generate_key(&key, "ed25519", "open sesame");
    std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
    // Without the public key beside it, the file itself has to say which key it is.
    std::fs::remove_file(sshd.directory().join("locked.pub")).expect("remove");
    let prompter = Arc::new(ScriptedPrompter::new().passphrases(&["wrong", "open sesame"]));
    let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
    let connector = SshConnector::new(options, prompter.clone());
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(prompter.asked(), [Asked::Passphrase, Asked::Passphrase]);
}

#[tokio::test]
async fn no_passphrase_is_asked_for_a_key_that_the_server_would_not_take() {
    let sshd = Sshd::start();
    let key = sshd.directory().join("locked");
    generate_key(&key, "ed25519", "open sesame");
    let prompter = Arc::new(ScriptedPrompter::new());
    let options = SshOptions { identity_files: vec![key, sshd.key_path()], ..options_for(&sshd) };
    let connection = SshConnector::new(options, prompter.clone()).connect().await.expect("connects");
    works(&*connection).await;
    assert_eq!(prompter.asked(), []);
}

#[tokio::test]
async fn three_wrong_passphrases_are_said() {
    let sshd = Sshd::start();
    let key = sshd.directory().join("locked");
    generate_key(&key, "ed25519", "open sesame");
    std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
    let prompter = Arc::new(ScriptedPrompter::new().passphrases(&["a", "b", "c", "open sesame"]));
    let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
    let Err(error) = SshConnector::new(options, prompter).connect().await else { panic!("connected") };
    assert_mentions(&error, RemoteErrorKind::Authentication, &["locked", "wrong passphrase"]);
}

#[tokio::test]
async fn an_agent_with_many_keys_gets_in_without_burning_tries() {
    let sshd = Sshd::builder().config("MaxAuthTries 2").start();
    let agent = Agent::start(sshd.directory());
    for index in 0..8 {
        let key = sshd.directory().join(format!("other{index}"));
        generate_key(&key, "ed25519", "");
        agent.add(&key);
    }
    agent.add(&sshd.key_path());

    // Only the public half is here: the agent has to sign.
    let named = sshd.directory().join("named");
    std::fs::copy(sshd.directory().join("client_key.pub"), sshd.directory().join("named.pub")).expect("copy");
    let options = SshOptions {
        identity_files: vec![named],
        identities_only: true,
        agent_socket: Some(agent.socket()),
        ..options_for(&sshd)
    };
    let connector = connector(options.clone());
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;

    // With no key named, the eight others come first and the server has enough.
    let error = refused(SshOptions { identity_files: vec![], identities_only: false, ..options }).await;
    assert_mentions(&error, RemoteErrorKind::Authentication, &["agent key SHA256:", "Too many"]);
}

#[tokio::test]
async fn an_agent_that_is_gone_is_named_and_files_still_work() {
    let sshd = Sshd::start();
    let socket = sshd.directory().join("nobody");
    let options = SshOptions { agent_socket: Some(socket), ..options_for(&sshd) };
    works(&*connect(options.clone()).await.expect("connects")).await;
    let error = refused(SshOptions { identity_files: vec![], ..options }).await;
    assert_mentions(&error, RemoteErrorKind::Authentication, &["agent", "nobody"]);
}

#[tokio::test]
async fn a_user_certificate_gets_in() {
    let sshd = Sshd::builder();
    let authority = tempfile::tempdir().expect("temp directory");
    let ca = authority.path().join("ca");
    generate_key(&ca, "ed25519", "");
    let sshd = sshd.config(&format!("TrustedUserCAKeys {}", ca.with_extension("pub").display())).start();
    let key = sshd.directory().join("certified");
    generate_key(&key, "ed25519", "");
    let signed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-I", "tester", "-n", sshd.user(), "-s"])
        .arg(&ca)
        .arg(key.with_extension("pub"))
        .status()
        .expect("ssh-keygen runs");
    assert!(signed.success());
    let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
    works(&*connect(options).await.expect("connects")).await;
}

#[tokio::test]
async fn a_wrong_key_lists_what_was_tried_and_what_would_do() {
    let sshd = Sshd::start();
    let key = sshd.directory().join("stranger");
    generate_key(&key, "ed25519", "");
    let missing = sshd.directory().join("missing");
    let options =
        SshOptions { identity_files: vec![key.clone(), missing], batch_mode: true, ..options_for(&sshd) };
    let error = refused(options).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &["target: ", &fingerprint(&key), "missing", "would take: ", "publickey"],
    );
}

#[tokio::test]
async fn a_password_is_asked_until_right_and_only_once() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::builder().config("KbdInteractiveAuthentication no").start();
    let prompter = Arc::new(ScriptedPrompter::new().passwords(&["wrong", account.password()]));
    let options =
        SshOptions { user: account.name().to_string(), identity_files: vec![], ..options_for(&sshd) };
    let connector = SshConnector::new(options, prompter.clone());
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(prompter.asked(), [Asked::Password, Asked::Password]);
}

#[tokio::test]
async fn keyboard_interactive_through_pam_gets_in() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::builder()
        .use_pam()
        .config("KbdInteractiveAuthentication yes")
        .config("PasswordAuthentication no")
        .start();
    let prompter = Arc::new(ScriptedPrompter::new().answers(&["wrong", account.password()]));
    let options =
        SshOptions { user: account.name().to_string(), identity_files: vec![], ..options_for(&sshd) };
    let connector = SshConnector::new(options, prompter.clone());
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(prompter.asked().len(), 2, "{:?}", prompter.asked());
}

#[tokio::test]
async fn two_factors_in_a_row_get_in() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::builder()
        .config("AuthenticationMethods publickey,password")
        .config("KbdInteractiveAuthentication no")
        .start();
    let prompter = Arc::new(ScriptedPrompter::new().passwords(&[account.password()]));
    let options = SshOptions { user: account.name().to_string(), ..options_for(&sshd) };
    let connector = SshConnector::new(options.clone(), prompter.clone());
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(prompter.asked(), [Asked::Password]);

    let error = refused(SshOptions { batch_mode: true, ..options }).await;
    assert_mentions(&error, RemoteErrorKind::Authentication, &["would take: password"]);
}

// Trust.

fn empty_known_hosts(sshd: &Sshd, checking: StrictHostKeyChecking) -> SshOptions {
    SshOptions {
        user_known_hosts: vec![sshd.home().join(".ssh/known_hosts")],
        strict_host_key_checking: checking,
        ..options_for(sshd)
    }
}

#[tokio::test]
async fn an_unknown_host_key_is_refused() {
    let sshd = Sshd::start();
    let error = refused(empty_known_hosts(&sshd, StrictHostKeyChecking::Yes)).await;
    assert_mentions(&error, RemoteErrorKind::HostKey, &[&fingerprint(&sshd.host_key_path()), "unknown"]);
    // Nothing but the key exchange took place.
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[tokio::test]
async fn accept_new_writes_what_ssh_trusts() {
    use std::os::unix::fs::PermissionsExt;
    let sshd = Sshd::start();
    for hashed in [false, true] {
        let options = SshOptions {
            hash_known_hosts: hashed,
            ..empty_known_hosts(&sshd, StrictHostKeyChecking::AcceptNew)
        };
        let file = options.user_known_hosts[0].clone();
        let _ = std::fs::remove_file(&file);
        works(&*connect(options.clone()).await.expect("connects")).await;
        let text = std::fs::read_to_string(&file).expect("known_hosts");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.starts_with("|1|"), hashed, "{text}");
        let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().expect("parent")), 0o700);
        // A second run finds it, and so does ssh.
        let strict = SshOptions { strict_host_key_checking: StrictHostKeyChecking::Yes, ..options };
        works(&*connect(strict).await.expect("connects again")).await;
        let judged = sshd
            .ssh_with_known_hosts(&file)
            .args(["-o", "StrictHostKeyChecking=yes", "127.0.0.1", "true"])
            .output();
        assert!(judged.expect("ssh runs").status.success());
        let found = std::process::Command::new("ssh-keygen")
            .args(["-F", &format!("[127.0.0.1]:{}", sshd.port()), "-f"])
            .arg(&file)
            .output()
            .expect("ssh-keygen runs");
        assert!(found.status.success(), "{text}");
    }
}

#[tokio::test]
async fn a_person_decides_on_an_unknown_key() {
    let sshd = Sshd::start();
    let options = empty_known_hosts(&sshd, StrictHostKeyChecking::Ask);

    let no = Arc::new(ScriptedPrompter::new().host_key(false));
    let Err(error) = SshConnector::new(options.clone(), no.clone()).connect().await else {
        panic!("connected")
    };
    assert_mentions(&error, RemoteErrorKind::HostKey, &["nobody accepted"]);
    assert_eq!(no.asked(), [Asked::HostKey(fingerprint(&sshd.host_key_path()))]);
    assert!(!options.user_known_hosts[0].exists());

    let batch = SshOptions { batch_mode: true, ..options.clone() };
    let yes = Arc::new(ScriptedPrompter::new().host_key(true));
    assert!(SshConnector::new(batch, yes.clone()).connect().await.is_err());
    assert_eq!(yes.asked(), []);

    let connector = SshConnector::new(options.clone(), yes.clone());
    works(&*connector.connect().await.expect("connects")).await;
    // The file is gone, but the first connection's key still holds for this run.
    std::fs::remove_file(&options.user_known_hosts[0]).expect("remove");
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(yes.asked().len(), 1);
}

#[tokio::test]
async fn a_person_may_take_longer_than_the_deadline() {
    let sshd = Sshd::start();
    let options = SshOptions {
        connect_timeout: Duration::from_secs(2),
        ..empty_known_hosts(&sshd, StrictHostKeyChecking::Ask)
    };
    let slow = Arc::new(ScriptedPrompter::new().host_key(true).thinks(Duration::from_secs(4)));
    works(&*SshConnector::new(options, slow).connect().await.expect("connects")).await;
}

#[tokio::test]
async fn a_changed_host_key_is_refused_always() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_host_key");
    generate_key(&other, "ed25519", "");
    let file = sshd.known_hosts_path();
    let line = format!("# comment\n[127.0.0.1]:{} {}\n", sshd.port(), public_key(&other));
    std::fs::write(&file, line).expect("write");
    for checking in [StrictHostKeyChecking::Yes, StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask]
    {
        let prompter = Arc::new(ScriptedPrompter::new().host_key(true));
        let options = SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) };
        let Err(error) = SshConnector::new(options, prompter.clone()).connect().await else {
            panic!("connected")
        };
        let place = format!("{}:2", file.display());
        assert_mentions(
            &error,
            RemoteErrorKind::HostKey,
            &["changed", &fingerprint(&other), &fingerprint(&sshd.host_key_path()), &place],
        );
        assert_eq!(prompter.asked(), []);
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_not_accepted_as_new() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_host_key");
    generate_key(&other, "ecdsa", "");
    let line = format!("[127.0.0.1]:{} {}\n", sshd.port(), public_key(&other));
    std::fs::write(sshd.known_hosts_path(), line).expect("write");
    for checking in [StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask] {
        let prompter = Arc::new(ScriptedPrompter::new().host_key(true));
        let options = SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) };
        let Err(error) = SshConnector::new(options, prompter.clone()).connect().await else {
            panic!("connected")
        };
        assert_mentions(&error, RemoteErrorKind::HostKey, &["ecdsa-sha2-nistp256", &fingerprint(&other)]);
        assert_eq!(prompter.asked(), []);
    }
}

#[tokio::test]
async fn a_revoked_host_key_is_refused_always() {
    let sshd = Sshd::start();
    let line = format!("@revoked * {}\n", sshd.host_key());
    let mut text = std::fs::read_to_string(sshd.known_hosts_path()).expect("read");
    text.push_str(&line);
    std::fs::write(sshd.known_hosts_path(), text).expect("write");
    for checking in [StrictHostKeyChecking::Yes, StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Ask]
    {
        let error = refused(SshOptions { strict_host_key_checking: checking, ..options_for(&sshd) }).await;
        assert_mentions(&error, RemoteErrorKind::HostKey, &["revoked", "known_hosts:2"]);
    }
}

#[tokio::test]
async fn another_host_key_in_the_middle_of_a_run_is_refused() {
    let mut sshd = Sshd::start();
    let connector = connector(options_for(&sshd));
    connector.connect().await.expect("connects").disconnect().await;
    std::fs::remove_file(sshd.host_key_path()).expect("remove");
    generate_key(&sshd.host_key_path(), "ed25519", "");
    sshd.restart();
    let Err(error) = connector.connect().await else { panic!("connected") };
    assert_mentions(&error, RemoteErrorKind::HostKey, &["first", "now", &fingerprint(&sshd.host_key_path())]);
}

// Failing to connect.

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

// Commands.

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
    let mut process = exec(&*connection, "exec sleep 1000").await;
    process.control.send(ProcessControl::Signal("TERM".to_string())).await.expect("send");
    let output = output(&mut process).await;
    assert_eq!(output.signaled.as_deref(), Some("TERM"));
    assert_eq!(output.exited, None);
}

#[tokio::test]
async fn a_terminal_has_the_size_that_was_asked_for() {
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

// Losing the link.

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

// Files.

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
