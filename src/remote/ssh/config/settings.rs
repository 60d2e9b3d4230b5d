//! What has been said about one host so far. The first value of each keyword counts, so
//! whoever speaks first wins: the command line, hosts.toml, then ssh's own files.

use super::jump::ProxyJump;
use super::reader::COMMAND_LINE;
use crate::remote::ssh::options::AddressFamily;

/// ssh takes no more key or certificate files than this.
pub const MAX_IDENTITY_FILES: usize = 100;
/// ssh takes no more known_hosts files of one kind than this.
pub const MAX_KNOWN_HOSTS_FILES: usize = 32;

/// ssh takes no more domains to try than this.
pub const MAX_CANONICAL_DOMAINS: usize = 32;

/// As written: nothing in it is expanded yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    pub proxy_jump: Option<ProxyJump>,
    pub proxy_command: Option<String>,
    pub proxy_use_fdpass: Option<bool>,
    pub address_family: Option<AddressFamily>,
    pub bind_address: Option<String>,

    pub identity_files: Vec<NamedFile>,
    pub certificate_files: Vec<NamedFile>,
    pub identities_only: Option<bool>,
    pub identity_agent: Option<String>,
    pub preferred_authentications: Option<String>,
    pub pubkey_authentication: Option<bool>,
    pub kbd_interactive_authentication: Option<bool>,
    pub password_authentication: Option<bool>,
    pub number_of_password_prompts: Option<u32>,
    pub batch_mode: Option<bool>,

    /// Empty is "nothing was said".
    pub user_known_hosts: Vec<String>,
    pub global_known_hosts: Vec<String>,
    pub revoked_host_keys: Option<String>,
    pub required_rsa_size: Option<u32>,
    pub ca_signature_algorithms: Option<String>,
    pub strict_host_key_checking: Option<Checking>,
    pub host_key_alias: Option<String>,
    pub hash_known_hosts: Option<bool>,
    pub check_host_ip: Option<bool>,

    /// In seconds, as all times here.
    pub connect_timeout: Option<u32>,
    pub server_alive_interval: Option<u32>,
    pub server_alive_count_max: Option<u32>,
    pub compression: Option<bool>,
    /// Zero is "as ssh likes it".
    pub rekey_bytes: Option<u64>,
    pub rekey_seconds: Option<u32>,
    pub ciphers: Option<String>,
    pub kex_algorithms: Option<String>,
    pub macs: Option<String>,
    pub host_key_algorithms: Option<String>,

    pub log_level: Option<&'static str>,
    pub ignore_unknown: Option<String>,
    pub canonicalize_hostname: Option<Canonicalize>,
    /// Empty is "nothing was said".
    pub canonical_domains: Vec<String>,
    pub canonicalize_max_dots: Option<u32>,
    pub canonicalize_fallback_local: Option<bool>,
    pub tag: Option<String>,

    /// Keywords that haul cannot honour; of each the first one.
    pub unsupported: Vec<Unsupported>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    pub path: String,
    /// Named by the person and not by the system's file.
    pub by_user: bool,
}

/// StrictHostKeyChecking, all of ssh's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checking {
    Yes,
    No,
    Ask,
    AcceptNew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonicalize {
    No,
    Yes,
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// In ssh_config(5)'s spelling.
    pub keyword: &'static str,
    pub value: String,
    /// File and line, or `-o`.
    pub place: String,
}

impl Unsupported {
    /// Turned off is what haul does anyway.
    pub fn asks_for_nothing(&self) -> bool {
        ["no", "none", "false"].iter().any(|off| self.value.eq_ignore_ascii_case(off))
    }
}

impl Settings {
    /// A key file after those that are there; one that is there already is not taken twice.
    pub fn add_identity(&mut self, path: impl Into<String>, by_user: bool) -> Result<(), String> {
        add_file(&mut self.identity_files, path.into(), by_user)
    }

    pub fn add_certificate(&mut self, path: impl Into<String>, by_user: bool) -> Result<(), String> {
        add_file(&mut self.certificate_files, path.into(), by_user)
    }

    /// Whichever of jump and command comes first keeps the other out. `none` for the one
    /// says nothing of the other.
    pub fn add_jump(&mut self, jump: ProxyJump) {
        let is_free = jump == ProxyJump::Nowhere || self.proxy_command.is_none();
        if self.proxy_jump.is_none() && is_free {
            self.proxy_jump = Some(jump);
        }
    }

    pub fn add_command(&mut self, command: String) {
        let is_free = !matches!(self.proxy_jump, Some(ProxyJump::Via(_)));
        if self.proxy_command.is_none() && is_free {
            self.proxy_command = Some(command);
        }
    }

    /// The first keyword of the command line that haul cannot honour.
    pub fn unsupported_option(&self) -> Option<&Unsupported> {
        self.unsupported.iter().find(|one| one.place == COMMAND_LINE && !one.asks_for_nothing())
    }

    pub fn add_unsupported(&mut self, unsupported: Unsupported) {
        if self.unsupported.iter().all(|known| known.keyword != unsupported.keyword) {
            self.unsupported.push(unsupported);
        }
    }
}

fn add_file(files: &mut Vec<NamedFile>, path: String, by_user: bool) -> Result<(), String> {
    if files.len() >= MAX_IDENTITY_FILES {
        return Err(format!("more than {MAX_IDENTITY_FILES} files are named"));
    }
    let file = NamedFile { path, by_user };
    if !files.contains(&file) {
        files.push(file);
    }
    Ok(())
}
