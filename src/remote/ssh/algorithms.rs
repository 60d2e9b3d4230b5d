//! Which algorithms are offered, and in which order.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{AlgorithmKind, Preferred, cipher, compression, kex, mac};

use super::known_hosts::pattern_matches;
use super::options::SshOptions;
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// Fastest first where the machine has AES instructions.
const CIPHERS_WITH_AES: [cipher::Name; 6] = [
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];
const CIPHERS_WITHOUT_AES: [cipher::Name; 6] = [
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];
const KEX: [kex::Name; 10] = [
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::MLKEM768X25519_SHA256,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
];
/// No key exchanges but announcements; strict key exchange is not up for choice.
const KEX_EXTENSIONS: [kex::Name; 2] =
    [kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];
const MACS: [mac::Name; 4] = [mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];
const HOST_KEYS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";

/// What is offered to a server, and what could not be.
pub struct Offer {
    pub preferred: Preferred,
    /// Names that were asked for and that haul does not have, with their kind.
    pub unknown: Vec<String>,
}

/// What the known_hosts files say of a host before it is asked.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Types of its keys.
    pub types: Vec<String>,
    /// Something is said of certificates; otherwise none is asked for.
    pub certificates: bool,
}

/// The offer. Types of host keys that are known come first, as ssh has it, unless the
/// list was given whole: then its order holds. `BadRequest` where a list has nothing that
/// haul knows.
pub fn offer(options: &SshOptions, known: &Known) -> Result<Offer, RemoteError> {
    let mut lists = Lists { host: &options.host, unknown: Vec::new() };
    let kex_all: Vec<&str> = kex::ALL_KEX_ALGORITHMS.iter().map(|name| (**name).as_ref()).collect();
    let mut kex: Vec<kex::Name> = lists.choose(
        "key exchange",
        options.kex_algorithms.as_deref(),
        &texts(&KEX),
        &without(&kex_all, kex::NONE.as_ref()),
        |name| kex::Name::try_from(name).ok(),
    )?;
    kex.extend(KEX_EXTENSIONS);
    let cipher_all: Vec<&str> = cipher::ALL_CIPHERS.iter().map(|name| (**name).as_ref()).collect();
    let cipher_all = without(&without(&cipher_all, cipher::NONE.as_ref()), cipher::CLEAR.as_ref());
    let cipher = lists.choose(
        "cipher",
        options.ciphers.as_deref(),
        &texts(if has_aes() { &CIPHERS_WITH_AES } else { &CIPHERS_WITHOUT_AES }),
        &cipher_all,
        |name| cipher::Name::try_from(name).ok(),
    )?;
    let mac_all: Vec<&str> = mac::ALL_MAC_ALGORITHMS.iter().map(|name| (**name).as_ref()).collect();
    let mac = lists.choose(
        "MAC",
        options.macs.as_deref(),
        &texts(&MACS),
        &without(&mac_all, mac::NONE.as_ref()),
        |name| mac::Name::try_from(name).ok(),
    )?;
    let (key, host_key_certificates) = host_keys(&mut lists, options, known)?;
    let compression = if options.compression {
        vec![compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE]
    } else {
        vec![compression::NONE]
    };
    Ok(Offer {
        preferred: Preferred {
            kex: Cow::Owned(kex),
            key: Cow::Owned(key),
            host_key_certificates: Cow::Owned(host_key_certificates),
            cipher: Cow::Owned(cipher),
            mac: Cow::Owned(mac),
            compression: Cow::Owned(compression),
        },
        unknown: lists.unknown,
    })
}

/// The keyword of ssh_config that asks for other algorithms.
pub fn keyword(kind: &AlgorithmKind) -> &'static str {
    match kind {
        AlgorithmKind::Kex => "KexAlgorithms",
        AlgorithmKind::Key => "HostKeyAlgorithms",
        AlgorithmKind::Cipher => "Ciphers",
        AlgorithmKind::Compression => "Compression",
        AlgorithmKind::Mac => "MACs",
    }
}

