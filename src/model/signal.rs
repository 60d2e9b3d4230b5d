//! Signals by name: what a person may ask for, what a shell's `kill` takes, and what a
//! status of 128 and more means.

use std::fmt;
use std::str::FromStr;

/// A signal that can be sent to a remote command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(&'static Row);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Row {
    name: &'static str,
    /// As Linux counts, which is what 128 + n means to most.
    number: u8,
    /// The number is the same on every system (POSIX, `kill`).
    everywhere: bool,
}

const fn row(name: &'static str, number: u8, everywhere: bool) -> Row {
    Row { name, number, everywhere }
}

static TABLE: [Row; 23] = [
    row("HUP", 1, true),
    row("INT", 2, true),
    row("QUIT", 3, true),
    row("ILL", 4, false),
    row("TRAP", 5, false),
    row("ABRT", 6, true),
    row("BUS", 7, false),
    row("FPE", 8, false),
    row("KILL", 9, true),
    row("USR1", 10, false),
    row("SEGV", 11, false),
    row("USR2", 12, false),
    row("PIPE", 13, false),
    row("ALRM", 14, true),
    row("TERM", 15, true),
    row("CHLD", 17, false),
    row("CONT", 18, false),
    row("STOP", 19, false),
    row("TSTP", 20, false),
    row("TTIN", 21, false),
    row("TTOU", 22, false),
    row("WINCH", 28, false),
    row("SYS", 31, false),
];

impl Signal {
    pub const HUP: Signal = Signal(&TABLE[0]);
    pub const INT: Signal = Signal(&TABLE[1]);
    pub const QUIT: Signal = Signal(&TABLE[2]);
    pub const KILL: Signal = Signal(&TABLE[8]);
    pub const USR1: Signal = Signal(&TABLE[9]);
    pub const USR2: Signal = Signal(&TABLE[11]);
    pub const PIPE: Signal = Signal(&TABLE[12]);
    pub const TERM: Signal = Signal(&TABLE[14]);

    /// Without "SIG".
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// As Linux counts.
    pub fn number(self) -> u8 {
        self.0.number
    }

    /// What follows the `-` of a shell's `kill`: a number where all systems agree on it,
    /// else the name.
    pub fn kill_option(self) -> String {
        if self.0.everywhere { self.0.number.to_string() } else { self.0.name.to_owned() }
    }

    /// By Linux's number.
    pub fn from_number(number: u8) -> Option<Signal> {
        TABLE.iter().find(|row| row.number == number).map(Signal)
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// `TERM`, `SIGTERM`, `term` or `15`.
    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        if let Ok(number) = text.parse() {
            return Signal::from_number(number).ok_or(UnknownSignal);
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        TABLE.iter().find(|row| row.name == name).map(Signal).ok_or(UnknownSignal)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.0.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSignal;

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no signal of that name; say TERM, KILL, HUP, INT, QUIT, USR1, USR2 or another of kill(1)'s",
        )
    }
}

impl std::error::Error for UnknownSignal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        for bad in ["", "SIG", "0", "99", "-9", "TERM ", "SIGSIGTERM"] {
            assert_eq!(bad.parse::<Signal>(), Err(UnknownSignal), "{bad}");
        }
        assert_eq!(Signal::USR1.kill_option(), "USR1");
        assert_eq!(Signal::TERM.kill_option(), "15");
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    }

    #[test]
    fn constants_are_what_they_are_called() {
        let constants = [
            (Signal::HUP, "HUP"),
            (Signal::INT, "INT"),
            (Signal::QUIT, "QUIT"),
            (Signal::KILL, "KILL"),
            (Signal::USR1, "USR1"),
            (Signal::USR2, "USR2"),
            (Signal::PIPE, "PIPE"),
            (Signal::TERM, "TERM"),
        ];
        for (signal, name) in constants {
            assert_eq!(signal.name(), name);
            assert_eq!(Signal::from_number(signal.number()), Some(signal));
        }
    }
}
