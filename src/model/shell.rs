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
pub const COMMAND: &str = "exec sh -c 'IFS= read -r script && eval \"$script\"'";

/// A script in the POSIX shell's language: constant text, and variables set beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    assignments: Vec<(&'static str, String)>,
    body: String,
}

impl Script {
    /// `body` is the script's text, in parts that follow each other.
    pub fn new(body: &[&'static str]) -> Script {
        Script { assignments: Vec::new(), body: body.concat() }
    }

    /// Sets the variable `name` to any bytes. A NUL ends the value, as it ends every
    /// string that a shell can hold.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Script {
        let mut argument = String::new();
        for byte in value.as_ref().iter().take_while(|byte| **byte != 0) {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                    argument.push(char::from(*byte));
                }
                _ => push_octal(&mut argument, *byte),
            }
        }
        // The full stop keeps the line ends before it, which `$(…)` would strip. It is
        // the second byte of no character in any encoding a locale may have.
        self.assignments.push((name, format!("$(printf %b '{argument}.'); {name}=${{{name}%.}}")));
        self
    }

    /// Sets the variable `name` to a decimal number.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u64) -> Script {
        self.assignments.push((name, value.to_string()));
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
        self.assignments.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}={value}{separator}");
            text
        })
    }
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
            "path=$(printf %b '/a\\0040b\\0047\\0044\\0050x\\0051.'); path=${path%.}; count=7; \
             eval \"$(printf %b 'cat <\"$path\"\\0012')\"\n"
        );
        assert_eq!(
            script.text(),
            "#!/bin/sh\npath=$(printf %b '/a\\0040b\\0047\\0044\\0050x\\0051.'); path=${path%.}\ncount=7\n\
             cat <\"$path\"\n"
        );
    }

    #[test]
    fn a_nul_ends_a_value() {
        assert_eq!(Script::new(&[]).set("v", b"a\0b"), Script::new(&[]).set("v", "a"));
    }

    proptest! {
        #[test]
        fn no_byte_of_a_value_is_syntax(value: Vec<u8>) {
            let line = Script::new(&["true"]).set("v", &value).line();
            let argument = line.strip_prefix("v=$(printf %b '").and_then(|rest| rest.split_once(".'); v=${v%.}; "));
            let (argument, rest) = argument.expect("the form of an assignment");
            prop_assert!(argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-\\".contains(&b)));
            prop_assert_eq!(rest, "eval \"$(printf %b 'true')\"\n");
        }
    }
}
