//! SHA-256 of a file on the target: by a program there, else by reading it back.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::io::read_range;
use super::job::JobError;
use super::monitor::{Level, Monitor, Notice};
use super::options::PutOptions;
use super::probe::{HashError, hash_file};
use super::report::VerifiedBy;
use super::site::Site;
use crate::model::digest::{Chain, Digest};
use crate::model::remote_path::RemotePath;
use crate::remote::files::{Attributes, OpenMode};

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A program on the target where there is one, else this side.
    Either,
    /// This side, from what it reads back.
    Readback,
}

/// Tells `monitor` of `size` bytes in `phase`, whoever computes.
pub async fn hash_on_target(
    site: &Site,
    path: &RemotePath,
    size: u64,
    by: By,
    phase: Phase,
    monitor: &Arc<dyn Monitor>,
) -> Result<(Digest, VerifiedBy), Failure> {
    let program = match by {
        By::Either => site.shell(monitor).await.and_then(|shell| shell.hash),
        By::Readback => None,
    };
    if let Some(program) = program {
        let mut told = 0;
        let heard = |bytes: u64| {
            monitor.advance(phase, bytes.saturating_sub(told));
            told = told.max(bytes);
        };
        match hash_file(site.connection.as_ref(), program, path, size, heard).await {
            Ok(digest) => {
                monitor.advance(phase, size.saturating_sub(told));
                return Ok((digest, VerifiedBy::Sha256Target));
            }
            Err(HashError::Job(error @ (JobError::Lost | JobError::Silent(_)))) => {
                return Err(Failure::new(FailureKind::Link, phase, site.place_of(path), error));
            }
            // The shell may see another tree than SFTP does; reading back always works.
            Err(error) => {
                let text = format!("{}: reading it back instead: {error}", site.place_of(path));
                monitor.notice(Notice { level: Level::Detail, text });
            }
        }
    }
    let digest = read_back(site, path, size, phase, monitor).await?;
    Ok((digest, VerifiedBy::Sha256Readback))
}

/// Of the file that is replaced, where that was asked for.
pub async fn hash_existing(
    site: &Site,
    existing: Option<Attributes>,
    options: &PutOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Option<Digest>, Failure> {
    let size = existing.and_then(|existing| existing.size);
    let Some(size) = size.filter(|_| options.hash_existing) else { return Ok(None) };
    let hashed = hash_on_target(site, site.names.target(), size, By::Either, Phase::Survey, monitor);
    Ok(Some(hashed.await?.0))
}

async fn read_back(
    site: &Site,
    path: &RemotePath,
    size: u64,
    phase: Phase,
    monitor: &Arc<dyn Monitor>,
) -> Result<Digest, Failure> {
    let failed = |error| Failure::remote(phase, site.place_of(path), &error);
    let handle = site.files.open(path, OpenMode::READ, None).await.map_err(failed)?;
    let mut chain = Chain::new();
    // One byte more than expected is asked for, so that a longer file shows.
    let reached = read_range(&site.files, &handle, 0..size.saturating_add(1), |part| {
        monitor.advance(phase, part.len() as u64);
        chain.update(&part);
    })
    .await;
    let closed = site.files.close(handle).await;
    reached.map_err(failed)?;
    closed.map_err(failed)?;
    Ok(chain.finish())
}
