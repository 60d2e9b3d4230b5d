//! Who signs when a server would take a key: the agent, the key itself, or nobody.

use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, PublicKey};

use super::offers::Agent;
use crate::model::escape::printable;

pub enum KeySigner {
    Agent(Box<Agent>),
    Key(Arc<PrivateKey>),
    /// Signs nothing; only notes that a signature was wanted, which a server says of keys
    /// that it would take.
    Probe {
        wanted: bool,
    },
}

/// Why there is no signature, escaped.
#[derive(Debug)]
pub struct NotSigned(pub String);

impl From<russh::SendError> for NotSigned {
    fn from(error: russh::SendError) -> NotSigned {
        NotSigned(error.to_string())
    }
}

impl russh::Signer for KeySigner {
    type Error = NotSigned;

    /// Gives what was to be signed with the signature behind it.
    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        match self {
            KeySigner::Agent(agent) => sign_by_agent(agent, identity, hash, data).await,
            KeySigner::Key(key) => sign(key, hash, data),
            KeySigner::Probe { wanted } => {
                *wanted = true;
                Err(NotSigned("only asked".to_string()))
            }
        }
    }
}

/// An agent that was given the key alone does not know its certificate.
async fn sign_by_agent(
    agent: &mut Agent,
    identity: &AgentIdentity,
    hash: Option<HashAlg>,
    data: Vec<u8>,
) -> Result<Vec<u8>, NotSigned> {
    let failed = |error: russh::keys::Error| NotSigned(printable(error.to_string().as_bytes()));
    let AgentIdentity::Certificate { certificate, comment } = identity else {
        return agent.sign_request(identity, hash, data).await.map_err(failed);
    };
    match agent.sign_request(identity, hash, data.clone()).await {
        Ok(signed) => Ok(signed),
        Err(russh::keys::Error::AgentFailure) => {
            let key = PublicKey::from(certificate.public_key().clone());
            let plain = AgentIdentity::PublicKey { key, comment: comment.clone() };
            agent.sign_request(&plain, hash, data).await.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn sign(key: &PrivateKey, hash: Option<HashAlg>, mut data: Vec<u8>) -> Result<Vec<u8>, NotSigned> {
    let signature: Result<Signature, _> = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash).try_sign(&data),
        _ => key.try_sign(&data),
    };
    let failed = |error: &dyn std::fmt::Display| NotSigned(printable(error.to_string().as_bytes()));
    let signature = signature.map_err(|error| failed(&error))?;
    let blob = Vec::<u8>::try_from(signature).map_err(|error| failed(&error))?;
    let length = u32::try_from(blob.len()).map_err(|error| failed(&error))?;
    data.extend_from_slice(&length.to_be_bytes());
    data.extend_from_slice(&blob);
    Ok(data)
}
