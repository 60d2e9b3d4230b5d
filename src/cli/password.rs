//! `--password-fd`: a password from whoever starts haul, kept out of argument lists,
//! environments and files.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::error::CliError;
use crate::remote::ssh::Secret;

/// No password is longer than this.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// A descriptor gives its bytes once, and several hosts may want them.
static READ: OnceLock<Result<Secret, String>> = OnceLock::new();

/// The first line, without its end. Waits until it is there or the other end is closed.
pub fn from_descriptor(number: u32) -> Result<Secret, CliError> {
    READ.get_or_init(|| read(number))
        .clone()
        .map_err(|problem| CliError::usage(format!("--password-fd {number}: {problem}")))
}

fn read(number: u32) -> Result<Secret, String> {
    let file = File::open(format!("/dev/fd/{number}"))
        .map_err(|error| format!("cannot be read: {error}; whoever starts haul has to open it"))?;
    first_line(file)
}

fn first_line(input: impl Read) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    input
        .take(MAX_PASSWORD_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(format!("gives more than {MAX_PASSWORD_BYTES} bytes"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    match std::str::from_utf8(&bytes[..end]) {
        Ok("") => Err("gives no password".to_owned()),
        Ok(password) => Ok(Secret::new(password.to_owned())),
        Err(_) => Err("gives bytes that are no UTF-8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        for text in ["pass word", "pass word\n", "pass word\nmore\n"] {
            assert_eq!(first_line(text.as_bytes()).expect(text).reveal(), "pass word");
        }
    }

    #[test]
    fn what_is_no_password_is_refused() {
        let long = "x".repeat(5000);
        for (bytes, problem) in [
            (&b""[..], "no password"),
            (b"\nx", "no password"),
            (b"\xff", "UTF-8"),
            (long.as_bytes(), "more"),
        ] {
            assert!(first_line(bytes).expect_err(problem).contains(problem));
        }
    }
}
