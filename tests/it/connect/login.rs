//! Authentication: every way in, and what is said when there is none.

use std::sync::Arc;

use haul::remote::Connector;
use haul::remote::RemoteErrorKind;
use haul::remote::ssh::SshConnector;
use haul::remote::ssh::SshOptions;

use crate::harness::Sshd;
use crate::harness::account::Account;
use crate::harness::agent::Agent;
use crate::harness::script::Asked;
use crate::harness::script::ScriptedPrompter;
use crate::harness::sshd::generate_key;
use crate::harness::sshd::public_key;

use super::{assert_mentions, connect, connector, fingerprint, options_for, refused, works};

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
