//! Local errors as a server would tell them, with more of the cause.

use std::io;

use crate::remote::error::{RemoteError, RemoteErrorKind};

/// The error of a local call; `what` names the operation and its object.
pub fn remote_error(what: &str, error: &io::Error) -> RemoteError {
    RemoteError::new(kind_of(error), format!("{what}: {error}"))
}

fn kind_of(error: &io::Error) -> RemoteErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => RemoteErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            RemoteErrorKind::PermissionDenied
        }
        io::ErrorKind::AlreadyExists => RemoteErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RemoteErrorKind::NoSpace,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => RemoteErrorKind::BadRequest,
        io::ErrorKind::Unsupported => RemoteErrorKind::Unsupported,
        _ => RemoteErrorKind::Failure,
    }
}
