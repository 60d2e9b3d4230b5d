//! `-o KEY=VALUE`: the keywords of ssh_config that are taken on the command line.
//!
//! A keyword that is not in the table is an error: nothing is silently ignored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::Account;
use super::args::values::parse_port;
use super::error::CliError;
use crate::model::escape::printable;
use crate::model::units::parse_duration;
use crate::remote::ssh::{AddressFamily, StrictHostKeyChecking};

/// What `-o` said. `None` is "nothing".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SshKeywords {
    pub address_family: Option<AddressFamily>,
    pub batch_mode: Option<bool>,
    pub ciphers: Option<Vec<String>>,
    pub compression: Option<bool>,
    pub connect_timeout: Option<Duration>,
    pub global_known_hosts: Option<Vec<PathBuf>>,
    pub hash_known_hosts: Option<bool>,
    pub host_key_algorithms: Option<Vec<String>>,
    pub host_key_alias: Option<String>,
    pub identities_only: Option<bool>,
    /// `Some(None)`: no agent.
    pub identity_agent: Option<Option<PathBuf>>,
    /// As `-i`, several count.
    pub identity_files: Vec<PathBuf>,
    pub kex_algorithms: Option<Vec<String>>,
    pub macs: Option<Vec<String>>,
    pub methods: Option<Methods>,
    pub password_authentication: Option<bool>,
    pub port: Option<u16>,
    pub keepalive_count: Option<usize>,
    pub keepalive_interval: Option<Duration>,
    pub strict_host_key_checking: Option<StrictHostKeyChecking>,
    pub user: Option<String>,
    pub user_known_hosts: Option<Vec<PathBuf>>,
}

/// PreferredAuthentications: which methods may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    pub public_key: bool,
    pub keyboard_interactive: bool,
    pub password: bool,
}

impl Methods {
    pub const ALL: Methods = Methods { public_key: true, keyboard_interactive: true, password: true };
}

type Setter = fn(&mut SshKeywords, &str, &Account) -> Result<(), String>;

/// Keywords that take several words; each may stand in quotes of its own.
const LISTS: [&str; 2] = ["GlobalKnownHostsFile", "UserKnownHostsFile"];

/// In ssh's spelling; a keyword's first value counts, as for ssh.
const TABLE: [(&str, Setter); 22] = [
    ("AddressFamily", |k, v, _| first(&mut k.address_family, address_family(v))),
    ("BatchMode", |k, v, _| first(&mut k.batch_mode, yes_or_no(v))),
    ("Ciphers", |k, v, _| first(&mut k.ciphers, algorithms(v))),
    ("Compression", |k, v, _| first(&mut k.compression, yes_or_no(v))),
    ("ConnectTimeout", |k, v, _| first(&mut k.connect_timeout, seconds(v))),
    ("GlobalKnownHostsFile", |k, v, a| first(&mut k.global_known_hosts, paths(v, a))),
    ("HashKnownHosts", |k, v, _| first(&mut k.hash_known_hosts, yes_or_no(v))),
    ("HostKeyAlgorithms", |k, v, _| first(&mut k.host_key_algorithms, algorithms(v))),
    ("HostKeyAlias", |k, v, _| first(&mut k.host_key_alias, Ok(v.to_owned()))),
    ("IdentitiesOnly", |k, v, _| first(&mut k.identities_only, yes_or_no(v))),
    ("IdentityAgent", |k, v, a| first(&mut k.identity_agent, agent(v, a))),
    ("IdentityFile", |k, v, a| {
        k.identity_files.push(path(v, a)?);
        Ok(())
    }),
    ("KexAlgorithms", |k, v, _| first(&mut k.kex_algorithms, algorithms(v))),
    ("MACs", |k, v, _| first(&mut k.macs, algorithms(v))),
    ("PasswordAuthentication", |k, v, _| first(&mut k.password_authentication, yes_or_no(v))),
    ("Port", |k, v, _| first(&mut k.port, parse_port(v))),
    ("PreferredAuthentications", |k, v, _| first(&mut k.methods, methods(v))),
    ("ServerAliveCountMax", |k, v, _| first(&mut k.keepalive_count, count(v))),
    ("ServerAliveInterval", |k, v, _| first(&mut k.keepalive_interval, seconds(v))),
    ("StrictHostKeyChecking", |k, v, _| first(&mut k.strict_host_key_checking, strict(v))),
    ("User", |k, v, _| first(&mut k.user, Ok(v.to_owned()))),
    ("UserKnownHostsFile", |k, v, a| first(&mut k.user_known_hosts, paths(v, a))),
];

