//! DEST: `[user@]host:path` as scp reads it, `[address]:path`, or a URL, `sftp://` or
//! `ssh://`, which mean the same.
//!
//! The path is bytes and goes to the target as it is. The host part may be a pattern of
//! the inventory (`web[01-20]`), which is why brackets guard a colon anywhere in it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::model::escape::printable;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub user: Option<String>,
    /// A name, an id, a group, a pattern or an address, without brackets.
    pub host: String,
    /// The host was in brackets: an address, never a pattern.
    pub is_address: bool,
    pub port: Option<u16>,
    /// Empty stands for the remote home.
    pub path: Vec<u8>,
}

/// Why DEST cannot be read. Displays as one line that says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "destination '{}': {}", self.text, self.problem)
    }
}

impl std::error::Error for DestinationError {}

type Problem = &'static str;

const SCHEMES: [&str; 2] = ["sftp://", "ssh://"];

impl Destination {
    pub fn parse(text: &OsStr) -> Result<Destination, DestinationError> {
        let bytes = text.as_bytes();
        let parsed = match strip_scheme(bytes) {
            Some((_, rest)) => parse_url(rest),
            None => parse_scp(bytes),
        };
        parsed.map_err(|problem| DestinationError { text: shown(bytes), problem })
    }
}

/// A password that someone put into a URL is not repeated on the terminal or in a log.
fn shown(bytes: &[u8]) -> String {
    let Some((scheme, rest)) = strip_scheme(bytes) else { return printable(bytes) };
    let authority = &rest[..position(rest, b'/').unwrap_or(rest.len())];
    let Some(at) = last_position(authority, b'@') else { return printable(bytes) };
    match position(&authority[..at], b':') {
        Some(colon) => {
            let (scheme, user) = (printable(scheme), printable(&authority[..colon]));
            format!("{scheme}{user}:***{}", printable(&rest[at..]))
        }
        None => printable(bytes),
    }
}

/// The scheme as written, and what follows it.
fn strip_scheme(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    SCHEMES.iter().find_map(|scheme| {
        let (written, rest) = bytes.split_at_checked(scheme.len())?;
        written.eq_ignore_ascii_case(scheme.as_bytes()).then_some((written, rest))
    })
}

fn parse_scp(bytes: &[u8]) -> Result<Destination, Problem> {
    if bytes.is_empty() {
        return Err("it is empty; write [user@]host:path");
    }
    if let Some(end) = find(bytes, b"://") {
        let scheme_like = end > 0 && bytes[..end].iter().all(u8::is_ascii_alphanumeric);
        if scheme_like {
            return Err("of URLs only sftp://user@host:port/path is taken, and ssh:// for the same");
        }
    }
    let colon = host_end(bytes)?;
    let (login, path) = (&bytes[..colon], &bytes[colon + 1..]);
    if is_bare_ipv6(bytes) {
        return Err("an IPv6 address stands in brackets: [2001:db8::1]:path");
    }
    let (user, host) = split_user(login)?;
    let (host, is_address) = match host {
        [b'[', inner @ .., b']'] if is_bracketed_address(inner) => (inner, true),
        _ => (host, false),
    };
    if user.is_none() && host.len() == 1 && host[0].is_ascii_alphabetic() && path.first() == Some(&b'\\') {
        return Err("this looks like a Windows path; a destination is [user@]host:path");
    }
    Ok(Destination {
        user: user.map(|user| text_of(user, "the user name is not UTF-8")).transpose()?,
        host: checked_host(host)?,
        is_address,
        port: None,
        path: path.to_vec(),
    })
}

/// `::1:/path`, `user@2001:db8::1:path`: the path would be taken to begin too early.
fn is_bare_ipv6(bytes: &[u8]) -> bool {
    let address = |end: usize| {
        let login = &bytes[..end];
        let start = last_position(login, b'@').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&login[start..]).unwrap_or_default();
        let text = text.split('%').next().unwrap_or_default();
        text.parse::<std::net::Ipv6Addr>().is_ok()
    };
    let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    // An address has no more colons than these.
    colons.take(MAX_IPV6_COLONS + 1).any(address) || address(bytes.len())
}

const MAX_IPV6_COLONS: usize = 8;

/// Where the colon between host and path stands.
fn host_end(bytes: &[u8]) -> Result<usize, Problem> {
    let mut depth = 0usize;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => return Ok(i),
            // A slash before any colon makes it a local path, as for scp.
            b'/' if depth == 0 => break,
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a '[' is not closed; an IPv6 address is written [::1]:path");
    }
    Err("there is no host; write [user@]host:path (did you mean a local path? haul uploads to a host)")
}

