//! Removes what haul made beside a target, and nothing else.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::io::{STREAM_REQUESTS, remove_all_if_there};
use super::monitor::{Level, Monitor, Notice};
use super::options::{LockOptions, Wait};
use super::prepare::entries_of;
use super::site::Site;
use super::stop::Stop;
use super::temp::{self, TempState};
use crate::model::lock_file::SourceNote;
use crate::model::remote_path::RemotePath;

/// What stands beside the target, but for this run's private lock, which goes with the
/// release.
pub struct Leftovers {
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
    for directory in state.private.iter().filter(|directory| *directory != own) {
        others.push(private_files(site, directory.clone(), false));
    }
    private.extend(stream::iter(others).buffered(STREAM_REQUESTS).try_collect::<Vec<_>>().await?);
    Ok(Leftovers { state, private })
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
    let Leftovers { state, private } = found;
    let failed = site.failed(Phase::Clean);
    let files = site.files.as_ref();
    let chunks = state.stored.keys().map(|n| site.names.chunk(*n));
    let receipts = state.receipts.iter().map(|(n, generation)| site.names.receipt(*n, *generation));
    let mut outdated: Vec<RemotePath> = chunks.chain(receipts).collect();
    // Chunks first, what vouches for them last.
    let mut vouching = vec![site.names.manifest(), site.names.record()];
    if files.features().in_order {
        outdated.append(&mut vouching);
    }
    let (directories, in_private): (Vec<_>, Vec<_>) =
        private.into_iter().map(|(directory, files, goes)| (goes.then_some(directory), files)).unzip();
    outdated.extend(in_private.into_iter().flatten());
    remove_all_if_there(files, outdated).await.map_err(&failed)?;
    remove_all_if_there(files, vouching).await.map_err(&failed)?;
    for directory in directories.iter().flatten() {
        match files.remove_directory(directory).await {
            Err(error) if error.is_link() => return Err(failed(error)),
            // An empty directory that stays is in nobody's way.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
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
