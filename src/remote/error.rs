//! What can go wrong between here and a target, by what the caller can do about it.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteErrorKind {
    /// The name or the address is wrong, the port is closed, or nobody answered in time.
    Unreachable,
    /// The host key is unknown, changed or revoked. Never retried.
    HostKey,
    /// No method of authentication got in. Never retried.
    Authentication,
    /// Another connection cannot be had without a person (a code, a touch): those that stand
    /// are all there will be. Never retried.
    NeedsPerson,
    /// The connection is gone, silent for too long, or broke its own protocol. What
    /// had not been acknowledged may or may not have happened: look, then retry.
    LinkLost,
    /// The server does not open another channel on this connection (or no such one).
    ChannelRefused,
    NotFound,
    PermissionDenied,
    /// Known only where the server says so (SFTP v3 mostly says `Failure`).
    AlreadyExists,
    NoSpace,
    /// The server does not know the request.
    Unsupported,
    /// SFTP's bare "Failure": the cause has to be found by looking.
    Failure,
    /// The server broke the protocol or went past a limit; the session is closed.
    Protocol,
    /// The caller asked for something that cannot be (a handle of another session, …).
    BadRequest,
}

/// An error with a message that is safe to show (escaped) and names what was asked.
#[derive(Debug, Clone)]
pub struct RemoteError {
    pub kind: RemoteErrorKind,
    pub message: String,
}

impl RemoteError {
    pub fn new(kind: RemoteErrorKind, message: impl Into<String>) -> RemoteError {
        RemoteError { kind, message: message.into() }
    }

    /// Whether a new connection may help.
    pub fn is_link(&self) -> bool {
        matches!(self.kind, RemoteErrorKind::LinkLost)
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == RemoteErrorKind::NotFound
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RemoteError {}
