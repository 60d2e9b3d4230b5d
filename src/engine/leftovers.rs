//! Removes what haul made beside a target, and nothing else.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::io::{STREAM_REQUESTS, publish, remove_all_if_there, remove_if_there};
use super::monitor::{Level, Monitor, Notice};
use super::options::{LockOptions, Wait};
use super::prepare::entries_of;
use super::site::Site;
use super::stop::Stop;
use super::temp::{self, TempState};
use crate::model::lock_file::SourceNote;
use crate::model::names::{Names, RunNames};
use crate::model::remote_path::RemotePath;
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// What stands beside the target, but for this run's private lock, which goes with the
/// release.
pub struct Leftovers {
    run: RunNames,
    state: TempState,
    /// By private directory, and whether that goes too when they have gone.
    private: Vec<(RemotePath, Vec<RemotePath>, bool)>,
}

/// With the lock held. Changes nothing.
pub async fn look(site: &Site, guard: &Guard) -> Result<Leftovers, Failure> {
    let own = guard.run_names().directory();
    // That it is there needs no look.
    let (state, in_own) =
        tokio::join!(temp::names(site, Phase::Clean), private_files(site, own.clone(), true));
    let (state, mut private) = (state?.unwrap_or_default(), vec![in_own?]);
    let mut others = Vec::new();
    // Every older run's directory was fenced, and goes by such a name. Any other is a newer
    // run's, which may have taken the lock from this one while it stood still.
    let fenced = Names::fenced_by(guard.held.run());
    let is_fenced = |directory: &&RemotePath| directory.file_name().starts_with(fenced.as_bytes());
    for directory in state.private.iter().filter(is_fenced) {
        others.push(private_files(site, directory.clone(), false));
    }
    private.extend(stream::iter(others).buffered(STREAM_REQUESTS).try_collect::<Vec<_>>().await?);
    Ok(Leftovers { run: guard.run_names().clone(), state, private })
}

async fn private_files(
    site: &Site,
    directory: RemotePath,
    own: bool,
) -> Result<(RemotePath, Vec<RemotePath>, bool), Failure> {
    let entries = entries_of(site, &directory).await.map_err(site.failed(Phase::Clean))?;
    let keep = |name: &[u8]| own && (name == b"lock" || name.starts_with(b"taken."));
    let outdated = entries.iter().filter(|name| !keep(name));
    let files = outdated.map(|name| directory.join(name)).collect();
    Ok((directory, files, !entries.iter().any(|name| keep(name))))
}

/// With the lock held: everything in the temp directory but this run's private lock.
pub async fn remove_all(site: &Site, guard: &Guard) -> Result<(), Failure> {
    remove(site, look(site, guard).await?).await
}

/// With the lock held: what was found there.
pub async fn remove(site: &Site, found: Leftovers) -> Result<(), Failure> {
    let Leftovers { run, state, private } = found;
    let failed = site.failed(Phase::Clean);
    let files = site.files.as_ref();
    let chunks = state.stored.keys().map(|n| site.names.chunk(*n));
    let receipts = state.receipts.iter().map(|(n, generation)| site.names.receipt(*n, *generation));
    let mut shared: Vec<RemotePath> = chunks.collect();
    // Chunks first, what vouches for them last.
    let mut vouching = vec![site.names.manifest(), site.names.record()];
    if files.features().in_order {
        shared.append(&mut vouching);
    }
    let mut outdated: Vec<RemotePath> = receipts.collect();
    let (directories, in_private): (Vec<_>, Vec<_>) =
        private.into_iter().map(|(directory, files, goes)| (goes.then_some(directory), files)).unzip();
    outdated.extend(in_private.into_iter().flatten());
    tokio::try_join!(remove_shared(files, &run, shared), remove_all_if_there(files, outdated))
        .map_err(&failed)?;
    remove_shared(files, &run, vouching).await.map_err(&failed)?;
    for directory in directories.iter().flatten() {
        match files.remove_directory(directory).await {
            Err(error) if error.is_link() => return Err(failed(error)),
            // An empty directory that stays is in nobody's way.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Files that a newer run has under the same names: by way of this run's private directory,
/// which such a run has taken away, so that a removal that comes late hits nothing of it.
async fn remove_shared(files: &dyn Files, run: &RunNames, paths: Vec<RemotePath>) -> Result<(), RemoteError> {
    let removals = paths.into_iter().map(|path| async move {
        let outdated = run.outdated(path.file_name());
        if files.features().in_order && files.features().posix_rename {
            let (moved, removed) =
                tokio::join!(biased; files.rename_over(&path, &outdated), remove_if_there(files, &outdated));
            return if_there(files, &path, moved).await.and(removed);
        }
        let moved = publish(files, &path, &outdated).await;
        if_there(files, &path, moved).await?;
        remove_if_there(files, &outdated).await
    });
    stream::iter(removals).buffer_unordered(STREAM_REQUESTS).try_collect().await
}

/// Some servers say "Failure" of a name that is not there.
async fn if_there(
    files: &dyn Files,
    path: &RemotePath,
    moved: Result<(), RemoteError>,
) -> Result<(), RemoteError> {
    match moved {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) if error.kind == RemoteErrorKind::Failure => match files.lstat(path).await {
            Err(look) if look.is_not_found() => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// The target is complete, and a run that died after its commit left its temp directory:
/// removes that, unless another run lives there. After a failure of kind `Link` call it
/// again with the same `request`.
pub async fn clean_after_commit(
    request: &mut Request,
    site: &Site,
    options: &LockOptions,
    monitor: &Arc<dyn Monitor>,
    stop: &Stop,
) -> Result<(), Failure> {
    let options = LockOptions { wait: Wait::No, ..options.clone() };
    let note = SourceNote { name: Vec::new(), identity: String::new() };
    let guard = match Guard::acquire(request, site, note, &options, monitor, stop).await {
        Ok(guard) => guard,
        Err(failure) if failure.kind == FailureKind::Locked => {
            let text = format!("{}: an upload to it is under way: {}", site.place(), failure.cause);
            monitor.notice(Notice { level: Level::Info, text });
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    let remove = async {
        guard.fence(site, monitor).await?;
        remove_all(site, &guard).await
    };
    let removed = guard.watch(remove).await;
    let released = guard.release(Some(site.files.clone())).await;
    removed.and(released)
}
