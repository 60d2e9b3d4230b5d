//! Authentication: what is tried, in which order, and what the first connection learns
//! so that later ones need no person.

use std::collections::VecDeque;
use std::sync::Arc;

use russh::MethodKind;
use russh::client::Handle;

use super::handler::ClientHandler;
use super::interactive::{self, Exchange};
use super::keys::{self, NoKey};
use super::link::Link;
use super::offers::{self, Offer};
use super::options::{Authentication, SshOptions};
use super::prompter::Prompter;
use crate::remote::error::{RemoteError, RemoteErrorKind};

use russh::keys::ssh_key::Certificate;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// A server that wants more factors than this in a row is not served.
const MAX_FACTORS: usize = 5;
/// Why answers are not shown once more.
pub const ONCE_ONLY: &str = "the server does not take the same answers twice";

/// One thing that got us in, or one step further. Secrets in it are zeroed when dropped.
pub enum Credential {
    /// The server asks for nothing.
    Nothing,
    Key(Key),
    Password(Zeroizing<String>),
    Answers(Vec<Exchange>),
}

pub struct Key {
    pub public: PublicKey,
    pub certificate: Option<Box<Certificate>>,
    /// The agent signs where this is none.
    pub private: Option<Arc<PrivateKey>>,
}

/// What the server said to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    In,
    /// Right, and another factor is wanted.
    Further,
    Refused,
}

/// What got further, and how far.
type Factor = (Credential, Outcome);

pub struct Login<'a> {
    pub handle: &'a mut Handle<ClientHandler>,
    pub options: &'a SshOptions,
    pub link: &'a Link,
    pub prompter: &'a Arc<dyn Prompter>,
    /// What the server would take now, by its last answer.
    pub methods: Vec<MethodKind>,
    /// For the error message.
    pub tried: Vec<String>,
    /// "none" was shown, with which ssh begins: it tells what the server takes, and gets in
    /// where nothing is asked for.
    began_with_none: bool,
    /// Some answer named no method at all, or none came any more.
    pub no_method_left: bool,
    /// A person was asked for something.
    asked_person: bool,
    /// Of the server's `server-sig-algs`; asked for once.
    pub rsa_hash: Option<RsaHash>,
}

