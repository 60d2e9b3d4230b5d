//! How haul speaks to a shell on a target: constant text, and values that are data.
//!
//! No byte of a file name, a user id or an option is ever part of shell syntax. Each value
//! stands in the script as the octal argument of a `printf`, so that only letters, digits
//! and `/ . _ -` of it appear as they are; and the script itself travels on standard input,
//! because no quoting works in every login shell.

use std::fmt::Write;

/// The one command that haul gives to a login shell. Its words mean the same in bash,
/// dash, zsh, fish, tcsh, mksh and BusyBox.
///
/// It takes one line from standard input, byte by byte, and runs it; what follows on
/// standard input belongs to the script. A line that the link cut off has no end and is
/// not run.
pub const COMMAND: &str = "exec sh -c 'IFS= read -r haul_script && eval \"$haul_script\"'";

/// As [`COMMAND`], behind a terminal: its line discipline would echo the script and cut it
/// at 4096 bytes, so it is put aside until the script restores what `haul_tty` holds. The
/// script may be sent after the line [`TERMINAL_READY`].
pub const TERMINAL_COMMAND: &str = "exec sh -c 'haul_tty=$(stty -g) && stty raw -echo && echo haul-terminal \
                                    && IFS= read -r haul_script && eval \"$haul_script\"'";
pub const TERMINAL_READY: &str = "haul-terminal";

/// Bytes of a value that one `printf` makes: where it is a program of its own, its
/// argument has a limit of 128 KiB.
const PIECE_BYTES: usize = 16 * 1024;

/// Bash (seen in 5.2) puts bytes in another order where `%` takes something off a value that is no
/// text in its locale, so values are made in the C locale; the target's own is put back for
/// what the script runs.
const BYTES: &str = "haul_locale=${LC_ALL-}; haul_local=${LC_ALL+set}; LC_ALL=C";
const CHARACTERS: &str = "[ \"$haul_local\" ] && LC_ALL=$haul_locale || unset LC_ALL";

/// A script in the POSIX shell's language: constant text, and variables set beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    statements: Vec<String>,
    body: String,
}

impl Script {
    /// `body` is the script's text, in parts that follow each other.
    pub fn new(body: &[&'static str]) -> Script {
        Script { statements: Vec::new(), body: body.concat() }
    }

    /// Sets the variable `name` to any bytes. A NUL ends the value, as it ends every
    /// string that a shell can hold.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Script {
        self.assign(name, value.as_ref());
        self
    }

    /// Sets the positional parameters.
    #[must_use]
    pub fn arguments<V: AsRef<[u8]>>(mut self, values: &[V]) -> Script {
        let mut list = String::from("set --");
        for (number, value) in values.iter().enumerate() {
            self.assign(&format!("haul_{number}"), value.as_ref());
            // Writing to a String cannot fail.
            let _ = write!(list, " \"$haul_{number}\"");
        }
        self.statements.push(list);
        self
    }

    fn assign(&mut self, name: &str, value: &[u8]) {
        let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
        if value.iter().all(|byte| is_plain(*byte)) {
            self.statements.push(format!("{name}='{}'", String::from_utf8_lossy(value)));
            return;
        }
        for (number, piece) in value.chunks(PIECE_BYTES).enumerate() {
            let mut argument = String::new();
            for byte in piece {
                match byte {
                    byte if is_plain(*byte) => argument.push(char::from(*byte)),
                    _ => push_octal(&mut argument, *byte),
                }
            }
            // The full stop keeps the line ends before it, which `$(…)` would strip. It is
            // the second byte of no character in any encoding a locale may have.
            self.statements.push(match number {
                0 => format!("{name}=$(printf %b '{argument}.')"),
                _ => format!("{name}=${name}$(printf %b '{argument}.')"),
            });
            self.statements.push(format!("{name}=${{{name}%.}}"));
        }
    }

