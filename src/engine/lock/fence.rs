//! Fencing: nothing that an older run still asks for by name is there any more.
//!
//! A directory goes through the winner's own one, and only then to its place. So a run that
//! was deposed itself cannot fence any more, however late its renames arrive: where two
//! runs believe that they have won, the first of the two renames decides, and the other
//! finds its own directory gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::sleep;

use super::held::Held;
use super::small_file::move_to_unused;
use super::times::{FENCE_TRIES, FENCED_AT_ONCE_MAX, RUN_ENTRIES_MAX, TEMP_ENTRIES_MAX};
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::model::names::{Entry, Names, RunNames};
use crate::model::remote_path::RemotePath;
use crate::remote::files::FileKind;
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// The private directory of an older run, where it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedDir {
    pub names: RunNames,
}

/// Renames the private directories of all other runs in the temp directory, and those that
/// earlier runs had fenced, so that they are this run's to salvage and to remove. Returns
/// all that stand there, also from an earlier call. With a lock that `--break-lock` took
/// from another user, that user's runs are fenced as well, which is a warning where it
/// cannot be done, and stay theirs.
///
/// Any run that ever held the lock made its directory before this run won, so it is in the
/// first listing; what such a run fenced itself until it was fenced is in the second.
/// Where there was anything to fence the lock
/// is looked at once more, as a run that took over the same dead lock may have moved this
/// one before its directory was taken from it, and a third may have linked its own then.
/// From here on none can.
///
/// `Locked` when the lock was lost; `Storage` or `Failed` when the server will not rename a
/// directory; `Link` when the link died (call again).
pub async fn fence(
    files: &dyn Files,
    held: &Held,
    monitor: &Arc<dyn Monitor>,
) -> Result<Vec<FencedDir>, Failure> {
    let (fenced, contested) = fence_temp(files, held, &held.names).await?;
    if let Some(user) = &held.deposed {
        let theirs = Names::new(held.names.target(), user);
        match fence_deposed(files, held, &theirs).await {
            Err(failure) if failure.kind == FailureKind::Link => return Err(failure),
            Err(failure) => monitor.notice(Notice {
                level: Level::Warning,
                text: format!(
                    "{}: the files of {user}'s run could not be moved out of its reach ({}); \
                     make sure that it has ended",
                    held.place(),
                    failure.cause
                ),
            }),
            Ok(()) => {}
        }
    }
    if contested {
        held.check(files).await?;
    }
    Ok(fenced)
}

async fn fence_deposed(files: &dyn Files, held: &Held, theirs: &Names) -> Result<(), Failure> {
    match files.lstat(theirs.temp()).await {
        Ok(attributes) if matches!(attributes.kind, FileKind::Directory | FileKind::Unknown) => {
            fence_temp(files, held, theirs).await.map(drop)
        }
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(Failure::remote(Phase::Lock, theirs.temp(), &error)),
    }
}

/// Gives what stands fenced now, and whether any other run's directory was seen.
async fn fence_temp(
    files: &dyn Files,
    held: &Held,
    names: &Names,
) -> Result<(Vec<FencedDir>, bool), Failure> {
    let place = format!("{}:{}", held.host, names.temp());
    let failed = |error: &RemoteError| Failure::remote(Phase::Lock, &place, error);
    let mine = Names::fenced_by(held.run);
    let mut tries = 0;
    let mut contested = false;
    // An earlier call, or an earlier turn, may have been cut off half way.
    let mut half_done = held.fencing_began.swap(true, Ordering::Relaxed);
    loop {
        let mut refused = None;
        if half_done {
            let half_way = nested(files, held.private.directory()).await.map_err(|error| failed(&error))?;
            match finish_fencing(files, held, names, half_way).await {
                Err(error) if error.is_link() => return Err(failed(&error)),
                Err(error) => refused = Some(error),
                Ok(_) => {}
            }
        }
        let mut fenced = Vec::new();
        let mut moved_any = false;
        let entries = files.list(names.temp(), TEMP_ENTRIES_MAX).await.map_err(|error| failed(&error))?;
        let own = |name: &[u8]| matches!(names.entry(name), Entry::Run(run) if run == held.run);
        let alone = names == &held.names && entries.iter().all(|entry| own(&entry.name));
        held.alone.store(alone, Ordering::Relaxed);
        for entry in entries {
            let from = match names.entry(&entry.name) {
                Entry::Run(run) if run == held.run => continue,
                Entry::Run(_) | Entry::Fenced => names.temp().join(&entry.name),
                _ => continue,
            };
            contested = true;
            if entry.name.starts_with(mine.as_bytes()) {
                fenced.push(FencedDir { names: RunNames::in_directory(from) });
                continue;
            }
            let inside = held.private.being_fenced(held.next_number());
            let moved = match move_to_unused(files, &from, &inside).await {
                Ok(()) => finish_fencing(files, held, names, vec![inside]).await,
                Err(error) => Err(error),
            };
            match moved {
                Ok(moved) => {
                    moved_any = true;
                    fenced.extend(moved);
                }
                // Its run gave up meanwhile and removed it, or this run is fenced itself,
                // which the look at the end will show.
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_link() => return Err(failed(&error)),
                Err(error) => refused = Some(error),
            }
        }
        half_done = refused.is_some();
        tries += 1;
        let Some(error) = refused else {
            if moved_any && tries < FENCE_TRIES {
                continue;
            }
            // Those who only want the lock may come and go for ever.
            return Ok((fenced, contested));
        };
        if tries >= FENCE_TRIES || error.kind == RemoteErrorKind::PermissionDenied {
            return Err(failed(&error).next_step(
                "an earlier run's files cannot be moved: let its connection end, then try again",
            ));
        }
        // Some servers do not rename a directory in which a file is open; the older run's
        // session will end.
        sleep(held.times.fence_pause).await;
    }
}

/// The second half: out of this run's directory to where fenced directories stand. What a
/// run that died between the halves had in its own directory is brought out first, so that
/// every fenced directory stands in the temp directory.
async fn finish_fencing(
    files: &dyn Files,
    held: &Held,
    names: &Names,
    mut inside: Vec<RemotePath>,
) -> Result<Vec<FencedDir>, RemoteError> {
    let mut seen = 0;
    while let Some(directory) = inside.get(seen) {
        for from in nested(files, directory).await? {
            if inside.len() == FENCED_AT_ONCE_MAX {
                let text = format!("{}: too many directories of older runs in it", names.temp());
                return Err(RemoteError::new(RemoteErrorKind::Protocol, text));
            }
            let to = held.private.being_fenced(held.next_number());
            move_to_unused(files, &from, &to).await?;
            inside.push(to);
        }
        seen += 1;
    }
    let mut fenced = Vec::new();
    for from in inside {
        let to = names.fenced(held.run, held.next_number());
        move_to_unused(files, &from, &to).await?;
        fenced.push(FencedDir { names: RunNames::in_directory(to) });
    }
    Ok(fenced)
}

/// Directories on their way through a run's private directory.
async fn nested(files: &dyn Files, directory: &RemotePath) -> Result<Vec<RemotePath>, RemoteError> {
    let entries = files.list(directory, RUN_ENTRIES_MAX).await?;
    let names = entries.into_iter().map(|entry| entry.name);
    Ok(names.filter(|name| RunNames::is_being_fenced(name)).map(|name| directory.join(name)).collect())
}
