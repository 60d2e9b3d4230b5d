//! What ssh_config forbids on top of known_hosts: RevokedHostKeys, RequiredRSASize and
//! CASignatureAlgorithms. To leave one out would be to trust what ssh does not.

use std::fs;
use std::path::Path;

use russh::keys::ssh_key::Certificate;

use super::config::pattern;
use super::known_hosts::{self, HostKey};
use super::options::SshOptions;

/// A list of revoked keys larger than this, in bytes, is refused and not read.
const MAX_REVOKED_BYTES: u64 = 64 << 20;
/// How ssh-keygen's binary lists begin.
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

#[derive(Debug, Clone)]
pub struct Restrictions {
    rsa_bits: u32,
    ca_algorithms: Option<Vec<String>>,
}

impl Restrictions {
    pub fn of(options: &SshOptions) -> Restrictions {
        Restrictions {
            rsa_bits: options.required_rsa_bits,
            ca_algorithms: options.ca_signature_algorithms.clone(),
        }
    }

    pub fn check_key(&self, key: &HostKey) -> Result<(), String> {
        match key.rsa_bits() {
            Some(bits) if bits < self.rsa_bits => {
                Err(format!("has {bits} bits, and RequiredRSASize asks for {}", self.rsa_bits))
            }
            _ => Ok(()),
        }
    }

    /// A list only ever takes away: what haul never takes is not added by it.
    pub fn check_signature(&self, certificate: &Certificate) -> Result<(), String> {
        let algorithm = certificate.signature().algorithm();
        if self.allows(algorithm.as_str()) {
            return Ok(());
        }
        Err(format!("it is signed by {}, which CASignatureAlgorithms leaves out", algorithm.as_str()))
    }

    fn allows(&self, algorithm: &str) -> bool {
        let Some(list) = &self.ca_algorithms else { return true };
        let list = list.join(",");
        match list.split_at_checked(1) {
            Some(("-", names)) => !pattern::list_matches(names, algorithm),
            Some(("+" | "^", _)) => true,
            _ => pattern::list_matches(&list, algorithm),
        }
    }
}

/// The keys of a list as lines of known_hosts that revoke them, line for line. As for ssh,
/// a list that cannot be read or understood revokes everything.
pub fn revoked_lines(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.len() > MAX_REVOKED_BYTES {
        return Err("it is larger than 64 MiB".to_owned());
    }
    as_lines(&fs::read(path).map_err(|error| error.to_string())?)
}

fn as_lines(text: &[u8]) -> Result<Vec<u8>, String> {
    if text.starts_with(KRL_MAGIC) {
        return Err("it is a binary list of ssh-keygen, which haul cannot read; list the keys, a line each"
            .to_owned());
    }
    let mut lines = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let content = line.trim_ascii();
        if !content.is_empty() && !content.starts_with(b"#") {
            let revoking = [b"@revoked * ", content].concat();
            if !known_hosts::is_understood(&revoking) {
                return Err(format!("line {} is no public key", index + 1));
            }
            lines.extend(revoking);
        }
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn lists_of_keys_become_lines_that_revoke() {
        let text = format!("# old\n\n{KEY} alice@desk\n");
        let lines = String::from_utf8(as_lines(text.as_bytes()).expect("lines")).expect("UTF-8");
        assert_eq!(lines, format!("\n\n@revoked * {KEY} alice@desk\n\n"));
        for (text, reason) in [
            (&b"SSHKRL\n\0\0\0"[..], "binary list"),
            (b"\nssh-ed25519\n", "line 2"),
            (b"ssh-ed25519 !!!\n", "line 1"),
        ] {
            let error = as_lines(text).expect_err("no list");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn signatures_that_are_left_out() {
        let allows = |list: &str, name: &str| {
            let ca_algorithms = Some(list.split(',').map(str::to_owned).collect());
            Restrictions { rsa_bits: 0, ca_algorithms }.allows(name)
        };
        assert!(allows("ssh-ed25519,rsa-sha2-512", "rsa-sha2-512"));
        assert!(!allows("ssh-ed25519", "rsa-sha2-512"));
        assert!(!allows("-rsa*,ecdsa*", "rsa-sha2-512"));
        assert!(allows("-rsa*", "ssh-ed25519"));
        assert!(allows("+ssh-rsa", "ssh-ed25519"));
        assert!(allows("ecdsa-sha2-*", "ecdsa-sha2-nistp256"));
    }
}
