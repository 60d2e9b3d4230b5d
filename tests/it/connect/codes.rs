//! What a person has to be there for: codes that are good once, and touches.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use haul::remote::ssh::{SshConnector, SshOptions, StrictHostKeyChecking, Via};
use haul::remote::{Connector, RemoteErrorKind};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, Response, Session};
use russh::{Channel, MethodKind, MethodSet};
use tokio::net::TcpListener;

use crate::harness::Sshd;
use crate::harness::script::{Asked, ScriptedPrompter};
use crate::harness::token::Token;

use super::{assert_mentions, options_for, works};

/// A server that asks `question` and takes each answer but once. It forwards, and does
/// nothing else.
#[derive(Clone)]
struct CodeServer {
    question: &'static str,
    used: Arc<Mutex<HashSet<Vec<u8>>>>,
    attempts: Arc<Mutex<usize>>,
}

impl CodeServer {
    async fn start(question: &'static str) -> (CodeServer, u16) {
        let server = CodeServer { question, used: Arc::default(), attempts: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let key = PrivateKey::random(&mut rand(), Algorithm::Ed25519).expect("a key");
        let config = Arc::new(russh::server::Config {
            keys: vec![key],
            methods: MethodSet::from(&[MethodKind::KeyboardInteractive][..]),
            auth_rejection_time: std::time::Duration::ZERO,
            ..russh::server::Config::default()
        });
        let handler = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, handler) = (config.clone(), handler.clone());
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, handler).await {
                        let _ = session.await;
                    }
                });
            }
        });
        (server, port)
    }

    fn attempts(&self) -> usize {
        *self.attempts.lock().expect("lock")
    }
}

impl russh::server::Handler for CodeServer {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Owned(vec![(Cow::Borrowed(self.question), false)]),
            });
        };
        *self.attempts.lock().expect("lock") += 1;
        let answer = response.next().map(|answer| answer.to_vec()).unwrap_or_default();
        let fresh = answer.starts_with(b"1234") && self.used.lock().expect("lock").insert(answer);
        Ok(if fresh { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let mut stream = tokio::net::TcpStream::connect((host, u16::try_from(port).expect("a port")))
            .await
            .expect("connect");
        reply.accept().await;
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream).await;
        });
        Ok(())
    }
}

fn rand() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

fn options(port: u16, directory: &std::path::Path) -> SshOptions {
    SshOptions {
        host: "vault".to_string(),
        address: "127.0.0.1".to_string(),
        port,
        user: "carol".to_string(),
        user_known_hosts: vec![directory.join("known_hosts")],
        strict_host_key_checking: StrictHostKeyChecking::AcceptNew,
        ..SshOptions::default()
    }
}

#[tokio::test]
async fn a_code_means_one_connection_and_is_never_shown_twice() {
    let directory = tempfile::tempdir().expect("temp directory");
    let (server, port) = CodeServer::start("Verification code: ").await;
    let prompter = Arc::new(ScriptedPrompter::new().answers(&["999", "123456", "1234567"]));
    let connector = SshConnector::new(options(port, directory.path()), prompter.clone());
    assert_eq!(connector.needs_person(), None, "nothing is known before the first login");
    let first = connector.connect().await.expect("connects");
    assert_eq!(connector.needs_person().as_deref(), Some("the server asked for more than a password"));
    for _ in 0..2 {
        let Err(error) = connector.connect().await else { panic!("connected again") };
        assert_mentions(
            &error,
            RemoteErrorKind::NeedsPerson,
            &["vault: no further connection without asking a person again"],
        );
    }
    assert_eq!(server.attempts(), 2, "a wrong one and the right one");
    assert_eq!(prompter.asked().len(), 2, "{:?}", prompter.asked());
    drop(first);
}

#[tokio::test]
async fn an_answer_that_reads_like_a_password_and_is_none_is_shown_once_more_at_most() {
    let directory = tempfile::tempdir().expect("temp directory");
    let (server, port) = CodeServer::start("Password: ").await;
    let prompter = Arc::new(ScriptedPrompter::new().answers(&["123456", "1234567"]));
    let connector = SshConnector::new(options(port, directory.path()), prompter.clone());
    let _first = connector.connect().await.expect("connects");
    assert_eq!(connector.needs_person(), None);
    // All at once, as an upload asks for them.
    let (one, two, three) = tokio::join!(connector.connect(), connector.connect(), connector.connect());
    for result in [one, two, three] {
        let Err(error) = result else { panic!("connected again") };
        assert_mentions(&error, RemoteErrorKind::NeedsPerson, &["does not take the same answers twice"]);
    }
    assert!(connector.needs_person().is_some());
    assert_eq!(server.attempts(), 2);
    assert_eq!(prompter.asked(), [Asked::Interactive(vec!["Password: ".to_string()])]);
}

#[tokio::test]
async fn a_hop_that_wants_a_code_carries_many_connections() {
    let target = Sshd::start();
    let (server, port) = CodeServer::start("Enter the code of your token: ").await;
    let prompter = Arc::new(ScriptedPrompter::new().answers(&["123456"]));
    let hop = options(port, target.directory());
    let options = SshOptions { via: Via::Jump(Arc::new(hop)), ..options_for(&target) };
    let connector = SshConnector::new(options, prompter.clone());
    let (first, second) = tokio::join!(connector.connect(), connector.connect());
    let (first, second) = (first.expect("connects"), second.expect("connects again"));
    works(&*first).await;
    drop(first);
    works(&*second).await;
    works(&*connector.connect().await.expect("connects a third time")).await;
    assert_eq!(connector.needs_person(), None, "the hop's connection serves all");
    assert_eq!((server.attempts(), prompter.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_security_key_gets_in_through_the_agent_and_its_touch_is_asked_for_once() {
    let sshd = Sshd::start();
    let token = Token::start(sshd.directory());
    std::fs::write(sshd.authorized_keys_path(), token.public_key()).expect("authorized_keys");
    let options =
        SshOptions { identity_files: vec![], agent_socket: Some(token.socket()), ..options_for(&sshd) };
    let connector = SshConnector::new(options, Arc::new(ScriptedPrompter::new()));
    works(&*connector.connect().await.expect("connects")).await;
    assert_eq!(connector.needs_person().as_deref(), Some("the security key wants a touch"));
    let Err(error) = connector.connect().await else { panic!("connected again") };
    assert_mentions(&error, RemoteErrorKind::NeedsPerson, &["touch"]);
    assert_eq!(token.touches(), 1);
}
