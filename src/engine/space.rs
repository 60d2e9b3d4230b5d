//! Whether the target has room, before anything is sent.

use bytes::Bytes;

use super::failure::{Failure, FailureKind, Phase};
use super::io::{remove_if_there, write_all};
use super::site::Site;
use super::upload::Destination;
use crate::model::names::RunNames;
use crate::model::plan::Plan;
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteErrorKind;
use crate::remote::files::OpenMode;

/// Most bytes that are written to find out whether there is room.
const TRIED_BYTES: u64 = 1 << 20;
/// Bytes that stored chunks take beside the merged file.
const STORED_BYTES: u64 = 64 << 20;

/// With the temp directory there. Servers that cannot tell are believed to have room.
pub async fn check(site: &Site, plan: &Plan, destination: &Destination) -> Result<(), Failure> {
    let beside = match destination {
        Destination::Placed { .. } => 0,
        Destination::Stored => STORED_BYTES.min(plan.missing_bytes()),
    };
    check_bytes(site, site.names.temp(), plan.missing_bytes() + beside).await
}

/// SFTP has one word, "Failure", for a full disk and for much else: looks whether that is
/// the reason. `sent` bytes of what the plan misses are on the target by now.
pub async fn explained(site: &Site, run: &RunNames, failure: Failure, plan: &Plan, sent: u64) -> Failure {
    if failure.kind != FailureKind::Failed {
        return failure;
    }
    let one_chunk = plan.geometry.chunk_size().bytes().min(plan.geometry.size());
    if !site.files.features().statvfs {
        return match try_to_write(site, run, one_chunk.min(TRIED_BYTES) as usize).await {
            Some(cause) => Failure::new(FailureKind::Storage, failure.phase, site.place(), cause)
                .next_step("make room and run the same command again"),
            None => failure,
        };
    }
    let needed = plan.missing_bytes().saturating_sub(sent).max(one_chunk);
    match check_bytes(site, site.names.temp(), needed).await {
        Err(full) if full.kind == FailureKind::Storage => Failure { phase: failure.phase, ..full },
        // That nothing could be seen explains nothing.
        _ => failure,
    }
}

/// Where the server tells nothing of its space: whether it still takes a new file of
/// `length` bytes. What does not work is no space, as far as can be seen from here.
async fn try_to_write(site: &Site, run: &RunNames, length: usize) -> Option<String> {
    let files = site.files.as_ref();
    let path = run.directory().join("room");
    let handle = files.open(&path, OpenMode::CREATE, Some(0o600)).await.ok()?;
    let tried = async {
        let written = write_all(files, &handle, 0, Bytes::from(vec![0; length])).await;
        files.close(handle).await.and(written)?;
        files.lstat(&path).await
    }
    .await;
    // What is left of it goes with the next run.
    let _ = remove_if_there(files, &path).await;
    match tried {
        Ok(attributes) if attributes.size.is_none_or(|size| size >= length as u64) => None,
        Ok(_) => Some(format!("no space left: the server does not keep {length} bytes of a new file")),
        Err(error) if error.is_link() || error.is_not_found() => None,
        Err(error) => Some(format!(
            "no space left, as it seems: the server takes no new file of {length} bytes ({error})"
        )),
    }
}

/// Fails where `directory`'s file system is read-only or has less than `needed` bytes.
pub async fn check_bytes(site: &Site, directory: &RemotePath, needed: u64) -> Result<(), Failure> {
    if !site.files.features().statvfs {
        return Ok(());
    }
    let space = match site.files.space(directory).await {
        Ok(space) => space,
        Err(error) if error.kind == RemoteErrorKind::LinkLost => {
            return Err(Failure::remote(Phase::Survey, site.place(), &error));
        }
        Err(_) => return Ok(()),
    };
    let failure = |cause: String| Failure::new(FailureKind::Storage, Phase::Survey, site.place(), cause);
    if space.read_only {
        return Err(failure("the target's file system is read-only".to_owned()));
    }
    // Some servers announce statvfs and answer zeros.
    if space.total_bytes > 0 && space.available_bytes < needed {
        return Err(failure(format!(
            "not enough space: needs {needed} bytes, has {}",
            space.available_bytes
        ))
        .next_step("make room and run the same command again"));
    }
    if space.total_inodes > 0 && space.available_inodes < 16 {
        return Err(failure("no free inodes on the target's file system".to_owned())
            .next_step("remove some files there and run the same command again"));
    }
    Ok(())
}
