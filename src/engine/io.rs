//! Whole small files on a target, and the operations that look before they believe.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt, TryStreamExt};

use super::plant::{Plant, is_planted};
use crate::model::remote_path::RemotePath;
use crate::remote::files::{Files, Handle, OpenMode};
use crate::remote::{RemoteError, RemoteErrorKind};

/// Requests in flight when one file is read or written from end to end.
pub const STREAM_REQUESTS: usize = 32;

/// Reads a file of at most `limit` bytes; `None` when it is not there.
pub async fn read_small(
    files: &dyn Files,
    path: &RemotePath,
    limit: u64,
) -> Result<Option<Vec<u8>>, RemoteError> {
    let handle = match files.open(path, OpenMode::READ, None).await {
        Ok(handle) => handle,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let content = read_to_end(files, &handle, limit, path).await;
    files.close_unheard(handle).await?;
    content.map(Some)
}

async fn read_to_end(
    files: &dyn Files,
    handle: &Handle,
    limit: u64,
    path: &RemotePath,
) -> Result<Vec<u8>, RemoteError> {
    let read_limit = files.features().read_limit;
    // The size tells that the first part is all of it; one that is wrong is asked on.
    let (first, attributes) = tokio::join!(files.read_at(handle, 0, read_limit), files.stat_handle(handle));
    let mut content = first?.to_vec();
    if attributes.is_ok_and(|attributes| attributes.size == Some(content.len() as u64))
        && content.len() as u64 <= limit
    {
        return Ok(content);
    }
    loop {
        let part = files.read_at(handle, content.len() as u64, read_limit).await?;
        if part.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(&part);
        if content.len() as u64 > limit {
            return Err(RemoteError::new(
                RemoteErrorKind::Protocol,
                format!("{path} has more than the {limit} bytes it can have"),
            ));
        }
    }
}

/// Writes a file from its start. Not atomic: give it a private name, then rename. The
/// handle stays open for what follows.
pub async fn create_with(
    files: &dyn Files,
    path: &RemotePath,
    content: Bytes,
    mode: u32,
) -> Result<Handle, RemoteError> {
    let handle = files.open(path, OpenMode::CREATE, Some(mode)).await?;
    match write_all(files, &handle, 0, content).await {
        Ok(()) => Ok(handle),
        Err(error) => {
            // The write's error is the one that counts.
            let _ = files.close(handle).await;
            Err(error)
        }
    }
}

/// Writes a whole file and closes it, synced if `durable` and the server can. Not atomic:
/// give it a private name, then rename.
pub async fn write_file(
    files: &dyn Files,
    path: &RemotePath,
    content: Bytes,
    mode: u32,
    durable: bool,
) -> Result<(), RemoteError> {
    if !durable && files.features().in_order && content.len() <= files.features().write_limit {
        let handle = files.open(path, OpenMode::CREATE, Some(mode)).await?;
        match write_and_close(files, handle, content.clone()).await {
            Err(error) if error.is_link() => return Err(error),
            // Not in order after all, or a cause that shows again.
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
    let handle = create_with(files, path, content, mode).await?;
    let synced = if durable { sync_if_possible(files, &handle).await } else { Ok(()) };
    files.close(handle).await?;
    synced
}

/// Writes what fits into one write and closes, both in one round trip: only where the server
/// answers in order.
pub async fn write_and_close(files: &dyn Files, handle: Handle, content: Bytes) -> Result<(), RemoteError> {
    let written = files.submit_write(&handle, 0, content).await?;
    let (written, closed) = tokio::join!(written, files.close(handle));
    written.and(closed)
}

/// Writes `content` at `offset` and waits for every acknowledgement.
pub async fn write_all(
    files: &dyn Files,
    handle: &Handle,
    offset: u64,
    content: Bytes,
) -> Result<(), RemoteError> {
    let mut pending = FuturesOrdered::new();
    let mut written = 0;
    while written < content.len() {
        let length = files.features().write_limit.min(content.len() - written);
        let piece = content.slice(written..written + length);
        pending.push_back(files.submit_write(handle, offset + written as u64, piece).await?);
        written += length;
        if pending.len() >= STREAM_REQUESTS
            && let Some(acknowledged) = pending.next().await
        {
            acknowledged?;
        }
    }
    while let Some(acknowledged) = pending.next().await {
        acknowledged?;
    }
    Ok(())
}

/// Puts a file that is complete under a private name in place of `to`: atomically where
/// the server has posix-rename, else by removing `to` first. Only for haul's own files
/// in the temp directory, where a moment without the name does no harm.
pub async fn publish(files: &dyn Files, from: &RemotePath, to: &RemotePath) -> Result<(), RemoteError> {
    if files.features().posix_rename {
        return files.rename_over(from, to).await;
    }
    match files.rename(from, to).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind == RemoteErrorKind::NotFound || error.is_link() => Err(error),
        Err(_) => {
            remove_if_there(files, to).await?;
            files.rename(from, to).await
        }
    }
}

pub async fn remove_if_there(files: &dyn Files, path: &RemotePath) -> Result<(), RemoteError> {
    match files.remove(path).await {
        Err(error) if error.is_not_found() => Ok(()),
        // Some servers say "Failure" for a name that is not there.
        Err(error) if error.kind == RemoteErrorKind::Failure => match files.lstat(path).await {
            Err(look) if look.is_not_found() => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// The size of an open file; by its path where the server tells nothing of handles.
pub async fn size_of_open(
    files: &dyn Files,
    handle: &Handle,
    path: &RemotePath,
) -> Result<Option<u64>, RemoteError> {
    match files.stat_handle(handle).await {
        Ok(attributes) => Ok(attributes.size),
        Err(error) if error.is_link() => Err(error),
        Err(_) => Ok(files.lstat(path).await?.size),
    }
}

/// Removes many, in any order and many at a time.
pub async fn remove_all_if_there(files: &dyn Files, paths: Vec<RemotePath>) -> Result<(), RemoteError> {
    let removals = paths.into_iter().map(|path| async move { remove_if_there(files, &path).await });
    futures_util::stream::iter(removals).buffer_unordered(STREAM_REQUESTS).try_collect().await
}

/// Flushes to the target's disk where the server can.
pub async fn sync_if_possible(files: &dyn Files, handle: &Handle) -> Result<(), RemoteError> {
    if is_planted(Plant::NoSync) {
        return Ok(());
    }
    if !files.features().fsync {
        return Ok(());
    }
    match files.sync(handle).await {
        Err(error) if error.kind == RemoteErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

/// Reads `range` of an open file in order, many requests in flight, and hands each part
/// to `take`. Ends early, with the offset reached, where the file ends early.
pub async fn read_range(
    files: &Arc<dyn Files>,
    handle: &Handle,
    range: std::ops::Range<u64>,
    mut take: impl FnMut(Bytes),
) -> Result<u64, RemoteError> {
    let step = files.features().read_limit as u64;
    let mut asked = range.start;
    let mut reached = range.start;
    let mut pending = FuturesOrdered::new();
    loop {
        while pending.len() < STREAM_REQUESTS && asked < range.end {
            let length = step.min(range.end - asked) as usize;
            let (files, handle, offset) = (files.clone(), handle.clone(), asked);
            pending.push_back(async move { read_exactly(&files, &handle, offset, length).await });
            asked += length as u64;
        }
        let Some(part) = pending.next().await else { return Ok(reached) };
        let (parts, whole) = part?;
        for part in parts {
            reached += part.len() as u64;
            take(part);
        }
        if !whole {
            return Ok(reached);
        }
    }
}

/// A server may answer a READ with fewer bytes than asked for; asks for the rest.
async fn read_exactly(
    files: &Arc<dyn Files>,
    handle: &Handle,
    offset: u64,
    length: usize,
) -> Result<(Vec<Bytes>, bool), RemoteError> {
    let mut parts = Vec::with_capacity(1);
    let mut read = 0;
    while read < length {
        let part = files.read_at(handle, offset + read as u64, length - read).await?;
        if part.is_empty() {
            return Ok((parts, false));
        }
        read += part.len();
        parts.push(part);
    }
    Ok((parts, true))
}
