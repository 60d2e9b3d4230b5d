//! Everything that holds for one host: what was given, then ssh's files, then defaults.

use std::path::Path;

use super::address;
use super::expand::{self, Tokens};
use super::jump::{Proxy, ProxyJump};
use super::reader::{Known, Reader, Subject};
use super::settings::{Canonicalize, Checking, NamedFile, Settings, Unsupported};
use super::{ConfigError, Files, Local, World};
use crate::model::escape::printable;
use crate::remote::ssh::options::{AddressFamily, DEFAULT_PORT, REQUIRED_RSA_BITS};

/// Below the home.
const USER_CONFIG: &str = ".ssh/config";
const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";
const SYSTEM_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
const USER_KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];
/// In ssh's order.
const IDENTITIES: [&str; 7] = [
    "~/.ssh/id_rsa",
    "~/.ssh/id_ecdsa",
    "~/.ssh/id_ecdsa_sk",
    "~/.ssh/id_ed25519",
    "~/.ssh/id_ed25519_sk",
    "~/.ssh/id_xmss",
    "~/.ssh/id_dsa",
];
const PASSWORD_PROMPTS: u32 = 3;
const CANONICALIZE_MAX_DOTS: u32 = 1;
const SERVER_ALIVE_COUNT_MAX: u32 = 3;

/// One host to look up.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// As named by the person.
    pub host: String,
    /// What was said elsewhere and wins over the files.
    pub given: Settings,
    pub files: Files,
}

/// What ssh would work with, as `ssh -G` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub host: String,
    /// Where to connect to.
    pub hostname: String,
    pub port: u16,
    pub user: String,
    pub proxy: Option<Proxy>,
    pub proxy_use_fdpass: bool,
    pub address_family: AddressFamily,
    pub bind_address: Option<String>,
    /// As written; [`Resolved::path`] makes paths of them.
    pub identity_files: Vec<String>,
    pub identity_files_named: bool,
    pub certificate_files: Vec<String>,
    pub identities_only: bool,
    /// Expanded. `None` is the agent of the environment.
    pub identity_agent: Option<String>,
    pub preferred_authentications: Option<String>,
    pub pubkey_authentication: bool,
    pub kbd_interactive_authentication: bool,
    pub password_authentication: bool,
    pub number_of_password_prompts: u32,
    pub batch_mode: bool,
    /// Expanded; none at all is possible.
    pub user_known_hosts: Vec<String>,
    /// As written.
    pub global_known_hosts: Vec<String>,
    pub revoked_host_keys: Option<String>,
    pub required_rsa_size: u32,
    pub ca_signature_algorithms: Option<String>,
    /// `None`: nobody said, which is `ask` to ssh.
    pub strict_host_key_checking: Option<Checking>,
    pub host_key_alias: Option<String>,
    pub hash_known_hosts: bool,
    pub check_host_ip: bool,
    pub connect_timeout: Option<u32>,
    /// `None` is ssh's default: never.
    pub server_alive_interval: Option<u32>,
    pub server_alive_count_max: u32,
    pub compression: bool,
    pub rekey_bytes: u64,
    pub rekey_seconds: u32,
    pub ciphers: Option<String>,
    pub kex_algorithms: Option<String>,
    pub macs: Option<String>,
    pub host_key_algorithms: Option<String>,
    pub log_level: &'static str,
    pub canonicalize_hostname: Canonicalize,
    /// What haul leaves out, in a line each.
    pub notes: Vec<String>,
}

