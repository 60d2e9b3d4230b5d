//! Why a command has no status.

use std::fmt;

use super::child::Output;
use crate::engine::failure::Failure;
use crate::remote::{RemoteError, RemoteErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecErrorKind {
    /// No way in: name, address, host key, authentication.
    Unreachable,
    /// The connection is gone or the server refuses a channel.
    Link,
    /// The server runs no commands, or something else than a shell answers.
    NoShell,
    /// The directory to start in is not there, is none, or cannot be entered.
    Directory,
    /// As a shell's 127.
    ProgramNotFound,
    /// As a shell's 126.
    ProgramNotExecutable,
    /// No system can run it.
    InvalidInput,
    TimedOut,
    /// About the state of a detached command.
    Detached,
}

/// One line, escaped, without the host's name.
#[derive(Debug, Clone)]
pub struct ExecError {
    pub kind: ExecErrorKind,
    pub message: String,
    /// The program may have run, and may still run. Where it is false it has not and will
    /// not: trying again repeats nothing.
    pub started: bool,
    /// What had come until [`ExecErrorKind::TimedOut`].
    pub output: Option<Box<Output>>,
}

impl ExecError {
    pub(super) fn new(kind: ExecErrorKind, message: impl Into<String>) -> ExecError {
        ExecError { kind, message: message.into(), started: false, output: None }
    }

    pub(super) fn remote(error: &RemoteError, started: bool) -> ExecError {
        let kind = match error.kind {
            RemoteErrorKind::Unreachable
            | RemoteErrorKind::HostKey
            | RemoteErrorKind::Authentication
            | RemoteErrorKind::NeedsPerson => ExecErrorKind::Unreachable,
            RemoteErrorKind::Unsupported => ExecErrorKind::NoShell,
            _ => ExecErrorKind::Link,
        };
        ExecError { started, ..ExecError::new(kind, &error.message) }
    }

    /// The connection ended before the command told how it did.
    pub(super) fn lost() -> ExecError {
        let message =
            "the connection ended before the command told its status; it may have run, and is ended";
        ExecError { started: true, ..ExecError::new(ExecErrorKind::Link, message) }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExecError {}

impl From<Failure> for ExecError {
    fn from(failure: Failure) -> ExecError {
        ExecError::new(ExecErrorKind::InvalidInput, failure.cause)
    }
}
