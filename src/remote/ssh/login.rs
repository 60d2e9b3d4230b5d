//! Authentication: what is tried, in which order, and what the first connection learns
//! so that later ones need no person.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::MethodKind;
use russh::client::{AuthResult, Handle};

use super::handler::ClientHandler;
use super::interactive::{self, Exchange};
use super::keys::{self, NoKey};
use super::link::Link;
use super::offers::{self, Offer};
use super::options::SshOptions;
use super::prompter::Prompter;
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

use russh::keys::ssh_key::Certificate;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// How often a person may mistype a password, as ssh has it.
pub const PASSWORD_TRIES: usize = 3;
/// A server that wants more factors than this in a row is not served.
const MAX_FACTORS: usize = 5;
/// How long an agent may take to sign: it may ask for a touch.
const AGENT_SIGN_LIMIT: Duration = Duration::from_secs(120);
/// Why answers are not shown once more.
pub const ONCE_ONLY: &str = "the server does not take the same answers twice";
/// How long the end of a connection may take to be known once it shows.
const ENDING_LIMIT: Duration = Duration::from_secs(2);

/// One thing that got us in, or one step further. Secrets in it are zeroed when dropped.
pub enum Credential {
    /// The server asks for nothing.
    Nothing,
    AgentKey(PublicKey),
    AgentCertificate(Box<Certificate>),
    Key {
        key: Arc<PrivateKey>,
        certificate: Option<Box<Certificate>>,
    },
    Password(Zeroizing<String>),
    Answers(Vec<Exchange>),
}

/// What the server said to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    In,
    /// Right, and another factor is wanted.
    Further,
    Refused,
}

pub struct Login<'a> {
    pub handle: &'a mut Handle<ClientHandler>,
    pub options: &'a SshOptions,
    pub link: &'a Link,
    pub prompter: &'a Arc<dyn Prompter>,
    /// What the server would take now, by its last answer.
    methods: Vec<MethodKind>,
    /// For the error message.
    tried: Vec<String>,
    /// Of the server's `server-sig-algs`; asked for once.
    rsa_hash: Option<RsaHash>,
}

#[derive(Clone, Copy)]
enum RsaHash {
    Use(HashAlg),
    OnlySha1,
}

