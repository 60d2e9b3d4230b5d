//! What stands beside a target, asked for before it is known whether anything is to be sent.

use super::failure::{Failure, Phase};
use super::site::Site;
use super::space::check_bytes;
use super::temp::{self, TempState};
use crate::remote::RemoteError;
use crate::remote::files::Attributes;

pub struct Survey {
    pub state: Result<Option<TempState>, Failure>,
    /// Whether there is room for a file of that size.
    pub room: Result<(), Failure>,
    lock: Result<Attributes, RemoteError>,
}

impl Survey {
    /// Changes nothing.
    pub async fn of(site: &Site, size: u64) -> Survey {
        let parent = site.names.target().parent();
        let (state, room, lock) = tokio::join!(
            temp::read(site, Phase::Survey),
            check_bytes(site, &parent, size),
            site.files.lstat(site.names.lock())
        );
        Survey { state, room, lock }
    }

    /// Neither an earlier run's temp directory nor a lock.
    pub fn nothing_there(&self) -> bool {
        matches!(self.state, Ok(None)) && self.lock.as_ref().is_err_and(RemoteError::is_not_found)
    }

    /// Somebody may be at work.
    pub fn is_locked(&self) -> bool {
        self.lock.is_ok()
    }
}