/// Plain keys, and those with a certificate.
fn host_keys(
    lists: &mut Lists<'_>,
    options: &SshOptions,
    known: &Known,
) -> Result<(Vec<Algorithm>, Vec<Algorithm>), RemoteError> {
    let plain: Vec<&str> = HOST_KEYS.iter().map(Algorithm::as_str).collect();
    let certified: Vec<String> = plain.iter().map(|name| format!("{name}{CERTIFICATE_SUFFIX}")).collect();
    let default: Vec<&str> = certified.iter().map(String::as_str).chain(plain).collect();
    // SHA-1 only for who asks for it.
    let old_certified = format!("ssh-rsa{CERTIFICATE_SUFFIX}");
    let all: Vec<&str> = default.iter().copied().chain([old_certified.as_str(), "ssh-rsa"]).collect();
    let wanted = options.host_key_algorithms.as_deref();
    let mut chosen = lists.choose("host key", wanted, &default, &all, |name| {
        let is_certified = name.ends_with(CERTIFICATE_SUFFIX);
        let plain = name.strip_suffix(CERTIFICATE_SUFFIX).unwrap_or(name);
        Some((is_certified, plain.parse::<Algorithm>().ok()?))
    })?;
    let change = wanted.and_then(|wanted| wanted.first()).and_then(|first| first.chars().next());
    if wanted.is_none() || matches!(change, Some('+' | '-')) {
        // A stable sort keeps the order within both halves.
        chosen.sort_by_key(|(_, algorithm)| !known.types.iter().any(|known| *known == key_type(algorithm)));
    }
    let (certified, plain): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(certified, _)| *certified);
    let bare = |list: Vec<(bool, Algorithm)>| list.into_iter().map(|(_, algorithm)| algorithm).collect();
    Ok((bare(plain), if known.certificates { bare(certified) } else { Vec::new() }))
}

struct Lists<'a> {
    host: &'a str,
    unknown: Vec<String>,
}

impl Lists<'_> {
    /// `wanted` as ssh_config has it: a whole list, or what changes the default one.
    fn choose<T>(
        &mut self,
        kind: &str,
        wanted: Option<&[String]>,
        default: &[&str],
        all: &[&str],
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, RemoteError> {
        let (names, unknown) = resolve(wanted, default, all);
        self.unknown.extend(unknown.iter().map(|name| format!("{kind} {}", printable(name.as_bytes()))));
        let found: Vec<T> = names.into_iter().filter_map(find).collect();
        if found.is_empty() {
            return Err(RemoteError::new(
                RemoteErrorKind::BadRequest,
                format!(
                    "{}: haul has none of the {kind} algorithms that were asked for: {}; it has {}",
                    self.host,
                    printable(wanted.unwrap_or_default().join(",").as_bytes()),
                    all.join(",")
                ),
            ));
        }
        Ok(found)
    }
}

/// The names that remain, and those that are not among `all`. Patterns stand for all
/// names that they match.
fn resolve<'a>(
    wanted: Option<&[String]>,
    default: &[&'a str],
    all: &[&'a str],
) -> (Vec<&'a str>, Vec<String>) {
    let Some(wanted) = wanted else { return (default.to_vec(), Vec::new()) };
    let change = wanted.first().and_then(|first| first.chars().next()).filter(|c| "+-^".contains(*c));
    let patterns = wanted.iter().enumerate().map(|(index, name)| match change {
        Some(change) if index == 0 => name.trim_start_matches(change),
        _ => name.as_str(),
    });
    let mut named: Vec<&'a str> = Vec::new();
    let mut unknown = Vec::new();
    for pattern in patterns.filter(|pattern| !pattern.is_empty()) {
        let mut matches =
            all.iter().filter(|name| pattern_matches(pattern.as_bytes(), name.as_bytes())).peekable();
        if matches.peek().is_none() && change != Some('-') {
            unknown.push(pattern.to_string());
        }
        named.extend(matches);
    }
    let mut names: Vec<&'a str> = match change {
        None => named,
        Some('+') => default.iter().copied().chain(named).collect(),
        Some('-') => default.iter().copied().filter(|name| !named.contains(name)).collect(),
        _ => named.into_iter().chain(default.iter().copied()).collect(),
    };
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = !seen.contains(name);
        seen.push(*name);
        new
    });
    (names, unknown)
}

fn texts<N: AsRef<str>>(names: &[N]) -> Vec<&str> {
    names.iter().map(AsRef::as_ref).collect()
}

fn without<'a>(names: &[&'a str], one: &str) -> Vec<&'a str> {
    names.iter().copied().filter(|name| *name != one).collect()
}

/// The type of key that an algorithm signs with, as known_hosts has it.
fn key_type(algorithm: &Algorithm) -> &str {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa",
        other => other.as_str(),
    }
}

fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(algorithms: &[Algorithm]) -> Vec<String> {
        algorithms.iter().map(|algorithm| algorithm.as_str().to_string()).collect()
    }

    fn known(types: &[&str], certificates: bool) -> Known {
        Known { types: types.iter().map(|name| name.to_string()).collect(), certificates }
    }

    fn list(names: &str) -> Option<Vec<String>> {
        Some(names.split(',').map(str::to_string).collect())
    }

    fn host_keys(wanted: Option<&str>, known: &Known) -> (Vec<String>, Vec<String>) {
        let options = SshOptions { host_key_algorithms: wanted.and_then(list), ..SshOptions::default() };
        let offer = offer(&options, known).unwrap();
        (names(&offer.preferred.key), names(&offer.preferred.host_key_certificates))
    }

    #[test]
    fn known_types_are_asked_for_first() {
        let (keys, certificates) = host_keys(None, &known(&["ssh-rsa"], false));
        assert_eq!(keys[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert!(certificates.is_empty());
        assert_eq!(host_keys(Some("-ssh-ed25519"), &known(&["ssh-rsa"], false)).0[0], "rsa-sha2-512");
        assert_eq!(host_keys(Some("^ssh-ed25519"), &known(&["ssh-rsa"], false)).0[0], "ssh-ed25519");
    }

    #[test]
    fn certificates_are_asked_for_where_something_is_said_of_them() {
        let (keys, certificates) = host_keys(None, &known(&["ecdsa-sha2-nistp256"], true));
        assert_eq!(keys[0], "ecdsa-sha2-nistp256");
        assert_eq!(certificates[..2], ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
        let (keys, certificates) =
            host_keys(Some("ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"), &known(&[], true));
        assert_eq!((keys, certificates), (vec!["ssh-ed25519".into()], vec!["ssh-ed25519".into()]));
        assert_eq!(host_keys(Some("-*-cert-v01@openssh.com"), &known(&[], true)).1, [""; 0]);
    }

    #[test]
    fn a_given_list_keeps_its_order() {
        let (keys, _) = host_keys(Some("ssh-ed25519,rsa-sha2-256,junk"), &known(&["ssh-rsa"], false));
        assert_eq!(keys, ["ssh-ed25519", "rsa-sha2-256"]);
    }

    #[test]
    fn lists_are_changed_as_ssh_changes_them() {
        let (default, all) = (["a1", "a2", "b1"], ["a1", "a2", "b1", "old1", "old2"]);
        for (wanted, expected, expected_unknown) in [
            ("b1,a1", "b1,a1", ""),
            ("b1,b1,a1", "b1,a1", ""),
            ("a*", "a1,a2", ""),
            ("new,a1,newer", "a1", "new,newer"),
            ("+old1", "a1,a2,b1,old1", ""),
            ("+old2,a1", "a1,a2,b1,old2", ""),
            ("+old?", "a1,a2,b1,old1,old2", ""),
            ("+new", "a1,a2,b1", "new"),
            ("-a1", "a2,b1", ""),
            ("-a*,new", "b1", ""),
            ("-*", "", ""),
            ("^b1", "b1,a1,a2", ""),
            ("^old1,b1,new", "old1,b1,a1,a2", "new"),
        ] {
            let (names, unknown) = resolve(list(wanted).as_deref(), &default, &all);
            assert_eq!(
                (names.join(","), unknown.join(",")),
                (expected.into(), expected_unknown.into()),
                "{wanted}"
            );
        }
    }

    #[test]
    fn names_that_haul_does_not_have_are_told() {
        let options = SshOptions {
            kex_algorithms: list("sntrup761x25519-sha512@openssh.com,curve25519-sha256"),
            macs: list("+umac-64@openssh.com"),
            ..SshOptions::default()
        };
        let offer = offer(&options, &Known::default()).unwrap();
        assert_eq!(
            offer.unknown,
            ["key exchange sntrup761x25519-sha512@openssh.com", "MAC umac-64@openssh.com"]
        );
    }

    #[test]
    fn sha1_signatures_only_when_asked_for() {
        assert!(!host_keys(None, &Known::default()).0.contains(&"ssh-rsa".to_string()));
        assert_eq!(host_keys(Some("ssh-rsa"), &Known::default()).0, ["ssh-rsa"]);
        assert!(host_keys(Some("+ssh-rsa"), &Known::default()).0.contains(&"ssh-rsa".to_string()));
    }

    #[test]
    fn aes_gcm_comes_first_where_the_machine_has_aes() {
        let first = offer(&SshOptions::default(), &Known::default()).unwrap().preferred.cipher[0];
        let expected = if has_aes() { cipher::AES_128_GCM } else { cipher::CHACHA20_POLY1305 };
        assert!(first == expected);
    }

    #[test]
    fn no_encryption_is_never_offered() {
        for name in ["none", "clear"] {
            let options = SshOptions { ciphers: list(name), ..SshOptions::default() };
            assert_eq!(offer(&options, &Known::default()).err().unwrap().kind, RemoteErrorKind::BadRequest);
        }
        let options = SshOptions { ciphers: list("*"), macs: list("*"), ..SshOptions::default() };
        let preferred = offer(&options, &Known::default()).unwrap().preferred;
        assert!(!preferred.cipher.contains(&cipher::NONE) && !preferred.cipher.contains(&cipher::CLEAR));
        assert!(!preferred.mac.contains(&mac::NONE));
    }

    #[test]
    fn strict_key_exchange_is_always_announced() {
        for wanted in ["ecdh-sha2-nistp256", "-kex-strict-c-v00@openssh.com", "-ext*"] {
            let options = SshOptions { kex_algorithms: list(wanted), ..SshOptions::default() };
            let offer = offer(&options, &Known::default()).unwrap();
            assert!(offer.preferred.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT), "{wanted}");
        }
    }
}