/// Reads the files and fills in what they leave open.
pub fn resolve(request: Request, local: &Local, world: &dyn World) -> Result<Resolved, ConfigError> {
    let Request { host: original, given: mut settings, files } = request;
    let problem = |what: &str, problem: String| {
        let host = printable(original.as_bytes());
        ConfigError(format!("{host}: {what}: {}", printable(problem.as_bytes())))
    };
    // As ssh: both can become part of a command, and neither needs what a shell reads.
    let unfit = |name: &str, whose: &str| {
        let name = printable(name.as_bytes());
        ConfigError(format!("'{name}' cannot be {whose} name: a shell could read some of it as its own"))
    };
    if !is_fit_host(&original) {
        return Err(unfit(&original, "a host's"));
    }
    if let Some(user) = settings.user.as_deref().filter(|user| !is_fit_user(user)) {
        return Err(unfit(user, "a user's"));
    }
    let mut host = original.clone();
    let subject = Subject { host: &host, original: &original, is_final: false };
    let mut again = read(&files, subject, &mut settings, local, world)?;
    if let Some(name) = &settings.hostname {
        host = expand::percent(name, &[('h', &original)]).map_err(|error| problem("HostName", error))?;
    }
    let family = settings.address_family.unwrap_or_default();
    if !address::is_address(&host, family) {
        host.make_ascii_lowercase();
    } else if let Some(canonical) = address::canonical(&host, family) {
        // The case of an address is left as it is.
        if !canonical.eq_ignore_ascii_case(&host) {
            host = canonical;
        }
    }
    let canonicalize = settings.canonicalize_hostname.unwrap_or(Canonicalize::No);
    if !address::is_address(&host, family) {
        host = canonical_name(host, &settings, canonicalize, world)
            .map_err(|error| problem("CanonicalizeHostname", error))?;
    }
    again |= canonicalize != Canonicalize::No;
    if again {
        settings.hostname = Some(host.clone());
        let subject = Subject { host: &host, original: &original, is_final: true };
        read(&files, subject, &mut settings, local, world)?;
    }
    fill(settings, original.clone(), host, local, world).map_err(|(what, error)| problem(what, error))
}

/// The whole name behind a short one, if CanonicalizeHostname asks for it. A name that a
/// jump host or a command will look up is left to them, but for `always`.
fn canonical_name(
    host: String,
    settings: &Settings,
    canonicalize: Canonicalize,
    world: &dyn World,
) -> Result<String, String> {
    let is_direct = !matches!(settings.proxy_jump, Some(ProxyJump::Via(_)))
        && settings.proxy_command.as_ref().is_none_or(|command| command.eq_ignore_ascii_case("none"));
    match canonicalize {
        Canonicalize::Always => {}
        Canonicalize::Yes if is_direct => {}
        _ => return Ok(host),
    }
    let family = settings.address_family.unwrap_or_default();
    if let Some(name) = host.strip_suffix('.') {
        if world.has_address(&host, family) {
            return Ok(name.to_owned());
        }
    } else {
        let dots = u32::try_from(host.matches('.').count()).unwrap_or(u32::MAX);
        if dots > settings.canonicalize_max_dots.unwrap_or(CANONICALIZE_MAX_DOTS) {
            return Ok(host);
        }
        let domains = settings.canonical_domains.iter();
        for domain in domains.filter(|domain| !domain.eq_ignore_ascii_case("none")) {
            let name = format!("{host}.{}", domain.trim_end_matches('.').to_ascii_lowercase());
            if world.has_address(&format!("{name}."), family) {
                return Ok(name);
            }
        }
    }
    if settings.canonicalize_fallback_local == Some(false) {
        return Err("the name is in none of CanonicalDomains, and CanonicalizeFallbackLocal is no".to_owned());
    }
    Ok(host)
}

fn is_fit_host(name: &str) -> bool {
    let unfit = |c: char| "'`\"$\\;&<>|(){},".contains(c) || c.is_ascii_whitespace() || c.is_control();
    !name.is_empty() && !name.starts_with('-') && !name.contains(unfit)
}

fn is_fit_user(name: &str) -> bool {
    let unfit = |c: char| "'`\";&<>|(){}".contains(c) || c.is_control();
    let has_flag =
        name.split_inclusive(|c: char| c.is_ascii_whitespace()).skip(1).any(|word| word.starts_with('-'));
    !name.starts_with('-') && !name.contains(unfit) && !has_flag && !name.ends_with('\\')
}

