//! The SFTP client on an SSH channel.

use std::sync::Arc;

use russh::Channel;
use russh::client::Msg;

use super::connection::Shared;
use crate::remote::Files;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// Takes over a channel in which the SFTP subsystem was started.
pub async fn start_sftp(shared: Arc<Shared>, channel: Channel<Msg>) -> Result<Arc<dyn Files>, RemoteError> {
    let _ = channel.close().await;
    Err(RemoteError::new(
        RemoteErrorKind::Unsupported,
        format!("{}: no SFTP client yet", shared.options.host),
    ))
}