impl<'a> Login<'a> {
    pub fn new(
        handle: &'a mut Handle<ClientHandler>,
        options: &'a SshOptions,
        link: &'a Link,
        prompter: &'a Arc<dyn Prompter>,
    ) -> Login<'a> {
        Login { handle, options, link, prompter, methods: Vec::new(), tried: Vec::new(), rsa_hash: None }
    }

    /// Finds a way in; may ask a person. Gives what has to be shown again, in order.
    pub async fn first(&mut self) -> Result<Vec<Credential>, RemoteError> {
        match self.attempt(&Credential::Nothing).await? {
            Outcome::In => return Ok(vec![Credential::Nothing]),
            Outcome::Further | Outcome::Refused => {}
        }
        let (offers, notes) = offers::gather(self.options).await;
        self.tried.extend(notes);
        let mut offers = VecDeque::from(offers);
        let mut learnt = Vec::new();
        for _ in 0..MAX_FACTORS {
            let Some((credential, outcome)) = self.next_factor(&mut offers).await? else {
                return Err(self.refused());
            };
            learnt.push(credential);
            if outcome == Outcome::In {
                return Ok(learnt);
            }
        }
        Err(self.refused())
    }

    /// Shows again what got the first connection in. Asks nobody.
    pub async fn again(&mut self, credentials: &[Credential]) -> Result<(), RemoteError> {
        for credential in credentials {
            match self.attempt(credential).await? {
                Outcome::In => return Ok(()),
                Outcome::Further => {}
                Outcome::Refused if matches!(credential, Credential::Answers(_)) => {
                    return Err(RemoteError::new(
                        RemoteErrorKind::NeedsPerson,
                        format!(
                            "{}: no further connection without asking a person again: {ONCE_ONLY}",
                            self.options.host
                        ),
                    ));
                }
                Outcome::Refused => return Err(self.refused()),
            }
        }
        Err(self.refused())
    }

    async fn next_factor(
        &mut self,
        offers: &mut VecDeque<Offer>,
    ) -> Result<Option<(Credential, Outcome)>, RemoteError> {
        while self.takes(MethodKind::PublicKey) {
            let Some(offer) = offers.pop_front() else { break };
            let Some(credential) = self.prepare(offer).await? else { continue };
            match self.attempt(&credential).await? {
                Outcome::Refused => {}
                outcome => return Ok(Some((credential, outcome))),
            }
        }
        if self.takes(MethodKind::KeyboardInteractive) && self.can_answer() {
            for _ in 0..PASSWORD_TRIES {
                self.tried.push("keyboard-interactive".to_string());
                let (outcome, exchanges, given_up) = self.ask_and_answer().await?;
                if outcome != Outcome::Refused {
                    return Ok(Some((Credential::Answers(exchanges), outcome)));
                }
                if given_up || exchanges.is_empty() || !self.takes(MethodKind::KeyboardInteractive) {
                    break;
                }
            }
        }
        if self.takes(MethodKind::Password) && self.can_answer() {
            for _ in 0..PASSWORD_TRIES {
                let Some(password) = self.password().await else { break };
                let given = self.options.password.is_some();
                let credential = Credential::Password(password);
                match self.attempt(&credential).await? {
                    Outcome::Refused if given || !self.takes(MethodKind::Password) => break,
                    Outcome::Refused => {}
                    outcome => return Ok(Some((credential, outcome))),
                }
            }
        }
        Ok(None)
    }

    /// Makes an offer ready to be shown; asks for a passphrase only when the server would
    /// take the key. `None` for an offer that leads nowhere.
    async fn prepare(&mut self, offer: Offer) -> Result<Option<Credential>, RemoteError> {
        let file = match offer {
            Offer::AgentKey(key) => return Ok(Some(Credential::AgentKey(key))),
            Offer::AgentCertificate(certificate) => {
                return Ok(Some(Credential::AgentCertificate(certificate)));
            }
            Offer::File(file) => file,
        };
        let name = format!("key {}", keys::show(&file.path));
        if file.is_encrypted() {
            if let Some(public) = &file.public
                && !self.would_take(public).await?
            {
                self.tried.push(name);
                return Ok(None);
            }
            if self.options.batch_mode {
                self.tried.push(format!("{name} (encrypted, and nobody may be asked)"));
                return Ok(None);
            }
        }
        let certificate = file.certificate.clone().map(Box::new);
        let prompter = self.prompter.clone();
        match tokio::task::spawn_blocking(move || file.unlock(&*prompter)).await {
            Ok(Ok(key)) => Ok(Some(Credential::Key { key, certificate })),
            Ok(Err(why)) => {
                let why = match why {
                    NoKey::NotGiven => "encrypted, no passphrase given".to_string(),
                    NoKey::WrongPassphrase => "wrong passphrase".to_string(),
                    NoKey::Elsewhere => "public key only, and no agent has it".to_string(),
                    NoKey::Unreadable(message) => message,
                };
                self.tried.push(format!("{name} ({why})"));
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    pub async fn attempt(&mut self, credential: &Credential) -> Result<Outcome, RemoteError> {
        let user = self.options.user.clone();
        let limit = self.options.login_timeout;
        let link = self.link;
        let result = match credential {
            Credential::Nothing => link.within(limit, self.handle.authenticate_none(user)).await,
            Credential::Password(password) => {
                self.tried.push("password".to_string());
                // russh zeroes its copy.
                let password = String::clone(password);
                link.within(limit, self.handle.authenticate_password(user, password)).await
            }
            Credential::Answers(exchanges) => return self.answer_again(exchanges).await,
            Credential::Key { key, certificate } => {
                self.tried.push(format!("key {}", fingerprint(key.public_key())));
                if let Some(certificate) = certificate
                    && !key.algorithm().is_rsa()
                {
                    let shown = self.handle.authenticate_openssh_cert(
                        user.clone(),
                        key.clone(),
                        *certificate.clone(),
                    );
                    let shown = link.within(limit, shown).await;
                    match self.settle(shown).await? {
                        Outcome::Refused => {}
                        outcome => return Ok(outcome),
                    }
                }
                let Some(hash) = self.hash_for(key.public_key()).await? else { return Ok(Outcome::Refused) };
                let key = russh::keys::PrivateKeyWithHashAlg::new(key.clone(), hash);
                link.within(limit, self.handle.authenticate_publickey(user, key)).await
            }
            Credential::AgentKey(key) => {
                self.tried.push(format!("agent key {}", fingerprint(key)));
                let Some(hash) = self.hash_for(key).await? else { return Ok(Outcome::Refused) };
                let Some(mut agent) = self.agent().await else { return Ok(Outcome::Refused) };
                let shown = self.handle.authenticate_publickey_with(user, key.clone(), hash, &mut agent);
                let result = link.within(limit.max(AGENT_SIGN_LIMIT), shown).await;
                return self.settle_agent(result).await;
            }
            Credential::AgentCertificate(certificate) => {
                self.tried.push(format!("agent certificate {}", printable(certificate.key_id().as_bytes())));
                let public = PublicKey::from(certificate.public_key().clone());
                let Some(hash) = self.hash_for(&public).await? else { return Ok(Outcome::Refused) };
                let Some(mut agent) = self.agent().await else { return Ok(Outcome::Refused) };
                let shown =
                    self.handle.authenticate_certificate_with(user, *certificate.clone(), hash, &mut agent);
                let result = link.within(limit.max(AGENT_SIGN_LIMIT), shown).await;
                return self.settle_agent(result).await;
            }
        };
        self.settle(result).await
    }

    /// Whether the server would take a key, without signing anything.
    async fn would_take(&mut self, key: &PublicKey) -> Result<bool, RemoteError> {
        let Some(hash) = self.hash_for(key).await? else { return Ok(false) };
        let mut probe = offers::Probe::default();
        let shown =
            self.handle.authenticate_publickey_with(self.options.user.clone(), key.clone(), hash, &mut probe);
        let result = self.link.within(self.options.login_timeout, shown).await;
        if probe.wanted {
            return Ok(true);
        }
        let result = result.map(|result| result.map_err(|_| russh::Error::SendError));
        Ok(self.settle(result).await? != Outcome::Refused)
    }

    async fn settle_agent(
        &mut self,
        result: Option<Result<AuthResult, russh::AgentAuthError>>,
    ) -> Result<Outcome, RemoteError> {
        match result {
            Some(Err(error)) if self.link.ending().is_none() => {
                if let Some(last) = self.tried.last_mut() {
                    last.push_str(&format!(" (not signed: {})", printable(error.to_string().as_bytes())));
                }
                Ok(Outcome::Refused)
            }
            Some(Err(_)) => Err(self.cut_off().await),
            Some(Ok(result)) => self.settle(Some(Ok(result))).await,
            None => self.settle(None).await,
        }
    }

    /// Takes the server's answer, or what came in place of one.
    pub async fn settle(
        &mut self,
        result: Option<Result<AuthResult, russh::Error>>,
    ) -> Result<Outcome, RemoteError> {
        match result {
            Some(Ok(AuthResult::Success)) => Ok(Outcome::In),
            Some(Ok(AuthResult::Failure { remaining_methods, partial_success })) => {
                // russh says "no method left" also when the connection is gone.
                if remaining_methods.is_empty() {
                    return Err(self.cut_off().await);
                }
                self.methods = remaining_methods.to_vec();
                Ok(if partial_success { Outcome::Further } else { Outcome::Refused })
            }
            Some(Err(_)) => Err(self.cut_off().await),
            None => Err(self.too_slow()),
        }
    }

    pub fn too_slow(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Unreachable,
            format!(
                "{}: no answer within {:.1} s at login (tried: {})",
                self.options.host,
                self.options.login_timeout.as_secs_f32(),
                self.tried()
            ),
        )
    }

    /// The connection ended while logging in.
    pub async fn cut_off(&self) -> RemoteError {
        let ending = tokio::time::timeout(ENDING_LIMIT, self.link.ended()).await.ok();
        let (kind, reason) = match ending {
            // A server that says goodbye at this stage means our attempts.
            Some(ending) if ending.by_message => (RemoteErrorKind::Authentication, ending.reason),
            Some(ending) => (RemoteErrorKind::Unreachable, ending.reason),
            None => (RemoteErrorKind::Authentication, "the server takes no method at all".to_string()),
        };
        RemoteError::new(
            kind,
            format!(
                "{}: login as {} failed: {reason} (tried: {})",
                self.options.host,
                printable(self.options.user.as_bytes()),
                self.tried()
            ),
        )
    }

    fn refused(&self) -> RemoteError {
        let methods: Vec<&str> = self.methods.iter().map(<&str>::from).collect();
        RemoteError::new(
            RemoteErrorKind::Authentication,
            format!(
                "{}: no way in as {}: tried {}; the server would take: {}",
                self.options.host,
                printable(self.options.user.as_bytes()),
                self.tried(),
                methods.join(", ")
            ),
        )
    }

    fn tried(&self) -> String {
        if self.tried.is_empty() { "nothing".to_string() } else { self.tried.join(", ") }
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.methods.contains(&method)
    }

    fn can_answer(&self) -> bool {
        self.options.password.is_some() || !self.options.batch_mode
    }

    async fn password(&self) -> Option<Zeroizing<String>> {
        if let Some(password) = &self.options.password {
            return Some(Zeroizing::new(password.reveal().to_string()));
        }
        let (host, user) = (self.options.host.clone(), self.options.user.clone());
        let prompter = self.prompter.clone();
        tokio::task::spawn_blocking(move || prompter.password(&host, &user)).await.ok()?
    }

    async fn agent(&mut self) -> Option<offers::Agent> {
        let socket: &Path = self.options.agent_socket.as_deref()?;
        match offers::connect_agent(socket).await {
            Ok(agent) => Some(agent),
            Err(error) => {
                self.tried.push(error);
                None
            }
        }
    }

    /// The hash to sign with: `Some(None)` for keys that have but one. `None` where only
    /// SHA-1 would do, which haul does not sign with.
    async fn hash_for(&mut self, key: &PublicKey) -> Result<Option<Option<HashAlg>>, RemoteError> {
        if !key.algorithm().is_rsa() {
            return Ok(Some(None));
        }
        if self.rsa_hash.is_none() {
            let asked =
                self.link.within(self.options.login_timeout, self.handle.best_supported_rsa_hash()).await;
            self.rsa_hash = Some(match asked {
                Some(Ok(Some(Some(hash)))) => RsaHash::Use(hash),
                Some(Ok(Some(None))) => RsaHash::OnlySha1,
                // The server does not say; all that know SHA-2 know this one.
                Some(Ok(None)) => RsaHash::Use(HashAlg::Sha512),
                Some(Err(_)) => return Err(self.cut_off().await),
                None => return Err(self.too_slow()),
            });
        }
        Ok(match self.rsa_hash {
            Some(RsaHash::Use(hash)) => Some(Some(hash)),
            _ => {
                self.tried.push("an RSA key (the server takes SHA-1 signatures only)".to_string());
                None
            }
        })
    }
}

/// Why showing the same again would take a person.
pub fn needs_person(credentials: &[Credential], options: &SshOptions) -> Option<&'static str> {
    credentials.iter().find_map(|credential| match credential {
        Credential::AgentKey(key) if offers::needs_touch(key) => Some("the security key wants a touch"),
        Credential::Answers(exchanges) if !interactive::repeatable(exchanges, options) => {
            Some("the server asked for more than a password")
        }
        _ => None,
    })
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
