//! The keys there are to offer: of the agent and of files, each with its certificates, in
//! ssh's order, each once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, PublicKey};
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

/// One thing to show to a server.
#[derive(Clone)]
pub struct Offer {
    /// Unknown only where a file hides it behind a passphrase.
    pub key: Option<PublicKey>,
    pub certificate: Option<Box<Certificate>>,
    /// The file that signs; the agent where there is none.
    pub file: Option<Arc<KeyFile>>,
    /// One of the identity files is of this key.
    pub in_files: bool,
}

/// What there is before it is put in order.
#[derive(Default)]
struct Found {
    identities: Vec<AgentIdentity>,
    files: Vec<Arc<KeyFile>>,
    certificates: Vec<Certificate>,
}

/// Everything that may be offered, and notes on what could not be had.
///
/// Keys of the agent that a file names come first, then the agent's others (unless only
/// named ones are wanted), then the files whose key no agent has.
pub async fn gather(options: &SshOptions) -> (Vec<Offer>, Vec<String>) {
    let mut notes = Vec::new();
    let mut found = Found::default();
    let (files, certificates) = (options.identity_files.clone(), options.certificate_files.clone());
    let read = tokio::task::spawn_blocking(move || {
        // As ssh has it: certificates that are named stand in for those beside the keys.
        let beside = certificates.is_empty();
        let files: Vec<_> = files.into_iter().map(|path| (KeyFile::read(&path, beside), path)).collect();
        let certificates: Vec<_> =
            certificates.into_iter().map(|path| (keys::read_certificate(&path), path)).collect();
        (files, certificates)
    });
    let (files, certificates) = read.await.unwrap_or_default();
    for (file, path) in files {
        match file {
            Ok(Some(file)) => found.files.push(Arc::new(file)),
            Ok(None) => notes.push(format!("key {} (no such file)", keys::show(&path))),
            Err(error) => notes.push(error),
        }
    }
    for (certificate, path) in certificates {
        match certificate {
            Ok(Some(certificate)) => found.certificates.push(certificate),
            Ok(None) => notes.push(format!("certificate {} (no such file)", keys::show(&path))),
            Err(error) => notes.push(error),
        }
    }
    if let Some(socket) = &options.agent_socket {
        match agent_identities(socket).await {
            Ok(identities) => found.identities = identities,
            Err(error) => notes.push(error),
        }
    }
    (arrange(&found, options.identities_only), notes)
}

fn arrange(found: &Found, identities_only: bool) -> Vec<Offer> {
    let mut named: Vec<PublicKey> = found.files.iter().filter_map(|file| file.public.clone()).collect();
    named.extend(found.certificates.iter().map(certified_key));
    let mut of_agent: Vec<PublicKey> = Vec::new();
    for key in found.identities.iter().map(identity_key) {
        let wanted = !identities_only || position(&named, &key).is_some();
        if wanted && position(&of_agent, &key).is_none() {
            of_agent.push(key);
        }
    }
    // A stable sort: what is not named stays in the agent's order behind the rest.
    of_agent.sort_by_key(|key| position(&named, key).unwrap_or(usize::MAX));

    let mut offers = Vec::new();
    for key in &of_agent {
        let file =
            found.files.iter().find(|file| file.public.as_ref().is_some_and(|public| same(public, key)));
        let beside = file.and_then(|file| file.certificate.as_ref());
        add(&mut offers, found, Some(key), beside, None, file.is_some());
    }
    for file in &found.files {
        let agent_has = file.public.as_ref().is_some_and(|public| position(&of_agent, public).is_some());
        if !agent_has && file.has_private_half() {
            add(&mut offers, found, file.public.as_ref(), file.certificate.as_ref(), Some(file), true);
        }
    }
    offers.truncate(MAX_OFFERS);
    offers
}

/// A key with its certificates before it: whoever has one means it to be used.
fn add(
    offers: &mut Vec<Offer>,
    found: &Found,
    key: Option<&PublicKey>,
    beside: Option<&Certificate>,
    file: Option<&Arc<KeyFile>>,
    in_files: bool,
) {
    let of_agent = found.identities.iter().filter_map(|identity| match identity {
        AgentIdentity::Certificate { certificate, .. } => Some(certificate),
        AgentIdentity::PublicKey { .. } => None,
    });
    let mut certificates: Vec<&Certificate> = Vec::new();
    for certificate in found.certificates.iter().chain(beside).chain(of_agent) {
        let fits = key.is_some_and(|key| same(&certified_key(certificate), key));
        if fits && !certificates.contains(&certificate) {
            certificates.push(certificate);
        }
    }
    let offer = |certificate| Offer { key: key.cloned(), certificate, file: file.cloned(), in_files };
    offers.extend(certificates.into_iter().map(|certificate| offer(Some(Box::new(certificate.clone())))));
    offers.push(offer(None));
}

fn identity_key(identity: &AgentIdentity) -> PublicKey {
    match identity {
        AgentIdentity::PublicKey { key, .. } => key.clone(),
        AgentIdentity::Certificate { certificate, .. } => certified_key(certificate),
    }
}

fn certified_key(certificate: &Certificate) -> PublicKey {
    PublicKey::from(certificate.public_key().clone())
}

fn position(keys: &[PublicKey], key: &PublicKey) -> Option<usize> {
    keys.iter().position(|other| same(other, key))
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
