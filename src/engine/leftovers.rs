//! Removes what haul made beside a target, and nothing else.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::io::remove_all_if_there;
use super::monitor::{Level, Monitor, Notice};
use super::options::{LockOptions, Wait};
use super::prepare::clear_directory;
use super::site::Site;
use super::stop::Stop;
use super::temp::{self, TempState};
use crate::model::lock_file::SourceNote;

/// With the lock held: everything in the temp directory but this run's private lock,
/// which goes with the release.
pub async fn remove_all(site: &Site, guard: &Guard) -> Result<(), Failure> {
    let state = temp::names(site, Phase::Clean).await?.unwrap_or_default();
    let own = guard.run_names().directory();
    let clear_private = async {
        for directory in &state.private {
            let keep = |name: &[u8]| directory == own && (name == b"lock" || name.starts_with(b"taken."));
            clear_directory(site, directory, keep).await.map_err(site.failed(Phase::Clean))?;
        }
        Ok(())
    };
    tokio::try_join!(remove_state(site, &state), clear_private)?;
    Ok(())
}

/// Chunks first, what vouches for them last.
async fn remove_state(site: &Site, state: &TempState) -> Result<(), Failure> {
    let failed = site.failed(Phase::Clean);
    let files = site.files.as_ref();
    let chunks = state.stored.keys().map(|n| site.names.chunk(*n));
    let receipts = state.receipts.iter().map(|(n, generation)| site.names.receipt(*n, *generation));
    remove_all_if_there(files, chunks.chain(receipts).collect()).await.map_err(&failed)?;
    let vouching = vec![site.names.manifest(), site.names.record()];
    remove_all_if_there(files, vouching).await.map_err(&failed)
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
