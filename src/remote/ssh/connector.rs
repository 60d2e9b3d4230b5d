//! Makes connections to one host: the first may ask a person, the others repeat.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use russh::Limits;
use russh::client::{self, Config};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::algorithms::{self, Known};
use super::connection::{Shared, SshConnection};
use super::handler::{self, ClientHandler, HandlerError, KeyCheck};
use super::hop::Hops;
use super::host_key::HostTrust;
use super::known_hosts::HostKey;
use super::link::{Link, LinkStream};
use super::login::{self, Credential, Login};
use super::options::{RekeyLimit, SshOptions};
use super::prompter::Prompter;
use super::way::Way;
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::{Connection, Connector};

/// What the server may send on a channel before we say go on. Reading back a file fills
/// it; a long link wants it larger than OpenSSH's own 2 MiB.
const RECEIVE_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What OpenSSH uses and every server takes.
const MAX_PACKET_BYTES: u32 = 32 * 1024;
/// Packets of a channel that wait for their reader before the whole connection waits.
const CHANNEL_QUEUE_PACKETS: usize = 64;
/// More often nothing else would be sent.
const MIN_REKEY_BYTES: usize = 64 * 1024;
const MIN_REKEY_TIME: Duration = Duration::from_secs(1);
/// How long the cause of a failed handshake may take to be known.
const ENDING_LIMIT: Duration = Duration::from_secs(3);

/// Knows one host. Shared by all who need it.
pub struct SshConnector {
    options: Arc<SshOptions>,
    prompter: Arc<dyn Prompter>,
    way: Way,
    /// Why the login cannot be repeated without a person.
    needs_person: OnceLock<&'static str>,
    /// Whether a login by answers was repeated once. Held while that is tried: what turns out
    /// to be good only once is not shown by several at the same time.
    answers_repeat: tokio::sync::Mutex<bool>,
    /// Held while the first connection is made, so that a person is asked once.
    learnt: tokio::sync::Mutex<Option<Arc<Learnt>>>,
}

/// What later connections repeat. Secrets in it are zeroed when dropped.
struct Learnt {
    host_key: HostKey,
    /// Certificates were asked for; a server may have nothing else.
    certificates: bool,
    credentials: Vec<Credential>,
}

impl SshConnector {
    pub fn new(options: SshOptions, prompter: Arc<dyn Prompter>) -> SshConnector {
        SshConnector::through(options, prompter, &Hops::default())
    }

    /// Shares its jump hosts with others that have the same `hops`. Their questions are put
    /// by the prompter of whoever comes first.
    pub fn through(options: SshOptions, prompter: Arc<dyn Prompter>, hops: &Hops) -> SshConnector {
        let way = Way::new(&options.via, &prompter, hops);
        SshConnector {
            options: Arc::new(options),
            prompter,
            way,
            needs_person: OnceLock::new(),
            answers_repeat: tokio::sync::Mutex::new(false),
            learnt: tokio::sync::Mutex::new(None),
        }
    }

    /// As [`Connector::connect`], for whoever wants other channels than those.
    pub async fn open(&self) -> Result<Arc<Shared>, RemoteError> {
        Ok(self.connection().await?.shared())
    }

    async fn connection(&self) -> Result<SshConnection, RemoteError> {
        self.check_names()?;
        let learnt = {
            let mut slot = self.learnt.lock().await;
            match &*slot {
                Some(learnt) => learnt.clone(),
                None => {
                    let (connection, learnt) = self.first().await?;
                    if let Some(why) = login::needs_person(&learnt.credentials, &self.options) {
                        // Nobody else can have set it: the lock is held.
                        let _ = self.needs_person.set(why);
                    }
                    *slot = Some(Arc::new(learnt));
                    return Ok(connection);
                }
            }
        };
        if !learnt.credentials.iter().any(|credential| matches!(credential, Credential::Answers(_))) {
            return self.repeat(&learnt).await;
        }
        let mut repeats = self.answers_repeat.lock().await;
        if *repeats {
            drop(repeats);
            return self.repeat(&learnt).await;
        }
        let another = self.repeat(&learnt).await;
        *repeats = another.is_ok();
        another
    }

    async fn repeat(&self, learnt: &Learnt) -> Result<SshConnection, RemoteError> {
        if let Some(why) = self.needs_person.get() {
            return Err(login::only_one(&self.options.host, why));
        }
        let another = self.another(learnt).await;
        if another.as_ref().is_err_and(|error| error.kind == RemoteErrorKind::NeedsPerson) {
            // Whoever comes second has found the same.
            let _ = self.needs_person.set(login::ONCE_ONLY);
        }
        another
    }

