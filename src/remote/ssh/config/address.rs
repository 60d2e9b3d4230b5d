//! Names that are addresses, in every spelling the resolver takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::remote::ssh::options::AddressFamily;

/// Nothing but an address can look like this.
fn looks_like_one(name: &str) -> bool {
    name.contains(['%', ':']) || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Whether `name` is an address and no name; addresses keep their letters' case.
pub fn is_address(name: &str, family: AddressFamily) -> bool {
    looks_like_one(name) || parse(name, family).is_some()
}

/// The one spelling of an address: `127.1` is 127.0.0.1. `None` if it is none, or if its
/// interface has to be known for that.
pub fn canonical(name: &str, family: AddressFamily) -> Option<String> {
    parse(name, family).map(|address| address.to_string())
}

fn parse(name: &str, family: AddressFamily) -> Option<IpAddr> {
    let v4 = || parse_v4(name).map(IpAddr::V4);
    let v6 = || name.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    match family {
        AddressFamily::Any => v4().or_else(v6),
        AddressFamily::V4 => v4(),
        AddressFamily::V6 => v6(),
    }
}

/// One to four numbers, decimal, octal or hexadecimal; the last one fills what is left.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(parse_number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let bits_left = 32 - 8 * u32::try_from(first.len()).ok()?;
    if u64::from(*last) >= 1 << bits_left {
        return None;
    }
    let mut address = *last;
    for (index, part) in first.iter().enumerate() {
        address |= part << (24 - 8 * index);
    }
    Some(Ipv4Addr::from(address))
}

fn parse_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // `from_str_radix` would take a sign.
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if all_digits { u32::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_addresses() {
        for (name, expected) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.1", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("010.0.0.1", Some("8.0.0.1")),
            ("::0001", Some("::1")),
            ("2001:DB8::A", Some("2001:db8::a")),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("web1", None),
            ("fe80::1%eth0", None),
            ("", None),
        ] {
            assert_eq!(canonical(name, AddressFamily::Any).as_deref(), expected, "{name}");
        }
        assert_eq!(canonical("::1", AddressFamily::V4), None);
        assert!(is_address("fe80::1%eth0", AddressFamily::Any));
        assert!(!is_address("Web1", AddressFamily::Any));
    }
}
