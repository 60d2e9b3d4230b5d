//! One attempt at a login, and what the server says to it.

use std::path::Path;
use std::time::Duration;

use russh::client::AuthResult;
use russh::keys::ssh_key::Certificate;
use russh::keys::{HashAlg, PublicKey};

use super::login::{Credential, Key, Login, Outcome, RsaHash};
use super::offers;
use super::signer::{KeySigner, NotSigned};
use crate::model::escape::printable;
use crate::remote::error::RemoteError;

/// How long an agent may take to sign: it may ask for a touch.
const AGENT_SIGN_LIMIT: Duration = Duration::from_secs(120);

impl Login<'_> {
    pub async fn attempt(&mut self, credential: &Credential) -> Result<Outcome, RemoteError> {
        let user = self.options.user.clone();
        let (limit, link) = (self.options.login_timeout, self.link);
        let result = match credential {
            Credential::Nothing => link.within(limit, self.handle.authenticate_none(user)).await,
            Credential::Password(password) => {
                self.tried.push("password".to_string());
                // russh zeroes its copy.
                let password = String::clone(password);
                link.within(limit, self.handle.authenticate_password(user, password)).await
            }
            Credential::Answers(exchanges) => return self.answer_again(exchanges).await,
            Credential::Key(key) => return self.attempt_key(key).await,
        };
        self.settle(result).await
    }

    async fn attempt_key(&mut self, key: &Key) -> Result<Outcome, RemoteError> {
        let by = if key.private.is_some() { "key" } else { "agent key" };
        self.tried.push(match &key.certificate {
            None => format!("{by} {}", fingerprint(&key.public)),
            Some(certificate) => format!(
                "certificate {} of {by} {}",
                printable(certificate.key_id().as_bytes()),
                fingerprint(&key.public)
            ),
        });
        let Some(hash) = self.hash_for(&key.public).await? else { return Ok(Outcome::Refused) };
        let mut limit = self.options.login_timeout;
        let mut signer = match &key.private {
            Some(private) => KeySigner::Key(private.clone()),
            None => {
                limit = limit.max(AGENT_SIGN_LIMIT);
                let Some(agent) = self.agent().await else { return Ok(Outcome::Refused) };
                KeySigner::Agent(Box::new(agent))
            }
        };
        let result = self.show(&key.public, key.certificate.as_deref(), hash, &mut signer, limit).await;
        self.settle_signed(result).await
    }

    /// Whether the server would take a key, without signing anything.
    pub async fn would_take(
        &mut self,
        key: &PublicKey,
        certificate: Option<&Certificate>,
    ) -> Result<bool, RemoteError> {
        let Some(hash) = self.hash_for(key).await? else { return Ok(false) };
        let mut probe = KeySigner::Probe { wanted: false };
        let limit = self.options.login_timeout;
        let result = self.show(key, certificate, hash, &mut probe, limit).await;
        if matches!(probe, KeySigner::Probe { wanted: true }) {
            return Ok(true);
        }
        let result = result.map(|result| result.map_err(|_| russh::Error::SendError));
        Ok(self.settle(result).await? != Outcome::Refused)
    }

    /// Shows a key or a certificate; `signer` is called when the server would take it.
    async fn show(
        &mut self,
        key: &PublicKey,
        certificate: Option<&Certificate>,
        hash: Option<HashAlg>,
        signer: &mut KeySigner,
        limit: Duration,
    ) -> Option<Result<AuthResult, NotSigned>> {
        let user = self.options.user.clone();
        match certificate {
            Some(certificate) => {
                let shown =
                    self.handle.authenticate_certificate_with(user, certificate.clone(), hash, signer);
                self.link.within(limit, shown).await
            }
            None => {
                let shown = self.handle.authenticate_publickey_with(user, key.clone(), hash, signer);
                self.link.within(limit, shown).await
            }
        }
    }

    async fn settle_signed(
        &mut self,
        result: Option<Result<AuthResult, NotSigned>>,
    ) -> Result<Outcome, RemoteError> {
        match result {
            Some(Err(NotSigned(why))) if self.link.ending().is_none() => {
                if let Some(last) = self.tried.last_mut() {
                    last.push_str(&format!(" (not signed: {why})"));
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
                    self.no_method_left = true;
                    return Err(self.cut_off().await);
                }
                self.methods = remaining_methods.to_vec();
                Ok(if partial_success { Outcome::Further } else { Outcome::Refused })
            }
            Some(Err(_)) => Err(self.cut_off().await),
            None => Err(self.too_slow()),
        }
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

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
