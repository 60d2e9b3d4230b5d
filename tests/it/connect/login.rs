//! Authentication: every way in, and what is said when there is none.

use std::sync::Arc;

use haul::remote::Connector;
use haul::remote::RemoteErrorKind;
use haul::remote::ssh::Authentication;
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

fn sign_key(authority: &std::path::Path, key: &std::path::Path, user: &str) {
    let mut public = key.as_os_str().to_os_string();
    public.push(".pub");
    let signed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-I", "tester", "-n", user, "-s"])
        .arg(authority)
        .arg(public)
        .status()
        .expect("ssh-keygen runs");
    assert!(signed.success());
}

/// A server that takes certificates only, its authority, and a directory for keys.
fn certified_only() -> (Sshd, std::path::PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("temp directory");
    let authority = directory.path().join("ca");
    generate_key(&authority, "ed25519", "");
    let sshd = Sshd::builder()
        .config(&format!("TrustedUserCAKeys {}", authority.with_extension("pub").display()))
        .start();
    std::fs::write(sshd.authorized_keys_path(), "").expect("authorized_keys");
    (sshd, authority, directory)
}

#[tokio::test]
async fn certificates_of_all_kinds_get_in() {
    let (sshd, authority, directory) = certified_only();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        for passphrase in ["", "open sesame"] {
            let key = directory.path().join(format!("{kind}{}", passphrase.len()));
            generate_key(&key, kind, passphrase);
            sign_key(&authority, &key, sshd.user());
            let prompter = Arc::new(ScriptedPrompter::new().passphrases(&["open sesame"]));
            let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
            let connector = SshConnector::new(options, prompter.clone());
            for _ in 0..2 {
                let connection = connector.connect().await;
                works(&*connection.unwrap_or_else(|error| panic!("{kind} {passphrase:?}: {error}"))).await;
            }
            assert_eq!(prompter.asked().len(), usize::from(!passphrase.is_empty()));
        }
    }
}

#[tokio::test]
async fn a_certificate_file_goes_with_a_key_of_the_agent() {
    let (sshd, authority, directory) = certified_only();
    let agent = Agent::start(sshd.directory());
    for kind in ["ed25519", "rsa"] {
        let key = directory.path().join(format!("agent-{kind}"));
        generate_key(&key, kind, "");
        // The agent learns the key before there is a certificate beside it.
        agent.add(&key);
        sign_key(&authority, &key, sshd.user());
        let certificate = directory.path().join(format!("elsewhere-{kind}.pub"));
        std::fs::rename(directory.path().join(format!("agent-{kind}-cert.pub")), &certificate)
            .expect("rename");
        for name in [String::new(), ".pub".to_string()] {
            let file = directory.path().join(format!("agent-{kind}{name}"));
            std::fs::remove_file(file).expect("remove");
        }
        let options = SshOptions {
            identity_files: vec![],
            // Its key counts as named.
            identities_only: true,
            agent_socket: Some(agent.socket()),
            certificate_files: vec![certificate],
            ..options_for(&sshd)
        };
        let connection = connect(options).await;
        works(&*connection.unwrap_or_else(|error| panic!("{kind}: {error}"))).await;
    }
}

#[tokio::test]
async fn a_certificate_that_the_agent_has_gets_in() {
    let (sshd, authority, directory) = certified_only();
    let agent = Agent::start(sshd.directory());
    let key = directory.path().join("with-certificate");
    generate_key(&key, "ecdsa", "");
    sign_key(&authority, &key, sshd.user());
    agent.add(&key);
    let options =
        SshOptions { identity_files: vec![], agent_socket: Some(agent.socket()), ..options_for(&sshd) };
    works(&*connect(options).await.expect("connects")).await;
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_named_and_the_plain_key_still_tried() {
    let (sshd, authority, directory) = certified_only();
    let key = directory.path().join("for-another");
    generate_key(&key, "ed25519", "");
    sign_key(&authority, &key, "somebody-else");
    let options = SshOptions { identity_files: vec![key.clone()], ..options_for(&sshd) };
    let error = refused(options.clone()).await;
    let shown = fingerprint(&key);
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &[&format!("tried certificate tester of key {shown}, key {shown}, ")],
    );
    std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
    works(&*connect(options).await.expect("connects")).await;
}

