//! Puts the verified file in place: mode, owner, times → synced → one atomic rename.

use super::failure::{Failure, FailureKind, Phase};
use super::io::{publish, sync_if_possible};
use super::lock::Held;
use super::monitor::{Level, Monitor, Notice};
use super::options::PutOptions;
use super::site::Site;
use crate::model::manifest::{Baseline, Manifest};
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::remote::files::{Attributes, FileKind, OpenMode, Owner, SetAttributes, Times};
use crate::remote::{RemoteError, RemoteErrorKind};

/// How one name comes to replace another on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// `posix-rename@openssh.com`.
    Posix,
    /// The server's plain rename was seen to replace.
    Plain,
    /// Remove, then rename, as `--non-atomic-replace` allows.
    RemoveFirst,
}

/// What the committed file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dress {
    pub mode: Option<u32>,
    /// The replaced file's, kept where the account may.
    pub owner: Option<Owner>,
    pub times: Option<Times>,
}

impl Dress {
    /// A replaced file keeps its mode and owner; a new one gets the source's mode under
    /// the target's umask. `source_times` is `None` where only the manifest is there.
    pub fn new(
        mode: u32,
        options: &PutOptions,
        manifest: &Manifest,
        source_times: Option<Times>,
        existing: Option<Attributes>,
    ) -> Dress {
        let modified = u32::try_from(manifest.source.identity.modified_ns / 1_000_000_000).unwrap_or(0);
        let times = source_times.unwrap_or(Times { accessed: modified, modified });
        Dress {
            mode: Some(mode),
            owner: existing.and_then(|existing| existing.owner),
            times: options.preserve.then_some(times),
        }
    }
}

/// The mode that the committed file gets.
pub async fn mode_of(
    site: &Site,
    run: &RunNames,
    options: &PutOptions,
    source_mode: u32,
    existing: Option<Attributes>,
) -> Result<u32, Failure> {
    match (options.chmod, options.preserve, existing.and_then(|existing| existing.mode)) {
        (Some(mode), _, _) => Ok(mode),
        (None, true, _) => Ok(source_mode),
        (None, false, Some(mode)) => Ok(mode),
        (None, false, None) => {
            let umask = find_umask(site, run).await.map_err(site.failed(Phase::Commit))?;
            Ok(source_mode & 0o777 & !umask)
        }
    }
}

/// Finds out how a file can be replaced here, by trying it on private names. Fails where
/// nothing does it atomically and that was not allowed.
pub async fn prove_replace(site: &Site, run: &RunNames, options: &PutOptions) -> Result<Replace, Failure> {
    if site.files.features().posix_rename {
        return Ok(Replace::Posix);
    }
    let failed = site.failed(Phase::Survey);
    let files = site.files.as_ref();
    let (from, onto) = (run.directory().join("replace.1"), run.directory().join("replace.2"));
    for path in [&from, &onto] {
        let handle = files.open(path, OpenMode::CREATE, Some(0o600)).await.map_err(&failed)?;
        files.close(handle).await.map_err(&failed)?;
    }
    let replaced = match files.rename(&from, &onto).await {
        Ok(()) => true,
        Err(error) if error.is_link() => return Err(failed(error)),
        Err(_) => false,
    };
    for path in [&from, &onto] {
        super::io::remove_if_there(files, path).await.map_err(&failed)?;
    }
    if replaced {
        return Ok(Replace::Plain);
    }
    if options.non_atomic_replace {
        return Ok(Replace::RemoveFirst);
    }
    Err(Failure::new(
        FailureKind::Exists,
        Phase::Survey,
        site.place(),
        "this server has no rename that replaces a file",
    )
    .next_step("use --non-atomic-replace, or remove the old file first"))
}

/// The file mode creation mask of the target's server, found by creating a file.
async fn find_umask(site: &Site, run: &RunNames) -> Result<u32, RemoteError> {
    let files = site.files.as_ref();
    let path = run.directory().join("umask");
    let handle = files.open(&path, OpenMode::CREATE, Some(0o777)).await?;
    let attributes = files.stat_handle(&handle).await;
    files.close(handle).await?;
    let mode = attributes?.mode.unwrap_or(0o644);
    files.remove(&path).await?;
    Ok(!mode & 0o777)
}

/// Where the target stands against what it was when the upload began.
pub async fn target_now(site: &Site) -> Result<(Baseline, Option<Attributes>), Failure> {
    match site.files.lstat(site.names.target()).await {
        Ok(attributes) => Ok((baseline(&attributes), Some(attributes))),
        Err(error) if error.is_not_found() => Ok((Baseline::Absent, None)),
        Err(error) => Err(Failure::remote(Phase::Survey, site.place(), &error)),
    }
}

pub fn baseline(attributes: &Attributes) -> Baseline {
    Baseline::Present {
        size: attributes.size.unwrap_or(0),
        modified: attributes.times.map_or(0, |times| times.modified),
    }
}