#[derive(Clone, Copy)]
pub enum RsaHash {
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
        Login {
            handle,
            options,
            link,
            prompter,
            methods: Vec::new(),
            tried: Vec::new(),
            began_with_none: false,
            no_method_left: false,
            asked_person: false,
            rsa_hash: None,
        }
    }

    /// Finds a way in; may ask a person. Gives what has to be shown again, in order. With
    /// `key_first` a key that was named is shown at once, which saves a round trip.
    pub async fn first(&mut self, key_first: bool) -> Result<Vec<Credential>, RemoteError> {
        let mut offers = VecDeque::new();
        let by_keys = self.options.authentications.first() == Some(&Authentication::PublicKey);
        if !(key_first && by_keys && self.options.identity_files_named) {
            if self.begin_with_none().await? == Outcome::In {
                return Ok(vec![Credential::Nothing]);
            }
            self.gather(&mut offers).await;
        } else {
            self.gather(&mut offers).await;
            let suits =
                |offer: &Offer| offer.in_files && offer.file.as_ref().is_none_or(|file| !file.is_encrypted());
            if offers.front().is_some_and(suits) {
                self.methods = vec![MethodKind::PublicKey];
            } else if self.begin_with_none().await? == Outcome::In {
                return Ok(vec![Credential::Nothing]);
            }
        }
        let mut learnt = Vec::new();
        for _ in 0..MAX_FACTORS {
            let Some((credential, outcome)) = self.next_factor(&mut offers).await? else {
                let nothing_else = learnt.is_empty() && !self.began_with_none && !self.asked_person;
                if nothing_else && self.begin_with_none().await? == Outcome::In {
                    return Ok(vec![Credential::Nothing]);
                }
                return Err(self.refused());
            };
            learnt.push(credential);
            if outcome == Outcome::In {
                return Ok(learnt);
            }
        }
        Err(self.refused())
    }

    /// Whether a named key was shown in place of "none", and the server had no answer to it
    /// from which to go on.
    pub fn found_no_method(&self) -> bool {
        !self.began_with_none && self.no_method_left
    }

    async fn begin_with_none(&mut self) -> Result<Outcome, RemoteError> {
        self.began_with_none = true;
        self.attempt(&Credential::Nothing).await
    }

    async fn gather(&mut self, offers: &mut VecDeque<Offer>) {
        if self.options.authentications.contains(&Authentication::PublicKey) {
            let (found, notes) = offers::gather(self.options).await;
            self.tried.extend(notes);
            offers.extend(found);
        }
    }

    /// Shows again what got the first connection in. Asks nobody.
    pub async fn again(&mut self, credentials: &[Credential]) -> Result<(), RemoteError> {
        for credential in credentials {
            match self.attempt(credential).await? {
                Outcome::In => return Ok(()),
                Outcome::Further => {}
                Outcome::Refused if matches!(credential, Credential::Answers(_)) => {
                    return Err(only_one(&self.options.host, ONCE_ONLY));
                }
                Outcome::Refused => return Err(self.refused()),
            }
        }
        Err(self.refused())
    }

    /// The first of the methods, in the order that was asked for, that gets further.
    async fn next_factor(&mut self, offers: &mut VecDeque<Offer>) -> Result<Option<Factor>, RemoteError> {
        for method in &self.options.authentications {
            let factor = match method {
                Authentication::PublicKey => self.by_keys(offers).await?,
                Authentication::KeyboardInteractive => self.by_answers().await?,
                Authentication::Password => self.by_password().await?,
            };
            if factor.is_some() {
                return Ok(factor);
            }
        }
        Ok(None)
    }

    async fn by_keys(&mut self, offers: &mut VecDeque<Offer>) -> Result<Option<Factor>, RemoteError> {
        while self.takes(Authentication::PublicKey) {
            let Some(offer) = offers.pop_front() else { break };
            let Some(credential) = self.prepare(offer).await? else { continue };
            match self.attempt(&credential).await? {
                Outcome::Refused => {}
                outcome => return Ok(Some((credential, outcome))),
            }
        }
        Ok(None)
    }

    async fn by_answers(&mut self) -> Result<Option<Factor>, RemoteError> {
        for _ in 0..self.options.password_prompts {
            if !self.takes(Authentication::KeyboardInteractive) || !self.can_answer() {
                break;
            }
            self.tried.push("keyboard-interactive".to_string());
            self.asked_person |= self.options.password.is_none();
            let (outcome, exchanges, given_up) = self.ask_and_answer().await?;
            if outcome != Outcome::Refused {
                return Ok(Some((Credential::Answers(exchanges), outcome)));
            }
            // What is known beforehand does not get better by showing it again.
            if given_up || exchanges.is_empty() || self.options.password.is_some() {
                break;
            }
        }
        Ok(None)
    }

    async fn by_password(&mut self) -> Result<Option<Factor>, RemoteError> {
        for _ in 0..self.options.password_prompts {
            if !self.takes(Authentication::Password) || !self.can_answer() {
                break;
            }
            let Some(password) = self.password().await else { break };
            let credential = Credential::Password(password);
            match self.attempt(&credential).await? {
                Outcome::Refused if self.options.password.is_some() => break,
                Outcome::Refused => {}
                outcome => return Ok(Some((credential, outcome))),
            }
        }
        Ok(None)
    }

    /// Makes an offer ready to be shown; asks for a passphrase only when the server would
    /// take the key. `None` for an offer that leads nowhere.
    async fn prepare(&mut self, offer: Offer) -> Result<Option<Credential>, RemoteError> {
        let Offer { key, certificate, file, .. } = offer;
        let Some(file) = file else {
            let key = key.map(|public| Key { public, certificate, private: None });
            return Ok(key.map(Credential::Key));
        };
        let name = format!("key {}", keys::show(&file.path));
        if file.is_encrypted() {
            if let Some(public) = &key
                && !self.would_take(public, certificate.as_deref()).await?
            {
                self.tried.push(name);
                return Ok(None);
            }
            if self.options.batch_mode {
                self.tried.push(format!("{name} (encrypted, and nobody may be asked)"));
                return Ok(None);
            }
        }
        self.asked_person |= file.is_encrypted();
        let prompter = self.prompter.clone();
        match tokio::task::spawn_blocking(move || file.unlock(&*prompter)).await {
            Ok(Ok(private)) => {
                let public = private.public_key().clone();
                Ok(Some(Credential::Key(Key { public, certificate, private: Some(private) })))
            }
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

    fn takes(&self, method: Authentication) -> bool {
        self.methods.contains(&kind(method))
    }

    pub fn can_answer(&self) -> bool {
        self.options.password.is_some() || !self.options.batch_mode
    }

    async fn password(&mut self) -> Option<Zeroizing<String>> {
        if let Some(password) = &self.options.password {
            return Some(Zeroizing::new(password.reveal().to_string()));
        }
        self.asked_person = true;
        let (host, user) = (self.options.host.clone(), self.options.user.clone());
        let prompter = self.prompter.clone();
        tokio::task::spawn_blocking(move || prompter.password(&host, &user)).await.ok()?
    }
}

pub fn kind(method: Authentication) -> MethodKind {
    match method {
        Authentication::PublicKey => MethodKind::PublicKey,
        Authentication::KeyboardInteractive => MethodKind::KeyboardInteractive,
        Authentication::Password => MethodKind::Password,
    }
}

pub fn only_one(host: &str, why: &str) -> RemoteError {
    RemoteError::new(
        RemoteErrorKind::NeedsPerson,
        format!("{host}: no further connection without asking a person again: {why}"),
    )
}

/// Why showing the same again would take a person.
pub fn needs_person(credentials: &[Credential], options: &SshOptions) -> Option<&'static str> {
    credentials.iter().find_map(|credential| match credential {
        Credential::Key(key) if offers::needs_touch(&key.public) => Some("the security key wants a touch"),
        Credential::Answers(exchanges) if !interactive::repeatable(exchanges, options) => {
            Some("the server asked for more than a password")
        }
        _ => None,
    })
}
