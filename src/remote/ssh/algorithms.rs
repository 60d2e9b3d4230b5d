//! Which algorithms are offered, and in which order.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

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

/// The offer. Types of host keys in `known_types` come first, as ssh has it, unless the
/// list was given: then its order holds. `BadRequest` where a list has nothing that haul
/// knows.
pub fn preferred(options: &SshOptions, known_types: &[String]) -> Result<Preferred, RemoteError> {
    let mut kex_algorithms = choose(options, "key exchange", &options.kex_algorithms, &KEX, |name| {
        kex::Name::try_from(name).ok().filter(|name| *name != kex::NONE)
    })?;
    kex_algorithms.extend(KEX_EXTENSIONS);
    let ciphers = if has_aes() { CIPHERS_WITH_AES } else { CIPHERS_WITHOUT_AES };
    let ciphers = choose(options, "cipher", &options.ciphers, &ciphers, |name| {
        cipher::Name::try_from(name).ok().filter(|name| *name != cipher::NONE && *name != cipher::CLEAR)
    })?;
    let macs = choose(options, "MAC", &options.macs, &MACS, |name| {
        mac::Name::try_from(name).ok().filter(|name| *name != mac::NONE)
    })?;
    let mut host_keys =
        choose(options, "host key", &options.host_key_algorithms, &HOST_KEYS, host_key_algorithm)?;
    if options.host_key_algorithms.is_none() {
        // A stable sort keeps haul's order within both halves.
        host_keys.sort_by_key(|algorithm| !known_types.iter().any(|known| *known == key_type(algorithm)));
    }
    let compressions = if options.compression {
        vec![compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE]
    } else {
        vec![compression::NONE]
    };
    Ok(Preferred {
        kex: Cow::Owned(kex_algorithms),
        key: Cow::Owned(host_keys),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(ciphers),
        mac: Cow::Owned(macs),
        compression: Cow::Owned(compressions),
    })
}

fn choose<T: Clone>(
    options: &SshOptions,
    kind: &str,
    wanted: &Option<Vec<String>>,
    default: &[T],
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, RemoteError> {
    let Some(wanted) = wanted else { return Ok(default.to_vec()) };
    let found: Vec<T> = wanted.iter().filter_map(|name| find(name)).collect();
    if found.is_empty() {
        return Err(RemoteError::new(
            RemoteErrorKind::BadRequest,
            format!(
                "{}: haul has none of the {kind} algorithms that were asked for: {}",
                options.host,
                printable(wanted.join(",").as_bytes())
            ),
        ));
    }
    Ok(found)
}

fn host_key_algorithm(name: &str) -> Option<Algorithm> {
    match name.parse::<Algorithm>().ok()? {
        algorithm @ (Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }) => Some(algorithm),
        _ => None,
    }
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

    #[test]
    fn known_types_are_asked_for_first() {
        let offer = preferred(&SshOptions::default(), &["ssh-rsa".to_string()]).unwrap();
        assert_eq!(names(&offer.key)[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
    }

    #[test]
    fn a_given_list_keeps_its_order() {
        let options = SshOptions {
            host_key_algorithms: Some(vec!["ssh-ed25519".into(), "rsa-sha2-256".into(), "junk".into()]),
            ..SshOptions::default()
        };
        let offer = preferred(&options, &["ssh-rsa".to_string()]).unwrap();
        assert_eq!(names(&offer.key), ["ssh-ed25519", "rsa-sha2-256"]);
    }

    #[test]
    fn sha1_signatures_only_when_asked_for() {
        let offer = preferred(&SshOptions::default(), &[]).unwrap();
        assert!(!names(&offer.key).contains(&"ssh-rsa".to_string()));
        let options =
            SshOptions { host_key_algorithms: Some(vec!["ssh-rsa".into()]), ..SshOptions::default() };
        assert_eq!(names(&preferred(&options, &[]).unwrap().key), ["ssh-rsa"]);
    }

    #[test]
    fn no_encryption_is_never_offered() {
        for name in ["none", "clear"] {
            let options = SshOptions { ciphers: Some(vec![name.into()]), ..SshOptions::default() };
            assert_eq!(preferred(&options, &[]).unwrap_err().kind, RemoteErrorKind::BadRequest);
        }
    }

    #[test]
    fn strict_key_exchange_is_always_announced() {
        let options =
            SshOptions { kex_algorithms: Some(vec!["ecdh-sha2-nistp256".into()]), ..SshOptions::default() };
        let offer = preferred(&options, &[]).unwrap();
        assert!(offer.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
    }
}