/// Whether a `Match final` asks for a second time.
fn read(
    files: &Files,
    subject: Subject<'_>,
    settings: &mut Settings,
    local: &Local,
    world: &dyn World,
) -> Result<bool, ConfigError> {
    let mut reader = Reader { world, local, subject, settings, wants_final: false };
    match files {
        Files::Usual => {
            let path = Path::new(&local.home).join(USER_CONFIG);
            reader.file(&path, true, true)?;
            reader.file(Path::new(SYSTEM_CONFIG), false, false)?;
        }
        Files::Only(path) => {
            if !reader.file(path, true, false)? {
                let path = printable(path.as_os_str().as_encoded_bytes());
                return Err(ConfigError(format!("-F {path}: there is no such file")));
            }
        }
        Files::None => {}
    }
    Ok(reader.wants_final)
}

/// One `KEY=VALUE` of the command line, behind what was said before.
pub fn add_option(
    text: &str,
    settings: &mut Settings,
    local: &Local,
    world: &dyn World,
) -> Result<(), ConfigError> {
    let subject = Subject { host: "", original: "", is_final: false };
    Reader { world, local, subject, settings, wants_final: false }.option(text)
}

type Failed = (&'static str, String);

fn fill(
    settings: Settings,
    host: String,
    hostname: String,
    local: &Local,
    world: &dyn World,
) -> Result<Resolved, Failed> {
    let s = settings;
    let is_none = |text: &String| text.eq_ignore_ascii_case("none");
    let notes = notes(&s);
    let mut resolved = Resolved {
        port: s.port.unwrap_or(DEFAULT_PORT),
        user: s.user.unwrap_or_else(|| local.login.clone()),
        proxy: match (s.proxy_jump, s.proxy_command) {
            (Some(ProxyJump::Via(jump)), _) => Some(Proxy::Jump(jump)),
            (_, Some(command)) if !is_none(&command) => Some(Proxy::Command(command)),
            _ => None,
        },
        proxy_use_fdpass: s.proxy_use_fdpass.unwrap_or(false),
        address_family: s.address_family.unwrap_or_default(),
        bind_address: s.bind_address,
        identity_files_named: !s.identity_files.is_empty(),
        identity_files: paths_or(s.identity_files, &IDENTITIES),
        certificate_files: paths_or(s.certificate_files, &[]),
        identities_only: s.identities_only.unwrap_or(false),
        identity_agent: None,
        preferred_authentications: s.preferred_authentications,
        pubkey_authentication: s.pubkey_authentication.unwrap_or(true),
        kbd_interactive_authentication: s.kbd_interactive_authentication.unwrap_or(true),
        password_authentication: s.password_authentication.unwrap_or(true),
        number_of_password_prompts: s.number_of_password_prompts.unwrap_or(PASSWORD_PROMPTS),
        batch_mode: s.batch_mode.unwrap_or(false),
        user_known_hosts: Vec::new(),
        global_known_hosts: files_or(s.global_known_hosts, &SYSTEM_KNOWN_HOSTS),
        revoked_host_keys: s.revoked_host_keys.filter(|file| !is_none(file)),
        required_rsa_size: s.required_rsa_size.unwrap_or(REQUIRED_RSA_BITS),
        ca_signature_algorithms: s.ca_signature_algorithms,
        strict_host_key_checking: s.strict_host_key_checking,
        host_key_alias: s.host_key_alias.map(|alias| alias.to_ascii_lowercase()),
        hash_known_hosts: s.hash_known_hosts.unwrap_or(false),
        check_host_ip: s.check_host_ip.unwrap_or(false),
        connect_timeout: s.connect_timeout,
        server_alive_interval: s.server_alive_interval,
        server_alive_count_max: s.server_alive_count_max.unwrap_or(SERVER_ALIVE_COUNT_MAX),
        compression: s.compression.unwrap_or(false),
        rekey_bytes: s.rekey_bytes.unwrap_or(0),
        rekey_seconds: s.rekey_seconds.unwrap_or(0),
        ciphers: s.ciphers,
        kex_algorithms: s.kex_algorithms,
        macs: s.macs,
        host_key_algorithms: s.host_key_algorithms,
        log_level: s.log_level.unwrap_or("INFO"),
        canonicalize_hostname: s.canonicalize_hostname.unwrap_or(Canonicalize::No),
        host,
        hostname,
        notes,
    };
    resolved.check_jump().map_err(|problem| ("ProxyJump", problem))?;
    if let Some(agent) = s.identity_agent {
        let agent = resolved.path(&agent, local, world).map_err(|error| ("IdentityAgent", error))?;
        resolved.identity_agent = Some(agent);
    }
    for file in files_or(s.user_known_hosts, &USER_KNOWN_HOSTS) {
        let file = resolved.path(&file, local, world).map_err(|error| ("UserKnownHostsFile", error))?;
        resolved.user_known_hosts.push(file);
    }
    Ok(resolved)
}

impl Resolved {
    /// A path or a socket: `~`, tokens and variables replaced.
    pub fn path(&self, text: &str, local: &Local, world: &dyn World) -> Result<String, String> {
        let text = expand::tilde(text, &local.home, world)?;
        self.with_tokens(local, |tokens| expand::percent_and_dollar(&text, tokens, world))
    }

    /// The few tokens of ProxyCommand and ProxyJump.
    pub fn proxy_text(&self, text: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let tokens = [
            ('h', self.hostname.as_str()),
            ('k', self.key_alias()),
            ('n', self.host.as_str()),
            ('p', port.as_str()),
            ('r', self.user.as_str()),
        ];
        expand::percent(text, &tokens)
    }

    fn check_jump(&self) -> Result<(), String> {
        let Some(Proxy::Jump(jump)) = &self.proxy else { return Ok(()) };
        let same_port = jump.port.unwrap_or(DEFAULT_PORT) == self.port;
        let same_user = jump.user.as_ref().is_none_or(|user| *user == self.user);
        if jump.host == self.hostname && same_port && same_user {
            return Err(format!("{} cannot be reached through itself", jump.host));
        }
        Ok(())
    }

    fn key_alias(&self) -> &str {
        self.host_key_alias.as_deref().unwrap_or(&self.host)
    }

    fn with_tokens<R>(&self, local: &Local, work: impl FnOnce(Tokens<'_>) -> R) -> R {
        let port = self.port.to_string();
        let known = Known {
            host: &self.hostname,
            original: &self.host,
            user: &self.user,
            port: &port,
            key_alias: self.key_alias(),
        };
        known.with_tokens(local, work)
    }
}

fn paths_or(files: Vec<NamedFile>, defaults: &[&str]) -> Vec<String> {
    files_or(files.into_iter().map(|file| file.path).collect(), defaults)
}

fn files_or(files: Vec<String>, defaults: &[&str]) -> Vec<String> {
    if files.is_empty() {
        return defaults.iter().map(|file| (*file).to_owned()).collect();
    }
    if files.len() == 1 && files[0].eq_ignore_ascii_case("none") && defaults != IDENTITIES {
        return Vec::new();
    }
    files
}

/// What a person may count on and haul does otherwise.
fn notes(settings: &Settings) -> Vec<String> {
    let asked = settings.unsupported.iter().filter(|unsupported| !unsupported.asks_for_nothing());
    let note = |unsupported: &Unsupported| {
        let value = printable(unsupported.value.as_bytes());
        format!("{}: {} {value}: haul does not have this", unsupported.place, unsupported.keyword)
    };
    asked.map(note).collect()
}
