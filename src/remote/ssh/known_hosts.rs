//! known_hosts as sshd(8) describes it: reads lines, judges keys, writes lines. Pure.
//!
//! A line that is not understood never gives trust. A `@revoked` line revokes as soon as
//! its names and its key can be read, whatever its type says.

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::config::pattern;
use super::options::DEFAULT_PORT;

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

    /// The length of the modulus; `None` for keys of other types.
    pub fn rsa_bits(&self) -> Option<u32> {
        let (_, rest) = string(&self.blob).filter(|(name, _)| *name == b"ssh-rsa")?;
        let (_exponent, rest) = string(rest)?;
        let (modulus, _) = string(rest)?;
        let start = modulus.iter().position(|byte| *byte != 0)?;
        let bytes = u32::try_from(modulus.len() - start).ok()?;
        Some(bytes.saturating_mul(8) - modulus[start].leading_zeros())
    }

    fn base64(&self) -> String {
        BASE64.encode(&self.blob)
    }
}

fn type_of(blob: &[u8]) -> Option<&str> {
    std::str::from_utf8(string(blob)?.0).ok()
}

/// A string of RFC 4251, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
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
    /// Keys of other types are known, none of this one; the first of them. A server is
    /// asked for the types that are known, so one that shows another has lost them, and
    /// ssh calls that changed.
    OtherTypes(KnownKey),
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
    match known.into_iter().next() {
        None => Verdict::Unknown,
        Some(first) => Verdict::OtherTypes(first),
    }
}

/// What all files say of an authority that vouches for `name` and the key that it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    Trusted,
    /// It, or the key that it vouches for.
    Revoked(KnownKey),
    Unknown,
}

pub fn judge_authority(
    files: &[impl AsRef<[u8]>],
    name: &str,
    authority: &HostKey,
    key: &HostKey,
) -> Authority {
    let mut trusted = false;
    for line in lines_for(files, name) {
        match line.marker {
            Marker::Revoked if line.known.key == *authority || line.known.key == *key => {
                return Authority::Revoked(line.known);
            }
            Marker::CertAuthority => trusted |= line.well_typed && line.known.key == *authority,
            Marker::None | Marker::Revoked => {}
        }
    }
    if trusted { Authority::Trusted } else { Authority::Unknown }
}