/// The last steps. When the link dies here, the rename may or may not have happened: look
/// whether `merged` still has its name.
pub async fn commit(
    site: &Site,
    held: &Held,
    merged: &RemotePath,
    before: Baseline,
    replace: Replace,
    dress: Dress,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let (handle, prepared) =
        tokio::join!(files.open(merged, OpenMode::WRITE, None), prepare(site, merged, dress, monitor));
    let handle = handle.map_err(&failed)?;
    let synced = match prepared {
        Ok(()) => sync_if_possible(files, &handle).await.map_err(&failed),
        Err(failure) => Err(failure),
    };
    let (closed, checked, now) = tokio::join!(files.close(handle), held.check(files), target_now(site));
    synced?;
    closed.map_err(&failed)?;
    checked?;
    let (now, attributes) = now?;
    if now != before || attributes.is_some_and(|a| !matches!(a.kind, FileKind::File | FileKind::Unknown)) {
        return Err(appeared(site, before));
    }
    let linked = put_in_place(site, merged, before, replace).await?;
    let remove = async { if linked { files.remove(merged).await.map_err(&failed) } else { Ok(()) } };
    let (removed, ()) = tokio::join!(remove, sync_directory(site, monitor));
    removed
}

/// True where the merged file keeps its own name beside the target's.
async fn put_in_place(
    site: &Site,
    merged: &RemotePath,
    before: Baseline,
    replace: Replace,
) -> Result<bool, Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let target = site.names.target();
    if before == Baseline::Absent {
        // A link fails where something has appeared in this very moment.
        if files.features().hard_link {
            match files.hard_link(merged, target).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_link() || error.is_not_found() => return Err(failed(error)),
                Err(_) if files.lstat(target).await.is_ok() => return Err(appeared(site, before)),
                Err(_) => {}
            }
        }
        return files.rename(merged, target).await.map(|()| false).map_err(&failed);
    }
    let replaced = match replace {
        Replace::Posix => files.rename_over(merged, target).await,
        Replace::Plain => files.rename(merged, target).await,
        Replace::RemoveFirst => publish(files, merged, target).await,
    };
    replaced.map(|()| false).map_err(&failed)
}

fn appeared(site: &Site, before: Baseline) -> Failure {
    let cause = match before {
        Baseline::Absent => "a file appeared at the target during the upload and was not replaced",
        Baseline::Present { .. } => "the target changed during the upload and was not replaced",
    };
    Failure::new(FailureKind::Exists, Phase::Commit, site.place(), cause)
        .next_step("look at it and run the same command again: the uploaded chunks are kept")
}

/// Owner before mode: a change of owner takes the set-user-id bit away (chown(2)).
async fn prepare(
    site: &Site,
    merged: &RemotePath,
    dress: Dress,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let now = files.lstat(merged).await.map_err(&failed)?;
    if let Some(owner) = dress.owner
        && now.owner.is_some_and(|now| now != owner)
    {
        match files.set_attributes(merged, SetAttributes { owner: Some(owner), ..Default::default() }).await {
            Ok(()) => {}
            Err(error) if error.is_link() => return Err(failed(error)),
            Err(_) => keep_group(site, merged, now.owner, owner, monitor).await?,
        }
    }
    let rest = SetAttributes { mode: dress.mode, times: dress.times, ..Default::default() };
    if rest == SetAttributes::default() {
        return Ok(());
    }
    match files.set_attributes(merged, rest).await {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind, RemoteErrorKind::LinkLost | RemoteErrorKind::NotFound) => {
            Err(failed(error))
        }
        Err(error) => {
            warn(site, monitor, format!("mode or times could not be set: {error}"));
            Ok(())
        }
    }
}

/// An account that may not give a file away may still set its group to one of its own.
async fn keep_group(
    site: &Site,
    merged: &RemotePath,
    now: Option<Owner>,
    wanted: Owner,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let uid = now.map_or(wanted.uid, |now| now.uid);
    let group_only = SetAttributes { owner: Some(Owner { uid, gid: wanted.gid }), ..Default::default() };
    let what = match site.files.set_attributes(merged, group_only).await {
        Ok(()) if uid == wanted.uid => return Ok(()),
        Ok(()) => format!("the owner {} of the replaced file could not be kept", wanted.uid),
        Err(error) if error.is_link() => return Err(Failure::remote(Phase::Commit, site.place(), &error)),
        Err(_) => {
            format!("owner and group ({}:{}) of the replaced file could not be kept", wanted.uid, wanted.gid)
        }
    };
    warn(site, monitor, what);
    Ok(())
}

/// So that the rename outlives a power cut, where the server syncs directories.
async fn sync_directory(site: &Site, monitor: &dyn Monitor) {
    if !site.files.features().fsync {
        return;
    }
    let synced = async {
        let handle = site.files.open(&site.names.target().parent(), OpenMode::READ, None).await?;
        let synced = site.files.sync(&handle).await;
        site.files.close(handle).await?;
        synced
    };
    if let Err(error) = synced.await {
        monitor.notice(Notice {
            level: Level::Detail,
            text: format!("{}: the directory could not be synced: {error}", site.place()),
        });
    }
}

fn warn(site: &Site, monitor: &dyn Monitor, what: String) {
    monitor.notice(Notice { level: Level::Warning, text: format!("{}: {what}", site.place()) });
}