    async fn first(&self) -> Result<(SshConnection, Learnt), RemoteError> {
        let options = self.options.clone();
        let trust = tokio::task::spawn_blocking(move || HostTrust::read(&options)).await;
        let trust = trust.map_err(|_| self.error(RemoteErrorKind::HostKey, "cannot read known_hosts"))??;
        let known = trust.known();
        let accepted = Arc::new(Mutex::new(None));
        let check = KeyCheck::First { trust, accepted: accepted.clone() };
        let mut half = self.shake_hands(&known, check).await?;
        let host_key = accepted.lock().ok().and_then(|mut accepted| accepted.take());
        let Some(host_key) = host_key else {
            return Err(self.error(RemoteErrorKind::HostKey, "the server showed no host key"));
        };
        let mut login = Login::new(&mut half.handle, &self.options, &half.link, &self.prompter);
        let credentials = match login.first(true).await {
            Ok(credentials) => credentials,
            // A server that takes "none" alone may have no answer to anything else.
            Err(error)
                if login.found_no_method() && !half.link.ending().is_some_and(|ending| ending.by_message) =>
            {
                half = self.shake_hands(&known, KeyCheck::Same(host_key.clone())).await?;
                let mut login = Login::new(&mut half.handle, &self.options, &half.link, &self.prompter);
                login.first(false).await.map_err(|_| error)?
            }
            Err(error) => return Err(error),
        };
        Ok((self.finish(half), Learnt { host_key, certificates: known.certificates, credentials }))
    }

    async fn another(&self, learnt: &Learnt) -> Result<SshConnection, RemoteError> {
        let types = vec![learnt.host_key.key_type().to_string()];
        let known = Known { types, certificates: learnt.certificates };
        let mut half = self.shake_hands(&known, KeyCheck::Same(learnt.host_key.clone())).await?;
        Login::new(&mut half.handle, &self.options, &half.link, &self.prompter)
            .again(&learnt.credentials)
            .await?;
        Ok(self.finish(half))
    }

    /// Connects, agrees on keys, and checks the host's. Nothing secret was sent yet.
    async fn shake_hands(&self, known: &Known, check: KeyCheck) -> Result<Half, RemoteError> {
        let options = &self.options;
        let offer = algorithms::offer(options, known)?;
        if !offer.unknown.is_empty() && matches!(check, KeyCheck::First { .. }) {
            let unknown = offer.unknown.join(", ");
            self.prompter.detail(&format!("{}: haul does not have: {unknown}", options.host));
        }
        let config = Config {
            preferred: offer.preferred,
            limits: limits(options.rekey_limit),
            window_size: RECEIVE_WINDOW_BYTES,
            maximum_packet_size: MAX_PACKET_BYTES,
            channel_buffer_size: CHANNEL_QUEUE_PACKETS,
            keepalive_interval: Some(options.keepalive_interval),
            keepalive_max: options.keepalive_count,
            // `LinkStream` watches better: a slow link that moves is no dead one.
            inactivity_timeout: None,
            nodelay: true,
            ..Config::default()
        };
        let (stream, below) = self.way.stream(options, &self.prompter).await?;
        let link = Arc::new(Link::new(below));
        let (keep, abandoned) = oneshot::channel();
        let stream = LinkStream::new(stream, link.clone(), abandoned, options.stall_timeout);
        let handler = ClientHandler {
            host: options.host.clone(),
            link: link.clone(),
            show_banner: matches!(check, KeyCheck::First { .. }),
            check,
            prompter: self.prompter.clone(),
        };
        let shaken = client::connect_stream(Arc::new(config), stream, handler);
        match link.within(options.connect_timeout, shaken).await {
            Some(Ok(handle)) => Ok(Half { handle, link, keep }),
            Some(Err(HandlerError::Refused(error))) => Err(error),
            Some(Err(error)) => Err(self.handshake_error(&link, &error, &offer.unknown).await),
            // Dropping `keep` ends russh's task.
            None => Err(self.handshake_timeout(&link)),
        }
    }

    fn finish(&self, half: Half) -> SshConnection {
        SshConnection::new(self.options.clone(), half.handle, half.link, half.keep)
    }

