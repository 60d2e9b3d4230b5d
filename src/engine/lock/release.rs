//! Giving the lock back, and clearing away what a lost acquisition made.

use std::sync::atomic::Ordering;

use super::held::{Held, LockKind, is_of};
use super::look::read_content;
use super::small_file::move_to_unused;
use super::times::RUN_ENTRIES_MAX;
use crate::engine::failure::{Failure, Phase};
use crate::engine::io::remove_if_there;
use crate::model::names::{Names, RunNames};
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crate::remote::{Files, RemoteError};

/// Gives the lock back and removes the private directory and the temp directory, as far
/// as they are empty. To be called when the keeper has stopped and all else is cleaned up.
/// May be called again after a dead link. A lock that was lost meanwhile is no failure:
/// the newer run's lock stays, or comes back at its next beat.
///
/// The private name goes first: from then on no link of this run that is still on its
/// way can bring the lock back.
pub async fn release(files: &dyn Files, held: &Held) -> Result<(), Failure> {
    let failed = |error: RemoteError| Failure::remote(Phase::Clean, held.place(), &error);
    if held.kind == LockKind::Linked && !held.lost.load(Ordering::Relaxed) && files.features().in_order {
        let (private, aside) = (held.private.lock(), held.private.taken_lock(held.next_number()));
        let (removed, moved, gone) = tokio::join!(
            biased;
            remove_if_there(files, &private),
            move_to_unused(files, held.names.lock(), &aside),
            files.remove(&aside)
        );
        if [&removed, &moved, &gone].iter().all(|outcome| outcome.is_ok()) {
            // Not before the lock is gone: it is given back by way of this directory.
            return clear_private(files, &held.names, &held.private).await.map_err(failed);
        }
    }
    if held.kind != LockKind::Without {
        // Where the private name cannot be removed the lock is given back all the same. Where
        // the lock cannot, the directory stays, so that the next run sees what to clean up.
        let removed = remove_if_there(files, &held.private.lock()).await;
        if !removed.as_ref().is_err_and(RemoteError::is_link) && !held.lost.load(Ordering::Relaxed) {
            give_back(files, held).await.map_err(failed)?;
        }
        removed.map_err(failed)?;
    }
    clear_private(files, &held.names, &held.private).await.map_err(failed)
}

/// Gives back a lock that this run may have got while it was still being acquired: only
/// when it is seen to be this run's.
pub(super) async fn give_back_own(
    files: &dyn Files,
    names: &Names,
    run: RunId,
    aside: &RemotePath,
) -> Result<(), RemoteError> {
    match read_content(files, names.lock()).await {
        Ok((content, _)) if is_of(&content, run) => {}
        Err(error) if error.is_link() => return Err(error),
        Ok(_) | Err(_) => return Ok(()),
    }
    match move_to_unused(files, names.lock(), aside).await {
        Ok(()) => files.remove(aside).await,
        Err(error) => or_remove(files, names.lock(), error).await,
    }
}

/// For this run's own lock, seen just now, that `error` kept from being moved. Where the
/// server renames nothing, nobody else can have moved it away and linked another.
async fn or_remove(files: &dyn Files, lock: &RemotePath, error: RemoteError) -> Result<(), RemoteError> {
    use crate::remote::RemoteErrorKind::{PermissionDenied, Unsupported};
    match error.kind {
        PermissionDenied | Unsupported => files.remove(lock).await,
        _ => Err(error),
    }
}

async fn give_back(files: &dyn Files, held: &Held) -> Result<(), RemoteError> {
    let aside = held.private.taken_lock(held.next_number());
    match move_to_unused(files, held.names.lock(), &aside).await {
        // Whatever was moved, this name of it is ours to remove: a newer run's lock still
        // has its private name, and is linked again at the next beat.
        Ok(()) => files.remove(&aside).await,
        Err(error) if error.is_link() => Err(error),
        Err(error) => match read_content(files, held.names.lock()).await {
            Ok((content, _)) if is_of(&content, held.run) => or_remove(files, held.names.lock(), error).await,
            Err(again) if again.is_link() => Err(again),
            // Gone, or a newer run's.
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

/// Removes what was sent into a private directory whose run did not get the lock. Only a
/// dead link is an error.
pub(super) async fn clear_early(files: &dyn Files, private: &RunNames) -> Result<(), RemoteError> {
    let entries = match files.list(private.directory(), RUN_ENTRIES_MAX).await {
        Ok(entries) => entries,
        Err(error) => return stop_at_link(error),
    };
    for entry in entries.iter().filter(|entry| RunNames::is_merged(&entry.name)) {
        remove_if_there(files, &private.directory().join(&entry.name)).await.or_else(stop_at_link)?;
    }
    Ok(())
}

/// Removes a run's private directory with the locks that were moved into it, and the temp
/// directory, where nothing else is left in them. Only a dead link is an error.
pub(super) async fn clear_private(
    files: &dyn Files,
    names: &Names,
    private: &RunNames,
) -> Result<(), RemoteError> {
    if files.features().in_order {
        let both = tokio::join!(
            biased;
            files.remove_directory(private.directory()),
            files.remove_directory(names.temp())
        );
        match both {
            (Ok(()), Ok(())) => return Ok(()),
            // The second may have come before the first, or something else is in there.
            (Ok(()), Err(_)) => return files.remove_directory(names.temp()).await.or_else(stop_at_link),
            (Err(_), _) => {}
        }
    }
    if let Err(error) = files.remove_directory(private.directory()).await {
        stop_at_link(error)?;
        // Not empty, perhaps of a lock that was moved when a link died.
        match files.list(private.directory(), RUN_ENTRIES_MAX).await {
            Ok(entries) => {
                for entry in entries.iter().filter(|entry| entry.name.starts_with(b"taken.")) {
                    // A name is used only as it was made here: no separators.
                    if entry.name[b"taken.".len()..].iter().all(u8::is_ascii_digit) {
                        remove_if_there(files, &private.directory().join(&entry.name))
                            .await
                            .or_else(stop_at_link)?;
                    }
                }
                files.remove_directory(private.directory()).await.or_else(stop_at_link)?;
            }
            Err(error) => stop_at_link(error)?,
        }
    }
    files.remove_directory(names.temp()).await.or_else(stop_at_link)
}

fn stop_at_link(error: RemoteError) -> Result<(), RemoteError> {
    if error.is_link() { Err(error) } else { Ok(()) }
}
