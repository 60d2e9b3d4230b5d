//! ProxyJump and ProxyCommand as they are written.

use super::values;

/// What ProxyJump says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyJump {
    /// `none`: no jump, whatever is said later.
    Nowhere,
    Via(Jump),
}

/// What stands between this machine and the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    Jump(Jump),
    /// As written.
    Command(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// The last hop, from which the host is reached.
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// The hops before it, as written: the way to the last hop.
    pub before: Option<String>,
}

/// `[user@]host[:port]` or `ssh://[user@]host[:port]`, several with commas, or `none`.
pub fn parse(text: &str) -> Result<ProxyJump, String> {
    let problem = || "has to be [user@]host[:port], several separated by commas, or none".to_owned();
    if text.eq_ignore_ascii_case("none") {
        return Ok(ProxyJump::Nowhere);
    }
    // ssh ends the value at a comment or at a space.
    let value = text.split('#').next().unwrap_or(text);
    let first = value.chars().next().map_or(0, char::len_utf8);
    let end = value[first..].find(|c: char| c.is_ascii_whitespace()).map_or(value.len(), |at| first + at);
    let mut hops = Vec::new();
    for hop in value[..end].split(',') {
        hops.push(parse_hop(hop).ok_or_else(problem)?);
    }
    let (user, host, port) = hops.pop().ok_or_else(problem)?;
    let before = value[..end].rfind(',').map(|comma| value[..comma].to_owned());
    Ok(ProxyJump::Via(Jump { user, host, port, before }))
}

type Hop = (Option<String>, String, Option<u16>);

fn parse_hop(text: &str) -> Option<Hop> {
    match text.strip_prefix("ssh://") {
        Some(rest) => parse_uri(rest),
        None => parse_plain(text),
    }
}

fn parse_plain(text: &str) -> Option<Hop> {
    let (user, rest) = match text.rsplit_once('@') {
        Some(("", _)) => return None,
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, text),
    };
    let (host, port) = split_port(rest)?;
    Some((user, host.to_owned(), port))
}

/// The path that a URI may have elsewhere has no place here.
fn parse_uri(text: &str) -> Option<Hop> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => {
            // What follows a semicolon is about the connection; ssh passes over it.
            let user = user.split(';').next().filter(|user| !user.is_empty())?;
            (Some(percent_decoded(user)?), rest)
        }
        None => (None, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return None;
    }
    let (host, port) = split_port(rest)?;
    if !is_domain(host) {
        return None;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    Some((user, name.to_owned(), port))
}

/// Whether DNS could have a domain of this name, a dot at its end or not.
pub fn is_domain(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let begins_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    begins_well && name.bytes().all(good) && !name.contains("..")
}

/// A host, in brackets if it has colons, and a port if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None if text.starts_with('[') => return None,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains('/') {
        return None;
    }
    match port {
        None | Some("") => Some((host, None)),
        Some(port) => Some((host, Some(values::port(port)?))),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                bytes.push(u8::try_from(value).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(user: Option<&str>, host: &str, port: Option<u16>, before: Option<&str>) -> ProxyJump {
        ProxyJump::Via(Jump {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            before: before.map(str::to_owned),
        })
    }

    #[test]
    fn forms_that_are_taken() {
        for (text, expected) in [
            ("bastion", jump(None, "bastion", None, None)),
            ("al@bastion:2222", jump(Some("al"), "bastion", Some(2222), None)),
            ("a@b@bastion", jump(Some("a@b"), "bastion", None, None)),
            ("[::1]:22", jump(None, "::1", Some(22), None)),
            ("[::1]", jump(None, "::1", None, None)),
            ("a,b:1,c@d", jump(Some("c"), "d", None, Some("a,b:1"))),
            ("ssh://u%40x@b:22", jump(Some("u@x"), "b", Some(22), None)),
            ("ssh://b.", jump(None, "b", None, None)),
            ("bastion # the way in", jump(None, "bastion", None, None)),
            ("none", ProxyJump::Nowhere),
            ("NONE", ProxyJump::Nowhere),
            ("none # nothing", jump(None, "none", None, None)),
            ("b:", jump(None, "b", None, None)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn forms_that_are_refused() {
        for text in [
            "",
            ",",
            "a,",
            ",a",
            "@a",
            "a:0",
            "a:x",
            "a:70000",
            "[::1",
            "[::1]x",
            "ssh://a/b",
            "a/b",
            "ssh://",
            "a, b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
