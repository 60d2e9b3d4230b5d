//! What a server's status codes mean, and the errors made of them.

use bytes::Bytes;

use super::codec::Status;
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

pub const OK: u32 = 0;
pub const END_OF_FILE: u32 = 1;

/// How much of a server's words is shown.
const MAX_TEXT_BYTES: usize = 256;

/// The kind of a failed status. Codes above 8 are of later versions of the protocol,
/// which some servers send all the same; codes of none are a plain failure.
pub fn kind_of(code: u32) -> RemoteErrorKind {
    match code {
        2 | 10 => RemoteErrorKind::NotFound,
        // 12: the medium is write-protected.
        3 | 12 => RemoteErrorKind::PermissionDenied,
        // OpenSSH answers 5 to names too long and to other invalid arguments; 9 is an
        // invalid handle, 20 an invalid name.
        5 | 9 | 20 => RemoteErrorKind::BadRequest,
        6 | 7 => RemoteErrorKind::LinkLost,
        8 => RemoteErrorKind::Unsupported,
        11 => RemoteErrorKind::AlreadyExists,
        // 15: the quota is used up.
        14 | 15 => RemoteErrorKind::NoSpace,
        _ => RemoteErrorKind::Failure,
    }
}

/// The error of a failed status; `what` names the operation and its object.
pub fn error_of(what: &str, status: &Status) -> RemoteError {
    let words = words_of(&status.text);
    let kind = match kind_of(status.code) {
        RemoteErrorKind::Failure if tells_of_no_space(&words) => RemoteErrorKind::NoSpace,
        kind => kind,
    };
    let words = if words.is_empty() { own_words(status.code) } else { words };
    RemoteError::new(kind, format!("{what}: {words}"))
}

/// Version 3 has no code for a full disk; many servers hand on what their system says.
fn tells_of_no_space(words: &str) -> bool {
    const WORDS: [&str; 5] = ["no space left", "disk space", "disk full", "quota exceeded", "enospc"];
    let words = words.to_ascii_lowercase();
    WORDS.iter().any(|told| words.contains(told))
}

fn words_of(text: &Bytes) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    // Not in the middle of a character.
    while end > 0 && end < text.len() && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    printable(text[..end].trim_ascii())
}

fn own_words(code: u32) -> String {
    let words = match kind_of(code) {
        RemoteErrorKind::NotFound => "no such file",
        RemoteErrorKind::PermissionDenied => "permission denied",
        RemoteErrorKind::BadRequest => "the server calls the request invalid",
        RemoteErrorKind::LinkLost => "the server lost its own connection",
        RemoteErrorKind::Unsupported => "the server does not know the request",
        RemoteErrorKind::AlreadyExists => "exists already",
        RemoteErrorKind::NoSpace => "no space left",
        _ if code == END_OF_FILE => "the file ends too early",
        _ => return format!("failure (status {code})"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_version_have_a_kind() {
        let table = [
            (2, RemoteErrorKind::NotFound),
            (3, RemoteErrorKind::PermissionDenied),
            (4, RemoteErrorKind::Failure),
            (8, RemoteErrorKind::Unsupported),
            (11, RemoteErrorKind::AlreadyExists),
            (12, RemoteErrorKind::PermissionDenied),
            (14, RemoteErrorKind::NoSpace),
            (15, RemoteErrorKind::NoSpace),
            (31, RemoteErrorKind::Failure),
            (u32::MAX, RemoteErrorKind::Failure),
        ];
        for (code, kind) in table {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }

    #[test]
    fn a_full_disk_is_known_by_the_servers_words() {
        let kind = |code, text: &'static str| error_of("write", &Status { code, text: text.into() }).kind;
        assert_eq!(kind(4, "write /a: no space left on device"), RemoteErrorKind::NoSpace);
        assert_eq!(kind(4, "Disk quota exceeded"), RemoteErrorKind::NoSpace);
        assert_eq!(kind(4, "preallocate: file too big for remaining disk space"), RemoteErrorKind::NoSpace);
        assert_eq!(kind(4, "Failure"), RemoteErrorKind::Failure);
        assert_eq!(kind(3, "no space left"), RemoteErrorKind::PermissionDenied);
    }

    #[test]
    fn the_servers_words_are_bounded_and_escaped() {
        let status = |text: &[u8]| Status { code: 4, text: Bytes::copy_from_slice(text) };
        assert_eq!(error_of("stat \"/a\"", &status(b"No\x1b[2J\n")).message, "stat \"/a\": No\\x1b[2J");
        assert_eq!(error_of("stat", &status(b" ")).message, "stat: failure (status 4)");
        let long = "\u{fc}".repeat(4000);
        let message = error_of("", &status(&long.as_bytes()[1..])).message;
        assert!(message.len() < 4 * MAX_TEXT_BYTES, "{}", message.len());
        assert!(message.ends_with('\u{fc}'));
    }
}
