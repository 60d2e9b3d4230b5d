//! Every keyword of ssh_config: what haul makes of it, and what may stand behind it.

use super::jump;
use super::settings::{Canonicalize, Checking, MAX_CANONICAL_DOMAINS, MAX_KNOWN_HOSTS_FILES, Settings};
use super::{World, expand, values, words};
use crate::remote::ssh::options::AddressFamily;

/// What is to be done with a line that begins with this keyword.
#[derive(Clone, Copy)]
pub enum Meaning {
    Host,
    Match,
    Include,
    /// haul honours it.
    Setting(Setter),
    /// haul has no use for it. Where `matters`, leaving it out may surprise a person.
    Unused {
        form: Form,
        matters: bool,
    },
    /// Obsolete; ssh passes over it too.
    Obsolete,
}

pub type Setter = fn(&mut Settings, &mut Line<'_>) -> Result<(), String>;

/// What has to stand behind a keyword that haul has no use for.
#[derive(Clone, Copy)]
pub enum Form {
    Flag,
    OneOf(&'static [&'static str]),
    Integer,
    Time,
    Word,
    /// Anything at all.
    Rest,
}

/// A line's words, as the setters take them off.
pub struct Line<'a> {
    pub world: &'a dyn World,
    /// In a block that holds for this host; otherwise the line is only checked.
    pub active: bool,
    /// From the person and not from the system's file.
    pub by_user: bool,
    pub words: std::vec::IntoIter<String>,
    /// All behind the keyword, as written.
    pub text: &'a str,
}

const MISSING: &str = "a value is missing";

impl Line<'_> {
    fn word(&mut self) -> Result<String, String> {
        self.words.next().filter(|word| !word.is_empty()).ok_or_else(|| MISSING.to_owned())
    }

    /// What is behind the keyword as it is, for a command with quotes of its own.
    fn command(&mut self) -> String {
        self.words = Vec::new().into_iter();
        words::trim_start(self.text).trim_start_matches([' ', '\t', '\r', '\n', '=']).to_owned()
    }

    fn set<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), String> {
        if self.active && slot.is_none() {
            *slot = Some(value);
        }
        Ok(())
    }

    fn set_word(&mut self, slot: &mut Option<String>) -> Result<(), String> {
        let word = self.word()?;
        self.set(slot, word)
    }

    fn set_flag(&mut self, slot: &mut Option<bool>) -> Result<(), String> {
        let value = values::flag(&self.word()?).ok_or("has to be yes or no")?;
        self.set(slot, value)
    }

    fn set_integer(&mut self, slot: &mut Option<u32>) -> Result<(), String> {
        let value = values::integer(&self.word()?).ok_or("has to be a number")?;
        self.set(slot, value)
    }

    /// `none` leaves the time open for whoever speaks next, as in ssh.
    fn set_time(&mut self, slot: &mut Option<u32>) -> Result<(), String> {
        let word = self.word()?;
        if word == "none" {
            return Ok(());
        }
        let value = values::seconds(&word).ok_or("has to be a time such as 30, 5m or 1h30m")?;
        self.set(slot, value)
    }

    fn set_one_of<T: Copy>(&mut self, slot: &mut Option<T>, choices: &[(&str, T)]) -> Result<(), String> {
        let word = self.word()?;
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word)) {
            Some((_, value)) => self.set(slot, *value),
            None => Err(one_of(choices.iter().map(|(name, _)| *name))),
        }
    }

    /// Names separated by commas; which of them there are is for the connection to say.
    fn set_algorithms(&mut self, slot: &mut Option<String>) -> Result<(), String> {
        let word = self.word()?;
        let names = word.strip_prefix(['+', '-', '^']).unwrap_or(&word);
        let good = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !names.split(',').all(good) {
            return Err("has to be names separated by commas".to_owned());
        }
        self.set(slot, word)
    }

    /// All that is left, at most `limit` words; `none` stands alone.
    fn set_words(&mut self, slot: &mut Vec<String>, limit: usize) -> Result<(), String> {
        let names: Vec<String> = self.words.by_ref().collect();
        if names.iter().any(String::is_empty) {
            return Err("a name is empty".to_owned());
        }
        if names.len() > 1 && names.iter().any(|name| name.eq_ignore_ascii_case("none")) {
            return Err("'none' has to stand alone".to_owned());
        }
        if !self.active || !slot.is_empty() {
            return Ok(());
        }
        if names.len() > limit {
            return Err(format!("has more than {limit} names"));
        }
        *slot = names;
        Ok(())
    }
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("has to be one of {}", names.collect::<Vec<_>>().join(", "))
}