    /// Sets the variable `name` to a decimal number.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u64) -> Script {
        self.statements.push(format!("{name}={value}"));
        self
    }

    /// The script as the one line, with its end, that [`COMMAND`] takes.
    pub fn line(&self) -> String {
        let mut line = self.assigned("; ");
        line.push_str("eval \"$(printf %b '");
        for byte in self.body.bytes() {
            match byte {
                b'\'' | b'\\' => push_octal(&mut line, byte),
                b' '..=b'~' => line.push(char::from(byte)),
                _ => push_octal(&mut line, byte),
            }
        }
        line.push_str("')\"\n");
        line
    }

    /// The script as a file.
    pub fn text(&self) -> String {
        format!("#!/bin/sh\n{}{}", self.assigned("\n"), self.body)
    }

    fn assigned(&self, separator: &str) -> String {
        let statements = self.statements.iter().map(String::as_str);
        let all: Vec<&str> = if self.statements.iter().any(|statement| statement.contains("printf")) {
            [BYTES].into_iter().chain(statements).chain([CHARACTERS]).collect()
        } else {
            statements.collect()
        };
        all.iter().fold(String::new(), |text, statement| text + statement + separator)
    }
}

/// Bytes that stand in a script as they are.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)
}

/// `\0` and three octal digits: what `printf %b` takes.
fn push_octal(text: &mut String, byte: u8) {
    let _ = write!(text, "\\0{byte:03o}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_data() {
        let script = Script::new(&["cat <\"$path\"\n"]).set("path", "/a b'$(x)").number("count", 7);
        assert_eq!(
            script.line(),
            format!(
                "{BYTES}; path=$(printf %b '/a\\0040b\\0047\\0044\\0050x\\0051.'); path=${{path%.}}; \
                 count=7; {CHARACTERS}; eval \"$(printf %b 'cat <\"$path\"\\0012')\"\n"
            )
        );
        assert_eq!(
            script.text(),
            format!(
                "#!/bin/sh\n{BYTES}\npath=$(printf %b '/a\\0040b\\0047\\0044\\0050x\\0051.')\n\
                 path=${{path%.}}\ncount=7\n{CHARACTERS}\ncat <\"$path\"\n"
            )
        );
    }

    #[test]
    fn a_nul_ends_a_value() {
        assert_eq!(Script::new(&[]).set("v", b"a\0b"), Script::new(&[]).set("v", "a"));
    }

    #[test]
    fn plain_values_need_no_printf() {
        let script = Script::new(&["true"]).arguments(&[&b"ls"[..], b"", b"a b"]).set("v", "/x.y");
        assert_eq!(
            script.line(),
            format!(
                "{BYTES}; haul_0='ls'; haul_1=''; haul_2=$(printf %b 'a\\0040b.'); haul_2=${{haul_2%.}}; \
                 set -- \"$haul_0\" \"$haul_1\" \"$haul_2\"; v='/x.y'; {CHARACTERS}; \
                 eval \"$(printf %b 'true')\"\n"
            )
        );
    }

    #[test]
    fn a_long_value_is_made_of_pieces() {
        let line = Script::new(&["true"]).set("v", vec![b' '; 3 * PIECE_BYTES]).line();
        assert_eq!(line.matches("v=$v$(printf").count(), 2);
        assert!(line.split(';').all(|statement| statement.len() < 128 * 1024));
    }

    proptest! {
        #[test]
        fn no_byte_of_a_value_is_syntax(value: Vec<u8>) {
            let line = Script::new(&["true"]).set("v", &value).line();
            let made = line.strip_prefix(BYTES).and_then(|line| line.strip_prefix("; v=$(printf %b '"));
            let parts = match made {
                Some(rest) => rest.split_once(&format!(".'); v=${{v%.}}; {CHARACTERS}; ")),
                None => line.strip_prefix("v='").and_then(|rest| rest.split_once("'; ")),
            };
            let (argument, rest) = parts.expect("the form of an assignment");
            prop_assert!(argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-\\".contains(&b)));
            prop_assert_eq!(rest, "eval \"$(printf %b 'true')\"\n");
        }
    }
}
