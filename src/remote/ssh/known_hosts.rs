//! known_hosts as sshd(8) describes it: reads lines, judges keys, writes lines. Pure.
//!
//! A line that is not understood never gives trust. A `@revoked` line revokes as soon as
//! its names and its key can be read, whatever its type says.

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

const HASH_MAGIC: &[u8] = b"|1|";

/// A public key as it travels: its type is the first string of the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    blob: Vec<u8>,
}

impl HostKey {
    /// `None` where the blob does not begin with the name of a type.
    pub fn from_blob(blob: impl Into<Vec<u8>>) -> Option<HostKey> {
        let key = HostKey { blob: blob.into() };
        let name = type_of(&key.blob)?;
        (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(key)
    }

    /// `ssh-ed25519`, `ssh-rsa`, …; never a signature algorithm.
    pub fn key_type(&self) -> &str {
        type_of(&self.blob).unwrap_or_default()
    }

    /// As `ssh` shows it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(&self.blob)))
    }

    fn base64(&self) -> String {
        BASE64.encode(&self.blob)
    }
}

fn type_of(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// A key that a file holds for the host in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    pub key: HostKey,
    /// Which of the files, from 0.
    pub file: usize,
    /// Line in it, from 1.
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A file holds this very key for this host.
    Trusted,
    /// A file says never to trust this key.
    Revoked(KnownKey),
    /// Only another key of the same type is known.
    Changed(KnownKey),
    /// Keys of other types are known, none of this one. ssh asks a server for the types
    /// it knows first, so a server that shows this one does not have them any more.
    OtherTypes(Vec<KnownKey>),
    /// The host is in no file.
    Unknown,
}

/// What all files say of `name` (see [`lookup_name`]) and the key that it showed.
pub fn judge(files: &[impl AsRef<[u8]>], name: &str, key: &HostKey) -> Verdict {
    let mut known = Vec::new();
    let mut trusted = false;
    for line in lines_for(files, name) {
        match line.marker {
            Marker::Revoked if line.known.key == *key => return Verdict::Revoked(line.known),
            Marker::None if line.well_typed => {
                trusted |= line.known.key == *key;
                known.push(line.known);
            }
            Marker::None | Marker::Revoked | Marker::CertAuthority => {}
        }
    }
    if trusted {
        return Verdict::Trusted;
    }
    if let Some(other) = known.iter().find(|known| known.key.key_type() == key.key_type()) {
        return Verdict::Changed(other.clone());
    }
    if known.is_empty() { Verdict::Unknown } else { Verdict::OtherTypes(known) }
}

/// The types of the keys that are known for `name`, without those that are revoked, each
/// once, in the files' order. They belong first in the list of host key algorithms.
pub fn known_types(files: &[impl AsRef<[u8]>], name: &str) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    for line in lines_for(files, name) {
        let key_type = line.known.key.key_type();
        if line.marker == Marker::None && line.well_typed && !types.iter().any(|known| known == key_type) {
            types.push(key_type.to_string());
        }
    }
    types
}

/// The name that known_hosts has for an address and a port. Names are compared without
/// regard to case.
pub fn lookup_name(address: &str, port: u16) -> String {
    let address = address.to_ascii_lowercase();
    if port == super::options::DEFAULT_PORT { address } else { format!("[{address}]:{port}") }
}

/// The line, with its end, that ssh writes for a new key. With `salt` the name is hashed.
/// `None` for a name that would mean something else in the file.
pub fn new_line(name: &str, key: &HostKey, salt: Option<[u8; 20]>) -> Option<String> {
    let special = |c: char| c.is_whitespace() || c.is_control() || ",*?!|#@\"\\".contains(c);
    if name.is_empty() || name.contains(special) {
        return None;
    }
    let written = match salt {
        None => name.to_string(),
        Some(salt) => {
            let hash = name_mac(&salt, name.as_bytes())?.finalize().into_bytes();
            format!("|1|{}|{}", BASE64.encode(&salt), BASE64.encode(&hash))
        }
    };
    Some(format!("{written} {} {}\n", key.key_type(), key.base64()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    CertAuthority,
    Revoked,
}

/// One line whose names match the host and whose key can be read.
struct Line {
    marker: Marker,
    known: KnownKey,
    /// The type before the key is the key's own.
    well_typed: bool,
}

fn lines_for<'a>(files: &'a [impl AsRef<[u8]>], name: &'a str) -> impl Iterator<Item = Line> + 'a {
    let name = name.to_ascii_lowercase();
    files.iter().enumerate().flat_map(move |(file, text)| {
        let name = name.clone();
        text.as_ref().split(|byte| *byte == b'\n').enumerate().filter_map(move |(index, line)| {
            let (marker, key, well_typed) = read_line(line, &name)?;
            Some(Line { marker, known: KnownKey { key, file, line: index + 1 }, well_typed })
        })
    })
}

fn read_line(line: &[u8], name: &str) -> Option<(Marker, HostKey, bool)> {
    // ssh reads a line as a C string.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (mut field, mut rest) = next_field(line)?;
    if field.starts_with(b"#") {
        return None;
    }
    let mut marker = Marker::None;
    if field.starts_with(b"@") {
        marker = match field {
            b"@cert-authority" => Marker::CertAuthority,
            b"@revoked" => Marker::Revoked,
            _ => return None,
        };
        (field, rest) = next_field(rest)?;
    }
    if !names_match(field, name) {
        return None;
    }
    let (key_type, rest) = next_field(rest)?;
    let (base64, _comment) = next_field(rest)?;
    let key = HostKey::from_blob(BASE64.decode(base64).ok()?)?;
    let well_typed = key.key_type().as_bytes() == key_type;
    Some((marker, key, well_typed))
}

/// The next word and what follows it; blanks and tabs part words.
fn next_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = text.iter().position(|byte| !blank(byte))?;
    let text = &text[start..];
    let end = text.iter().position(blank).unwrap_or(text.len());
    Some(text.split_at(end))
}

fn names_match(names: &[u8], name: &str) -> bool {
    if names.starts_with(HASH_MAGIC) {
        return hashed_name_matches(names, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in names.split(|byte| *byte == b',') {
        match pattern.strip_prefix(b"!") {
            // A negation that matches overrules everything else on its line.
            Some(pattern) if pattern_matches(pattern, name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= pattern_matches(pattern, name.as_bytes()),
        }
    }
    found
}

/// `|1|salt|HMAC-SHA1(salt, name)`; one name only.
fn hashed_name_matches(field: &[u8], name: &str) -> Option<bool> {
    let rest = field.strip_prefix(HASH_MAGIC)?;
    let bar = rest.iter().position(|byte| *byte == b'|')?;
    let salt = BASE64.decode(&rest[..bar]).ok()?;
    let hash = BASE64.decode(&rest[bar + 1..]).ok()?;
    Some(name_mac(&salt, name.as_bytes())?.verify_slice(&hash).is_ok())
}

fn name_mac(salt: &[u8], name: &[u8]) -> Option<Hmac<Sha1>> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    mac.update(name);
    Some(mac)
}

/// `*` and `?` as ssh has them; `name` is in lower case already. Walks without recursion,
/// so that a line of many stars costs time in proportion and no stack.
fn pattern_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
            }
            Some(byte) if byte.to_ascii_lowercase() == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                p = after_star;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