impl Form {
    /// Takes the words off `line` and returns the first one.
    pub fn check(self, line: &mut Line<'_>) -> Result<String, String> {
        if let Form::Rest = self {
            let first = line.words.next().unwrap_or_default();
            line.words = Vec::new().into_iter();
            return Ok(first);
        }
        let word = line.word()?;
        let good = match self {
            Form::Flag => values::flag(&word).is_some(),
            Form::OneOf(names) => {
                if !names.iter().any(|name| name.eq_ignore_ascii_case(&word)) {
                    return Err(one_of(names.iter().copied()));
                }
                true
            }
            Form::Integer => values::integer(&word).is_some(),
            Form::Time => word == "none" || values::seconds(&word).is_some(),
            Form::Word | Form::Rest => true,
        };
        if good { Ok(word) } else { Err(format!("'{word}' cannot stand here")) }
    }
}

const CHECKING: [(&str, Checking); 7] = [
    ("yes", Checking::Yes),
    ("no", Checking::No),
    ("ask", Checking::Ask),
    ("accept-new", Checking::AcceptNew),
    ("true", Checking::Yes),
    ("false", Checking::No),
    ("off", Checking::No),
];

const CANONICALIZE: [(&str, Canonicalize); 5] = [
    ("no", Canonicalize::No),
    ("yes", Canonicalize::Yes),
    ("always", Canonicalize::Always),
    ("false", Canonicalize::No),
    ("true", Canonicalize::Yes),
];

const FAMILIES: [(&str, AddressFamily); 3] =
    [("any", AddressFamily::Any), ("inet", AddressFamily::V4), ("inet6", AddressFamily::V6)];

/// The last two are about how a key is bound to a host; both are publickey.
const PUBKEY: [(&str, bool); 6] =
    [("yes", true), ("no", false), ("true", true), ("false", false), ("unbound", true), ("host-bound", true)];

const LOG_LEVELS: [(&str, &str); 10] = [
    ("QUIET", "QUIET"),
    // Some distributions' name for it.
    ("SILENT", "QUIET"),
    ("FATAL", "FATAL"),
    ("ERROR", "ERROR"),
    ("INFO", "INFO"),
    ("VERBOSE", "VERBOSE"),
    ("DEBUG", "DEBUG"),
    ("DEBUG1", "DEBUG"),
    ("DEBUG2", "DEBUG2"),
    ("DEBUG3", "DEBUG3"),
];

/// Below this ssh refuses to agree on new keys.
const MIN_REKEY_BYTES: u64 = 16;

fn rekey_limit(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let word = line.word()?;
    let bytes = match word.as_str() {
        "default" => 0,
        _ => values::scaled(&word).ok_or("has to be an amount such as 500M or 1G")?,
    };
    if bytes != 0 && bytes < MIN_REKEY_BYTES {
        return Err(format!("has to be at least {MIN_REKEY_BYTES}"));
    }
    line.set(&mut settings.rekey_bytes, bytes)?;
    if line.words.len() == 0 {
        return Ok(());
    }
    line.set_time(&mut settings.rekey_seconds)
}

/// A path, `none`, or a variable that holds the path.
fn identity_agent(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let word = line.word()?;
    if let Some(name) = word.strip_prefix('$').filter(|rest| !rest.starts_with('{')) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(good) {
            return Err("names no environment variable".to_owned());
        }
    }
    expand::dollar(&word, line.world)?;
    line.set(&mut settings.identity_agent, word)
}

