//! `haul clean`: removes temp directory and lock, and nothing that haul did not make.

use std::sync::Arc;

use super::connect::Link;
use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::leftovers;
use super::lock::{self, LockSeen};
use super::monitor::{Level, Monitor, Notice};
use super::open::open_named;
use super::options::LockOptions;
use super::report::CleanReport;
use super::site::Site;
use super::stop::stop_pair;
use super::temp::{self, TempState};
use crate::model::escape::printable;
use crate::model::lock_file::SourceNote;
use crate::model::names::{Names, UserId};
use crate::remote::Connector;

/// With `force` also another user's or a living run's, which is said as a warning. `no_lock`
/// for servers that have none.
pub async fn clean(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    user: UserId,
    holder: String,
    force: bool,
    no_lock: bool,
    monitor: Arc<dyn Monitor>,
) -> Result<CleanReport, Failure> {
    // The switch is kept, so that nothing is ever stopped.
    let (_switch, stop) = stop_pair();
    let mut link = Link::new(connector, monitor.clone(), stop.clone());
    let (site, _) = open_named(&mut link, &destination, &user).await?;
    let lock = lock::look(site.files.as_ref(), &site.names, &site.host).await?;
    let owner = other_owner(&site, lock.as_ref(), force, &monitor)?;
    let own = temp::read(&site, Phase::Clean).await?;
    let theirs = match &owner {
        Some(owner) => {
            let names = Names::new(site.names.target(), owner);
            let site = site.named(names);
            let state = temp::read(&site, Phase::Clean).await?;
            Some((site, state))
        }
        None => None,
    };
    let mut chunks = vouched(&site, own.as_ref())?;
    if let Some((site, state)) = &theirs {
        chunks += vouched(site, state.as_ref())?;
    }
    let mut report = CleanReport {
        target: site.names.target().to_string(),
        removed_chunks: chunks,
        removed_anything: lock.is_some() || own.is_some() || theirs.is_some(),
        forced_owner: owner.as_ref().map(|owner| printable(owner.as_str().as_bytes())),
    };
    if !report.removed_anything {
        report.removed_chunks = 0;
        link.close().await;
        return Ok(report);
    }
    let options =
        LockOptions { wait: super::options::Wait::No, break_lock: force && !no_lock, no_lock, holder };
    let note = SourceNote { name: b"haul clean".to_vec(), identity: String::new() };
    let mut request = Request::default();
    let guard = Guard::acquire(&mut request, &site, note, &options, &monitor, &stop).await?;
    let removing = async {
        guard.fence(&site, &monitor).await?;
        if let Some((site, _)) = &theirs {
            leftovers::remove_all(site, &guard).await?;
            let temp = site.names.temp();
            match site.files.remove_directory(temp).await {
                Err(error) if !error.is_not_found() => {
                    return Err(Failure::remote(Phase::Clean, site.place_of(temp), &error));
                }
                _ => {}
            }
        }
        leftovers::remove_all(&site, &guard).await
    };
    let removed = guard.watch(removing).await;
    let released = guard.release(link.files()).await;
    link.close().await;
    removed.and(released)?;
    Ok(report)
}

/// The user whose lock has to be broken, when that is another one.
fn other_owner(
    site: &Site,
    lock: Option<&LockSeen>,
    force: bool,
    monitor: &Arc<dyn Monitor>,
) -> Result<Option<UserId>, Failure> {
    let Some(info) = lock.and_then(LockSeen::info) else { return Ok(None) };
    if info.user == site.names.user().as_str() {
        return Ok(None);
    }
    let (user, holder) = (printable(info.user.as_bytes()), printable(info.holder.as_bytes()));
    if !force {
        return Err(Failure::new(
            FailureKind::Locked,
            Phase::Clean,
            site.place(),
            format!("the upload belongs to {user} ({holder})"),
        )
        .next_step("ask them, or use --force to remove it all the same"));
    }
    let text = format!("{}: removing the upload of {user} ({holder}) by force", site.place());
    monitor.notice(Notice { level: Level::Warning, text });
    // An id that no name can hold has no temp directory.
    Ok(UserId::new(&info.user).ok())
}

/// The number of chunks in a temp directory that is haul's; one that is not is refused.
fn vouched(site: &Site, state: Option<&TempState>) -> Result<u64, Failure> {
    let Some(state) = state else { return Ok(0) };
    let refuse = |cause: String| {
        Failure::new(FailureKind::Failed, Phase::Clean, site.place_of(site.names.temp()), cause)
            .next_step("look at it, and remove by hand what is not needed")
    };
    if let Some(name) = state.foreign.first() {
        return Err(refuse(format!("haul did not make {} in it, so nothing is removed", printable(name))));
    }
    let chunks = state.stored.len() + state.receipts.len();
    let mine = state
        .record
        .as_ref()
        .is_some_and(|record| record.name() == printable(site.names.target().file_name()));
    if chunks > 0 && !mine && state.manifest.is_none() && !state.of_other_version {
        return Err(refuse(
            "no record of haul's vouches for what is in it, so nothing is removed".to_owned(),
        ));
    }
    let merged = state.record.as_ref().map_or(0, |record| record.merged_chunks());
    Ok(chunks as u64 + merged)
}
