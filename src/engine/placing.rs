//! Whether a server writes where it is told to, through whichever handle.

use std::sync::Arc;

use bytes::Bytes;

use super::io::{create_with, read_small, remove_if_there, write_all};
use super::site::Site;
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::remote::files::OpenMode;
use crate::remote::{Files, RemoteError};

const MODE: u32 = 0o600;

/// Writes out of order through two handles and reads it back. Placing chunks, and
/// several lanes, need a server that passes.
pub async fn prove_placing(site: &Site, run: &RunNames, attempt: u64) -> Result<bool, RemoteError> {
    if prove_over(&site.files, run.directory().join(format!("placing.{attempt}"))).await? {
        return Ok(true);
    }
    // Erlang's server gives one handle to all files of a session from the third on. Lanes
    // have sessions of their own, and so has this second look.
    let further = site.further_files().await?;
    Ok(!Arc::ptr_eq(&further, &site.files)
        && prove_over(&further, run.directory().join(format!("placing-again.{attempt}"))).await?)
}

async fn prove_over(files: &Arc<dyn Files>, path: RemotePath) -> Result<bool, RemoteError> {
    let files = files.as_ref();
    // Something stands in it already: Erlang's server empties what is opened for writing
    // and not for reading too, rclone's whatever is opened for writing.
    let first = create_with(files, &path, Bytes::from_static(b"............d"), MODE).await?;
    let second = match files.open(&path, OpenMode::READ_WRITE, None).await {
        Ok(second) => second,
        Err(error) if error.is_link() => return Err(error),
        Err(_) => {
            files.close(first).await?;
            remove_if_there(files, &path).await?;
            return Ok(false);
        }
    };
    // In whatever order the server takes them.
    let (third, one, two) = tokio::join!(
        write_all(files, &first, 8, Bytes::from_static(b"thir")),
        write_all(files, &second, 0, Bytes::from_static(b"one.")),
        write_all(files, &first, 4, Bytes::from_static(b"two.")),
    );
    let written = third.and(one).and(two);
    let closed = tokio::join!(files.close(first), files.close(second));
    let read = read_small(files, &path, 64).await;
    remove_if_there(files, &path).await?;
    for outcome in [written, closed.0, closed.1] {
        match outcome {
            Err(error) if error.is_link() => return Err(error),
            Err(_) => return Ok(false),
            Ok(()) => {}
        }
    }
    match read {
        Err(error) if error.is_link() => Err(error),
        read => Ok(read.is_ok_and(|content| content.as_deref() == Some(b"one.two.third"))),
    }
}
