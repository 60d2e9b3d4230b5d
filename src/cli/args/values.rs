//! How single values are read from the command line, the environment and hosts.toml.

use std::time::Duration;

use crate::engine::options::{Chown, Connections, MergeMethod, Principal, Wait};
use crate::model::chunk::ChunkSize;
use crate::model::names::UserId;
use crate::model::units::{parse_duration, parse_rate, parse_size};

/// More connections than this are a mistake.
const MAX_CONNECTIONS: u32 = 64;
const MAX_RETRIES: u32 = 10_000;
const STALL_TIMEOUT_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
const MAX_TIME_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// As scp's `-l`: a kilobit has 1024 bits.
const BYTES_PER_KILOBIT: u64 = 128;

/// A switch in the environment. Empty counts as not set.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("a switch is 1 or 0".to_owned()),
    }
}

pub fn parse_merge(text: &str) -> Result<MergeMethod, String> {
    match text {
        "auto" => Ok(MergeMethod::Auto),
        "script" => Ok(MergeMethod::Script),
        "sftp" => Ok(MergeMethod::Sftp),
        _ => Err("has to be auto, script or sftp".to_owned()),
    }
}

pub fn parse_connections(text: &str) -> Result<Connections, String> {
    if text == "auto" {
        return Ok(Connections::Auto);
    }
    match text.parse() {
        Ok(count @ 1..=MAX_CONNECTIONS) => Ok(Connections::Exactly(count)),
        _ => Err(format!("has to be auto or a number from 1 to {MAX_CONNECTIONS}")),
    }
}

pub fn parse_chunk_size(text: &str) -> Result<ChunkSize, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    ChunkSize::new(bytes).map_err(|error| error.to_string())
}

pub fn parse_demo_size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

pub fn parse_user_id(text: &str) -> Result<UserId, String> {
    UserId::new(text).map_err(|error| error.to_string())
}

/// `--wait` without a duration waits as long as it takes.
pub const WAIT_FOREVER: &str = "forever";

pub fn parse_wait(text: &str) -> Result<Wait, String> {
    match text {
        WAIT_FOREVER => Ok(Wait::Forever),
        "no" => Ok(Wait::No),
        _ => parse_duration(text).map(Wait::AtMost).map_err(|error| error.to_string()),
    }
}

pub fn parse_bwlimit(text: &str) -> Result<u64, String> {
    parse_rate(text).map_err(|error| error.to_string())
}

/// Bytes a second of kilobits a second.
pub fn parse_kilobits(text: &str) -> Result<u64, String> {
    let kilobits = text.parse::<u64>().ok().filter(|number| *number > 0);
    kilobits
        .and_then(|number| number.checked_mul(BYTES_PER_KILOBIT))
        .ok_or_else(|| "has to be a number of kilobits a second, at least 1".to_owned())
}

pub fn parse_retries(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 0..=MAX_RETRIES) => Ok(count),
        _ => Err(format!("has to be a number from 0 to {MAX_RETRIES}")),
    }
}

pub fn parse_stall_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    let (least, most) = STALL_TIMEOUT_LIMITS;
    if time < least || time > most { Err("has to be from 1s to 1d".to_owned()) } else { Ok(time) }
}

/// A time that something may take; none at all is allowed.
pub fn parse_time_limit(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    if time > MAX_TIME_LIMIT { Err("has to be at most 365d".to_owned()) } else { Ok(time) }
}

/// Standard input, or one that the caller has opened.
pub fn parse_descriptor(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number != 1 && number != 2 => Ok(number),
        _ => Err("has to be the number of an open file descriptor, such as 3".to_owned()),
    }
}

pub fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err("has to be a number from 1 to 65535".to_owned()),
    }
}