/// `[::1]` and `[web1]` are addresses; `[01-20]` alone is too little for a pattern and is
/// taken as one all the same, so that nothing is connected to by mistake.
fn is_bracketed_address(inner: &[u8]) -> bool {
    !inner.contains(&b'[') && !inner.contains(&b',') && !inner.contains(&b']')
}

fn split_user(login: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Problem> {
    match last_position(login, b'@') {
        None => Ok((None, login)),
        Some(0) => Err("the user name before '@' is empty"),
        Some(at) => Ok((Some(&login[..at]), &login[at + 1..])),
    }
}

fn checked_host(host: &[u8]) -> Result<String, Problem> {
    if host.is_empty() {
        return Err("the host before ':' is empty; write [user@]host:path");
    }
    if host[0] == b'-' {
        return Err("a host name cannot begin with '-'");
    }
    let host = text_of(host, "the host name is not UTF-8")?;
    if host.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a host name cannot contain spaces or control characters");
    }
    Ok(host)
}

fn text_of(bytes: &[u8], problem: Problem) -> Result<String, Problem> {
    String::from_utf8(bytes.to_vec()).map_err(|_| problem)
}

/// What follows `sftp://`. The path is absolute; `/~/` at its start is the remote home.
fn parse_url(rest: &[u8]) -> Result<Destination, Problem> {
    let slash = position(rest, b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (user, address) = split_user(authority)?;
    if user.is_some_and(|user| user.contains(&b':')) {
        return Err("a password in a URL would be seen by everyone on this machine; haul asks for it");
    }
    let user = match user {
        Some(user) => Some(text_of(&percent_decoded(user)?, "the user name is not UTF-8")?),
        None => None,
    };
    let (host, port, is_address) = match address {
        [b'[', bracketed @ ..] => {
            let end = position(bracketed, b']').ok_or("a '[' is not closed")?;
            let port = match &bracketed[end + 1..] {
                [] => None,
                [b':', digits @ ..] => Some(digits),
                _ => return Err("after ']' comes ':port' or '/path'"),
            };
            (&bracketed[..end], port, true)
        }
        _ => match last_position(address, b':') {
            Some(colon) => (&address[..colon], Some(&address[colon + 1..]), false),
            None => (address, None, false),
        },
    };
    if !is_address && host.contains(&b':') {
        return Err("an IPv6 address in a URL stands in brackets: sftp://[::1]/path");
    }
    let path = percent_decoded(path)?;
    if path.is_empty() {
        return Err("there is no path; write sftp://user@host:port/path");
    }
    let path = path.strip_prefix(b"/~/").map(<[u8]>::to_vec).unwrap_or(path);
    Ok(Destination {
        user,
        host: checked_host(&percent_decoded(host)?)?,
        is_address,
        port: port.map(parse_port).transpose()?,
        path,
    })
}

fn parse_port(digits: &[u8]) -> Result<u16, Problem> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u16>().ok());
    match number {
        Some(port) if all_digits && port != 0 => Ok(port),
        _ => Err("the port is a number from 1 to 65535"),
    }
}

fn percent_decoded(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    const PROBLEM: Problem = "after '%' come two hexadecimal digits that are not 00 (a '%' itself is %25)";
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return Err(PROBLEM) };
        rest = tail;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(PROBLEM);
        match u8::try_from(digit(*high)? * 16 + digit(*low)?) {
            Ok(0) | Err(_) => return Err(PROBLEM),
            Ok(byte) => decoded.push(byte),
        }
    }
    Ok(decoded)
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

