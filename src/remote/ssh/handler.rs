//! What russh calls back: the host key check, and how the connection ended.

use std::sync::Arc;

use russh::client::{DisconnectReason, Handler, Session};
use russh::keys::PublicKeyBase64;
use russh::{ChannelId, ChannelOpenFailure};

use super::host_key::{self, HostTrust};
use super::known_hosts::HostKey;
use super::link::{Ending, Link};
use super::prompter::Prompter;
use crate::model::escape::printable;
use crate::remote::error::RemoteError;

/// Longest part of a server's banner that is shown.
const MAX_BANNER_BYTES: usize = 4096;

#[derive(Debug)]
pub enum HandlerError {
    Russh(russh::Error),
    /// The host key was refused.
    Refused(RemoteError),
}

impl From<russh::Error> for HandlerError {
    fn from(error: russh::Error) -> HandlerError {
        HandlerError::Russh(error)
    }
}

/// How a host key is judged.
pub enum KeyCheck {
    /// By the files and, where they say so, by a person; the key is handed on.
    First { trust: HostTrust, accepted: Arc<std::sync::Mutex<Option<HostKey>>> },
    /// It has to be the key that the first connection saw, with whatever certificate.
    Same(HostKey),
}

pub struct ClientHandler {
    pub host: String,
    pub link: Arc<Link>,
    pub check: KeyCheck,
    pub prompter: Arc<dyn Prompter>,
    pub show_banner: bool,
}

impl Handler for ClientHandler {
    type Error = HandlerError;

    async fn check_server_key(
        &mut self,
        server_key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, HandlerError> {
        let Some(key) = HostKey::from_blob(server_key.public_key().public_key_bytes()) else {
            return Err(HandlerError::Russh(russh::Error::CouldNotReadKey));
        };
        match &self.check {
            KeyCheck::Same(first) if *first == key => Ok(true),
            KeyCheck::Same(first) => {
                Err(HandlerError::Refused(host_key::not_the_same_key(&self.host, first, &key)))
            }
            KeyCheck::First { trust, accepted } => {
                let (trust, prompter, checked) = (trust.clone(), self.prompter.clone(), key.clone());
                let certificate = server_key.certificate().cloned();
                self.link.set_asking(true);
                let check = move || trust.check(&checked, certificate.as_ref(), &*prompter);
                let verdict = tokio::task::spawn_blocking(check).await;
                self.link.set_asking(false);
                match verdict {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(HandlerError::Refused(error)),
                    Err(_) => return Err(HandlerError::Russh(russh::Error::UnknownKey)),
                }
                if let Ok(mut accepted) = accepted.lock() {
                    *accepted = Some(key);
                }
                Ok(true)
            }
        }
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        _names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), HandlerError> {
        self.link.set_server_name(printable(session.remote_sshid()));
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), HandlerError> {
        if self.show_banner {
            let shown = &banner.as_bytes()[..banner.len().min(MAX_BANNER_BYTES)];
            for line in shown.split(|byte| *byte == b'\n') {
                let line = line.trim_ascii_end();
                if !line.is_empty() {
                    self.prompter.tell(&format!("{}: {}", self.host, printable(line)));
                }
            }
        }
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _channel: ChannelId,
        _reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        self.link.set_refusal(printable(description.as_bytes()));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<HandlerError>) -> Result<(), HandlerError> {
        self.link.end(match reason {
            DisconnectReason::ReceivedDisconnect(info) => Ending {
                reason: format!("the server closed the connection: {}", printable(info.message.as_bytes())),
                by_message: true,
            },
            DisconnectReason::Error(error) => Ending { reason: describe(&error), by_message: false },
        });
        Ok(())
    }
}

impl Drop for ClientHandler {
    /// russh's task is over, whichever way: nobody may wait for it any longer.
    fn drop(&mut self) {
        self.link.end(Ending { reason: "the connection was closed".to_string(), by_message: false });
    }
}

/// An error of russh in words.
pub fn describe(error: &HandlerError) -> String {
    let error = match error {
        HandlerError::Refused(error) => return error.message.clone(),
        HandlerError::Russh(error) => error,
    };
    match error {
        russh::Error::HUP | russh::Error::Disconnect => "the server closed the connection".to_string(),
        russh::Error::KeepaliveTimeout => "the server gave no sign of life".to_string(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_string()
        }
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let kind = match kind {
                russh::AlgorithmKind::Kex => "key exchange",
                russh::AlgorithmKind::Key => "host key",
                russh::AlgorithmKind::Cipher => "cipher",
                russh::AlgorithmKind::Compression => "compression",
                russh::AlgorithmKind::Mac => "MAC",
            };
            // Announcements stand in the list of key exchanges and are none.
            let is_algorithm =
                |name: &&String| !name.starts_with("kex-strict-") && !name.starts_with("ext-info-");
            let theirs: Vec<&str> = theirs.iter().filter(is_algorithm).map(String::as_str).collect();
            format!(
                "no common {kind} algorithm: haul offers {}, the server {}",
                ours.join(","),
                printable(theirs.join(",").as_bytes())
            )
        }
        other => printable(other.to_string().as_bytes()),
    }
}