fn proxy_jump(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let text = line.command();
    let jump = jump::parse(&text)?;
    if line.active {
        settings.add_jump(jump);
    }
    Ok(())
}

fn proxy_command(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let command = line.command();
    if line.active {
        settings.add_command(command);
    }
    Ok(())
}

fn canonical_domains(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    if let Some(name) = line.words.as_slice().iter().find(|name| !jump::is_domain(name)) {
        return Err(format!("'{name}' is no domain"));
    }
    line.set_words(&mut settings.canonical_domains, MAX_CANONICAL_DOMAINS)
}

fn set_port(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let port = values::port(&line.word()?).ok_or("has to be a number from 1 to 65535")?;
    line.set(&mut settings.port, port)
}

fn identity_file(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let path = line.word()?;
    if line.active { settings.add_identity(path, line.by_user) } else { Ok(()) }
}

fn certificate_file(settings: &mut Settings, line: &mut Line<'_>) -> Result<(), String> {
    let path = line.word()?;
    if line.active { settings.add_certificate(path, line.by_user) } else { Ok(()) }
}

const fn harmless(form: Form) -> Meaning {
    Meaning::Unused { form, matters: false }
}

const fn missed(form: Form) -> Meaning {
    Meaning::Unused { form, matters: true }
}

use Form::{Flag, Integer, OneOf, Rest, Time, Word};
use Meaning::{Obsolete, Setting};

