//! The exit codes: one table, from which `--help` and the mapping of failures are made.

use std::process::ExitCode as ProcessExitCode;

use crate::engine::failure::FailureKind;

/// What haul ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitCode {
    Done,
    Failed,
    Usage,
    SomeHostsFailed,
    Exists,
    Unreachable,
    Locked,
    Verification,
    Storage,
    TimedOut,
    Interrupted,
    /// Of `exec`: what the command on the host ended with, or as ssh and shells say it.
    Remote(u8),
}

/// A row of the table.
pub struct Row {
    pub code: ExitCode,
    pub number: u8,
    pub meaning: &'static str,
}

const fn row(code: ExitCode, number: u8, meaning: &'static str) -> Row {
    Row { code, number, meaning }
}

pub const TABLE: [Row; 11] = [
    row(ExitCode::Done, 0, "done"),
    row(ExitCode::Failed, 1, "failed"),
    row(ExitCode::Usage, 2, "usage or configuration"),
    row(ExitCode::SomeHostsFailed, 3, "some hosts failed"),
    row(ExitCode::Exists, 4, "target exists and was not to be replaced"),
    row(ExitCode::Unreachable, 10, "unreachable, host key or authentication"),
    row(ExitCode::Locked, 11, "locked by another"),
    row(ExitCode::Verification, 12, "verification failed"),
    row(ExitCode::Storage, 13, "no space or no permission on the target"),
    row(ExitCode::TimedOut, 124, "timed out"),
    row(ExitCode::Interrupted, 130, "interrupted, resumable"),
];

/// Several sources on one host end with the worst of their codes: first what stopped
/// everything, then what a person has to mend, last what was only left alone.
const WORST_FIRST: [ExitCode; 11] = [
    ExitCode::Interrupted,
    ExitCode::Usage,
    ExitCode::Unreachable,
    ExitCode::Verification,
    ExitCode::Storage,
    ExitCode::Locked,
    ExitCode::TimedOut,
    ExitCode::Failed,
    ExitCode::SomeHostsFailed,
    ExitCode::Exists,
    ExitCode::Done,
];

impl ExitCode {
    pub fn number(self) -> u8 {
        if let ExitCode::Remote(number) = self {
            return number;
        }
        // Every other code has its row: a test sees to it.
        TABLE.iter().find(|row| row.code == self).map_or(1, |row| row.number)
    }

    pub fn of(kind: FailureKind) -> ExitCode {
        match kind {
            FailureKind::Failed => ExitCode::Failed,
            FailureKind::Usage => ExitCode::Usage,
            FailureKind::Exists => ExitCode::Exists,
            FailureKind::Unreachable | FailureKind::Link => ExitCode::Unreachable,
            FailureKind::Locked => ExitCode::Locked,
            FailureKind::Verification => ExitCode::Verification,
            FailureKind::Storage => ExitCode::Storage,
            FailureKind::TimedOut => ExitCode::TimedOut,
            FailureKind::Interrupted => ExitCode::Interrupted,
        }
    }

    #[must_use]
    pub fn worse(self, other: ExitCode) -> ExitCode {
        let rank = |code| WORST_FIRST.iter().position(|c| *c == code);
        if rank(self) <= rank(other) { self } else { other }
    }
}

impl From<ExitCode> for ProcessExitCode {
    fn from(code: ExitCode) -> ProcessExitCode {
        ProcessExitCode::from(code.number())
    }
}

/// The table as the end of every `--help`.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for row in &TABLE {
        text.push_str(&format!("  {:>3}  {}\n", row.number, row.meaning));
    }
    text.push_str(
        "exec on one host ends as its command does; 128 + n after a death by signal n,\n\
         255 when the link or the host failed, 126 and 127 as a shell has them.\n\
         On several hosts every command ends with 0, with 3 when any host failed (of exec: also\n\
         by a status other than 0), with 130 when interrupted, with 1 or 2 when nothing was begun.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_row_and_its_rank() {
        for row in &TABLE {
            assert_eq!(row.code.number(), row.number);
            assert!(WORST_FIRST.contains(&row.code), "{:?}", row.code);
        }
        for (i, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..i].iter().all(|other| other.code != row.code && other.number < row.number));
        }
    }

    #[test]
    fn the_numbers_are_the_contract() {
        for (kind, number) in [
            (FailureKind::Failed, 1),
            (FailureKind::Usage, 2),
            (FailureKind::Exists, 4),
            (FailureKind::Unreachable, 10),
            (FailureKind::Link, 10),
            (FailureKind::Locked, 11),
            (FailureKind::Verification, 12),
            (FailureKind::Storage, 13),
            (FailureKind::TimedOut, 124),
            (FailureKind::Interrupted, 130),
        ] {
            assert_eq!(ExitCode::of(kind).number(), number);
        }
    }

    #[test]
    fn the_worse_wins_whatever_the_order() {
        assert_eq!(ExitCode::Done.worse(ExitCode::Exists), ExitCode::Exists);
        assert_eq!(ExitCode::Unreachable.worse(ExitCode::Exists), ExitCode::Unreachable);
        assert_eq!(ExitCode::Failed.worse(ExitCode::Interrupted), ExitCode::Interrupted);
    }
}