    async fn handshake_error(&self, link: &Link, error: &HandlerError, unknown: &[String]) -> RemoteError {
        use russh::Error::{Disconnect, HUP, IO};
        let reason = match error {
            // russh only sees that its stream failed or ended.
            HandlerError::Russh(IO(_) | HUP | Disconnect) => {
                let ending = timeout(ENDING_LIMIT, link.ended()).await.ok();
                let is_cause = matches!(error, HandlerError::Russh(IO(_))) || link.ended_below();
                match ending {
                    Some(ending) if is_cause || ending.by_message => ending.reason,
                    _ => handler::describe(error),
                }
            }
            _ => handler::describe(error),
        };
        let stage = if link.has_greeted() { "in the key exchange" } else { "before the server's greeting" };
        let said = link.said_first();
        if !link.has_greeted() && !said.is_empty() {
            let what = format!("no SSH greeting came, but: {said}");
            return self.error(RemoteErrorKind::Unreachable, &what);
        }
        let advice = match error {
            HandlerError::Russh(russh::Error::NoCommonAlgo { kind, .. }) => {
                let kind_in_words = algorithms::in_words(kind);
                let of_kind = |name: &String| Some(name.strip_prefix(kind_in_words)?.trim().to_string());
                let missing: Vec<String> = unknown.iter().filter_map(of_kind).collect();
                let missing = match missing.join(",") {
                    none if none.is_empty() => none,
                    names => format!("; haul does not have {names}"),
                };
                let keyword = algorithms::keyword(kind);
                format!("{missing}; to use one of the server's all the same: -o {keyword}=+NAME")
            }
            HandlerError::Russh(russh::Error::Version) => "; is that an SSH server?".to_string(),
            _ => String::new(),
        };
        self.error(RemoteErrorKind::Unreachable, &format!("{stage}: {reason}{advice}"))
    }

    fn handshake_timeout(&self, link: &Link) -> RemoteError {
        let limit = self.options.connect_timeout.as_secs_f32();
        let stage = if link.has_greeted() {
            format!("the key exchange was not done within {limit:.1} s")
        } else {
            format!("connected, but no SSH greeting (banner) came within {limit:.1} s")
        };
        self.error(RemoteErrorKind::Unreachable, &stage)
    }

    fn error(&self, kind: RemoteErrorKind, what: &str) -> RemoteError {
        RemoteError::new(
            kind,
            format!(
                "{}: {what} ({}, port {})",
                printable(self.options.host.as_bytes()),
                printable(self.options.address.as_bytes()),
                self.options.port
            ),
        )
    }

    /// Names go into files and messages: what could break out of them is no name.
    fn check_names(&self) -> Result<(), RemoteError> {
        let unfit =
            |text: &str| text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control());
        let alias = self.options.host_key_alias.as_deref();
        if unfit(&self.options.address) || unfit(&self.options.user) || alias.is_some_and(unfit) {
            return Err(RemoteError::new(
                RemoteErrorKind::BadRequest,
                format!(
                    "{}: not a host's or a user's name: '{}', '{}'",
                    printable(self.options.host.as_bytes()),
                    printable(self.options.address.as_bytes()),
                    printable(self.options.user.as_bytes())
                ),
            ));
        }
        Ok(())
    }
}

/// Both directions count on their own.
fn limits(rekey: Option<RekeyLimit>) -> Limits {
    let default = Limits::default();
    let Some(rekey) = rekey else { return default };
    // russh takes no more than its default, which is what SSH's own standard advises.
    let bytes = rekey.bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = |limit: usize| bytes.map_or(limit, |bytes| bytes.clamp(MIN_REKEY_BYTES, limit));
    Limits::new(
        bytes(default.rekey_write_limit),
        bytes(default.rekey_read_limit),
        rekey
            .time
            .map_or(default.rekey_time_limit, |time| time.clamp(MIN_REKEY_TIME, default.rekey_time_limit)),
    )
}

/// A connection that is not authenticated yet. Dropping it ends it.
struct Half {
    handle: client::Handle<ClientHandler>,
    link: Arc<Link>,
    keep: oneshot::Sender<()>,
}

#[async_trait]
impl Connector for SshConnector {
    fn host(&self) -> &str {
        &self.options.host
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError> {
        Ok(Arc::new(self.connection().await?))
    }

    fn needs_person(&self) -> Option<String> {
        self.needs_person.get().map(|why| (*why).to_string())
    }
}