/// With ssh's aliases, and with what newer versions of ssh and some distributions added.
const KEYWORDS: &[(&str, Meaning)] = &[
    ("Host", Meaning::Host),
    ("Match", Meaning::Match),
    ("Include", Meaning::Include),
    ("AddressFamily", Setting(|s, l| l.set_one_of(&mut s.address_family, &FAMILIES))),
    ("BatchMode", Setting(|s, l| l.set_flag(&mut s.batch_mode))),
    ("BindAddress", Setting(|s, l| l.set_word(&mut s.bind_address))),
    ("CanonicalDomains", Setting(canonical_domains)),
    ("CanonicalizeFallbackLocal", Setting(|s, l| l.set_flag(&mut s.canonicalize_fallback_local))),
    ("CanonicalizeMaxDots", Setting(|s, l| l.set_integer(&mut s.canonicalize_max_dots))),
    ("CanonicalizeHostname", Setting(|s, l| l.set_one_of(&mut s.canonicalize_hostname, &CANONICALIZE))),
    ("CASignatureAlgorithms", Setting(|s, l| l.set_algorithms(&mut s.ca_signature_algorithms))),
    ("CertificateFile", Setting(certificate_file)),
    ("ChallengeResponseAuthentication", Setting(|s, l| l.set_flag(&mut s.kbd_interactive_authentication))),
    ("CheckHostIP", Setting(|s, l| l.set_flag(&mut s.check_host_ip))),
    ("Ciphers", Setting(|s, l| l.set_algorithms(&mut s.ciphers))),
    ("Compression", Setting(|s, l| l.set_one_of(&mut s.compression, &[("yes", true), ("no", false)]))),
    ("ConnectTimeout", Setting(|s, l| l.set_time(&mut s.connect_timeout))),
    ("DSAAuthentication", Setting(|s, l| l.set_one_of(&mut s.pubkey_authentication, &PUBKEY))),
    ("GlobalKnownHostsFile", Setting(|s, l| l.set_words(&mut s.global_known_hosts, MAX_KNOWN_HOSTS_FILES))),
    ("HashKnownHosts", Setting(|s, l| l.set_flag(&mut s.hash_known_hosts))),
    ("HostKeyAlgorithms", Setting(|s, l| l.set_algorithms(&mut s.host_key_algorithms))),
    ("HostKeyAlias", Setting(|s, l| l.set_word(&mut s.host_key_alias))),
    ("HostName", Setting(|s, l| l.set_word(&mut s.hostname))),
    ("IdentitiesOnly", Setting(|s, l| l.set_flag(&mut s.identities_only))),
    ("IdentityAgent", Setting(identity_agent)),
    ("IdentityFile", Setting(identity_file)),
    ("IdentityFile2", Setting(identity_file)),
    ("IgnoreUnknown", Setting(|s, l| l.set_word(&mut s.ignore_unknown))),
    ("KbdInteractiveAuthentication", Setting(|s, l| l.set_flag(&mut s.kbd_interactive_authentication))),
    ("KexAlgorithms", Setting(|s, l| l.set_algorithms(&mut s.kex_algorithms))),
    ("LogLevel", Setting(|s, l| l.set_one_of(&mut s.log_level, &LOG_LEVELS))),
    ("MACs", Setting(|s, l| l.set_algorithms(&mut s.macs))),
    ("NumberOfPasswordPrompts", Setting(|s, l| l.set_integer(&mut s.number_of_password_prompts))),
    ("PasswordAuthentication", Setting(|s, l| l.set_flag(&mut s.password_authentication))),
    ("Port", Setting(set_port)),
    ("PreferredAuthentications", Setting(|s, l| l.set_word(&mut s.preferred_authentications))),
    ("ProxyCommand", Setting(proxy_command)),
    ("ProxyJump", Setting(proxy_jump)),
    ("ProxyUseFdpass", Setting(|s, l| l.set_flag(&mut s.proxy_use_fdpass))),
    ("PubkeyAuthentication", Setting(|s, l| l.set_one_of(&mut s.pubkey_authentication, &PUBKEY))),
    ("RekeyLimit", Setting(rekey_limit)),
    ("RequiredRSASize", Setting(|s, l| l.set_integer(&mut s.required_rsa_size))),
    ("RevokedHostKeys", Setting(|s, l| l.set_word(&mut s.revoked_host_keys))),
    ("ServerAliveCountMax", Setting(|s, l| l.set_integer(&mut s.server_alive_count_max))),
    ("ServerAliveInterval", Setting(|s, l| l.set_time(&mut s.server_alive_interval))),
    ("SkeyAuthentication", Setting(|s, l| l.set_flag(&mut s.kbd_interactive_authentication))),
    ("StrictHostKeyChecking", Setting(|s, l| l.set_one_of(&mut s.strict_host_key_checking, &CHECKING))),
    ("Tag", Setting(|s, l| l.set_word(&mut s.tag))),
    ("TISAuthentication", Setting(|s, l| l.set_flag(&mut s.kbd_interactive_authentication))),
    ("User", Setting(|s, l| l.set_word(&mut s.user))),
    ("UserKnownHostsFile", Setting(|s, l| l.set_words(&mut s.user_known_hosts, MAX_KNOWN_HOSTS_FILES))),
    // What haul cannot do and somebody may count on.
    ("BindInterface", missed(Word)),
    ("CanonicalizePermittedCNAMEs", missed(Rest)),
    ("DynamicForward", missed(Rest)),
    ("ForwardAgent", missed(Word)),
    ("ForwardX11", missed(Flag)),
    ("GSSAPIAuthentication", missed(Flag)),
    ("GSSAPIDelegateCredentials", missed(Flag)),
    ("GSSAPIKeyExchange", missed(Flag)),
    ("HostbasedAuthentication", missed(Flag)),
    ("KbdInteractiveDevices", missed(Word)),
    ("KnownHostsCommand", missed(Rest)),
    ("LocalCommand", missed(Rest)),
    ("LocalForward", missed(Rest)),
    ("NoHostAuthenticationForLocalhost", missed(Flag)),
    ("PKCS11Provider", missed(Word)),
    ("PubkeyAcceptedAlgorithms", missed(Word)),
    ("PubkeyAcceptedKeyTypes", missed(Word)),
    ("RemoteCommand", missed(Rest)),
    ("RemoteForward", missed(Rest)),
    ("SecurityKeyProvider", missed(Word)),
    ("SetEnv", missed(Rest)),
    ("SmartcardDevice", missed(Word)),
    ("Tunnel", missed(OneOf(&["yes", "no", "true", "false", "point-to-point", "ethernet"]))),
    ("VerifyHostKeyDNS", missed(OneOf(&["yes", "no", "ask", "true", "false"]))),
    // What is about a terminal, a window, a shared connection, or ssh's own ways.
    ("AddKeysToAgent", harmless(Rest)),
    ("ChannelTimeout", harmless(Rest)),
    ("ClearAllForwardings", harmless(Flag)),
    ("ConnectionAttempts", harmless(Integer)),
    ("ControlMaster", harmless(OneOf(&["yes", "no", "true", "false", "ask", "auto", "autoask"]))),
    ("ControlPath", harmless(Word)),
    ("ControlPersist", harmless(Word)),
    ("EnableEscapeCommandline", harmless(Flag)),
    ("EnableSSHKeysign", harmless(Flag)),
    ("EscapeChar", harmless(Word)),
    ("ExitOnForwardFailure", harmless(Flag)),
    ("FingerprintHash", harmless(Word)),
    ("ForkAfterAuthentication", harmless(Flag)),
    ("ForwardX11Timeout", harmless(Time)),
    ("ForwardX11Trusted", harmless(Flag)),
    ("GatewayPorts", harmless(Flag)),
    ("GSSAPIClientIdentity", harmless(Word)),
    ("GSSAPIKexAlgorithms", harmless(Word)),
    ("GSSAPIRenewalForcesRekey", harmless(Flag)),
    ("GSSAPIServerIdentity", harmless(Word)),
    ("GSSAPITrustDns", harmless(Flag)),
    ("HostbasedAcceptedAlgorithms", harmless(Word)),
    ("HostbasedKeyTypes", harmless(Word)),
    ("IPQoS", harmless(Rest)),
    ("KeepAlive", harmless(Flag)),
    ("LogVerbose", harmless(Rest)),
    ("ObscureKeystrokeTiming", harmless(Rest)),
    ("PermitLocalCommand", harmless(Flag)),
    ("PermitRemoteOpen", harmless(Rest)),
    ("RequestTTY", harmless(OneOf(&["yes", "no", "true", "false", "force", "auto"]))),
    ("SendEnv", harmless(Rest)),
    ("SessionType", harmless(OneOf(&["none", "subsystem", "default"]))),
    ("StdinNull", harmless(Flag)),
    ("StreamLocalBindMask", harmless(Word)),
    ("StreamLocalBindUnlink", harmless(Flag)),
    ("SyslogFacility", harmless(Word)),
    ("TCPKeepAlive", harmless(Flag)),
    ("TunnelDevice", harmless(Word)),
    ("UpdateHostKeys", harmless(OneOf(&["yes", "no", "ask", "true", "false"]))),
    ("VersionAddendum", harmless(Rest)),
    ("VisualHostKey", harmless(Flag)),
    ("WarnWeakCrypto", harmless(Rest)),
    ("XAuthLocation", harmless(Word)),
    ("AFSTokenPassing", Obsolete),
    ("Cipher", Obsolete),
    ("CompressionLevel", Obsolete),
    ("FallbackToRsh", Obsolete),
    ("GlobalKnownHostsFile2", Obsolete),
    ("KerberosAuthentication", Obsolete),
    ("KerberosTGTPassing", Obsolete),
    ("ProtocolKeepAlives", Obsolete),
    ("Protocol", Obsolete),
    ("RhostsAuthentication", Obsolete),
    ("RhostsRSAAuthentication", Obsolete),
    ("RSAAuthentication", Obsolete),
    ("SetupTimeOut", Obsolete),
    ("UsePrivilegedPort", Obsolete),
    ("UserKnownHostsFile2", Obsolete),
    ("UseRoaming", Obsolete),
    ("UseRsh", Obsolete),
];

/// In ssh_config(5)'s spelling, and what is to be done.
pub fn find(word: &str) -> Option<(&'static str, Meaning)> {
    KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(name, meaning)| (*name, *meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_keyword_stands_twice() {
        let mut names: Vec<String> = KEYWORDS.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
