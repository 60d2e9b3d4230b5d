//! How a command ended, as the server tells it.

use std::fmt;

use crate::model::escape::printable;
use crate::model::signal::Signal;

/// What a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(u32),
    /// By a signal, named without "SIG".
    Signaled {
        signal: String,
        core_dumped: bool,
    },
}

impl ExitStatus {
    pub fn success(&self) -> bool {
        *self == ExitStatus::Exited(0)
    }

    /// `None` when it died of a signal.
    pub fn code(&self) -> Option<u32> {
        match self {
            ExitStatus::Exited(code) => Some(*code),
            ExitStatus::Signaled { .. } => None,
        }
    }

    /// The signal's name without "SIG"; `None` when it ended by itself.
    pub fn signal(&self) -> Option<&str> {
        match self {
            ExitStatus::Exited(_) => None,
            ExitStatus::Signaled { signal, .. } => Some(signal),
        }
    }

    /// What a shell has in `$?`: the code, or 128 and the signal's number. 128 alone stands
    /// for a signal that the server does not name.
    pub fn shell_code(&self) -> u8 {
        match self {
            // No system gives more than eight bits; a server that does is taken at its last.
            ExitStatus::Exited(code) => (code & 0xff) as u8,
            ExitStatus::Signaled { signal, .. } => {
                SIGNAL_BASE + signal.parse::<Signal>().map_or(0, Signal::number)
            }
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited(code) => write!(f, "exit status {code}"),
            ExitStatus::Signaled { signal, core_dumped } => {
                // OpenSSH names the signals of RFC 4254 and calls all others "SIG@openssh.com".
                match signal.split('@').next().unwrap_or_default() {
                    "SIG" => f.write_str("died of a signal that the server does not name")?,
                    name => write!(f, "died of SIG{}", printable(name.as_bytes()))?,
                }
                if *core_dumped { f.write_str(" (core dumped)") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        let died = |name: &str| ExitStatus::Signaled { signal: name.to_owned(), core_dumped: false };
        for (status, code, text) in [
            (ExitStatus::Exited(0), 0, "exit status 0"),
            (ExitStatus::Exited(255), 255, "exit status 255"),
            (died("TERM"), 143, "died of SIGTERM"),
            (died("USR1"), 138, "died of SIGUSR1"),
            (died("SIG@openssh.com"), 128, "died of a signal that the server does not name"),
        ] {
            assert_eq!(status.shell_code(), code);
            assert_eq!(status.to_string(), text);
        }
    }
}
