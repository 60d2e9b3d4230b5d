//! A checksum of a file on the target: by a program there, else by reading it back.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::io::read_range;
use super::job::JobError;
use super::monitor::{Level, Monitor, Notice};
use super::options::PutOptions;
use super::probe::{HashError, hash_file};
use super::report::VerifiedBy;
use super::site::Site;
use crate::model::checksum::{Chain, Checksum, Method};
use crate::model::digest::Digest;
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
    method: Method,
    by: By,
    phase: Phase,
    monitor: &Arc<dyn Monitor>,
) -> Result<(Checksum, VerifiedBy), Failure> {
    let program = match by {
        By::Either => site.program(method, monitor).await,
        By::Readback => None,
    };
    if let Some(program) = program {
        let mut told = 0;
        let heard = |bytes: u64| {
            monitor.advance(phase, bytes.saturating_sub(told));
            told = told.max(bytes);
        };
        match hash_file(site.connection.as_ref(), program, method, path, size, heard).await {
            Ok(checksum) => {
                monitor.advance(phase, size.saturating_sub(told));
                return Ok((checksum, by_target(method)));
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
    let checksum = read_back(site, path, size, method, phase, monitor).await?;
    let by = match method {
        Method::Sha256 => VerifiedBy::Sha256Readback,
        Method::Gmac(_) => VerifiedBy::MacReadback,
        Method::Crc => VerifiedBy::CrcReadback,
    };
    Ok((checksum, by))
}

pub fn by_target(method: Method) -> VerifiedBy {
    match method {
        Method::Sha256 => VerifiedBy::Sha256Target,
        Method::Gmac(_) => VerifiedBy::MacTarget,
        Method::Crc => VerifiedBy::CrcTarget,
    }
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
    let (target, method) = (site.names.target(), Method::Sha256);
    let hashed = hash_on_target(site, target, size, method, By::Either, Phase::Survey, monitor);
    Ok(hashed.await?.0.sha256())
}

async fn read_back(
    site: &Site,
    path: &RemotePath,
    size: u64,
    method: Method,
    phase: Phase,
    monitor: &Arc<dyn Monitor>,
) -> Result<Checksum, Failure> {
    let failed = |error| Failure::remote(phase, site.place_of(path), &error);
    let handle = site.files.open(path, OpenMode::READ, None).await.map_err(failed)?;
    let mut chain = Chain::new(method);
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
