//! Makes bytes from elsewhere safe to show: no control byte reaches a terminal raw.

use std::fmt::Write;

/// Shows `bytes` as text. Valid UTF-8 stays as it is, control characters and
/// bytes that are no UTF-8 become `\xNN`, a backslash becomes `\\`.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() || is_direction_mark(c) => push_hex(&mut text, c),
                c => text.push(c),
            }
        }
        for byte in part.invalid() {
            push_byte(&mut text, *byte);
        }
    }
    text
}

/// Characters that reorder what stands around them can disguise a name.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_hex(text: &mut String, c: char) {
    let mut buffer = [0; 4];
    for byte in c.encode_utf8(&mut buffer).bytes() {
        push_byte(text, byte);
    }
}

fn push_byte(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_bytes_never_pass() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
        assert_eq!(printable("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(printable(b"\xff\\"), "\\xff\\\\");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }
}
