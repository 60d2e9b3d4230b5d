//! Whether the target has room, before anything is sent.

use super::failure::{Failure, FailureKind, Phase};
use super::site::Site;
use super::upload::Destination;
use crate::model::plan::Plan;
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteErrorKind;

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
pub async fn explained(site: &Site, failure: Failure, plan: &Plan, sent: u64) -> Failure {
    if failure.kind != FailureKind::Failed {
        return failure;
    }
    let one_chunk = plan.geometry.chunk_size().bytes().min(plan.geometry.size());
    let needed = plan.missing_bytes().saturating_sub(sent).max(one_chunk);
    match check_bytes(site, site.names.temp(), needed).await {
        Err(full) if full.kind == FailureKind::Storage => Failure { phase: failure.phase, ..full },
        // That nothing could be seen explains nothing.
        _ => failure,
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