#[tokio::test]
async fn key_files_of_all_formats_get_in() {
    let sshd = Sshd::start();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        for format in ["RFC4716", "PEM", "PKCS8"] {
            for passphrase in ["", "open sesame"] {
                let what = format!("{kind}-{format}-{}", passphrase.len());
                let key = sshd.directory().join(&what);
                let made = std::process::Command::new("ssh-keygen")
                    .args(["-q", "-t", kind, "-m", format, "-N", passphrase, "-f"])
                    .arg(&key)
                    .status()
                    .expect("ssh-keygen runs");
                assert!(made.success());
                std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
                // Nothing but the file itself.
                std::fs::remove_file(sshd.directory().join(format!("{what}.pub"))).expect("remove");
                let prompter = Arc::new(ScriptedPrompter::new().passphrases(&["wrong", "open sesame"]));
                let options = SshOptions { identity_files: vec![key], ..options_for(&sshd) };
                if (kind, format, passphrase.is_empty()) == ("ecdsa", "PEM", false) {
                    let error = refused(options).await;
                    let advice = ["ecdsa-PEM-11: encrypted in an old way", "ssh-keygen -p -f"];
                    assert_mentions(&error, RemoteErrorKind::Authentication, &advice);
                    continue;
                }
                let connector = SshConnector::new(options, prompter.clone());
                for _ in 0..2 {
                    let connection = connector.connect().await;
                    works(&*connection.unwrap_or_else(|error| panic!("{what}: {error}"))).await;
                }
                assert_eq!(prompter.asked().len(), if passphrase.is_empty() { 0 } else { 2 }, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn methods_are_tried_in_the_order_that_was_asked_for() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::builder().config("KbdInteractiveAuthentication no").start();
    let prompter = Arc::new(ScriptedPrompter::new().passwords(&["wrong", account.password()]));
    let options = SshOptions {
        user: account.name().to_string(),
        authentications: vec![Authentication::Password, Authentication::PublicKey],
        password_prompts: 1,
        ..options_for(&sshd)
    };
    // The password comes first; after one wrong one the key gets in.
    works(&*SshConnector::new(options.clone(), prompter.clone()).connect().await.expect("connects")).await;
    assert_eq!(prompter.asked(), [Asked::Password]);
    assert!(sshd.log().contains("Accepted publickey"), "{}", sshd.log());
    works(&*SshConnector::new(options, prompter.clone()).connect().await.expect("connects")).await;
    assert!(sshd.log().contains("Accepted password"), "{}", sshd.log());
}

#[tokio::test]
async fn methods_that_are_left_out_are_not_tried_and_said() {
    let sshd = Sshd::start();
    let options =
        SshOptions { authentications: vec![Authentication::KeyboardInteractive], ..options_for(&sshd) };
    let error = refused(SshOptions { batch_mode: true, ..options }).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &["tried nothing", "publickey (switched off here)", "password (switched off here)"],
    );
    let error = refused(SshOptions { identity_files: vec![], batch_mode: true, ..options_for(&sshd) }).await;
    assert_mentions(
        &error,
        RemoteErrorKind::Authentication,
        &["tried nothing; the server would take: publickey, password (nobody may be asked)"],
    );
}

#[tokio::test]
async fn a_key_and_then_a_question_get_in_and_are_repeated() {
    let Some(account) = Account::create() else { return };
    let sshd = Sshd::builder()
        .use_pam()
        .config("AuthenticationMethods publickey,keyboard-interactive:pam")
        .config("KbdInteractiveAuthentication yes")
        .start();
    let prompter = Arc::new(ScriptedPrompter::new().answers(&[account.password()]));
    let options = SshOptions { user: account.name().to_string(), ..options_for(&sshd) };
    let connector = SshConnector::new(options, prompter.clone());
    works(&*connector.connect().await.expect("connects")).await;
    assert_eq!(connector.needs_person(), None);
    works(&*connector.connect().await.expect("connects again")).await;
    assert_eq!(prompter.asked(), [Asked::Interactive(vec!["Password: ".to_string()])]);
}

#[tokio::test]
async fn two_keys_in_a_row_get_in() {
    let sshd = Sshd::builder().config("AuthenticationMethods publickey,publickey").start();
    let second = sshd.directory().join("second");
    generate_key(&second, "ecdsa", "");
    let both = format!("{}\n{}\n", public_key(&sshd.key_path()), public_key(&second));
    std::fs::write(sshd.authorized_keys_path(), both).expect("authorized_keys");
    let options = SshOptions { identity_files: vec![sshd.key_path(), second], ..options_for(&sshd) };
    let connector = connector(options);
    works(&*connector.connect().await.expect("connects")).await;
    works(&*connector.connect().await.expect("connects again")).await;
}
