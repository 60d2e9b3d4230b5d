//! Reading, writing and moving files of a few kilobytes on a target.

use bytes::Bytes;

use crate::engine::io::write_and_close;
use crate::model::remote_path::RemotePath;
use crate::remote::files::{Handle, OpenMode};
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// Reads at most `limit` bytes from the beginning.
pub async fn read(files: &dyn Files, path: &RemotePath, limit: usize) -> Result<Vec<u8>, RemoteError> {
    let handle = files.open(path, OpenMode::READ, None).await?;
    let content = read_handle(files, &handle, limit).await;
    files.close_unheard(handle).await?;
    content
}

/// The same through an open handle.
pub async fn read_handle(files: &dyn Files, handle: &Handle, limit: usize) -> Result<Vec<u8>, RemoteError> {
    let mut content: Vec<u8> = Vec::new();
    if limit <= files.features().read_limit {
        // The size tells that this is all of it; one that is wrong is asked on.
        let (part, attributes) = tokio::join!(files.read_at(handle, 0, limit), files.stat_handle(handle));
        content.extend_from_slice(&part?);
        if attributes.is_ok_and(|attributes| attributes.size == Some(content.len() as u64)) {
            return Ok(content);
        }
    }
    while content.len() < limit {
        let wanted = (limit - content.len()).min(files.features().read_limit.max(1));
        let part = files.read_at(handle, content.len() as u64, wanted).await?;
        if part.is_empty() {
            break;
        }
        content.extend_from_slice(&part);
    }
    content.truncate(limit);
    Ok(content)
}

/// Creates a file that must not exist and writes `content`. Success means that every
/// write and the close were acknowledged. It is not synced: nothing about a lock has to
/// outlive a power loss, and one that a power loss emptied is a torn one.
pub async fn write_new(
    files: &dyn Files,
    path: &RemotePath,
    content: &[u8],
    mode: u32,
) -> Result<(), RemoteError> {
    let handle = files.open(path, OpenMode::CREATE_NEW, Some(mode)).await?;
    if files.features().in_order && content.len() <= files.features().write_limit {
        return write_and_close(files, handle, Bytes::copy_from_slice(content)).await;
    }
    let written = write_handle(files, &handle, 0, content).await;
    files.close(handle).await?;
    written
}

/// Writes at `offset` and waits for the server's word.
pub async fn write_handle(
    files: &dyn Files,
    handle: &Handle,
    offset: u64,
    content: &[u8],
) -> Result<(), RemoteError> {
    let mut at = offset;
    for part in content.chunks(files.features().write_limit.max(1)) {
        files.submit_write(handle, at, Bytes::copy_from_slice(part)).await?.await?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Renames to a name that was never used. posix-rename where it is announced: OpenSSH's
/// plain rename of a file is link and unlink, and stopped between the two leaves both.
pub async fn move_to_unused(
    files: &dyn Files,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<(), RemoteError> {
    if files.features().posix_rename {
        match files.rename_over(from, to).await {
            Err(error) if error.kind == RemoteErrorKind::Unsupported => {}
            outcome => return outcome,
        }
    }
    files.rename(from, to).await
}
