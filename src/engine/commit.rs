//! Puts the verified file in place: mode, owner, times → synced → one atomic rename.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::asked::Asked;
use super::failure::{Failure, FailureKind, Phase};
use super::io::{create_with, publish, remove_if_there, sync_if_possible};
use super::job::{JobError, JobLimits, run_script};
use super::lock::{Held, LockKind};
use super::monitor::{Level, Monitor, Notice};
use super::options::PutOptions;
use super::random::run_id;
use super::site::Site;
use crate::model::manifest::{Baseline, Manifest};
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::model::shell::Script;
use crate::remote::files::{Attributes, FileKind, Handle, OpenMode, Owner, SetAttributes, Times};
use crate::remote::{Connection, RemoteError, RemoteErrorKind};

/// How one name comes to replace another on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// `posix-rename@openssh.com`.
    Posix,
    /// The server's plain rename was seen to replace.
    Plain,
    /// `mv -f` by the target's shell was seen to replace.
    Shell,
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
    /// How many bytes it has. Not set but looked at, before the rename and after it.
    pub size: u64,
    /// What has to be set, and not only should.
    pub asked: Asked,
}

impl Dress {
    /// A replaced file keeps its mode and owner; a new one gets the source's mode under
    /// the target's umask. `source_times` is `None` where only the manifest is there.
    pub fn new(
        mode: u32,
        options: &PutOptions,
        manifest: &Manifest,
        source_times: Option<Times>,
        asked: Asked,
        existing: Option<Attributes>,
    ) -> Dress {
        let modified = u32::try_from(manifest.source.identity.modified_ns / 1_000_000_000).unwrap_or(0);
        let times = source_times.unwrap_or(Times { accessed: modified, modified });
        Dress {
            mode: Some(mode),
            owner: existing.and_then(|existing| existing.owner),
            times: options.preserve.then_some(times),
            size: manifest.geometry().size(),
            asked,
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
            // What an earlier attempt asked for may still be carried out.
            let path = run.directory().join(format!("umask.{}", run_id()?));
            let umask = find_umask(site, &path).await.map_err(site.failed(Phase::Commit))?;
            Ok(source_mode & 0o777 & !umask)
        }
    }
}

/// What the committed file got, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dressed {
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
}

