//! Everything there is to know about reaching one host, as plain data.
//!
//! Whoever fills this in has read the command line, the environment, hosts.toml and
//! ssh's own files; nothing here reads any of them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::sudo::SudoUser;

pub const DEFAULT_PORT: u16 = 22;
/// ssh's own limit.
pub const REQUIRED_RSA_BITS: u32 = 1024;

#[derive(Debug, Clone)]
pub struct SshOptions {
    /// The host as the person named it; messages and JSON use this.
    pub host: String,
    /// Where to connect to: a name or an address, IPv6 without brackets.
    pub address: String,
    pub port: u16,
    pub user: String,
    /// As whom everything on the host is done; `None` is `user`.
    pub sudo: Option<SudoUser>,
    pub via: Via,
    pub address_family: AddressFamily,
    /// The local address to connect from.
    pub bind_address: Option<String>,

    /// Tried in this order; files that are not there are passed over.
    pub identity_files: Vec<PathBuf>,
    /// They are what a person named, and not ssh's own list.
    pub identity_files_named: bool,
    /// Of the agent's keys only those that `identity_files` names.
    pub identities_only: bool,
    /// The agent's socket.
    pub agent_socket: Option<PathBuf>,
    /// Certificates for keys of `identity_files` or of the agent.
    pub certificate_files: Vec<PathBuf>,
    /// The methods that may be used, the first one first.
    pub authentications: Vec<Authentication>,
    /// How often a person is asked for a password before it is given up.
    pub password_prompts: u32,
    /// Known beforehand; otherwise a person is asked.
    pub password: Option<Secret>,
    /// Never asks a person.
    pub batch_mode: bool,

    /// The first one also takes new keys.
    pub user_known_hosts: Vec<PathBuf>,
    pub global_known_hosts: Vec<PathBuf>,
    /// The name to look up in known_hosts in place of address and port.
    pub host_key_alias: Option<String>,
    pub hash_known_hosts: bool,
    pub strict_host_key_checking: StrictHostKeyChecking,
    /// A list of keys that are never trusted, a public key a line.
    pub revoked_host_keys: Option<PathBuf>,
    /// RSA host keys with fewer bits are refused.
    pub required_rsa_bits: u32,
    /// What a host's certificate may be signed with, written as the lists below; it only
    /// takes away from what haul takes.
    pub ca_signature_algorithms: Option<Vec<String>>,

    /// For reaching the port, and once more for greeting and key exchange.
    pub connect_timeout: Duration,
    /// For each answer of the server while logging in; a person may take longer.
    pub login_timeout: Duration,
    /// After so long without a byte from the server it is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// The link is dead after so many unanswered questions.
    pub keepalive_count: usize,
    /// How long the network may take no byte, or the server leave a request for a
    /// channel unanswered.
    pub stall_timeout: Duration,

    pub compression: bool,
    /// When new keys are agreed upon; `None` leaves it to haul and the server.
    pub rekey_limit: Option<RekeyLimit>,
    /// In place of haul's own lists, most wanted first. A first name that starts with `+`,
    /// `-` or `^` changes haul's list, as in ssh_config.
    pub ciphers: Option<Vec<String>>,
    pub kex_algorithms: Option<Vec<String>>,
    pub macs: Option<Vec<String>>,
    pub host_key_algorithms: Option<Vec<String>>,
}

/// Where the byte stream to the server comes from; all that follows sees a stream and
/// nothing of this.
#[derive(Debug, Clone, Default)]
pub enum Via {
    #[default]
    Tcp,
    /// Through a host that is logged in to first, which may itself be reached via another.
    Jump(Arc<SshOptions>),
    /// The standard input and output of this command of the local shell, all tokens in it
    /// replaced.
    Command(String),
}

/// RFC 4252's methods, as far as haul has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    PublicKey,
    KeyboardInteractive,
    Password,
}

impl Authentication {
    /// ssh's order.
    pub const ALL: [Authentication; 3] =
        [Authentication::PublicKey, Authentication::KeyboardInteractive, Authentication::Password];
}

/// Whichever comes first. `None` is "no limit of this kind".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RekeyLimit {
    pub bytes: Option<u64>,
    pub time: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressFamily {
    #[default]
    Any,
    V4,
    V6,
}

/// What happens with a host key that no file knows. A key that contradicts what is
/// known, or is revoked, is refused by all three.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StrictHostKeyChecking {
    /// Refused.
    #[default]
    Yes,
    /// Taken and written down.
    AcceptNew,
    /// A person decides; where none can be asked it is refused.
    Ask,
}

/// Zeroed when dropped, and never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<Zeroizing<String>>) -> Secret {
        Secret(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Default for SshOptions {
    fn default() -> SshOptions {
        SshOptions {
            host: String::new(),
            address: String::new(),
            port: DEFAULT_PORT,
            user: String::new(),
            sudo: None,
            via: Via::Tcp,
            address_family: AddressFamily::Any,
            bind_address: None,
            identity_files: Vec::new(),
            identity_files_named: false,
            identities_only: false,
            agent_socket: None,
            certificate_files: Vec::new(),
            authentications: Authentication::ALL.to_vec(),
            password_prompts: 3,
            password: None,
            batch_mode: false,
            user_known_hosts: Vec::new(),
            global_known_hosts: Vec::new(),
            host_key_alias: None,
            hash_known_hosts: false,
            strict_host_key_checking: StrictHostKeyChecking::Yes,
            revoked_host_keys: None,
            required_rsa_bits: REQUIRED_RSA_BITS,
            ca_signature_algorithms: None,
            connect_timeout: Duration::from_secs(20),
            login_timeout: Duration::from_secs(60),
            // A dead link ends after one interval more than the count: 28 s.
            keepalive_interval: Duration::from_secs(7),
            keepalive_count: 3,
            stall_timeout: Duration::from_secs(30),
            compression: false,
            rekey_limit: None,
            ciphers: None,
            kex_algorithms: None,
            macs: None,
            host_key_algorithms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let options =
            SshOptions { password: Some(Secret::new("hunter2".to_string())), ..SshOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn a_dead_link_ends_within_half_a_minute() {
        let options = SshOptions::default();
        let limit = options.keepalive_interval * (options.keepalive_count as u32 + 1);
        assert!(limit <= Duration::from_secs(30));
    }
}
