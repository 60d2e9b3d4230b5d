//! Whether a host certificate holds (OpenSSH's PROTOCOL.certkeys). Whether its authority is
//! trusted is not decided here.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyBase64};

use super::known_hosts::HostKey;
use crate::model::escape::printable;

/// Who has signed it.
pub fn authority(certificate: &Certificate) -> Option<HostKey> {
    HostKey::from_blob(PublicKey::from(certificate.signature_key().clone()).public_key_bytes())
}

/// As strict as ssh: a host's certificate, for this very name, at this time, with nothing
/// in it that is not understood, and signed with a hash that is still good.
pub fn holds(certificate: &Certificate, principal: &str, now: SystemTime) -> Result<(), String> {
    if certificate.cert_type() != CertType::Host {
        return Err("it is no certificate of a host".to_string());
    }
    let now = now.duration_since(UNIX_EPOCH).map_err(|_| "the clock of this machine is wrong".to_string())?;
    if now.as_secs() < certificate.valid_after() {
        return Err("it is not valid yet".to_string());
    }
    if now.as_secs() >= certificate.valid_before() {
        return Err("it has expired".to_string());
    }
    let principals = certificate.valid_principals();
    // One that names nobody is for everybody.
    if !principals.is_empty() && !principals.iter().any(|name| name == principal) {
        return Err(format!(
            "it is for {}, not for {}",
            printable(principals.join(", ").as_bytes()),
            printable(principal.as_bytes())
        ));
    }
    if certificate.critical_options().iter().next().is_some() {
        return Err("it has critical options".to_string());
    }
    if matches!(
        certificate.signature().algorithm(),
        Algorithm::Dsa | Algorithm::Rsa { hash: None } | Algorithm::Other(_)
    ) {
        return Err("its signature is of an old kind".to_string());
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.validate_at(now.as_secs(), [&authority]).map_err(|_| "its signature is wrong".to_string())
}
