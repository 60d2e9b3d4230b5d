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

/// Writes `bytes` as one line of a file of haul's: control bytes, `%` and bytes that are
/// no UTF-8 become `%NN`, all else stays. [`decode_line`] is its reverse.
pub fn encode_line(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            if character == '%' || character.is_control() {
                let mut buffer = [0; 4];
                character.encode_utf8(&mut buffer).bytes().for_each(|byte| push_percent(&mut line, byte));
            } else {
                line.push(character);
            }
        }
        part.invalid().iter().for_each(|byte| push_percent(&mut line, *byte));
    }
    line
}

/// The bytes that [`encode_line`] wrote; `None` where it could not have written `line`.
pub fn decode_line(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        bytes.push(u8::try_from(high * 16 + low).ok()?);
        rest = after;
    }
    Some(bytes)
}

fn push_percent(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "%{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_any_bytes() {
        for bytes in [&b"img.qcow2"[..], b"a%b\n\r\t", b"\xff\xfe", b"", "\u{fc}\u{85}".as_bytes()] {
            let line = encode_line(bytes);
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert_eq!(decode_line(&line).as_deref(), Some(bytes));
        }
        assert_eq!(decode_line("%"), None);
        assert_eq!(decode_line("%4"), None);
        assert_eq!(decode_line("%zz"), None);
    }

    #[test]
    fn control_bytes_never_pass() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
        assert_eq!(printable("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(printable(b"\xff\\"), "\\xff\\\\");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }
}
