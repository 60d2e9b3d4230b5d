//! Proves that the merged file is the source, and finds the chunks that are not.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::hash::{By, by_target, hash_on_target};
use super::io::read_range;
use super::monitor::Monitor;
use super::options::VerifyMethod;
use super::report::VerifiedBy;
use super::site::Site;
use crate::model::checksum::Checksum;
use crate::model::manifest::Manifest;
use crate::model::remote_path::RemotePath;
use crate::remote::files::{OpenMode, SetAttributes};

/// What verifying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    Good(VerifiedBy),
    /// These chunks of the merged file are not the source's.
    Damaged(Vec<u64>),
}

/// The merged file, complete.
pub struct Merged<'a> {
    pub path: &'a RemotePath,
    /// As seen just now; `None` where the server does not tell.
    pub size: Option<u64>,
    /// What was hashed along with the upload: the first bytes, as many as there should be.
    pub hashed: Option<Checksum>,
}

/// Compares the merged file with what the manifest says of the source.
pub async fn verify(
    site: &Site,
    merged: Merged<'_>,
    manifest: &Manifest,
    method: VerifyMethod,
    monitor: &Arc<dyn Monitor>,
) -> Result<Verified, Failure> {
    let Merged { path, size: found, hashed } = merged;
    let size = manifest.geometry().size();
    let (kind, expected) = (manifest.method(), checksum_of(site, manifest)?);
    if found.is_some_and(|found| found > size) {
        // What follows the last chunk is nobody's.
        let cut = SetAttributes { size: Some(size), ..SetAttributes::default() };
        site.files.set_attributes(path, cut).await.map_err(site.failed(Phase::Verify))?;
    }
    if found.is_none_or(|found| found >= size) {
        if method == VerifyMethod::Size {
            return Ok(Verified::Good(VerifiedBy::Size));
        }
        if hashed == Some(expected) {
            return Ok(Verified::Good(by_target(kind)));
        }
        let hashed = hash_on_target(site, path, size, kind, By::Either, Phase::Verify, monitor);
        let (found, by) = hashed.await?;
        if found == expected {
            return Ok(Verified::Good(by));
        }
    }
    let damaged = damaged_chunks(site, path, manifest).await?;
    if !damaged.is_empty() {
        return Ok(Verified::Damaged(damaged));
    }
    // What is read back is right: the program on the target hashed something else.
    let hashed = hash_on_target(site, path, size, kind, By::Readback, Phase::Verify, monitor);
    let (found, by) = hashed.await?;
    if found == expected {
        return Ok(Verified::Good(by));
    }
    Err(Failure::new(
        FailureKind::Verification,
        Phase::Verify,
        site.place_of(path),
        format!("the merged file's {kind} is {found}, the source's is {expected}"),
    )
    .next_step("run the same command again; if it stays so, look at the target's disk"))
}

fn checksum_of(site: &Site, manifest: &Manifest) -> Result<Checksum, Failure> {
    manifest.checksum().ok_or_else(|| {
        Failure::new(
            FailureKind::Verification,
            Phase::Verify,
            site.place(),
            "the source's checksum is not known yet, since not all of it was read",
        )
        .next_step("run haul put again with the source")
    })
}

/// Reads the merged file back, chunk by chunk, each proven from the state before it.
async fn damaged_chunks(site: &Site, path: &RemotePath, manifest: &Manifest) -> Result<Vec<u64>, Failure> {
    let failed = site.failed(Phase::Verify);
    let geometry = manifest.geometry();
    let handle = site.files.open(path, OpenMode::READ, None).await.map_err(&failed)?;
    let mut damaged = Vec::new();
    for n in 1..=geometry.chunks() {
        let Some(mut chain) = manifest.chain_before(n) else { break };
        let read = read_range(&site.files, &handle, geometry.range(n), |part| chain.update(&part)).await;
        if let Err(error) = read {
            // The read's error is the one that counts.
            let _ = site.files.close(handle).await;
            return Err(failed(error));
        }
        if !manifest.agrees(n, &chain) {
            damaged.push(n);
        }
    }
    site.files.close(handle).await.map_err(&failed)?;
    Ok(damaged)
}
