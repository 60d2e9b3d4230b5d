//! The keys there are to offer: of the agent and of files, in ssh's order, each once.

use std::path::Path;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::keys::{self, KeyFile};
use super::options::SshOptions;
use crate::model::escape::printable;

/// How long an agent may take to say which keys it has.
const AGENT_ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// No server lets so many be tried.
const MAX_OFFERS: usize = 100;

pub type Agent = AgentClient<UnixStream>;

pub enum Offer {
    AgentKey(PublicKey),
    AgentCertificate(Box<Certificate>),
    File(Box<KeyFile>),
}

/// Everything that may be offered, and notes on what could not be had.
///
/// Keys of the agent that a file names come first, then the agent's others (unless only
/// named ones are wanted), then the files whose key no agent has.
pub async fn gather(options: &SshOptions) -> (Vec<Offer>, Vec<String>) {
    let mut notes = Vec::new();
    let paths = options.identity_files.clone();
    let read = tokio::task::spawn_blocking(move || {
        paths.iter().map(|path| (path.clone(), KeyFile::read(path))).collect::<Vec<_>>()
    });
    let mut files = Vec::new();
    for (path, file) in read.await.unwrap_or_default() {
        match file {
            Ok(Some(file)) => files.push(file),
            Ok(None) => notes.push(format!("key {} (no such file)", keys::show(&path))),
            Err(error) => notes.push(error),
        }
    }

    let identities = match &options.agent_socket {
        Some(socket) => agent_identities(socket).await.unwrap_or_else(|error| {
            notes.push(error);
            Vec::new()
        }),
        None => Vec::new(),
    };
    (arrange(identities, files, options.identities_only), notes)
}

fn arrange(identities: Vec<AgentIdentity>, files: Vec<KeyFile>, identities_only: bool) -> Vec<Offer> {
    let place_among_files = |identity: &AgentIdentity| {
        let key = identity_key(identity);
        files.iter().position(|file| file.public.as_ref().is_some_and(|public| same(public, &key)))
    };
    let mut named: Vec<(usize, AgentIdentity)> = Vec::new();
    let mut others = Vec::new();
    for identity in identities {
        match place_among_files(&identity) {
            Some(place) => named.push((place, identity)),
            None if !identities_only => others.push(identity),
            None => {}
        }
    }
    named.sort_by_key(|(place, _)| *place);
    let agent_has: Vec<usize> = named.iter().map(|(place, _)| *place).collect();

    let mut offers: Vec<Offer> =
        named.into_iter().map(|(_, identity)| identity).chain(others).map(agent_offer).collect();
    for (place, file) in files.into_iter().enumerate() {
        // A certificate beside the file is something that the agent may not have.
        let new = !agent_has.contains(&place) || file.certificate.is_some();
        if new && file.has_private_half() {
            offers.push(Offer::File(Box::new(file)));
        }
    }
    offers.truncate(MAX_OFFERS);
    offers
}

fn agent_offer(identity: AgentIdentity) -> Offer {
    match identity {
        AgentIdentity::PublicKey { key, .. } => Offer::AgentKey(key),
        AgentIdentity::Certificate { certificate, .. } => Offer::AgentCertificate(Box::new(certificate)),
    }
}

fn identity_key(identity: &AgentIdentity) -> PublicKey {
    match identity {
        AgentIdentity::PublicKey { key, .. } => key.clone(),
        AgentIdentity::Certificate { certificate, .. } => PublicKey::from(certificate.public_key().clone()),
    }
}

fn same(one: &PublicKey, other: &PublicKey) -> bool {
    one.key_data() == other.key_data()
}

/// Whether signing takes a person's touch.
pub fn needs_touch(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

pub async fn connect_agent(socket: &Path) -> Result<Agent, String> {
    match timeout(AGENT_ANSWER_LIMIT, AgentClient::connect_uds(socket)).await {
        Ok(Ok(agent)) => Ok(agent),
        Ok(Err(error)) => Err(agent_error(socket, &error.to_string())),
        Err(_) => Err(agent_error(socket, "no answer")),
    }
}

async fn agent_identities(socket: &Path) -> Result<Vec<AgentIdentity>, String> {
    let mut agent = connect_agent(socket).await?;
    match timeout(AGENT_ANSWER_LIMIT, agent.request_identities()).await {
        Ok(Ok(identities)) => Ok(identities),
        Ok(Err(error)) => Err(agent_error(socket, &error.to_string())),
        Err(_) => Err(agent_error(socket, "no answer")),
    }
}

fn agent_error(socket: &Path, why: &str) -> String {
    format!("agent {} ({})", keys::show(socket), printable(why.as_bytes()))
}

/// Signs nothing; only notes that a signature was wanted, which the server says of keys
/// that it would take.
#[derive(Default)]
pub struct Probe {
    pub wanted: bool,
}

/// The probe got its answer.
#[derive(Debug)]
pub struct Stopped;

impl From<russh::SendError> for Stopped {
    fn from(_: russh::SendError) -> Stopped {
        Stopped
    }
}

impl russh::Signer for Probe {
    type Error = Stopped;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        _data: Vec<u8>,
    ) -> Result<Vec<u8>, Stopped> {
        self.wanted = true;
        Err(Stopped)
    }
}