/// Whether a certificate could make a difference for `name`.
pub fn speaks_of_certificates(files: &[impl AsRef<[u8]>], name: &str) -> bool {
    lines_for(files, name).any(|line| line.marker != Marker::None)
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
    if port == DEFAULT_PORT { address } else { format!("[{address}]:{port}") }
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

/// Whether a line for all hosts has a key that can be read.
pub fn is_understood(line: &[u8]) -> bool {
    read_line(line, "any").is_some()
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

/// `*` and `?` as ssh has them; `name` is in lower case already, where case counts not.
pub(super) fn pattern_matches(pattern: &[u8], name: &[u8]) -> bool {
    pattern::bytes_match(&pattern.to_ascii_lowercase(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key_type: &str, body: &[u8]) -> HostKey {
        let mut blob = (key_type.len() as u32).to_be_bytes().to_vec();
        blob.extend_from_slice(key_type.as_bytes());
        blob.extend_from_slice(body);
        HostKey::from_blob(blob).unwrap()
    }

    fn shown() -> HostKey {
        key("ssh-ed25519", b"the key that the server shows")
    }

    /// `{K}` is the key that is shown, `{O}` another of its type, `{R}` one of another
    /// type, `{B}` the shown key's base64 alone, `{H}` the hashed name `web`.
    fn fill(text: &str) -> String {
        let line = |key: &HostKey| format!("{} {}", key.key_type(), key.base64());
        let hashed = new_line("web", &shown(), Some([7; 20])).unwrap();
        text.replace("{K}", &line(&shown()))
            .replace("{O}", &line(&key("ssh-ed25519", b"another")))
            .replace("{R}", &line(&key("ssh-rsa", b"rsa")))
            .replace("{B}", &shown().base64())
            .replace("{H}", hashed.split(' ').next().unwrap())
    }

    fn verdict(text: &str, name: &str) -> &'static str {
        match judge(&[fill(text)], name, &shown()) {
            Verdict::Trusted => "trusted",
            Verdict::Revoked(_) => "revoked",
            Verdict::Changed(_) => "changed",
            Verdict::OtherTypes(_) => "other",
            Verdict::Unknown => "unknown",
        }
    }

    #[test]
    fn verdicts() {
        for (text, name, expected) in [
            ("", "web", "unknown"),
            ("web {K}", "web", "trusted"),
            ("web {K}\n", "web", "trusted"),
            ("web {K}\r\n", "web", "trusted"),
            ("web {K} a comment", "web", "trusted"),
            ("web {K}\ta comment", "web", "trusted"),
            (" \t web\t{K}", "web", "trusted"),
            ("\n\n# web {O}\nweb {K}", "web", "trusted"),
            ("#web {K}", "web", "unknown"),
            ("  # web {K}", "web", "unknown"),
            ("WEB {K}", "web", "trusted"),
            ("web {K}", "WEB", "trusted"),
            ("db {K}", "web", "unknown"),
            ("web2 {K}", "web", "unknown"),
            ("we {K}", "web", "unknown"),
            ("db,web {K}", "web", "trusted"),
            ("db,web,10.0.0.1 {K}", "10.0.0.1", "trusted"),
            ("db, web {K}", "web", "unknown"),
            ("[web]:2222 {K}", "[web]:2222", "trusted"),
            ("[web]:2222 {K}", "web", "unknown"),
            ("web {K}", "[web]:2222", "unknown"),
            ("[::1]:2222 {K}", "[::1]:2222", "trusted"),
            ("* {K}", "web", "trusted"),
            ("*.org {K}", "web.example.org", "trusted"),
            ("*.org {K}", "org", "unknown"),
            ("w?b {K}", "web", "trusted"),
            ("w? {K}", "web", "unknown"),
            ("w*b*e {K}", "webbe", "trusted"),
            ("**** {K}", "web", "trusted"),
            ("[*]:2222 {K}", "[web]:2222", "trusted"),
            ("*,!web {K}", "web", "unknown"),
            ("!web,* {K}", "web", "unknown"),
            ("!w*,web {K}", "web", "unknown"),
            ("!db,* {K}", "web", "trusted"),
            ("!db {K}", "web", "unknown"),
            ("*,!web {K}\nweb {K}", "web", "trusted"),
            ("{H} {K}", "web", "trusted"),
            ("{H} {K}", "WEB", "trusted"),
            ("{H} {K}", "db", "unknown"),
            ("{H} {O}", "web", "changed"),
            ("{H},db {K}", "db", "unknown"),
            ("db,{H} {K}", "web", "unknown"),
            ("|1|broken {K}", "web", "unknown"),
            ("|1|AAAA|AAAA {K}", "web", "unknown"),
            ("|1|| {K}", "web", "unknown"),
            ("|2|AAAA|AAAA {K}", "web", "unknown"),
            ("web {O}", "web", "changed"),
            ("web {O}\nweb {K}", "web", "trusted"),
            ("web {K}\nweb {O}", "web", "trusted"),
            ("web {R}", "web", "other"),
            ("web {R}\nweb {K}", "web", "trusted"),
            ("web {R}\nweb {O}", "web", "changed"),
            ("@revoked * {K}\nweb {K}", "web", "revoked"),
            ("web {K}\n@revoked web {K}", "web", "revoked"),
            ("web {K}\n@revoked\tweb\t{K}", "web", "revoked"),
            ("web {K}\n@revoked {H} {K}", "web", "revoked"),
            ("@revoked * {K}", "web", "revoked"),
            ("@revoked db {K}\nweb {K}", "web", "trusted"),
            ("@revoked *,!web {K}\nweb {K}", "web", "trusted"),
            ("@revoked * {O}\nweb {K}", "web", "trusted"),
            ("@revoked * {O}", "web", "unknown"),
            ("@revoked * ssh-rsa {B}\nweb {K}", "web", "revoked"),
            ("@cert-authority * {K}", "web", "unknown"),
            ("@cert-authority * {O}", "web", "unknown"),
            ("@cert-authority * {O}\nweb {K}", "web", "trusted"),
            ("@unheard-of web {K}", "web", "unknown"),
            ("@ web {K}", "web", "unknown"),
            ("web", "web", "unknown"),
            ("web ssh-ed25519", "web", "unknown"),
            ("web {B}", "web", "unknown"),
            ("web ssh-rsa {B}", "web", "unknown"),
            ("web ssh-ed25519 {B}x", "web", "unknown"),
            ("web ssh-ed25519 not*base64", "web", "unknown"),
            ("web 1024 35 123456789", "web", "unknown"),
            ("web {K}\0 junk", "web", "trusted"),
            ("web\0 {K}", "web", "unknown"),
            ("web {K", "web", "unknown"),
        ] {
            assert_eq!(verdict(text, name), expected, "{text:?} for {name}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let mut file = b"\xff\xfe web\n".to_vec();
        file.extend_from_slice(fill("web {K} \n").as_bytes());
        file.extend_from_slice(b"web ssh-ed25519 \xff\n");
        assert_eq!(judge(&[file], "web", &shown()), Verdict::Trusted);
    }

    #[test]
    fn the_place_of_what_speaks_against_a_key_is_told() {
        let files = [fill("# nothing\n"), fill("db {K}\n\nweb {O}\n")];
        let Verdict::Changed(known) = judge(&files, "web", &shown()) else { panic!("not changed") };
        assert_eq!((known.file, known.line), (1, 3));
        assert_eq!(known.key, key("ssh-ed25519", b"another"));
    }

    #[test]
    fn trust_may_stand_in_any_file_and_so_may_revocation() {
        assert_eq!(judge(&[fill("web {O}"), fill("web {K}")], "web", &shown()), Verdict::Trusted);
        let files = [fill("web {K}"), fill("@revoked * {K}")];
        assert!(matches!(judge(&files, "web", &shown()), Verdict::Revoked(_)));
    }

    #[test]
    fn known_types_are_those_of_the_host() {
        let file = fill("db {K}\nweb {R}\nweb {O}\nweb {R}\n@cert-authority web {K}\nweb ssh-dss {B}\n");
        assert_eq!(known_types(&[file], "web"), ["ssh-rsa", "ssh-ed25519"]);
    }

    #[test]
    fn what_is_written_is_what_is_trusted() {
        for name in ["web", "[web]:2222", "fe80::1", "[::1]:22022", "h\u{fc}te.example"] {
            for salt in [None, Some([9; 20])] {
                let line = new_line(name, &shown(), salt).unwrap();
                assert!(line.ends_with('\n') && line.lines().count() == 1);
                assert_eq!(line.contains(name), salt.is_none(), "{line}");
                assert_eq!(judge(&[line], name, &shown()), Verdict::Trusted, "{name}");
            }
        }
    }

    #[test]
    fn names_that_would_mean_something_else_are_not_written() {
        for name in
            ["", "a b", "a\tb", "a\nb", "a,b", "*", "a?", "!a", "|1|x", "#a", "@revoked", "a\0b", "a\u{a0}b"]
        {
            assert_eq!(new_line(name, &shown(), None), None, "{name:?}");
            assert_eq!(new_line(name, &shown(), Some([1; 20])), None, "{name:?}");
        }
    }

    #[test]
    fn stars_without_end_cost_little() {
        let name = "a".repeat(200);
        let text = format!("{}b {{K}}", "a*".repeat(2000));
        assert_eq!(verdict(&text, &name), "unknown");
    }

    #[test]
    fn blobs_that_lie_about_their_length_are_no_keys() {
        for blob in
            [&b""[..], b"\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xffabc", b"\0\0\0\x04abc", b"\0\0\0\x02a\n"]
        {
            assert_eq!(HostKey::from_blob(blob), None, "{blob:?}");
        }
    }
}
