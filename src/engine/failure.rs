//! Why something did not work, in one line that a person can act on.

use std::fmt;

use crate::model::escape::printable;
use crate::remote::{RemoteError, RemoteErrorKind};

/// What a failure means to the caller; the command line maps each to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing more particular.
    Failed,
    /// The request makes no sense as it stands.
    Usage,
    /// The target exists, appeared or changed, and was not to be replaced.
    Exists,
    /// No way in: name, address, port, host key, authentication.
    Unreachable,
    /// The link died and retries are used up (or, inside the engine, not yet).
    Link,
    /// Another run holds the lock, or took it.
    Locked,
    /// The merged file is not the source.
    Verification,
    /// No space or no permission on the target.
    Storage,
    TimedOut,
    Interrupted,
}

/// Where in a job something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Source,
    Connect,
    Survey,
    Lock,
    Hash,
    Upload,
    Merge,
    Verify,
    Commit,
    Clean,
    Exec,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Source => "source",
            Phase::Connect => "connect",
            Phase::Survey => "survey",
            Phase::Lock => "lock",
            Phase::Hash => "hash",
            Phase::Upload => "upload",
            Phase::Merge => "merge",
            Phase::Verify => "verify",
            Phase::Commit => "commit",
            Phase::Clean => "clean",
            Phase::Exec => "exec",
        }
    }
}

/// Displays as `web1:/srv/img: upload: cause; next step`, already escaped.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: FailureKind,
    pub phase: Phase,
    /// `host:path`, a path, or empty.
    pub place: String,
    pub cause: String,
    /// What the person can do next; empty where there is nothing to say.
    pub next_step: String,
}

impl Failure {
    pub fn new(
        kind: FailureKind,
        phase: Phase,
        place: impl fmt::Display,
        cause: impl fmt::Display,
    ) -> Failure {
        Failure { kind, phase, place: place.to_string(), cause: cause.to_string(), next_step: String::new() }
    }

    /// Of an operation on a target. `place` names host and path.
    pub fn remote(phase: Phase, place: impl fmt::Display, error: &RemoteError) -> Failure {
        let kind = match error.kind {
            RemoteErrorKind::Unreachable
            | RemoteErrorKind::HostKey
            | RemoteErrorKind::Authentication
            | RemoteErrorKind::NeedsPerson => FailureKind::Unreachable,
            RemoteErrorKind::LinkLost => FailureKind::Link,
            RemoteErrorKind::PermissionDenied | RemoteErrorKind::NoSpace => FailureKind::Storage,
            _ => FailureKind::Failed,
        };
        Failure::new(kind, phase, place, &error.message)
    }

    /// Of an operation on a local file.
    pub fn local(phase: Phase, path: &std::path::Path, error: &std::io::Error) -> Failure {
        use std::os::unix::ffi::OsStrExt;
        Failure::new(FailureKind::Failed, phase, printable(path.as_os_str().as_bytes()), error)
    }

    #[must_use]
    pub fn next_step(mut self, text: impl Into<String>) -> Failure {
        self.next_step = text.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}: {}", self.phase.name(), self.cause)?;
        if !self.next_step.is_empty() {
            write!(f, "; {}", self.next_step)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