impl SshKeywords {
    pub fn parse(options: &[String], account: &Account) -> Result<SshKeywords, CliError> {
        let mut keywords = SshKeywords::default();
        for option in options {
            let shown = printable(option.as_bytes());
            let (key, value) = split(option)
                .ok_or_else(|| CliError::usage(format!("-o {shown}: write KEY=VALUE, as in ssh_config")))?;
            let Some((name, set)) = TABLE.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) else {
                let names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
                let key = printable(key.as_bytes());
                return Err(CliError::usage(format!(
                    "-o {key} is not supported; known are {}",
                    names.join(", ")
                )));
            };
            let value = if LISTS.contains(name) { value } else { unquoted(value) };
            set(&mut keywords, value, account)
                .map_err(|problem| CliError::usage(format!("-o {name}: {problem}")))?;
        }
        Ok(keywords)
    }
}

/// `Key=value`, `Key value` and `Key = value`, the value as it is written.
fn split(option: &str) -> Option<(&str, &str)> {
    let option = option.trim();
    let end = option.find(|c: char| c == '=' || c.is_whitespace())?;
    let (key, rest) = option.split_at(end);
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim();
    (!key.is_empty() && !value.is_empty()).then_some((key, value))
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// At spaces outside of double quotes, which are taken away.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut in_quotes = false;
    for c in text.chars() {
        match c {
            '"' => {
                in_quotes = !in_quotes;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !in_quotes => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if in_quotes {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

fn first<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    let value = value?;
    slot.get_or_insert(value);
    Ok(())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("has to be yes or no".to_owned()),
    }
}

fn address_family(text: &str) -> Result<AddressFamily, String> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Ok(AddressFamily::Any),
        "inet" => Ok(AddressFamily::V4),
        "inet6" => Ok(AddressFamily::V6),
        _ => Err("has to be any, inet or inet6".to_owned()),
    }
}

fn strict(text: &str) -> Result<StrictHostKeyChecking, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(StrictHostKeyChecking::Yes),
        "accept-new" => Ok(StrictHostKeyChecking::AcceptNew),
        "ask" => Ok(StrictHostKeyChecking::Ask),
        "no" | "off" | "false" => {
            Err("host keys are always checked; accept-new takes the key of a new host".to_owned())
        }
        _ => Err("has to be yes, accept-new or ask".to_owned()),
    }
}

/// At least a second: a limit of zero would mean none, and haul never waits without end.
fn seconds(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time < Duration::from_secs(1) => Err("has to be at least 1 second".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err("has to be a number from 1 to 1000".to_owned()),
    }
}

fn algorithms(text: &str) -> Result<Vec<String>, String> {
    if text.starts_with(['+', '-', '^']) {
        return Err("changing the default list by + - ^ is not supported yet; name the whole list".to_owned());
    }
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    let good = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if names.iter().all(good) { Ok(names) } else { Err("has to be names separated by commas".to_owned()) }
}

/// haul tries methods in one order; a list may leave some out, and nothing else.
fn methods(text: &str) -> Result<Methods, String> {
    const ORDER: [&str; 3] = ["publickey", "keyboard-interactive", "password"];
    let mut positions = Vec::new();
    for name in text.split(',') {
        let position = ORDER.iter().position(|known| *known == name);
        positions.push(position.ok_or_else(|| format!("known methods are {}", ORDER.join(", ")))?);
    }
    if !positions.is_sorted() {
        return Err(format!("the order is always {}", ORDER.join(", ")));
    }
    let has = |index| positions.contains(&index);
    Ok(Methods { public_key: has(0), keyboard_interactive: has(1), password: has(2) })
}

fn path(text: &str, account: &Account) -> Result<PathBuf, String> {
    if text.contains('%') {
        return Err("tokens such as %h are not supported yet; write the whole path".to_owned());
    }
    Ok(account.expand(Path::new(text)))
}