fn last_position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == wanted)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Expected<'a> = (Option<&'a str>, &'a str, Option<u16>, &'a [u8]);

    #[test]
    fn forms_that_are_taken() {
        let cases: [(&[u8], Expected<'_>); 29] = [
            ("bücher.example:/x".as_bytes(), (None, "bücher.example", None, b"/x")),
            ("jürgen@bücher:x".as_bytes(), (Some("jürgen"), "bücher", None, b"x")),
            ("sftp://b%C3%BCcher/x".as_bytes(), (None, "bücher", None, b"/x")),
            (b"sftp://[fe80::1%25eth0]:2222/x", (None, "fe80::1%eth0", Some(2222), b"/x")),
            (b"ssh://u@web1:2222/x", (Some("u"), "web1", Some(2222), b"/x")),
            (b"SSH://web1/~/x", (None, "web1", None, b"x")),
            (b"12:34", (None, "12", None, b"34")),
            (b"web1:/srv/img", (None, "web1", None, b"/srv/img")),
            (b"web1:", (None, "web1", None, b"")),
            (b"web1:a:b", (None, "web1", None, b"a:b")),
            (b"alice@web1:img", (Some("alice"), "web1", None, b"img")),
            (b"a@b@web1:img", (Some("a@b"), "web1", None, b"img")),
            (b"web1:\xff\xfe", (None, "web1", None, b"\xff\xfe")),
            (b"web1:dir/", (None, "web1", None, b"dir/")),
            (b"web1:~/x", (None, "web1", None, b"~/x")),
            (b"[::1]:/x", (None, "::1", None, b"/x")),
            (b"u@[fe80::1%eth0]:/x", (Some("u"), "fe80::1%eth0", None, b"/x")),
            (b"[web1]:/x", (None, "web1", None, b"/x")),
            (b"web[01-20]:/x", (None, "web[01-20]", None, b"/x")),
            (b"web[1,3]:/x", (None, "web[1,3]", None, b"/x")),
            (b"all,!db:/x", (None, "all,!db", None, b"/x")),
            (b"c:/x", (None, "c", None, b"/x")),
            (b"sftp://web1/srv/img", (None, "web1", None, b"/srv/img")),
            (b"sftp://u@web1:2222/a%20b", (Some("u"), "web1", Some(2222), b"/a b")),
            (b"SFTP://web1/a%ffb", (None, "web1", None, b"/a\xffb")),
            (b"sftp://u@[::1]:22/x", (Some("u"), "::1", Some(22), b"/x")),
            (b"sftp://[::1]/x", (None, "::1", None, b"/x")),
            (b"sftp://web1/~/x", (None, "web1", None, b"x")),
            (b"sftp://a%40b@web1/~/", (Some("a@b"), "web1", None, b"")),
        ];
        for (text, (user, host, port, path)) in cases {
            let parsed = Destination::parse(OsStr::from_bytes(text)).expect("a destination");
            assert_eq!((parsed.user.as_deref(), parsed.host.as_str(), parsed.port), (user, host, port));
            assert_eq!(parsed.path, path);
        }
    }

    #[test]
    fn forms_that_are_refused_say_why() {
        for (text, reason) in [
            ("", "it is empty"),
            ("/srv/img", "did you mean a local path"),
            ("./web1:x", "did you mean a local path"),
            ("img", "there is no host"),
            (":/x", "the host before ':' is empty"),
            ("u@:/x", "the host before ':' is empty"),
            ("@web1:/x", "user name before '@' is empty"),
            ("-oProxyCommand=x:/x", "cannot begin with '-'"),
            ("a b:/x", "spaces"),
            ("[::1:/x", "not closed"),
            ("[]:/x", "host before ':' is empty"),
            ("C:\\img", "Windows path"),
            ("scp://web1/x", "only sftp://"),
            ("ssh://u:secret@web1/x", "haul asks for it"),
            ("ssh://web1", "there is no path"),
            ("2001:db8::7:/srv/x", "stands in brackets"),
            ("::1:/srv/x", "stands in brackets"),
            ("u@fe80::1%eth0:x", "stands in brackets"),
            ("::1", "stands in brackets"),
            ("https://web1/x", "only sftp://"),
            ("sftp://web1", "there is no path"),
            ("sftp:///x", "host before ':' is empty"),
            ("sftp://web1:0/x", "1 to 65535"),
            ("sftp://web1:70000/x", "1 to 65535"),
            ("sftp://web1:+22/x", "1 to 65535"),
            ("sftp://web1:/x", "1 to 65535"),
            ("sftp://::1/x", "brackets"),
            ("sftp://web1/%zz", "hexadecimal"),
            ("sftp://web1/%0", "hexadecimal"),
            ("sftp://web1/%00", "hexadecimal"),
            ("sftp://[::1]x/x", "after ']'"),
        ] {
            let error = Destination::parse(OsStr::new(text)).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for scheme in SCHEMES {
            let text = format!("{scheme}u:secret@web1/x");
            let error = Destination::parse(OsStr::new(&text)).expect_err("a password").to_string();
            assert!(!error.contains("secret") && error.contains(&format!("{scheme}u:***@web1")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_paths_stay_bytes(
            text in proptest::collection::vec(any::<u8>(), 0..40),
            path in proptest::collection::vec(1u8.., 0..40),
        ) {
            let _ = Destination::parse(OsStr::from_bytes(&text));
            let whole = [b"u@host:", &path[..]].concat();
            if let Ok(parsed) = Destination::parse(OsStr::from_bytes(&whole)) {
                prop_assert_eq!(parsed.path, path);
            } else {
                prop_assert!(path.starts_with(b"//"), "only a URL-like thing is refused");
            }
        }
    }
}
