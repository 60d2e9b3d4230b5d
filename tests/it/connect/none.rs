//! "none", with which ssh begins, and the key that is shown in its place.

use std::sync::Arc;
use std::sync::Mutex;

use haul::remote::ssh::{Authentication, SshOptions, StrictHostKeyChecking};
use russh::MethodSet;
use russh::server::{Auth, Config, Handler};
use tokio::net::TcpListener;

use crate::harness::Sshd;
use crate::harness::sshd::generate_key;

use super::{connect, options_for, works};

/// How often the server was shown it.
fn none_count(sshd: &Sshd) -> usize {
    sshd.log().matches("service ssh-connection method none").count()
}

#[tokio::test]
async fn a_named_key_is_shown_at_once() {
    let sshd = Sshd::builder().log_level("DEBUG1").start();
    let named = SshOptions { identity_files_named: true, ..options_for(&sshd) };
    works(&*connect(named.clone()).await.expect("connects")).await;
    assert_eq!(none_count(&sshd), 0, "{}", sshd.log());

    // As ssh does it.
    let password_first = SshOptions {
        authentications: vec![Authentication::Password, Authentication::PublicKey],
        batch_mode: true,
        ..named.clone()
    };
    for options in [options_for(&sshd), password_first] {
        let before = none_count(&sshd);
        works(&*connect(options).await.expect("connects")).await;
        assert_eq!(none_count(&sshd), before + 1);
    }

    // One that is refused leaves the way to the next.
    let other = sshd.directory().join("other");
    generate_key(&other, "ed25519", "");
    let before = none_count(&sshd);
    let two = SshOptions { identity_files: vec![other, sshd.key_path()], ..named };
    works(&*connect(two).await.expect("connects")).await;
    assert_eq!(none_count(&sshd), before);
}

/// Lets everybody in who asks for it, and takes nothing else.
struct Open {
    /// Says of other methods what may be tried.
    names_methods: bool,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Open {
    fn note(&self, method: &'static str) {
        self.asked.lock().expect("a list").push(method);
    }

    fn reject(&self) -> Auth {
        let methods = if self.names_methods { MethodSet::server_supported() } else { MethodSet::empty() };
        Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
    }
}

impl Handler for Open {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, russh::Error> {
        self.note("none");
        Ok(Auth::Accept)
    }

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.note("key");
        Ok(self.reject())
    }
}

/// What the server was asked by a client that names a key.
async fn asked_of_an_open_server(names_methods: bool) -> Vec<&'static str> {
    let directory = tempfile::tempdir().expect("temp directory");
    let key = directory.path().join("key");
    generate_key(&key, "ed25519", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let host_key =
        russh::keys::PrivateKey::random(&mut russh::keys::key::safe_rng(), russh::keys::Algorithm::Ed25519);
    let config = Arc::new(Config {
        keys: vec![host_key.expect("a key")],
        auth_rejection_time: std::time::Duration::ZERO,
        ..Config::default()
    });
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = Open { names_methods, asked: noted.clone() };
            let session = russh::server::run_stream(config.clone(), stream, handler).await;
            tokio::spawn(session.expect("a session"));
        }
    });
    let options = SshOptions {
        host: "open".to_string(),
        address: "127.0.0.1".to_string(),
        port,
        user: "carol".to_string(),
        identity_files: vec![key],
        identity_files_named: true,
        batch_mode: true,
        user_known_hosts: vec![directory.path().join("known_hosts")],
        strict_host_key_checking: StrictHostKeyChecking::AcceptNew,
        ..SshOptions::default()
    };
    connect(options).await.expect("connects").disconnect().await;
    asked.lock().expect("a list").clone()
}

#[tokio::test]
async fn a_server_that_asks_for_nothing_lets_in_all_the_same() {
    assert_eq!(asked_of_an_open_server(true).await, ["key", "none"]);
    assert_eq!(asked_of_an_open_server(false).await, ["key", "none"]);
}