/// Separated by spaces outside of quotes; `none` is no file at all.
fn paths(text: &str, account: &Account) -> Result<Vec<PathBuf>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    words(text)?.iter().map(|text| path(text, account)).collect()
}

fn agent(text: &str, account: &Account) -> Result<Option<PathBuf>, String> {
    match text {
        "none" => Ok(None),
        "SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK" => Ok(account.agent_socket.clone()),
        _ if text.starts_with('$') => Err("of variables only $SSH_AUTH_SOCK is taken".to_owned()),
        _ => path(text, account).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            login: "alice".into(),
            home: Some("/home/alice".into()),
            config: None,
            agent_socket: Some("/run/agent".into()),
        }
    }

    fn parse(options: &[&str]) -> Result<SshKeywords, String> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        SshKeywords::parse(&options, &account()).map_err(|error| error.message)
    }

    #[test]
    fn every_keyword_is_taken_in_any_case_and_form() {
        let keywords = parse(&[
            "port=2222",
            "Port 22",
            "STRICTHOSTKEYCHECKING = accept-new",
            "UserKnownHostsFile=~/known \"/etc/known\"",
            "GlobalKnownHostsFile none",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=2",
            "ConnectTimeout=1m",
            "IdentityFile=~/a",
            "IdentityFile=\"/b c\"",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "User=bob",
            "BatchMode=no",
            "PreferredAuthentications=publickey,password",
            "PasswordAuthentication=no",
            "Ciphers=aes128-gcm@openssh.com,aes256-ctr",
            "AddressFamily=inet6",
            "Compression=yes",
        ])
        .expect("keywords");
        assert_eq!(keywords.port, Some(2222), "the first value counts");
        assert_eq!(keywords.strict_host_key_checking, Some(StrictHostKeyChecking::AcceptNew));
        assert_eq!(keywords.global_known_hosts, Some(Vec::new()));
        assert_eq!(keywords.connect_timeout, Some(Duration::from_secs(60)));
        assert_eq!(keywords.identity_files, [PathBuf::from("/home/alice/a"), PathBuf::from("/b c")]);
        assert_eq!(keywords.identity_agent, Some(None));
        assert_eq!(
            keywords.methods,
            Some(Methods { public_key: true, keyboard_interactive: false, password: true })
        );
        assert_eq!(keywords.ciphers.map(|names| names.len()), Some(2));
        assert_eq!(keywords.address_family, Some(AddressFamily::V6));
    }

    #[test]
    fn quotes_hold_the_words_of_a_path_together() {
        for (option, expected) in [
            ("UserKnownHostsFile=~/known \"/etc/known\"", &["/home/alice/known", "/etc/known"][..]),
            ("UserKnownHostsFile=\"/it's a/b\"", &["/it's a/b"]),
            ("UserKnownHostsFile \"/a b\"  \"/c d\" /e", &["/a b", "/c d", "/e"]),
        ] {
            let paths = parse(&[option]).expect(option).user_known_hosts.expect(option);
            assert_eq!(paths, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{option}");
        }
    }

    #[test]
    fn nothing_is_silently_ignored() {
        for (option, reason) in [
            ("ForwardAgent=yes", "-o ForwardAgent is not supported; known are AddressFamily"),
            ("ProxyJump=b", "-o ProxyJump is not supported"),
            ("Port", "-o Port: write KEY=VALUE"),
            ("Port=", "write KEY=VALUE"),
            ("=22", "write KEY=VALUE"),
            ("port=0", "-o Port: has to be a number from 1 to 65535"),
            ("StrictHostKeyChecking=no", "host keys are always checked"),
            ("ServerAliveInterval=0", "at least 1 second"),
            ("Ciphers=+aes128-cbc", "whole list"),
            ("Ciphers=a,,b", "separated by commas"),
            ("PreferredAuthentications=password,publickey", "the order is always"),
            ("PreferredAuthentications=gssapi-with-mic", "known methods"),
            ("UserKnownHostsFile=%d/x", "tokens"),
            ("UserKnownHostsFile=\"/a b", "not closed"),
            ("IdentityAgent=$OTHER", "only $SSH_AUTH_SOCK"),
            ("BatchMode=maybe", "yes or no"),
        ] {
            let error = parse(&[option]).expect_err(option);
            assert!(error.contains(reason), "{option}: {error}");
        }
    }
}