/// Octal, or symbolic with `=` for user, group and others: `u=rw,go=r`.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        return mode.ok_or_else(|| "an octal mode is from 0 to 7777".to_owned());
    }
    const EXPECTED: &str = "a mode is octal (644) or says = for u, g and o (u=rw,go=r)";
    let mut mode = 0;
    let mut said = 0;
    for clause in text.split(',') {
        let (classes, permissions) = clause.split_once('=').ok_or(EXPECTED)?;
        let mut bits = 0;
        for permission in permissions.chars() {
            bits |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                _ => return Err(EXPECTED.to_owned()),
            };
        }
        if classes.is_empty() {
            return Err(EXPECTED.to_owned());
        }
        for class in classes.chars() {
            let mask = match class {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return Err(EXPECTED.to_owned()),
            };
            mode = (mode & !mask) | (bits & mask);
            said |= mask;
        }
    }
    if said == 0o777 { Ok(mode) } else { Err(EXPECTED.to_owned()) }
}

/// As chown(1) and rsync have it: `USER`, `USER:GROUP`, `:GROUP`.
pub fn parse_chown(text: &str) -> Result<Chown, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    if user.is_empty() && group.is_empty() {
        return Err("an owner is USER, USER:GROUP or :GROUP".to_owned());
    }
    Ok(Chown { user: principal(user)?, group: principal(group)? })
}

fn principal(text: &str) -> Result<Option<Principal>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number means "leave it" to chown(2).
        let number = text.parse().ok().filter(|number| *number != u32::MAX);
        return number
            .map(|number| Some(Principal::Id(number)))
            .ok_or_else(|| format!("a number of a user or group is from 0 to {}", u32::MAX - 1));
    }
    let is_name = !text.starts_with('-') && !text.contains(|c: char| c == ':' || c.is_control() || c == ' ');
    if is_name {
        Ok(Some(Principal::Name(text.to_owned())))
    } else {
        Err("a user or group has a name or a number".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, mode) in [
            ("644", 0o644),
            ("0755", 0o755),
            ("4755", 0o4755),
            ("u=rw,go=r", 0o644),
            ("a=rx", 0o555),
            ("a=r,u=rwx", 0o744),
            ("u=rwx,g=,o=", 0o700),
        ] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for bad in ["", "8", "77777", "u+x", "u=rw", "x=r,ugo=r", "u=rwz,go=r", "=r", "-1"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn owners() {
        let name = |name: &str| Some(Principal::Name(name.to_owned()));
        for (text, user, group) in [
            ("www-data", name("www-data"), None),
            ("www:adm", name("www"), name("adm")),
            (":adm", None, name("adm")),
            ("0:0", Some(Principal::Id(0)), Some(Principal::Id(0))),
            ("33:", Some(Principal::Id(33)), None),
        ] {
            assert_eq!(parse_chown(text), Ok(Chown { user, group }), "{text}");
        }
        for bad in ["", ":", "a:b:c", "-u", "a b", "4294967295", "a\nb"] {
            assert!(parse_chown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(parse_connections("4"), Ok(Connections::Exactly(4)));
        assert_eq!(parse_connections("auto"), Ok(Connections::Auto));
        for bad in ["0", "65", "-1", "", "many"] {
            assert!(parse_connections(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_port("22"), Ok(22));
        for bad in ["0", "65536", "+22", "", "ssh"] {
            assert!(parse_port(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_kilobits("8"), Ok(1024));
        assert!(parse_kilobits("0").is_err());
        assert!(parse_kilobits(&u64::MAX.to_string()).is_err());
        assert!(parse_stall_timeout("500ms").is_err());
        assert_eq!(parse_wait("5m"), Ok(Wait::AtMost(Duration::from_secs(300))));
        assert_eq!(parse_wait(WAIT_FOREVER), Ok(Wait::Forever));
        assert!(parse_retries("-1").is_err());
        assert!(parse_chunk_size("1").is_err());
    }

    #[test]
    fn switches() {
        for (text, value) in [("1", Ok(true)), ("YES", Ok(true)), ("0", Ok(false)), ("", Ok(false))] {
            assert_eq!(parse_switch(text), value);
        }
        assert!(parse_switch("perhaps").is_err());
    }
}