/// Finds out how a file can be replaced here, by trying it on private names. Fails where
/// nothing does it atomically and that was not allowed.
pub async fn prove_replace(
    site: &Site,
    run: &RunNames,
    options: &PutOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Replace, Failure> {
    if site.files.features().posix_rename {
        return Ok(Replace::Posix);
    }
    let failed = site.failed(Phase::Survey);
    let files = site.files.as_ref();
    let (from, onto) = (run.directory().join("replace.1"), run.directory().join("replace.2"));
    for (path, content) in [(&from, &b"new"[..]), (&onto, b"old one")] {
        let handle = create_with(files, path, Bytes::from_static(content), 0o600).await.map_err(&failed)?;
        files.close(handle).await.map_err(&failed)?;
    }
    let mut found = None;
    match files.rename(&from, &onto).await {
        Ok(()) if was_moved(site, &from, &onto, 3).await.map_err(&failed)? => found = Some(Replace::Plain),
        Err(error) if error.is_link() => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    if found.is_none() && site.shell(monitor).await.is_some() {
        match move_by_shell(site.connection.as_ref(), &from, &onto).await {
            Ok(()) if was_moved(site, &from, &onto, 3).await.map_err(&failed)? => {
                found = Some(Replace::Shell)
            }
            Err(error @ JobError::Lost) => {
                return Err(Failure::new(FailureKind::Link, Phase::Survey, site.place(), error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    for path in [&from, &onto] {
        remove_if_there(files, path).await.map_err(&failed)?;
    }
    if let Some(found) = found {
        return Ok(found);
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

/// Whether a move of a file of `size` bytes did what was asked.
async fn was_moved(site: &Site, from: &RemotePath, to: &RemotePath, size: u64) -> Result<bool, RemoteError> {
    let (from, to) = tokio::join!(site.files.lstat(from), site.files.lstat(to));
    let gone = match from {
        Err(error) if error.is_not_found() => true,
        Err(error) if error.is_link() => return Err(error),
        Ok(_) | Err(_) => false,
    };
    match to {
        Ok(attributes) => Ok(gone && attributes.size.is_none_or(|there| there == size)),
        Err(error) if error.is_link() => Err(error),
        Err(_) => Ok(false),
    }
}

/// `mv` into a directory would not replace it. Both paths are absolute.
const MOVE: &str = r#"
[ -f "$from" ] && [ ! -d "$to" ] && exec mv -f "$from" "$to"
"#;
/// A rename takes no time; a disk that sleeps may.
const MOVE_LIMIT: Duration = Duration::from_secs(30);
const MOVE_OUTPUT_MAX_BYTES: usize = 4096;

/// Whatever it says, look afterwards.
async fn move_by_shell(
    connection: &dyn Connection,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<(), JobError> {
    let script = Script::new(&[MOVE]).set("from", from.as_bytes()).set("to", to.as_bytes());
    let limits =
        JobLimits { timeout: Some(MOVE_LIMIT), silence: None, max_output_bytes: MOVE_OUTPUT_MAX_BYTES };
    run_script(connection, &script, limits).await.map(drop)
}

/// The file mode creation mask of the target's server, found by creating a file.
async fn find_umask(site: &Site, path: &RemotePath) -> Result<u32, RemoteError> {
    let files = site.files.as_ref();
    let handle = files.open(path, OpenMode::CREATE, Some(0o777)).await?;
    let (seen, removed) = if files.features().in_order {
        files.close_unheard(handle).await?;
        tokio::join!(biased; files.lstat(path), files.remove(path))
    } else {
        files.close(handle).await?;
        (files.lstat(path).await, files.remove(path).await)
    };
    removed?;
    Ok(!seen?.mode.unwrap_or(0o644) & 0o777)
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

/// What a commit needs to have open.
pub struct Ground {
    merged: RemotePath,
    now: Attributes,
    /// Where the server syncs.
    handle: Option<Handle>,
    directory: Option<Handle>,
}

impl Ground {
    /// With `merged` complete. Opened before the mode is set, which may forbid it; for reading
    /// too, since some servers empty what is opened for writing alone.
    pub async fn lay(site: &Site, merged: &RemotePath) -> Result<Ground, Failure> {
        let failed = site.failed(Phase::Commit);
        let files = site.files.as_ref();
        let parent = site.names.target().parent();
        let (now, handle, directory) = if files.features().fsync {
            let (now, handle, directory) = tokio::join!(
                files.lstat(merged),
                files.open(merged, OpenMode::READ_WRITE, None),
                files.open(&parent, OpenMode::READ, None)
            );
            // Not every server opens directories.
            (now, Some(handle.map_err(&failed)?), directory.ok())
        } else {
            (files.lstat(merged).await, None, None)
        };
        Ok(Ground { merged: merged.clone(), now: now.map_err(&failed)?, handle, directory })
    }

    /// Of the merged file; `None` where the server does not tell.
    pub fn size(&self) -> Option<u64> {
        self.now.size
    }

    /// When there is nothing to commit.
    pub async fn leave(self, site: &Site) -> Result<(), Failure> {
        for handle in [self.handle, self.directory].into_iter().flatten() {
            site.files.close_unheard(handle).await.map_err(site.failed(Phase::Commit))?;
        }
        Ok(())
    }
}

/// The last steps. When the link dies here, the rename may or may not have happened: look
/// whether `merged` still has its name.
pub async fn commit(
    site: &Site,
    held: &Held,
    ground: Ground,
    before: Baseline,
    replace: Replace,
    dress: Dress,
    monitor: &dyn Monitor,
) -> Result<Dressed, Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let Ground { merged, now, handle, directory } = ground;
    let merged = &merged;
    let sync_and_close = async {
        let Some(handle) = handle else { return (Ok(()), Ok(())) };
        if files.features().in_order {
            tokio::join!(biased; sync_if_possible(files, &handle), files.close(handle.clone()))
        } else {
            let synced = sync_if_possible(files, &handle).await;
            (synced, files.close(handle).await)
        }
    };
    let preparing = prepare(site, merged, now, dress, monitor);
    let looking = async { tokio::join!(held.check(files), files.lstat(merged), target_now(site)) };
    let (prepared, (synced, closed), (checked, standing, now)) =
        if files.features().in_order && one_step(now, dress) {
            tokio::join!(biased; preparing, sync_and_close, looking)
        } else {
            (preparing.await, sync_and_close.await, looking.await)
        };
    closed.and(synced).map_err(&failed)?;
    let dressed = prepared?;
    checked?;
    let (now, attributes) = now?;
    if now != before || attributes.is_some_and(|a| !matches!(a.kind, FileKind::File | FileKind::Unknown)) {
        return Err(appeared(site, before));
    }
    if let Some(size) = standing.map_err(&failed)?.size
        && size != dress.size
    {
        let cause = format!(
            "the merged file has {size} bytes now and had {} when it was verified; the target was not touched",
            dress.size
        );
        return Err(Failure::new(FailureKind::Verification, Phase::Commit, site.place(), cause)
            .next_step("run the same command again"));
    }
    let proven_link = held.kind() == LockKind::Linked;
    let moved = put_in_place(site, merged, before, replace, dress.size, proven_link).await?;
    let unlinking = async {
        match moved {
            Moved::Renamed => Ok(()),
            Moved::Linked => files.remove(merged).await.map_err(&failed),
        }
    };
    let looking = check_in_place(site, merged, dress.size);
    let syncing = sync_directory(site, directory, monitor);
    let (unlinked, committed, ()) = if files.features().in_order {
        tokio::join!(biased; unlinking, looking, syncing)
    } else {
        let unlinked = unlinking.await;
        let (committed, ()) = tokio::join!(looking, syncing);
        (unlinked, committed, ())
    };
    unlinked.and(committed).map(|()| dressed)
}

/// Whether the file gets what it should in one request at most.
fn one_step(now: Attributes, dress: Dress) -> bool {
    let same = |kept| now.owner.is_none_or(|now| now == kept);
    !dress.asked.asks_owner() && dress.owner.is_none_or(same)
}

/// A rename was answered with OK. There are servers that say so and move nothing, or not
/// all of it: what stands at the target is looked at before anybody is told of a success.
async fn check_in_place(site: &Site, merged: &RemotePath, size: u64) -> Result<(), Failure> {
    let there = match look_in_place(site, merged, size).await {
        // One refusal may be a server's bad moment.
        Err(error) if !error.is_link() => look_in_place(site, merged, size).await,
        looked => looked,
    };
    let Some(there) = there.map_err(site.failed(Phase::Commit))? else { return Ok(()) };
    let cause = format!("the server said that {size} bytes were put in place, but {there}");
    Err(Failure::new(FailureKind::Verification, Phase::Commit, site.place(), cause)
        .next_step("look at the target, and run the same command again"))
}

/// What contradicts that a file of `size` bytes stands at the target, and only there.
async fn look_in_place(site: &Site, merged: &RemotePath, size: u64) -> Result<Option<String>, RemoteError> {
    let (from, to) = tokio::join!(site.files.lstat(merged), site.files.lstat(site.names.target()));
    match to {
        Ok(attributes) => match attributes.size {
            Some(there) if there != size => return Ok(Some(format!("a file of {there} bytes is there"))),
            _ => {}
        },
        Err(error) if error.is_not_found() => return Ok(Some("nothing is there".to_owned())),
        Err(error) => return Err(error),
    }
    match from {
        Ok(_) => Ok(Some("the merged file still has its own name".to_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How the file came to the target.
enum Moved {
    Renamed,
    /// Its private name is still to be removed.
    Linked,
}

async fn put_in_place(
    site: &Site,
    merged: &RemotePath,
    before: Baseline,
    replace: Replace,
    size: u64,
    proven_link: bool,
) -> Result<Moved, Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let target = site.names.target();
    if before == Baseline::Absent {
        // A link fails where something has appeared in this very moment.
        if files.features().hard_link {
            match files.hard_link(merged, target).await {
                Ok(()) if proven_link => return Ok(Moved::Linked),
                // There are servers that say OK and link nothing: the one name that there is
                // of the file stays until the other is seen.
                Ok(()) => match files.lstat(target).await {
                    Ok(linked) if linked.size.is_none_or(|linked| linked == size) => {
                        return Ok(Moved::Linked);
                    }
                    Err(error) if error.is_link() => return Err(failed(error)),
                    Ok(_) | Err(_) => {}
                },
                Err(error) if error.is_link() || error.is_not_found() => return Err(failed(error)),
                Err(_) if files.lstat(target).await.is_ok() => return Err(appeared(site, before)),
                Err(_) => {}
            }
        }
        return files.rename(merged, target).await.map_err(&failed).map(|()| Moved::Renamed);
    }
    let moved = match replace {
        Replace::Posix => files.rename_over(merged, target).await.map_err(&failed),
        Replace::Plain => files.rename(merged, target).await.map_err(&failed),
        Replace::Shell => match move_by_shell(site.connection.as_ref(), merged, target).await {
            Ok(()) => Ok(()),
            // It may have happened, or still happen: the next attempt looks.
            Err(error) => Err(Failure::new(FailureKind::Link, Phase::Commit, site.place(), error)),
        },
        Replace::RemoveFirst => publish(files, merged, target).await.map_err(&failed),
    };
    moved.map(|()| Moved::Renamed)
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
    now: Attributes,
    dress: Dress,
    monitor: &dyn Monitor,
) -> Result<Dressed, Failure> {
    let failed = site.failed(Phase::Commit);
    let files = site.files.as_ref();
    let mut owner = now.owner;
    if dress.asked.asks_owner() {
        owner = Some(give_away(site, merged, now.owner, dress, monitor).await?);
    } else if let Some(kept) = dress.owner
        && now.owner.is_some_and(|now| now != kept)
    {
        owner = match set_owner(site, merged, kept).await {
            Ok(()) => Some(kept),
            Err(error) if error.is_link() => return Err(failed(error)),
            Err(_) => keep_group(site, merged, now.owner, kept, monitor).await?,
        };
    }
    let rest = SetAttributes { mode: dress.mode, times: dress.times, ..Default::default() };
    if rest == SetAttributes::default() {
        return Ok(Dressed { mode: now.mode, owner });
    }
    match files.set_attributes(merged, rest).await {
        Ok(()) => Ok(Dressed { mode: dress.mode.or(now.mode), owner }),
        Err(error) if matches!(error.kind, RemoteErrorKind::LinkLost | RemoteErrorKind::NotFound) => {
            Err(failed(error))
        }
        Err(error) if dress.asked.mode.is_some() => Err(failed(error)),
        Err(error) => {
            warn(site, monitor, format!("mode or times could not be set: {error}"));
            Ok(Dressed { mode: now.mode, owner })
        }
    }
}

async fn set_owner(site: &Site, path: &RemotePath, owner: Owner) -> Result<(), RemoteError> {
    site.files.set_attributes(path, SetAttributes { owner: Some(owner), ..Default::default() }).await
}

/// The owner that was asked for, or an error; of a replaced file's owner, what can be kept.
async fn give_away(
    site: &Site,
    merged: &RemotePath,
    now: Option<Owner>,
    dress: Dress,
    monitor: &dyn Monitor,
) -> Result<Owner, Failure> {
    let failed = site.failed(Phase::Commit);
    let now = now.ok_or_else(|| {
        Failure::new(
            FailureKind::Failed,
            Phase::Commit,
            site.place(),
            "this server tells no owner of a file, so none can be set",
        )
    })?;
    let wanted = dress.asked.owner_from(dress.owner.unwrap_or(now));
    if wanted == now {
        return Ok(now);
    }
    match set_owner(site, merged, wanted).await {
        Ok(()) => return Ok(wanted),
        Err(error) if error.is_link() => return Err(failed(error)),
        Err(_) => {}
    }
    let only_asked = dress.asked.owner_from(now);
    if only_asked != now {
        set_owner(site, merged, only_asked).await.map_err(|error| {
            failed(error).next_step(format!(
                "this account may not give a file to {}:{}; the target was not touched",
                only_asked.uid, only_asked.gid
            ))
        })?;
    }
    if only_asked != wanted {
        warn(site, monitor, "owner or group of the replaced file could not be kept".to_string());
    }
    Ok(only_asked)
}

/// An account that may not give a file away may still set its group to one of its own.
async fn keep_group(
    site: &Site,
    merged: &RemotePath,
    now: Option<Owner>,
    wanted: Owner,
    monitor: &dyn Monitor,
) -> Result<Option<Owner>, Failure> {
    let uid = now.map_or(wanted.uid, |now| now.uid);
    let group_only = Owner { uid, gid: wanted.gid };
    let mut owner = Some(group_only);
    let what = match set_owner(site, merged, group_only).await {
        Ok(()) if uid == wanted.uid => return Ok(owner),
        Ok(()) => format!("the owner {} of the replaced file could not be kept", wanted.uid),
        Err(error) if error.is_link() => return Err(Failure::remote(Phase::Commit, site.place(), &error)),
        Err(_) => {
            owner = now;
            format!("owner and group ({}:{}) of the replaced file could not be kept", wanted.uid, wanted.gid)
        }
    };
    warn(site, monitor, what);
    Ok(owner)
}

/// So that the rename outlives a power cut, where the server syncs directories.
async fn sync_directory(site: &Site, directory: Option<Handle>, monitor: &dyn Monitor) {
    let Some(directory) = directory else { return };
    let synced = site.files.sync(&directory).await;
    if let Err(error) = synced.and(site.files.close_unheard(directory).await) {
        monitor.notice(Notice {
            level: Level::Detail,
            text: format!("{}: the directory could not be synced: {error}", site.place()),
        });
    }
}

fn warn(site: &Site, monitor: &dyn Monitor, what: String) {
    monitor.notice(Notice { level: Level::Warning, text: format!("{}: {what}", site.place()) });
}
